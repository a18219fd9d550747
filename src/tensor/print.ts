/**
 * Tensors as text, in the manner of numpy: aligned columns, long axes shortened to their ends.
 */

import { decode } from "../dtype";
import type { AnyTensor } from "../tensor";

type Element = number | bigint;

/** Tensors of more elements than this show only the ends of long axes. */
const THRESHOLD = 1000;
/** How many positions stay at each end. */
const EDGE = 3;
const DIGITS = 5;

/** `tensor([[1, 2], [3, 4]], f32 [2, 2])`, over several lines where there are several rows. */
export function formatTensor(t: AnyTensor): string {
  const kind = `${t.dtype} [${t.shape.join(", ")}]`;
  if (t.isDisposed) return `tensor(disposed, ${kind})`;
  const { dtype } = t;
  const data = Array.from<number | bigint, Element>(t.dataSync() as ArrayLike<number | bigint>, (stored) =>
    decode(stored, dtype),
  );
  const shape = t.shape;
  const edge = data.length > THRESHOLD ? EDGE : Number.POSITIVE_INFINITY;
  const shown = shownPositions(shape, edge);
  const cell = cellFormat(shown(data), dtype);
  const body = nest(shape, edge, (offset) => cell(data[offset] ?? Number.NaN));
  return shape.length === 0 ? `tensor(${body}, ${t.dtype})` : `tensor(${body}, ${kind})`;
}

/** The positions along an axis that are shown; null stands for those left out. */
function ends(size: number, edge: number): (number | null)[] {
  if (size <= 2 * edge) return Array.from({ length: size }, (_, i) => i);
  const head = Array.from({ length: edge }, (_, i) => i);
  return [...head, null, ...head.map((i) => size - edge + i)];
}

function shownPositions(shape: readonly number[], edge: number): (data: readonly Element[]) => Element[] {
  return (data) => {
    const found: Element[] = [];
    const visit = (axis: number, offset: number, length: number): void => {
      if (axis === shape.length) {
        found.push(data[offset] ?? Number.NaN);
        return;
      }
      const size = shape[axis] ?? 0;
      for (const i of ends(size, edge)) if (i !== null) visit(axis + 1, offset + (i * length) / size, length / size);
    };
    visit(0, 0, data.length);
    return found;
  };
}

/** One format for all elements, so that columns line up. */
function cellFormat(values: readonly Element[], dtype: string): (value: Element) => string {
  const ofNumber = numberFormat(values.filter((value): value is number => typeof value === "number"));
  const text = (value: Element): string => {
    if (dtype === "bool") return value !== 0 ? "true" : "false";
    return typeof value === "bigint" ? String(value) : ofNumber(value);
  };
  const width = values.reduce<number>((widest, value) => Math.max(widest, text(value).length), 0);
  return (value) => text(value).padStart(width);
}

function numberFormat(values: readonly number[]): (value: number) => string {
  const finite = values.filter(Number.isFinite);
  if (finite.every(Number.isInteger) && finite.every((v) => Math.abs(v) < 1e15)) return showInteger;
  const sizes = finite.filter((v) => v !== 0).map(Math.abs);
  const largest = Math.max(...sizes, 0);
  const smallest = Math.min(...sizes, Number.POSITIVE_INFINITY);
  if (largest >= 1e7 || smallest < 1e-4)
    return (v) => (Number.isFinite(v) ? v.toExponential(DIGITS - 1) : showInteger(v));
  const fixed = finite.map((v) => trimmedDecimals(v));
  const decimals = Math.min(DIGITS, Math.max(...fixed, 1));
  return (v) => (Number.isFinite(v) ? v.toFixed(decimals) : showInteger(v));
}

function showInteger(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return Object.is(value, -0) ? "-0" : String(value);
}

/** Decimals that `value` needs, at most DIGITS. */
function trimmedDecimals(value: number): number {
  const text = value.toFixed(DIGITS).replace(/0+$/, "");
  return text.length - text.indexOf(".") - 1;
}

function nest(shape: readonly number[], edge: number, cell: (offset: number) => string): string {
  const rank = shape.length;
  const write = (axis: number, offset: number, length: number, indent: string): string => {
    if (axis === rank) return cell(offset);
    const size = shape[axis] ?? 0;
    const inner = size === 0 ? 0 : length / size;
    const parts = ends(size, edge).map((i) =>
      i === null ? "…" : write(axis + 1, offset + i * inner, inner, `${indent} `),
    );
    const separator = axis === rank - 1 ? ", " : `,${"\n".repeat(rank - 1 - axis)}${indent} `;
    return `[${parts.join(separator)}]`;
  };
  return write(
    0,
    0,
    shape.reduce((a, b) => a * b, 1),
    " ".repeat("tensor(".length),
  );
}
