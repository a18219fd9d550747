/**
 * Losses against formulas, and their refusals.
 */

import { grad, loss, RaphsonError, type Tensor, tensor } from "raphson";
import { describe, expect, it } from "vitest";

const logits = tensor([
  [2, 1, 0],
  [0, 0, 3],
]);

/** −log softmax(row)[label] on the host. */
function reference(row: readonly number[], label: number): number {
  const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
  return Math.log(total) - (row[label] ?? Number.NaN);
}

describe("crossEntropy", () => {
  const each = [reference([2, 1, 0], 0), reference([0, 0, 3], 2)] as const;

  it("is the mean of −log p", () => {
    expect(loss.crossEntropy(logits, [0, 2]).item()).toBeCloseTo((each[0] + each[1]) / 2, 5);
    expect(loss.crossEntropy(logits, tensor([0, 2], { dtype: "i32" }), { reduction: "sum" }).item()).toBeCloseTo(
      each[0] + each[1],
      5,
    );
    expect(loss.crossEntropy(logits, new Int32Array([0, 2]), { reduction: "none" }).shape).toEqual([2]);
  });

  it("takes probabilities", () => {
    const oneHot = tensor([
      [1, 0, 0],
      [0, 0, 1],
    ]);
    expect(loss.crossEntropy(logits, oneHot).item()).toBeCloseTo((each[0] + each[1]) / 2, 5);
  });

  it("smooths: integers and the smoothed probabilities give the same", () => {
    const s = 0.1;
    const smoothed = tensor([
      [1, 0, 0],
      [0, 0, 1],
    ])
      .mul(1 - s)
      .add(s / 3);
    const a = loss.crossEntropy(logits, [0, 2], { labelSmoothing: s }).item();
    expect(a).toBeCloseTo(loss.crossEntropy(logits, smoothed).item(), 5);
  });

  it("leaves out what is ignored or masked, in sum and in mean", () => {
    expect(loss.crossEntropy(logits, [0, -100], { ignore: -100 }).item()).toBeCloseTo(each[0], 5);
    expect(loss.crossEntropy(logits, [0, 2], { mask: tensor([false, true]) }).item()).toBeCloseTo(each[1], 5);
    expect(loss.crossEntropy(logits, [-1, -1], { ignore: -1 }).item()).toBe(0);
  });

  it("has the gradient (p − onehot)/n", () => {
    const g = grad((x: Tensor) => loss.crossEntropy(x, [0, 2]))(logits);
    const p = logits.softmax();
    const expected = p
      .sub(
        tensor([
          [1, 0, 0],
          [0, 0, 1],
        ]),
      )
      .div(2);
    expect(g.sub(expected).abs().max().item()).toBeLessThan(1e-6);
  });

  it("refuses labels outside the classes", () => {
    expect(() => loss.crossEntropy(logits, [0, 3])).toThrow(/label 3 at position 1/);
    expect(() => loss.crossEntropy(logits, [0, 0.5])).toThrow(RaphsonError);
    const bad = (label: number) => {
      try {
        loss.crossEntropy(logits, tensor([0, label], { dtype: "i32" })).item();
      } catch (error) {
        return error instanceof RaphsonError ? error.code : error;
      }
      return "nothing thrown";
    };
    expect(bad(3)).toBe("INDEX");
    expect(bad(-1)).toBe("INDEX");
    expect(() => loss.crossEntropy(logits, [0])).toThrow(/without its last axis/);
  });

  it("works on more axes", () => {
    const stacked = logits.unsqueeze(0);
    expect(loss.crossEntropy(stacked, tensor([[0, 2]], { dtype: "i32" })).item()).toBeCloseTo(
      (each[0] + each[1]) / 2,
      5,
    );
  });
});

