/**
 * Learns to read digits, with no learning rate to choose: a perceptron 784-256-10 (`--hidden`) on digits that this example draws
 * itself, or on MNIST-style files (`--data DIR`). Prints a summary and writes a picture of loss and α.
 */
import { parseArgs } from "node:util";
import { ALPHA_RULES, loss, metrics, newton, nn, optim, type Run, train } from "../src";
import { alphaOf, choiceOf, countOf, runExample, useDevice } from "./arguments";
import { makeDigits, readDigits } from "./digitFiles";
import { writePicture } from "./picture";

const USAGE = `Usage: npm run demo -- [options]
  --data DIR          a folder with MNIST-style IDX files, gzipped or not (else: digits drawn by this example)
  --optimizer NAME    sgd, momentum, adam or adamw (default adamw)
  --rule NAME         the learning-rate rule: ${ALPHA_RULES.join(", ")} (default next)
  --alpha A           the learning rate to start from (default: the rule's own)
  --epochs N          default 5
  --batch N           default 64
  --hidden N          width of the hidden layer (default 256)
  --device SPEC       auto, cpu, cuda, wgpu, cuda:1, … (default auto)
  --size N            digits to draw to learn from; a quarter as many are held out (default 4000)
  --seed N            default 0
  --out FILE          where the picture goes (default runs/digits.svg)
  --json              the last line is one JSON object
  --help`;

const OPTIMIZERS = {
  sgd: () => optim.sgd(),
  momentum: () => optim.momentum(),
  adam: () => optim.adam(),
  adamw: () => optim.adamW(),
};

function readArguments() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      optimizer: { type: "string", default: "adamw" },
      rule: { type: "string", default: "next" },
      alpha: { type: "string" },
      epochs: { type: "string", default: "5" },
      batch: { type: "string", default: "64" },
      size: { type: "string", default: "4000" },
      hidden: { type: "string", default: "256" },
      device: { type: "string", default: "auto" },
      seed: { type: "string", default: "0" },
      out: { type: "string", default: "runs/digits.svg" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  return {
    ...values,
    optimizer: choiceOf("optimizer", values.optimizer, ["sgd", "momentum", "adam", "adamw"]),
    rule: choiceOf("rule", values.rule, ALPHA_RULES),
    alpha: alphaOf(values.alpha),
    epochs: countOf("epochs", values.epochs),
    batch: countOf("batch", values.batch),
    size: countOf("size", values.size, 10),
    hidden: countOf("hidden", values.hidden),
    seed: countOf("seed", values.seed, 0),
  };
}

function draw(run: Run, path: string): string {
  const points = (values: Float64Array) => Array.from(values, (value, step) => [step, value] as const);
  return writePicture(path, {
    title: `Digits: ${run.optimizer}, learning rate by "${run.rule}"`,
    x: "step",
    y: [{ name: "loss" }, { name: "α", log: true }],
    lines: [
      { name: "training loss", points: points(run.history.loss) },
      { name: "learning rate α", points: points(run.history.alpha), axis: 1 },
    ],
  });
}

async function main(): Promise<void> {
  const options = readArguments();
  if (options.help) return console.log(USAGE);
  const { seed, rule, alpha, hidden } = options;
  const device = useDevice("device", options.device);
  const [fit, held] = options.data === undefined ? makeDigits(options.size, seed) : await readDigits(options.data);
  console.log(`${fit.size} digits to learn from, ${held.size} held out`);

  const model = nn.sequential(nn.flatten(), nn.linear(784, hidden), nn.relu(), nn.linear(hidden, 10));
  const run = await train({
    model,
    loss: ({ images, labels }, model) => loss.crossEntropy(model(images), labels),
    optimizer: newton(OPTIMIZERS[options.optimizer](), alpha === undefined ? { rule } : { rule, initial: alpha }),
    data: fit.batches(options.batch, { shuffle: true, seed }),
    evaluate: { data: held.batches(500), metrics: { accuracy: metrics.accuracy } },
    epochs: options.epochs,
    seed,
    progress: true,
  });

  console.log(run.summary());
  console.log(`picture    ${draw(run, options.out)}`);
  if (!options.json) return;
  const last = run.evaluations.at(-1);
  console.log(
    JSON.stringify({
      accuracy: last?.metrics.accuracy,
      heldLoss: last?.loss,
      loss: run.loss,
      alpha: run.alpha,
      steps: run.steps,
      epochs: run.epochs,
      seconds: run.seconds,
      rejected: run.rejected,
      rule: run.rule,
      optimizer: run.optimizer,
      device: device.spec,
      batch: options.batch,
      hidden,
      seed,
    }),
  );
}

runExample(main, USAGE);
