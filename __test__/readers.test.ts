/** Readers of tables, NumPy arrays and pictures: whole files, damaged ones, and streams. The files are written here. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateRawSync, gzipSync } from "node:zlib";
import { type RecordBatch, Table, tableFromArrays, tableToIPC, vectorFromArray } from "apache-arrow";
import { parquetWriteBuffer } from "hyparquet-writer";
import { type AnyTensor, data, dispose, RaphsonError, stats, type Tensor, tidy } from "raphson";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, expectTypeOf, it } from "vitest";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-readers-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

async function failure(act: () => unknown): Promise<RaphsonError> {
  try {
    await act();
  } catch (error) {
    expect(error).toBeInstanceOf(RaphsonError);
    return error as RaphsonError;
  }
  throw new Error("nothing was refused");
}

const drawn: Record<string, AnyTensor>[] = [];
afterEach(() => dispose(drawn.splice(0)));

/** All batches; their tensors are freed after the test. */
async function all<B extends Readonly<Record<string, AnyTensor>>>(batches: AsyncIterable<B>): Promise<B[]> {
  const found: B[] = [];
  for await (const batch of batches) {
    found.push(batch);
    drawn.push(batch);
  }
  return found;
}

const FLOWERS = 'length,width,kind\r\n5.5,"3.5",setosa\n\n6.25, 3,"virginica, ""wild"""\r\n7,-1e2,setosa';

