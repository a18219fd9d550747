/**
 * Mixed precision: in which dtype modules compute while parameters stay f32, and the factor on the loss that keeps small
 * gradients above the least f16. What modules do about it stands in `nn/context.ts`.
 */
import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { AnyTensor, Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { full } from "../tensor/creation";
import { concatenate } from "../tensor/movement";

/** What modules compute in while they are trained. Parameters, their gradients, losses and statistics are f32 always. */
export type Precision = "f32" | "f16" | "bf16";

/** The dtype, checked. */
export function checkPrecision(op: string, precision: Precision): void {
  if (["f32", "f16", "bf16"].includes(precision)) return;
  throw argumentError(op, `precision is "f32", "f16" or "bf16", not ${JSON.stringify(precision)}`);
}

/** The factor on the loss, and the steps since it last changed: f32 scalars, of which the training state has two for f16. */
export type LossScale = { readonly scale: Tensor; readonly steps: Tensor };

/** The rule's own state and what f16 keeps beside it. */
export type OwnState = { readonly own: unknown; readonly lossScale?: LossScale };

/**
 * How the factor moves, as PyTorch's GradScaler has it: doubled after 2,000 steps without overflow, halved at one. The
 * bounds keep it a number: at the lower one gradients that are not finite are the learning-rate rule's business.
 */
export const LOSS_SCALE = { initial: 65536, growth: 2, backoff: 0.5, interval: 2000, least: 2 ** -14, most: 2 ** 100 };

/** The state before the first step. */
export function ownState(own: unknown, precision: Precision): OwnState {
  if (precision !== "f16") return { own };
  return { own, lossScale: { scale: full([], LOSS_SCALE.initial), steps: full([], 0) } };
}

/** The loss times the factor, as what gradients are taken of. */
export function scaled(loss: AnyTensor, scale: Tensor | undefined): AnyTensor {
  return scale === undefined ? loss : (loss as Tensor<FloatDType>).mul(scale.cast(loss.dtype as FloatDType));
}

/** Gradients without the factor. Dividing by a power of two is exact. */
export function unscaled(gradients: readonly AnyTensor[], scale: Tensor | undefined): readonly AnyTensor[] {
  if (scale === undefined) return gradients;
  return (gradients as readonly Tensor<FloatDType>[]).map((g) => g.div(scale.cast(g.dtype)));
}

/**
 * Whether this step is to be left out: its loss is finite, its gradients are not. A loss that is not finite would be no
 * better with a smaller factor; it is left to the learning-rate rule.
 */
export function overflowed(loss: AnyTensor, gradients: readonly AnyTensor[], { scale }: LossScale): Tensor<"bool"> {
  const sums = (gradients as readonly Tensor<FloatDType>[]).map((g) => g.isFinite().all().reshape([1]));
  if (sums.length === 0) return scale.less(0);
  const finite = sums.length === 1 ? (sums[0] as Tensor<"bool">) : concatenate(sums);
  const lossIsFinite = (loss as Tensor<FloatDType>).isFinite();
  return finite.all().not().and(lossIsFinite).and(scale.greater(LOSS_SCALE.least));
}

/** The factor for the next step. */
export function lossScaleAfter({ scale, steps }: LossScale, overflow: Tensor<"bool">): LossScale {
  const { growth, backoff, interval, least, most } = LOSS_SCALE;
  const counted = steps.add(1);
  const grows = counted.greaterEqual(interval);
  const kept = where(grows, scale.mul(growth).minimum(most), scale);
  return {
    scale: where(overflow, scale.mul(backoff).maximum(least), kept),
    steps: where(overflow.or(grows), 0, counted) as Tensor,
  };
}
