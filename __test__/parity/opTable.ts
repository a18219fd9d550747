/**
 * How each entry of ops.json is computed here. Names are those of the generator; most are methods of a tensor.
 */

import { concatenate, einsum, eye, kron, linalg, stack, type Tensor, tensordot, where } from "../../src";
import type { Runner } from "./format";

type Args = Record<string, number>;
type Method = (...args: unknown[]) => Tensor;

/** The method `name` of the first input, with the other inputs and these arguments. */
function method(name: string, ...names: readonly string[]): Runner {
  return (x, _indices, args) => {
    const [first, ...others] = x;
    const call = (first as unknown as Record<string, Method>)[name] as Method;
    return call.call(first, ...others, ...names.map((key) => args[key] ?? undefined));
  };
}

const plain = (...names: readonly string[]): Record<string, Runner> =>
  Object.fromEntries(names.map((name) => [name, method(name)]));
const along = (...names: readonly string[]): Record<string, Runner> =>
  Object.fromEntries(names.map((name) => [name, method(name, "axis")]));

const first = (x: readonly Tensor[]): Tensor => x[0] as Tensor;
const other = (x: readonly Tensor[]): Tensor => x[1] as Tensor;
const unit = (t: Tensor): Tensor => eye(t.shape.at(-1) ?? 0, undefined, { dtype: t.dtype });
const positive = (t: Tensor): Tensor => t.matmul(t.transpose()).add(unit(t).mul(2));
const invertible = (t: Tensor): Tensor => t.add(unit(t).roll(1, 0).mul(3));

/** Every entry by its name. */
export const OPS: Readonly<Record<string, Runner>> = {
  ...plain(
    ..."neg abs square exp expm1 sin cos tanh sigmoid softplus relu gelu silu erf erfc atan asinh exp2 sinh cosh sinc".split(
      " ",
    ),
    ..."logSigmoid geluTanh selu mish softsign tanhShrink floor ceil round trunc sign sqrt rsqrt reciprocal log".split(
      " ",
    ),
    ..."log1p log2 log10 cbrt asin acos atanh acosh logit relu6 hardSigmoid hardSwish".split(" "),
    ..."add sub mul div pow maximum minimum atan2 hypot logaddexp remainder rem floorDivide lerp".split(" "),
    ..."trace outer inner matmul".split(" "),
  ),
  ...along(
    ..."sum mean prod max min logsumexp variance argmax argmin softmax logSoftmax glu median".split(" "),
    ..."sort argsort cumsum cumprod logcumsumexp".split(" "),
  ),
  tan: (x) => first(x).mul(0.5).tan(),
  elu: method("elu", "alpha"),
  celu: method("celu", "alpha"),
  leakyRelu: method("leakyRelu", "slope"),
  hardtanh: method("hardtanh", "low", "high"),
  hardShrink: method("hardShrink", "threshold"),
  softShrink: method("softShrink", "threshold"),
  clip: method("clip", "low", "high"),
  where: (x) => where(first(x).less(other(x)), first(x), other(x).mul(2)),
  std: (x, _, { axis, correction }) => first(x).std(axis ?? undefined, { correction }),
  norm1: (x, _, { axis }) => first(x).norm(axis ?? undefined, { p: 1 }),
  norm2: (x, _, { axis }) => first(x).norm(axis ?? undefined),
  norm3: (x, _, { axis }) => first(x).norm(axis ?? undefined, { p: 3 }),
  normMax: (x, _, { axis }) => first(x).norm(axis ?? undefined, { p: Number.POSITIVE_INFINITY }),
  sortDescending: (x, _, { axis }: Args) => first(x).sort(axis, { descending: true }),
  argsortDescending: (x, _, { axis }: Args) => first(x).argsort(axis, { descending: true }),
  topK: (x, _, { k, axis }) => first(x).topK(k, axis).values,
  quantile: (x, _, { q, axis }) => first(x).quantile(q, axis ?? undefined),
  cummax: (x, _, { axis }) => first(x).cummax(axis).values,
  cummin: (x, _, { axis }) => first(x).cummin(axis).values,
  cumprodZeros: (x, _, { axis }) => first(x).cumprod(axis),
  diff: method("diff", "order", "axis"),
  gather: (x, [i], { axis }) => first(x).gather(i as Tensor<"i32">, axis),
  takeAlong: (x, [i], { axis }) => first(x).takeAlong(i as Tensor<"i32">, axis),
  putAlong: (x, [i], { axis }) => first(x).putAlong(i as Tensor<"i32">, other(x), axis),
  putAlongAdd: (x, [i], { axis }) => first(x).putAlong(i as Tensor<"i32">, other(x), axis, { accumulate: true }),
  take: (x, [i], { axis }) => first(x).take(i as Tensor<"i32">, axis),
  index: (x, i) => first(x).index(...i),
  indexPut: (x, i) => first(x).indexPut(i, other(x)),
  indexAdd: (x, [i], { axis }) => first(x).indexAdd(i as Tensor<"i32">, other(x), axis),
  roll: method("roll", "shift", "axis"),
  repeat: method("repeat", "times", "axis"),
  tile: method("tile", "counts"),
  flip: method("flip", "axes"),
  moveAxis: method("moveAxis", "from", "to"),
  concatenate: (x, _, { axis }) => concatenate(x, axis),
  stack: (x, _, { axis }) => stack(x, axis),
  chunk: (x, _, { chunks, axis }) => first(x).chunk(chunks, axis)[1] as Tensor,
  padReflect: (x, _, { widths }) => first(x).padWith(widths, "reflect"),
  padEdge: (x, _, { widths }) => first(x).padWith(widths, "edge"),
  padCircular: (x, _, { widths }) => first(x).padWith(widths, "circular"),
  pad: method("pad", "widths", "value"),
  tril: method("tril", "offset"),
  triu: method("triu", "offset"),
  diagonal: method("diagonal", "offset"),
  diag: method("diag", "offset"),
  kron: (x) => kron(first(x), other(x)),
  tensordot: (x, _, { axes }) => tensordot(first(x), other(x), axes),
  einsum: (x, _, { equation }) => einsum(equation, ...x),
  cholesky: (x, _, { sum }) => {
    const factor = linalg.cholesky(positive(first(x)));
    return sum === true ? factor.sum(-1) : factor;
  },
  triangularSolve: (x) => linalg.triangularSolve(first(x).add(unit(first(x)).mul(3)), other(x)),
  triangularSolveUpper: (x) => linalg.triangularSolve(first(x).add(unit(first(x)).mul(3)), other(x), { upper: true }),
  solve: (x) => linalg.solve(invertible(first(x)), other(x)),
  inverse: (x) => linalg.inverse(invertible(first(x))),
  det: (x) => linalg.det(invertible(first(x))),
  logdet: (x) => linalg.logdet(positive(first(x))),
  matrixPower: (x, _, { n }) => linalg.matrixPower(first(x), n),
};
