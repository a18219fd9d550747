/**
 * Functions from functions: gradients, products with Jacobians and Hessians, exact second derivatives. All are exact, work
 * on trees of tensors, and nest. The derivatives themselves are the addon's; compiled functions stand in `compile`.
 */

import { scalarDType } from "./device";
import { type DType, type FloatDType, isFloat } from "./dtype";
import { argumentError, derivativeError, shapeError } from "./errors";
import { native } from "./native";
import { withValues } from "./nn/context";
import type { ParameterLike } from "./nn/moduleLike";
import { type AnyTensor, fromHandle, isTensor, type Tensor } from "./tensor";
import { full, onesLike } from "./tensor/creation";
import { checkFunction, checkOptions, showShape } from "./tensor/validate";
import { tidy } from "./tidy";
import { traced } from "./trace";
import { type Flat, flatten, type GradientOf } from "./tree";

/** A function of trees of tensors. */
export type AnyFunction<A extends readonly unknown[] = never, R = unknown> = (...args: A) => R;

/** Which argument to differentiate with respect to: the first, unless said otherwise. */
export interface ArgumentOption<N extends number = number> {
  readonly argument?: N;
}

/** The type of argument N. */
export type Argument<A extends readonly unknown[], N extends number> = A[N];

/** A loss: a scalar float tensor. */
export type Loss = Tensor<"f32"> | Tensor<"f64"> | Tensor<"f16"> | Tensor<"bf16">;

/** What `valueAndGrad` gives. */
export interface ValueAndGradient<V, T> {
  readonly value: V;
  readonly gradient: GradientOf<T>;
}

/** What `valueAndGrad` gives when the function returns something beside its loss. */
export interface ValueAuxAndGradient<V, Aux, T> extends ValueAndGradient<V, T> {
  readonly aux: Aux;
}

/**
 * The loss and its gradient, which has the very type of the argument: nested arrays and objects of float tensors, or a
 * module (whose gradient is a record of its parameters by name). With `{ aux: true }` the function returns
 * `[loss, aux]`, and `aux` comes back beside the value. Tensors made inside the function live until it returns.
 * Errors: a loss that is no float scalar; an argument with other leaves than float tensors.
 *
 * ```ts
 * import { tensor, valueAndGrad } from "raphson";
 *
 * const params = { w: tensor([1, 2]), b: tensor(3) };
 * const { value, gradient } = valueAndGrad((p: typeof params) => p.w.square().sum().add(p.b))(params);
 * console.log(value.item(), gradient.w.toArray(), gradient.b.item());   // 8 [2, 4] 1
 * ```
 */
export function valueAndGrad<A extends readonly unknown[], V extends Loss, Aux, const N extends number = 0>(
  f: (...args: A) => readonly [V, Aux],
  options: ArgumentOption<N> & { readonly aux: true },
): (...args: A) => ValueAuxAndGradient<V, Aux, Argument<A, N>>;
export function valueAndGrad<A extends readonly unknown[], V extends Loss, const N extends number = 0>(
  f: (...args: A) => V,
  options?: ArgumentOption<N> & { readonly aux?: false },
): (...args: A) => ValueAndGradient<V, Argument<A, N>>;
export function valueAndGrad(
  f: (...args: readonly unknown[]) => unknown,
  options: ArgumentOption & { readonly aux?: boolean } = {},
): (...args: readonly unknown[]) => unknown {
  checkFunction("valueAndGrad", f);
  checkOptions("valueAndGrad", options, ["argument", "aux"]);
  return (...args) => lossAndGradient("valueAndGrad", f, args, options);
}

/**
 * The gradient of a scalar loss; see `valueAndGrad`.
 *
 * ```ts
 * import { grad, scalar, type Tensor } from "raphson";
 *
 * const cube = (x: Tensor) => x.pow(3);
 * console.log(grad(grad(cube))(scalar(2)).item());   // 12
 * ```
 */
export function grad<A extends readonly unknown[], const N extends number = 0>(
  f: (...args: A) => Loss,
  options: ArgumentOption<N> = {},
): (...args: A) => GradientOf<Argument<A, N>> {
  checkFunction("grad", f);
  checkOptions("grad", options, ["argument"]);
  return (...args) => {
    const { value, gradient } = lossAndGradient("grad", f as (...args: readonly unknown[]) => unknown, args, options);
    value.dispose();
    return gradient as GradientOf<Argument<A, N>>;
  };
}

