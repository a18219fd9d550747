/**
 * Errors: typed, named after the call, with shapes and a way out; validation of what JavaScript lets through.
 */

import { arange, compile, concatenate, ones, scalar, type Tensor, tensor, zeros } from "raphson";
import { describe, expect, it } from "vitest";
import { translateError } from "../src/errors";
import { native } from "../src/native";
import { thrown } from "./thrown";

describe("the addon's errors", () => {
  it("come with code, op, shapes and dtypes", () => {
    const error = thrown(() => ones([2, 3]).add(ones([4])));
    expect(error).toBeInstanceOf(Error);
    expect([error.code, error.op, error.shapes, error.name]).toEqual(["SHAPE", "add", [[2, 3], [4]], "RaphsonError"]);
    expect(error.message).toMatch(/^\[add\] /);
    expect(error.stack).toContain("errors.test");
    const dtypes = thrown(() => ones([2]).add(ones([2], { dtype: "f64" }) as Tensor<never>));
    expect([dtypes.code, dtypes.dtypes]).toEqual(["DTYPE", ["f32", "f64"]]);
    expect(thrown(() => ones([8, 4]).matmul(ones([5, 2]))).code).toBe("SHAPE");
  });

  it("come from a panic too, and the addon goes on", () => {
    const error = thrown(() => native.panicForTest());
    expect(error.code).toBe("INTERNAL");
    expect(ones([2]).sum().item()).toBe(2);
  });

  it("are told apart from other errors", () => {
    const other = new Error("raphson:{not json");
    expect(translateError(other)).toBe(other);
    expect(translateError("text")).toBe("text");
  });

  it("arrive on reading when an index is out of range", async () => {
    const picked = arange(3).take([0, 7]);
    await expect(picked.data()).rejects.toMatchObject({ code: "INDEX" });
  });
});

describe("validation", () => {
  it("names the op for sizes, axes and values that are none", () => {
    const cases: [op: string, code: string, run: () => unknown][] = [
      ["zeros", "ARGUMENT", () => zeros([-1])],
      ["zeros", "ARGUMENT", () => zeros([Number.NaN])],
      ["zeros", "ARGUMENT", () => zeros([1.5])],
      ["zeros", "ARGUMENT", () => zeros(3 as never)],
      ["zeros", "ARGUMENT", () => zeros([2], { dtype: "f8" as "f32" })],
      ["reshape", "SHAPE", () => zeros([4]).reshape([3])],
      ["reshape", "ARGUMENT", () => zeros([4]).reshape([-1, -1])],
      ["reshape", "SHAPE", () => zeros([4]).reshape([3, -1])],
      ["sum", "ARGUMENT", () => zeros([4]).sum(1)],
      ["sum", "ARGUMENT", () => zeros([4]).sum([0, 0])],
      ["sum", "ARGUMENT", () => zeros([4]).sum(0.5)],
      ["permute", "ARGUMENT", () => zeros([2, 3]).permute([0, 0])],
      ["squeeze", "SHAPE", () => zeros([2, 3]).squeeze(0)],
      ["split", "ARGUMENT", () => zeros([5]).split(2)],
      ["at", "INDEX", () => zeros([3]).at(3)],
      ["at", "INDEX", () => zeros([3]).at(0, 0)],
      ["at", "ARGUMENT", () => zeros([3]).at([0, 1, 0])],
      ["mul", "ARGUMENT", () => zeros([3]).mul([1, 2, 3] as never)],
      ["add", "ARGUMENT", () => zeros([3], { dtype: "i32" }).add(0.5)],
      ["tensor", "ARGUMENT", () => tensor([1, -1], { dtype: "u32" })],
      ["tensor", "SHAPE", () => tensor([[1, 2], [3]])],
      ["tensor", "SHAPE", () => tensor([1, 2, 3], { shape: [2] })],
      ["tensor", "ARGUMENT", () => tensor("text" as never)],
      ["tensor", "ARGUMENT", () => tensor(new Uint8Array([0, 2]), { dtype: "bool" })],
      ["arange", "ARGUMENT", () => arange(0, 1, 0)],
      ["item", "SHAPE", () => zeros([2]).item()],
      ["mean", "SHAPE", () => zeros([0]).mean()],
      ["concatenate", "ARGUMENT", () => concatenate([])],
      ["compile", "ARGUMENT", () => compile((x: Tensor) => x, { cacheSize: 0 })],
    ];
    for (const [op, code, run] of cases) {
      const error = thrown(run);
      expect([error.op, error.code], error.message).toEqual([op, code]);
    }
  });

  it("says what a disposed tensor is", () => {
    const t = scalar(1);
    t.dispose();
    t.dispose();
    const error = thrown(() => t.add(1));
    expect(error.code).toBe("DISPOSED");
    expect(error.message).toMatch(/dispose was called/);
    expect(t.shape).toEqual([]);
  });
});
