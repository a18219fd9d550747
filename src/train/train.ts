/**
 * `train`: epochs of steps over data, with evaluation, progress, a log and a way to stop. The step itself is
 * `newton/step.ts`'s subject, what remains of a run `history.ts`'s.
 */
import type { Batches } from "../data";
import { type Batch, release } from "../data/batch";
import { type DeviceSpec, deviceInfo, setDevice } from "../device";
import { argumentError } from "../errors";
import {
  type Average,
  type Clip,
  type NewtonOptimizer,
  type StepReport,
  type TrainingStep,
  trainingStep,
} from "../newton";
import { checkAccumulate } from "../newton/gradients";
import { checkOptimizer, withTotalSteps } from "../newton/newton";
import type { Precision } from "../newton/precision";
import { Parameter } from "../nn/module";
import { isModule } from "../nn/moduleLike";
import type { Optimizer } from "../optim/optimizer";
import type { AnyTensor } from "../tensor";
import { requireOptions } from "../tensor/validate";
import {
  type CheckpointOptions,
  checkCheckpoint,
  checkPosition,
  Interrupt,
  loadRun,
  resumedPath,
  saveRun,
} from "./checkpoint";
import { Evaluator } from "./evaluate";
import { type Evaluation, Recorder, Run, short } from "./history";
import { checkLog, type LogOptions, RunLog } from "./log";
import type { Metric } from "./metrics";
import { type Progress, type ProgressOption, progressFor, SILENT } from "./progress";
import { Statistics } from "./statistics";

/** What callbacks may do to the run. */
export interface Control {
  /** Ends the run after the steps that are under way. */
  stop(): void;
  /** Holds α where it is, from the next step that begins. */
  freeze(): void;
  /** Lets the rule move α again. */
  unfreeze(): void;
  /** The evaluations so far, also those of before a checkpoint. */
  readonly evaluations: readonly Evaluation[];
}

/**
 * Called as a run goes on. A step is reported while later ones are under way already, so that what `onStep` does comes a few
 * steps later; the others are called between steps, and waited for.
 */
export interface Callbacks {
  onStep?(report: StepReport, control: Control): void;
  onEvaluation?(evaluation: Evaluation, control: Control): void | Promise<void>;
  onEpoch?(epoch: number, control: Control): void | Promise<void>;
}

