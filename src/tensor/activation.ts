/**
 * Activations: functions of single elements that networks put between their layers. Those that are rows (`relu`, `gelu`,
 * `silu`, `sigmoid`, `tanh`, `softplus`) are generated; here stand the composed ones. Each says what its derivative is at a kink.
 */

import type { FloatDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { requireFloat, type Tensor } from "../tensor";
import { where } from "./composed";
import { checkAxis, showShape } from "./validate";

/** −ln(1 + e⁻ˣ) */
export function logSigmoid<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("logSigmoid", x);
  return x.neg().softplus().neg();
}

/** x/2·(1 + tanh(√(2/π)·(x + 0.044715 x³))) */
export function geluTanh<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("geluTanh", x);
  const inner = x
    .square()
    .mul(0.044715)
    .add(1)
    .mul(x)
    .mul(Math.sqrt(2 / Math.PI));
  return x.mul(0.5).mul(inner.tanh().add(1));
}

/** scale·(x, or α·(e^(x/β) − 1) where x ≤ 0); the exponential sees no positive x, so that it cannot overflow. */
function exponentialBelow<F extends FloatDType>(op: string, x: Tensor<F>, alpha: number, beta: number): Tensor<F> {
  requireFloat(op, x);
  const positive = x.greater(0);
  const below = where(positive, 0, x);
  return where(positive, x, (beta === 1 ? below : below.div(beta)).expm1().mul(alpha));
}

export function elu<F extends FloatDType>(x: Tensor<F>, alpha: number): Tensor<F> {
  return exponentialBelow("elu", x, alpha, 1);
}

export function celu<F extends FloatDType>(x: Tensor<F>, alpha: number): Tensor<F> {
  if (!(alpha > 0)) throw argumentError("celu", `alpha must be a number above 0, got ${alpha}`);
  return exponentialBelow("celu", x, alpha, alpha);
}

/** Constants for which a normal distribution keeps mean 0 and variance 1 (Klambauer et al. 2017). */
const SELU_ALPHA = 1.6732632423543772;
const SELU_SCALE = 1.0507009873554805;

export function selu<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  return exponentialBelow("selu", x, SELU_ALPHA, 1).mul(SELU_SCALE);
}

export function leakyRelu<F extends FloatDType>(x: Tensor<F>, slope: number): Tensor<F> {
  requireFloat("leakyRelu", x);
  return where(x.greater(0), x, x.mul(slope));
}

export function hardtanh<F extends FloatDType>(x: Tensor<F>, low: number, high: number): Tensor<F> {
  requireFloat("hardtanh", x);
  if (!(low <= high)) throw argumentError("hardtanh", `needs low ≤ high, got ${low} and ${high}`);
  return where(x.lessEqual(low), low, where(x.greaterEqual(high), high, x));
}

/** hardtanh(x/6 + ½, 0, 1) */
export function hardSigmoid<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  return hardtanh(x.div(6).add(0.5), 0, 1);
}

/** x·hardSigmoid(x) */
export function hardSwish<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("hardSwish", x);
  return x.mul(hardSigmoid(x));
}

/** x·tanh(ln(1 + eˣ)) */
export function mish<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("mish", x);
  return x.mul(x.softplus().tanh());
}

/** x/(1 + |x|) */
export function softsign<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("softsign", x);
  return x.div(x.abs().add(1));
}

export function hardShrink<F extends FloatDType>(x: Tensor<F>, threshold: number): Tensor<F> {
  requireFloat("hardShrink", x);
  return where(x.abs().lessEqual(atLeastZero("hardShrink", threshold)), 0, x);
}

export function softShrink<F extends FloatDType>(x: Tensor<F>, threshold: number): Tensor<F> {
  requireFloat("softShrink", x);
  const far = x.abs().lessEqual(atLeastZero("softShrink", threshold));
  return where(far, 0, x.sub(x.sign().mul(threshold)));
}

function atLeastZero(op: string, threshold: number): number {
  if (threshold >= 0) return threshold;
  throw argumentError(op, `the threshold must be a number ≥ 0, got ${threshold}`);
}

/** x − tanh x */
export function tanhShrink<F extends FloatDType>(x: Tensor<F>): Tensor<F> {
  requireFloat("tanhShrink", x);
  return x.sub(x.tanh());
}

/** The first half along `axis` times the sigmoid of the second. */
export function glu<F extends FloatDType>(x: Tensor<F>, axis: number): Tensor<F> {
  requireFloat("glu", x);
  const along = checkAxis("glu", axis, x.rank);
  const size = x.shape[along] ?? 0;
  if (size % 2 !== 0) {
    throw shapeError("glu", `axis ${along} of ${showShape(x.shape)} has no two halves; its size must be even`, x.shape);
  }
  const half = size / 2;
  return x.slice(0, half, along).mul(x.slice(half, size, along).sigmoid());
}
