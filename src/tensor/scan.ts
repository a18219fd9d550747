/**
 * Running sums, products and extremes along an axis, and differences of neighbours. Scans double their reach at each step: after
 * step s an element has seen the 2ˢ before it. They divide nothing and subtract nothing, so zeros and infinities stay what
 * they are, and derivatives of every order are those of plain products and sums.
 */

import type { DType, FloatDType, NumericDType } from "../dtype";
import { argumentError } from "../errors";
import { requireFloat, type Tensor } from "../tensor";
import { where } from "./composed";
import { arange, full } from "./creation";
import { concatenate } from "./movement";
import type { Ordered } from "./sort";
import { checkAxis, count } from "./validate";

/** Options of running sums and products. */
export interface ScanOptions {
  /** From the end to the start. */
  readonly reverse?: boolean;
  /** Without the element itself: the first result is that of no elements. */
  readonly exclusive?: boolean;
}

/** y[i] ← y[i] ∘ y[i − reach], for reach = 1, 2, 4, … */
function scan<D extends DType>(
  x: Tensor<D>,
  axis: number,
  combine: (earlier: Tensor<D>, own: Tensor<D>) => Tensor<D>,
): Tensor<D> {
  const n = x.shape[axis] ?? 0;
  let y = x;
  for (let reach = 1; reach < n; reach *= 2) {
    const own = y.slice(reach, n, axis);
    y = concatenate([y.slice(0, reach, axis), combine(y.slice(0, n - reach, axis), own)], axis);
  }
  return y;
}

function directed<D extends DType>(
  op: string,
  x: Tensor<D>,
  axis: number,
  options: ScanOptions,
  start: number,
  combine: (earlier: Tensor<D>, own: Tensor<D>) => Tensor<D>,
): Tensor<D> {
  const along = checkAxis(op, axis, x.rank);
  const n = x.shape[along] ?? 0;
  const forward = options.reverse === true ? x.flip(along) : x;
  let from = forward;
  if (options.exclusive === true && n > 0) {
    const first = full(x.shape.with(along, 1), start, { dtype: x.dtype });
    from = concatenate([first, forward.slice(0, n - 1, along)], along);
  }
  const scanned = scan(from, along, combine);
  return options.reverse === true ? scanned.flip(along) : scanned === x ? x.clone() : scanned;
}

export function cumsum<D extends NumericDType>(x: Tensor<D>, axis: number, options: ScanOptions): Tensor<D> {
  return directed("cumsum", x, axis, options, 0, (earlier, own) => earlier.add(own));
}

export function cumprod<D extends NumericDType>(x: Tensor<D>, axis: number, options: ScanOptions): Tensor<D> {
  return directed("cumprod", x, axis, options, 1, (earlier, own) => earlier.mul(own));
}

export function logcumsumexp<F extends FloatDType>(x: Tensor<F>, axis: number): Tensor<F> {
  requireFloat("logcumsumexp", x);
  return directed("logcumsumexp", x, axis, {}, Number.NEGATIVE_INFINITY, (earlier, own) => earlier.logaddexp(own));
}

/** Where the running extreme stands, and from there its value: the derivative goes to that one element. */
function extreme<D extends NumericDType>(op: string, x: Tensor<D>, axis: number, least: boolean): Ordered<D> {
  const along = checkAxis(op, axis, x.rank);
  const n = x.shape[along] ?? 0;
  const held = x.stopGradient();
  const line = arange(0, n, 1, { dtype: "i32" }).reshape(x.shape.map((size, i) => (i === along ? size : 1)));
  let indices = line.broadcastTo(x.shape);
  let values = held;
  for (let reach = 1; reach < n; reach *= 2) {
    const [earlier, own] = [values.slice(0, n - reach, along), values.slice(reach, n, along)];
    const better = least ? own.lessEqual(earlier) : own.greaterEqual(earlier);
    // of equals the later one; a NaN stays once it came
    const keep = better.or(own.notEqual(own));
    const pick = <T extends DType>(of: Tensor<T>): Tensor<T> => {
      const picked = where(keep, of.slice(reach, n, along), of.slice(0, n - reach, along));
      return concatenate([of.slice(0, reach, along), picked], along);
    };
    [values, indices] = [pick(values), pick(indices)];
  }
  return { values: x.gather(indices, along), indices: indices.clone() };
}

export function cummax<D extends NumericDType>(x: Tensor<D>, axis: number): Ordered<D> {
  return extreme("cummax", x, axis, false);
}

export function cummin<D extends NumericDType>(x: Tensor<D>, axis: number): Ordered<D> {
  return extreme("cummin", x, axis, true);
}

/** x[i + 1] − x[i], `order` times */
export function diff<D extends NumericDType>(x: Tensor<D>, order: number, axis: number): Tensor<D> {
  const along = checkAxis("diff", axis, x.rank);
  const size = x.shape[along] ?? 0;
  if (count("diff", "the order", order) > 0 && size === 0) {
    throw argumentError("diff", `axis ${along} is empty: there are no neighbours to subtract`, { shapes: [x.shape] });
  }
  let result = x;
  for (let i = 0; i < order; i++) {
    const n = result.shape[along] ?? 0;
    if (n === 0) break;
    result = result.slice(1, n, along).sub(result.slice(0, n - 1, along));
  }
  return result === x ? x.clone() : result;
}
