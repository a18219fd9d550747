/**
 * Metrics over several batches, against counts of the host.
 */

import { data, loss, metrics, newton, nn, optim, RaphsonError, type Tensor, tensor, train } from "raphson";
import { describe, expect, it } from "vitest";

/** A model that answers with its input: what it predicts is known. */
const echo = () => nn.sequential(nn.linear(3, 3, { bias: false, weight: (_shape) => unit().clone() }));
const unit = () =>
  tensor([
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ]);

const LABELS = [0, 0, 1, 1, 1, 2, 0];
const PREDICTED = [0, 1, 1, 1, 0, 1, 0];
const logits = Float32Array.from(PREDICTED.flatMap((p) => [0, 1, 2].map((c) => (c === p ? 3 : c === 2 ? 1 : 0))));
const examples = () =>
  data.arrays({ x: { data: logits, shape: [7, 3] }, labels: { data: Int32Array.from(LABELS), shape: [7] } });

/** One step that changes nothing to speak of, then the evaluation over batches of 3, 3 and 1. */
async function evaluated(
  wanted: Parameters<typeof train<ReturnType<typeof echo>, { x: Tensor; labels: Tensor<"i32"> }>>[0]["evaluate"],
) {
  const run = await train({
    model: echo(),
    loss: ({ x, labels }, model) => loss.crossEntropy(model(x), labels),
    optimizer: optim.sgd({ learningRate: 1e-9 }),
    data: examples().batches(7),
    steps: 1,
    evaluate: { data: examples().batches(3), metrics: wanted?.metrics ?? {} },
  });
  return run.evaluations.at(-1)?.metrics ?? {};
}

describe("metrics of classes", () => {
  /** Per class: 2·found / (labels + predictions), and the like. */
  const count = (of: (label: number, predicted: number) => boolean) =>
    LABELS.filter((label, i) => of(label, PREDICTED[i] ?? -1)).length;
  const perClass = [0, 1, 2].map((c) => {
    const found = count((l, p) => l === c && p === c);
    const [labels, predictions] = [count((l) => l === c), count((_, p) => p === c)];
    const over = (n: number) => (n === 0 ? 0 : found / n);
    return { precision: over(predictions), recall: over(labels), f1: (2 * found) / (labels + predictions) };
  });
  const mean = (key: "precision" | "recall" | "f1") => perClass.reduce((sum, c) => sum + c[key], 0) / 3;

  it("add up over batches of different sizes", async () => {
    const found = await evaluated({
      data: examples().batches(3),
      metrics: {
        accuracy: metrics.accuracy,
        top1: metrics.topKAccuracy(1),
        top2: metrics.topKAccuracy(2),
        top9: metrics.topKAccuracy(9),
        precision: metrics.precision(),
        recall: metrics.recall({ average: "macro" }),
        f1: metrics.f1(),
        microF1: metrics.f1({ average: "micro" }),
        perplexity: metrics.perplexity({ of: ({ x, labels }, model) => ({ prediction: model(x), wanted: labels }) }),
      },
    });
    const accuracy = count((l, p) => l === p) / 7;
    expect(found.accuracy).toBeCloseTo(accuracy, 6);
    expect(found.top1).toBeCloseTo(accuracy, 6);
    // the second largest logit is class 2's
    expect(found.top2).toBeCloseTo(count((l, p) => l === p || l === 2) / 7, 6);
    expect(found.top9).toBe(1);
    expect(found.precision).toBeCloseTo(mean("precision"), 6);
    expect(found.recall).toBeCloseTo(mean("recall"), 6);
    expect(found.f1).toBeCloseTo(mean("f1"), 6);
    expect(found.microF1).toBeCloseTo(accuracy, 6);
    const rows = tensor(logits, { shape: [7, 3] });
    expect(found.perplexity).toBeCloseTo(Math.exp(loss.crossEntropy(rows, LABELS).item()), 3);
  });

  it("confusionMatrix counts labels by predictions, and refuses labels outside the classes", () => {
    const rows = tensor(logits, { shape: [7, 3] });
    const matrix = metrics.confusionMatrix(rows, tensor(LABELS, { dtype: "i32" }));
    expect(matrix.toArray()).toEqual([0, 1, 2].map((l) => [0, 1, 2].map((p) => count((a, b) => a === l && b === p))));
    for (const wrong of [3, -1]) {
      const labels = tensor(LABELS.with(0, wrong), { dtype: "i32" });
      expect(() => metrics.confusionMatrix(rows, labels).toArray()).toThrow(RaphsonError);
    }
  });

  it("say what they cannot use", async () => {
    expect(() => metrics.topKAccuracy(0)).toThrow(/whole number/);
    expect(() => metrics.f1({ average: "weighted" as never })).toThrow(/macro/);
    const odd = { nothing: { count: 1 } as never };
    await expect(evaluated({ data: examples().batches(3), metrics: odd })).rejects.toThrow(/nothing/);
  });
});

describe("metrics of numbers", () => {
  it("are roots of means, not means of roots", async () => {
    const x = Float32Array.from([1, 2, 3, 4, 5]);
    const targets = Float32Array.from([2, 2, 3, 4, 9]);
    const points = data.arrays({ x: { data: x, shape: [5, 1] }, targets: { data: targets, shape: [5, 1] } });
    const run = await train({
      model: nn.linear(1, 1, { bias: false, weight: "ones" }),
      loss: ({ x, targets }, model) => loss.mse(model(x), targets),
      optimizer: newton(optim.sgd(), { rule: "constant", initial: 1e-9 }),
      data: points.batches(5),
      steps: 1,
      evaluate: {
        data: points.batches(2),
        metrics: {
          mae: metrics.meanAbsoluteError(),
          mse: metrics.meanSquaredError(),
          rmse: metrics.rootMeanSquaredError(),
        },
      },
    });
    const found = run.evaluations.at(-1)?.metrics ?? {};
    expect(found.mae).toBeCloseTo(1, 5);
    expect(found.mse).toBeCloseTo(17 / 5, 5);
    expect(found.rmse).toBeCloseTo(Math.sqrt(17 / 5), 5);
  });
});
