/**
 * Doors: what TypeScript would refuse and JavaScript lets through. Names of options that nothing reads, operands that are no
 * tensors, and functions that are none are refused by name at the call, with no word of what lies behind it.
 */

import * as raphson from "raphson";
import { describe, expect, it } from "vitest";
import { thrown } from "./thrown";

// biome-ignore lint/suspicious/noExplicitAny: what is tested is what types forbid
const untyped: any = raphson;
const {
  arange,
  compile,
  data,
  linalg,
  loss,
  metrics,
  newton,
  nn,
  ones,
  optim,
  random,
  schedule,
  tensor,
  train,
  trainingStep,
} = untyped;

const square = () =>
  tensor([
    [1, 2],
    [3, 4],
  ]);
const image = () => ones([1, 1, 4, 4]);
const dataset = () => data.arrays({ x: { data: new Float32Array(4), shape: [4, 1] } });
const model = () => nn.linear(1, 1);
const step = { model: model(), loss: () => ones([]), optimizer: newton(optim.sgd()) };

type Call = (options: unknown) => unknown;
const OPTIONS: readonly [op: string, call: Call, anOption: string][] = [
  ["tensor", (o) => tensor([1], o), "dtype"],
  ["full", (o) => untyped.full([2], 1, o), "dtype"],
  ["zeros", (o) => untyped.zeros([2], o), "dtype"],
  ["ones", (o) => ones([2], o), "dtype"],
  ["scalar", (o) => untyped.scalar(2, o), "dtype"],
  ["arange", (o) => arange(0, 3, 1, o), "dtype"],
  ["linspace", (o) => untyped.linspace(0, 1, 3, o), "dtype"],
  ["eye", (o) => untyped.eye(2, 2, o), "dtype"],
  ["sum", (o) => square().sum(0, o), "keepDims"],
  ["max", (o) => square().max(0, o), "keepDims"],
  ["mean", (o) => square().mean(0, o), "keepDims"],
  ["variance", (o) => square().variance(0, o), "correction"],
  ["logsumexp", (o) => square().logsumexp(0, o), "keepDims"],
  ["norm", (o) => square().norm(0, o), "p"],
  ["meshgrid", (o) => untyped.meshgrid([arange(2)], o), "indexing"],
  ["conv2d", (o) => untyped.conv2d(image(), ones([1, 1, 2, 2]), o), "stride"],
  ["convTranspose2d", (o) => untyped.convTranspose2d(image(), ones([1, 1, 2, 2]), o), "outputPadding"],
  ["maxPool2d", (o) => untyped.maxPool2d(image(), 2, o), "stride"],
  ["avgPool2d", (o) => untyped.avgPool2d(image(), 2, o), "countIncludePad"],
  ["uniform", (o) => random.generator(1).uniform([2], o), "low"],
  ["normal", (o) => random.generator(1).normal([2], o), "mean"],
  ["mse", (o) => loss.mse(square(), square(), o), "reduction"],
  ["l1", (o) => loss.l1(square(), square(), o), "mask"],
  ["huber", (o) => loss.huber(square(), square(), o), "delta"],
  ["smoothL1", (o) => loss.smoothL1(square(), square(), o), "beta"],
  ["poissonNll", (o) => loss.poissonNll(square(), square(), o), "logInput"],
  ["crossEntropy", (o) => loss.crossEntropy(square(), [0, 1], o), "labelSmoothing"],
  ["nll", (o) => loss.nll(square(), [0, 1], o), "ignore"],
  ["bce", (o) => loss.bce(square(), square(), o), "logits"],
  ["bceWithLogits", (o) => loss.bceWithLogits(square(), square(), o), "positiveWeight"],
  ["kl", (o) => loss.kl(square(), square(), o), "logTarget"],
  ["hinge", (o) => loss.hinge(square(), square(), o), "margin"],
  ["cosineEmbedding", (o) => loss.cosineEmbedding(square(), square(), [1, 1], o), "margin"],
  ["tripletMargin", (o) => loss.tripletMargin(square(), square(), square(), o), "swap"],
  ["nn.linear", (o) => nn.linear(2, 2, o), "bias"],
  ["nn.conv1d", (o) => nn.conv1d(1, 1, 2, o), "padding"],
  ["nn.convTranspose2d", (o) => nn.convTranspose2d(1, 1, 2, o), "outputPadding"],
  ["nn.layerNorm", (o) => nn.layerNorm(2, o), "epsilon"],
  ["nn.rmsNorm", (o) => nn.rmsNorm(2, o), "affine"],
  ["nn.groupNorm", (o) => nn.groupNorm(1, 2, o), "affine"],
  ["nn.batchNorm1d", (o) => nn.batchNorm1d(2, o), "momentum"],
  ["nn.lstm", (o) => nn.lstm(2, 2, o), "layers"],
  ["batches", (o) => dataset().batches(2, o), "shuffle"],
  ["split", (o) => dataset().split(0.5, o), "seed"],
  ["grad", (o) => untyped.grad(() => ones([]), o), "argument"],
  ["valueAndGrad", (o) => untyped.valueAndGrad(() => ones([]), o), "aux"],
  ["compile", (o) => compile(() => ones([]), o), "cacheSize"],
  ["newton", (o) => newton(optim.sgd(), o), "gamma"],
  ["earlyStopping", (o) => untyped.earlyStopping(o), "patience"],
  ["metrics.f1", (o) => metrics.f1(o), "average"],
  ["metrics.perplexity", (o) => metrics.perplexity(o), "of"],
];

