/**
 * The training step as it runs: one compiled program for each kind of batch, the start-up probe of the rule `next`,
 * and the reports that come back without anybody waiting for them. What the programs contain is `trace.ts`'s subject.
 */
import { setImmediate } from "node:timers/promises";
import { scalarDType } from "../device";
import { dtypeCode } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import { type Handle, native } from "../native";
import type { Optimizer } from "../optim/optimizer";
import { scheduled } from "../optim/schedule";
import type { AnyTensor } from "../tensor";
import { dispose, tidy, untracked } from "../tidy";
import { type Flat, flatten } from "../tree";
import { type Clip, checkAccumulate, checkClip } from "./gradients";
import { MicroBatches, meanLoss } from "./microBatches";
import { asNewton, type NewtonOptimizer } from "./newton";
import { ParameterValues } from "./parameters";
import { checkPrecision, type Precision } from "./precision";
import { readReport, type StepReport } from "./report";
import { handlesOf, initialState, type StepState } from "./state";
import {
  compileMicroBatch,
  compileProbe,
  compileRescale,
  compileStep,
  placeholders,
  type Subject,
  signatureOf,
} from "./trace";

export type { StepReport } from "./report";

/** What a step is made of: a model or a tree of parameters, a loss of batch and model, and an optimizer. */
export interface TrainingStepOptions<P, B> {
  /** The model; its parameters are replaced after each step. */
  readonly model?: P;
  /** Instead of a model: any tree of tensors (and modules). Copied; the current ones are `step.params`. */
  readonly params?: P;
  /** The loss of a batch: a float scalar. Traced once for each kind of batch: use tensor methods only. */
  readonly loss: (batch: B, model: P) => AnyTensor;
  readonly optimizer: Optimizer | NewtonOptimizer;
  /** Bounds the gradients that the optimizer sees; what the rule measures stays as it is. */
  readonly clip?: Clip;
  /**
   * Batches whose gradients are averaged before a step is taken; 1 if not given. Memory is that of one of them. The rule
   * `next` sees the mean gradient; rules that measure do so on the last batch.
   */
  readonly accumulate?: number;
  /**
   * What modules compute in while they are trained; f32 if not given. Parameters and all that is computed outside modules,
   * the loss among it, stay f32. With "f16" the loss is scaled while gradients are computed.
   */
  readonly precision?: Precision;
  /** Fixes the random draws of the loss (dropout); 0 if not given. */
  readonly seed?: number;
  /** Called with each report, in order, a few steps after the step ran. */
  readonly onReport?: (report: StepReport) => void;
}

/** Steps whose reports may be outstanding. */
const MAX_IN_FLIGHT = 4;
/** The event loop gets a turn at least this often. */
const YIELD_STEPS = 16;
const YIELD_MS = 10;
/** Kinds of batches that programs are kept for. */
const MAX_SIGNATURES = 16;
/** Steps in a row with a loss that is not finite before a recovering rule gives up. */
const MAX_NON_FINITE = 100;

/** The start-up probe of the rule `next`: its steps, how far ahead it looks, its tries and factors. */
const PROBE = { steps: 3, firstReach: 10, reach: 1, firstTries: 14, tries: 3, shrink: 0.2, caution: 0.1 } as const;

interface Programs {
  readonly subject: Subject;
  readonly compiled: Map<string, number>;
}

