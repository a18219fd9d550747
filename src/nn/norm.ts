/**
 * Normalisations: over a batch, over the last axes, over groups of channels. Channels are axis 1.
 */

import { argumentError, shapeError } from "../errors";
import type { Tensor } from "../tensor";
import { inSingle } from "../tensor/composed";
import { checkOptions, checkShape, count, showShape } from "../tensor/validate";
import { currentStatisticsWeight, isTraining } from "./context";
import { Module, type Parameter } from "./module";
import type { State } from "./state";

/** Options that all normalisations share. */
export interface NormOptions {
  /** Added to the variance (1e-5 unless given). */
  readonly epsilon?: number;
  /** Whether to scale and shift by parameters (true unless given). */
  readonly affine?: boolean;
}

/** Options of `layerNorm`. */
export interface LayerNormOptions extends NormOptions {}

/** Options of `batchNorm1d` and `batchNorm2d`. */
export interface BatchNormOptions extends NormOptions {
  /** Weight of the batch in the running statistics (0.1 unless given). */
  readonly momentum?: number;
}

function epsilonOf(op: string, options: NormOptions): number {
  const { epsilon = 1e-5 } = options;
  if (epsilon >= 0) return epsilon;
  throw argumentError(op, `epsilon must be a number ≥ 0, got ${epsilon}`);
}

/** (x − mean) / √(variance + ε) over `axes`, in f32 at least */
function standardized(x: Tensor, axes: readonly number[], epsilon: number): Tensor {
  return inSingle(x, (wide) => {
    const centred = wide.sub(wide.mean(axes, { keepDims: true }));
    const variance = centred.square().mean(axes, { keepDims: true });
    return centred.mul(variance.add(epsilon).rsqrt());
  });
}

/** x · scale + shift, one number for each channel (axis 1) */
function perChannel(x: Tensor, scale: Parameter | undefined, shift: Parameter | undefined): Tensor {
  if (scale === undefined || shift === undefined) return x;
  const shape = [-1, ...Array<number>(x.rank - 2).fill(1)];
  return x.mul(scale.value.reshape(shape)).add(shift.value.reshape(shape));
}

/** Throws unless the last axes are of these sizes; gives the axes. */
function lastAxes(op: string, x: Tensor, sizes: readonly number[]): number[] {
  const last = x.rank < sizes.length ? [] : x.shape.slice(x.rank - sizes.length);
  if (last.length !== sizes.length || last.some((size, i) => size !== sizes[i])) {
    throw shapeError(op, `the input ${showShape(x.shape)} must end in ${showShape(sizes)}`, x.shape);
  }
  return sizes.map((_, i) => i - sizes.length);
}

/** (x − mean) / √(variance + ε) · scale + shift over the last axes. */
export class LayerNorm extends Module {
  readonly sizes: readonly number[];
  readonly epsilon: number;
  readonly scale: Parameter | undefined;
  readonly shift: Parameter | undefined;

  constructor(sizes: number | readonly number[], options: LayerNormOptions = {}) {
    super();
    checkOptions("nn.layerNorm", options, ["epsilon", "affine"]);
    this.sizes = checkShape("nn.layerNorm", typeof sizes === "number" ? [sizes] : sizes);
    this.epsilon = epsilonOf("nn.layerNorm", options);
    this.scale = options.affine === false ? undefined : this.parameter(this.sizes, "ones");
    this.shift = options.affine === false ? undefined : this.parameter(this.sizes, "zeros");
  }

  override forward(x: Tensor): Tensor {
    const normal = standardized(x, lastAxes("nn.layerNorm", x, this.sizes), this.epsilon);
    if (this.scale === undefined || this.shift === undefined) return normal;
    return normal.mul(this.scale.value).add(this.shift.value);
  }

  override describe(): string {
    return `layerNorm(${this.sizes.join(", ")})`;
  }
}

/** x / √(mean x² + ε) · scale over the last axes. */
export class RmsNorm extends Module {
  readonly sizes: readonly number[];
  readonly epsilon: number;
  readonly scale: Parameter | undefined;

