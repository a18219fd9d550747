/** `newton`: options, rules against formulas, recovery, rules from TypeScript, the step as an object. */
import {
  ALPHA_RULES,
  defineAlphaRule,
  dispose,
  hostRandom,
  newton,
  nn,
  optim,
  RaphsonError,
  random,
  type StepReport,
  schedule,
  type Tensor,
  tensor,
  trainingStep,
} from "raphson";
import { describe, expect, it } from "vitest";
import { DIRECTIONS } from "./alpha/references";
import { nextPath, type Oracle } from "./groupsReference";

type Scalars = { readonly w: Tensor<"f64"> };

const f64 = (values: number[]) => tensor(values, { dtype: "f64" });
/** φ is quartic along any direction, so that every rule's own error shows. */
const quartic = (_: object, { w }: Scalars) => w.square().square().sum().mul(0.25).add(w.square().sum());
/** The same for one number: L, L′ and L″. */
const L = (w: number) => w ** 4 / 4 + w ** 2;
const L1 = (w: number) => w ** 3 + 2 * w;
const L2 = (w: number) => 3 * w ** 2 + 2;

async function reports(
  optimizer: Parameters<typeof trainingStep>[0]["optimizer"],
  steps: number,
  loss = quartic,
  start = [1.5],
): Promise<StepReport[]> {
  using step = trainingStep({ params: { w: f64(start) }, loss, optimizer });
  const found: StepReport[] = [];
  for (let index = 0; index < steps; index++) found.push(await step.step({}));
  return found;
}

/** Slope −φ′(α) and curvature for each rule with ω = L′(w), from the formulas of the rules. */
const FORMULAS: Record<string, (w: number, a: number) => readonly [n: number, h: number]> = {
  exact: (w, a) => [L1(w - a * L1(w)) * L1(w), L1(w) ** 2 * L2(w - a * L1(w))],
  retsinas: (w, a) => {
    const [d, n] = [L1(w) ** 2, L1(w - a * L1(w)) * L1(w)];
    return [n, (d - n) / a];
  },
  alt1: (w, a) => {
    const n = L1(w - a * L1(w)) * L1(w);
    return [n, (2 * (L(w) - L(w - a * L1(w)) - a * n)) / a ** 2];
  },
  alt2: (w, a) => {
    const omega = L1(w);
    return [L1(w - a * omega) * omega, (L(w - a * omega) + L(w + a * omega) - 2 * L(w)) / a ** 2];
  },
  alt2GradientFree: (w, a) => {
    const omega = L1(w);
    const [l0, l1, lMinus] = [L(w), L(w - a * omega), L(w + a * omega)];
    return [(4 * l0 - 3 * l1 - lMinus) / (2 * a), (l1 + lMinus - 2 * l0) / a ** 2];
  },
  hermite: (w, a) => {
    const [d, n] = [L1(w) ** 2, L1(w - a * L1(w)) * L1(w)];
    return [n, (6 * (L(w) - L(w - a * L1(w))) - a * (2 * d + 4 * n)) / a ** 2];
  },
};

