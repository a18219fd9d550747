/**
 * Learning-rate schedules: plain functions from the step number to a factor. What lives here is their shapes; who
 * multiplies what is decided by the optimizer (a plain optimizer uses the value as its learning rate, `newton`
 * multiplies α by it, outside α's own state).
 */
import { argumentError } from "../errors";
import { describe, requireOptions } from "../tensor/validate";

/** A learning rate (or a factor of α) for each step; the first step has number 0. */
export type Schedule = (step: number) => number;

function positive(op: string, name: string, value: number): void {
  if (!(Number.isFinite(value) && value > 0)) {
    throw argumentError(op, `${name} must be a positive number, not ${value}`);
  }
}

function stepCount(op: string, name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value > 0)) {
    throw argumentError(op, `${name} must be a whole number of at least 1, not ${value}`);
  }
}

function fraction(op: string, name: string, value: number): void {
  if (!(value >= 0 && value <= 1)) {
    throw argumentError(op, `${name} must lie between 0 and 1, not ${value}`);
  }
}

/** The same value at every step. */
function constant(value = 1): Schedule {
  positive("schedule.constant", "value", value);
  return () => value;
}

/** `value · factor^⌊step / every⌋`: a fall by `factor` after each `every` steps. */
function step(options: { every: number; factor?: number; value?: number }): Schedule {
  requireOptions("schedule.step", options, ["every", "factor", "value"]);
  const { every, factor = 0.1, value = 1 } = options;
  stepCount("schedule.step", "every", every);
  positive("schedule.step", "factor", factor);
  positive("schedule.step", "value", value);
  return (index) => value * factor ** Math.floor(index / every);
}

/** Half a cosine from `value` down to `final · value` over `steps` steps, and constant from there. */
function cosine(options: { steps: number; value?: number; final?: number }): Schedule {
  requireOptions("schedule.cosine", options, ["steps", "value", "final"]);
  const { steps, value = 1, final = 0 } = options;
  stepCount("schedule.cosine", "steps", steps);
  positive("schedule.cosine", "value", value);
  fraction("schedule.cosine", "final", final);
  // value · (final + (1 − final) · (1 + cos πx) / 2), x = step / steps
  return (index) => value * (final + ((1 - final) * (1 + Math.cos(Math.PI * Math.min(index / steps, 1)))) / 2);
}

/** A straight rise over `steps` steps to the schedule (or number) that follows. */
function warmUp(options: { steps: number; after?: Schedule | number }): Schedule {
  requireOptions("schedule.warmUp", options, ["steps", "after"]);
  const { steps, after: next = 1 } = options;
  stepCount("schedule.warmUp", "steps", steps);
  const after = typeof next === "number" ? constant(next) : next;
  return (index) => (index < steps ? (after(0) * (index + 1)) / steps : after(index - steps));
}

/** One cycle over `steps` steps: a cosine rise from `start · value` to `value`, then a cosine fall to `final · value`. */
function oneCycle(options: { steps: number; value?: number; rise?: number; start?: number; final?: number }): Schedule {
  requireOptions("schedule.oneCycle", options, ["steps", "value", "rise", "start", "final"]);
  const { steps, value = 1, rise = 0.3, start = 0.04, final = 0.0001 } = options;
  stepCount("schedule.oneCycle", "steps", steps);
  positive("schedule.oneCycle", "value", value);
  for (const [name, given] of Object.entries({ rise, start, final })) fraction("schedule.oneCycle", name, given);
  const top = rise * steps;
  const between = (from: number, to: number, x: number) => from + ((to - from) * (1 - Math.cos(Math.PI * x))) / 2;
  return (index) =>
    value *
    (index < top
      ? between(start, 1, index / top)
      : between(1, final, Math.min((index - top) / Math.max(steps - top, 1), 1)));
}

/** `value · factor^step`: PyTorch's ExponentialLR. */
function exponential(options: { factor: number; value?: number }): Schedule {
  requireOptions("schedule.exponential", options, ["factor", "value"]);
  const { factor, value = 1 } = options;
  positive("schedule.exponential", "factor", factor);
  positive("schedule.exponential", "value", value);
  return (index) => value * factor ** index;
}

/** A straight line from `start · value` to `final · value` over `steps` steps, and constant from there. */
function linear(options: { steps: number; value?: number; start?: number; final?: number }): Schedule {
  requireOptions("schedule.linear", options, ["steps", "value", "start", "final"]);
  const { steps, value = 1, start = 1, final = 0 } = options;
  stepCount("schedule.linear", "steps", steps);
  positive("schedule.linear", "value", value);
  for (const [name, given] of Object.entries({ start, final })) fraction("schedule.linear", name, given);
  return (index) => value * (start + (final - start) * Math.min(index / steps, 1));
}

/** `value · (final + (1 − final) · (1 − step / steps)^power)` up to `steps`, and constant from there. */
function polynomial(options: { steps: number; power?: number; value?: number; final?: number }): Schedule {
  requireOptions("schedule.polynomial", options, ["steps", "power", "value", "final"]);
  const { steps, power = 1, value = 1, final = 0 } = options;
  stepCount("schedule.polynomial", "steps", steps);
  positive("schedule.polynomial", "power", power);
  positive("schedule.polynomial", "value", value);
  fraction("schedule.polynomial", "final", final);
  return (index) => value * (final + (1 - final) * (1 - Math.min(index / steps, 1)) ** power);
}

/** One schedule after another, each for its `steps` steps and counted from its own beginning; the last goes on for good. */
function sequential(parts: readonly { schedule: Schedule; steps?: number }[]): Schedule {
  if (!Array.isArray(parts))
    throw argumentError("schedule.sequential", `takes an array of parts, got ${describe(parts)}`);
  const last = parts.at(-1);
  if (last === undefined) throw argumentError("schedule.sequential", "give at least one part: { schedule, steps }");
  for (const part of parts) {
    if (typeof part.schedule !== "function") {
      throw argumentError("schedule.sequential", "each part needs a schedule, such as schedule.constant()");
    }
    if (part !== last || part.steps !== undefined) stepCount("schedule.sequential", "steps", part.steps ?? Number.NaN);
  }
  return (index) => {
    let start = 0;
    for (const { schedule: of, steps = 0 } of parts.slice(0, -1)) {
      if (index < start + steps) return of(index - start);
      start += steps;
    }
    return last.schedule(index - start);
  };
}

/**
 * The schedules. As a `learningRate` they give it; as `newton`'s option `schedule` they multiply α, outside its state.
 *
 * ```ts
 * import { newton, optim, schedule } from "raphson";
 *
 * const cosine = schedule.warmUp({ steps: 100, after: schedule.cosine({ steps: 900 }) });
 * const plain = optim.adamW({ learningRate: (step) => 3e-4 * cosine(step) });
 * const held = schedule.sequential([
 *   { schedule: schedule.constant(), steps: 800 },
 *   { schedule: schedule.linear({ steps: 200 }) },
 * ]);
 * console.log(plain.name, newton(optim.adamW(), { schedule: held }).rule, held(900));   // … 0.5
 * ```
 */
export const schedule = {
  constant,
  step,
  cosine,
  warmUp,
  oneCycle,
  exponential,
  linear,
  polynomial,
  sequential,
};

/** The value of a schedule at a step, checked: finite and not negative. */
export function scheduled(of: Schedule, index: number): number {
  const value = of(index);
  if (!(Number.isFinite(value) && value >= 0)) {
    throw argumentError(
      "schedule",
      `the schedule gave ${value} at step ${index}; it must give a finite number of at least 0`,
    );
  }
  return value;
}
