/**
 * Batches: named tensors, and who frees them. A loader marks what it made; the training loop frees marked tensors after
 * the step and leaves the user's own alone.
 */
import type { TypedArray } from "../dtype";
import type { AnyTensor } from "../tensor";
import { fromTypedArray } from "../tensor/creation";
import { dispose, tidy, untracked } from "../tidy";

/** Named tensors; the first axis counts the examples. */
export type Batch = Readonly<Record<string, AnyTensor>>;

const made = new WeakSet<AnyTensor>();

/** A tensor that belongs to the loader, outside every `tidy` scope. */
export function madeTensor(values: TypedArray, shape: readonly number[]): AnyTensor {
  const result: AnyTensor = untracked(() => fromTypedArray(values, shape));
  made.add(result);
  return result;
}

/** Frees what a loader made of this batch. */
export function release(batch: Batch): void {
  dispose(Object.values(batch).filter((part) => made.has(part)));
}

/** `change(batch)`, where everything that the function made belongs to the loader, and the old batch is freed. */
export function keepThrough<A extends Batch, B extends Batch>(batch: A, change: (batch: A) => B): B {
  const changed = untracked(() =>
    tidy(() => Object.fromEntries(Object.entries(change(batch)).map(([name, part]) => [name, part.clone()]))),
  );
  for (const part of Object.values(changed)) made.add(part);
  release(batch);
  return changed as B;
}
