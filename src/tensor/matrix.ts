/**
 * Matrices as arrangements: diagonals, triangles, traces, Kronecker and tensor products. Factorisations stand in `linalg`.
 */

import type { DType, NumericDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { requireTensors, type Tensor } from "../tensor";
import { where } from "./composed";
import { arange } from "./creation";
import { matmul } from "./linear";
import { checkAxis, elements, showShape } from "./validate";

/** Throws unless the tensor has two axes. */
function requireMatrix(op: string, t: Tensor<DType>): readonly [number, number] {
  const [rows, columns] = t.shape.slice(-2);
  if (rows === undefined || columns === undefined) {
    throw shapeError(op, `needs a matrix, or several: ${showShape(t.shape)} has too few axes`, t.shape);
  }
  return [rows, columns];
}

function whole(op: string, offset: number): number {
  if (Number.isInteger(offset)) return offset;
  throw argumentError(op, `the offset must be an integer, got ${offset}`);
}

/** Column − row of each element of a matrix. */
function columnMinusRow(rows: number, columns: number): Tensor<"i32"> {
  return arange(0, columns, 1, { dtype: "i32" }).sub(arange(0, rows, 1, { dtype: "i32" }).unsqueeze(1));
}

export function tril<D extends DType>(t: Tensor<D>, offset: number): Tensor<D> {
  const [rows, columns] = requireMatrix("tril", t);
  return where(columnMinusRow(rows, columns).lessEqual(whole("tril", offset)), t, 0);
}

export function triu<D extends DType>(t: Tensor<D>, offset: number): Tensor<D> {
  const [rows, columns] = requireMatrix("triu", t);
  return where(columnMinusRow(rows, columns).greaterEqual(whole("triu", offset)), t, 0);
}

/** Options of `triangle`. */
export interface TriangleOptions {
  /** How far above the diagonal the triangle reaches; 0 unless given, negative stays below. */
  readonly offset?: number;
}

/**
 * True on and below the diagonal of a matrix: [rows, columns], square when one is given. The mask of causal attention.
 *
 * ```ts
 * import { triangle } from "raphson";
 *
 * console.log(triangle(2).toArray());   // [[true, false], [true, true]]
 * ```
 */
export function triangle(rows: number, columns = rows, options: TriangleOptions = {}): Tensor<"bool"> {
  return columnMinusRow(rows, columns).lessEqual(whole("triangle", options.offset ?? 0));
}

/** Elements [i, i + offset] of the axes `first` and `second`, as a last axis. */
export function diagonal<D extends DType>(t: Tensor<D>, offset: number, first: number, second: number): Tensor<D> {
  const [a, b] = [checkAxis("diagonal", first, t.rank), checkAxis("diagonal", second, t.rank)];
  if (a === b) throw argumentError("diagonal", `axes ${first} and ${second} are the same`);
  const rest = t.shape.map((_, axis) => axis).filter((axis) => axis !== a && axis !== b);
  const moved = t.permute([...rest, a, b]);
  const [rows, columns] = requireMatrix("diagonal", moved);
  const [low, right] = [Math.max(0, -whole("diagonal", offset)), Math.max(0, offset)];
  const n = Math.max(0, Math.min(rows - low, columns - right));
  if (n === 0)
    return moved
      .slice(0, 0, -2)
      .slice(0, Math.min(1, columns), -1)
      .reshape([...moved.shape.slice(0, -2), 0]);
  // of the flat square block, every (n + 1)-th element
  const block = moved.slice(low, low + n, -2).slice(right, right + n, -1);
  const flat = block.reshape([...moved.shape.slice(0, -2), n * n]);
  return flat.at("...", [0, null, n + 1]);
}

export function trace<D extends NumericDType>(t: Tensor<D>, offset: number): Tensor<D> {
  return diagonal(t, offset, -2, -1).sum(-1);
}

/** The last axis on the diagonal of a square matrix, zeros elsewhere. */
export function diagonalMatrix<D extends DType>(t: Tensor<D>, offset: number): Tensor<D> {
  const n = t.shape.at(-1);
  if (n === undefined) throw shapeError("diag", "a scalar has no axis to lay on a diagonal", t.shape);
  const [low, right] = [Math.max(0, -whole("diag", offset)), Math.max(0, offset)];
  const leading = t.shape.slice(0, -1);
  // n rows of one element and n zeros, of which all but the last n zeros, cut into rows of n
  const spaced = t.unsqueeze(-1).pad([...leading.map(() => [0, 0] as const), [0, 0], [0, n]]);
  const square = spaced
    .reshape([...leading, n * (n + 1)])
    .slice(0, n * n, -1)
    .reshape([...leading, n, n]);
  if (low + right === 0) return square;
  return square.pad([...leading.map(() => [0, 0] as const), [low, right], [right, low]]);
}

/** As numpy has it: of a vector the matrix with that diagonal, of a matrix its diagonal. */
export function diag<D extends DType>(t: Tensor<D>, offset: number): Tensor<D> {
  if (t.rank === 1) return diagonalMatrix(t, offset);
  if (t.rank === 2) return diagonal(t, offset, 0, 1);
  throw shapeError("diag", `takes a vector or a matrix, got ${showShape(t.shape)}; see diagonal`, t.shape);
}

/**
 * The Kronecker product: every element of `left` times the whole of `right`.
 *
 * ```ts
 * import { eye, kron, tensor } from "raphson";
 *
 * console.log(kron(eye(2), tensor([[1, 2]])).toArray());   // [[1, 2, 0, 0], [0, 0, 1, 2]]
 * ```
 */
export function kron<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  requireTensors("kron", left, right);
  const rank = Math.max(left.rank, right.rank);
  const padded = (t: Tensor<D>): number[] => [...Array<number>(rank - t.rank).fill(1), ...t.shape];
  const [a, b] = [padded(left), padded(right)];
  const product = left.reshape(a.flatMap((size) => [size, 1])).mul(right.reshape(b.flatMap((size) => [1, size])));
  return product.reshape(a.map((size, i) => size * (b[i] ?? 1)));
}

