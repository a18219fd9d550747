/** Worker processes, and the queue of runs that waits for them. Results come from the store where it has them. */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { RunResult, RunSpec } from "./run";
import type { Store } from "./store";
import type { Answer } from "./worker";

/** A run that waits, and who waits for it. */
interface Waiting {
  readonly spec: RunSpec;
  readonly resolve: (result: RunResult) => void;
  readonly reject: (error: Error) => void;
}

/** Why a run was not begun: the time that the benchmark was given is over. */
export class OutOfTime extends Error {}

/** How far the pool is. */
export interface Standing {
  readonly done: number;
  readonly known: number;
  readonly waiting: number;
  /** Seconds of a run, on average. */
  readonly seconds: number;
  readonly last: string;
}

/** Runs specs in several processes at a time, each with one thread. */
export class Pool {
  readonly #store: Store;
  readonly #workers: number;
  readonly #idle: ChildProcess[] = [];
  readonly #all = new Set<ChildProcess>();
  readonly #queue: Waiting[] = [];
  readonly #running = new Map<string, Promise<RunResult>>();
  readonly #hungry: (() => void)[] = [];
  readonly #quiet: (() => void)[] = [];
  readonly #onProgress: (standing: Standing) => void;
  /** When runs are no longer begun, as `performance.now()` has it. */
  readonly #deadline: number;
  #busy = 0;
  #done = 0;
  #known = 0;
  #seconds = 0;
  #closed = false;

  constructor(store: Store, workers: number, minutes: number, onProgress: (standing: Standing) => void) {
    this.#store = store;
    this.#workers = workers;
    this.#onProgress = onProgress;
    this.#deadline = performance.now() + 60_000 * minutes;
  }

  /** The result of a run: from the store, or as soon as a worker has it. */
  run(spec: RunSpec): Promise<RunResult> {
    const known = this.#store.get(spec);
    if (known !== undefined) {
      this.#known += 1;
      return Promise.resolve(known);
    }
    const key = JSON.stringify(spec);
    const running = this.#running.get(key);
    if (running !== undefined) return running;
    const result = new Promise<RunResult>((resolve, reject) => {
      this.#queue.push({ spec, resolve, reject });
    }).finally(() => this.#running.delete(key));
    this.#running.set(key, result);
    this.#next();
    return result;
  }

  /** Resolves when fewer runs wait than there are workers. */
  hungry(): Promise<void> {
    if (this.#queue.length < this.#workers) return Promise.resolve();
    return new Promise((resolve) => {
      this.#hungry.push(resolve);
    });
  }

  /** Ends the workers when the runs under way are through. */
  async close(): Promise<void> {
    if (this.#busy > 0) await new Promise<void>((resolve) => this.#quiet.push(resolve));
    this.#closed = true;
    for (const child of this.#all) child.disconnect();
  }

  #next(): void {
    if (performance.now() > this.#deadline) {
      // those under way end; their results are kept
      for (const { reject } of this.#queue.splice(0)) reject(new OutOfTime());
    }
    while (this.#busy < this.#workers) {
      const waiting = this.#queue.shift();
      if (waiting === undefined) break;
      this.#start(waiting);
    }
    if (this.#queue.length < this.#workers) for (const resolve of this.#hungry.splice(0)) resolve();
    if (this.#busy === 0) for (const resolve of this.#quiet.splice(0)) resolve();
  }

  #start({ spec, resolve, reject }: Waiting): void {
    this.#busy += 1;
    const child = this.#idle.pop() ?? this.#fork();
    const over = (answer: Answer) => {
      for (const event of ["message", "error", "exit"]) child.removeAllListeners(event);
      this.#busy -= 1;
      if ("result" in answer) {
        this.#idle.push(child);
        this.#store.add(spec, answer.result);
        this.#count(spec, answer.result);
        resolve(answer.result);
      } else {
        // what a failed run left behind is not for the next one
        if (child.connected) child.disconnect();
        this.#all.delete(child);
        reject(new Error(`${describe(spec)}: ${answer.error}`));
      }
      this.#next();
    };
    child.once("message", (answer: Answer) => over(answer));
    child.once("error", (error) => over({ error: error.message }));
    child.once("exit", (code, signal) => {
      if (!this.#closed) over({ error: `the worker ended with ${signal ?? code}` });
    });
    child.send(spec);
  }

  #fork(): ChildProcess {
    const child = fork(join(__dirname, "worker.ts"), {
      execArgv: ["-r", "ts-node/register/transpile-only"],
      env: { ...process.env, RAPHSON_THREADS: "1" },
    });
    this.#all.add(child);
    return child;
  }

  #count(spec: RunSpec, { seconds, loss }: RunResult): void {
    this.#done += 1;
    this.#seconds += seconds;
    this.#onProgress({
      ...{ done: this.#done, known: this.#known, waiting: this.#queue.length + this.#busy },
      seconds: this.#seconds / this.#done,
      last: `${describe(spec)}: ${loss === null ? "diverged" : loss.toPrecision(4)}, ${seconds} s`,
    });
  }
}

/** A run in a few words. */
export function describe({ problem, optimizer, method, alpha, steps, batch, seed }: RunSpec): string {
  const from = alpha === null ? "" : ` α ${alpha.toPrecision(3)}`;
  return `${problem} ${optimizer} ${method}${from}, ${steps} steps of ${batch === 0 ? "all" : batch}, seed ${seed}`;
}
