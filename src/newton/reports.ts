/**
 * Reports of steps: read in the order of the steps, at once where they are there, and handed to whoever asked for them. Here
 * it is decided when training cannot go on. What the numbers of a report are is `report.ts`'s subject.
 */
import { scalarDType } from "../device";
import { view } from "../dtype";
import { RaphsonError } from "../errors";
import { type Handle, native, readBytes } from "../native";
import { alphaCount } from "./groups";
import { meanLoss } from "./microBatches";
import type { NewtonOptimizer } from "./newton";
import type { Precision } from "./precision";
import {
  nextAlphas,
  type Rates,
  type ReportForm,
  readReport,
  reportLength,
  type StepReport,
  withRates,
} from "./report";
import { startUpOf } from "./startUp";

/** Steps in a row with a loss that is not finite before a recovering rule gives up. */
const MAX_NON_FINITE = 100;

/** Steps whose reports may be outstanding; of slow steps: one that runs, and one that it is followed by. */
const [MOST, MOST_SLOW] = [8, 2];
/** A step that takes longer is slow. */
const SLOW_MS = 10;
/** Reports that nobody waits for are asked for within this time. */
const LATEST_MS = 50;

/** What a report consists of: its numbers, or the tensor that will hold them. */
export type ReportSource = Float64Array | Float32Array | Handle;

/** What belongs to a step beside its own report. */
export interface Beside {
  /** What the start-up says in place of the report, for each group of parameters. */
  readonly rates?: readonly Rates[] | Promise<readonly Rates[]> | undefined;
  /** The losses of the step's batches before its last. */
  readonly losses: readonly Promise<number>[];
  readonly onOwn?: ((report: StepReport) => void) | undefined;
}

/** A step whose report has not been delivered. */
interface Outstanding {
  readonly index: number;
  readonly source: ReportSource;
  readonly beside: Beside;
}

/** The reports of one training step. */
export class Reports {
  /** α of the next step, as far as reports have come in: of each group, or of all parameters where they share it. */
  alphas: readonly number[];
  /** Steps in a row up to the newest report whose loss was not finite. */
  nonFinite = 0;
  /** What the numbers are kept in. */
  readonly dtype = scalarDType();
  readonly length: number;
  readonly #newton: NewtonOptimizer;
  readonly #form: ReportForm;
  readonly #onReport: ((report: StepReport) => void) | undefined;
  #failure: { error: unknown } | undefined;
  /** Those that have not been asked for yet, oldest first; and how many are on their way. */
  #waiting: Outstanding[] = [];
  #coming = 0;
  #delivery: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #most = MOST_SLOW;

  constructor(newton: NewtonOptimizer, precision: Precision, onReport: ((report: StepReport) => void) | undefined) {
    this.alphas = Array.from({ length: alphaCount(newton) }, () => newton.spec.initial);
    this.#form = { telemetry: newton.telemetry, precision, alphas: this.alphas.length };
    this.length = reportLength(this.#form);
    this.#newton = newton;
    this.#onReport = onReport;
  }

  /** How many have not been delivered. */
  get outstanding(): number {
    return this.#waiting.length + this.#coming;
  }

  /**
   * Asks for those that are outstanding, but for the newest `behind`, and resolves when they are in: as many as there are by
   * one message from the computation's thread, for each wakes this one.
   */
  arrive(behind = 0): Promise<void> {
    const group = this.#waiting.splice(0, this.#waiting.length - behind);
    if (group.length === 0) return this.#delivery;
    this.#coming += group.length;
    const numbers = this.#numbersOfAll(group).catch(() => undefined); // it shows again when each is read by itself
    this.#delivery = this.#delivery.then(() => this.#deliverAll(group, numbers));
    return this.#delivery;
  }

  /** Whether some have to come in before another step may be queued. */
  get full(): boolean {
    return this.outstanding >= this.#most;
  }

  /** Waits for all but the newest, with which the computation goes on meanwhile. */
  async room(): Promise<void> {
    const start = performance.now();
    await this.arrive(1);
    this.#most = performance.now() - start > SLOW_MS * (this.#most - 1) ? MOST_SLOW : MOST;
  }

  /** Throws what has gone wrong so far. */
  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** The report of step number `index`. */
  read(index: number, numbers: Float64Array | Float32Array): StepReport {
    return readReport(index, numbers, this.#form);
  }

  /** The numbers in a report's bytes. */
  numbersOf(bytes: Uint8Array): Float64Array | Float32Array {
    return view(this.dtype, bytes) as Float64Array | Float32Array;
  }

  /** Delivers a report after those before it: at once if it is there and none of them is outstanding. A handle is freed. */
  add(index: number, source: ReportSource, beside: Beside): void {
    const isHere = typeof source !== "number" && beside.losses.length === 0;
    if (isHere && this.outstanding === 0) {
      try {
        this.#deliver(this.read(index, source), beside);
      } catch (error) {
        this.#failure ??= { error };
      }
      return;
    }
    // What is here is overwritten by the next step.
    this.#waiting.push({ index, source: typeof source === "number" ? source : source.slice(), beside });
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      void this.arrive();
    }, LATEST_MS);
  }

