/** Problems on characters: a perceptron over a window, a small transformer, an LSTM. */
import { loss, nn, type Tensor } from "../../../src";
import { type TextBatch, textExamples } from "./examples";
import { type Problem, rightOnes, type Sources, type Task } from "./problem";

type Reader = nn.Module<[characters: Tensor<"i32">], Tensor>;

/** A language model as a problem. `every`: it predicts after each character of the window. */
function reader(title: string, context: number, every: boolean, network: (vocabulary: number) => Reader): Problem {
  return {
    title,
    deterministic: false,
    horizons: { short: 500, long: 3000 },
    fewer: every ? 4 : 1,
    async make(seed: number, sources: Sources): Promise<Task> {
      const { vocabulary, ...examples } = await textExamples(sources, context, every);
      const task: Task<Reader, TextBatch> = {
        params: network(vocabulary).initialize(seed),
        loss: ({ inputs, targets }, model) => loss.crossEntropy(model(inputs), targets),
        accuracy: ({ inputs, targets }, model) => rightOnes(model(inputs), targets),
        ...examples,
      };
      return task as Task;
    },
  };
}

export const charMlp = reader("characters: 8 of them, 24 numbers each, 128 tanh", 8, false, (vocabulary) =>
  nn.sequential(
    nn.embedding(vocabulary, 24),
    nn.flatten(),
    nn.linear(8 * 24, 128),
    nn.tanh(),
    nn.linear(128, vocabulary),
  ),
);

/** Two blocks of width 48 over 32 characters, GPT-2's shape in small. */
class Gpt extends nn.Module<[characters: Tensor<"i32">], Tensor> {
  readonly characters: nn.Embedding;
  readonly positions = this.parameter([32, 48], { normal: 0.02 });
  readonly blocks: nn.TransformerBlock[];
  readonly norm = nn.layerNorm(48);
  readonly choice: nn.Linear;

  constructor(vocabulary: number) {
    super();
    const begin = { normal: 0.02 };
    this.characters = nn.embedding(vocabulary, 48, begin);
    const options = { causal: true, weight: begin, outputWeight: { normal: 0.01 } };
    this.blocks = [0, 1].map(() => nn.transformerBlock(48, 4, options));
    this.choice = nn.linear(48, vocabulary, { bias: false, weight: this.characters.table });
  }

  override forward(characters: Tensor<"i32">): Tensor {
    const begin = this.characters(characters).add(this.positions.value);
    return this.choice(this.norm(this.blocks.reduce((x, block) => block(x), begin)));
  }
}

export const charGpt = reader("characters: GPT of 2 blocks, width 48, context 32", 32, true, (n) => new Gpt(n));

export const charLstm = reader("characters: LSTM of width 64, context 16", 16, true, (vocabulary) =>
  nn.sequential(nn.embedding(vocabulary, 24), nn.lstm(24, 64), nn.linear(64, vocabulary)),
);
