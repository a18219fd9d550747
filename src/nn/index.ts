/**
 * Modules and layers, as the namespace `nn`.
 */

export * from "./activations";
export * from "./attention";
export { type ApplyOptions, type ApplyWithStatesOptions, apply, currentRandom, isTraining } from "./context";
export * from "./conv";
export type { Initializer } from "./initializers";
export * from "./layers";
export { Module, Parameter, type Parameters } from "./module";
export * from "./norm";
export {
  gru,
  lstm,
  Recurrent,
  type RecurrentOptions,
  type RecurrentResult,
  type RecurrentState,
  type RnnOptions,
  rnn,
} from "./recurrent";
export { State } from "./state";
