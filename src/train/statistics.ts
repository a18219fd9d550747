/**
 * Statistics of batch normalisation anew: means over some batches, for parameters that no training step has seen, such as
 * averaged ones. As `update_bn` of PyTorch's stochastic weight averaging, after Izmailov et al., arXiv:1803.05407, section 3.2.
 */
import { type Batch, release } from "../data/batch";
import { argumentError } from "../errors";
import { keyOfSeed, subkey } from "../hostRandom";
import { native } from "../native";
import { ParameterValues } from "../newton/parameters";
import { handlesOf, ownCopy } from "../newton/state";
import { placeholders, signatureOf, tracing } from "../newton/trace";
import type { AnyTensor, Tensor } from "../tensor";
import { fromTypedArray } from "../tensor/creation";
import { tidy, untracked } from "../tidy";
import { type Flat, flatten } from "../tree";

/** Batches that are looked at, if no more are asked for: means over them are as close as running ones ever are. */
const BATCHES = 50;

/** The numbers of a pass beside model and batch: the key of random draws, and the weight 1/n of the n-th batch. */
const KINDS = [
  { dtype: "u32", shape: [2] },
  { dtype: "f32", shape: [] },
] as const;

/** Computes statistics anew; keeps the compiled programs between passes. */
export class Statistics<B extends Batch, M> {
  readonly #values: ParameterValues;
  readonly #loss: (batch: B, model: M) => AnyTensor;
  readonly #programs = new Map<string, number>();

  constructor(model: M, loss: (batch: B, model: M) => AnyTensor) {
    this.#values = new ParameterValues(model);
    this.#loss = loss;
  }

  /** Whether the model has any. */
  get needed(): boolean {
    return this.#values.statePaths.length > 0;
  }

  /**
   * Forward passes in training mode, in each of which the statistics of batch n move by 1/n: s ← s + (s_n − s)/n. They are the
   * model's from then on; the function that is given back puts the former ones back, or (`false`) forgets them. Without a
   * batch all stays as it was.
   */
  async renew(
    batches: AsyncIterable<B>,
    limit: number = BATCHES,
    signal?: AbortSignal,
  ): Promise<(putBack: boolean) => void> {
    const former = untracked(() => this.#values.states().map(ownCopy));
    const finish = (putBack: boolean) => (putBack ? this.#values.replaceStates(former) : native.dispose(former));
    try {
      let seen = 0;
      for await (const batch of batches) {
        try {
          signal?.throwIfAborted();
          this.#pass(batch, seen);
        } finally {
          release(batch);
        }
        seen += 1;
        if (seen === limit) break;
      }
    } catch (error) {
      finish(true);
      throw error;
    }
    return finish;
  }

  /** Frees the programs. */
  dispose(): void {
    for (const program of this.#programs.values()) native.disposeProgram(program);
    this.#programs.clear();
    this.#values.dispose();
  }

  #pass(batch: B, index: number): void {
    const flat = flatten(batch, "statistics");
    const program = untracked(() => this.#programFor(flat));
    const results = tidy(() => {
      const key = fromTypedArray(Uint32Array.from(subkey(keyOfSeed(0, "statistics"), index)), [2]);
      const weight = fromTypedArray(Float32Array.of(1 / (index + 1)), []);
      const inputs = [...this.#values.tensors(), ...this.#values.states(), ...flat.tensors, key, weight];
      return native.runProgram(program, handlesOf(inputs));
    });
    this.#values.replaceStates(results);
  }

  /** Inputs: parameters, states, batch, key, weight. Outputs: the states. */
  #programFor(batch: Flat): number {
    const signature = signatureOf(batch);
    const known = this.#programs.get(signature);
    if (known !== undefined) return known;
    const program = tracing(() => {
      const [params, states] = [placeholders(this.#values.tensors()), placeholders(this.#values.states())];
      const inputs = placeholders(batch.tensors);
      const [key, weight] = placeholders(KINDS) as [Tensor<"u32">, Tensor<"f32">];
      // The placeholders have the dtypes and names of the batch they stand for.
      const traced = batch.rebuild(inputs, "themselves") as B;
      const { states: moved } = this.#values.bound(params, states, key, (model) => this.#loss(traced, model as M), {
        statisticsWeight: weight,
      });
      const all = [...params, ...states, ...inputs, key, weight];
      // Two states may be one value, and each needs memory of its own.
      const outputs = handlesOf(moved).map(native.alias);
      const handle = native.compileProgram(
        handlesOf(all),
        outputs,
        all.map(() => false),
      );
      native.dispose(outputs);
      return handle;
    });
    this.#programs.set(signature, program);
    return program;
  }
}

/** What `updateStatistics` takes. */
export interface StatisticsOptions<M, B extends Batch> {
  readonly model: M;
  /** As `train` has it; only what the model computes in it counts. */
  readonly loss: (batch: B, model: M) => AnyTensor;
  /** Batches like those of training. */
  readonly data: AsyncIterable<B>;
  /** How many of them; 50, or as many as there are, if not given. */
  readonly batches?: number;
}

/**
 * Computes the running statistics of a model's batch normalisations anew, as plain means over batches: after its parameters were
 * averaged, or set by hand. `train` does so itself where it averages. Resolves when they are in place. RaphsonErrors: no batch
 * at all, and those of the loss.
 *
 * ```ts
 * import { data, nn, updateStatistics } from "raphson";
 *
 * const model = nn.batchNorm1d(1);
 * const points = data.arrays({ x: { data: Float32Array.of(1, 2, 3, 6), shape: [4, 1] } });
 * await updateStatistics({ model, loss: ({ x }, norm) => norm(x).sum(), data: points.batches(2) });
 * console.log(model.runningMean.value.toArray());   // [3]: that of 1.5 and 4.5
 * ```
 */
export async function updateStatistics<M, B extends Batch>(options: StatisticsOptions<M, B>): Promise<void> {
  const { model, loss, data, batches = BATCHES } = options;
  if (!(Number.isSafeInteger(batches) && batches >= 1)) {
    throw argumentError("updateStatistics", `batches must be a whole number of at least 1, not ${batches}`);
  }
  let seen = 0;
  const counted = (async function* () {
    for await (const batch of data) {
      seen += 1;
      yield batch;
    }
  })();
  const statistics = new Statistics(model, loss);
  try {
    const finish = await statistics.renew(counted, batches);
    finish(false);
  } finally {
    statistics.dispose();
  }
  if (seen === 0) throw argumentError("updateStatistics", "the data gave no batch; a generator can be read once only");
}
