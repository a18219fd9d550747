/**
 * Convolutions and transposed convolutions, channels first as in PyTorch: [batch, channels, …]. The addon's one
 * convolution stands below all of them; sizes, sides and groups are settled here.
 */

import type { NumericDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, requireTensors, type Tensor } from "../tensor";
import { checkOptions, describe, showShape } from "./validate";

/** One number for all spatial axes, or one for each. */
export type PerAxis = number | readonly number[];

/** Zeros around the data: so many on every side, so many for each axis, or [before, after] for each axis. */
export type Sides = number | readonly (number | readonly [before: number, after: number])[];

/** Options of `conv1d` and `conv2d`. */
export interface ConvOptions {
  /** Steps between neighbouring outputs (1 unless given). */
  readonly stride?: PerAxis;
  /**
   * Zeros around the data (none unless given): see `Sides`; `"valid"` for none; `"same"` for as many as make
   * ⌈size / stride⌉ outputs, the odd one after the data.
   */
  readonly padding?: Sides | "same" | "valid";
  /** Steps between neighbouring taps (1 unless given). */
  readonly dilation?: PerAxis;
  /** Groups of channels that do not see each other (1 unless given). */
  readonly groups?: number;
}

/** Options of `convTranspose1d` and `convTranspose2d`. */
export interface ConvTransposeOptions {
  /** Outputs between neighbouring inputs (1 unless given). */
  readonly stride?: PerAxis;
  /** Outputs cut off on each side: the padding of the convolution that this one transposes (none unless given). */
  readonly padding?: Sides;
  /** Outputs added after the last one; fewer than the stride or the dilation (none unless given). */
  readonly outputPadding?: PerAxis;
  /** Steps between neighbouring taps (1 unless given). */
  readonly dilation?: PerAxis;
  /** Groups of channels that do not see each other (1 unless given). */
  readonly groups?: number;
}

/**
 * Convolution along one axis: x [batch, in, length], kernel [out, in / groups, taps] → [batch, out, length′], as deep
 * learning has it (the kernel is not turned round).
 *
 * ```ts
 * import { conv1d, tensor } from "raphson";
 *
 * const x = tensor([[[1, 2, 4, 7]]]);
 * console.log(conv1d(x, tensor([[[-1, 1]]])).toArray());   // [[[1, 2, 3]]]
 * ```
 */
export function conv1d<D extends NumericDType>(x: Tensor<D>, kernel: Tensor<D>, options?: ConvOptions): Tensor<D> {
  return convolve("conv1d", 1, x, kernel, options);
}

/**
 * Convolution along two axes: x [batch, in, height, width], kernel [out, in / groups, taps down, taps across] →
 * [batch, out, height′, width′].
 *
 * ```ts
 * import { conv2d, ones } from "raphson";
 *
 * const x = ones([8, 3, 28, 28]);
 * console.log(conv2d(x, ones([16, 3, 3, 3]), { stride: 2, padding: 1 }).shape);   // [8, 16, 14, 14]
 * ```
 */
export function conv2d<D extends NumericDType>(x: Tensor<D>, kernel: Tensor<D>, options?: ConvOptions): Tensor<D> {
  return convolve("conv2d", 2, x, kernel, options);
}

/**
 * The transpose of `conv1d`: x [batch, in, length], kernel [in, out / groups, taps] →
 * [batch, out, (length − 1)·stride − padding + dilation·(taps − 1) + outputPadding + 1].
 *
 * ```ts
 * import { convTranspose1d, tensor } from "raphson";
 *
 * const x = tensor([[[1, 2]]]);
 * console.log(convTranspose1d(x, tensor([[[1, 1]]]), { stride: 2 }).toArray());   // [[[1, 1, 2, 2]]]
 * ```
 */
export function convTranspose1d<D extends NumericDType>(
  x: Tensor<D>,
  kernel: Tensor<D>,
  options?: ConvTransposeOptions,
): Tensor<D> {
  return convolveTransposed("convTranspose1d", 1, x, kernel, options);
}

/** The transpose of `conv2d`: kernel [in, out / groups, taps down, taps across]; sizes as in `convTranspose1d`, axis by axis. */
export function convTranspose2d<D extends NumericDType>(
  x: Tensor<D>,
  kernel: Tensor<D>,
  options?: ConvTransposeOptions,
): Tensor<D> {
  return convolveTransposed("convTranspose2d", 2, x, kernel, options);
}