describe("data.csv", () => {
  it("reads numbers, words and quoted cells, with the types of the fields", async () => {
    const path = await file("flowers.csv", `\ufeff${FLOWERS}`);
    const flowers = await data.csv(path, {
      fields: {
        x: ["length", "width"],
        y: { columns: "length", dtype: "f64" },
        kind: { columns: "kind", categories: true },
      },
    });
    expect(flowers.size).toBe(3);
    expect(flowers.categories).toEqual({ kind: ["setosa", 'virginica, "wild"'] });
    const [batch] = await all(flowers.batches(3));
    if (batch === undefined) throw new Error("no batch");
    expectTypeOf(batch.x).toEqualTypeOf<Tensor<"f32">>();
    expectTypeOf(batch.y).toEqualTypeOf<Tensor<"f64">>();
    expectTypeOf(batch.kind).toEqualTypeOf<Tensor<"i32">>();
    expect([batch.x.dtype, batch.y.dtype, batch.kind.dtype]).toEqual(["f32", "f64", "i32"]);
    expect(batch.x.toArray()).toEqual([
      [5.5, 3.5],
      [6.25, 3],
      [7, -100],
    ]);
    expect(batch.y.toArray()).toEqual([5.5, 6.25, 7]);
    expect(batch.kind.toArray()).toEqual([0, 1, 0]);
  });

  it("reads gzipped files, other separators, no header, and missing cells", async () => {
    const path = await file("plain.csv.gz", gzipSync("1;2\n3;\n"));
    const { batches, size } = await data
      .csv(path, { header: ["a", "b"], separator: ";", fields: { b: { columns: "b", missing: -1 } } })
      .then((table) => ({ batches: table.batches(2), size: table.size }));
    expect(size).toBe(2);
    expect((await all(batches))[0]?.b.toArray()).toEqual([2, -1]);
    const every = await data.csv(await file("ab.csv", "a,b\n1,2\n"));
    expect(Object.keys((await all(every.batches(1)))[0] ?? {})).toEqual(["a", "b"]);
  });

  it("sorts the words that it finds, however many there are", async () => {
    const words = ["pear", "fig", "apple", "fig", "date", "pear"];
    const path = await file("fruit.csv", `fruit\n${words.join("\n")}\n`);
    const table = await data.csv(path, { fields: { fruit: { columns: "fruit", categories: true } } });
    const [batch] = await all(table.batches(6));
    const back = Array.from(batch?.fruit.dataSync() ?? [], (place) => table.categories.fruit?.[place]);
    expect(table.categories.fruit).toEqual(["apple", "date", "fig", "pear"]);
    expect(back).toEqual(words);
  });

  it.each([
    ["a word among numbers", "a,b\n1,2\n3,x\n", "line 3, column b", "categories"],
    ["an empty cell", "a,b\n1,2\n,4\n", "line 3, column a", "missing"],
    ["too few cells", "a,b\n1,2\n3\n", "line 3", "1 cells"],
    ["an open quote", 'a,b\n1,2\n"3,4\n5,6\n', "line 3", "never closed"],
    ["text behind a quote", 'a,b\n"1"2,3\n', "line 2", "closing quote"],
    ["a line counted inside quotes", 'a,b\n"1\n",2\nx,4\n', "line 4, column a", "number"],
    ["two columns of one name", "a,a\n1,2\n", "line 1", "rename"],
    ["no column b", "a,c\n1,2\n", '"b"', '"a", "c"'],
    ["no rows", "a,b\n", "no rows", "one"],
    ["nothing at all", "", "empty", "names"],
    ["bytes that are no text", Uint8Array.of(97, 44, 98, 10, 0xff, 44, 50, 10), "cannot read", ""],
  ])("refuses %s, naming the place", async (name, content, where, what) => {
    const path = await file(`bad-${name.replaceAll(/\W/g, "")}.csv`, content);
    const error = await failure(() => data.csv(path, { fields: { a: "a", b: "b" } }));
    expect(error).toMatchObject({ code: "FILE", op: "data.csv" });
    for (const part of [path, where, what]) expect(error.message).toContain(part);
  });

  it("refuses words outside the list, fractions for i32, and options without sense", async () => {
    const path = await file("kinds.csv", "kind,n\nrose,1\ntulip,1.5\n");
    const kind = { columns: "kind", categories: ["rose"] } as const;
    expect((await failure(() => data.csv(path, { fields: { kind } }))).message).toMatch(/line 3, column kind: "tulip"/);
    const n = { columns: "n", dtype: "i32" } as const;
    expect((await failure(() => data.csv(path, { fields: { n } }))).message).toMatch(/line 3, column n: 1.5 .* i32/);
    expect((await failure(() => data.csv(path, { separator: ",," }))).code).toBe("ARGUMENT");
    expect((await failure(() => data.csv(path, { fields: {} }))).code).toBe("ARGUMENT");
    expect((await failure(() => data.csv(join(folder, "absent.csv")))).message).toMatch(/absent\.csv.*ENOENT/);
  });
});

describe("data.csvStream", () => {
  it("gives the same rows as csv, in batches, in every epoch, and from a batch in the middle", async () => {
    // Longer than a piece of a file and than a chunk of rows, and cut anywhere.
    const rows = Array.from({ length: 9001 }, (_, i) => `${i},${i % 7},"w${i % 3}"`);
    const path = await file("long.csv", `n,m,w\n${rows.join("\n")}\n`);
    const fields = { n: "n", m: ["m", "n"], w: { columns: "w", categories: ["w0", "w1", "w2"] } } as const;
    const stream = data.csvStream(path, { size: 1000, fields });
    const whole = await data.csv(path, { fields });
    const before = stats().tensors;
    for (let epoch = 0; epoch < 2; epoch++) {
      const found = await all(stream);
      const wanted = await all(whole.batches(1000));
      expect(found.map(({ n }) => n.shape)).toEqual(wanted.map(({ n }) => n.shape));
      tidy(() => {
        for (const [index, batch] of found.entries()) {
          expect(batch.m.toArray()).toEqual(wanted[index]?.m.toArray());
          expect(batch.w.toArray()).toEqual(wanted[index]?.w.toArray());
        }
      });
      dispose([...found, ...wanted]);
    }
    const [late] = await all(stream.epoch(0, 9));
    expect(late?.n.toArray()).toEqual([9000]);
    dispose(late ?? {});
    expect(stats().tensors).toBe(before);
  });

  it("wants a list of words and a size", async () => {
    const w = { columns: "w", categories: true } as const;
    expect((await failure(() => data.csvStream("x.csv", { size: 2, fields: { w } }))).message).toMatch(
      /list its categories/,
    );
    expect((await failure(() => data.csvStream("x.csv", { size: 0 }))).code).toBe("ARGUMENT");
  });
});

