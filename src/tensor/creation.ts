/**
 * Making tensors from numbers, arrays and typed arrays. Only `tensor` and `fromTypedArray` copy data in; the others
 * are recorded as what they are (a constant, a count) and cost nothing until used.
 */

import {
  allocate,
  bytesOf,
  checkValue,
  type DType,
  dtypeCode,
  dtypeOfData,
  type FloatDType,
  holds,
  isTypedArray,
  type NumericDType,
  type TypedArray,
} from "../dtype";
import { argumentError, shapeError } from "../errors";
import { floatToHalf } from "../half";
import { native } from "../native";
import { fromHandle, type Shape, type Tensor } from "../tensor";
import { checkOptions, checkShape, count, describe, elements, showShape } from "./validate";

/** Numbers or booleans, or arrays of arrays of them, all of one length at each depth. */
export type Nested = number | boolean | readonly Nested[];

/** Options that name a dtype. */
export interface DTypeOption<D extends DType> {
  readonly dtype?: D;
}

/** The option that decides a dtype. */
export interface DTyped<D extends DType> {
  readonly dtype: D;
}

/** Options of `tensor`. */
export interface TensorOptions<D extends DType> extends DTypeOption<D> {
  readonly shape?: Shape;
}

/** Arrays of booleans as deep as anyone writes them out. */
type Booleans =
  | boolean
  | readonly boolean[]
  | readonly (readonly boolean[])[]
  | readonly (readonly (readonly boolean[])[])[]
  | readonly (readonly (readonly (readonly boolean[])[])[])[];
type DTypeOfNested<T> = T extends readonly never[] ? "f32" : T extends Booleans ? "bool" : "f32";
type DTypeOfTyped<T> = T extends Float32Array
  ? "f32"
  : T extends Float64Array
    ? "f64"
    : T extends Int32Array
      ? "i32"
      : T extends Uint32Array
        ? "u32"
        : T extends BigInt64Array
          ? "i64"
          : T extends Uint8Array
            ? "u8"
            : never;

/**
 * A tensor from nested arrays (f32, or bool from booleans, unless `dtype` says otherwise) or from a typed array (its own
 * dtype: Uint8Array is u8, BigInt64Array i64; for bool give a Uint8Array, for f16 and bf16 a Uint16Array of bits, and name the
 * dtype). `shape` arranges the elements; a typed array is one axis without it.
 * Errors: ragged arrays, sizes that do not hold the elements, values that the dtype has not.
 *
 * ```ts
 * import { tensor } from "raphson";
 *
 * const a = tensor([[1, 2, 3], [4, 5, 6]]);
 * const b = tensor(new Int32Array([1, 2, 3, 4]), { shape: [2, 2] });
 * const c = tensor([1.5, 2.5], { dtype: "f64" });
 * console.log(a.shape, b.dtype, c.dtype);
 * ```
 */
export function tensor<D extends DType>(
  values: Nested | TypedArray,
  options: TensorOptions<D> & { readonly dtype: D },
): Tensor<D>;
export function tensor<const T extends TypedArray>(values: T, options?: TensorOptions<never>): Tensor<DTypeOfTyped<T>>;
export function tensor<T extends Nested>(values: T, options?: TensorOptions<never>): Tensor<DTypeOfNested<T>>;
export function tensor(values: Nested | TypedArray, options: TensorOptions<DType> = {}): Tensor<DType> {
  checkOptions("tensor", options, ["dtype", "shape"]);
  if (isTypedArray(values)) {
    const dtype = options.dtype ?? dtypeOfData(values);
    dtypeCode(dtype, "tensor");
    const data = holds(values, dtype) ? values : convert(values, dtype);
    return upload(data, options.shape ?? [data.length], dtype);
  }
  const flat: number[] = [];
  const kinds = new Set<string>();
  const shape = collect(values, flat, kinds);
  const dtype = options.dtype ?? (kinds.size === 1 && kinds.has("boolean") ? "bool" : "f32");
  return upload(convert(flat, dtype), options.shape ?? shape, dtype);
}

