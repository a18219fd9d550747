/**
 * Parquet through `hyparquet`: half a megabyte of plain JavaScript without dependencies, released every few weeks; the other
 * choice, parquet-wasm, is ten times its size. Compressed pages are unpacked by Node's own zlib, Snappy by hyparquet.
 */
import * as zlib from "node:zlib";
import type { AsyncBuffer, FileMetaData } from "hyparquet";
import { RaphsonError } from "../errors";
import type { Batches } from "./dataset";
import type { Chunk, Fields, FieldsBatch } from "./fields";
import { fileError, optionalPackage } from "./optional";
import { readTable, streamTable, type Table, type TableSource } from "./table";

/** What of a Parquet or Arrow file makes a batch. */
export interface TableOptions<F extends Fields> {
  /** The fields of a batch; if not given, each column is one, of numbers. */
  readonly fields?: F;
}

/** Rows of a row group that are decoded at a time. */
const CHUNK_ROWS = 16_384;

type Unpack = (input: Uint8Array) => Uint8Array;

/** zstd came into Node's zlib with 22.15; without it hyparquet says that the codec is not supported. */
function compressors(): Record<string, Unpack> {
  const { zstdDecompressSync } = zlib as { zstdDecompressSync?: Unpack };
  const known = { GZIP: zlib.gunzipSync as Unpack, BROTLI: zlib.brotliDecompressSync as Unpack };
  return zstdDecompressSync === undefined ? known : { ...known, ZSTD: zstdDecompressSync };
}

const library = (op: string) => optionalPackage(op, "hyparquet", () => import("hyparquet"));

async function open(op: string, path: string): Promise<TableSource> {
  const { asyncBufferFromFile, parquetMetadataAsync } = await library(op);
  try {
    const file = await asyncBufferFromFile(path);
    const metadata = await parquetMetadataAsync(file);
    const columns = topLevel(metadata);
    return { columns, chunks: (wanted) => chunksOf(op, path, file, metadata, wanted) };
  } catch (error) {
    throw fileError(op, path, error);
  }
}

/** The columns below the root of the schema, which is listed depth first. */
function topLevel({ schema }: FileMetaData): string[] {
  const names: string[] = [];
  let at = 1;
  const skip = (): void => {
    const { num_children = 0 } = schema[at++] ?? {};
    for (let child = 0; child < num_children; child++) skip();
  };
  while (at < schema.length) {
    names.push(schema[at]?.name ?? "");
    skip();
  }
  return names;
}

async function* chunksOf(
  op: string,
  path: string,
  file: AsyncBuffer,
  metadata: FileMetaData,
  columns: readonly string[],
): AsyncGenerator<Chunk, void, undefined> {
  const { parquetReadObjects } = await library(op);
  let group = 0;
  for (const { num_rows } of metadata.row_groups) {
    const stop = group + Number(num_rows);
    for (let rowStart = group; rowStart < stop; rowStart += CHUNK_ROWS) {
      const rowEnd = Math.min(stop, rowStart + CHUNK_ROWS);
      const options = { file, metadata, columns: [...columns], rowStart, rowEnd, compressors: compressors() };
      const rows = await parquetReadObjects(options).catch((error: unknown) => {
        throw fileError(op, path, error);
      });
      if (rows.length !== rowEnd - rowStart) {
        throw new RaphsonError(
          "FILE",
          op,
          `${path}, row ${rowStart}: ${rows.length} rows of ${rowEnd - rowStart}; it is cut short`,
        );
      }
      yield {
        length: rows.length,
        column: (name) => rows.map((row): unknown => row[name]),
        place: (row) => `row ${rowStart + row}`,
      };
    }
    group = stop;
  }
}

/**
 * Reads a Parquet file into memory through the package `hyparquet`, which you install beside this one. A column of lists of n
 * numbers gives [batch, n]. RaphsonErrors, with file, row and column: as `csv`; the package is not there, or cannot read it.
 *
 * @example
 *     const rides = await data.parquet("rides.parquet", { fields: { x: ["distance", "hour"], y: "fare" } });
 *     const [fit, held] = rides.split(0.9);
 */
export function parquet<const F extends Fields>(
  path: string,
  options: TableOptions<F> = {},
): Promise<Table<FieldsBatch<F>>> {
  return readTable("data.parquet", path, () => open("data.parquet", path), options.fields);
}

/**
 * Batches of `size` rows of a Parquet file that need not fit into memory, read anew in each epoch: of its row groups, one at a
 * time is in memory. Errors as `parquet`; words need a list of categories.
 *
 * @example
 *     const rides = data.parquetStream("rides.parquet", { size: 256, fields: { x: ["distance", "hour"], y: "fare" } });
 */
export function parquetStream<const F extends Fields>(
  path: string,
  options: TableOptions<F> & { readonly size: number },
): Batches<FieldsBatch<F>> {
  return streamTable("data.parquetStream", path, () => open("data.parquetStream", path), options);
}
