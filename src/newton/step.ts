/**
 * The training step as it runs: one compiled program for each kind of batch, the start-up of rules that look ahead,
 * and the reports that come back without anybody waiting for them. What the programs contain is `trace.ts`'s subject.
 */
import { setImmediate } from "node:timers/promises";
import type { ProgramSize } from "../compile";
import { scalarDType } from "../device";
import { dtypeCode } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import { type Handle, native, readBytes } from "../native";
import { scheduled } from "../optim/schedule";
import { fromHandle } from "../tensor";
import { requireOptions } from "../tensor/validate";
import { tidy, untracked } from "../tidy";
import { type Flat, flatten } from "../tree";
import { type Average, averageKinds, averageProgram, checkAverage } from "./average";
import { type CheckpointExtras, type Snapshot, writeCheckpoint } from "./checkpoint";
import { Familiar } from "./familiar";
import { type Clip, checkAccumulate, checkClip } from "./gradients";
import { headsOf, withGroups } from "./groups";
import { Launch } from "./launch";
import { MicroBatches } from "./microBatches";
import { asNewton, checkOptimizer, type NewtonOptimizer } from "./newton";
import { STEP_OPTIONS, type TrainingStepOptions } from "./options";
import { ParameterValues } from "./parameters";
import { checkPrecision, type Precision } from "./precision";
import { KindsOfBatches, type Programs, programOf } from "./programs";
import { nextAlphas, type Rates, type StepReport } from "./report";
import { type Beside, Reports } from "./reports";
import { restoreFrom, type StepParts, snapshotOf } from "./resume";
import { type StartUp, searchFactor, startUpOf } from "./startUp";
import { handlesOf, initialState, ownCopy, type StepState } from "./state";
import {
  compileMicroBatch,
  compileProbe,
  compileRescale,
  compileStep,
  placeholders,
  type Subject,
  signatureOf,
  tracing,
  withoutValues,
} from "./trace";

export type { TrainingStepOptions } from "./options";
export type { StepReport } from "./report";

/** Micro-batches that may be under way. */
const MAX_GATHERED = 4;
/** The event loop gets a turn at least this often. */
const YIELD_STEPS = 16;
const YIELD_MS = 10;
/** Steps with a new program after which the queue may run empty, so that it shows whether runs can be made at once. */
const TRIES = 3;
const DONE = Promise.resolve();
const NO_HANDLES: readonly Handle[] = [];

/** A program of a training step. */
export interface StepProgram extends ProgramSize {
  /** What it does in a step. */
  readonly name: string;
}

