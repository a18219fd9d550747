/**
 * Layers: what parity with PyTorch does not see. States through training steps, files and compiled functions; sharing;
 * initialisers; masks; chains of recurrent states; refusals. Values and derivatives stand in `parity/layers.json`.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  compile,
  grad,
  hvp,
  newton,
  nn,
  ones,
  optim,
  RaphsonError,
  random,
  type Tensor,
  tensor,
  trainingStep,
  zeros,
} from "raphson";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-layers-"));
});
afterAll(() => rm(folder, { recursive: true }));

const numbers = (t: Tensor): number[] => [...t.dataSync()];
const distance = (a: Tensor, b: Tensor): number => a.sub(b).abs().max().item();

describe("running statistics", () => {
  const x = tensor([
    [0, 10],
    [2, 30],
    [4, 50],
  ]);
  /** (1 − m) · before + m · batch, by the host: means 2 and 30, unbiased variances 4 and 400. */
  const moved = (m: number, times: number) => {
    const keep = (1 - m) ** times;
    return { mean: [2 * (1 - keep), 30 * (1 - keep)], variance: [keep + 4 * (1 - keep), keep + 400 * (1 - keep)] };
  };
  const expectMoved = (layer: nn.BatchNorm, times: number) => {
    const { mean, variance } = moved(0.1, times);
    for (const i of [0, 1]) {
      expect(layer.runningMean.value.at(i).item()).toBeCloseTo(mean[i] ?? Number.NaN, 4);
      expect(layer.runningVariance.value.at(i).item()).toBeCloseTo(variance[i] ?? Number.NaN, 3);
    }
  };
  const lossOf = ({ x }: { x: Tensor }, model: nn.BatchNorm) => model(x).sub(1).square().mean();

  it("move in training only", () => {
    const layer = nn.batchNorm1d(2);
    layer(x);
    expectMoved(layer, 0);
    nn.apply(layer, {}, { training: true }, () => layer(x));
    nn.apply(layer, {}, { training: true }, () => layer(x));
    expectMoved(layer, 2);
    const expected = x.sub(layer.runningMean.value).div(layer.runningVariance.value.add(1e-5).sqrt());
    expect(distance(layer(x), expected)).toBeLessThan(1e-5);
  });

  it("move once for each layer call, also when one layer stands twice", () => {
    const layer = nn.batchNorm1d(2, { affine: false });
    const model = nn.sequential(
      layer,
      nn.lambda(() => x),
      layer,
    );
    expect(model.namedStates().map(([name]) => name)).toEqual(["0.runningMean", "0.runningVariance"]);
    nn.apply(model, {}, { training: true }, () => model(x));
    expectMoved(layer, 2);
  });

  it("are handed over by onStates and stay out of the stored ones, inside grad too", () => {
    const layer = nn.batchNorm1d(2);
    let states: nn.Parameters = {};
    const options = {
      training: true,
      onStates: (after: nn.Parameters) => {
        states = after;
      },
    };
    nn.apply(layer, {}, options, () => layer(x));
    expect(numbers(states.runningMean as Tensor)[0]).toBeCloseTo(0.2, 5);
    expectMoved(layer, 0);
    grad((model: nn.BatchNorm) => nn.apply(model, {}, { training: true }, () => model(x).sum()))(layer);
    expectMoved(layer, 0);
    expect(numbers(nn.apply(layer, states, {}, () => layer(x))).every(Number.isFinite)).toBe(true);
  });

  it("move once in a training step, however often the rule evaluates the loss", async () => {
    for (const rule of ["next", "exact", "alt2"] as const) {
      const layer = nn.batchNorm1d(2);
      // far too large a start: the probe has to shrink it
      using step = trainingStep({ model: layer, loss: lossOf, optimizer: newton(optim.sgd(), { rule, initial: 50 }) });
      let accepted = 0;
      for (let k = 0; k < 4; k++) {
        accepted += Number((await step.step({ x })).accepted);
        expectMoved(layer, accepted);
      }
      expect(accepted, rule).toBeGreaterThan(0);
    }
  });

  it("stay where they are when a step is taken back", async () => {
    const layer = nn.batchNorm1d(2);
    using step = trainingStep({ model: layer, loss: lossOf, optimizer: newton(optim.sgd()) });
    await step.step({ x });
    const report = await step.step({ x: x.mul(Number.NaN) });
    expect(report.accepted).toBe(false);
    expectMoved(layer, 1);
    await step.step({ x });
    expectMoved(layer, 2);
  });

  it("move with every micro-batch, and go back with all of them", async () => {
    const layer = nn.batchNorm1d(2);
    using step = trainingStep({ model: layer, loss: lossOf, optimizer: newton(optim.sgd()), accumulate: 2 });
    await step.run({ x });
    await step.run({ x });
    await step.drain();
    expectMoved(layer, 2);
    await step.run({ x });
    await step.run({ x: x.mul(Number.NaN) });
    await step.drain();
    expectMoved(layer, 2);
  });

  it("are read anew by a compiled function", () => {
    const layer = nn.batchNorm1d(2);
    using run = compile((model: nn.BatchNorm, input: Tensor) => model(input));
    expect(distance(run(layer, x), layer(x))).toBeLessThan(1e-6);
    nn.apply(layer, {}, { training: true }, () => layer(x));
    expect(distance(run(layer, x), layer(x))).toBeLessThan(1e-6);
    expect(run.traces).toBe(1);
  });

  it("are saved and loaded, and begin anew with initialize", async () => {
    const path = join(folder, "norm.safetensors");
    const make = () => nn.sequential(nn.linear(2, 2), nn.batchNorm1d(2));
    const saved = make().initialize(1);
    nn.apply(saved, {}, { training: true }, () => saved(x));
    await saved.save(path);
    const loaded = make();
    await loaded.load(path);
    expect(numbers(loaded(x))).toEqual(numbers(saved(x)));
    expect(loaded.parameterCount).toBe(6 + 4);
    loaded.initialize(1);
    expect(numbers(loaded.states()["1.runningMean"] as Tensor)).toEqual([0, 0]);
  });

  it("refuse what they cannot use", () => {
    const layer = nn.batchNorm1d(2);
    expect(() => layer(ones([3, 4]))).toThrow(/must be \[batch, 2\]/);
    expect(() => nn.batchNorm2d(2)(ones([3, 2]))).toThrow(/height/);
    expect(() => nn.apply(layer, {}, { training: true }, () => layer(ones([1, 2])))).toThrow(/at least two values/);
    expect(() => nn.batchNorm1d(2, { momentum: 2 })).toThrow(RaphsonError);
    expect(() => layer.runningMean.set(ones([3]))).toThrow(/shapes must be equal/);
  });
});

