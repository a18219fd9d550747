/** Metrics for evaluations: functions of a batch and a model that give one number as a tensor. */
import { argumentError } from "../errors";
import type { AnyTensor, Tensor } from "../tensor";

/** A number of a batch and a model, compiled like the loss; averaged over the examples of an evaluation. */
export type Metric<B, M> = (batch: B, model: M) => AnyTensor;

/** The part of `logits` [batch, classes] whose largest entry is at the label [batch]: an f32 scalar. */
function correct(logits: Tensor, labels: Tensor<"i32">): Tensor {
  return logits.argmax(-1).equal(labels).cast("f32").mean();
}

const LABELS = ["labels", "targets"] as const;

/**
 * The part of the examples whose class the model finds, for batches of one input and `labels` (or `targets`). For
 * other batches write a metric with `metrics.correct(logits, labels)`.
 */
function accuracy(batch: Readonly<Record<string, AnyTensor>>, model: (input: never) => Tensor): Tensor {
  const label = LABELS.find((name) => batch[name]?.dtype === "i32");
  const inputs = Object.keys(batch).filter((name) => name !== label);
  const [input] = inputs;
  if (label === undefined || input === undefined || inputs.length !== 1) {
    throw argumentError(
      "metrics.accuracy",
      `needs a batch of one input and i32 labels (or targets), but it has ${Object.keys(batch).join(", ")}; ` +
        "write (batch, model) => metrics.correct(model(batch.…), batch.…)",
    );
  }
  // The model's input type is the loss function's business; here it is whatever the batch holds.
  return correct(model(batch[input] as never), batch[label] as Tensor<"i32">);
}

/** `accuracy`, and `correct` to build one's own. */
export const metrics = { accuracy, correct };
