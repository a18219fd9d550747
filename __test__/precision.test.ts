/** Mixed precision: what modules compute in, how near a step comes to f32, and what an overflow does. */
import { data, fromTypedArray, loss, newton, nn, optim, type Tensor, tensor, train, trainingStep } from "raphson";
import { describe, expect, it } from "vitest";
import { thrown } from "./thrown";

type Batch = { readonly x: Tensor; readonly y: Tensor };
const EPSILON = { f16: 2 ** -10, bf16: 2 ** -7 } as const;
const HALVES = ["f16", "bf16"] as const;

const numbers = (n: number, seed: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(seed + 1.7 * i));

function batch(n = 16): Batch {
  return { x: fromTypedArray(numbers(n * 4, 1), [n, 4]), y: fromTypedArray(numbers(n * 2, 2), [n, 2]) };
}

function network(): nn.Module {
  const model = nn.sequential(nn.linear(4, 8), nn.layerNorm(8), nn.tanh(), nn.linear(8, 2));
  model.initialize(3);
  return model;
}

const parameters = (model: nn.Module) =>
  model.namedParameters().flatMap(([, parameter]) => Array.from(parameter.value.dataSync()));

/** max |a − b| over the greatest |b| */
function distance(a: readonly number[], b: readonly number[]): number {
  const scale = Math.max(...b.map(Math.abs));
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? 0)))) / scale;
}

describe("what a module computes in", () => {
  it("is the low dtype inside, and f32 outside", () => {
    const seen: string[] = [];
    class Watcher extends nn.Module {
      inner = nn.linear(2, 2);
      override forward(x: Tensor): Tensor {
        const y = this.inner(x);
        seen.push(x.dtype, this.inner.weight.value.dtype, y.dtype);
        return y;
      }
    }
    const model = new Watcher();
    const result = nn.apply(model, {}, { precision: "bf16" }, () => model(tensor([[1, 2]])));
    expect([...seen, result.dtype, model.inner.weight.value.dtype]).toEqual(["bf16", "bf16", "bf16", "f32", "f32"]);
    nn.apply(model, {}, {}, () => model(tensor([[1, 2]])));
    expect(seen.slice(3)).toEqual(["f32", "f32", "f32"]);
  });

  it("leaves statistics in f32: a batch whose squares f16 cannot hold is normalised", () => {
    for (const norm of [nn.layerNorm(4), nn.rmsNorm(4), nn.batchNorm1d(4), nn.groupNorm(2, 4)]) {
      const x = tensor([
        [300, -400, 500, 100],
        [-200, 350, 20, -450],
      ]);
      const run = (precision: "f32" | "f16") =>
        nn.apply(norm, {}, { precision, training: true, onStates: () => undefined }, () => norm(x));
      const [low, high] = [run("f16"), run("f32")].map((t) => Array.from(t.dataSync()));
      expect(distance(low as number[], high as number[]), norm.describe()).toBeLessThan(EPSILON.f16);
    }
  });

  it("leaves attention's softmax in f32, where a query that sees nothing gets finite numbers", () => {
    const q = fromTypedArray(numbers(8, 4), [2, 4]).cast("f16") as unknown as Tensor;
    const mask = tensor([
      [true, false],
      [false, false],
    ]);
    const y = nn.attention(q, q, q, { mask }) as unknown as Tensor<"f16">;
    expect(y.dtype).toBe("f16");
    expect(y.isFinite().all().item()).toBe(true);
  });
});

