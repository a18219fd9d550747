/**
 * Datasets of NumPy arrays: several `.npy` files, or one archive (`.npz`, a zip of them, stored or deflated). Of an archive only
 * the members that are asked for are read. What stands in a `.npy` file is `npy.ts`'s matter.
 */
import { type FileHandle, open, readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { crc32, inflateRaw } from "node:zlib";
import { allocate, type DType, type TypedArray } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import type { Tensor } from "../tensor";
import { arrayColumn } from "./columns";
import { Dataset } from "./dataset";
import { type NpyArray, parseNpy } from "./npy";
import { fileError } from "./optional";

/** The dtypes that arrays can be read as. */
export type NpyDType = "f32" | "f64" | "i32" | "i64" | "u8" | "u32";

/** The type of the batches of arrays read as these dtypes. */
export type NpyBatch<F extends Readonly<Record<string, NpyDType>>> = { readonly [Name in keyof F]: Tensor<F[Name]> };

/** A member of a zip archive, as its directory lists it. */
interface Member {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly packed: number;
  readonly size: number;
  readonly header: number;
}

const DIRECTORY = 0x02014b50;
const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;

/** A zip archive, open for reading. Formats: APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3. */
class Zip {
  readonly #fail: (what: string) => RaphsonError;

  private constructor(
    readonly file: FileHandle,
    readonly members: ReadonlyMap<string, Member>,
    fail: (what: string) => RaphsonError,
  ) {
    this.#fail = fail;
  }

  static async open(file: FileHandle, fail: (what: string) => RaphsonError): Promise<Zip> {
    const { size } = await file.stat();
    const tail = await bytesAt(file, Math.max(0, size - 65_557), size, fail);
    const at = tail.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
    if (at < 0 || at + 22 > tail.length || tail.readUInt32LE(at) !== END) throw fail("not a zip archive, or cut short");
    let [length, start] = [tail.readUInt32LE(at + 12), tail.readUInt32LE(at + 16)];
    if (at >= 20 && tail.readUInt32LE(at - 20) === LOCATOR_64) {
      const place = Number(tail.readBigUInt64LE(at - 12));
      const end = await bytesAt(file, place, place + 56, fail);
      if (end.readUInt32LE(0) !== END_64) throw fail("the directory of the archive is damaged");
      [length, start] = [Number(end.readBigUInt64LE(40)), Number(end.readBigUInt64LE(48))];
    }
    const directory = await bytesAt(file, start, start + length, fail);
    return new Zip(file, membersOf(directory, fail), fail);
  }

  async read({ name, method, crc, packed, size, header }: Member): Promise<Buffer> {
    const local = await bytesAt(this.file, header, header + 30, this.#fail);
    const start = header + 30 + local.readUInt16LE(26) + local.readUInt16LE(28);
    const bytes = await bytesAt(this.file, start, start + packed, this.#fail);
    if (method !== 0 && method !== 8)
      throw this.#fail(`${name} is packed by method ${method}; only deflate can be read`);
    const whole =
      method === 0
        ? bytes
        : await promisify<Buffer, Buffer>(inflateRaw)(bytes).catch((cause: unknown) => {
            throw this.#fail(`${name} is damaged: ${cause instanceof Error ? cause.message : String(cause)}`);
          });
    if (whole.length !== size || crc32(whole) !== crc) throw this.#fail(`${name} is damaged`);
    return whole;
  }
}

async function bytesAt(file: FileHandle, start: number, stop: number, fail: (what: string) => RaphsonError) {
  const into = Buffer.alloc(stop - start);
  const { bytesRead } = await file.read(into, 0, into.length, start);
  if (bytesRead !== into.length) throw fail(`cut short at byte ${start + bytesRead}`);
  return into;
}

function membersOf(directory: Buffer, fail: (what: string) => RaphsonError): Map<string, Member> {
  const members = new Map<string, Member>();
  for (let at = 0; at < directory.length; ) {
    if (at + 46 > directory.length || directory.readUInt32LE(at) !== DIRECTORY) {
      throw fail("the directory of the archive is damaged");
    }
    const [nameBytes, extraBytes, comment] = [28, 30, 32].map((place) => directory.readUInt16LE(at + place));
    const extra = at + 46 + (nameBytes ?? 0);
    const name = directory.toString("utf8", at + 46, extra);
    const [method, crc] = [directory.readUInt16LE(at + 10), directory.readUInt32LE(at + 16)];
    const wide = wideFields(directory.subarray(extra, extra + (extraBytes ?? 0)));
    // A field that does not fit into four bytes is in the extra field, in this order.
    const value = (place: number) => {
      const narrow = directory.readUInt32LE(at + place);
      return narrow === 0xffffffff ? Number(wide.shift() ?? narrow) : narrow;
    };
    const size = value(24);
    const packed = value(20);
    members.set(name, { name, method, crc, packed, size, header: value(42) });
    at = extra + (extraBytes ?? 0) + (comment ?? 0);
  }
  return members;
}

/** The numbers of the Zip64 extra field. */
function wideFields(extra: Buffer): bigint[] {
  for (let at = 0; at + 4 <= extra.length; ) {
    const [kind, bytes] = [extra.readUInt16LE(at), extra.readUInt16LE(at + 2)];
    if (kind === 1) {
      const count = Math.floor(Math.min(bytes, extra.length - at - 4) / 8);
      return Array.from({ length: count }, (_, i) => extra.readBigUInt64LE(at + 4 + 8 * i));
    }
    at += 4 + bytes;
  }
  return [];
}

/** The elements as `dtype`; a RaphsonError where that would change more than the last digits of floats. */
function converted(op: string, path: string, { data }: NpyArray, dtype: NpyDType): TypedArray {
  const into: TypedArray = allocate(dtype, data.length);
  const [fromFloat, toFloat] = [data instanceof Float32Array || data instanceof Float64Array, dtype[0] === "f"];
  if (into.constructor === data.constructor) return data;
  if (fromFloat && !toFloat) {
    throw new RaphsonError("FILE", op, `${path} holds fractions; read it as f32 or f64, not ${dtype}`);
  }
  for (let i = 0; i < data.length; i++) {
    const value = data[i] ?? 0;
    into[i] = dtype === "i64" ? BigInt(value) : Number(value);
    if (!toFloat && Number(into[i]) !== Number(value)) {
      throw new RaphsonError(
        "FILE",
        op,
        `${path}, element ${i}: ${value} does not fit into ${dtype}; read it as i64 or f64`,
      );
    }
  }
  return into;
}

function checkDTypes(op: string, dtypes: Readonly<Record<string, DType>>): void {
  for (const [name, dtype] of Object.entries(dtypes)) {
    if (["f32", "f64", "i32", "i64", "u8", "u32"].includes(dtype)) continue;
    throw argumentError(op, `${name} has dtype ${dtype}; arrays are read as f32, f64, i32, i64, u8 or u32`);
  }
}

/** The dataset of arrays by name, whose first axes count the examples. */
function datasetOf<F extends Readonly<Record<string, NpyDType>>>(
  op: string,
  arrays: readonly { readonly name: string; readonly path: string; readonly array: NpyArray }[],
  dtypes: F,
): Dataset<NpyBatch<F>> {
  const columns = arrays.map(({ name, path, array }) => {
    if (array.shape.length === 0)
      throw new RaphsonError("FILE", op, `${path} is one number; the first axis counts examples`);
    return [name, arrayColumn(name, converted(op, path, array, dtypes[name] ?? "f32"), array.shape)] as const;
  });
  return new Dataset(new Map(columns));
}

/**
 * Reads NumPy arrays from files of their own, as the dtypes that you name; the first axis counts the examples. Whole numbers may
 * become floats, and floats lose digits, but nothing else changes. RaphsonErrors, with file and byte: not a `.npy` file,
 * damaged, elements that are no numbers or do not fit, files of different lengths.
 *
 * @example
 *     const points = await data.npy({ x: "x.npy", y: "y.npy" }, { x: "f32", y: "i32" });
 */
export async function npy<const F extends Readonly<Record<string, NpyDType>>>(
  files: { readonly [Name in keyof F]: string },
  dtypes: F,
): Promise<Dataset<NpyBatch<F>>> {
  checkDTypes("data.npy", dtypes);
  const names = Object.keys(dtypes);
  const arrays = await Promise.all(
    names.map(async (name) => {
      const path: string = files[name] ?? "";
      const bytes = await readFile(path).catch((cause: unknown) => {
        throw fileError("data.npy", path, cause);
      });
      return { name, path, array: parseNpy("data.npy", path, bytes) };
    }),
  );
  return datasetOf("data.npy", arrays, dtypes);
}

/**
 * Reads arrays of a NumPy archive (`numpy.savez` or `savez_compressed`) by their names, as `npy` does files. RaphsonErrors: not
 * an archive, damaged, an array that is not there, and those of `npy`.
 *
 * @example
 *     const points = await data.npz("points.npz", { x: "f32", y: "i32" });
 *     const [fit, held] = points.split(0.9);
 */
export async function npz<const F extends Readonly<Record<string, NpyDType>>>(
  path: string,
  dtypes: F,
): Promise<Dataset<NpyBatch<F>>> {
  const op = "data.npz";
  checkDTypes(op, dtypes);
  const file = await open(path).catch((cause: unknown) => {
    throw fileError(op, path, cause);
  });
  try {
    const zip = await Zip.open(file, (what) => new RaphsonError("FILE", op, `${path}: ${what}`));
    const arrays = [];
    for (const name of Object.keys(dtypes)) {
      const member = zip.members.get(`${name}.npy`);
      if (member === undefined) {
        const there = [...zip.members.keys()].map((found) => found.replace(/\.npy$/, "")).join(", ");
        throw new RaphsonError("FILE", op, `${path} has no array ${name}; it has ${there}`);
      }
      const inside = `${path}, ${member.name}`;
      arrays.push({ name, path: inside, array: parseNpy(op, inside, await zip.read(member)) });
    }
    return datasetOf(op, arrays, dtypes);
  } finally {
    await file.close();
  }
}
