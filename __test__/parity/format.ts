/**
 * The format of parity files, and how one is compared: values, gradients, tangents and Hessian products of PyTorch against ours, in
 * every float dtype. Nothing here knows an op: tables of ops, layers, losses and optimizers stand beside this file.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type AnyTensor, fromTypedArray, hvp, jvp, type Tensor, tensor, tidy } from "../../src";

/** What an entry is about; FEATURES.md has a table for each. */
export type Kind = "op" | "layer" | "loss" | "optimizer";

/** Numbers of which some have no JSON. */
type Number_ = number | "nan" | "inf" | "-inf";

interface Array_ {
  readonly shape: readonly number[];
  readonly data: readonly Number_[];
}

/** One call with its expected results. Without a cotangent there are no derivatives. */
export interface ParityCase {
  readonly label: string;
  readonly args?: Readonly<Record<string, unknown>>;
  readonly inputs: readonly Array_[];
  readonly indices?: readonly Array_[];
  readonly value: Array_;
  readonly cotangent?: readonly number[];
  readonly tangents?: readonly (readonly number[])[];
  readonly gradient?: readonly (readonly Number_[])[];
  readonly tangent?: readonly Number_[];
  readonly second?: readonly (readonly Number_[])[];
}

export interface ParityEntry {
  readonly kind: Kind;
  readonly name: string;
  readonly cases: readonly ParityCase[];
}

export interface ParityFile {
  readonly source: string;
  /** Inputs, cotangents and tangents are whole numbers of 1/unit. */
  readonly unit: number;
  readonly entries: readonly ParityEntry[];
}

/** How an entry is computed here: from its inputs, its index tensors and its arguments. */
export type Runner = (
  x: readonly Tensor[],
  indices: readonly Tensor<"i32">[],
  // biome-ignore lint/suspicious/noExplicitAny: arguments are whatever the generator wrote
  args: any,
) => AnyTensor;

/** The greatest errors of an entry, each relative to the natural scale: the greatest expected size, at least 1. */
export interface Errors {
  value: number;
  gradient: number | undefined;
  second: number | undefined;
}

export type FloatName = "f64" | "f32" | "f16" | "bf16";

export const FLOATS: readonly FloatName[] = ["f64", "f32", "f16", "bf16"];

/** The largest error allowed for each dtype; for halves two units, of 2⁻¹⁰ and 2⁻⁷. */
export const ALLOWED: Readonly<Record<FloatName, number>> = { f64: 1e-10, f32: 1e-5, f16: 2 ** -9, bf16: 2 ** -6 };

export function readParity(name: string): ParityFile {
  return JSON.parse(readFileSync(join(__dirname, `${name}.json`), "utf8"));
}

function toNumber(x: Number_): number {
  return x === "nan"
    ? Number.NaN
    : x === "inf"
      ? Number.POSITIVE_INFINITY
      : x === "-inf"
        ? Number.NEGATIVE_INFINITY
        : x;
}

/** The elements, whatever their dtype; without f64, which not every device has. */
function numbersOf(t: AnyTensor): Float64Array {
  const readable = t.dtype === "f16" || t.dtype === "bf16" ? t.cast("f32") : t;
  return Float64Array.from(readable.dataSync() as ArrayLike<number | bigint>, Number);
}

/** max |found − wanted| / max(1, max |wanted|); infinite where only one is no number. */
function error(found: ArrayLike<number>, wanted: readonly Number_[]): number {
  if (found.length !== wanted.length) return Number.POSITIVE_INFINITY;
  const expected = wanted.map(toNumber);
  const scale = Math.max(1, ...expected.filter(Number.isFinite).map(Math.abs));
  return expected.reduce((worst, want, i) => {
    const got = found[i] ?? Number.NaN;
    if (Object.is(got, want) || got === want) return worst;
    const difference = Math.abs(got - want) / scale;
    return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
  }, 0);
}

/** The errors of one case; Infinity where shapes differ. */
export function compareCase(run: Runner, c: ParityCase, unit: number, dtype: FloatName): Errors {
  return tidy(() => {
    const scaled = (data: readonly Number_[], shape: readonly number[]): Tensor => {
      const numbers = data.map((i) => toNumber(i) / unit);
      // every dtype holds them exactly
      const array = dtype === "f64" ? Float64Array.from(numbers) : Float32Array.from(numbers);
      return fromTypedArray(array, shape).cast(dtype) as AnyTensor as Tensor;
    };
    const inputs = c.inputs.map(({ data, shape }) => scaled(data, shape));
    const indices = (c.indices ?? []).map(({ data, shape }) => tensor(data.map(toNumber), { dtype: "i32", shape }));
    const value = run(inputs, indices, c.args ?? {});
    const shapesAgree = value.shape.join() === c.value.shape.join();
    const errors: Errors = {
      value: shapesAgree ? error(numbersOf(value), c.value.data) : Number.POSITIVE_INFINITY,
      gradient: undefined,
      second: undefined,
    };
    if (c.cotangent === undefined || !shapesAgree) return errors;
    const tangents = (c.tangents ?? []).map((data, i) => scaled(data, c.inputs[i]?.shape ?? []));
    const cotangent = scaled(c.cotangent, c.value.shape);
    const weighted = (x: Tensor[]): Tensor => (run(x, indices, c.args ?? {}) as Tensor).mul(cotangent).sum();
    const { gradient, product } = hvp(weighted, inputs, tangents);
    const along = jvp((x: Tensor[]) => run(x, indices, c.args ?? {}) as Tensor, inputs, tangents).tangent as Tensor;
    const worst = (found: readonly Tensor[], wanted: readonly (readonly Number_[])[] = []): number =>
      Math.max(0, ...found.map((g, i) => error(numbersOf(g), wanted[i] ?? [])));
    errors.gradient = Math.max(worst(gradient as Tensor[], c.gradient), error(numbersOf(along), c.tangent ?? []));
    errors.second = worst(product as Tensor[], c.second);
    return errors;
  });
}
