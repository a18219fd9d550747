/** Data: files whole and damaged, splitting, shuffling, batching, mapping, reading ahead. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { data, RaphsonError, type Tensor, tensor } from "raphson";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-data-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** An IDX file of unsigned bytes. */
function idxBytes(shape: readonly number[], values: readonly number[], type = 8): Uint8Array {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header.writeUInt8(type, 2);
  header.writeUInt8(shape.length, 3);
  shape.forEach((size, axis) => {
    header.writeUInt32BE(size, 4 + 4 * axis);
  });
  return Buffer.concat([header, Uint8Array.from(values)]);
}

async function file(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

const IMAGES = idxBytes([3, 2, 2], [0, 51, 102, 153, 204, 255, 0, 255, 1, 2, 3, 4]);
const LABELS = idxBytes([3], [7, 0, 9]);

async function failure(promise: Promise<unknown>): Promise<RaphsonError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RaphsonError);
  return error as RaphsonError;
}

async function all<B>(batches: AsyncIterable<B>): Promise<B[]> {
  const found: B[] = [];
  for await (const batch of batches) found.push(batch);
  return found;
}

describe("data.idx", () => {
  it("reads plain and gzipped files, with images in [0, 1] and i32 labels", async () => {
    const images = await file("images", IMAGES);
    const labels = await file("labels.gz", gzipSync(LABELS));
    const digits = await data.idx({ images, labels });
    expect(digits.size).toBe(3);
    const [batch] = await all(digits.batches(3));
    expect(batch?.images.shape).toEqual([3, 2, 2]);
    expect(batch?.images.dtype).toBe("f32");
    expect(batch?.images.at(0, 0, 1).item()).toBeCloseTo(0.2, 6);
    expect(batch?.labels.dtype).toBe("i32");
    expect(batch?.labels.toArray()).toEqual([7, 0, 9]);
  });

  it.each([
    ["a wrong magic number", Uint8Array.from([1, 2, 3, 4, 5]), "byte 0", "0x01020304"],
    ["a header cut short", IMAGES.slice(0, 9), "byte 9", "header"],
    ["a file of two bytes", IMAGES.slice(0, 2), "byte 2", "magic"],
    ["missing pixels", IMAGES.slice(0, -1), "byte 27", "cut short"],
    ["bytes behind the end", Buffer.concat([IMAGES, Uint8Array.of(1)]), "byte 28", "follow"],
    ["labels in the images' place", LABELS, "byte 3", "swapped"],
    ["floats", idxBytes([1, 1, 1], [0, 0, 0, 0], 13), "byte 2", "f32"],
    ["an axis of size 0", idxBytes([0, 2, 2], []), "byte 4", "size 0"],
    ["damaged gzip", gzipSync(IMAGES).subarray(0, 20), "byte 0", "gzip"],
  ])("refuses %s, naming file and byte", async (name, bytes, where, what) => {
    const images = await file(`bad-${name.replaceAll(/\W/g, "")}`, bytes);
    const error = await failure(data.idx({ images, labels: await file("labels", LABELS) }));
    expect(error.code).toBe("FILE");
    expect(error.message).toContain(images);
    expect(error.message).toContain(where);
    expect(error.message).toContain(what);
  });

  it("refuses another number of labels, labels out of range and missing files", async () => {
    const images = await file("images", IMAGES);
    const fewer = await file("fewer", idxBytes([2], [1, 2]));
    expect((await failure(data.idx({ images, labels: fewer }))).message).toMatch(/3 images.*2 labels/);
    const high = await file("high", idxBytes([3], [1, 10, 2]));
    const error = await failure(data.idx({ images, labels: high }));
    expect(error.message).toMatch(/byte 9: label 10/);
    expect((await data.idx({ images, labels: high, classes: 11 })).size).toBe(3);
    expect((await failure(data.idx({ images, labels: join(folder, "none") }))).message).toContain("cannot read");
  });
});

