/**
 * Every optimizer against traces from PyTorch (`parity/optimizers.py`) in f64, parameter groups, clipping, accumulation and
 * schedules among them; and every optimizer under every rule.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  ALPHA_RULES,
  type Clip,
  newton,
  type Optimizer,
  optim,
  schedule,
  type Tensor,
  tensor,
  trainingStep,
} from "raphson";
import { describe, expect, it } from "vitest";

type F64 = Tensor<"f64">;
type Params = { readonly w: F64; readonly b: F64; readonly v: F64 };
type Batch = { readonly x: F64; readonly y: F64; readonly z: F64 };
type Name = keyof typeof MAKE;

interface Case {
  readonly optimizer: Name;
  readonly options: object;
  readonly learningRate: number;
  readonly accumulate?: number;
  readonly clip?: Clip;
  readonly trace: readonly Readonly<Record<keyof Params, readonly number[]>>[];
}

interface Golden {
  readonly steps: readonly number[];
  readonly cases: readonly Case[];
  readonly schedules: readonly { schedule: keyof typeof schedule; options: object; rates: readonly number[] }[];
}

const MAKE = {
  sgd: optim.sgd,
  momentum: optim.momentum,
  nesterov: optim.nesterov,
  adam: optim.adam,
  adamW: optim.adamW,
  amsgrad: optim.amsgrad,
  nadam: optim.nadam,
  radam: optim.radam,
  adagrad: optim.adagrad,
  adadelta: optim.adadelta,
  rmsprop: optim.rmsprop,
  lion: optim.lion,
  adafactor: optim.adafactor,
  lamb: optim.lamb,
  muon: optim.muon,
};
const NAMES = Object.keys(MAKE) as Name[];
const golden = JSON.parse(readFileSync(join(__dirname, "parity", "optimizers.json"), "utf8")) as Golden;

/** `numbers` of the Python side. */
const numbers = (shape: readonly number[], seed: number): F64 => {
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Array.from({ length: count }, (_, i) => ((7 * i * i + 11 * i + 13 * seed) % 17) / 17 - 0.5);
  return tensor(values, { dtype: "f64" }).reshape(shape);
};
const start = (): Params => ({ w: numbers([3, 2], 0), b: numbers([3], 1), v: numbers([2, 2, 3], 2) });
const batchOf = (batch: number): Batch => ({
  x: numbers([5, 2], 3 * batch),
  y: numbers([5, 3], 3 * batch + 1),
  z: numbers([2, 2, 3], 3 * batch + 2),
});
const lossOf = ({ x, y, z }: Batch, { w, b, v }: Params) => {
  const fit = x.dot(w.transpose()).add(b).tanh().sub(y).square().mean();
  return fit.add(v.mul(z).sub(y.at(0).at(0)).square().mean());
};

type Options = Omit<Parameters<typeof trainingStep<Params, Batch>>[0], "loss" | "params">;

/** The parameters after each of `steps` steps. */
async function follow(options: Options, steps: number): Promise<Record<keyof Params, number[]>[]> {
  using step = trainingStep<Params, Batch>({ params: start(), loss: lossOf, ...options });
  const { accumulate = 1 } = options;
  const found = [];
  for (let index = 0; index < steps; index++) {
    const batches = Array.from({ length: accumulate }, (_, micro) => batchOf(index * accumulate + micro));
    await step.step(...batches);
    const { w, b, v } = step.params;
    found.push({ w: [...w.dataSync()], b: [...b.dataSync()], v: [...v.dataSync()] });
  }
  return found;
}

describe("as in PyTorch", () => {
  const title = ({ optimizer, options, accumulate, clip }: Case) =>
    `${optimizer} ${JSON.stringify({ ...options, accumulate, clip })}`;

  it.each(golden.cases.map((one) => [title(one), one] as const))("%s", async (_, one) => {
    const { optimizer, options, learningRate, accumulate = 1, clip, trace } = one;
    const found = await follow(
      { optimizer: MAKE[optimizer]({ ...options, learningRate }), accumulate, ...(clip && { clip }) },
      20,
    );
    golden.steps.forEach((step, at) => {
      for (const name of ["w", "b", "v"] as const) {
        const [actual, expected] = [found[step - 1]?.[name] ?? [], trace[at]?.[name] ?? []];
        expect(actual.length).toBe(expected.length);
        const size = Math.hypot(...expected);
        const error = Math.hypot(...expected.map((value, i) => value - (actual[i] ?? Number.NaN)));
        expect(error / size, `${name} after step ${step}`).toBeLessThanOrEqual(1e-10);
      }
    });
  });

  it("covers every optimizer, twice", () => {
    for (const name of NAMES) {
      expect(golden.cases.filter(({ optimizer }) => optimizer === name).length).toBeGreaterThanOrEqual(2);
    }
  });

  it.each(golden.schedules)("schedule.$schedule $options", ({ schedule: name, options, rates }) => {
    const made = (schedule[name] as (options: object) => (step: number) => number)(options);
    rates.forEach((rate, step) => {
      expect(Math.abs(made(step) - rate), `step ${step}`).toBeLessThanOrEqual(1e-14);
    });
  });
});

