/**
 * CSV (RFC 4180): quoted cells with separators, line ends and doubled quotes in them, plain or gzipped, read in pieces, so that
 * the text is never in memory as a whole. Written here rather than taken from a package: it is one small machine, and its
 * errors know the line. Numbers and words are `fields.ts`'s matter.
 */
import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import { argumentError, RaphsonError } from "../errors";
import type { Batches } from "./dataset";
import type { Chunk, Fields, FieldsBatch } from "./fields";
import { fileError } from "./optional";
import { readTable, streamTable, type Table, type TableSource } from "./table";

/** How a CSV file is read. */
export interface CsvOptions<F extends Fields> {
  /** The fields of a batch; if not given, each column is one, of numbers. */
  readonly fields?: F;
  /** What separates cells: one character; a comma if not given. */
  readonly separator?: string;
  /** The names of the columns where the first line is not them. */
  readonly header?: readonly string[];
}

const CHUNK_ROWS = 4096;

/** Cuts text into rows of cells; told piece by piece. */
class Cutter {
  readonly #separator: string;
  #cells: string[] = [];
  #cell = "";
  #quoted = false;
  /** After a quote inside a quoted cell: a doubled one, or the cell's end. */
  #closing = false;
  #afterReturn = false;
  #line = 1;
  /** The line that the row, or the open quote, began at. */
  #began = 1;
  readonly rows: { readonly cells: string[]; readonly line: number }[] = [];

  constructor(
    readonly fail: (line: number, what: string) => RaphsonError,
    separator: string,
  ) {
    this.#separator = separator;
  }

  add(text: string): void {
    for (const character of text) this.#next(character);
  }

