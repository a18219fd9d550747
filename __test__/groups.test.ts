/** Groups of parameters with an α each: against plain loops, frozen, saved and resumed, and what is refused. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type NewtonOptions,
  newton,
  nn,
  type Optimizer,
  ones,
  optim,
  RaphsonError,
  type StepReport,
  type Tensor,
  tensor,
  trainingStep,
} from "raphson";
import { describe, expect, it } from "vitest";
import { batchOf, CURVATURES, DIRECTIONS, oracle as steady } from "./alpha/references";
import { type Direction, nextPath, type Oracle, retsinasPath, type Stand } from "./groupsReference";
import { thrown } from "./thrown";

/** Seven numbers in two parameters of which the second is steeper, so that one α for both is a compromise. */
const BEGIN = [1, -2, 0.5, 1.5, -1, 0.3, 2];
const PARTS = [
  [0, 1, 2],
  [3, 4, 5, 6],
] as const;
const STEEP = 6;

type Factors = Readonly<Record<number, number>>;
type Params = { readonly a: Tensor<"f64">; readonly b: Tensor<"f64"> };
type Batch = Readonly<Record<"scale" | "shift", Tensor<"f64">>>;
const f64 = (values: number[]) => tensor(values, { dtype: "f64" });

/** The comparators' loss of (a, 6b), times the batch's factor. */
const oracleWith = (factors: Factors): Oracle => {
  const stretched = (w: readonly number[]) => w.map((x, at) => (at < 3 ? x : STEEP * x));
  return {
    loss: (w, t) => (factors[t] ?? 1) * steady.loss(stretched(w), t),
    gradient: (w, t) => steady.gradient(stretched(w), t).map((x, at) => (factors[t] ?? 1) * (at < 3 ? x : STEEP * x)),
  };
};

const loss = ({ scale, shift }: Batch, { a, b }: Params) => {
  const parts = [a, b.mul(STEEP)] as const;
  const bowls = parts.map((part, index) => {
    const curvatures = f64((PARTS[index] ?? []).map((at) => CURVATURES[at] ?? 0));
    return part.sub(shift).square().mul(curvatures).sum().mul(0.5).add(part.square().square().sum().div(4));
  });
  const total = parts[0].sum().add(parts[1].sum());
  return (bowls[0] as Tensor<"f64">)
    .add(bowls[1] as Tensor<"f64">)
    .add(total.square().mul(0.05))
    .mul(scale);
};

function batchAt(t: number, factors: Factors): Batch {
  const { scale, shift } = batchOf(t);
  return { scale: tensor(scale * (factors[t] ?? 1), { dtype: "f64" }), shift: tensor(shift, { dtype: "f64" }) };
}

/** The references' directions, which can forget their last call. */
function directionOf(
  make: (size: number) => (gradient: readonly number[], w: readonly number[]) => number[],
): Direction {
  const calls: (readonly [readonly number[], readonly number[]])[] = [];
  let current = make(BEGIN.length);
  return {
    of(gradient, w) {
      calls.push([gradient, w]);
      return current(gradient, w);
    },
    undo() {
      calls.pop();
      current = make(BEGIN.length);
      for (const [gradient, w] of calls) current(gradient, w);
    },
  };
}

/** Momentum for the first part, Adam for the second. */
const mixed = (size: number) => {
  const [first, second] = [DIRECTIONS.momentum(size), DIRECTIONS.adam(size)];
  return (gradient: readonly number[], w: readonly number[]) => {
    const [left, right] = [first(gradient, w), second(gradient, w)];
    return gradient.map((_, at) => (at < 3 ? left[at] : right[at]) ?? 0);
  };
};

const OPTIMIZERS = {
  "sgd, which has no state": [() => optim.sgd({ groups: [{ match: "a" }] }), DIRECTIONS.sgd],
  "AdamW, which recalls its last step": [() => optim.adamW({ groups: [{ match: "a" }] }), DIRECTIONS.adamW],
  "momentum and Adam, which do not": [
    () => optim.combine([{ match: "a", optimizer: optim.momentum() }, { optimizer: optim.adam() }]),
    mixed,
  ],
} as const;

