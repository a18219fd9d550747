/**
 * The cells in a few tables for people: for each rule and optimizer, how near it comes to tuned baselines, and how flat
 * it is in α₀.
 */

import type { Baseline, Cell } from "./cells";
import { PROBLEMS, type ProblemName } from "./problems";
import type { HalfName } from "./split";
import { geometricMean } from "./tuning";

/** A diverged run counts as this many times the baseline, and no ratio counts as more, or as less than its inverse. */
export const CAP = 100;

const capped = (ratio: number | null): number => Math.min(Math.max(ratio ?? CAP, 1 / CAP), CAP);
const digits = (value: number): string => (Number.isFinite(value) ? value.toPrecision(3) : "–");

/** Values of the map by key, in order of first appearance. */
function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

/** One row: a rule with an optimizer over several problems. */
export interface Row {
  readonly rule: string;
  readonly optimizer: string;
  readonly cells: number;
  readonly constant: number;
  readonly worst: number;
  /** Share of cells within 5 % of the tuned constant. */
  readonly near: number;
  readonly cosine: number;
  /** The largest ratio over α₀ divided by the smallest, on average and at worst. */
  readonly spread: number;
  readonly worstSpread: number;
  /** Accuracy held out minus the tuned constant's, in points, on average. */
  readonly points: number;
  readonly cost: number;
}

const placeOf = ({ problem, optimizer, horizon, batch }: Pick<Cell, "problem" | "optimizer" | "horizon" | "batch">) =>
  `${problem} ${optimizer} ${horizon} ${batch}`;

function rowOf(cells: readonly Cell[], baselines: ReadonlyMap<string, Baseline>): Row {
  const [first] = cells;
  const ratios = cells.map(({ ratio_constant }) => capped(ratio_constant));
  const spreads = [...groupBy(cells, placeOf).values()].map((group) => {
    const own = group.map(({ ratio_constant }) => capped(ratio_constant));
    return Math.max(...own) / Math.min(...own);
  });
  const differences = cells.flatMap((cell) => {
    const held = baselines.get(placeOf(cell))?.held_out;
    if (cell.held_out_measure !== "accuracy" || cell.held_out === null || held === null || held === undefined)
      return [];
    return [100 * (cell.held_out - held)];
  });
  return {
    ...{ rule: first?.rule ?? "", optimizer: first?.optimizer ?? "", cells: cells.length },
    ...{ constant: geometricMean(ratios), worst: Math.max(...ratios) },
    near: ratios.filter((ratio) => ratio <= 1.05).length / ratios.length,
    cosine: geometricMean(cells.map(({ ratio_cosine }) => capped(ratio_cosine))),
    ...{ spread: geometricMean(spreads), worstSpread: Math.max(...spreads) },
    points: differences.reduce((sum, value) => sum + value, 0) / differences.length,
    cost: cells.reduce((sum, { cost }) => sum + cost, 0) / cells.length,
  };
}

/** The rows of a set of cells: one for each method and optimizer, and one for the tuned cosine. */
export function rowsOf(cells: readonly Cell[], baselines: readonly Baseline[]): Row[] {
  const tunedBy = (name: Baseline["method"]) =>
    new Map(baselines.filter(({ method }) => method === name).map((one) => [placeOf(one), one]));
  const [constants, cosines] = [tunedBy("constant"), tunedBy("cosine")];
  const isTuned = (cell: Cell) => cell.rule === "cosine" && cell.alpha0 === cosines.get(placeOf(cell))?.alpha;
  const measured = cells.filter((cell) => cell.kind !== "baseline" || isTuned(cell));
  return [...groupBy(measured, ({ rule, optimizer }) => `${rule} ${optimizer}`).values()]
    .map((group) => rowOf(group, constants))
    .sort((a, b) => a.optimizer.localeCompare(b.optimizer) || a.constant - b.constant);
}

const HEAD = [
  "rule",
  "optimizer",
  "cells",
  "÷ constant",
  "worst",
  "≤ 1.05",
  "÷ cosine",
  "over α₀",
  "worst",
  "held out",
  "cost",
];

function table(rows: readonly (readonly string[])[]): string {
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows
    .map((row) =>
      row.map((text, i) => (i < 2 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0))).join("  "),
    )
    .join("\n");
}

function lines(rows: readonly Row[]): string {
  const texts = rows.map((row) => [
    ...[row.rule, row.optimizer, String(row.cells)],
    ...[digits(row.constant), digits(row.worst), `${Math.round(100 * row.near)} %`, digits(row.cosine)],
    ...[digits(row.spread), digits(row.worstSpread)],
    Number.isFinite(row.points) ? `${row.points >= 0 ? "+" : ""}${row.points.toFixed(2)}` : "–",
    row.cost.toFixed(2),
  ]);
  return table([HEAD, ...texts]);
}

/** What the tuned baselines are, group by group. */
function baselineLines(baselines: readonly Baseline[]): string {
  return [...groupBy(baselines, placeOf).values()]
    .map((pair) => {
      const part = ({ method, alpha, loss, held_out, grid_steps }: Baseline) => {
        const held = held_out === null ? "" : `, held out ${digits(held_out)}`;
        return `${method} α ${digits(alpha ?? Number.NaN)}: ${digits(loss ?? Number.NaN)}${held} (${grid_steps} steps searched)`;
      };
      const [{ problem, optimizer, horizon, batch } = {} as Baseline] = pair;
      return `${problem} ${optimizer}, ${horizon} steps of ${batch === 0 ? "all" : batch}: ${pair.map(part).join("; ")}`;
    })
    .join("\n");
}

/** What is said about how numbers were made. */
export const NOTES = [
  "÷ constant, ÷ cosine: final training loss over that of the best constant α, or of the best warm-up (5 %) with",
  "cosine, of a half-decade grid widened until its best lies inside and refined once; geometric means of ratios, seed by",
  "seed. Final training loss: the mean of three measurements at 95, 97.5 and 100 % of the steps on a fixed part of the",
  "training set, in evaluation mode; without noise, at the end alone. A diverged run counts as",
  `${CAP}, and ratios as ${1 / CAP} … ${CAP}. over α₀: largest ratio ÷ smallest, on average and at worst. held out:`,
  "accuracy in points above the tuned constant's. cost: gradient evaluations per step, a forward pass being a third.",
].join("\n");

/** The whole summary, half by half; problems without noise apart. */
export function summaryOf(cells: readonly Cell[], baselines: readonly Baseline[]): string {
  const parts: string[] = [];
  for (const half of ["choosing", "reporting"] satisfies HalfName[]) {
    for (const deterministic of [false, true]) {
      const belongs = (of: { readonly half: HalfName; readonly problem: string }) =>
        of.half === half && PROBLEMS[of.problem as ProblemName].deterministic === deterministic;
      const [own, tuned] = [cells.filter(belongs), baselines.filter(belongs)];
      if (own.length === 0) continue;
      const problems = [...new Set(own.map(({ problem }) => problem))].join(", ");
      const title = `${half.toUpperCase()} HALF, ${deterministic ? "without noise" : "stochastic"}: ${problems}`;
      parts.push([title, baselineLines(tuned), "", lines(rowsOf(own, tuned))].join("\n"));
    }
  }
  return [...parts, NOTES].join("\n\n");
}
