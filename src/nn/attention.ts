/**
 * Attention: the function, rotary positions, the layer with several heads, and the transformer's block.
 */

import type { FloatDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { fromHandle, requireFloat, type Tensor } from "../tensor";
import { inSingle, where } from "../tensor/composed";
import { arange } from "../tensor/creation";
import { triangle } from "../tensor/matrix";
import { concatenate } from "../tensor/movement";
import { checkOptions, count, sameShape, showShape } from "../tensor/validate";
import { gelu } from "./activations";
import type { Initializer } from "./initializers";
import { type Dropout, dropout, type Linear, linear } from "./layers";
import { Module } from "./module";
import { type LayerNorm, layerNorm, type RmsNorm, rmsNorm } from "./norm";

/** Options of `attention`. */
export interface AttentionOptions {
  /** Whether position i sees positions 0 … i only (false unless given). */
  readonly causal?: boolean;
  /** True where a query sees a key: broadcasts to [..., queries, keys]. */
  readonly mask?: Tensor<"bool">;
  /** Number that products are multiplied by: 1/√width unless given. */
  readonly scale?: number;
  /** Applied to the weights, [..., queries, keys], which are then computed one by one: dropout. */
  readonly onWeights?: (weights: Tensor) => Tensor;
}

/** Stands for −∞ in scores that are hidden, so that a query that sees no key gets finite numbers. */
const HIDDEN = -1e30;

/**
 * softmax(query · keyᵀ / √width) · value over the last two axes: [..., queries, width], [..., keys, width] and
 * [..., keys, any] → [..., queries, any]; leading axes broadcast. With `causal` the last query sees all keys, and each one
 * before it one key fewer. A query that sees no key gets zeros.
 *
 * One op with a derivative of its own: where the device has a kernel for it, neither pass stores the matrix of scores, so memory grows
 * with the queries and the keys, not with their product (Dao et al. 2022).
 *
 * ```ts
 * import { nn, ones } from "raphson";
 *
 * const x = ones([2, 5, 4]);
 * console.log(nn.attention(x, x, x, { causal: true }).shape);   // [2, 5, 4]
 * ```
 */
export function attention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions = {}): Tensor {
  const width = query.shape.at(-1);
  if (query.rank < 2 || key.rank < 2 || value.rank < 2 || width !== key.shape.at(-1)) {
    const shapes = [query, key, value].map((t) => showShape(t.shape)).join(", ");
    throw shapeError("nn.attention", `query, key, value of shapes ${shapes} do not fit; see the docs`, query.shape);
  }
  const { mask, causal = false, scale = 1 / Math.sqrt(Math.max(1, width ?? 1)), onWeights } = options;
  if (onWeights !== undefined) return onWeights(weightsOf(query, key, scale, causal, mask)).matmul(value);
  return fromHandle(native.attention(query.handle, key.handle, value.handle, mask?.handle, causal, scale), query.dtype);
}

/** softmax(scale · query · keyᵀ), and zeros for hidden keys. */
function weightsOf(
  query: Tensor,
  key: Tensor,
  scale: number,
  causal: boolean,
  mask: Tensor<"bool"> | undefined,
): Tensor {
  // the scale goes to the queries: fewer numbers than the scores
  const scores = query.mul(scale).matmul(key.transpose());
  const [queries = 0, keys = 0] = scores.shape.slice(-2);
  const before = causal ? triangle(queries, keys, { offset: keys - queries }) : undefined;
  const seen = before === undefined || mask === undefined ? (before ?? mask) : before.and(mask);
  // in f32, for f16 does not reach as far as HIDDEN
  return inSingle(scores, (wide) =>
    seen === undefined ? wide.softmax(-1) : where(seen, where(seen, wide, HIDDEN).softmax(-1), 0),
  );
}

/** Options of `rotary`. */
export interface RotaryOptions {
  /** The slowest wave is about `base` times as long as the fastest (10,000 unless given). */
  readonly base?: number;
  /** The position of the first element (0 unless given). */
  readonly start?: number;
}

/**
 * Rotary positions (Su et al. 2021): [..., positions, width] with the pair (xᵢ, xᵢ₊w/₂) turned by the angle
 * position · base^(−2i/width), so that products of two such vectors depend on the distance of their positions.
 *
 * ```ts
 * import { nn, ones } from "raphson";
 *
 * console.log(nn.rotary(ones([3, 2])).at(0).toArray());   // [1, 1]: position 0 is not turned
 * ```
 */
