/**
 * Linear algebra on the last two axes: factorisations, triangular solves, inverses and determinants. All of it is composed of
 * products, sums and square roots of blocks, so it runs on every device and has derivatives of every order. The graph grows with
 * the size of the matrices (not with their number), which suits matrices of up to a few hundred rows.
 */

import type { DType, FloatDType } from "./dtype";
import { argumentError, shapeError } from "./errors";
import { requireFloat, type Tensor } from "./tensor";
import { inSingle, isHalf, where } from "./tensor/composed";
import { arange, eye, full } from "./tensor/creation";
import { diagonal } from "./tensor/matrix";
import { concatenate } from "./tensor/movement";
import { showShape } from "./tensor/validate";

/** Rows of a block that is factored column by column; greater matrices are cut in two. */
const BLOCK = 16;

/** Checks for square matrices, and returns their size. */
function square(op: string, a: Tensor<DType>): number {
  requireFloat(op, a);
  const [rows, columns] = a.shape.slice(-2);
  if (rows === undefined || columns === undefined || rows !== columns) {
    throw shapeError(op, `needs a square matrix, or several, got ${showShape(a.shape)}`, a.shape);
  }
  return rows;
}

/** Rows `r0 … r1` and columns `c0 … c1` of the last two axes. */
function block<F extends FloatDType>(a: Tensor<F>, r0: number, r1: number, c0: number, c1: number): Tensor<F> {
  return a.slice(r0, r1, -2).slice(c0, c1, -1);
}

/** [[a, 0], [c, d]] */
function lowerBlocks<F extends FloatDType>(a: Tensor<F>, c: Tensor<F>, d: Tensor<F>): Tensor<F> {
  const leading = a.shape.slice(0, -2);
  const zeros = full([...leading, a.shape.at(-2) ?? 0, d.shape.at(-1) ?? 0], 0, { dtype: a.dtype }) as Tensor<F>;
  return concatenate([concatenate([a, zeros], -1), concatenate([c, d], -1)], -2);
}

/**
 * The lower triangular L with A = L·Lᵀ of a symmetric positive definite matrix, or of several. Only the lower triangle of
 * A is read, and gradients are put there; a matrix that is not positive definite gives NaN.
 *
 * ```ts
 * import { linalg, tensor } from "raphson";
 *
 * console.log(linalg.cholesky(tensor([[4, 2], [2, 10]])).toArray());   // [[2, 0], [1, 3]]
 * ```
 */
export function cholesky<F extends FloatDType>(a: Tensor<F>): Tensor<F> {
  const n = square("cholesky", a);
  if (isHalf(a)) return inSingle(a, cholesky);
  return n === 0 ? a.clone() : factor(a, false).lower;
}

/** A factor, and its inverse where it was asked for. */
interface Factor<F extends FloatDType> {
  readonly lower: Tensor<F>;
  readonly inverse: Tensor<F> | undefined;
}

/** L₁₁ = chol A₁₁, L₂₁ = A₂₁·L₁₁⁻ᵀ, L₂₂ = chol(A₂₂ − L₂₁·L₂₁ᵀ) */
function factor<F extends FloatDType>(a: Tensor<F>, wantsInverse: boolean): Factor<F> {
  const n = a.shape.at(-1) ?? 0;
  if (n <= BLOCK) {
    const lower = factorColumns(a);
    return { lower, inverse: wantsInverse ? triangularInverse(lower) : undefined };
  }
  const h = halfOf(n);
  const first = factor(block(a, 0, h, 0, h), true);
  const inverse = first.inverse as Tensor<F>;
  const below = block(a, h, n, 0, h).matmul(inverse.transpose());
  const rest = block(a, h, n, h, n).sub(below.matmul(below.transpose()));
  const second = factor(rest, wantsInverse);
  const lower = lowerBlocks(first.lower, below, second.lower);
  if (second.inverse === undefined) return { lower, inverse: undefined };
  const corner = second.inverse.matmul(below).matmul(inverse).neg();
  return { lower, inverse: lowerBlocks(inverse, corner, second.inverse) };
}

/** Half of n, rounded up to whole blocks. */
function halfOf(n: number): number {
  return Math.ceil(n / 2 / BLOCK) * BLOCK;
}

/** Column by column: v = A[·, 0]/√A[0, 0] is the first of L, and A − v·vᵀ without its first row and column goes on. */
function factorColumns<F extends FloatDType>(a: Tensor<F>): Tensor<F> {
  const n = a.shape.at(-1) ?? 0;
  const none = a.shape.slice(0, -2).map(() => [0, 0] as const);
  const columns: Tensor<F>[] = [];
  let rest = a;
  for (let j = 0; j < n; j++) {
    const pivot = block(rest, 0, 1, 0, 1).sqrt();
    const column = rest
      .slice(0, 1, -1)
      .div(pivot)
      .slice(1, n - j, -2);
    columns.push(concatenate([pivot, column], -2).pad([...none, [j, 0], [0, 0]]));
    if (j + 1 < n) rest = block(rest, 1, n - j, 1, n - j).sub(column.mul(column.transpose()));
  }
  return concatenate(columns, -1);
}

