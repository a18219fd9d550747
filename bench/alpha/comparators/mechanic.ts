/**
 * Mechanic: learns the scale of any optimizer's updates by betting. Cutkosky, Defazio, Mehta, "Mechanic: A Learning
 * Rate Tuner", NeurIPS 2023 (arXiv 2306.00144), with the clipping of h that its authors added to their code, and their
 * defaults: six β from 0.9 to 0.999999, a first scale of 1e-8, decay λ 0.01, ε 1e-8.
 */
import { type AnyTensor, defineOptimizer, fromTypedArray, type Optimizer, type Tensor, zeros } from "../../../src";
import { like, total, zerosOf } from "./prodigy";

const [COUNT, FIRST, DECAY, EPSILON] = [6, 1e-8, 0.01, 1e-8];
/** 0.9, 0.99, … */
export const BETAS: readonly number[] = Array.from({ length: COUNT }, (_, i) => 1 - 10 ** -(i + 1));

const norm = (tensors: readonly Tensor[]): Tensor<"f64"> => total(tensors.map((tensor) => tensor.square())).sqrt();
const row = (value: number): Tensor<"f64"> => fromTypedArray(new Float64Array(COUNT).fill(value));

/** The optimizer with the scale of its updates learned; runs plain with a learning rate of 1. */
export function mechanic(base: Optimizer): Optimizer<unknown> {
  return defineOptimizer({
    name: `mechanic ${base.name}`,
    learningRate: 1,
    init: (given, paths) => {
      const params = given as readonly Tensor[];
      return {
        base: base.init(params, paths),
        start: params.map((param) => param.clone()),
        sum: zerosOf(params),
        ...{ scale: row(FIRST), reward: row(0), most: row(0), squares: row(0) },
      };
    },
    direction: ({ state, ...given }) => {
      const params = given.params as readonly Tensor[];
      const gradients = given.gradients as readonly Tensor[];
      const { sum, start } = state;
      const { omega: lines, state: after } = base.direction({ ...given, state: state.base });
      // Δ′ = Δ + ω;  h = ⟨Δ, g + λ Σs ‖g‖ θ/‖θ‖⟩: what a larger scale would have gained on this batch
      const decay = state.scale.sum().mul(norm(gradients)).mul(DECAY).div(norm(params).add(EPSILON));
      const decayed = gradients.map((g, i) => g.add((params[i] as Tensor).mul(like(decay, g))));
      const next = sum.map((line, i) => line.add(lines[i] as AnyTensor as Tensor));
      const h = total(sum.map((line, i) => line.mul(decayed[i] as Tensor)));
      // m ← max(βm, |h| + ε);  v ← β²v + h²;  r ← βr + clip(h, ±m) s;  s ← (s₀/n · m + max(0, r))/(√v + ε)
      const betas = fromTypedArray(Float64Array.from(BETAS));
      const spread = h.add(zeros([COUNT], { dtype: "f64" }));
      const clipped = spread.minimum(state.most).maximum(state.most.neg());
      const most = state.most.mul(betas).maximum(spread.abs().add(EPSILON));
      const squares = state.squares.mul(betas.square()).add(spread.square());
      const reward = state.reward.mul(betas).add(clipped.mul(state.scale));
      const wealth = most.mul(FIRST / COUNT).add(reward.maximum(0));
      const scale = wealth.div(squares.sqrt().add(EPSILON));
      // θ′ = θ₀ − Σs Δ′, as a step from θ
      const whole = scale.sum();
      const omega = params.map((param, i) => {
        const line = next[i] as Tensor;
        return param.sub((start[i] as Tensor).sub(line.mul(like(whole, line))));
      });
      return { omega, state: { base: after, start, sum: next, scale, reward, most, squares } };
    },
  }) as Optimizer<unknown>;
}
