/**
 * Products of matrices and vectors, with numpy's rules for both.
 */

import type { NumericDType } from "../dtype";
import { shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, requireTensors, type Tensor } from "../tensor";
import { showShape } from "./validate";

/** A vector on the left is a row, on the right a column; the axis that this adds vanishes again. */
export function matmul<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  requireTensors("matmul", left, right);
  if (left.rank === 0 || right.rank === 0) {
    throw shapeError(
      "matmul",
      `a scalar has no axis to sum along: ${showShape(left.shape)} · ${showShape(right.shape)}; use mul`,
      left.shape,
      right.shape,
    );
  }
  const rows = left.rank === 1 ? left.unsqueeze(0) : left;
  const columns = right.rank === 1 ? right.unsqueeze(1) : right;
  if (rows.shape.at(-1) !== columns.shape.at(-2)) {
    const [m, n] = [rows.shape.at(-1), columns.shape.at(-2)];
    const both = `${showShape(left.shape)} · ${showShape(right.shape)}`;
    throw shapeError(
      "matmul",
      `${both} would sum along ${m} and ${n} elements; transpose one of them?`,
      left.shape,
      right.shape,
    );
  }
  const product = fromHandle<D>(native.dot(rows.handle, columns.handle));
  const drop = [...(left.rank === 1 ? [-2] : []), ...(right.rank === 1 ? [-1] : [])];
  return drop.length > 0 ? product.squeeze(drop) : product;
}

export function dot<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  return matmul(left, right);
}

export function outer<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  requireTensors("outer", left, right);
  return left.reshape([-1, 1]).mul(right.reshape([1, -1]));
}
