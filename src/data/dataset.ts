/**
 * Datasets in host memory and the batches drawn from them: splitting, shuffling, batching, mapping, reading ahead.
 * What the examples are and where they lie is `columns.ts`'s subject.
 */
import type { TypedArray } from "../dtype";
import { argumentError } from "../errors";
import { HostRandom, keyOfSeed, subkey } from "../hostRandom";
import type { AnyTensor } from "../tensor";
import { checkOptions } from "../tensor/validate";
import { type Batch, keepThrough, madeTensor, release } from "./batch";
import type { Column } from "./columns";

function count(op: string, name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 1)) {
    throw argumentError(op, `${name} must be a whole number of at least 1, not ${value}`);
  }
}

function wholeSeed(op: string, seed: number): void {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw argumentError(op, `seed must be a whole number of at least 0, not ${seed}`);
  }
}

/** A permutation of `rows`, fixed by the seed and the epoch. */
function shuffled(rows: Uint32Array, seed: number, epoch: number): Uint32Array {
  const key = subkey(keyOfSeed(seed, "data"), epoch);
  return new HostRandom({ key, counter: 0 }).shuffle(rows.slice());
}

/** How a dataset is cut into batches. */
export interface BatchOptions {
  /** Another order in each epoch. */
  readonly shuffle?: boolean;
  /** Fixes the orders; 0 if not given. */
  readonly seed?: number;
  /** Leave out the last, smaller batch. */
  readonly dropLast?: boolean;
}

/** Examples in memory (pictures: on disk), each with the same named fields; the batches have the type `B`. */
export class Dataset<B extends Batch> {
  /** The number of examples. */
  readonly size: number;
  readonly #columns: ReadonlyMap<string, Column>;
  readonly #rows: Uint32Array;

  /** @internal Use `data.idx`, `data.text` or `data.arrays`. */
  constructor(columns: ReadonlyMap<string, Column>, rows?: Uint32Array) {
    const sizes = new Map([...columns].map(([name, column]) => [name, column.size]));
    const [first = 0] = sizes.values();
    for (const [name, size] of sizes) {
      if (size !== first) {
        const all = [...sizes].map(([key, length]) => `${key}: ${length}`).join(", ");
        throw argumentError("data", `the fields have different numbers of examples (${all}); see ${name}`);
      }
    }
    if (first === 0 || rows?.length === 0) throw argumentError("data", "the dataset is empty; it needs an example");
    this.#columns = columns;
    this.#rows = rows ?? Uint32Array.from({ length: first }, (_, row) => row);
    this.size = this.#rows.length;
  }

