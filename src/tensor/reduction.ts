/**
 * Combining the elements along axes: sums, means, extremes and what is composed from them.
 */

import { type DType, type FloatDType, isFloat } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { type Axes, fromHandle, type ReduceOptions, requireFloat, type Tensor, type VarianceOptions } from "../tensor";
import { inSingle, where } from "./composed";
import { rootOrZero } from "./mathematics";
import { checkAxes, checkAxis, checkOptions, elements } from "./validate";

/** The addon's numbers for the kinds of reduction. */
const KIND = { sum: 0, prod: 1, max: 2, min: 3 } as const;

export function reduce<D extends DType>(
  t: Tensor<D>,
  kind: keyof typeof KIND,
  axis?: Axes,
  options: ReduceOptions = {},
): Tensor<D> {
  const axes = checkAxes(kind, axis, t.rank);
  checkOptions(kind, options, ["keepDims"]);
  return fromHandle<D>(native.reduce(KIND[kind], t.handle, axes, options.keepDims ?? false));
}

export function mean<D extends FloatDType>(t: Tensor<D>, axis?: Axes, options?: ReduceOptions): Tensor<D> {
  requireFloat("mean", t);
  const axes = checkAxes("mean", axis, t.rank);
  checkOptions("mean", options, ["keepDims"]);
  const n = elements(axes.map((a) => t.shape[a] ?? 1));
  if (n === 0) throw shapeError("mean", `there is nothing to average along axes [${axes.join(", ")}]`, t.shape);
  return reduce(t, "sum", axes, options).div(n);
}

/** Σ (x − mean)² / (n − correction) */
export function variance<D extends FloatDType>(t: Tensor<D>, axis?: Axes, options: VarianceOptions = {}): Tensor<D> {
  requireFloat("variance", t);
  const axes = checkAxes("variance", axis, t.rank);
  checkOptions("variance", options, ["keepDims", "correction"]);
  const { correction = 0, keepDims = false } = options;
  const n = elements(axes.map((a) => t.shape[a] ?? 1));
  if (!(n - correction > 0)) {
    throw shapeError("variance", `${n} elements less a correction of ${correction} leave no divisor`, t.shape);
  }
  return inSingle(t, (x) => {
    const centred = x.sub(mean(x, axes, { keepDims: true }));
    return reduce(centred.square(), "sum", axes, { keepDims }).div(n - correction);
  });
}

export function std<D extends FloatDType>(t: Tensor<D>, axis?: Axes, options?: VarianceOptions): Tensor<D> {
  return rootOrZero(variance(t, axis, options));
}

export function argmax(t: Tensor<DType>, axis?: number): Tensor<"i32"> {
  if (axis === undefined) return fromHandle<"i32">(native.argmax(t.flatten().handle, 0));
  return fromHandle<"i32">(native.argmax(t.handle, checkAxis("argmax", axis, t.rank)));
}

/** The smallest x is where the largest −x is; for integers ~x, which cannot overflow, and for bool its opposite. */
export function argmin(t: Tensor<DType>, axis?: number): Tensor<"i32"> {
  const opposite = isFloat(t.dtype) ? (t as Tensor<FloatDType>).neg() : (t as Tensor<"i32" | "u32" | "bool">).not();
  return argmax(opposite, axis);
}

/** Whether any (max) or every (min) element is not zero. */
export function truth(t: Tensor<DType>, kind: "max" | "min", axis?: Axes, options?: ReduceOptions): Tensor<"bool"> {
  return reduce(t.cast("bool").cast("i32"), kind, axis, options).cast("bool");
}

/** m + log Σ exp(x − m) with m = max x, through which no derivative passes: its terms cancel exactly. */
export function logsumexp<D extends FloatDType>(t: Tensor<D>, axis?: Axes, options: ReduceOptions = {}): Tensor<D> {
  requireFloat("logsumexp", t);
  checkOptions("logsumexp", options, ["keepDims"]);
  const axes = checkAxes("logsumexp", axis, t.rank);
  return inSingle(t, (x) => {
    const top = reduce(x, "max", axes, { keepDims: true }).stopGradient();
    const shift = where(top.isFinite(), top, 0); // an infinite maximum would give ∞ − ∞
    const total = reduce(x.sub(shift).exp(), "sum", axes, { keepDims: true });
    const result = total.log().add(shift);
    return options.keepDims === true ? result : result.squeeze(axes);
  });
}

/** (Σ |x|ᵖ)^(1/p) */
export function norm<D extends FloatDType>(
  t: Tensor<D>,
  axis?: Axes,
  options: ReduceOptions & { readonly p?: number } = {},
): Tensor<D> {
  requireFloat("norm", t);
  checkOptions("norm", options, ["keepDims", "p"]);
  const { p = 2, keepDims = false } = options;
  const kept = { keepDims };
  if (Number.isNaN(p)) throw argumentError("norm", "p must be a number, or ±Infinity, got NaN");
  if (p === 0) return reduce(t.notEqual(0).cast(t.dtype), "sum", axis, kept);
  if (p === Number.NEGATIVE_INFINITY) return reduce(t.abs(), "min", axis, kept);
  if (p === Number.POSITIVE_INFINITY) return reduce(t.abs(), "max", axis, kept);
  if (p === 1) return reduce(t.abs(), "sum", axis, kept);
  if (p === 2) return rootOrZero(reduce(t.square(), "sum", axis, kept));
  const total = reduce(t.abs().pow(p), "sum", axis, kept);
  if (p < 0) return total.pow(1 / p);
  // 0^(1/p) has an infinite derivative for p > 1
  const zero = total.equal(0);
  return where(zero, 0, where(zero, 1, total).pow(1 / p));
}
