/**
 * Convolutions and pools: against plain loops, PyTorch's rules for sizes, numeric gradients, layers, and what is refused.
 */

import {
  adaptiveAvgPool2d,
  adaptiveMaxPool2d,
  avgPool1d,
  avgPool2d,
  type ConvOptions,
  conv1d,
  conv2d,
  convTranspose1d,
  convTranspose2d,
  full,
  grad,
  maxPool1d,
  maxPool2d,
  nn,
  ones,
  random,
  type Tensor,
  tensor,
  zeros,
} from "raphson";
import { describe, expect, it } from "vitest";
import { thrown } from "./thrown";

type Wide = Tensor<"f64">;
const drawn = (seed: number, shape: number[]): Wide => random.generator(seed).normal(shape).cast("f64");

/** One output after another, from the definition; one padding, stride and dilation for both axes. */
function plainly(x: Wide, kernel: Wide, padding: number, stride: number, dilation: number, groups: number): number[] {
  const [batch, channels, height, width] = x.shape as [number, number, number, number];
  const [outputs, perGroup, down, across] = kernel.shape as [number, number, number, number];
  const [data, taps] = [x.dataSync(), kernel.dataSync()];
  const size = (n: number, t: number) => Math.floor((n + 2 * padding - (t - 1) * dilation - 1) / stride) + 1;
  const result: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < outputs; o++) {
      const first = Math.floor(o / (outputs / groups)) * perGroup;
      for (let y = 0; y < size(height, down); y++) {
        for (let z = 0; z < size(width, across); z++) {
          let sum = 0;
          for (let i = 0; i < perGroup; i++) {
            for (let t = 0; t < down * across; t++) {
              const row = y * stride + Math.floor(t / across) * dilation - padding;
              const column = z * stride + (t % across) * dilation - padding;
              if (row < 0 || row >= height || column < 0 || column >= width) continue;
              const at = ((b * channels + first + i) * height + row) * width + column;
              sum += (data[at] ?? 0) * (taps[(o * perGroup + i) * down * across + t] ?? 0);
            }
          }
          result.push(sum);
        }
      }
    }
  }
  return result;
}

const close = (got: Tensor<"f64">, want: readonly number[], digits = 11): void => {
  const values = Array.from(got.dataSync());
  expect(values.length).toBe(want.length);
  values.forEach((value, i) => {
    expect(value).toBeCloseTo(want[i] ?? Number.NaN, digits);
  });
};

/** The gradient of Σ f(x)·w against central differences, element by element. */
function checkGradient(f: (x: Wide) => Wide, x: Wide): void {
  const weights = drawn(99, [...f(x).shape]);
  const loss = (x: Wide): Wide => f(x).mul(weights).sum();
  const gradient = grad(loss)(x).dataSync();
  const values = Array.from(x.dataSync());
  const h = 1e-5;
  for (let i = 0; i < values.length; i += Math.ceil(values.length / 12)) {
    const at = (by: number): number => {
      const moved = tensor(
        values.map((v, j) => (j === i ? v + by : v)),
        { dtype: "f64" },
      );
      return loss(moved.reshape([...x.shape])).item();
    };
    expect(gradient[i]).toBeCloseTo((at(h) - at(-h)) / (2 * h), 6);
  }
}

