/**
 * Losses of vectors that should be near or far: cosines and triplets.
 */

import type { FloatDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { isTensor, requireFloat, requireTensors, type Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { tensor } from "../tensor/creation";
import { checkOptions, sameShape } from "../tensor/validate";
import { type LossOptions, reduceLoss } from "./reduction";

function requireVectors(op: string, first: Tensor<FloatDType>, ...others: readonly Tensor<FloatDType>[]): void {
  requireFloat(op, first);
  if (first.rank === 0) throw shapeError(op, "vectors need an axis, got a scalar", first.shape);
  requireTensors(op, ...others);
  for (const other of others) sameShape(op, first.shape, other.shape, "the vectors have equal shapes, [..., width]");
}

/** Options of `cosineEmbedding`. */
export interface CosineOptions extends LossOptions {
  /** The cosine up to which unlike vectors cost nothing, of [−1, 1] (0 unless given). */
  readonly margin?: number;
}

/** Added to squared lengths, as PyTorch has it. */
const EPSILON = 1e-12;

/**
 * 1 − cos for pairs that are alike (target 1), max(0, cos − margin) for others (target −1). Vectors are [..., width],
 * targets [...]: a tensor of numbers or an array. A target among numbers that is neither is an error.
 */
export function cosineEmbedding<F extends FloatDType>(
  first: Tensor<F>,
  second: Tensor<F>,
  target: Tensor<F> | Tensor<"i32"> | readonly number[],
  options: CosineOptions = {},
): Tensor<F> {
  checkOptions("cosineEmbedding", options, ["reduction", "mask", "margin"]);
  const op = "cosineEmbedding";
  requireVectors(op, first, second);
  const { margin = 0 } = options;
  if (!(margin >= -1 && margin <= 1)) throw argumentError(op, `the margin must be of [−1, 1], got ${margin}`);
  if (!isTensor(target)) {
    const wrong = target.findIndex((t) => t !== 1 && t !== -1);
    if (wrong >= 0) throw argumentError(op, `target ${target[wrong]} at position ${wrong} is neither 1 nor −1`);
  }
  const alike = (isTensor(target) ? target.cast("f32") : tensor(target as number[])).greater(0);

  sameShape(op, first.shape.slice(0, -1), alike.shape, "targets have the vectors' shape without its last axis");
  const lengths = first.square().sum(-1).add(EPSILON).mul(second.square().sum(-1).add(EPSILON));
  const cosine = first.mul(second).sum(-1).mul(lengths.rsqrt());
  const each = where(alike, cosine.neg().add(1), cosine.sub(margin).relu());
  return reduceLoss(op, each, options);
}

/** Options of `tripletMargin`. */
export interface TripletOptions extends LossOptions {
  /** How much farther the negative must be than the positive (1 unless given). */
  readonly margin?: number;
  /** The norm that measures distances (2 unless given). */
  readonly p?: number;
  /** Takes the smaller of the negative's distances from anchor and positive (false unless given). */
  readonly swap?: boolean;
}

/** Added to differences before their norm is taken, as PyTorch has it: no root of 0. */
const DISTANCE_EPSILON = 1e-6;

/** max(0, d(anchor, positive) − d(anchor, negative) + margin) for vectors [..., width]. */
export function tripletMargin<F extends FloatDType>(
  anchor: Tensor<F>,
  positive: Tensor<F>,
  negative: Tensor<F>,
  options: TripletOptions = {},
): Tensor<F> {
  checkOptions("tripletMargin", options, ["reduction", "mask", "margin", "p", "swap"]);
  requireVectors("tripletMargin", anchor, positive, negative);
  const { margin = 1, p = 2, swap = false } = options;
  if (!(p > 0)) throw argumentError("tripletMargin", `p must be a positive number, got ${p}`);
  const distance = (a: Tensor<F>, b: Tensor<F>) => a.sub(b).add(DISTANCE_EPSILON).norm(-1, { p });
  const direct = distance(anchor, negative);
  const far = swap ? direct.minimum(distance(positive, negative)) : direct;
  const each = distance(anchor, positive).sub(far).add(margin).relu();
  return reduceLoss("tripletMargin", each, options);
}