describe("options", () => {
  it.each(OPTIONS)("of %s have known names", (op, call, anOption) => {
    const error = thrown(() => call({ bogus: 1 }));
    expect([error.code, error.op]).toEqual(["ARGUMENT", op]);
    expect(error.message).toContain("there is no option bogus");
    expect(error.message).toContain(anOption);
    for (const odd of [null, 3, "x", []]) expect(thrown(() => call(odd)).code).toBe("ARGUMENT");
    expect(() => call(undefined)).not.toThrow();
  });

  it("of a step and a run have known names", async () => {
    expect(thrown(() => trainingStep({ ...step, acumulate: 2 })).message).toContain("no option acumulate");
    expect(thrown(() => trainingStep()).code).toBe("ARGUMENT");
    await expect(train()).rejects.toMatchObject({ code: "ARGUMENT", op: "train" });
    const run = train({ ...step, data: dataset().batches(2), epoch: 1, epochs: 1 });
    await expect(run).rejects.toMatchObject({ code: "ARGUMENT", op: "train" });
  });

  it("of a layer reach the op behind it", () => {
    const layer = nn.conv2d(1, 2, 3, { stride: 2, padding: 1, bias: false });
    expect(layer.bias).toBeUndefined();
    expect(layer.weight.shape).toEqual([2, 1, 3, 3]);
  });
});

const OPERANDS: readonly [op: string, call: Call][] = [
  ["matmul", (x) => square().matmul(x)],
  ["outer", (x) => arange(2).outer(x)],
  ["kron", (x) => untyped.kron(square(), x)],
  ["tensordot", (x) => untyped.tensordot(square(), x, 1)],
  ["concatenate", (x) => untyped.concatenate([square(), x])],
  ["stack", (x) => untyped.stack([square(), x])],
  ["broadcast", (x) => untyped.broadcast([square(), x])],
  ["meshgrid", (x) => untyped.meshgrid([x])],
  ["conv1d", (x) => untyped.conv1d(ones([1, 1, 4]), x)],
  ["conv2d", (x) => untyped.conv2d(x, ones([1, 1, 2, 2]))],
  ["maxPool2d", (x) => untyped.maxPool2d(x, 2)],
  ["avgPool1d", (x) => untyped.avgPool1d(x, 2)],
  ["adaptiveAvgPool2d", (x) => untyped.adaptiveAvgPool2d(x, 2)],
  ["adaptiveMaxPool2d", (x) => untyped.adaptiveMaxPool2d(x, 2)],
  ["mse", (x) => loss.mse(x, square())],
  ["crossEntropy", (x) => loss.crossEntropy(x, [0])],
];

describe("operands", () => {
  it.each(OPERANDS)("of %s are tensors", (op, call) => {
    for (const odd of [undefined, null, 3, "x", {}, [1]]) {
      const error = thrown(() => call(odd));
      expect([error.code, error.op]).toEqual(["ARGUMENT", op]);
    }
  });

  it("of lists are in arrays", () => {
    for (const op of ["concatenate", "stack", "broadcast", "meshgrid"]) {
      for (const odd of [undefined, null, 3])
        expect(thrown(() => untyped[op](odd))).toMatchObject({ code: "ARGUMENT", op });
    }
  });

  it("of a product are named with the product", () => {
    const error = thrown(() => ones([8, 4]).matmul(ones([5, 2])));
    expect([error.code, error.op, error.shapes]).toEqual([
      "SHAPE",
      "matmul",
      [
        [8, 4],
        [5, 2],
      ],
    ]);
  });

  it("of a constant are numbers", () => {
    for (const odd of [undefined, null, "1", {}]) {
      expect(thrown(() => untyped.full([2], odd))).toMatchObject({ code: "ARGUMENT", op: "full" });
      expect(thrown(() => untyped.scalar(odd))).toMatchObject({ code: "ARGUMENT", op: "scalar" });
    }
  });
});

