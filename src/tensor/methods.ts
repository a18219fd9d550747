/**
 * Methods of a tensor that are composed of others: mathematics, activations, order, scans, scatters, arrangements. Each is a line
 * that calls its topic's file. Where a function has a kink its doc says what the derivative is there.
 */

import type { DType, FloatDType, NumericDType } from "../dtype";
import { ElementwiseMethods } from "../generated/ops";
import type { AnyTensor, Axes, Operand, ReduceOptions, Shape, Tensor } from "../tensor";
import * as activation from "./activation";
import * as arrange from "./arrange";
import * as mathematics from "./mathematics";
import * as matrix from "./matrix";
import * as scan from "./scan";
import * as scatter from "./scatter";
import * as sort from "./sort";

/** The methods between those of the rows and those of the class `Tensor`. */
export abstract class ComposedMethods<D extends DType> extends ElementwiseMethods<D> {
  // ---- mathematics

  /** 2ˣ. */
  exp2<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.exp2(this);
  }

  /** The logarithm to base 2. */
  log2<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.logTo("log2", this, Math.LN2);
  }

  /** The logarithm to base 10. */
  log10<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.logTo("log10", this, Math.LN10);
  }

  /** The hyperbolic sine, exact for small x. */
  sinh<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.sinh(this);
  }

  /** The hyperbolic cosine. */
  cosh<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.cosh(this);
  }

  /** The number ≥ 0 whose hyperbolic cosine is x; NaN below 1, an infinite derivative at 1. */
  acosh<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.acosh(this);
  }

  /** The number whose hyperbolic tangent is x; infinite at ±1, NaN beyond. */
  atanh<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.atanh(this);
  }

  /** sin(πx)/(πx), and 1 at 0. */
  sinc<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.sinc(this);
  }

  /** ln(x/(1 − x)), the inverse of `sigmoid`. */
  logit<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return mathematics.logit(this);
  }

  /** Whether x is +∞ or −∞. */
  isInf(this: Tensor<FloatDType>): Tensor<"bool"> {
    return mathematics.isInf(this);
  }

  /** Numbers in place of NaN and of infinities: 0 and the dtype's extremes unless given. Derivative 0 where one is replaced. */
  nanToNum<F extends FloatDType>(this: Tensor<F>, options: mathematics.NanToNumOptions = {}): Tensor<F> {
    return mathematics.nanToNum(this, options);
  }

  /** x − y·⌊x/y⌋, with the sign of y (see `rem` for that of x); integers give 0 where y is 0. Derivative 1 at its jumps. */
  remainder<N extends NumericDType>(this: Tensor<N>, other: Operand<N>): Tensor<N> {
    return mathematics.remainder(this, other);
  }

  /** ⌊x/y⌋; integers give 0 where y is 0. The derivative is 0. */
  floorDivide<N extends NumericDType>(this: Tensor<N>, other: Operand<N>): Tensor<N> {
    return mathematics.floorDivide(this, other);
  }

  /** √(x² + y²), without overflow; at the origin its derivatives are 0. */
  hypot<F extends FloatDType>(this: Tensor<F>, other: Operand<F>): Tensor<F> {
    return mathematics.hypot(this, other);
  }

  /** ln(eˣ + eʸ), without overflow. */
  logaddexp<F extends FloatDType>(this: Tensor<F>, other: Operand<F>): Tensor<F> {
    return mathematics.logaddexp(this, other);
  }

  /** x + t·(end − x). */
  lerp<F extends FloatDType>(this: Tensor<F>, end: Tensor<F>, t: Operand<F>): Tensor<F> {
    return mathematics.lerp(this, end, t);
  }

  /** Whether |x − y| ≤ absolute + relative·|y| (1e-8 and 1e-5 unless given). */
  isClose<F extends FloatDType>(
    this: Tensor<F>,
    other: Operand<F>,
    options: mathematics.CloseOptions = {},
  ): Tensor<"bool"> {
    return mathematics.isClose(this, other, options);
  }

  // ---- activations

  /** ln sigmoid(x), without overflow. */
  logSigmoid<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.logSigmoid(this);
  }

  /** `gelu` by its approximation with tanh (Hendrycks and Gimpel 2016). */
  geluTanh<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.geluTanh(this);
  }

  /** x above 0, α·(eˣ − 1) up to it; the derivative at 0 is α. */
  elu<F extends FloatDType>(this: Tensor<F>, alpha = 1): Tensor<F> {
    return activation.elu(this, alpha);
  }

  /** x above 0, α·(e^(x/α) − 1) up to it; smooth to first order, with second derivative 1/α at 0. */
  celu<F extends FloatDType>(this: Tensor<F>, alpha = 1): Tensor<F> {
    return activation.celu(this, alpha);
  }

  /** `elu` scaled so that a normal distribution keeps mean 0 and variance 1; the derivative at 0 is that from below. */
  selu<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.selu(this);
  }

  /** x above 0, slope·x up to it; the derivative at 0 is the slope. */
  leakyRelu<F extends FloatDType>(this: Tensor<F>, slope = 0.01): Tensor<F> {
    return activation.leakyRelu(this, slope);
  }

  /** Held between `low` and `high`; the derivative at both is 0 (that of `clip` is ½). */
  hardtanh<F extends FloatDType>(this: Tensor<F>, low = -1, high = 1): Tensor<F> {
    return activation.hardtanh(this, low, high);
  }

  /** Held between 0 and 6; the derivative at both is 0. */
  relu6<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.hardtanh(this, 0, 6);
  }

  /** x/6 + ½ held between 0 and 1; the derivative at −3 and 3 is 0. */
  hardSigmoid<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.hardSigmoid(this);
  }

  /** x·hardSigmoid(x); the derivative at −3 is 0, at 3 it is 1. */
  hardSwish<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.hardSwish(this);
  }

  /** x·tanh(softplus(x)). */
  mish<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.mish(this);
  }

  /** x/(1 + |x|); its derivative at 0 is 1, the second one 0 there. */
  softsign<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.softsign(this);
  }

  /** x where |x| > threshold, else 0; the derivative at ±threshold is 0. */
  hardShrink<F extends FloatDType>(this: Tensor<F>, threshold = 0.5): Tensor<F> {
    return activation.hardShrink(this, threshold);
  }

  /** x nearer to 0 by the threshold, 0 within it; the derivative at ±threshold is 0. */
  softShrink<F extends FloatDType>(this: Tensor<F>, threshold = 0.5): Tensor<F> {
    return activation.softShrink(this, threshold);
  }

  /** x − tanh x. */
  tanhShrink<F extends FloatDType>(this: Tensor<F>): Tensor<F> {
    return activation.tanhShrink(this);
  }

  /** The first half along `axis` times the sigmoid of the second; the size there must be even. */
  glu<F extends FloatDType>(this: Tensor<F>, axis = -1): Tensor<F> {
    return activation.glu(this, axis);
  }

  // ---- order

  /**
   * The elements along `axis` in order, from the least unless `descending`. Stable; NaN comes last either way. The derivative of
   * each result goes to the element that stands there.
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * console.log(tensor([3, 1, 2]).sort().toArray());                          // [1, 2, 3]
   * console.log(tensor([3, 1, 2]).argsort(-1, { descending: true }).toArray());   // [0, 2, 1]
   * ```
   */
  sort(this: Tensor<D>, axis = -1, options: sort.SortOptions = {}): Tensor<D> {
    return sort.sort(this, axis, options);
  }

  /** The positions along `axis` in the order of their elements; see `sort`. They have no derivative. */
  argsort(this: Tensor<D>, axis = -1, options: sort.SortOptions = {}): Tensor<"i32"> {
    return sort.argsort(this as AnyTensor, axis, options);
  }

  /**
   * The k greatest elements along `axis` (or `smallest`), in order, and where they stand; the first of equals first.
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * const { values, indices } = tensor([1, 4, 2, 3]).topK(2);
   * console.log(values.toArray(), indices.toArray());   // [4, 3] [1, 3]
   * ```
   */
  topK(this: Tensor<D>, k: number, axis = -1, options: sort.TopKOptions = {}): sort.Ordered<D> {
    return sort.topK(this, k, axis, options);
  }

  /**
   * The element below which a share `q` of the others lies, along `axis` or of all; between two elements a mean of both (see
   * `interpolation`). NaN if any element is. The derivative goes to the elements used.
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * console.log(tensor([4, 1, 3, 2]).quantile(0.5).item());   // 2.5
   * ```
   */
  quantile<F extends FloatDType>(
    this: Tensor<F>,
    q: number,
    axis?: number,
    options: sort.QuantileOptions = {},
  ): Tensor<F> {
    return sort.quantile(this, q, axis, options);
  }

  /** The middle element, or the mean of the two in the middle, along `axis` or of all: `quantile(0.5)`. */
  median<F extends FloatDType>(this: Tensor<F>, axis?: number, options: ReduceOptions = {}): Tensor<F> {
    return sort.median(this, axis, options);
  }

  // ---- scans

  /**
   * Sums of the elements up to each along `axis`; also from the end (`reverse`), or without the element itself
   * (`exclusive`).
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * console.log(tensor([1, 2, 3]).cumsum(0).toArray());                        // [1, 3, 6]
   * console.log(tensor([1, 2, 3]).cumsum(0, { exclusive: true }).toArray());   // [0, 1, 3]
   * ```
   */
  cumsum<N extends NumericDType>(this: Tensor<N>, axis: number, options: scan.ScanOptions = {}): Tensor<N> {
    return scan.cumsum(this, axis, options);
  }

  /** Products of the elements up to each along `axis`. Derivatives hold where elements are 0. */
  cumprod<N extends NumericDType>(this: Tensor<N>, axis: number, options: scan.ScanOptions = {}): Tensor<N> {
    return scan.cumprod(this, axis, options);
  }

  /** ln of the sums of exponentials up to each element along `axis`, without overflow. */
  logcumsumexp<F extends FloatDType>(this: Tensor<F>, axis: number): Tensor<F> {
    return scan.logcumsumexp(this, axis);
  }

  /** The greatest element so far along `axis`, and where it stands; the last of equals, which gets the derivative. */
  cummax<N extends NumericDType>(this: Tensor<N>, axis: number): sort.Ordered<N> {
    return scan.cummax(this, axis);
  }

  /** The least element so far along `axis`, and where it stands; the last of equals, which gets the derivative. */
  cummin<N extends NumericDType>(this: Tensor<N>, axis: number): sort.Ordered<N> {
    return scan.cummin(this, axis);
  }

  /** Differences of neighbours along `axis`, `order` times over: one element fewer each time. */
  diff<N extends NumericDType>(this: Tensor<N>, order = 1, axis = -1): Tensor<N> {
    return scan.diff(this, order, axis);
  }

  // ---- choosing and replacing

  /**
   * For every position of `indices` the element of `axis` it names, as `gather`; the other axes of both broadcast. An index outside
   * the axis is an error (code `INDEX`) on reading.
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * const t = tensor([[1, 5, 3], [9, 7, 8]]);
   * console.log(t.takeAlong(t.argmax(1).unsqueeze(1), 1).toArray());   // [[5], [9]]
   * ```
   */
  takeAlong(this: Tensor<D>, indices: scatter.IndexTensor, axis: number): Tensor<D> {
    return scatter.takeAlong(this, indices, axis);
  }

  /**
   * A copy with `values` at the positions that `takeAlong` would read, or added there (`accumulate`). Values for one position
   * add up.
   *
   * ```ts
   * import { tensor, zeros } from "raphson";
   *
   * const at = tensor([[2], [0]], { dtype: "i32" });
   * console.log(zeros([2, 3]).putAlong(at, 7, 1).toArray());   // [[0, 0, 7], [7, 0, 0]]
   * ```
   */
  putAlong<N extends NumericDType>(
    this: Tensor<N>,
    indices: scatter.IndexTensor,
    values: Operand<N>,
    axis: number,
    options: scatter.PutOptions = {},
  ): Tensor<N> {
    return scatter.putAlong(this, indices, values, axis, options);
  }

  /**
   * Elements (or slices) at positions along the leading axes, one index tensor for each; they broadcast. Negative positions
   * count from the end.
   *
   * ```ts
   * import { arange, tensor } from "raphson";
   *
   * const t = arange(6).reshape([2, 3]);
   * const [rows, columns] = [tensor([0, 1], { dtype: "i32" }), tensor([2, -3], { dtype: "i32" })];
   * console.log(t.index(rows, columns).toArray());   // [2, 3]
   * ```
   */
  index(this: Tensor<D>, ...indices: readonly scatter.IndexTensor[]): Tensor<D> {
    return scatter.index(this, indices);
  }

  /** A copy with `values` at the positions that `index` would read, or added there (`accumulate`). Values for one position add up. */
  indexPut<N extends NumericDType>(
    this: Tensor<N>,
    indices: readonly scatter.IndexTensor[],
    values: Operand<N>,
    options: scatter.PutOptions = {},
  ): Tensor<N> {
    return scatter.indexPut(this, indices, values, options);
  }

  /** A copy to which the slices of `updates` are added at `indices` along `axis`. */
  indexAdd<N extends NumericDType>(
    this: Tensor<N>,
    indices: scatter.IndexTensor,
    updates: Tensor<N>,
    axis = 0,
  ): Tensor<N> {
    return scatter.indexAdd(this, indices, updates, axis);
  }

  /** `value` where the mask holds; no derivative passes there. Choosing a number of elements that depends on data has no shape. */
  maskedFill(this: Tensor<D>, mask: Tensor<"bool">, value: Operand<D>): Tensor<D> {
    return scatter.maskedFill(this, mask, value);
  }

  // ---- arrangement

  /** Moved by `shift` places along the axes (or in row-major order), what leaves at one end coming in at the other. */
  roll(this: Tensor<D>, shift: Axes, axes?: Axes): Tensor<D> {
    return arrange.roll(this, shift, axes);
  }

  /** Each element `times` times in a row along `axis`, or of the flat tensor. */
  repeat(this: Tensor<D>, times: number, axis?: number): Tensor<D> {
    return arrange.repeat(this, times, axis);
  }

  /** In at most `chunks` parts along `axis`, of one size but for the last. */
  chunk(this: Tensor<D>, chunks: number, axis = 0): Tensor<D>[] {
    return arrange.chunk(this, chunks, axis);
  }

  /** The axes `from` at the places `to`, the others in their order. */
  moveAxis(this: Tensor<D>, from: Axes, to: Axes): Tensor<D> {
    return arrange.moveAxis(this, from, to);
  }

  /** One axis as several; one size may be −1. */
  unflatten(this: Tensor<D>, axis: number, sizes: Shape): Tensor<D> {
    return arrange.unflatten(this, axis, sizes);
  }

  /**
   * Widened by `[before, after]` for every axis with what stands at its ends: mirrored without the end itself (`reflect`), the end
   * repeated (`edge`), or the other end (`circular`). See `pad` for a constant.
   *
   * ```ts
   * import { tensor } from "raphson";
   *
   * const t = tensor([1, 2, 3]);
   * console.log(t.padWith([[2, 1]], "reflect").toArray());   // [3, 2, 1, 2, 3, 2]
   * ```
   */
  padWith(this: Tensor<D>, widths: readonly arrange.PadWidth[], mode: arrange.PadMode): Tensor<D> {
    return mode === "constant" ? this.pad(widths) : arrange.padWith(this, widths, mode);
  }

  // ---- matrices

  /** The lower triangle of the last two axes, up to `offset` above the diagonal; zeros elsewhere. */
  tril(this: Tensor<D>, offset = 0): Tensor<D> {
    return matrix.tril(this, offset);
  }

  /** The upper triangle of the last two axes, from `offset` above the diagonal; zeros elsewhere. */
  triu(this: Tensor<D>, offset = 0): Tensor<D> {
    return matrix.triu(this, offset);
  }

  /** The elements [i, i + offset] of two axes (the last two unless named), as a last axis. */
  diagonal(this: Tensor<D>, offset = 0, first = -2, second = -1): Tensor<D> {
    return matrix.diagonal(this, offset, first, second);
  }

  /** Of a vector the matrix with that diagonal, of a matrix its diagonal. */
  diag(this: Tensor<D>, offset = 0): Tensor<D> {
    return matrix.diag(this, offset);
  }

  /** The last axis on the diagonal of square matrices, zeros elsewhere. */
  diagonalMatrix(this: Tensor<D>, offset = 0): Tensor<D> {
    return matrix.diagonalMatrix(this, offset);
  }

  /** The sum of the diagonal of the last two axes. */
  trace<N extends NumericDType>(this: Tensor<N>, offset = 0): Tensor<N> {
    return matrix.trace(this, offset);
  }

  /** The sum of products over the last axis of both: shape [...of this, ...of the other] without them. */
  inner<N extends NumericDType>(this: Tensor<N>, other: Tensor<N>): Tensor<N> {
    return matrix.inner(this, other);
  }
}
