/** Averaged parameters, the horizon of the rule `next`, and what `train` makes of both. */
import { data, newton, nn, optim, schedule, type Tensor, tensor, train, trainingStep } from "raphson";
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
    const [bySteps, byEpochs] = [await run({ steps: 24 }), await run({ epochs: 4 })];
    expect(bySteps.history.alpha).toEqual(byEpochs.history.alpha);
    const last = (history: { alpha: Float64Array }) => (history.alpha[23] ?? 0) / (history.alpha[12] ?? 0);
    expect(last(bySteps.history)).toBeCloseTo(1 / 12, 6);
    const own = await run({ steps: 24 }, newton(optim.sgd(), { schedule: schedule.constant() }));
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
