/**
 * What the package exports. Everything public is named here; the files hold the documentation.
 */

export { type Compiled, type CompileOptions, compile, type ProgramSize } from "./compile";
export * as data from "./data";
export { deviceInfo } from "./device";
export type { DataOf, DType, FloatDType, IntegerDType, NumericDType, TypedArray } from "./dtype";
export { RaphsonError, type RaphsonErrorCode } from "./errors";
export { floatToHalf, halfToFloat } from "./half";
export { HostRandom, type HostRandomState, hostRandom } from "./hostRandom";
export * as io from "./io";
export * as loss from "./loss";
export * from "./newton";
export * as nn from "./nn";
export * as optim from "./optim";
export { defineOptimizer, type Optimizer, type Schedule, schedule } from "./optim";
export * as random from "./random";
export {
  type AnyTensor,
  type Axes,
  type ElementOf,
  isTensor,
  type NestedArray,
  type Operand,
  type ReduceOptions,
  type Shape,
  Tensor,
  type VarianceOptions,
} from "./tensor";
export { where } from "./tensor/composed";
export {
  arange,
  type DTypeOption,
  eye,
  fromTypedArray,
  full,
  linspace,
  type Nested,
  ones,
  onesLike,
  scalar,
  type TensorOptions,
  tensor,
  zeros,
  zerosLike,
} from "./tensor/creation";
export type { Index, Indices, Range } from "./tensor/indexing";
export { concatenate, stack } from "./tensor/movement";
export { dispose, keep, type Stats, stats, synchronize, tidy, untracked } from "./tidy";
export * from "./train";
export {
  type ArgumentOption,
  grad,
  hvp,
  jvp,
  type Loss,
  secondDerivativeAlong,
  type ValueAndGradient,
  type ValueAuxAndGradient,
  valueAndGrad,
  vjp,
} from "./transforms";
export { type GradientOf, mapTree, type ReadonlyTensors } from "./tree";
