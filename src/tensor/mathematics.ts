/**
 * Mathematical functions of single elements that are composed from rows. What composition would make inexact (`atan`, `erfc`
 * and the like) are rows themselves; activations stand in `activation`.
 */

import { type DType, type FloatDType, isFloat, type NumericDType } from "../dtype";
import { argumentError, dtypeError } from "../errors";
import { isTensor, type Operand, requireFloat, type Tensor } from "../tensor";
import { where } from "./composed";
import { full } from "./creation";

/** 2ˣ as a power of the exact 2. */
export function exp2<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("exp2", x);
  return full([], 2, { dtype: x.dtype }).pow(x) as Tensor<F>;
}

/** ln x / ln base */
export function logTo<F extends FloatDType>(op: string, x: Tensor<F>, naturalLogOfBase: number): Tensor<F> {
  requireFloat(op, x);
  return x.log().div(naturalLogOfBase);
}

/** (eˣ − 1 − (e⁻ˣ − 1))/2, whose terms do not cancel */
export function sinh<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("sinh", x);
  return x.expm1().sub(x.neg().expm1()).mul(0.5);
}

/** (eˣ + e⁻ˣ)/2 */
export function cosh<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("cosh", x);
  return x.exp().add(x.neg().exp()).mul(0.5);
}

/** ln(1 + t + √t·√(t + 2)), t = x − 1: exact near 1, without x² for large x */
export function acosh<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("acosh", x);
  const t = x.sub(1);
  return t.add(t.sqrt().mul(t.add(2).sqrt())).log1p();
}

/** (ln(1 + x) − ln(1 − x))/2 */
export function atanh<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("atanh", x);
  return x.log1p().sub(x.neg().log1p()).mul(0.5);
}

export function isInf(x: Tensor<DType>): Tensor<"bool"> {
  requireFloat("isInf", x);
  return x.abs().equal(Number.POSITIVE_INFINITY);
}

/** What takes the place of numbers that are none. */
export interface NanToNumOptions {
  /** For NaN; 0 unless given. */
  readonly nan?: number;
  /** For +∞; the dtype's greatest number unless given. */
  readonly positive?: number;
  /** For −∞; the dtype's least number unless given. */
  readonly negative?: number;
}

const GREATEST = {
  f32: (2 - 2 ** -23) * 2 ** 127,
  f64: Number.MAX_VALUE,
  f16: 65504,
  bf16: (2 - 2 ** -7) * 2 ** 127,
} as const satisfies Record<FloatDType, number>;

export function nanToNum<F extends FloatDType>(x: Tensor<F>, options: NanToNumOptions): Tensor<F> {
  requireFloat("nanToNum", x);
  const greatest = GREATEST[x.dtype as FloatDType];
  const { nan = 0, positive = greatest, negative = -greatest } = options;
  const noNan = where(x.isNan(), nan, x);
  const below = where(noNan.equal(Number.POSITIVE_INFINITY), positive, noNan);
  return where(below.equal(Number.NEGATIVE_INFINITY), negative, below);
}

/** The remainder with the sign of y: r of the truncated division, plus y where their signs differ. */
export function remainder<D extends NumericDType>(x: Tensor<D>, y: Operand<D>): Tensor<D> {
  const divisor = operand(x, y, "remainder");
  const rest: Tensor<D> = x.rem(divisor);
  if (x.dtype === "u32") return rest;
  return where(otherSide(rest, divisor), rest.add(divisor), rest);
}

/** ⌊x/y⌋; for integers the truncated quotient, less one where the division leaves a rest of the other sign. */
export function floorDivide<D extends NumericDType>(x: Tensor<D>, y: Operand<D>): Tensor<D> {
  const divisor = operand(x, y, "floorDivide");
  const quotient: Tensor<D> = x.div(divisor);
  if (x.dtype === "u32") return quotient;
  if (isFloat(x.dtype)) return (quotient as Tensor<DType> as Tensor<FloatDType>).floor() as Tensor<DType> as Tensor<D>;
  return where(otherSide(x.rem(divisor), divisor), quotient.sub(1), quotient);
}

