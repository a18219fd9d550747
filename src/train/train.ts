/**
 * `train`: epochs of steps over data, with evaluation, progress, a log and a way to stop. The step itself is
 * `newton/step.ts`'s subject, what remains of a run `history.ts`'s.
 */
import type { Batches } from "../data";
import { type Batch, release } from "../data/batch";
import { type DeviceSpec, setDevice } from "../device";
import { argumentError } from "../errors";
import { type Clip, type NewtonOptimizer, type StepReport, trainingStep } from "../newton";
import { checkAccumulate } from "../newton/gradients";
import type { Precision } from "../newton/precision";
import { Parameter } from "../nn/module";
import { isModule } from "../nn/moduleLike";
import type { Optimizer } from "../optim/optimizer";
import type { AnyTensor } from "../tensor";
import { Evaluator } from "./evaluate";
import { type Evaluation, Recorder, Run, short } from "./history";
import { RunLog } from "./log";
import type { Metric } from "./metrics";
import { type Progress, type ProgressOption, progressFor } from "./progress";

/** Called as a run goes on; `stop` ends it after the steps that are under way. */
export interface Callbacks {
  onStep?(report: StepReport, stop: () => void): void;
  onEvaluation?(evaluation: Evaluation, stop: () => void): void;
  onEpoch?(epoch: number, stop: () => void): void;
}

/** What `train` takes. */
export interface TrainOptions<M, B extends Batch> {
  /** The model (or any tree of modules); its parameters are replaced as training goes on. */
  readonly model: M;
  /** The loss of a batch: a float scalar. Traced once for each kind of batch. */
  readonly loss: (batch: B, model: M) => AnyTensor;
  /** `newton(…)`, or a plain optimizer with its own learning rate. */
  readonly optimizer: Optimizer | NewtonOptimizer;
  readonly data: Batches<B>;
  /** Held-out data, measured after each epoch and at the end. */
  readonly evaluate?: {
    readonly data: Batches<NoInfer<B>>;
    readonly metrics?: Readonly<Record<string, Metric<NoInfer<B>, NoInfer<M>>>>;
  };
  /** Bounds the gradients that the optimizer sees: `{ norm }` of all together, or `{ value }` of each number. */
  readonly clip?: Clip;
  /** Batches whose gradients are averaged for one step; 1 if not given. A step begun in one epoch goes on in the next. */
  readonly accumulate?: number;
  /**
   * What modules compute in while they are trained; f32 if not given. Parameters and the loss stay f32, evaluation is in f32.
   * With "f16" the loss is scaled while gradients are computed, and a step whose gradients overflow is left out.
   */
  readonly precision?: Precision;
  /** How long to train: give one of the two. With `accumulate`, `steps` counts what that many batches make together. */
  readonly epochs?: number;
  readonly steps?: number;
  /** A bar on a terminal, plain lines elsewhere; nothing if not given. */
  readonly progress?: ProgressOption;
  /** A folder for `steps.jsonl`: a line for each step and each evaluation. */
  readonly log?: string;
  /** Stops the run: `train` rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Initial parameters that do not exist yet, and dropout; 0 if not given. */
  readonly seed?: number;
  /** Where to compute, as `setDevice` has it; the device in use, or "auto", if not given. */
  readonly device?: DeviceSpec;
  readonly callbacks?: readonly Callbacks[];
  readonly onStep?: (report: StepReport, stop: () => void) => void;
}

/** Draws the parameters that have no value yet. */
function initializeMissing(tree: unknown, seed: number): void {
  if (isModule(tree)) {
    tree.namedParameters().forEach(([, parameter], index) => {
      if (parameter instanceof Parameter && parameter.current === undefined) parameter.initialize(seed, index);
    });
  } else if (Array.isArray(tree)) {
    for (const part of tree) initializeMissing(part, seed);
  } else if (typeof tree === "object" && tree !== null) {
    for (const part of Object.values(tree)) initializeMissing(part, seed);
  }
}

function check<M, B extends Batch>(options: TrainOptions<M, B>): void {
  const { epochs, steps, seed = 0, accumulate = 1 } = options;
  checkAccumulate("train", accumulate);
  if ((epochs === undefined) === (steps === undefined)) throw argumentError("train", "give either epochs or steps");
  for (const [name, value] of Object.entries({ epochs, steps })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1)) {
      throw argumentError("train", `${name} must be a whole number of at least 1, not ${value}`);
    }
  }
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw argumentError("train", `seed must be a whole number of at least 0, not ${seed}`);
  }
  if (typeof options.data?.epoch !== "function") {
    throw argumentError("train", "data must be batches, such as dataset.batches(64) or data.from(iterable)");
  }
}

/** One run: the loop's variables, and what happens at each of its turns. */
class Training<M, B extends Batch> {
  readonly #options: TrainOptions<M, B>;
  readonly #recorder = new Recorder();
  readonly #evaluations: Evaluation[] = [];
  readonly #progress: Progress;
  readonly #log: RunLog | undefined;
  readonly #callbacks: readonly Callbacks[];
  #stopped = false;
  #epochs = 0;
  #begun = 0;

  constructor(options: TrainOptions<M, B>) {
    this.#options = options;
    const { epochs, steps, data, accumulate = 1, progress = false, log, callbacks = [], onStep } = options;
    const batches = data.length === undefined ? undefined : data.length * (epochs ?? 0);
    const total = steps ?? (batches === undefined ? undefined : Math.floor(batches / accumulate));
    this.#log = log === undefined ? undefined : new RunLog(log);
    this.#callbacks = onStep === undefined ? callbacks : [{ onStep }, ...callbacks];
    this.#progress = progressFor(progress, total);
  }

