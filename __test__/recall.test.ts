/** Optimizers that recall their last step, and rules that take steps back with them. */
import {
  type AnyTensor,
  defineOptimizer,
  newton,
  type Optimizer,
  optim,
  type StepReport,
  type Tensor,
  tensor,
  trainingStep,
} from "raphson";
import { describe, expect, it } from "vitest";

const f64 = (values: number[]) => tensor(values, { dtype: "f64" });
const numbers = (tensors: readonly AnyTensor[]) =>
  Promise.all(tensors.map(async (one) => Array.from(await one.data(), Number)));

type Params = { readonly w: Tensor<"f64"> };
type Batch = { readonly factor: Tensor<"f64"> };

/** Grouped, or as one: the same optimizer with a factor for nothing, which recalls; and one that does not. */
const OPTIMIZERS = {
  adam: () => optim.adam(),
  adamW: () => optim.adamW({ weightDecay: 0.1 }),
  combined: () => optim.combine([{ optimizer: optim.adamW({ weightDecay: 0.1 }), learningRateFactor: 0.5 }]),
  forgetful: () => ({ ...optim.adamW({ weightDecay: 0.1 }), recall: () => undefined }),
} as const;

async function run<S>(optimizer: () => Optimizer<S>, rule: "next" | "nextPlain") {
  const loss = ({ factor }: Batch, { w }: Params) =>
    w
      .sub(f64([1, -2, 0.5]))
      .square()
      .sum()
      .mul(factor);
  using step = trainingStep({ params: { w: f64([3, 1, -2]) }, loss, optimizer: newton(optimizer(), { rule }) });
  const reports: StepReport[] = [];
  for (let index = 0; index < 60; index++) {
    const factor = index === 5 || index === 30 ? Number.NaN : 1 + 0.2 * Math.sin(index);
    reports.push(await step.step({ factor: tensor(factor, { dtype: "f64" }) }));
  }
  return { reports, w: Array.from(await step.params.w.data()) };
}

describe("recalled steps", () => {
  it("are those that were made, also for parts with a factor", async () => {
    const params = [f64([1, -2, 3]), f64([0.5])];
    const gradients = [f64([0.1, 4, -1]), f64([2])];
    for (const optimizer of [OPTIMIZERS.adam(), OPTIMIZERS.adamW(), OPTIMIZERS.combined()] as Optimizer[]) {
      const { omega, state } = optimizer.direction({ params, gradients, state: optimizer.init(params) });
      const rate = tensor(0.01, { dtype: "f64" });
      const after = params.map((theta, index) => theta.sub((omega[index] as Tensor<"f64">).mul(rate)));
      const recalled = optimizer.recall?.({ params: after, applied: rate, state });
      const [start, again] = [await numbers(recalled?.start ?? []), await numbers(recalled?.omega ?? [])];
      (await numbers(params)).forEach((want, index) => {
        want.forEach((number, place) => {
          expect(start[index]?.[place]).toBeCloseTo(number, 12);
        });
      });
      (await numbers(omega)).forEach((want, index) => {
        want.forEach((number, place) => {
          expect(again[index]?.[place]).toBeCloseTo(number, 12);
        });
      });
    }
  });

  it("lead where stored ones lead, through steps that are taken back", async () => {
    for (const rule of ["next", "nextPlain"] as const) {
      const [told, stored] = [await run(OPTIMIZERS.adamW, rule), await run(OPTIMIZERS.forgetful, rule)];
      expect(told.reports.filter(({ accepted }) => !accepted).length).toBe(2);
      told.reports.forEach(({ alpha, loss }, index) => {
        const other = stored.reports[index];
        expect(alpha / (other?.alpha ?? Number.NaN)).toBeCloseTo(1, 6);
        if (Number.isFinite(loss)) expect(loss / (other?.loss ?? Number.NaN)).toBeCloseTo(1, 6);
      });
      told.w.forEach((number, index) => {
        expect(number).toBeCloseTo(stored.w[index] ?? Number.NaN, 6);
      });
    }
  });

  it("may be told by an optimizer of one's own", async () => {
    type Signs = readonly Tensor<"f64">[];
    const definition = {
      init: (): Signs => [f64([0, 0, 0])],
      direction: ({ gradients }: { gradients: readonly unknown[] }) => {
        const omega = (gradients as Signs).map((gradient) => gradient.sign());
        return { omega, state: omega };
      },
    };
    const told = defineOptimizer<Signs>({
      ...definition,
      recall: ({ params, applied, state }) => ({
        start: (params as Signs).map((theta, index) =>
          theta.add((state[index] as Tensor<"f64">).mul(applied as Tensor<"f64">)),
        ),
        omega: state,
      }),
    });
    const results = [await run(() => told, "next"), await run(() => defineOptimizer<Signs>(definition), "next")];
    results[0]?.reports.forEach(({ alpha }, index) => {
      expect(alpha / (results[1]?.reports[index]?.alpha ?? Number.NaN)).toBeCloseTo(1, 6);
    });
  });
});
