/**
 * The IDX file format (MNIST and its relatives), plain or gzipped: header, sizes and length are checked, and every
 * error names the file and the byte. Turning files into batches is `dataset.ts`'s work.
 */
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { RaphsonError } from "../errors";

/** The bytes of an IDX file of unsigned bytes, and its sizes. */
export interface IdxFile {
  readonly path: string;
  readonly shape: readonly number[];
  readonly values: Uint8Array;
  /** Where `values` begins in the (unpacked) file. */
  readonly offset: number;
}

const ELEMENT_NAMES: Readonly<Record<number, string>> = {
  8: "u8",
  9: "i8",
  11: "i16",
  12: "i32",
  13: "f32",
  14: "f64",
};

export function idxError(path: string, offset: number, message: string): RaphsonError {
  return new RaphsonError("FILE", "data.idx", `${path}, byte ${offset}: ${message}`);
}

async function unpacked(path: string): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RaphsonError("FILE", "data.idx", `cannot read ${path}: ${reason}`, { cause });
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return await promisify(gunzip)(bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RaphsonError(
      "FILE",
      "data.idx",
      `${path}, byte 0: the gzip data are damaged or cut short (${reason}); fetch the file again`,
      { cause },
    );
  }
}

/** Reads an IDX file of unsigned bytes with `rank` axes. */
export async function readIdx(path: string, rank: number): Promise<IdxFile> {
  const bytes = await unpacked(path);
  if (bytes.length < 4) throw idxError(path, bytes.length, `the file ends inside the 4-byte magic number`);
  const [zero0 = 0, zero1 = 0, element = 0, axes = 0] = bytes;
  if (zero0 !== 0 || zero1 !== 0 || ELEMENT_NAMES[element] === undefined) {
    const magic = bytes.readUInt32BE(0).toString(16).padStart(8, "0");
    throw idxError(path, 0, `not an IDX file: its magic number is 0x${magic}`);
  }
  if (element !== 8) throw idxError(path, 2, `elements are ${ELEMENT_NAMES[element]}; images and labels must be u8`);
  if (axes !== rank)
    throw idxError(path, 3, `the file has ${axes} axes where ${rank} are needed; are the files swapped?`);

  const offset = 4 + 4 * rank;
  if (bytes.length < offset) throw idxError(path, bytes.length, `the file ends inside its header of ${offset} bytes`);
  const shape = Array.from({ length: rank }, (_, axis) => bytes.readUInt32BE(4 + 4 * axis));
  shape.forEach((size, axis) => {
    if (size === 0) throw idxError(path, 4 + 4 * axis, `axis ${axis} has size 0`);
  });
  const expected = offset + shape.reduce((product, size) => product * size, 1);
  if (bytes.length < expected) {
    throw idxError(path, bytes.length, `the file is cut short: sizes ${shape.join("×")} need ${expected} bytes`);
  }
  if (bytes.length > expected) {
    throw idxError(
      path,
      expected,
      `${bytes.length - expected} bytes follow the end that sizes ${shape.join("×")} give`,
    );
  }
  return { path, shape, values: bytes.subarray(offset), offset };
}
