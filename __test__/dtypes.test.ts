/** The storage dtypes and i64 as users meet them: creation, reading, printing, arithmetic, files. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { floatToHalf, full, grad, halfToFloat, io, loss, type Tensor, tensor, zeros } from "../src/index";

describe("f16 and bf16", () => {
  test("are rounded once: a mean whose sum f16 does not reach, a product between products", () => {
    expect(full([100_000], 1, { dtype: "f16" }).mean().item()).toBe(1);
    // 1 + 2⁻¹² is 1 as f16, and so are the rows' sums; their difference from 1 is not lost on the way
    const ones = tensor([[1, 2 ** -12]], { dtype: "f16" });
    const inner = ones.matmul(tensor([[1], [1]], { dtype: "f16" }));
    expect(inner.sub(1).item()).toBe(2 ** -12);
    expect(inner.cast("f16").item()).toBe(1);
  });

  test.each(["f16", "bf16"] as const)("%s: numbers go in and come out", async (dtype) => {
    const x = tensor([1, -2.5, 0, 0.5], { dtype });
    expect(x.dtype).toBe(dtype);
    expect(x.toArray()).toEqual([1, -2.5, 0, 0.5]);
    const stored = await x.data();
    expect(stored).toBeInstanceOf(Uint16Array);
    expect(tensor(stored, { dtype }).toArray()).toEqual(x.toArray());
    expect(x.mul(2).cast("f32").toArray()).toEqual([2, -5, 0, 1]);
    expect(String(x)).toContain(dtype);
  });

  test.each(["f16", "bf16"] as const)("%s: conversion here and in kernels agree", (dtype) => {
    const values = Array.from({ length: 4096 }, (_, i) => Math.sin(i) * 2 ** ((i % 42) - 26));
    const here = values.map((value) => halfToFloat(floatToHalf(Math.fround(value), dtype), dtype));
    expect(tensor(values).cast(dtype).cast("f32").toArray()).toEqual(here);
  });

  test("too large is infinite, ties go to even", () => {
    expect(tensor([65504, 65520, 2049, 2051]).cast("f16").toArray()).toEqual([
      65504,
      Number.POSITIVE_INFINITY,
      2048,
      2052,
    ]);
  });

  test("sums accumulate in f32", () => {
    expect(tensor(new Float32Array(4096).fill(1)).cast("f16").sum().item()).toBe(4096);
  });

  test("they have derivatives of their own dtype", () => {
    const slope = grad((x: Tensor<"f16">) => x.square().sum())(tensor([1, 2, 3], { dtype: "f16" })) as Tensor<"f16">;
    expect([slope.dtype, slope.toArray()]).toEqual(["f16", [2, 4, 6]]);
  });
});

describe("i64 and u8", () => {
  test("i64 holds what numbers cannot", () => {
    const x = tensor(new BigInt64Array([9007199254740993n, -(2n ** 63n)]));
    expect(x.add(1).toArray()).toEqual([9007199254740994n, -(2n ** 63n) + 1n]);
    expect(String(x)).toContain("9007199254740993");
    expect(() => tensor([2 ** 53], { dtype: "i64" })).toThrow(/BigInt64Array/);
  });

  test("u8 wraps modulo 256", () => {
    const x = tensor(new Uint8Array([250, 3, 128]));
    expect(x.dtype).toBe("u8");
    expect(x.add(10).toArray()).toEqual([4, 13, 138]);
    expect(x.cast("f32").toArray()).toEqual([250, 3, 128]);
    expect(tensor([300.7, -4]).cast("u8").toArray()).toEqual([255, 0]);
    expect(() => tensor([256], { dtype: "u8" })).toThrow(/u8/);
  });

  test("an array of halves needs a name", () => {
    expect(() => tensor(new Uint16Array(2) as never)).toThrow(/name the dtype/);
    expect(tensor(new Uint16Array([7, 65535]), { dtype: "i32" }).toArray()).toEqual([7, 65535]);
  });

  test("they are labels, also where i32 cannot hold them", () => {
    const logits = tensor([
      [2, 0, 1],
      [0, 3, 1],
    ]);
    const expected = loss.crossEntropy(logits, [0, 2]).item();
    for (const labels of [new Uint8Array([0, 2]), tensor(new Uint8Array([0, 2])), tensor(new BigInt64Array([0n, 2n]))])
      expect(loss.crossEntropy(logits, labels).item()).toBe(expected);
    const far = tensor(new BigInt64Array([0n, 2n ** 32n]));
    expect(() => loss.crossEntropy(logits, far).item()).toThrow(/index|label/i);
    expect(
      tensor(new Uint8Array([0, 44]))
        .oneHot(301)
        .sum()
        .item(),
    ).toBe(2);
  });

  test("they index", () => {
    const data = tensor([10, 20, 30]);
    expect(data.gather(tensor(new BigInt64Array([2n, 0n]))).toArray()).toEqual([30, 10]);
    expect(data.gather(tensor(new Uint8Array([1]))).toArray()).toEqual([20]);
  });
});

test("files keep every dtype", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "dtypes-")), "all.safetensors");
  const tensors = Object.fromEntries(
    (["f16", "bf16", "i64", "u8"] as const).map((dtype) => [dtype, zeros([2], { dtype }).add(3)]),
  );
  await io.save(tensors, path);
  const { tensors: loaded } = await io.load(path);
  const found = Object.entries(loaded as Record<string, Tensor>).map(([name, t]) => [name, t.dtype, t.toArray()]);
  expect(found).toEqual([
    ["bf16", "bf16", [3, 3]],
    ["f16", "f16", [3, 3]],
    ["i64", "i64", [3n, 3n]],
    ["u8", "u8", [3, 3]],
  ]);
});
