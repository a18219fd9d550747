/** All problems by name. */
import { quadratic, rosenbrock } from "./deterministic";
import {
  autoencoder,
  mnistCnn,
  mnistCnnDropout,
  mnistCnnNorm,
  mnistMlpRelu,
  mnistMlpTanh,
  mnistSoftmax,
} from "./images";
import type { Problem } from "./problem";
import { charGpt, charLstm, charMlp } from "./text";
import { deepLinear, logistic } from "./vectors";

const TABLE = {
  quadratic,
  rosenbrock,
  logistic,
  mnistSoftmax,
  mnistMlpRelu,
  mnistMlpTanh,
  mnistCnn,
  mnistCnnNorm,
  mnistCnnDropout,
  charMlp,
  charGpt,
  charLstm,
  deepLinear,
  autoencoder,
} as const satisfies Readonly<Record<string, Problem>>;

/** The name of a problem. */
export type ProblemName = keyof typeof TABLE;

export const PROBLEMS: Readonly<Record<ProblemName, Problem>> = TABLE;
