/**
 * Modules and layers, as the namespace `nn`.
 */

export { type ApplyOptions, apply, currentRandom, isTraining } from "./context";
export * from "./conv";
export type { Initializer } from "./initializers";
export * from "./layers";
export { Module, Parameter, type Parameters } from "./module";
