/**
 * Stochastic Polyak step size: SGD with α = L/(c‖g‖²), which grows by at most a factor of 2 in an epoch. Loizou,
 * Vaswani, Laradji, Lacoste-Julien, "Stochastic Polyak Step-size for SGD", AISTATS 2021 (arXiv 2002.10542). Defaults of
 * the published code: f* = 0, c 0.5, first step size 1.
 */
import type { Batch, Task } from "../problems/problem";
import { SizedDescent, type Stepped } from "./loop";
import { alphaTensor, type Named, numberOf } from "./objective";

const [FIRST, C, GROWTH, EPSILON] = [1, 0.5, 2, 1e-8];

/** The Polyak step as a run; `batches` make an epoch. */
export class Polyak extends SizedDescent {
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
    // α = min(2^{1/batches} α of the step before, L/(c ‖g‖² + ε))
    const size = Math.sqrt(square) < 1e-8 ? 0 : Math.min(this.growth * state.size, loss / (C * square + EPSILON));
    return { params: this.moved(params, gradient, alphaTensor(size)), state: { size }, loss, alpha: size };
  }
}