describe("data.parquet", () => {
  const N = 40_000;
  const columnData = [
    { name: "x", data: Float32Array.from({ length: N }, (_, i) => i / 4), type: "FLOAT" as const },
    { name: "n", data: BigInt64Array.from({ length: N }, (_, i) => BigInt(i)), type: "INT64" as const },
    { name: "kind", data: Array.from({ length: N }, (_, i) => (i % 2 ? "odd" : "even")), type: "STRING" as const },
  ];

  it("reads numbers and words across row groups", async () => {
    const bytes = new Uint8Array(parquetWriteBuffer({ columnData, rowGroupSize: 18_000 }));
    const path = await file("numbers.parquet", bytes);
    const fields = { v: ["x", "n"], kind: { columns: "kind", categories: true } } as const;
    const table = await data.parquet(path, { fields });
    expect([table.size, table.categories.kind]).toEqual([N, ["even", "odd"]]);
    const [batch] = await all(table.batches(N));
    expect(batch?.v.shape).toEqual([N, 2]);
    expect(batch?.v.at(39_999).toArray()).toEqual([9999.75, 39_999]);
    expect(batch?.kind.slice(0, 4).toArray()).toEqual([0, 1, 0, 1]);
    const stream = await all(data.parquetStream(path, { size: 15_000, fields: { v: ["x", "n"] } }));
    expect(stream.map(({ v }) => v.shape[0])).toEqual([15_000, 15_000, 10_000]);
    expect(stream[2]?.v.at(0).toArray()).toEqual([7500, 30_000]);
  });

  it("reads lists as [batch, n], and refuses lists of different lengths", async () => {
    const of = (lists: number[][]) =>
      new Uint8Array(
        parquetWriteBuffer({
          columnData: [{ name: "v", data: lists }],
          schema: [
            { name: "root", num_children: 1 },
            { name: "v", repetition_type: "OPTIONAL", converted_type: "LIST", num_children: 1 },
            { name: "list", repetition_type: "REPEATED", num_children: 1 },
            { name: "element", type: "DOUBLE", repetition_type: "OPTIONAL" },
          ],
        }),
      );
    const even = await data.parquet(
      await file(
        "lists.parquet",
        of([
          [1, 2],
          [3, 4],
        ]),
      ),
      { fields: { v: "v" } },
    );
    expect((await all(even.batches(2)))[0]?.v.toArray()).toEqual([
      [1, 2],
      [3, 4],
    ]);
    const path = await file("ragged.parquet", of([[1, 2], [3]]));
    const error = await failure(() => data.parquet(path, { fields: { v: "v" } }));
    expect(error.message).toMatch(/ragged\.parquet, row 1, column v: 1 values, .* 2 values/);
  });

  it("refuses what is no Parquet file, nulls, and columns that are not there", async () => {
    const path = await file("no.parquet", "this is not a parquet file at all");
    expect(await failure(() => data.parquet(path))).toMatchObject({ code: "FILE", op: "data.parquet" });
    const nulls = await file(
      "nulls.parquet",
      new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "x", data: [1.5, null], type: "DOUBLE" }] })),
    );
    expect((await failure(() => data.parquet(nulls))).message).toMatch(/row 1, column x: the cell is empty/);
    expect((await failure(() => data.parquet(nulls, { fields: { y: "z" } }))).message).toMatch(/no column "z".*"x"/);
  });
});

