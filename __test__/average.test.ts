/** Averaged parameters, the horizon of the rule `next`, and what `train` makes of both. */
import {
  data,
  loss as losses,
  newton,
  nn,
  optim,
  schedule,
  stats,
  type Tensor,
  tensor,
  tidy,
  train,
  trainingStep,
  updateStatistics,
} from "raphson";
import { describe, expect, it } from "vitest";

type Scalars = { readonly w: Tensor<"f64"> };
type Point = { readonly at: Tensor<"f64"> };

/** θ goes half of the way to `at` in each step of rate 1. */
const towards = ({ at }: Point, { w }: Scalars) => w.sub(at).square().sum().mul(0.25);
const at = (value: number) => ({ at: tensor([value], { dtype: "f64" }) });
const plain = optim.sgd({ learningRate: 1 });

/** θ before the first step and after each. */
async function path(average: true | { decay: number }, points: readonly number[]) {
  const step = trainingStep({ params: { w: tensor([8], { dtype: "f64" }) }, loss: towards, optimizer: plain, average });
  const found = [8];
  for (const point of points) {
    await step.step(at(point));
    found.push((await step.params.w.data())[0] ?? Number.NaN);
  }
  const averaged = await step.averaged(async ({ w }) => (await w.data())[0]);
  const after = (await step.params.w.data())[0];
  step.dispose();
  return { found, averaged, after };
}

const POINTS = [4, -2, 3, 1, -5, 2, 2, 7, -1, 3, 0, 1];

describe("averaged parameters", () => {
  it("weigh the newest by 9/(n + 8), and leave the parameters as they were", async () => {
    const { found, averaged, after } = await path(true, POINTS);
    let mean = Number.NaN;
    found.slice(1).forEach((theta, index) => {
      mean = index === 0 ? theta : mean + (9 / (index + 9)) * (theta - mean);
    });
    expect(averaged).toBeCloseTo(mean, 12);
    expect(after).toBe(found.at(-1));
  });

  it("decay as asked, and begin as a plain mean", async () => {
    const { found, averaged } = await path({ decay: 0.8 }, POINTS);
    let mean = Number.NaN;
    found.slice(1).forEach((theta, index) => {
      mean = index === 0 ? theta : mean + Math.max(0.2, 1 / (index + 1)) * (theta - mean);
    });
    expect(averaged).toBeCloseTo(mean, 12);
  });

  it("come back to the newest ones when an error ends their use", async () => {
    const model = nn.linear(2, 1);
    model.initialize(3);
    const loss = ({ x }: { x: Tensor }, m: typeof model) => m(x).square().sum();
    using step = trainingStep({ model, loss, optimizer: optim.sgd({ learningRate: 0.05 }), average: true });
    const batch = { x: tensor([[1, -2]]) };
    for (let index = 0; index < 5; index++) await step.step(batch);
    const before = await model.weight.value.data();
    const broken = step.averaged(() => {
      expect(model.weight.value.dataSync()).not.toEqual(before);
      throw new Error("broken");
    });
    await expect(broken).rejects.toThrow("broken");
    expect(await model.weight.value.data()).toEqual(before);
    await step.step(batch);
    await step.keepAverage();
    expect(await model.weight.value.data()).not.toEqual(before);
  });

  it("leave out steps that are taken back", async () => {
    const params = { w: tensor([1], { dtype: "f64" }) };
    const loss = ({ at: factor }: Point, { w }: Scalars) => w.square().mul(factor).sum();
    using step = trainingStep({ params, loss, optimizer: newton(optim.sgd(), { rule: "nextPlain" }), average: true });
    for (const factor of [1, 1, Number.NaN, Number.NaN, 1]) await step.step(at(factor));
    expect(await step.averaged(async ({ w }) => Number.isFinite((await w.data())[0]))).toBe(true);
  });

  it("are refused where there are none, and where the option makes no sense", async () => {
    using step = trainingStep({ params: { w: tensor([8], { dtype: "f64" }) }, loss: towards, optimizer: plain });
    await expect(step.averaged(() => 0)).rejects.toThrow(/average: true/);
    const make = (decay: number) => () =>
      trainingStep({
        params: { w: tensor([8], { dtype: "f64" }) },
        loss: towards,
        optimizer: plain,
        average: { decay },
      });
    expect(make(1)).toThrow(/decay/);
    expect(make(Number.NaN)).toThrow(/decay/);
  });
});