describe("conv", () => {
  const settings = [
    { padding: 0, stride: 1, dilation: 1, groups: 1 },
    { padding: 1, stride: 2, dilation: 1, groups: 1 },
    { padding: 2, stride: 1, dilation: 2, groups: 2 },
    { padding: 1, stride: 3, dilation: 1, groups: 4 },
  ];
  it.each(settings)("is the sum over taps with %o", (options) => {
    const { padding, stride, dilation, groups } = options;
    const [x, kernel] = [drawn(1, [2, 4, 7, 6]), drawn(2, [8, 4 / groups, 3, 2])];
    close(conv2d(x, kernel, options), plainly(x, kernel, padding, stride, dilation, groups));
    const [row, taps] = [x.reshape([2, 4, 1, 42]), kernel.reshape([8, 4 / groups, 1, 6])];
    const long = conv1d(row.squeeze(2), taps.squeeze(2), options);
    const both = conv2d(row, taps, { ...options, padding: [0, padding], stride: [1, stride] });
    close(long, Array.from(both.dataSync()));
  });

  it("pads as asked", () => {
    const x = ones([1, 1, 6, 6]);
    const kernel = ones([1, 1, 3, 2]);
    const shape = (options: ConvOptions) => conv2d(x, kernel, options).shape.slice(2);
    expect(shape({})).toEqual([4, 5]);
    expect(shape({ padding: "valid", stride: 2 })).toEqual([2, 3]);
    expect(shape({ padding: "same" })).toEqual([6, 6]);
    expect(shape({ padding: "same", stride: 4 })).toEqual([2, 2]);
    expect(shape({ padding: [1, 0] })).toEqual([6, 5]);
    expect(shape({ padding: [[0, 2], 1], dilation: [2, 1] })).toEqual([4, 7]);
    // the odd zero of "same" stands behind the data
    const row = conv1d(tensor([[[1, 2, 4]]]), tensor([[[1, 10]]]), { padding: "same" });
    expect(row.toArray()).toEqual([[[21, 42, 4]]]);
  });

  it("works on integers", () => {
    const x = tensor([[[1, 2, 3]]], { dtype: "i32" });
    expect(conv1d(x, tensor([[[1, -1]]], { dtype: "i32" })).toArray()).toEqual([[[-1, -1]]]);
  });

  it("has the gradients of finite differences, by data and by kernel", () => {
    const [x, kernel] = [drawn(3, [2, 4, 6, 5]), drawn(4, [4, 2, 3, 3])];
    const options = { padding: [[1, 2], 1], stride: [2, 1], dilation: [1, 2], groups: 2 } as const;
    checkGradient((x) => conv2d(x.sin(), kernel, options), x);
    checkGradient((kernel) => conv2d(x, kernel.sin(), options), kernel);
  });

  it("has a gradient of the gradient", () => {
    const [x, kernel] = [drawn(5, [1, 2, 5]), drawn(6, [3, 2, 3])];
    const inner = (k: Wide) => grad((x: Wide) => conv1d(x, k, { padding: 1 }).square().sum())(x);
    checkGradient(inner, kernel);
  });
});

describe("convTranspose", () => {
  it("is the transpose: ⟨conv(x), y⟩ = ⟨x, convTranspose(y)⟩", () => {
    for (const [stride, padding, dilation, groups] of [
      [1, 0, 1, 1],
      [2, 1, 1, 2],
      [3, 2, 2, 1],
    ] as const) {
      const options = { stride, padding, dilation, groups };
      const [x, kernel] = [drawn(7, [2, 4, 9, 8]), drawn(8, [6, 4 / groups, 3, 2])];
      const y = conv2d(x, kernel, options);
      const z = drawn(9, [...y.shape]);
      const small = convTranspose2d(z, kernel, options).shape;
      const outputPadding = [9 - (small[2] ?? 0), 8 - (small[3] ?? 0)];
      const back = convTranspose2d(z, kernel, { ...options, outputPadding });
      expect(back.shape).toEqual(x.shape);
      expect(y.mul(z).sum().item()).toBeCloseTo(x.mul(back).sum().item(), 10);
    }
  });

  it("has PyTorch's sizes and values in small", () => {
    const x = tensor([[[1, 2, 3]]]);
    const kernel = tensor([[[1, 10]]]);
    expect(convTranspose1d(x, kernel).toArray()).toEqual([[[1, 12, 23, 30]]]);
    expect(convTranspose1d(x, kernel, { stride: 2, padding: 1, outputPadding: 1 }).toArray()).toEqual([
      [[10, 2, 20, 3, 30]],
    ]);
    expect(convTranspose2d(ones([1, 4, 5, 5]), ones([4, 3, 4, 4]), { stride: 2, padding: 1 }).shape).toEqual([
      1, 3, 10, 10,
    ]);
  });

  it("has the gradients of finite differences", () => {
    const [x, kernel] = [drawn(10, [2, 4, 3, 4]), drawn(11, [4, 3, 3, 3])];
    const options = { stride: 2, padding: 1, outputPadding: 1, groups: 2 };
    checkGradient((x) => convTranspose2d(x.sin(), kernel, options), x);
    checkGradient((kernel) => convTranspose2d(x, kernel.sin(), options), kernel);
  });
});