/** Pushes the elements row-major, and returns the shape they stand in. */
function collect(values: Nested, flat: number[], kinds: Set<string>): number[] {
  if (typeof values === "number" || typeof values === "boolean") {
    kinds.add(typeof values);
    flat.push(Number(values));
    return [];
  }
  if (!Array.isArray(values)) {
    throw argumentError("tensor", `expected numbers, nested arrays or a typed array, got ${describe(values)}`);
  }
  let inner: number[] | undefined;
  for (const item of values as readonly Nested[]) {
    const shape = collect(item, flat, kinds);
    inner ??= shape;
    if (shape.join() !== inner.join()) {
      throw shapeError(
        "tensor",
        `the nested arrays are ragged: ${showShape(inner)} beside ${showShape(shape)}`,
        inner,
        shape,
      );
    }
  }
  return [values.length, ...(inner ?? [])];
}

function convert(values: ArrayLike<number> | BigInt64Array, dtype: DType): TypedArray {
  dtypeCode(dtype, "tensor");
  const data = allocate(dtype, values.length);
  for (let i = 0; i < values.length; i++) {
    const value = checkValue("tensor", Number(values[i] ?? Number.NaN), dtype);
    if (data instanceof BigInt64Array) data[i] = BigInt(value);
    else data[i] = dtype === "f16" || dtype === "bf16" ? floatToHalf(value, dtype) : value;
  }
  return data;
}

/** A tensor from a typed array's elements, which are copied once, straight into the session's memory. */
export function fromTypedArray<const T extends TypedArray>(data: T, shape?: Shape): Tensor<DTypeOfTyped<T>>;
export function fromTypedArray(data: TypedArray, shape: Shape = [data.length]): Tensor<DType> {
  return upload(data, shape, dtypeOfData(data));
}

/** A tensor from elements as `dtype` stores them. */
export function upload(data: TypedArray, shape: Shape, dtype: DType): Tensor<DType> {
  const sizes = checkShape("tensor", shape);
  if (elements(sizes) !== data.length) {
    throw shapeError("tensor", `${data.length} elements do not fill the shape ${showShape(sizes)}`, sizes);
  }
  if (dtype === "bool") {
    const odd = (data as Uint8Array).findIndex((byte) => byte > 1);
    if (odd >= 0) {
      throw argumentError(
        "tensor",
        `a bool is 0 or 1, but element ${odd} is ${data[odd]}; leave it u8, and .cast("bool")`,
      );
    }
  }
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.length * bytesOf(dtype));
  return fromHandle(native.upload(bytes, dtypeCode(dtype, "tensor"), sizes), dtype, sizes);
}

/** One value everywhere. */
export function full(shape: Shape, value: number | boolean): Tensor;
export function full<D extends DType>(shape: Shape, value: number | boolean, options: DTyped<D>): Tensor<D>;
export function full(shape: Shape, value: number | boolean, options: DTypeOption<DType> = {}): Tensor<DType> {
  checkOptions("full", options, ["dtype"]);
  return constant("full", shape, scalarOf("full", value), options.dtype);
}

/** Zeros. */
export function zeros(shape: Shape): Tensor;
export function zeros<D extends DType>(shape: Shape, options: DTyped<D>): Tensor<D>;
export function zeros(shape: Shape, options: DTypeOption<DType> = {}): Tensor<DType> {
  checkOptions("zeros", options, ["dtype"]);
  return constant("zeros", shape, 0, options.dtype);
}

/** Ones. */
export function ones(shape: Shape): Tensor;
export function ones<D extends DType>(shape: Shape, options: DTyped<D>): Tensor<D>;
export function ones(shape: Shape, options: DTypeOption<DType> = {}): Tensor<DType> {
  checkOptions("ones", options, ["dtype"]);
  return constant("ones", shape, 1, options.dtype);
}

/** A scalar. */
export function scalar(value: number | boolean): Tensor;
export function scalar<D extends DType>(value: number | boolean, options: DTyped<D>): Tensor<D>;
export function scalar(value: number | boolean, options: DTypeOption<DType> = {}): Tensor<DType> {
  checkOptions("scalar", options, ["dtype"]);
  return constant("scalar", [], scalarOf("scalar", value), options.dtype);
}

