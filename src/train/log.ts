/**
 * The log of a run: `steps.jsonl`, one JSON object a line, written as the run goes on; events for TensorBoard; and at the
 * end `report.html`. How the latter two look, `tensorboard.ts` and `report/page.ts` say.
 */
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  type WriteStream,
  writeFileSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import { argumentError, RaphsonError } from "../errors";
import type { StepReport } from "../newton/step";
import { page } from "../report/page";
import { LOG_FILE, readRun } from "../report/runs";
import type { Evaluation } from "./history";
import { TensorBoardLog } from "./tensorboard";

/** What a log can consist of. */
export const LOG_FORMATS = ["jsonl", "tensorboard", "report"] as const;

/** Where a run is logged, and how. */
export interface LogOptions {
  readonly folder: string;
  /**
   * `jsonl`: `steps.jsonl`, a line for each step and each evaluation; `tensorboard`: an event file; `report`: `report.html`,
   * one file with charts, made from `steps.jsonl` at the end, however the run ends. All three if not given.
   */
  readonly formats?: readonly (typeof LOG_FORMATS)[number][];
}

/** The options, checked. */
export function checkLog(log: string | LogOptions | undefined): Required<LogOptions> | undefined {
  if (log === undefined) return undefined;
  const { folder, formats = LOG_FORMATS } = typeof log === "string" ? { folder: log } : log;
  if (typeof folder !== "string" || folder === "")
    throw argumentError("train", "log must be a folder's path, or { folder, formats }");
  const unknown = formats.find((format) => !LOG_FORMATS.includes(format));
  if (unknown !== undefined) {
    throw argumentError(
      "train",
      `there is no log format ${JSON.stringify(unknown)}; there are ${LOG_FORMATS.join(", ")}`,
    );
  }
  if (formats.includes("report") && !formats.includes("jsonl")) {
    throw argumentError("train", 'the format "report" is made from "jsonl"; give both');
  }
  return { folder, formats };
}

/** What was done before this process. */
interface Before {
  readonly steps: number;
  readonly evaluations: readonly Evaluation[];
}

/** Numbers that JSON has no word for become strings ("NaN", "Infinity"). */
function plain(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

/** Writes the log of a run. */
export class RunLog {
  readonly #folder: string;
  readonly #lines: WriteStream | undefined;
  readonly #events: TensorBoardLog | undefined;
  readonly #reports: boolean;
  #error: Error | undefined;

  /** What `steps.jsonl` says of steps and evaluations after those of `before` is of a run that was not saved, and goes. */
  constructor({ folder, formats }: Required<LogOptions>, before: Before, about: Readonly<Record<string, unknown>>) {
    this.#folder = folder;
    this.#reports = formats.includes("report");
    const onError = (error: Error) => {
      this.#error ??= error;
    };
    const path = join(folder, LOG_FILE);
    try {
      mkdirSync(folder, { recursive: true });
      if (before.steps > 0) keepUntil(path, before);
    } catch (cause) {
      throw this.#failed(cause);
    }
    if (formats.includes("jsonl")) {
      this.#lines = createWriteStream(path, { flags: before.steps > 0 ? "a" : "w" }).on("error", onError);
    }
    if (formats.includes("tensorboard"))
      this.#events = new TensorBoardLog(folder, before.steps, before.evaluations, onError);
    this.#line({ kind: "run", ...about });
  }

  /** `seconds`: since the run's beginning. */
  step(report: StepReport, seconds: number): void {
    this.#line({ kind: "step", ...report, seconds: Number(seconds.toFixed(6)) });
    this.#events?.step(report);
  }

  evaluation(evaluation: Evaluation): void {
    this.#line({ kind: "evaluation", ...evaluation });
    this.#events?.evaluation(evaluation);
  }

  /** Resolves when everything is written. */
  async close(): Promise<void> {
    await Promise.all([this.#closeLines(), this.#events?.close()]);
    if (this.#error !== undefined) throw this.#failed(this.#error);
    if (!this.#reports) return;
    try {
      await writeReport(this.#folder);
    } catch (cause) {
      throw cause instanceof RaphsonError ? cause : this.#failed(cause);
    }
  }

  #closeLines(): Promise<void> | undefined {
    const stream = this.#lines;
    if (stream === undefined || stream.closed) return undefined;
    return new Promise((done) => {
      stream.once("close", done);
      stream.end();
    });
  }

  #line(entry: object): void {
    if (this.#error === undefined) this.#lines?.write(`${JSON.stringify(entry, plain)}\n`);
  }

  #failed(cause: unknown): RaphsonError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new RaphsonError("FILE", "train", `cannot write the log in ${this.#folder}: ${reason}`, { cause });
  }
}

/** Draws a run's `steps.jsonl` as `report.html` beside it. */
async function writeReport(folder: string): Promise<void> {
  const name = basename(resolve(folder));
  replace(join(folder, "report.html"), page(name, [await readRun(folder, name)]));
}

/** The old file or the new one, never half of it. */
function replace(path: string, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}

/** Leaves the lines of the first steps and the first evaluations. */
function keepUntil(path: string, { steps, evaluations }: Before): void {
  if (!existsSync(path)) return;
  let evaluated = 0;
  const kept = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => {
      const { kind, step } = entryOf(line);
      if (kind === "evaluation") return ++evaluated <= evaluations.length;
      return kind === "run" || (kind === "step" && Number(step) < steps);
    });
  replace(path, kept.map((line) => `${line}\n`).join(""));
}

function entryOf(line: string): { kind?: unknown; step?: unknown } {
  try {
    return JSON.parse(line);
  } catch {
    return {}; // the last line of a process that was killed
  }
}
