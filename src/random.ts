/**
 * Tensors of random numbers from counter-based keys. Every draw uses a key of its own, so that the same seed gives the
 * same numbers, bit for bit, in whatever order they are computed. Random numbers on the host: `hostRandom`.
 */

import { type FloatDType, isFloat } from "./dtype";
import { argumentError, dtypeError, shapeError } from "./errors";
import { ROW } from "./generated/ops";
import { type Key, keyOfSeed, subkey } from "./hostRandom";
import { native } from "./native";
import { fromHandle, type Shape, type Tensor } from "./tensor";
import { arange, type DTyped, fromTypedArray } from "./tensor/creation";
import { checkOptions, checkShape, count, elements, showShape } from "./tensor/validate";

/** Options of `uniform`. */
export interface UniformOptions<F extends FloatDType> {
  readonly low?: number;
  readonly high?: number;
  readonly dtype?: F;
}

/** Options of `normal`. */
export interface NormalOptions<F extends FloatDType> {
  readonly mean?: number;
  readonly deviation?: number;
  readonly dtype?: F;
}

/** A source of keys: each call gives a fresh one, as a u32[2] tensor. */
interface KeySource {
  next(): Tensor<"u32">;
  /** A source of its own for everything numbered `index`. */
  fold(index: number): KeySource;
}

