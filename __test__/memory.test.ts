/**
 * Memory: dispose, using, tidy (also across await), the collector as the backstop.
 */

import { setImmediate } from "node:timers/promises";
import {
  arange,
  compile,
  dispose,
  grad,
  keep,
  nn,
  ones,
  scalar,
  stats,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from "raphson";
import { describe, expect, it } from "vitest";

const live = () => stats().tensors;

describe("dispose", () => {
  it("gives a tensor back, once", () => {
    const before = live();
    const t = zeros([4]);
    expect(live()).toBe(before + 1);
    t.dispose();
    t.dispose();
    expect([live(), t.isDisposed]).toEqual([before, true]);
  });

  it("works with using, on trees, and on clones apart", () => {
    const before = live();
    {
      using t = ones([3]);
      expect(t.sum().item()).toBe(3);
    }
    const tree = { a: ones([1]), list: [ones([2])] };
    dispose(tree, tree);
    const original = tensor([1, 2]);
    const copy = original.clone();
    original.dispose();
    expect(copy.toArray()).toEqual([1, 2]);
    copy.dispose();
    expect(live()).toBeLessThanOrEqual(before + 1); // the sum above has no owner but the collector
  });
});

describe("tidy", () => {
  it("frees all but what is returned", () => {
    const before = live();
    const { kept } = tidy(() => {
      const a = arange(10);
      return { kept: a.mul(2).sum() };
    });
    expect(live()).toBe(before + 1);
    expect(kept.item()).toBe(90);
    kept.dispose();
  });

  it("nests: survivors belong to the scope around", () => {
    const before = live();
    let inner: Tensor | undefined;
    tidy(() => {
      inner = tidy(() => ones([2]).add(1));
      expect(inner.toArray()).toEqual([2, 2]);
    });
    expect(inner?.isDisposed).toBe(true);
    expect(live()).toBe(before);
  });

  it("follows await, with other work in between", async () => {
    const before = live();
    const run = async (value: number) => {
      const t = scalar(value).add(1);
      await setImmediate();
      const u = t.mul(2);
      await u.data();
      return u.add(1);
    };
    const both = Promise.all([tidy(() => run(1)), tidy(() => run(2))]);
    const outside = scalar(0);
    const [a, b] = await both;
    expect([a.item(), b.item(), outside.item()]).toEqual([5, 7, 0]);
    dispose(a, b, outside);
    expect(live()).toBe(before);
  });

  it("frees everything when the function throws or rejects", async () => {
    const before = live();
    expect(() =>
      tidy(() => {
        ones([2]).add(1);
        throw new Error("mine");
      }),
    ).toThrow("mine");
    await expect(
      tidy(async () => {
        ones([2]);
        await setImmediate();
        throw new Error("later");
      }),
    ).rejects.toThrow("later");
    expect(live()).toBe(before);
  });

  it("lets keep() take tensors out", () => {
    let cache: Tensor | undefined;
    tidy(() => {
      cache = keep(ones([2]));
    });
    expect(cache?.toArray()).toEqual([1, 1]);
    cache?.dispose();
  });

  it("does not take parameters that are made inside", () => {
    const model = nn.linear(2, 2);
    tidy(() => model(ones([1, 2])).toArray());
    expect(model.weight.current?.isDisposed).toBe(false);
    model.dispose();
  });
});

describe("transforms", () => {
  it("leave nothing behind but what they return", () => {
    const x = tensor([1, 2, 3]);
    const before = live();
    const g = grad((t: Tensor) => t.sin().mul(t.exp()).sum())(x);
    expect(live()).toBe(before + 1);
    dispose(g, x);
  });

  it("compile keeps nothing of a trace but the program", () => {
    const x = ones([3]);
    const before = live();
    const f = compile((t: Tensor) => ({ y: t.mul(2), z: [t.add(1)] }));
    dispose(f(x));
    expect(live()).toBe(before);
    f.dispose();
    x.dispose();
  });

  it("do not dispose of tensors that the function hands back", () => {
    const captured = scalar(2);
    const g = grad((_: Tensor) => captured)(scalar(1));
    expect([g.item(), captured.item()]).toEqual([0, 2]);
  });

  it("compile holds memory steady over many steps", () => {
    const step = compile((w: Tensor) => w.sub(w.mul(0.1)), { donate: [0] });
    let w = ones([1000]);
    w = step(w);
    w.dataSync();
    const before = stats();
    for (let i = 0; i < 1000; i++) w = step(w);
    w.dataSync();
    const after = stats();
    expect(after.tensors).toBe(before.tensors);
    // each step makes 4,000 bytes: a leak would be 4 MB, work that is still being put away a few steps' worth
    expect(after.liveBytes).toBeLessThanOrEqual(before.liveBytes + 100_000);
    dispose(w);
    step.dispose();
  });
});

describe("the collector", () => {
  it("frees what nobody holds", async () => {
    const before = live();
    for (let i = 0; i < 500; i++) ones([10]).add(i);
    for (let i = 0; i < 50 && live() > before + 50; i++) {
      globalThis.gc?.();
      await setImmediate();
    }
    expect(live()).toBeLessThanOrEqual(before + 50);
  });
});
