/** One run: a problem, an optimizer, something that chooses α, and what came of it. */
import { dispose, hostRandom, type nn, RaphsonError, setDevice, tidy } from "../../src";
import { METHODS } from "./methods";
import type { OptimizerName } from "./optimizers";
import { PROBLEMS, type ProblemName } from "./problems";
import { type Batch, measurer, type Sources, type Task } from "./problems/problem";
import type { Trainer } from "./trainer";

/** What identifies a run. Plain data: it is sent to workers, and its text is the run's key. */
export interface RunSpec {
  readonly problem: ProblemName;
  readonly optimizer: OptimizerName;
  readonly method: string;
  /** α₀, or null for methods that take none. */
  readonly alpha: number | null;
  readonly steps: number;
  /** 0 where every batch is the whole problem. */
  readonly batch: number;
  readonly seed: number;
  readonly sources: Sources;
}

/** What came of a run. Numbers that are not finite are null, so that JSON has a word for them. */
export interface RunResult {
  /** Training loss before the first step. */
  readonly begin: number;
  /** Training loss: the mean of three measurements on a fixed part of the training set. null: diverged. */
  readonly loss: number | null;
  /** On held-out data: accuracy where the problem has one, and the loss. */
  readonly heldAccuracy: number | null;
  readonly heldLoss: number | null;
  /** Gradient evaluations per step. */
  readonly cost: number;
  readonly steps: number;
  readonly seconds: number;
  /** [step, α] and [step, loss of the batch (mean around it)], thinned. */
  readonly alphas: readonly (readonly [number, number | null])[];
  readonly losses: readonly (readonly [number, number | null])[];
}

/** Where the result is measured, as parts of the run: its last 5 %. */
const MEASURED_AT = [0.95, 0.975, 1] as const;
/** A loss this many times the first one will not come back. */
const LOST = 1e6;
/** Points kept of a history. */
const POINTS = 48;

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
const short = (value: number): number | null => finite(Number(value.toPrecision(5)));

/**
 * Row numbers of one batch after another: epochs in random order, or independent draws where there are many examples.
 */
function* rowsOf(size: number, batch: number, seed: number): Generator<Uint32Array, never> {
  const random = hostRandom(seed);
  if (size > 20_000) for (;;) yield Uint32Array.from({ length: batch }, () => random.integer(size));
  const all = Math.min(batch, size);
  for (;;) {
    const order = random.permutation(size);
    for (let first = 0; first + all <= size; first += all) yield order.subarray(first, first + all);
  }
}

/** Batches of a task, one after another. */
function sampler(task: Task, batch: number, seed: number): () => Batch {
  if (task.size === 0) return () => task.batch(new Uint32Array());
  const rows = rowsOf(task.size, batch, seed);
  return () => task.batch(rows.next().value);
}

/** A history with few points; losses are means between them. */
function thinned(values: readonly number[], mean: boolean): (readonly [number, number | null])[] {
  const count = Math.min(POINTS, values.length);
  return Array.from({ length: count }, (_, index) => {
    const [first, stop] = [index, index + 1].map((i) => Math.floor((i * values.length) / count)) as [number, number];
    const part = mean ? values.slice(first, stop) : values.slice(first, first + 1);
    return [first, short(part.reduce((sum, value) => sum + value, 0) / part.length)] as const;
  });
}

/**
 * Steps until the run is over or lost; measures on the way. Gives the mean of the measurements, Infinity where lost.
 */
async function train(spec: RunSpec, task: Task, trainer: Trainer, measure: () => Promise<number>): Promise<number> {
  const next = sampler(task, spec.batch, spec.seed);
  const places = PROBLEMS[spec.problem].deterministic ? [1] : MEASURED_AT;
  const at = new Set(places.map((part) => Math.round(part * spec.steps)));
  const measured: number[] = [];
  for (let step = 1; step <= spec.steps; step++) {
    const batch = next();
    try {
      await trainer.run(batch);
    } finally {
      dispose(batch);
    }
    if (at.has(step)) measured.push(await measure());
    const [first = 0, last = 0] = [trainer.losses[0], trainer.losses.at(-1)];
    const isConstant = spec.method === "constant" || spec.method === "cosine";
    if (isConstant && !(Math.abs(last) <= LOST * Math.max(Math.abs(first), 1e-3))) return Number.POSITIVE_INFINITY;
  }
  return measured.reduce((sum, loss) => sum + loss, 0) / measured.length;
}

/** Runs a spec to its end. A run whose loss stops being finite is a result too. */
export function runOne(spec: RunSpec): Promise<RunResult> {
  setDevice("cpu");
  return tidy(() => runToEnd(spec)); // a worker goes through thousands of runs: nothing is left to the collector
}

async function runToEnd(spec: RunSpec): Promise<RunResult> {
  const method = METHODS[spec.method];
  if (method === undefined) throw new Error(`there is no method ${spec.method}`);
  const start = performance.now();
  const task = await PROBLEMS[spec.problem].make(spec.seed, spec.sources);
  const measured = measurer(task);
  const [fit, held] = [task.fit(), task.held()];
  const begin = measured(fit, task.params).loss; // which also draws the parameters, so that steps are all that follows
  const trainer = method.start({
    task,
    optimizer: spec.optimizer,
    alpha: spec.alpha ?? Number.NaN,
    steps: spec.steps,
    seed: spec.seed,
    batches: task.size === 0 ? 1 : Math.max(1, Math.floor(task.size / spec.batch)),
    draw: sampler(task, spec.batch, spec.seed + 1_000_000),
  });
  let loss = Number.POSITIVE_INFINITY;
  let heldOut = { loss: Number.NaN, accuracy: Number.NaN };
  try {
    const measure = (batches: Batch[]) => trainer.evaluate((params) => measured(batches, params));
    loss = await train(spec, task, trainer, async () => (await measure(fit)).loss);
    if (Number.isFinite(loss) && held.length > 0) heldOut = await measure(held);
  } catch (error) {
    if (!(error instanceof RaphsonError && error.code === "NON_FINITE")) throw error;
  } finally {
    trainer.dispose();
    measured.dispose();
    dispose(fit, held, task.params as nn.Module);
  }
  return {
    begin,
    ...{ loss: finite(loss), heldAccuracy: finite(heldOut.accuracy), heldLoss: finite(heldOut.loss) },
    cost: Number((trainer.work / Math.max(1, trainer.losses.length)).toFixed(4)),
    steps: trainer.losses.length,
    seconds: Number(((performance.now() - start) / 1000).toFixed(2)),
    alphas: thinned(trainer.alphas, false),
    losses: thinned(trainer.losses, true),
  };
}
