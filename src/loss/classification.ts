/**
 * Losses of choices: cross-entropies of classes and of yes and no, divergence of distributions, margins of signs.
 */

import type { FloatDType, IntegerDType } from "../dtype";
import { isFloat, isInteger } from "../dtype";
import { argumentError, dtypeError, indexError, shapeError } from "../errors";
import { isTensor, requireFloat, requireTensors, type Tensor } from "../tensor";
import { belowMaximum, inSingle, where } from "../tensor/composed";
import { arange, tensor, zeros } from "../tensor/creation";
import { wholeNumbers } from "../tensor/indexing";
import { checkOptions, describe, sameShape } from "../tensor/validate";
import { type LossOptions, reduceLoss, reduceWeighted } from "./reduction";

/** Options of `nll`. Its mask has the shape of the labels. */
export interface LabelOptions<F extends FloatDType = FloatDType> extends LossOptions {
  /** A label that does not count: such places are left out of the sum and of the mean's divisor. */
  readonly ignore?: number;
  /** A weight for each class, [classes]: factors of the losses; the mean divides by their sum. */
  readonly classWeights?: Tensor<F>;
}

/** Options of `crossEntropy`. Its mask has the shape of the labels. */
export interface CrossEntropyOptions<F extends FloatDType = FloatDType> extends LabelOptions<F> {
  /** Share of the target given evenly to all classes, of [0, 1); 0 unless given. */
  readonly labelSmoothing?: number;
}

/** Labels: integers (a tensor or typed array), one for each row of logits, or probabilities in the shape of the logits. */
export type Labels<F extends FloatDType = "f32"> =
  | Tensor<IntegerDType>
  | Tensor<F>
  | Int32Array
  | Uint32Array
  | Uint8Array
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
  labels: Labels<NoInfer<F>>,
  options: CrossEntropyOptions<F> = {},
): Tensor<F> {
  checkOptions("crossEntropy", options, ["reduction", "mask", "ignore", "classWeights", "labelSmoothing"]);
  requireFloat("crossEntropy", logits);
  const smoothing = options.labelSmoothing ?? 0;
  if (!(smoothing >= 0 && smoothing < 1)) {
    throw argumentError("crossEntropy", `labelSmoothing must be a number of [0, 1), got ${smoothing}`);
  }
  const classes = classesOf("crossEntropy", logits);
  return labelled("crossEntropy", logits, integerLabels(labels, classes, options.ignore, "crossEntropy"), {
    ...options,
    probabilities: labels as Tensor<F>,
    smoothing,
    areLogits: true,
  });
}

/**
 * −log p of the labels, where log p are given: [..., classes], as `logSoftmax` makes them. Labels and errors as with
 * `crossEntropy`.
 */
export function nll<F extends FloatDType>(
  logProbabilities: Tensor<F>,
  labels: Labels<NoInfer<F>>,
  options: LabelOptions<F> = {},
): Tensor<F> {
  checkOptions("nll", options, ["reduction", "mask", "ignore", "classWeights"]);
  requireFloat("nll", logProbabilities);
  const classes = classesOf("nll", logProbabilities);
  return labelled("nll", logProbabilities, integerLabels(labels, classes, options.ignore, "nll"), {
    ...options,
    probabilities: labels as Tensor<F>,
    smoothing: 0,
    areLogits: false,
  });
}

function classesOf(op: string, logits: Tensor<FloatDType>): number {
  const classes = logits.shape.at(-1);
  if (classes !== undefined) return classes;
  throw shapeError(op, "logits need an axis of classes at the end, got a scalar", logits.shape);
}

interface Labelled<F extends FloatDType> extends LabelOptions<F> {
  /** What counts where there are no integer labels. */
  readonly probabilities: Tensor<F>;
  readonly smoothing: number;
  /** Whether the rows are logits rather than log p. */
  readonly areLogits: boolean;
}

/**
 * (1 − s) · w_y · (−log p_y) + s · mean over all classes of w · (−log p), reduced with the weights w_y. Rows are logits or log p.
 */
