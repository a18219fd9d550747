/**
 * The tensor: a handle on a value that the addon computes when it is read. The elementwise methods come from the
 * generated base class, the composed ones from `tensor/methods`; what needs more than a line of TypeScript lives in `tensor/`, one subject a file.
 */

import {
  type DataOf,
  type DType,
  decode,
  dtypeCode,
  dtypeOfCode,
  type FloatDType,
  type IntegerDType,
  isFloat,
  type NumericDType,
  view,
} from "./dtype";
import { argumentError, disposedError, dtypeError, shapeError } from "./errors";
import { type Handle, native, readBytes } from "./native";
import * as composed from "./tensor/composed";
import * as indexing from "./tensor/indexing";
import * as linear from "./tensor/linear";
import { ComposedMethods } from "./tensor/methods";
import * as movement from "./tensor/movement";
import { formatTensor } from "./tensor/print";
import * as reduction from "./tensor/reduction";
import { describe, scalarOperand } from "./tensor/validate";
import { adopt, disposeHandles, forget } from "./tidy";

/** Sizes of axes, outermost first; a scalar has none. */
export type Shape = readonly number[];

/** A tensor whose dtype does not matter. */
export type AnyTensor = Tensor<DType>;

/** What an elementwise method takes beside its tensor: a tensor of the same dtype, or a number of it. */
export type Operand<D extends DType> = Tensor<D> | number;

/** Axes to work along: one, several, or (left out) all; negative ones count from the last. */
export type Axes = number | readonly number[];

/** The JavaScript value of one element. */
export type ElementOf<D extends DType> = D extends "bool" ? boolean : D extends "i64" ? bigint : number;

/** Nested arrays of elements, as deep as the tensor has axes. */
export type NestedArray<E> = E | NestedArray<E>[];

/** Options of reductions. */
export interface ReduceOptions {
  /** Leave the reduced axes in place with size 1. */
  readonly keepDims?: boolean;
}

/** Options of variance and standard deviation. */
export interface VarianceOptions extends ReduceOptions {
  /** Taken off the count in the divisor: 0 for the population's value (as numpy), 1 for the unbiased estimate. */
  readonly correction?: number;
}

/**
 * An n-dimensional array of one dtype. Operations are recorded, with shapes and dtypes checked at once, and computed
 * when a value is read. Tensors never change; memory goes back on `dispose`, at the end of a `using` or `tidy`, or
 * when the garbage collector gets to it.
 *
 * ```ts
 * import { tensor } from "raphson";
 *
 * const x = tensor([[1, 2], [3, 4]]);
 * console.log(x.mul(2).sum(0).toArray());   // [8, 12]
 * console.log(String(x));
 * ```
 */
export class Tensor<D extends DType = "f32"> extends ComposedMethods<D> {
  #handle: Handle;
  #shape: Shape | undefined;
  #dtype: D | undefined;
  #end = "";

  /** Takes charge of a handle of the addon; users make tensors with `tensor`, `zeros` and the like. */
  constructor(handle: Handle, dtype?: D, shape?: Shape) {
    super();
    this.#handle = handle;
    this.#dtype = dtype;
    this.#shape = shape;
    adopt(this, handle);
  }

  // ---- what it is

  /** Sizes of the axes. */
  get shape(): Shape {
    this.#shape ??= Object.freeze(native.shapeOf(this.handle));
    return this.#shape;
  }

