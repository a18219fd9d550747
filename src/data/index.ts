/**
 * `data`: from files and arrays to typed batches of tensors. Each source is a function here; what it returns is a
 * `Dataset` or `Batches` of `dataset.ts`.
 */
import { isTypedArray, type TypedArray } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import { type AnyTensor, Tensor } from "../tensor";
import { checkObject, describe, requireOptions } from "../tensor/validate";
import { type Batch, madeTensor } from "./batch";
import { arrayColumn, type Column, imageColumn, labelColumn } from "./columns";
import { Batches, Dataset } from "./dataset";
import { idxError, readIdx } from "./idx";

export { arrow, arrowStream } from "./arrow";
export type { Batch } from "./batch";
export { type CsvOptions, csv, csvStream } from "./csv";
export type { BatchOptions, MappedDataset } from "./dataset";
export { Batches, Dataset } from "./dataset";
export type { Field, Fields, FieldsBatch, TableDType } from "./fields";
export { type ImageFolder, type ImageFolderOptions, imageFolder, type PictureBatch } from "./imageFolder";
export { type NpyBatch, type NpyDType, npy, npz } from "./npz";
export { parquet, parquetStream, type TableOptions } from "./parquet";
export type { Table } from "./table";
export type { TextBatch, TextData, TextOptions, TokenData } from "./text";
export { text, tokens } from "./text";

/** `images` [batch, height, width] with values in [0, 1], and their `labels` [batch]. */
export type ImageBatch = { readonly images: Tensor<"f32">; readonly labels: Tensor<"i32"> };

/** Where the images and labels lie, and how many kinds there are. */
export interface IdxFiles {
  readonly images: string;
  readonly labels: string;
  /** Labels must be smaller than this; 10 if not given. */
  readonly classes?: number;
}

/**
 * Reads images and labels in IDX format (MNIST and relatives), gzipped or not. RaphsonErrors, with file and byte: not
 * an IDX file, damaged, cut short, too long, another number of labels than images, a label out of range.
 *
 * @example
 *     const digits = await data.idx({ images: "t10k-images-idx3-ubyte.gz", labels: "t10k-labels-idx1-ubyte.gz" });
 *     const [fit, held] = digits.split(0.8, { seed: 1 });
 */
export async function idx(files: IdxFiles): Promise<Dataset<ImageBatch>> {
  requireOptions("data.idx", files, ["images", "labels", "classes"]);
  const { classes = 10 } = files;
  const [images, labels] = await Promise.all([readIdx(files.images, 3), readIdx(files.labels, 1)]);
  if (images.shape[0] !== labels.shape[0]) {
    throw new RaphsonError(
      "FILE",
      "data.idx",
      `${files.images} has ${images.shape[0]} images, but ${files.labels}, byte 4, says ${labels.shape[0]} labels`,
    );
  }
  const wrong = labels.values.findIndex((label) => label >= classes);
  if (wrong >= 0) {
    throw idxError(
      files.labels,
      labels.offset + wrong,
      `label ${labels.values[wrong]} is out of range 0 … ${classes - 1}; pass { classes } if there are more`,
    );
  }
  return new Dataset(
    new Map<string, Column>([
      ["images", imageColumn(images.values, images.shape)],
      ["labels", labelColumn(labels.values)],
    ]),
  );
}

/** A typed array (one number for each example), one with a shape whose first axis counts the examples, or a tensor. */
export type ArraySource = TypedArray | { readonly data: TypedArray; readonly shape: readonly number[] } | AnyTensor;

type DTypeOfSource<S> =
  S extends Tensor<infer D> ? D : S extends { readonly data: infer A } ? DTypeOfArray<A> : DTypeOfArray<S>;

type DTypeOfArray<A> = A extends Float32Array
  ? "f32"
  : A extends Float64Array
    ? "f64"
    : A extends Int32Array
      ? "i32"
      : A extends Uint32Array
        ? "u32"
        : A extends BigInt64Array
          ? "i64"
          : A extends Uint8Array
            ? "u8"
            : never;

