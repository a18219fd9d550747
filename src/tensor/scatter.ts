/**
 * Choosing and replacing elements by integer tensors, all of it a flat gather, or a flat scatter-add, at linear positions. An
 * index outside its axis becomes −1 and so an error (code `INDEX`) when the value is computed. Indices have no derivative.
 */

import { type DType, type IntegerDType, isInteger, type NumericDType } from "../dtype";
import { argumentError, dtypeError, shapeError } from "../errors";
import { native } from "../native";
import { type AnyTensor, fromHandle, isTensor, type Operand, type Shape, type Tensor } from "../tensor";
import { broadcastShapes } from "./arrange";
import { where } from "./composed";
import { arange, full, ones } from "./creation";
import { wholeNumbers } from "./indexing";
import { checkAxis, elements, showShape } from "./validate";

/** A tensor of positions. */
export type IndexTensor = Tensor<IntegerDType>;

/** What becomes of values written to a position: they take its place, or are added to it. */
export interface PutOptions {
  /** False unless given. Without it, values written to the same position add up there. */
  readonly accumulate?: boolean;
}

/** As `gather`, with the axes other than `axis` of both broadcast. */
export function takeAlong<D extends DType>(t: Tensor<D>, indices: IndexTensor, axis: number): Tensor<D> {
  const along = checkAxis("takeAlong", axis, t.rank);
  const [data, chosen] = alignedAt("takeAlong", t, indices, along);
  return data.gather(chosen, along);
}

function alignedAt<D extends DType>(
  op: string,
  t: Tensor<D>,
  indices: IndexTensor,
  along: number,
): [Tensor<D>, IndexTensor] {
  requireIndices(op, indices);
  if (indices.rank !== t.rank) {
    const both = `${showShape(indices.shape)} and ${showShape(t.shape)}`;
    throw shapeError(op, `indices and data need as many axes: ${both}`, t.shape, indices.shape);
  }
  const shape = broadcastShapes(op, [t.shape.with(along, 1), indices.shape.with(along, 1)]);
  return [
    t.broadcastTo(shape.with(along, t.shape[along] ?? 0)),
    indices.broadcastTo(shape.with(along, indices.shape[along] ?? 0)),
  ];
}

/** The positions that `gather` reads, in the flat tensor. */
function flatAlong(op: string, shape: Shape, indices: IndexTensor, along: number): Tensor<"i32"> {
  const size = shape[along] ?? 0;
  const whole = wholeNumbers(indices);
  const inside = whole.greaterEqual(0).and(whole.less(size));
  const strides = stridesOf(op, shape);
  let flat = whole.mul(strides[along] ?? 1);
  shape.forEach((_, axis) => {
    if (axis === along) return;
    const line = arange(0, shape[axis] ?? 0, 1, { dtype: "i32" }).mul(strides[axis] ?? 1);
    flat = flat.add(line.reshape(shape.map((_size, i) => (i === axis ? -1 : 1))));
  });
  return where(inside, flat, -1);
}

function stridesOf(op: string, shape: Shape): number[] {
  if (elements(shape) >= 2 ** 31) throw shapeError(op, "more than 2^31 elements cannot be indexed", shape);
  return shape.map((_, axis) => elements(shape.slice(axis + 1)));
}

/** A copy in which the positions that `takeAlong` would read hold `values`. */
export function putAlong<D extends NumericDType>(
  t: Tensor<D>,
  indices: IndexTensor,
  values: Operand<D>,
  axis: number,
  options: PutOptions,
): Tensor<D> {
  const along = checkAxis("putAlong", axis, t.rank);
  requireIndices("putAlong", indices);
  const other = t.shape.some((size, i) => i !== along && size !== indices.shape[i]);
  if (indices.rank !== t.rank || other) {
    const both = `${showShape(indices.shape)} must agree with ${showShape(t.shape)}`;
    throw shapeError("putAlong", `indices ${both} except at axis ${along}`, t.shape, indices.shape);
  }
  return put("putAlong", t, flatAlong("putAlong", t.shape, indices, along), values, options);
}