describe("sharing", () => {
  it("counts a shared parameter once, and trains it", async () => {
    const table = nn.embedding(5, 3);
    const choice = nn.linear(3, 5, { bias: false, weight: table.table });
    const model = nn.sequential(table, choice);
    expect(model.namedParameters().map(([name]) => name)).toEqual(["0.table"]);
    expect(() => nn.linear(4, 5, { weight: table.table })).toThrow(/shapes must be equal/);
    const before = numbers(table.table.value);
    const tree = { table, choice }; // two modules of one tree: still one parameter
    using step = trainingStep({
      model: tree,
      loss: ({ i }: { i: Tensor<"i32"> }, { table, choice }) => choice(table(i)).square().mean(),
      optimizer: newton(optim.sgd()),
    });
    for (let k = 0; k < 3; k++) await step.step({ i: tensor([0, 1, 2, 3, 4], { dtype: "i32" }) });
    expect(numbers(table.table.value)).not.toEqual(before);
    expect(numbers(choice.weight.value)).toEqual(numbers(table.table.value));
  });

  it("adds the gradients of both uses", () => {
    const layer = nn.linear(1, 1, { bias: false, weight: { constant: 3 } });
    const model = nn.sequential(layer, layer);
    const g = grad((m: typeof model) => m(ones([1, 1])).sum())(model);
    expect((g["0.weight"] as Tensor).item()).toBeCloseTo(6, 5); // d(w²)/dw
  });

  it("names parameters by their path, through sequences", () => {
    class Model extends nn.Module {
      body = nn.sequential(nn.linear(2, 2, { bias: false }), nn.residual(nn.rmsNorm(2)));
      override forward(x: Tensor): Tensor {
        return this.body(x);
      }
    }
    const model = new Model();
    expect(model.namedParameters().map(([name]) => name)).toEqual(["body.0.weight", "body.1.inner.scale"]);
    expect(model.summary()).toMatch(/body\.1\.inner +rmsNorm\(2\) +scale \[2\] +2\n6 parameters$/);
  });
});