const bytesOf = (values: Float64Array | Float32Array | Uint32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** A compiled training step: `step` for one step and its report, `run` and `drain` for many. Made by `trainingStep`. */
export class TrainingStep<P, B> {
  #newton: NewtonOptimizer;
  readonly #loss: (batch: B, model: P) => unknown;
  readonly #values: ParameterValues;
  readonly #signatures = new KindsOfBatches();
  readonly #state: StepState;
  readonly #clip: Clip | undefined;
  readonly #micro: MicroBatches;
  readonly #average: Average | undefined;
  readonly #startUp: StartUp | undefined;
  readonly #precision: Precision;
  readonly #reports: Reports;
  readonly #launch: Launch;

  /** What the controller's numbers are kept in. */
  readonly #scalar = scalarDType();
  #scale = { value: Number.NaN, handle: 0 };
  #averageProgram: number | undefined;
  /** Batches begun; each has random draws of its own. */
  #counter = 0;
  /** Steps that count for the start-up. */
  #started = 0;
  /** Whether α is held; and whether the rule has to begin anew because it was. */
  #frozen = false;
  #stale = false;
  /** The step at which the rule began. */
  #since = 0;
  #disposed = false;
  /** Calls that are not through, and when the newest of them will be. */
  #open = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #lastYield = performance.now();
  /** Programs whose runs have been made at once; and how often the newest is still to be tried. */
  readonly #brief = new Set<number>();
  #tries = 0;
  /** Whether the next step should find the queue empty. */
  #empties = false;
  /** The kind of the newest batch. */
  #familiar: Familiar<Programs> | undefined;

  /** @internal Use `trainingStep`. */
  constructor(options: TrainingStepOptions<P, B>) {
    requireOptions<TrainingStepOptions<P, B>>("trainingStep", options, STEP_OPTIONS);
    const { model, params, loss, seed = 0, clip, accumulate = 1, precision = "f32" } = options;
    if ((model === undefined) === (params === undefined)) {
      throw argumentError("trainingStep", "give either a model or params");
    }
    if (typeof loss !== "function") throw argumentError("trainingStep", "loss must be a function of batch and model");
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw argumentError("trainingStep", `seed must be a whole number of at least 0, not ${seed}`);
    }
    checkClip("trainingStep", clip);
    checkOptimizer("trainingStep", options.optimizer);
    checkAccumulate("trainingStep", accumulate);
    checkPrecision("trainingStep", precision);
    this.#precision = precision;
    this.#clip = clip;
    this.#micro = new MicroBatches(accumulate);
    this.#loss = loss;
    this.#values = new ParameterValues(model ?? params);
    this.#newton = withGroups(asNewton(options.optimizer), this.#values.tensors(), this.#values.paths);
    this.#reports = new Reports(this.#newton, precision, options.onReport);
    this.#launch = new Launch(this.#reports.length, this.#scalar);
    this.#average = checkAverage("trainingStep", options.average);
    this.#startUp = startUpOf(this.#newton.spec.rule);
    const key = native.upload(bytesOf(Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32))), 3, [2]);
    this.#state = untracked(() =>
      tidy(() => initialState(this.#newton, this.#average, this.#values.tensors(), this.#values.paths, precision, key)),
    );
  }

  /** The current parameters: the model itself, or the tree with the newest tensors (do not keep them over a step). */
  get params(): P {
    return this.#values.tree() as P;
  }

  /** α of the next step, as far as reports have come in; with `groups: "separate"` that of the last group. */
  get alpha(): number {
    return this.#reports.alphas.at(-1) ?? Number.NaN;
  }

  /** The same for each group, in the optimizer's order; one number where all parameters share it. */
  get alphas(): readonly number[] {
    return this.#reports.alphas;
  }

  /** Steps begun (with `accumulate`: those whose last batch has come). */
  get steps(): number {
    return Math.floor(this.#counter / this.#micro.perStep);
  }

  /** Whether α is held, by `freeze`. */
  get frozen(): boolean {
    return this.#frozen;
  }

  /**
   * Holds α where it is from the next step on: nothing is measured, and no step is taken back unless its loss is not
   * finite. A `schedule` goes on multiplying it.
   */
  freeze(): void {
    this.#frozen = true;
  }

  /** Lets the rule move α again. The rule `next` begins anew at this α: what it remembers belongs to steps long gone. */
  unfreeze(): void {
    this.#frozen = false;
  }

  /** Kinds of batches that programs are kept for. */
  get signatures(): number {
    return this.#signatures.size;
  }

  /**
   * Sizes of the step's programs, with what they are for: `measuring` and, with `every`, `resting` are steps; the rule `next`
   * adds probes, `accumulate` micro-batches. There are none before the first step.
   *
   * ```ts
   * import { newton, nn, optim, type Tensor, tensor, trainingStep } from "raphson";
   *
   * const step = trainingStep({
   *   model: nn.linear(2, 1),
   *   loss: ({ x }: { x: Tensor }, model) => model(x).square().mean(),
   *   optimizer: newton(optim.sgd(), { rule: "constant", initial: 0.1 }),
   * });
   * await step.step({ x: tensor([[0, 1], [1, 0]]) });
   * for (const { name, kernels, peakBytes } of step.programs()) console.log(name, kernels, peakBytes);
   * ```
   */
  programs(): StepProgram[] {
    return this.#signatures
      .all()
      .flatMap(({ compiled }) => [...compiled].map(([name, program]) => ({ name, ...native.programStats(program) })));
  }

  /** One step of one batch (with `accumulate`: of that many); resolves with its report. Rejects like `run`. */
  async step(...batches: readonly B[]): Promise<StepReport> {
    const { perStep } = this.#micro;
    if (batches.length !== perStep) {
      throw argumentError("trainingStep", `a step takes ${perStep} batches (accumulate), not ${batches.length}`);
    }
    let own: StepReport | undefined;
    const onOwn = (report: StepReport) => {
      own = report;
    };
    await this.#serially(() => {
      if (this.#micro.gathered > 0) {
        throw argumentError("trainingStep", "a step is under way already; go on with run, or begin with step");
      }
      return perStep === 1 ? this.#advance(batches[0] as B, onOwn) : this.#advanceAll(batches, onOwn);
    });
    await this.drain();
    if (own === undefined) throw new RaphsonError("INTERNAL", "trainingStep", "internal: the step gave no report");
    return own;
  }

  /**
   * Queues one step (with `accumulate`: one batch of it); resolves when another may follow, usually before this one is through. Its report goes to
   * `onReport`. RaphsonErrors: a loss that is not a scalar (at the first step), `NON_FINITE` where the rule cannot
   * recover, both naming the step.
   */
  run(batch: B): Promise<void> {
    return this.#serially(() => this.#advance(batch));
  }

  /** Resolves when all reports are in. */
  async drain(): Promise<void> {
    await this.#turn;
    await this.#reports.arrive();
    this.#reports.throwFailure();
  }

  /**
   * Writes everything that the training needs to go on, bit for bit, to one file: parameters, states of modules, the
   * optimizer's and the rule's state, counters, keys. Waits for the steps queued before. The file is replaced as a
   * whole or not at all. Rejects like `run`, and with a RaphsonError (`FILE`) where it cannot be written.
   *
   * ```ts
   * import { newton, nn, ones, optim, type Tensor, trainingStep } from "raphson";
   *
   * const make = () =>
   *   trainingStep({
   *     model: nn.linear(2, 1),
   *     loss: ({ x }: { x: Tensor }, model) => model(x).sub(1).square().mean(),
   *     optimizer: newton(optim.adamW()),
   *   });
   * const [first, second] = [make(), make()];
   * const batch = { x: ones([4, 2]) };
   * for (let index = 0; index < 5; index++) await first.run(batch);
   * await first.save("step.safetensors", { metadata: { note: "after five" } });
   * const { metadata } = await second.load("step.safetensors");
   * console.log(metadata.note, (await first.step(batch)).loss === (await second.step(batch)).loss); // after five true
   * ```
   */
  save(path: string, extras: CheckpointExtras = {}): Promise<void> {
    return this.#serially(async () => writeCheckpoint(path, await this.#snapshot(), extras));
  }

  /**
   * Goes on from a file that `save` wrote, in place of this step's own beginnings. Build model and optimizer as they
   * were. RaphsonErrors (`FILE`), after which nothing has changed: a file that is missing, damaged or no checkpoint;
   * another optimizer or rule; tensors that are missing or unknown, or of other shapes or dtypes, all by their names.
   */
  load(path: string): Promise<Required<CheckpointExtras>> {
    return this.#serially(() => this.#restore(path));
  }

  /**
   * Calls `use` while the model has its averaged parameters (option `average`), and puts the newest ones back whatever
   * happens; no step runs meanwhile. Resolves with what `use` gives.
   */
  averaged<R>(use: (params: P) => R | Promise<R>): Promise<R> {
    let result: R | undefined;
    const turn = this.#serially(async () => {
      const putBack = this.#exchange();
      try {
        result = await use(this.params);
      } finally {
        putBack();
      }
    });
    return turn.then(() => result as R);
  }

  /** Replaces the parameters by their averages, for good; training can go on from them. */
  async keepAverage(): Promise<void> {
    await this.#serially(async () => {
      this.#values.replace(this.#averages());
    });
  }

  #exchange(): () => void {
    return this.#values.exchange(this.#averages());
  }

  /** The averages with the newest parameters in them. */
  #averages(): Handle[] {
    if (this.#disposed) throw new RaphsonError("DISPOSED", "trainingStep", "this step has been disposed of");
    const average = this.#average;
    if (average === undefined)
      throw argumentError("averaged", "nothing is averaged; create the step with average: true");
    const { kinds } = this.#state;
    this.#averageProgram ??= untracked(() =>
      tracing(() => averageProgram(average, placeholders(averageKinds(kinds)), placeholders(kinds))),
    );
    return native.runProgram(this.#averageProgram, [...this.#state.average, ...this.#values.handles()]);
  }

  /** Frees state and programs; the parameters stay. Call it when no step is running. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#signatures.clear();
    this.#familiar = undefined;
    if (this.#averageProgram !== undefined) native.disposeProgram(this.#averageProgram);
    this.#micro.clear();
    const { direction, rule, ownRule, average, key } = this.#state;
    const scale = this.#scale.handle === 0 ? [] : [this.#scale.handle];
    native.dispose([...direction, ...rule, ...ownRule, ...average, key, ...scale]);
    this.#values.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** One after another, in the order of the calls, even if the caller does not wait; at once where nothing is under way. */
  #serially<R>(action: () => Promise<R> | R): Promise<R> {
    this.#open += 1;
    if (this.#open > 1) return this.#inTurn(this.#turn.then(action));
    let result: Promise<R> | R;
    try {
      result = action();
    } catch (error) {
      result = Promise.reject(error);
    }
    if (result instanceof Promise) return this.#inTurn(result);
    this.#open -= 1;
    return result === undefined ? (DONE as Promise<R>) : Promise.resolve(result);
  }

  #inTurn<R>(result: Promise<R>): Promise<R> {
    const close = () => {
      this.#open -= 1; // the caller sees an error; later steps meet #failure
    };
    this.#turn = result.then(close, close);
    return result;
  }

  #checkUsable(): void {
    this.#reports.throwFailure();
    if (this.#disposed) throw new RaphsonError("DISPOSED", "trainingStep", "this step has been disposed of");
  }

  async #advanceAll(batches: readonly B[], onOwn: (report: StepReport) => void): Promise<void> {
    for (const batch of batches) await this.#advance(batch, onOwn);
  }

  /** Takes a batch. What there is to wait for before another may come is given back, if there is anything. */
  #advance(batch: B, onOwn?: (report: StepReport) => void): Promise<void> | undefined {
    this.#checkUsable();
    if (this.#stale && !this.#frozen) return this.#renewRule().then(() => this.#advance(batch, onOwn));
    const { programs, tensors } = this.#recognized(batch);
    if (this.#micro.gathered < this.#micro.perStep - 1) {
      this.#gather(programs, tensors);
      return this.#breathe();
    }
    this.#stale = this.#frozen && this.#startUp !== undefined;
    const { probedSteps = 0, boundedSteps = 0 } = (!this.#frozen && this.#startUp) || {};
    // After an overflow there is nothing to take.
    const waits = this.#started < (this.#precision === "f16" ? boundedSteps : probedSteps);
    if (waits || this.#started < boundedSteps) return this.#advanceStarting(programs, tensors, waits, onOwn);
    const index = this.steps;
    const read = this.#launchStep(programs, index, tensors, false);
    this.#values.replaceStates(this.#launch.others);
    const losses = this.#micro.clear();
    this.#reports.add(index, read ? this.#launch.numbers : this.#launch.report, { losses, onOwn });
    return this.#breathe();
  }

  /** A step of the start-up. One that is probed is waited for before anything else goes on. */
  #advanceStarting(programs: Programs, tensors: readonly Handle[], waits: boolean, onOwn: Beside["onOwn"]) {
    const [index, counter] = [this.steps, this.#counter];
    // The probes see the states that the step saw.
    const before = this.#micro.states ?? handlesOf(this.#values.states());
    this.#launchStep(programs, index, tensors, true);
    const { report, others } = this.#launch;
    const scale = this.#scaleOf(this.#scheduled(index));
    const end = (rates: Promise<Rates[]> | Rates[]) => {
      this.#values.replaceStates(others);
      this.#reports.add(index, report, { rates, losses: this.#micro.clear(), onOwn });
      return this.#breathe();
    };
    if (waits) return this.#begin(programs, report, [...before, ...tensors, this.#state.key], counter, scale).then(end);
    this.#started += 1;
    return end(this.#rescale(programs, false, 1, scale));
  }

  #counterTensor(counter = this.#counter): Handle {
    return native.upload(bytesOf(Uint32Array.of(counter)), 3, []);
  }

  /** The programs for this kind of batch, and the batch's tensors. */
  #recognized(batch: B): { readonly programs: Programs; readonly tensors: readonly Handle[] } {
    const known = this.#familiar?.handlesOf(batch);
    if (known !== undefined) return { programs: (this.#familiar as Familiar<Programs>).its, tensors: known };
    const flat = flatten(batch, "trainingStep");
    const programs = untracked(() => this.#programsFor(flat));
    this.#familiar = Familiar.of(batch, programs);
    return { programs, tensors: handlesOf(flat.tensors) };
  }

  /** Queues a batch that is not its step's last. */
  #gather(programs: Programs, tensors: readonly Handle[]): void {
    const first = this.#micro.gathered === 0;
    const program = programOf(programs, `micro-batch ${first}`, () => compileMicroBatch(programs.subject, first));
    const scale = this.#precision === "f16" ? this.#state.ownRule.slice(-2, -1) : [];
    const states = this.#micro.states ?? handlesOf(this.#values.states());
    const counter = this.#counterTensor();
    const rest = [...this.#values.handles(), ...scale, ...states, ...tensors, this.#state.key, counter];
    try {
      this.#micro.gather(program, rest, programs.subject.states.length);
    } finally {
      native.dispose([counter]);
    }
    this.#counter += 1;
  }

  /**
   * Runs the step's program; all that it carries along stays behind the handles that it has. The report and the modules' new states
   * are in `#launch` afterwards; whether the report is read. A step of the start-up stays where it begins, is taken when its
   * length is known, and is not read here.
   */
  #launchStep(programs: Programs, index: number, tensors: readonly Handle[], starting: boolean): boolean {
    const measures = index % this.#newton.spec.every === 0 && !this.#frozen;
    const program = programOf(programs, measures ? "measuring" : "resting", () => {
      this.#tries = TRIES;
      return compileStep(programs.subject, this.#newton, measures);
    });
    const { direction, rule, ownRule, average, key } = this.#state;
    const scale = this.#scaleOf(starting ? 0 : this.#scheduled(index));
    const { states: gathered, sums } = this.#micro;
    const stored = handlesOf(this.#values.states());
    const before = gathered === undefined ? NO_HANDLES : stored;
    const states = gathered ?? stored;
    const moved = this.#values.length + direction.length + rule.length + ownRule.length + average.length;
    const launch = this.#launch;
    launch.begin(moved + sums.length + before.length + states.length + tensors.length + 3);
    this.#values.giveTo(launch);
    launch.addAll(direction);
    launch.addAll(rule);
    launch.addAll(ownRule);
    launch.addAll(average);
    launch.addAll(sums);
    launch.addAll(before);
    launch.addAll(states);
    launch.addAll(tensors);
    launch.add(key);
    launch.add(0);
    launch.add(scale);
    const read = launch.run(program, this.#counter, moved, programs.subject.states.length, !starting);
    this.#counter += 1;
    this.#values.moved();
    if (read) {
      if (!this.#brief.has(program)) this.#brief.add(program);
      this.#tries = 0;
    } else if (!starting) {
      this.#empties = this.#brief.has(program) || this.#tries-- > 0;
    }
    return read;
  }

  /** The rule's state as before its first step, but with α as it is; it sees the steps that are left as a whole run. */
  async #renewRule(): Promise<void> {
    await this.#reports.arrive(); // α is the newest report's
    this.#beginAt(this.steps);
    const { direction, rule, recalls } = this.#state;
    const spec = { ...this.#newton.spec, initial: this.alpha };
    const limits = { min: Math.min(spec.min, this.alpha), max: Math.max(spec.max, this.alpha) };
    const params = this.#values.handles();
    const fresh = untracked(() =>
      tidy(() =>
        native
          .alphaInit({ ...spec, ...limits }, params, direction, recalls)
          .map((handle) => ownCopy(fromHandle(handle))),
      ),
    );
    headsOf(this.#newton, params.length, rule).forEach((head, group) => {
      const old = fresh.splice(head, 1, this.#scalarOf(this.#reports.alphas[group] ?? Number.NaN));
      native.dispose(old);
    });
    native.dispose(rule);
    this.#state.rule = fresh;
    this.#stale = false;
  }

  /** From this step on, the steps left are a rule's whole run. */
  #beginAt(since: number): void {
    const { spec } = this.#newton;
    const moved = since - this.#since;
    this.#since = since;
    if (spec.totalSteps === undefined || moved === 0) return;
    const totalSteps = Math.max(spec.totalSteps - moved, 1);
    this.#newton = { ...this.#newton, spec: { ...spec, totalSteps } };
    this.#signatures.clear();
    this.#familiar = undefined;
  }

  async #snapshot(): Promise<Snapshot> {
    this.#checkUsable();
    await this.#reports.arrive();
    this.#reports.throwFailure();
    const { alphas } = this.#reports;
    const counts = {
      counter: this.#counter,
      started: this.#started,
      nonFinite: this.#reports.nonFinite,
      since: this.#since,
    };
    return snapshotOf(this.#parts(), { ...counts, alphas, frozen: this.#frozen, stale: this.#stale });
  }

  async #restore(path: string): Promise<Required<CheckpointExtras>> {
    this.#checkUsable();
    await this.#reports.arrive();
    const { numbers, ...extras } = await restoreFrom(path, this.#parts());
    this.#counter = numbers.counter;
    this.#started = numbers.started;
    this.#reports.nonFinite = numbers.nonFinite;
    this.#reports.alphas = numbers.alphas;
    this.#frozen = numbers.frozen;
    this.#stale = numbers.stale;
    this.#beginAt(numbers.since);
    return extras;
  }

  #parts(): StepParts {
    const [newton, values, state, micro] = [this.#newton, this.#values, this.#state, this.#micro];
    return { newton, values, state, micro, precision: this.#precision };
  }

  #scalarOf(value: number): Handle {
    const values = this.#scalar === "f64" ? Float64Array.of(value) : Float32Array.of(value);
    return native.upload(bytesOf(values), dtypeCode(this.#scalar, "trainingStep"), []);
  }

  /** The schedule's factor. */
  #scheduled(index: number): number {
    const { schedule } = this.#newton;
    return schedule === undefined ? 1 : scheduled(schedule, index);
  }

  /** A factor of α as a tensor; made anew only when it changes. */
  #scaleOf(value: number): Handle {
    if (value !== this.#scale.value) {
      if (this.#scale.handle !== 0) native.dispose([this.#scale.handle]);
      this.#scale = { value, handle: this.#scalarOf(value) };
    }
    return this.#scale.handle;
  }

  /**
   * The start-up of a rule that looks ahead: probe how α must be changed for the loss to fall as it should, and take the
   * step with that α. Returns α as applied and α of the next step, of each group. A first step that was refused taught nothing: the next
   * one is the first again.
   */
  async #begin(programs: Programs, report: Handle, seen: readonly Handle[], counter: number, scale: Handle) {
    const startUp = this.#startUp as StartUp; // only steps of a start-up come here
    const first = this.#started === 0;
    const plain = this.#reports.read(0, this.#reports.numbersOf(await readBytes(report)));
    const refused = first && !plain.accepted;
    if (refused || plain.overflow === true) return nextAlphas(plain).map((alpha) => ({ alpha, nextAlpha: alpha }));
    this.#started += 1;
    if (this.#started > startUp.probedSteps) return this.#rescale(programs, false, 1, scale);
    const common = [...seen, this.#counterTensor(counter)];
    try {
      const passes = (factor: number) => this.#passes(programs, first, factor, common);
      return await this.#rescale(programs, first, await searchFactor(startUp, first, passes), scale);
    } finally {
      native.dispose(common.slice(-1));
    }
  }

  /** Whether the step with α times the factor passes the start-up's test. */
  async #passes(programs: Programs, first: boolean, factor: number, common: readonly Handle[]): Promise<boolean> {
    const program = programOf(programs, `probe ${first}`, () => compileProbe(programs.subject, this.#newton, first));
    const handle = this.#scalarOf(factor);
    const params = this.#values.handles();
    const [answer = 0] = native.runProgram(program, [
      ...params,
      ...this.#state.direction,
      ...this.#state.rule,
      ...common,
      handle,
    ]);
    try {
      return (await readBytes(answer))[0] === 1;
    } finally {
      native.dispose([handle, answer]);
    }
  }

  /** Takes the step that stays where it begins, with α times the factor as the rule bounds it. */
  #rescale(programs: Programs, first: boolean, factor: number, scale: Handle): Promise<Rates[]> {
    const program = programOf(programs, `rescale ${first}`, () =>
      compileRescale(programs.subject, this.#newton, first),
    );
    const { direction, rule } = this.#state;
    const params = this.#values.handles();
    const handle = this.#scalarOf(factor);
    const results = native.runProgram(program, [...params, ...rule, ...direction, handle, scale]);
    native.dispose([handle, ...rule]);
    this.#values.replace(results.slice(0, params.length));
    this.#state.rule = results.slice(params.length);
    return this.#reports.ratesIn(this.#state.rule, headsOf(this.#newton, params.length, this.#state.rule));
  }

  /** What there is to wait for: few steps may be in flight, and the event loop has its turns. */
  #breathe(): Promise<void> | undefined {
    const waits = this.#empties || this.#reports.full || this.#micro.gathered >= MAX_GATHERED;
    if (waits || this.#counter % YIELD_STEPS === 0 || performance.now() - this.#lastYield > YIELD_MS) {
      return this.#wait();
    }
    this.#reports.throwFailure();
    return undefined;
  }

  async #wait(): Promise<void> {
    // Waiting for the computation, not polling: the cores are its. The event loop has its turn meanwhile.
    if (this.#empties) await this.#reports.arrive();
    else if (this.#reports.full) await this.#reports.room();
    else if (this.#micro.gathered >= MAX_GATHERED) await this.#micro.breathe(MAX_GATHERED);
    else await setImmediate();
    this.#empties = false;
    this.#lastYield = performance.now();
    this.#reports.throwFailure();
  }

  #programsFor(batch: Flat): Programs {
    return this.#signatures.of(signatureOf(batch), () => this.#subject(batch));
  }

  /** What the programs for this kind of batch are made of. */
  #subject(batch: Flat): Subject {
    const { kinds, directionTree, ownRuleTree, ruleKinds } = this.#state;
    const precision = this.#precision;
    return {
      params: kinds,
      paths: this.#values.paths,
      average: this.#average,
      clip: this.#clip,
      accumulate: this.#micro.perStep,
      direction: directionTree,
      ownRule: ownRuleTree,
      rule: ruleKinds,
      batch: withoutValues(batch),
      states: this.#values.states().map(({ dtype, shape }) => ({ dtype, shape })),
      lossOf: (params, states, traced, key) =>
        this.#values.bound(params, states, key, (tree) => this.#loss(traced as B, tree as P), { precision }),
    };
  }
}

/**
 * Compiles forward, backward, direction, learning-rate rule and update into one program for each kind of batch. The
 * model's parameters are replaced after each step.
 *
 * ```ts
 * import { newton, nn, optim, type Tensor, tensor, trainingStep } from "raphson";
 *
 * const model = nn.linear(2, 1);
 * const step = trainingStep({
 *   model,
 *   loss: ({ x, y }: { x: Tensor; y: Tensor }, model) => model(x).sub(y).square().mean(),
 *   optimizer: newton(optim.sgd()),
 * });
 * const batch = { x: tensor([[0, 1], [1, 0]]), y: tensor([[1], [2]]) };
 * const { loss, alpha } = await step.step(batch);
 * console.log(loss, alpha);
 * ```
 */
export function trainingStep<P, B>(options: TrainingStepOptions<P, B>): TrainingStep<P, B> {
  return new TrainingStep(options);
}