  /** The type of the elements. */
  get dtype(): D {
    this.#dtype ??= dtypeOfCode(native.dtypeOf(this.handle)) as D;
    return this.#dtype;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** The addon's number for the value; a RaphsonError (code `DISPOSED`) after the tensor was disposed of. */
  get handle(): Handle {
    if (this.#handle === 0) {
      throw disposedError(
        "tensor",
        `this tensor has been disposed of (${this.#end}); return it from the scope, use keep(), or dispose of it later`,
      );
    }
    return this.#handle;
  }

  // ---- its end

  /** Whether the memory was given back. */
  get isDisposed(): boolean {
    return this.#handle === 0;
  }

  /** Gives the memory back now. Calling it again does nothing. */
  dispose(): void {
    if (this.#handle !== 0) disposeHandles([this.release("dispose was called")]);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Gives up the handle without freeing it: the caller does. For the scopes and transforms of this package. */
  release(reason: string): Handle {
    const handle = this.#handle;
    if (handle !== 0) {
      this.shape; // stays readable, for messages
      this.dtype;
      this.#handle = 0;
      this.#end = reason;
      forget(this);
    }
    return handle;
  }

  /** A second tensor on the same value, with a life of its own. */
  clone(): Tensor<D> {
    return new Tensor(native.clone(this.handle), this.#dtype, this.#shape);
  }

  // ---- its values

  /** The elements, row-major, as a typed array of your own (f16 and bf16: their bits). Does not block. */
  async data(): Promise<DataOf[D]> {
    const dtype = this.dtype;
    return view(dtype, await readBytes(this.handle));
  }

  /** The elements, row-major, as a typed array of your own. Blocks until they are computed. */
  dataSync(): DataOf[D] {
    return view(this.dtype, native.readSync(this.handle));
  }

  /** The only element. A RaphsonError when there are more or none. */
  item(): ElementOf<D> {
    if (this.size !== 1) {
      throw shapeError("item", `the tensor has ${this.size} elements, not one; use toArray() or data()`, this.shape);
    }
    return element(this, this.dataSync()[0] ?? Number.NaN);
  }

  /** The elements as nested arrays (a number, boolean or, of i64, bigint for a scalar). */
  toArray(): NestedArray<ElementOf<D>> {
    const data = this.dataSync();
    const shape = this.shape;
    const nest = (axis: number, offset: number, length: number): NestedArray<ElementOf<D>> => {
      if (axis === shape.length) return element(this, data[offset] ?? Number.NaN);
      const size = shape[axis] ?? 0;
      const inner = size === 0 ? 0 : length / size;
      return Array.from({ length: size }, (_, i) => nest(axis + 1, offset + i * inner, inner));
    };
    return nest(0, 0, data.length);
  }

  /** What `JSON.stringify` writes: the elements as nested arrays (of strings, if they are i64). Blocks as `toArray`. */
  toJSON(): unknown {
    const text = (value: unknown): unknown =>
      Array.isArray(value) ? value.map(text) : typeof value === "bigint" ? String(value) : value;
    return text(this.toArray());
  }

  /** Starts computing the value now, without waiting for it; returns the tensor. */
  evaluate(): this {
    native.evaluate([this.handle]);
    return this;
  }

  /** The values in the manner of numpy, long axes shortened. Blocks until they are computed. */
  override toString(): string {
    return formatTensor(this);
  }

  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  // ---- dtype and identity

  /** The same values as another dtype. Float → integer truncates and saturates, NaN gives 0; → bool is `≠ 0`. */
  cast<E extends DType>(dtype: E): Tensor<E> {
    const code = dtypeCode(dtype, "cast");
    return new Tensor(native.cast(this.handle, code), dtype, this.#shape);
  }

  /** The same value, through which no derivative passes. */
  stopGradient(): Tensor<D> {
    return new Tensor(native.stopGradient(this.handle), this.#dtype, this.#shape);
  }

  // ---- movement

  /** The same elements, row-major, in another shape; one size may be −1 and follows from the others. */
  reshape(shape: Shape): Tensor<D> {
    return movement.reshape(this, shape);
  }

  /** One axis. */
  flatten(startAxis = 0): Tensor<D> {
    return movement.flattenAxes(this, startAxis);
  }

  /** Axis `i` of the result is axis `axes[i]`; without `axes`, all axes in reverse order. */
  permute(axes?: readonly number[]): Tensor<D> {
    return movement.permute(this, axes);
  }

  /** Two axes exchanged: the last two unless named. */
  transpose(first = -2, second = -1): Tensor<D> {
    return movement.transpose(this, first, second);
  }

  /** Broadcast to `shape` (aligned at the last axis; sizes agree or are 1). */
  broadcastTo(shape: Shape): Tensor<D> {
    return movement.broadcastTo(this, shape);
  }

  /** Without the axes of size 1 (all of them, or those named). */
  squeeze(axes?: Axes): Tensor<D> {
    return movement.squeeze(this, axes);
  }

  /** With an axis of size 1 at `axis` of the result. */
  unsqueeze(axis: number): Tensor<D> {
    return movement.unsqueeze(this, axis);
  }

  /** Zeros (or `value`) around each axis: `[before, after]` for every axis. */
  pad(widths: readonly (readonly [before: number, after: number])[], value = 0): Tensor<D> {
    return movement.pad(this, widths, value);
  }

  /** These axes (or all) backwards. */
  flip(axes?: Axes): Tensor<D> {
    return movement.flip(this, axes);
  }

  /** Copies one after another: `counts[i]` times along axis `i`. */
  tile(counts: readonly number[]): Tensor<D> {
    return movement.tile(this, counts);
  }

  /** In `sections` equal parts along `axis`, or in parts of the given sizes. */
  split(sections: number | readonly number[], axis = 0): Tensor<D>[] {
    return movement.split(this, sections, axis);
  }

  // ---- indexing

  /**
   * Basic indexing as numpy has it. Each index is a number (drops the axis), a range `[start, stop, step]` (parts may
   * be left out or null, negative ones count from the end), `null` (a new axis of size 1), or `"..."`.
   *
   * ```ts
   * import { arange } from "raphson";
   *
   * const t = arange(12).reshape([3, 4]);
   * console.log(t.at(-1).toArray());                        // [8, 9, 10, 11]
   * console.log(t.at([], [null, null, -2]).toArray());      // [[3, 1], [7, 5], [11, 9]]
   * console.log(t.at("...", 0).toArray());                  // [0, 4, 8]
   * ```
   */
  at(...indices: readonly indexing.Index[]): Tensor<D> {
    return indexing.at(this, indices);
  }

  /** Elements `start … stop − 1` of one axis (the first unless named); negative positions count from the end. */
  slice(start: number, stop?: number, axis = 0): Tensor<D> {
    return indexing.slice(this, start, stop, axis);
  }

  /** Slices along `axis` chosen by integer indices; the indices' axes stand in its place. Negative ones are errors. */
  take(indices: indexing.Indices, axis = 0): Tensor<D> {
    return indexing.take(this, indices, axis);
  }

  /** For every position of `indices` the element of `axis` it names: shapes agree except at `axis`. */
  gather(indices: Tensor<IntegerDType>, axis = -1): Tensor<D> {
    return indexing.gather(this, indices, axis);
  }

  /** The adjoint of `take`: zeros of `size` along `axis`, to which this tensor's slices are added at `indices`. */
  scatterAdd<N extends NumericDType>(this: Tensor<N>, indices: indexing.Indices, size: number, axis = 0): Tensor<N> {
    return indexing.scatterAdd(this, indices, size, axis);
  }

  /** 1 where the class equals this integer, 0 elsewhere: a new last axis of size `classes`. */
  oneHot(classes: number): Tensor;
  oneHot<E extends DType>(classes: number, options: { readonly dtype: E }): Tensor<E>;
  oneHot(classes: number, options: { readonly dtype?: DType } = {}): Tensor<DType> {
    return indexing.oneHot(this, classes, options.dtype ?? "f32");
  }

  // ---- reductions

  /** The sum along `axis` (one, several; all when left out). */
  sum<N extends NumericDType>(this: Tensor<N>, axis?: Axes, options?: ReduceOptions): Tensor<N> {
    return reduction.reduce(this, "sum", axis, options);
  }

  /** The product along `axis`. */
  prod<N extends NumericDType>(this: Tensor<N>, axis?: Axes, options?: ReduceOptions): Tensor<N> {
    return reduction.reduce(this, "prod", axis, options);
  }

  /** The largest element along `axis`; NaN if any is. */
  max<N extends NumericDType>(this: Tensor<N>, axis?: Axes, options?: ReduceOptions): Tensor<N> {
    return reduction.reduce(this, "max", axis, options);
  }

  /** The smallest element along `axis`; NaN if any is. */
  min<N extends NumericDType>(this: Tensor<N>, axis?: Axes, options?: ReduceOptions): Tensor<N> {
    return reduction.reduce(this, "min", axis, options);
  }

  /** The mean along `axis`. Float dtypes only: cast first. */
  mean<F extends FloatDType>(this: Tensor<F>, axis?: Axes, options?: ReduceOptions): Tensor<F> {
    return reduction.mean(this, axis, options);
  }

  /** The variance along `axis`, divided by count − `correction` (0 unless given). */
  variance<F extends FloatDType>(this: Tensor<F>, axis?: Axes, options?: VarianceOptions): Tensor<F> {
    return reduction.variance(this, axis, options);
  }

  /** The standard deviation along `axis`: the square root of `variance`; its derivative is 0 where that is 0. */
  std<F extends FloatDType>(this: Tensor<F>, axis?: Axes, options?: VarianceOptions): Tensor<F> {
    return reduction.std(this, axis, options);
  }

  /** Where the largest element stands: along `axis`, or in row-major order when left out. The first of equals. */
  argmax(axis?: number): Tensor<"i32"> {
    return reduction.argmax(this, axis);
  }

  /** Where the smallest element stands: along `axis`, or in row-major order when left out. The first of equals. */
  argmin(axis?: number): Tensor<"i32"> {
    return reduction.argmin(this, axis);
  }

  /** Whether any element along `axis` is not zero. */
  any(axis?: Axes, options?: ReduceOptions): Tensor<"bool"> {
    return reduction.truth(this, "max", axis, options);
  }

  /** Whether every element along `axis` is not zero. */
  all(axis?: Axes, options?: ReduceOptions): Tensor<"bool"> {
    return reduction.truth(this, "min", axis, options);
  }

  /** log Σ exp along `axis`, without overflow. */
  logsumexp<F extends FloatDType>(this: Tensor<F>, axis?: Axes, options?: ReduceOptions): Tensor<F> {
    return reduction.logsumexp(this, axis, options);
  }

  /**
   * The p-norm along `axis`, (Σ|x|ᵖ)^(1/p) for any p: 2 unless given, ±Infinity for the greatest and the least size, 0 for the number
   * of elements other than 0. Where all elements are 0 its derivative is 0 for p ≥ 1.
   */
  norm<F extends FloatDType>(
    this: Tensor<F>,
    axis?: Axes,
    options: ReduceOptions & { readonly p?: number } = {},
  ): Tensor<F> {
    return reduction.norm(this, axis, options);
  }

  // ---- products

  /** The matrix product as numpy has it: batch axes broadcast, vectors count as a row (left) or a column (right). */
  matmul<N extends NumericDType>(this: Tensor<N>, other: Tensor<N>): Tensor<N> {
    return linear.matmul(this, other);
  }

  /** The inner product of two vectors; otherwise as `matmul`. */
  dot<N extends NumericDType>(this: Tensor<N>, other: Tensor<N>): Tensor<N> {
    return linear.dot(this, other);
  }

  /** Every element of this (flattened) times every element of the other: shape [size, other.size]. */
  outer<N extends NumericDType>(this: Tensor<N>, other: Tensor<N>): Tensor<N> {
    return linear.outer(this, other);
  }

  // ---- composed

  /** exp(x) / Σ exp(x) along `axis`. */
  softmax<F extends FloatDType>(this: Tensor<F>, axis = -1): Tensor<F> {
    return composed.softmax(this, axis);
  }

  /** log softmax along `axis`, without overflow. */
  logSoftmax<F extends FloatDType>(this: Tensor<F>, axis = -1): Tensor<F> {
    return composed.logSoftmax(this, axis);
  }

  /** Held between `low` and `high`; either may be left out as ∓Infinity. */
  clip<N extends NumericDType>(this: Tensor<N>, low: number, high: number): Tensor<N> {
    return composed.clip(this, low, high);
  }

  // ---- what the generated methods stand on

  protected row1<R extends DType>(row: number): Tensor<R> {
    return new Tensor<R>(native.elementwise1(row, this.handle), undefined, this.#shape);
  }

  protected row2<R extends DType>(row: number, name: string, other: AnyTensor | number): Tensor<R> {
    if (other instanceof Tensor) return new Tensor<R>(native.elementwise2(row, this.handle, other.handle));
    const value = scalarOperand(name, other, this.dtype);
    return new Tensor<R>(native.elementwiseScalar(row, this.handle, value, false), undefined, this.#shape);
  }
}

function element<D extends DType>(tensor: Tensor<D>, stored: number | bigint): ElementOf<D> {
  return (tensor.dtype === "bool" ? stored !== 0 : decode(stored, tensor.dtype)) as ElementOf<D>;
}

/** Whether `value` is a tensor. */
export function isTensor(value: unknown): value is AnyTensor {
  return value instanceof Tensor;
}

/** Throws unless all of these are tensors. */
export function requireTensors(op: string, ...values: readonly unknown[]): void {
  const wrong = values.find((value) => !isTensor(value));
  if (values.every(isTensor)) return;
  throw argumentError(op, `expected a tensor, got ${describe(wrong)}; make one with tensor(…)`);
}

/** A tensor over a handle of the addon, which it then owns. */
export function fromHandle<D extends DType>(handle: Handle, dtype?: D, shape?: Shape): Tensor<D> {
  return new Tensor(handle, dtype, shape);
}

/** Throws a RaphsonError (code `DTYPE`) unless the tensor is of a float dtype. */
export function requireFloat(op: string, tensor: AnyTensor): asserts tensor is Tensor<FloatDType> {
  requireTensors(op, tensor);
  if (!isFloat(tensor.dtype)) {
    throw dtypeError(op, `needs a float tensor, got ${tensor.dtype}; use .cast("f32")`, tensor.dtype);
  }
}
