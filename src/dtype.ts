/**
 * Element types: their names, their codes at the addon's door, and the typed array that holds each. Nothing here
 * knows a tensor.
 */

import { argumentError } from "./errors";
import { halfToFloat } from "./half";

/**
 * The typed array that holds the elements of each dtype. `bool`: one byte each, 0 or 1. `f16` and `bf16`: the bits, since
 * not every Node has an array of halves; `halfToFloat` and `floatToHalf` convert. `i64`: bigints.
 */
export interface DataOf {
  f32: Float32Array;
  f64: Float64Array;
  i32: Int32Array;
  u32: Uint32Array;
  bool: Uint8Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i64: BigInt64Array;
  u8: Uint8Array;
}

/** The type of a tensor's elements. */
export type DType = keyof DataOf;

/** The dtypes that have derivatives. */
export type FloatDType = "f32" | "f64" | "f16" | "bf16";

/** The integer dtypes. */
export type IntegerDType = "i32" | "u32" | "i64" | "u8";

/** The dtypes that can be calculated with. */
export type NumericDType = FloatDType | IntegerDType;

/** A typed array that can become a tensor without a dtype being named. */
export type TypedArray = DataOf[DType];

/** Every dtype; the position is the number the addon uses. */
export const DTYPES = [
  "f32",
  "f64",
  "i32",
  "u32",
  "bool",
  "f16",
  "bf16",
  "i64",
  "u8",
] as const satisfies readonly DType[];

const BYTES = { f32: 4, f64: 8, i32: 4, u32: 4, bool: 1, f16: 2, bf16: 2, i64: 8, u8: 1 } as const satisfies Record<
  DType,
  number
>;

/** The addon's number for `dtype`; a RaphsonError when there is no such dtype. */
export function dtypeCode(dtype: DType, op: string): number {
  const code = DTYPES.indexOf(dtype);
  if (code < 0) {
    throw argumentError(op, `unknown dtype ${JSON.stringify(dtype)}; the dtypes are ${DTYPES.join(", ")}`);
  }
  return code;
}

/** The dtype with the addon's number `code`. */
export function dtypeOfCode(code: number): DType {
  const dtype = DTYPES[code];
  if (dtype === undefined) throw argumentError("dtype", `internal: the addon named dtype ${code}`);
  return dtype;
}

/** Bytes of one stored element. */
export function bytesOf(dtype: DType): number {
  return BYTES[dtype];
}

/** Whether derivatives exist for this dtype. */
export function isFloat(dtype: DType): dtype is FloatDType {
  return dtype === "f32" || dtype === "f64" || dtype === "f16" || dtype === "bf16";
}

/** Whether this is an integer dtype (bool is not). */
export function isInteger(dtype: DType): dtype is IntegerDType {
  return dtype === "i32" || dtype === "u32" || dtype === "i64" || dtype === "u8";
}

/**
 * The dtype whose elements `data` holds: Float32Array → f32, Uint8Array → u8, and so on. bool, f16 and bf16 have no array
 * of their own: they must be named.
 */
export function dtypeOfData(data: TypedArray): DType {
  if (data instanceof Float32Array) return "f32";
  if (data instanceof Float64Array) return "f64";
  if (data instanceof Int32Array) return "i32";
  if (data instanceof Uint32Array) return "u32";
  if (data instanceof Uint16Array) {
    const advice = 'name the dtype: "f16" or "bf16" for bits of halves, "i32" for whole numbers';
    throw argumentError("tensor", `a Uint16Array may hold several dtypes; ${advice}`);
  }
  if (data instanceof BigInt64Array) return "i64";
  return "u8";
}

/** Whether `value` is one of the typed arrays that tensors are made of. */
export function isTypedArray(value: unknown): value is TypedArray {
  return (
    value instanceof Float32Array ||
    value instanceof Float64Array ||
    value instanceof Int32Array ||
    value instanceof Uint32Array ||
    value instanceof Uint16Array ||
    value instanceof BigInt64Array ||
    value instanceof Uint8Array
  );
}

/** Whether `data` holds the elements of `dtype` as they are stored. */
export function holds(data: TypedArray, dtype: DType): boolean {
  return data.constructor === allocate(dtype, 0).constructor;
}

/** One stored element as the value it stands for: halves as numbers, i64 as bigint, bool as 0 or 1. */
export function decode(stored: number | bigint, dtype: DType): number | bigint {
  if (dtype === "f16" || dtype === "bf16") return halfToFloat(Number(stored), dtype);
  return stored;
}

/** A zeroed typed array for `length` elements of `dtype`. */
export function allocate<D extends DType>(dtype: D, length: number): DataOf[D];
export function allocate(dtype: DType, length: number): TypedArray {
  switch (dtype) {
    case "f32":
      return new Float32Array(length);
    case "f64":
      return new Float64Array(length);
    case "i32":
      return new Int32Array(length);
    case "u32":
      return new Uint32Array(length);
    case "f16":
    case "bf16":
      return new Uint16Array(length);
    case "i64":
      return new BigInt64Array(length);
    case "u8":
    case "bool":
      return new Uint8Array(length);
  }
}

/** The elements in `bytes` as a typed array; over the same memory where its alignment allows. */
export function view<D extends DType>(dtype: D, bytes: Uint8Array): DataOf[D];
export function view(dtype: DType, bytes: Uint8Array): TypedArray {
  const size = BYTES[dtype];
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset } = aligned;
  const length = aligned.byteLength / size;
  switch (dtype) {
    case "f32":
      return new Float32Array(buffer, byteOffset, length);
    case "f64":
      return new Float64Array(buffer, byteOffset, length);
    case "i32":
      return new Int32Array(buffer, byteOffset, length);
    case "u32":
      return new Uint32Array(buffer, byteOffset, length);
    case "f16":
    case "bf16":
      return new Uint16Array(buffer, byteOffset, length);
    case "i64":
      return new BigInt64Array(buffer, byteOffset, length);
    case "u8":
    case "bool":
      return new Uint8Array(buffer, byteOffset, length);
  }
}

/** Throws a RaphsonError unless `value` is exactly representable where only integers are (floats take any number). */
export function checkValue(op: string, value: number, dtype: DType): number {
  if (typeof value !== "number") throw argumentError(op, `expected a number, got ${typeof value}`);
  if (dtype === "i32" && (value | 0) !== value) {
    throw argumentError(op, `${value} is not an i32 value; cast the tensor to a float dtype, or round the number`);
  }
  if (dtype === "u32" && value >>> 0 !== value) {
    throw argumentError(op, `${value} is not a u32 value (0 … 4294967295); cast the tensor, or change the number`);
  }
  if (dtype === "u8" && (value & 0xff) !== value) {
    throw argumentError(op, `${value} is not a u8 value (0 … 255); cast the tensor, or change the number`);
  }
  if (dtype === "i64" && !Number.isSafeInteger(value)) {
    throw argumentError(op, `${value} is no exact i64 as a number; give a BigInt64Array, or round the number`);
  }
  if (dtype === "bool" && value !== 0 && value !== 1) {
    throw argumentError(op, `${value} is not a bool value; use true or false (or 1 and 0)`);
  }
  return value;
}