  constructor(sizes: number | readonly number[], options: NormOptions = {}) {
    super();
    checkOptions("nn.rmsNorm", options, ["epsilon", "affine"]);
    this.sizes = checkShape("nn.rmsNorm", typeof sizes === "number" ? [sizes] : sizes);
    this.epsilon = epsilonOf("nn.rmsNorm", options);
    this.scale = options.affine === false ? undefined : this.parameter(this.sizes, "ones");
  }

  override forward(x: Tensor): Tensor {
    const axes = lastAxes("nn.rmsNorm", x, this.sizes);
    const normal = inSingle(x, (wide) =>
      wide.mul(wide.square().mean(axes, { keepDims: true }).add(this.epsilon).rsqrt()),
    );
    return this.scale === undefined ? normal : normal.mul(this.scale.value);
  }

  override describe(): string {
    return `rmsNorm(${this.sizes.join(", ")})`;
  }
}

/** (x − mean) / √(variance + ε) · scale + shift over each group of channels of each example. */
export class GroupNorm extends Module {
  readonly epsilon: number;
  readonly scale: Parameter | undefined;
  readonly shift: Parameter | undefined;

  constructor(
    readonly groups: number,
    readonly channels: number,
    options: NormOptions = {},
  ) {
    super();
    checkOptions("nn.groupNorm", options, ["epsilon", "affine"]);
    count("nn.groupNorm", "the number of groups", groups);
    count("nn.groupNorm", "the number of channels", channels);
    if (groups < 1 || channels % groups !== 0) {
      throw argumentError("nn.groupNorm", `${channels} channels do not divide into ${groups} groups`);
    }
    this.epsilon = epsilonOf("nn.groupNorm", options);
    this.scale = options.affine === false ? undefined : this.parameter([channels], "ones");
    this.shift = options.affine === false ? undefined : this.parameter([channels], "zeros");
  }

  override forward(x: Tensor): Tensor {
    const [batch = 0, channels] = x.shape;
    if (channels !== this.channels) {
      throw shapeError("nn.groupNorm", `the input ${showShape(x.shape)} must be [batch, ${this.channels}, …]`, x.shape);
    }
    const inner = x.shape.slice(2).reduce((product, size) => product * size, channels / this.groups);
    const normal = standardized(x.reshape([batch, this.groups, inner]), [2], this.epsilon).reshape(x.shape);
    return perChannel(normal, this.scale, this.shift);
  }

  override describe(): string {
    return `groupNorm(${this.groups}, ${this.channels})`;
  }
}

/**
 * (x − mean) / √(variance + ε) · scale + shift for each channel: in training with the batch's own mean and variance,
 * which also move the running ones; else with the running ones.
 */
export class BatchNorm extends Module {
  readonly epsilon: number;
  readonly momentum: number;
  readonly scale: Parameter | undefined;
  readonly shift: Parameter | undefined;
  readonly runningMean: State;
  readonly runningVariance: State;

  constructor(
    readonly axes: 1 | 2,
    readonly channels: number,
    options: BatchNormOptions = {},
  ) {
    super();
    const op = `nn.batchNorm${axes}d`;
    checkOptions(op, options, ["epsilon", "affine", "momentum"]);
    if (count(op, "the number of channels", channels) === 0) throw argumentError(op, "there must be a channel or more");
    this.epsilon = epsilonOf(op, options);
    this.momentum = options.momentum ?? 0.1;
    if (!(this.momentum >= 0 && this.momentum <= 1)) {
      throw argumentError(op, `the momentum must be a number of [0, 1], got ${this.momentum}`);
    }
    this.scale = options.affine === false ? undefined : this.parameter([channels], "ones");
    this.shift = options.affine === false ? undefined : this.parameter([channels], "zeros");
    this.runningMean = this.state([channels], 0);
    this.runningVariance = this.state([channels], 1);
  }

