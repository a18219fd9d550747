/**
 * A small language model over the tokens of a tokenizer of `@huggingface/tokenizers`: of a model's own `tokenizer.json` with
 * `--tokenizer FILE`, else of one made here, whose tokens are the words and marks of the text. Five tokens in, the next one out.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { data, fromTypedArray, loss, newton, nn, optim, tidy, train } from "../src";
import { countOf, runExample, useDevice } from "./arguments";
import { uniformFrom } from "./drawnDigits";
import { SONNETS } from "./sonnets";

const USAGE = `Usage: npx ts-node --transpile-only examples/tokens.ts [options]
  --data FILE         a text file (else: four sonnets)
  --tokenizer FILE    a tokenizer.json (else: the words of the text)
  --steps N           default 500
  --batch N           default 64
  --length N          tokens to write at the end (default 40)
  --device SPEC       auto, cpu, cuda, wgpu, cuda:1, … (default auto)
  --json              the last line is one JSON object
  --help`;

const CONTEXT = 5;

/** A tokenizer.json of whole words and marks. */
function wordsOf(text: string): object {
  const words = [...new Set(text.match(/\w+|[^\w\s]+/g) ?? [])].sort();
  return {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "Whitespace" },
    post_processor: null,
    decoder: null,
    model: {
      type: "WordLevel",
      vocab: Object.fromEntries(["[unknown]", ...words].map((word, id) => [word, id])),
      unk_token: "[unknown]",
    },
  };
}

async function main() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      tokenizer: { type: "string" },
      steps: { type: "string", default: "500" },
      batch: { type: "string", default: "64" },
      length: { type: "string", default: "40" },
      device: { type: "string", default: "auto" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const [steps, batch, length] = [
    countOf("steps", values.steps),
    countOf("batch", values.batch),
    countOf("length", values.length, 0),
  ];
  useDevice("device", values.device);

  const text = values.data === undefined ? SONNETS : readFileSync(values.data, "utf8");
  const definition =
    values.tokenizer === undefined ? wordsOf(text) : JSON.parse(readFileSync(values.tokenizer, "utf8"));
  // An ESM package, as most of this kind are: imported when it is needed.
  const { Tokenizer } = await import("@huggingface/tokenizers");
  const tokenizer = new Tokenizer(definition, {});
  const ids: readonly number[] = tokenizer.encode(text).ids;
  const vocabulary = ids.reduce((most, id) => Math.max(most, id + 1), 0);
  const tokens = data.tokens(ids, { context: CONTEXT });

  const model = nn.sequential(
    nn.embedding(vocabulary, 32),
    nn.flatten(),
    nn.linear(CONTEXT * 32, 64),
    nn.tanh(),
    nn.linear(64, vocabulary),
  );
  const run = await train({
    model,
    loss: ({ inputs, targets }, model) => loss.crossEntropy(model(inputs), targets),
    optimizer: newton(optim.adamW({ weightDecay: 0.1 })),
    data: tokens.train.batches(batch, { shuffle: true }),
    evaluate: { data: tokens.held.batches(256) },
    steps,
    progress: true,
  });

  const uniform = uniformFrom(1);
  const written = ids.slice(0, CONTEXT);
  for (let i = 0; i < length; i++) {
    const last = Int32Array.from(written.slice(-CONTEXT));
    const weights = tidy(() =>
      model(fromTypedArray(last, [1, CONTEXT]))
        .softmax(-1)
        .dataSync(),
    );
    let rest = uniform();
    const drawn = weights.findIndex((weight) => {
      rest -= weight;
      return rest < 0;
    });
    written.push(Math.max(0, drawn));
  }
  const said = tokenizer.decode(written);
  console.log(run.summary());
  console.log(said);
  const heldLoss = run.evaluations.at(-1)?.loss;
  if (values.json)
    console.log(JSON.stringify({ steps: run.steps, tokens: ids.length, vocabulary, heldLoss, text: said }));
}

runExample(main, USAGE);
