/**
 * Fields of a batch from the columns of a table: which columns go together, as what dtype, what stands for a missing value,
 * and what numbers words become. Which file the columns come from is the readers' affair.
 */
import type { TypedArray } from "../dtype";
import { argumentError, RaphsonError } from "../errors";
import type { Tensor } from "../tensor";

/** The dtypes that columns can be read as. */
export type TableDType = "f32" | "f64" | "i32";

/**
 * A field: a column, or several side by side. A column of numbers gives [batch], one of lists of n numbers [batch, n], several
 * columns [batch, columns].
 */
export type Field =
  | string
  | readonly string[]
  | {
      readonly columns: string | readonly string[];
      /** f32 if not given. */
      readonly dtype?: TableDType;
      /** What stands for an empty cell; without it, one is an error. */
      readonly missing?: number;
    }
  | {
      readonly columns: string;
      /** The words of the column: each becomes its place here (i32). `true`: those that the column has, sorted. */
      readonly categories: readonly string[] | true;
    };

/** The fields of a batch by their names. */
export type Fields = Readonly<Record<string, Field>>;

type DTypeOfField<F> = F extends { readonly categories: unknown }
  ? "i32"
  : F extends { readonly dtype: infer D extends TableDType }
    ? D
    : "f32";

/** The type of the batches of these fields. */
export type FieldsBatch<F> = { readonly [Name in keyof F]: Tensor<DTypeOfField<F[Name]>> };

/** Some rows of a table. Values are numbers, bigints, booleans, strings, null, or lists of numbers. */
export interface Chunk {
  readonly length: number;
  column(name: string): ArrayLike<unknown>;
  /** Where a value stands, for errors: `line 3`, or `row 3`. */
  place(row: number): string;
}

/** A field with what its rows gave so far. */
interface Gathering {
  readonly name: string;
  readonly columns: readonly string[];
  readonly dtype: TableDType;
  readonly missing: number | undefined;
  /** Places of words; `true` while every new word gets the next one. */
  readonly places: Map<string, number> | undefined;
  readonly open: boolean;
  /** The shape of one example, once a row has been seen. */
  shape: readonly number[] | undefined;
  values: TypedArray;
  length: number;
}

const ARRAYS = { f32: Float32Array, f64: Float64Array, i32: Int32Array } as const;

/** What rows of a table became: numbers and the shape of one example for each field. */
export interface Gathered {
  readonly name: string;
  readonly values: TypedArray;
  readonly shape: readonly number[];
}

/** Collects the rows of a table as the numbers of its fields. */
export class FieldReader {
  readonly #op: string;
  readonly #path: string;
  readonly #fields: Gathering[];
  /** Rows that wait to be taken. */
  rows = 0;

  constructor(op: string, path: string, fields: Fields, columns: readonly string[]) {
    this.#op = op;
    this.#path = path;
    const entries = Object.entries(fields);
    if (entries.length === 0)
      throw argumentError(op, 'fields names no field; give it at least one, such as { x: "width" }');
    this.#fields = entries.map(([name, field]) => this.#open(name, field, columns));
  }

  /** The columns that are needed. */
  get columns(): string[] {
    return [...new Set(this.#fields.flatMap(({ columns }) => columns))];
  }

  /** The words of each field with categories. */
  categories(): Record<string, readonly string[]> {
    const found = this.#fields.flatMap(({ name, places }) => (places ? [[name, [...places.keys()]] as const] : []));
    return Object.fromEntries(found);
  }

  add(chunk: Chunk): void {
    for (const field of this.#fields) {
      const columns = field.columns.map((name) => chunk.column(name));
      for (let row = 0; row < chunk.length; row++) this.#row(field, columns, row, chunk);
    }
    this.rows += chunk.length;
  }

  /** Takes the first `rows` rows out. */
  take(rows: number): Gathered[] {
    this.rows -= rows;
    return this.#fields.map((field) => {
      const { name, shape = [] } = field;
      const used = rows * shape.reduce((product, length) => product * length, 1);
      const values = field.values.slice(0, used) as TypedArray;
      field.values.copyWithin(0, used, field.length);
      field.length -= used;
      return { name, values, shape };
    });
  }

  /** Takes all rows; words found on the way are sorted, and their numbers follow. */
  takeAll(): Gathered[] {
    for (const field of this.#fields) {
      if (!field.open || field.places === undefined) continue;
      const before = [...field.places.keys()];
      const sorted = [...before].sort();
      const place = new Map(sorted.map((word, index) => [word, index]));
      for (let i = 0; i < field.length; i++) field.values[i] = place.get(before[Number(field.values[i])] ?? "") ?? 0;
      field.places.clear();
      for (const [word, index] of place) field.places.set(word, index);
    }
    return this.take(this.rows);
  }

