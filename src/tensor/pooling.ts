/**
 * Pooling over the last axes: extremes and means of windows. Composed of slices, reductions and elementwise ops, one
 * axis after another, so every derivative exists.
 */

import { type FloatDType, isFloat, type NumericDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, requireFloat, requireTensors, type Tensor } from "../tensor";
import { type PerAxis, perAxis, type Sides, sides } from "./convolution";
import { fromTypedArray } from "./creation";
import { concatenate, pad } from "./movement";
import { reduce } from "./reduction";
import { checkOptions, showShape } from "./validate";

/** Options of `maxPool1d` and `maxPool2d`. */
export interface PoolOptions {
  /** Steps between neighbouring windows (the window itself unless given). */
  readonly stride?: PerAxis;
  /** Elements around the data that no window picks (none unless given); fewer than the window. */
  readonly padding?: Sides;
}

/** Options of `avgPool1d` and `avgPool2d`. */
export interface AvgPoolOptions extends PoolOptions {
  /** Whether zeros of the padding count as elements of a window (true unless given). */
  readonly countIncludePad?: boolean;
}

/**
 * Greatest elements of windows along the last axis.
 *
 * ```ts
 * import { maxPool1d, tensor } from "raphson";
 *
 * console.log(maxPool1d(tensor([1, 3, 2, 0]), 2).toArray());                  // [3, 2]
 * console.log(maxPool1d(tensor([1, 3, 2, 0]), 3, { stride: 1 }).toArray());   // [3, 3]
 * ```
 */
export function maxPool1d<D extends NumericDType>(x: Tensor<D>, window: PerAxis, options?: PoolOptions): Tensor<D> {
  return pool("maxPool1d", "max", 1, x, window, options);
}

/**
 * Greatest elements of windows over the last two axes. Where several are greatest, they share the gradient.
 *
 * ```ts
 * import { maxPool2d, zeros } from "raphson";
 *
 * console.log(maxPool2d(zeros([8, 16, 28, 28]), 2).shape);   // [8, 16, 14, 14]
 * ```
 */
export function maxPool2d<D extends NumericDType>(x: Tensor<D>, window: PerAxis, options?: PoolOptions): Tensor<D> {
  return pool("maxPool2d", "max", 2, x, window, options);
}

/** Means of windows along the last axis. */
export function avgPool1d<D extends FloatDType>(x: Tensor<D>, window: PerAxis, options?: AvgPoolOptions): Tensor<D> {
  return average("avgPool1d", 1, x, window, options);
}

/**
 * Means of windows over the last two axes.
 *
 * ```ts
 * import { avgPool2d, tensor } from "raphson";
 *
 * console.log(avgPool2d(tensor([[1, 2], [3, 6]]), 2).toArray());   // [[3]]
 * ```
 */
export function avgPool2d<D extends FloatDType>(x: Tensor<D>, window: PerAxis, options?: AvgPoolOptions): Tensor<D> {
  return average("avgPool2d", 2, x, window, options);
}

/**
 * Means over as many windows as asked for, which cover the last two axes: window i of n along an axis of `size` is
 * ⌊i·size/n⌋ … ⌈(i + 1)·size/n⌉.
 *
 * ```ts
 * import { adaptiveAvgPool2d, zeros } from "raphson";
 *
 * console.log(adaptiveAvgPool2d(zeros([8, 64, 7, 5]), 1).shape);   // [8, 64, 1, 1]
 * ```
 */
export function adaptiveAvgPool2d<D extends FloatDType>(x: Tensor<D>, size: PerAxis): Tensor<D> {
  requireFloat("adaptiveAvgPool2d", x);
  return adaptive("adaptiveAvgPool2d", "mean", x, size);
}

/** Greatest elements of the windows of `adaptiveAvgPool2d`. */
export function adaptiveMaxPool2d<D extends NumericDType>(x: Tensor<D>, size: PerAxis): Tensor<D> {
  return adaptive("adaptiveMaxPool2d", "max", x, size);
}

type Kind = "max" | "sum";

/** Elements from which a window is reduced as an axis; of smaller ones the taps combine, which makes longer loops. */
const LARGE = 16;

/** What no maximum picks. */
const LEAST = {
  f32: Number.NEGATIVE_INFINITY,
  f64: Number.NEGATIVE_INFINITY,
  f16: Number.NEGATIVE_INFINITY,
  bf16: Number.NEGATIVE_INFINITY,
  i32: -(2 ** 31),
  u32: 0,
  // The least that a number holds exactly: of a window that is all below, padding is the maximum.
  i64: Number.MIN_SAFE_INTEGER,
  u8: 0,
} as const satisfies Record<NumericDType, number>;

/** One axis of a pool. */
interface Axis {
  /** Counted from the first. */
  readonly axis: number;
  readonly size: number;
  readonly window: number;
  readonly stride: number;
  readonly before: number;
  readonly after: number;
  readonly outputs: number;
}

function axesOf(op: string, n: number, x: Tensor<NumericDType>, window: PerAxis, options: PoolOptions): Axis[] {
  requireTensors(op, x);
  if (x.rank < n) throw shapeError(op, `needs ${n} axes or more, got ${showShape(x.shape)}`, x.shape);
  const windows = perAxis(op, "window", window, n, 1);
  const strides = perAxis(op, "stride", options.stride ?? windows, n, 1);
  const padding = sides(op, options.padding ?? 0, n);
  return windows.map((window, i) => {
    const axis = x.rank - n + i;
    const size = x.shape[axis] ?? 0;
    const [before, after] = padding[i] ?? [0, 0];
    if (before >= window || after >= window) {
      throw argumentError(op, `a padding of ${Math.max(before, after)} must be smaller than the window of ${window}`);
    }
    const room = size + before + after - window;
    if (size === 0 || room < 0) {
      throw shapeError(op, `a window of ${window} does not fit axis ${axis} of ${showShape(x.shape)}`, x.shape);
    }
    const stride = strides[i] ?? 1;
    return { axis, size, window, stride, before, after, outputs: Math.floor(room / stride) + 1 };
  });
}

