/**
 * `newton`: finds the learning rate α of any optimizer while it trains. Here are the options and their checks; the
 * formulas are the addon's, the compiled step is `step.ts`'s.
 */
import { argumentError } from "../errors";
import { type AlphaSpec, native } from "../native";
import type { Optimizer } from "../optim/optimizer";
import type { Schedule } from "../optim/schedule";
import { checkOptions, describe } from "../tensor/validate";
import type { AlphaRule, Measure } from "./rule";
import { startUpOf } from "./startUp";

/**
 * The rules by name. `next` is the default and costs no pass: it looks at the slopes of the last directions on the next
 * batch. `nextPlain`, its first version, looks at the very last direction only, and keeps less. The others measure on the step's own batch. `alt2GradientFreeAsPublished` is kept for the record only: its
 * slope is that at θ instead of θ′, and on a quadratic at γ = 1 it runs away.
 */
export const ALPHA_RULES = [
  "next",
  "nextPlain",
  "exact",
  "retsinas",
  "alt1",
  "alt2",
  "alt2GradientFree",
  "alt2GradientFreeAsPublished",
  "hermite",
  "constant",
] as const;

/** The name of a built-in rule. */
export type AlphaRuleName = (typeof ALPHA_RULES)[number];

/** Options of `newton`; what is left out is the rule's own default. */
export interface NewtonOptions {
  /** A built-in rule's name, or a rule from `defineAlphaRule`; "next" if not given. */
  readonly rule?: AlphaRuleName | AlphaRule;
  /** Slow adaptation, in (0, 1]: the part of Newton's step that is taken. */
  readonly gamma?: number;
  /** α never falls below this. */
  readonly min?: number;
  /** α never rises above this. */
  readonly max?: number;
  /** α before the first step; with `next` it hardly matters. */
  readonly initial?: number;
  /**
   * Rule `next`: how many steps there will be. α then stays in the second half and is multiplied by what falls to 0 at the
   * end. `train` fills it in where it knows.
   */
  readonly totalSteps?: number;
  /**
   * Rule `next`: of tensors of more than 16,384 numbers, traces and slopes see every k-th row only, but at least 8 rows; 64
   * if not given, 1 for all. Small tensors are always seen whole.
   */
  readonly sample?: number;
  /** Same-batch rules measure at every k-th step only; 1 if not given. */
  readonly every?: number;
  /** Whether proposals that make no sense (a curvature ≤ 0, cancellation) are held back. */
  readonly guard?: boolean;
  /** Multiplies α at each step, outside α's own state. */
  readonly schedule?: Schedule;
  /**
   * Whether all parameters share one α ("shared", if not given) or every group of the optimizer has its own ("separate"): the
   * groups of its option `groups`, or the parts of `optim.combine`. For the rules next, nextPlain and retsinas.
   */
  readonly groups?: "shared" | "separate";
  /** Numbers to measure and record at every step, whether the rule needs them or not. Costs extra passes. */
  readonly telemetry?: readonly Measure[];
}

/** An optimizer whose learning rate is found while training. */
export interface NewtonOptimizer<S = unknown> {
  readonly kind: "newton";
  readonly optimizer: Optimizer<S>;
  readonly rule: AlphaRuleName | AlphaRule;
  readonly spec: Readonly<AlphaSpec>;
  readonly schedule: Schedule | undefined;
  readonly groups: "shared" | "separate";
  readonly telemetry: readonly Measure[];
}

const KNOWN = [
  "rule",
  "gamma",
  "min",
  "max",
  "initial",
  "totalSteps",
  "sample",
  "every",
  "guard",
  "schedule",
  "groups",
  "telemetry",
] as const;

function checkNumbers(spec: AlphaSpec): void {
  const { rule, gamma, min, max, initial, every, totalSteps, sample } = spec;
  const refuse = (sentence: string) => {
    throw argumentError("newton", sentence);
  };
  if (!(gamma > 0 && gamma <= 1)) refuse(`gamma must be greater than 0 and at most 1, not ${gamma}`);
  for (const [name, value] of Object.entries({ min, max, initial })) {
    if (!(Number.isFinite(value) && value > 0)) refuse(`${name} must be a positive number, not ${value}`);
  }
  if (min >= max) refuse(`min (${min}) must be smaller than max (${max})`);
  if (initial < min || initial > max) refuse(`initial (${initial}) must lie between min (${min}) and max (${max})`);
  if (!(Number.isSafeInteger(every) && every >= 1)) refuse(`every must be a whole number of at least 1, not ${every}`);
  if (!(Number.isSafeInteger(sample) && sample >= 1))
    refuse(`sample must be a whole number of at least 1, not ${sample}`);
  if (totalSteps === undefined) return;
  const counts = Number.isSafeInteger(totalSteps) && totalSteps >= 1 && totalSteps < 2 ** 32;
  if (!counts) refuse(`totalSteps must be a whole number of at least 1, not ${totalSteps}`);
  if (rule !== "next") refuse(`totalSteps is for the rule "next", not "${rule}"; give a schedule`);
}