/**
 * The sum of products over `axes` of both: a number n for the last n axes of `left` and the first n of `right` (2 unless
 * given), or two lists of axes that belong together.
 *
 * ```ts
 * import { ones, tensordot } from "raphson";
 *
 * console.log(tensordot(ones([2, 3, 4]), ones([3, 4, 5])).shape);   // [2, 5]
 * ```
 */
export function tensordot<D extends NumericDType>(
  left: Tensor<D>,
  right: Tensor<D>,
  axes: number | readonly [left: readonly number[], right: readonly number[]] = 2,
): Tensor<D> {
  requireTensors("tensordot", left, right);
  const n = typeof axes === "number" ? axes : 0;
  if (typeof axes === "number" && !(Number.isInteger(n) && n >= 0 && n <= left.rank && n <= right.rank)) {
    throw argumentError(
      "tensordot",
      `cannot sum over ${n} axes of ${showShape(left.shape)} and ${showShape(right.shape)}`,
    );
  }
  const range = (from: number): number[] => Array.from({ length: n }, (_, i) => from + i);
  const [l, r] = typeof axes === "number" ? [range(left.rank - n), range(0)] : axes;
  const [a, b] = [
    l.map((x) => checkAxis("tensordot", x, left.rank)),
    r.map((x) => checkAxis("tensordot", x, right.rank)),
  ];
  if (a.length !== b.length || a.some((axis, i) => left.shape[axis] !== right.shape[b[i] ?? -1])) {
    const both = `${showShape(left.shape)} at [${a}] and ${showShape(right.shape)} at [${b}]`;
    throw shapeError("tensordot", `the sizes of the axes to sum over differ: ${both}`, left.shape, right.shape);
  }
  const rest = (t: Tensor<D>, drop: readonly number[]): number[] =>
    t.shape.map((_, axis) => axis).filter((axis) => !drop.includes(axis));
  const [restLeft, restRight] = [rest(left, a), rest(right, b)];
  const k = elements(a.map((axis) => left.shape[axis] ?? 1));
  const sizesLeft = restLeft.map((axis) => left.shape[axis] ?? 1);
  const sizesRight = restRight.map((axis) => right.shape[axis] ?? 1);
  const rows = left.permute([...restLeft, ...a]).reshape([elements(sizesLeft), k]);
  const columns = right.permute([...b, ...restRight]).reshape([k, elements(sizesRight)]);
  return matmul(rows, columns).reshape([...sizesLeft, ...sizesRight]);
}

/** The sum of products over the last axis of both. */
export function inner<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  if (left.rank === 0 || right.rank === 0) return left.mul(right);
  return tensordot(left, right, [[-1], [-1]]);
}
