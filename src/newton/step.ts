/**
 * The training step as it runs: one compiled program for each kind of batch, the start-up of rules that look ahead,
 * and the reports that come back without anybody waiting for them. What the programs contain is `trace.ts`'s subject.
 */
import { setImmediate } from "node:timers/promises";
import type { ProgramSize } from "../compile";
import { scalarDType } from "../device";
import { dtypeCode, view } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import { type Handle, native } from "../native";
import { scheduled } from "../optim/schedule";
import { fromHandle } from "../tensor";
import { dispose, tidy, untracked } from "../tidy";
import { type Flat, flatten } from "../tree";
import { type Average, averageKinds, averageProgram, checkAverage } from "./average";
import { type CheckpointExtras, type Snapshot, writeCheckpoint } from "./checkpoint";
import { type Clip, checkAccumulate, checkClip } from "./gradients";
import { MicroBatches, meanLoss } from "./microBatches";
import { asNewton, type NewtonOptimizer } from "./newton";
import type { TrainingStepOptions } from "./options";
import { ParameterValues } from "./parameters";
import { checkPrecision, type Precision } from "./precision";
import { disposePrograms, type Programs, programOf } from "./programs";
import { readReport, type StepReport } from "./report";
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
} from "./trace";

export type { TrainingStepOptions } from "./options";
export type { StepReport } from "./report";

/** Steps whose reports may be outstanding. */
const MAX_IN_FLIGHT = 4;
/** The event loop gets a turn at least this often. */
const YIELD_STEPS = 16;
const YIELD_MS = 10;
/** Kinds of batches that programs are kept for. */
const MAX_SIGNATURES = 16;
/** Steps in a row with a loss that is not finite before a recovering rule gives up. */
const MAX_NON_FINITE = 100;

