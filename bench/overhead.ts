/**
 * What each learning-rate rule costs: milliseconds of a training step divided by those of a constant learning rate, with Adam, for
 * the models of `bench/peers`: an MLP 784-512-512-10 (batch 128), a CNN and a small GPT. All rules take turns in one process, so that
 * a busy machine slows all alike. `npm run bench:overhead -- --json`; the last line is JSON.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { newton, optim, trainingStep } from "../src";
import { ALPHA_RULES, type AlphaRuleName } from "../src/newton";
import { startUpOf } from "../src/newton/startUp";
import { type Batch, loadModel, lossOf } from "./peers/raphson_models";
import { makeWorkload } from "./peers/workloads";

const RULES: readonly AlphaRuleName[] = [
  "constant",
  "next",
  "nextPlain",
  "exact",
  "retsinas",
  "alt1",
  "alt2",
  "hermite",
  "alt2GradientFree",
];
/** The workloads, and the rules that are timed where none are named. */
const WORKLOADS = {
  mlp: { of: "mlp128", rules: RULES },
  cnn: { of: "cnn", rules: ["constant", "next"] },
  gpt: { of: "gpt", rules: ["constant", "next"] },
} as const;
type Name = keyof typeof WORKLOADS;
/** Steps before the first timing: compilation, and the start-up of "next". */
const WARM_UP = 2 + (startUpOf("next")?.boundedSteps ?? 0);

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    workload: { type: "string", default: "mlp" },
    rules: { type: "string" },
    rounds: { type: "string", default: "60" },
    steps: { type: "string", default: "4" },
  },
});
const [rounds, stepsPerRound] = [Number(values.rounds), Number(values.steps)];
if (!(Number.isSafeInteger(rounds) && rounds >= 1 && Number.isSafeInteger(stepsPerRound) && stepsPerRound >= 1)) {
  throw new Error("--rounds and --steps must be whole numbers of at least 1");
}

const isName = (name: string): name is Name => name in WORKLOADS;
const isRule = (name: string): name is AlphaRuleName => (ALPHA_RULES as readonly string[]).includes(name);

function wantedNames(): Name[] {
  const names = values.workload === "all" ? Object.keys(WORKLOADS) : values.workload.split(",");
  const unknown = names.find((name) => !isName(name));
  if (unknown === undefined) return names.filter(isName);
  throw new Error(`there is no workload ${unknown}; --workload takes ${Object.keys(WORKLOADS).join(", ")}, or all`);
}

function wantedRules(name: Name): readonly AlphaRuleName[] {
  if (values.rules === undefined) return WORKLOADS[name].rules;
  const rules = values.rules.split(",");
  const unknown = rules.find((rule) => !isRule(rule));
  if (unknown === undefined) return ["constant", ...rules.filter(isRule).filter((rule) => rule !== "constant")];
  throw new Error(`there is no rule ${unknown}; --rules takes ${ALPHA_RULES.join(", ")}`);
}

/** One rule's training, which takes the workload's batches in turns, and its times. */
function makeRunner(rule: AlphaRuleName, { model, batches }: ReturnType<typeof loadModel>) {
  const optimizer = newton(optim.adam(), { rule, initial: 1e-3, min: 1e-8, max: 1e-2 });
  const step = trainingStep({ model, loss: lossOf, optimizer });
  let count = 0;
  const next = () => batches[count++ % batches.length] as Batch;
  return { rule, step, next, ms: [] as number[] };
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** Times a workload's rules; the ratios to `constant`, and its milliseconds. */
async function measure(name: Name, folder: string): Promise<Record<string, number>> {
  const { openFile } = await import("./peers/protocol.mjs");
  const workload = makeWorkload(WORKLOADS[name].of, folder);
  const runners = wantedRules(name).map((rule) => makeRunner(rule, loadModel(workload, openFile(workload.file))));
  for (const { step, next } of runners) for (let index = 0; index < WARM_UP; index++) await step.step(next());

  for (let round = 0; round < rounds; round++) {
    for (const { step, next, ms } of runners) {
      const start = performance.now();
      for (let index = 0; index < stepsPerRound; index++) await step.run(next());
      await step.drain();
      ms.push((performance.now() - start) / stepsPerRound);
    }
  }
  for (const { step } of runners) step.dispose();
  const constant = runners.find(({ rule }) => rule === "constant")?.ms ?? [];
  // Each round's own ratio: what slows one round slows both of its parts.
  const ratios = runners.map(
    ({ rule, ms }) => [rule, median(ms.map((value, round) => value / (constant[round] ?? Number.NaN)))] as const,
  );
  const constantMs = median(constant);
  for (const [rule, ratio] of ratios) {
    const ms = (ratio * constantMs).toFixed(2);
    console.log(`${name.padEnd(4)} ${rule.padEnd(18)} ${ms} ms, ${ratio.toFixed(3)} × constant`);
  }
  const rounded = ratios.map(([rule, ratio]) => [rule, Number(ratio.toFixed(4))] as const);
  return { ...Object.fromEntries(rounded), constant_ms: Number(constantMs.toFixed(3)) };
}

async function main(): Promise<void> {
  const names = wantedNames();
  const folder = mkdtempSync(join(tmpdir(), "raphson-overhead-"));
  try {
    const results: [Name, Record<string, number>][] = [];
    for (const name of names) results.push([name, await measure(name, folder)]);
    // The first workload's numbers, and those of all by name.
    const [first] = results;
    if (values.json) console.log(JSON.stringify({ ...first?.[1], workloads: Object.fromEntries(results) }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