  end(): void {
    if (this.#quoted && !this.#closing) throw this.fail(this.#began, "a quote is opened and never closed");
    if (this.#cell !== "" || this.#cells.length > 0 || this.#closing) this.#row();
  }

  #next(character: string): void {
    if (this.#quoted && !this.#closing) {
      if (character === '"') this.#closing = true;
      else this.#cell += character;
      if (character === "\n") this.#line += 1;
      return;
    }
    if (this.#closing && character === '"') {
      this.#cell += '"';
      this.#closing = false;
      return;
    }
    const lineFeedOfPair = this.#afterReturn && character === "\n";
    this.#afterReturn = character === "\r";
    if (lineFeedOfPair) return;
    if (character === this.#separator) this.#endCell();
    else if (character === "\n" || character === "\r") this.#row();
    else if (this.#closing) throw this.fail(this.#line, `${JSON.stringify(character)} follows a closing quote`);
    else if (character === '"' && this.#cell === "") this.#quoted = true;
    else this.#cell += character;
  }

  #endCell(): void {
    this.#cells.push(this.#cell);
    this.#cell = "";
    this.#quoted = false;
    this.#closing = false;
  }

  #row(): void {
    const blank = this.#cells.length === 0 && this.#cell === "" && !this.#quoted;
    this.#endCell();
    if (!blank) this.rows.push({ cells: this.#cells, line: this.#began });
    this.#cells = [];
    this.#line += 1;
    this.#began = this.#line;
  }
}

/** The rows of a file, in pieces. */
async function* rowsOf(op: string, path: string, separator: string) {
  const cutter = new Cutter((line, what) => new RaphsonError("FILE", op, `${path}, line ${line}: ${what}`), separator);
  const file = createReadStream(path);
  const bytes = path.endsWith(".gz") ? file.pipe(createGunzip()) : file;
  file.on("error", (error) => bytes.destroy(error));
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    for await (const piece of bytes) {
      cutter.add(decoder.decode(piece, { stream: true }));
      if (cutter.rows.length >= CHUNK_ROWS) yield cutter.rows.splice(0);
    }
    cutter.add(decoder.decode());
    cutter.end();
    yield cutter.rows.splice(0);
  } catch (error) {
    throw fileError(op, path, error);
  } finally {
    file.destroy();
  }
}

/** The file's columns, and its rows as chunks. */
function source(op: string, path: string, options: CsvOptions<Fields>): () => Promise<TableSource> {
  const { separator = ",", header } = options;
  if (typeof separator !== "string" || [...separator].length !== 1 || /["\r\n]/.test(separator)) {
    throw argumentError(op, `separator must be one character, not ${JSON.stringify(separator)}`);
  }
  return async () => {
    const columns = header ?? (await firstRow(op, path, separator));
    const twice = columns.find((name, at) => columns.indexOf(name) !== at);
    if (twice !== undefined) {
      const advice = "rename one, or give the names with { header }";
      throw new RaphsonError("FILE", op, `${path}, line 1: two columns are named ${JSON.stringify(twice)}; ${advice}`);
    }
    return { columns, chunks: () => chunksOf(op, path, separator, columns, header === undefined) };
  };
}

async function firstRow(op: string, path: string, separator: string): Promise<string[]> {
  for await (const [row] of rowsOf(op, path, separator)) if (row) return row.cells.map((name) => name.trim());
  throw new RaphsonError("FILE", op, `${path} is empty; it needs a line with the names of its columns`);
}

async function* chunksOf(op: string, path: string, separator: string, columns: readonly string[], named: boolean) {
  let skip = named;
  for await (const found of rowsOf(op, path, separator)) {
    const rows = skip ? found.slice(1) : found;
    if (found.length > 0) skip = false;
    const wrong = rows.find(({ cells }) => cells.length !== columns.length);
    if (wrong) {
      const { line, cells } = wrong;
      const sentence = `${path}, line ${line}: ${cells.length} cells, where there are ${columns.length} columns`;
      throw new RaphsonError("FILE", op, `${sentence}; quote cells that have separators in them`);
    }
    const chunk: Chunk = {
      length: rows.length,
      column: (name) => {
        const at = columns.indexOf(name);
        return rows.map(({ cells }) => cells[at]);
      },
      place: (row) => `line ${rows[row]?.line}`,
    };
    yield chunk;
  }
}

/**
 * Reads a CSV file (`.gz` too) into memory: the first line has the names of the columns, `fields` says what a batch is made of.
 * Cells are numbers, or words with `categories`. RaphsonErrors, with file, line and column: a cell that is no number, empty or
 * an unknown word; another number of cells than columns; a quote that is not closed; a column that is not there.
 *
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { data } from "raphson";
 *
 * writeFileSync("flowers.csv", "length,width,kind\n5.1,3.5,setosa\n6.2,2.9,virginica\n5.9,3.0,virginica\n");
 * const flowers = await data.csv("flowers.csv", {
 *   fields: { x: ["length", "width"], kind: { columns: "kind", categories: true } },
 * });
 * for await (const { x, kind } of flowers.batches(3)) console.log(x.shape, kind.toArray(), flowers.categories.kind);
 * ```
 */
export function csv<const F extends Fields>(path: string, options: CsvOptions<F> = {}): Promise<Table<FieldsBatch<F>>> {
  return readTable("data.csv", path, source("data.csv", path, options), options.fields);
}

/**
 * Batches of `size` rows of a CSV file that need not fit into memory: in the file's order, read anew in each epoch. Errors as
 * `csv`; words need a list of categories.
 *
 * ```ts
 * import { writeFileSync } from "node:fs";
 * import { data } from "raphson";
 *
 * writeFileSync("long.csv", `x,y\n${Array.from({ length: 10 }, (_, i) => `${i},${2 * i}`).join("\n")}\n`);
 * const rows = data.csvStream("long.csv", { size: 4, fields: { x: ["x"], y: "y" } });
 * for await (const { x, y } of rows) console.log(x.shape, y.toArray());
 * ```
 */
export function csvStream<const F extends Fields>(
  path: string,
  options: CsvOptions<F> & { readonly size: number },
): Batches<FieldsBatch<F>> {
  return streamTable("data.csvStream", path, source("data.csvStream", path, options), options);
}
