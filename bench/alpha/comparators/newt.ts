/**
 * newt, the PyTorch code that came with "Newton-like method for learning rate selection" (dscamiss, 2025), in its
 * default configuration: the secant rule on the step's own batch, γ 0.001, α within [1e-7, 1] and growing by at most 5
 * %, divided by 10 whenever the loss on that batch has risen, left alone where the denominator is below 1e-9. It
 * recovers ω as the parameters' change divided by −α. It is here as a reference for tests on MNIST with SGD, Adam and
 * AdamW. Its other configuration never stores the loss that it compares with, and is left out.
 */
import { compile, type Optimizer, type Tensor } from "../../../src";
import type { Batch, Task } from "../problems/problem";
import { BaseDirection, LoopTrainer, type Stepped } from "./loop";
import { alphaTensor, inner, mapNamed, moved, type Named, numberOf } from "./objective";

const [GAMMA, EPSILON, LEAST, MOST, GROWTH, FALL] = [1e-3, 1e-9, 1e-7, 1, 1.05, 0.1];

/** What newt measures: losses and slopes ⟨∇L, ω⟩ before and after the step, on one batch. */
export interface NewtMeasures {
  readonly alpha: number;
  readonly loss0: number;
  readonly loss1: number;
  readonly slope0: number;
  readonly slope1: number;
}

/** α′ = α (1 + γ n/(d − n + ε)), limited. */
export function newtAlpha({ alpha, loss0, loss1, slope0, slope1 }: NewtMeasures): number {
  const denominator = slope0 - slope1;
  let factor = denominator < EPSILON ? 1 : Math.min(1 + (GAMMA * slope1) / (denominator + EPSILON), GROWTH);
  if (loss1 > loss0) factor = FALL;
  return Math.min(Math.max(alpha * factor, LEAST), MOST);
}

interface State {
  readonly alpha: number;
  readonly base: unknown;
}

/** newt around an optimizer as a run. */
export class Newt extends LoopTrainer<State> {
  readonly #base: BaseDirection;

  constructor(task: Task, seed: number, optimizer: Optimizer, initial: number) {
    const base = new BaseDirection(optimizer);
    super(task, seed, (params) => ({ alpha: initial, base: base.init(params) }));
    this.#base = this.owned(base);
  }

  protected override async step(batch: Batch, params: Named, { alpha, base }: State): Promise<Stepped<State>> {
    const { loss, gradient } = await this.objective.gradient(params, batch);
    const { omega, state } = this.#base.of(params, gradient, base);
    const next = this.#moved(params, omega, alphaTensor(alpha));
    const recovered = this.#recovered(params, next, alphaTensor(alpha));
    const slope0 = await numberOf(this.#inner(gradient, recovered));
    const ahead = await this.objective.gradient(next, batch);
    const slope1 = await numberOf(this.#inner(ahead.gradient, recovered));
    const after = newtAlpha({ alpha, loss0: loss, loss1: ahead.loss, slope0, slope1 });
    return { params: next, state: { alpha: after, base: state }, loss, alpha };
  }

  /** ω = (θ − θ′)/α, in the parameters' own precision. */
  readonly #recovered = this.owned(
    compile((before: Named, after: Named, alpha: Tensor<"f64">) =>
      mapNamed(
        (old, fresh) => (old as Tensor).sub(fresh as Tensor).div(alpha.cast((old as Tensor).dtype) as Tensor),
        before,
        after,
      ),
    ),
  );

  readonly #moved = this.owned(compile(moved));
  readonly #inner = this.owned(compile(inner));
}
