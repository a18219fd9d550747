/**
 * What an optimizer is here: a rule that turns gradients into a direction ω, which a step subtracts times a learning
 * rate. The built-in ones are the addon's; `defineOptimizer` makes one from TypeScript. Learning-rate control is not
 * here (see `newton/`).
 */
import { argumentError } from "../errors";
import { type Handle, native } from "../native";
import { type AnyTensor, fromHandle } from "../tensor";
import type { Schedule } from "./schedule";

/** What a direction is made from: parameters and gradients in the same order, and the state before the step. */
export interface DirectionInput<S> {
  readonly params: readonly AnyTensor[];
  readonly gradients: readonly AnyTensor[];
  readonly state: S;
  /** Where each parameter stands: names joined by dots. */
  readonly paths?: readonly string[];
}

/** The direction ω for each parameter (θ′ = θ − αω), and the state after the step. */
export interface Direction<S> {
  readonly omega: readonly AnyTensor[];
  readonly state: S;
}

/** What a step is recalled from: the parameters and the state that it left, and the rate α it was made with (a scalar). */
export interface RecallInput<S> {
  readonly params: readonly AnyTensor[];
  readonly applied: AnyTensor;
  readonly state: S;
  readonly paths?: readonly string[];
  /** Where groups have a rate each: those, in the order of `groups`. `applied` is the last one then. */
  readonly rates?: readonly AnyTensor[];
}

/** A step: the parameters that it began with, and its direction. */
export interface Recalled {
  readonly start: readonly AnyTensor[];
  readonly omega: readonly AnyTensor[];
}

/** An optimizer. `S` is its state: any tree of tensors. */
export interface Optimizer<S = unknown> {
  readonly name: string;
  readonly options: Readonly<Record<string, number>>;
  /** Used when the optimizer runs plain; `newton` replaces it. */
  readonly learningRate: number | Schedule;
  init(params: readonly AnyTensor[], paths?: readonly string[]): S;
  direction(input: DirectionInput<S>): Direction<S>;
  /**
   * Start and direction of the last step, where they can be told from what it left (θ_start = θ + αω). Rules that take
   * steps back need not keep them then: two copies of the parameters less.
   */
  recall?(input: RecallInput<S>): Recalled | undefined;
  /** Of an optimizer with groups: the positions of each group's parameters; a group without any is left out. */
  groups?(params: readonly AnyTensor[], paths?: readonly string[]): readonly (readonly number[])[];
}

/** A learning rate, checked; or a schedule as it is. */
export function checkedLearningRate(op: string, learningRate: number | Schedule): number | Schedule {
  if (typeof learningRate === "function") return learningRate;
  if (Number.isFinite(learningRate) && learningRate > 0) return learningRate;
  throw argumentError(op, `learningRate must be a positive number or a schedule, not ${learningRate}`);
}

const handles = (tensors: readonly AnyTensor[]): Handle[] => tensors.map((tensor) => tensor.handle);

/** An optimizer whose mathematics is in the addon. The addon knows defaults, names and ranges of the options. */
export function nativeOptimizer(
  name: string,
  given: Readonly<Record<string, number>>,
  learningRate: number | Schedule,
): Optimizer<readonly AnyTensor[]> {
  const options = native.directionOptions(name, given);
  return {
    name,
    options,
    learningRate,
    init: (params) => native.directionInit(name, options, handles(params)).map((handle) => fromHandle(handle)),
    direction({ params, gradients, state }) {
      const results = native
        .directionApply(name, options, handles(params), handles(gradients), handles(state))
        .map((handle) => fromHandle(handle));
      return { omega: results.slice(0, params.length), state: results.slice(params.length) };
    },
    recall({ params, applied, state }) {
      const results = native
        .directionRecall(name, options, handles(params), applied.handle, handles(state))
        .map((handle) => fromHandle(handle));
      if (results.length === 0 && params.length > 0) return undefined;
      return { start: results.slice(0, params.length), omega: results.slice(params.length) };
    },
  };
}

/** What `defineOptimizer` takes. */
export interface OptimizerDefinition<S> {
  readonly name?: string;
  /** For display only. */
  readonly options?: Readonly<Record<string, number>>;
  readonly learningRate?: number | Schedule;
  /** The state before the first step: any tree of tensors. */
  init(params: readonly AnyTensor[], paths?: readonly string[]): S;
  /** ω and the state after a step. Traced once and compiled into the step: use tensor methods only. */
  direction(input: DirectionInput<S>): Direction<S>;
  /** The last step from what it left, if that is possible; without it, rules that take steps back store it. */
  recall?(input: RecallInput<S>): Recalled | undefined;
}

/**
 * An optimizer of your own. Its functions work on lists of tensors (one for each parameter) and are traced into the
 * same program as the built-in ones.
 *
 * ```ts
 * import { defineOptimizer, newton } from "raphson";
 *
 * const signs = defineOptimizer({
 *   name: "signs",
 *   init: () => [],
 *   direction: ({ gradients, state }) => ({ omega: gradients.map((gradient) => gradient.sign()), state }),
 * });
 * console.log(newton(signs).optimizer.name);
 * ```
 */
export function defineOptimizer<S>(definition: OptimizerDefinition<S>): Optimizer<S> {
  const { name = "custom", options = {}, learningRate = 0.01 } = definition;
  if (typeof definition.init !== "function" || typeof definition.direction !== "function") {
    throw argumentError("defineOptimizer", "init and direction must be functions");
  }
  return {
    name,
    options,
    learningRate: checkedLearningRate("defineOptimizer", learningRate),
    init: (params, paths) => definition.init(params, paths),
    direction(input) {
      const result = definition.direction(input);
      checkOmega(name, result.omega, input.params);
      return result;
    },
    recall: (input) => definition.recall?.(input),
  };
}

function checkOmega(name: string, omega: readonly AnyTensor[], params: readonly AnyTensor[]): void {
  if (omega.length !== params.length) {
    throw argumentError(name, `direction gave ${omega.length} tensors for ${params.length} parameters`);
  }
  omega.forEach((part, index) => {
    const param = params[index];
    if (param === undefined || (part.dtype === param.dtype && String(part.shape) === String(param.shape))) return;
    throw argumentError(
      name,
      `direction ${index} is ${part.dtype} [${part.shape.join(", ")}], but its parameter is ` +
        `${param.dtype} [${param.shape.join(", ")}]`,
      { shapes: [part.shape, param.shape], dtypes: [part.dtype, param.dtype] },
    );
  });
}
