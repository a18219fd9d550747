/** Brief runs are made at once, others in the queue: both give the same numbers, the same errors, in the same order. */
import { afterEach, describe, expect, it } from "vitest";
import { compile, newton, nn, ones, optim, stats, type Tensor, tensor, tidy, trainingStep } from "../src";
import { native } from "../src/native";
import { thrown } from "./thrown";

type Batch = { readonly x: Tensor; readonly y: Tensor };

const batches: readonly Batch[] = [0, 1, 2].map((shift) => ({
  x: tensor([
    [0.5, -1 + shift],
    [1, 0.25],
    [-0.75, shift],
  ]),
  y: tensor([[shift], [1], [-1]]),
}));
const batchOf = (index: number) => batches[index % batches.length] as Batch;

function setting(rule: "constant" | "next", average = false) {
  const model = nn.sequential(nn.linear(2, 4), nn.tanh(), nn.linear(4, 1));
  model.initialize(3);
  const losses: number[] = [];
  const step = trainingStep({
    model,
    loss: ({ x, y }: Batch, model) => model(x).sub(y).square().mean(),
    optimizer: newton(optim.adam(), { rule, initial: 0.01 }),
    average,
    onReport: ({ step, loss }) => {
      expect(step).toBe(losses.length);
      losses.push(loss);
    },
  });
  made.push(step, model);
  return { model, step, losses };
}

/** What a test made: nothing may wait for the garbage collector, or it would disturb the counts of another. */
const made: { dispose(): void }[] = [];

const numbersOf = (model: nn.Module) => Object.values(model.parameters()).map((value) => [...value.dataSync()]);

afterEach(() => {
  native.setAtOnceForTest(true);
  for (const thing of made.splice(0)) thing.dispose();
});

