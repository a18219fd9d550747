/**
 * What trees need to know of modules, apart from the class itself, so that neither file needs the other to load.
 */

import type { Tensor } from "../tensor";

/** A parameter as trees see it. */
export interface ParameterLike {
  /** The value, made by the initialiser if it does not exist yet; inside `nn.apply`, the value given there. */
  readonly value: Tensor;
  /** The stored value, if it exists. */
  readonly current: Tensor | undefined;
}

/** The mark that modules carry. */
export const MODULE: unique symbol = Symbol.for("raphson.module");

/** A module as trees see it. */
export interface ModuleLike {
  readonly [MODULE]: true;
  namedParameters(): readonly (readonly [name: string, parameter: ParameterLike])[];
  namedStates(): readonly (readonly [name: string, state: ParameterLike])[];
}

/** Whether `value` is a module. */
export function isModule(value: unknown): value is ModuleLike {
  return typeof value === "function" && MODULE in value;
}