async function pathOf(optimizer: Optimizer, options: NewtonOptions, steps: number, factors: Factors) {
  using step = trainingStep({
    params: { a: f64(BEGIN.slice(0, 3)), b: f64(BEGIN.slice(3)) },
    loss,
    optimizer: newton(optimizer, { groups: "separate", ...options }),
  });
  const stands: Stand[] = [];
  for (let t = 0; t < steps; t++) {
    const { groups = [], accepted } = await step.step(batchAt(t, factors));
    const w = [...(await step.params.a.data()), ...(await step.params.b.data())];
    stands.push({
      applied: groups.map(({ alpha }) => alpha),
      alphas: groups.map(({ nextAlpha }) => nextAlpha),
      w,
      accepted,
    });
  }
  return stands;
}

function expectSame(found: readonly Stand[], wanted: readonly Stand[], digits: number): void {
  expect(found).toHaveLength(wanted.length);
  found.forEach((stand, t) => {
    const want = wanted[t] as Stand;
    expect(stand.accepted, `step ${t}`).toBe(want.accepted);
    for (const name of ["applied", "alphas", "w"] as const) {
      stand[name].forEach((value, at) => {
        const error = Math.abs(value - (want[name][at] ?? Number.NaN)) / Math.max(Math.abs(value), 1e-3);
        expect(error, `${name} ${at} of step ${t}`).toBeLessThan(10 ** -digits);
      });
    }
  });
}

describe("groups with an α each", () => {
  describe.each(Object.entries(OPTIMIZERS))("of %s", (_, [make, direction]) => {
    const optimizer = () => make() as Optimizer;
    it.each([
      { alpha: 1e-6, factors: {} },
      { alpha: 10, factors: {} },
      { alpha: 10, total: 60, factors: {} },
      { alpha: 0.1, factors: { 20: Number.NaN, 40: 1e3, 41: Number.NaN } },
    ])(
      "next follows plain loops from $alpha with $factors and $total steps known",
      async ({ alpha, total, factors }) => {
        const known = total === undefined ? {} : { totalSteps: total };
        const found = await pathOf(optimizer(), { initial: alpha, gamma: 0.1, ...known }, 60, factors);
        const run = { alpha, steps: 60, gamma: 0.1, ...(total !== undefined && { total }) };
        const wanted = nextPath(PARTS, oracleWith(factors), directionOf(direction), BEGIN, run);
        expectSame(found, wanted, 7);
        const [first = 0, second = 0] = found.at(-1)?.alphas ?? [];
        expect(first).not.toBe(second);
      },
    );

    it.each([0.01, 1])("retsinas follows plain loops from %d, and takes all groups back as one", async (alpha) => {
      const factors = { 10: Number.NaN };
      const found = await pathOf(optimizer(), { rule: "retsinas", initial: alpha }, 40, factors);
      const wanted = retsinasPath(PARTS, oracleWith(factors), directionOf(direction), BEGIN, { alpha, steps: 40 });
      expectSame(found, wanted, 7);
      expect(found[10]).toMatchObject({ accepted: false, w: found[9]?.w });
    });
  });

  it("are the same as one α where there is one group", async () => {
    const run = async (options: NewtonOptions) => {
      const optimizer = optim.adamW({ groups: [{ match: /./ }] });
      using step = trainingStep({
        params: { a: f64(BEGIN.slice(0, 3)), b: f64(BEGIN.slice(3)) },
        loss,
        optimizer: newton(optimizer, options),
      });
      const reports: StepReport[] = [];
      for (let t = 0; t < 20; t++) reports.push(await step.step(batchAt(t, {})));
      return reports;
    };
    expect(await run({ groups: "separate" })).toEqual(await run({}));
  });
});

/** Two groups of a network in f32, with nothing but tensors in its batches. */
function network(options: NewtonOptions = {}) {
  const model = nn.sequential(nn.linear(3, 8), nn.tanh(), nn.linear(8, 2)).initialize(4);
  const optimizer = optim.adamW({ groups: [{ match: ({ shape }) => shape.length < 2, weightDecay: 0 }] });
  return trainingStep({
    model,
    loss: ({ x }: { x: Tensor }, net) => net(x).sub(1).square().mean(),
    optimizer: newton(optimizer, { groups: "separate", ...options }),
  });
}
const points = (t: number) => ({ x: ones([4, 3]).mul(Math.cos(t)) });

