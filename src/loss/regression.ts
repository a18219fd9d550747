/**
 * Losses of numbers: squares, sizes, what lies between them, and counts.
 */

import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import { requireFloat, requireTensors, type Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { checkOptions, sameShape } from "../tensor/validate";
import { type LossOptions, reduceLoss } from "./reduction";

function difference<F extends FloatDType>(op: string, prediction: Tensor<F>, target: Tensor<F>): Tensor<F> {
  requireFloat(op, prediction);
  requireFloat(op, target);
  const advice = "predictions and targets must not broadcast; reshape one of them";
  sameShape(op, prediction.shape, target.shape, advice);
  return prediction.sub(target);
}

/** (prediction − target)², reduced; the shapes are equal. */
export function mse<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: LossOptions = {},
): Tensor<F> {
  checkOptions("mse", options, ["reduction", "mask"]);
  return reduceLoss("mse", difference("mse", prediction, target).square(), options);
}

/** |prediction − target|, reduced. */
export function l1<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: LossOptions = {},
): Tensor<F> {
  checkOptions("l1", options, ["reduction", "mask"]);
  return reduceLoss("l1", difference("l1", prediction, target).abs(), options);
}

/** Options of `huber`. */
export interface HuberOptions extends LossOptions {
  /** The difference from which on the loss grows as a line (1 unless given). */
  readonly delta?: number;
}

/** d²/2 for |d| < δ, δ (|d| − δ/2) beyond. */
function bent<F extends FloatDType>(d: Tensor<F>, delta: number): Tensor<F> {
  const size = d.abs();
  const line = size.sub(delta / 2).mul(delta);
  return where(size.less(delta), d.square().mul(0.5), line);
}

/**
 * d²/2 for differences |d| < δ, and the line δ (|d| − δ/2) beyond.
 *
 * ```ts
 * import { loss, tensor } from "raphson";
 *
 * console.log(loss.huber(tensor([0.5, 3]), tensor([0, 0]), { reduction: "none" }).toArray());   // [0.125, 2.5]
 * ```
 */
export function huber<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: HuberOptions = {},
): Tensor<F> {
  checkOptions("huber", options, ["reduction", "mask", "delta"]);
  const { delta = 1 } = options;
  if (!(delta > 0)) throw argumentError("huber", `delta must be a positive number, got ${delta}`);
  return reduceLoss("huber", bent(difference("huber", prediction, target), delta), options);
}

/** Options of `smoothL1`. */
export interface SmoothL1Options extends LossOptions {
  /** The difference from which on the loss is |d| − β/2 (1 unless given). */
  readonly beta?: number;
}

/** d²/(2β) for differences |d| < β, and |d| − β/2 beyond: `huber` divided by its δ. */
export function smoothL1<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: SmoothL1Options = {},
): Tensor<F> {
  checkOptions("smoothL1", options, ["reduction", "mask", "beta"]);
  const { beta = 1 } = options;
  if (!(beta > 0)) throw argumentError("smoothL1", `beta must be a positive number (0 would be l1), got ${beta}`);
  const each = bent(difference("smoothL1", prediction, target), beta).div(beta);
  return reduceLoss("smoothL1", each, options);
}

/** Options of `poissonNll`. */
export interface PoissonOptions extends LossOptions {
  /** Whether predictions are logarithms of the rate (true unless given). */
  readonly logInput?: boolean;
  /** Added to a rate before its logarithm is taken (1e-8 unless given). */
  readonly epsilon?: number;
}

/** −log of the Poisson probability of counts t, without its constant: eˣ − t x, or x − t log(x + ε) for rates x. */
export function poissonNll<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: PoissonOptions = {},
): Tensor<F> {
  checkOptions("poissonNll", options, ["reduction", "mask", "logInput", "epsilon"]);
  requireFloat("poissonNll", prediction);
  const advice = "predictions and targets must not broadcast; reshape one of them";
  requireTensors("poissonNll", target);
  sameShape("poissonNll", prediction.shape, target.shape, advice);
  const { logInput = true, epsilon = 1e-8 } = options;
  const each = logInput
    ? prediction.exp().sub(target.mul(prediction))
    : prediction.sub(target.mul(prediction.add(epsilon).log()));
  return reduceLoss("poissonNll", each, options);
}
