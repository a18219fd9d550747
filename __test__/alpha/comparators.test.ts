/** The comparators of `bench/alpha` against plain loops, step by step, on a loss that is another one for each batch. */
import { nn, optim, type Tensor, tensor } from "raphson";
import { describe, expect, it } from "vitest";
import { Armijo } from "../../bench/alpha/comparators/armijo";
import { dAdaptation } from "../../bench/alpha/comparators/dAdaptation";
import { Gen, genAlpha } from "../../bench/alpha/comparators/gen";
import { hypergradient } from "../../bench/alpha/comparators/hypergradient";
import { mechanic } from "../../bench/alpha/comparators/mechanic";
import { Newt, newtAlpha } from "../../bench/alpha/comparators/newt";
import { Objective } from "../../bench/alpha/comparators/objective";
import { Polyak } from "../../bench/alpha/comparators/polyak";
import { prodigy } from "../../bench/alpha/comparators/prodigy";
import { ScheduleFree } from "../../bench/alpha/comparators/scheduleFree";
import type { Batch, Task } from "../../bench/alpha/problems/problem";
import { StepTrainer, type Trainer } from "../../bench/alpha/trainer";
import * as plain from "./references";

type F64 = Tensor<"f64">;
const BEGIN = [0.9, -0.4, 0.7, -0.2, 0.5, 0.3, -0.8];
const STEPS = 24;

const batchOf = (t: number): { scale: F64; shift: F64 } => {
  const { scale, shift } = plain.batchOf(t);
  return { scale: tensor([scale], { dtype: "f64" }), shift: tensor([shift], { dtype: "f64" }) };
};

/** The loss of `references.ts` on two tensors, of three numbers and of two times two. */
function makeTask(): Task {
  const [a, b] = [BEGIN.slice(0, 3), BEGIN.slice(3)];
  const params = {
    a: tensor(a, { dtype: "f64" }),
    b: tensor([b.slice(0, 2), b.slice(2)], { dtype: "f64" }),
  };
  const curvatures = [plain.CURVATURES.slice(0, 3), plain.CURVATURES.slice(3)].map((part) =>
    tensor(part, { dtype: "f64" }),
  );
  const task: Task<typeof params, ReturnType<typeof batchOf>> = {
    params,
    loss({ scale, shift }, params) {
      const parts = [params.a, params.b.flatten()];
      const each = parts.map((w, i) => {
        const bowl = w
          .sub(shift)
          .square()
          .mul(curvatures[i] as F64)
          .mul(0.5);
        return bowl.add(w.square().square().mul(0.25)).sum();
      });
      const all = parts.map((w) => w.sum()).reduce((sum, part) => sum.add(part));
      return each
        .reduce((sum, part) => sum.add(part))
        .add(all.square().mul(0.05))
        .mul(scale.sum());
    },
    size: 0,
    batch: () => batchOf(0),
    fit: () => [],
    held: () => [],
  };
  return task as Task;
}

/** The parameters to evaluate after each step. */
async function pathOf(trainer: Trainer): Promise<number[][]> {
  const path: number[][] = [];
  for (let t = 0; t < STEPS; t++) {
    await trainer.run(batchOf(t));
    const numbers = (params: unknown) => {
      const { a, b } = params as { a: F64; b: F64 };
      return [...a.dataSync(), ...b.dataSync()];
    };
    path.push(await trainer.evaluate(numbers));
  }
  trainer.dispose();
  return path;
}

/** Every step's distance from the beginning agrees, to 1e-9 of its size. */
function expectSame(found: readonly number[][], wanted: readonly number[][]): void {
  wanted.forEach((point, t) => {
    const travelled = Math.max(...point.map((x, i) => Math.abs(x - (BEGIN[i] ?? 0))));
    const apart = Math.max(...point.map((x, i) => Math.abs(x - (found[t]?.[i] ?? Number.NaN))));
    expect(apart, `step ${t}`).toBeLessThanOrEqual(1e-9 * travelled + 1e-14);
  });
  expect(found.length).toBe(wanted.length);
}

const BASES = ["sgd", "momentum", "adam", "adamW"] as const;
const directionOf = (name: (typeof BASES)[number]) => plain.DIRECTIONS[name](BEGIN.length);

describe("comparators as optimizers", () => {
  it.each([
    ["prodigy", prodigy, plain.prodigy],
    ["dAdaptation", dAdaptation, plain.dAdaptation],
  ] as const)("%s", async (_, ours, reference) => {
    expectSame(await pathOf(new StepTrainer(makeTask(), ours(), 0)), reference(BEGIN, STEPS));
  });

  it.each(BASES)("hypergradient around %s", async (name) => {
    const wrapped = hypergradient(optim[name](), { initial: 0.01, beta: 1e-3 });
    const wanted = plain.hypergradient(directionOf(name), 0.01, 1e-3)(BEGIN, STEPS);
    expectSame(await pathOf(new StepTrainer(makeTask(), wrapped, 0)), wanted);
  });

  it.each(BASES)("mechanic around %s", async (name) => {
    const wanted = plain.mechanic(directionOf(name))(BEGIN, STEPS);
    expectSame(await pathOf(new StepTrainer(makeTask(), mechanic(optim[name]()), 0)), wanted);
  });
});