  /**
   * Two datasets: a random `fraction` of the examples, and the rest. The seed fixes which (0 if not given); with
   * `shuffle: false` it is the first ones, in the order of the file.
   */
  split(fraction: number, options: { seed?: number; shuffle?: boolean } = {}): [Dataset<B>, Dataset<B>] {
    checkOptions("split", options, ["seed", "shuffle"]);
    const { seed = 0, shuffle = true } = options;
    wholeSeed("split", seed);
    const cut = Math.round(this.size * fraction);
    if (!(fraction > 0 && fraction < 1) || cut === 0 || cut === this.size) {
      throw argumentError("split", `a fraction of ${fraction} of ${this.size} examples leaves one side empty`);
    }
    const order = shuffle ? shuffled(this.#rows, seed, 0) : this.#rows;
    return [new Dataset(this.#columns, order.subarray(0, cut)), new Dataset(this.#columns, order.subarray(cut))];
  }

  /** The first `size` examples (all, if there are fewer). */
  take(size: number): Dataset<B> {
    count("take", "size", size);
    return new Dataset(this.#columns, this.#rows.subarray(0, size));
  }

  /** Batches of `size` examples; the last of an epoch may be smaller. */
  batches(size: number, options: BatchOptions = {}): Batches<B> {
    checkOptions("batches", options, ["shuffle", "seed", "dropLast"]);
    const { shuffle = false, seed = 0, dropLast = false } = options;
    count("batches", "size", size);
    wholeSeed("batches", seed);
    const length = dropLast ? Math.floor(this.size / size) : Math.ceil(this.size / size);
    if (length === 0) {
      throw argumentError("batches", `${this.size} examples make no whole batch of ${size}; leave dropLast out`);
    }
    const make = (rows: Uint32Array) => this.#batch(rows);
    const rows = this.#rows;
    return new Batches(async function* (epoch: number, first: number) {
      const order = shuffle ? shuffled(rows, seed, epoch) : rows;
      for (let index = first; index < length; index++)
        yield await make(order.subarray(index * size, (index + 1) * size));
    }, length);
  }

  /** A function applied to each batch of tensors, whatever its size; see `Batches.map`. */
  map<C extends Batch>(change: (batch: B) => C): MappedDataset<B, C> {
    return new MappedDataset(this, change);
  }

  async #batch(rows: Uint32Array): Promise<B> {
    // All of them before the first tensor is made: where one cannot be read, nothing is left over.
    const gathered = await Promise.all([...this.#columns.values()].map((column) => column.gather(rows)));
    const entries = [...this.#columns].map(([name, column], index): [string, AnyTensor] => [
      name,
      madeTensor(gathered[index] as TypedArray, [rows.length, ...column.shape]),
    ]);
    // The constructors in this folder give columns whose dtypes are those of B.
    return Object.fromEntries(entries) as B;
  }
}

/** A dataset whose batches pass through a function. */
export class MappedDataset<A extends Batch, B extends Batch> {
  readonly #source: Dataset<A>;
  readonly #change: (batch: A) => B;

  /** @internal Use `Dataset.map`. */
  constructor(source: Dataset<A>, change: (batch: A) => B) {
    this.#source = source;
    this.#change = change;
  }

  /** The number of examples. */
  get size(): number {
    return this.#source.size;
  }

  /** As `Dataset.split`. */
  split(fraction: number, options: { seed?: number } = {}): [MappedDataset<A, B>, MappedDataset<A, B>] {
    const [left, right] = this.#source.split(fraction, options);
    return [new MappedDataset(left, this.#change), new MappedDataset(right, this.#change)];
  }

  /** As `Dataset.take`. */
  take(size: number): MappedDataset<A, B> {
    return new MappedDataset(this.#source.take(size), this.#change);
  }

  /** As `Dataset.batches`. */
  batches(size: number, options: BatchOptions = {}): Batches<B> {
    return this.#source.batches(size, options).map(this.#change);
  }

  /** One more function, applied after the first. */
  map<C extends Batch>(change: (batch: B) => C): MappedDataset<A, C> {
    const first = this.#change;
    return new MappedDataset(this.#source, (batch) => change(first(batch)));
  }
}

/** The batches of an epoch from number `first` on. */
type Open<B> = (epoch: number, first: number) => Iterable<B> | AsyncIterable<B>;

/** Batches of tensors, epoch after epoch. Each `for await` goes through the next epoch. */
export class Batches<B extends Batch> implements AsyncIterable<B> {
  /** Batches in an epoch, where that is known beforehand. */
  readonly length: number | undefined;
  readonly #open: Open<B>;
  #epoch = 0;

  /** Whether an epoch can be gone through anew, or in part: not with a generator, which can be read once. */
  readonly repeats: boolean;

  /** @internal Use `Dataset.batches` or `data.from`. */
  constructor(open: Open<B>, length: number | undefined, repeats = true) {
    this.#open = open;
    this.length = length;
    this.repeats = repeats;
  }

  /** The batches of one epoch, by its number from 0; with `first`, without those before that one. */
  async *epoch(index: number, first = 0): AsyncGenerator<B, void, undefined> {
    yield* this.#open(index, first);
  }

  [Symbol.asyncIterator](): AsyncGenerator<B, void, undefined> {
    return this.epoch(this.#epoch++);
  }

  /** Each batch passed through a function; the tensors that the function made or dropped are freed with the batch. */
  map<C extends Batch>(change: (batch: B) => C): Batches<C> {
    const open = this.#open;
    return new Batches(
      async function* (epoch, first) {
        for await (const batch of open(epoch, first)) yield keepThrough(batch, change);
      },
      this.length,
      this.repeats,
    );
  }

  /** At most the first `length` batches of each epoch. */
  take(length: number): Batches<B> {
    count("take", "length", length);
    const open = this.#open;
    return new Batches(
      async function* (epoch, first) {
        let taken = first;
        if (taken >= length) return;
        for await (const batch of open(epoch, first)) {
          yield batch;
          taken += 1;
          if (taken === length) return;
        }
      },
      this.length === undefined ? undefined : Math.min(this.length, length),
      this.repeats,
    );
  }

  /** Prepares up to `ahead` batches while the earlier ones are in use. */
  prefetch(ahead = 2): Batches<B> {
    count("prefetch", "ahead", ahead);
    const open = this.#open;
    return new Batches((epoch, first) => readAhead(open(epoch, first), ahead), this.length, this.repeats);
  }
}

async function* readAhead<B extends Batch>(
  source: Iterable<B> | AsyncIterable<B>,
  ahead: number,
): AsyncGenerator<B, void, undefined> {
  const iterator = (async function* () {
    yield* source;
  })();
  const queue: Promise<IteratorResult<B, void>>[] = [];
  const pull = () => {
    const next = iterator.next();
    next.catch(() => undefined); // seen when its turn comes
    queue.push(next);
  };
  try {
    for (let filled = 0; filled < ahead; filled++) pull();
    for (;;) {
      const result = await queue.shift();
      if (result === undefined || result.done === true) return;
      pull();
      yield result.value;
    }
  } finally {
    for (const left of await Promise.allSettled(queue)) {
      if (left.status === "fulfilled" && left.value.done !== true) release(left.value.value);
    }
    await iterator.return();
  }
}
