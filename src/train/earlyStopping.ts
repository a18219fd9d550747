/** Early stopping: a callback of `train` that ends a run whose evaluations have not become better for a while. */
import { argumentError } from "../errors";
import { checkOptions } from "../tensor/validate";
import type { Evaluation } from "./history";
import type { Callbacks } from "./train";

/** Options of `earlyStopping`. */
export interface EarlyStoppingOptions {
  /** Evaluations in a row without a better one before the run ends; 5 if not given. */
  readonly patience?: number;
  /** What is compared: "loss", or a metric's name; "loss" if not given. */
  readonly metric?: string;
  /** Whether a smaller or a greater number is better; "min" for the loss, "max" for metrics, if not given. */
  readonly mode?: "min" | "max";
  /** A smaller change than this is none; 0 if not given. */
  readonly least?: number;
}

/** The evaluations since the best one. */
function sinceBest(evaluations: readonly Evaluation[], numberOf: (evaluation: Evaluation) => number, least: number) {
  let best = Number.POSITIVE_INFINITY;
  let since = 0;
  for (const evaluation of evaluations) {
    const value = numberOf(evaluation);
    since = value < best - least ? 0 : since + 1;
    best = Math.min(best, Number.isNaN(value) ? best : value);
  }
  return since;
}

/**
 * Ends a run after `patience` evaluations in a row that were no better than the best before them. It looks at the run's
 * evaluations only, so that a resumed run ends where an uninterrupted one does. RaphsonErrors (`ARGUMENT`): a patience
 * that is no whole number of at least 1; at the first evaluation, a metric that is not measured.
 *
 * ```ts
 * import { data, earlyStopping, newton, nn, optim, train } from "raphson";
 *
 * const x = Float32Array.from({ length: 64 }, (_, i) => i / 64);
 * const points = data.arrays({ x: { data: x, shape: [64, 1] }, y: { data: x.map((v) => 2 * v - 1), shape: [64, 1] } });
 * const run = await train({
 *   model: nn.linear(1, 1),
 *   loss: ({ x, y }, model) => model(x).sub(y).square().mean(),
 *   optimizer: newton(optim.sgd()),
 *   data: points.batches(16, { shuffle: true }),
 *   evaluate: { data: points.batches(64) },
 *   epochs: 200,
 *   callbacks: [earlyStopping({ patience: 3, least: 1e-3 })],
 * });
 * console.log(run.epochs < 200); // true
 * ```
 */
export function earlyStopping(options: EarlyStoppingOptions = {}): Callbacks {
  checkOptions("earlyStopping", options, ["patience", "metric", "least", "mode"]);
  const { patience = 5, metric = "loss", least = 0 } = options;
  const { mode = metric === "loss" ? "min" : "max" } = options;
  if (!(Number.isSafeInteger(patience) && patience >= 1)) {
    throw argumentError("earlyStopping", `patience must be a whole number of at least 1, not ${patience}`);
  }
  const sign = mode === "min" ? 1 : -1;
  const numberOf = ({ loss, metrics }: Evaluation) => {
    const value = metric === "loss" ? loss : metrics[metric];
    if (value !== undefined) return sign * value;
    const known = ["loss", ...Object.keys(metrics)].join(", ");
    throw argumentError("earlyStopping", `no metric ${metric} is measured; there are ${known}`);
  };
  return {
    onEvaluation(_, { evaluations, stop }) {
      if (sinceBest(evaluations, numberOf, least) >= patience) stop();
    },
  };
}
