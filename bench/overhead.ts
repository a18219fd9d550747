/**
 * What each learning-rate rule costs: milliseconds of a training step divided by those of a constant learning rate, for
 * an MLP 784-512-512-10, batch 128, Adam. All rules take turns in one process, so that a busy machine slows all alike.
 */
import { parseArgs } from "node:util";
import { fromTypedArray, loss, newton, nn, optim, type Tensor, trainingStep } from "../src";

const RULES = [
  "constant",
  "next",
  "nextPlain",
  "exact",
  "retsinas",
  "alt1",
  "alt2",
  "hermite",
  "alt2GradientFree",
] as const;
const BATCH = 128;

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "15" },
    steps: { type: "string", default: "4" },
  },
});
const [rounds, stepsPerRound] = [Number(values.rounds), Number(values.steps)];
if (!(Number.isSafeInteger(rounds) && rounds >= 1 && Number.isSafeInteger(stepsPerRound) && stepsPerRound >= 1)) {
  throw new Error("--rounds and --steps must be whole numbers of at least 1");
}

type Digits = { readonly images: Tensor; readonly labels: Tensor<"i32"> };

function makeBatch(): Digits {
  const images = Float32Array.from({ length: BATCH * 784 }, (_, index) => ((index * 7919) % 1009) / 1009);
  const labels = Int32Array.from({ length: BATCH }, (_, index) => (index * 7) % 10);
  return { images: fromTypedArray(images, [BATCH, 784]), labels: fromTypedArray(labels) };
}

function makeStep(rule: (typeof RULES)[number]) {
  const model = nn.sequential(nn.linear(784, 512), nn.relu(), nn.linear(512, 512), nn.relu(), nn.linear(512, 10));
  model.initialize(1);
  return trainingStep({
    model,
    loss: ({ images, labels }: Digits, model) => loss.crossEntropy(model(images), labels),
    optimizer: newton(optim.adam(), { rule, initial: 1e-3, min: 1e-8, max: 1e-2 }),
  });
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

async function main(): Promise<void> {
  const batch = makeBatch();
  const runners = RULES.map((rule) => ({ rule, step: makeStep(rule), ms: [] as number[] }));
  // Twelve steps first: compilation, and the start-up of "next".
  for (const { step } of runners) for (let index = 0; index < 12; index++) await step.step(batch);

  for (let round = 0; round < rounds; round++) {
    for (const { step, ms } of runners) {
      const start = performance.now();
      for (let index = 0; index < stepsPerRound; index++) await step.run(batch);
      await step.drain();
      ms.push((performance.now() - start) / stepsPerRound);
    }
  }
  const constant = runners.find(({ rule }) => rule === "constant")?.ms ?? [];
  // Each round's own ratio: what slows one round slows both of its parts.
  const ratios = runners.map(
    ({ rule, ms }) => [rule, median(ms.map((value, round) => value / (constant[round] ?? Number.NaN)))] as const,
  );
  const constantMs = median(constant);
  for (const [rule, ratio] of ratios) {
    console.log(`${rule.padEnd(18)} ${(ratio * constantMs).toFixed(2)} ms, ${ratio.toFixed(3)} × constant`);
  }
  if (!values.json) return;
  const rounded = ratios.map(([rule, ratio]) => [rule, Number(ratio.toFixed(4))]);
  console.log(JSON.stringify({ ...Object.fromEntries(rounded), constant_ms: Number(constantMs.toFixed(3)) }));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
