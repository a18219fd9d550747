/**
 * Learning-rate schedules: plain functions from the step number to a factor. What lives here is their shapes; who
 * multiplies what is decided by the optimizer (a plain optimizer uses the value as its learning rate, `newton`
 * multiplies α by it, outside α's own state).
 */
import { argumentError } from "../errors";

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
  const { every, factor = 0.1, value = 1 } = options;
  stepCount("schedule.step", "every", every);
  positive("schedule.step", "factor", factor);
  positive("schedule.step", "value", value);
  return (index) => value * factor ** Math.floor(index / every);
}

/** Half a cosine from `value` down to `final · value` over `steps` steps, and constant from there. */
function cosine(options: { steps: number; value?: number; final?: number }): Schedule {
  const { steps, value = 1, final = 0 } = options;
  stepCount("schedule.cosine", "steps", steps);
  positive("schedule.cosine", "value", value);
  fraction("schedule.cosine", "final", final);
  // value · (final + (1 − final) · (1 + cos πx) / 2), x = step / steps
  return (index) => value * (final + ((1 - final) * (1 + Math.cos(Math.PI * Math.min(index / steps, 1)))) / 2);
}

/** A straight rise over `steps` steps to the schedule (or number) that follows. */
function warmUp(options: { steps: number; after?: Schedule | number }): Schedule {
  const { steps, after: next = 1 } = options;
  stepCount("schedule.warmUp", "steps", steps);
  const after = typeof next === "number" ? constant(next) : next;
  return (index) => (index < steps ? (after(0) * (index + 1)) / steps : after(index - steps));
}

/** One cycle over `steps` steps: a cosine rise from `start · value` to `value`, then a cosine fall to `final · value`. */
function oneCycle(options: { steps: number; value?: number; rise?: number; start?: number; final?: number }): Schedule {
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

/** The schedules: `constant`, `step`, `cosine`, `warmUp`, `oneCycle`. */
export const schedule = { constant, step, cosine, warmUp, oneCycle };

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