describe("the rules", () => {
  it.each(Object.keys(FORMULAS))("%s follows its formula", async (rule) => {
    const options = { rule: rule as "exact", gamma: 0.5, initial: 0.02, min: 1e-6, max: 10, guard: false };
    const [first, second] = await reports(newton(optim.sgd(), options), 2);
    const [n, h] = FORMULAS[rule]?.(1.5, 0.02) ?? [0, 0];
    expect(first?.loss).toBeCloseTo(L(1.5), 12);
    expect(first?.alpha).toBeCloseTo(0.02, 15);
    expect(first?.slope).toBeCloseTo(L1(1.5) ** 2, 10);
    expect(first?.nextAlpha).toBeCloseTo(0.02 + (0.5 * n) / h, 8);
    expect(second?.alpha).toBeCloseTo(first?.nextAlpha ?? Number.NaN, 15);
  });

  it("next needs no learning rate on a quadratic, from far too small and far too large", async () => {
    const bowl = (_: object, { w }: Scalars) =>
      w
        .square()
        .mul(f64([1, 4]))
        .sum();
    for (const initial of [1e-6, 10]) {
      const found = await reports(newton(optim.sgd(), { initial }), 150, bowl, [3, -2]);
      expect(found.at(-1)?.loss).toBeLessThan(1e-3);
    }
  });

  it("next trains alike from every starting α, bit for bit", async () => {
    const x = random.generator(1).normal([64, 6]);
    const y = x.square().sum([-1], { keepDims: true }).tanh();
    const model = () => nn.sequential(nn.linear(6, 16), nn.relu(), nn.linear(16, 1)).initialize(3);
    const losses = async (initial: number) => {
      const seen: number[] = [];
      const step = trainingStep({
        model: model(),
        loss: ({ x, y }: { x: Tensor; y: Tensor }, model) => model(x).sub(y).square().mean(),
        optimizer: newton(optim.adamW(), { initial }),
        onReport: ({ loss }) => seen.push(loss),
      });
      for (let index = 0; index < 60; index++) {
        const [first, end] = [index % 48, (index % 48) + 16];
        await step.run({ x: x.slice(first, end, 0), y: y.slice(first, end, 0) });
      }
      await step.drain();
      return seen;
    };
    const usual = await losses(0.01);
    expect(usual.at(-1)).toBeLessThan(0.5 * (usual[0] ?? 0));
    for (const initial of [1e-6, 0.37, 10]) expect(await losses(initial)).toEqual(usual);
  });

  it("nextPlain, its first version, ends nearer where there is no noise", async () => {
    const bowl = (_: object, { w }: Scalars) =>
      w
        .square()
        .mul(f64([1, 4]))
        .sum();
    const ends: Record<string, number> = {};
    for (const rule of ["next", "nextPlain"] as const) {
      const found = await reports(newton(optim.momentum(), { rule }), 300, bowl, [3, -2]);
      ends[rule] = found.at(-1)?.loss ?? Number.NaN;
    }
    expect(ends.next).toBeLessThan(1e-3);
    expect(ends.nextPlain).toBeLessThan(ends.next ?? Number.NaN);
  });

  it("measures only each k-th step with every", async () => {
    const found = await reports(newton(optim.sgd(), { rule: "exact", gamma: 0.5, initial: 0.02, every: 3 }), 7);
    const changes = found.map(({ alpha, nextAlpha }) => alpha !== nextAlpha);
    expect(changes).toEqual([true, false, false, true, false, false, true]);
    expect(Number.isNaN(found[1]?.curvature)).toBe(true);
    found.slice(1).forEach(({ alpha }, index) => {
      expect(alpha).toBeCloseTo(found[index]?.nextAlpha ?? Number.NaN, 14);
    });
  });

  it("a schedule multiplies α outside its state", async () => {
    const found = await reports(
      newton(optim.sgd(), { rule: "constant", initial: 0.1, schedule: schedule.step({ every: 2, factor: 0.5 }) }),
      4,
    );
    expect(found.map(({ alpha }) => Number(alpha.toFixed(12)))).toEqual([0.1, 0.1, 0.05, 0.05]);
    expect(found.at(-1)?.nextAlpha).toBeCloseTo(0.1, 12);
  });

  it("records what telemetry asks for", async () => {
    const optimizer = newton(optim.sgd(), { rule: "constant", initial: 0.02, telemetry: ["curvature", "loss1"] });
    const [first] = await reports(optimizer, 1);
    const [, h] = FORMULAS.exact?.(1.5, 0.02) ?? [];
    expect(first?.measured.curvature).toBeCloseTo(h ?? Number.NaN, 8);
    expect(first?.measured.loss1).toBeCloseTo(L(1.5 - 0.02 * L1(1.5)), 10);
  });
});

