/**
 * Einstein's sums: an equation of axis letters becomes transpositions and batched matrix products. Several operands are
 * multiplied in pairs, the pair with the least product first.
 */

import type { DType, NumericDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import type { Tensor } from "../tensor";
import { diagonal } from "./matrix";
import { elements, showShape } from "./validate";

/** A tensor whose axes have names: letters, or numbers for those of the ellipsis. */
interface Named<D extends DType> {
  readonly tensor: Tensor<D>;
  readonly names: readonly string[];
}

/** An equation taken apart. */
interface Equation {
  readonly operands: readonly (readonly string[])[];
  readonly result: readonly string[];
}

/**
 * The sum of products that an equation names: a letter for every axis of every operand, `->` and the letters of the result. Letters
 * that the result lacks are summed over; a letter twice in one operand takes its diagonal; `...` stands for further axes,
 * which broadcast. Without `->` the result has the letters that occur once, in the order of the alphabet.
 * Errors: letters that do not fit the shapes, or a result with unknown letters.
 *
 * ```ts
 * import { einsum, ones, tensor } from "raphson";
 *
 * const m = tensor([[1, 2], [3, 4]]);
 * console.log(einsum("ij,jk->ik", m, m).toArray());                       // [[7, 10], [15, 22]]
 * console.log(einsum("ii", m).item());                                    // 5
 * console.log(einsum("...ij,...kj->...ik", ones([5, 2, 3]), ones([4, 3])).shape);   // [5, 2, 4]
 * ```
 */
export function einsum<D extends NumericDType>(equation: string, ...operands: readonly Tensor<D>[]): Tensor<D> {
  const parsed = parse(equation, operands);
  const sizes = axisSizes(equation, parsed, operands);
  const terms = operands.map((tensor, i) => prepared(tensor, parsed.operands[i] ?? [], sizes));
  const uses = (name: string, others: readonly Named<D>[]): boolean =>
    parsed.result.includes(name) || others.some((term) => term.names.includes(name));
  while (terms.length > 1) {
    const [i, j] = cheapestPair(terms, sizes);
    const [left, right] = [terms[i] as Named<D>, terms[j] as Named<D>];
    const others = terms.filter((_, k) => k !== i && k !== j);
    terms.splice(
      0,
      terms.length,
      ...others,
      product(left, right, (name) => uses(name, others), sizes),
    );
  }
  const last = summed(terms[0] as Named<D>, (name) => parsed.result.includes(name));
  const order = parsed.result.map((name) => last.names.indexOf(name));
  return order.every((axis, i) => axis === i) ? last.tensor.clone() : last.tensor.permute(order);
}

function parse(equation: string, operands: readonly Tensor<DType>[]): Equation {
  const refuse = (why: string): Error =>
    argumentError("einsum", `"${equation}": ${why}`, { shapes: operands.map((operand) => operand.shape) });
  if (typeof equation !== "string") throw argumentError("einsum", "the equation comes first, as a string");
  const [left, right, ...more] = equation.replaceAll(" ", "").split("->");
  if (left === undefined || more.length > 0) throw refuse('"->" may stand once');
  const parts = left.split(",");
  if (operands.length === 0 || parts.length !== operands.length) {
    throw refuse(`it names ${parts.length} operands, and ${operands.length} were given`);
  }
  const most = Math.max(
    0,
    ...parts.map((part, i) => (part.includes("...") ? (operands[i]?.rank ?? 0) - letters(part).length : 0)),
  );
  const named = parts.map((part, i) => {
    if (!/^[a-zA-Z]*(\.\.\.)?[a-zA-Z]*$/.test(part)) throw refuse(`"${part}" has other than letters and one "..."`);
    const rank = operands[i]?.rank ?? 0;
    const free = rank - letters(part).length;
    if (free < 0 || (free > 0 && !part.includes("..."))) {
      throw refuse(
        `"${part}" names ${letters(part).length} axes, but operand ${i} has shape ${showShape(operands[i]?.shape ?? [])}`,
      );
    }
    return expanded(part, free, most);
  });
  if (right === undefined) {
    const all = named.flat().filter((name) => /[a-zA-Z]/.test(name));
    const once = all.filter((name) => all.indexOf(name) === all.lastIndexOf(name)).sort();
    return { operands: named, result: [...ellipsis(most, most), ...once] };
  }
  if (!/^[a-zA-Z]*(\.\.\.)?[a-zA-Z]*$/.test(right)) throw refuse(`"${right}" has other than letters and one "..."`);
  const result = expanded(right, most, most);
  const known = new Set(named.flat());
  const unknown = result.find((name) => !known.has(name) && /[a-zA-Z]/.test(name));
  if (unknown !== undefined) throw refuse(`the result's "${unknown}" is in no operand`);
  const twice = result.find((name, i) => result.indexOf(name) !== i);
  if (twice !== undefined) throw refuse(`the result names "${twice}" twice`);
  return { operands: named, result };
}

function letters(part: string): string[] {
  return [...part.replace("...", "")];
}

/** The last `n` of `most` axes of the ellipsis: they broadcast aligned at the last. */
function ellipsis(n: number, most: number): string[] {
  return Array.from({ length: n }, (_, i) => String(most - n + i));
}

function expanded(part: string, free: number, most: number): string[] {
  const [before, after] = part.split("...");
  return [...(before ?? ""), ...(part.includes("...") ? ellipsis(free, most) : []), ...(after ?? "")];
}

function axisSizes(equation: string, parsed: Equation, operands: readonly Tensor<DType>[]): Map<string, number> {
  const sizes = new Map<string, number>();
  parsed.operands.forEach((names, i) => {
    names.forEach((name, axis) => {
      const [size, known] = [operands[i]?.shape[axis] ?? 1, sizes.get(name)];
      if (known !== undefined && known !== size && known !== 1 && size !== 1) {
        const what = /[a-zA-Z]/.test(name) ? `"${name}"` : "an axis of the ellipsis";
        const all = operands.map((operand) => showShape(operand.shape)).join(", ");
        throw shapeError(
          "einsum",
          `"${equation}": ${what} has size ${known} and size ${size} in ${all}`,
          ...operands.map((o) => o.shape),
        );
      }
      sizes.set(name, known === undefined || known === 1 ? size : known);
    });
  });
  return sizes;
}

/** An operand with every name once: repeated names become diagonals, axes of size 1 are repeated to their size. */
function prepared<D extends DType>(tensor: Tensor<D>, names: readonly string[], sizes: Map<string, number>): Named<D> {
  let result = tensor.broadcastTo(names.map((name) => sizes.get(name) ?? 1));
  let left = [...names];
  for (;;) {
    const second = left.findIndex((name, i) => left.indexOf(name) !== i);
    if (second < 0) return { tensor: result, names: left };
    const name = left[second] as string;
    const first = left.indexOf(name);
    result = diagonal(result, 0, first, second);
    left = [...left.filter((_, i) => i !== first && i !== second), name];
  }
}

function cheapestPair<D extends DType>(terms: readonly Named<D>[], sizes: Map<string, number>): [number, number] {
  let best: [number, number] = [0, 1];
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < terms.length; i++) {
    for (let j = i + 1; j < terms.length; j++) {
      const names = new Set([...(terms[i]?.names ?? []), ...(terms[j]?.names ?? [])]);
      const cost = elements([...names].map((name) => sizes.get(name) ?? 1));
      if (cost < least) [least, best] = [cost, [i, j]];
    }
  }
  return best;
}

