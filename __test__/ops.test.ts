/**
 * Composed ops where parity files do not reach: NaN and infinities, integers, empty axes, views, kinks, typed errors, and values
 * against plain loops at odd sizes.
 */

import {
  arange,
  einsum,
  grad,
  linalg,
  meshgrid,
  type RaphsonErrorCode,
  random,
  scalar,
  type Tensor,
  tensor,
  triangle,
  zeros,
} from "raphson";
import { describe, expect, it } from "vitest";
import { thrown } from "./thrown";

const whole = (values: number[]): Tensor<"i32"> => tensor(values, { dtype: "i32" });

describe("order", () => {
  it("is stable, with NaN last either way", () => {
    const t = tensor([2, Number.NaN, 1, 2, Number.NEGATIVE_INFINITY, Number.NaN, 0, -0]);
    expect(t.argsort().toArray()).toEqual([4, 6, 7, 2, 0, 3, 1, 5]);
    expect(t.argsort(-1, { descending: true }).toArray()).toEqual([0, 3, 2, 6, 7, 4, 1, 5]);
  });

  it("agrees with a plain sort at odd sizes, along every axis of a view", () => {
    const t = random.generator(3).normal([5, 37, 3]).transpose(0, 1);
    const sorted = t.sort(1).dataSync();
    const data = t.dataSync();
    for (let i = 0; i < 37; i++) {
      for (let k = 0; k < 3; k++) {
        const line = (from: Float32Array): number[] =>
          Array.from({ length: 5 }, (_, j) => from[(i * 5 + j) * 3 + k] ?? 0);
        expect(line(sorted)).toEqual(line(data).sort((a, b) => a - b));
      }
    }
  });

  it("orders integers and bools, and takes their greatest", () => {
    expect(whole([3, -2147483648, 2147483647]).sort().toArray()).toEqual([-2147483648, 3, 2147483647]);
    expect(tensor([true, false, true]).sort().toArray()).toEqual([false, true, true]);
    expect(whole([5, 7, 7]).topK(2).indices.toArray()).toEqual([1, 2]);
    expect(zeros([0, 3]).sort(0).shape).toEqual([0, 3]);
    expect(tensor([1, Number.NaN]).median().item()).toBeNaN();
  });

  it("gives permutations of any size from a seed", () => {
    const n = 5003;
    const order = random.generator(1).permutation(n).dataSync();
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
    expect(random.generator(1).permutation(n).dataSync()).toEqual(order);
  });
});

