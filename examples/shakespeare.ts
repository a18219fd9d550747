/**
 * A small language model: eight characters in, the next one out. Learns from `--data FILE`, or from four sonnets, with
 * no learning rate to choose; prints the held-out loss and writes a few lines of its own.
 */
import { parseArgs } from "node:util";
import { data, fromTypedArray, loss, newton, nn, optim, tidy, train } from "../src";
import { alphaOf, countOf, runExample, useDevice } from "./arguments";
import { uniformFrom } from "./drawnDigits";
import { SONNETS } from "./sonnets";

const USAGE = `Usage: npx ts-node --transpile-only examples/shakespeare.ts [options]
  --data FILE         a text file (else: four sonnets)
  --steps N           default 1000
  --batch N           default 128
  --hidden N          width of the hidden layer (default 256)
  --alpha A           the learning rate to start from (default: the rule's own)
  --device SPEC       auto, cpu, cuda, wgpu, cuda:1, … (default auto)
  --length N          characters to write at the end (default 300)
  --seed N            default 0
  --json              the last line is one JSON object
  --help`;

const CONTEXT = 8;
const EMBEDDING = 24;

function readArguments() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      steps: { type: "string", default: "1000" },
      batch: { type: "string", default: "128" },
      hidden: { type: "string", default: "256" },
      alpha: { type: "string" },
      device: { type: "string", default: "auto" },
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
    hidden: countOf("hidden", values.hidden),
    alpha: alphaOf(values.alpha),
    length: countOf("length", values.length, 0),
    seed: countOf("seed", values.seed, 0),
  };
}

function makeModel(vocabulary: number, hidden: number) {
  return nn.sequential(
    nn.embedding(vocabulary, EMBEDDING),
    nn.flatten(),
    nn.linear(CONTEXT * EMBEDDING, hidden),
    nn.tanh(),
    nn.linear(hidden, vocabulary),
  );
}

/** A place in `probabilities`, drawn. */
function draw(probabilities: Float32Array, uniform: number): number {
  let left = uniform;
  const place = probabilities.findIndex((probability) => {
    left -= probability;
    return left < 0;
  });
  return place < 0 ? probabilities.length - 1 : place;
}

/** `length` characters, one after another, from the model's own words. */
function write(model: ReturnType<typeof makeModel>, text: data.TextData, start: string, length: number, seed: number) {
  const uniform = uniformFrom(seed + 1);
  const numbers = [...text.encode(start)];
  for (let index = 0; index < length; index++) {
    const window = Int32Array.from(numbers.slice(-CONTEXT));
    const probabilities = tidy(() =>
      model(fromTypedArray(window, [1, CONTEXT]))
        .softmax()
        .dataSync(),
    );
    numbers.push(draw(probabilities, uniform()));
  }
  return text.decode(numbers);
}

async function main(): Promise<void> {
  const options = readArguments();
  if (options.help) return console.log(USAGE);
  const { seed, alpha } = options;
  useDevice("device", options.device);
  const text = await data.text(options.data ?? SONNETS, { context: CONTEXT });
  console.log(`${text.length} characters, ${text.vocabulary.length} different ones`);

  const model = makeModel(text.vocabulary.length, options.hidden);
  const run = await train({
    model,
    loss: ({ inputs, targets }, model) => loss.crossEntropy(model(inputs), targets),
    optimizer: newton(optim.adamW(), alpha === undefined ? {} : { initial: alpha }),
    data: text.train.batches(options.batch, { shuffle: true, seed }),
    evaluate: { data: text.held.batches(1000).take(20) },
    steps: options.steps,
    seed,
    progress: true,
  });

  const held = run.evaluations.at(-1)?.loss ?? Number.NaN;
  console.log(run.summary());
  console.log(`held-out loss ${held.toFixed(4)} (guessing evenly: ${Math.log(text.vocabulary.length).toFixed(4)})`);
  const start = text.decode((await firstWindow(text)).slice(0, CONTEXT));
  console.log(`\n${write(model, text, start, options.length, seed)}`);
  if (!options.json) return;
  const { steps, seconds, loss: trainingLoss } = run;
  console.log(JSON.stringify({ heldLoss: held, loss: trainingLoss, alpha: run.alpha, steps, seconds, seed }));
}

/** The first characters of the text: something to go on from. */
async function firstWindow(text: data.TextData): Promise<Int32Array> {
  for await (const { inputs } of text.train.batches(1)) return inputs.data();
  return new Int32Array(CONTEXT);
}

runExample(main, USAGE);
