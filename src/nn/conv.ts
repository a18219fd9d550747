/**
 * Convolutional layers and pools, channels first: [batch, channels, …].
 */

import { shapeError } from "../errors";
import type { Tensor } from "../tensor";
import {
  type ConvOptions,
  type ConvTransposeOptions,
  conv1d as convolve1d,
  conv2d as convolve2d,
  type PerAxis,
  perAxis,
  convTranspose1d as transposed1d,
  convTranspose2d as transposed2d,
} from "../tensor/convolution";
import {
  type AvgPoolOptions,
  adaptiveAvgPool2d as adaptiveAverage,
  avgPool2d as average,
  maxPool2d as greatest,
  type PoolOptions,
} from "../tensor/pooling";
import { checkOptions, count, showShape } from "../tensor/validate";
import type { Initializer } from "./initializers";
import { type Lambda, lambda } from "./layers";
import { Module, type Parameter } from "./module";

/** What convolutional layers take beside the options of the function. */
interface Learned {
  /** Whether to add a bias for each output channel (true unless given). */
  readonly bias?: boolean;
  /** How the kernel begins: `kaimingUniform` unless given. */
  readonly weight?: Initializer;
  /** How the bias begins: uniform ±1/√fan-in unless given. */
  readonly biasInitializer?: Initializer;
}

/** Options of `nn.conv1d` and `nn.conv2d`. */
export interface ConvLayerOptions extends ConvOptions, Learned {}

/** Options of `nn.convTranspose1d` and `nn.convTranspose2d`. */
export interface ConvTransposeLayerOptions extends ConvTransposeOptions, Learned {}

/** A kernel and a bias: what the layers of this file share. */
const LEARNED = ["bias", "weight", "biasInitializer"] as const;

/** What the op itself takes. */
function withoutLearned<O extends Learned>(options: O): Omit<O, keyof Learned> {
  const { bias: _bias, weight: _weight, biasInitializer: _biasInitializer, ...rest } = options;
  return rest;
}

abstract class Convolution extends Module {
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;

  constructor(
    readonly title: string,
    readonly inputs: number,
    readonly outputs: number,
    readonly window: readonly number[],
    kernel: readonly number[],
    options: Learned,
  ) {
    super();
    // as PyTorch has it: fan-in is all sizes but the first, of transposed kernels too
    const fanIn = kernel.slice(1).reduce((product, size) => product * size, 1);
    this.weight = this.parameter(kernel, options.weight ?? "kaimingUniform");
    const bias = options.biasInitializer ?? { uniform: 1 / Math.sqrt(Math.max(1, fanIn)) };
    this.bias = options.bias === false ? undefined : this.parameter([outputs], bias);
  }

  protected abstract convolve(x: Tensor, kernel: Tensor): Tensor;

  override forward(x: Tensor): Tensor {
    const n = this.window.length;
    if (x.rank !== n + 2 || x.shape[1] !== this.inputs) {
      const wanted = `[batch, ${this.inputs}, ${n === 1 ? "length" : "height, width"}]`;
      throw shapeError(`nn.${this.title}`, `the input ${showShape(x.shape)} must be ${wanted}`, x.shape);
    }
    const result = this.convolve(x, this.weight.value);
    if (this.bias === undefined) return result;
    return result.add(this.bias.value.reshape([this.outputs, ...this.window.map(() => 1)]));
  }

  override describe(): string {
    const bias = this.bias === undefined ? ", no bias" : "";
    return `${this.title}(${this.inputs}, ${this.outputs}, ${this.window.join(" × ")}${bias})`;
  }
}

/** Convolution along one or two axes with a trained kernel, [out, in / groups, taps…]. */
export class Conv extends Convolution {
  constructor(
    axes: 1 | 2,
    inputs: number,
    outputs: number,
    window: PerAxis,
    readonly options: ConvLayerOptions = {},
  ) {
    const title = `conv${axes}d`;
    checkOptions(`nn.${title}`, options, ["stride", "padding", "dilation", "groups", ...LEARNED]);
    const { taps, channels } = sizes(title, axes, inputs, outputs, window, options.groups);
    super(title, inputs, outputs, taps, [outputs, channels.inputs, ...taps], options);
  }

