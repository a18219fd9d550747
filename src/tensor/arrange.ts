/**
 * Moving elements in more ways, composed from the movements of `movement`: rolling, repeating, moving axes, padding with what
 * stands at the edge, grids of coordinates. No arithmetic.
 */

import type { DType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { type Axes, requireTensors, type Shape, type Tensor } from "../tensor";
import { concatenate, split } from "./movement";
import { checkAxis, checkOptions, checkShape, count, listOf, showShape } from "./validate";

/** The elements moved by `shift` places along each axis; what leaves at one end comes in at the other. */
export function roll<D extends DType>(t: Tensor<D>, shift: Axes, axes?: Axes): Tensor<D> {
  const shifts = typeof shift === "number" ? [shift] : shift;
  const odd = shifts.find((s) => !Number.isInteger(s));
  if (odd !== undefined) throw argumentError("roll", `shifts are integers, got ${odd}`);
  if (axes === undefined) {
    if (shifts.length !== 1) throw argumentError("roll", "several shifts need their axes named");
    return rollAxis(t.flatten(), shifts[0] ?? 0, 0).reshape(t.shape);
  }
  const along = typeof axes === "number" ? [axes] : axes;
  if (along.length !== shifts.length) {
    throw argumentError("roll", `${shifts.length} shifts for ${along.length} axes; give one for each`);
  }
  const rolled = along.reduce((r, axis, i) => rollAxis(r, shifts[i] ?? 0, checkAxis("roll", axis, t.rank)), t);
  return rolled === t ? t.clone() : rolled;
}

function rollAxis<D extends DType>(t: Tensor<D>, shift: number, axis: number): Tensor<D> {
  const n = t.shape[axis] ?? 0;
  const by = n === 0 ? 0 : ((shift % n) + n) % n;
  if (by === 0) return t;
  return concatenate([t.slice(n - by, n, axis), t.slice(0, n - by, axis)], axis);
}

/** Each element `times` times, one copy after the other, along `axis` (of the flat tensor, if none is named). */
export function repeat<D extends DType>(t: Tensor<D>, times: number, axis?: number): Tensor<D> {
  const n = count("repeat", "the number of copies", times);
  const from = axis === undefined ? t.flatten() : t;
  const along = checkAxis("repeat", axis ?? 0, from.rank);
  const size = from.shape[along] ?? 0;
  const wide = from.unsqueeze(along + 1).broadcastTo(from.shape.toSpliced(along + 1, 0, n));
  return wide.reshape(from.shape.with(along, size * n));
}

/** In at most `chunks` parts along `axis`, all of one size but the last, which may be smaller. */
export function chunk<D extends DType>(t: Tensor<D>, chunks: number, axis: number): Tensor<D>[] {
  const along = checkAxis("chunk", axis, t.rank);
  if (count("chunk", "the number of chunks", chunks) === 0) throw argumentError("chunk", "needs at least one chunk");
  const size = t.shape[along] ?? 0;
  const each = Math.max(1, Math.ceil(size / chunks));
  const sizes: number[] = [];
  for (let start = 0; start < size; start += each) sizes.push(Math.min(each, size - start));
  return split(t, size === 0 ? [0] : sizes, along);
}

/** Axes `from` moved to the places `to`; the others keep their order. */
export function moveAxis<D extends DType>(t: Tensor<D>, from: Axes, to: Axes): Tensor<D> {
  const list = (axes: Axes): number[] =>
    (typeof axes === "number" ? [axes] : [...axes]).map((axis) => checkAxis("moveAxis", axis, t.rank));
  const [source, target] = [list(from), list(to)];
  if (
    source.length !== target.length ||
    new Set(source).size !== source.length ||
    new Set(target).size !== target.length
  ) {
    throw argumentError(
      "moveAxis",
      `axes [${source}] cannot move to [${target}]; name each once, as many on both sides`,
    );
  }
  const order: (number | undefined)[] = Array(t.rank).fill(undefined);
  target.forEach((place, i) => {
    order[place] = source[i];
  });
  const rest = t.shape.map((_, axis) => axis).filter((axis) => !source.includes(axis));
  return t.permute(order.map((axis) => axis ?? (rest.shift() as number)));
}

/** What stands around a tensor when it is padded. */
export type PadMode = "constant" | "reflect" | "edge" | "circular";

/** `[before, after]` for one axis. */
export type PadWidth = readonly [before: number, after: number];

export function padWith<D extends DType>(t: Tensor<D>, widths: readonly PadWidth[], mode: PadMode): Tensor<D> {
  if (widths.length !== t.rank) {
    throw argumentError("pad", `needs [before, after] for each of the ${t.rank} axes, got ${widths.length}`);
  }
  const padded = widths.reduce((from, [before, after], axis) => {
    const low = count("pad", `before axis ${axis}`, before);
    const high = count("pad", `after axis ${axis}`, after);
    return low + high === 0 ? from : padAxis(from, axis, low, high, mode);
  }, t);
  return padded === t ? t.clone() : padded;
}

function padAxis<D extends DType>(t: Tensor<D>, axis: number, low: number, high: number, mode: PadMode): Tensor<D> {
  const n = t.shape[axis] ?? 0;
  const most = mode === "reflect" ? n - 1 : mode === "circular" ? n : Number.POSITIVE_INFINITY;
  if (low > most || high > most || n === 0) {
    throw shapeError(
      "pad",
      `axis ${axis} of ${showShape(t.shape)} is too short for ${low} and ${high} by ${mode}`,
      t.shape,
    );
  }
  const part = (start: number, stop: number): Tensor<D> => t.slice(start, stop, axis);
  const copies = (at: number, times: number): Tensor<D> => part(at, at + 1).broadcastTo(t.shape.with(axis, times));
  switch (mode) {
    case "reflect":
      return concatenate([part(1, low + 1).flip(axis), t, part(n - 1 - high, n - 1).flip(axis)], axis);
    case "circular":
      return concatenate([part(n - low, n), t, part(0, high)], axis);
    case "edge":
      return concatenate([copies(0, low), t, copies(n - 1, high)], axis);
    default:
      throw argumentError("pad", `the mode is constant, reflect, edge or circular, got ${mode}`);
  }
}

/** Options of `meshgrid`. */
export interface MeshgridOptions {
  /** Whether the first tensor runs along the first axis (`ij`, unless given) or along the second (`xy`). */
  readonly indexing?: "ij" | "xy";
}

/**
 * Coordinates of a grid: of the vectors given, the i-th repeated along all axes but the i-th.
 *
 * ```ts
 * import { arange, meshgrid } from "raphson";
 *
 * const [rows, columns] = meshgrid([arange(2), arange(3)]);
 * console.log(rows?.toArray());      // [[0, 0, 0], [1, 1, 1]]
 * console.log(columns?.toArray());   // [[0, 1, 2], [0, 1, 2]]
 * ```
 */
export function meshgrid<D extends DType>(vectors: readonly Tensor<D>[], options: MeshgridOptions = {}): Tensor<D>[] {
  checkOptions("meshgrid", options, ["indexing"]);
  requireTensors("meshgrid", ...listOf("meshgrid", vectors));
  const odd = vectors.find((v) => v.rank > 1);
  if (odd !== undefined) throw shapeError("meshgrid", `takes vectors, got ${showShape(odd.shape)}`, odd.shape);
  const shape = vectors.map((v) => v.size);
  const grids = vectors.map((v, i) => v.reshape(shape.map((size, axis) => (axis === i ? size : 1))).broadcastTo(shape));
  const swap = options.indexing === "xy" && vectors.length >= 2;
  return swap ? grids.map((grid) => grid.transpose(0, 1)) : grids;
}

/** The shape that all of these broadcast to: aligned at the last axis, sizes equal or 1. */
export function broadcastShapes(op: string, shapes: readonly Shape[]): number[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((shape) => shape[shape.length - rank + i] ?? 1).filter((size) => size !== 1);
    if (sizes.some((size) => size !== sizes[0])) {
      const all = shapes.map(showShape).join(" and ");
      throw shapeError(op, `${all} do not broadcast: sizes must agree or be 1, aligned at the last axis`, ...shapes);
    }
    return sizes[0] ?? 1;
  });
}