/** Truth values count as 1 and 0. */
function scalarOf(op: string, value: number | boolean): number {
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  throw argumentError(op, `expected a number or a boolean, got ${describe(value)}`);
}

function constant(op: string, shape: Shape, value: number, dtype: DType = "f32"): Tensor<DType> {
  const sizes = checkShape(op, shape);
  return fromHandle(native.constant(checkValue(op, value, dtype), dtypeCode(dtype, op), sizes), dtype, sizes);
}

/** Zeros in the shape and dtype of another tensor. */
export function zerosLike<D extends DType>(like: Tensor<D>): Tensor<D> {
  return zeros(like.shape, { dtype: like.dtype });
}

/** Ones in the shape and dtype of another tensor. */
export function onesLike<D extends DType>(like: Tensor<D>): Tensor<D> {
  return ones(like.shape, { dtype: like.dtype });
}

/**
 * The numbers start, start + step, … below `stop` (or above it, when `step` is negative): `arange(stop)`,
 * `arange(start, stop)`, `arange(start, stop, step)`.
 */
export function arange(start: number, stop?: number, step?: number): Tensor;
export function arange<D extends NumericDType>(
  start: number,
  stop: number | undefined,
  step: number | undefined,
  options: DTyped<D>,
): Tensor<D>;
export function arange(
  start: number,
  stop?: number,
  step = 1,
  options: DTypeOption<NumericDType> = {},
): Tensor<NumericDType> {
  checkOptions("arange", options, ["dtype"]);
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  if (![from, to, step].every(Number.isFinite) || step === 0) {
    throw argumentError("arange", `needs finite numbers and a step that is not 0, got ${from}, ${to}, ${step}`);
  }
  return ramp("arange", from, step, Math.max(0, Math.ceil((to - from) / step)), options.dtype ?? "f32");
}

/** `length` numbers from `start` to `stop`, both included, evenly spaced. */
export function linspace(start: number, stop: number, length: number): Tensor;
export function linspace<D extends FloatDType>(
  start: number,
  stop: number,
  length: number,
  options: DTyped<D>,
): Tensor<D>;
export function linspace(
  start: number,
  stop: number,
  length: number,
  options: DTypeOption<FloatDType> = {},
): Tensor<FloatDType> {
  checkOptions("linspace", options, ["dtype"]);
  if (!Number.isFinite(start) || !Number.isFinite(stop)) {
    throw argumentError("linspace", `needs finite ends, got ${start} and ${stop}`);
  }
  const n = count("linspace", "the length", length);
  return ramp("linspace", start, n > 1 ? (stop - start) / (n - 1) : 0, n, options.dtype ?? "f32");
}

/** start + step · (0 … n − 1) */
function ramp<D extends NumericDType>(op: string, start: number, step: number, n: number, dtype: D): Tensor<D> {
  const shape = [count(op, "the length", n)];
  const index: Tensor<D> = fromHandle(native.iota(dtypeCode(dtype, op), shape, 0), dtype, shape);
  const scaled: Tensor<D> = step === 1 ? index : index.mul(step);
  return start === 0 ? scaled : scaled.add(start);
}

/** Ones on the diagonal, zeros elsewhere: [rows, columns], square when one is given. */
export function eye(rows: number, columns?: number): Tensor;
export function eye<D extends NumericDType>(rows: number, columns: number | undefined, options: DTyped<D>): Tensor<D>;
export function eye(rows: number, columns = rows, options: DTypeOption<NumericDType> = {}): Tensor<NumericDType> {
  checkOptions("eye", options, ["dtype"]);
  const shape = checkShape("eye", [rows, columns]);
  const i32 = dtypeCode("i32", "eye");
  const row: Tensor<"i32"> = fromHandle(native.iota(i32, shape, 0), "i32", shape);
  const column: Tensor<"i32"> = fromHandle(native.iota(i32, shape, 1), "i32", shape);
  return row.equal(column).cast(options.dtype ?? "f32");
}
