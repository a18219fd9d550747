/**
 * Losses: scalars that training makes small. The mean over the batch unless said otherwise.
 */

import type { FloatDType } from "./dtype";
import { isFloat, isInteger } from "./dtype";
import { argumentError, dtypeError, indexError, shapeError } from "./errors";
import { isTensor, requireFloat, type Tensor } from "./tensor";
import { tensor } from "./tensor/creation";
import { describe, sameShape, showShape } from "./tensor/validate";

/** How the losses of single elements become one. */
export type Reduction = "mean" | "sum" | "none";

/** Options of all losses. */
export interface LossOptions {
  /** `mean` unless given. */
  readonly reduction?: Reduction;
}

/** Options of `crossEntropy`. */
export interface CrossEntropyOptions extends LossOptions {
  /** Share of the target given evenly to all classes, of [0, 1); 0 unless given. */
  readonly labelSmoothing?: number;
  /** A label that does not count: such places are left out of the sum and of the mean's divisor. */
  readonly ignore?: number;
  /** True where a place counts; the shape of the labels. */
  readonly mask?: Tensor<"bool">;
}

/** Labels: integers (a tensor or typed array), one for each row of logits, or probabilities in the shape of the logits. */
export type Labels<F extends FloatDType = "f32"> =
  | Tensor<"i32" | "u32">
  | Tensor<F>
  | Int32Array
  | Uint32Array
  | readonly number[];

/**
 * −log of the probability that softmax(logits) gives the labels. Logits are [..., classes]; labels are integers [...], or
 * probabilities [..., classes]. Computed without overflow. A label outside 0 … classes − 1 is an error (code `INDEX`): at
 * once when labels come as numbers or a typed array, on reading when they come as a tensor.
 *
 * ```ts
 * import { loss, tensor } from "raphson";
 *
 * const logits = tensor([[2, 0, 0], [0, 3, 0]]);
 * console.log(loss.crossEntropy(logits, [0, 1]).item() < 0.3);   // true
 * ```
 */
export function crossEntropy<F extends FloatDType>(
  logits: Tensor<F>,
  labels: Labels<F>,
  options: CrossEntropyOptions = {},
): Tensor<F> {
  requireFloat("crossEntropy", logits);
  const classes = logits.shape.at(-1);
  if (classes === undefined) {
    throw shapeError("crossEntropy", "logits need an axis of classes at the end, got a scalar", logits.shape);
  }
  const smoothing = options.labelSmoothing ?? 0;
  if (!(smoothing >= 0 && smoothing < 1)) {
    throw argumentError("crossEntropy", `labelSmoothing must be a number of [0, 1), got ${smoothing}`);
  }
  const logProbabilities = logits.logSoftmax(-1);
  const even = logProbabilities.mean(-1).neg();
  const targets = integerLabels(labels, classes, options.ignore);
  if (targets === undefined) {
    const probabilities = labels as Tensor<F>;
    sameShape("crossEntropy", logits.shape, probabilities.shape, "probabilities have the shape of the logits");
    const each = logProbabilities.mul(probabilities).sum(-1).neg();
    return reduceMasked(smooth(each, even, smoothing), options.mask, options.reduction);
  }
  sameShape(
    "crossEntropy",
    logits.shape.slice(0, -1),
    targets.shape,
    "labels have the shape of the logits without its last axis",
  );
  const counted = countedPlaces(targets, options);
  // places that do not count look at class 0, whose loss is then left out
  const safe = counted === undefined ? targets : targets.mul(counted.cast(targets.dtype));
  const each = logProbabilities.gather(safe.unsqueeze(-1), -1).squeeze(-1).neg();
  return reduceMasked(smooth(each, even, smoothing), counted, options.reduction);
}

/** (1 − s) · loss of the label + s · mean loss over all classes */
function smooth<F extends FloatDType>(each: Tensor<F>, even: Tensor<F>, smoothing: number): Tensor<F> {
  return smoothing === 0 ? each : each.mul(1 - smoothing).add(even.mul(smoothing));
}

