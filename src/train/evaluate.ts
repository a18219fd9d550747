/** Evaluation: loss and metrics of a model over batches, compiled for each kind of batch, without dropout. */
import { type Batch, release } from "../data/batch";
import { argumentError, shapeError } from "../errors";
import { native } from "../native";
import { ParameterValues } from "../newton/parameters";
import { handlesOf } from "../newton/state";
import { placeholders, signatureOf, tracing } from "../newton/trace";
import { type AnyTensor, Tensor } from "../tensor";
import { concatenate } from "../tensor/movement";
import { untracked } from "../tidy";
import { type Flat, flatten } from "../tree";

/** What an evaluation gives: means over the examples. */
export interface Measured {
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
}

type Function<B, M> = (batch: B, model: M) => AnyTensor;

/** Evaluates a model; keeps the compiled programs between evaluations. */
export class Evaluator<B extends Batch, M> {
  readonly #values: ParameterValues;
  readonly #functions: readonly (readonly [name: string, of: Function<B, M>])[];
  readonly #programs = new Map<string, number>();

  constructor(model: M, loss: Function<B, M>, metrics: Readonly<Record<string, Function<B, M>>>) {
    this.#values = new ParameterValues(model);
    for (const [name, metric] of Object.entries(metrics)) {
      if (typeof metric !== "function") throw argumentError("evaluate", `the metric ${name} must be a function`);
    }
    this.#functions = [["loss", loss], ...Object.entries(metrics)];
  }

  /** Loss and metrics over the batches, weighted by their numbers of examples. */
  async measure(batches: AsyncIterable<B>, signal: AbortSignal | undefined): Promise<Measured> {
    const sums = new Float64Array(this.#functions.length);
    let examples = 0;
    for await (const batch of batches) {
      signal?.throwIfAborted();
      const flat = flatten(batch, "evaluate");
      const program = untracked(() => this.#programFor(flat));
      const inputs = handlesOf([...this.#values.tensors(), ...this.#values.states(), ...flat.tensors]);
      const [result = 0] = native.runProgram(program, inputs);
      const weight = flat.tensors[0]?.shape[0] ?? 1;
      release(batch);
      const bytes = await native.read(result).finally(() => native.dispose([result]));
      new Float64Array(bytes.slice().buffer).forEach((value, index) => {
        sums[index] = (sums[index] ?? 0) + weight * value;
      });
      examples += weight;
    }
    if (examples === 0) throw argumentError("evaluate", "the evaluation data gave no batch; give it at least one");
    const [loss = Number.NaN, ...metrics] = sums.map((sum) => sum / examples);
    const names = this.#functions.slice(1).map(([name]) => name);
    return { loss, metrics: Object.fromEntries(names.map((name, index) => [name, metrics[index] ?? Number.NaN])) };
  }

  /** Frees the programs. */
  dispose(): void {
    for (const program of this.#programs.values()) native.disposeProgram(program);
    this.#programs.clear();
    this.#values.dispose();
  }

  #programFor(batch: Flat): number {
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
        this.#functions.map(([name, of]) => scalarOf(name, of(traced, model as M))),
      );
      const all = [...params, ...states, ...inputs];
      return native.compileProgram(
        handlesOf(all),
        [concatenate(results).handle],
        all.map(() => false),
      );
    });
    this.#programs.set(signature, program);
    return program;
  }
}

function scalarOf(name: string, value: unknown): Tensor<"f64"> {
  if (!(value instanceof Tensor)) throw argumentError("evaluate", `${name} must give a tensor (and not a promise)`);
  if (value.shape.length !== 0) {
    throw shapeError("evaluate", `${name} must give one number, not shape [${value.shape.join(", ")}]`, value.shape);
  }
  return value.cast("f64").reshape([1]);
}
