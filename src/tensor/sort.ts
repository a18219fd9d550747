/**
 * Order: sorting, the greatest k, medians and quantiles. Each takes the elements in the order that the addon's `argsort`
 * finds, so derivatives go to the very elements that were taken; the order itself has none.
 */

import type { DType, FloatDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, type ReduceOptions, requireFloat, type Tensor } from "../tensor";
import { where } from "./composed";
import { checkAxis, count, describe, showShape } from "./validate";

/** Options of `sort` and `argsort`. */
export interface SortOptions {
  /** From the greatest to the least; false unless given. NaN comes last either way. */
  readonly descending?: boolean;
}

/** Elements, and where they stood. */
export interface Ordered<D extends DType> {
  readonly values: Tensor<D>;
  readonly indices: Tensor<"i32">;
}

export function argsort(t: Tensor<DType>, axis: number, options: SortOptions): Tensor<"i32"> {
  const along = checkAxis("argsort", axis, t.rank);
  return fromHandle(native.argsort(t.handle, along, options.descending ?? false), "i32", t.shape);
}

export function sort<D extends DType>(t: Tensor<D>, axis: number, options: SortOptions): Tensor<D> {
  const along = checkAxis("sort", axis, t.rank);
  return t.gather(argsort(t, along, options), along);
}

/** Options of `topK`. */
export interface TopKOptions {
  /** The k least instead of the greatest. */
  readonly smallest?: boolean;
}

export function topK<D extends DType>(t: Tensor<D>, k: number, axis: number, options: TopKOptions): Ordered<D> {
  const along = checkAxis("topK", axis, t.rank);
  const size = t.shape[along] ?? 0;
  if (count("topK", "k", k) > size) {
    throw argumentError("topK", `axis ${along} of ${showShape(t.shape)} has no ${k} elements; use 0 … ${size}`, {
      shapes: [t.shape],
    });
  }
  const indices = argsort(t, along, { descending: options.smallest !== true }).slice(0, k, along);
  return { values: t.gather(indices, along), indices };
}

/** How a quantile between two elements is found. */
export type Interpolation = "linear" | "lower" | "higher" | "nearest" | "midpoint";

/** Options of `quantile`. */
export interface QuantileOptions extends ReduceOptions {
  /** `linear` unless given. */
  readonly interpolation?: Interpolation;
}

/** The element at place q·(n − 1) of the sorted ones, between two neighbours a share of each; NaN where any is NaN. */
export function quantile<F extends FloatDType>(
  t: Tensor<F>,
  q: number,
  axis: number | undefined,
  options: QuantileOptions,
): Tensor<F> {
  requireFloat("quantile", t);
  if (!(q >= 0 && q <= 1)) throw argumentError("quantile", `q must be a number of 0 … 1, got ${describe(q)}`);
  const all = axis === undefined;
  const flat = all ? t.flatten() : t;
  const along = checkAxis("quantile", axis ?? 0, flat.rank);
  const n = flat.shape[along] ?? 0;
  if (n === 0) throw shapeError("quantile", `axis ${along} of ${showShape(t.shape)} has no elements`, t.shape);
  const sorted = sort(flat, along, {});
  const [low, high, share] = between(q * (n - 1), options.interpolation ?? "linear");
  const at = (place: number): Tensor<F> => sorted.slice(place, place + 1, along);
  const mixed =
    share === 0
      ? at(low)
      : at(low)
          .mul(1 - share)
          .add(at(high).mul(share));
  // a NaN is the last in order, and makes the result NaN
  const result = where(at(n - 1).isNan(), Number.NaN, mixed);
  return shaped(result, t, along, all, options);
}

/** The two places that `place` lies between, and the share of the second. */
function between(place: number, interpolation: Interpolation): readonly [number, number, number] {
  const [low, high] = [Math.floor(place), Math.ceil(place)];
  switch (interpolation) {
    case "linear":
      return [low, high, place - low];
    case "lower":
      return [low, low, 0];
    case "higher":
      return [high, high, 0];
    case "nearest": {
      // halves to even, as numpy has it
      const even = low % 2 === 0 ? low : high;
      const nearest = place - low === 0.5 ? even : Math.round(place);
      return [nearest, nearest, 0];
    }
    case "midpoint":
      return [low, high, low === high ? 0 : 0.5];
    default:
      throw argumentError(
        "quantile",
        `interpolation is linear, lower, higher, nearest or midpoint, got ${interpolation}`,
      );
  }
}

function shaped<D extends DType>(
  result: Tensor<D>,
  from: Tensor<D>,
  along: number,
  all: boolean,
  options: ReduceOptions,
): Tensor<D> {
  if (options.keepDims !== true) return result.squeeze(along);
  return all ? result.reshape(from.shape.map(() => 1)) : result;
}

export function median<F extends FloatDType>(
  t: Tensor<F>,
  axis: number | undefined,
  options: ReduceOptions,
): Tensor<F> {
  return quantile(t, 0.5, axis, options);
}