/** Keys known to the host: computed here and uploaded, so that repeated draws share one program. */
class HostKeys implements KeySource {
  #next = 0;
  constructor(readonly key: Key) {}
  next(): Tensor<"u32"> {
    return fromTypedArray(Uint32Array.from(subkey(this.key, this.#next++)));
  }
  fold(index: number): KeySource {
    return new HostKeys(subkey(this.key, FOLDS - index));
  }
}

/** Keys that are tensors, so that a compiled step gets other numbers with each key it is given. */
class TensorKeys implements KeySource {
  #next = 0;
  constructor(readonly key: Tensor<"u32">) {}
  next(): Tensor<"u32"> {
    return tensorSubkey(this.key, this.#next++);
  }
  fold(index: number): KeySource {
    return new TensorKeys(tensorSubkey(this.key, FOLDS - index));
  }
}

/** Subkeys of `fold` are counted down from here, those of draws up from 0. */
const FOLDS = 2 ** 31 - 1;

/** The same as `subkey` on the host. */
function tensorSubkey(key: Tensor<"u32">, index: number): Tensor<"u32"> {
  const counters = arange(0, 2, 1, { dtype: "u32" }).add((2 * index) >>> 0);
  return words(key, counters);
}

/** The first words of Threefry at `counters`. */
function words(key: Tensor<"u32">, counters: Tensor<"u32">): Tensor<"u32"> {
  return fromHandle(native.elementwise3(ROW.threefry, key.at(0).handle, key.at(1).handle, counters.handle), "u32");
}

/** Draws tensors of random numbers; every draw is independent of the others. */
export class RandomGenerator {
  readonly #keys: KeySource;

  /** Made by `random.generator` and `random.fromKey`. */
  constructor(keys: KeySource) {
    this.#keys = keys;
  }

  /** 32 random bits for each element. */
  bits(shape: Shape): Tensor<"u32"> {
    return this.#draw("bits", shape, 1)[0] as Tensor<"u32">;
  }

  /** Uniform on [low, high), [0, 1) unless given. f32 has 24 random bits, f64 has 53. */
  uniform(shape: Shape, options?: UniformOptions<"f32">): Tensor;
  uniform<F extends FloatDType>(shape: Shape, options: UniformOptions<F> & DTyped<F>): Tensor<F>;
  uniform(shape: Shape, options: UniformOptions<FloatDType> = {}): Tensor<FloatDType> {
    checkOptions("uniform", options, ["low", "high", "dtype"]);
    const { low = 0, high = 1, dtype = "f32" } = options;
    if (!(low < high)) throw argumentError("uniform", `needs low < high, got ${low} and ${high}`);
    const unit = this.#unit("uniform", shape, dtype, 0);
    return low === 0 && high === 1 ? unit : unit.mul(high - low).add(low);
  }

  /** Normal with the given mean and standard deviation, 0 and 1 unless given. */
  normal(shape: Shape, options?: NormalOptions<"f32">): Tensor;
  normal<F extends FloatDType>(shape: Shape, options: NormalOptions<F> & DTyped<F>): Tensor<F>;
  normal(shape: Shape, options: NormalOptions<FloatDType> = {}): Tensor<FloatDType> {
    checkOptions("normal", options, ["mean", "deviation", "dtype"]);
    const { mean = 0, deviation = 1, dtype = "f32" } = options;
    // Box and Muller: √(−2 ln u) · cos(2π v) for u of (0, 1), v of [0, 1); half a step keeps u off 0
    const u = this.#unit("normal", shape, dtype, 0.5);
    const v = this.#unit("normal", shape, dtype, 0);
    const standard = u
      .log()
      .mul(-2)
      .sqrt()
      .mul(v.mul(2 * Math.PI).cos());
    return mean === 0 && deviation === 1 ? standard : standard.mul(deviation).add(mean);
  }

  /** True with probability `p`. */
  bernoulli(p: number, shape: Shape): Tensor<"bool"> {
    if (!(p >= 0 && p <= 1)) throw argumentError("bernoulli", `a probability is a number of 0 … 1, got ${p}`);
    return this.#unit("bernoulli", shape, "f32", 0).less(p);
  }

  /** Integers of low … high − 1, each as likely (up to (high − low)/2^32). */
  randint(low: number, high: number, shape: Shape): Tensor<"i32"> {
    if ((low | 0) !== low || ((high - 1) | 0) !== high - 1 || low >= high) {
      throw argumentError("randint", `needs i32 integers low < high, got ${low} and ${high}`);
    }
    const range = high - low;
    const offset = range === 2 ** 32 ? this.bits(shape) : this.bits(shape).rem(range);
    return offset.cast("i32").add(low);
  }

  /**
   * The numbers 0 … n − 1 in random order: the order of n random words. Of two equal words (likely from some 10⁵ on) the
   * first stays first.
   */
  permutation(n: number): Tensor<"i32"> {
    const size = count("permutation", "n", n);
    return this.bits([size]).argsort(0);
  }

  /** `n` generators independent of each other and of this one. */
  split(n: number): RandomGenerator[] {
    return Array.from({ length: count("split", "n", n) }, () => new RandomGenerator(new TensorKeys(this.#keys.next())));
  }

  /** The generator that belongs to number `index`: the same whenever it is asked for. */
  fold(index: number): RandomGenerator {
    return new RandomGenerator(this.#keys.fold(count("fold", "the index", index)));
  }

  /** A fresh key, to hand to a compiled step and there to `random.fromKey`. */
  key(): Tensor<"u32"> {
    return this.#keys.next();
  }

  /** `n` tensors of random bits from one key: element i of tensor j is word j·size + i. */
  #draw(op: string, shape: Shape, n: number): Tensor<"u32">[] {
    const sizes = checkShape(op, shape);
    const size = elements(sizes);
    if (n * size >= 2 ** 32)
      throw shapeError(op, `a draw has at most 2^32 words; ${showShape(sizes)} is too large`, sizes);
    const key = this.#keys.next();
    return Array.from({ length: n }, (_, j) => {
      const counters = arange(0, size, 1, { dtype: "u32" });
      return words(key, j === 0 ? counters : counters.add(j * size)).reshape(sizes);
    });
  }

  /** (bits + shift) / 2^24 from the high 24 bits, or the same with 53 of two words. */
  #unit<F extends FloatDType>(op: string, shape: Shape, dtype: F, shift: number): Tensor<F> {
    if (!isFloat(dtype)) throw dtypeError(op, `draws f32 or f64, not ${dtype}`, dtype);
    if (dtype === "f32") {
      const [bits] = this.#draw(op, shape, 1) as [Tensor<"u32">];
      const whole = bits.shiftRight(8).cast(dtype);
      return (shift === 0 ? whole : whole.add(shift)).mul(2 ** -24);
    }
    const [first, second] = this.#draw(op, shape, 2) as [Tensor<"u32">, Tensor<"u32">];
    const whole = first
      .shiftRight(5)
      .cast(dtype)
      .mul(2 ** 26)
      .add(second.shiftRight(6).cast(dtype));
    return (shift === 0 ? whole : whole.add(shift)).mul(2 ** -53);
  }
}

/**
 * A generator of random tensors. Its keys are made on the host: inside a compiled function its draws are constants, so
 * pass a key in and use `fromKey` there.
 *
 * ```ts
 * import { random } from "raphson";
 *
 * const draws = random.generator(7);
 * const noise = draws.normal([2, 3]);
 * const coin = draws.bernoulli(0.5, [4]);
 * console.log(noise.shape, coin.dtype);
 * ```
 */
export function generator(seed: number): RandomGenerator {
  return new RandomGenerator(new HostKeys(keyOfSeed(seed, "random.generator")));
}

/** A generator from a key, a u32[2] tensor: inside a compiled function, other numbers with each key it is called with. */
export function fromKey(key: Tensor<"u32">): RandomGenerator {
  if (key.dtype !== "u32" || key.shape.join() !== "2") {
    throw shapeError(
      "random.fromKey",
      `a key is a u32 tensor of shape [2], got ${key.dtype} ${showShape(key.shape)}`,
      key.shape,
    );
  }
  return new RandomGenerator(new TensorKeys(key));
}
