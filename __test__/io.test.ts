/** Files of tensors: there and back, and what is refused. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { io, nn, RaphsonError, tensor } from "raphson";
import { afterAll, beforeAll, expect, it } from "vitest";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-io-"));
});
afterAll(() => rm(folder, { recursive: true }));

it("saves a tree under its paths, and loads dtypes, shapes and values", async () => {
  const path = join(folder, "tree.safetensors");
  const tree = {
    layers: [
      {
        w: tensor([
          [1, 2],
          [3, 4],
        ]),
      },
    ],
    count: tensor(new Int32Array([7])),
  };
  await io.save(tree, path, { note: "hello" });
  const { tensors, metadata } = await io.load(path);
  expect(Object.keys(tensors).sort()).toEqual(["count", "layers.0.w"]);
  expect(tensors["layers.0.w"]?.toArray()).toEqual([
    [1, 2],
    [3, 4],
  ]);
  expect(tensors.count?.dtype).toBe("i32");
  expect(metadata.note).toBe("hello");
});

it("reads what a model saved", async () => {
  const path = join(folder, "model.safetensors");
  const model = nn.linear(3, 2).initialize(1);
  await model.save(path);
  const { tensors } = await io.load(path);
  for (const [name, value] of Object.entries(model.parameters())) {
    expect(tensors[name]?.toArray()).toEqual(value.toArray());
  }
});

it("refuses trees without tensors, names that clash, missing and damaged files", async () => {
  const path = join(folder, "refused.safetensors");
  await expect(io.save({}, path)).rejects.toThrow(/no tensors/);
  await expect(io.save({ a: [tensor([1])], "a.0": tensor([2]) }, path)).rejects.toThrow(/two tensors .* a\.0/);
  await expect(io.load(join(folder, "absent"))).rejects.toThrow(RaphsonError);
  await writeFile(path, "not safetensors");
  await expect(io.load(path)).rejects.toThrow(RaphsonError);
});
