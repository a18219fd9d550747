/**
 * The training steps that are compared: their sizes, their initial weights and their data, written to one file each, from
 * which every peer reads the same bytes. What computes them stands in the peers' own files.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { hostRandom } from "../../src";

/** An array in a file: where it begins, in bytes. */
export interface Entry {
  readonly shape: readonly number[];
  readonly dtype: "f32" | "i32";
  readonly offset: number;
}

export interface Workload {
  readonly name: string;
  readonly kind: "mlp" | "cnn" | "gpt" | "tiny";
  readonly optimizer: "adam" | "sgd";
  readonly alpha: number;
  readonly classes: number;
  readonly sizes: Readonly<Record<string, number>>;
  readonly file: string;
  /** In PyTorch's layouts: dense weights [out, in], kernels [out, in, rows, columns]. */
  readonly params: readonly Entry[];
  readonly batches: readonly { readonly x: Entry; readonly y: Entry }[];
}

export const WORKLOADS = ["mlp128", "mlp32", "cnn", "gpt", "tiny"] as const;
export type WorkloadName = (typeof WORKLOADS)[number];

/** Batches that take turns, so that no step sees the data of the one before. */
const BATCHES = 4;
const GPT = { layers: 4, width: 128, heads: 4, context: 128, batch: 8, vocabulary: 65 };

/** Gathers arrays, and writes them to a file one after another. */
export class ArrayFile {
  readonly #parts: Uint8Array[] = [];
  #offset = 0;
  readonly #random = hostRandom(1);

  add(shape: readonly number[], dtype: "f32" | "i32", value: () => number): Entry {
    const length = shape.reduce((a, b) => a * b, 1);
    const values = dtype === "f32" ? new Float32Array(length) : new Int32Array(length);
    for (let index = 0; index < length; index++) values[index] = value();
    const offset = this.#offset;
    this.#parts.push(new Uint8Array(values.buffer));
    this.#offset += values.byteLength;
    return { shape, dtype, offset };
  }

  /** Evenly from [low, high). */
  uniform(shape: readonly number[], low: number, high: number): Entry {
    return this.add(shape, "f32", () => low + (high - low) * this.#random.uniform());
  }

  constant(shape: readonly number[], value: number): Entry {
    return this.add(shape, "f32", () => value);
  }

  integers(shape: readonly number[], below: number): Entry {
    return this.add(shape, "i32", () => this.#random.integer(below));
  }

  write(path: string): void {
    writeFileSync(path, Buffer.concat(this.#parts));
  }
}

/** A weight of these shapes and its bias, evenly from ±1/√inputs. */
function layer(file: ArrayFile, shape: readonly number[]): Entry[] {
  const bound = 1 / Math.sqrt(shape.slice(1).reduce((a, b) => a * b, 1));
  return [file.uniform(shape, -bound, bound), file.uniform([shape[0] ?? 0], -bound, bound)];
}

function layers(file: ArrayFile, ...shapes: (readonly number[])[]): Entry[] {
  return shapes.flatMap((shape) => layer(file, shape));
}

/** The standard deviation of this is nanoGPT's 0.02. */
const GPT_BOUND = 0.02 * Math.sqrt(3);

function gptParams(file: ArrayFile): Entry[] {
  const { width, vocabulary, context } = GPT;
  const weight = (...shape: number[]) => file.uniform(shape, -GPT_BOUND, GPT_BOUND);
  const norm = () => [file.constant([width], 1), file.constant([width], 0)];
  const dense = (out: number, into: number) => [weight(out, into), file.constant([out], 0)];
  const block = () => [
    ...norm(),
    ...dense(3 * width, width),
    ...dense(width, width),
    ...norm(),
    ...dense(4 * width, width),
    ...dense(width, 4 * width),
  ];
  const embeddings = [weight(vocabulary, width), weight(context, width)];
  return [...embeddings, ...Array.from({ length: GPT.layers }, block).flat(), ...norm()];
}

function batches(make: () => { x: Entry; y: Entry }) {
  return Array.from({ length: BATCHES }, make);
}

type Plan = Omit<Workload, "name" | "file">;

const PLANS: Record<WorkloadName, (file: ArrayFile) => Plan> = {
  mlp128: (file) => mlp(file, 128),
  mlp32: (file) => mlp(file, 32),
  cnn: (file) => ({
    kind: "cnn",
    optimizer: "adam",
    alpha: 1e-3,
    classes: 10,
    sizes: {},
    params: layers(file, [32, 1, 3, 3], [64, 32, 3, 3], [128, 64 * 7 * 7], [10, 128]),
    batches: batches(() => ({ x: file.uniform([64, 1, 28, 28], 0, 1), y: file.integers([64], 10) })),
  }),
  gpt: (file) => ({
    kind: "gpt",
    optimizer: "adam",
    alpha: 1e-3,
    classes: GPT.vocabulary,
    sizes: GPT,
    params: gptParams(file),
    batches: batches(() => ({
      x: file.integers([GPT.batch, GPT.context], GPT.vocabulary),
      y: file.integers([GPT.batch, GPT.context], GPT.vocabulary),
    })),
  }),
  tiny: (file) => ({
    kind: "tiny",
    optimizer: "sgd",
    alpha: 0.05,
    classes: 0,
    sizes: {},
    params: layers(file, [16, 4], [1, 16]),
    batches: batches(() => ({ x: file.uniform([8, 4], -1, 1), y: file.uniform([8, 1], -1, 1) })),
  }),
};

function mlp(file: ArrayFile, batch: number): Plan {
  return {
    kind: "mlp",
    optimizer: "adam",
    alpha: 1e-3,
    classes: 10,
    sizes: {},
    params: layers(file, [512, 784], [512, 512], [10, 512]),
    batches: batches(() => ({ x: file.uniform([batch, 784], 0, 1), y: file.integers([batch], 10) })),
  };
}

/** Writes a workload's file into the folder. */
export function makeWorkload(name: WorkloadName, folder: string): Workload {
  const arrays = new ArrayFile();
  const plan = PLANS[name](arrays);
  const file = join(folder, `${name}.bin`);
  arrays.write(file);
  return { name, file, ...plan };
}