/** The type of the batches drawn from arrays. */
export type ArraysBatch<S> = { readonly [Name in keyof S]: Tensor<DTypeOfSource<S[Name]>> };

export function arraysOf(source: ArraySource): { data: TypedArray; shape: readonly number[] } {
  if (source instanceof Tensor) return { data: source.dataSync(), shape: source.shape };
  if (isTypedArray(source)) return { data: source, shape: [source.length] };
  if (isTypedArray(source?.data) && Array.isArray(source.shape)) return source;
  throw argumentError("data", "a field must be a typed array, { data: typed array, shape }, or a tensor");
}

/**
 * A dataset over arrays in memory (not copied: leave them as they are); the first axis counts the examples.
 *
 * ```ts
 * import { data } from "raphson";
 *
 * const points = data.arrays({ x: { data: new Float32Array([0, 0, 0, 1, 1, 0]), shape: [3, 2] }, y: new Float32Array(3) });
 * for await (const { x, y } of points.batches(2)) console.log(x.shape, y.shape);
 * ```
 */
export function arrays<S extends Readonly<Record<string, ArraySource>>>(sources: S): Dataset<ArraysBatch<S>> {
  checkObject("data.arrays", sources, "{ x: typed array, y: typed array }");
  const columns = Object.entries(sources).map(([name, source]): [string, Column] => {
    const { data, shape } = arraysOf(source);
    return [name, arrayColumn(name, data, shape)];
  });
  return new Dataset(new Map(columns));
}

type Source<T> = Iterable<T> | AsyncIterable<T>;

/**
 * Batches from any iterable of objects of arrays or tensors (each item is one batch). A generator can be read for one
 * epoch only; pass a function that makes one, or an array, to allow more.
 *
 * ```ts
 * import { data } from "raphson";
 *
 * function* stream() {
 *   for (let index = 0; index < 3; index++) yield { x: Float32Array.from([index, index + 1]) };
 * }
 * for await (const { x } of data.from(stream)) console.log(x.shape);
 * ```
 */
export function from<S extends Readonly<Record<string, ArraySource>>>(
  source: Source<S> | (() => Source<S>),
): Batches<ArraysBatch<S>> {
  if (typeof source !== "function" && !isIterable(source)) {
    throw argumentError(
      "data.from",
      `takes an iterable of batches, or a function that gives one, got ${describe(source)}`,
    );
  }
  return new Batches(
    async function* (_epoch, first) {
      const items = typeof source === "function" ? source() : source;
      let index = 0;
      for await (const item of items) if (index++ >= first) yield batchOf(item);
    },
    Array.isArray(source) ? source.length : undefined,
    typeof source === "function" || !isIterator(source),
  );
}

function isIterable(source: unknown): boolean {
  const methods = Object(source) as Partial<Iterable<unknown> & AsyncIterable<unknown>>;
  return typeof (methods[Symbol.iterator] ?? methods[Symbol.asyncIterator]) === "function";
}

/** Whether this is a generator or the like: its own iterator, which is used up when it has been read. */
function isIterator(source: Source<unknown>): boolean {
  return typeof (source as { readonly next?: unknown }).next === "function";
}

function batchOf<S extends Readonly<Record<string, ArraySource>>>(item: S): ArraysBatch<S> {
  const entries = Object.entries(item).map(([name, source]): [string, AnyTensor] => {
    if (source instanceof Tensor) return [name, source];
    const { data, shape } = arraysOf(source);
    const elements = shape.reduce((product, length) => product * length, 1);
    if (elements === 0 || elements !== data.length) {
      throw argumentError(
        "data.from",
        elements === 0
          ? `${name} is empty, with shape [${shape.join(", ")}]; leave empty batches out`
          : `${name} has ${data.length} values for shape [${shape.join(", ")}]`,
      );
    }
    return [name, madeTensor(data, shape)];
  });
  if (entries.length === 0) throw argumentError("data.from", "a batch without fields; give it a named array");
  return Object.fromEntries(entries) as Batch as ArraysBatch<S>;
}