export function rotary(x: Tensor, options: RotaryOptions = {}): Tensor {
  requireFloat("nn.rotary", x);
  checkOptions("nn.rotary", options, ["base", "start"]);
  const { base = 10_000, start = 0 } = options;
  const [positions = 0, width = 1] = x.shape.slice(-2);
  if (x.rank < 2 || width % 2 !== 0) {
    throw shapeError("nn.rotary", `the input ${showShape(x.shape)} must be [..., positions, an even width]`, x.shape);
  }
  if (!(base > 0)) throw argumentError("nn.rotary", `the base must be a positive number, got ${base}`);
  const half = width / 2;
  // angles in f32 at least: halves do not hold every position
  const option = { dtype: x.dtype === ("f64" as FloatDType) ? "f64" : "f32" } as const;
  const frequencies = arange(0, half, 1, option)
    .mul((-2 * Math.log(base)) / width)
    .exp();
  const angles = arange(start, start + positions, 1, option)
    .unsqueeze(1)
    .mul(frequencies);
  const [cos, sin] = [angles.cos().cast(x.dtype), angles.sin().cast(x.dtype)];
  const [first, second] = [x.slice(0, half, -1), x.slice(half, width, -1)];
  return concatenate([first.mul(cos).sub(second.mul(sin)), second.mul(cos).add(first.mul(sin))], -1);
}

/** Options of `multiHeadAttention`. */
export interface MultiHeadAttentionOptions {
  /** Whether position i sees positions 0 … i only (false unless given). */
  readonly causal?: boolean;
  /** Whether the linear maps have biases (true unless given). */
  readonly bias?: boolean;
  /** Turns queries and keys by their positions; true for the default base. */
  readonly rotary?: boolean | RotaryOptions;
  /** Rate at which weights are dropped in training (0 unless given). */
  readonly dropout?: number;
  /** How the weights begin: `kaimingUniform` unless given. */
  readonly weight?: Initializer;
  /** How the last weight, the one whose product is added to a residual stream, begins: as `weight` unless given. */
  readonly outputWeight?: Initializer;
}

/** What a call of attention takes beside its input. */
export interface AttendOptions {
  /** What to look at instead of the input itself: [batch, keys, width]. */
  readonly context?: Tensor;
  /** True where a key counts (false for padding): [batch, keys]. */
  readonly keyMask?: Tensor<"bool">;
  /** True where a query sees a key: broadcasts to [batch, heads, queries, keys]. */
  readonly mask?: Tensor<"bool">;
}

/** Attention by several heads: [batch, positions, width] → the same shape. */
export class MultiHeadAttention extends Module<[x: Tensor, options?: AttendOptions], Tensor> {
  /** Queries, keys and values, one after another: a weight of [3 · width, width]. */
  readonly inputs: Linear;
  readonly output: Linear;
  readonly dropout: Dropout;
  readonly causal: boolean;
  readonly rotary: RotaryOptions | undefined;

  constructor(
    readonly width: number,
    readonly heads: number,
    options: MultiHeadAttentionOptions = {},
  ) {
    super();
    count("nn.multiHeadAttention", "the width", width);
    if (!(Number.isSafeInteger(heads) && heads >= 1) || width % heads !== 0) {
      throw argumentError("nn.multiHeadAttention", `a width of ${width} does not divide into ${heads} heads`);
    }
    const { bias = true, causal = false, rotary: turned = false } = options;
    this.causal = causal;
    this.rotary = turned === true ? {} : turned === false ? undefined : turned;
    const { weight = "kaimingUniform", outputWeight = weight } = options;
    this.inputs = linear(width, 3 * width, { bias, weight });
    this.output = linear(width, width, { bias, weight: outputWeight });
    this.dropout = dropout(options.dropout ?? 0);
  }

  override forward(x: Tensor, options: AttendOptions = {}): Tensor {
    this.#check(x, "the input");
    const { context, keyMask, mask } = options;
    if (context !== undefined) this.#check(context, "the context");
    const parts = context === undefined ? this.inputs(x).split(3, -1) : this.#across(x, context);
    const [q, k, v] = parts.map((part) => this.#split(part)) as [Tensor, Tensor, Tensor];
    const turn = (t: Tensor) => (this.rotary === undefined ? t : rotary(t, this.rotary));
    const attended = attention(turn(q), turn(k), v, {
      causal: this.causal,
      ...maskOf(keyMask, mask, k),
      ...(this.dropout.isActive() ? { onWeights: (weights) => this.dropout(weights) } : {}),
    });
    return this.output(attended.transpose(1, 2).reshape(x.shape));
  }

  /** Queries from `x`, keys and values from `context`. */
  #across(x: Tensor, context: Tensor): Tensor[] {
    const { weight, bias } = this.inputs;
    const project = (from: Tensor, first: number, stop: number) => {
      const rows = (t: Tensor) => t.slice(first * this.width, stop * this.width);
      const product = from.matmul(rows(weight.value).transpose());
      return bias === undefined ? product : product.add(rows(bias.value));
    };
    return [project(x, 0, 1), ...project(context, 1, 3).split(2, -1)];
  }

