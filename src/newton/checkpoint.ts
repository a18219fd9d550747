/**
 * Checkpoints: everything that a training step needs to go on as if it had never stopped, in one safetensors file. What
 * that is, `step.ts` says; the controller's state is a list of tensors here, whatever it means. The file is written
 * beside its place and renamed, so that there is the old one or the new one, never half of one.
 */
import { dtypeCode, dtypeOfCode } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import { type Handle, native } from "../native";
import { CHECKPOINT_FORMAT } from "../nn/store";
import { showShape } from "../tensor/validate";
import type { Kind } from "./trace";

const VERSION = "1";
const ARRAYS_PREFIX = "arrays.";

/** What a checkpoint may carry beside the training's state. */
export interface CheckpointExtras {
  readonly metadata?: Readonly<Record<string, string>>;
  /** Rows of numbers, kept bit for bit. */
  readonly arrays?: Readonly<Record<string, Float64Array>>;
}

/** A step's own part of a checkpoint. */
export interface Snapshot {
  readonly tensors: readonly (readonly [name: string, handle: Handle])[];
  /** What JSON can hold. */
  readonly numbers: Readonly<Record<string, unknown>>;
}

/** A name, and the dtype and shape that are expected under it. */
export type Expected = readonly [name: string, kind: Kind];

const wordsOf = (values: Float64Array) => new Uint8Array(values.slice().buffer);

/** Writes a checkpoint, atomically. Resolves when it is in its place. */
export async function writeCheckpoint(path: string, snapshot: Snapshot, extras: CheckpointExtras): Promise<void> {
  const { metadata = {}, arrays = {} } = extras;
  // As words of 32 bits: a device need not have f64.
  const rows = Object.entries(arrays).filter(([, values]) => values.length > 0);
  const uploaded = rows.map(([, values]) =>
    native.upload(wordsOf(values), dtypeCode("u32", "save"), [2 * values.length]),
  );
  const names = [...snapshot.tensors.map(([name]) => name), ...rows.map(([name]) => ARRAYS_PREFIX + name)];
  const handles = [...snapshot.tensors.map(([, handle]) => handle), ...uploaded];
  const own = { format: CHECKPOINT_FORMAT, version: VERSION, step: JSON.stringify(snapshot.numbers) };
  try {
    await native.saveSafetensors(path, names, handles, { ...metadata, ...own });
  } finally {
    native.dispose(uploaded);
  }
}

/** A checkpoint that has been read; `close` frees what nobody took. */
export class CheckpointFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** The numbers of its `Snapshot`. */
  readonly numbers: Readonly<Record<string, unknown>>;
  readonly #tensors: Map<string, Handle>;

  private constructor(path: string, tensors: Map<string, Handle>, metadata: Record<string, string>) {
    this.path = path;
    this.#tensors = tensors;
    const { format, version, step, ...rest } = metadata;
    this.metadata = rest;
    if (format !== CHECKPOINT_FORMAT) {
      throw this.error(
        "it is a safetensors file, but no checkpoint of a training; weights alone are read by model.load and io.load",
      );
    }
    if (version !== VERSION) {
      throw this.error(`it has version ${version} of the format, and this raphson reads version ${VERSION}`);
    }
    this.numbers = this.parse("step", step);
  }

  /** Reads a file. RaphsonErrors (`FILE`): missing, damaged, or no checkpoint. */
  static async read(path: string): Promise<CheckpointFile> {
    if (typeof path !== "string" || path === "") throw argumentError("resume", "needs the path of a checkpoint");
    const { names, handles, metadata } = await native.loadSafetensors(path);
    try {
      return new CheckpointFile(path, new Map(names.map((name, index) => [name, handles[index] ?? 0])), metadata);
    } catch (error) {
      native.dispose(handles);
      throw error;
    }
  }

  error(reason: string, shapes: readonly (readonly number[])[] = [], dtypes: readonly string[] = []): RaphsonError {
    return new RaphsonError("FILE", "resume", `cannot go on from ${this.path}: ${reason}`, { shapes, dtypes });
  }

  /** A JSON object among the metadata. */
  parse(name: string, text: string | undefined): Record<string, unknown> {
    try {
      const value: unknown = JSON.parse(text ?? "");
      if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
    } catch {
      // told below
    }
    throw this.error(`its metadata "${name}" are damaged`);
  }

  /** One of the numbers, checked: a whole number of at least 0. */
  count(name: string): number {
    const value = this.numbers[name];
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw this.error(`its number "${name}" is ${JSON.stringify(value)}`);
  }

  /** Compares names, dtypes and shapes; `prefixes` are those of which nothing else may be there. */
  check(expected: readonly Expected[], prefixes: readonly string[]): void {
    const wanted = new Set(expected.map(([name]) => name));
    const missing = [...wanted].filter((name) => !this.#tensors.has(name));
    const unknown = [...this.#tensors.keys()].filter(
      (name) => !wanted.has(name) && prefixes.some((prefix) => name.startsWith(prefix)),
    );
    if (missing.length > 0 || unknown.length > 0) {
      throw this.error(
        `its tensors are another training's; missing: ${list(missing)}; not known here: ${list(unknown)}`,
      );
    }
    for (const [name, kind] of expected) this.#checkKind(name, kind, this.#tensors.get(name) ?? 0);
  }

  #checkKind(name: string, { dtype, shape }: Kind, handle: Handle): void {
    const [foundShape, foundDType] = [native.shapeOf(handle), dtypeOfCode(native.dtypeOf(handle))];
    if (foundShape.join() !== shape.join()) {
      const advice = "build model and optimizer as they were when it was saved";
      const both = `"${name}" is ${showShape(foundShape)} there and ${showShape(shape)} here`;
      throw this.error(`${both}; ${advice}`, [foundShape, shape]);
    }
    if (foundDType !== dtype) {
      const advice = "a checkpoint goes on with the dtypes, and so the kind of device, that it was made with";
      throw this.error(`"${name}" is ${foundDType} there and ${dtype} here; ${advice}`, [], [foundDType, dtype]);
    }
  }

  /** The handles under these names, which are the caller's from now on. */
  take(expected: readonly Expected[]): Handle[] {
    return expected.map(([name]) => {
      const handle = this.#tensors.get(name);
      if (handle === undefined) throw this.error(`it has no tensor "${name}"`);
      this.#tensors.delete(name);
      return handle;
    });
  }

  /** The rows of numbers that were saved with it; empty ones are left out. */
  async arrays(): Promise<Record<string, Float64Array>> {
    const named = [...this.#tensors].filter(([name]) => name.startsWith(ARRAYS_PREFIX));
    const read = named.map(async ([name, handle]): Promise<[string, Float64Array]> => {
      const bytes = await native.read([handle]);
      if (bytes.byteLength % 8 !== 0) throw this.error(`its numbers "${name}" are damaged`);
      return [name.slice(ARRAYS_PREFIX.length), new Float64Array(bytes.slice().buffer)];
    });
    return Object.fromEntries(await Promise.all(read));
  }

  /** Frees what was not taken. */
  close(): void {
    native.dispose([...this.#tensors.values()]);
    this.#tensors.clear();
  }
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.slice(0, 8).join(", ") + (names.length > 8 ? ", …" : "");
}
