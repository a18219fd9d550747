/**
 * Schedule-Free SGD and AdamW: gradients at y, between the plain iterate z and the average x that is evaluated.
 * Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky, "The Road Less Scheduled", 2024 (arXiv 2405.15682). Defaults of
 * the published code: a learning rate of 1 (SGD) or 0.0025 (AdamW), β 0.9, β₂ 0.999, no warm-up, no decay, weights by
 * the square of the largest rate so far.
 */
import { compile, type Tensor } from "../../../src";
import type { Batch, Task } from "../problems/problem";
import { LoopTrainer, type Stepped } from "./loop";
import { alphaTensor, copies, mapNamed, moved, type Named } from "./objective";

const [BETA, BETA2, EPSILON] = [0.9, 0.999, 1e-8];

/** Options of `ScheduleFree`. */
export interface ScheduleFreeOptions {
  /** Divide gradients by the root of their mean square, as Adam does. */
  readonly adam: boolean;
  /** 1 for SGD and 0.0025 for Adam unless given. */
  readonly learningRate?: number;
}

interface State {
  readonly z: Named;
  readonly x: Named;
  readonly v: Named;
  readonly steps: number;
  readonly largest: number;
  readonly weights: number;
}

/** Schedule-Free as a run. */
export class ScheduleFree extends LoopTrainer<State> {
  readonly #adam: boolean;
  readonly #learningRate: number;

  constructor(task: Task, seed: number, options: ScheduleFreeOptions) {
    const zero = (params: Named) => mapNamed((tensor) => (tensor as Tensor).mul(0), params);
    super(task, seed, (params) => ({
      ...{ z: copies(params), x: copies(params), v: zero(params) },
      ...{ steps: 0, largest: 0, weights: 0 },
    }));
    this.#adam = options.adam;
    this.#learningRate = options.learningRate ?? (options.adam ? 0.0025 : 1);
  }

  protected override chosen(_: Named, { x }: State): Named {
    return x;
  }

  protected override async step(batch: Batch, y: Named, state: State): Promise<Stepped<State>> {
    const { loss, gradient } = await this.objective.gradient(y, batch);
    const steps = state.steps + 1;
    // Adam's correction of v, taken into the rate: γ = γ₀ √(1 − β₂ᵗ)
    const rate = this.#learningRate * (this.#adam ? Math.sqrt(1 - BETA2 ** steps) : 1);
    const largest = Math.max(state.largest, rate);
    const weights = state.weights + largest ** 2;
    const given = { gradient, z: state.z, x: state.x, v: state.v };
    const next = this.#move(given, alphaTensor(rate), alphaTensor(largest ** 2 / weights), this.#adam);
    const { params, z, x, v } = next;
    return { params, state: { z, x, v, steps, largest, weights }, loss, alpha: rate };
  }

  /** z ← z − γ g/(√v + ε);  x ← (1 − c) x + c z;  y = (1 − β) z + β x */
  readonly #move = this.owned(
    compile(
      (
        given: Pick<State, "z" | "x" | "v"> & { gradient: Named },
        rate: Tensor<"f64">,
        c: Tensor<"f64">,
        adam: boolean,
      ) => {
        const { gradient } = given;
        const v = mapNamed(
          (mean, g) => (mean as Tensor).mul(BETA2).add((g as Tensor).square().mul(1 - BETA2)),
          given.v,
          gradient,
        );
        const divided = mapNamed((g, mean) => (g as Tensor).div((mean as Tensor).sqrt().add(EPSILON)), gradient, v);
        const z = moved(given.z, adam ? divided : gradient, rate);
        const x = mapNamed(
          (old, fresh) =>
            (old as Tensor).add((fresh as Tensor).sub(old as Tensor).mul(c.cast((old as Tensor).dtype) as Tensor)),
          given.x,
          z,
        );
        const params = mapNamed((fresh, mean) => (fresh as Tensor).mul(1 - BETA).add((mean as Tensor).mul(BETA)), z, x);
        return { params, z, x, v };
      },
    ),
  );
}