/** Labels as a tensor of integers, or undefined when they are probabilities. */
function integerLabels<F extends FloatDType>(
  labels: Labels<F>,
  classes: number,
  ignore: number | undefined,
): Tensor<"i32"> | undefined {
  if (isTensor(labels)) {
    if (isFloat(labels.dtype)) return undefined;
    if (isInteger(labels.dtype)) return labels.cast("i32");
    throw dtypeError("crossEntropy", `labels are integers or probabilities, got ${labels.dtype}`, labels.dtype);
  }
  if (!Array.isArray(labels) && !(labels instanceof Int32Array) && !(labels instanceof Uint32Array)) {
    throw argumentError("crossEntropy", `labels are a tensor, numbers or an integer array, got ${describe(labels)}`);
  }
  const list = Array.from(labels as ArrayLike<number>);
  const wrong = list.findIndex(
    (label) => label !== ignore && !(Number.isInteger(label) && label >= 0 && label < classes),
  );
  if (wrong >= 0) {
    throw indexError("crossEntropy", `label ${list[wrong]} at position ${wrong} is not one of 0 … ${classes - 1}`);
  }
  return tensor(list, { dtype: "i32" });
}

function countedPlaces(targets: Tensor<"i32">, options: CrossEntropyOptions): Tensor<"bool"> | undefined {
  const { ignore, mask } = options;
  if (mask !== undefined) sameShape("crossEntropy", mask.shape, targets.shape, "the mask has the shape of the labels");
  if (ignore === undefined) return mask;
  const wanted = targets.notEqual(ignore);
  return mask === undefined ? wanted : wanted.and(mask);
}

/** Σ mask · each / Σ mask (at least 1), or without a mask the plain reduction. */
function reduceMasked<F extends FloatDType>(
  each: Tensor<F>,
  mask: Tensor<"bool"> | undefined,
  reduction: Reduction = "mean",
): Tensor<F> {
  if (mask === undefined) return reduceLoss(each, reduction);
  const weight = mask.cast(each.dtype);
  const counted = each.mul(weight);
  if (reduction === "none") return counted;
  if (reduction === "sum") return counted.sum();
  return counted.sum().div(weight.sum().maximum(1));
}

function reduceLoss<F extends FloatDType>(each: Tensor<F>, reduction: Reduction = "mean"): Tensor<F> {
  switch (reduction) {
    case "none":
      return each;
    case "sum":
      return each.sum();
    case "mean":
      return each.mean();
    default:
      throw argumentError("loss", `reduction is "mean", "sum" or "none", got ${describe(reduction)}`);
  }
}

/** (prediction − target)², reduced; the shapes are equal. */
export function mse<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: LossOptions = {},
): Tensor<F> {
  sameShape("mse", prediction.shape, target.shape, "predictions and targets must not broadcast; reshape one of them");
  return reduceLoss(prediction.sub(target).square(), options.reduction);
}

/** Options of `bce`. */
export interface BinaryCrossEntropyOptions extends LossOptions {
  /** Whether predictions are logits, before the sigmoid (false unless given): more exact, and never infinite. */
  readonly logits?: boolean;
}

/**
 * Binary cross-entropy: −t log p − (1 − t) log(1 − p), for targets t of [0, 1] in the predictions' shape. Predictions are
 * probabilities p, or logits with `{ logits: true }`; logarithms of probabilities stop at −100.
 */
export function bce<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F> | Tensor<"bool">,
  options: BinaryCrossEntropyOptions = {},
): Tensor<F> {
  requireFloat("bce", prediction);
  sameShape(
    "bce",
    prediction.shape,
    target.shape,
    `predictions ${showShape(prediction.shape)} and targets must not broadcast`,
  );
  const wanted: Tensor<F> = target.cast(prediction.dtype);
  if (options.logits === true) {
    // −t log σ(x) − (1 − t) log(1 − σ(x)) = softplus(x) − t·x
    return reduceLoss(prediction.softplus().sub(wanted.mul(prediction)), options.reduction);
  }
  const logYes = prediction.log().maximum(-100);
  const logNo = prediction.neg().log1p().maximum(-100);
  const each = wanted.mul(logYes).add(wanted.neg().add(1).mul(logNo)).neg();
  return reduceLoss(each, options.reduction);
}
