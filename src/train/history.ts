/**
 * What a run leaves behind: the numbers of each step in typed arrays, the evaluations, and a summary that people can
 * read. How the numbers come about is `newton/step.ts`'s subject.
 */
import { MEASURES, type Measure } from "../newton/rule";
import type { StepReport } from "../newton/step";

/** A growing row of numbers. */
class Series {
  #values = new Float64Array(1024);
  #length = 0;

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Float64Array(2 * this.#values.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = value;
  }

  /** The same numbers over again. */
  static of(values: Float64Array): Series {
    const series = new Series();
    for (const value of values) series.push(value);
    return series;
  }

  get values(): Float64Array {
    return this.#values.subarray(0, this.#length);
  }
}

/** The numbers of every step, one array each; NaN where a rule does not measure the number. */
export interface History {
  readonly loss: Float64Array;
  /** α as applied, schedule included. */
  readonly alpha: Float64Array;
  /** −φ′(0) along the direction, on the step's own batch. */
  readonly slope: Float64Array;
  /** −φ′ at the new parameters (same-batch rules) or of the previous direction on this batch (`next`). */
  readonly nextSlope: Float64Array;
  readonly curvature: Float64Array;
  readonly nextLoss: Float64Array;
  /** 1 where the step was accepted, 0 where it was taken back. */
  readonly accepted: Float64Array;
  /** What `telemetry` asked for, by name. */
  readonly measured: Readonly<Partial<Record<Measure, Float64Array>>>;
}

const FIELDS = ["loss", "alpha", "slope", "nextSlope", "curvature", "nextLoss", "accepted"] as const;

/** What the names of `measured` begin with among the series. */
const MEASURED = "measured.";

/** Collects the reports of a run. */
export class Recorder {
  readonly #series = new Map<string, Series>();

  add(report: StepReport): void {
    const measured = Object.entries(report.measured);
    if (measured.length === 0 && this.#series.size === FIELDS.length) {
      for (const field of FIELDS) this.#series.get(field)?.push(Number(report[field]));
      return;
    }
    const numbers = new Map(FIELDS.map((field): [string, number] => [field, Number(report[field])]));
    for (const [name, value] of measured) numbers.set(MEASURED + name, value);
    const steps = this.#of("loss").length;
    for (const name of numbers.keys()) {
      // A number that was not measured from the first step on: the run went on with other options.
      if (!this.#series.has(name)) this.#series.set(name, Series.of(new Float64Array(steps).fill(Number.NaN)));
    }
    for (const [name, series] of this.#series) series.push(numbers.get(name) ?? Number.NaN);
  }

  /** The mean loss of the last `count` steps. */
  recentLoss(count: number): number {
    return recentMean(this.#of("loss"), count);
  }

  #of(name: string): Float64Array {
    return this.#series.get(name)?.values ?? new Float64Array();
  }

  /** The numbers so far, a row each, for a checkpoint. */
  rows(): Record<string, Float64Array> {
    return Object.fromEntries([...this.#series].map(([name, series]) => [name, series.values]));
  }

  /** Goes on from the rows of a checkpoint. */
  restore(rows: Readonly<Record<string, Float64Array>>): void {
    this.#series.clear();
    for (const [name, values] of Object.entries(rows)) this.#series.set(name, Series.of(values));
  }

  /** The numbers so far. */
  history(): History {
    const measured = MEASURES.filter((name) => this.#series.has(MEASURED + name));
    return {
      loss: this.#of("loss"),
      alpha: this.#of("alpha"),
      slope: this.#of("slope"),
      nextSlope: this.#of("nextSlope"),
      curvature: this.#of("curvature"),
      nextLoss: this.#of("nextLoss"),
      accepted: this.#of("accepted"),
      measured: Object.fromEntries(measured.map((name) => [name, this.#of(MEASURED + name)])),
    };
  }
}

/** The metrics of one evaluation, and after how many steps and epochs it was made. */
export interface Evaluation {
  readonly step: number;
  readonly epoch: number;
  readonly loss: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** The mean of the last `count` finite values, NaN if there are none. */
export function recentMean(values: Float64Array, count: number): number {
  const finite = values.subarray(Math.max(0, values.length - count)).filter(Number.isFinite);
  return finite.length === 0 ? Number.NaN : finite.reduce((sum, value) => sum + value, 0) / finite.length;
}

/** A number for people: four digits that matter. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** A finished run. */
export class Run {
  readonly history: History;
  readonly evaluations: readonly Evaluation[];
  readonly steps: number;
  readonly epochs: number;
  readonly seconds: number;
  readonly optimizer: string;
  readonly rule: string;
  /** The batches that the compiled step was traced for. */
  readonly signatures: number;

  /** @internal Made by `train`. */
  constructor(parts: Omit<Run, "loss" | "alpha" | "rejected" | "summary">) {
    this.history = parts.history;
    this.evaluations = parts.evaluations;
    this.steps = parts.steps;
    this.epochs = parts.epochs;
    this.seconds = parts.seconds;
    this.optimizer = parts.optimizer;
    this.rule = parts.rule;
    this.signatures = parts.signatures;
  }

  /** The mean training loss of the last 50 steps. */
  get loss(): number {
    return recentMean(this.history.loss, 50);
  }

  /** The last learning rate. */
  get alpha(): number {
    return this.history.alpha.at(-1) ?? Number.NaN;
  }

  /** Steps that were taken back. */
  get rejected(): number {
    return this.history.accepted.filter((value) => value === 0).length;
  }

  /** The run in a few lines of text. */
  summary(): string {
    const { loss, alpha } = this.history;
    const rate = this.steps / Math.max(this.seconds, 1e-9);
    const rows: [string, string][] = [
      ["steps", `${this.steps} in ${short(this.seconds)} s (${short(rate)} a second), ${this.epochs} epochs`],
      ["optimizer", `${this.optimizer}, learning rate by "${this.rule}"`],
      ["loss", `${short(loss[0] ?? Number.NaN)} → ${short(this.loss)} (mean of the last 50 steps)`],
      ["alpha", `${short(alpha[0] ?? Number.NaN)} → ${short(this.alpha)}`],
    ];
    if (this.rejected > 0) rows.push(["taken back", `${this.rejected} steps`]);
    const last = this.evaluations.at(-1);
    if (last !== undefined) {
      const metrics = Object.entries(last.metrics).map(([name, value]) => `${name} ${short(value)}`);
      rows.push(["held out", [`loss ${short(last.loss)}`, ...metrics].join(", ")]);
    }
    return rows.map(([name, text]) => `${name.padEnd(11)}${text}`).join("\n");
  }
}