describe("rules from TypeScript", () => {
  it("equal the built-in ones with the same formula", async () => {
    const secant = defineAlphaRule({
      needs: ["slope1"],
      next: ({ alpha, slope0, slope1 }) => ({ slope: slope1, curvature: slope0.sub(slope1).div(alpha) }),
    });
    const options = { gamma: 0.5, initial: 0.02, min: 1e-6, max: 10 };
    const own = await reports(newton(optim.sgd(), { ...options, rule: secant }), 5);
    const builtIn = await reports(newton(optim.sgd(), { ...options, rule: "retsinas" }), 5);
    own.forEach(({ alpha }, index) => {
      expect(alpha).toBeCloseTo(builtIn[index]?.alpha ?? Number.NaN, 10);
    });
  });

  it("may propose α itself, and keep a state", async () => {
    const halving = defineAlphaRule({
      name: "halving",
      needs: [],
      init: () => ({ count: f64([0]) }),
      next: ({ alpha }, { count }) => ({
        alpha: alpha.mul(0.5).add(count.sum().mul(0)),
        state: { count: count.add(1) },
      }),
    });
    const found = await reports(newton(optim.sgd(), { rule: halving, initial: 0.08, gamma: 1 }), 3);
    expect(found.map(({ alpha }) => Number(alpha.toFixed(12)))).toEqual([0.08, 0.04, 0.02]);
  });

  it("are refused with unknown needs and with answers that are no f64 scalars", async () => {
    expect(() => defineAlphaRule({ needs: ["loss2" as "loss1"], next: ({ alpha }) => ({ alpha }) })).toThrow(/loss2/);
    const vector = defineAlphaRule({ needs: [], next: ({ alpha }) => ({ alpha: alpha.reshape([1]) }) });
    await expect(reports(newton(optim.sgd(), { rule: vector }), 1)).rejects.toThrow(/f64 scalars/);
  });
});

describe("options", () => {
  it.each([
    [{ gamma: 0 }, /gamma/],
    [{ gamma: 1.01 }, /gamma/],
    [{ gamma: Number.NaN }, /gamma/],
    [{ min: 1, max: 1 }, /min/],
    [{ min: -1 }, /min/],
    [{ max: Number.POSITIVE_INFINITY }, /max/],
    [{ initial: 0 }, /initial/],
    [{ initial: -1 }, /initial/],
    [{ initial: Number.NaN }, /initial/],
    [{ initial: 5, min: 1e-3, max: 1 }, /initial/],
    [{ rule: "exact", every: 0 }, /every/],
    [{ rule: "exact", every: 1.5 }, /every/],
    [{ rule: "next", every: 2 }, /every/],
    [{ rule: "nextPlain", every: 2 }, /every/],
    [{ sample: 0 }, /sample/],
    [{ sample: 2.5 }, /sample/],
    [{ rule: "newton" }, /no rule "newton"/],
    [{ lr: 0.1 }, /no option lr/],
  ])("refuses %o", (options, message) => {
    expect(() => newton(optim.sgd(), options as object)).toThrow(message);
    expect(() => newton(optim.sgd(), options as object)).toThrow(RaphsonError);
  });

  it("fills in each rule's own defaults", () => {
    for (const rule of ALPHA_RULES) {
      const { spec } = newton(optim.adam(), { rule });
      expect(spec.rule).toBe(rule);
      expect(spec.gamma).toBeGreaterThan(0);
      expect(spec.min).toBeLessThan(spec.max);
    }
    expect(newton(optim.adam()).spec).toMatchObject({ rule: "next", gamma: 0.07, min: 1e-8, max: 100 });
  });
});