/** `values`, broadcast to the shape of `flat`, written to or added at these positions of the flat tensor. */
function put<D extends NumericDType>(
  op: string,
  t: Tensor<D>,
  flat: Tensor<"i32">,
  values: Operand<D>,
  options: PutOptions,
): Tensor<D> {
  const updates = isTensor(values) ? values : (full([], values, { dtype: t.dtype }) as Tensor<D>);
  if (updates.dtype !== t.dtype) {
    throw dtypeError(op, `values are ${updates.dtype}, the tensor is ${t.dtype}; cast one`, t.dtype, updates.dtype);
  }
  const wide = updates.broadcastTo(flat.shape).flatten();
  const added = scatter(wide, flat, t.size).reshape(t.shape);
  if (options.accumulate === true) return t.add(added);
  const written = scatter(ones([flat.size], { dtype: "i32" }), flat, t.size).reshape(t.shape);
  return where(written.greater(0), added, t);
}

function scatter<D extends NumericDType>(updates: Tensor<D>, flat: Tensor<"i32">, size: number): Tensor<D> {
  return fromHandle<D>(native.scatterAdd(updates.handle, flat.flatten().handle, 0, size));
}

/** One position of the flat tensor for every element of the index tensors, and what stands behind each. */
function flatLeading(
  op: string,
  t: AnyTensor,
  indices: readonly IndexTensor[],
): { flat: Tensor<"i32">; rest: number[] } {
  if (indices.length === 0 || indices.length > t.rank) {
    throw argumentError(op, `${indices.length} index tensors for ${t.rank} axes; give one to ${t.rank}`);
  }
  for (const index of indices) requireIndices(op, index);
  const shape = broadcastShapes(
    op,
    indices.map((index) => index.shape),
  );
  const strides = stridesOf(op, t.shape.slice(0, indices.length));
  let flat: Tensor<"i32"> = full(shape, 0, { dtype: "i32" });
  let inside: Tensor<"bool"> = full([], true, { dtype: "bool" });
  indices.forEach((index, axis) => {
    const size = t.shape[axis] ?? 0;
    const whole = index.cast("i32");
    // negative ones count from the end, as numpy has it
    const position = where(whole.less(0), whole.add(size), whole);
    inside = inside.and(position.greaterEqual(0).and(position.less(size)));
    flat = flat.add(position.mul(strides[axis] ?? 1));
  });
  return { flat: where(inside, flat, -1), rest: t.shape.slice(indices.length) };
}

/** t[i₀, i₁, …] of the leading axes */
export function index<D extends DType>(t: Tensor<D>, indices: readonly IndexTensor[]): Tensor<D> {
  const { flat, rest } = flatLeading("index", t, indices);
  const rows = t.reshape([elements(t.shape.slice(0, indices.length)), ...rest]);
  return fromHandle<D>(native.gather(rows.handle, flat.handle, 0));
}

/** A copy of t with t[i₀, i₁, …] ← values */
export function indexPut<D extends NumericDType>(
  t: Tensor<D>,
  indices: readonly IndexTensor[],
  values: Operand<D>,
  options: PutOptions,
): Tensor<D> {
  const { flat, rest } = flatLeading("indexPut", t, indices);
  const inner = elements(rest);
  const within = arange(0, inner, 1, { dtype: "i32" }).reshape(rest);
  const start = flat.mul(inner).reshape([...flat.shape, ...rest.map(() => 1)]);
  const outside = flat.less(0).reshape(start.shape);
  return put("indexPut", t, where(outside, -1, start.add(within)), values, options);
}

/** A copy of t to which slices of `updates` are added at `indices` along `axis`. */
export function indexAdd<D extends NumericDType>(
  t: Tensor<D>,
  indices: IndexTensor,
  updates: Tensor<D>,
  axis: number,
): Tensor<D> {
  const along = checkAxis("indexAdd", axis, t.rank);
  requireIndices("indexAdd", indices);
  const fits = indices.rank === 1 && updates.shape.join() === t.shape.with(along, indices.size).join();
  if (!fits) {
    const shapes = `${showShape(updates.shape)} for indices ${showShape(indices.shape)} in ${showShape(t.shape)}`;
    throw shapeError(
      "indexAdd",
      `updates ${shapes}; they need the tensor's shape with one slice for each index`,
      t.shape,
    );
  }
  return t.add(updates.scatterAdd(indices, t.shape[along] ?? 0, along));
}

export function maskedFill<D extends DType>(t: Tensor<D>, mask: Tensor<"bool">, value: Operand<D>): Tensor<D> {
  return where(mask, value as Tensor<D>, t);
}

function requireIndices(op: string, indices: AnyTensor): void {
  if (isTensor(indices) && isInteger(indices.dtype)) return;
  const found = isTensor(indices) ? indices.dtype : typeof indices;
  throw dtypeError(op, `indices are integer tensors, got ${found}; use .cast("i32")`, String(found));
}