  /** α as applied and α of the next step, of each group: its part of a rule's state begins with them, at these places. */
  ratesIn(state: readonly Handle[], heads: readonly number[]): Promise<Rates[]> {
    const one = async (at: number) => this.numbersOf(await readBytes(state[at] ?? 0))[0] ?? Number.NaN;
    const both = async (head: number) => {
      const [nextAlpha, alpha] = await Promise.all([one(head), one(head + 1)]);
      return { alpha, nextAlpha };
    };
    return Promise.all(heads.map(both));
  }

  /** The numbers of each, read together. */
  async #numbersOfAll(group: readonly Outstanding[]): Promise<(Float64Array | Float32Array)[]> {
    const handles = group.flatMap(({ source }) => (typeof source === "number" ? source : []));
    const row = this.numbersOf(handles.length === 0 ? new Uint8Array(0) : await native.read(handles));
    let read = 0;
    return group.map(({ source }) => {
      if (typeof source !== "number") return source;
      read += this.length;
      return row.subarray(read - this.length, read);
    });
  }

  /** Delivers what was read together. Where that failed, each is read by itself: those before the failure are told. */
  async #deliverAll(
    group: readonly Outstanding[],
    reading: Promise<(Float64Array | Float32Array)[] | undefined>,
  ): Promise<void> {
    const all = await reading;
    for (const [at, one] of group.entries()) {
      try {
        const own = all === undefined ? (await this.#numbersOfAll([one]))[0] : all[at];
        const plain = this.read(one.index, own as Float64Array);
        const { rates, losses } = one.beside;
        const whole = rates === undefined && losses.length === 0 ? plain : await completed(plain, one.beside);
        this.#deliver(whole, one.beside);
      } catch (error) {
        this.#failure ??= { error };
      } finally {
        this.#coming -= 1;
        if (typeof one.source === "number") native.dispose([one.source]);
      }
    }
  }

  #deliver(report: StepReport, { onOwn }: Beside): void {
    this.alphas = nextAlphas(report);
    this.#checkFinite(report);
    this.#onReport?.(report);
    onOwn?.(report);
  }

  /** A guarded rule leaves the parameters alone where the loss is not finite; others would go on from spoilt ones. */
  #checkFinite({ step, loss }: StepReport): void {
    if (Number.isFinite(loss)) {
      this.nonFinite = 0;
      return;
    }
    this.nonFinite += 1;
    const { rule, guard } = this.#newton.spec;
    const recovers = startUpOf(rule) !== undefined || (guard && rule !== "constant");
    if (recovers && this.nonFinite < MAX_NON_FINITE) return;
    const advice = recovers
      ? `and so were the ${MAX_NON_FINITE - 1} before it; look for NaN in the data or in the initial parameters`
      : 'so training stopped; use a smaller learning rate, or newton(…) with the rule "next", which recovers';
    const error = new RaphsonError("NON_FINITE", "trainingStep", `the loss at step ${step} is ${loss}, ${advice}`);
    this.#failure ??= { error };
  }
}

/** A report with the start-up's rates, and the loss of the step's batches together. */
async function completed(report: StepReport, { rates, losses }: Beside): Promise<StepReport> {
  const known = await rates;
  const rated = known === undefined ? report : withRates(report, known);
  return { ...rated, loss: await meanLoss(losses, report.loss) };
}
