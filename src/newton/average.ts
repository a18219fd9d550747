/**
 * Averaged parameters x̄, to evaluate at where the learning rate does not fall to nothing by itself: what is averaged, and
 * with which weights. They are part of a step's state; exchanging them with the model's parameters is `step.ts`'s matter.
 */
import { scalarDType } from "../device";
import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import { native } from "../native";
import type { AnyTensor, Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { handlesOf } from "./state";
import type { Kind } from "./trace";

/** `true`: weights that grow with the steps, so that the average follows the newest tenth; or a decay of your own. */
export type Average = true | { readonly decay: number };

/** Counts for about this many of the newest steps' n-th part: x̄ ← x̄ + (η + 1)/(n + η) · (θ − x̄). */
const ETA = 8;

/** The option, checked. */
export function checkAverage(op: string, average: Average | boolean | undefined): Average | undefined {
  if (average === undefined || average === false) return undefined;
  if (average === true) return true;
  const decay: unknown = average?.decay;
  if (typeof decay === "number" && decay >= 0 && decay < 1 && Object.keys(average).length === 1) return average;
  throw argumentError(
    op,
    "average must be true, false or { decay: number } with a decay of at least 0 and less than 1",
  );
}

/** The kinds of an average's tensors: how many parameters it has seen, then x̄ for each. */
export const averageKinds = (params: readonly Kind[]): Kind[] => [{ dtype: scalarDType(), shape: [] }, ...params];

/** The weight of the parameters seen next, after `seen` others; 1 for the first two, since training starts from the first. */
function weightOf(average: Average, seen: Tensor<FloatDType>): Tensor<FloatDType> {
  if (average === true)
    return seen
      .add(ETA)
      .reciprocal()
      .mul(ETA + 1)
      .minimum(1);
  return seen
    .maximum(1)
    .reciprocal()
    .maximum(1 - average.decay);
}

/** x̄ + w(θ − x̄) */
function means(average: Average, [seen, ...old]: readonly AnyTensor[], params: readonly AnyTensor[]): AnyTensor[] {
  const weight = weightOf(average, seen as Tensor<FloatDType>);
  return old.map((mean, index) => {
    // Parameters are floats (checked where they enter), and their averages have their dtypes.
    const [m, theta] = [mean, params[index]] as [Tensor<FloatDType>, Tensor<FloatDType>];
    return m.add(theta.sub(m).mul(weight.cast(m.dtype)));
  });
}

/** The average after a step that began at `params`; as it was where the step before is taken back. */
export function averageAfter(
  average: Average,
  old: readonly AnyTensor[],
  params: readonly AnyTensor[],
  accepted: Tensor<"bool">,
): AnyTensor[] {
  const seen = old[0] as Tensor<FloatDType>;
  const fresh = [seen.add(1), ...means(average, old, params)];
  return fresh.map((tensor, index) => where(accepted, tensor, old[index] as AnyTensor));
}

/** A program that gives x̄ with the newest parameters in it. Inputs: the average's tensors, then the parameters. */
export function averageProgram(average: Average, old: readonly AnyTensor[], params: readonly AnyTensor[]): number {
  const inputs = [...old, ...params];
  return native.compileProgram(
    handlesOf(inputs),
    handlesOf(means(average, old, params)),
    inputs.map(() => false),
  );
}
