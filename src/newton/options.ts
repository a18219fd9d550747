/** What users say about a training step. Its parts check their own options. */
import type { Optimizer } from "../optim/optimizer";
import type { AnyTensor } from "../tensor";
import type { Average } from "./average";
import type { Clip } from "./gradients";
import type { NewtonOptimizer } from "./newton";
import type { Precision } from "./precision";
import type { StepReport } from "./report";

/** What a step is made of: a model or a tree of parameters, a loss of batch and model, and an optimizer. */
export interface TrainingStepOptions<P, B> {
  /** The model; its parameters are replaced after each step. */
  readonly model?: P;
  /** Instead of a model: any tree of tensors (and modules). Copied; the current ones are `step.params`. */
  readonly params?: P;
  /** The loss of a batch: a float scalar. Traced once for each kind of batch: use tensor methods only. */
  readonly loss: (batch: B, model: P) => AnyTensor;
  readonly optimizer: Optimizer | NewtonOptimizer;
  /** Bounds the gradients that the optimizer sees; what the rule measures stays as it is. */
  readonly clip?: Clip;
  /**
   * Batches whose gradients are averaged before a step is taken; 1 if not given. Memory is that of one of them. Rules that
   * look ahead see the mean gradient; rules that measure do so on the last batch.
   */
  readonly accumulate?: number;
  /**
   * Keeps averages of the parameters, for `averaged`: `true` for weights that grow with the steps, or `{ decay }`. One more
   * copy of the parameters.
   */
  readonly average?: Average | boolean;
  /**
   * What modules compute in while they are trained; f32 if not given. Parameters and all that is computed outside modules,
   * the loss among it, stay f32. With "f16" the loss is scaled while gradients are computed.
   */
  readonly precision?: Precision;
  /** Fixes the random draws of the loss (dropout); 0 if not given. */
  readonly seed?: number;
  /** Called with each report, in order, a few steps after the step ran. */
  readonly onReport?: (report: StepReport) => void;
}

/** Their names. */
export const STEP_OPTIONS = [
  "model",
  "params",
  "loss",
  "optimizer",
  "clip",
  "accumulate",
  "average",
  "precision",
  "seed",
  "onReport",
] as const;
