/**
 * Moving elements: shapes, axes, padding, cutting and joining. No arithmetic.
 */

import type { DType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { type AnyTensor, type Axes, fromHandle, requireTensors, type Shape, type Tensor } from "../tensor";
import { where } from "./composed";
import { full } from "./creation";
import { checkAxes, checkAxis, checkShape, count, describe, elements, listOf, showShape } from "./validate";

export function reshape<D extends DType>(t: Tensor<D>, shape: Shape): Tensor<D> {
  const sizes = resolve(t.shape, shape);
  return fromHandle<D>(native.reshape(t.handle, sizes), undefined, sizes);
}

/** `shape` with its −1 replaced by what the other sizes leave. */
function resolve(from: Shape, shape: Shape): number[] {
  if (!Array.isArray(shape)) return checkShape("reshape", shape);
  const free = shape.indexOf(-1);
  const sizes = checkShape("reshape", free < 0 ? shape : shape.toSpliced(free, 1));
  const total = elements(from);
  const known = elements(sizes);
  if (free >= 0) {
    if (known === 0 || total % known !== 0) {
      throw shapeError(
        "reshape",
        `${showShape(from)} has ${total} elements, which ${showShape(shape)} cannot hold`,
        from,
        shape,
      );
    }
    return sizes.toSpliced(free, 0, total / known);
  }
  if (known !== total) {
    throw shapeError(
      "reshape",
      `${showShape(from)} has ${total} elements, ${showShape(shape)} has ${known}; they must agree`,
      from,
      shape,
    );
  }
  return sizes;
}

export function flattenAxes<D extends DType>(t: Tensor<D>, startAxis: number): Tensor<D> {
  if (t.rank === 0) return reshape(t, [1]);
  const start = checkAxis("flatten", startAxis, t.rank);
  return reshape(t, [...t.shape.slice(0, start), elements(t.shape.slice(start))]);
}

export function permute<D extends DType>(t: Tensor<D>, axes?: readonly number[]): Tensor<D> {
  const rank = t.rank;
  const order = (axes ?? Array.from({ length: rank }, (_, i) => rank - 1 - i)).map((a) =>
    checkAxis("permute", a, rank),
  );
  if (new Set(order).size !== rank || order.length !== rank) {
    throw argumentError("permute", `axes [${order.join(", ")}] must name each of the ${rank} axes once`, {
      shapes: [t.shape],
    });
  }
  if (order.every((axis, i) => axis === i)) return t.clone();
  return fromHandle<D>(native.permute(t.handle, order));
}

export function transpose<D extends DType>(t: Tensor<D>, first: number, second: number): Tensor<D> {
  const rank = t.rank;
  const [a, b] = [checkAxis("transpose", first, rank), checkAxis("transpose", second, rank)];
  const order = Array.from({ length: rank }, (_, i) => (i === a ? b : i === b ? a : i));
  return fromHandle<D>(native.permute(t.handle, order));
}

export function broadcastTo<D extends DType>(t: Tensor<D>, shape: Shape): Tensor<D> {
  const sizes = checkShape("broadcastTo", shape);
  return fromHandle<D>(native.expand(t.handle, sizes), undefined, sizes);
}

export function squeeze<D extends DType>(t: Tensor<D>, axes?: Axes): Tensor<D> {
  const shape = t.shape;
  const drop =
    axes === undefined ? shape.flatMap((size, i) => (size === 1 ? [i] : [])) : checkAxes("squeeze", axes, shape.length);
  const wrong = drop.find((axis) => shape[axis] !== 1);
  if (wrong !== undefined) {
    throw shapeError("squeeze", `axis ${wrong} of ${showShape(shape)} has size ${shape[wrong]}, not 1`, shape);
  }
  return reshape(
    t,
    shape.filter((_, i) => !drop.includes(i)),
  );
}

export function unsqueeze<D extends DType>(t: Tensor<D>, axis: number): Tensor<D> {
  const at = checkAxis("unsqueeze", axis, t.rank + 1);
  return reshape(t, t.shape.toSpliced(at, 0, 1));
}

export function pad<D extends DType>(
  t: Tensor<D>,
  widths: readonly (readonly [number, number])[],
  value: number,
): Tensor<D> {
  if (!Array.isArray(widths) || widths.length !== t.rank || !widths.every(Array.isArray)) {
    throw argumentError("pad", `needs [before, after] for each of the ${t.rank} axes, got ${describe(widths)}`);
  }
  const low = widths.map(([before], axis) => count("pad", `before axis ${axis}`, before));
  const high = widths.map(([, after], axis) => count("pad", `after axis ${axis}`, after));
  const none = widths.map(() => 0);
  const padded = fromHandle<D>(native.pad(t.handle, low, high, none));
  if (value === 0) return padded;
  // zeros inside and ones outside, to choose by
  const inside = fromHandle<"bool">(native.pad(full(t.shape, 1, { dtype: "bool" }).handle, low, high, none));
  return where(inside, padded, full([], value, { dtype: t.dtype }));
}

export function flip<D extends DType>(t: Tensor<D>, axes?: Axes): Tensor<D> {
  return fromHandle<D>(native.flip(t.handle, checkAxes("flip", axes, t.rank)), undefined, t.shape);
}

export function tile<D extends DType>(t: Tensor<D>, counts: readonly number[]): Tensor<D> {
  const times = counts.map((n, i) => count("tile", `count ${i}`, n));
  const rank = Math.max(times.length, t.rank);
  const n = [...Array<number>(rank - times.length).fill(1), ...times];
  const shape = [...Array<number>(rank - t.rank).fill(1), ...t.shape];
  // every axis s becomes [n, s], is repeated along n, and is put together again as n·s
  const split = reshape(
    t,
    shape.flatMap((size) => [1, size]),
  );
  const repeated = broadcastTo(
    split,
    shape.flatMap((size, i) => [n[i] ?? 1, size]),
  );
  return reshape(
    repeated,
    shape.map((size, i) => size * (n[i] ?? 1)),
  );
}

export function split<D extends DType>(t: Tensor<D>, sections: number | readonly number[], axis: number): Tensor<D>[] {
  const at = checkAxis("split", axis, t.rank);
  const size = t.shape[at] ?? 0;
  const sizes =
    typeof sections === "number"
      ? equalParts(size, sections)
      : sizesOf(sections).map((s) => count("split", "a part's size", s));
  const total = sizes.reduce((sum, s) => sum + s, 0);
  if (total !== size) {
    throw shapeError("split", `parts of ${sizes.join(" + ")} do not make ${size}, the size of axis ${at}`, t.shape);
  }
  let start = 0;
  return sizes.map((length) => {
    const from = t.shape.map((_, i) => (i === at ? start : 0));
    const to = t.shape.map((s, i) => (i === at ? start + length : s));
    start += length;
    return fromHandle<D>(
      native.slice(
        t.handle,
        from,
        to,
        t.shape.map(() => 1),
      ),
    );
  });
}

/** Sizes of parts, where they were given as such. */
function sizesOf(sections: readonly number[]): readonly number[] {
  if (Array.isArray(sections)) return sections;
  throw argumentError("split", `sections are a number of parts or an array of sizes, got ${describe(sections)}`);
}

function equalParts(size: number, parts: number): number[] {
  if (!Number.isInteger(parts) || parts < 1 || size % parts !== 0) {
    throw argumentError(
      "split",
      `an axis of ${size} cannot be cut into ${parts} equal parts; give the parts' sizes instead`,
    );
  }
  return Array<number>(parts).fill(size / parts);
}

/**
 * Tensors one after another along an existing axis; the other sizes agree.
 *
 * ```ts
 * import { concatenate, ones, zeros } from "raphson";
 *
 * console.log(concatenate([zeros([2, 3]), ones([1, 3])]).shape);   // [3, 3]
 * ```
 */
export function concatenate<D extends DType>(tensors: readonly Tensor<D>[], axis = 0): Tensor<D> {
  requireTensors("concatenate", ...listOf("concatenate", tensors));
  const [first] = tensors;
  if (first === undefined) throw argumentError("concatenate", "needs at least one tensor");
  const at = checkAxis("concatenate", axis, first.rank);
  return fromHandle<D>(native.concatenate(handles(tensors), at));
}

/** Tensors of one shape along a new axis. */
export function stack<D extends DType>(tensors: readonly Tensor<D>[], axis = 0): Tensor<D> {
  requireTensors("stack", ...listOf("stack", tensors));
  const [first] = tensors;
  if (first === undefined) throw argumentError("stack", "needs at least one tensor");
  const at = checkAxis("stack", axis, first.rank + 1);
  const other = tensors.find((t) => t.shape.join() !== first.shape.join());
  if (other !== undefined) {
    throw shapeError(
      "stack",
      `shapes differ: ${showShape(first.shape)} and ${showShape(other.shape)}`,
      first.shape,
      other.shape,
    );
  }
  return concatenate(
    tensors.map((t) => unsqueeze(t, at)),
    at,
  );
}

function handles(tensors: readonly AnyTensor[]): number[] {
  return tensors.map((t) => t.handle);
}