function lossAndGradient(
  op: string,
  f: (...args: readonly unknown[]) => unknown,
  args: readonly unknown[],
  options: ArgumentOption & { readonly aux?: boolean },
): { value: AnyTensor; gradient: unknown; aux?: unknown } {
  const primal = differentiable(op, args, options.argument ?? 0);
  return tidy(() =>
    traced(() => {
      const inputs = aliases(primal.tensors);
      const result = callWith(op, f, args, primal, inputs);
      const [value, aux] = options.aux === true ? pair(op, result) : [result, undefined];
      const loss = scalarLoss(op, value);
      const handles = native.vjp([loss.handle], handlesOf(inputs), [onesLike(loss).handle]);
      const gradient = primal.rebuild(wrapLike(handles, primal.tensors), "records");
      const own = loss.clone(); // the function may hand back a tensor of its caller
      return options.aux === true ? { value: own, gradient, aux } : { value: own, gradient };
    }),
  );
}

/**
 * The value of `f` and its product of a row vector with the Jacobian: `pullback(cotangents)` takes a tree like the value and
 * gives one like the argument. Keep it to use it several times; `dispose` frees what it holds.
 */
export function vjp<T, R, Rest extends readonly unknown[]>(
  f: (x: T, ...rest: Rest) => R,
  x: T,
  ...rest: Rest
): { readonly value: R; pullback(cotangents: GradientOf<R>): GradientOf<T>; dispose(): void } {
  checkFunction("vjp", f);
  const primal = differentiable("vjp", [x, ...rest], 0);
  const [value, inputs] = tidy(() =>
    traced((): [unknown, AnyTensor[]] => {
      const aliased = aliases(primal.tensors);
      return [callWith("vjp", asUntyped(f), [x, ...rest], primal, aliased), aliased];
    }),
  );
  const outputs = flatten(value, "vjp");
  const kept = outputs.tensors.map((tensor) => tensor.clone());
  return {
    value: value as R,
    pullback: (cotangents) => {
      const seeds = matching("vjp", "cotangents", flatten(cotangents, "vjp"), outputs);
      const handles = native.vjp(handlesOf(kept), handlesOf(inputs), handlesOf(seeds));
      return primal.rebuild(wrapLike(handles, primal.tensors), "records") as GradientOf<T>;
    },
    dispose: () => {
      for (const tensor of [...kept, ...inputs]) tensor.dispose();
    },
  };
}

/**
 * The value of `f` at `x` and its derivative along `v`, a tree like `x`: the Jacobian times v, in one forward pass.
 *
 * ```ts
 * import { jvp, type Tensor, tensor } from "raphson";
 *
 * const { value, tangent } = jvp((x: Tensor) => x.sin().sum(), tensor([0, 1]), tensor([1, 0]));
 * console.log(value.item(), tangent.item());   // 0.8414709568023682 1
 * ```
 */
export function jvp<T, R, Rest extends readonly unknown[]>(
  f: (x: T, ...rest: Rest) => R,
  x: T,
  v: GradientOf<NoInfer<T>>,
  ...rest: Rest
): { readonly value: R; readonly tangent: GradientOf<R> } {
  checkFunction("jvp", f);
  const primal = differentiable("jvp", [x, ...rest], 0);
  const tangents = matching("jvp", "tangents", flatten(v, "jvp"), primal);
  return tidy(() =>
    traced(() => {
      const inputs = aliases(primal.tensors);
      const value = callWith("jvp", asUntyped(f), [x, ...rest], primal, inputs);
      const outputs = flatten(value, "jvp");
      const handles = native.jvp(handlesOf(outputs.tensors), handlesOf(inputs), handlesOf(tangents));
      return {
        value: value as R,
        tangent: outputs.rebuild(wrapLike(handles, outputs.tensors), "records") as GradientOf<R>,
      };
    }),
  );
}

/**
 * The loss, its gradient, and the product of its Hessian with `v`: jvp of the gradient.
 */
