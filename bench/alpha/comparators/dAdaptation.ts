/**
 * D-Adaptation for Adam. Defazio and Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", 2023 (arXiv
 * 2301.07733), as the published code has it in its third version: β 0.9 and 0.999, d₀ 1e-6, no bias correction, no
 * decay, growth unlimited.
 */
import { defineOptimizer, type Optimizer, type Tensor, where } from "../../../src";
import { beginning, like, total, zerosOf } from "./prodigy";

const [BETA1, BETA2, EPSILON, D0] = [0.9, 0.999, 1e-8, 1e-6];
const ROOT = Math.sqrt(BETA2);

/** D-Adapted Adam as an optimizer that runs plain with its learning rate of 1. */
export function dAdaptation(): Optimizer<unknown> {
  return defineOptimizer({
    name: "dAdaptation",
    learningRate: 1,
    init: (given) => {
      const params = given as readonly Tensor[];
      return {
        ...{ d: beginning(D0), numerator: beginning(0) },
        ...{ s: zerosOf(params), m: zerosOf(params), v: zerosOf(params) },
      };
    },
    direction: ({ gradients: slopes, state }) => {
      const gradients = slopes as readonly Tensor[];
      const { d } = state;
      // r ← √β₂ r + (1 − √β₂) d Σ g s/(√v + ε), of s and v from before this step
      const weighed = gradients.map((g, i) =>
        g.mul((state.s[i] as Tensor).div((state.v[i] as Tensor).sqrt().add(EPSILON))),
      );
      const numerator = state.numerator.mul(ROOT).add(d.mul(total(weighed)).mul(1 - ROOT));
      // m ← β₁ m + (1 − β₁) d g;  v ← β₂ v + (1 − β₂) g²;  s ← √β₂ s + (1 − √β₂) d g
      const m = state.m.map((mean, i) =>
        mean.mul(BETA1).add((gradients[i] as Tensor).mul(like(d.mul(1 - BETA1), mean))),
      );
      const v = state.v.map((mean, i) => mean.mul(BETA2).add((gradients[i] as Tensor).square().mul(1 - BETA2)));
      const s = state.s.map((sum, i) => sum.mul(ROOT).add((gradients[i] as Tensor).mul(like(d.mul(1 - ROOT), sum))));
      // d ← max(d, r / ((1 − √β₂) ‖s‖₁));  θ′ = θ − m/(√v + ε)
      const size = total(s.map((sum) => sum.abs()));
      const estimate = numerator.div(size.mul(1 - ROOT).maximum(1e-300));
      const next = where(size.greater(0), d.maximum(estimate), d);
      const omega = m.map((mean, i) => mean.div((v[i] as Tensor).sqrt().add(EPSILON)));
      return { omega, state: { d: next, numerator, s, m, v } };
    },
  }) as Optimizer<unknown>;
}
