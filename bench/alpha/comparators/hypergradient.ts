/**
 * Hypergradient descent on α around any optimizer. Baydin, Cornish, Martínez Rubio, Schmidt, Wood, "Online Learning
 * Rate Adaptation with Hypergradient Descent", ICLR 2018 (arXiv 1703.04782): α ← α + β ⟨g, ω of the step before⟩.
 * Defaults of the published code: β 1e-6, and 1e-8 for Adam.
 */
import { type AnyTensor, defineOptimizer, type Optimizer, type Tensor } from "../../../src";
import { beginning, like, total, zerosOf } from "./prodigy";

/** Options of `hypergradient`. */
export interface HypergradientOptions {
  /** α before the first step. */
  readonly initial: number;
  /** β, the rate of α's own descent. */
  readonly beta: number;
}

/** The optimizer with an α that descends; runs plain with a learning rate of 1. */
export function hypergradient(base: Optimizer, { initial, beta }: HypergradientOptions): Optimizer<unknown> {
  return defineOptimizer({
    name: `hypergradient ${base.name}`,
    learningRate: 1,
    init: (params, paths) => ({
      base: base.init(params, paths),
      last: zerosOf(params as readonly Tensor[]),
      alpha: beginning(initial),
    }),
    direction: ({ state, ...given }) => {
      const gradients = given.gradients as readonly Tensor[];
      const slope = total(gradients.map((g, i) => g.mul(state.last[i] as Tensor)));
      const alpha = state.alpha.add(slope.mul(beta));
      const { omega, state: after } = base.direction({ ...given, state: state.base });
      const last = omega as readonly AnyTensor[] as readonly Tensor[];
      return { omega: last.map((line) => line.mul(like(alpha, line))), state: { base: after, last: [...last], alpha } };
    },
  }) as Optimizer<unknown>;
}
