/**
 * What a forward pass depends on beside its input: values given for parameters, training or not, and randomness.
 * Contexts nest; they hold for the synchronous call they were opened for.
 */

import { argumentError } from "../errors";
import type { RandomGenerator } from "../random";
import type { Tensor } from "../tensor";
import type { Module, Parameters } from "./module";
import type { ParameterLike } from "./moduleLike";

/** How to run a model. */
export interface ApplyOptions {
  /** Training mode: dropout drops. False unless given, or given by the context around. */
  readonly training?: boolean;
  /** Where dropout gets its randomness from. */
  readonly random?: RandomGenerator;
}

interface Context {
  readonly values: ReadonlyMap<ParameterLike, Tensor>;
  readonly training: boolean;
  readonly random: RandomGenerator | undefined;
  readonly around: Context | undefined;
}

let current: Context | undefined;

/** The value given for a parameter by the innermost context that has one. */
export function currentValue(parameter: ParameterLike): Tensor | undefined {
  for (let context = current; context !== undefined; context = context.around) {
    const value = context.values.get(parameter);
    if (value !== undefined) return value;
  }
  return undefined;
}

/** Whether the forward pass that is running is in training mode. */
export function isTraining(): boolean {
  return current?.training ?? false;
}

/** The randomness of the forward pass that is running, if it was given any. */
export function currentRandom(): RandomGenerator | undefined {
  return current?.random;
}

/** Calls `fn` with values for parameters in place. */
export function withValues<R>(values: ReadonlyMap<ParameterLike, Tensor>, options: ApplyOptions, fn: () => R): R {
  const around = current;
  current = {
    values,
    training: options.training ?? around?.training ?? false,
    random: options.random ?? around?.random,
    around,
  };
  try {
    const result = fn();
    if (result instanceof Promise) {
      throw argumentError("nn.apply", "the function must not be async: the parameters are in place only while it runs");
    }
    return result;
  } finally {
    current = around;
  }
}

/**
 * Calls `fn` with `params` in the place of the model's parameters, and in the given mode. This is how a model becomes a
 * function of its parameters, for transforms and compiled steps. Names that are not the model's are errors.
 *
 * ```ts
 * import { nn, ones, valueAndGrad } from "raphson";
 *
 * const model = nn.linear(3, 1);
 * const loss = (params: nn.Parameters) => nn.apply(model, params, { training: true }, () => model(ones([4, 3])).square().mean());
 * const { value, gradient } = valueAndGrad(loss)(model.parameters());
 * console.log(value.item() >= 0, Object.keys(gradient));
 * ```
 */
export function apply<In extends readonly unknown[], Out, R>(
  model: Module<In, Out>,
  params: Parameters,
  options: ApplyOptions,
  fn: () => R,
): R {
  const named = new Map<string, ParameterLike>(model.namedParameters());
  const values = new Map<ParameterLike, Tensor>();
  for (const [name, value] of Object.entries(params)) {
    const parameter = named.get(name);
    if (parameter === undefined) {
      throw argumentError("nn.apply", `the model has no parameter "${name}"; it has ${[...named.keys()].join(", ")}`);
    }
    values.set(parameter, value);
  }
  return withValues(values, options, fn);
}
