/**
 * What is to be measured: groups of runs that share problem, optimizer, horizon and batch size, each with its own
 * baselines.
 */
import { METHODS } from "./methods";
import type { OptimizerName } from "./optimizers";
import { PROBLEMS, type ProblemName } from "./problems";
import type { Sources } from "./problems/problem";
import type { RunSpec } from "./run";
import { HALVES, type HalfName, halfOf } from "./split";

/** What was asked for on the command line. */
export interface Plan {
  readonly problems: readonly ProblemName[];
  readonly optimizers: readonly OptimizerName[];
  /** Rules and comparators. */
  readonly methods: readonly string[];
  readonly alphas: readonly number[];
  readonly seeds: number;
  readonly batches: readonly number[];
  readonly horizons: readonly ("short" | "long")[];
  /** Steps instead of the problems' own horizons. */
  readonly steps: number | undefined;
  readonly sources: Sources;
}

/** Runs that are compared with one another. */
export interface Group {
  readonly problem: ProblemName;
  readonly optimizer: OptimizerName;
  readonly steps: number;
  /** 0: the whole problem. */
  readonly batch: number;
  readonly seeds: readonly number[];
  readonly half: HalfName;
  readonly sources: Sources;
}

/** The groups of a plan, problem after problem. */
export function groupsOf(plan: Plan): Group[] {
  return plan.problems.flatMap((problem) => {
    const { deterministic, horizons, fewer = 1 } = PROBLEMS[problem];
    const half = halfOf(problem);
    const seeds = HALVES[half].seeds.slice(0, plan.seeds);
    const lengths = plan.steps === undefined ? plan.horizons.map((name) => horizons[name]) : [plan.steps];
    const batches = deterministic ? [0] : plan.batches.map((batch) => Math.max(1, Math.floor(batch / fewer)));
    return plan.optimizers.flatMap((optimizer) =>
      lengths.flatMap((steps) =>
        batches.map((batch): Group => ({ problem, optimizer, steps, batch, seeds, half, sources: plan.sources })),
      ),
    );
  });
}

/** The methods that work with a group's optimizer, each with the α₀ that it is tried from; searched ones left out. */
export function methodsOf(plan: Plan, group: Group): { readonly method: string; readonly alpha: number | null }[] {
  return plan.methods.flatMap((name) => {
    const method = METHODS[name];
    if (method === undefined) throw new Error(`there is no method ${name}`);
    if (method.optimizers !== undefined && !method.optimizers.includes(group.optimizer)) return [];
    if (method.tuned === true) return [];
    return (method.takesAlpha ? plan.alphas : [null]).map((alpha) => ({ method: name, alpha }));
  });
}

/** The methods of the plan whose α is searched. */
export const tunedOf = (plan: Plan): string[] => plan.methods.filter((name) => METHODS[name]?.tuned === true);

/** A run of a group. The order of the fields is that of the store's keys. */
export function specOf(group: Group, method: string, alpha: number | null, seed: number): RunSpec {
  const { problem, optimizer, steps, batch, sources } = group;
  return { problem, optimizer, method, alpha, steps, batch, seed, sources };
}
