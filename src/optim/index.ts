/**
 * `optim`: the built-in optimizers with their options. Each gives a direction ω; wrap it in `newton(…)` to have its
 * learning rate found, or give `learningRate` and use it plain.
 */
import { argumentError } from "../errors";
import type { AnyTensor } from "../tensor";
import { nativeOptimizer, type Optimizer } from "./optimizer";
import type { Schedule } from "./schedule";

export type { Direction, DirectionInput, Optimizer, OptimizerDefinition } from "./optimizer";
export { defineOptimizer } from "./optimizer";
export type { Schedule } from "./schedule";
export { schedule } from "./schedule";

type NativeOptimizer = Optimizer<readonly AnyTensor[]>;

/** Options that every optimizer has. */
export interface PlainOptions {
  /** A number, or a schedule that gives one for each step. Not used under `newton`. */
  readonly learningRate?: number | Schedule;
}

/** Options of `optim.momentum` and `optim.nesterov`. */
export interface MomentumOptions extends PlainOptions {
  /** How much of the last velocity is kept, in [0, 1); 0.9 if not given. */
  readonly beta?: number;
}

/** Options of `optim.adam`. */
export interface AdamOptions extends PlainOptions {
  /** Decay of the mean gradient, in [0, 1); 0.9 if not given. */
  readonly beta1?: number;
  /** Decay of the mean square, in [0, 1); 0.999 if not given. */
  readonly beta2?: number;
  /** Added to the root of the mean square; 1e-8 if not given. */
  readonly epsilon?: number;
}

/** Options of `optim.adamW`. */
export interface AdamWOptions extends AdamOptions {
  /** Decoupled decay: ω gains weightDecay · θ; 0.01 if not given. */
  readonly weightDecay?: number;
}

type Range = readonly [accepts: (value: number) => boolean, text: string];
const FRACTION: Range = [(value) => value >= 0 && value < 1, "at least 0 and less than 1"];
const POSITIVE: Range = [(value) => Number.isFinite(value) && value > 0, "a positive number"];
const NOT_NEGATIVE: Range = [(value) => Number.isFinite(value) && value >= 0, "a number of at least 0"];

/** Defaults filled in, ranges checked, unknown names refused. */
function checked<T extends object>(
  op: string,
  given: T,
  fields: Readonly<Record<string, readonly [fallback: number, range: Range]>>,
): Record<string, number> {
  const entries = new Map<string, unknown>(Object.entries(given));
  entries.delete("learningRate");
  for (const name of entries.keys()) {
    if (fields[name] !== undefined) continue;
    const known = ["learningRate", ...Object.keys(fields)].join(", ");
    throw argumentError(op, `there is no option ${name}; the options are ${known}`);
  }
  const pairs = Object.entries(fields).map(([name, [fallback, [accepts, text]]]): [string, number] => {
    const value = entries.get(name) ?? fallback;
    if (typeof value === "number" && accepts(value)) return [name, value];
    throw argumentError(op, `${name} must be ${text}, not ${value}`);
  });
  return Object.fromEntries(pairs);
}

/**
 * Gradient descent: ω = ∇L.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const plain = optim.sgd({ learningRate: 0.1 });
 * const automatic = newton(optim.sgd());   // no learning rate
 * console.log(plain.name, automatic.optimizer.name);
 * ```
 */
export function sgd(options: PlainOptions = {}): NativeOptimizer {
  return nativeOptimizer("sgd", checked("optim.sgd", options, {}), options.learningRate ?? 0.01);
}

/** Heavy ball: v ← βv + ∇L, ω = v. */
export function momentum(options: MomentumOptions = {}): NativeOptimizer {
  const numbers = checked("optim.momentum", options, { beta: [0.9, FRACTION] });
  return nativeOptimizer("momentum", numbers, options.learningRate ?? 0.01);
}

/** Nesterov's momentum: v ← βv + ∇L, ω = ∇L + βv. */
export function nesterov(options: MomentumOptions = {}): NativeOptimizer {
  const numbers = checked("optim.nesterov", options, { beta: [0.9, FRACTION] });
  return nativeOptimizer("nesterov", numbers, options.learningRate ?? 0.01);
}

const ADAM = { beta1: [0.9, FRACTION], beta2: [0.999, FRACTION], epsilon: [1e-8, POSITIVE] } as const;

/** Adam: ω = m̂ / (√v̂ + ε), with bias-corrected means of the gradient and of its square. */
export function adam(options: AdamOptions = {}): NativeOptimizer {
  return nativeOptimizer("adam", checked("optim.adam", options, ADAM), options.learningRate ?? 0.001);
}

/**
 * AdamW: Adam's ω plus weightDecay · θ.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * console.log(newton(optim.adamW({ weightDecay: 0.1 })).optimizer.options.weightDecay);
 * ```
 */
export function adamW(options: AdamWOptions = {}): NativeOptimizer {
  const numbers = checked("optim.adamW", options, { ...ADAM, weightDecay: [0.01, NOT_NEGATIVE] });
  return nativeOptimizer("adamw", numbers, options.learningRate ?? 0.001);
}