function labelled<F extends FloatDType>(
  op: string,
  rows: Tensor<F>,
  targets: Tensor<"i32"> | undefined,
  options: Labelled<F>,
): Tensor<F> {
  const { smoothing, classWeights: weights, probabilities, areLogits } = options;
  const classes = rows.shape.at(-1) ?? 0;
  if (weights !== undefined) sameShape(op, weights.shape, [classes], "classWeights have one number for each class");
  const lossOf = (chosen: (weighted: Tensor<F>) => Tensor<F>) => {
    const logProbabilities = areLogits ? rows.logSoftmax(-1) : rows;
    const weighted = weights === undefined ? logProbabilities : logProbabilities.mul(weights);
    const each = chosen(weighted).neg();
    return smoothing === 0 ? each : each.mul(1 - smoothing).sub(weighted.mean(-1).mul(smoothing));
  };
  if (targets === undefined) {
    const advice = "probabilities have the shape of the logits";
    sameShape(op, rows.shape, probabilities.shape, advice);
    return reduceLoss(
      op,
      lossOf((weighted) => weighted.mul(probabilities).sum(-1)),
      options,
    );
  }
  const advice = "labels have the shape of the logits without its last axis";
  sameShape(op, rows.shape.slice(0, -1), targets.shape, advice);
  const counted = countedPlaces(op, targets, options);
  // places that do not count look at class 0, whose loss is then left out
  const labels = checked(counted === undefined ? targets : targets.mul(counted.cast(targets.dtype)), classes);
  const plain = areLogits && weights === undefined && smoothing === 0;
  const each = plain ? lossOfLabels(rows, labels) : lossOf((weighted) => picked(weighted, labels));
  return reduceWeighted(op, each, counted, weights?.take(labels), options.reduction);
}

/**
 * −log p of each row's label as log Σ exp(x − m) − (x_label − m), m = max x: as exact as from log p, and neither it nor its
 * derivatives need log p of the other classes.
 */
function lossOfLabels<F extends FloatDType>(logits: Tensor<F>, labels: Tensor<"i32">): Tensor<F> {
  return inSingle(logits, (x) => {
    const shifted = belowMaximum(x, -1);
    return shifted.exp().sum(-1).log().sub(picked(shifted, labels));
  });
}

/**
 * The label's element of each row, as a sum in which the others are 0: that fuses with the softmax before it, and so does its
 * gradient, where a gather's would be a matrix of zeros.
 */
function picked<F extends FloatDType>(rows: Tensor<F>, labels: Tensor<"i32">): Tensor<F> {
  const places = arange(0, rows.shape.at(-1) ?? 0, 1, { dtype: "i32" });
  return where(places.equal(labels.unsqueeze(-1)), rows, 0).sum(-1);
}

/** The labels, read through a gather of zeros: it makes a label that is no class an error. */
function checked(labels: Tensor<"i32">, classes: number): Tensor<"i32"> {
  return labels.add(zeros([classes], { dtype: "i32" }).take(labels));
}

/** Labels as a tensor of integers, or undefined when they are probabilities. */
function integerLabels<F extends FloatDType>(
  labels: Labels<NoInfer<F>>,
  classes: number,
  ignore: number | undefined,
  op: string,
): Tensor<"i32"> | undefined {
  if (isTensor(labels)) {
    if (isFloat(labels.dtype)) return undefined;
    if (isInteger(labels.dtype)) return wholeNumbers(labels as Tensor<IntegerDType>);
    throw dtypeError(op, `labels are integers or probabilities, got ${labels.dtype}`, labels.dtype);
  }
  const isArray = [Array, Int32Array, Uint32Array, Uint8Array].some((kind) => labels instanceof kind);
  if (!isArray) {
    throw argumentError(op, `labels are a tensor, numbers or an integer array, got ${describe(labels)}`);
  }
  const list = Array.from(labels as ArrayLike<number>);
  const wrong = list.findIndex(
    (label) => label !== ignore && !(Number.isInteger(label) && label >= 0 && label < classes),
  );
  if (wrong >= 0) {
    throw indexError(op, `label ${list[wrong]} at position ${wrong} is not one of 0 … ${classes - 1}`);
  }
  return tensor(list, { dtype: "i32" });
}

function countedPlaces(
  op: string,
  targets: Tensor<"i32">,
  options: Pick<LabelOptions, "ignore" | "mask">,
): Tensor<"bool"> | undefined {
  const { ignore, mask } = options;
  if (mask !== undefined) sameShape(op, mask.shape, targets.shape, "the mask has the shape of the labels");
  if (ignore === undefined) return mask;
  const wanted = targets.notEqual(ignore);
  return mask === undefined ? wanted : wanted.and(mask);
}

/** Options of `bceWithLogits`. */
export interface LogitsOptions<F extends FloatDType = FloatDType> extends LossOptions {
  /** Factors of the losses of positives; broadcasts to the targets. */
  readonly positiveWeight?: Tensor<F>;
}

