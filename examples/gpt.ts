/**
 * A transformer that reads and writes characters, in the setting that nanoGPT proposes for CPUs: 4 blocks, 4 heads, width 128,
 * a context of 64, batches of 12, 2,000 steps, no dropout. Learns from `--data FILE`, or from sentences that it makes
 * itself, with AdamW and no learning rate; prints the held-out loss and samples.
 */
import { parseArgs } from "node:util";
import { data, fromTypedArray, hostRandom, loss, newton, nn, optim, type Tensor, tidy, train } from "../src";
import { alphaOf, countOf, runExample, useDevice } from "./arguments";

const USAGE = `Usage: npx ts-node --transpile-only examples/gpt.ts [options]
  --data FILE         a text file (else: sentences made up here)
  --steps N           default 2000
  --batch N           default 12
  --context N         characters that the model sees (default 64)
  --layers N          default 4
  --heads N           default 4
  --width N           default 128
  --alpha A           the learning rate to start from (default: the rule's own)
  --device SPEC       auto, cpu, cuda, wgpu, cuda:1, … (default auto)
  --samples N         texts to write at the end (default 2)
  --length N          characters of each (default 300)
  --seed N            default 0
  --json              the last line is one JSON object
  --help`;

/** Sharpens the choice of characters a little. */
const TEMPERATURE = 0.8;

function readArguments() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      steps: { type: "string", default: "2000" },
      batch: { type: "string", default: "12" },
      context: { type: "string", default: "64" },
      layers: { type: "string", default: "4" },
      heads: { type: "string", default: "4" },
      width: { type: "string", default: "128" },
      alpha: { type: "string" },
      device: { type: "string", default: "auto" },
      samples: { type: "string", default: "2" },
      length: { type: "string", default: "300" },
      seed: { type: "string", default: "0" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  return {
    ...values,
    steps: countOf("steps", values.steps),
    batch: countOf("batch", values.batch),
    context: countOf("context", values.context),
    layers: countOf("layers", values.layers),
    heads: countOf("heads", values.heads),
    width: countOf("width", values.width),
    alpha: alphaOf(values.alpha),
    samples: countOf("samples", values.samples, 0),
    length: countOf("length", values.length, 0),
    seed: countOf("seed", values.seed, 0),
  };
}

interface Sizes {
  readonly vocabulary: number;
  readonly context: number;
  readonly layers: number;
  readonly heads: number;
  readonly width: number;
}

/** GPT-2 in small: characters and positions as vectors, blocks, and the characters' vectors once more to choose by. */
class Gpt extends nn.Module<[characters: Tensor<"i32">], Tensor> {
  readonly characters: nn.Embedding;
  readonly positions: nn.Parameter;
  readonly blocks: nn.TransformerBlock[];
  readonly norm: nn.LayerNorm;
  readonly choice: nn.Linear;

  constructor({ vocabulary, context, layers, heads, width }: Sizes) {
    super();
    const begin = { normal: 0.02 };
    this.characters = nn.embedding(vocabulary, width, begin);
    this.positions = this.parameter([context, width], begin);
    const options = { causal: true, weight: begin, outputWeight: { normal: 0.02 / Math.sqrt(2 * layers) } };
    this.blocks = Array.from({ length: layers }, () => nn.transformerBlock(width, heads, options));
    this.norm = nn.layerNorm(width);
    this.choice = nn.linear(width, vocabulary, { bias: false, weight: this.characters.table });
  }

  override forward(characters: Tensor<"i32">): Tensor {
    const [, length = 0] = characters.shape;
    const begin = this.characters(characters).add(this.positions.value.slice(0, length));
    return this.choice(this.norm(this.blocks.reduce((x, block) => block(x), begin)));
  }
}

/** Sentences of a small grammar: something to learn that needs no file. */
function madeUpText(sentences: number): string {
  const random = hostRandom(11);
  const one = (words: string) => {
    const list = words.split(" ");
    return list[random.integer(list.length)] ?? "";
  };
  const noun = () =>
    `${one("the a this that")} ${one("small old red quiet clever")} ${one("fox baker river tower cat sailor")}`;
  const sentence = () => `${noun()} ${one("sees follows paints remembers")} ${noun()}${one(". ; , !")}`;
  return Array.from({ length: sentences }, (_, i) => sentence() + (i % 4 === 3 ? "\n" : " ")).join("");
}

/** `length` characters after `start`, one after another; the model sees the last of them. */
function write(model: Gpt, text: data.TextData, start: string, length: number, seed: number): string {
  const random = hostRandom(seed);
  const numbers = [...text.encode(start)];
  for (let index = 0; index < length; index++) {
    const seen = Int32Array.from(numbers.slice(-text.context));
    const probabilities = tidy(() =>
      model(fromTypedArray(seen, [1, seen.length]))
        .at(0, -1)
        .div(TEMPERATURE)
        .softmax()
        .dataSync(),
    );
    let left = random.uniform();
    const place = probabilities.findIndex((probability) => {
      left -= probability;
      return left < 0;
    });
    numbers.push(place < 0 ? probabilities.length - 1 : place);
  }
  return text.decode(numbers);
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const options = readArguments();
  if (options.help) return console.log(USAGE);
  const { seed, alpha, context, layers, heads, width, batch } = options;
  const device = useDevice("device", options.device);
  const text = await data.text(options.data ?? madeUpText(3000), { context, targets: "every" });
  const vocabulary = text.vocabulary.length;
  console.log(`${text.length} characters, ${vocabulary} different ones`);

  const model = new Gpt({ vocabulary, context, layers, heads, width });
  console.log(`${model.parameterCount.toLocaleString("en-US")} parameters`);
  const reports: number[] = [];
  const run = await train({
    model,
    loss: ({ inputs, targets }, model) => loss.crossEntropy(model(inputs), targets),
    optimizer: newton(optim.adamW(), alpha === undefined ? {} : { initial: alpha }),
    data: text.train.batches(batch, { shuffle: true, seed }),
    evaluate: { data: text.held.batches(batch, { shuffle: true, seed }).take(100) },
    steps: options.steps,
    seed,
    progress: true,
    onStep: () => reports.push(performance.now()),
  });

  const held = run.evaluations.at(-1)?.loss ?? Number.NaN;
  console.log(run.summary());
  console.log(`held-out loss ${held.toFixed(4)} (guessing evenly: ${Math.log(vocabulary).toFixed(4)})`);
  for (let sample = 0; sample < options.samples; sample++) {
    console.log(`\n${write(model, text, "\n", options.length, seed + sample)}`);
  }
  if (!options.json) return;
  const { steps, seconds, loss: trainingLoss } = run;
  const stepMs = median(reports.slice(1).map((at, index) => at - (reports[index] ?? at)));
  const figures = { heldLoss: held, loss: trainingLoss, alpha: run.alpha, steps, seconds, stepMs };
  console.log(JSON.stringify({ ...figures, device: device.spec, seed }));
}

runExample(main, USAGE);