/** α as applied in a step, and α of the next one. */
interface Rates {
  readonly alpha: number;
  readonly nextAlpha: number;
}

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
  readonly #onReport: ((report: StepReport) => void) | undefined;
  readonly #values: ParameterValues;
  readonly #signatures = new Map<string, Programs>();
  readonly #state: StepState;
  readonly #clip: Clip | undefined;
  readonly #micro: MicroBatches;
  readonly #average: Average | undefined;
  readonly #startUp: StartUp | undefined;
  readonly #precision: Precision;

  /** What the controller's numbers are kept in. */
  readonly #scalar = scalarDType();
  #scale = { value: Number.NaN, handle: 0 };
  #averageProgram: number | undefined;
  /** Batches begun; each has random draws of its own. */
  #counter = 0;
  /** Steps that count for the start-up. */
  #started = 0;
  #alpha: number;
  #nonFinite = 0;
  /** Whether α is held; and whether the rule has to begin anew because it was. */
  #frozen = false;
  #stale = false;
  /** The step at which the rule began. */
  #since = 0;
  #failure: { error: unknown } | undefined;
  #disposed = false;
  #turn: Promise<unknown> = Promise.resolve();
  #lastYield = performance.now();
  /** Reports on their way, oldest first. */
  readonly #pending: Promise<void>[] = [];
  #delivery: Promise<void> = Promise.resolve();

  /** @internal Use `trainingStep`. */
  constructor(options: TrainingStepOptions<P, B>) {
    const { model, params, loss, seed = 0, clip, accumulate = 1, precision = "f32" } = options;
    if ((model === undefined) === (params === undefined)) {
      throw argumentError("trainingStep", "give either a model or params");
    }
    if (typeof loss !== "function") throw argumentError("trainingStep", "loss must be a function of batch and model");
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw argumentError("trainingStep", `seed must be a whole number of at least 0, not ${seed}`);
    }
    checkClip("trainingStep", clip);
    checkAccumulate("trainingStep", accumulate);
    checkPrecision("trainingStep", precision);
    this.#precision = precision;
    this.#clip = clip;
    this.#micro = new MicroBatches(accumulate);
    this.#newton = asNewton(options.optimizer);
    this.#loss = loss;
    this.#onReport = options.onReport;
    this.#alpha = this.#newton.spec.initial;
    this.#values = new ParameterValues(model ?? params);
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

  /** α of the next step, as far as reports have come in. */
  get alpha(): number {
    return this.#alpha;
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
    return [...this.#signatures.values()].flatMap(({ compiled }) =>
      [...compiled].map(([name, program]) => ({ name, ...native.programStats(program) })),
    );
  }

  /** One step of one batch (with `accumulate`: of that many); resolves with its report. Rejects like `run`. */
  async step(...batches: readonly B[]): Promise<StepReport> {
    const { perStep } = this.#micro;
    if (batches.length !== perStep) {
      throw argumentError("trainingStep", `a step takes ${perStep} batches (accumulate), not ${batches.length}`);
    }
    let own: StepReport | undefined;
    await this.#serially(async () => {
      if (this.#micro.gathered > 0) {
        throw argumentError("trainingStep", "a step is under way already; go on with run, or begin with step");
      }
      for (const batch of batches) {
        await this.#advance(batch, (report) => {
          own = report;
        });
      }
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
    await this.#delivery;
    this.#throwFailure();
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
    return native.runProgram(this.#averageProgram, [...this.#state.average, ...handlesOf(this.#values.tensors())]);
  }

  /** Frees state and programs; the parameters stay. Call it when no step is running. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const programs of this.#signatures.values()) disposePrograms(programs);
    this.#signatures.clear();
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

  /** One after another, in the order of the calls, even if the caller does not wait. */
  #serially<R>(action: () => Promise<R>): Promise<R> {
    const result = this.#turn.then(action);
    this.#turn = result.catch(() => undefined); // the caller sees the error; later steps meet #failure
    return result;
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #checkUsable(): void {
    this.#throwFailure();
    if (this.#disposed) throw new RaphsonError("DISPOSED", "trainingStep", "this step has been disposed of");
  }

  async #advance(batch: B, onOwn?: (report: StepReport) => void): Promise<void> {
    this.#checkUsable();
    if (this.#stale && !this.#frozen) {
      await this.#renewRule();
      this.#stale = false;
    }
    const index = this.steps;
    const flat = flatten(batch, "trainingStep");
    const programs = untracked(() => this.#programsFor(flat));
    const counter = native.upload(bytesOf(Uint32Array.of(this.#counter)), 3, []);
    const states = this.#micro.states ?? handlesOf(this.#values.states());
    const common = [...states, ...handlesOf(flat.tensors), this.#state.key, counter];
    try {
      if (this.#micro.gathered < this.#micro.perStep - 1) {
        this.#gather(programs, common);
      } else {
        this.#stale = this.#frozen && this.#startUp !== undefined;
        const starting = this.#starting();
        const { report, states } = this.#launch(programs, index, common, starting);
        const rates = starting ? await this.#begin(programs, index, report, common) : undefined;
        this.#values.replaceStates(states); // not before: the probe sees the states that the step saw
        this.#deliver(index, report, rates, this.#micro.clear(), onOwn);
      }
    } finally {
      native.dispose([counter]);
    }
    await this.#breathe();
    this.#throwFailure();
  }

  /** Queues a batch that is not its step's last. */
  #gather(programs: Programs, common: readonly Handle[]): void {
    const first = this.#micro.gathered === 0;
    const program = programOf(programs, `micro-batch ${first}`, () => compileMicroBatch(programs.subject, first));
    const scale = this.#precision === "f16" ? this.#state.ownRule.slice(-2, -1) : [];
    const rest = [...handlesOf(this.#values.tensors()), ...scale, ...common];
    this.#micro.gather(program, rest, programs.subject.states.length);
    this.#counter += 1;
  }

  /** Whether the next step belongs to the start-up of its rule. */
  #starting(): boolean {
    const { probedSteps = 0, boundedSteps = 0 } = this.#startUp ?? {};
    return !this.#frozen && this.#started < Math.max(probedSteps, boundedSteps);
  }

  /**
   * Queues the step's program and takes over its results, but for the report and the modules' new states. A step of the
   * start-up stays where it begins, and is taken when its length is known.
   */
  #launch(programs: Programs, index: number, common: readonly Handle[], starting: boolean) {
    const measures = index % this.#newton.spec.every === 0 && !this.#frozen;
    const program = programOf(programs, measures ? "measuring" : "resting", () =>
      compileStep(programs.subject, this.#newton, measures),
    );
    const { direction, rule, ownRule, average } = this.#state;
    const params = handlesOf(this.#values.tensors());
    const scale = this.#scaleOf(starting ? 0 : this.#scheduled(index));
    const donated = [...params, ...direction, ...rule, ...ownRule, ...average];
    const before = this.#micro.states === undefined ? [] : handlesOf(this.#values.states());
    const results = native.runProgram(program, [...donated, ...this.#micro.sums, ...before, ...common, scale]);
    this.#counter += 1;
    native.dispose(donated.slice(params.length));
    const take = taker(results);
    this.#values.replace(take(params.length));
    this.#state.direction = take(direction.length);
    this.#state.rule = take(rule.length);
    this.#state.ownRule = take(ownRule.length);
    const [report = 0] = take(1);
    this.#state.average = take(average.length);
    return { report, states: take(programs.subject.states.length) };
  }

  /** The rule's state as before its first step, but with α as it is; it sees the steps that are left as a whole run. */
  async #renewRule(): Promise<void> {
    await this.#delivery; // α is the newest report's
    this.#beginAt(this.steps);
    const { direction, rule, recalls } = this.#state;
    const spec = { ...this.#newton.spec, initial: this.#alpha };
    const limits = { min: Math.min(spec.min, this.#alpha), max: Math.max(spec.max, this.#alpha) };
    const params = handlesOf(this.#values.tensors());
    const fresh = untracked(() =>
      tidy(() =>
        native
          .alphaInit({ ...spec, ...limits }, params, direction, recalls)
          .map((handle) => ownCopy(fromHandle(handle))),
      ),
    );
    native.dispose(rule);
    this.#state.rule = fresh;
  }

  /** From this step on, the steps left are a rule's whole run. */
  #beginAt(since: number): void {
    const { spec } = this.#newton;
    const moved = since - this.#since;
    this.#since = since;
    if (spec.totalSteps === undefined || moved === 0) return;
    const totalSteps = Math.max(spec.totalSteps - moved, 1);
    this.#newton = { ...this.#newton, spec: { ...spec, totalSteps } };
    for (const programs of this.#signatures.values()) disposePrograms(programs);
    this.#signatures.clear();
  }

  async #snapshot(): Promise<Snapshot> {
    this.#checkUsable();
    await this.#delivery;
    this.#throwFailure();
    const alpha = this.#alpha;
    const counts = {
      counter: this.#counter,
      started: this.#started,
      nonFinite: this.#nonFinite,
      since: this.#since,
    };
    return snapshotOf(this.#parts(), { ...counts, alpha, frozen: this.#frozen, stale: this.#stale });
  }

  async #restore(path: string): Promise<Required<CheckpointExtras>> {
    this.#checkUsable();
    await this.#delivery;
    const { numbers, ...extras } = await restoreFrom(path, this.#parts());
    this.#counter = numbers.counter;
    this.#started = numbers.started;
    this.#nonFinite = numbers.nonFinite;
    this.#alpha = numbers.alpha;
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
   * step with that α. Returns α as applied and α of the next step. A first step that was refused taught nothing: the next
   * one is the first again.
   */
  async #begin(programs: Programs, index: number, report: Handle, common: readonly Handle[]): Promise<Rates> {
    const startUp = this.#startUp as StartUp; // only steps of a start-up come here
    const first = this.#started === 0;
    const plain = this.#read(0, await native.read(report));
    const refused = first && !plain.accepted;
    if (refused || plain.overflow === true) return { alpha: plain.nextAlpha, nextAlpha: plain.nextAlpha };
    this.#started += 1;
    const probed = this.#started <= startUp.probedSteps;
    const passes = (factor: number) => this.#passes(programs, first, factor, common);
    const factor = probed ? await searchFactor(startUp, first, passes) : 1;
    this.#rescale(programs, factor, this.#scaleOf(this.#scheduled(index)));
    // The rule's state begins with α and the rate of the last step.
    const read = this.#state.rule.slice(0, 2).map((handle) => native.read(handle));
    const [nextAlpha, alpha] = (await Promise.all(read)).map((bytes) => view(this.#scalar, bytes)[0]);
    return { alpha: alpha ?? Number.NaN, nextAlpha: nextAlpha ?? Number.NaN };
  }

  /** Whether the step with α times the factor passes the start-up's test. */
  async #passes(programs: Programs, first: boolean, factor: number, common: readonly Handle[]): Promise<boolean> {
    const program = programOf(programs, `probe ${first}`, () => compileProbe(programs.subject, this.#newton, first));
    const handle = this.#scalarOf(factor);
    const params = handlesOf(this.#values.tensors());
    const [answer = 0] = native.runProgram(program, [
      ...params,
      ...this.#state.direction,
      ...this.#state.rule,
      ...common,
      handle,
    ]);
    const bytes = await native.read(answer).finally(() => native.dispose([handle, answer]));
    return bytes[0] === 1;
  }

  #rescale(programs: Programs, factor: number, scale: Handle): void {
    const program = programOf(programs, "rescale", () => compileRescale(programs.subject, this.#newton));
    const { direction, rule } = this.#state;
    const params = handlesOf(this.#values.tensors());
    const handle = this.#scalarOf(factor);
    const results = native.runProgram(program, [...params, ...rule, ...direction, handle, scale]);
    native.dispose([handle, ...rule]);
    const take = taker(results);
    this.#values.replace(take(params.length));
    this.#state.rule = take(rule.length);
  }

  #read(index: number, bytes: Uint8Array): StepReport {
    return readReport(index, bytes, this.#scalar, this.#newton.telemetry, this.#precision);
  }

  /** Reads the report when it is there, after those before it. `losses`: those of the batches before the last. */
  #deliver(
    index: number,
    report: Handle,
    rates: Rates | undefined,
    losses: readonly Promise<number>[],
    onOwn?: (report: StepReport) => void,
  ): void {
    const bytes = native.read(report).finally(() => native.dispose([report]));
    bytes.catch(() => undefined); // handled below, in its turn
    this.#delivery = this.#delivery
      .then(async () => {
        const plain = this.#read(index, await bytes);
        const loss = await meanLoss(losses, plain.loss);
        const read = { ...plain, ...rates, loss };
        this.#alpha = read.nextAlpha;
        this.#checkFinite(read);
        this.#onReport?.(read);
        onOwn?.(read);
      })
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#pending.shift();
      });
    this.#pending.push(this.#delivery);
  }

  /** A guarded rule leaves the parameters alone where the loss is not finite; others would go on from spoilt ones. */
  #checkFinite({ step, loss }: StepReport): void {
    if (Number.isFinite(loss)) {
      this.#nonFinite = 0;
      return;
    }
    this.#nonFinite += 1;
    const { rule, guard } = this.#newton.spec;
    const recovers = this.#startUp !== undefined || (guard && rule !== "constant");
    if (recovers && this.#nonFinite < MAX_NON_FINITE) return;
    const advice = recovers
      ? `and so were the ${MAX_NON_FINITE - 1} before it; look for NaN in the data or in the initial parameters`
      : 'so training stopped; use a smaller learning rate, or newton(…) with the rule "next", which recovers';
    const error = new RaphsonError("NON_FINITE", "trainingStep", `the loss at step ${step} is ${loss}, ${advice}`);
    this.#failure ??= { error };
  }

  /** Keeps few steps in flight, and gives the event loop its turns. */
  async #breathe(): Promise<void> {
    // Waiting for the oldest report, not polling for it: the cores are the computation's.
    while (this.#pending.length >= MAX_IN_FLIGHT) await this.#pending[0];
    await this.#micro.breathe(MAX_IN_FLIGHT);
    const now = performance.now();
    if (this.#counter % YIELD_STEPS === 0 || now - this.#lastYield > YIELD_MS) {
      await setImmediate();
      this.#lastYield = performance.now();
    }
  }

  /** The programs for this kind of batch; the ones used longest ago make room. */
  #programsFor(batch: Flat): Programs {
    const signature = signatureOf(batch);
    const known = this.#signatures.get(signature);
    if (known !== undefined) {
      if (this.#signatures.size > 1) {
        this.#signatures.delete(signature); // last in the map: used most recently
        this.#signatures.set(signature, known);
      }
      return known;
    }
    const { kinds, directionTree, ownRuleTree, ruleKinds } = this.#state;
    const precision = this.#precision;
    const subject: Subject = {
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
    const programs: Programs = { subject, compiled: new Map() };
    this.#signatures.set(signature, programs);
    if (this.#signatures.size > MAX_SIGNATURES) {
      const [oldest] = this.#signatures;
      if (oldest !== undefined) {
        this.#signatures.delete(oldest[0]);
        disposePrograms(oldest[1]);
      }
    }
    return programs;
  }
}

/** The same tree of tensors without their memory: dtypes and shapes remain. */
function withoutValues(flat: Flat): Flat {
  const stand = placeholders(flat.tensors);
  const tree = flatten(flat.rebuild(stand, "themselves"), "trainingStep");
  dispose(stand);
  return tree;
}

/** Hands out the handles of a list, one group after another. */
function taker(handles: readonly Handle[]): (count: number) => Handle[] {
  let position = 0;
  return (count) => {
    position += count;
    return handles.slice(position - count, position);
  };
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