/**
 * The inverse of a lower triangular matrix: the diagonal's first, then that of diagonal blocks twice as large from those of their
 * halves, all blocks of a size at once: −D⁻¹·C·A⁻¹ below [[A, 0], [C, D]].
 */
function triangularInverse<F extends FloatDType>(lower: Tensor<F>): Tensor<F> {
  const n = lower.shape.at(-1) ?? 0;
  const size = 2 ** Math.ceil(Math.log2(Math.max(n, 1)));
  const leading = lower.shape.slice(0, -2);
  const none = leading.map(() => [0, 0] as const);
  // the rest of the next power of two is the identity
  const more = size - n;
  let whole = lower;
  if (more > 0) {
    const corner = eye(more, more, { dtype: lower.dtype }).pad([
      [n, 0],
      [n, 0],
    ]) as Tensor<FloatDType> as Tensor<F>;
    whole = lower.pad([...none, [0, more], [0, more]]).add(corner);
  }
  let inverses = diagonal(whole, 0, -2, -1)
    .reciprocal()
    .reshape([...leading, size, 1, 1]) as Tensor<F>;
  for (let width = 1; width < size; width *= 2) {
    const pairs = size / (2 * width);
    const corners = diagonalBlocks(whole, 2 * width, pairs)
      .slice(width, 2 * width, -2)
      .slice(0, width, -1);
    const both = inverses.reshape([...leading, pairs, 2, width, width]);
    const [a, d] = [both.slice(0, 1, -3).squeeze(-3), both.slice(1, 2, -3).squeeze(-3)];
    inverses = lowerBlocks(a, d.matmul(corners).matmul(a).neg(), d);
  }
  return block(inverses.reshape([...leading, size, size]), 0, n, 0, n);
}

/** The `n` diagonal blocks of `width` rows each, along an axis before the last two. */
function diagonalBlocks<F extends FloatDType>(a: Tensor<F>, width: number, n: number): Tensor<F> {
  const leading = a.shape.slice(0, -2);
  if (n === 1) return a.reshape([...leading, 1, width, width]);
  const k = leading.length;
  const cut = a.reshape([...leading, n, width, n, width]);
  // the diagonal comes last; it belongs before the blocks' own axes
  const blocks = diagonal(cut, 0, k, k + 2);
  return blocks.permute([...leading.map((_, i) => i), k + 2, k, k + 1]);
}

/** Options of `triangularSolve`. */
export interface TriangularOptions {
  /** Whether the matrix is upper triangular; false unless given. The other triangle is not read. */
  readonly upper?: boolean;
  /** Solve with the transposed matrix. */
  readonly transpose?: boolean;
  /** Take the diagonal for ones. */
  readonly unitDiagonal?: boolean;
}

/**
 * X with A·X = B for a triangular A: [..., n, n] and [..., n, k]. Solved by the inverse of A, built from blocks; a zero on
 * the diagonal gives infinities.
 *
 * ```ts
 * import { linalg, tensor } from "raphson";
 *
 * const a = tensor([[2, 0], [1, 4]]);
 * console.log(linalg.triangularSolve(a, tensor([[2], [9]])).toArray());   // [[1], [2]]
 * ```
 */
export function triangularSolve<F extends FloatDType>(
  a: Tensor<F>,
  b: Tensor<F>,
  options: TriangularOptions = {},
): Tensor<F> {
  const n = square("triangularSolve", a);
  rightSide("triangularSolve", a, b, n);
  if (isHalf(a)) return inSingle(a, (wide) => triangularSolve(wide, b.cast(wide.dtype), options));
  if (n === 0) return b.clone();
  const oriented = options.upper === true ? a.transpose() : a;
  const row = arange(0, n, 1, { dtype: "i32" }).unsqueeze(1);
  const column = arange(0, n, 1, { dtype: "i32" });
  const below = where(column.less(row), oriented, 0);
  const ones = where(
    column.equal(row),
    options.unitDiagonal === true ? (full([], 1, { dtype: a.dtype }) as Tensor<F>) : oriented,
    below,
  );
  const inverse = triangularInverse(ones);
  // an upper matrix was turned over once already
  return ((options.upper === true) !== (options.transpose === true) ? inverse.transpose() : inverse).matmul(b);
}

