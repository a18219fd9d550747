/**
 * Examples in host memory and the batches made of them: digits (MNIST's files, or drawn), and characters (a text file,
 * or sonnets). What is learned from them is not said here.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { makeDigits, readDigits } from "../../../examples/digitFiles";
import { SONNETS } from "../../../examples/sonnets";
import { type data, fromTypedArray, type Tensor } from "../../../src";
import { ranges, type Sources } from "./problem";

/** Numbers of examples: to learn from, to hold out, and of the first kind those that the result is measured on. */
export interface Sizes {
  readonly train: number;
  readonly held: number;
  readonly fit: number;
}

/** How many digits each size of the benchmark has. */
export const DIGITS: Readonly<Record<Sources["size"], Sizes>> = {
  full: { train: 8000, held: 2000, fit: 2000 },
  small: { train: 2000, held: 500, fit: 500 },
  tiny: { train: 200, held: 50, fit: 50 },
};

/** Images [batch, side, side] in [0, 1] and their labels. */
export type DigitBatch = { readonly images: Tensor; readonly labels: Tensor<"i32"> };

/** Images and labels in host memory. */
interface Digits {
  readonly side: number;
  readonly images: Float32Array;
  readonly labels: Int32Array;
}

const SIDE = 28;

/** Means over 2 × 2 pixels. */
function halved({ images, labels }: Digits): Digits {
  const side = SIDE / 2;
  const small = new Float32Array(labels.length * side * side);
  for (let at = 0; at < small.length; at++) {
    const [image, y, x] = [Math.floor(at / (side * side)), Math.floor(at / side) % side, at % side];
    const corner = image * SIDE * SIDE + 2 * y * SIDE + 2 * x;
    const sum = (offset: number) => (images[corner + offset] ?? 0) + (images[corner + offset + 1] ?? 0);
    small[at] = (sum(0) + sum(SIDE)) / 4;
  }
  return { side, images: small, labels };
}

async function inMemory(dataset: data.Dataset<data.ImageBatch>, count: number): Promise<Digits> {
  for await (const { images, labels } of dataset.take(count).batches(count)) {
    const all = { side: SIDE, images: images.dataSync(), labels: labels.dataSync() };
    images.dispose();
    labels.dispose();
    return all;
  }
  throw new Error("there are no digits in the data");
}

/** Whether the folder has MNIST's files. */
export const hasDigits = (folder: string | undefined): folder is string =>
  folder !== undefined && existsSync(join(folder, "mnist"));

/** The text file in the folder, if it has one. */
export function textFile(folder: string | undefined): string | undefined {
  const path = folder === undefined ? undefined : join(folder, "tinyshakespeare", "input.txt");
  return path !== undefined && existsSync(path) ? path : undefined;
}

const loadedDigits = new Map<string, Promise<readonly [Digits, Digits]>>();

/** Training and held-out digits; read (or drawn) once for each process. */
function digits({ folder, size }: Sources, small: boolean): Promise<readonly [Digits, Digits]> {
  const key = `${folder} ${size} ${small}`;
  const load = async (): Promise<readonly [Digits, Digits]> => {
    const counts = DIGITS[size];
    const [fit, held] = hasDigits(folder) ? await readDigits(join(folder, "mnist")) : makeDigits(counts.train, 0);
    const both = [await inMemory(fit, counts.train), await inMemory(held, counts.held)] as const;
    return small ? [halved(both[0]), halved(both[1])] : both;
  };
  const known = loadedDigits.get(key) ?? load();
  loadedDigits.set(key, known);
  return known;
}

function digitBatch({ side, images, labels }: Digits, rows: Uint32Array): DigitBatch {
  const pixels = side * side;
  const picked = new Float32Array(rows.length * pixels);
  rows.forEach((row, at) => {
    picked.set(images.subarray(row * pixels, (row + 1) * pixels), at * pixels);
  });
  const kinds = Int32Array.from(rows, (row) => labels[row] ?? 0);
  return { images: fromTypedArray(picked, [rows.length, side, side]), labels: fromTypedArray(kinds) };
}

/** What tasks on digits share. `small`: 14 × 14 pixels. */
export async function digitExamples(sources: Sources, small: boolean) {
  const [train, held] = await digits(sources, small);
  const counts = DIGITS[sources.size];
  const of = (from: Digits, count: number) => ranges(0, Math.min(count, from.labels.length), 500);
  return {
    size: train.labels.length,
    batch: (rows: Uint32Array) => digitBatch(train, rows),
    fit: () => of(train, counts.fit).map((rows) => digitBatch(train, rows)),
    held: () => of(held, counts.held).map((rows) => digitBatch(held, rows)),
  };
}

/** Characters before and after: `targets` [batch] follow the window, or [batch, context] each of its characters. */
export type TextBatch = { readonly inputs: Tensor<"i32">; readonly targets: Tensor<"i32"> };

/** A text as numbers. */
interface Characters {
  readonly vocabulary: number;
  readonly numbers: Int32Array;
  /** Where the held-out part begins. */
  readonly cut: number;
}

const loadedTexts = new Map<string, Promise<Characters>>();

function characters({ folder, size }: Sources): Promise<Characters> {
  const path = size === "tiny" ? undefined : textFile(folder);
  const key = path ?? "";
  const load = async (): Promise<Characters> => {
    const { readFile } = await import("node:fs/promises");
    const all = Array.from(path === undefined ? SONNETS : await readFile(path, "utf8"));
    const kinds = [...new Set(all)].sort();
    const places = new Map(kinds.map((character, place) => [character, place]));
    const numbers = Int32Array.from(all, (character) => places.get(character) ?? 0);
    return { vocabulary: kinds.length, numbers, cut: Math.floor(0.9 * all.length) };
  };
  const known = loadedTexts.get(key) ?? load();
  loadedTexts.set(key, known);
  return known;
}

/** Windows that begin at `rows`. */
function textBatch({ numbers }: Characters, rows: Uint32Array, context: number, every: boolean): TextBatch {
  const inputs = new Int32Array(rows.length * context);
  const targets = new Int32Array(every ? inputs.length : rows.length);
  rows.forEach((row, at) => {
    inputs.set(numbers.subarray(row, row + context), at * context);
    if (every) targets.set(numbers.subarray(row + 1, row + 1 + context), at * context);
    else targets[at] = numbers[row + context] ?? 0;
  });
  const shape = [rows.length, context];
  return { inputs: fromTypedArray(inputs, shape), targets: fromTypedArray(targets, every ? shape : [rows.length]) };
}

/** `count` starts, evenly spread over [first, stop). */
function spread(first: number, stop: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => first + Math.floor(((stop - first) * i) / count));
}

/** What tasks on text share: windows of `context` characters, with one target each, or one for every character. */
export async function textExamples(sources: Sources, context: number, every: boolean) {
  const text = await characters(sources);
  const windows = (every ? 2048 / context : 2048) * (sources.size === "tiny" ? 1 / 16 : 1);
  const evaluation = (first: number, stop: number) => {
    const rows = spread(first, stop - context - 1, windows);
    return ranges(0, rows.length, 512).map((part) =>
      textBatch(
        text,
        part.map((i) => rows[i] ?? 0),
        context,
        every,
      ),
    );
  };
  return {
    vocabulary: text.vocabulary,
    size: text.cut - context - 1,
    batch: (rows: Uint32Array) => textBatch(text, rows, context, every),
    fit: () => evaluation(0, text.cut),
    held: () => evaluation(text.cut, text.numbers.length),
  };
}