describe("every optimizer", () => {
  const mean = (losses: readonly number[]) => losses.reduce((a, b) => a + b, 0) / losses.length;

  async function losses(optimizer: Parameters<typeof trainingStep>[0]["optimizer"], steps: number) {
    using step = trainingStep<Params, Batch>({ params: start(), loss: lossOf, optimizer });
    const found: number[] = [];
    for (let index = 0; index < steps; index++) found.push((await step.step(batchOf(index % 4))).loss);
    return found;
  }

  it.each(NAMES.flatMap((name) => ALPHA_RULES.map((rule) => [name, rule] as const)))(
    "%s runs under the rule %s",
    async (name, rule) => {
      const found = await losses(newton(MAKE[name](), { rule, initial: 1e-3 }), 24);
      expect(found.every(Number.isFinite)).toBe(true);
      expect(new Set(found.slice(0, 4)).size).toBe(4);
    },
  );

  it.each(NAMES)("%s learns under next without a learning rate", async (name) => {
    const found = await losses(newton(MAKE[name]({ weightDecay: 0 }), { initial: 1e-6 }), 400); // lion starts slowly: its steps are as long as α allows
    expect(mean(found.slice(-4))).toBeLessThan(0.6 * mean(found.slice(0, 4)));
  });

  it.each(NAMES)("%s repeats itself bit for bit", async (name) => {
    const twice = [
      await follow({ optimizer: newton(MAKE[name]()) }, 6),
      await follow({ optimizer: newton(MAKE[name]()) }, 6),
    ];
    expect(twice[0]).toEqual(twice[1]);
  });

  it.each(NAMES)("%s follows a schedule", async (name) => {
    const halved = await follow({ optimizer: MAKE[name]({ learningRate: (step) => (step === 0 ? 0.01 : 0) }) }, 2);
    expect(halved[1]).toEqual(halved[0]);
    const fixed = await follow({ optimizer: MAKE[name]({ learningRate: 0.01 }) }, 2);
    expect(fixed[0]).toEqual(halved[0]);
    expect(fixed[1]).not.toEqual(fixed[0]);
  });
});

describe("groups", () => {
  const optimizer = (groups: NonNullable<Parameters<typeof optim.sgd>[0]>["groups"]): Optimizer =>
    optim.sgd({ learningRate: 0.1, ...(groups && { groups }) });

  it("are chosen by pattern, by path and by function, the first that fits", async () => {
    const by = async (match: RegExp | string | ((parameter: optim.ParameterInfo) => boolean)) =>
      (await follow({ optimizer: optimizer([{ match, learningRateFactor: 0.5 }]) }, 3)).at(-1);
    const pattern = await by(/^b$/g);
    expect(await by("b")).toEqual(pattern);
    expect(await by(({ path, shape, dtype }) => path === "b" && shape.length === 1 && dtype === "f64")).toEqual(
      pattern,
    );
    expect(pattern).not.toEqual((await follow({ optimizer: optimizer(undefined) }, 3)).at(-1));
    const first = optimizer([
      { match: /b/, learningRateFactor: 0.5 },
      { match: /./, learningRateFactor: 1 },
    ]);
    expect((await follow({ optimizer: first }, 3)).at(-1)).toEqual(pattern);
  });

  it("may have optimizers of their own", async () => {
    const mixed = optim.combine([
      { match: "w", optimizer: optim.muon(), learningRateFactor: 20 },
      { optimizer: optim.adamW({ learningRate: 0.001 }) },
    ]);
    const found = await follow({ optimizer: mixed }, 5);
    const muon = await follow({ optimizer: optim.muon({ learningRate: 0.02 }) }, 1);
    const adamW = await follow({ optimizer: optim.adamW({ learningRate: 0.001 }) }, 1);
    expect(found[0]?.w.map((x) => x.toFixed(12))).toEqual(muon[0]?.w.map((x) => x.toFixed(12)));
    expect([found[0]?.b, found[0]?.v]).toEqual([adamW[0]?.b, adamW[0]?.v]);
  });

  it("share α under newton", async () => {
    const groups = [{ match: "b", weightDecay: 0.1, learningRateFactor: 0.5 }];
    const found = await follow({ optimizer: newton(optim.sgd({ groups })) }, 10);
    expect(found.at(-1)?.w.every(Number.isFinite)).toBe(true);
  });

  it("are refused where they make no sense", async () => {
    const run = async (groups: readonly object[]) => follow({ optimizer: optimizer(groups as never) }, 1);
    await expect(run([{ match: /bais/ }])).rejects.toThrow(/group 0 \(\/bais\/\) has no parameter; there are w, b, v/);
    await expect(run([{ match: () => 1 }])).rejects.toThrow(/true or false/);
    await expect(run([{ match: 3 }])).rejects.toThrow(/match must be/);
    await expect(run([{ weightDecay: 0 }])).rejects.toThrow(/no match/);
    await expect(run([{ match: "b", learningRate: 0.1 }])).rejects.toThrow(/learningRateFactor instead/);
    await expect(run([{ match: "b", learningRateFactor: 0 }])).rejects.toThrow(/positive/);
    await expect(run([{ match: "b", beta: 0.9 }])).rejects.toThrow(/no option beta/);
    const part = { match: "b", optimizer: optim.sgd() };
    await expect(follow({ optimizer: optim.combine([part]) }, 1)).rejects.toThrow(/no part has the parameter w/);
    expect(() => optim.combine([])).toThrow(/at least one/);
  });
});

