/**
 * A step's run as one call into the addon, without an object made for it: operands in an array that is used again, the
 * report beside it where it is there at once. Which program runs on what is `step.ts`'s subject.
 */
import type { FloatDType } from "../dtype";
import { type Handle, native } from "../native";

/** What a training step's program is called with, and what it gives. */
export class Launch {
  /** The report of the newest step, if `reported`; overwritten by the next. */
  readonly numbers: Float64Array | Float32Array;
  readonly #bytes: Uint8Array;
  #operands = new Float64Array(0);
  #length = 0;
  #others = new Float64Array(1);

  /** `length`: numbers of a report; `dtype`: theirs. */
  constructor(length: number, dtype: FloatDType) {
    this.numbers = dtype === "f64" ? new Float64Array(length) : new Float32Array(length);
    this.#bytes = new Uint8Array(this.numbers.buffer);
  }

  /** Begins a list of this many operands. */
  begin(operands: number): void {
    if (this.#operands.length !== operands) this.#operands = new Float64Array(operands);
    this.#length = 0;
  }

  /** The next operand; 0 for the step's number. */
  add(handle: Handle): void {
    this.#operands[this.#length++] = handle;
  }

  /** The next operands. */
  addAll(handles: readonly Handle[]): void {
    for (let index = 0; index < handles.length; index++) this.#operands[this.#length++] = handles[index] ?? 0;
  }

  /**
   * Runs the program. The first `moved` operands' handles stand for its first results afterwards; then comes the report,
   * which is in `numbers` if this returns true, and `others` more results.
   */
  run(program: number, counter: number, moved: number, others: number, reads: boolean): boolean {
    if (this.#others.length !== 1 + others) this.#others = new Float64Array(1 + others);
    return native.runStep(program, this.#operands, counter, moved, reads ? this.#bytes : NOTHING, this.#others);
  }

  /** The report's handle, or 0 where it was read; the caller frees it. */
  get report(): Handle {
    return this.#others[0] ?? 0;
  }

  /** The handles of the other results, which the caller frees. */
  get others(): Handle[] {
    return this.#others.length === 1 ? NO_HANDLES : Array.from(this.#others.subarray(1));
  }
}

const NOTHING = new Uint8Array(0);
const NO_HANDLES: Handle[] = [];