  /** [batch, positions, width] → [batch, heads, positions, width / heads] */
  #split(t: Tensor): Tensor {
    const [batch = 0, positions = 0] = t.shape;
    return t.reshape([batch, positions, this.heads, this.width / this.heads]).transpose(1, 2);
  }

  #check(t: Tensor, what: string): void {
    if (t.rank === 3 && t.shape[2] === this.width) return;
    const wanted = `must be [batch, positions, ${this.width}]`;
    throw shapeError("nn.multiHeadAttention", `${what} ${showShape(t.shape)} ${wanted}`, t.shape);
  }

  override describe(): string {
    const also = `${this.causal ? ", causal" : ""}${this.rotary === undefined ? "" : ", rotary"}`;
    return `multiHeadAttention(${this.width}, ${this.heads}${also})`;
  }
}

/** The two masks as one for all heads; keys are [batch, heads, keys, …]. */
function maskOf(
  keyMask: Tensor<"bool"> | undefined,
  mask: Tensor<"bool"> | undefined,
  keys: Tensor,
): { mask?: Tensor<"bool"> } {
  if (keyMask === undefined) return mask === undefined ? {} : { mask };
  const [batch = 0, , positions = 0] = keys.shape;
  sameShape("nn.multiHeadAttention", keyMask.shape, [batch, positions], "keyMask is [batch, keys]");
  const wide = keyMask.reshape([batch, 1, 1, positions]);
  return { mask: mask === undefined ? wide : wide.and(mask) };
}

/**
 * Attention by `heads` heads over [batch, positions, width].
 *
 * ```ts
 * import { nn, tensor, zeros } from "raphson";
 *
 * const layer = nn.multiHeadAttention(8, 2, { causal: true, rotary: true });
 * const keyMask = tensor([[true, true, false], [true, true, true]]);   // the last position of the first is padding
 * console.log(layer(zeros([2, 3, 8]), { keyMask }).shape);   // [2, 3, 8]
 * ```
 */
export function multiHeadAttention(
  width: number,
  heads: number,
  options?: MultiHeadAttentionOptions,
): MultiHeadAttention {
  return new MultiHeadAttention(width, heads, options);
}

/** Options of `transformerBlock`. */
export interface TransformerBlockOptions extends MultiHeadAttentionOptions {
  /** Width of the hidden layer (4 · width unless given). */
  readonly hidden?: number;
  /** The hidden layer's activation: `gelu` unless given. */
  readonly activation?: Module;
  /** The normalisation: `layer` unless given. */
  readonly norm?: "layer" | "rms";
}

/** x + attention(norm(x)), then x + hidden(norm(x)): a transformer's block with the normalisations in front. */
export class TransformerBlock extends Module<[x: Tensor, options?: AttendOptions], Tensor> {
  readonly norm1: LayerNorm | RmsNorm;
  readonly attention: MultiHeadAttention;
  readonly norm2: LayerNorm | RmsNorm;
  readonly expand: Linear;
  readonly activation: Module;
  readonly contract: Linear;
  readonly dropout: Dropout;

  constructor(width: number, heads: number, options: TransformerBlockOptions = {}) {
    super();
    const { hidden = 4 * width, bias = true, norm = "layer" } = options;
    if (norm !== "layer" && norm !== "rms") {
      throw argumentError("nn.transformerBlock", `the norm is "layer" or "rms", got ${String(norm)}`);
    }
    const normal = () => (norm === "layer" ? layerNorm(width) : rmsNorm(width));
    this.norm1 = normal();
    this.attention = new MultiHeadAttention(width, heads, options);
    this.norm2 = normal();
    const { weight = "kaimingUniform", outputWeight = weight } = options;
    this.expand = linear(width, hidden, { bias, weight });
    this.activation = options.activation ?? gelu();
    this.contract = linear(hidden, width, { bias, weight: outputWeight });
    this.dropout = dropout(options.dropout ?? 0);
  }

  override forward(x: Tensor, options: AttendOptions = {}): Tensor {
    const attended = x.add(this.dropout(this.attention(this.norm1(x), options)));
    const hidden = this.activation(this.expand(this.norm2(attended)));
    return attended.add(this.dropout(this.contract(hidden)));
  }

  override describe(): string {
    return "transformerBlock";
  }
}

/**
 * A transformer's block, normalisations in front: attention and a hidden layer, each added to its input.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const model = nn.sequential(nn.embedding(65, 32), nn.transformerBlock(32, 4, { causal: true }), nn.linear(32, 65));
 * console.log(model(zeros([2, 16], { dtype: "i32" })).shape);   // [2, 16, 65]
 * ```
 */
export function transformerBlock(width: number, heads: number, options?: TransformerBlockOptions): TransformerBlock {
  return new TransformerBlock(width, heads, options);
}
