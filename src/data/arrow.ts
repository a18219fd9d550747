/**
 * Arrow IPC (files and streams, Feather 2) through `apache-arrow`, the Arrow project's own library: 12 MB on disk, so that only
 * those install it who read such files.
 */
import { createReadStream } from "node:fs";
import type { RecordBatch } from "apache-arrow";
import { RaphsonError } from "../errors";
import type { Batches } from "./dataset";
import type { Chunk, Fields, FieldsBatch } from "./fields";
import { fileError, optionalPackage } from "./optional";
import type { TableOptions } from "./parquet";
import { readTable, streamTable, type Table, type TableSource } from "./table";

const library = (op: string) => optionalPackage(op, "apache-arrow", () => import("apache-arrow"));

async function open(op: string, path: string): Promise<TableSource> {
  const { RecordBatchReader } = await library(op);
  const read = async () => {
    const reader = await RecordBatchReader.from(createReadStream(path));
    await reader.open();
    return reader;
  };
  try {
    const reader = await read();
    // what is no Arrow file has a reader of nothing
    if (reader.schema === undefined) throw new RaphsonError("FILE", op, `${path} is no Arrow IPC file`);
    const columns = reader.schema.fields.map(({ name }) => name);
    await reader.cancel();
    return { columns, chunks: () => chunksOf(op, path, read) };
  } catch (error) {
    throw fileError(op, path, error);
  }
}

async function* chunksOf(
  op: string,
  path: string,
  read: () => Promise<AsyncIterable<RecordBatch> | Iterable<RecordBatch>>,
): AsyncGenerator<Chunk, void, undefined> {
  let first = 0;
  try {
    for await (const batch of await read()) {
      const start = first;
      yield {
        length: batch.numRows,
        column: (name) => Array.from(batch.getChild(name) ?? [], plain),
        place: (row) => `row ${start + row}`,
      };
      first += batch.numRows;
    }
  } catch (error) {
    throw fileError(op, path, error);
  }
}

/** A list as an array; everything else as it is. */
function plain(value: unknown): unknown {
  if (typeof value !== "object" || value === null || !(Symbol.iterator in value)) return value;
  return Array.from(value as Iterable<unknown>);
}

/**
 * Reads an Arrow IPC file or stream into memory through the package `apache-arrow`, which you install beside this one. A column
 * of lists of n numbers gives [batch, n]. RaphsonErrors, with file, row and column: as `csv`; the package is not there, or
 * cannot read it.
 *
 * @example
 *     const rides = await data.arrow("rides.arrow", { fields: { x: ["distance", "hour"], y: "fare" } });
 */
export function arrow<const F extends Fields>(
  path: string,
  options: TableOptions<F> = {},
): Promise<Table<FieldsBatch<F>>> {
  return readTable("data.arrow", path, () => open("data.arrow", path), options.fields);
}

/**
 * Batches of `size` rows of an Arrow file that need not fit into memory, read anew in each epoch: of its record batches, one at
 * a time is in memory. Errors as `arrow`; words need a list of categories.
 *
 * @example
 *     const rides = data.arrowStream("rides.arrow", { size: 256, fields: { x: ["distance", "hour"], y: "fare" } });
 */
export function arrowStream<const F extends Fields>(
  path: string,
  options: TableOptions<F> & { readonly size: number },
): Batches<FieldsBatch<F>> {
  return streamTable("data.arrowStream", path, () => open("data.arrowStream", path), options);
}
