/**
 * Modules and layers, as the namespace `nn`.
 */

export { type ApplyOptions, type ApplyWithStatesOptions, apply, currentRandom, isTraining } from "./context";
export type { Initializer } from "./initializers";
export * from "./layers";
export { Module, Parameter, type Parameters } from "./module";
export { State } from "./state";