describe("a step with groups", () => {
  it("says α of each, and of the last where one is asked for", async () => {
    using step = network();
    for (let t = 0; t < 15; t++) await step.step(points(t));
    const report = await step.step(points(15));
    expect(report.groups).toHaveLength(2);
    expect(report.groups?.at(-1)).toMatchObject({
      alpha: report.alpha,
      nextAlpha: report.nextAlpha,
      slope: report.slope,
    });
    expect(step.alphas).toEqual(report.groups?.map(({ nextAlpha }) => nextAlpha));
    expect(step.alpha).toBe(step.alphas[1]);
    expect(step.alphas[0]).not.toBe(step.alphas[1]);
  });

  it.each(["next", "retsinas"] as const)(
    "holds each α while it is frozen (%s), and goes on from there",
    async (rule) => {
      using step = network({ rule });
      for (let t = 0; t < 15; t++) await step.run(points(t));
      await step.drain();
      const held = step.alphas;
      step.freeze();
      for (let t = 15; t < 18; t++) {
        const { groups } = await step.step(points(t));
        expect(groups?.map(({ alpha }) => alpha)).toEqual(held);
      }
      step.unfreeze();
      const { groups = [] } = await step.step(points(18));
      for (const [index, group] of groups.entries()) {
        expect(Math.abs(Math.log(group.alpha / (held[index] ?? 0)))).toBeLessThan(Math.log(5));
      }
    },
  );

  it.each(["next", "nextPlain", "retsinas"] as const)("goes on from a checkpoint bit for bit (%s)", async (rule) => {
    const folder = await mkdtemp(join(tmpdir(), "raphson-groups-"));
    try {
      using first = network({ rule });
      using second = network({ rule });
      for (let t = 0; t < 12; t++) await first.run(points(t));
      const path = join(folder, "step.safetensors");
      await first.save(path);
      await second.load(path);
      expect(second.alphas).toEqual(first.alphas);
      for (let t = 12; t < 20; t++) expect(await second.step(points(t))).toEqual(await first.step(points(t)));
      using shared = network({ rule, groups: "shared" });
      await expect(shared.load(path)).rejects.toThrow(/its groups is 2, and here it is 0/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("keeps each α where gradients overflow in f16", async () => {
    const model = nn.sequential(nn.linear(3, 8), nn.linear(8, 2)).initialize(4);
    const optimizer = newton(optim.adamW({ groups: [{ match: /bias/ }] }), { groups: "separate", initial: 1e-3 });
    using step = trainingStep({
      model,
      loss: ({ x }: { x: Tensor }, net) => net(x).sub(1).square().mean().mul(1e4),
      optimizer,
      precision: "f16",
    });
    const report = await step.step(points(0));
    expect(report).toMatchObject({ overflow: true, accepted: false, alpha: 1e-3 });
    expect(report.groups?.map(({ nextAlpha }) => nextAlpha)).toEqual([1e-3, 1e-3]);
  });
});

describe("wrong groups", () => {
  const grouped = () => optim.adamW({ groups: [{ match: "a" }] });
  it.each([
    [() => newton(optim.adamW(), { groups: "separate" }), /needs an optimizer with groups, and adamw has none/],
    [() => newton(grouped(), { groups: "separate", rule: "alt1" }), /alt1 has one α for all parameters.*next/],
    [() => newton(grouped(), { groups: "separate", rule: "constant" }), /constant has one α/],
    [() => newton(grouped(), { groups: "separate", telemetry: ["loss1"] }), /telemetry/],
    [() => newton(grouped(), { groups: "apart" as "shared" }), /groups is "shared" or "separate", not "apart"/],
  ])("%#: are refused", (make, message) => {
    const error = thrown(make);
    expect(error).toBeInstanceOf(RaphsonError);
    expect(error).toMatchObject({ code: "ARGUMENT", message: expect.stringMatching(message) });
  });

  it("of an optimizer of one's own must have every parameter once", () => {
    const own = { ...optim.sgd(), groups: () => [[0], [0]] };
    const make = () =>
      trainingStep({ params: { a: f64([1]), b: f64([2]) }, loss, optimizer: newton(own, { groups: "separate" }) });
    expect(thrown(make)).toMatchObject({
      code: "ARGUMENT",
      message: expect.stringMatching(/each of the 2 parameters/),
    });
  });
});