describe("data.arrays and batches", () => {
  const numbers = (size: number) => data.arrays({ x: Int32Array.from({ length: size }, (_, i) => i) });
  const values = async (batches: AsyncIterable<{ x: Tensor<"i32"> }>) =>
    (await all(batches)).map(({ x }) => [...x.dataSync()]);

  it("keeps order, and gives the smaller last batch unless told otherwise", async () => {
    expect(await values(numbers(5).batches(2))).toEqual([[0, 1], [2, 3], [4]]);
    expect(await values(numbers(5).batches(2, { dropLast: true }))).toEqual([
      [0, 1],
      [2, 3],
    ]);
    expect(numbers(5).batches(2).length).toBe(3);
  });

  it("shuffles anew in each epoch, the same for the same seed", async () => {
    const batches = numbers(50).batches(50, { shuffle: true, seed: 3 });
    const [first, second] = [await values(batches), await values(batches)];
    expect(first).not.toEqual(second);
    expect([...(first[0] ?? [])].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    const again = numbers(50).batches(50, { shuffle: true, seed: 3 });
    expect([await values(again), await values(again)]).toEqual([first, second]);
    expect(await values(numbers(50).batches(50, { shuffle: true, seed: 4 }))).not.toEqual(first);
    expect(await values(batches.epoch(0))).toEqual(first);
  });

  it("splits in the order of the examples when told to", async () => {
    const [left, right] = numbers(10).split(0.8, { shuffle: false });
    expect(await values(left.batches(8))).toEqual([[0, 1, 2, 3, 4, 5, 6, 7]]);
    expect(await values(right.batches(8))).toEqual([[8, 9]]);
  });

  it("splits without overlap, the same for the same seed", async () => {
    const [left, right] = numbers(10).split(0.8, { seed: 1 });
    expect([left.size, right.size]).toEqual([8, 2]);
    const both = [...(await values(left.batches(8))).flat(), ...(await values(right.batches(8))).flat()];
    expect(both.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const [same] = numbers(10).split(0.8, { seed: 1 });
    expect(await values(same.batches(8))).toEqual(await values(left.batches(8)));
  });

  it("maps, takes and reads ahead without changing what comes out", async () => {
    const plain = await values(numbers(7).batches(2));
    expect(await values(numbers(7).batches(2).prefetch(3))).toEqual(plain);
    expect(await values(numbers(7).batches(2).take(2))).toEqual(plain.slice(0, 2));
    expect(await values(numbers(7).take(3).batches(2))).toEqual([[0, 1], [2]]);
    const offset = tensor(new Int32Array([100]));
    const mapped = numbers(4).map(({ x }) => ({ x: x.add(offset), offset }));
    expect(await values(mapped.batches(2))).toEqual([
      [100, 101],
      [102, 103],
    ]);
    expect(offset.isDisposed).toBe(false);
  });

  it("keeps shapes and dtypes of several fields", async () => {
    const set = data.arrays({ x: { data: new Float64Array(12), shape: [4, 3] }, y: new Uint32Array(4) });
    const [batch] = await all(set.batches(2));
    expect([batch?.x.shape, batch?.x.dtype, batch?.y.shape, batch?.y.dtype]).toEqual([[2, 3], "f64", [2], "u32"]);
  });

  it.each([
    ["no examples", () => numbers(0), /empty/],
    ["fields of different sizes", () => data.arrays({ x: new Int32Array(2), y: new Int32Array(3) }), /x: 2, y: 3/],
    ["a shape that does not fit", () => data.arrays({ x: { data: new Int32Array(5), shape: [2, 2] } }), /needs 4/],
    ["a batch size of 0", () => numbers(4).batches(0), /at least 1/],
    ["a batch size of 1.5", () => numbers(4).batches(1.5), /whole number/],
    ["batches larger than the data with dropLast", () => numbers(4).batches(5, { dropLast: true }), /dropLast/],
    ["a split that leaves nothing", () => numbers(4).split(0.01), /empty/],
    ["a negative seed", () => numbers(4).batches(1, { seed: -1 }), /seed/],
  ])("refuses %s", (_, make, message) => {
    expect(make).toThrow(message);
    expect(make).toThrow(RaphsonError);
  });
});

describe("data.from", () => {
  it("takes arrays, generators and async generators", async () => {
    const items = [{ x: Float32Array.of(1, 2) }, { x: Float32Array.of(3) }];
    async function* stream() {
      yield* items;
    }
    for (const source of [items, () => items, stream]) {
      expect((await all(data.from(source))).map(({ x }) => x.toArray())).toEqual([[1, 2], [3]]);
    }
  });

  it("refuses empty batches and shapes that do not fit", async () => {
    expect((await failure(all(data.from([{ x: new Float32Array(0) }])))).message).toMatch(/empty/);
    const wrong = [{ x: { data: new Float32Array(3), shape: [2, 2] } }];
    expect((await failure(all(data.from(wrong)))).message).toMatch(/3 values/);
  });
});

describe("data.text", () => {
  it("makes windows and what follows them", async () => {
    const text = await data.text("abcabcabcabcabcabcabcabcabcabc\n", { context: 3, held: 0.2 });
    expect(text.vocabulary).toEqual(["\n", "a", "b", "c"]);
    const [batch] = await all(text.train.batches(2));
    expect(text.decode([...(batch?.inputs.at(0).dataSync() ?? [])])).toBe("abc");
    expect(text.decode([...(batch?.targets.dataSync() ?? [])])).toBe("ab");
    expect(text.train.size).toBe(24 - 3);
    expect(text.held.size).toBe(7 - 3);
    expect(() => text.encode("x")).toThrow(/no character "x"/);
  });

  it("has a target for every character if asked", async () => {
    const text = await data.text("abcabcabcabcabcabcabcabcabcabc\n", { context: 3, held: 0.2, targets: "every" });
    const [batch] = await all(text.train.batches(2));
    expect(batch?.targets.shape).toEqual([2, 3]);
    expect(text.decode([...(batch?.targets.dataSync() ?? [])])).toBe("bcacab");
    expect((await failure(data.text("ab\n", { context: 1, targets: "all" as never }))).message).toMatch(/"every"/);
  });

  it("reads files and says which one is missing", async () => {
    const path = await file("words.txt", Buffer.from("to be or not to be, that is the question"));
    expect((await data.text(path, { context: 2 })).length).toBe(40);
    expect((await failure(data.text(join(folder, "absent.txt"), { context: 2 }))).message).toContain("absent.txt");
    expect((await failure(data.text("ab", { context: 8 }))).message).toMatch(/too few/);
  });
});
