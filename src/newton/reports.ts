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

/** What a report consists of: its numbers, or the tensor that will hold them. */
export type ReportSource = Float64Array | Float32Array | Handle;

/** What belongs to a step beside its own report. */
export interface Beside {
  /** What the start-up says in place of the report, for each group of parameters. */
  readonly rates?: readonly Rates[] | Promise<readonly Rates[]> | undefined;
  /** The losses of the step's batches before its last. */
  readonly losses?: readonly Promise<number>[];
  readonly onOwn?: ((report: StepReport) => void) | undefined;
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
  /** Those on their way, oldest first. */
  readonly #pending: Promise<void>[] = [];
  #delivery: Promise<void> = Promise.resolve();

  constructor(newton: NewtonOptimizer, precision: Precision, onReport: ((report: StepReport) => void) | undefined) {
    this.alphas = Array.from({ length: alphaCount(newton) }, () => newton.spec.initial);
    this.#form = { telemetry: newton.telemetry, precision, alphas: this.alphas.length };
    this.length = reportLength(this.#form);
    this.#newton = newton;
    this.#onReport = onReport;
  }

  /** How many are on their way. */
  get outstanding(): number {
    return this.#pending.length;
  }

  /** Resolves when the oldest of those on their way is in. */
  get oldest(): Promise<void> | undefined {
    return this.#pending[0];
  }

  /** Resolves when all are in. */
  get settled(): Promise<void> {
    return this.#delivery;
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
    const { losses = [] } = beside;
    if (typeof source !== "number" && this.#pending.length === 0 && losses.length === 0) {
      this.#attempt(() => this.#deliver(this.read(index, source), beside));
      return;
    }
    const numbers = typeof source === "number" ? this.#fetch(source) : Promise.resolve(source.slice());
    const all = Promise.all([numbers, beside.rates]);
    all.catch(() => undefined); // handled below, in its turn
    this.#delivery = this.#delivery
      .then(async () => {
        const [own, rates] = await all;
        const plain = this.read(index, own);
        const report = rates === undefined ? plain : withRates(plain, rates);
        this.#deliver({ ...report, loss: await meanLoss(losses, plain.loss) }, beside);
      })
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#pending.shift();
      });
    this.#pending.push(this.#delivery);
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

  async #fetch(report: Handle): Promise<Float64Array | Float32Array> {
    return this.numbersOf(await native.read(report).finally(() => native.dispose([report])));
  }

  #attempt(deliver: () => void): void {
    try {
      deliver();
    } catch (error) {
      this.#failure ??= { error };
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