describe("comparators as loops", () => {
  it.each([
    [false, 0.1],
    [true, undefined],
  ])("scheduleFree, adam: %s", async (adam, learningRate) => {
    const options = learningRate === undefined ? { adam } : { adam, learningRate };
    const wanted = plain.scheduleFree(adam, learningRate ?? 0.0025)(BEGIN, STEPS);
    expectSame(await pathOf(new ScheduleFree(makeTask(), 0, options)), wanted);
  });

  it("armijo, which backtracks, and counts its forward passes", async () => {
    const trainer = new Armijo(makeTask(), 0, 5);
    expectSame(await pathOf(trainer), plain.armijo(5)(BEGIN, STEPS));
    expect(new Set(trainer.alphas).size).toBeGreaterThan(3);
    expect(trainer.work).toBeGreaterThan(STEPS * (1 + 1 / 3));
  });

  it("polyak", async () => {
    const trainer = new Polyak(makeTask(), 0, 5);
    expectSame(await pathOf(trainer), plain.polyak(5)(BEGIN, STEPS));
    expect(trainer.work).toBe(STEPS);
  });

  it.each(BASES)("gen around %s", async (name) => {
    let other = 1000;
    const draw = (): Batch => batchOf(other++);
    const trainer = new Gen(makeTask(), 0, { optimizer: optim[name](), initial: 0.02, draw });
    expectSame(await pathOf(trainer), plain.gen(directionOf(name), 0.02)(BEGIN, STEPS));
    expect(trainer.work).toBe(STEPS * 1.25);
    expect(new Set(trainer.alphas).size).toBeGreaterThan(3);
  });

  it.each(["sgd", "adam", "adamW"] as const)("newt around %s", async (name) => {
    const trainer = new Newt(makeTask(), 0, optim[name](), 0.05);
    expectSame(await pathOf(trainer), plain.newt(directionOf(name), 0.05)(BEGIN, STEPS));
    expect(trainer.work).toBe(2 * STEPS);
  });
});

describe("the formulas of α", () => {
  it("GeN finds the vertex of a parabola, within its bounds, and halves where losses are not finite", () => {
    const parabola = (s: number) => 3 + 2 * (s - 0.15) ** 2;
    expect(genAlpha(0.1, parabola(0.1), parabola(-0.1), parabola(0))).toBeCloseTo(0.9 * 0.1 + 0.1 * 0.15, 12);
    expect(genAlpha(0.01, parabola(0.01), parabola(-0.01), parabola(0))).toBeCloseTo(0.009 + 0.002, 12);
    expect(genAlpha(0.1, 1, 3, 2.5)).toBe(0.1); // bent downwards
    expect(genAlpha(0.1, Number.NaN, 3, 2.5)).toBe(0.05);
  });

  it("newt shrinks by ten when the loss has risen, and grows by 5 % at most", () => {
    const measures = { alpha: 0.1, loss0: 2, loss1: 1, slope0: 4, slope1: 2 };
    expect(newtAlpha(measures)).toBeCloseTo(0.1 * (1 + (1e-3 * 2) / 2), 10);
    expect(newtAlpha({ ...measures, loss1: 3 })).toBeCloseTo(0.01, 12);
    expect(newtAlpha({ ...measures, slope1: 3.999 })).toBeCloseTo(0.105, 12);
    expect(newtAlpha({ ...measures, slope1: 5 })).toBe(0.1);
    expect(newtAlpha({ ...measures, alpha: 0.99, slope1: 3.999 })).toBe(1);
  });
});

describe("an objective", () => {
  const model = () => nn.sequential(nn.linear(2, 3), nn.batchNorm1d(3), nn.dropout(0.5), nn.linear(3, 1)).initialize(1);
  const batch = {
    x: tensor([
      [0, 1],
      [1, 0],
      [2, 1],
    ]),
  };
  const taskOf = (params: ReturnType<typeof model>): Task => {
    const task: Task<typeof params, typeof batch> = {
      params,
      loss: ({ x }, model) => model(x).square().mean(),
      ...{ size: 0, batch: () => batch, fit: () => [], held: () => [] },
    };
    return task as Task;
  };

  it("evaluates the loss with the draws of the gradient, and draws anew for the next one", async () => {
    const objective = new Objective(taskOf(model()), 3);
    const params = objective.begin();
    const { loss } = await objective.gradient(params, batch);
    expect(await objective.loss(params, batch)).toBe(loss);
    const losses = new Set([loss]);
    for (let draw = 0; draw < 4; draw++) losses.add((await objective.gradient(params, batch)).loss);
    expect(losses.size).toBeGreaterThan(1);
    expect([objective.gradients, objective.forwards]).toEqual([5, 1]);
    objective.dispose();
  });

  it("moves running statistics with gradients only, and places them with the parameters", async () => {
    const own = model();
    const objective = new Objective(taskOf(own), 3);
    const params = objective.begin();
    const means = () => {
      objective.place(params);
      return own.states()["1.runningMean"]?.toArray();
    };
    const before = means();
    await objective.gradient(params, batch);
    const after = means();
    expect(after).not.toEqual(before);
    await objective.loss(params, batch);
    expect(means()).toEqual(after);
  });
});
