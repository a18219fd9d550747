/**
 * Random numbers: known answers, agreement of host and addon, reproducibility, moments, permutations.
 */

import { compile, HostRandom, hostRandom, RaphsonError, random, type Tensor, tensor } from "raphson";
import { describe, expect, it } from "vitest";
import { threefry } from "../src/hostRandom";

describe("threefry", () => {
  it("gives the published answers", () => {
    // Random123's known-answer tests for threefry2x32, 20 rounds
    const hex = (words: readonly number[]) => words.map((word) => word.toString(16).padStart(8, "0"));
    expect(hex(threefry([0, 0], 0, 0))).toEqual(["6b200159", "99ba4efe"]);
    expect(hex(threefry([0xffffffff, 0xffffffff], 0xffffffff, 0xffffffff))).toEqual(["1cb996fc", "bb002be7"]);
    expect(hex(threefry([0x13198a2e, 0x03707344], 0x243f6a88, 0x85a308d3))).toEqual(["c4923a9c", "483df7a0"]);
  });

  it("is the same on the host and in the addon", () => {
    for (const seed of [0, 1, 2 ** 40 + 5]) {
      expect(random.generator(seed).bits([1000]).dataSync()).toEqual(hostRandom(seed).bits(1000));
    }
  });

  it("is the same with a key that is a tensor", () => {
    const key = tensor(new Uint32Array([7, 0]));
    const draws = random.fromKey(key);
    const host = random.generator(7);
    for (let i = 0; i < 3; i++) expect(draws.bits([5]).dataSync()).toEqual(host.bits([5]).dataSync());
    expect(draws.fold(3).bits([5]).dataSync()).toEqual(host.fold(3).bits([5]).dataSync());
  });
});

describe("generator", () => {
  it("repeats with the seed, and never within one", () => {
    const [a, b] = [random.generator(1), random.generator(1)];
    const first = a.normal([8]).dataSync();
    expect(b.normal([8]).dataSync()).toEqual(first);
    expect(a.normal([8]).dataSync()).not.toEqual(first);
    expect(random.generator(2).normal([8]).dataSync()).not.toEqual(first);
  });

  it("has the moments of its distributions", () => {
    const draws = random.generator(5);
    const n = 40_000;
    const u = draws.uniform([n]);
    expect(u.mean().item()).toBeCloseTo(0.5, 2);
    expect(u.variance().item()).toBeCloseTo(1 / 12, 2);
    expect(u.min().item()).toBeGreaterThanOrEqual(0);
    expect(u.max().item()).toBeLessThan(1);
    const z = draws.normal([n]);
    expect(Math.abs(z.mean().item())).toBeLessThan(0.02);
    expect(z.variance().item()).toBeCloseTo(1, 1);
    expect(z.pow(4).mean().item()).toBeGreaterThan(2.8);
    expect(z.pow(4).mean().item()).toBeLessThan(3.2);
    expect(z.isFinite().all().item()).toBe(true);
    const d = draws.normal([n], { mean: 3, deviation: 2, dtype: "f64" });
    expect(d.dtype).toBe("f64");
    expect(d.mean().item()).toBeCloseTo(3, 1);
    expect(d.std().item()).toBeCloseTo(2, 1);
    expect(draws.bernoulli(0.25, [n]).cast("f32").mean().item()).toBeCloseTo(0.25, 1);
    const range = draws.uniform([n], { low: -2, high: 6 });
    expect(range.min().item()).toBeGreaterThanOrEqual(-2);
    expect(range.mean().item()).toBeCloseTo(2, 1);
    const whole = draws.randint(-2, 3, [n]);
    expect([whole.min().item(), whole.max().item()]).toEqual([-2, 2]);
  });

  it("permutes", () => {
    const order = random.generator(9).permutation(50).dataSync();
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect([...order]).not.toEqual(Array.from({ length: 50 }, (_, i) => i));
  });

  it("splits into generators of their own", () => {
    const [a, b] = random.generator(4).split(2) as [random.RandomGenerator, random.RandomGenerator];
    expect(a.bits([4]).dataSync()).not.toEqual(b.bits([4]).dataSync());
  });

  it("checks its arguments", () => {
    const draws = random.generator(0);
    expect(() => random.generator(-1)).toThrow(RaphsonError);
    expect(() => random.generator(0.5)).toThrow(/seed/);
    expect(() => draws.uniform([2], { low: 1, high: 1 })).toThrow(/low < high/);
    expect(() => draws.bernoulli(1.5, [2])).toThrow(/probability/);
    expect(() => draws.randint(3, 3, [2])).toThrow(/randint/);
    expect(() => random.fromKey(tensor([1, 2], { dtype: "i32" }) as Tensor<never>)).toThrow(/key/);
  });

  it("stays fresh inside a compiled function that is given keys", () => {
    const f = compile((key: Tensor<"u32">) => random.fromKey(key).normal([4]));
    const keys = random.generator(1);
    expect(f(keys.key()).dataSync()).not.toEqual(f(keys.key()).dataSync());
    f.dispose();
  });
});

describe("hostRandom", () => {
  it("shuffles everything, and goes on from its state", () => {
    const draws = hostRandom(3);
    const items = draws.shuffle(Array.from({ length: 20 }, (_, i) => i));
    expect([...items].sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i));
    const state = JSON.parse(JSON.stringify(draws.state));
    const next = draws.uniform();
    expect(new HostRandom(state).uniform()).toBe(next);
    expect(next).toBeGreaterThanOrEqual(0);
    expect(next).toBeLessThan(1);
  });

  it("is even", () => {
    const draws = hostRandom(8);
    const seen = Array.from({ length: 6000 }, () => draws.integer(3));
    for (const value of [0, 1, 2]) {
      const share = seen.filter((v) => v === value).length / seen.length;
      expect(share).toBeGreaterThan(0.3);
      expect(share).toBeLessThan(0.37);
    }
  });
});
