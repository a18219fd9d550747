/**
 * The types that users see: dtypes, gradients of trees, compiled functions, modules.
 */

import {
  arange,
  compile,
  data,
  defineAlphaRule,
  defineOptimizer,
  earlyStopping,
  grad,
  hvp,
  type IntegerDType,
  jvp,
  loss,
  mapTree,
  newton,
  nn,
  optim,
  type Run,
  secondDerivativeAlong,
  type Tensor,
  tensor,
  train,
  trainingStep,
  valueAndGrad,
  vjp,
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

describe("trees of parameters", () => {
  const model = nn.linear(2, 1);
  const tree = {
    scale: zeros([]),
    pair: [zeros([1]), zeros([1], { dtype: "f64" })] as const,
    layers: [{ w: zeros([1]), b: zeros([1]) }],
    model,
    models: [model, nn.sequential(model, nn.relu())] as const,
    name: "mine",
    size: 3 as number,
  };
  type Tree = typeof tree;

  it("come back as gradients of the same form, modules as records of their parameters", () => {
    const { gradient, value } = valueAndGrad((t: Tree, x: Tensor) => t.model(x).mul(t.scale).mean())(
      tree,
      zeros([1, 2]),
    );
    expectTypeOf(value).toEqualTypeOf<Tensor>();
    expectTypeOf(gradient.scale).toEqualTypeOf<Tensor>();
    expectTypeOf(gradient.pair).toEqualTypeOf<readonly [Tensor, Tensor<"f64">]>();
    expectTypeOf(gradient.layers).toEqualTypeOf<{ w: Tensor; b: Tensor }[]>();
    expectTypeOf(gradient.model).toEqualTypeOf<nn.Parameters>();
    expectTypeOf(gradient.models).toEqualTypeOf<readonly [nn.Parameters, nn.Parameters]>();
    expectTypeOf(gradient.name).toEqualTypeOf<string>();
    // @ts-expect-error the tree has no such part
    gradient.bias;
    // @ts-expect-error a gradient of a module is no module
    gradient.model(zeros([1, 2]));
  });

  it("keep optional parts optional, and unions unions", () => {
    interface Loose {
      readonly w: Tensor;
      readonly b?: Tensor;
      readonly c: Tensor | undefined;
    }
    const gradient = grad((p: Loose) => p.w.sum())({ w: zeros([1]), c: undefined });
    expectTypeOf(gradient).toEqualTypeOf<Loose>();
    expectTypeOf(gradient.c).toEqualTypeOf<Tensor | undefined>();
    // @ts-expect-error it may be missing
    gradient.b.sum();
  });

  it("are what mapTree, hvp and vjp give back", () => {
    const mapped = mapTree(tree, (tensor) => tensor);
    expectTypeOf(mapped.model).toEqualTypeOf<nn.Parameters>();
    expectTypeOf(mapped.layers).toEqualTypeOf<{ w: Tensor; b: Tensor }[]>();
    expectTypeOf(vjp((x: Tensor, p: Params) => p.w.mul(x), zeros([1]), params).value).toEqualTypeOf<Tensor>();
    const second = hvp((p: Params) => p.w.sum(), params, params);
    expectTypeOf(second.gradient).toEqualTypeOf<Params>();
    expectTypeOf(second.product).toEqualTypeOf<Params>();
    // @ts-expect-error the direction is a tree like the parameters
    hvp((p: Params) => p.w.sum(), params, zeros([1]));
  });
});

describe("training", () => {
  type Digits = { readonly images: Tensor; readonly labels: Tensor<"i32"> };
  const set = data.arrays({ images: { data: new Float32Array(8), shape: [2, 4] }, labels: new Int32Array(2) });
  const model = nn.linear(4, 2);
  const optimizer = newton(optim.adamW());

  it("hands the batch's type from the data to the loss, the metrics and the evaluation", () => {
    expectTypeOf(set.batches(2)).toEqualTypeOf<data.Batches<Digits>>();
    const run = () =>
      train({
        model,
        loss: (batch, net) => {
          expectTypeOf(batch).toEqualTypeOf<Digits>();
          expectTypeOf(net).toEqualTypeOf<typeof model>();
          return loss.crossEntropy(net(batch.images), batch.labels);
        },
        optimizer,
        data: (epoch: number) => set.batches(epoch + 1),
        evaluate: {
          data: set.batches(2),
          metrics: { own: (batch, net) => net(batch.images).mean() },
        },
        epochs: 1,
        checkpoint: { path: "x", every: 3 },
        resume: true,
        callbacks: [{ onEpoch: async (_, { freeze }) => freeze() }],
      });
    expectTypeOf(run).returns.resolves.toEqualTypeOf<Run>();
  });

  it("refuses what does not fit", () => {
    const rest = { model, optimizer, epochs: 1, data: set.batches(2) };
    // @ts-expect-error there is no such field in the batch
    void (() => train({ ...rest, loss: ({ pictures }, net) => net(pictures).mean() }));
    // @ts-expect-error labels are integers
    void (() => train({ ...rest, loss: ({ labels }, net) => net(labels).mean() }));
    // @ts-expect-error a loss is a tensor
    void (() => train({ ...rest, loss: () => 3 }));
    // @ts-expect-error a loss is not a promise
    void (() => train({ ...rest, loss: async ({ images }: Digits) => images.mean() }));
    const lossOf = ({ images }: Digits, net: typeof model) => net(images).mean();
    const other = data.arrays({ words: new Int32Array(2) }).batches(2);
    // @ts-expect-error the evaluation is on batches of another kind
    void (() => train({ ...rest, loss: lossOf, evaluate: { data: other } }));
    // @ts-expect-error there is no such device
    void (() => train({ ...rest, loss: lossOf, device: "tpu" }));
    // @ts-expect-error bounds are given one at a time
    void (() => train({ ...rest, loss: lossOf, clip: { norm: 1, value: 1 } }));
    // @ts-expect-error there is no such format
    void (() => train({ ...rest, loss: lossOf, log: { folder: "x", formats: ["xml"] } }));
    // @ts-expect-error a misspelt option
    void (() => train({ ...rest, loss: lossOf, epoch: 3 }));
    // @ts-expect-error there is no such rule
    newton(optim.sgd(), { rule: "newest" });
    // @ts-expect-error a rule's measure is one of four
    newton(optim.sgd(), { telemetry: ["loss"] });
    // @ts-expect-error momentum has no second moment
    optim.momentum({ beta2: 0.9 });
    // @ts-expect-error there is no such mode
    earlyStopping({ mode: "least" });
  });

  it("knows what a rule of one's own measures, and an optimizer's own state", () => {
    defineAlphaRule({
      needs: ["slope1"],
      // @ts-expect-error the curvature was not asked for
      next: ({ curvature, slope1 }) => ({ slope: slope1, curvature }),
    });
    defineOptimizer({
      name: "own",
      learningRate: 0.1,
      init: (all) => ({ m: all.map((p) => zeros(p.shape)) }),
      direction: ({ gradients, state }) => {
        expectTypeOf(state).toEqualTypeOf<{ m: Tensor[] }>();
        return { omega: gradients, state };
      },
    });
  });

  it("keeps the tree's type in a step made by hand", () => {
    const step = trainingStep({
      params: { w: zeros([1]), model },
      loss: ({ x }: { x: Tensor }, p) => {
        expectTypeOf(p).toEqualTypeOf<{ w: Tensor; model: typeof model }>();
        return p.model(x).mul(p.w).mean();
      },
      optimizer,
    });
    expectTypeOf(step.params.w).toEqualTypeOf<Tensor>();
    expectTypeOf(step.load("x")).resolves.toHaveProperty("metadata");
    // @ts-expect-error the batch lacks x
    void (() => step.step({ y: zeros([1]) }));
  });
});

describe("modules", () => {
  it("of one's own have the types of their forward", () => {
    class Two extends nn.Module<[a: Tensor, b: Tensor<"i32">], { sum: Tensor }> {
      scale = this.parameter([1], "ones");
      override forward(a: Tensor, b: Tensor<"i32">) {
        return { sum: a.add(b.cast("f32")).mul(this.scale.value) };
      }
    }
    const two = new Two();
    expectTypeOf(two).parameters.toEqualTypeOf<[a: Tensor, b: Tensor<"i32">]>();
    expectTypeOf(two(zeros([1]), zeros([1], { dtype: "i32" })).sum).toEqualTypeOf<Tensor>();
    expectTypeOf(two.initialize(1)).toEqualTypeOf<Two>();
    // @ts-expect-error it takes two
    two(zeros([1]));
    // @ts-expect-error there is no such initialiser
    nn.linear(1, 1, { weight: "random" });
  });

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
