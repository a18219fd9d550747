/**
 * NumPy's `.npy` (versions 1 to 3): its header, and its elements as a typed array, in row-major order and this machine's byte
 * order. Archives of them are `npz.ts`'s work. The format: numpy.lib.format in NumPy's documentation.
 */
import type { TypedArray } from "../dtype";
import { RaphsonError } from "../errors";
import { halfToFloat } from "../half";

/** An array of a file. */
export interface NpyArray {
  readonly data: TypedArray;
  readonly shape: readonly number[];
  /** Whether the elements are truth values, which u8 stands for too. */
  readonly bool: boolean;
}

/** How one element is read, and what holds it: the smallest of our dtypes that has every value. */
interface Kind {
  readonly bytes: number;
  readonly make: (size: number) => TypedArray;
  readonly read: (view: DataView, at: number, little: boolean) => number | bigint;
}

const f32 = (size: number) => new Float32Array(size);
const i32 = (size: number) => new Int32Array(size);
const i64 = (size: number) => new BigInt64Array(size);
const u8 = (size: number) => new Uint8Array(size);

const KINDS: Readonly<Record<string, Kind>> = {
  f2: {
    bytes: 2,
    make: f32,
    read: (v, at, little) => halfToFloat(v.getUint16(at, little)),
  },
  f4: { bytes: 4, make: f32, read: (v, at, little) => v.getFloat32(at, little) },
  f8: { bytes: 8, make: (size) => new Float64Array(size), read: (v, at, little) => v.getFloat64(at, little) },
  i1: { bytes: 1, make: i32, read: (v, at) => v.getInt8(at) },
  i2: { bytes: 2, make: i32, read: (v, at, little) => v.getInt16(at, little) },
  i4: { bytes: 4, make: i32, read: (v, at, little) => v.getInt32(at, little) },
  i8: { bytes: 8, make: i64, read: (v, at, little) => v.getBigInt64(at, little) },
  u1: { bytes: 1, make: u8, read: (v, at) => v.getUint8(at) },
  u2: { bytes: 2, make: i32, read: (v, at, little) => v.getUint16(at, little) },
  u4: { bytes: 4, make: (size) => new Uint32Array(size), read: (v, at, little) => v.getUint32(at, little) },
  u8: { bytes: 8, make: i64, read: (v, at, little) => v.getBigUint64(at, little) },
  b1: { bytes: 1, make: u8, read: (v, at) => (v.getUint8(at) === 0 ? 0 : 1) },
};

/** The array in the bytes of a `.npy` file. `path` is for errors. */
export function parseNpy(op: string, path: string, bytes: Uint8Array): NpyArray {
  const fail = (at: number, what: string) => new RaphsonError("FILE", op, `${path}, byte ${at}: ${what}`);
  const { type, little, fortran, shape, offset } = header(bytes, fail);
  const kind = KINDS[type];
  if (kind === undefined) {
    throw fail(0, `elements are ${type}; only bool, whole and real numbers can be read; convert them with astype`);
  }
  const size = shape.reduce((product, length) => product * length, 1);
  const end = offset + size * kind.bytes;
  if (bytes.length !== end) {
    throw fail(
      Math.min(bytes.length, end),
      `shape (${shape.join(", ")}) needs ${end} bytes, and there are ${bytes.length}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = kind.make(size);
  for (let i = 0; i < size; i++) {
    const value = kind.read(view, offset + i * kind.bytes, little);
    if (typeof value === "bigint" && value >= 1n << 63n) throw fail(offset + i * kind.bytes, `${value} is no i64`);
    data[fortran ? rowMajor(i, shape) : i] = value;
  }
  return { data, shape, bool: type === "b1" };
}

/** Where the i-th element in column-major order lies in row-major order. */
function rowMajor(i: number, shape: readonly number[]): number {
  let [rest, stride, at] = [i, shape.reduce((product, length) => product * length, 1), 0];
  for (const length of shape) {
    stride /= length;
    at += (rest % length) * stride;
    rest = Math.floor(rest / length);
  }
  return at;
}

function header(bytes: Uint8Array, fail: (at: number, what: string) => RaphsonError) {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 10 || buffer.toString("latin1", 0, 6) !== "\x93NUMPY") throw fail(0, "not a .npy file");
  const version = bytes[6] ?? 0;
  if (version < 1 || version > 3) throw fail(6, `version ${version} of the format is not known`);
  const start = version === 1 ? 10 : 12;
  if (bytes.length < start) throw fail(bytes.length, "the file ends inside its header");
  const length = version === 1 ? buffer.readUInt16LE(8) : buffer.readUInt32LE(8);
  const offset = start + length;
  if (bytes.length < offset) throw fail(bytes.length, `the file ends inside its header of ${offset} bytes`);
  const text = buffer.toString(version === 3 ? "utf8" : "latin1", start, offset);
  const order = /'fortran_order':\s*(True|False)/.exec(text)?.[1];
  const sizes = /'shape':\s*\(([\d\s,L]*)\)/.exec(text)?.[1];
  const descr = /'descr':\s*(?:'([<>|=]?)([^']*)'|(\[))/.exec(text);
  if (order === undefined || sizes === undefined || descr === null)
    throw fail(start, `the header is damaged: ${text.trim()}`);
  if (descr[3] !== undefined) throw fail(start, "elements are records; save their fields as arrays of their own");
  const shape = sizes.split(",").flatMap((part) => (part.trim() === "" ? [] : [Number.parseInt(part, 10)]));
  return { type: descr[2] ?? "", little: descr[1] !== ">", fortran: order === "True", shape, offset };
}