export function hvp<T, Rest extends readonly unknown[]>(
  f: (x: T, ...rest: Rest) => Loss,
  x: T,
  v: GradientOf<NoInfer<T>>,
  ...rest: Rest
): { readonly value: Loss; readonly gradient: GradientOf<T>; readonly product: GradientOf<T> } {
  checkFunction("hvp", f);
  const primal = differentiable("hvp", [x, ...rest], 0);
  const tangents = matching("hvp", "tangents", flatten(v, "hvp"), primal);
  return tidy(() =>
    traced(() => {
      const inputs = aliases(primal.tensors);
      const value = scalarLoss("hvp", callWith("hvp", asUntyped(f), [x, ...rest], primal, inputs)) as Loss;
      const gradient = native.vjp([value.handle], handlesOf(inputs), [onesLike<DType>(value).handle]);
      const product = native.jvp(gradient, handlesOf(inputs), handlesOf(tangents));
      return {
        value,
        gradient: primal.rebuild(wrapLike(gradient, primal.tensors), "records") as GradientOf<T>,
        product: primal.rebuild(wrapLike(product, primal.tensors), "records") as GradientOf<T>,
      };
    }),
  );
}

/**
 * φ(0), φ′(0) and φ″(0) of φ(α) = f(x + α·v): the loss, and its exact slope and curvature along `v`, in one forward pass —
 * jvp of jvp in the scalar α, without a backward pass and without a Hessian.
 *
 * ```ts
 * import { secondDerivativeAlong, type Tensor, tensor } from "raphson";
 *
 * const f = (x: Tensor) => x.pow(3).sum();
 * const { value, slope, curvature } = secondDerivativeAlong(f, tensor([1, 2]), tensor([1, 0]));
 * console.log(value.item(), slope.item(), curvature.item());   // 9 3 6
 * ```
 */
export function secondDerivativeAlong<T, Rest extends readonly unknown[], V extends Loss>(
  f: (x: T, ...rest: Rest) => V,
  x: T,
  v: GradientOf<NoInfer<T>>,
  ...rest: Rest
): { readonly value: V; readonly slope: V; readonly curvature: V } {
  const op = "secondDerivativeAlong";
  const primal = differentiable(op, [x, ...rest], 0);
  const direction = matching(op, "the direction", flatten(v, op), primal);
  return tidy(() =>
    traced(() => {
      const number = (value: number) => full([], value, { dtype: scalarDType() });
      const alpha = fromHandle<FloatDType>(native.alias(number(0).handle));
      const one = number(1);
      // x + α·v, with α in each leaf's own dtype
      const inputs = primal.tensors.map((leaf, i) => {
        const along = direction[i] as Tensor<"f64">;
        return (leaf as Tensor<"f64">).add(along.mul(alpha.cast(leaf.dtype) as Tensor<DType> as Tensor<"f64">));
      });
      const value = scalarLoss(op, callWith(op, asUntyped(f), [x, ...rest], primal, inputs)) as V;
      const [slope] = native.jvp([value.handle], [alpha.handle], [one.handle]) as [number];
      const [curvature] = native.jvp([slope], [alpha.handle], [one.handle]) as [number];
      return {
        value,
        slope: fromHandle(slope) as Tensor<DType> as V,
        curvature: fromHandle(curvature) as Tensor<DType> as V,
      };
    }),
  );
}

/** What is differentiated with respect to, and which argument it is. */
interface Primal extends Flat {
  readonly argument: number;
}

/** Argument `index` taken apart, if it can be differentiated with respect to. */
function differentiable(op: string, args: readonly unknown[], index: number): Primal {
  if (!Number.isInteger(index) || index < 0 || index >= args.length) {
    throw argumentError(
      op,
      `there is no argument ${index} to differentiate with respect to: ${args.length} were given`,
    );
  }
  const flat = flatten(args[index], op);
  const odd = flat.statics[0];
  if (odd !== undefined) {
    const what = `${typeof odd.value} at argument ${index}${odd.path}`;
    throw derivativeError(op, `found a ${what}: only tensors have derivatives; pass the rest as another argument`);
  }
  const other = flat.tensors.findIndex((tensor) => !isFloat(tensor.dtype));
  if (other >= 0) {
    const dtype = flat.tensors[other]?.dtype ?? "";
    const place = `argument ${index}${flat.paths[other]}`;
    throw derivativeError(op, `${place} is ${dtype}: only f32 and f64 have derivatives`, { dtypes: [dtype] });
  }
  if (flat.tensors.length === 0) throw derivativeError(op, `argument ${index} holds no tensor`);
  return { ...flat, argument: index };
}

