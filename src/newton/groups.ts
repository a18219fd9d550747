/**
 * Groups of parameters with an α each (`groups: "separate"`): which parameters they have, and where the addon's state has
 * their α. Where all share one α there is one group. How they are judged together is the addon's matter.
 */
import { argumentError } from "../errors";
import { native } from "../native";
import type { AnyTensor } from "../tensor";
import type { NewtonOptimizer } from "./newton";

/** The optimizer with its groups' parameters in the rule's settings. */
export function withGroups(
  newton: NewtonOptimizer,
  params: readonly AnyTensor[],
  paths: readonly string[],
): NewtonOptimizer {
  if (newton.groups === "shared") return newton;
  const groups = (newton.optimizer.groups?.(params, paths) ?? []).map((at) => [...at]);
  const all = groups.flat().sort((a, b) => a - b);
  if (groups.some((at) => at.length === 0) || all.length !== params.length || all.some((at, index) => at !== index)) {
    const found = groups.map((at) => `[${at.join(", ")}]`).join(", ");
    const message = `groups must give each of the ${params.length} parameters to one group, but gives ${found || "none"}`;
    throw argumentError(newton.optimizer.name, message);
  }
  return { ...newton, spec: { ...newton.spec, groups } };
}

type Grouped = Pick<NewtonOptimizer, "spec">;

/** How many α there are. */
export const alphaCount = ({ spec }: Grouped): number => Math.max(1, spec.groups.length);

/** Where each group's state begins in a rule's: at its α; with a rule that looks ahead its last rate stands behind it. */
export function headsOf({ spec }: Grouped, params: number, state: readonly unknown[]): readonly number[] {
  return spec.groups.length <= 1 ? [0] : native.alphaHeads(spec, params, state.length);
}

/** The α of each group in a rule's state. */
export function alphasIn(newton: Grouped, params: number, state: readonly AnyTensor[]): readonly AnyTensor[] {
  return headsOf(newton, params, state).map((head) => state[head] as AnyTensor);
}

/** The rate that each group's last step was made with; none where a rule does not keep it. */
export function ratesIn(newton: Grouped, params: number, state: readonly AnyTensor[]): readonly AnyTensor[] {
  return headsOf(newton, params, state).flatMap((head) => state[head + 1] ?? []);
}

/** For each parameter what its group has. */
export function byParameter<T>({ spec }: Grouped, params: number, ofGroups: readonly T[]): T[] {
  const found = Array.from({ length: params }, () => ofGroups[0] as T); // there is one group at least
  spec.groups.forEach((group, index) => {
    for (const at of group) found[at] = ofGroups[index] as T;
  });
  return found;
}