describe("initialisers", () => {
  const draw = (weight: nn.Initializer, shape: [number, number] = [200, 300]) => new nn.Parameter(shape, weight).value;
  const deviation = (t: Tensor) => t.std().item();

  it("have the deviations that their names promise", () => {
    const expected: readonly [nn.Initializer, number][] = [
      ["heNormal", Math.sqrt(2 / 300)],
      ["kaimingNormal", Math.sqrt(2 / 300)],
      ["heUniform", Math.sqrt(2 / 300)],
      ["kaimingUniform", Math.sqrt(1 / 900)],
      ["glorotNormal", Math.sqrt(2 / 500)],
      ["xavierNormal", Math.sqrt(2 / 500)],
      ["glorotUniform", Math.sqrt(2 / 500)],
      ["xavierUniform", Math.sqrt(2 / 500)],
      ["lecunNormal", Math.sqrt(1 / 300)],
      // of a normal distribution cut at ±2: √(1 − 4 φ(2) / (Φ(2) − Φ(−2)))
      ["truncatedNormal", 0.8796],
      [{ truncatedNormal: 0.02 }, 0.02 * 0.8796],
      [{ normal: 0.5 }, 0.5],
    ];
    for (const [name, wanted] of expected) expect(deviation(draw(name)) / wanted, String(name)).toBeCloseTo(1, 1);
    expect(draw("truncatedNormal").abs().max().item()).toBeLessThanOrEqual(2);
    expect(numbers(draw({ constant: 3 }, [1, 2]))).toEqual([3, 3]);
    expect(() => draw("nope" as never)).toThrow(/the names are/);
  });

  it("orthogonal has orthonormal rows or columns", () => {
    for (const shape of [
      [5, 9],
      [9, 5],
      [4, 4],
    ] as [number, number][]) {
      const q = draw("orthogonal", shape);
      const product = shape[0] <= shape[1] ? q.matmul(q.transpose()) : q.transpose().matmul(q);
      const n = Math.min(...shape);
      const unit = tensor(Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i === j))));
      expect(distance(product, unit)).toBeLessThan(1e-5);
    }
    expect(draw({ orthogonal: 2 }, [3, 3]).square().sum().item()).toBeCloseTo(12, 4);
  });
});

describe("attention", () => {
  const x = random.generator(3).normal([2, 4, 8]);

  it("is causal: the future changes nothing", () => {
    const layer = nn.multiHeadAttention(8, 2, { causal: true, rotary: true });
    const changed = x.slice(0, 3, 1).pad(
      [
        [0, 0],
        [0, 1],
        [0, 0],
      ],
      5,
    );
    const [a, b] = [layer(x), layer(changed)];
    expect(distance(a.slice(0, 3, 1), b.slice(0, 3, 1))).toBeLessThan(1e-6);
    expect(distance(a.slice(3, 4, 1), b.slice(3, 4, 1))).toBeGreaterThan(1e-3);
  });

  it("does not see padding", () => {
    const layer = nn.multiHeadAttention(8, 2);
    const keyMask = tensor([
      [true, true, true, false],
      [true, true, true, false],
    ]);
    const short = layer(x.slice(0, 3, 1));
    expect(distance(layer(x, { keyMask }).slice(0, 3, 1), short)).toBeLessThan(1e-5);
    expect(() => layer(x, { keyMask: keyMask.slice(0, 1) })).toThrow(/keyMask/);
  });

  it("looks at a context", () => {
    const layer = nn.multiHeadAttention(8, 2);
    expect(distance(layer(x, { context: x }), layer(x))).toBeLessThan(1e-5);
    expect(layer(x, { context: x.slice(0, 2, 1) }).shape).toEqual([2, 4, 8]);
  });

  it("gives zeros where a query sees nothing", () => {
    const mask = zeros([4, 4]).cast("bool");
    for (const onWeights of [undefined, (weights: Tensor) => weights]) {
      const y = nn.attention(x, x, x, { mask, ...(onWeights === undefined ? {} : { onWeights }) });
      expect(distance(y, zeros(x.shape))).toBe(0);
    }
  });

  it("is the same with and without its weights at hand, up to second derivatives", () => {
    const [key, value, direction] = [4, 5, 6].map((seed) => random.generator(seed).normal([2, 4, 8]));
    const mask = tensor([[true, true, true, false]]);
    for (const options of [{}, { causal: true }, { mask }, { causal: true, mask, scale: 0.3 }]) {
      const of = (also: object) => (q: Tensor) =>
        nn
          .attention(q, (key as Tensor).add(q), (value as Tensor).mul(q), { ...options, ...also })
          .square()
          .sum();
      const [fused, plain] = [of({}), of({ onWeights: (weights: Tensor) => weights })];
      expect(distance(grad(fused)(x), grad(plain)(x))).toBeLessThan(1e-4);
      const product = (f: (q: Tensor) => Tensor) => hvp(f, x, direction as Tensor).product;
      expect(distance(product(fused), product(plain))).toBeLessThan(1e-3);
    }
  });

  it("with rotary positions depends on distances alone", () => {
    const score = (start: number) => {
      const turned = nn.rotary(x, { start });
      return turned.matmul(turned.transpose());
    };
    expect(distance(score(0), score(11))).toBeLessThan(1e-4);
    expect(() => nn.rotary(ones([3, 3]))).toThrow(/even width/);
  });

  it("drops weights in training", () => {
    const block = nn.transformerBlock(8, 2, { dropout: 0.5, norm: "rms" });
    const training = { training: true, random: random.generator(1) };
    expect(
      distance(
        nn.apply(block, {}, training, () => block(x)),
        block(x),
      ),
    ).toBeGreaterThan(1e-3);
    expect(distance(block(x), block(x))).toBe(0);
    expect(() => nn.multiHeadAttention(8, 3)).toThrow(/3 heads/);
    expect(() => block(ones([2, 8]))).toThrow(RaphsonError);
  });
});