describe("the step", () => {
  const line = (seed: number) => {
    const model = nn.linear(3, 1);
    model.initialize(seed);
    return model;
  };
  const batchOf = (rows: number) => ({
    x: random.generator(1).normal([rows, 3]),
    y: random.generator(2).normal([rows, 1]),
  });
  type Batch = ReturnType<typeof batchOf>;
  const squares = ({ x, y }: Batch, model: ReturnType<typeof line>) => model(x).sub(y).square().mean();

  it("replaces the model's parameters in place, and leaves a tree's own tensors alone", async () => {
    const model = line(1);
    const before = model.parameters();
    const [weight] = Object.values(before).map((t) => t.toArray());
    using step = trainingStep({ model, loss: squares, optimizer: optim.sgd({ learningRate: 0.1 }) });
    await step.step(batchOf(8));
    expect(Object.values(model.parameters())[0]?.toArray()).not.toEqual(weight);

    const w = f64([1.5]);
    using own = trainingStep({ params: { w }, loss: quartic, optimizer: optim.sgd() });
    await own.step({});
    expect(w.item()).toBe(1.5);
    expect(own.params.w.item()).not.toBe(1.5);
  });

  it.each([
    { name: "sgd", ends: false },
    { name: "sgd", ends: true },
    { name: "adamW", ends: false },
    { name: "adamW", ends: true },
  ] as const)(
    "goes on as its reference where batches grow and shrink midway ($name, end known: $ends)",
    async ({ name, ends }) => {
      const [width, steps] = [4, 300];
      const random = hostRandom(7);
      const table = Array.from({ length: 200 }, () => Array.from({ length: width + 1 }, () => random.uniform() - 0.5));
      const sizeAt = (t: number) => (t < 60 ? 4 : t < 200 ? 32 : 1);
      const rowsAt = (t: number) => Array.from({ length: sizeAt(t) }, (_, i) => table[(7 * t + i) % 200] as number[]);
      const residual = (row: readonly number[], w: readonly number[]) =>
        w.reduce((sum, value, i) => sum + value * (row[i] ?? 0), 0) - (row[0] ?? 0) - 0.1 * (row[width] ?? 0);
      const mean = (t: number, of: (row: readonly number[]) => number) =>
        rowsAt(t).reduce((sum, row) => sum + of(row), 0) / sizeAt(t);
      const oracle: Oracle = {
        loss: (w, t) => mean(t, (row) => residual(row, w) ** 2),
        gradient: (w, t) => w.map((_, i) => mean(t, (row) => 2 * residual(row, w) * (row[i] ?? 0))),
      };
      const begin = [2, -1, 1, 3];
      const direction = { of: DIRECTIONS[name](width), undo: () => expect.fail("no step is taken back here") };
      const wanted = nextPath([[0, 1, 2, 3]], oracle, direction, begin, {
        alpha: 0.01,
        steps,
        ...(ends ? { total: steps } : {}),
      });

      using step = trainingStep({
        params: { w: f64(begin) },
        loss: ({ x, y }: { x: Tensor<"f64">; y: Tensor<"f64"> }, { w }: Scalars) => x.matmul(w).sub(y).square().mean(),
        optimizer: newton(optim[name](), ends ? { totalSteps: steps } : {}),
      });
      for (const [t, stand] of wanted.entries()) {
        const x = tensor(
          rowsAt(t).map((row) => row.slice(0, width)),
          { dtype: "f64" },
        );
        const { nextAlpha, accepted } = await step.step({
          x,
          y: f64(rowsAt(t).map((row) => (row[0] ?? 0) + 0.1 * (row[width] ?? 0))),
        });
        expect(accepted).toBe(stand.accepted);
        expect(nextAlpha / (stand.alphas[0] ?? Number.NaN), `step ${t}`).toBeCloseTo(1, 8);
      }
      const found = await step.params.w.data();
      wanted.at(-1)?.w.forEach((value, i) => {
        expect(found[i]).toBeCloseTo(value, 8);
      });
    },
  );

  it("takes batches of changing shapes, with a bounded number of programs", async () => {
    using step = trainingStep({ model: line(1), loss: squares, optimizer: newton(optim.momentum()) });
    for (let rows = 1; rows <= 20; rows++) expect((await step.step(batchOf(rows))).loss).toBeGreaterThan(0);
    expect(step.signatures).toBe(16);
  });

  it("says what its programs take", async () => {
    using step = trainingStep({
      model: line(1),
      loss: squares,
      optimizer: newton(optim.adam(), { rule: "constant", initial: 0.1, every: 2 }),
    });
    expect(step.programs()).toEqual([]);
    await step.step(batchOf(8));
    const [program] = step.programs();
    expect(program?.name).toBe("measuring");
    // the batch is 8 × 2 numbers, and every tensor that goes in comes out in the same place
    expect(program?.peakBytes).toBeGreaterThanOrEqual((program?.arenaBytes ?? 0) + 8 * 2 * 4);
    await step.step(batchOf(8));
    expect(step.programs().map(({ name }) => name)).toEqual(["measuring", "resting"]);
    await step.step(batchOf(16));
    expect(step.programs().map(({ name }) => name)).toEqual(["measuring", "resting", "measuring"]);
  });

  it("refuses losses that are not float scalars, before anything runs", async () => {
    const loss = ({ x, y }: Batch, model: ReturnType<typeof line>) => model(x).sub(y);
    using step = trainingStep({ model: line(1), loss, optimizer: newton(optim.sgd()) });
    await expect(step.step(batchOf(2))).rejects.toThrow(/one number.*\[2, 1\]/);
    const none = trainingStep({ model: line(1), loss: (() => 3) as never, optimizer: optim.sgd() });
    await expect(none.step({})).rejects.toThrow(/tensor/);
    none.dispose();
  });

  it("drops differently at each step, and the same for the same seed", async () => {
    const run = async (seed: number) => {
      const model = nn.sequential(nn.linear(3, 16), nn.dropout(0.5), nn.linear(16, 1));
      model.initialize(1);
      const losses: number[] = [];
      using step = trainingStep({
        model,
        loss: ({ x, y }: Batch, model) => model(x).sub(y).square().mean(),
        optimizer: optim.sgd({ learningRate: 1e-9 }),
        seed,
        onReport: ({ loss }) => losses.push(loss),
      });
      const batch = batchOf(8);
      for (let index = 0; index < 4; index++) await step.run(batch);
      await step.drain();
      return losses;
    };
    const first = await run(5);
    expect(new Set(first).size).toBe(4);
    expect(await run(5)).toEqual(first);
    expect(await run(6)).not.toEqual(first);
  });

  it("delivers reports in order, also when nobody waits for the steps", async () => {
    const seen: number[] = [];
    using step = trainingStep({
      model: line(1),
      loss: squares,
      optimizer: newton(optim.adam()),
      onReport: (report) => seen.push(report.step),
    });
    const batch = batchOf(4);
    await Promise.all(Array.from({ length: 20 }, () => step.run(batch)));
    await step.drain();
    expect(seen).toEqual(Array.from({ length: 20 }, (_, index) => index));
  });

  it("recovers from a batch with NaN under next, and stops at it under a constant learning rate", async () => {
    const bad = { x: tensor([[Number.NaN, 0, 0]]), y: tensor([[1]]) };
    const good = batchOf(1);
    using recovering = trainingStep({ model: line(1), loss: squares, optimizer: newton(optim.momentum()) });
    for (let index = 0; index < 5; index++) await recovering.step(good);
    const spoilt = await recovering.step(bad);
    expect([Number.isFinite(spoilt.loss), spoilt.accepted]).toEqual([false, false]);
    for (let index = 0; index < 20; index++) await recovering.step(good);
    const { loss, accepted } = await recovering.step(good);
    expect(Number.isFinite(loss)).toBe(true);
    expect(accepted).toBe(true);

    using plain = trainingStep({ model: line(1), loss: squares, optimizer: optim.sgd({ learningRate: 0.01 }) });
    await plain.step(good);
    const failure = await plain.step(bad).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(RaphsonError);
    expect(failure).toMatchObject({ code: "NON_FINITE", message: expect.stringContaining("step 1 ") });
    await expect(plain.step(good)).rejects.toBe(failure);
    dispose(good, bad);
  });
});
