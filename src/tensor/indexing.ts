/**
 * Choosing elements: numpy's basic indexing from slices, flips and reshapes, and choosing by integer tensors.
 */

import { type DType, type IntegerDType, isInteger, isTypedArray, type NumericDType } from "../dtype";
import { argumentError, dtypeError, indexError, shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, isTensor, type Shape, type Tensor } from "../tensor";
import { where } from "./composed";
import { arange, fromTypedArray, tensor } from "./creation";
import { checkAxis, count, describe, elements, showShape } from "./validate";

/** `[start, stop, step]`: parts left out or null reach to the end; negative positions count from it. */
export type Range = readonly [start?: number | null, stop?: number | null, step?: number | null];

/** One index: a position (drops the axis), a range, `null` (a new axis) or `"..."` (all axes not named). */
export type Index = number | Range | null | "...";

/** Positions along an axis: an integer tensor, or numbers. */
export type Indices = Tensor<IntegerDType> | Int32Array | Uint32Array | BigInt64Array | Uint8Array | readonly number[];

interface Cut {
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  readonly backwards: boolean;
}

export function at<D extends DType>(t: Tensor<D>, indices: readonly Index[]): Tensor<D> {
  const shape = t.shape;
  const full = expandEllipsis(indices, shape);
  const cuts: Cut[] = [];
  const result: number[] = [];
  for (const index of full) {
    if (index === null) {
      result.push(1);
      continue;
    }
    const size = shape[cuts.length] ?? 0;
    const axis = cuts.length;
    if (typeof index === "number") {
      const position = checkPosition("at", index, size, axis, shape);
      cuts.push({ start: position, stop: position + 1, step: 1, backwards: false });
    } else {
      const cut = cutRange(index, size, axis);
      cuts.push(cut);
      result.push(Math.ceil((cut.stop - cut.start) / cut.step));
    }
  }
  let out = sliced(t, cuts);
  const backwards = cuts.flatMap((cut, axis) => (cut.backwards ? [axis] : []));
  if (backwards.length > 0) out = out.flip(backwards);
  return out.reshape(result);
}

function sliced<D extends DType>(t: Tensor<D>, cuts: readonly Cut[]): Tensor<D> {
  const whole = cuts.every((cut, axis) => cut.start === 0 && cut.step === 1 && cut.stop === t.shape[axis]);
  if (whole) return t;
  const part = (key: "start" | "stop" | "step"): number[] => cuts.map((cut) => cut[key]);
  return fromHandle<D>(native.slice(t.handle, part("start"), part("stop"), part("step")));
}

/** The indices with one for every axis: `"..."`, or the end, stands for whole axes. */
function expandEllipsis(indices: readonly Index[], shape: Shape): (number | Range | null)[] {
  const named = indices.filter((index) => index !== null && index !== "...").length;
  if (named > shape.length) {
    throw indexError("at", `${named} indices for the ${shape.length} axes of ${showShape(shape)}`, shape);
  }
  const rest: Range[] = Array.from({ length: shape.length - named }, () => []);
  const dots = indices.indexOf("...");
  if (dots !== indices.lastIndexOf("...")) throw argumentError("at", '"..." may stand only once');
  const filled = dots < 0 ? [...indices, ...rest] : indices.toSpliced(dots, 1, ...rest);
  return filled.filter((index) => index !== "...");
}

function checkPosition(op: string, index: number, size: number, axis: number, shape: Shape): number {
  if (!Number.isInteger(index) || index < -size || index >= size) {
    throw indexError(
      op,
      `position ${index} is outside axis ${axis} of ${showShape(shape)}; use ${-size} … ${size - 1}`,
      shape,
    );
  }
  return index < 0 ? index + size : index;
}

/** Python's slice rules; a negative step is a cut of the same elements in rising order, read backwards. */
function cutRange(range: Range, size: number, axis: number): Cut {
  if (!Array.isArray(range))
    throw argumentError("at", `index ${describe(range)} of axis ${axis} is none; see the docs of at`);
  const [start, stop, stepOrNull] = range as Range;
  const step = stepOrNull ?? 1;
  for (const part of [start ?? 0, stop ?? 0, step]) {
    if (!Number.isInteger(part))
      throw argumentError("at", `a range has integers, got ${describe(part)} for axis ${axis}`);
  }
  if (step === 0) throw argumentError("at", `the step of axis ${axis} must not be 0`);
  const place = (position: number, low: number, high: number): number =>
    Math.min(Math.max(position < 0 ? position + size : position, low), high);
  if (step > 0) {
    const first = place(start ?? 0, 0, size);
    return { start: first, stop: Math.max(first, place(stop ?? size, 0, size)), step, backwards: false };
  }
  const first = place(start ?? size - 1, -1, size - 1);
  const last = stop === undefined || stop === null ? -1 : place(stop, -1, size - 1);
  const n = Math.max(0, Math.ceil((first - last) / -step));
  if (n === 0) return { start: 0, stop: 0, step: 1, backwards: false };
  return { start: first + (n - 1) * step, stop: first + 1, step: -step, backwards: true };
}

