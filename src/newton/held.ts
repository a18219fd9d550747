/**
 * A parameter's value in the hands of a training step: one handle, which stands for another value after each step. Tensors
 * are made of it only for those who ask, and end with the value that they showed.
 */
import type { DType } from "../dtype";
import type { Parameter, ValueSource } from "../nn/module";
import { type AnyTensor, fromHandle, type Shape, type Tensor } from "../tensor";
import { untracked } from "../tidy";

/** The value of one parameter. */
export class Held implements ValueSource {
  /** Owns the handle; nobody else sees it. */
  readonly #own: AnyTensor;
  /** What was made of the newest value. */
  #lent: AnyTensor | undefined;

  /** Takes the tensor over: whoever has it finds it disposed of. */
  constructor(tensor: AnyTensor) {
    const { dtype, shape } = tensor;
    const handle = tensor.release("a training step has taken it over; read the parameter's value anew");
    this.#own = untracked(() => fromHandle(handle, dtype, shape));
  }

  get dtype(): DType {
    return this.#own.dtype;
  }

  get shape(): Shape {
    return this.#own.shape;
  }

  /** The number that stays. */
  get handle(): number {
    return this.#own.handle;
  }

  /** Whether the user has disposed of what was lent, and so of the value. */
  get ended(): boolean {
    return this.#lent?.isDisposed === true;
  }

  /** The newest value. */
  tensor(): AnyTensor {
    this.#lent ??= untracked(() => this.#own.clone());
    return this.#lent;
  }

  lend(): Tensor | undefined {
    return this.ended ? undefined : (this.tensor() as Tensor); // parameters of modules are f32
  }

  /** The handle stands for a new value: what was lent shows the old one, and ends. */
  moved(): void {
    if (this.#lent === undefined) return;
    this.#lent.dispose();
    this.#lent = undefined;
  }

  /** Ends this, but not what was lent. The parameter, if it has no other value by now, has this one itself. */
  end(parameter?: Parameter): void {
    const own = parameter?.source === this && !this.ended ? (this.#lent ?? this.#own) : undefined;
    if (own !== undefined) parameter?.set(own as Tensor);
    if (own !== this.#own) this.#own.dispose();
  }
}
