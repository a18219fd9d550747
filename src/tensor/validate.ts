/**
 * Checks at the door: the addon would turn −1 into 4294967295 and NaN into 0, so sizes, axes and numbers are looked at
 * here, and an error names the op that was called.
 */

import { checkValue, type DType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import type { Axes, Shape } from "../tensor";

const MAX_SIZE = 2 ** 40;

/** `value` as a count of things: an integer ≥ 0. */
export function count(op: string, what: string, value: number): number {
  if (!Number.isInteger(value) || value < 0 || value > MAX_SIZE) {
    throw argumentError(op, `${what} must be an integer ≥ 0, got ${describe(value)}`);
  }
  return value;
}

/** A copy of `shape` in which every size is an integer ≥ 0. */
export function checkShape(op: string, shape: Shape): number[] {
  if (!Array.isArray(shape)) throw argumentError(op, `a shape is an array of sizes, got ${describe(shape)}`);
  return shape.map((size, axis) => count(op, `the size of axis ${axis}`, size));
}

/** Number of elements of a shape. */
export function elements(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** `axis` counted from the first, for a tensor of `rank` axes. */
export function checkAxis(op: string, axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank) {
    const range = rank === 0 ? "a scalar has no axes" : `use ${-rank} … ${rank - 1}`;
    throw argumentError(op, `axis ${describe(axis)} does not exist for a tensor of ${rank} axes; ${range}`);
  }
  return axis < 0 ? axis + rank : axis;
}

/** The axes counted from the first, in order and without repeats; all of them when left out. */
export function checkAxes(op: string, axes: Axes | undefined, rank: number): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, i) => i);
  const list = typeof axes === "number" ? [axes] : axes;
  if (!Array.isArray(list)) throw argumentError(op, `axes are a number or an array of numbers, got ${describe(axes)}`);
  const sorted = list.map((axis) => checkAxis(op, axis, rank)).sort((a, b) => a - b);
  const twice = sorted.find((axis, i) => axis === sorted[i + 1]);
  if (twice !== undefined) throw argumentError(op, `axis ${twice} is named twice`);
  return sorted;
}

/**
 * Throws unless `options` is an object with no other names than these: one that is misspelt would do nothing, and nobody would
 * know.
 */
export function checkOptions<O extends object>(
  op: string,
  options: O | undefined,
  names: readonly (keyof O & string)[],
): void {
  if (options === undefined) return;
  checkObject(op, options, `{ ${names[0]}: … }`);
  const unknown = Object.keys(options).find((name) => !(names as readonly string[]).includes(name));
  if (unknown !== undefined) {
    throw argumentError(op, `there is no option ${unknown}; the options are ${names.join(", ")}`);
  }
}

/** Throws unless `value` is an object, such as the example. */
export function checkObject(op: string, value: unknown, example: string): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
  throw argumentError(op, `takes an object, such as ${example}, got ${describe(value)}`);
}

/** As `checkOptions`, where options must be given. */
export function requireOptions<O extends object>(op: string, options: O, names: readonly (keyof O & string)[]): void {
  if (options === undefined) throw argumentError(op, `needs an object with ${names.slice(0, 4).join(", ")}, …`);
  checkOptions(op, options, names);
}

/** Throws unless `f` is a function. */
export function checkFunction(op: string, f: unknown): void {
  if (typeof f !== "function") throw argumentError(op, `the first argument is a function, got ${describe(f)}`);
}

/** An array of operands. */
export function listOf<T>(op: string, values: readonly T[]): readonly T[] {
  if (!Array.isArray(values)) throw argumentError(op, `takes an array of tensors, got ${describe(values)}`);
  return values;
}

/** A number that stands beside a tensor of `dtype`. */
export function scalarOperand(op: string, value: unknown, dtype: DType): number {
  if (typeof value === "boolean" && dtype === "bool") return value ? 1 : 0;
  if (typeof value !== "number") {
    throw argumentError(op, `expected a tensor or a number, got ${describe(value)}; wrap arrays in tensor(…)`);
  }
  return checkValue(op, value, dtype);
}

/** Throws unless both shapes are the same. */
export function sameShape(op: string, left: Shape, right: Shape, advice: string): void {
  if (left.length !== right.length || left.some((size, i) => size !== right[i])) {
    throw shapeError(op, `shapes differ: ${showShape(left)} and ${showShape(right)}; ${advice}`, left, right);
  }
}

/** A shape as errors show it. */
export function showShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** A value as errors show it, in a few words. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object") return `a ${value.constructor?.name ?? "object"}`;
  if (typeof value === "string") return JSON.stringify(value);
  return typeof value === "function" ? "a function" : String(value);
}
