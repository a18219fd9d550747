/**
 * Stochastic line search: SGD whose step satisfies Armijo's condition on its own batch. Vaswani, Mishkin, Laradji,
 * Schmidt, Gidel, Lacoste-Julien, "Painless Stochastic Gradient", NeurIPS 2019 (arXiv 1905.09997). Defaults of the
 * published code: first step size 1, c 0.1, backtracking by 0.9 at most 100 times (then 1e-6), growth by 2 in an epoch,
 * at most 10.
 */
import type { Batch, Task } from "../problems/problem";
import { SizedDescent, type Stepped } from "./loop";
import { alphaTensor, type Named, numberOf } from "./objective";

const [FIRST, C, BACK, GROWTH, MOST, TRIES, LAST] = [1, 0.1, 0.9, 2, 10, 100, 1e-6];

/** Armijo's line search as a run; `batches` make an epoch. */
export class Armijo extends SizedDescent {
  constructor(task: Task, seed: number, batches: number) {
    super(task, seed, batches, { first: FIRST, growth: GROWTH });
  }

  protected override async step(
    batch: Batch,
    params: Named,
    state: { readonly size: number },
  ): Promise<Stepped<{ readonly size: number }>> {
    const { loss, gradient } = await this.objective.gradient(params, batch);
    const square = await numberOf(this.square(gradient));
    let size = Math.min(state.size * this.growth, MOST);
    if (Math.sqrt(square) < 1e-8) size = 0;
    for (let tries = 0; size > 0; tries++) {
      const after = this.moved(params, gradient, alphaTensor(size));
      // L(θ − αg) ≤ L(θ) − c α ‖g‖²
      if ((await this.objective.loss(after, batch)) <= loss - C * size * square)
        return { params: after, state: { size }, loss, alpha: size };
      if (tries === TRIES) break;
      size *= BACK;
    }
    const last = size === 0 ? 0 : LAST;
    const kept = size === 0 ? state.size : size;
    return { params: this.moved(params, gradient, alphaTensor(last)), state: { size: kept }, loss, alpha: last };
  }
}
