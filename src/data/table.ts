/**
 * Tables as datasets: the rows of a reader collected in memory, or handed on in batches while the file is read. What a
 * reader is: the names of its columns, and chunks of rows.
 */
import { argumentError, RaphsonError } from "../errors";
import type { AnyTensor } from "../tensor";
import { type Batch, madeTensor } from "./batch";
import { arrayColumn } from "./columns";
import { Batches, Dataset } from "./dataset";
import { type Chunk, FieldReader, type Fields, type FieldsBatch, type Gathered } from "./fields";

/** Rows of a file. `chunks` reads the named columns from the beginning. */
export interface TableSource {
  readonly columns: readonly string[];
  chunks(columns: readonly string[]): AsyncIterable<Chunk>;
}

/** Opens a file and says what columns it has. */
export type OpenTable = () => Promise<TableSource>;

/** The rows of a table in memory, and the words behind the numbers of fields with categories. */
export class Table<B extends Batch> extends Dataset<B> {
  /** For each field with categories its words; a number is a place here. */
  readonly categories: Readonly<Record<string, readonly string[]>>;

  /** @internal Use `data.csv`, `data.parquet` or `data.arrow`. */
  constructor(fields: readonly Gathered[], rows: number, categories: Readonly<Record<string, readonly string[]>>) {
    super(new Map(fields.map(({ name, values, shape }) => [name, arrayColumn(name, values, [rows, ...shape])])));
    this.categories = categories;
  }
}

/** Every column a field of its own. */
const each = (columns: readonly string[]): Fields => Object.fromEntries(columns.map((name) => [name, name]));

/** A whole table in memory. */
export async function readTable<F extends Fields>(
  op: string,
  path: string,
  open: OpenTable,
  fields: F | undefined,
): Promise<Table<FieldsBatch<F>>> {
  const source = await open();
  const reader = new FieldReader(op, path, fields ?? each(source.columns), source.columns);
  for await (const chunk of source.chunks(reader.columns)) reader.add(chunk);
  const { rows } = reader;
  if (rows === 0) throw new RaphsonError("FILE", op, `${path} has no rows; it needs one`);
  const found = reader.takeAll();
  return new Table(found, rows, reader.categories());
}

/** Batches of `size` rows while the file is read; each epoch reads it anew. */
export function streamTable<F extends Fields>(
  op: string,
  path: string,
  open: OpenTable,
  options: { readonly size: number; readonly fields?: F | undefined },
): Batches<FieldsBatch<F>> {
  const { size, fields } = options;
  if (!(Number.isSafeInteger(size) && size >= 1)) {
    throw argumentError(op, `size must be a whole number of at least 1, not ${size}`);
  }
  for (const [name, field] of Object.entries(fields ?? {})) {
    if (typeof field === "object" && "categories" in field && field.categories === true) {
      throw argumentError(op, `the field ${name} must list its categories: a stream does not know them beforehand`);
    }
  }
  return new Batches(async function* (_epoch, first) {
    const source = await open();
    const reader = new FieldReader(op, path, fields ?? each(source.columns), source.columns);
    let index = 0;
    let rows = 0;
    const take = (count: number) => batchOf<FieldsBatch<F>>(reader.take(count), count, index++ >= first);
    for await (const chunk of source.chunks(reader.columns)) {
      rows += chunk.length;
      reader.add(chunk);
      while (reader.rows >= size) {
        const batch = take(size);
        if (batch) yield batch;
      }
    }
    if (rows === 0) throw new RaphsonError("FILE", op, `${path} has no rows; it needs one`);
    const last = reader.rows > 0 ? take(reader.rows) : undefined;
    if (last) yield last;
  }, undefined);
}

/** Tensors of some rows, unless they are passed over. */
function batchOf<B extends Batch>(fields: readonly Gathered[], rows: number, wanted: boolean): B | undefined {
  if (!wanted) return undefined;
  const entries = fields.map(({ name, values, shape }): [string, AnyTensor] => [
    name,
    madeTensor(values, [rows, ...shape]),
  ]);
  // The reader gives each field the dtype that its type says.
  return Object.fromEntries(entries) as Batch as B;
}
