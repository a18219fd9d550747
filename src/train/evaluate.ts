/** Evaluation: loss and metrics of a model over batches, compiled for each kind of batch, without dropout. */
import { type Batch, release } from "../data/batch";
import { scalarDType } from "../device";
import { type FloatDType, view } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { ParameterValues } from "../newton/parameters";
import { handlesOf } from "../newton/state";
import { placeholders, signatureOf, tracing } from "../newton/trace";
import { type AnyTensor, Tensor } from "../tensor";
import { concatenate } from "../tensor/movement";
import { untracked } from "../tidy";
import { type Flat, flatten } from "../tree";
import type { Metric } from "./metrics";

/** What an evaluation gives: means over the examples. */
export interface Measured {
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** One thing to measure. Without `finish`, a number of each batch, whose mean is wanted; else counts, which add up. */
interface Quantity<B, M> {
  readonly name: string;
  readonly of: (batch: B, model: M) => AnyTensor;
  readonly finish?: (sums: Float64Array) => number;
}

function quantityOf<B, M>([name, metric]: readonly [string, Metric<B, M>]): Quantity<B, M> {
  if (typeof metric === "function") return { name, of: metric };
  if (typeof metric?.count === "function" && typeof metric.finish === "function") {
    return { name, of: metric.count, finish: metric.finish };
  }
  throw argumentError("evaluate", `the metric ${name} must be a function, or an object of count and finish`);
}

/** A program for one kind of batch, and how many numbers of its result belong to each quantity. */
interface Program {
  readonly handle: number;
  readonly sizes: readonly number[];
}

/** Evaluates a model; keeps the compiled programs between evaluations. */
export class Evaluator<B extends Batch, M> {
  readonly #values: ParameterValues;
  readonly #quantities: readonly Quantity<B, M>[];
  readonly #programs = new Map<string, Program>();

  constructor(model: M, loss: (batch: B, model: M) => AnyTensor, metrics: Readonly<Record<string, Metric<B, M>>>) {
    this.#values = new ParameterValues(model);
    this.#quantities = [{ name: "loss", of: loss }, ...Object.entries(metrics).map(quantityOf)];
  }

  /** Loss and metrics over the batches, weighted by their numbers of examples. */
  async measure(batches: AsyncIterable<B>, signal: AbortSignal | undefined): Promise<Measured> {
    const sums: Float64Array[] = [];
    let examples = 0;
    for await (const batch of batches) {
      signal?.throwIfAborted();
      const flat = flatten(batch, "evaluate");
      const program = untracked(() => this.#programFor(flat));
      const inputs = handlesOf([...this.#values.tensors(), ...this.#values.states(), ...flat.tensors]);
      const [result = 0] = native.runProgram(program.handle, inputs);
      const weight = flat.tensors[0]?.shape[0] ?? 1;
      release(batch);
      const bytes = await native.read([result]).finally(() => native.dispose([result]));
      this.#add(sums, view(scalarDType(), bytes), program.sizes, weight);
      examples += weight;
    }
    if (examples === 0) throw argumentError("evaluate", "the evaluation data gave no batch; give it at least one");
    const [loss, ...metrics] = this.#quantities.map(({ name, finish }, index): [string, number] => {
      const of = sums[index] ?? new Float64Array();
      return [name, finish === undefined ? (of[0] ?? Number.NaN) / examples : finish(of)];
    });
    return { loss: loss?.[1] ?? Number.NaN, metrics: Object.fromEntries(metrics) };
  }

  /** Adds a batch's numbers to the sums of each quantity; means count for all of its examples. */
  #add(sums: Float64Array[], values: ArrayLike<number>, sizes: readonly number[], examples: number): void {
    let first = 0;
    sizes.forEach((size, index) => {
      const weight = this.#quantities[index]?.finish === undefined ? examples : 1;
      const sum = sums[index] ?? new Float64Array(size);
      for (let i = 0; i < size; i++) sum[i] = (sum[i] ?? 0) + weight * (values[first + i] ?? Number.NaN);
      sums[index] = sum;
      first += size;
    });
  }

  /** Frees the programs. */
  dispose(): void {
    for (const { handle } of this.#programs.values()) native.disposeProgram(handle);
    this.#programs.clear();
    this.#values.dispose();
  }

  #programFor(batch: Flat): Program {
    const signature = signatureOf(batch);
    const known = this.#programs.get(signature);
    if (known !== undefined) return known;
    const program = tracing(() => {
      const params = placeholders(this.#values.tensors());
      const states = placeholders(this.#values.states());
      const inputs = placeholders(batch.tensors);
      // The placeholders have the dtypes and names of the batch they stand for.
      const traced = batch.rebuild(inputs, "themselves") as B;
      const { result: results } = this.#values.bound(params, states, undefined, (model) =>
        this.#quantities.map(({ name, of, finish }) => rowOf(name, of(traced, model as M), finish !== undefined)),
      );
      const all = [...params, ...states, ...inputs];
      const donate = all.map(() => false);
      const handle = native.compileProgram(handlesOf(all), [concatenate(results).handle], donate);
      return { handle, sizes: results.map((row) => row.size) };
    });
    this.#programs.set(signature, program);
    return program;
  }
}

/** The numbers of a quantity as a row: one for a mean, any for counts. */
function rowOf(name: string, value: unknown, counts: boolean): Tensor<FloatDType> {
  if (!(value instanceof Tensor)) throw argumentError("evaluate", `${name} must give a tensor (and not a promise)`);
  if (!counts && value.shape.length !== 0) {
    throw shapeError("evaluate", `${name} must give one number, not shape [${value.shape.join(", ")}]`, value.shape);
  }
  return value.cast(scalarDType()).flatten();
}