  #open(name: string, field: Field, known: readonly string[]): Gathering {
    const given = typeof field === "string" || Array.isArray(field) ? { columns: field } : (field as object);
    const {
      columns,
      dtype = "f32",
      missing,
      categories,
    } = given as {
      columns: string | readonly string[];
      dtype?: TableDType;
      missing?: number;
      categories?: readonly string[] | true;
    };
    const list = typeof columns === "string" ? [columns] : columns;
    if (!Array.isArray(list) || list.length === 0) {
      throw argumentError(this.#op, `the field ${name} names no column; give it { columns: "name" }`);
    }
    const absent = list.find((column) => !known.includes(column));
    if (absent !== undefined) {
      const there = known.map((column) => JSON.stringify(column)).join(", ");
      throw this.#error(`has no column ${JSON.stringify(absent)}, which the field ${name} wants; it has ${there}`);
    }
    if (!(dtype in ARRAYS))
      throw argumentError(this.#op, `the field ${name} has dtype ${dtype}; it can be f32, f64 or i32`);
    const words = categories === undefined ? undefined : categories === true ? [] : categories;
    return {
      name,
      columns: list,
      dtype: words === undefined ? dtype : "i32",
      missing,
      places: words && new Map(words.map((word, place) => [word, place])),
      open: categories === true,
      shape: undefined,
      values: new ARRAYS[words === undefined ? dtype : "i32"](1024),
      length: 0,
    };
  }

  #row(field: Gathering, columns: readonly ArrayLike<unknown>[], row: number, chunk: Chunk): void {
    const single = columns.length === 1 ? columns[0]?.[row] : undefined;
    if (isList(single)) {
      this.#fit(field, [single.length], row, chunk);
      for (let i = 0; i < single.length; i++) this.#push(field, single[i], field.columns[0] ?? "", row, chunk);
      return;
    }
    this.#fit(field, columns.length === 1 ? [] : [columns.length], row, chunk);
    for (const [at, column] of columns.entries()) this.#push(field, column[row], field.columns[at] ?? "", row, chunk);
  }

  /** The shape of a row, which all must share. */
  #fit(field: Gathering, shape: readonly number[], row: number, chunk: Chunk): void {
    field.shape ??= shape;
    if (field.shape.join() === shape.join()) return;
    const [now, before] = [shape, field.shape].map((s) => (s.length === 0 ? "one value" : `${s[0]} values`));
    throw this.#error(`${chunk.place(row)}, column ${field.columns[0]}: ${now}, where the rows before have ${before}`);
  }

  #push(field: Gathering, value: unknown, column: string, row: number, chunk: Chunk): void {
    if (field.length === field.values.length) {
      const wider = new ARRAYS[field.dtype](2 * field.values.length);
      (wider as Float64Array).set(field.values as Float64Array);
      field.values = wider;
    }
    field.values[field.length++] = this.#number(field, value, column, row, chunk);
  }

  #number(field: Gathering, value: unknown, column: string, row: number, chunk: Chunk): number {
    const wrong = (what: string) => this.#error(`${chunk.place(row)}, column ${column}: ${what}`);
    if (field.places !== undefined) {
      const word = value === null || value === undefined ? "" : String(value);
      const known = field.places.get(word);
      if (known !== undefined) return known;
      if (!field.open) throw wrong(`${JSON.stringify(word)} is none of the categories of the field ${field.name}`);
      field.places.set(word, field.places.size);
      return field.places.size - 1;
    }
    const text = typeof value === "string" ? value.trim() : value;
    if (text === "" || text === null || text === undefined) {
      if (field.missing !== undefined) return field.missing;
      throw wrong("the cell is empty; fill it, or say what stands for it: { columns, missing: 0 }");
    }
    const number = typeof text === "object" ? Number.NaN : Number(text);
    if (Number.isNaN(number) && !/^[+-]?nan$/i.test(String(text))) {
      throw wrong(
        `${JSON.stringify(String(text))} is not a number; for words, give the field { columns, categories: true }`,
      );
    }
    if (field.dtype === "i32" && number !== (number | 0)) {
      throw wrong(`${String(text)} is not a whole number that i32 holds; read the field as f32 or f64`);
    }
    return number;
  }

  #error(sentence: string): RaphsonError {
    return new RaphsonError("FILE", this.#op, `${this.#path}${/^(line|row)/.test(sentence) ? ", " : " "}${sentence}`);
  }
}

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView)) || isVector(value);
}

/** A nested list of Arrow: iterable, with a length, but no array. */
function isVector(value: unknown): boolean {
  return typeof value === "object" && value !== null && "length" in value && Symbol.iterator in value;
}