const x = Float32Array.from({ length: 96 }, (_, i) => i / 96);
const points = () =>
  data.arrays({ x: { data: x, shape: [96, 1] }, y: { data: x.map((v) => 2 * v - 1), shape: [96, 1] } });
type Line = { readonly x: Tensor; readonly y: Tensor };
const squares = ({ x, y }: Line, model: (x: Tensor) => Tensor) => model(x).sub(y).square().mean();

describe("the horizon", () => {
  it("holds α in the second half and multiplies it by 2(1 − t/T)", async () => {
    const optimizer = newton(optim.sgd(), { totalSteps: 40 });
    const { history } = await train({
      model: nn.linear(1, 1),
      loss: squares,
      optimizer,
      data: points().batches(16),
      steps: 40,
    });
    const held = history.alpha[20] ?? Number.NaN;
    for (let t = 20; t < 40; t++) expect(history.alpha[t]).toBeCloseTo(2 * (1 - t / 40) * held, 8);
    expect(new Set(history.alpha.slice(10, 20)).size).toBe(10);
  });

  it("is what train knows: steps, or epochs of counted batches", async () => {
    const run = (more: { steps: number } | { epochs: number }, optimizer = newton(optim.sgd())) =>
      train({
        model: nn.linear(1, 1),
        loss: squares,
        optimizer,
        data: points().batches(16, { shuffle: true }),
        ...more,
      });
    const [bySteps, byEpochs] = [await run({ steps: 96 }), await run({ epochs: 16 })];
    expect(bySteps.history.alpha).toEqual(byEpochs.history.alpha);
    const last = (history: { alpha: Float64Array }) => (history.alpha[95] ?? 0) / (history.alpha[48] ?? 0);
    expect(last(bySteps.history)).toBeCloseTo(1 / 48, 6);
    const own = await run({ steps: 96 }, newton(optim.sgd(), { schedule: schedule.constant() }));
    expect(last(own.history)).toBeGreaterThan(0.3);
  });

  it("unknown, makes train evaluate at the average and end there", async () => {
    const endless = () =>
      data.from(async function* () {
        for await (const batch of points().batches(16).epoch(0)) yield batch;
      });
    const model = nn.linear(1, 1);
    const seen: number[] = [];
    let newest = Number.NaN;
    const { evaluations } = await train({
      model,
      loss: squares,
      optimizer: newton(optim.sgd()),
      data: endless(),
      evaluate: { data: points().batches(96) },
      epochs: 3,
      onStep: ({ loss }) => seen.push(loss),
      callbacks: [
        {
          onEpoch: () => {
            newest = model.weight.value.dataSync()[0] ?? Number.NaN;
          },
        },
      ],
    });
    expect(seen.length).toBe(18);
    const kept = model.weight.value.dataSync()[0] ?? Number.NaN;
    expect(kept).not.toBe(newest);
    const loss = squares(
      {
        x: tensor([...x]).reshape([96, 1]),
        y: tensor([...x])
          .mul(2)
          .sub(1)
          .reshape([96, 1]),
      },
      model,
    );
    expect(loss.dataSync()[0]).toBeCloseTo(evaluations.at(-1)?.loss ?? Number.NaN, 6);
  });

  it("is refused where it makes no sense", () => {
    expect(() => newton(optim.sgd(), { totalSteps: 0 })).toThrow(/totalSteps/);
    expect(() => newton(optim.sgd(), { totalSteps: 1.5 })).toThrow(/totalSteps/);
    expect(() => newton(optim.sgd(), { rule: "exact", totalSteps: 10 })).toThrow(/schedule/);
  });
});