describe("data.arrow", () => {
  it.each(["file", "stream"] as const)("reads the %s format, its lists and its record batches", async (kind) => {
    const part = (from: number) =>
      tableFromArrays({
        x: Float64Array.from({ length: 5 }, (_, i) => from + i),
        n: BigInt64Array.from({ length: 5 }, (_, i) => BigInt(from + i)),
      });
    const lists = vectorFromArray(Array.from({ length: 5 }, (_, i) => [i, i + 0.5]));
    const parts = [0, 5].map((from) => part(from).assign(new Table({ v: lists })));
    const table = new Table(parts.flatMap(({ batches }) => batches as RecordBatch[]));
    const path = await file(`numbers-${kind}.arrow`, tableToIPC(table, kind));
    const fields = { x: ["x", "n"], v: "v" } as const;
    const whole = await data.arrow(path, { fields });
    const [batch] = await all(whole.batches(10));
    expect(batch?.x.toArray()).toEqual(Array.from({ length: 10 }, (_, i) => [i, i]));
    expect(batch?.v.shape).toEqual([10, 2]);
    expect(batch?.v.at(6).toArray()).toEqual([1, 1.5]);
    const stream = await all(data.arrowStream(path, { size: 4, fields }));
    expect(stream.map(({ x }) => x.shape[0])).toEqual([4, 4, 2]);
  });

  it("refuses what is no Arrow file", async () => {
    const path = await file("no.arrow", "no arrow at all, but some text that is long enough");
    expect(await failure(() => data.arrow(path))).toMatchObject({ code: "FILE", op: "data.arrow" });
    expect((await failure(() => data.arrow(join(folder, "absent.arrow")))).message).toContain("absent.arrow");
  });
});

/** A `.npy` file as NumPy writes it. */
function npyBytes(descr: string, shape: readonly number[], body: Uint8Array, order = "False"): Uint8Array {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': (${sizes}), }`;
  const head = Buffer.from(`${text.padEnd(64 * Math.ceil((text.length + 11) / 64) - 11)}\n`, "latin1");
  const length = Buffer.alloc(2);
  length.writeUInt16LE(head.length);
  return Buffer.concat([Buffer.from("\x93NUMPY\x01\x00", "latin1"), length, head, body]);
}

/** A zip archive of members, stored or deflated. */
function zipBytes(members: Readonly<Record<string, Uint8Array>>, deflate: boolean): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, bytes] of Object.entries(members)) {
    const body = deflate ? deflateRawSync(bytes) : Buffer.from(bytes);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(deflate ? 8 : 0, 4);
    common.writeUInt32LE(crc32(bytes), 10);
    common.writeUInt32LE(body.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), body]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(at, 10);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, rest, Buffer.from(name)]));
    parts.push(local);
    at += local.length;
  }
  const listed = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(directory.length, 8);
  end.writeUInt16LE(directory.length, 10);
  end.writeUInt32LE(listed.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, listed, end]);
}

const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const X = npyBytes("<f8", [3, 2], bytesOf(Float64Array.of(0, 0.5, 1, 1.5, 2, 2.5)));
const Y = npyBytes("<i8", [3], bytesOf(BigInt64Array.of(2n, 0n, 1n)));