const bytesOf = (values: Float64Array | Float32Array | Uint32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** A compiled training step: `step` for one step and its report, `run` and `drain` for many. Made by `trainingStep`. */
export class TrainingStep<P, B> {
  readonly #newton: NewtonOptimizer;
  readonly #loss: (batch: B, model: P) => unknown;
  readonly #onReport: ((report: StepReport) => void) | undefined;
  readonly #values: ParameterValues;
  readonly #key: Handle;
  readonly #signatures = new Map<string, Programs>();
  readonly #state: StepState;
  readonly #clip: Clip | undefined;
  readonly #micro: MicroBatches;
  readonly #precision: Precision;

  /** What the controller's numbers are kept in. */
  readonly #scalar = scalarDType();
  #scale = { value: Number.NaN, handle: 0 };
  /** Batches begun; each has random draws of its own. */
  #counter = 0;
  /** Steps that count for the start-up probe. */
  #started = 0;
  #alpha: number;
  #nonFinite = 0;
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
    this.#state = untracked(() =>
      tidy(() => initialState(this.#newton, this.#values.tensors(), this.#values.paths, precision)),
    );
    this.#key = native.upload(bytesOf(Uint32Array.of(seed >>> 0, Math.floor(seed / 2 ** 32))), 3, [2]);
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

  /** Kinds of batches that programs are kept for. */
  get signatures(): number {
    return this.#signatures.size;
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

  /** Frees state and programs; the parameters stay. Call it when no step is running. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const programs of this.#signatures.values()) disposePrograms(programs);
    this.#signatures.clear();
    this.#micro.clear();
    const { direction, rule, ownRule } = this.#state;
    native.dispose([
      ...direction,
      ...rule,
      ...ownRule,
      this.#key,
      ...(this.#scale.handle === 0 ? [] : [this.#scale.handle]),
    ]);
    this.#values.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** One after another, in the order of the calls, even if the caller does not wait. */
  #serially(action: () => Promise<void>): Promise<void> {
    const result = this.#turn.then(action);
    this.#turn = result.catch(() => undefined); // the caller sees the error; later steps meet #failure
    return result;
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #advance(batch: B, onOwn?: (report: StepReport) => void): Promise<void> {
    this.#throwFailure();
    if (this.#disposed) throw new RaphsonError("DISPOSED", "trainingStep", "this step has been disposed of");
    const index = this.steps;
    const flat = flatten(batch, "trainingStep");
    const programs = untracked(() => this.#programsFor(flat));
    const counter = native.upload(bytesOf(Uint32Array.of(this.#counter)), 3, []);
    const states = this.#micro.states ?? handlesOf(this.#values.states());
    const common = [...states, ...handlesOf(flat.tensors), this.#key, counter];
    try {
      if (this.#micro.gathered < this.#micro.perStep - 1) {
        this.#gather(programs, common);
      } else {
        const { report, states } = this.#launch(programs, index, common);
        const probes = this.#newton.spec.rule === "next" && this.#started < PROBE.steps;
        const factor = probes ? await this.#probe(programs, report, common) : 1;
        this.#values.replaceStates(states); // not before: the probe sees the states that the step saw
        this.#deliver(index, report, factor, this.#micro.clear(), onOwn);
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

  /** Queues the step's program and takes over its results, but for the report and the modules' new states. */
  #launch(programs: Programs, index: number, common: readonly Handle[]): { report: Handle; states: Handle[] } {
    const measures = index % this.#newton.spec.every === 0;
    const program = programOf(programs, measures ? "measuring" : "resting", () =>
      compileStep(programs.subject, this.#newton, measures),
    );
    const { direction, rule, ownRule } = this.#state;
    const params = handlesOf(this.#values.tensors());
    const scale = this.#scaleAt(index);
    const donated = [...params, ...direction, ...rule, ...ownRule];
    const before = this.#micro.states === undefined ? [] : handlesOf(this.#values.states());
    const results = native.runProgram(program, [...donated, ...this.#micro.sums, ...before, ...common, scale]);
    this.#counter += 1;
    native.dispose([...direction, ...rule, ...ownRule]);
    const take = taker(results);
    this.#values.replace(take(params.length));
    this.#state.direction = take(direction.length);
    this.#state.rule = take(rule.length);
    this.#state.ownRule = take(ownRule.length);
    return { report: take(1)[0] ?? 0, states: take(programs.subject.states.length) };
  }

  #scalarOf(value: number): Handle {
    const values = this.#scalar === "f64" ? Float64Array.of(value) : Float32Array.of(value);
    return native.upload(bytesOf(values), dtypeCode(this.#scalar, "trainingStep"), []);
  }

  /** The schedule's factor as a tensor; made anew only when it changes. */
  #scaleAt(index: number): Handle {
    const { schedule } = this.#newton;
    const value = schedule === undefined ? 1 : scheduled(schedule, index);
    if (value !== this.#scale.value) {
      if (this.#scale.handle !== 0) native.dispose([this.#scale.handle]);
      this.#scale = { value, handle: this.#scalarOf(value) };
    }
    return this.#scale.handle;
  }

  /**
   * The start-up probe: shrink the step until the loss falls as it should, then take the shorter step instead. Returns
   * the factor by which α was changed. A first step that was refused taught nothing: the next one is the first again.
   */
  async #probe(programs: Programs, report: Handle, common: readonly Handle[]): Promise<number> {
    const first = this.#started === 0;
    if (first || this.#precision === "f16") {
      const { accepted, overflow } = this.#read(0, await native.read(report));
      if (overflow === true || (first && !accepted)) return 1;
    }
    this.#started += 1;
    const reach = first ? PROBE.firstReach : PROBE.reach;
    const program = programOf(programs, `probe ${reach}`, () => compileProbe(programs.subject, this.#newton, reach));
    const { rule } = this.#state;
    let factor = 1;
    let reduced = false;
    for (let tries = first ? PROBE.firstTries : PROBE.tries; tries > 0; tries--) {
      const handle = this.#scalarOf(factor);
      const params = handlesOf(this.#values.tensors());
      const [accepted = 0] = native.runProgram(program, [...params, ...rule, ...common, handle]);
      const answer = await native.read(accepted);
      native.dispose([handle, accepted]);
      if (answer[0] === 1) break;
      factor *= PROBE.shrink;
      reduced = true;
    }
    if (reduced && !first) factor *= PROBE.caution;
    if (factor !== 1) this.#rescale(programs, factor);
    return factor;
  }

  #rescale(programs: Programs, factor: number): void {
    const program = programOf(programs, "rescale", () => compileRescale(programs.subject, this.#newton));
    const { rule } = this.#state;
    const params = handlesOf(this.#values.tensors());
    const handle = this.#scalarOf(factor);
    const results = native.runProgram(program, [...params, ...rule, handle, this.#scale.handle]);
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
    factor: number,
    losses: readonly Promise<number>[],
    onOwn?: (report: StepReport) => void,
  ): void {
    const bytes = native.read(report).finally(() => native.dispose([report]));
    bytes.catch(() => undefined); // handled below, in its turn
    this.#delivery = this.#delivery
      .then(async () => {
        const plain = this.#read(index, await bytes);
        const loss = await meanLoss(losses, plain.loss);
        const read = { ...plain, loss, alpha: plain.alpha * factor, nextAlpha: plain.nextAlpha * factor };
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
    const recovers = rule === "next" || (guard && rule !== "constant");
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
    const subject: Subject = {
      params: kinds,
      paths: this.#values.paths,
      clip: this.#clip,
      accumulate: this.#micro.perStep,
      direction: directionTree,
      ownRule: ownRuleTree,
      rule: ruleKinds,
      batch: withoutValues(batch),
      states: this.#values.states().map(({ dtype, shape }) => ({ dtype, shape })),
      lossOf: (params, states, traced, key) =>
        this.#values.bound(params, states, key, (tree) => this.#loss(traced as B, tree as P), this.#precision),
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

function programOf(programs: Programs, name: string, compile: () => number): number {
  const known = programs.compiled.get(name);
  if (known !== undefined) return known;
  const program = untracked(compile);
  programs.compiled.set(name, program);
  return program;
}

function disposePrograms(programs: Programs): void {
  for (const program of programs.compiled.values()) native.disposeProgram(program);
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
