/**
 * Recognises batches like the one before without taking them apart: plain objects whose fields are tensors of the same
 * names, dtypes and shapes. What is no such object is `tree.ts`'s subject.
 */
import type { Handle } from "../native";
import { type AnyTensor, Tensor } from "../tensor";

/** A kind of batch, and what belongs to it. */
export class Familiar<T> {
  readonly #names: readonly string[];
  readonly #kinds: readonly AnyTensor["dtype"][];
  readonly #shapes: readonly AnyTensor["shape"][];

  private constructor(
    fields: readonly (readonly [string, AnyTensor])[],
    /** What belongs to it. */
    readonly its: T,
  ) {
    this.#names = fields.map(([name]) => name);
    this.#kinds = fields.map(([, tensor]) => tensor.dtype);
    this.#shapes = fields.map(([, tensor]) => tensor.shape);
  }

  /** The kind of this batch, if it is one of those that are recognised. */
  static of<T>(batch: unknown, its: T): Familiar<T> | undefined {
    if (!isPlain(batch)) return undefined;
    const fields = Object.entries(batch);
    return fields.every(isTensorField) ? new Familiar(fields as [string, AnyTensor][], its) : undefined;
  }

  /** The handles of a batch of this kind, in the order of its fields; undefined for any other. */
  handlesOf(batch: unknown): Handle[] | undefined {
    if (!isPlain(batch)) return undefined;
    const handles: Handle[] = [];
    for (const name in batch) {
      const [index, tensor] = [handles.length, batch[name]];
      if (name !== this.#names[index] || !(tensor instanceof Tensor)) return undefined;
      if (tensor.dtype !== this.#kinds[index] || !sameShape(tensor.shape, this.#shapes[index])) return undefined;
      handles.push(tensor.handle);
    }
    return handles.length === this.#names.length ? handles : undefined;
  }
}

const isTensorField = ([, value]: [string, unknown]) => value instanceof Tensor;

function isPlain(batch: unknown): batch is Record<string, unknown> {
  return typeof batch === "object" && batch !== null && Object.getPrototypeOf(batch) === Object.prototype;
}

function sameShape(a: readonly number[], b: readonly number[] | undefined): boolean {
  if (a === b) return true;
  if (b === undefined || a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}
