/**
 * Which problems and seeds may be looked at while a rule is being chosen, and which are for reporting only. Made once,
 * before the first measurement; a change of this table makes every earlier choice of a rule doubtful.
 *
 * The choosing half has those that earlier versions of `next` were designed on (the MNIST MLP with ReLU, the character
 * MLP, the transformer, the plain CNN), and two more. Both halves have a deterministic problem, digits, text, and
 * something that is not convex.
 */
import type { ProblemName } from "./problems";

/** A half of the benchmark. */
export interface Half {
  readonly problems: readonly ProblemName[];
  /** The first ones of these are used. */
  readonly seeds: readonly number[];
}

export const HALVES = {
  choosing: {
    problems: ["quadratic", "mnistMlpRelu", "mnistCnn", "charMlp", "charGpt", "deepLinear"],
    seeds: [1, 2, 3, 4, 5, 6],
  },
  reporting: {
    problems: [
      "rosenbrock",
      "logistic",
      "mnistSoftmax",
      "mnistMlpTanh",
      "mnistCnnNorm",
      "mnistCnnDropout",
      "charLstm",
      "autoencoder",
    ],
    seeds: [101, 102, 103, 104, 105, 106],
  },
} as const satisfies Readonly<Record<string, Half>>;

/** The name of a half. */
export type HalfName = keyof typeof HALVES;

/** The half that a problem belongs to. */
export function halfOf(problem: ProblemName): HalfName {
  return (HALVES.choosing.problems as readonly ProblemName[]).includes(problem) ? "choosing" : "reporting";
}