function pool<D extends NumericDType>(
  op: string,
  kind: Kind,
  n: number,
  x: Tensor<D>,
  window: PerAxis,
  options: PoolOptions = {},
): Tensor<D> {
  checkOptions(op, options, ["stride", "padding"]);
  const axes = axesOf(op, n, x, window, options);
  const sideBySide = axes.every((a) => a.window === a.stride && a.before + a.after === 0 && a.size % a.window === 0);
  if (sideBySide && axes.reduce((product, a) => product * a.window, 1) >= LARGE) {
    return blocks(kind, x, axes);
  }
  const widths = x.shape.map((_, i): [number, number] => {
    const axis = axes.find((a) => a.axis === i);
    return axis === undefined ? [0, 0] : [axis.before, axis.after];
  });
  const outside = kind === "max" ? LEAST[x.dtype] : 0;
  const padded = widths.every(([before, after]) => before + after === 0) ? x : pad(x, widths, outside);
  return axes.reduce((value, axis) => slide(kind, value, axis), padded);
}

/** Windows that lie side by side: each axis as [outputs, window], of which the windows vanish. */
function blocks<D extends NumericDType>(kind: Kind, x: Tensor<D>, axes: readonly Axis[]): Tensor<D> {
  const leading = x.shape.slice(0, x.rank - axes.length);
  const split = x.reshape([...leading, ...axes.flatMap((axis) => [axis.outputs, axis.window])]);
  return reduce(
    split,
    kind,
    axes.map((_, i) => leading.length + 2 * i + 1),
  );
}

/** Windows along one axis: the taps are slices, which combine. */
function slide<D extends NumericDType>(kind: Kind, x: Tensor<D>, axis: Axis): Tensor<D> {
  const tap = (t: number): Tensor<D> => {
    const start = x.shape.map((_, i) => (i === axis.axis ? t : 0));
    const stop = x.shape.map((size, i) => (i === axis.axis ? t + (axis.outputs - 1) * axis.stride + 1 : size));
    const step = x.shape.map((_, i) => (i === axis.axis ? axis.stride : 1));
    return fromHandle<D>(native.slice(x.handle, start, stop, step));
  };
  let result = tap(0);
  for (let t = 1; t < axis.window; t++) result = kind === "max" ? result.maximum(tap(t)) : result.add(tap(t));
  return result;
}

function average<D extends FloatDType>(
  op: string,
  n: number,
  x: Tensor<D>,
  window: PerAxis,
  options: AvgPoolOptions = {},
): Tensor<D> {
  requireFloat(op, x);
  checkOptions(op, options, ["stride", "padding", "countIncludePad"]);
  const { countIncludePad = true, ...windows } = options;
  const sums = pool(op, "sum", n, x, window, windows);
  const axes = axesOf(op, n, x, window, windows);
  if (countIncludePad || axes.every((axis) => axis.before + axis.after === 0)) {
    return sums.div(axes.reduce((product, axis) => product * axis.window, 1));
  }
  // elements of the data in each window, axis by axis
  return axes.reduce((means, axis, i) => {
    const counts = Float64Array.from({ length: axis.outputs }, (_, y) => {
      const first = y * axis.stride - axis.before;
      return Math.min(axis.size, first + axis.window) - Math.max(0, first);
    });
    const shape = axes.map((_, j) => (j === i ? axis.outputs : 1));
    return means.div(fromTypedArray(counts, shape).cast(x.dtype));
  }, sums);
}

function adaptive<D extends NumericDType>(op: string, kind: "max" | "mean", x: Tensor<D>, size: PerAxis): Tensor<D> {
  const n = 2;
  requireTensors(op, x);
  if (x.rank < n) throw shapeError(op, `needs ${n} axes or more, got ${showShape(x.shape)}`, x.shape);
  const sizes = perAxis(op, "size", size, n, 1);
  return sizes.reduce((value, outputs, i) => windowed(op, kind, value, x.rank - n + i, outputs), x);
}

/** Each window along one axis on its own, then side by side. */
function windowed<D extends NumericDType>(
  op: string,
  kind: "max" | "mean",
  x: Tensor<D>,
  axis: number,
  outputs: number,
): Tensor<D> {
  const size = x.shape[axis] ?? 0;
  if (size === 0) throw shapeError(op, `axis ${axis} of ${showShape(x.shape)} is empty`, x.shape);
  const parts = Array.from({ length: outputs }, (_, i) => {
    const [first, end] = [Math.floor((i * size) / outputs), Math.ceil(((i + 1) * size) / outputs)];
    const start = x.shape.map((_, a) => (a === axis ? first : 0));
    const stop = x.shape.map((s, a) => (a === axis ? end : s));
    const part = fromHandle<D>(
      native.slice(
        x.handle,
        start,
        stop,
        x.shape.map(() => 1),
      ),
    );
    const combined = reduce(part, kind === "max" ? "max" : "sum", axis, { keepDims: true });
    return kind === "max" || !isFloat(x.dtype) ? combined : combined.div(end - first);
  });
  return concatenate(parts, axis);
}
