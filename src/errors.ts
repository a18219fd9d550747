/**
 * The one error type of the package, for the addon's errors and for those found in TypeScript alike. The checks that
 * raise them live where the values enter.
 */

/** What kind of thing went wrong. */
export type RaphsonErrorCode =
  | "SHAPE"
  | "DTYPE"
  | "ARGUMENT"
  | "INDEX"
  | "DISPOSED"
  | "NON_FINITE"
  | "MEMORY"
  | "FILE"
  | "DEVICE"
  | "DERIVATIVE"
  | "INTERRUPTED"
  | "ADDON"
  | "INTERNAL";

/** What an error is about, beside its sentence. */
export interface RaphsonErrorDetails {
  readonly shapes?: readonly (readonly number[])[];
  readonly dtypes?: readonly string[];
  readonly cause?: unknown;
}

/** The text in front of the JSON in messages of errors that the addon throws. */
const PREFIX = "raphson:";

/**
 * An error of this package: `code` to switch on, `op` that refused, and the operands' `shapes` and `dtypes` where they
 * matter. The message reads `[op] what is wrong; what to do`.
 *
 * ```ts
 * import { ones, RaphsonError } from "raphson";
 *
 * try {
 *   ones([2, 3]).add(ones([4]));
 * } catch (error) {
 *   if (error instanceof RaphsonError) console.log(error.code, error.op, error.shapes);
 * }
 * ```
 */
export class RaphsonError extends Error {
  override readonly name = "RaphsonError";
  readonly code: RaphsonErrorCode;
  readonly op: string;
  readonly shapes: readonly (readonly number[])[];
  readonly dtypes: readonly string[];

  constructor(code: RaphsonErrorCode, op: string, sentence: string, details: RaphsonErrorDetails = {}) {
    super(`[${op}] ${sentence}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.op = op;
    this.shapes = details.shapes ?? [];
    this.dtypes = details.dtypes ?? [];
  }
}

/** An argument or option outside its range. */
export function argumentError(op: string, sentence: string, details?: RaphsonErrorDetails): RaphsonError {
  return new RaphsonError("ARGUMENT", op, sentence, details);
}

/** Shapes that do not fit the op. */
export function shapeError(op: string, sentence: string, ...shapes: readonly (readonly number[])[]): RaphsonError {
  return new RaphsonError("SHAPE", op, sentence, { shapes });
}

/** Dtypes that do not fit the op. */
export function dtypeError(op: string, sentence: string, ...dtypes: readonly string[]): RaphsonError {
  return new RaphsonError("DTYPE", op, sentence, { dtypes });
}

/** An index or label outside its axis. */
export function indexError(op: string, sentence: string, ...shapes: readonly (readonly number[])[]): RaphsonError {
  return new RaphsonError("INDEX", op, sentence, { shapes });
}

/** Use of a tensor after its memory was given back. */
export function disposedError(op: string, sentence: string): RaphsonError {
  return new RaphsonError("DISPOSED", op, sentence);
}

/** A derivative asked for where none exists. */
export function derivativeError(op: string, sentence: string, details?: RaphsonErrorDetails): RaphsonError {
  return new RaphsonError("DERIVATIVE", op, sentence, details);
}

/** `error` as the addon threw it, as a RaphsonError; anything that is not the addon's comes back as it was. */
export function translateError(error: unknown): unknown {
  if (!(error instanceof Error) || !error.message.startsWith(PREFIX)) return error;
  const parsed = parse(error.message.slice(PREFIX.length));
  if (parsed === undefined) return error;
  const { code, op, message, shapes, dtypes } = parsed;
  const plain = message.startsWith(`[${op}] `) ? message.slice(op.length + 3) : message;
  const translated = new RaphsonError(code, op, plain, { shapes, dtypes });
  Error.captureStackTrace?.(translated, translateError);
  return translated;
}

interface AddonError {
  code: RaphsonErrorCode;
  op: string;
  message: string;
  shapes: number[][];
  dtypes: string[];
}

function parse(json: string): AddonError | undefined {
  try {
    const value: Partial<AddonError> = JSON.parse(json);
    if (typeof value.code !== "string" || typeof value.message !== "string") return undefined;
    return {
      code: value.code,
      op: value.op ?? "raphson",
      message: value.message,
      shapes: value.shapes ?? [],
      dtypes: value.dtypes ?? [],
    };
  } catch {
    return undefined; // not ours after all: the caller hands on the error as it came
  }
}