/** Options of `bce`. */
export interface BinaryCrossEntropyOptions<F extends FloatDType = FloatDType> extends LogitsOptions<F> {
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
  options: BinaryCrossEntropyOptions<F> = {},
): Tensor<F> {
  checkOptions("bce", options, ["reduction", "mask", "positiveWeight", "logits"]);
  const { logits = false, ...rest } = options;
  if (logits) return bceWithLogits(prediction, target, rest);
  const wanted = yesOrNo("bce", prediction, target);
  const logYes = prediction.log().maximum(-100);
  const logNo = prediction.neg().log1p().maximum(-100);
  const yes =
    options.positiveWeight === undefined ? wanted.mul(logYes) : wanted.mul(logYes).mul(options.positiveWeight);
  return reduceLoss("bce", yes.add(wanted.neg().add(1).mul(logNo)).neg(), options);
}

/**
 * Binary cross-entropy of logits x: −t log σ(x) − (1 − t) log(1 − σ(x)), without overflow.
 *
 * ```ts
 * import { loss, tensor } from "raphson";
 *
 * console.log(loss.bceWithLogits(tensor([1000, -1000]), tensor([true, false])).item());   // 0
 * ```
 */
export function bceWithLogits<F extends FloatDType>(
  logits: Tensor<F>,
  target: Tensor<F> | Tensor<"bool">,
  options: LogitsOptions<F> = {},
): Tensor<F> {
  checkOptions("bceWithLogits", options, ["reduction", "mask", "positiveWeight"]);
  const wanted = yesOrNo("bceWithLogits", logits, target);
  // −t log σ(x) − (1 − t) log(1 − σ(x)) = softplus(x) − t·x, and −log σ(x) = softplus(−x)
  const plain = logits.softplus().sub(wanted.mul(logits));
  if (options.positiveWeight === undefined) return reduceLoss("bceWithLogits", plain, options);
  const extra = wanted.mul(options.positiveWeight.sub(1)).mul(logits.neg().softplus());
  return reduceLoss("bceWithLogits", plain.add(extra), options);
}

function yesOrNo<F extends FloatDType>(
  op: string,
  prediction: Tensor<F>,
  target: Tensor<F> | Tensor<"bool">,
): Tensor<F> {
  requireFloat(op, prediction);
  requireTensors(op, target);
  sameShape(op, prediction.shape, target.shape, "predictions and targets must not broadcast; reshape one of them");
  return target.cast(prediction.dtype);
}

/** Options of `kl`. */
export interface DivergenceOptions extends LossOptions {
  /** Whether targets are logarithms of probabilities (false unless given). */
  readonly logTarget?: boolean;
}

/**
 * The Kullback–Leibler divergence Σ t (log t − log p) over the last axis, from log p (as `logSoftmax` makes them) and
 * targets t, or log t with `{ logTarget: true }`. Where t is 0 a term is 0.
 */
export function kl<F extends FloatDType>(
  logPrediction: Tensor<F>,
  target: Tensor<F>,
  options: DivergenceOptions = {},
): Tensor<F> {
  checkOptions("kl", options, ["reduction", "mask", "logTarget"]);
  requireFloat("kl", logPrediction);
  const advice = "both have the classes as their last axis";
  requireTensors("kl", target);
  sameShape("kl", logPrediction.shape, target.shape, advice);
  classesOf("kl", logPrediction);
  const { logTarget = false } = options;
  const terms = logTarget ? target.exp().mul(target.sub(logPrediction)) : plogp(target).sub(target.mul(logPrediction));
  return reduceLoss("kl", terms.sum(-1), options);
}

/** t log t, and 0 at 0, where its slope is kept finite by leaving the logarithm out. */
function plogp<F extends FloatDType>(t: Tensor<F>): Tensor<F> {
  const positive = t.greater(0);
  return where(positive, t.mul(where(positive, t, 1).log()), 0);
}

/** Options of `hinge`. */
export interface HingeOptions extends LossOptions {
  /** The product of target and prediction from which on the loss is 0 (1 unless given). */
  readonly margin?: number;
}

/** max(0, margin − t x) for targets t of −1 and 1. */
export function hinge<F extends FloatDType>(
  prediction: Tensor<F>,
  target: Tensor<F>,
  options: HingeOptions = {},
): Tensor<F> {
  checkOptions("hinge", options, ["reduction", "mask", "margin"]);
  requireFloat("hinge", prediction);
  const advice = "predictions and targets must not broadcast; reshape one of them";
  requireTensors("hinge", target);
  sameShape("hinge", prediction.shape, target.shape, advice);
  const distance = prediction
    .mul(target)
    .neg()
    .add(options.margin ?? 1);
  return reduceLoss("hinge", distance.relu(), options);
}
