/**
 * Transforms against analytic values: gradients of trees, products, nested derivatives, perturbation confusion, compile.
 */

import {
  compile,
  grad,
  hvp,
  jvp,
  nn,
  ones,
  RaphsonError,
  random,
  scalar,
  secondDerivativeAlong,
  type Tensor,
  tensor,
  valueAndGrad,
  vjp,
  zeros,
} from "raphson";
import { describe, expect, it } from "vitest";

const f64 = (values: number | readonly number[]) => tensor(values, { dtype: "f64" });

describe("grad", () => {
  it("gives the argument's own tree", () => {
    const params = { w: tensor([1, 2]), deep: [{ b: tensor(3) }] };
    const { value, gradient } = valueAndGrad((p: typeof params) =>
      p.w
        .square()
        .sum()
        .add(p.deep[0]?.b.mul(5) ?? 0),
    )(params);
    expect(value.item()).toBe(20);
    expect(gradient.w.toArray()).toEqual([2, 4]);
    expect(gradient.deep[0]?.b.item()).toBe(5);
  });

  it("differentiates with respect to another argument, and with something beside the loss", () => {
    const f = (x: Tensor, y: Tensor) => x.mul(y).sum();
    expect(grad(f, { argument: 1 })(tensor([1, 2]), tensor([3, 4])).toArray()).toEqual([1, 2]);
    const result = valueAndGrad((x: Tensor) => [x.square().sum(), { doubled: x.mul(2) }] as const, { aux: true })(
      tensor([3]),
    );
    expect(result.aux.doubled.toArray()).toEqual([6]);
    expect(result.gradient.toArray()).toEqual([6]);
  });

  it("is zero where the loss does not depend", () => {
    expect(grad((p: { a: Tensor; b: Tensor }) => p.a.sum())({ a: ones([2]), b: ones([3]) }).b.toArray()).toEqual([
      0, 0, 0,
    ]);
    expect(grad((x: Tensor) => x.stopGradient().mul(x).sum())(tensor([3])).toArray()).toEqual([3]);
  });

  it("goes through products, softmax and choosing", () => {
    const a = tensor([
      [1, 2],
      [3, 4],
    ]);
    expect(grad((x: Tensor) => x.matmul(x).sum())(a).toArray()).toEqual([
      [7, 11],
      [9, 13],
    ]);
    const picked = grad((x: Tensor) => x.take([1, 1, 0]).sum())(tensor([1, 2, 3]));
    expect(picked.toArray()).toEqual([1, 2, 0]);
  });

  it("nests to any depth", () => {
    const sin = (x: Tensor<"f64">) => x.sin();
    let f = sin;
    const derivatives = [Math.cos, (x: number) => -Math.sin(x), (x: number) => -Math.cos(x), Math.sin];
    for (const exact of derivatives) {
      f = grad(f);
      expect(f(f64(0.7) as Tensor<"f64">).item()).toBeCloseTo(exact(0.7), 12);
    }
  });

  it("does not confuse perturbations", () => {
    // d/dx [x · d/dy (x + y)] at y = 1 is 1; confusing x's perturbation with y's gives 2
    const f = (x: Tensor) => x.mul(grad((y: Tensor) => x.add(y))(scalar(1)));
    expect(grad(f)(scalar(1)).item()).toBe(1);
    const forward = jvp(
      (x: Tensor) => x.mul(jvp((y: Tensor) => x.add(y), scalar(1), scalar(1)).tangent),
      scalar(1),
      scalar(1),
    );
    expect(forward.tangent.item()).toBe(1);
    // the same tensor as point of both
    const x = scalar(2);
    expect(grad((a: Tensor) => grad((b: Tensor) => a.mul(b).mul(b))(x))(x).item()).toBe(4);
  });

  it("refuses what has no gradient", () => {
    const refuse = (run: () => unknown): string => {
      try {
        run();
      } catch (error) {
        if (error instanceof RaphsonError) return error.code;
      }
      return "nothing thrown";
    };
    expect(refuse(() => grad((x: Tensor) => x.mul(2) as never)(ones([2])))).toBe("DERIVATIVE");
    expect(refuse(() => grad((p: { n: number }): Tensor => scalar(p.n))({ n: 1 }))).toBe("DERIVATIVE");
    expect(refuse(() => grad((x: Tensor<"i32">) => x.cast("f32").sum())(tensor([1], { dtype: "i32" })))).toBe(
      "DERIVATIVE",
    );
    expect(refuse(() => grad((async () => scalar(1)) as never)(scalar(1) as never))).toBe("ARGUMENT");
  });

  it("leaves the trace closed when the function throws", () => {
    expect(() =>
      grad((_: Tensor): Tensor => {
        throw new Error("mine");
      })(scalar(1)),
    ).toThrow("mine");
    expect(grad((x: Tensor) => x.square())(scalar(3)).item()).toBe(6);
  });
});