/**
 * All tensors in their common shape.
 *
 * ```ts
 * import { broadcast, ones } from "raphson";
 *
 * const [a, b] = broadcast([ones([3, 1]), ones([4])]);
 * console.log(a?.shape, b?.shape);   // [3, 4] [3, 4]
 * ```
 */
export function broadcast<D extends DType>(tensors: readonly Tensor<D>[]): Tensor<D>[] {
  requireTensors("broadcast", ...listOf("broadcast", tensors));
  const shape = broadcastShapes(
    "broadcast",
    tensors.map((t) => t.shape),
  );
  return tensors.map((t) => t.broadcastTo(shape));
}

/** The axis `axis` as several axes of these sizes, one of which may be −1. */
export function unflatten<D extends DType>(t: Tensor<D>, axis: number, sizes: Shape): Tensor<D> {
  const along = checkAxis("unflatten", axis, t.rank);
  const size = t.shape[along] ?? 0;
  const known = checkShape(
    "unflatten",
    sizes.filter((s) => s !== -1),
  ).reduce((product, s) => product * s, 1);
  const free = sizes.filter((s) => s === -1).length;
  const left = known === 0 ? 0 : size / known;
  if (free > 1 || !Number.isInteger(left) || (free === 0 && known !== size)) {
    throw shapeError(
      "unflatten",
      `${showShape(sizes)} does not hold the ${size} elements of axis ${along}`,
      t.shape,
      sizes,
    );
  }
  return t.reshape(t.shape.toSpliced(along, 1, ...sizes.map((s) => (s === -1 ? left : s))));
}
