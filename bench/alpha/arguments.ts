/** The command line of the benchmark: what may be asked for, and what it is if nothing is said. */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { choiceOf, countOf, numberOf, UsageError } from "../../examples/arguments";
import { METHODS } from "./methods";
import { OPTIMIZERS, type OptimizerName } from "./optimizers";
import type { Plan } from "./plan";
import { PROBLEMS, type ProblemName } from "./problems";
import { hasDigits, textFile } from "./problems/examples";
import { HALVES } from "./split";

const ROOT = join(__dirname, "..", "..");
const names = <T extends string>(table: Readonly<Record<T, unknown>>): readonly T[] => Object.keys(table) as T[];
const PROBLEM_NAMES = names(PROBLEMS);
const OPTIMIZER_NAMES = names(OPTIMIZERS);
const ofKind = (kind: string) => names(METHODS).filter((name) => METHODS[name]?.kind === kind);
const [RULES, COMPARATORS] = [ofKind("rule"), ofKind("comparator")];

export const USAGE = `Usage: npm run bench:alpha -- [options]
  --problems A,B   ${PROBLEM_NAMES.join(", ")} (default all of the halves asked for)
  --half NAME      choosing, reporting or both (default both); which is which is a committed table, bench/alpha/split.ts
  --optimizers A,B ${OPTIMIZER_NAMES.join(", ")} (default all)
  --rules A,B      rules: ${RULES.join(", ")};
                   comparators: ${COMPARATORS.join(", ")};
                   or rules, comparators, all (default all)
  --alphas A,B     starting learning rates (default 1e-6,1e-4,0.01,1,10)
  --seeds N        default 3
  --batches A,B    default 64; 16 and 256 are the others of the plan. Problems without noise use all, GPT and LSTM a quarter
  --horizons A,B   short, long (default short)
  --steps N        instead of the problems' horizons
  --size NAME      full, small or tiny data (default full)
  --data DIR       a folder with mnist/ and tinyshakespeare/ ("none": digits and text that the examples draw; default
                   ../shared/data where it exists)
  --workers N      runs at a time, with one thread each (default: one for each core)
  --minutes N      begin no run after that time, and end with code 3 if some are left; the same command goes on from there
  --store FILE     where results are kept, and taken from (default runs/alpha/results.jsonl)
  --any-build      also take results that other versions of the code have left there
  --out FILE       the result as JSON, with α over time for plots (default runs/alpha/cells.json)
  --quick          a slice that takes a minute or two: other defaults for all of the above
  --json           the last line is the result as JSON
  --help`;

/** What the command line says. */
export interface Options {
  readonly plan: Plan;
  readonly workers: number;
  /** After which no run is begun; Infinity if not given. */
  readonly minutes: number;
  readonly store: string;
  readonly anyBuild: boolean;
  readonly out: string;
  readonly json: boolean;
}

/** Defaults of `--quick`. */
const QUICK = {
  problems: "quadratic,logistic,mnistMlpTanh,charMlp",
  optimizers: "sgd,adamW",
  rules: "next,retsinas,scheduleFree",
  alphas: "1e-6,10",
  seeds: "1",
  steps: "150",
  size: "small",
} as const;

/** The numbers of a list. */
function numbersOf(name: string, text: string, one: (name: string, text: string) => number): readonly number[] {
  return text.split(",").map((part) => one(name, part));
}

function problemsOf(text: string | undefined, half: string): readonly ProblemName[] {
  const halves = half === "both" ? ["choosing", "reporting"] : [half];
  const all = halves.flatMap((name) => HALVES[choiceOf("half", name, ["choosing", "reporting"])].problems);
  if (text === undefined) return all;
  return text.split(",").map((name) => choiceOf("problems", name.trim(), all));
}

function methodsOf(text: string): readonly string[] {
  const groups: Readonly<Record<string, readonly string[]>> = {
    rules: RULES,
    comparators: COMPARATORS,
    all: [...RULES, ...COMPARATORS],
  };
  const choices = [...RULES, ...COMPARATORS, ...names(groups)];
  return text.split(",").flatMap((part) => {
    const name = choiceOf("rules", part.trim(), choices);
    return groups[name] ?? [name];
  });
}

/** The data's folder; undefined where data are drawn. */
function folderOf(text: string | undefined): string | undefined {
  if (text === "none") return undefined;
  const usual = join(ROOT, "..", "shared", "data");
  if (text === undefined) return existsSync(usual) ? usual : undefined;
  if (hasDigits(text) || textFile(text) !== undefined) return text;
  throw new UsageError(`--data: ${text} has neither mnist/ nor tinyshakespeare/input.txt; "none" draws data`);
}

/** Reads the command line; undefined where help was asked for. */
export function readArguments(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      problems: { type: "string" },
      half: { type: "string", default: "both" },
      optimizers: { type: "string" },
      rules: { type: "string" },
      alphas: { type: "string" },
      seeds: { type: "string" },
      batches: { type: "string", default: "64" },
      horizons: { type: "string", default: "short" },
      steps: { type: "string" },
      size: { type: "string" },
      data: { type: "string" },
      workers: { type: "string" },
      minutes: { type: "string" },
      store: { type: "string", default: join(ROOT, "runs", "alpha", "results.jsonl") },
      "any-build": { type: "boolean", default: false },
      out: { type: "string", default: join(ROOT, "runs", "alpha", "cells.json") },
      quick: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const usual: Readonly<Partial<typeof QUICK>> = values.quick ? QUICK : {};
  const steps = values.steps ?? usual.steps;
  const optimizers = (values.optimizers ?? usual.optimizers ?? OPTIMIZER_NAMES.join()).split(",");
  const plan: Plan = {
    problems: problemsOf(values.problems ?? usual.problems, values.half),
    optimizers: optimizers.map((name): OptimizerName => choiceOf("optimizers", name.trim(), OPTIMIZER_NAMES)),
    methods: methodsOf(values.rules ?? usual.rules ?? "all"),
    alphas: numbersOf("alphas", values.alphas ?? usual.alphas ?? "1e-6,1e-4,0.01,1,10", (name, text) =>
      numberOf(name, text, 1e-12, 1e6),
    ),
    seeds: countOf("seeds", values.seeds ?? usual.seeds ?? "3"),
    batches: numbersOf("batches", values.batches, countOf),
    horizons: values.horizons.split(",").map((name) => choiceOf("horizons", name.trim(), ["short", "long"])),
    steps: steps === undefined ? undefined : countOf("steps", steps, 10),
    sources: {
      folder: folderOf(values.data),
      size: choiceOf("size", values.size ?? usual.size ?? "full", ["full", "small", "tiny"]),
    },
  };
  if (plan.seeds > HALVES.choosing.seeds.length)
    throw new UsageError(`--seeds: there are ${HALVES.choosing.seeds.length}`);
  return {
    plan,
    minutes: values.minutes === undefined ? Number.POSITIVE_INFINITY : numberOf("minutes", values.minutes, 0),
    workers: countOf("workers", values.workers ?? String(availableParallelism())),
    ...{ store: values.store, anyBuild: values["any-build"], out: values.out, json: values.json },
  };
}