describe("runs at once and queued", () => {
  for (const rule of ["constant", "next"] as const) {
    it(`train alike, bit for bit (${rule})`, async () => {
      const results = [];
      for (const atOnce of [true, false]) {
        native.setAtOnceForTest(atOnce);
        const { model, step, losses } = setting(rule, true);
        for (let index = 0; index < 30; index++) await step.run(batchOf(index));
        await step.drain();
        const averaged = await step.averaged(() => numbersOf(model));
        results.push({ losses, alpha: step.alpha, numbers: numbersOf(model), averaged });
        step.dispose();
      }
      expect(results[0]?.losses.length).toBe(30);
      expect(results[0]).toEqual(results[1]);
    });
  }

  it("may change from one to the other at any step", async () => {
    const { model, step } = setting("constant");
    const { model: same, step: other } = setting("constant");
    for (let index = 0; index < 20; index++) {
      native.setAtOnceForTest(index % 3 !== 0);
      const turn = step.run(batchOf(index));
      native.setAtOnceForTest(true);
      await Promise.all([turn, other.run(batchOf(index))]);
    }
    await Promise.all([step.drain(), other.drain()]);
    expect(numbersOf(model)).toEqual(numbersOf(same));
  });

  it("report the same errors, to those who read", () =>
    tidy(async () => {
      const pick = compile((indices: Tensor<"i32">) => ones([3]).take(indices));
      const good = tensor([0, 2], { dtype: "i32" });
      const bad = tensor([0, 9], { dtype: "i32" });
      await pick(good).data();
      const messages: string[] = [];
      for (const atOnce of [true, false]) {
        native.setAtOnceForTest(atOnce);
        const result = pick(bad); // not here
        const error = await result.data().catch((error: unknown) => error);
        expect(error).toMatchObject({ name: "RaphsonError", code: "INDEX" });
        expect(thrown(() => result.toArray())).toMatchObject({ code: "INDEX" });
        messages.push((error as Error).message);
        expect(await pick(good).data()).toEqual(new Float32Array([1, 1]));
      }
      expect(messages[0]).toBe(messages[1]);
      made.push(pick);
    }));

  it("tell of the steps before one that fails, whose reports are read with its own", async () => {
    native.setAtOnceForTest(false);
    const indices = [0, 1, 0, 1, 7, 0].map((index) => tensor([index], { dtype: "i32" }));
    const told: number[] = [];
    const step = trainingStep({
      params: { table: ones([2, 1]) },
      loss: (index: Tensor<"i32">, { table }) => table.take(index).square().sum(),
      optimizer: newton(optim.sgd(), { rule: "constant", initial: 0.1 }),
      onReport: ({ step }) => told.push(step),
    });
    made.push(step);
    // Queued without waiting, so that they are read in groups: few at first, then all that may be in flight.
    for (const index of indices.slice(0, 4)) await step.step(index);
    const turns = indices.flatMap((index) => [step.run(index), step.run(index)]);
    await expect(Promise.all([...turns, step.drain()])).rejects.toMatchObject({ name: "RaphsonError", code: "INDEX" });
    expect(told).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it("keep their order: a small run behind a large one", () =>
    tidy(() => {
      const large = compile((x: Tensor) => x.matmul(x).div(512));
      const small = compile((x: Tensor) => x.slice(0, 1).slice(0, 2, 1).add(1));
      const x = ones([512, 512]);
      for (let turn = 0; turn < 3; turn++) {
        let value = x;
        for (let index = 0; index < 4; index++) value = large(value);
        expect(small(value).toArray()).toEqual([[2, 2]]);
      }
      made.push(large, small);
    }));
});

describe("a step in one call", () => {
  it("has its report when `run` resolves, once its program is prepared", async () => {
    const { step, losses } = setting("constant");
    for (let index = 0; index < 4; index++) await step.step(batchOf(index));
    const before = losses.length;
    await step.run(batchOf(0));
    expect(losses.length).toBe(before + 1);
  });

  it("ends tensors that were read between steps, and gives the newest values", async () => {
    const { model, step } = setting("constant");
    await step.step(batchOf(0));
    const parameter = model.namedParameters()[0]?.[1] as nn.Parameter;
    const value = parameter.value;
    expect(parameter.value).toBe(value);
    const former = [...value.dataSync()];
    await step.step(batchOf(1));
    expect(value.isDisposed).toBe(true);
    expect([...parameter.value.dataSync()]).not.toEqual(former);
  });

  it("goes on from a value that was stored between steps", async () => {
    const [first, second] = [setting("constant"), setting("constant")];
    for (const { model, step } of [first, second]) {
      await step.step(batchOf(0));
      const [, parameter] = model.namedParameters()[0] as [string, nn.Parameter];
      const mine = parameter.value.mul(0.5).evaluate();
      parameter.set(mine);
      made.push(mine);
      const kept = mine.toArray();
      expect(parameter.value.toArray()).toEqual(kept);
    }
    await first.step.step(batchOf(1));
    native.setAtOnceForTest(false);
    await second.step.step(batchOf(1));
    expect(numbersOf(first.model)).toEqual(numbersOf(second.model));
  });

  it("lets two steps take turns on one model", async () => {
    const { model, step } = setting("constant");
    const other = trainingStep({
      model,
      loss: ({ x }: Batch, model) => model(x).square().mean(),
      optimizer: newton(optim.sgd(), { rule: "constant", initial: 0.1 }),
    });
    made.push(other);
    for (let index = 0; index < 6; index++) {
      const before = numbersOf(model);
      await (index % 2 === 0 ? step : other).step(batchOf(index));
      expect(numbersOf(model)).not.toEqual(before);
    }
    step.dispose();
    const numbers = numbersOf(model);
    other.dispose();
    expect(numbersOf(model)).toEqual(numbers);
  });

  it("piles up no tensors, whether they are asked for or not", async () => {
    const { model, step } = setting("next", true);
    const run = async (steps: number) => {
      for (let index = 0; index < steps; index++) await step.run(batchOf(index));
      await step.drain();
    };
    await run(12); // the start-up
    const before = stats().tensors;
    await run(20);
    expect(stats().tensors).toBeLessThanOrEqual(before);
    numbersOf(model);
    await run(1);
    expect(stats().tensors).toBeLessThanOrEqual(before);
    step.dispose();
    expect(model.namedParameters().every(([, { current }]) => current?.isDisposed === false)).toBe(true);
  });

  it("draws parameters anew that were disposed of", async () => {
    const { model, step } = setting("constant");
    await step.step(batchOf(0));
    model.dispose();
    expect(model.namedParameters().every(([, { current }]) => current === undefined)).toBe(true);
    await step.step(batchOf(0));
    expect(numbersOf(model).flat().every(Number.isFinite)).toBe(true);
  });
});
