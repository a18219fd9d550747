/**
 * Options of the built-in optimizers as users write them: their types, and how they become the numbers that the addon
 * takes. Defaults and ranges are the addon's (`crates/optim/src/direction`).
 */
import { argumentError } from "../errors";
import type { Group } from "./groups";
import type { Schedule } from "./schedule";

/** Options that every optimizer has. */
export interface PlainOptions {
  /** A number, or a schedule that gives one for each step. Not used under `newton`. */
  readonly learningRate?: number | Schedule;
}

/** What an optimizer function takes: its options, and groups of parameters with options of their own. */
export type WithGroups<O extends PlainOptions> = O & {
  /** The first group whose `match` holds is a parameter's; those that no group has keep the options above. */
  readonly groups?: readonly Group<Omit<O, "learningRate">>[];
};

/** An L2 penalty, as in most of torch.optim. */
interface Coupled {
  /** The gradient gains weightDecay · θ; 0 if not given. */
  readonly weightDecay?: number;
}

/** Decay in either form. */
interface EitherDecay extends Coupled {
  /** True: the direction gains the decay instead of the gradient (as in AdamW); false if not given. */
  readonly decoupled?: boolean;
}

/** Options of `optim.sgd`. */
export interface SgdOptions extends PlainOptions, Coupled {}

/** Options of `optim.momentum` and `optim.nesterov`. */
export interface MomentumOptions extends PlainOptions, Coupled {
  /** How much of the last velocity is kept, in [0, 1); 0.9 if not given. */
  readonly beta?: number;
}

interface Moments extends PlainOptions {
  /** Decay of the mean gradient, in [0, 1); 0.9 if not given. */
  readonly beta1?: number;
  /** Decay of the mean square, in [0, 1); 0.999 if not given. */
  readonly beta2?: number;
  /** Added to the root of the mean square; 1e-8 if not given (`lamb`: 1e-6). */
  readonly epsilon?: number;
}

/** Options of `optim.adam`. */
export interface AdamOptions extends Moments, Coupled {}

/** Options of `optim.adamW`. */
export interface AdamWOptions extends Moments {
  /** Decoupled decay: ω gains weightDecay · θ; 0.01 if not given. */
  readonly weightDecay?: number;
}

/** Options of `optim.amsgrad`. */
export interface AmsgradOptions extends Moments, EitherDecay {}

/** Options of `optim.nadam`. */
export interface NadamOptions extends Moments, EitherDecay {
  /** How fast the look-ahead's weight rises from β₁/2 to β₁; 0.004 if not given. */
  readonly momentumDecay?: number;
}

/** Options of `optim.radam`. */
export interface RadamOptions extends Moments, EitherDecay {}

/** Options of `optim.adagrad`. */
export interface AdagradOptions extends PlainOptions, Coupled {
  /** Added to the root of the sum of squares; 1e-10 if not given. */
  readonly epsilon?: number;
  /** Divides ω by 1 + (t − 1) · learningRateDecay at step t; 0 if not given. */
  readonly learningRateDecay?: number;
  /** What the sum of squares starts with; 0 if not given. */
  readonly initialAccumulator?: number;
}

/** Options of `optim.adadelta`. */
export interface AdadeltaOptions extends PlainOptions, Coupled {
  /** Decay of both mean squares, in [0, 1); 0.9 if not given. */
  readonly rho?: number;
  /** Added to both mean squares, under the root; 1e-6 if not given. */
  readonly epsilon?: number;
}

/** Options of `optim.rmsprop`. */
export interface RmspropOptions extends PlainOptions, Coupled {
  /** Decay of the mean square (PyTorch's `alpha`), in [0, 1); 0.99 if not given. */
  readonly rho?: number;
  /** Added to the root; 1e-8 if not given. */
  readonly epsilon?: number;
  /** How much of the last velocity is kept, in [0, 1); 0 if not given. */
  readonly momentum?: number;
  /** True: divide by the deviation around the mean gradient; false if not given. */
  readonly centered?: boolean;
}

