/**
 * State: values that belong to a model and move with its forward passes, but that no gradient changes, such as the running
 * statistics of batch normalisation. How new values travel out of a forward pass is told in `context`.
 */

import { argumentError, shapeError } from "../errors";
import { type Shape, Tensor } from "../tensor";
import { full } from "../tensor/creation";
import { checkShape, describe, showShape } from "../tensor/validate";
import { untracked } from "../tidy";
import { isTracing } from "../trace";
import { currentUpdate, currentValue, recordUpdate } from "./context";
import type { ParameterLike } from "./moduleLike";

/** A value that moves with forward passes: saved and loaded with the model, never differentiated. */
export class State implements ParameterLike {
  readonly shape: Shape;
  #value: Tensor | undefined;

  constructor(
    shape: Shape,
    /** Every element before the first update. */
    readonly initial = 0,
  ) {
    this.shape = checkShape("state", shape);
  }

  /** The value to calculate with: updated in this forward pass, given by `nn.apply`, or the stored one. */
  get value(): Tensor {
    const given = currentUpdate(this) ?? currentValue(this);
    if (given !== undefined) return given;
    if (this.#value === undefined || this.#value.isDisposed) this.reset();
    return this.#value as Tensor;
  }

  /** The stored value, or undefined while there is none. */
  get current(): Tensor | undefined {
    return this.#value?.isDisposed === true ? undefined : this.#value;
  }

  /** Stores another value of the same shape. The old one is not disposed of: others may hold it. */
  set(value: Tensor): void {
    this.#check(value);
    this.#value = value;
  }

  /** Stores the initial value again. */
  reset(): void {
    this.#value = untracked(() => full(this.shape, this.initial).evaluate());
  }

  /**
   * The value after this forward pass. A training step takes it over if the step is accepted, `nn.apply` hands it to
   * `onStates`. Without either it is stored at once, except inside `grad`, `compile` and their like, where there is no
   * value yet: there it is forgotten.
   */
  update(value: Tensor): void {
    const { dtype } = this.value; // f32, unless nn.apply was given another
    const fresh = value.dtype === dtype ? value : value.cast(dtype);
    this.#checkShape(fresh);
    if (recordUpdate(this, fresh) || isTracing()) return;
    this.#check(fresh);
    const old = this.#value;
    this.#value = untracked(() => fresh.clone()).evaluate();
    old?.dispose();
  }

  #check(value: unknown): void {
    if (!(value instanceof Tensor) || value.dtype !== "f32") {
      throw argumentError("state", `a state holds an f32 tensor, got ${describe(value)}`);
    }
    this.#checkShape(value);
  }

  #checkShape(value: Tensor): void {
    if (value.shape.join() === this.shape.join()) return;
    const both = `${showShape(value.shape)} for a state of ${showShape(this.shape)}`;
    throw shapeError("state", `${both}; the shapes must be equal`, value.shape, this.shape);
  }
}