describe("a training step", () => {
  const lossOf = ({ x, y }: Batch, model: nn.Module) => loss.mse(model(x), y);

  async function after(steps: number, precision: "f32" | "f16" | "bf16", accumulate = 1) {
    const model = network();
    using step = trainingStep({
      model,
      loss: lossOf,
      optimizer: optim.sgd({ learningRate: 0.1 }),
      precision,
      accumulate,
    });
    const start = parameters(model);
    const reports = [];
    for (let i = 0; i < steps; i++) reports.push(await step.step(...Array.from({ length: accumulate }, () => batch())));
    const moved = parameters(model).map((value, i) => value - (start[i] ?? 0));
    return { reports, moved, dtypes: new Set(model.namedParameters().map(([, p]) => p.value.dtype)) };
  }

  it.each(HALVES)("in %s moves the f32 parameters as f32 does, within the format's error", async (precision) => {
    for (const accumulate of [1, 3]) {
      const [low, high] = [await after(1, precision, accumulate), await after(1, "f32", accumulate)];
      expect([...low.dtypes]).toEqual(["f32"]);
      // The gradient passes two products, a normalisation and a tanh forwards and backwards: some ten roundings of ε/2.
      const error = distance(low.moved, high.moved);
      expect(error).toBeLessThan(5 * EPSILON[precision]);
      expect(error).toBeGreaterThan(EPSILON[precision] / 1000); // something was rounded
      const [a, b] = [low.reports[0]?.loss ?? 0, high.reports[0]?.loss ?? 1];
      expect(Math.abs(a - b) / b).toBeLessThan(2 * EPSILON[precision]);
    }
  });

  it("scales the loss for f16 alone", async () => {
    expect((await after(1, "f16")).reports[0]).toMatchObject({ lossScale: 65536, overflow: false, accepted: true });
    expect((await after(1, "bf16")).reports[0]).not.toHaveProperty("lossScale");
  });

  it("keeps gradients that f16 alone would lose", async () => {
    // ∂loss/∂y = 1e-6·2(y − t)/n lies below the least f16 (6e-8) for most elements
    const tiny = ({ x, y }: Batch, model: nn.Module) => loss.mse(model(x), y).mul(1e-6);
    const moved = async (precision: "f32" | "f16") => {
      const model = network();
      using step = trainingStep({ model, loss: tiny, optimizer: optim.sgd({ learningRate: 1e5 }), precision });
      const start = parameters(model);
      await step.step(batch());
      return parameters(model).map((value, i) => value - (start[i] ?? 0));
    };
    expect(distance(await moved("f16"), await moved("f32"))).toBeLessThan(5 * EPSILON.f16);
  });

  it.each([
    ["next", newton(optim.adamW())],
    ["retsinas", newton(optim.momentum(), { rule: "retsinas" })],
    ["exact", newton(optim.sgd(), { rule: "exact" })],
    ["a constant", optim.momentum({ learningRate: 0.01 })],
  ] as const)(
    "with the rule %s leaves a step out whose gradients overflow, and halves the scale",
    async (_, optimizer) => {
      const model = network();
      // times 65536, gradients of this are beyond the greatest f16, and times 32768 and 16384 some still are
      const large = ({ x, y }: Batch, model: nn.Module) => loss.mse(model(x), y).mul(200);
      using step = trainingStep({ model, loss: large, optimizer, precision: "f16" });
      const start = parameters(model);
      const first = await step.step(batch());
      expect(first).toMatchObject({ lossScale: 65536, overflow: true, accepted: false });
      expect(Number.isFinite(first.loss)).toBe(true);
      expect(first.nextAlpha).toBe(first.alpha);
      expect(parameters(model), "bit for bit").toEqual(start);
      let report = first;
      let scale = 65536;
      while (report.overflow === true && scale > 1) {
        report = await step.step(batch());
        scale /= 2;
        expect(report.lossScale).toBe(scale);
      }
      expect(report).toMatchObject({ overflow: false, accepted: true });
      expect(parameters(model)).not.toEqual(start);
    },
  );

  it("leaves out a step of several batches if one of them overflows", async () => {
    const model = network();
    const weighted = ({ x, y }: Batch, model: nn.Module) => loss.mse(model(x), y);
    using step = trainingStep({
      model,
      loss: weighted,
      optimizer: optim.sgd({ learningRate: 0.1 }),
      precision: "f16",
      accumulate: 2,
    });
    const start = parameters(model);
    const far = { ...batch(), y: batch().y.mul(1e4) };
    expect(await step.step(far, batch())).toMatchObject({ overflow: true, accepted: false });
    expect(parameters(model)).toEqual(start);
    expect(await step.step(batch(), batch())).toMatchObject({ lossScale: 32768, overflow: false });
    expect(parameters(model)).not.toEqual(start);
  });

  it("doubles the scale after 2,000 steps without overflow, and begins to count anew", async () => {
    const model = nn.linear(1, 1);
    model.initialize(0);
    const scales: (number | undefined)[] = [];
    using step = trainingStep({
      model,
      loss: ({ x, y }: Batch, model) => loss.mse(model(x), y).mul(1e-3),
      optimizer: optim.sgd({ learningRate: 1e-3 }),
      precision: "f16",
      onReport: (report) => scales.push(report.lossScale),
    });
    const one = { x: tensor([[1]]), y: tensor([[0.5]]) };
    for (let i = 0; i < 2002; i++) await step.run(one);
    await step.drain();
    expect(scales.slice(0, 2000).every((scale) => scale === 65536)).toBe(true);
    expect(scales.slice(2000)).toEqual([131072, 131072]);
  });

  it("refuses other names", () => {
    const wrong = { model: network(), loss: lossOf, optimizer: optim.sgd({ learningRate: 1 }), precision: "f8" };
    expect(thrown(() => trainingStep(wrong as never)).message).toMatch(/"f32", "f16" or "bf16"/);
  });
});

it.each(HALVES)("train in %s learns what f32 learns", async (precision) => {
  const x = numbers(256 * 2, 5);
  const y = Float32Array.from({ length: 256 }, (_, i) => 0.5 * (x[2 * i] ?? 0) - 0.25 * (x[2 * i + 1] ?? 0));
  const points = data.arrays({ x: { data: x, shape: [256, 2] }, y: { data: y, shape: [256, 1] } });
  const model = nn.sequential(nn.linear(2, 16), nn.tanh(), nn.linear(16, 1));
  const run = await train({
    model,
    loss: ({ x, y }, model) => loss.mse(model(x), y),
    optimizer: newton(optim.adamW()),
    data: points.batches(32, { shuffle: true, seed: 1 }),
    evaluate: { data: points.batches(256) },
    epochs: 15,
    precision,
  });
  expect(run.evaluations.at(-1)?.loss).toBeLessThan(5e-3);
});