describe("scans", () => {
  it("keep infinities and NaN where they stand", () => {
    const t = tensor([1, Number.POSITIVE_INFINITY, 2]);
    expect(t.cumsum(0).toArray()).toEqual([1, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
    expect(t.cumsum(0, { reverse: true, exclusive: true }).toArray()).toEqual([Number.POSITIVE_INFINITY, 2, 0]);
    expect(tensor([1, Number.NaN, 5]).cummax(0).values.toArray()).toEqual([1, Number.NaN, Number.NaN]);
  });

  it("work on integers, and name the last of equals", () => {
    expect(whole([1, 2, 3, 4, 5]).cumprod(0).toArray()).toEqual([1, 2, 6, 24, 120]);
    expect(whole([1, 3, 3, 2]).cummax(0).indices.toArray()).toEqual([0, 1, 2, 2]);
    expect(whole([1, 4, 9]).diff().toArray()).toEqual([3, 5]);
  });
});

describe("integers", () => {
  it("divide downwards with the divisor's sign", () => {
    const [x, y] = [whole([7, -7, 7, -7, 6]), whole([3, 3, -3, -3, 3])];
    expect(x.floorDivide(y).toArray()).toEqual([2, -3, -3, 2, 2]);
    expect(x.remainder(y).toArray()).toEqual([1, 2, -2, -1, 0]);
  });
});

describe("kinks", () => {
  it("have the derivatives that the docs name", () => {
    const at = (f: (x: Tensor) => Tensor, x: number): number => grad((t: Tensor) => f(t).sum())(scalar(x)).item();
    expect(at((x) => x.elu(2), 0)).toBe(2);
    expect(at((x) => x.leakyRelu(0.25), 0)).toBe(0.25);
    expect(at((x) => x.hardtanh(), 1)).toBe(0);
    expect(at((x) => x.relu6(), 0)).toBe(0);
    expect(at((x) => x.softShrink(0.5), 0.5)).toBe(0);
    expect(at((x) => x.hypot(0), 0)).toBe(0);
    expect(at((x) => x.atan2(0), 0)).toBe(0);
    expect(at((x) => x.asinh(), 0)).toBe(1);
    expect(grad((x: Tensor) => x.norm())(zeros([3])).toArray()).toEqual([0, 0, 0]);
    expect(grad((x: Tensor) => x.std())(zeros([3])).toArray()).toEqual([0, 0, 0]);
  });

  it("of logaddexp at a tie is smooth to second order", () => {
    const f = (x: Tensor): Tensor => x.logaddexp(1);
    expect(grad(grad(f))(scalar(1)).item()).toBeCloseTo(0.25, 6);
  });
});

describe("extremes", () => {
  it("neither overflow nor lose their sign", () => {
    expect(scalar(1e30).hypot(1e30).item()).toBeCloseTo(1.4142135e30, -24);
    expect(scalar(1e30).asinh().item()).toBeCloseTo(Math.asinh(1e30), 4);
    expect(scalar(1e30).acosh().item()).toBeCloseTo(Math.acosh(1e30), 4);
    expect(scalar(-8).cbrt().item()).toBeCloseTo(-2, 6);
    expect(scalar(5, { dtype: "f64" }).erfc().item() / 1.5374597944280349e-12).toBeCloseTo(1, 12);
    expect(tensor([Number.NaN, Number.POSITIVE_INFINITY]).nanToNum({ positive: 9 }).toArray()).toEqual([0, 9]);
    expect(scalar(Number.POSITIVE_INFINITY).logaddexp(Number.POSITIVE_INFINITY).item()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("linalg", () => {
  it("factors and solves 40 × 40 matrices", () => {
    const x = random.generator(5).normal([40, 40], { dtype: "f64" });
    const a = x.matmul(x.transpose()).add(x.mul(0));
    const l = linalg.cholesky(a);
    expect(l.matmul(l.transpose()).sub(a).abs().max().item()).toBeLessThan(1e-10);
    expect(l.triu(1).abs().max().item()).toBe(0);
    const b = random.generator(6).normal([40, 3], { dtype: "f64" });
    expect(x.matmul(linalg.solve(x, b)).sub(b).abs().max().item()).toBeLessThan(1e-8);
    expect(linalg.inverse(x).matmul(x).diagonal().sub(1).abs().max().item()).toBeLessThan(1e-8);
  });

  it("takes pivots where the diagonal is 0", () => {
    expect(
      linalg
        .det(
          tensor([
            [0, 1],
            [1, 0],
          ]),
        )
        .item(),
    ).toBe(-1);
    expect(
      linalg
        .logdet(
          tensor([
            [0, 1],
            [1, 0],
          ]),
        )
        .item(),
    ).toBeNaN();
  });
});

describe("arrangement", () => {
  it("makes grids, triangles and rings", () => {
    expect(meshgrid([arange(2), arange(3)], { indexing: "xy" }).map((g) => g.shape)).toEqual([
      [3, 2],
      [3, 2],
    ]);
    expect(triangle(2, 3, { offset: 1 }).toArray()).toEqual([
      [true, true, false],
      [true, true, true],
    ]);
    expect(arange(4).roll(-5).toArray()).toEqual([1, 2, 3, 0]);
    expect(arange(6).unflatten(0, [2, -1]).shape).toEqual([2, 3]);
    expect(zeros([0, 4]).roll(1, 0).shape).toEqual([0, 4]);
  });
});

const REFUSALS: readonly (readonly [string, RaphsonErrorCode, () => unknown])[] = [
  ["argsort", "ARGUMENT", () => zeros([2]).argsort(1)],
  ["topK", "ARGUMENT", () => zeros([2]).topK(3)],
  ["quantile", "ARGUMENT", () => zeros([2]).quantile(2)],
  ["quantile", "SHAPE", () => zeros([0]).quantile(0.5)],
  ["einsum", "ARGUMENT", () => einsum("ij->k", zeros([2, 2]))],
  ["einsum", "ARGUMENT", () => einsum("ij", zeros([2]))],
  ["einsum", "ARGUMENT", () => einsum("i,j", zeros([2]))],
  ["einsum", "SHAPE", () => einsum("ij,jk", zeros([2, 3]), zeros([2, 3]))],
  ["cholesky", "SHAPE", () => linalg.cholesky(zeros([2, 3]))],
  ["triangularSolve", "SHAPE", () => linalg.triangularSolve(zeros([2, 2]), zeros([3, 1]))],
  ["glu", "SHAPE", () => zeros([3]).glu()],
  ["pad", "SHAPE", () => zeros([2]).padWith([[2, 0]], "reflect")],
  ["putAlong", "SHAPE", () => zeros([2, 3]).putAlong(whole([0]), 1, 1)],
  ["indexAdd", "SHAPE", () => zeros([3]).indexAdd(whole([0]), zeros([2]))],
  ["index", "DTYPE", () => zeros([3]).index(zeros([1]) as unknown as Tensor<"i32">)],
  ["roll", "ARGUMENT", () => zeros([3]).roll([1, 2])],
  ["diag", "SHAPE", () => zeros([]).diag()],
  ["exp2", "DTYPE", () => (whole([1]) as unknown as Tensor).exp2()],
];

describe("refusals name the op", () => {
  for (const [op, code, f] of REFUSALS) {
    it(`${op}: ${code}`, () => {
      const error = thrown(f);
      expect([error.op, error.code]).toEqual([op, code]);
    });
  }

  it("an index outside its axis is an error on reading", () => {
    expect(
      thrown(() =>
        zeros([3])
          .index(whole([3]))
          .dataSync(),
      ).code,
    ).toBe("INDEX");
    expect(
      thrown(() =>
        zeros([3])
          .putAlong(whole([-4]), 1, 0)
          .dataSync(),
      ).code,
    ).toBe("INDEX");
  });
});
