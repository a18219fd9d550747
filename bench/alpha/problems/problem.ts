/**
 * What a problem of the benchmark is: seeded data, a model, a loss, and what is measured at the end. The problems
 * themselves are in the files beside this one.
 */
import { type AnyTensor, compile, concatenate, type FloatDType, type Tensor, tidy } from "../../../src";

/** Named tensors of examples. */
export type Batch = Readonly<Record<string, AnyTensor>>;

/** One instance of a problem. `P` is a module, or a record of f64 tensors where there is no noise to hide rounding. */
export interface Task<P = unknown, B extends Batch = Batch> {
  readonly params: P;
  /** The loss of a batch, a float scalar. Traced. */
  loss(batch: B, params: P): AnyTensor;
  /** A better-when-larger measure of a batch between 0 and 1, where the problem has one. Traced. */
  accuracy?(batch: B, params: P): AnyTensor;
  /** Number of training examples; 0 where every batch is the whole problem. */
  readonly size: number;
  /** The training examples with these numbers. */
  batch(rows: Uint32Array): B;
  /** A fixed part of the training set, whose loss is the run's result. */
  fit(): B[];
  /** What is never trained on. */
  held(): B[];
}

/** Where real data lie, or undefined for data that are drawn; and how much of them to use. */
export interface Sources {
  readonly folder: string | undefined;
  readonly size: "full" | "small" | "tiny";
}

/** Steps of the two horizons. */
export interface Horizons {
  readonly short: number;
  readonly long: number;
}

/** A problem of the table. */
export interface Problem {
  readonly title: string;
  /** Whole-problem gradients: neither batches nor noise. */
  readonly deterministic: boolean;
  readonly horizons: Horizons;
  /**
   * Batches have this many times fewer examples than asked for, where each is a row of many characters; 1 if not given.
   */
  readonly fewer?: number;
  make(seed: number, sources: Sources): Promise<Task>;
}

/** Loss and accuracy (NaN where there is none) over batches, in evaluation mode: means over the examples. */
export interface Measured {
  readonly loss: number;
  readonly accuracy: number;
}

/** Measures a task's loss and accuracy over batches. */
export interface Measurer {
  (batches: readonly Batch[], params: unknown): Measured;
  /** Frees the compiled programs. */
  dispose(): void;
}

/** Compiles the measures of a task once, for all its evaluations. */
export function measurer(task: Task): Measurer {
  const numbers = compile((params: unknown, batch: Batch) => {
    const row = (value: AnyTensor): Tensor<"f64"> => (value as Tensor<FloatDType>).cast("f64").reshape([1]);
    const loss = row(task.loss(batch, params));
    return task.accuracy === undefined ? loss : concatenate([loss, row(task.accuracy(batch, params))]);
  });
  const measure = (batches: readonly Batch[], params: unknown): Measured => {
    let [examples, loss, accuracy] = [0, 0, 0];
    for (const batch of batches) {
      const [l = Number.NaN, a = Number.NaN] = tidy(() => numbers(params, batch).dataSync());
      const weight = Object.values(batch)[0]?.shape[0] ?? 1;
      examples += weight;
      loss += weight * l;
      accuracy += weight * a;
    }
    return { loss: loss / examples, accuracy: accuracy / examples };
  };
  return Object.assign(measure, { dispose: () => numbers.dispose() });
}

/** Consecutive ranges of at most `most` numbers: rows of evaluation batches. */
export function ranges(first: number, count: number, most: number): Uint32Array[] {
  const parts: Uint32Array[] = [];
  for (let start = 0; start < count; start += most) {
    const length = Math.min(most, count - start);
    parts.push(Uint32Array.from({ length }, (_, index) => first + start + index));
  }
  return parts;
}

/** The part of a batch's logits whose largest is the label's. */
export function rightOnes(logits: Tensor, labels: Tensor<"i32">): Tensor {
  return logits.argmax(-1).equal(labels).cast("f32").mean();
}