/** A whole number for each of `n` spatial axes, `least` or more. */
export function perAxis(op: string, what: string, value: PerAxis, n: number, least: number): number[] {
  const list = typeof value === "number" ? Array<number>(n).fill(value) : value;
  const good = (size: unknown) => Number.isSafeInteger(size) && Number(size) >= least;
  if (!Array.isArray(list) || list.length !== n || !list.every(good)) {
    const given = Array.isArray(value) ? `[${value.join(", ")}]` : describe(value);
    throw argumentError(op, `the ${what} must be a whole number ≥ ${least}, or ${n} of them, got ${given}`);
  }
  return [...list];
}

/** [before, after] for each of `n` spatial axes. */
export function sides(op: string, padding: Sides, n: number): [before: number, after: number][] {
  const axes: Sides = typeof padding === "number" ? Array<number>(n).fill(padding) : padding;
  const good = (size: unknown) => Number.isSafeInteger(size) && Number(size) >= 0;
  if (!Array.isArray(axes) || axes.length !== n) throw paddingError(op, padding, n);
  return axes.map((axis) => {
    const both = Array.isArray(axis) ? axis : [axis, axis];
    const [before, after] = both;
    if (both.length !== 2 || !good(before) || !good(after)) throw paddingError(op, padding, n);
    return [Number(before), Number(after)];
  });
}

function paddingError(op: string, padding: unknown, n: number) {
  const given = Array.isArray(padding) ? JSON.stringify(padding) : describe(padding);
  return argumentError(
    op,
    `the padding must be a whole number ≥ 0, or for each of the ${n} spatial axes one or [before, after], got ${given}`,
  );
}

/** One spatial axis. */
interface Axis {
  readonly size: number;
  readonly taps: number;
  readonly stride: number;
  readonly dilation: number;
}

/** What convolutions share, checked; kernel [first, second, …taps] with `first` divisible into the groups. */
function checked(
  op: string,
  n: number,
  x: Tensor<NumericDType>,
  kernel: Tensor<NumericDType>,
  options: { readonly stride?: PerAxis; readonly dilation?: PerAxis; readonly groups?: number },
): { axes: Axis[]; groups: number } {
  requireTensors(op, x, kernel);
  const [data, taps] = [x.shape, kernel.shape];
  if (data.length !== n + 2 || taps.length !== n + 2) {
    const spatial = n === 1 ? "length" : "height, width";
    throw shapeError(
      op,
      `needs [batch, channels, ${spatial}] and a kernel of ${n + 2} axes, got ${showShape(data)} and ${showShape(taps)}`,
      data,
      taps,
    );
  }
  const [groups = 1] = perAxis(op, "number of groups", [options.groups ?? 1], 1, 1);
  const strides = perAxis(op, "stride", options.stride ?? 1, n, 1);
  const dilations = perAxis(op, "dilation", options.dilation ?? 1, n, 1);
  const axes = strides.map((stride, i) => {
    const [size, count] = [data[i + 2] ?? 0, taps[i + 2] ?? 0];
    if (count === 0) throw shapeError(op, `the kernel ${showShape(taps)} has no taps`, data, taps);
    return { size, taps: count, stride, dilation: dilations[i] ?? 1 };
  });
  return { axes, groups };
}

function channelError(op: string, sentence: string, x: Tensor<NumericDType>, kernel: Tensor<NumericDType>) {
  const both = `${showShape(x.shape)} and kernel ${showShape(kernel.shape)}`;
  return shapeError(op, `${sentence}: ${both}`, x.shape, kernel.shape);
}

/** From the first to the last position that one output sees: (taps − 1)·dilation + 1. */
function reach(axis: Axis): number {
  return (axis.taps - 1) * axis.dilation + 1;
}

function paddingOf(op: string, padding: Sides | "same" | "valid", axes: readonly Axis[]): [number, number][] {
  if (padding === "valid") return axes.map(() => [0, 0]);
  if (padding !== "same") {
    if (typeof padding === "string") {
      throw argumentError(op, `the padding is "same", "valid" or numbers, got ${describe(padding)}`);
    }
    return sides(op, padding, axes.length);
  }
  return axes.map((axis) => {
    const outputs = Math.ceil(axis.size / axis.stride);
    const all = Math.max(0, (outputs - 1) * axis.stride + reach(axis) - axis.size);
    return [Math.floor(all / 2), Math.ceil(all / 2)];
  });
}

