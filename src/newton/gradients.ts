/**
 * What happens to gradients between the loss and the optimizer: clipping, and the mean over micro-batches. A rule's inner
 * products use the gradients as they were before clipping.
 */
import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { AnyTensor, Tensor } from "../tensor";

/** Bounds for gradients: the norm of all of them together, or each number's size. */
export type Clip =
  | { readonly norm: number; readonly value?: never }
  | { readonly value: number; readonly norm?: never };

/** The bound, checked. */
export function checkClip(op: string, clip: Clip | undefined): void {
  if (clip === undefined) return;
  const given = Object.entries(clip).filter(([, bound]) => bound !== undefined);
  const [first] = given;
  if (given.length !== 1 || first === undefined || !["norm", "value"].includes(first[0])) {
    throw argumentError(op, "clip must be { norm: number } or { value: number }");
  }
  const [name, bound] = first;
  if (typeof bound === "number" && Number.isFinite(bound) && bound > 0) return;
  throw argumentError(op, `clip.${name} must be a positive number, not ${String(bound)}`);
}

/** A number of micro-batches, checked. */
export function checkAccumulate(op: string, accumulate: number): void {
  if (Number.isSafeInteger(accumulate) && accumulate >= 1) return;
  throw argumentError(op, `accumulate must be a whole number of at least 1, not ${accumulate}`);
}

/** Parameters are floats (checked where they enter), and gradients have their dtypes. */
const asFloats = (gradients: readonly AnyTensor[]) => gradients as readonly Tensor<FloatDType>[];

/** The gradients within the bound. */
export function clipped(gradients: readonly AnyTensor[], clip: Clip | undefined): readonly AnyTensor[] {
  if (clip === undefined || gradients.length === 0) return gradients;
  if (clip.value !== undefined) return asFloats(gradients).map((g) => g.clip(-clip.value, clip.value));
  return clippedByNorm(asFloats(gradients), clip.norm);
}

/** g · min(1, bound/‖g‖) with ‖g‖ over all gradients; where ‖g‖ is not finite, neither is the result. */
function clippedByNorm(gradients: readonly Tensor<FloatDType>[], bound: number): readonly AnyTensor[] {
  // In the widest dtype at hand, which the device surely has.
  const dtype: FloatDType = gradients.some((g) => g.dtype === "f64") ? "f64" : "f32";
  const squares = gradients.map((g) => g.square().sum().cast(dtype));
  const norm = squares.reduce((sum, square) => sum.add(square)).sqrt();
  const factor = norm.reciprocal().mul(bound).minimum(1);
  return gradients.map((g) => g.mul(factor.cast(g.dtype)));
}

/** Sums of the gradients so far and these. */
export function summed(sums: readonly AnyTensor[], gradients: readonly AnyTensor[]): readonly AnyTensor[] {
  return asFloats(sums).map((sum, index) => sum.add(gradients[index] as Tensor<FloatDType>));
}

/** (sums + gradients) / count */
export function meanOf(sums: readonly AnyTensor[], gradients: readonly AnyTensor[], count: number) {
  return asFloats(summed(sums, gradients)).map((sum) => sum.mul(1 / count));
}