/** The rule's settings, defaults filled in and checked. */
function specOf(options: NewtonOptions): AlphaSpec {
  const { rule = "next" } = options;
  if (typeof rule === "string" && !ALPHA_RULES.includes(rule)) {
    throw argumentError("newton", `there is no rule ${JSON.stringify(rule)}; the rules are ${ALPHA_RULES.join(", ")}`);
  }
  const name = typeof rule === "string" ? rule : "custom";
  const base = native.alphaDefaults(name);
  const initial = options.initial ?? base.initial;
  const spec: AlphaSpec = {
    rule: name,
    gamma: options.gamma ?? base.gamma,
    // A start outside the default limits moves them; limits that were given stay as they are.
    min: options.min ?? Math.min(base.min, initial > 0 ? initial : base.min),
    max: options.max ?? Math.max(base.max, Number.isFinite(initial) ? initial : base.max),
    initial,
    every: options.every ?? base.every,
    sample: options.sample ?? base.sample,
    guard: options.guard ?? base.guard,
    groups: [], // known when the parameters are
    needs: typeof rule === "string" ? [] : [...rule.needs],
    ...(options.totalSteps !== undefined && { totalSteps: options.totalSteps }),
  };
  checkNumbers(spec);
  if (startUpOf(name) !== undefined && spec.every !== 1) {
    throw argumentError(
      "newton",
      `every must be 1 with the rule "${name}", which measures nothing extra; leave it out`,
    );
  }
  native.alphaCheck(spec);
  return spec;
}

/** Refuses groups with an α each where there are none, or where they cannot have it. */
function checkGroups(optimizer: Optimizer, spec: AlphaSpec, { groups, telemetry = [] }: NewtonOptions): void {
  if (groups === undefined || groups === "shared") return;
  if (groups !== "separate") {
    throw argumentError("newton", `groups is "shared" or "separate", not ${JSON.stringify(groups)}`);
  }
  if (optimizer.groups === undefined) {
    const advice = "give it the option groups (optim.adamW({ groups: [{ match }] })), or use optim.combine";
    throw argumentError(
      "newton",
      `groups: "separate" needs an optimizer with groups, and ${optimizer.name} has none; ${advice}`,
    );
  }
  if (telemetry.length > 0) {
    throw argumentError("newton", 'telemetry is measured along one line; leave it out with groups: "separate"');
  }
  native.alphaCheck({ ...spec, groups: [[0]] }); // refuses rules that have one α only
}

/**
 * Wraps an optimizer so that its learning rate is found while it trains. RaphsonErrors (code ARGUMENT): an unknown rule
 * or option, `gamma` outside (0, 1], `min` ≥ `max`, numbers that are not finite or not positive, `groups: "separate"` with
 * an optimizer without groups, a rule that cannot have them, or `telemetry`.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const optimizer = newton(optim.adamW({ weightDecay: 0.01 }), { initial: 1e-3 });
 * console.log(optimizer.spec.rule);   // next
 * ```
 */
export function newton<S>(optimizer: Optimizer<S>, options: NewtonOptions = {}): NewtonOptimizer<S> {
  if (typeof optimizer?.direction !== "function") {
    throw argumentError(
      "newton",
      `the first argument is an optimizer, such as optim.adam(), got ${describe(optimizer)}`,
    );
  }
  checkOptions("newton", options, KNOWN);
  if (options.schedule !== undefined && typeof options.schedule !== "function") {
    throw argumentError("newton", "schedule must be a function of the step, such as schedule.cosine({ steps: 1000 })");
  }
  const { rule = "next", schedule, groups = "shared", telemetry = [] } = options;
  const spec = specOf(options);
  checkGroups(optimizer as Optimizer, spec, options);
  return { kind: "newton", optimizer, rule, spec, schedule, groups, telemetry };
}

/**
 * The same optimizer with the number of steps, where its rule can use it: `next`, unless it was given one, or a schedule
 * of the user's own.
 */
export function withTotalSteps<S>(optimizer: NewtonOptimizer<S>, totalSteps: number | undefined): NewtonOptimizer<S> {
  const { spec, schedule } = optimizer;
  const wanted = spec.rule === "next" && spec.totalSteps === undefined && schedule === undefined;
  if (!wanted || totalSteps === undefined || totalSteps < 1) return optimizer;
  return { ...optimizer, spec: { ...spec, totalSteps } };
}

/** Throws unless this is an optimizer, with `newton` around it or without. */
export function checkOptimizer(op: string, optimizer: Optimizer | NewtonOptimizer): void {
  const inner: unknown = (optimizer as NewtonOptimizer | undefined)?.optimizer ?? optimizer;
  if (typeof (inner as Optimizer | undefined)?.direction === "function") return;
  throw argumentError(op, `optimizer is one, such as newton(optim.adamW()), got ${describe(optimizer)}`);
}

/** A plain optimizer as the step sees it: the rule "constant", and the schedule as its factor. */
export function asNewton<S>(optimizer: Optimizer<S> | NewtonOptimizer<S>): NewtonOptimizer<S> {
  if ("kind" in optimizer) return optimizer;
  const { learningRate } = optimizer;
  const scheduledRate = typeof learningRate === "function";
  // A schedule gives the whole rate, so that α itself is 1.
  const initial = scheduledRate ? 1 : learningRate;
  const schedule = scheduledRate ? learningRate : undefined;
  const limits = { initial, min: initial / 2, max: initial * 2 };
  const spec: AlphaSpec = { ...native.alphaDefaults("constant"), ...limits, every: 1, needs: [] };
  return { kind: "newton", optimizer, rule: "constant", spec, schedule, groups: "shared", telemetry: [] };
}
