/** The types of `protocol.mjs`. */
import type { Entry, Workload } from "./workloads";

/** An array of a workload's file, as `openFile` reads it. */
export type Operand = Entry & { readonly values: Float32Array | Int32Array };

export interface StepSubject {
  step(): unknown;
  wait(loss: unknown): Promise<number>;
  /** What the compiled step amounts to, if the peer knows. */
  plan?(): unknown;
}

export interface OpSubject {
  run(): unknown;
  wait(): Promise<unknown>;
  /** The mean of the absolute values of each result. */
  sums(): Promise<number[]>;
}

export function openFile(path: string): (entry: Entry) => Float32Array | Int32Array;
export function serve(
  version: string,
  loadStep: (workload: Workload) => StepSubject | Promise<StepSubject>,
  loadOp: (op: string, operands: readonly Operand[]) => OpSubject | Promise<OpSubject>,
): Promise<void>;
