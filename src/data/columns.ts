/**
 * Columns: where the examples of a dataset lie in host memory, and how the rows of a batch are gathered from them.
 * Shuffling and batching are `dataset.ts`'s work; file formats have their own files.
 */
import { allocate, type DType, dtypeOfData, type TypedArray } from "../dtype";
import { shapeError } from "../errors";

/** One named field of a dataset: `gather` copies the given examples, one after another, at once or after reading them. */
export interface Column {
  readonly dtype: DType;
  /** The shape of one example. */
  readonly shape: readonly number[];
  readonly size: number;
  gather(rows: Uint32Array): TypedArray | Promise<TypedArray>;
}

/** Rows of a typed array with the given whole shape; the first axis counts the examples. */
export function arrayColumn(name: string, values: TypedArray, shape: readonly number[]): Column {
  const dtype = dtypeOfData(values);
  const [size, ...rest] = shape;
  const elements = shape.reduce((product, length) => product * length, 1);
  if (size === undefined || elements !== values.length) {
    throw shapeError(
      "data.arrays",
      `${name} has ${values.length} values, but its shape [${shape.join(", ")}] needs ${elements}; ` +
        "the first axis counts the examples",
      shape,
    );
  }
  const width = rest.reduce((product, length) => product * length, 1);
  return {
    dtype,
    shape: rest,
    size,
    gather(rows) {
      const into = allocate(dtype, rows.length * width);
      rows.forEach((row, position) => {
        // Both are of one kind, which the compiler cannot know.
        (into as Float64Array).set(values.subarray(row * width, (row + 1) * width) as Float64Array, position * width);
      });
      return into;
    },
  };
}

/** Images kept as bytes and given out as f32 in [0, 1]. */
export function imageColumn(bytes: Uint8Array, shape: readonly number[]): Column {
  const [size = 0, ...rest] = shape;
  const width = rest.reduce((product, length) => product * length, 1);
  return {
    dtype: "f32",
    shape: rest,
    size,
    gather(rows) {
      const into = new Float32Array(rows.length * width);
      let position = 0;
      for (const row of rows) {
        const stop = (row + 1) * width;
        for (let at = row * width; at < stop; at++) into[position++] = (bytes[at] ?? 0) / 255;
      }
      return into;
    },
  };
}

/** Labels kept as bytes and given out as i32. */
export function labelColumn(bytes: Uint8Array): Column {
  return {
    dtype: "i32",
    shape: [],
    size: bytes.length,
    gather: (rows) => Int32Array.from(rows, (row) => bytes[row] ?? 0),
  };
}

/** Windows of `length` neighbours, one for each start, over a sequence; nothing is stored twice. */
export function windowColumn(sequence: Int32Array, first: number, size: number, length: number): Column {
  return {
    dtype: "i32",
    shape: [length],
    size,
    gather(rows) {
      const into = new Int32Array(rows.length * length);
      rows.forEach((row, position) => {
        into.set(sequence.subarray(first + row, first + row + length), position * length);
      });
      return into;
    },
  };
}