describe("recurrent layers", () => {
  const x = random.generator(4).normal([2, 6, 3]);

  for (const [name, make] of Object.entries({ rnn: nn.rnn, lstm: nn.lstm, gru: nn.gru })) {
    it(`${name} goes on from its state`, () => {
      const layer = make(3, 4, { layers: 2 }).initialize(1);
      const first = layer.run(x.slice(0, 4, 1));
      const second = layer.run(x.slice(4, 6, 1), first.states);
      expect(distance(second.output, layer(x).slice(4, 6, 1))).toBeLessThan(1e-6);
      expect(() => layer.run(x, [])).toThrow(/2 states/);
      expect(() => layer(ones([2, 6, 2]))).toThrow(/\[batch, time, 3\]/);
    });
  }

  it("stands in a sequence and is trained", async () => {
    const model = nn.sequential(nn.gru(3, 4, { bidirectional: true }), nn.linear(8, 1));
    using step = trainingStep({
      model,
      loss: ({ x }: { x: Tensor }, model) =>
        model(x)
          .sub(x.sum(-1, { keepDims: true }))
          .square()
          .mean(),
      optimizer: newton(optim.adam()),
    });
    const first = await step.step({ x });
    for (let k = 0; k < 30; k++) await step.run({ x });
    const last = await step.step({ x });
    expect(last.loss).toBeLessThan(first.loss);
  });
});

describe("activations", () => {
  it("are the tensor methods of the same names", () => {
    const x = tensor([-2, -0.5, 0.5, 2]);
    const pairs: readonly [nn.Module, Tensor][] = [
      [nn.identity(), x],
      [nn.elu(2), x.elu(2)],
      [nn.celu(2), x.celu(2)],
      [nn.selu(), x.selu()],
      [nn.leakyRelu(0.1), x.leakyRelu(0.1)],
      [nn.relu6(), x.relu6()],
      [nn.mish(), x.mish()],
      [nn.softplus(), x.softplus()],
      [nn.softsign(), x.softsign()],
      [nn.logSigmoid(), x.logSigmoid()],
      [nn.hardtanh(), x.hardtanh()],
      [nn.hardSigmoid(), x.hardSigmoid()],
      [nn.hardSwish(), x.hardSwish()],
      [nn.geluTanh(), x.geluTanh()],
      [nn.softmax(), x.softmax()],
      [nn.logSoftmax(), x.logSoftmax()],
      [nn.glu(), x.glu()],
      [nn.prelu(), x.leakyRelu(0.25)],
    ];
    for (const [layer, expected] of pairs) expect(numbers(layer(x)), layer.describe()).toEqual(numbers(expected));
  });

  it("residual keeps the shape", () => {
    expect(
      nn
        .residual(nn.relu())(tensor([[-1, 2]]))
        .toArray(),
    ).toEqual([[-1, 4]]);
    expect(() => nn.residual(nn.linear(2, 3))(ones([1, 2]))).toThrow(/must keep the shape/);
  });
});
