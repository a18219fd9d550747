/**
 * Functions of several elements or tensors that are composed from rows and reductions.
 */

import type { DType, FloatDType, NumericDType } from "../dtype";
import { argumentError, dtypeError } from "../errors";
import { ROW } from "../generated/ops";
import { native } from "../native";
import { fromHandle, isTensor, type Operand, requireFloat, type Tensor } from "../tensor";
import { scalar } from "./creation";
import { scalarOperand } from "./validate";

/**
 * Elements of `yes` where `condition` holds, of `no` elsewhere; the three broadcast. At least one of `yes` and `no` is a
 * tensor, unless a plain f32 result will do.
 *
 * ```ts
 * import { tensor, where } from "raphson";
 *
 * const x = tensor([-1, 2, -3]);
 * console.log(where(x.less(0), 0, x).toArray());   // [0, 2, 0]
 * ```
 */
export function where(condition: Tensor<"bool">, yes: number, no: number): Tensor;
export function where<D extends DType>(condition: Tensor<"bool">, yes: Tensor<D>, no: Operand<D>): Tensor<D>;
export function where<D extends DType>(condition: Tensor<"bool">, yes: number, no: Tensor<D>): Tensor<D>;
export function where(condition: Tensor<"bool">, yes: Operand<DType>, no: Operand<DType>): Tensor<DType> {
  if (!isTensor(condition) || condition.dtype !== "bool") {
    throw dtypeError("where", 'the condition must be a bool tensor: compare something, or use .cast("bool")');
  }
  const dtype = isTensor(yes) ? yes.dtype : isTensor(no) ? no.dtype : "f32";
  const operand = (value: Operand<DType>): Tensor<DType> =>
    isTensor(value) ? value : scalar(scalarOperand("where", value, dtype), { dtype });
  return fromHandle(native.elementwise3(ROW.select, condition.handle, operand(yes).handle, operand(no).handle), dtype);
}

export function clip<D extends NumericDType>(t: Tensor<D>, low: number, high: number): Tensor<D> {
  if (!(low <= high)) throw argumentError("clip", `the bounds must be numbers with low ≤ high, got ${low} and ${high}`);
  const above = low === Number.NEGATIVE_INFINITY ? t : t.maximum(low);
  return high === Number.POSITIVE_INFINITY ? above.clone() : above.minimum(high);
}

/** Whether the tensor is of a dtype with 16 bits. */
export const isHalf = (t: Tensor<FloatDType>): boolean => t.dtype === "f16" || t.dtype === "bf16";

/** `f` of a half in f32, rounded once: what sums exponentials or squares would overflow f16 on the way. */
export function inSingle<D extends FloatDType>(
  t: Tensor<D>,
  f: (t: Tensor<FloatDType>) => Tensor<FloatDType>,
): Tensor<D> {
  return (isHalf(t) ? f(t.cast("f32")).cast(t.dtype) : f(t)) as Tensor<D>;
}

/**
 * exp(x − max x) / Σ exp(x − max x), by one division for each row; no derivative passes through the maximum, whose terms cancel
 * exactly.
 */
export function softmax<D extends FloatDType>(t: Tensor<D>, axis: number): Tensor<D> {
  requireFloat("softmax", t);
  return inSingle(t, (x) => singleSoftmax(x, axis));
}

/** x − max x along an axis, for exponentials that do not overflow. No derivative passes through the maximum. */
export function belowMaximum(x: Tensor<FloatDType>, axis: number): Tensor<FloatDType> {
  return x.sub(x.max(axis, { keepDims: true }).stopGradient());
}

function singleSoftmax(t: Tensor<FloatDType>, axis: number): Tensor<FloatDType> {
  const exponentials = belowMaximum(t, axis).exp();
  return exponentials.mul(exponentials.sum(axis, { keepDims: true }).reciprocal());
}

/** x − m − log Σ exp(x − m), m = max x */
export function logSoftmax<D extends FloatDType>(t: Tensor<D>, axis: number): Tensor<D> {
  requireFloat("logSoftmax", t);
  return inSingle(t, (x) => {
    const shifted = belowMaximum(x, axis);
    return shifted.sub(shifted.exp().sum(axis, { keepDims: true }).log());
  });
}
