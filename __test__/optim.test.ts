/** Directions against formulas written out by hand, options, schedules, optimizers from TypeScript. */
import { defineOptimizer, optim, RaphsonError, schedule, type Tensor, tensor, trainingStep } from "raphson";
import { describe, expect, it } from "vitest";

type Scalars = { readonly w: Tensor };
const START = 1.5;
const TARGET = 0.25;
/** L = Σ (w − target)², so that ∇L = 2 (w − target). */
const loss = (_: object, { w }: Scalars) => w.sub(TARGET).square().sum();
const gradient = (w: number) => 2 * (w - TARGET);

async function path(optimizer: Parameters<typeof trainingStep>[0]["optimizer"], steps = 6): Promise<number[]> {
  using step = trainingStep({ params: { w: tensor([START]) }, loss, optimizer });
  const found: number[] = [];
  for (let index = 0; index < steps; index++) {
    await step.step({});
    found.push(step.params.w.item());
  }
  return found;
}

/** The path that `direction(gradient, step)` gives by hand. */
function byHand(
  rate: (step: number) => number,
  direction: (gradient: number, step: number, w: number) => number,
  steps = 6,
) {
  let w = START;
  return Array.from({ length: steps }, (_, step) => {
    w -= rate(step) * direction(gradient(w), step, w);
    return w;
  });
}

function expectClose(actual: number[], expected: number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, index) => {
    expect(value).toBeCloseTo(expected[index] ?? Number.NaN, 5);
  });
}

describe("optimizers run plain", () => {
  it("sgd: ω = ∇L", async () => {
    expectClose(
      await path(optim.sgd({ learningRate: 0.1 })),
      byHand(
        () => 0.1,
        (g) => g,
      ),
    );
  });

  it("momentum: v ← βv + g", async () => {
    let v = 0;
    const expected = byHand(
      () => 0.05,
      (g) => {
        v = 0.8 * v + g;
        return v;
      },
    );
    expectClose(await path(optim.momentum({ learningRate: 0.05, beta: 0.8 })), expected);
  });

  it("nesterov: ω = g + βv", async () => {
    let v = 0;
    const expected = byHand(
      () => 0.05,
      (g) => {
        v = 0.9 * v + g;
        return g + 0.9 * v;
      },
    );
    expectClose(await path(optim.nesterov({ learningRate: 0.05 })), expected);
  });

  const adamByHand = (rate: number, decay: number) => {
    let [m, v] = [0, 0];
    return byHand(
      () => rate,
      (g, step, w) => {
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        const [mean, square] = [m / (1 - 0.9 ** (step + 1)), v / (1 - 0.99 ** (step + 1))];
        return mean / (Math.sqrt(square) + 1e-6) + decay * w;
      },
    );
  };

  it("adam and adamW", async () => {
    const options = { learningRate: 0.1, beta2: 0.99, epsilon: 1e-6 };
    expectClose(await path(optim.adam(options)), adamByHand(0.1, 0));
    expectClose(await path(optim.adamW({ ...options, weightDecay: 0.3 })), adamByHand(0.1, 0.3));
  });

  it("follows a schedule", async () => {
    const rate = schedule.cosine({ steps: 6, value: 0.2, final: 0.1 });
    expectClose(
      await path(optim.sgd({ learningRate: rate })),
      byHand(rate, (g) => g),
    );
  });

  it("an optimizer from TypeScript, with state", async () => {
    const heavyBall = defineOptimizer({
      name: "heavyBall",
      learningRate: 0.05,
      init: (params) => ({ velocities: params.map((param) => (param as Tensor).mul(0)) }),
      direction({ gradients, state }) {
        const velocities = gradients.map((g, i) => (state.velocities[i] as Tensor).mul(0.8).add(g as Tensor));
        return { omega: velocities, state: { velocities } };
      },
    });
    expectClose(await path(heavyBall), await path(optim.momentum({ learningRate: 0.05, beta: 0.8 })));
  });

  it("refuses a direction of another shape or number", async () => {
    const wrong = (omega: (gradients: readonly unknown[]) => Tensor[]) =>
      defineOptimizer({
        name: "wrong",
        init: () => [],
        direction: ({ gradients, state }) => ({ omega: omega(gradients), state }),
      });
    await expect(path(wrong(() => []))).rejects.toThrow(/0 tensors for 1 parameters/);
    await expect(path(wrong(() => [tensor([1, 2])]))).rejects.toThrow(/direction 0 is f32 \[2\]/);
  });
});

describe("options", () => {
  it.each([
    [() => optim.sgd({ learningRate: 0 }), /learningRate/],
    [() => optim.sgd({ learningRate: Number.NaN }), /learningRate/],
    [() => optim.momentum({ beta: 1 }), /beta/],
    [() => optim.adam({ beta1: -0.1 }), /beta1/],
    [() => optim.adam({ epsilon: 0 }), /epsilon/],
    [() => optim.adamW({ weightDecay: -1 }), /weightDecay/],
    [() => optim.adam({ betas: [0.9, 0.99] } as object), /no option betas/],
    [() => schedule.cosine({ steps: 0 }), /steps/],
    [() => schedule.step({ every: 1.5 }), /every/],
  ])("refuses %s", (make, message) => {
    expect(make).toThrow(message);
    expect(make).toThrow(RaphsonError);
  });
});

describe("schedules", () => {
  it("have their shapes", () => {
    expect(schedule.constant(0.3)(99)).toBe(0.3);
    const falling = schedule.step({ every: 10, factor: 0.5, value: 2 });
    expect([falling(0), falling(9), falling(10), falling(25)]).toEqual([2, 2, 1, 0.5]);
    const cosine = schedule.cosine({ steps: 100 });
    expect([cosine(0), cosine(50), cosine(100), cosine(200)].map((v) => Number(v.toFixed(12)))).toEqual([1, 0.5, 0, 0]);
    const warm = schedule.warmUp({ steps: 4, after: cosine });
    expect([warm(0), warm(3), warm(4), warm(54)].map((v) => Number(v.toFixed(12)))).toEqual([0.25, 1, 1, 0.5]);
    const cycle = schedule.oneCycle({ steps: 100, rise: 0.25, start: 0.1, final: 0 });
    expect([cycle(0), cycle(25), cycle(100)].map((v) => Number(v.toFixed(12)))).toEqual([0.1, 1, 0]);
  });

  it("are refused at the step where they give nonsense", async () => {
    const broken = optim.sgd({ learningRate: (step) => (step < 2 ? 0.1 : Number.NaN) });
    await expect(path(broken)).rejects.toThrow(/NaN at step 2/);
  });
});
