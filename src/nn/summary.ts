/**
 * Modules as text: a line for each layer, with the shapes and counts of its parameters.
 */

import type { Module, Parameter } from "./module";
import { MODULE } from "./moduleLike";

// biome-ignore lint/suspicious/noExplicitAny: inputs are contravariant, so that no other type takes every module
type AnyModule = Module<any, any>;

/** A table of the module's layers. */
export function summarize(module: AnyModule): string {
  const rows: [name: string, what: string, shapes: string, count: string][] = [];
  const seen = new Set<unknown>();
  const visit = (value: unknown, name: string): void => {
    if (typeof value !== "object" && typeof value !== "function") return;
    if (value === null || seen.has(value)) return;
    seen.add(value);
    if (!isModule(value)) {
      if (Array.isArray(value)) for (const [i, item] of value.entries()) visit(item, join(name, String(i)));
      return;
    }
    const own = value.members().filter((entry): entry is [string, Parameter] => isParameter(entry[1]));
    const size = own.reduce((sum, [, p]) => sum + sizeOf(p), 0);
    const shapes = own.map(([key, p]) => `${key} [${p.shape.join(", ")}]`).join(", ");
    rows.push([name, value.describe(), shapes, size === 0 ? "" : size.toLocaleString("en-US")]);
    for (const [key, child] of value.members()) if (!isParameter(child)) visit(child, join(name, key));
  };
  visit(module, "");
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => (i === 3 ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
  return [...lines, `${module.parameterCount.toLocaleString("en-US")} parameters`].join("\n");
}

function isModule(value: object): value is AnyModule {
  return typeof value === "function" && MODULE in value;
}

function isParameter(value: unknown): value is Parameter {
  return typeof value === "object" && value !== null && "initializer" in value && "shape" in value;
}

function sizeOf(parameter: Parameter): number {
  return parameter.shape.reduce((a, b) => a * b, 1);
}

function join(name: string, key: string): string {
  return name === "" ? key : `${name}.${key}`;
}
