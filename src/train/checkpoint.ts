/**
 * Checkpoints of `train`: what a run is beside its training step (position in the data, history, evaluations), when it
 * is saved, and how Ctrl-C saves it. The step's own state is `newton/resume.ts`'s subject.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { isMainThread } from "node:worker_threads";
import { argumentError, RaphsonError } from "../errors";
import type { CheckpointExtras } from "../newton/checkpoint";
import type { Evaluation } from "./history";

/** Where and when `train` saves itself. */
export interface CheckpointOptions {
  readonly path: string;
  /** Also after each so many steps; only after epochs, at the end and when stopped, if not given. */
  readonly every?: number;
}

/** Where a run stands. */
export interface Standing {
  /** Epochs done, evaluation included. */
  readonly epoch: number;
  /** Batches taken of the epoch under way. */
  readonly batch: number;
  /** Batches that an epoch of the data has, where that is known. */
  readonly batches: number | undefined;
  readonly evaluations: readonly Evaluation[];
  readonly seconds: number;
}

/** What has the step's state: `TrainingStep`. */
interface Stored {
  readonly steps: number;
  save(path: string, extras: CheckpointExtras): Promise<void>;
  load(path: string): Promise<Required<CheckpointExtras>>;
}

/** The options, checked. */
export function checkCheckpoint(
  checkpoint: string | CheckpointOptions | undefined,
  resume: boolean | string | undefined,
): CheckpointOptions | undefined {
  const options = typeof checkpoint === "string" ? { path: checkpoint } : checkpoint;
  if (options !== undefined && (typeof options.path !== "string" || options.path === "")) {
    throw argumentError("train", "checkpoint must be a path, or { path, every }");
  }
  const every = options?.every;
  if (every !== undefined && !(Number.isSafeInteger(every) && every >= 1)) {
    throw argumentError("train", `checkpoint.every must be a whole number of steps of at least 1, not ${every}`);
  }
  if (resume === true && options === undefined) {
    throw argumentError("train", "resume: true goes on from the file of checkpoint; give checkpoint, or resume: path");
  }
  return options;
}

/** The file to go on from: the one named, or that of `checkpoint` if it is there. */
export function resumedPath(
  checkpoint: CheckpointOptions | undefined,
  resume: boolean | string | undefined,
): string | undefined {
  if (typeof resume === "string") return resume;
  return resume === true && checkpoint !== undefined && existsSync(checkpoint.path) ? checkpoint.path : undefined;
}

// JSON has no word for these numbers; metrics may be any of them.
const encoded = (_: string, value: unknown) =>
  typeof value === "number" && !Number.isFinite(value) ? { notFinite: String(value) } : value;
const decoded = (_: string, value: unknown) =>
  typeof value === "object" && value !== null && "notFinite" in value ? Number(value.notFinite) : value;

/** Saves a run. */
export async function saveRun(
  path: string,
  step: Stored,
  standing: Standing,
  rows: Readonly<Record<string, Float64Array>>,
): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
  } catch (cause) {
    throw new RaphsonError("FILE", "train", `cannot make the folder of the checkpoint ${path}: ${messageOf(cause)}`, {
      cause,
    });
  }
  await step.save(path, { metadata: { run: JSON.stringify(standing, encoded) }, arrays: rows });
}

/** Loads a run into the step, and gives the rest. */
export async function loadRun(path: string, step: Stored) {
  const { metadata, arrays } = await step.load(path);
  const standing = standingOf(path, metadata.run);
  for (const [name, row] of Object.entries(arrays)) {
    if (row.length === step.steps) continue;
    throw damaged(path, `its row ${name} has ${row.length} numbers for ${step.steps} steps`);
  }
  return { standing, rows: arrays };
}

function standingOf(path: string, text: string | undefined): Standing {
  if (text === undefined) {
    throw damaged(path, "it was saved by a step of your own and not by train; go on from it with step.load");
  }
  try {
    const standing: Standing = JSON.parse(text, decoded);
    if (Number.isSafeInteger(standing.epoch) && Number.isSafeInteger(standing.batch)) return standing;
  } catch {
    // told below
  }
  throw damaged(path, "what it says about the run is damaged");
}

/** Refuses data whose epochs are cut otherwise than those of the checkpoint. */
export function checkPosition(path: string, { epoch, batch, batches }: Standing, length: number | undefined): void {
  if (batch === 0 || batches === length) return;
  const here = length === undefined ? "an unknown number" : length;
  throw damaged(
    path,
    `it stands after batch ${batch} of ${batches ?? "an unknown number"} in epoch ${epoch + 1}, and the data have ${here} ` +
      "now; give the same data in batches of the same size",
  );
}

function damaged(path: string, reason: string): RaphsonError {
  return new RaphsonError("FILE", "resume", `cannot go on from ${path}: ${reason}`);
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Listens for Ctrl-C while a run goes on. */
export class Interrupt {
  #seen = false;
  readonly #listener: (() => void) | undefined;

  /** `stop` is called at the first Ctrl-C; the second one ends the process as ever. */
  constructor(stop: () => void) {
    if (!isMainThread) return; // signals are the main thread's
    this.#listener = () => {
      this.#seen = true;
      stop();
    };
    process.once("SIGINT", this.#listener);
  }

  get seen(): boolean {
    return this.#seen;
  }

  close(): void {
    if (this.#listener !== undefined) process.removeListener("SIGINT", this.#listener);
  }

  /** Lets Ctrl-C do what it would have done: ends the process, unless the program has listeners of its own. */
  passOn(path: string, steps: number): never {
    this.close();
    const sentence = `stopped by Ctrl-C after ${steps} steps; ${path} holds the run, and resume: true goes on from it`;
    if (process.listenerCount("SIGINT") === 0) {
      process.stderr.write(`train: ${sentence}\n`);
      process.kill(process.pid, "SIGINT");
    }
    throw new RaphsonError("INTERRUPTED", "train", sentence);
  }
}