describe("pools", () => {
  const x = tensor([
    [1, 5, 2, 0],
    [3, 4, 8, 1],
    [0, 2, 6, 7],
  ]);

  it("take the greatest of each window", () => {
    expect(maxPool2d(x, [1, 2]).toArray()).toEqual([
      [5, 2],
      [4, 8],
      [2, 7],
    ]);
    expect(maxPool2d(x, 2).toArray()).toEqual([[5, 8]]);
    expect(maxPool2d(x, 2, { stride: 1 }).toArray()).toEqual([
      [5, 8, 8],
      [4, 8, 8],
    ]);
    expect(maxPool2d(x.neg(), 3, { stride: 2, padding: 1 }).toArray()).toEqual([
      [-1, -0],
      [-0, -1],
    ]);
    expect(maxPool1d(tensor([-3, -1, -2], { dtype: "i32" }), 2, { padding: 1 }).toArray()).toEqual([-3, -1]);
  });

  it("average each window, with the padding or without", () => {
    expect(avgPool2d(x, [3, 2]).toArray()).toEqual([[2.5, 4]]);
    const row = tensor([2, 4, 6], { dtype: "f64" });
    const options = { stride: 1, padding: 1 };
    expect(avgPool1d(row, 2, options).toArray()).toEqual([1, 3, 5, 3]);
    expect(avgPool1d(row, 2, { ...options, countIncludePad: false }).toArray()).toEqual([2, 3, 5, 6]);
    expect(avgPool2d(ones([5, 5]), 3, { padding: 1, stride: 2, countIncludePad: false }).toArray()).toEqual(
      full([3, 3], 1).toArray(),
    );
  });

  it("adapt to a number of windows", () => {
    const row = tensor([[1, 2, 3, 4, 10]], { dtype: "f64" });
    expect(adaptiveAvgPool2d(row, [1, 2]).toArray()).toEqual([[2, 17 / 3]]);
    expect(adaptiveMaxPool2d(row, [1, 3]).toArray()).toEqual([[2, 4, 10]]);
    expect(adaptiveAvgPool2d(zeros([2, 3, 7, 5]), 1).shape).toEqual([2, 3, 1, 1]);
  });

  it("have the gradients of finite differences", () => {
    const y = drawn(12, [2, 3, 6, 7]);
    checkGradient((y) => maxPool2d(y, [2, 7]), y);
    checkGradient((y) => maxPool2d(y.sin(), 3, { stride: 2, padding: [1, [0, 1]] }), y);
    checkGradient((y) => avgPool2d(y.sin(), [3, 2], { stride: [2, 3], padding: 1, countIncludePad: false }), y);
    checkGradient((y) => adaptiveAvgPool2d(y.sin(), [4, 3]), y);
    checkGradient((y) => adaptiveMaxPool2d(y.sin(), [4, 3]), y);
  });
});