function convolve<D extends NumericDType>(
  op: string,
  n: number,
  x: Tensor<D>,
  kernel: Tensor<D>,
  options: ConvOptions = {},
): Tensor<D> {
  checkOptions(op, options, ["stride", "padding", "dilation", "groups"]);
  const { axes, groups } = checked(op, n, x, kernel, options);
  const [batch = 0, channels = 0] = x.shape;
  const [outputs = 0, perGroup = 0] = kernel.shape;
  if (channels !== perGroup * groups) {
    throw channelError(op, `${groups} × ${perGroup} channels for data of ${channels}; they must agree`, x, kernel);
  }
  if (outputs % groups !== 0) {
    throw channelError(op, `${outputs} output channels do not divide into ${groups} groups`, x, kernel);
  }
  const padding = paddingOf(op, options.padding ?? 0, axes);
  const sizes = axes.map((axis, i) => {
    const [before, after] = padding[i] ?? [0, 0];
    const room = axis.size + before + after - reach(axis);
    if (room < 0) {
      throw shapeError(
        op,
        `${axis.size} + ${before} + ${after} positions along spatial axis ${i} are fewer than the ${reach(axis)} that the kernel spans; pad more or use fewer taps`,
        x.shape,
        kernel.shape,
      );
    }
    return Math.floor(room / axis.stride) + 1;
  });
  const result = native.conv(
    x.reshape([batch, groups, perGroup, ...x.shape.slice(2)]).handle,
    kernel.reshape([groups, outputs / groups, perGroup, ...kernel.shape.slice(2)]).handle,
    axes.map((axis) => axis.stride),
    padding.map(([before]) => before),
    axes.map(() => 1),
    axes.map((axis) => axis.dilation),
    sizes,
  );
  return fromHandle<D>(result).reshape([batch, outputs, ...sizes]);
}

/** Outputs y with y = x·stride + t·dilation − before: data dilated by the stride, under the taps backwards. */
function convolveTransposed<D extends NumericDType>(
  op: string,
  n: number,
  x: Tensor<D>,
  kernel: Tensor<D>,
  options: ConvTransposeOptions = {},
): Tensor<D> {
  checkOptions(op, options, ["stride", "padding", "outputPadding", "dilation", "groups"]);
  const { axes, groups } = checked(op, n, x, kernel, options);
  const [batch = 0, channels = 0] = x.shape;
  const [inputs = 0, perGroup = 0] = kernel.shape;
  if (channels !== inputs) {
    throw channelError(op, `a kernel for ${inputs} channels, data of ${channels}; they must agree`, x, kernel);
  }
  if (inputs % groups !== 0) {
    throw channelError(op, `${inputs} input channels do not divide into ${groups} groups`, x, kernel);
  }
  const padding = sides(op, options.padding ?? 0, n);
  const extra = perAxis(op, "output padding", options.outputPadding ?? 0, n, 0);
  const sizes = axes.map((axis, i) => {
    const [before, after] = padding[i] ?? [0, 0];
    const more = extra[i] ?? 0;
    if (more > 0 && more >= Math.max(axis.stride, axis.dilation)) {
      throw argumentError(op, `an output padding of ${more} must be below the stride or the dilation`);
    }
    const size = (axis.size - 1) * axis.stride - before - after + reach(axis) + more;
    if (axis.size === 0 || size < 1) {
      throw shapeError(op, `nothing is left along spatial axis ${i}; cut off less`, x.shape, kernel.shape);
    }
    return size;
  });
  const spatial = kernel.shape.slice(2);
  const backwards = kernel
    .reshape([groups, inputs / groups, perGroup, ...spatial])
    .transpose(1, 2)
    .flip(spatial.map((_, i) => i + 3));
  const result = native.conv(
    x.reshape([batch, groups, inputs / groups, ...x.shape.slice(2)]).handle,
    backwards.handle,
    axes.map(() => 1),
    axes.map((axis, i) => reach(axis) - 1 - (padding[i]?.[0] ?? 0)),
    axes.map((axis) => axis.stride),
    axes.map((axis) => axis.dilation),
    sizes,
  );
  return fromHandle<D>(result).reshape([batch, perGroup * groups, ...sizes]);
}
