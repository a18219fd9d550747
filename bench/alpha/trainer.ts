/**
 * One run under way, whatever chooses its α: what the benchmark asks of rules and comparators alike; and the one made
 * of the package's own training step.
 */
import { type NewtonOptimizer, type Optimizer, stats, trainingStep } from "../../src";
import { startUpOf } from "../../src/newton/startUp";
import type { Batch, Task } from "./problems/problem";

/** A run under way. */
export interface Trainer {
  /** Takes a step; its loss may come in a little later. */
  run(batch: Batch): Promise<void>;
  /** The loss of each step before it was taken, on its batch. */
  readonly losses: readonly number[];
  /** α of each step as applied; NaN where the method has none. */
  readonly alphas: readonly number[];
  /** Work so far in gradient evaluations, of which a forward pass is a third. */
  readonly work: number;
  /**
   * Calls `use` with the parameters that the method would have evaluated, a module or a record of tensors, when every
   * step is through.
   */
  evaluate<R>(use: (params: unknown) => R): Promise<R>;
  dispose(): void;
}

/** A forward pass as a part of a gradient evaluation. */
export const FORWARD = 1 / 3;

/**
 * Work per step of the rules that measure on the step's own batch, in gradient evaluations: a pass that carries a slope
 * counts as two forward passes, one that carries slope and curvature as three. Rules that are not here measure nothing.
 */
const RULE_WORK: Readonly<Record<string, number>> = {
  exact: 1 + 3 * FORWARD,
  retsinas: 1 + 2 * FORWARD,
  alt1: 1 + 2 * FORWARD,
  hermite: 1 + 2 * FORWARD,
  alt2: 1 + 3 * FORWARD,
  alt2GradientFree: 1 + 2 * FORWARD,
  alt2GradientFreeAsPublished: 1 + 2 * FORWARD,
};

/** The package's training step as a run. */
export class StepTrainer implements Trainer {
  /** Whether averages of the parameters are evaluated instead of the newest ones. */
  readonly #average: boolean;
  readonly losses: number[] = [];
  readonly alphas: number[] = [];
  readonly #step: ReturnType<typeof trainingStep<unknown, Batch>>;
  readonly #workPerStep: number;
  /** Steps in which the rule looks for its first α. */
  readonly #probedSteps: number;
  /** Programs run beside the steps' own: the start-up probe's. */
  #probes = 0;

  constructor(task: Task, optimizer: Optimizer | NewtonOptimizer, seed: number, average = false) {
    this.#average = average;
    const rule = "kind" in optimizer ? optimizer.rule : "constant";
    const name = typeof rule === "string" ? rule : rule.name;
    this.#workPerStep = RULE_WORK[name] ?? 1;
    this.#probedSteps = startUpOf(name)?.probedSteps ?? 0;
    this.#step = trainingStep<unknown, Batch>({
      params: task.params,
      loss: (batch, params) => task.loss(batch, params),
      optimizer,
      average,
      seed,
      onReport: ({ loss, alpha }) => {
        this.losses.push(loss);
        this.alphas.push(alpha);
      },
    });
  }

  async run(batch: Batch): Promise<void> {
    const before = stats().runs;
    await this.#step.run(batch);
    // A probed step is two programs of its own: one that stays where it is, and a short one that takes it.
    if (this.#step.steps <= this.#probedSteps) this.#probes += Math.max(0, stats().runs - before - 2);
  }

  get work(): number {
    return this.#workPerStep * this.#step.steps + FORWARD * this.#probes;
  }

  async evaluate<R>(use: (params: unknown) => R): Promise<R> {
    await this.#step.drain();
    return this.#average ? this.#step.averaged(use) : use(this.#step.params);
  }

  dispose(): void {
    this.#step.dispose();
  }
}