describe("mse and bce", () => {
  it("follow their formulas", () => {
    expect(loss.mse(tensor([1, 2]), tensor([3, 2])).item()).toBe(2);
    const p = tensor([0.9, 0.2]);
    const t = tensor([1, 0]);
    const exact = -(Math.log(0.9) + Math.log(0.8)) / 2;
    expect(loss.bce(p, t).item()).toBeCloseTo(exact, 5);
    expect(loss.bce(p.div(p.neg().add(1)).log(), t, { logits: true }).item()).toBeCloseTo(exact, 5);
    expect(loss.bce(tensor([0, 1]), tensor([true, false])).item()).toBe(100);
    expect(loss.bce(tensor([-1000, 1000]), t.flip(), { logits: true }).item()).toBeCloseTo(0, 5);
  });

  it("refuse shapes that would broadcast", () => {
    expect(() => loss.mse(tensor([1, 2]), tensor([[1], [2]]))).toThrow(/must not broadcast/);
  });
});

describe("the other losses", () => {
  const x = tensor([0, 1, 3]);
  const y = tensor([0, 2, 0]);
  const mask = tensor([true, true, false]);

  it("count only what the mask leaves, and mean over it", () => {
    for (const of of [loss.mse, loss.l1, loss.huber, loss.smoothL1, loss.poissonNll, loss.hinge]) {
      const each = of(x, y, { reduction: "none" });
      const [a, b] = each.dataSync();
      expect(of(x, y, { mask }).item(), of.name).toBeCloseTo(((a ?? 0) + (b ?? 0)) / 2, 6);
      expect(of(x, y, { mask, reduction: "none" }).at(2).item()).toBe(0);
      expect(() => of(x, y, { mask: mask.slice(0, 2) })).toThrow(/mask/);
      expect(() => of(x, y.unsqueeze(0))).toThrow(RaphsonError);
      expect(() => of(x, y, { reduction: "all" as never })).toThrow(/"mean", "sum" or "none"/);
    }
  });

  it("nll of logSoftmax is crossEntropy", () => {
    const weights = { classWeights: tensor([1, 2, 3]), ignore: 9 };
    expect(loss.nll(logits.logSoftmax(), [0, 2], weights).item()).toBeCloseTo(
      loss.crossEntropy(logits, [0, 2], weights).item(),
      6,
    );
    expect(() => loss.nll(logits, [0, 3])).toThrow(/label 3 at position 1/);
    expect(() => loss.crossEntropy(logits, [0, 2], { classWeights: tensor([1, 2]) })).toThrow(/classWeights/);
    expect(loss.crossEntropy(logits, [9, 9], weights).item()).toBe(0);
  });

  it("kl is 0 for equal distributions, and 0 log 0 is 0", () => {
    const t = tensor([[0, 0.5, 0.5]]);
    expect(loss.kl(logits.logSoftmax(), logits.softmax()).item()).toBeCloseTo(0, 6);
    expect(loss.kl(tensor([[-9, Math.log(0.5), Math.log(0.5)]]), t).item()).toBeCloseTo(0, 6);
    const g = grad((target: Tensor) => loss.kl(logits.slice(0, 1), target))(t);
    expect([...g.dataSync()].every(Number.isFinite)).toBe(true);
  });

  it("cosineEmbedding and tripletMargin know near from far", () => {
    const [a, b] = [tensor([[1, 0]]), tensor([[0, 1]])];
    expect(loss.cosineEmbedding(a, a, [1]).item()).toBeCloseTo(0, 5);
    expect(loss.cosineEmbedding(a, b, [1]).item()).toBeCloseTo(1, 5);
    expect(loss.cosineEmbedding(a, b, [-1]).item()).toBeCloseTo(0, 5);
    expect(() => loss.cosineEmbedding(a, b, [0])).toThrow(/neither 1 nor −1/);
    expect(() => loss.cosineEmbedding(a, b, [1], { margin: 2 })).toThrow(RaphsonError);
    expect(loss.tripletMargin(a, a, b).item()).toBeCloseTo(0, 5);
    expect(loss.tripletMargin(a, b, a).item()).toBeCloseTo(1 + Math.SQRT2, 4);
  });

  it("refuse bad bends", () => {
    expect(() => loss.huber(x, y, { delta: 0 })).toThrow(/delta/);
    expect(() => loss.smoothL1(x, y, { beta: -1 })).toThrow(/beta/);
  });
});