  async run(): Promise<Run> {
    const {
      model,
      loss,
      optimizer,
      evaluate,
      seed = 0,
      signal,
      clip,
      accumulate = 1,
      precision = "f32",
    } = this.#options;
    const start = performance.now();
    initializeMissing(model, seed);
    const onReport = (report: StepReport) => this.#onReport(report);
    const step = trainingStep({ model, loss, optimizer, seed, accumulate, precision, ...(clip && { clip }), onReport });
    const evaluator = evaluate && new Evaluator(model, loss, evaluate.metrics ?? {});
    try {
      while (!this.#finished()) {
        await this.#epoch(step);
        this.#epochs += 1;
        for (const { onEpoch } of this.#callbacks) onEpoch?.(this.#epochs, this.#stop);
        if (evaluator && evaluate) await this.#evaluate(evaluator, evaluate.data);
      }
    } finally {
      this.#progress.stop();
      await step.drain().catch(() => undefined); // an error has been thrown by `run` or the last `drain` already
      evaluator?.dispose();
      const signatures = step.signatures;
      step.dispose();
      this.#signatures = signatures;
      await this.#log?.close();
    }
    signal?.throwIfAborted();
    return this.#result((performance.now() - start) / 1000);
  }

  #signatures = 0;

  readonly #stop = (): void => {
    this.#stopped = true;
  };

  #finished(): boolean {
    const { epochs, steps } = this.#options;
    return this.#stopped || this.#epochs === epochs || this.#begun === steps;
  }

  /** The steps of one epoch (fewer, when the run is over before). */
  async #epoch(step: { run(batch: B): Promise<void>; drain(): Promise<void>; steps: number }): Promise<void> {
    const { data, signal, steps } = this.#options;
    let batches = 0;
    for await (const batch of data.epoch(this.#epochs)) {
      try {
        signal?.throwIfAborted();
        await step.run(batch);
      } finally {
        release(batch);
      }
      batches += 1;
      this.#begun = step.steps;
      if (this.#stopped || this.#begun === steps) break;
    }
    await step.drain();
    signal?.throwIfAborted();
    if (batches === 0) {
      const again = this.#epochs > 0 ? "; a generator can be read once only, pass a function that makes one" : "";
      throw argumentError("train", `the data gave no batch in epoch ${this.#epochs + 1}${again}`);
    }
  }

  #onReport(report: StepReport): void {
    this.#recorder.add(report);
    this.#log?.step(report);
    const loss = this.#recorder.recentLoss(20);
    this.#progress.update({ step: report.step + 1, loss, alpha: report.alpha });
    for (const { onStep } of this.#callbacks) onStep?.(report, this.#stop);
  }

  async #evaluate(evaluator: Evaluator<B, M>, batches: Batches<B>): Promise<void> {
    const measured = await evaluator.measure(batches.epoch(0), this.#options.signal);
    const evaluation: Evaluation = { step: this.#begun, epoch: this.#epochs, ...measured };
    this.#evaluations.push(evaluation);
    this.#log?.evaluation(evaluation);
    const metrics = Object.entries(measured.metrics).map(([name, value]) => `, ${name} ${short(value)}`);
    this.#progress.say(`epoch ${this.#epochs}: held-out loss ${short(measured.loss)}${metrics.join("")}`);
    for (const { onEvaluation } of this.#callbacks) onEvaluation?.(evaluation, this.#stop);
  }

  #result(seconds: number): Run {
    const { optimizer } = this.#options;
    const newton = "kind" in optimizer ? optimizer : undefined;
    const rule = newton === undefined ? "constant" : newton.rule;
    return new Run({
      history: this.#recorder.history(),
      evaluations: this.#evaluations,
      steps: this.#begun,
      epochs: this.#epochs,
      seconds,
      optimizer: (newton?.optimizer ?? (optimizer as Optimizer)).name,
      rule: typeof rule === "string" ? rule : rule.name,
      signatures: this.#signatures,
    });
  }
}

/**
 * Trains a model and resolves with the run: history, evaluations, summary. The event loop stays free meanwhile.
 * Rejects with a RaphsonError for bad options or a loss that the rule cannot recover from (`NON_FINITE`, naming the
 * step), and with the signal's reason when aborted.
 *
 * ```ts
 * import { data, newton, nn, optim, train } from "raphson";
 *
 * const x = Float32Array.from({ length: 64 }, (_, i) => i / 64);
 * const points = data.arrays({ x: { data: x, shape: [64, 1] }, y: { data: x.map((v) => 2 * v - 1), shape: [64, 1] } });
 * const run = await train({
 *   model: nn.linear(1, 1),
 *   loss: ({ x, y }, model) => model(x).sub(y).square().mean(),
 *   optimizer: newton(optim.sgd()),
 *   data: points.batches(16, { shuffle: true }),
 *   epochs: 5,
 * });
 * console.log(run.summary());
 * ```
 */
export async function train<M, B extends Batch>(options: TrainOptions<M, B>): Promise<Run> {
  check(options);
  options.signal?.throwIfAborted();
  if (options.device !== undefined) setDevice(options.device);
  return new Training(options).run();
}
