/**
 * How many kernels the layers and losses of every day are, forward and backward. Values and derivatives stand in
 * `parity/layers.json`.
 */

import { compile, grad, loss, nn, ones, random, type Tensor, tensor, valueAndGrad } from "raphson";
import { describe, expect, it } from "vitest";

const x = random.generator(1).normal([64, 96]);

/** Kernels of f(x), and of its gradient for a given cotangent. */
function kernels(f: (x: Tensor) => Tensor, cotangent: Tensor): { forward: number; backward: number } {
  using forward = compile(f);
  using backward = compile((x: Tensor, c: Tensor) => grad((x: Tensor) => f(x).mul(c).sum())(x));
  forward(x);
  backward(x, cotangent);
  const count = (of: { programs(): { kernels: number }[] }) => of.programs()[0]?.kernels ?? 0;
  return { forward: count(forward), backward: count(backward) };
}

describe("row-wise functions are one kernel each way", () => {
  it("normalisations", () => {
    for (const layer of [nn.layerNorm(96, { affine: false }), nn.rmsNorm(96, { affine: false })]) {
      expect(kernels((x) => layer(x), ones([64, 96]))).toEqual({ forward: 1, backward: 1 });
    }
  });

  it("softmax cross-entropy, but for the check of its labels: a gather from zeros", () => {
    const labels = tensor(
      Array.from({ length: 64 }, (_, i) => (i * 7) % 96),
      { dtype: "i32" },
    );
    const each = (x: Tensor): Tensor => loss.crossEntropy<"f32">(x, labels, { reduction: "none" }) as Tensor;
    expect(kernels(each, ones([64]))).toEqual({ forward: 3, backward: 3 });
    using both = compile((x: Tensor) => valueAndGrad((x: Tensor) => loss.crossEntropy<"f32">(x, labels) as Tensor)(x));
    both(x);
    // rows, their mean, zeros and the gather from them
    expect(both.programs()[0]?.kernels).toBe(4);
  });
});