describe("layers", () => {
  it("have PyTorch's shapes, counts and limits", () => {
    const model = nn.sequential(
      nn.conv2d(1, 4, 3, { padding: "same" }),
      nn.relu(),
      nn.maxPool2d(2),
      nn.conv2d(4, 6, [3, 5], { groups: 2, stride: 2, padding: [1, 2], bias: false }),
      nn.convTranspose2d(6, 2, 2, { stride: 2 }),
      nn.avgPool2d(2),
      nn.adaptiveAvgPool2d(1),
      nn.flatten(),
    );
    model.initialize(3);
    expect(model(ones([3, 1, 12, 8])).shape).toEqual([3, 2]);
    expect(Object.entries(model.parameters()).map(([name, value]) => [name, value.shape])).toEqual([
      ["0.weight", [4, 1, 3, 3]],
      ["0.bias", [4]],
      ["3.weight", [6, 2, 3, 5]],
      ["4.weight", [6, 2, 2, 2]],
      ["4.bias", [2]],
    ]);
    const first = nn.conv2d(8, 64, 3).initialize(1);
    const limit = 1 / Math.sqrt(8 * 9);
    expect(first.weight.value.abs().max().item()).toBeLessThanOrEqual(limit);
    expect(first.weight.value.abs().max().item()).toBeGreaterThan(0.95 * limit);
    expect(first.bias?.value.abs().max().item()).toBeLessThanOrEqual(limit);
    expect(nn.conv1d(2, 3, 5)(ones([1, 2, 9])).shape).toEqual([1, 3, 5]);
    expect(nn.convTranspose1d(2, 3, 5)(ones([1, 2, 9])).shape).toEqual([1, 3, 13]);
    expect(model.summary()).toContain("conv2d(4, 6, 3 × 5, no bias)");
  });

  it("refuse other inputs", () => {
    expect(thrown(() => nn.conv2d(3, 4, 3)(ones([1, 2, 8, 8]))).message).toContain("[batch, 3, height, width]");
    expect(thrown(() => nn.conv2d(3, 4, 3, { groups: 2 })).code).toBe("SHAPE");
    expect(thrown(() => nn.conv2d(3, 4, 0)).code).toBe("ARGUMENT");
  });
});

describe("refusals", () => {
  const [x, kernel] = [ones([1, 4, 8, 8]), ones([6, 4, 3, 3])];

  it("name the shapes and the way out", () => {
    const cases: [() => unknown, string, string][] = [
      [() => conv2d(ones([4, 8, 8]), kernel), "SHAPE", "[batch, channels, height, width]"],
      [() => conv2d(x, ones([6, 3, 3, 3])), "SHAPE", "[1, 4, 8, 8] and kernel [6, 3, 3, 3]"],
      [() => conv2d(x, ones([6, 1, 3, 3]), { groups: 4 }), "SHAPE", "4 groups"],
      [() => conv2d(x, ones([6, 4, 9, 3])), "SHAPE", "fewer than the 9"],
      [() => conv2d(x, ones([6, 4, 0, 3])), "SHAPE", "no taps"],
      [() => conv2d(x, kernel, { stride: 0 }), "ARGUMENT", "stride"],
      [() => conv2d(x, kernel, { stride: [1, 2, 3] }), "ARGUMENT", "2 of them"],
      [() => conv2d(x, kernel, { dilation: 1.5 }), "ARGUMENT", "dilation"],
      [() => conv2d(x, kernel, { padding: -1 }), "ARGUMENT", "padding"],
      [() => conv2d(x, kernel, { padding: "full" as never }), "ARGUMENT", '"same"'],
      [() => conv2d(x, kernel.cast("f64") as never), "DTYPE", "cast"],
      [() => convTranspose2d(x, kernel), "SHAPE", "6 channels"],
      [() => convTranspose2d(x, ones([4, 2, 3, 3]), { outputPadding: 1 }), "ARGUMENT", "output padding"],
      [() => convTranspose2d(x, ones([4, 2, 1, 1]), { padding: 4 }), "SHAPE", "nothing is left"],
      [() => maxPool2d(x, 9), "SHAPE", "does not fit"],
      [() => maxPool2d(x, 2, { padding: 2 }), "ARGUMENT", "smaller than the window"],
      [() => maxPool2d(ones([3]), 2), "SHAPE", "2 axes"],
      [() => avgPool2d(x.cast("i32") as never, 2), "DTYPE", "float"],
    ];
    for (const [run, code, text] of cases) {
      const error = thrown(run);
      expect([error.code, error.message]).toEqual([code, expect.stringContaining(text)]);
    }
  });
});
