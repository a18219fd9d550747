/** The log of a run: one JSON object a line, written as the run goes on. */
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  type WriteStream,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { RaphsonError } from "../errors";
import type { StepReport } from "../newton/step";
import type { Evaluation } from "./history";

/** Numbers that JSON has no word for become strings ("NaN", "Infinity"). */
function plain(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

/** Writes `steps.jsonl` in a folder. */
export class RunLog {
  readonly #path: string;
  readonly #stream: WriteStream;
  #error: Error | undefined;

  /** `steps` and `evaluations`: those done before. What the file says of later ones is of a run that was not saved, and goes. */
  constructor(folder: string, steps = 0, evaluations = 0) {
    this.#path = join(folder, "steps.jsonl");
    try {
      mkdirSync(folder, { recursive: true });
      if (steps > 0) keepUntil(this.#path, steps, evaluations);
    } catch (cause) {
      throw this.#failed(cause);
    }
    this.#stream = createWriteStream(this.#path, { flags: steps > 0 ? "a" : "w" });
    this.#stream.on("error", (error) => {
      this.#error ??= error;
    });
  }

  step(report: StepReport): void {
    this.#write({ kind: "step", ...report });
  }

  evaluation(evaluation: Evaluation): void {
    this.#write({ kind: "evaluation", ...evaluation });
  }

  /** Resolves when everything is written. */
  async close(): Promise<void> {
    if (this.#error === undefined) {
      await new Promise<void>((resolve) => {
        this.#stream.once("close", resolve);
        this.#stream.end();
      });
    }
    if (this.#error !== undefined) throw this.#failed(this.#error);
  }

  #write(entry: object): void {
    if (this.#error === undefined) this.#stream.write(`${JSON.stringify(entry, plain)}\n`);
  }

  #failed(cause: unknown): RaphsonError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new RaphsonError("FILE", "train", `cannot write the log ${this.#path}: ${reason}`, { cause });
  }
}

/** Leaves the lines of the first steps and the first evaluations. */
function keepUntil(path: string, steps: number, evaluations: number): void {
  if (!existsSync(path)) return;
  let evaluated = 0;
  const kept = readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => {
      const { kind, step } = entryOf(line);
      return kind === "evaluation" ? ++evaluated <= evaluations : kind === "step" && Number(step) < steps;
    });
  writeFileSync(`${path}.tmp`, kept.map((line) => `${line}\n`).join(""));
  renameSync(`${path}.tmp`, path);
}

function entryOf(line: string): { kind?: unknown; step?: unknown } {
  try {
    return JSON.parse(line);
  } catch {
    return {}; // the last line of a process that was killed
  }
}
