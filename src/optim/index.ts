/**
 * `optim`: the built-in optimizers with their options. Each gives a direction ω; wrap it in `newton(…)` to have its
 * learning rate found, or give `learningRate` and use it plain.
 */
export {
  adadelta,
  adafactor,
  adagrad,
  adam,
  adamW,
  amsgrad,
  lamb,
  lion,
  momentum,
  muon,
  nadam,
  nesterov,
  radam,
  rmsprop,
  sgd,
} from "./builtIn";
export type { Group, Match, ParameterInfo, Part } from "./groups";
export { combine } from "./groups";
export type { Direction, DirectionInput, Optimizer, OptimizerDefinition, Recalled, RecallInput } from "./optimizer";
export { defineOptimizer } from "./optimizer";
export type * from "./options";
export type { Schedule } from "./schedule";
export { schedule } from "./schedule";
