/**
 * Products of matrices and vectors, with numpy's rules for both.
 */

import type { NumericDType } from "../dtype";
import { shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, type Tensor } from "../tensor";
import { showShape } from "./validate";

/** A vector on the left is a row, on the right a column; the axis that this adds vanishes again. */
export function matmul<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
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
  const product = fromHandle<D>(native.dot(rows.handle, columns.handle));
  const drop = [...(left.rank === 1 ? [-2] : []), ...(right.rank === 1 ? [-1] : [])];
  return drop.length > 0 ? product.squeeze(drop) : product;
}

export function dot<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  return matmul(left, right);
}

export function outer<D extends NumericDType>(left: Tensor<D>, right: Tensor<D>): Tensor<D> {
  return left.reshape([-1, 1]).mul(right.reshape([1, -1]));
}
