/** What a step carries from one run to the next beside the parameters: the direction's state and the rule's. */
import { type Handle, native } from "../native";
import { type AnyTensor, fromHandle } from "../tensor";
import { type Flat, flatten } from "../tree";
import type { NewtonOptimizer } from "./newton";
import type { Kind } from "./trace";

/** Handles that each run gives away and gets anew, and the form they have. */
export interface StepState {
  direction: Handle[];
  rule: Handle[];
  /** The state of a rule from TypeScript. */
  ownRule: Handle[];
  readonly kinds: readonly Kind[];
  readonly ruleKinds: readonly Kind[];
  readonly directionTree: Flat;
  readonly ownRuleTree: Flat;
}

/** The tensors' handles. */
export const handlesOf = (tensors: readonly AnyTensor[]): Handle[] => tensors.map((tensor) => tensor.handle);

const kindOf = ({ dtype, shape }: AnyTensor): Kind => ({ dtype, shape });

/** The state before the first step. Call it inside `tidy`: what the optimizer made on the way is freed there. */
export function initialState(newton: NewtonOptimizer, params: readonly AnyTensor[]): StepState {
  const { optimizer, rule, spec } = newton;
  const directionTree = described(flatten(optimizer.init(params), optimizer.name));
  const ownRuleTree = described(flatten(typeof rule === "string" ? [] : rule.init(), "alpha rule"));
  const ruleState = native.alphaInit(spec, handlesOf(params));
  // The rule's handles are ours from here on; tensors over them would be freed with the scope.
  const ruleKinds = ruleState.map((handle) => {
    const copy = fromHandle(native.clone(handle));
    return kindOf(copy);
  });
  const state: StepState = {
    direction: directionTree.handles,
    rule: ruleState,
    ownRule: ownRuleTree.handles,
    kinds: params.map(kindOf),
    ruleKinds,
    directionTree: directionTree.flat,
    ownRuleTree: ownRuleTree.flat,
  };
  native.evaluate([...state.direction, ...state.rule, ...state.ownRule]);
  return state;
}

/** Handles of our own for the tree's tensors, and the tree itself for its form. */
function described(flat: Flat): { flat: Flat; handles: Handle[] } {
  for (const tensor of flat.tensors) kindOf(tensor); // reads shape and dtype, which stay known after the scope ends
  return { flat, handles: flat.tensors.map((tensor) => native.clone(tensor.handle)) };
}
