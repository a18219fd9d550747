/**
 * The general layers: linear, embedding, dropout, and those that put others together. Each is a class (to extend or to ask
 * `instanceof`) with a function that makes it. Normalisations, attention, recurrent layers and activations have files of
 * their own.
 */

import type { IntegerDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import type { Tensor } from "../tensor";
import { checkFunction, checkOptions, checkShape, count, describe, sameShape, showShape } from "../tensor/validate";
import { currentRandom, isTraining } from "./context";
import type { Initializer } from "./initializers";
import { Module, Parameter } from "./module";

/** Options of `linear`. */
export interface LinearOptions {
  /** Whether to add a bias (true unless given). */
  readonly bias?: boolean;
  /** How the weight, [out, in], begins: `kaimingUniform` unless given. A parameter instead is shared with its owner. */
  readonly weight?: Initializer | Parameter;
  /** How the bias begins: uniform ±1/√in unless given. */
  readonly biasInitializer?: Initializer;
}

/** x · weightᵀ + bias along the last axis. */
export class Linear extends Module {
  readonly inputs: number;
  readonly outputs: number;
  readonly weight: Parameter;
  readonly bias: Parameter | undefined;

  constructor(inputs: number, outputs: number, options: LinearOptions = {}) {
    super();
    checkOptions("nn.linear", options, ["bias", "weight", "biasInitializer"]);
    this.inputs = count("nn.linear", "the number of inputs", inputs);
    this.outputs = count("nn.linear", "the number of outputs", outputs);
    const limit = 1 / Math.sqrt(Math.max(1, inputs));
    const { weight } = options;
    if (weight instanceof Parameter && weight.shape.join() !== `${outputs},${inputs}`) {
      const both = `${showShape(weight.shape)} for a weight of ${showShape([outputs, inputs])}`;
      throw shapeError("nn.linear", `the shared parameter has ${both}; the shapes must be equal`, weight.shape);
    }
    this.weight = weight instanceof Parameter ? weight : this.parameter([outputs, inputs], weight ?? "kaimingUniform");
    const bias = options.biasInitializer ?? { uniform: limit };
    this.bias = options.bias === false ? undefined : this.parameter([outputs], bias);
  }

  override forward(x: Tensor): Tensor {
    if (x.rank === 0 || x.shape.at(-1) !== this.inputs) {
      throw shapeError("nn.linear", `the input ${showShape(x.shape)} must end in an axis of ${this.inputs}`, x.shape);
    }
    const product = x.matmul(this.weight.value.transpose());
    return this.bias === undefined ? product : product.add(this.bias.value);
  }

  override describe(): string {
    return `linear(${this.inputs}, ${this.outputs}${this.bias === undefined ? ", no bias" : ""})`;
  }
}

/** Rows of a table chosen by integers. */
export class Embedding extends Module<[indices: Tensor<IntegerDType>], Tensor> {
  readonly table: Parameter;

  constructor(entries: number, width: number, initializer: Initializer = "normal") {
    super();
    this.table = this.parameter(checkShape("nn.embedding", [entries, width]), initializer);
  }

  override forward(indices: Tensor<IntegerDType>): Tensor {
    return this.table.value.take(indices);
  }

  override describe(): string {
    return `embedding(${this.table.shape.join(", ")})`;
  }
}

/** In training, each element is 0 with probability `rate`, the others divided by 1 − rate. Else the identity. */
export class Dropout extends Module {
  constructor(readonly rate: number) {
    super();
    if (!(rate >= 0 && rate < 1)) throw argumentError("nn.dropout", `the rate must be a number of [0, 1), got ${rate}`);
  }

  override forward(x: Tensor): Tensor {
    if (!this.isActive()) return x;
    const random = currentRandom();
    if (random === undefined) {
      throw argumentError(
        "nn.dropout",
        "training needs randomness: pass { random } to nn.apply beside { training: true }",
      );
    }
    const keep = random.bernoulli(1 - this.rate, x.shape);
    return keep
      .cast(x.dtype)
      .mul(x)
      .div(1 - this.rate);
  }

  /** Whether a call now would drop anything. */
  isActive(): boolean {
    return this.rate > 0 && isTraining();
  }

  override describe(): string {
    return `dropout(${this.rate})`;
  }
}

/** All axes but the first as one. */
export class Flatten extends Module {
  constructor(readonly startAxis = 1) {
    super();
  }

  override forward(x: Tensor): Tensor {
    return this.startAxis === x.rank ? x.unsqueeze(-1) : x.flatten(this.startAxis);
  }

  override describe(): string {
    return "flatten()";
  }
}

/** A function without parameters as a layer. */
export class Lambda<In extends readonly unknown[], Out> extends Module<In, Out> {
  constructor(
    readonly run: (...input: In) => Out,
    readonly title: string,
  ) {
    super();
    checkFunction("nn.lambda", run);
  }

  override forward(...input: In): Out {
    return this.run(...input);
  }

  override describe(): string {
    return this.title;
  }
}

/** Modules one after another, the first of which takes the input. */
export class Sequential<In extends readonly unknown[], Out> extends Module<In, Out> {
  readonly layers: readonly Layer[];

  constructor(layers: readonly Layer[]) {
    super();
    const odd = layers.findIndex((layer) => typeof layer !== "function");
    if (odd >= 0) throw argumentError("nn.sequential", `layer ${odd} is no module, got ${describe(layers[odd])}`);
    this.layers = layers;
  }

  override forward(...input: In): Out {
    const [first, ...rest] = this.layers;
    let value: unknown = first === undefined ? input[0] : (first as Module<In, unknown>)(...input);
    for (const layer of rest) value = (layer as Module<[unknown], unknown>)(value);
    return value as Out;
  }

  override members(): [name: string, value: unknown][] {
    // the position alone: "0.weight", as everyone has it
    return Object.entries(this.layers);
  }

  override describe(): string {
    return "sequential";
  }
}

/** x + inner(x) */
export class Residual extends Module {
  constructor(readonly inner: Module) {
    super();
    checkFunction("nn.residual", inner);
  }

  override forward(x: Tensor): Tensor {
    const change = this.inner(x);
    const advice = "the inner module of a residual must keep the shape of its input";
    sameShape("nn.residual", x.shape, change.shape, advice);
    return x.add(change);
  }

  override describe(): string {
    return "residual";
  }
}

/** Any module, as a link of a chain. */
// biome-ignore lint/suspicious/noExplicitAny: inputs are contravariant, so that no other type takes every module
export type Layer = Module<any, any>;

type InputOf<M> = M extends Module<infer In, infer _Out> ? In : never;
type OutputOf<M> = M extends Module<infer _In, infer Out> ? Out : never;
type Last<L extends readonly unknown[]> = L extends readonly [...unknown[], infer Final] ? Final : L[number];

/**
 * x · weightᵀ + bias, from `inputs` features of the last axis to `outputs`.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const layer = nn.linear(4, 2);
 * console.log(layer(zeros([5, 4])).shape);   // [5, 2]
 * ```
 */
export function linear(inputs: number, outputs: number, options?: LinearOptions): Linear {
  return new Linear(inputs, outputs, options);
}

/** A table of `entries` rows of `width` trained values, looked up by integers. */
export function embedding(entries: number, width: number, initializer?: Initializer): Embedding {
  return new Embedding(entries, width, initializer);
}

/** Drops elements in training; the identity in evaluation. */
export function dropout(rate: number): Dropout {
  return new Dropout(rate);
}

/** All axes from `startAxis` (1 unless given) as one. */
export function flatten(startAxis?: number): Flatten {
  return new Flatten(startAxis);
}

/** A function without parameters as a layer; `title` is what `summary()` shows. */
export function lambda<In extends readonly unknown[], Out>(
  run: (...input: In) => Out,
  title = "lambda",
): Lambda<In, Out> {
  return new Lambda(run, title);
}

/**
 * Modules one after another.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const model = nn.sequential(nn.linear(4, 8), nn.relu(), nn.linear(8, 3));
 * console.log(model(zeros([2, 4])).shape);   // [2, 3]
 * console.log(model.summary());
 * ```
 */
export function sequential<const L extends readonly [Layer, ...Layer[]]>(
  ...layers: L
): Sequential<InputOf<L[0]>, OutputOf<Last<L>>> {
  return new Sequential(layers);
}

/**
 * x + inner(x), where `inner` keeps the shape.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const block = nn.residual(nn.sequential(nn.rmsNorm(8), nn.linear(8, 8), nn.relu()));
 * console.log(block(zeros([2, 8])).shape);   // [2, 8]
 * ```
 */
export function residual(inner: Module): Residual {
  return new Residual(inner);
}
