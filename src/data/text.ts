/**
 * Text as a dataset for language models: characters and their vocabulary, or the numbers of any tokenizer; windows of context
 * with what follows. Tokenizers are not here.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { argumentError, RaphsonError } from "../errors";
import type { Tensor } from "../tensor";
import { describe, requireOptions } from "../tensor/validate";
import { type Column, windowColumn } from "./columns";
import { Dataset } from "./dataset";

/**
 * `inputs` [batch, context]: the characters before; `targets` [batch]: the one that follows, or [batch, context]: the one that
 * follows each; all as places in the vocabulary.
 */
export type TextBatch = { readonly inputs: Tensor<"i32">; readonly targets: Tensor<"i32"> };

/** A sequence of tokens, cut into windows. */
export interface TokenData {
  readonly context: number;
  /** The number of tokens. */
  readonly length: number;
  /** Windows of the first part of the sequence. */
  readonly train: Dataset<TextBatch>;
  /** Windows of the last part; it shares no token with `train`. */
  readonly held: Dataset<TextBatch>;
}

/** A text, cut into windows. */
export interface TextData {
  /** The distinct characters, sorted; a character's number is its place here. */
  readonly vocabulary: readonly string[];
  readonly context: number;
  /** The text's characters. */
  readonly length: number;
  /** Windows of the first part of the text. */
  readonly train: Dataset<TextBatch>;
  /** Windows of the last part; it shares no character position with `train`. */
  readonly held: Dataset<TextBatch>;
  /** The numbers of a string's characters; an error for one that the text does not contain. */
  encode(text: string): Int32Array;
  decode(numbers: Iterable<number>): string;
}

/** Options of `data.text`. */
export interface TextOptions {
  /** Characters that the model sees before the one to predict. */
  readonly context: number;
  /** The part of the text, from its end, that is held out; 0.1 if not given. */
  readonly held?: number;
  /** Targets for the character after the window (`last`), or after each of its characters; `last` if not given. */
  readonly targets?: "last" | "every";
}

/** A file's content where `source` names a file, `source` itself otherwise. */
async function contentOf(source: string | URL): Promise<string> {
  if (typeof source !== "string" && !(source instanceof URL)) {
    throw argumentError("data.text", `takes a text, or the name or URL of a file, got ${describe(source)}`);
  }
  const pathLike = source instanceof URL || (source.length < 4096 && !source.includes("\n"));
  const named = source instanceof URL || (pathLike && /^\S+\.[A-Za-z0-9]{1,5}$/.test(source));
  if (!named && !(pathLike && existsSync(source))) return source;
  try {
    return await readFile(source, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RaphsonError("FILE", "data.text", `cannot read ${source}: ${reason}`, { cause });
  }
}

/** The windows of `sequence[first, stop)`. */
function windows(
  sequence: Int32Array,
  first: number,
  stop: number,
  context: number,
  targets: "last" | "every",
): Dataset<TextBatch> {
  const size = stop - first - context;
  const last = { ...windowColumn(sequence, first + context, size, 1), shape: [] };
  return new Dataset(
    new Map<string, Column>([
      ["inputs", windowColumn(sequence, first, size, context)],
      ["targets", targets === "last" ? last : windowColumn(sequence, first + 1, size, context)],
    ]),
  );
}

/** Where the held-out part begins, the options and the length checked. */
function checked(op: string, length: number, what: string, options: TextOptions): number {
  requireOptions(op, options, ["context", "held", "targets"]);
  const { context, held = 0.1, targets = "last" } = options;
  if (!(Number.isSafeInteger(context) && context >= 1)) {
    throw argumentError(op, `context must be a whole number of at least 1, not ${context}`);
  }
  if (targets !== "last" && targets !== "every") {
    throw argumentError(op, `targets is "last" or "every", not ${JSON.stringify(targets)}`);
  }
  if (!(held > 0 && held < 1)) throw argumentError(op, `held must lie between 0 and 1, not ${held}`);
  const cut = Math.floor(length * (1 - held));
  if (cut <= context || length - cut <= context) {
    throw argumentError(op, `${length} ${what} are too few for a context of ${context} and a held-out part of ${held}`);
  }
  return cut;
}

function parts(sequence: Int32Array, cut: number, { context, targets = "last" }: TextOptions): TokenData {
  return {
    context,
    length: sequence.length,
    train: windows(sequence, 0, cut, context, targets),
    held: windows(sequence, cut, sequence.length, context, targets),
  };
}

/**
 * Windows of a sequence of tokens, from whatever tokenizer: its numbers, from 0. Bytes are tokens too. RaphsonErrors: a
 * number that is no token, a sequence too short for the context.
 *
 * ```ts
 * import { data } from "raphson";
 *
 * const bytes = data.tokens(new TextEncoder().encode("to be, or not to be: that is the question\n"), { context: 4 });
 * for await (const { inputs, targets } of bytes.train.batches(8)) console.log(inputs.shape, targets.shape);
 * ```
 */
export function tokens(sequence: ArrayLike<number>, options: TextOptions): TokenData {
  const cut = checked("data.tokens", sequence.length, "tokens", options);
  const numbers = Int32Array.from(sequence);
  const wrong = numbers.findIndex((token, at) => token !== sequence[at] || token < 0);
  if (wrong >= 0) {
    throw argumentError(
      "data.tokens",
      `${sequence[wrong]}, at place ${wrong}, is no token: tokens are whole numbers from 0`,
    );
  }
  return parts(numbers, cut, options);
}

/**
 * Reads a text (a path, a URL of a file, or the text itself) as characters. RaphsonErrors: a file that cannot be read,
 * a text too short for the context.
 *
 * ```ts
 * import { data } from "raphson";
 *
 * const text = await data.text("to be, or not to be: that is the question\n", { context: 4 });
 * for await (const { inputs, targets } of text.train.batches(8)) console.log(inputs.shape, targets.shape);
 * ```
 */
export async function text(source: string | URL, options: TextOptions): Promise<TextData> {
  const characters = Array.from(await contentOf(source));
  const cut = checked("data.text", characters.length, "characters", options);
  const vocabulary = [...new Set(characters)].sort();
  const places = new Map(vocabulary.map((character, place) => [character, place]));
  const encode = (string: string) =>
    Int32Array.from(Array.from(string), (character) => {
      const place = places.get(character);
      if (place !== undefined) return place;
      throw argumentError("encode", `the text has no character ${JSON.stringify(character)}`);
    });
  const sequence = encode(characters.join(""));

  return {
    vocabulary,
    ...parts(sequence, cut, options),
    encode,
    decode: (numbers) => Array.from(numbers, (number) => vocabulary[number] ?? "\ufffd").join(""),
  };
}
