/** Our side of `ops.ts`: each operation as a compiled function of tensors. The list of operations stands in `ops.ts`. */
import { compile, conv2d, dispose, fromTypedArray, loss, nn, synchronize, Tensor, vjp } from "../../src";
import type { Operand, OpSubject } from "./protocol.mjs";

type Op = (...operands: Tensor[]) => Tensor | readonly Tensor[];
type Integers = Tensor<"i32">;

/** f and its product with the last operand, back to the first `differentiable` ones. */
function withBackward(f: (...operands: Tensor[]) => Tensor, differentiable: number): Op {
  return (...operands) => {
    const [rest, cotangent] = [operands.slice(differentiable, -1), operands.at(-1) as Tensor];
    const { value, pullback } = vjp((inputs: Tensor[]) => f(...inputs, ...rest), operands.slice(0, differentiable));
    return [value, ...pullback(cotangent)];
  };
}

const convolution = (x: Tensor, w: Tensor) => conv2d(x, w, { padding: "same" });
const attention = (q: Tensor, k: Tensor, v: Tensor) => nn.attention(q, k, v, { causal: true });

/** (x − mean) / √(variance + 10⁻⁵) · scale + shift, as the layer has it */
function layerNorm(x: Tensor, scale: Tensor, shift: Tensor): Tensor {
  const centred = x.sub(x.mean(-1, { keepDims: true }));
  const variance = centred.square().mean(-1, { keepDims: true });
  return centred.mul(variance.add(1e-5).rsqrt()).mul(scale).add(shift);
}

const OPS: Record<string, Op> = {
  matmul: (a, b) => a.matmul(b),
  matmul_at: (a, b) => a.transpose().matmul(b),
  matmul_bt: (a, b) => a.matmul(b.transpose()),
  elementwise: (x, y) => x.mul(y).add(x).tanh(),
  softmax: (x) => x.softmax(-1),
  softmax_train: withBackward((x) => x.softmax(-1), 1),
  layer_norm: layerNorm,
  layer_norm_train: withBackward(layerNorm, 3),
  cross_entropy_train: withBackward((x, labels) => loss.crossEntropy(x, labels as unknown as Integers) as Tensor, 1),
  conv: convolution,
  conv_input: (x, w, dy) => vjp((x: Tensor) => convolution(x, w), x).pullback(dy),
  conv_weight: (x, w, dy) => vjp((w: Tensor) => convolution(x, w), w).pullback(dy),
  attention,
  attention_train: withBackward(attention, 3),
  sum_0: (x) => x.sum(0),
  sum_1: (x) => x.sum(1),
  sum_all: (x) => x.sum(),
  max_1: (x) => x.max(1),
};

/** One update of all parameters by Adam: θ, m, v, [β₁ᵗ, β₂ᵗ] and gradients → the first four anew. */
function adam(params: Tensor[], firsts: Tensor[], seconds: Tensor[], powers: Tensor[], gradients: Tensor[]) {
  const [beta1, beta2] = [0.9, 0.999];
  const nextPowers = [(powers[0] as Tensor).mul(beta1), (powers[1] as Tensor).mul(beta2)];
  const [correct1, correct2] = nextPowers.map((power) => power.neg().add(1).reciprocal()) as [Tensor, Tensor];
  const at = (list: readonly Tensor[], i: number) => list[i] as Tensor;
  const m = firsts.map((m, i) => m.mul(beta1).add(at(gradients, i).mul(1 - beta1)));
  const v = seconds.map((v, i) =>
    v.mul(beta2).add(
      at(gradients, i)
        .square()
        .mul(1 - beta2),
    ),
  );
  const stepped = params.map((param, i) =>
    param.sub(at(m, i).mul(correct1).mul(1e-3).div(at(v, i).mul(correct2).sqrt().add(1e-8))),
  );
  return [stepped, m, v, nextPowers] as const;
}

function adamSubject(operands: readonly Tensor[]): () => Tensor[] {
  const half = operands.length / 2;
  const gradients = operands.slice(half);
  const update = compile(adam, { donate: [0, 1, 2, 3] });
  const zeros = () => operands.slice(0, half).map((param) => param.mul(0));
  const one = () => fromTypedArray(Float32Array.of(1), []);
  let state = [operands.slice(0, half), zeros(), zeros(), [one(), one()]];
  return () => {
    const [params = [], m = [], v = [], powers = []] = state;
    state = update(params, m, v, powers, gradients).map((list) => [...list]);
    return state[0] ?? [];
  };
}

/** The operation as something to run again and again; results live until the next run. */
export function loadOp(op: string, operands: readonly Operand[]): OpSubject {
  const tensors = operands.map(({ values, shape }) => fromTypedArray(values, [...shape]) as Tensor);
  let results: readonly Tensor[] = [];
  const asList = (value: Tensor | readonly Tensor[]) => (value instanceof Tensor ? [value] : value);
  const f = OPS[op];
  if (f === undefined && op !== "adam") throw new Error(`unknown operation ${op}`);
  const compiled = f === undefined ? undefined : compile(f);
  const update = compiled === undefined ? adamSubject(tensors) : undefined;
  return {
    run() {
      if (update !== undefined) {
        results = update();
        return;
      }
      const before = results;
      results = asList(compiled?.(...tensors) ?? []);
      dispose(before);
    },
    wait: () => synchronize(),
    sums: () => Promise.all(results.map((result) => meanOfAbsolutes(result))),
  };
}

async function meanOfAbsolutes(result: Tensor): Promise<number> {
  const values = await result.data();
  let sum = 0;
  for (const value of values) sum += Math.abs(Number(value));
  return sum / values.length;
}
