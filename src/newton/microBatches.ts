/**
 * What a step of several micro-batches gathers before its last one: sums of gradients, losses, and the states that the
 * batches move one after another, which become the model's only if the step is accepted.
 */
import { type Handle, native } from "../native";

/** What the micro-batches of the step under way have left so far. */
export class MicroBatches {
  /** How many make a step. */
  readonly perStep: number;
  #sums: Handle[] = [];
  #states: Handle[] | undefined;
  #losses: Promise<number>[] = [];

  constructor(perStep: number) {
    this.perStep = perStep;
  }

  /** Micro-batches gathered of the step under way. */
  get gathered(): number {
    return this.#losses.length;
  }

  /** Queues a micro-batch's program, which takes the sums so far and `rest`, and gives sums, `states` states, and loss. */
  gather(program: number, rest: readonly Handle[], states: number): void {
    const results = native.runProgram(program, [...this.#sums, ...rest]);
    native.dispose(this.#sums);
    const loss = results.pop() ?? 0;
    native.dispose(this.#states ?? []);
    this.#states = results.splice(results.length - states);
    this.#sums = results;
    const read = native.read([loss]).finally(() => native.dispose([loss]));
    const value = read.then((bytes) => new Float64Array(bytes.slice().buffer)[0] ?? Number.NaN);
    value.catch(() => undefined); // whoever takes it sees the error
    this.#losses.push(value);
  }

  /** The sums, for the step's last program to read. */
  get sums(): readonly Handle[] {
    return this.#sums;
  }

  /** The states after the newest of them, or undefined where there is none. */
  get states(): readonly Handle[] | undefined {
    return this.#states;
  }

  /** Resolves when the micro-batches queued so far are through, but for the newest few. */
  async breathe(inFlight: number): Promise<void> {
    await this.#losses.at(-inFlight);
  }

  /** The losses so far, when they are there. */
  losses(): Promise<number[]> {
    return Promise.all(this.#losses);
  }

  /** Goes on from what a checkpoint held; takes the handles over. */
  restore(sums: Handle[], states: Handle[], losses: readonly number[]): void {
    this.clear();
    this.#sums = sums;
    this.#states = losses.length === 0 ? undefined : states;
    this.#losses = losses.map((loss) => Promise.resolve(loss));
  }

  /** Begins anew; gives the losses of the step that is complete now. */
  clear(): readonly Promise<number>[] {
    native.dispose([...this.#sums, ...(this.#states ?? [])]);
    this.#states = undefined;
    const losses = this.#losses;
    this.#sums = [];
    this.#losses = [];
    return losses;
  }
}

/** The mean of the micro-batches' losses and that of the last one. */
export async function meanLoss(losses: readonly Promise<number>[], last: number): Promise<number> {
  const others = await Promise.all(losses);
  return (others.reduce((sum, loss) => sum + loss, 0) + last) / (others.length + 1);
}