/** Whether a rest is not zero and has not the divisor's sign. */
function otherSide<D extends NumericDType>(rest: Tensor<D>, divisor: Tensor<D>): Tensor<"bool"> {
  return rest.notEqual(0).and(rest.less(0).xor(divisor.less(0)));
}

/** hi + ln(1 + e^(lo − hi)); both derivatives follow through the difference, so that they are right where x = y too. */
export function logaddexp<F extends FloatDType>(x: Tensor<F>, y: Operand<F>): Tensor<F> {
  requireFloat("logaddexp", x);
  const other = operand(x, y, "logaddexp");
  const first = x.greaterEqual(other);
  const high = where(first, x, other);
  const low = where(first, other, x);
  // ∞ − ∞ would be NaN
  const difference = where(high.isFinite(), low.sub(high), 0);
  return high.add(difference.softplus());
}

/** m·√((x/m)² + (y/m)²) with m the greater size, a constant for derivatives: it cancels exactly. */
export function hypot<F extends FloatDType>(x: Tensor<F>, y: Operand<F>): Tensor<F> {
  requireFloat("hypot", x);
  const other = operand(x, y, "hypot");
  const greatest = x.abs().maximum(other.abs()).stopGradient();
  const usable = greatest.greater(0).and(greatest.isFinite());
  const scale = where(usable, greatest, 1);
  const [a, b] = [x.div(scale), other.div(scale)];
  return rootOrZero(a.square().add(b.square())).mul(scale);
}

/** √s, with 0 instead of the infinite derivative where s is 0. */
export function rootOrZero<F extends FloatDType>(s: Tensor<F>): Tensor<F> {
  const zero = s.equal(0);
  return where(zero, 0, where(zero, 1, s).sqrt());
}

/** x + t·(y − x) */
export function lerp<F extends FloatDType>(x: Tensor<F>, y: Tensor<F>, t: Operand<F>): Tensor<F> {
  requireFloat("lerp", x);
  return x.add(y.sub(x).mul(t));
}

/** ln(x/(1 − x)) */
export function logit<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("logit", x);
  return x.log().sub(x.neg().log1p());
}

/** sin(πx)/(πx); 1 − (πx)²/6 + (πx)⁴/120 near 0, so that its derivatives are right there. */
export function sinc<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("sinc", x);
  const angle = x.mul(Math.PI);
  const small = angle.abs().less(0.02);
  const safe = where(small, 1, angle);
  const square = where(small, angle, 0).square();
  const series = square
    .mul(-1 / 5040)
    .add(1 / 120)
    .mul(square)
    .add(-1 / 6)
    .mul(square)
    .add(1);
  return where(small, series, safe.sin().div(safe));
}

/** Whether |x − y| ≤ absolute + relative·|y|. */
export interface CloseOptions {
  /** 1e-5 unless given. */
  readonly relative?: number;
  /** 1e-8 unless given. */
  readonly absolute?: number;
}

export function isClose<F extends FloatDType>(x: Tensor<F>, y: Operand<F>, options: CloseOptions): Tensor<"bool"> {
  requireFloat("isClose", x);
  const { relative = 1e-5, absolute = 1e-8 } = options;
  if (!(relative >= 0 && absolute >= 0)) {
    throw argumentError("isClose", `tolerances are numbers ≥ 0, got ${relative} and ${absolute}`);
  }
  const other = operand(x, y, "isClose");
  const near = x.sub(other).abs().lessEqual(other.abs().mul(relative).add(absolute));
  // two equal infinities are close; an infinity is close to nothing else
  return near.and(other.isFinite()).or(x.equal(other));
}

/** The second operand as a tensor of the first one's dtype. */
export function operand<D extends DType>(x: Tensor<D>, y: Operand<D>, op: string): Tensor<D> {
  if (!isTensor(y)) return full([], y, { dtype: x.dtype });
  if (y.dtype !== x.dtype) {
    throw dtypeError(op, `dtypes differ: ${x.dtype} and ${y.dtype}; cast one of them`, x.dtype, y.dtype);
  }
  return y;
}
