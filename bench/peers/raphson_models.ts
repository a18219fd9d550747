/**
 * The compared models as this package writes them: layers, initial weights and batches from a workload's file, losses. Who trains
 * them, and how, stands in `raphson_peer.ts` and in `../overhead.ts`.
 */
import { fromTypedArray, loss, nn, type Tensor } from "../../src";
import type { Entry, Workload } from "./workloads";

export type Batch = { readonly x: Tensor; readonly y: Tensor };
export type AnyModel = nn.Module<[x: Tensor], Tensor>;
type Read = (entry: Entry) => Float32Array | Int32Array;

/** GPT-2 in small, as in examples/gpt.ts: the characters' vectors once more to choose by. */
class Gpt extends nn.Module<[characters: Tensor<"i32">], Tensor> {
  readonly characters: nn.Embedding;
  readonly positions: nn.Parameter;
  readonly blocks: nn.TransformerBlock[];
  readonly norm: nn.LayerNorm;
  readonly choice: nn.Linear;

  constructor({ vocabulary = 0, context = 0, layers = 0, heads = 0, width = 0 }: Workload["sizes"]) {
    super();
    this.characters = nn.embedding(vocabulary, width);
    this.positions = this.parameter([context, width]);
    this.blocks = Array.from({ length: layers }, () => nn.transformerBlock(width, heads, { causal: true }));
    this.norm = nn.layerNorm(width);
    this.choice = nn.linear(width, vocabulary, { bias: false, weight: this.characters.table });
  }

  override forward(characters: Tensor<"i32">): Tensor {
    const begin = this.characters(characters).add(this.positions.value);
    return this.choice(this.norm(this.blocks.reduce((x, block) => block(x), begin)));
  }
}

const models: Record<Workload["kind"], (sizes: Workload["sizes"]) => AnyModel> = {
  mlp: () => nn.sequential(nn.linear(784, 512), nn.relu(), nn.linear(512, 512), nn.relu(), nn.linear(512, 10)),
  tiny: () => nn.sequential(nn.linear(4, 16), nn.tanh(), nn.linear(16, 1)),
  cnn: () =>
    nn.sequential(
      nn.conv2d(1, 32, 3, { padding: "same" }),
      nn.relu(),
      nn.maxPool2d(2),
      nn.conv2d(32, 64, 3, { padding: "same" }),
      nn.relu(),
      nn.maxPool2d(2),
      nn.flatten(),
      nn.linear(64 * 7 * 7, 128),
      nn.relu(),
      nn.linear(128, 10),
    ),
  gpt: (sizes) => new Gpt(sizes) as unknown as AnyModel,
};

export function lossOf({ x, y }: Batch, model: AnyModel): Tensor {
  const outputs = model(x);
  return y.dtype === "f32"
    ? outputs.sub(y).square().mean()
    : (loss.crossEntropy(outputs, y as unknown as Tensor<"i32">) as Tensor);
}

function tensorOf(read: Read, entry: Entry): Tensor {
  return fromTypedArray(read(entry), [...entry.shape]) as Tensor;
}

function fill(model: AnyModel, workload: Workload, read: Read): void {
  const parameters = model.namedParameters();
  if (parameters.length !== workload.params.length) throw new Error("the model has other parameters than the file");
  workload.params.forEach((entry, index) => {
    parameters[index]?.[1].set(tensorOf(read, entry));
  });
}

/** A new model with the workload's weights, and its batches. */
export function loadModel(workload: Workload, read: Read): { model: AnyModel; batches: Batch[] } {
  const model = models[workload.kind](workload.sizes);
  fill(model, workload, read);
  return { model, batches: workload.batches.map(({ x, y }) => ({ x: tensorOf(read, x), y: tensorOf(read, y) })) };
}