  protected override convolve(x: Tensor, kernel: Tensor): Tensor {
    return (this.window.length === 1 ? convolve1d : convolve2d)(x, kernel, withoutLearned(this.options));
  }
}

/** Transposed convolution along one or two axes with a trained kernel, [in, out / groups, taps…]. */
export class ConvTranspose extends Convolution {
  constructor(
    axes: 1 | 2,
    inputs: number,
    outputs: number,
    window: PerAxis,
    readonly options: ConvTransposeLayerOptions = {},
  ) {
    const title = `convTranspose${axes}d`;
    const windows = ["stride", "padding", "outputPadding", "dilation", "groups"] as const;
    checkOptions(`nn.${title}`, options, [...windows, ...LEARNED]);
    const { taps, channels } = sizes(title, axes, inputs, outputs, window, options.groups);
    super(title, inputs, outputs, taps, [inputs, channels.outputs, ...taps], options);
  }

  protected override convolve(x: Tensor, kernel: Tensor): Tensor {
    return (this.window.length === 1 ? transposed1d : transposed2d)(x, kernel, withoutLearned(this.options));
  }
}

/** The sizes of a kernel, checked. */
function sizes(title: string, axes: number, inputs: number, outputs: number, window: PerAxis, groups = 1) {
  const op = `nn.${title}`;
  const [n = 1] = perAxis(op, "number of groups", [groups], 1, 1);
  const perGroup = (what: string, channels: number): number => {
    if (count(op, `the number of ${what}`, channels) % n === 0) return channels / n;
    throw shapeError(op, `${channels} ${what} do not divide into ${n} groups`);
  };
  const channels = { inputs: perGroup("inputs", inputs), outputs: perGroup("outputs", outputs) };
  return { taps: perAxis(op, "window", window, axes, 1), channels };
}

/** Convolution along one axis: [batch, in, length] → [batch, out, length′]. */
export function conv1d(inputs: number, outputs: number, window: PerAxis, options?: ConvLayerOptions): Conv {
  return new Conv(1, inputs, outputs, window, options);
}

/**
 * Convolution along two axes: [batch, in, height, width] → [batch, out, height′, width′]. Kernel and bias begin as in
 * PyTorch: uniform ±1/√(in / groups · taps).
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const layer = nn.conv2d(1, 32, 3, { padding: "same" });
 * console.log(layer(zeros([8, 1, 28, 28])).shape);   // [8, 32, 28, 28]
 * ```
 */
export function conv2d(inputs: number, outputs: number, window: PerAxis, options?: ConvLayerOptions): Conv {
  return new Conv(2, inputs, outputs, window, options);
}

/** Transposed convolution along one axis. */
export function convTranspose1d(
  inputs: number,
  outputs: number,
  window: PerAxis,
  options?: ConvTransposeLayerOptions,
): ConvTranspose {
  return new ConvTranspose(1, inputs, outputs, window, options);
}

/**
 * Transposed convolution along two axes.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const layer = nn.convTranspose2d(16, 8, 2, { stride: 2 });
 * console.log(layer(zeros([4, 16, 7, 7])).shape);   // [4, 8, 14, 14]
 * ```
 */
export function convTranspose2d(
  inputs: number,
  outputs: number,
  window: PerAxis,
  options?: ConvTransposeLayerOptions,
): ConvTranspose {
  return new ConvTranspose(2, inputs, outputs, window, options);
}

const show = (sizes: PerAxis): string => (typeof sizes === "number" ? `${sizes}` : sizes.join(" × "));

/** Greatest elements of windows over the last two axes. */
export function maxPool2d(window: PerAxis, options?: PoolOptions): Lambda<[x: Tensor], Tensor> {
  return lambda((x: Tensor) => greatest(x, window, options), `maxPool2d(${show(window)})`);
}

/** Means of windows over the last two axes. */
export function avgPool2d(window: PerAxis, options?: AvgPoolOptions): Lambda<[x: Tensor], Tensor> {
  return lambda((x: Tensor) => average(x, window, options), `avgPool2d(${show(window)})`);
}

/** Means over as many windows as asked for, which cover the last two axes. */
export function adaptiveAvgPool2d(size: PerAxis): Lambda<[x: Tensor], Tensor> {
  return lambda((x: Tensor) => adaptiveAverage(x, size), `adaptiveAvgPool2d(${show(size)})`);
}
