/**
 * The baselines: the best constant α, and the best α for warm-up with cosine. A half-decade grid, widened until its
 * best lies inside, then refined once to both sides; and what that costs in steps.
 */
import { OPTIMIZERS } from "./optimizers";
import { type Group, specOf } from "./plan";
import type { RunResult, RunSpec } from "./run";

/** Runs specs, wherever. */
export type RunFunction = (spec: RunSpec) => Promise<RunResult>;

/** The runs of one method at one α, one for each seed. */
export interface Point {
  readonly alpha: number | null;
  readonly results: readonly RunResult[];
  /** The geometric mean of the losses; Infinity where a run diverged. */
  readonly loss: number;
}

/** A tuned baseline. */
export interface Tuned {
  readonly best: Point;
  readonly points: readonly Point[];
  /** Steps of the whole search, for one seed. */
  readonly gridSteps: number;
}

/** Grid points on each side of the middle at first. */
const REACH = 2;
/** Half decades that the grid may be widened by, in all. */
const WIDEST = 12;
/** Losses are counted as no smaller than this. */
export const LEAST_LOSS = 1e-30;

/** The geometric mean, Infinity where a number is not finite. */
export function geometricMean(numbers: readonly number[]): number {
  return Math.exp(numbers.reduce((sum, number) => sum + Math.log(number), 0) / numbers.length);
}

/** The loss of a run, Infinity where it diverged. */
export const lossOf = ({ loss }: RunResult): number =>
  loss === null ? Number.POSITIVE_INFINITY : Math.max(loss, LEAST_LOSS);

/** The runs of a method from one α, over the seeds of a group. */
export async function pointOf(run: RunFunction, group: Group, method: string, alpha: number | null): Promise<Point> {
  const results = await Promise.all(group.seeds.map((seed) => run(specOf(group, method, alpha, seed))));
  return { alpha, results, loss: geometricMean(results.map(lossOf)) };
}

/** The position of the smallest loss; where all are Infinity, the smallest α's, so that the search goes down. */
function bestOf(points: readonly Point[]): number {
  return points.reduce((best, point, index) => (point.loss < (points[best]?.loss ?? Number.NaN) ? index : best), 0);
}

/** Searches the best α of a baseline for a group. */
export async function tune(run: RunFunction, group: Group, method: string): Promise<Tuned> {
  const { decade } = OPTIMIZERS[group.optimizer];
  const alphaAt = (exponent: number) => Number((10 ** exponent).toPrecision(4));
  const at = (exponent: number) => pointOf(run, group, method, alphaAt(exponent));
  const exponents = Array.from({ length: 2 * REACH + 1 }, (_, index) => decade + (index - REACH) / 2);
  const points = await Promise.all(exponents.map(at));
  for (let widened = 0; widened < WIDEST; widened++) {
    const best = bestOf(points);
    if (best > 0 && best < points.length - 1) break;
    const exponent = best === 0 ? (exponents[0] ?? 0) - 0.5 : (exponents.at(-1) ?? 0) + 0.5;
    const point = await at(exponent);
    if (best === 0) {
      exponents.unshift(exponent);
      points.unshift(point);
    } else {
      exponents.push(exponent);
      points.push(point);
    }
  }
  const middle = exponents[bestOf(points)] ?? decade;
  points.push(...(await Promise.all([middle - 0.25, middle + 0.25].map(at))));
  points.sort((a, b) => (a.alpha ?? 0) - (b.alpha ?? 0));
  const best = points[bestOf(points)] as Point; // there are seven at least
  return { best, points, gridSteps: points.length * group.steps };
}
