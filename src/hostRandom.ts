/**
 * Threefry-2x32-20 in TypeScript: bit-equal with the addon's, for what the host decides — the order of data, subkeys.
 * Tensors of random numbers are drawn in `random`.
 */

import { argumentError } from "./errors";

/** Two 32-bit words. */
export type Key = readonly [number, number];

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;
/** Skein's parity constant, as Threefry has it for 32-bit words. */
const PARITY = 0x1bd11bda;

function rotateLeft(x: number, by: number): number {
  return (x << by) | (x >>> (32 - by));
}

/**
 * Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw: Parallel random numbers: as easy as 1, 2, 3, 2011):
 * two words from a key and a counter of two words each.
 */
export function threefry([k0, k1]: Key, counter0: number, counter1 = 0): Key {
  const schedule = [k0 | 0, k1 | 0, k0 ^ k1 ^ PARITY] as const;
  let x0 = (counter0 + schedule[0]) | 0;
  let x1 = (counter1 + schedule[1]) | 0;
  for (let group = 1; group <= 5; group++) {
    const first = group % 2 === 1 ? 0 : 4;
    for (let i = first; i < first + 4; i++) {
      x0 = (x0 + x1) | 0;
      x1 = rotateLeft(x1, ROTATIONS[i] as number) ^ x0;
    }
    x0 = (x0 + (schedule[group % 3] as number)) | 0;
    x1 = (x1 + (schedule[(group + 1) % 3] as number) + group) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

/** The key of a seed: its low and its high 32 bits. A RaphsonError unless it is an integer of 0 … 2^53 − 1. */
export function keyOfSeed(seed: number, op: string): Key {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw argumentError(op, `a seed must be an integer of 0 … 2^53 − 1, got ${seed}`);
  }
  return [seed >>> 0, Math.floor(seed / 2 ** 32)];
}

/**
 * Subkey number `index` of a key: the words at its counters 2·index and 2·index + 1. A key that has subkeys is never
 * drawn from itself.
 */
export function subkey(key: Key, index: number): Key {
  return [threefry(key, (2 * index) >>> 0)[0], threefry(key, (2 * index + 1) >>> 0)[0]];
}

/** Where a generator stands; `new HostRandom(state)` goes on from there. */
export interface HostRandomState {
  readonly key: Key;
  readonly counter: number;
}

/** Random numbers on the host, from a seed. */
export class HostRandom {
  #key: Key;
  #counter: number;

  constructor(state: HostRandomState) {
    this.#key = [state.key[0] >>> 0, state.key[1] >>> 0];
    this.#counter = state.counter;
  }

  /** Where the generator stands: plain data, which JSON keeps. */
  get state(): HostRandomState {
    return { key: this.#key, counter: this.#counter };
  }

  /** 32 random bits, as an integer of 0 … 2^32 − 1. */
  next(): number {
    return threefry(this.#key, this.#counter++ >>> 0)[0];
  }

  /** `n` draws of `next`. */
  bits(n: number): Uint32Array {
    return Uint32Array.from({ length: n }, () => this.next());
  }

  /** A number of [0, 1) with 53 random bits. */
  uniform(): number {
    const high = this.next() >>> 5;
    const low = this.next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** An integer of 0 … n − 1, each as likely (up to n/2^53). */
  integer(n: number): number {
    if (!Number.isSafeInteger(n) || n < 1) throw argumentError("hostRandom", `integer(n) needs n ≥ 1, got ${n}`);
    return Math.floor(this.uniform() * n);
  }

  /** The array itself, in random order (Fisher–Yates). */
  shuffle<A extends { length: number; [index: number]: unknown }>(array: A): A {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const held = array[i];
      array[i] = array[j];
      array[j] = held;
    }
    return array;
  }

  /** The numbers 0 … n − 1 in random order. */
  permutation(n: number): Uint32Array {
    return this.shuffle(Uint32Array.from({ length: n }, (_, i) => i));
  }
}

/**
 * A generator on the host. Its bits are those of the first draw of `random.generator(seed)`.
 *
 * ```ts
 * import { hostRandom } from "raphson";
 *
 * const random = hostRandom(1);
 * console.log(random.shuffle(["a", "b", "c"]).length, random.uniform() < 1);
 * ```
 */
export function hostRandom(seed: number): HostRandom {
  return new HostRandom({ key: subkey(keyOfSeed(seed, "hostRandom"), 0), counter: 0 });
}