/** Options of `optim.lion`. */
export interface LionOptions extends PlainOptions {
  /** Weight of the mean in the sign that is taken, in [0, 1); 0.9 if not given. */
  readonly beta1?: number;
  /** Decay of the mean that is kept, in [0, 1); 0.99 if not given. */
  readonly beta2?: number;
  /** Decoupled decay; 0 if not given. */
  readonly weightDecay?: number;
}

/** Options of `optim.adafactor`. */
export interface AdafactorOptions extends PlainOptions {
  /** A new square's weight at step t is t^beta2Decay, at most 0; −0.8 if not given. */
  readonly beta2Decay?: number;
  /** Smallest root that is divided by; the rounding unit of the parameter's dtype if not given (or 0). */
  readonly epsilon1?: number;
  /** Smallest root mean square that a parameter counts as having; 1e-3 if not given. */
  readonly epsilon2?: number;
  /** Largest root mean square of a tensor's direction, before the parameter's size scales it; 1 if not given. */
  readonly clipThreshold?: number;
  /** Decoupled decay; 0 if not given. */
  readonly weightDecay?: number;
}

/** Options of `optim.lamb`. */
export interface LambOptions extends Moments {
  /** Decoupled decay, inside the trust ratio; 0.01 if not given. */
  readonly weightDecay?: number;
}

/** How the size of Muon's direction follows the matrix: √max(1, rows/columns), 0.2 √max(rows, columns), √(rows/columns). */
export type MuonAdjust = (typeof ADJUST)[number];

/** Options of `optim.muon`. */
export interface MuonOptions extends PlainOptions {
  /** Decay of the mean gradient, in [0, 1); 0.95 if not given. */
  readonly momentum?: number;
  /** Looks ahead by one gradient; true if not given. */
  readonly nesterov?: boolean;
  /** Newton–Schulz iterations, 1 to 99; 5 if not given. */
  readonly iterations?: number;
  /** Smallest norm of a matrix that is divided by; 1e-7 if not given. */
  readonly epsilon?: number;
  /** "original" if not given. With "matchRmsAdamW" matrices take AdamW's learning rates. */
  readonly adjust?: MuonAdjust;
  /** False: matrices are treated like all other parameters; for embeddings and the last layer. True if not given. */
  readonly orthogonalize?: boolean;
  /**
   * The learning rate of parameters that are no matrices (they take AdamW's direction), as a part of that of matrices;
   * 0.015 if not given (the recipe's 3e-4 with 0.02), and 1 with `adjust: "matchRmsAdamW"`.
   */
  readonly fallbackFactor?: number;
  /** β₁ of that AdamW; 0.9 if not given. */
  readonly beta1?: number;
  /** β₂ of that AdamW; 0.95 if not given. */
  readonly beta2?: number;
  /** ε of that AdamW; 1e-10 if not given. */
  readonly fallbackEpsilon?: number;
  /** Decoupled decay of all parameters; 0.1 if not given. */
  readonly weightDecay?: number;
}

const ADJUST = ["original", "matchRmsAdamW", "spectralUnclamped"] as const;
/** Options that are yes or no. */
const FLAGS: ReadonlySet<string> = new Set(["decoupled", "centered", "nesterov", "orthogonalize"]);

/** The options that were given, as numbers; those named in `apart` are left out. */
export function numbersOf(op: string, given: object, apart: readonly string[]): Record<string, number> {
  const numbers: Record<string, number> = {};
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || apart.includes(name)) continue;
    numbers[name] = numberOf(op, name, value);
  }
  return numbers;
}

function numberOf(op: string, name: string, value: unknown): number {
  if (FLAGS.has(name)) {
    if (typeof value === "boolean") return value ? 1 : 0;
    throw argumentError(op, `${name} must be true or false, not ${value}`);
  }
  if (name === "adjust") {
    const index = (ADJUST as readonly unknown[]).indexOf(value);
    if (index >= 0) return index;
    throw argumentError(op, `adjust must be one of ${ADJUST.join(", ")}, not ${value}`);
  }
  if (typeof value === "number") return value;
  // Also where there is no such option: the addon, which would say so, takes nothing but numbers.
  throw argumentError(op, `${name} is ${describe(value)}; there is no option ${name} that takes it`);
}

const describe = (value: unknown): string => (Array.isArray(value) ? "an array" : `a ${typeof value}`);