describe("statistics of batch normalisation at averaged parameters", () => {
  const numbers = Float32Array.from({ length: 120 }, (_, i) => Math.sin(3 * i) + i / 60);
  const set = () =>
    data.arrays({ x: { data: numbers, shape: [40, 3] }, y: { data: numbers.slice(0, 40), shape: [40, 1] } });
  type Rows = { readonly x: Tensor; readonly y: Tensor };
  const make = () => {
    const model = nn.sequential(nn.linear(3, 2), nn.batchNorm1d(2), nn.linear(2, 1));
    model.initialize(5);
    return model;
  };
  const ofBatch = ({ x, y }: Rows, model: ReturnType<typeof make>) => losses.mse(model(x), y);
  const statesOf = (model: ReturnType<typeof make>) =>
    Object.fromEntries(Object.entries(model.states()).map(([name, state]) => [name, [...state.dataSync()]]));

  /** Means over batches of ten of the mean and the unbiased variance of the first layer's outputs. */
  function wanted(model: ReturnType<typeof make>): { mean: number[]; variance: number[] } {
    return tidy(() => {
      const { weight, bias } = model.layers[0] as nn.Linear;
      const out = tensor([...numbers])
        .reshape([40, 3])
        .matmul(weight.value.transpose());
      const h = (bias === undefined ? out : out.add(bias.value)).reshape([4, 10, 2]);
      const variance = h.variance(1, { correction: 1 }).mean(0);
      return { mean: [...h.mean(1).mean(0).dataSync()], variance: [...variance.dataSync()] };
    });
  }
  const near = (found: readonly number[] | undefined, want: readonly number[]) => {
    expect(found).toHaveLength(want.length);
    want.forEach((value, i) => {
      expect(found?.[i]).toBeCloseTo(value, 5);
    });
  };
  const expectOwn = (model: ReturnType<typeof make>) => {
    const states = statesOf(model);
    const [mean, variance] = ["Mean", "Variance"].map((end) => Object.keys(states).find((key) => key.endsWith(end)));
    near(states[mean ?? ""], wanted(model).mean);
    near(states[variance ?? ""], wanted(model).variance);
  };

  it("are means over batches, whatever they were before, and leave no tensor behind", async () => {
    const model = make();
    await updateStatistics({ model, loss: ofBatch, data: set().batches(10) });
    expectOwn(model);
    const before = stats().tensors;
    await updateStatistics({ model, loss: ofBatch, data: set().batches(10) });
    expectOwn(model);
    expect(stats().tensors).toBe(before);
    await expect(updateStatistics({ model, loss: ofBatch, data: set().batches(10), batches: 0 })).rejects.toThrow(
      /batches/,
    );
    await expect(updateStatistics({ model, loss: ofBatch, data: data.from([]) as never })).rejects.toThrow(/no batch/);
  });

  const run = async (model: ReturnType<typeof make>, evaluated: boolean) =>
    train({
      model,
      loss: ofBatch,
      optimizer: newton(optim.sgd()),
      data: set().batches(10),
      ...(evaluated && { evaluate: { data: set().batches(40) } }),
      average: true,
      epochs: 8,
    });

  it("are computed anew for evaluations and for the end, and training does not notice", async () => {
    const [seen, unseen] = [make(), make()];
    const { history, evaluations } = await run(seen, true);
    expect((await run(unseen, false)).history.loss).toEqual(history.loss);
    expectOwn(seen);
    expect(statesOf(seen)).toEqual(statesOf(unseen));
    const all = { x: tensor([...numbers]).reshape([40, 3]), y: tensor([...numbers.slice(0, 40)]).reshape([40, 1]) };
    expect(ofBatch(all, seen).item()).toBeCloseTo(evaluations.at(-1)?.loss ?? Number.NaN, 5);
  });

  it("stay those of training where the data can be read once only", async () => {
    const once = (function* () {
      for (let i = 0; i < 12; i++)
        yield { x: { data: numbers, shape: [40, 3] }, y: { data: numbers.slice(0, 40), shape: [40, 1] } };
    })();
    const batches = data.from(once);
    expect(batches.repeats).toBe(false);
    expect(
      batches
        .map((b) => b)
        .prefetch()
        .take(20).repeats,
    ).toBe(false);
    const model = make();
    const { steps } = await train({
      model,
      loss: ofBatch,
      optimizer: newton(optim.sgd()),
      data: batches,
      evaluate: { data: set().batches(40) },
      average: true,
      steps: 12,
    });
    expect(steps).toBe(12);
  });
});
