/**
 * The types that users see: dtypes, gradients of trees, compiled functions, modules.
 */

import {
  arange,
  compile,
  grad,
  type IntegerDType,
  jvp,
  loss,
  nn,
  secondDerivativeAlong,
  type Tensor,
  tensor,
  valueAndGrad,
  where,
  zeros,
} from "raphson";
import { describe, expectTypeOf, it } from "vitest";

interface Params {
  readonly w: Tensor;
  readonly layers: readonly { readonly b: Tensor<"f64"> }[];
}
declare const params: Params;

describe("dtypes", () => {
  it("are in the type", () => {
    expectTypeOf(tensor([1, 2])).toEqualTypeOf<Tensor<"f32">>();
    expectTypeOf(tensor([[true]])).toEqualTypeOf<Tensor<"bool">>();
    expectTypeOf(tensor(new Int32Array(1))).toEqualTypeOf<Tensor<"i32">>();
    expectTypeOf(tensor([1], { dtype: "f64" })).toEqualTypeOf<Tensor<"f64">>();
    expectTypeOf(zeros([1])).toEqualTypeOf<Tensor<"f32">>();
    expectTypeOf(zeros([1], { dtype: "u32" })).toEqualTypeOf<Tensor<"u32">>();
    expectTypeOf(arange(3).less(1)).toEqualTypeOf<Tensor<"bool">>();
    expectTypeOf(arange(3).cast("i32")).toEqualTypeOf<Tensor<"i32">>();
    expectTypeOf(arange(3).argmax()).toEqualTypeOf<Tensor<"i32">>();
    expectTypeOf(tensor([true]).item()).toEqualTypeOf<boolean>();
    expectTypeOf(arange(3).dataSync()).toEqualTypeOf<Float32Array>();
    expectTypeOf(tensor([1], { dtype: "f64" }).data()).resolves.toEqualTypeOf<Float64Array>();
    expectTypeOf(where(arange(3).less(1), 0, arange(3, 4, 1, { dtype: "f64" }))).toEqualTypeOf<Tensor<"f64">>();
  });

  it("must agree, and suit the operation", () => {
    // @ts-expect-error f32 and f64 do not mix
    zeros([1]).add(zeros([1], { dtype: "f64" }));
    // @ts-expect-error integers have no exponential
    zeros([1], { dtype: "i32" }).exp();
    // @ts-expect-error bools do not add
    tensor([true]).add(tensor([true]));
    // @ts-expect-error there is no such dtype
    zeros([1], { dtype: "f8" });
    // @ts-expect-error a condition is bool
    where(zeros([1]), 0, 1);
  });
});

describe("transforms", () => {
  it("give gradients of the argument's very type", () => {
    const f = (p: Params, x: Tensor) => p.w.mul(x).sum();
    expectTypeOf(valueAndGrad(f)(params, zeros([1])).gradient).toEqualTypeOf<Params>();
    expectTypeOf(valueAndGrad(f)(params, zeros([1])).value).toEqualTypeOf<Tensor>();
    expectTypeOf(grad(f, { argument: 1 })(params, zeros([1]))).toEqualTypeOf<Tensor>();
    expectTypeOf(valueAndGrad(f)).parameters.toEqualTypeOf<[p: Params, x: Tensor]>();
    const aux = valueAndGrad((x: Tensor) => [x.sum(), { n: 1 }] as const, { aux: true })(zeros([1]));
    expectTypeOf(aux.aux).toEqualTypeOf<{ readonly n: 1 }>();
    // @ts-expect-error a loss is a float tensor
    grad((x: Tensor) => x.less(1));
  });

  it("take directions of the argument's type", () => {
    const along = secondDerivativeAlong((p: Params) => p.w.sum(), params, params);
    expectTypeOf(along.curvature).toEqualTypeOf<Tensor>();
    expectTypeOf(jvp((x: Tensor) => ({ y: x }), zeros([1]), zeros([1])).tangent).toEqualTypeOf<{ y: Tensor }>();
    // @ts-expect-error the direction lacks the layers
    secondDerivativeAlong((p: Params) => p.w.sum(), params, { w: zeros([1]) });
  });

  it("compile keeps the function's type", () => {
    const f = compile((p: Params, n: number) => ({ p, n }));
    expectTypeOf(f).parameters.toEqualTypeOf<[p: Params, n: number]>();
    expectTypeOf(f(params, 1)).toEqualTypeOf<{ p: Params; n: number }>();
  });
});

describe("modules", () => {
  it("are functions", () => {
    const model = nn.sequential(nn.embedding(10, 4), nn.linear(4, 2), nn.relu());
    expectTypeOf(model).parameters.toEqualTypeOf<[indices: Tensor<IntegerDType>]>();
    expectTypeOf(model(tensor([1], { dtype: "i32" }))).toEqualTypeOf<Tensor>();
    expectTypeOf(
      valueAndGrad((m: typeof model) => loss.mse(m(tensor([1], { dtype: "i32" })), zeros([1, 2])))(model).gradient,
    ).toEqualTypeOf<nn.Parameters>();
    // @ts-expect-error the input is of integers
    model(zeros([1]));
  });
});