/** Sums over the axes whose names are not kept. */
function summed<D extends NumericDType>(term: Named<D>, kept: (name: string) => boolean): Named<D> {
  const drop = term.names.flatMap((name, axis) => (kept(name) ? [] : [axis]));
  if (drop.length === 0) return term;
  return { tensor: term.tensor.sum(drop) as Tensor<D>, names: term.names.filter(kept) };
}

/** The product of two terms, summed over the names that nobody needs: batch × rows × sum times batch × sum × columns. */
function product<D extends NumericDType>(
  one: Named<D>,
  other: Named<D>,
  kept: (name: string) => boolean,
  sizes: Map<string, number>,
): Named<D> {
  const left = summed(one, (name) => kept(name) || other.names.includes(name));
  const right = summed(other, (name) => kept(name) || one.names.includes(name));
  const shared = left.names.filter((name) => right.names.includes(name));
  const batch = shared.filter(kept);
  const over = shared.filter((name) => !kept(name));
  const rows = left.names.filter((name) => !shared.includes(name));
  const columns = right.names.filter((name) => !shared.includes(name));
  const size = (names: readonly string[]): number[] => names.map((name) => sizes.get(name) ?? 1);
  const arranged = (term: Named<D>, order: readonly string[]): Tensor<D> =>
    term.tensor.permute(order.map((name) => term.names.indexOf(name)));
  const names = [...batch, ...rows, ...columns];
  if (over.length === 0) {
    const a = arranged(left, [...batch, ...rows]).reshape([...size(batch), ...size(rows), ...columns.map(() => 1)]);
    const b = arranged(right, [...batch, ...columns]).reshape([...size(batch), ...rows.map(() => 1), ...size(columns)]);
    return { tensor: a.mul(b) as Tensor<D>, names };
  }
  const n = elements(size(over));
  const a = arranged(left, [...batch, ...rows, ...over]).reshape([...size(batch), elements(size(rows)), n]);
  const b = arranged(right, [...batch, ...over, ...columns]).reshape([...size(batch), n, elements(size(columns))]);
  return { tensor: (a.matmul(b) as Tensor<D>).reshape(size(names)), names };
}
