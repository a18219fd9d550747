/**
 * What chooses α in a run: a constant, warm-up with cosine, a rule of the package, or a comparator; and the trainer
 * that each becomes. Which runs there are is `plan.ts`'s subject.
 */
import { ALPHA_RULES, type AlphaRuleName, newton, schedule } from "../../src";
import { Armijo } from "./comparators/armijo";
import { dAdaptation } from "./comparators/dAdaptation";
import { Gen } from "./comparators/gen";
import { hypergradient } from "./comparators/hypergradient";
import { mechanic } from "./comparators/mechanic";
import { Newt } from "./comparators/newt";
import { Polyak } from "./comparators/polyak";
import { prodigy } from "./comparators/prodigy";
import { ScheduleFree } from "./comparators/scheduleFree";
import { OPTIMIZERS, type OptimizerName } from "./optimizers";
import type { Batch, Task } from "./problems/problem";
import { StepTrainer, type Trainer } from "./trainer";

/** What a trainer is made of. */
export interface Setting {
  readonly task: Task;
  readonly optimizer: OptimizerName;
  /** α₀, or the constant α; NaN for methods that take none. */
  readonly alpha: number;
  readonly steps: number;
  readonly seed: number;
  /** Batches of an epoch; 1 where every batch is the whole problem. */
  readonly batches: number;
  /** Batches beside the run's own. */
  readonly draw: () => Batch;
}

/** The part of the steps over which the baseline's cosine warms up. */
const WARM_UP = 0.05;

/** A constant α; the newest parameters are evaluated, or their averages. */
function constant(average: boolean) {
  return ({ task, optimizer, alpha, seed }: Setting): Trainer => {
    const spec = { rule: "constant", initial: alpha } as const;
    return new StepTrainer(task, newton(OPTIMIZERS[optimizer].make(), spec), seed, average);
  };
}

/** A straight rise to α over the first 5 % of steps, then half a cosine to 0. */
function cosine({ task, optimizer, alpha, steps, seed }: Setting): Trainer {
  const rise = Math.max(1, Math.round(WARM_UP * steps));
  const fall = schedule.warmUp({ steps: rise, after: schedule.cosine({ steps: Math.max(1, steps - rise) }) });
  const spec = { rule: "constant", initial: alpha, schedule: fall } as const;
  return new StepTrainer(task, newton(OPTIMIZERS[optimizer].make(), spec), seed);
}

/** A rule of the package, with its own defaults; the newest parameters are evaluated, or their averages. */
function packageRule(rule: AlphaRuleName, average = false) {
  return ({ task, optimizer, alpha, seed }: Setting): Trainer =>
    new StepTrainer(task, newton(OPTIMIZERS[optimizer].make(), { rule, initial: alpha }), seed, average);
}

/** `next` when it knows the number of steps: in the second half α may only fall, and is brought to 0 from outside. */
function nextDecay({ task, optimizer, alpha, steps, seed }: Setting): Trainer {
  const spec = { rule: "next", initial: alpha, totalSteps: steps } as const;
  return new StepTrainer(task, newton(OPTIMIZERS[optimizer].make(), spec), seed);
}

/** Prodigy with half a cosine to 0 outside, as its paper trains; its sums do not see the factor. */
function prodigyCosine({ task, steps, seed }: Setting): Trainer {
  const spec = { rule: "constant", initial: 1, schedule: schedule.cosine({ steps }) } as const;
  return new StepTrainer(task, newton(prodigy(), spec), seed);
}

/** A method of the table. */
export interface Method {
  readonly kind: "baseline" | "rule" | "comparator";
  /** The optimizers that it works with; all, if not given. */
  readonly optimizers?: readonly OptimizerName[];
  /** Whether it begins with an α₀. */
  readonly takesAlpha: boolean;
  /** Its α is searched like a baseline's, instead of tried from each α₀. */
  readonly tuned?: boolean;
  readonly start: (setting: Setting) => Trainer;
}

const ADAMS = ["adam", "adamW"] as const;
const plain = (make: (setting: Setting) => ReturnType<typeof prodigy>) => (setting: Setting) =>
  new StepTrainer(setting.task, make(setting), setting.seed);

/** Prior methods, and what averaging is worth with a constant α that was searched for it. One that fixes its own optimizer is compared with the tuned constants of that optimizer. */
const COMPARATORS: Readonly<Record<string, Omit<Method, "kind">>> = {
  constantAveraged: { takesAlpha: true, tuned: true, start: constant(true) },
  prodigy: { optimizers: ADAMS, takesAlpha: false, start: plain(prodigy) },
  prodigyCosine: { optimizers: ADAMS, takesAlpha: false, start: prodigyCosine },
  dAdaptation: { optimizers: ADAMS, takesAlpha: false, start: plain(dAdaptation) },
  mechanic: { takesAlpha: false, start: plain(({ optimizer }) => mechanic(OPTIMIZERS[optimizer].make())) },
  hypergradient: {
    takesAlpha: true,
    start: plain(({ optimizer, alpha }) => {
      const beta = (ADAMS as readonly string[]).includes(optimizer) ? 1e-8 : 1e-6;
      return hypergradient(OPTIMIZERS[optimizer].make(), { initial: alpha, beta });
    }),
  },
  scheduleFree: {
    optimizers: ["sgd", "adamW"],
    takesAlpha: false,
    start: ({ task, seed, optimizer }) => new ScheduleFree(task, seed, { adam: optimizer === "adamW" }),
  },
  armijo: {
    optimizers: ["sgd"],
    takesAlpha: false,
    start: ({ task, seed, batches }) => new Armijo(task, seed, batches),
  },
  polyak: {
    optimizers: ["sgd"],
    takesAlpha: false,
    start: ({ task, seed, batches }) => new Polyak(task, seed, batches),
  },
  gen: {
    takesAlpha: true,
    start: ({ task, seed, optimizer, alpha, draw }) =>
      new Gen(task, seed, { optimizer: OPTIMIZERS[optimizer].make(), initial: alpha, draw }),
  },
  newt: {
    optimizers: ["sgd", "adam", "adamW"],
    takesAlpha: true,
    start: ({ task, seed, optimizer, alpha }) => new Newt(task, seed, OPTIMIZERS[optimizer].make(), alpha),
  },
};

/**
 * The rules of the package, by the names that the package has for them and judged by the newest parameters; and `next` in
 * the two forms in which `train` uses it: with averaged parameters, and with a known number of steps.
 */
const STARTS: readonly (readonly [string, Method["start"]])[] = [
  ...ALPHA_RULES.filter((rule) => rule !== "constant").map((rule) => [rule, packageRule(rule)] as const),
  ["nextAveraged", packageRule("next", true)],
  ["nextDecay", nextDecay],
];
const RULES = Object.fromEntries(
  STARTS.map(([name, start]): [string, Method] => [name, { kind: "rule", takesAlpha: true, start }]),
);

/** All methods by name. */
export const METHODS: Readonly<Record<string, Method>> = {
  constant: { kind: "baseline", takesAlpha: true, start: constant(false) },
  cosine: { kind: "baseline", takesAlpha: true, start: cosine },
  ...RULES,
  ...Object.fromEntries(
    Object.entries(COMPARATORS).map(([name, method]): [string, Method] => [name, { kind: "comparator", ...method }]),
  ),
};