/** Fresh identities, so that this derivative cannot be taken for another's. */
function aliases(tensors: readonly AnyTensor[]): AnyTensor[] {
  return tensors.map((tensor) => fromHandle(native.alias(tensor.handle), tensor.dtype, tensor.shape));
}

/** Calls `f` with the tensors of its differentiated argument replaced; a module there keeps itself and gets their values. */
function callWith(
  op: string,
  f: (...args: readonly unknown[]) => unknown,
  args: readonly unknown[],
  primal: Primal,
  inputs: readonly AnyTensor[],
): unknown {
  const replaced = primal.rebuild(inputs, "themselves");
  const call = (): unknown => f(...args.toSpliced(primal.argument, 1, replaced));
  const values = moduleValues(primal, inputs);
  const result = values.size === 0 ? call() : withValues(values, {}, call);
  if (result instanceof Promise)
    throw argumentError(op, "the function must not be async: its derivative is taken when it returns");
  return result;
}

/** The tensors that belong to the parameters of the modules in a tree. */
export function moduleValues(flat: Flat, tensors: readonly AnyTensor[]): Map<ParameterLike, Tensor> {
  const values = new Map<ParameterLike, Tensor>();
  for (const { parameters, first } of flat.modules) {
    parameters.forEach((parameter, i) => {
      values.set(parameter, tensors[first + i] as Tensor);
    });
  }
  return values;
}

/** Leaves of a tree that must look like another's. */
function matching(op: string, what: string, given: Flat, like: Flat): readonly AnyTensor[] {
  const fits = (tensor: AnyTensor, i: number): boolean => {
    const other = like.tensors[i];
    return other !== undefined && other.dtype === tensor.dtype && other.shape.join() === tensor.shape.join();
  };
  if (given.tensors.length !== like.tensors.length) {
    throw argumentError(op, `${what} hold ${given.tensors.length} tensors where ${like.tensors.length} are needed`);
  }
  const wrong = given.tensors.findIndex((tensor, i) => !fits(tensor, i));
  if (wrong >= 0) {
    const [mine, other] = [given.tensors[wrong] as AnyTensor, like.tensors[wrong] as AnyTensor];
    const both = `${mine.dtype} ${showShape(mine.shape)} where ${other.dtype} ${showShape(other.shape)} is needed`;
    throw shapeError(
      op,
      `${what} must be like the primal; at ${like.paths[wrong] || "the root"}: ${both}`,
      mine.shape,
      other.shape,
    );
  }
  return given.tensors;
}

function scalarLoss(op: string, value: unknown): AnyTensor {
  if (!isTensor(value))
    throw derivativeError(op, "the function must return a scalar tensor (or [loss, aux] with aux: true)");
  if (value.rank !== 0 || !isFloat(value.dtype)) {
    const found = `${value.dtype} ${showShape(value.shape)}`;
    throw derivativeError(op, `the loss must be a float scalar, got ${found}; reduce it with .sum() or .mean()`, {
      shapes: [value.shape],
      dtypes: [value.dtype],
    });
  }
  return value;
}

function pair(op: string, result: unknown): readonly [unknown, unknown] {
  if (Array.isArray(result) && result.length === 2) return [result[0], result[1]];
  throw argumentError(op, "with aux: true the function returns [loss, aux]");
}

function handlesOf(tensors: readonly AnyTensor[]): number[] {
  return tensors.map((tensor) => tensor.handle);
}

function wrapLike(handles: readonly number[], like: readonly AnyTensor[]): AnyTensor[] {
  return handles.map((handle, i) => fromHandle(handle, like[i]?.dtype, like[i]?.shape));
}

function asUntyped<A extends readonly unknown[]>(f: (...args: A) => unknown): (...args: readonly unknown[]) => unknown {
  return f as (...args: readonly unknown[]) => unknown;
}
