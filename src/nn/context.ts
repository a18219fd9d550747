/**
 * What a forward pass depends on beside its input: values given for parameters, training or not, and randomness; and
 * what it leaves behind beside its result: new values of states. Contexts nest; they hold for the synchronous call they
 * were opened for.
 */

import type { DType, FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { RandomGenerator } from "../random";
import { isTensor, type Tensor } from "../tensor";
import type { Module, Parameters } from "./module";
import type { ParameterLike } from "./moduleLike";

/** How to run a model. */
export interface ApplyOptions {
  /** Training mode: dropout drops. False unless given, or given by the context around. */
  readonly training?: boolean;
  /** Where dropout gets its randomness from. */
  readonly random?: RandomGenerator;
  /** What modules compute in, though parameters, inputs and outputs are f32; f32 itself unless given. */
  readonly precision?: "f32" | "f16" | "bf16";
}

/** Options of `apply`. */
export interface ApplyWithStatesOptions extends ApplyOptions {
  /**
   * Called once, after the function, with the states that it updated, by name (running statistics of batch normalisation,
   * in training). They are then not stored: that is up to you.
   */
  readonly onStates?: (states: Parameters) => void;
}

/** Options that programs of training set, and no user. */
export interface PassOptions extends ApplyOptions {
  /** What running statistics move by in this pass, in place of each layer's momentum. */
  readonly statisticsWeight?: Tensor;
}

/** New values of states, in the order of their first update. */
export type Updates = Map<ParameterLike, Tensor>;

interface Context {
  readonly values: ReadonlyMap<ParameterLike, Tensor>;
  readonly training: boolean;
  readonly random: RandomGenerator | undefined;
  readonly updates: Updates | undefined;
  readonly precision: "f32" | "f16" | "bf16";
  readonly statisticsWeight: Tensor | undefined;
  /** Whether a module is running, of which this precision is. */
  readonly inside: boolean;
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

/** The value that this forward pass has given a state. */
export function currentUpdate(state: ParameterLike): Tensor | undefined {
  return current?.updates?.get(state);
}

/** Notes a state's new value where the forward pass that is running collects them; says whether it does. */
export function recordUpdate(state: ParameterLike, value: Tensor): boolean {
  if (current?.updates === undefined) return false;
  current.updates.set(state, value);
  return true;
}

/** Whether the forward pass that is running is in training mode. */
export function isTraining(): boolean {
  return current?.training ?? false;
}

/** The randomness of the forward pass that is running, if it was given any. */
export function currentRandom(): RandomGenerator | undefined {
  return current?.random;
}

/** What running statistics move by, where that is not each layer's momentum. */
export function currentStatisticsWeight(): Tensor | undefined {
  return current?.statisticsWeight;
}

/** A parameter's value as the module that is running computes with it. */
export function inPrecision(value: Tensor): Tensor {
  if (current?.inside !== true || current.precision === "f32") return value;
  return converted(value, "f32", current.precision);
}

/**
 * Runs a module. In low precision the outermost one of a forward pass gets its f32 inputs converted, and gives f32: so the
 * loss, and whatever else is computed outside modules, is f32.
 */
export function enter<In extends readonly unknown[], Out>(input: In, forward: (...input: In) => Out): Out {
  if (current === undefined || current.precision === "f32" || current.inside) return forward(...input);
  const around = current;
  const low = around.precision;
  current = { ...around, inside: true };
  try {
    return converted(forward(...converted(input, "f32", low)), low, "f32");
  } finally {
    current = around;
  }
}

/** The same with all tensors of one dtype in the other; what is neither tensor, array nor plain object stays as it is. */
function converted<T>(value: T, from: DType, to: FloatDType): T;
function converted(value: unknown, from: DType, to: FloatDType): unknown {
  if (isTensor(value)) return value.dtype === from ? value.cast(to) : value;
  if (Array.isArray(value)) return value.map((item) => converted(item, from, to));
  if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, converted(item, from, to)]));
}

/** Calls `fn` with values for parameters in place; states that it updates go to `updates`, if given. */
export function withValues<R>(
  values: ReadonlyMap<ParameterLike, Tensor>,
  options: PassOptions,
  fn: () => R,
  updates?: Updates,
): R {
  const around = current;
  current = {
    values,
    training: options.training ?? around?.training ?? false,
    random: options.random ?? around?.random,
    updates: updates ?? around?.updates,
    precision: options.precision ?? around?.precision ?? "f32",
    statisticsWeight: options.statisticsWeight ?? around?.statisticsWeight,
    inside: around?.inside ?? false,
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
 * function of its parameters, for transforms and compiled steps. Names of states may be among them; names that are not
 * the model's are errors.
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
  options: ApplyWithStatesOptions,
  fn: () => R,
): R {
  const states = model.namedStates();
  const named = new Map<string, ParameterLike>([...model.namedParameters(), ...states]);
  const values = new Map<ParameterLike, Tensor>();
  for (const [name, value] of Object.entries(params)) {
    const parameter = named.get(name);
    if (parameter === undefined) {
      throw argumentError("nn.apply", `the model has no parameter "${name}"; it has ${[...named.keys()].join(", ")}`);
    }
    values.set(parameter, value);
  }
  const { onStates } = options;
  if (onStates === undefined) return withValues(values, options, fn);
  const updates: Updates = new Map();
  const result = withValues(values, options, fn, updates);
  const updated = states.flatMap(([name, state]) => {
    const value = updates.get(state);
    return value === undefined ? [] : [[name, value] as const];
  });
  onStates(Object.fromEntries(updated));
  return result;
}