function rightSide(op: string, a: Tensor<DType>, b: Tensor<DType>, n: number): void {
  requireFloat(op, b);
  if (b.rank >= 2 && b.shape.at(-2) === n) return;
  const both = `${showShape(a.shape)} and ${showShape(b.shape)}`;
  throw shapeError(op, `the right side needs shape [..., ${n}, k]: ${both}; a vector is [${n}, 1]`, a.shape, b.shape);
}

/** The rows of A in an order for which elimination needs no pivots, and the sign of that order. */
interface RowOrder<F extends FloatDType> {
  readonly order: Tensor<"i32">;
  readonly sign: Tensor<F>;
}

/**
 * Gauss's elimination with the greatest element of a column as its pivot, for the order of rows alone: that has no derivative, and
 * stays the same around almost every matrix.
 */
function pivotOrder<F extends FloatDType>(a: Tensor<F>): RowOrder<F> {
  const n = a.shape.at(-1) ?? 0;
  const leading = a.shape.slice(0, -2);
  let order = arange(0, n, 1, { dtype: "i32" }).broadcastTo([...leading, n]);
  let sign: Tensor<F> = full(leading, 1, { dtype: a.dtype });
  let rest = a.stopGradient();
  for (let j = 0; j + 1 < n; j++) {
    const m = n - j;
    const best = rest.slice(0, 1, -1).squeeze(-1).abs().argmax(-1).unsqueeze(-1);
    const line = arange(0, m, 1, { dtype: "i32" }).broadcastTo([...leading, m]);
    // the first row and the best change places
    const swapped = where(line.equal(0), best, where(line.equal(best), 0, line));
    sign = where(best.squeeze(-1).equal(0), sign, sign.neg() as Tensor<F>);
    order = concatenate([order.slice(0, j, -1), order.slice(j, n, -1).gather(swapped, -1)], -1);
    const rows = rest.gather(swapped.unsqueeze(-1).broadcastTo([...leading, m, m]), -2);
    const multipliers = block(rows, 1, m, 0, 1).div(block(rows, 0, 1, 0, 1));
    rest = block(rows, 1, m, 1, m).sub(multipliers.mul(block(rows, 0, 1, 1, m))) as Tensor<F>;
  }
  return { order, sign };
}

/** A matrix as the product of two triangular ones, the lower with ones on its diagonal. */
interface Eliminated<F extends FloatDType> {
  readonly lower: Tensor<F>;
  readonly upper: Tensor<F>;
}

/** L₁₁·U₁₁ = A₁₁, U₁₂ = L₁₁⁻¹·A₁₂, L₂₁ = A₂₁·U₁₁⁻¹, L₂₂·U₂₂ = A₂₂ − L₂₁·U₁₂ */
function eliminated<F extends FloatDType>(a: Tensor<F>): Eliminated<F> {
  const n = a.shape.at(-1) ?? 0;
  if (n <= BLOCK) return eliminatedColumns(a);
  const h = halfOf(n);
  const first = eliminated(block(a, 0, h, 0, h));
  const right = triangularInverse(first.lower).matmul(block(a, 0, h, h, n));
  const below = block(a, h, n, 0, h).matmul(triangularInverse(first.upper.transpose()).transpose());
  const second = eliminated(block(a, h, n, h, n).sub(below.matmul(right)) as Tensor<F>);
  const upper = lowerBlocks(first.upper.transpose(), right.transpose(), second.upper.transpose()).transpose();
  return { lower: lowerBlocks(first.lower, below, second.lower), upper };
}

function eliminatedColumns<F extends FloatDType>(a: Tensor<F>): Eliminated<F> {
  const n = a.shape.at(-1) ?? 0;
  const none = a.shape.slice(0, -2).map(() => [0, 0] as const);
  const [columns, rows]: [Tensor<F>[], Tensor<F>[]] = [[], []];
  let rest = a;
  for (let j = 0; j < n; j++) {
    const m = n - j;
    const row = rest.slice(0, 1, -2);
    const pivot = row.slice(0, 1, -1);
    const column = rest.slice(0, 1, -1).div(pivot) as Tensor<F>;
    rows.push(row.pad([...none, [0, 0], [j, 0]]));
    columns.push(column.pad([...none, [j, 0], [0, 0]]));
    if (m > 1) rest = block(rest, 1, m, 1, m).sub(column.slice(1, m, -2).mul(row.slice(1, m, -1))) as Tensor<F>;
  }
  return { lower: concatenate(columns, -1), upper: concatenate(rows, -2) };
}

/** P·A = L·U */
function pivoted<F extends FloatDType>(a: Tensor<F>): Eliminated<F> & RowOrder<F> {
  const { order, sign } = pivotOrder(a);
  return { ...eliminated(ordered(a, order)), order, sign };
}

