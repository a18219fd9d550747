/**
 * What of a training step goes into a checkpoint, and back. The rule's state is a list of tensors of which nothing is
 * known here but dtypes and shapes. The file itself is `checkpoint.ts`'s subject.
 */
import type { Handle } from "../native";
import { native } from "../native";
import { MODEL_PREFIX } from "../nn/store";
import { averageKinds } from "./average";
import { CheckpointFile, type Expected, type Snapshot } from "./checkpoint";
import type { MicroBatches } from "./microBatches";
import type { NewtonOptimizer } from "./newton";
import type { ParameterValues } from "./parameters";
import type { Precision } from "./precision";
import { handlesOf, kindOf, type StepState } from "./state";
import type { Kind } from "./trace";

/** Where a step's tensors are. */
export interface StepParts {
  readonly newton: NewtonOptimizer;
  readonly values: ParameterValues;
  readonly state: StepState;
  readonly micro: MicroBatches;
  readonly precision: Precision;
}

/** A step's own numbers. */
export interface StepNumbers {
  readonly counter: number;
  readonly started: number;
  readonly nonFinite: number;
  /** α of each group. */
  readonly alphas: readonly number[];
  readonly frozen: boolean;
  readonly stale: boolean;
  /** The step at which the rule began: 0, or the one after α was held. */
  readonly since: number;
}

/** The parts of a checkpoint, in the order of its tensors. */
const PARTS = ["params", "states", "direction", "rule", "ownRule", "average", "key", "sums", "moved"] as const;

/** What the names of each part begin with. */
const PREFIX = {
  params: MODEL_PREFIX,
  states: MODEL_PREFIX,
  direction: "optimizer",
  rule: "rule.",
  ownRule: "ownRule",
  average: "average.",
  key: "key",
  sums: "gradients.",
  moved: "moved.",
} as const satisfies Record<(typeof PARTS)[number], string>;

type ByPart<T> = Readonly<Record<(typeof PARTS)[number], readonly T[]>>;

/** Names, dtypes and shapes, with `gathered` micro-batches of a step under way. */
function expectedOf({ values, state }: StepParts, gathered: number): ByPart<Expected> {
  const { kinds, ruleKinds, directionTree, ownRuleTree } = state;
  const { paths, statePaths } = values;
  const named = (part: keyof typeof PREFIX, names: readonly string[], its: readonly Kind[]) =>
    names.map((name, index): Expected => [PREFIX[part] + name, its[index] as Kind]);
  const stateKinds = values.states().map(kindOf);
  const underWay = gathered > 0;
  return {
    params: named("params", paths, kinds),
    states: named("states", statePaths, stateKinds),
    direction: named("direction", directionTree.paths, directionTree.tensors.map(kindOf)),
    rule: named("rule", [...ruleKinds.keys()].map(String), ruleKinds),
    ownRule: named("ownRule", ownRuleTree.paths, ownRuleTree.tensors.map(kindOf)),
    average: named("average", state.average.length === 0 ? [] : ["seen", ...paths], averageKinds(kinds)),
    key: named("key", [""], [{ dtype: "u32", shape: [2] }]),
    sums: named("sums", underWay ? paths : [], kinds),
    moved: named("moved", underWay ? statePaths : [], stateKinds),
  };
}

/** What a checkpoint says beside its tensors that the step going on must share. */
function identityOf({ newton, micro, precision }: StepParts): Record<string, unknown> {
  const { optimizer, rule } = newton;
  const ruleName = typeof rule === "string" ? rule : rule.name;
  const groups = newton.spec.groups.length;
  return { optimizer: optimizer.name, rule: ruleName, accumulate: micro.perStep, precision, groups };
}

/** Everything that the step needs to go on. */
export async function snapshotOf(parts: StepParts, numbers: StepNumbers): Promise<Snapshot> {
  const { values, state, micro } = parts;
  const expected = expectedOf(parts, micro.gathered);
  const handles: ByPart<Handle> = {
    params: handlesOf(values.tensors()),
    states: handlesOf(values.states()),
    direction: state.direction,
    rule: state.rule,
    ownRule: state.ownRule,
    average: state.average,
    key: [state.key],
    sums: micro.sums,
    moved: micro.states ?? [],
  };
  const tensors = PARTS.flatMap((part) =>
    expected[part].map(([name], index) => [name, handles[part][index] ?? 0] as const),
  );
  // As text, for JSON has no word for NaN.
  const losses = (await micro.losses()).map(String);
  const { alphas, ...counts } = numbers;
  return { tensors, numbers: { ...identityOf(parts), ...counts, alphas: alphas.map(String), losses } };
}

/** Puts a file's tensors in the places of the step's, and gives the rest. Nothing changes unless all of it fits. */
export async function restoreFrom(path: string, parts: StepParts) {
  const file = await CheckpointFile.read(path);
  try {
    const { losses, numbers } = checked(file, parts);
    const expected = expectedOf(parts, losses.length);
    file.check(
      PARTS.flatMap((part) => expected[part]),
      Object.values(PREFIX),
    );
    const arrays = await file.arrays();
    const { values, state, micro } = parts;
    values.replace(file.take(expected.params));
    values.replaceStates(file.take(expected.states));
    native.dispose([...state.direction, ...state.rule, ...state.ownRule, ...state.average, state.key]);
    state.direction = file.take(expected.direction);
    state.rule = file.take(expected.rule);
    state.ownRule = file.take(expected.ownRule);
    state.average = file.take(expected.average);
    state.key = file.take(expected.key)[0] ?? 0;
    micro.restore(file.take(expected.sums), file.take(expected.moved), losses);
    return { numbers, metadata: file.metadata, arrays };
  } finally {
    file.close();
  }
}

/** The numbers of a file that belongs to a step like this one. */
function checked(file: CheckpointFile, parts: StepParts): { losses: number[]; numbers: StepNumbers } {
  for (const [name, own] of Object.entries(identityOf(parts))) {
    const theirs = file.numbers[name];
    if (theirs === own) continue;
    throw file.error(`its ${name} is ${JSON.stringify(theirs)}, and here it is ${JSON.stringify(own)}`);
  }
  const { losses, alphas, frozen, stale } = file.numbers;
  if (!Array.isArray(losses) || !Array.isArray(alphas)) throw file.error("its numbers are damaged");
  const [counter, started, nonFinite] = [file.count("counter"), file.count("started"), file.count("nonFinite")];
  const since = file.count("since");
  const held = { frozen: frozen === true, stale: stale === true };
  return {
    losses: losses.map(Number),
    numbers: { counter, started, nonFinite, since, alphas: alphas.map(Number), ...held },
  };
}