describe("data.npy and data.npz", () => {
  it.each([true, false])("read archives (deflated: %s) and files, as the dtypes asked for", async (deflate) => {
    const path = await file(`points-${deflate}.npz`, zipBytes({ "x.npy": X, "y.npy": Y }, deflate));
    const files = { x: await file("x.npy", X), y: await file("y.npy", Y) };
    const dtypes = { x: "f32", y: "i32" } as const;
    for (const set of [await data.npz(path, dtypes), await data.npy(files, dtypes)]) {
      const [batch] = await all(set.batches(3));
      if (batch === undefined) throw new Error("no batch");
      expectTypeOf(batch.y).toEqualTypeOf<Tensor<"i32">>();
      expect([batch.x.dtype, batch.y.dtype]).toEqual(["f32", "i32"]);
      expect(batch.x.toArray()).toEqual([
        [0, 0.5],
        [1, 1.5],
        [2, 2.5],
      ]);
      expect(batch.y.toArray()).toEqual([2, 0, 1]);
    }
  });

  it.each([
    ["<f4", Float32Array.of(1.5, -2), "f32", [1.5, -2]],
    [">f4", Uint8Array.of(0x3f, 0xc0, 0, 0, 0xc0, 0, 0, 0), "f32", [1.5, -2]],
    ["<f2", Uint16Array.of(0x3e00, 0xc000), "f32", [1.5, -2]],
    ["|i1", Int8Array.of(3, -4), "i32", [3, -4]],
    [">i2", Uint8Array.of(0, 3, 0xff, 0xfc), "i32", [3, -4]],
    ["<u2", Uint16Array.of(3, 65535), "f64", [3, 65535]],
    ["<u4", Uint32Array.of(3, 4294967295), "u32", [3, 4294967295]],
    ["<i4", Int32Array.of(3, -4), "f32", [3, -4]],
    ["|b1", Uint8Array.of(1, 0), "u8", [1, 0]],
    ["|u1", Uint8Array.of(7, 255), "u8", [7, 255]],
  ] as const)("read elements of %s", async (descr, values, dtype, wanted) => {
    const path = await file(`kind${descr.replaceAll(/\W/g, "_")}.npy`, npyBytes(descr, [2], bytesOf(values)));
    const [batch] = await all((await data.npy({ v: path }, { v: dtype })).batches(2));
    expect(batch?.v.toArray()).toEqual(wanted);
  });

  it("read arrays that are stored column by column", async () => {
    // [[1, 2, 3], [4, 5, 6]]
    const path = await file("fortran.npy", npyBytes("<f4", [2, 3], bytesOf(Float32Array.of(1, 4, 2, 5, 3, 6)), "True"));
    const [batch] = await all((await data.npy({ v: path }, { v: "f32" })).batches(2));
    expect(batch?.v.toArray()).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
  });

  it.each([
    ["a file of another kind", Buffer.from("no numpy file here"), "byte 0", "not a .npy"],
    ["a header cut short", X.subarray(0, 40), "byte 40", "header"],
    ["missing elements", X.subarray(0, -3), `byte ${X.length - 3}`, "needs"],
    ["complex numbers", npyBytes("<c8", [1], new Uint8Array(8)), "byte 0", "astype"],
    ["fractions for i32", X, "fractions", "f64"],
    ["one number", npyBytes("<i4", [], new Uint8Array(4)), "one number", "first axis"],
    ["too large a number", npyBytes("<i8", [1], bytesOf(BigInt64Array.of(1n << 40n))), "element 0", "i64"],
  ])("refuse %s, naming file and place", async (name, bytes, where, what) => {
    const path = await file(`bad-${name.replaceAll(/\W/g, "")}.npy`, bytes);
    const error = await failure(() => data.npy({ v: path }, { v: "i32" }));
    expect(error).toMatchObject({ code: "FILE", op: "data.npy" });
    for (const part of [path, where, what]) expect(error.message).toContain(part);
  });

  it("refuse damaged archives, and arrays that are not there", async () => {
    const whole = zipBytes({ "x.npy": X }, true);
    const absent = await failure(async () => data.npz(await file("one.npz", whole), { z: "f32" }));
    expect(absent.message).toMatch(/no array z; it has x$/);
    const cut = await failure(async () => data.npz(await file("cut.npz", whole.subarray(0, -30)), { x: "f32" }));
    expect(cut).toMatchObject({ code: "FILE", op: "data.npz" });
    const flipped = Buffer.from(zipBytes({ "x.npy": X }, false));
    flipped[150] = (flipped[150] ?? 0) ^ 1;
    const damaged = await failure(async () => data.npz(await file("flipped.npz", flipped), { x: "f32" }));
    expect(damaged.message).toMatch(/x\.npy is damaged/);
  });
});

