/**
 * What comparators with loops of their own share: parameters and state from one step to the next, who frees them, and
 * the direction of a base optimizer as a compiled function.
 */
import { type AnyTensor, compile, dispose, type Optimizer, type Tensor, tidy, untracked } from "../../../src";
import type { Batch, Task } from "../problems/problem";
import { FORWARD, type Trainer } from "../trainer";
import { inner, moved, type Named, Objective } from "./objective";

/** What a step gives: everything anew, for the old is freed. */
export interface Stepped<S> {
  readonly params: Named;
  readonly state: S;
  readonly loss: number;
  /** α as applied; NaN where there is none. */
  readonly alpha: number;
}

/** A run made of a loop on the host. `S` is the method's state: a tree of tensors and numbers. */
export abstract class LoopTrainer<S> implements Trainer {
  readonly losses: number[] = [];
  readonly alphas: number[] = [];
  protected readonly objective: Objective;
  readonly #owned: { dispose(): void }[] = [];
  #current: { readonly params: Named; readonly state: S };

  constructor(task: Task, seed: number, init: (params: Named) => S) {
    this.objective = new Objective(task, seed);
    const params = this.objective.begin();
    this.#current = { params, state: untracked(() => init(params)) };
  }

  /** Compiled functions that are freed with the run. */
  protected owned<T extends { dispose(): void }>(compiled: T): T {
    this.#owned.push(compiled);
    return compiled;
  }

  /** One step on a batch from the parameters and the state before it. */
  protected abstract step(batch: Batch, params: Named, state: S): Promise<Stepped<S>>;

  /** The parameters to evaluate; those of the last step unless the method has others. */
  protected chosen(params: Named, _state: S): Named {
    return params;
  }

  async run(batch: Batch): Promise<void> {
    const { params, state } = this.#current;
    const next = await untracked(() => tidy(() => this.step(batch, params, state)));
    freeAll({ params, state });
    this.#current = next;
    this.losses.push(next.loss);
    this.alphas.push(next.alpha);
  }

  get work(): number {
    return this.objective.gradients + FORWARD * this.objective.forwards;
  }

  async evaluate<R>(use: (params: unknown) => R): Promise<R> {
    return use(this.objective.place(this.chosen(this.#current.params, this.#current.state)));
  }

  dispose(): void {
    freeAll(this.#current);
    for (const compiled of this.#owned) compiled.dispose();
    this.objective.dispose();
  }
}

/** Gradient descent whose step size is chosen anew from the loss and ‖g‖², and grows by a factor at most in an epoch. */
export abstract class SizedDescent extends LoopTrainer<{ readonly size: number }> {
  /** The most that a step size grows in one step. */
  protected readonly growth: number;

  /** `growth` is the factor of an epoch, of `batches`; `first` the step size before the first step. */
  constructor(task: Task, seed: number, batches: number, { first, growth }: { first: number; growth: number }) {
    super(task, seed, () => ({ size: first }));
    this.growth = growth ** (1 / batches);
  }

  /** ‖g‖² */
  protected readonly square = this.owned(compile((gradient: Named) => inner(gradient, gradient)));
  /** θ − αg */
  protected readonly moved = this.owned(compile(moved));
}

/** Frees the tensors in a tree of objects, arrays, tensors and numbers. */
function freeAll(tree: unknown): void {
  dispose({ tree });
}

/** A base optimizer's direction and state after it, for records of tensors. */
export class BaseDirection {
  readonly #optimizer: Optimizer;

  constructor(optimizer: Optimizer) {
    this.#optimizer = optimizer;
  }

  init(params: Named): unknown {
    return this.#optimizer.init(Object.values(params), Object.keys(params));
  }

  dispose(): void {
    this.of.dispose();
  }

  /** ω and the state after it; may be called inside a compiled function too. */
  readonly of = compile((params: Named, gradient: Named, state: unknown) => {
    const names = Object.keys(params);
    const given = { params: Object.values(params), gradients: Object.values(gradient), state, paths: names };
    const { omega, state: after } = this.#optimizer.direction(given);
    const line = Object.fromEntries(names.map((name, index) => [name, omega[index] as AnyTensor as Tensor]));
    return { omega: line as Named, state: after };
  });
}
