/** The optimizers of the benchmark, with their own defaults, and where the search for their best constant α begins. */
import { type Optimizer, optim } from "../../src";

/** An optimizer of the table. */
interface Entry {
  readonly make: () => Optimizer;
  /** The middle of the first grid of constant α, as a power of ten. */
  readonly decade: number;
}

export const OPTIMIZERS = {
  sgd: { make: () => optim.sgd(), decade: -0.5 },
  momentum: { make: () => optim.momentum(), decade: -1.5 },
  nesterov: { make: () => optim.nesterov(), decade: -1.5 },
  adam: { make: () => optim.adam(), decade: -2.5 },
  adamW: { make: () => optim.adamW(), decade: -2.5 },
  rmsprop: { make: () => optim.rmsprop(), decade: -2.5 },
  lion: { make: () => optim.lion(), decade: -3.5 },
  muon: { make: () => optim.muon(), decade: -1.5 },
} as const satisfies Readonly<Record<string, Entry>>;

/** The name of an optimizer. */
export type OptimizerName = keyof typeof OPTIMIZERS;
