/**
 * From the losses of single elements to one: reductions, masks and weights.
 */

import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { describe, sameShape } from "../tensor/validate";

/** How the losses of single elements become one. */
export type Reduction = "mean" | "sum" | "none";

/** Options of all losses. */
export interface LossOptions {
  /** `mean` unless given. */
  readonly reduction?: Reduction;
  /** True where an element counts; the shape of the unreduced loss. The mean is over what counts. */
  readonly mask?: Tensor<"bool">;
}

/** The loss of all elements. */
export function reduceLoss<F extends FloatDType>(op: string, each: Tensor<F>, options: LossOptions): Tensor<F> {
  const { mask } = options;
  if (mask !== undefined) sameShape(op, mask.shape, each.shape, "the mask has the shape of the unreduced loss");
  return reduceWeighted(op, each, mask, undefined, options.reduction);
}

/**
 * Σ m · each / Σ m · w for a mask m and weights w (which are in `each` already), or a plain sum, or no sum at all. Where
 * nothing counts the mean is 0.
 */
export function reduceWeighted<F extends FloatDType>(
  op: string,
  each: Tensor<F>,
  mask: Tensor<"bool"> | undefined,
  weights: Tensor<F> | undefined,
  reduction: Reduction = "mean",
): Tensor<F> {
  const counts = mask?.cast(each.dtype);
  const counted = counts === undefined ? each : each.mul(counts);
  switch (reduction) {
    case "none":
      return counted;
    case "sum":
      return counted.sum();
    case "mean": {
      if (weights !== undefined) {
        const total = (counts === undefined ? weights : weights.mul(counts)).sum();
        return counted.sum().div(where(total.equal(0), 1, total));
      }
      return counts === undefined ? each.mean() : counted.sum().div(counts.sum().maximum(1));
    }
    default:
      throw argumentError(op, `reduction is "mean", "sum" or "none", got ${describe(reduction)}`);
  }
}