describe("products", () => {
  const f = (x: Tensor<"f64">) => x.pow(3).sum();
  const x = f64([1, 2, 3]);
  const v = f64([1, 0, -1]);

  it("jvp and vjp agree: ⟨Jv, u⟩ = ⟨v, Jᵀu⟩", () => {
    const g = (t: Tensor<"f64">) => t.sin().mul(t.at([null, null, -1]));
    const u = f64([0.3, -0.2, 0.9]);
    const forward = jvp(g, x, v).tangent.mul(u).sum().item();
    const back = vjp(g, x);
    const backward = back.pullback(u).mul(v).sum().item();
    expect(forward).toBeCloseTo(backward, 12);
    back.dispose();
  });

  it("hvp is the Hessian times v", () => {
    const { value, gradient, product } = hvp(f, x, v);
    expect(value.item()).toBe(36);
    expect(gradient.toArray()).toEqual([3, 12, 27]);
    expect(product.toArray()).toEqual([6, 0, -18]);
  });

  it("secondDerivativeAlong gives value, slope and curvature", () => {
    const { value, slope, curvature } = secondDerivativeAlong(f, x, v);
    expect(value.item()).toBeCloseTo(36, 12);
    expect(slope.item()).toBeCloseTo(3 - 27, 12);
    expect(curvature.item()).toBeCloseTo(6 + 18, 12);
  });

  it("secondDerivativeAlong works on trees, in f32 too", () => {
    const p = { a: tensor([1, 2]), b: tensor(1) };
    const along = { a: tensor([1, 1]), b: tensor(2) };
    // (a₀ + α)(a₁ + α)(b + 2α): φ = 2, φ′ = 2·… by hand
    const loss = (q: typeof p) => q.a.prod().mul(q.b);
    const { value, slope, curvature } = secondDerivativeAlong(loss, p, along);
    expect([value.item(), slope.item(), curvature.item()].map((n) => Math.round(n * 1e4) / 1e4)).toEqual([2, 7, 14]);
  });

  it("refuses directions that are not like the point", () => {
    expect(() => jvp(f, x, f64([1, 2]) as never)).toThrow(/tangents must be like/);
  });
});

describe("modules", () => {
  it("valueAndGrad over a module gives its parameters by name", () => {
    const model = nn.linear(2, 1, { weight: "ones", biasInitializer: "zeros" });
    const loss = (m: typeof model, x: Tensor) => m(x).square().sum();
    const { value, gradient } = valueAndGrad(loss)(model, tensor([[1, 2]]));
    expect(value.item()).toBe(9);
    expect(gradient.weight?.toArray()).toEqual([[6, 12]]);
    expect(gradient.bias?.toArray()).toEqual([6]);
  });
});