  override forward(x: Tensor): Tensor {
    this.#check(x);
    const normal = inSingle(x, (wide) =>
      isTraining() ? this.#byBatch(wide as Tensor) : this.#byRunning(wide as Tensor),
    );
    return perChannel(normal, this.scale, this.shift);
  }

  #byBatch(x: Tensor): Tensor {
    const others = x.shape.map((_, axis) => axis).filter((axis) => axis !== 1);
    const n = others.reduce((product, axis) => product * (x.shape[axis] ?? 0), 1);
    if (n < 2) {
      const advice = "training needs at least two values for each channel; use a larger batch";
      throw shapeError(this.#op, `the input ${showShape(x.shape)} has ${n}: ${advice}`, x.shape);
    }
    const mean = x.mean(others, { keepDims: true });
    const centred = x.sub(mean);
    const variance = centred.square().mean(others, { keepDims: true });
    // running ← (1 − m) · running + m · batch, with the unbiased variance, as PyTorch has it; m is another where means are taken
    const weight = currentStatisticsWeight();
    const move = (state: State, batch: Tensor) => {
      const before = state.value;
      const fresh = batch.reshape([this.channels]).stopGradient().cast(before.dtype);
      if (weight !== undefined) state.update(before.add(fresh.sub(before).mul(weight.cast(before.dtype))));
      else state.update(before.mul(1 - this.momentum).add(fresh.mul(this.momentum)));
    };
    move(this.runningMean, mean);
    move(this.runningVariance, variance.mul(n / (n - 1)));
    return centred.mul(variance.add(this.epsilon).rsqrt());
  }

  #byRunning(x: Tensor): Tensor {
    const shape = [-1, ...Array<number>(x.rank - 2).fill(1)];
    const mean = this.runningMean.value.cast(x.dtype).reshape(shape);
    const variance = this.runningVariance.value.cast(x.dtype).reshape(shape);
    return x.sub(mean).mul(variance.add(this.epsilon).rsqrt());
  }

  get #op(): string {
    return `nn.batchNorm${this.axes}d`;
  }

  #check(x: Tensor): void {
    const ranks = this.axes === 1 ? [2, 3] : [4];
    if (ranks.includes(x.rank) && x.shape[1] === this.channels) return;
    const one = `[batch, ${this.channels}] or [batch, ${this.channels}, length]`;
    const wanted = this.axes === 1 ? one : `[batch, ${this.channels}, height, width]`;
    throw shapeError(this.#op, `the input ${showShape(x.shape)} must be ${wanted}`, x.shape);
  }

  override describe(): string {
    return `batchNorm${this.axes}d(${this.channels})`;
  }
}

/** Normalises over the last axes, of the given sizes. */
export function layerNorm(sizes: number | readonly number[], options?: LayerNormOptions): LayerNorm {
  return new LayerNorm(sizes, options);
}

/** Divides by the root of the mean square over the last axes, of the given sizes. */
export function rmsNorm(sizes: number | readonly number[], options?: NormOptions): RmsNorm {
  return new RmsNorm(sizes, options);
}

/** Normalises each of `groups` equal groups of the channels of [batch, channels, …] by itself. */
export function groupNorm(groups: number, channels: number, options?: NormOptions): GroupNorm {
  return new GroupNorm(groups, channels, options);
}

/**
 * Normalises each channel of [batch, channels] or [batch, channels, length]. In training by the batch, whose statistics
 * move the running ones; else by the running ones.
 *
 * ```ts
 * import { nn, tensor } from "raphson";
 *
 * const layer = nn.batchNorm1d(2);
 * const x = tensor([[0, 10], [2, 30]]);
 * nn.apply(layer, {}, { training: true }, () => layer(x));
 * console.log(layer.runningMean.value.toArray());   // [0.1, 2], up to rounding
 * ```
 */
export function batchNorm1d(channels: number, options?: BatchNormOptions): BatchNorm {
  return new BatchNorm(1, channels, options);
}

/** `batchNorm1d` for [batch, channels, height, width]. */
export function batchNorm2d(channels: number, options?: BatchNormOptions): BatchNorm {
  return new BatchNorm(2, channels, options);
}
