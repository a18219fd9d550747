/**
 * Modules: calling, names, initial values, layers against formulas, training mode, files, summaries.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { nn, ones, RaphsonError, random, type Tensor, tensor, zeros } from "raphson";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-nn-"));
});
afterAll(() => rm(folder, { recursive: true }));

class Twice extends nn.Module {
  override name = "a field that functions have too";
  inner = nn.linear(2, 2);
  readonly heads = [nn.linear(2, 1), nn.linear(2, 1, { bias: false })];
  readonly options = { scale: this.parameter([1], "ones") };
  readonly shared = this.inner;

  override forward(x: Tensor): Tensor {
    return this.inner(this.inner(x)).mul(this.options.scale.value);
  }
}

describe("Module", () => {
  it("is called like a function, and is an instance of its class", () => {
    const model = new Twice();
    expect(model(ones([3, 2])).shape).toEqual([3, 2]);
    expect(model).toBeInstanceOf(Twice);
    expect(model).toBeInstanceOf(nn.Module);
    expect(model.name).toBe("a field that functions have too");
    expect(model(ones([1, 2])).toArray()).toEqual(model.forward(ones([1, 2])).toArray());
  });

  it("names parameters by their fields, shared ones once", () => {
    expect(new Twice().namedParameters().map(([name]) => name)).toEqual([
      "inner.weight",
      "inner.bias",
      "heads.0.weight",
      "heads.0.bias",
      "heads.1.weight",
      "options.scale",
    ]);
    const model = nn.sequential(nn.linear(3, 4), nn.relu(), nn.linear(4, 2));
    expect(Object.keys(model.parameters())).toEqual(["0.weight", "0.bias", "2.weight", "2.bias"]);
    expect(model.parameterCount).toBe(26);
  });

  it("initialises lazily with seed 0, and the same for the same seed", () => {
    const [a, b] = [nn.linear(4, 3), nn.linear(4, 3)];
    expect(a.weight.current).toBeUndefined();
    expect(a.weight.value.dataSync()).toEqual(b.initialize(0).weight.value.dataSync());
    expect(a.initialize(1).weight.value.dataSync()).not.toEqual(b.weight.value.dataSync());
    const limit = 1 / Math.sqrt(4);
    expect(a.weight.value.abs().max().item()).toBeLessThanOrEqual(limit);
    const deep = nn.sequential(nn.linear(4, 4), nn.linear(4, 4)).initialize(1);
    expect(deep.parameters()["0.weight"]?.toArray()).not.toEqual(deep.parameters()["1.weight"]?.toArray());
  });

  it("has initialisers by name", () => {
    const deviation = (name: nn.Initializer) => new nn.Parameter([200, 100], name).value.std().item();
    expect(deviation("heNormal")).toBeCloseTo(Math.sqrt(2 / 100), 2);
    expect(deviation("glorotUniform")).toBeCloseTo(Math.sqrt(2 / 300), 2);
    expect(deviation("normal")).toBeCloseTo(1, 1);
    expect(deviation({ normal: 0.02 })).toBeCloseTo(0.02, 3);
    expect(new nn.Parameter([2], { constant: 3 }).value.toArray()).toEqual([3, 3]);
    expect(() => new nn.Parameter([2], "nonsense" as "zeros").value).toThrow(/kaimingUniform/);
  });

  it("evaluates with other parameters for the time of a call", () => {
    const model = nn.linear(1, 1, { weight: "ones", bias: false });
    const x = tensor([[2]]);
    expect(nn.apply(model, { weight: tensor([[10]]) }, {}, () => model(x).item())).toBe(20);
    expect(model(x).item()).toBe(2);
    expect(() => nn.apply(model, { nope: x }, {}, () => model(x))).toThrow(/no parameter "nope"/);
    expect(() => nn.apply(model, {}, {}, async () => model(x))).toThrow(/async/);
  });

  it("checks values that are set", () => {
    const model = nn.linear(2, 1);
    expect(() => model.weight.set(ones([2, 2]))).toThrow(RaphsonError);
    expect(() => model.setParameters({ weight: ones([1, 2]) })).toThrow(/missing: bias/);
  });
});

describe("layers", () => {
  it("linear is x · weightᵀ + bias", () => {
    const layer = nn.linear(2, 3);
    layer.setParameters({
      weight: tensor([
        [1, 2],
        [3, 4],
        [5, 6],
      ]),
      bias: tensor([1, 1, 1]),
    });
    expect(layer(tensor([[1, 1]])).toArray()).toEqual([[4, 8, 12]]);
    expect(layer(tensor([1, 1])).toArray()).toEqual([4, 8, 12]);
    expect(() => layer(ones([2, 5]))).toThrow(/must end in an axis of 2/);
  });

  it("layerNorm has mean 0 and variance 1", () => {
    const y = nn.layerNorm(5)(random.generator(1).normal([3, 5]).mul(7).add(2));
    expect(y.mean(-1).abs().max().item()).toBeLessThan(1e-5);
    expect(y.variance(-1).sub(1).abs().max().item()).toBeLessThan(1e-3);
    expect(() => nn.layerNorm(5)(ones([5, 4]))).toThrow(/must end in/);
  });

  it("embedding looks rows up", () => {
    const layer = nn.embedding(4, 2);
    const rows = layer(tensor([[3, 0]], { dtype: "i32" }));
    expect(rows.shape).toEqual([1, 2, 2]);
    expect(rows.at(0, 0).toArray()).toEqual(layer.table.value.at(3).toArray());
  });

  it("dropout drops in training only, and keeps the mean", () => {
    const layer = nn.dropout(0.25);
    const x = ones([20_000]);
    expect(layer(x)).toBe(x);
    const training = { training: true, random: random.generator(1) };
    const y = nn.apply(layer, {}, training, () => layer(x));
    expect(y.mean().item()).toBeCloseTo(1, 1);
    expect(y.equal(0).cast("f32").mean().item()).toBeCloseTo(0.25, 1);
    expect(() => nn.apply(layer, {}, { training: true }, () => layer(x))).toThrow(/random/);
    expect(() => nn.dropout(1)).toThrow(RaphsonError);
  });

  it("activations and shapes", () => {
    const x = tensor([-1, 0, 2]);
    expect(nn.relu()(x).toArray()).toEqual([0, 0, 2]);
    expect(nn.tanh()(x).at(2).item()).toBeCloseTo(Math.tanh(2), 6);
    expect(nn.sigmoid()(x).at(0).item()).toBeCloseTo(1 / (1 + Math.E), 6);
    expect(nn.silu()(x).at(2).item()).toBeCloseTo(2 / (1 + Math.exp(-2)), 6);
    expect(nn.gelu()(x).at(2).item()).toBeCloseTo(1.9545, 3);
    expect(nn.flatten()(zeros([2, 3, 4])).shape).toEqual([2, 12]);
    expect(
      nn
        .lambda((t: Tensor) => t.mul(3))(x)
        .toArray(),
    ).toEqual([-3, 0, 6]);
  });
});

describe("files", () => {
  it("saves and loads what it is", async () => {
    const path = join(folder, "model.safetensors");
    const make = () => nn.sequential(nn.linear(3, 4), nn.relu(), nn.linear(4, 2));
    const saved = make().initialize(7);
    await saved.save(path, { note: "seven" });
    const loaded = make();
    expect((await loaded.load(path)).note).toBe("seven");
    expect(loaded(ones([1, 3])).toArray()).toEqual(saved(ones([1, 3])).toArray());
  });

  it("refuses files that do not fit, and changes nothing", async () => {
    const path = join(folder, "small.safetensors");
    await nn.linear(2, 1).save(path);
    const other = nn.linear(2, 1, { bias: false }).initialize(3);
    const before = other.weight.value.toArray();
    await expect(other.load(path)).rejects.toThrow(/not the model's: bias/);
    await expect(nn.linear(3, 1).load(path)).rejects.toThrow(/"weight" is \[1, 2\]/);
    expect(other.weight.value.toArray()).toEqual(before);
  });

  it("says so when a file is missing or broken", async () => {
    const broken = join(folder, "broken.safetensors");
    await writeFile(broken, "not a tensor in sight");
    await expect(nn.linear(1, 1).load(broken)).rejects.toMatchObject({ code: "FILE" });
    await expect(nn.linear(1, 1).load(join(folder, "none"))).rejects.toMatchObject({ code: "FILE" });
  });
});

describe("text", () => {
  it("has a line for each layer", () => {
    const model = nn.sequential(nn.flatten(), nn.linear(4, 8), nn.relu(), nn.linear(8, 2, { bias: false }));
    const lines = model.summary().split("\n");
    expect(lines[0]).toContain("sequential");
    expect(lines[2]).toMatch(/^1 +linear\(4, 8\) +weight \[8, 4\], bias \[8\] +40$/);
    expect(lines.at(-1)).toBe("56 parameters");
    expect(String(model)).toBe(model.summary());
    expect(inspect(model), "what console.log shows").toBe(model.summary());
  });

  it("shows modules in arrays and objects, states, and shared parameters once", () => {
    class Net extends nn.Module {
      table = nn.embedding(10, 4);
      parts = { norm: nn.batchNorm1d(4), heads: [nn.linear(4, 10, { bias: false, weight: this.table.table })] };
      gains = [this.parameter([3], "ones")];
      again = this.parts.norm;
      override forward(x: Tensor): Tensor {
        return this.parts.norm(x);
      }
    }
    const lines = new Net()
      .summary()
      .split("\n")
      .map((line) => line.trim().replaceAll(/ {2,}/g, " | "));
    expect(lines).toEqual([
      "Net | gains.0 [3] | 3",
      "table | embedding(10, 4) | table [10, 4] | 40",
      "parts.norm | batchNorm1d(4) | scale [4], shift [4], runningMean [4] (state), runningVariance [4] (state) | 8",
      "parts.heads.0 | linear(4, 10, no bias) | weight [10, 4] (shared)",
      "51 parameters",
    ]);
  });
});
