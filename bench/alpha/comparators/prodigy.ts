/**
 * Prodigy: Adam whose step size d estimates the distance to the solution. Mishchenko and Defazio, "Prodigy: An
 * Expeditiously Adaptive Parameter-Free Learner", 2023 (arXiv 2306.06101), with the defaults of its published code: β
 * 0.9 and 0.999, β₃ = √β₂, d₀ 1e-6, no bias correction, no decay.
 */
import { defineOptimizer, type Optimizer, scalar, type Tensor, where, zerosLike } from "../../../src";

const [BETA1, BETA2, EPSILON, D0] = [0.9, 0.999, 1e-8, 1e-6];
const BETA3 = Math.sqrt(BETA2);

/** A number of the method in the dtype of a parameter. */
export const like = (number: Tensor<"f64">, tensor: Tensor): Tensor => number.cast(tensor.dtype) as Tensor;

/** The sum over all parameters of a number of each, in f64. */
export function total(numbers: readonly Tensor[]): Tensor<"f64"> {
  return numbers.map((number) => number.sum().cast("f64")).reduce((sum, number) => sum.add(number));
}

/** Zeros in the form of each. */
export const zerosOf = (tensors: readonly Tensor[]): Tensor[] => tensors.map((tensor) => zerosLike(tensor) as Tensor);

/** A number of the method before the first step. */
export const beginning = (value: number): Tensor<"f64"> => scalar(value, { dtype: "f64" });

/** Prodigy as an optimizer that runs plain with its learning rate of 1. */
export function prodigy(): Optimizer<unknown> {
  return defineOptimizer({
    name: "prodigy",
    learningRate: 1,
    init: (given) => {
      const params = given as readonly Tensor[];
      return {
        ...{ d: beginning(D0), numerator: beginning(0) },
        start: params.map((param) => param.clone()),
        ...{ s: zerosOf(params), m: zerosOf(params), v: zerosOf(params) },
      };
    },
    direction: ({ params: given, gradients: slopes, state }) => {
      const [params, gradients] = [given as readonly Tensor[], slopes as readonly Tensor[]];
      const { d, start } = state;
      // r ← β₃ r + (d/d₀) d ⟨g, θ₀ − θ⟩;  s ← β₃ s + (d/d₀) d g;  d ← max(d, r/‖s‖₁)
      const weight = d.square().div(D0);
      const along = params.map((param, i) => (gradients[i] as Tensor).mul((start[i] as Tensor).sub(param)));
      const numerator = state.numerator.mul(BETA3).add(weight.mul(total(along)));
      const s = state.s.map((sum, i) => sum.mul(BETA3).add((gradients[i] as Tensor).mul(like(weight, sum))));
      const size = total(s.map((sum) => sum.abs()));
      const estimate = where(size.greater(0), numerator.div(size.maximum(1e-300)), d);
      const next = d.maximum(estimate);
      // m ← β₁ m + (1 − β₁) d g;  v ← β₂ v + (1 − β₂) d² g²;  θ′ = θ − d m/(√v + d′ε)
      const m = state.m.map((mean, i) =>
        mean.mul(BETA1).add((gradients[i] as Tensor).mul(like(d.mul(1 - BETA1), mean))),
      );
      const v = state.v.map((mean, i) => {
        const scaled = (gradients[i] as Tensor).mul(like(d, mean));
        return mean.mul(BETA2).add(scaled.square().mul(1 - BETA2));
      });
      const omega = m.map((mean, i) => {
        const root = (v[i] as Tensor).sqrt().add(like(next.mul(EPSILON), mean));
        return mean.div(root).mul(like(d, mean));
      });
      return { omega, state: { d: next, numerator, start, s, m, v } };
    },
  }) as Optimizer<unknown>;
}