describe("clipping and accumulation", () => {
  it("leave a rule's inner products alone", async () => {
    const report = async (clip: Clip | undefined) => {
      using step = trainingStep<Params, Batch>({
        params: start(),
        loss: lossOf,
        optimizer: newton(optim.sgd(), { rule: "exact", initial: 0.01 }),
        ...(clip && { clip }),
      });
      return await step.step(batchOf(0));
    };
    const [free, bound] = [await report(undefined), await report({ norm: 0.01 })];
    // d = ⟨g, ω⟩ with ω = .01 g/‖g‖: .01 ‖g‖
    expect(bound.slope).toBeCloseTo(0.01 * Math.sqrt(free.slope), 12);
    expect(bound.loss).toBe(free.loss);
  });

  it("average losses and gradients: the same batch thrice is that batch", async () => {
    for (const optimizer of [optim.adam(), newton(optim.momentum()), newton(optim.sgd(), { rule: "exact" })]) {
      const losses = async (accumulate: number) => {
        using step = trainingStep<Params, Batch>({ params: start(), loss: lossOf, optimizer, accumulate });
        const found: number[] = [];
        for (let index = 0; index < 12; index++) {
          const batch = batchOf(index % 3);
          found.push((await step.step(...Array.from({ length: accumulate }, () => batch))).loss);
        }
        expect(step.steps).toBe(12);
        return found;
      };
      const [once, thrice] = [await losses(1), await losses(3)];
      thrice.forEach((loss, index) => {
        expect(Math.abs(loss - (once[index] ?? 0))).toBeLessThanOrEqual(1e-9 * loss);
      });
    }
  });

  it("report once a step, also when nobody waits", async () => {
    const seen: number[] = [];
    using step = trainingStep<Params, Batch>({
      params: start(),
      loss: lossOf,
      optimizer: newton(optim.adam()),
      accumulate: 3,
      onReport: ({ step: index }) => seen.push(index),
    });
    await Promise.all(Array.from({ length: 20 }, (_, index) => step.run(batchOf(index))));
    await step.drain();
    expect(seen).toEqual([0, 1, 2, 3, 4, 5]);
    await expect(step.step(batchOf(0), batchOf(1), batchOf(2))).rejects.toThrow(/under way/);
    await step.run(batchOf(20));
    await expect(step.step(batchOf(0))).rejects.toThrow(/takes 3 batches/);
    expect((await step.step(batchOf(0), batchOf(1), batchOf(2))).step).toBe(7);
  });

  it("recover from a micro-batch with NaN under next, and stop at it under a constant rate", async () => {
    const bad = { ...batchOf(0), x: numbers([5, 2], 0).mul(Number.NaN) };
    using step = trainingStep<Params, Batch>({
      params: start(),
      loss: lossOf,
      optimizer: newton(optim.adam()),
      accumulate: 2,
    });
    for (let index = 0; index < 4; index++) await step.step(batchOf(0), batchOf(1));
    const spoilt = await step.step(bad, batchOf(1));
    expect([spoilt.accepted, Number.isNaN(spoilt.loss)]).toEqual([false, true]);
    expect(Number.isFinite((await step.step(batchOf(0), batchOf(1))).loss)).toBe(true);
    using plain = trainingStep<Params, Batch>({ params: start(), loss: lossOf, optimizer: optim.sgd(), accumulate: 2 });
    await expect(plain.step(bad, batchOf(1))).rejects.toThrow(/the loss at step 0 is NaN/);
  });

  it.each([
    [{ clip: { norm: 0 } }, /clip.norm/],
    [{ clip: { value: Number.NaN } }, /clip.value/],
    [{ clip: {} }, /clip must be/],
    [{ clip: { norm: 1, value: 1 } }, /clip must be/],
    [{ clip: { size: 1 } }, /clip must be/],
    [{ accumulate: 0 }, /accumulate/],
    [{ accumulate: 1.5 }, /accumulate/],
  ])("refuse %o", (options, message) => {
    const all = { params: start(), loss: lossOf, optimizer: optim.sgd(), ...(options as object) };
    expect(() => trainingStep<Params, Batch>(all)).toThrow(message);
  });
});