export function slice<D extends DType>(t: Tensor<D>, start: number, stop: number | undefined, axis: number): Tensor<D> {
  const target = checkAxis("slice", axis, t.rank);
  return at(
    t,
    t.shape.map((_, i): Range => (i === target ? [start, stop ?? null] : [])),
  );
}

export function take<D extends DType>(t: Tensor<D>, indices: Indices, axis: number): Tensor<D> {
  const along = checkAxis("take", axis, t.rank);
  return fromHandle<D>(native.gather(t.handle, indexTensor("take", indices).handle, along));
}

/** Every element by its own index: the elements of a flat tensor at row · size + index, an index outside made −1. */
export function gather<D extends DType>(t: Tensor<D>, indices: Tensor<IntegerDType>, axis: number): Tensor<D> {
  const along = checkAxis("gather", axis, t.rank);
  const moved = t.transpose(along, -1);
  const chosen = wholeNumbers(indexTensor("gather", indices));
  const fits = chosen.rank === t.rank && t.shape.every((size, i) => i === along || size === chosen.shape[i]);
  if (!fits) {
    const both = `${showShape(indices.shape)} must agree with ${showShape(t.shape)}`;
    throw shapeError("gather", `${both} except at axis ${along}`, t.shape, indices.shape);
  }
  const size = moved.shape.at(-1) ?? 0;
  if (t.size >= 2 ** 31) throw shapeError("gather", "more than 2^31 elements cannot be indexed", t.shape);
  const picks = chosen.transpose(along, -1);
  const rows = elements(picks.shape.slice(0, -1));
  const row = arange(0, rows, 1, { dtype: "i32" }).mul(size);
  const flat = row.unsqueeze(1).add(picks.reshape([rows, -1]));
  const inside = picks.greaterEqual(0).and(picks.less(size)).reshape(flat.shape);
  const found = fromHandle<D>(native.gather(moved.flatten().handle, where(inside, flat, -1).handle, 0));
  return found.reshape(picks.shape).transpose(along, -1);
}

export function scatterAdd<D extends NumericDType>(
  t: Tensor<D>,
  indices: Indices,
  size: number,
  axis: number,
): Tensor<D> {
  const positions = indexTensor("scatterAdd", indices);
  const along = checkAxis("scatterAdd", axis, t.rank - positions.rank + 1);
  return fromHandle<D>(native.scatterAdd(t.handle, positions.handle, along, count("scatterAdd", "the size", size)));
}

export function oneHot<D extends DType>(t: Tensor<DType>, classes: number, dtype: D): Tensor<D> {
  if (!isInteger(t.dtype)) {
    throw dtypeError("oneHot", `classes are an integer tensor, got ${t.dtype}; use .cast("i32")`, t.dtype);
  }
  const n = count("oneHot", "the number of classes", classes);
  const chosen = wholeNumbers(t as Tensor<IntegerDType>);
  return chosen
    .unsqueeze(-1)
    .equal(arange(0, n, 1, { dtype: "i32" }))
    .cast(dtype);
}

/** Integers as i32. Of i64 those beyond its range become its ends, which are no index and no class. */
export function wholeNumbers(t: Tensor<IntegerDType>): Tensor<"i32"> {
  if (t.dtype !== "i64") return t.cast("i32");
  return (t as Tensor<DType> as Tensor<"i64">)
    .maximum(-(2 ** 31))
    .minimum(2 ** 31 - 1)
    .cast("i32");
}

function indexTensor(op: string, indices: Indices): Tensor<IntegerDType> {
  if (isTensor(indices)) {
    if (isInteger(indices.dtype)) return indices;
    throw dtypeError(op, `indices must be an integer tensor, got ${indices.dtype}; use .cast("i32")`, indices.dtype);
  }
  if (isTypedArray(indices)) return fromTypedArray(indices) as Tensor<IntegerDType>;
  return tensor(indices, { dtype: "i32" });
}
