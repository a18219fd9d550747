/** What a step carries from one run to the next beside the parameters: the direction's state and the rule's. */
import { scalarDType } from "../device";
import { type Handle, native } from "../native";
import type { RecallInput } from "../optim/optimizer";
import { type AnyTensor, fromHandle } from "../tensor";
import { zeros } from "../tensor/creation";
import { type Flat, flatten } from "../tree";
import type { Average } from "./average";
import { alphaCount } from "./groups";
import type { NewtonOptimizer } from "./newton";
import { ownState, type Precision } from "./precision";
import { startUpOf } from "./startUp";
import type { Kind } from "./trace";

/** Handles that each run gives away and gets anew, and the form they have. */
export interface StepState {
  direction: Handle[];
  rule: Handle[];
  /** The state of a rule from TypeScript, and the loss scale. */
  ownRule: Handle[];
  /** Where random draws come from, with the number of the batch. It is read only. */
  key: Handle;
  /** How many parameters the average has seen, and their averages; empty without one. */
  average: Handle[];
  /** Whether the optimizer recalls start and direction of the step before, so that the rule does not keep them. */
  readonly recalls: boolean;
  readonly kinds: readonly Kind[];
  readonly ruleKinds: readonly Kind[];
  readonly directionTree: Flat;
  readonly ownRuleTree: Flat;
}

/** The tensors' handles. */
export const handlesOf = (tensors: readonly AnyTensor[]): Handle[] => tensors.map((tensor) => tensor.handle);

/** Dtype and shape. */
export const kindOf = ({ dtype, shape }: AnyTensor): Kind => ({ dtype, shape });

/** Start and direction of the step before, for a rule that takes steps back, where the optimizer recalls them. */
export function recalledOf({ optimizer, spec }: NewtonOptimizer, input: RecallInput<unknown>): Handle[] {
  const step = startUpOf(spec.rule) && optimizer.recall?.(input);
  return step === undefined ? [] : handlesOf([...step.start, ...step.omega]);
}

/** The state before the first step. Call it inside `tidy`: what the optimizer made on the way is freed there. */
export function initialState(
  newton: NewtonOptimizer,
  average: Average | undefined,
  params: readonly AnyTensor[],
  paths: readonly string[],
  precision: Precision,
  key: Handle,
): StepState {
  const { optimizer, rule, spec } = newton;
  const directionTree = flatten(optimizer.init(params, paths), optimizer.name);
  const ownRuleTree = flatten(ownState(typeof rule === "string" ? [] : rule.init(), precision), "alpha rule");
  const state = directionTree.rebuild(directionTree.tensors, "records");
  const applied = zeros([], { dtype: scalarDType() });
  const rates = Array.from({ length: alphaCount(newton) }, () => applied);
  const recalls = recalledOf(newton, { params, applied, state, paths, rates }).length > 0;
  const ruleHandles = native.alphaInit(spec, handlesOf(params), handlesOf(directionTree.tensors), recalls);
  const ruleState = ruleHandles.map((handle) => fromHandle(handle));
  // dtypes and shapes are read now: they stay known after the scope has freed the tensors
  const ruleKinds = ruleState.map(kindOf);
  for (const tensor of [...directionTree.tensors, ...ownRuleTree.tensors]) kindOf(tensor);
  return {
    direction: directionTree.tensors.map(ownCopy),
    rule: ruleState.map(ownCopy),
    ownRule: ownRuleTree.tensors.map(ownCopy),
    key,
    average: average === undefined ? [] : [zeros([], { dtype: scalarDType() }), ...params].map(ownCopy),
    recalls,
    kinds: params.map(kindOf),
    ruleKinds,
    directionTree,
    ownRuleTree,
  };
}

/**
 * A handle of our own on memory of its own. It is given away to the first step, which overwrites it, so it must not be
 * shared with the user's tensor, nor with an equal value (Adam's two zeros), as it would be if they were computed
 * together.
 */
export function ownCopy(tensor: AnyTensor): Handle {
  const copy = native.alias(tensor.handle);
  native.evaluate([copy]);
  return copy;
}
