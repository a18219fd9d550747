/**
 * Learns to read digits with a convolutional network and no learning rate to choose: two convolutions with pools, two
 * dense layers, on digits that the examples draw themselves, or on MNIST-style files (`--data DIR`).
 */
import { parseArgs } from "node:util";
import { loss, metrics, newton, nn, optim, type Tensor, train } from "../src";
import { alphaOf, countOf, runExample, useDevice } from "./arguments";
import { makeDigits, readDigits } from "./digitFiles";

const USAGE = `Usage: npx ts-node --transpile-only examples/cnn.ts [options]
  --data DIR     a folder with MNIST-style IDX files, gzipped or not (else: digits drawn by the examples)
  --alpha A      the learning rate to start from (default: the rule's own)
  --epochs N     default 10
  --batch N      default 64
  --device SPEC  auto, cpu, cuda, wgpu, cuda:1, … (default auto)
  --size N       digits to draw to learn from; a quarter as many are held out (default 4000)
  --seed N       default 0
  --json         the last line is one JSON object
  --help`;

function readArguments() {
  const { values } = parseArgs({
    options: {
      data: { type: "string" },
      alpha: { type: "string" },
      epochs: { type: "string", default: "10" },
      batch: { type: "string", default: "64" },
      device: { type: "string", default: "auto" },
      size: { type: "string", default: "4000" },
      seed: { type: "string", default: "0" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  return {
    ...values,
    alpha: alphaOf(values.alpha),
    epochs: countOf("epochs", values.epochs),
    batch: countOf("batch", values.batch),
    size: countOf("size", values.size, 10),
    seed: countOf("seed", values.seed, 0),
  };
}

/** 28 × 28 → 32 channels of 14 × 14 → 64 channels of 7 × 7 → 128 → 10 */
function network() {
  return nn.sequential(
    nn.lambda((images: Tensor) => images.reshape([-1, 1, 28, 28]), "channels"),
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
  );
}

async function main(): Promise<void> {
  const options = readArguments();
  if (options.help) return console.log(USAGE);
  const { seed, alpha } = options;
  const device = useDevice("device", options.device);
  const [fit, held] = options.data === undefined ? makeDigits(options.size, seed) : await readDigits(options.data);
  console.log(`${fit.size} digits to learn from, ${held.size} held out`);

  const run = await train({
    model: network(),
    loss: ({ images, labels }, model) => loss.crossEntropy(model(images), labels),
    optimizer: newton(optim.adamW(), alpha === undefined ? {} : { initial: alpha }),
    data: fit.batches(options.batch, { shuffle: true, seed }),
    evaluate: { data: held.batches(500), metrics: { accuracy: metrics.accuracy } },
    epochs: options.epochs,
    seed,
    progress: true,
  });

  console.log(run.summary());
  if (!options.json) return;
  const accuracies = run.evaluations.map((evaluation) => evaluation.metrics.accuracy);
  console.log(
    JSON.stringify({
      accuracy: accuracies.at(-1),
      accuracies,
      heldLoss: run.evaluations.at(-1)?.loss,
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
      seed,
    }),
  );
}

runExample(main, USAGE);