/** What `train` takes. */
export interface TrainOptions<M, B extends Batch> {
  /** The model (or any tree of modules); its parameters are replaced as training goes on. */
  readonly model: M;
  /** The loss of a batch: a float scalar. Traced once for each kind of batch. */
  readonly loss: (batch: B, model: M) => AnyTensor;
  /** `newton(…)`, or a plain optimizer with its own learning rate. */
  readonly optimizer: Optimizer | NewtonOptimizer;
  /** The batches, or a function that gives those of an epoch (from 0), for example larger ones later on. */
  readonly data: Batches<B> | ((epoch: number) => Batches<B>);
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
   * Evaluates at averages of the parameters, which the model has in the end: `true`, `{ decay }`, or `false`. If not given,
   * with the rule `next` where neither the number of steps nor a schedule brings α down, since its last parameters are
   * noisy. Running statistics (of batch normalisation) are then means over up to 50 batches of training, computed anew
   * for each evaluation and for the end, where the data can be read again.
   */
  readonly average?: Average | boolean;
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
  /** A folder for `steps.jsonl` (a line for each step and each evaluation), events for TensorBoard, and `report.html`. */
  readonly log?: string | LogOptions;
  /**
   * A file that holds the whole run: saved after each epoch and evaluation, at the end, when aborted, and at Ctrl-C, which
   * then ends the process as ever. `{ path, every: n }` saves it after each n steps too. Written whole or not at all.
   */
  readonly checkpoint?: string | CheckpointOptions;
  /**
   * Goes on from a checkpoint, bit for bit as if it had not stopped, given the same options and data: from this file, or
   * (`true`) from that of `checkpoint` if it is there, else from the beginning. `epochs` and `steps` count from the run's
   * first beginning.
   */
  readonly resume?: boolean | string;
  /** Stops the run: `train` rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Initial parameters that do not exist yet, and dropout; 0 if not given. */
  readonly seed?: number;
  /** Where to compute, as `setDevice` has it; the device in use, or "auto", if not given. */
  readonly device?: DeviceSpec;
  readonly callbacks?: readonly Callbacks[];
  readonly onStep?: (report: StepReport, control: Control) => void;
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

const OPTIONS = [
  "model",
  "loss",
  "optimizer",
  "data",
  "evaluate",
  "clip",
  "accumulate",
  "average",
  "precision",
  "epochs",
  "steps",
  "progress",
  "log",
  "checkpoint",
  "resume",
  "signal",
  "seed",
  "device",
  "callbacks",
  "onStep",
] as const;

function check<M, B extends Batch>(options: TrainOptions<M, B>): void {
  requireOptions<TrainOptions<M, B>>("train", options, OPTIONS);
  const { epochs, steps, seed = 0, accumulate = 1 } = options;
  checkOptimizer("train", options.optimizer);
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
  if (typeof options.data !== "function" && typeof options.data?.epoch !== "function") {
    throw argumentError("train", "data must be batches, such as dataset.batches(64) or data.from(iterable)");
  }
}

/** Whether nothing brings α down towards the end, so that the last parameters still jump about. */
function staysNoisy(optimizer: Optimizer | NewtonOptimizer): boolean {
  if (!("kind" in optimizer)) return false;
  const { spec, schedule } = optimizer;
  return spec.rule === "next" && spec.totalSteps === undefined && schedule === undefined;
}

/** One run: the loop's variables, and what happens at each of its turns. */
class Training<M, B extends Batch> {
  readonly #options: TrainOptions<M, B>;
  readonly #checkpoint: CheckpointOptions | undefined;
  readonly #logOptions: Required<LogOptions> | undefined;
  readonly #average: Average | boolean;
  readonly #recorder = new Recorder();
  readonly #evaluations: Evaluation[] = [];
  readonly #callbacks: readonly Callbacks[];
  readonly #step: TrainingStep<M, B>;
  readonly #control: Control;
  readonly #start = performance.now();
  #progress: Progress = progressFor(false, undefined, 0);
  #log: RunLog | undefined;
  #statistics: Statistics<B, M> | undefined;
  #interrupt: Interrupt | undefined;
  #stopped = false;
  /** Epochs begun and left, be it early; steps begun. */
  #epochs = 0;
  #begun = 0;
  /** Where a checkpoint goes on: epochs done, and batches of the next one. */
  #position = { epoch: 0, batch: 0 };
  /** Steps at the last checkpoint, and seconds of the run before this process. */
  #saved = -1;
  #before = 0;

  constructor(options: TrainOptions<M, B>) {
    this.#options = options;
    const { model, loss, seed = 0, clip, accumulate = 1, precision = "f32", callbacks = [], onStep } = options;
    this.#checkpoint = checkCheckpoint(options.checkpoint, options.resume);
    this.#logOptions = checkLog(options.log);
    this.#callbacks = onStep === undefined ? callbacks : [{ onStep }, ...callbacks];
    const optimizer =
      "kind" in options.optimizer ? withTotalSteps(options.optimizer, this.#horizon()) : options.optimizer;
    const average = options.average ?? staysNoisy(optimizer);
    this.#average = average;
    initializeMissing(model, seed);
    const step = trainingStep({
      model,
      loss,
      optimizer,
      average,
      seed,
      accumulate,
      precision,
      ...(clip && { clip }),
      onReport: (report) => this.#onReport(report),
    });
    this.#step = step;
    this.#control = {
      stop: () => {
        this.#stopped = true;
      },
      freeze: () => step.freeze(),
      unfreeze: () => step.unfreeze(),
      evaluations: this.#evaluations,
    };
  }

