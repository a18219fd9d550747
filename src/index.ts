/**
 * What the package exports. Everything public is named here; the files hold the documentation.
 */

export { type Compiled, type CompileOptions, compile, type ProgramSize } from "./compile";
export * as data from "./data";
export {
  type DeviceInfo,
  type DeviceProbe,
  type DeviceProbes,
  type DeviceSpec,
  deviceInfo,
  probeDevices,
  setDevice,
} from "./device";
export type { DataOf, DType, FloatDType, IntegerDType, NumericDType, TypedArray } from "./dtype";
export { RaphsonError, type RaphsonErrorCode } from "./errors";
export { floatToHalf, halfToFloat } from "./half";
export { HostRandom, type HostRandomState, hostRandom } from "./hostRandom";
export * as io from "./io";
export * as linalg from "./linalg";
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
export { broadcast, type MeshgridOptions, meshgrid, type PadMode, type PadWidth } from "./tensor/arrange";
export { where } from "./tensor/composed";
export {
  type ConvOptions,
  type ConvTransposeOptions,
  conv1d,
  conv2d,
  convTranspose1d,
  convTranspose2d,
  type PerAxis,
  type Sides,
} from "./tensor/convolution";
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
export { einsum } from "./tensor/einsum";
export type { Index, Indices, Range } from "./tensor/indexing";
export type { CloseOptions, NanToNumOptions } from "./tensor/mathematics";
export { kron, type TriangleOptions, tensordot, triangle } from "./tensor/matrix";
export { concatenate, stack } from "./tensor/movement";
export {
  type AvgPoolOptions,
  adaptiveAvgPool2d,
  adaptiveMaxPool2d,
  avgPool1d,
  avgPool2d,
  maxPool1d,
  maxPool2d,
  type PoolOptions,
} from "./tensor/pooling";
export type { ScanOptions } from "./tensor/scan";
export type { IndexTensor, PutOptions } from "./tensor/scatter";
export type { Interpolation, Ordered, QuantileOptions, SortOptions, TopKOptions } from "./tensor/sort";
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
