/** From runs to cells: each method at each α₀, as ratios to the group's tuned baselines. */
import { METHODS } from "./methods";
import { type Group, methodsOf, type Plan, tunedOf } from "./plan";
import type { RunResult } from "./run";
import type { HalfName } from "./split";
import { geometricMean, lossOf, type Point, pointOf, type RunFunction, type Tuned, tune } from "./tuning";

/**
 * One row of the result. Ratios are geometric means over seeds of final training loss ÷ the baseline's with the same
 * seed.
 */
export interface Cell {
  readonly problem: string;
  readonly optimizer: string;
  readonly rule: string;
  readonly kind: "baseline" | "rule" | "comparator";
  readonly half: HalfName;
  /** null for methods that take none. */
  readonly alpha0: number | null;
  /** Steps. */
  readonly horizon: number;
  /** 0: the whole problem. */
  readonly batch: number;
  readonly seeds: number;
  /** Training loss; null where a run diverged, as are the ratios. */
  readonly loss: number | null;
  readonly ratio_constant: number | null;
  readonly ratio_cosine: number | null;
  /** Mean over seeds: accuracy where the problem has one, else the loss; null where there is no held-out part. */
  readonly held_out: number | null;
  readonly held_out_measure: "accuracy" | "loss" | null;
  /** Gradient evaluations per step. */
  readonly cost: number;
}

/** A tuned baseline of a group. */
export interface Baseline {
  readonly problem: string;
  readonly optimizer: string;
  readonly horizon: number;
  readonly batch: number;
  readonly half: HalfName;
  readonly method: "constant" | "cosine";
  readonly alpha: number | null;
  readonly loss: number | null;
  readonly held_out: number | null;
  /** Steps of the search for α, for one seed. */
  readonly grid_steps: number;
}

/** α over the steps of a cell's first seed. */
export interface Trace extends Pick<Cell, "problem" | "optimizer" | "rule" | "alpha0" | "horizon" | "batch"> {
  readonly alphas: RunResult["alphas"];
}

/** Everything that is known of a group. */
export interface GroupResult {
  readonly cells: readonly Cell[];
  readonly baselines: readonly Baseline[];
  readonly traces: readonly Trace[];
}

/** A number that JSON has a word for, with five digits that matter. */
const plain = (value: number): number | null => (Number.isFinite(value) ? Number(value.toPrecision(5)) : null);
const mean = (numbers: readonly number[]): number => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;

function heldOut(results: readonly RunResult[]): Pick<Cell, "held_out" | "held_out_measure"> {
  const of = (pick: (result: RunResult) => number | null) => mean(results.map((result) => pick(result) ?? Number.NaN));
  const [accuracy, loss] = [of(({ heldAccuracy }) => heldAccuracy), of(({ heldLoss }) => heldLoss)];
  if (Number.isFinite(accuracy)) return { held_out: plain(accuracy), held_out_measure: "accuracy" };
  return { held_out: plain(loss), held_out_measure: Number.isFinite(loss) ? "loss" : null };
}

/** Loss ÷ the baseline's, seed by seed: they share their data, their order and the initial parameters. */
function ratio(point: Point, baseline: Point): number {
  return geometricMean(point.results.map((result, i) => lossOf(result) / lossOf(baseline.results[i] as RunResult)));
}

function cellOf(group: Group, rule: string, point: Point, constant: Tuned, cosine: Tuned): Cell {
  return {
    ...{
      problem: group.problem,
      optimizer: group.optimizer,
      rule,
      kind: METHODS[rule]?.kind ?? "rule",
      half: group.half,
    },
    ...{ alpha0: point.alpha, horizon: group.steps, batch: group.batch, seeds: group.seeds.length },
    loss: plain(point.loss),
    ratio_constant: plain(ratio(point, constant.best)),
    ratio_cosine: plain(ratio(point, cosine.best)),
    ...heldOut(point.results),
    cost: Number(mean(point.results.map(({ cost }) => cost)).toFixed(3)),
  };
}

/** Measures a group: its baselines, and every method of the plan. */
export async function measureGroup(run: RunFunction, plan: Plan, group: Group): Promise<GroupResult> {
  const tried = methodsOf(plan, group);
  // What was searched stands without an α₀: it is one result, not one for each.
  const searched = async (method: string) => {
    const { best } = await tune(run, group, method);
    return { method, point: { ...best, alpha: null } };
  };
  const [constant, cosine, ...points] = await Promise.all([
    tune(run, group, "constant"),
    tune(run, group, "cosine"),
    ...tunedOf(plan).map(searched),
    ...tried.map(async ({ method, alpha }) => ({ method, point: await pointOf(run, group, method, alpha) })),
  ]);
  const all = [
    ...constant.points.map((point) => ({ method: "constant", point })),
    ...cosine.points.map((point) => ({ method: "cosine", point })),
    ...points,
  ];
  const place = { problem: group.problem, optimizer: group.optimizer, horizon: group.steps, batch: group.batch };
  const baseline = (method: "constant" | "cosine", { best, gridSteps }: Tuned): Baseline => {
    const { held_out } = heldOut(best.results);
    const found = { alpha: best.alpha, loss: plain(best.loss), held_out, grid_steps: gridSteps };
    return { ...place, half: group.half, method, ...found };
  };
  return {
    cells: all.map(({ method, point }) => cellOf(group, method, point, constant, cosine)),
    baselines: [baseline("constant", constant), baseline("cosine", cosine)],
    traces: points.map(({ method, point }) => ({
      ...{ ...place, rule: method, alpha0: point.alpha },
      alphas: point.results[0]?.alphas ?? [],
    })),
  };
}