/** Calls with what is no such thing, and the op that says so. */
const ODD: readonly [op: string, call: Call][] = [
  ["optim.sgd", (x) => optim.sgd(x)],
  ["optim.adam", (x) => optim.adam(x)],
  ["schedule.cosine", (x) => schedule.cosine(x)],
  ["schedule.step", (x) => schedule.step(x)],
  ["schedule.warmUp", (x) => schedule.warmUp(x)],
  ["schedule.oneCycle", (x) => schedule.oneCycle(x)],
  ["schedule.exponential", (x) => schedule.exponential(x)],
  ["schedule.linear", (x) => schedule.linear(x)],
  ["schedule.polynomial", (x) => schedule.polynomial(x)],
  ["schedule.sequential", (x) => schedule.sequential(x)],
  ["newton", (x) => newton(x)],
  ["trainingStep", (x) => trainingStep({ ...step, optimizer: x })],
  ["metrics.accuracy", (x) => metrics.accuracy(x)],
  ["cholesky", (x) => linalg.cholesky(x)],
  ["det", (x) => linalg.det(x)],
  ["slogdet", (x) => linalg.slogdet(x)],
  ["solve", (x) => linalg.solve(square(), x)],
  ["mse", (x) => loss.mse(square(), x)],
  ["bce", (x) => loss.bce(square(), x)],
  ["kl", (x) => loss.kl(square(), x)],
  ["hinge", (x) => loss.hinge(square(), x)],
  ["poissonNll", (x) => loss.poissonNll(square(), x)],
  ["tripletMargin", (x) => loss.tripletMargin(square(), square(), x)],
  ["nn.rotary", (x) => nn.rotary(x)],
  ["pad", (x) => square().pad(x)],
  ["data.arrays", (x) => data.arrays(x)],
  ["data.from", (x) => data.from(x)],
];

describe("arguments", () => {
  it.each(ODD)("of %s are what it takes", (op, call) => {
    for (const odd of op.startsWith("optim.") ? [null, 0.1] : [undefined, null, 0.1]) {
      expect(thrown(() => call(odd))).toMatchObject({ code: "ARGUMENT", op });
    }
  });

  it("of a learning rate point to the option", () => {
    expect(thrown(() => optim.sgd(0.1)).message).toContain("{ learningRate: … }, got 0.1");
    expect(thrown(() => schedule.cosine({ step: 3 })).message).toContain("there is no option step");
    expect(thrown(() => square().split(undefined)).message).toContain("a number of parts or an array of sizes");
  });

  it("of readers and runs are refused in their promises", async () => {
    const calls = [data.idx(), data.text(), data.text("abc"), data.text(null, {}), train({ ...step, optimizer: 3 })];
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: "ARGUMENT" });
  });
});

describe("functions", () => {
  const FUNCTIONS = ["grad", "valueAndGrad", "vjp", "jvp", "hvp", "compile", "tidy", "untracked"];
  it.each(FUNCTIONS)("of %s are functions", (op) => {
    for (const odd of [undefined, null, 3, {}])
      expect(thrown(() => untyped[op](odd))).toMatchObject({ code: "ARGUMENT", op });
  });

  it("of layers are functions and modules", () => {
    expect(thrown(() => nn.lambda())).toMatchObject({ code: "ARGUMENT", op: "nn.lambda" });
    expect(thrown(() => nn.residual())).toMatchObject({ code: "ARGUMENT", op: "nn.residual" });
    expect(thrown(() => nn.sequential(nn.relu(), null)).message).toContain("layer 1 is no module");
  });
});

describe("JSON", () => {
  it("has the elements of a tensor", () => {
    expect(JSON.stringify({ x: square(), n: tensor(new BigInt64Array([5n])) })).toBe('{"x":[[1,2],[3,4]],"n":["5"]}');
  });
});
