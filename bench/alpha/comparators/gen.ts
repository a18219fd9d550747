/**
 * GeN: a parabola through three losses of another batch along the direction. Bu and Xu, "Gradient Descent with
 * Generalized Newton's Method", ICLR 2025 (arXiv 2407.02772), lazily, as its published code (AutoGeN) does it: every
 * 4th step, α for the next steps is 0.9 α + 0.1 clip(α*, α/2, 2α) where the parabola opens upwards and falls; the
 * optimizer's state advances a second time there; losses that are not finite halve α.
 */
import { compile, type Optimizer } from "../../../src";
import type { Batch, Task } from "../problems/problem";
import { BaseDirection, LoopTrainer, type Stepped } from "./loop";
import { alphaTensor, moved, type Named } from "./objective";

const [LAZY, SMOOTH] = [4, 0.9];

/** Options of `Gen`. */
export interface GenOptions {
  readonly optimizer: Optimizer;
  /** α before the first measurement. */
  readonly initial: number;
  /** Batches of their own to measure on. */
  readonly draw: () => Batch;
}

interface State {
  readonly alpha: number;
  readonly steps: number;
  readonly base: unknown;
}

/**
 * α after losses at θ − αω (`ahead`), θ + αω (`behind`) and θ. Of three points a parabola misses none, so its fit is
 * not judged.
 */
export function genAlpha(alpha: number, ahead: number, behind: number, here: number): number {
  const [up, down] = [ahead - here, behind - here];
  if (!Number.isFinite(up) || !Number.isFinite(down)) return alpha / 2;
  // φ(s) − φ(0) = h s²/2 − G s:  h = (φ(α) + φ(−α) − 2φ(0))/α²,  G = (φ(−α) − φ(α))/(2α)
  const [h, G] = [(up + down) / alpha ** 2, (down - up) / (2 * alpha)];
  if (!(h > 0 && G > 0)) return alpha;
  return SMOOTH * alpha + (1 - SMOOTH) * Math.max(Math.min(G / h, 2 * alpha), alpha / 2);
}

/** GeN around an optimizer as a run. */
export class Gen extends LoopTrainer<State> {
  readonly #base: BaseDirection;
  readonly #draw: () => Batch;

  constructor(task: Task, seed: number, { optimizer, initial, draw }: GenOptions) {
    const base = new BaseDirection(optimizer);
    super(task, seed, (params) => ({ alpha: initial, steps: 0, base: base.init(params) }));
    this.#base = this.owned(base);
    this.#draw = draw;
  }

  protected override async step(batch: Batch, params: Named, state: State): Promise<Stepped<State>> {
    const { loss, gradient } = await this.objective.gradient(params, batch);
    let { alpha, base } = state;
    if ((state.steps + 1) % LAZY === 0) {
      const first = this.#base.of(params, gradient, base);
      base = first.state;
      const other = this.#draw();
      const at = (factor: number) =>
        this.objective.loss(this.#moved(params, first.omega, alphaTensor(factor * alpha)), other);
      alpha = genAlpha(alpha, await at(1), await at(-1), await at(0));
    }
    const { omega, state: after } = this.#base.of(params, gradient, base);
    const next = this.#moved(params, omega, alphaTensor(alpha));
    return { params: next, state: { alpha, steps: state.steps + 1, base: after }, loss, alpha };
  }

  readonly #moved = this.owned(compile(moved));
}