describe("compile", () => {
  it("does what the function does, tracing once for each signature", () => {
    let calls = 0;
    const f = compile((x: Tensor, scale: number) => {
      calls++;
      return { y: x.mul(scale), same: x, label: "kept" };
    });
    const x = tensor([1, 2]);
    expect(f(x, 2).y.toArray()).toEqual([2, 4]);
    expect(f(tensor([3, 4]), 2).y.toArray()).toEqual([6, 8]);
    expect(f(x, 3).y.toArray()).toEqual([3, 6]);
    expect(f(ones([3]), 2).y.toArray()).toEqual([2, 2, 2]);
    expect(f(x, 2).same.toArray()).toEqual([1, 2]);
    expect(f(x, 2).label).toBe("kept");
    expect([calls, f.traces]).toEqual([3, 3]);
    f.dispose();
  });

  it("holds a whole training step", () => {
    const target = tensor([3, -1]);
    const step = compile(
      (w: Tensor) => {
        const { value, gradient } = valueAndGrad((p: Tensor) => p.sub(target).square().sum())(w);
        return [w.sub(gradient.mul(0.25)), value] as const;
      },
      { donate: [0] },
    );
    let w = zeros([2]);
    for (let i = 0; i < 30; i++) {
      const [next] = step(w);
      expect(w.isDisposed).toBe(true);
      w = next;
    }
    expect(w.toArray().toString()).toBe("3,-1");
    expect(step.programs()[0]?.inputs).toBe(1);
    step.dispose();
  });

  it("draws other numbers with another key", () => {
    const draw = compile((key: Tensor<"u32">) => random.fromKey(key).uniform([3]));
    const keys = random.generator(3);
    const [first, second] = [keys.key(), keys.key()];
    expect(draw(first).toArray()).toEqual(draw(first).toArray());
    expect(draw(first).toArray()).not.toEqual(draw(second).toArray());
    draw.dispose();
  });

  it("is transparent inside transforms and other compiled functions", () => {
    const square = compile((x: Tensor) => x.square().sum());
    expect(grad((x: Tensor) => square(x))(tensor([3])).toArray()).toEqual([6]);
    const outer = compile((x: Tensor) => square(x).add(1));
    expect(outer(tensor([2])).item()).toBe(5);
    expect(square.traces).toBe(0);
  });

  it("takes modules by their parameters", () => {
    const model = nn.linear(1, 1, { weight: "ones", bias: false });
    const f = compile((m: typeof model, x: Tensor) => m(x));
    expect(f(model, tensor([[2]])).toArray()).toEqual([[2]]);
    model.setParameters({ weight: tensor([[5]]) });
    expect(f(model, tensor([[2]])).toArray()).toEqual([[10]]);
    expect(f.traces).toBe(1);
    f.dispose();
  });

  it("keeps a bounded number of programs", () => {
    const f = compile((x: Tensor) => x.add(1), { cacheSize: 2 });
    for (const n of [1, 2, 3, 4, 1]) f(ones([n]));
    expect(f.programs().length).toBe(2);
    expect(f.traces).toBe(5);
    f.dispose();
    expect(f.programs()).toEqual([]);
    expect(f(ones([2])).toArray()).toEqual([2, 2]);
    f.dispose();
  });

  it("counts the bytes in use at once, donated ones once", () => {
    const double = (x: Tensor) => x.add(x);
    const [apart, inPlace] = [compile(double), compile(double, { donate: [0] })];
    apart(ones([256]));
    inPlace(ones([256]));
    expect(apart.programs()[0]?.peakBytes).toBe(2 * 1024);
    expect(inPlace.programs()[0]?.peakBytes).toBe(1024);
    const sum = compile((x: Tensor) => x.matmul(x).matmul(x));
    sum(ones([16, 16]));
    expect(sum.programs()[0]).toMatchObject({ arenaBytes: 1024, peakBytes: 3 * 1024 });
  });

  it("refuses async functions and typed arrays", () => {
    expect(() => compile(async (x: Tensor) => x)(scalar(1))).toThrow(/async/);
    expect(() => compile((x: Float32Array) => tensor(x))(new Float32Array(2))).toThrow(/tensor/);
  });
});