/** Rows in another order. */
function ordered<F extends FloatDType>(a: Tensor<F>, order: Tensor<"i32">): Tensor<F> {
  return a.gather(order.unsqueeze(-1).broadcastTo(a.shape), -2);
}

/**
 * X with A·X = B for any invertible A: [..., n, n] and [..., n, k], by elimination with pivots. A singular A gives infinities or
 * NaN.
 *
 * ```ts
 * import { linalg, tensor } from "raphson";
 *
 * console.log(linalg.solve(tensor([[0, 2], [4, 0]]), tensor([[2], [8]])).toArray());   // [[2], [1]]
 * ```
 */
export function solve<F extends FloatDType>(a: Tensor<F>, b: Tensor<F>): Tensor<F> {
  const n = square("solve", a);
  rightSide("solve", a, b, n);
  if (isHalf(a)) return inSingle(a, (wide) => solve(wide, b.cast(wide.dtype)));
  if (n === 0) return b.clone();
  const { lower, upper, order } = pivoted(a);
  const leading = a.shape.slice(0, -2);
  const k = b.shape.at(-1) ?? 0;
  const right = b.broadcastTo([...leading, n, k]);
  const half = triangularSolve(lower, ordered(right, order), { unitDiagonal: true });
  return triangularSolve(upper, half, { upper: true });
}

/** The inverse of a square matrix, or of several. A singular one gives infinities or NaN. */
export function inverse<F extends FloatDType>(a: Tensor<F>): Tensor<F> {
  const n = square("inverse", a);
  const identity = eye(n, n, { dtype: a.dtype }) as Tensor<FloatDType> as Tensor<F>;
  return solve(a, identity.broadcastTo(a.shape));
}

/**
 * The determinant. Its derivatives at a singular matrix are not finite.
 *
 * ```ts
 * import { linalg, tensor } from "raphson";
 *
 * console.log(linalg.det(tensor([[0, 2], [3, 0]])).item());   // -6
 * ```
 */
export function det<F extends FloatDType>(a: Tensor<F>): Tensor<F> {
  const n = square("det", a);
  if (isHalf(a)) return inSingle(a, det);
  if (n === 0) return full(a.shape.slice(0, -2), 1, { dtype: a.dtype }) as Tensor<F>;
  const { upper, sign } = pivoted(a);
  return diagonal(upper, 0, -2, -1).prod(-1).mul(sign);
}

/** The sign of a determinant, and the logarithm of its size, which does not overflow. */
export interface SignAndLogarithm<F extends FloatDType> {
  readonly sign: Tensor<F>;
  readonly logarithm: Tensor<F>;
}

/** The determinant as its sign (no derivative) and the logarithm of its size; −∞ for a singular matrix. */
export function slogdet<F extends FloatDType>(a: Tensor<F>): SignAndLogarithm<F> {
  const n = square("slogdet", a);
  if (isHalf(a)) {
    const { sign, logarithm } = slogdet(a.cast("f32"));
    return { sign: sign.cast(a.dtype), logarithm: logarithm.cast(a.dtype) };
  }
  const shape = a.shape.slice(0, -2);
  if (n === 0) {
    return {
      sign: full(shape, 1, { dtype: a.dtype }) as Tensor<F>,
      logarithm: full(shape, 0, { dtype: a.dtype }) as Tensor<F>,
    };
  }
  const { upper, sign } = pivoted(a);
  const pivots = diagonal(upper, 0, -2, -1);
  return { sign: pivots.sign().prod(-1).mul(sign), logarithm: pivots.abs().log().sum(-1) };
}

/** log det A, NaN where the determinant is negative. For symmetric positive definite matrices 2·Σ log of the diagonal of `cholesky` is cheaper. */
export function logdet<F extends FloatDType>(a: Tensor<F>): Tensor<F> {
  const { sign, logarithm } = slogdet(a);
  return where(sign.less(0), Number.NaN, logarithm);
}

/** Aⁿ of a square matrix for an integer n ≥ 0, by repeated squaring. */
export function matrixPower<F extends FloatDType>(a: Tensor<F>, n: number): Tensor<F> {
  const size = square("matrixPower", a);
  if (!Number.isInteger(n) || n < 0) {
    throw argumentError("matrixPower", `the power must be an integer ≥ 0, got ${n}; invert the matrix first`);
  }
  let result = (eye(size, size, { dtype: a.dtype }) as Tensor<FloatDType> as Tensor<F>).broadcastTo(a.shape);
  let power = a;
  for (let left = n; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = result.matmul(power);
    if (left > 1) power = power.matmul(power);
  }
  return result;
}
