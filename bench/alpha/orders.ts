/**
 * How far each published rule's curvature is from φ″(α), against α: on a smooth loss of one number, measured with the
 * package's own steps. In f64 the order of the error shows, in f32 also where differences of losses drown in rounding.
 */
import { newton, optim, type Tensor, tensor, trainingStep } from "../../src";
import type { Panel, Sheet } from "./plots";

/** The rules that estimate the curvature, each way of doing so once. */
export const ESTIMATES = ["retsinas", "alt1", "alt2", "hermite"] as const;
/** 2⁻¹⁴ to 2⁻². */
const ALPHAS = Array.from({ length: 13 }, (_, index) => 2 ** (index - 14));

type Params = { readonly x: Tensor };
/** exp(.7x) + sin(1.3x) + x⁴/5 */
const loss = (_: object, { x }: Params) =>
  x.mul(0.7).exp().add(x.mul(1.3).sin()).add(x.square().square().mul(0.2)).sum();

async function curvature(rule: (typeof ESTIMATES)[number] | "exact", alpha: number, dtype: "f32" | "f64") {
  using step = trainingStep({
    params: { x: tensor([0.4], { dtype }) as Tensor },
    loss,
    optimizer: newton(optim.sgd(), { rule, guard: false, initial: alpha }),
  });
  return (await step.step({})).curvature;
}

/** |h/φ″(α) − 1| of each rule, in f64 and in f32; φ″ is what `exact` says in f64. */
export async function ordersSheet(): Promise<Sheet> {
  const right = await Promise.all(ALPHAS.map((alpha) => curvature("exact", alpha, "f64")));
  const panels: Panel[] = [];
  for (const dtype of ["f64", "f32"] as const) {
    const lines = ESTIMATES.map(async (name) => {
      const found = await Promise.all(ALPHAS.map((alpha) => curvature(name, alpha, dtype)));
      const errors = found.map((h, index) => Math.abs(h / (right[index] ?? Number.NaN) - 1));
      return { name, points: ALPHAS.map((alpha, index) => [alpha, errors[index] ?? null] as const) };
    });
    panels.push({ title: dtype, lines: await Promise.all(lines) });
  }
  const [x, y] = [
    { name: "α", log: true },
    { name: "relative error of the curvature", log: true },
  ];
  return { title: "Error of each rule's curvature at θ − αω", x, y, panels };
}