describe("data.imageFolder", () => {
  const picture = (width: number, height: number, background: { r: number; g: number; b: number }) =>
    sharp({ create: { width, height, channels: 3, background } });

  it("decodes when batches are drawn: channels first, in [0, 1], labels by folder", async () => {
    const path = join(folder, "colours");
    for (const kind of ["blue", "red"]) await mkdir(join(path, kind), { recursive: true });
    await picture(8, 6, { r: 255, g: 0, b: 51 })
      .png()
      .toFile(join(path, "red", "a.png"));
    await picture(20, 30, { r: 0, g: 0, b: 255 })
      .webp({ lossless: true })
      .toFile(join(path, "blue", "b.webp"));
    await writeFile(join(path, "blue", "notes.txt"), "no picture");
    const colours = await data.imageFolder(path, { size: [4, 5] });
    expect([colours.size, colours.classes]).toEqual([2, ["blue", "red"]]);
    const [batch] = await all(colours.batches(2).prefetch());
    expect(batch?.images.shape).toEqual([2, 3, 4, 5]);
    expect(batch?.labels.toArray()).toEqual([0, 1]);
    const mean = batch?.images.mean([2, 3]).toArray() as number[][];
    [
      [0, 0, 1],
      [1, 0, 0.2],
    ].forEach((row, i) => {
      row.forEach((want, channel) => {
        expect(mean[i]?.[channel]).toBeCloseTo(want, 6);
      });
    });
    const grey = await data.imageFolder(path, { size: [2, 2], channels: 1 });
    expect((await all(grey.batches(2)))[0]?.images.shape).toEqual([2, 1, 2, 2]);
  });

  it("names the picture that cannot be decoded, and frees what the batch had", async () => {
    const path = join(folder, "broken");
    await mkdir(join(path, "only"), { recursive: true });
    await writeFile(join(path, "only", "x.png"), "no picture");
    const broken = await data.imageFolder(path, { size: [2, 2] });
    const before = stats().tensors;
    const error = await failure(() => all(broken.batches(1)));
    expect(error.message).toContain(join("only", "x.png"));
    expect(stats().tensors).toBe(before);
  });

  it("refuses folders without classes or images, and sizes without sense", async () => {
    const path = join(folder, "empty");
    await mkdir(join(path, "none"), { recursive: true });
    expect((await failure(() => data.imageFolder(join(path, "none"), { size: [2, 2] }))).message).toMatch(/no folders/);
    expect((await failure(() => data.imageFolder(path, { size: [2, 2] }))).message).toMatch(/no images/);
    expect((await failure(() => data.imageFolder(path, { size: [2, 0] }))).code).toBe("ARGUMENT");
    expect((await failure(() => data.imageFolder(join(path, "absent"), { size: [2, 2] }))).code).toBe("FILE");
  });
});

describe("data.tokens", () => {
  it("cuts windows of any tokenizer's numbers", async () => {
    const sequence = Array.from({ length: 40 }, (_, i) => i);
    const { train, held, length } = data.tokens(sequence, { context: 3, targets: "every", held: 0.25 });
    expect([length, train.size, held.size]).toEqual([40, 27, 7]);
    const [batch] = await all(held.batches(1));
    expect([batch?.inputs.toArray(), batch?.targets.toArray()]).toEqual([[[30, 31, 32]], [[31, 32, 33]]]);
  });

  it("refuses what is no token", async () => {
    const wrong = [...new Array(30).fill(1), 0.5];
    expect((await failure(() => data.tokens(wrong, { context: 2 }))).message).toMatch(/0\.5, at place 30/);
    expect((await failure(() => data.tokens([1, 2], { context: 2 }))).message).toMatch(/2 tokens are too few/);
  });
});
