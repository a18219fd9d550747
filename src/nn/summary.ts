/**
 * Modules as text: a line for each layer, with the shapes and counts of its parameters.
 */

import type { Module } from "./module";
import { MODULE } from "./moduleLike";

// biome-ignore lint/suspicious/noExplicitAny: inputs are contravariant, so that no other type takes every module
type AnyModule = Module<any, any>;

/** A parameter or a state, by what it has. */
interface Value {
  readonly shape: readonly number[];
  readonly update?: unknown;
}

type Row = readonly [name: string, what: string, shapes: string, count: string];

/** A table of the module's layers. Parameters that stand in several places count at the first; states do not count. */
export function summarize(module: AnyModule): string {
  const rows: Row[] = [];
  const seen = new Set<unknown>();
  const visit = (layer: AnyModule, name: string): void => {
    if (seen.has(layer)) return;
    seen.add(layer);
    const inner: [string, AnyModule][] = [];
    const shapes: string[] = [];
    let count = 0;
    for (const [key, value] of partsOf(layer.members())) {
      if (isModule(value)) {
        inner.push([join(name, key), value]);
        continue;
      }
      const isState = "update" in value;
      const note = seen.has(value) ? " (shared)" : isState ? " (state)" : "";
      shapes.push(`${key} [${value.shape.join(", ")}]${note}`);
      if (!seen.has(value) && !isState) count += value.shape.reduce((a, b) => a * b, 1);
      seen.add(value);
    }
    rows.push([name, layer.describe(), shapes.join(", "), count === 0 ? "" : count.toLocaleString("en-US")]);
    for (const [key, child] of inner) visit(child, key);
  };
  visit(module, "");
  return [...aligned(rows), `${module.parameterCount.toLocaleString("en-US")} parameters`].join("\n");
}

/** Columns of one width; the last one is of numbers, and aligned on the right. */
function aligned(rows: readonly Row[]): string[] {
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const cell = (text: string, i: number) => (i === 3 ? text.padStart(widths[i] ?? 0) : text.padEnd(widths[i] ?? 0));
  return rows.map((row) => row.map(cell).join("  ").trimEnd());
}

/** Modules, parameters and states among the members, also in arrays and plain objects, by name. */
function partsOf(members: readonly (readonly [string, unknown])[]): [string, AnyModule | Value][] {
  return members.flatMap(([key, value]): [string, AnyModule | Value][] => {
    if (isModule(value) || isValue(value)) return [[key, value]];
    if (!Array.isArray(value) && !isPlainObject(value)) return [];
    return partsOf(Object.entries(value).map(([inner, part]): [string, unknown] => [`${key}.${inner}`, part]));
  });
}

function isModule(value: unknown): value is AnyModule {
  return typeof value === "function" && MODULE in value;
}

function isValue(value: unknown): value is Value {
  if (typeof value !== "object" || value === null || !("shape" in value)) return false;
  return "initializer" in value || ("update" in value && "initial" in value);
}

function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function join(name: string, key: string): string {
  return name === "" ? key : `${name}.${key}`;
}