  async run(): Promise<Run> {
    const { model, loss, evaluate, progress = false } = this.#options;
    const log = this.#logOptions;
    const evaluator = evaluate && new Evaluator(model, loss, evaluate.metrics ?? {});
    if (this.#average !== false) this.#statistics = new Statistics(model, loss);
    let signatures = 0;
    try {
      await this.#resume();
      const before = { steps: this.#begun, evaluations: this.#evaluations };
      this.#log = log === undefined ? undefined : new RunLog(log, before, this.#about());
      this.#progress = progressFor(progress, progress === false ? undefined : this.#total(), this.#begun);
      await this.#epochsOf(evaluator);
      // Not in a checkpoint: training goes on from the newest parameters.
      if (this.#average !== false && !this.#interrupt?.seen) await this.#keepAverage();
    } finally {
      this.#interrupt?.close();
      this.#progress.stop();
      await this.#step.drain().catch(() => undefined); // an error has been thrown by `run` or the last `drain` already
      evaluator?.dispose();
      this.#statistics?.dispose();
      signatures = this.#step.signatures;
      this.#step.dispose();
      await this.#log?.close();
    }
    if (this.#interrupt?.seen && this.#checkpoint) this.#interrupt.passOn(this.#checkpoint.path, this.#begun);
    return this.#result(signatures);
  }

  /** Epoch after epoch; a run that is aborted is saved before it rejects. */
  async #epochsOf(evaluator: Evaluator<B, M> | undefined): Promise<void> {
    const { signal, evaluate } = this.#options;
    if (this.#checkpoint) this.#interrupt = new Interrupt(this.#control.stop);
    try {
      while (!this.#finished()) {
        const complete = await this.#epoch();
        if (this.#interrupt?.seen) break;
        this.#epochs += 1;
        for (const { onEpoch } of this.#callbacks) await onEpoch?.(this.#epochs, this.#control);
        if (evaluator && evaluate) await this.#evaluate(evaluator, evaluate.data);
        if (complete) this.#position = { epoch: this.#epochs, batch: 0 };
        await this.#save();
      }
      signal?.throwIfAborted();
    } catch (error) {
      if (signal?.aborted) await this.#save();
      throw error;
    }
    if (this.#interrupt?.seen) await this.#save();
  }

  #finished(): boolean {
    const { epochs, steps } = this.#options;
    return this.#stopped || this.#epochs === epochs || this.#begun === steps;
  }

  /** The batches of an epoch. */
  #batches(epoch: number): Batches<B> {
    const { data } = this.#options;
    const batches = typeof data === "function" ? data(epoch) : data;
    if (typeof batches?.epoch === "function") return batches;
    throw argumentError("train", `data(${epoch}) must give batches, such as dataset.batches(64)`);
  }

  /** Steps of the whole run, where that is known. */
  #total(): number | undefined {
    const { epochs = 0, steps, accumulate = 1 } = this.#options;
    if (steps !== undefined) return steps;
    let batches = 0;
    for (let epoch = 0; epoch < epochs; epoch++) batches += this.#batches(epoch).length ?? Number.NaN;
    return Number.isNaN(batches) ? undefined : Math.floor(batches / accumulate);
  }

  /** Steps of the whole run, where that is known without asking for the data of each epoch. */
  #horizon(): number | undefined {
    return this.#options.steps ?? (typeof this.#options.data === "function" ? undefined : this.#total());
  }

  async #resume(): Promise<void> {
    const path = resumedPath(this.#checkpoint, this.#options.resume);
    if (path === undefined) return;
    const { standing, rows } = await loadRun(path, this.#step);
    const { epoch, batch, evaluations, seconds } = standing;
    checkPosition(path, standing, batch === 0 ? undefined : this.#batches(epoch).length);
    this.#recorder.restore(rows);
    this.#evaluations.push(...evaluations);
    this.#position = { epoch, batch };
    this.#epochs = epoch;
    this.#begun = this.#step.steps;
    this.#saved = this.#begun;
    this.#before = seconds;
  }

  async #save(): Promise<void> {
    if (this.#checkpoint === undefined) return;
    await this.#step.drain();
    const { epoch, batch } = this.#position;
    const batches = batch === 0 ? undefined : this.#batches(epoch).length;
    const standing = { ...this.#position, batches, evaluations: this.#evaluations, seconds: this.#seconds() };
    await saveRun(this.#checkpoint.path, this.#step, standing, this.#recorder.rows());
    this.#saved = this.#begun;
  }

  /** The steps of one epoch (fewer, when the run is over before); whether it has no more batches. */
  async #epoch(): Promise<boolean> {
    const { signal, steps } = this.#options;
    const batches = this.#batches(this.#epochs);
    const position = { epoch: this.#epochs, batch: this.#position.epoch === this.#epochs ? this.#position.batch : 0 };
    this.#position = position;
    const first = position.batch;
    for await (const batch of batches.epoch(this.#epochs, first)) {
      try {
        signal?.throwIfAborted();
        await this.#step.run(batch);
      } finally {
        release(batch);
      }
      position.batch += 1;
      this.#begun = this.#step.steps;
      if (this.#stopped || this.#begun === steps) break;
      const every = this.#checkpoint?.every ?? Number.POSITIVE_INFINITY;
      if (this.#begun % every === 0 && this.#begun !== this.#saved) await this.#save();
    }
    await this.#step.drain();
    signal?.throwIfAborted();
    if (position.batch === 0) {
      const again = this.#epochs > 0 ? "; a generator can be read once only, pass a function that makes one" : "";
      throw argumentError("train", `the data gave no batch in epoch ${this.#epochs + 1}${again}`);
    }
    return position.batch === batches.length || !(this.#stopped || this.#begun === steps);
  }

  #onReport(report: StepReport): void {
    this.#recorder.add(report);
    this.#log?.step(report, this.#seconds());
    if (this.#progress !== SILENT) {
      const loss = this.#recorder.recentLoss(20);
      this.#progress.update({ step: report.step + 1, loss, alpha: report.alpha });
    }
    for (const { onStep } of this.#callbacks) onStep?.(report, this.#control);
  }

  async #evaluate(evaluator: Evaluator<B, M>, batches: Batches<B>): Promise<void> {
    const measure = () => evaluator.measure(batches.epoch(0), this.#options.signal);
    const measured = await (this.#average === false
      ? measure()
      : this.#step.averaged(async () => {
          const finish = await this.#renewStatistics();
          return measure().finally(() => finish(true));
        }));
    const evaluation: Evaluation = { step: this.#begun, epoch: this.#epochs, ...measured };
    this.#evaluations.push(evaluation);
    this.#log?.evaluation(evaluation);
    const metrics = Object.entries(measured.metrics).map(([name, value]) => `, ${name} ${short(value)}`);
    this.#progress.say(`epoch ${this.#epochs}: held-out loss ${short(measured.loss)}${metrics.join("")}`);
    for (const { onEvaluation } of this.#callbacks) await onEvaluation?.(evaluation, this.#control);
  }

  /** Ends with the averaged parameters, and with statistics that are theirs. */
  async #keepAverage(): Promise<void> {
    await this.#step.keepAverage();
    const finish = await this.#renewStatistics();
    finish(false);
  }

  /** Statistics of the parameters that the model has now, over batches of the epoch that ended last. */
  async #renewStatistics(): Promise<(putBack: boolean) => void> {
    if (this.#statistics?.needed !== true) return () => undefined;
    const epoch = Math.max(0, this.#epochs - 1);
    const batches = this.#batches(epoch);
    if (!batches.repeats) return () => undefined;
    return this.#statistics.renew(batches.epoch(epoch), undefined, this.#options.signal);
  }

  #seconds(): number {
    return this.#before + (performance.now() - this.#start) / 1000;
  }

  /** The names of optimizer and rule. */
  #names(): { optimizer: string; rule: string } {
    const { optimizer } = this.#options;
    const newton = "kind" in optimizer ? optimizer : undefined;
    const rule = newton === undefined ? "constant" : newton.rule;
    const name = (newton?.optimizer ?? (optimizer as Optimizer)).name;
    return { optimizer: name, rule: typeof rule === "string" ? rule : rule.name };
  }

  /** What a log says of the run before its first step. */
  #about(): Record<string, unknown> {
    const { optimizer, seed = 0, accumulate = 1, clip, precision = "f32" } = this.#options;
    const settings = "kind" in optimizer ? { newton: optimizer.spec } : {};
    const time = new Date().toISOString();
    const from = { firstStep: this.#begun, steps: this.#total(), seed, accumulate, precision, clip };
    return { ...this.#names(), device: deviceInfo().spec, time, ...from, ...settings };
  }

  #result(signatures: number): Run {
    return new Run({
      history: this.#recorder.history(),
      evaluations: this.#evaluations,
      steps: this.#begun,
      epochs: this.#epochs,
      seconds: this.#seconds(),
      ...this.#names(),
      signatures,
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
