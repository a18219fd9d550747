/**
 * Metrics for evaluations: functions of a batch and a model that give one number as a tensor, or counts of a batch that
 * add up over an evaluation and become the number at its end.
 */
import { scalarDType } from "../device";
import type { FloatDType } from "../dtype";
import { argumentError, dtypeError, shapeError } from "../errors";
import { crossEntropy } from "../loss";
import type { AnyTensor, Tensor } from "../tensor";
import { ones, scalar } from "../tensor/creation";
import { stack } from "../tensor/movement";
import { checkObject, checkOptions, sameShape, showShape } from "../tensor/validate";

/** A metric whose batches are counted, and whose value comes from the sums of the counts: F1 is no mean of batches' F1. */
export interface CountedMetric<B, M> {
  /** Numbers of a batch, in any fixed shape; compiled like the loss. */
  readonly count: (batch: B, model: M) => AnyTensor;
  /** The metric, from their sums over the evaluation. */
  readonly finish: (sums: Float64Array) => number;
}

/** A number of a batch and a model, compiled like the loss and averaged over the examples; or a counted metric. */
export type Metric<B, M> = ((batch: B, model: M) => AnyTensor) | CountedMetric<B, M>;

/** A batch by names, as `data` makes it. */
type NamedBatch = Readonly<Record<string, AnyTensor>>;
/** The model's input type is the loss function's business; here it is whatever the batch holds. */
type Predictor = (input: never) => Tensor;

/** What a metric compares: the model's answer and what it should be. */
export interface Compared<T extends AnyTensor = Tensor<"i32">> {
  readonly prediction: Tensor;
  readonly wanted: T;
}

/** Options of metrics: how to get at what is compared, for batches other than one input and `labels` or `targets`. */
export interface MetricOptions<B, M, T extends AnyTensor = Tensor<"i32">> {
  readonly of?: (batch: B, model: M) => Compared<T>;
}

/** Options of metrics of classes. */
export interface ClassMetricOptions<B, M> extends MetricOptions<B, M> {
  /** `macro`: the mean over the classes that occur; `micro`: over all examples together. `macro` unless given. */
  readonly average?: "macro" | "micro";
}

/** Those that are averaged over classes. */
const CLASS_METRICS: ReadonlySet<string> = new Set(["precision", "recall", "f1"]);

const WANTED = ["labels", "targets"] as const;

/** Prediction and target of a batch of one input and `labels` (or `targets`) of these dtypes. */
function compared(op: string, batch: NamedBatch, model: Predictor, dtypes: readonly string[]): Compared<AnyTensor> {
  checkObject(`metrics.${op}`, batch, "a batch { x, labels }");
  const name = WANTED.find((one) => dtypes.includes(batch[one]?.dtype ?? ""));
  const inputs = Object.keys(batch).filter((other) => other !== name);
  const [input] = inputs;
  const wanted = name === undefined ? undefined : batch[name];
  if (wanted === undefined || input === undefined || inputs.length !== 1) {
    const advice =
      op === "accuracy"
        ? "write (batch, model) => metrics.correct(model(batch.…), batch.…)"
        : "give { of: (batch, model) => ({ prediction: model(batch.…), wanted: batch.… }) }";
    throw argumentError(
      `metrics.${op}`,
      `needs a batch of one input and ${dtypes[0]} labels (or targets), but it has ${Object.keys(batch).join(", ")}; ${advice}`,
    );
  }
  return { prediction: model(batch[input] as never), wanted };
}

/** The comparison that the options give, or the usual one. */
function comparison<B, M, T extends AnyTensor>(
  op: string,
  options: MetricOptions<B, M, T>,
  dtypes: readonly string[],
): (batch: B, model: M) => Compared<T> {
  checkOptions<ClassMetricOptions<B, M>>(
    `metrics.${op}`,
    options as object,
    CLASS_METRICS.has(op) ? ["of", "average"] : ["of"],
  );
  const { of } = options;
  if (of !== undefined) return of;
  // without `of`, B and M are named batches and predictors: `compared` looks at what it gets
  return (batch, model) => compared(op, batch as NamedBatch, model as Predictor, dtypes) as Compared<T>;
}

// ---- classes

/** The part of `logits` [..., classes] whose largest entry is at the label [...]: an f32 scalar. */
function correct(logits: Tensor, labels: Tensor<"i32">): Tensor {
  return logits.argmax(-1).equal(labels).cast("f32").mean();
}

/**
 * The part of the examples whose class the model finds, for batches of one input and `labels` (or `targets`). For
 * other batches write a metric with `metrics.correct(logits, labels)`.
 */
function accuracy(batch: NamedBatch, model: Predictor): Tensor {
  const { prediction, wanted } = compared("accuracy", batch, model, ["i32"]);
  return correct(prediction, wanted as Tensor<"i32">);
}

/** The part of the examples whose label is among the model's `k` largest logits. */
function topKAccuracy<B = NamedBatch, M = Predictor>(
  k: number,
  options: MetricOptions<B, M> = {},
): (batch: B, model: M) => Tensor {
  if (!(Number.isSafeInteger(k) && k >= 1)) {
    throw argumentError("metrics.topKAccuracy", `k must be a whole number of at least 1, not ${k}`);
  }
  const compare = comparison("topKAccuracy", options, ["i32"]);
  return (batch, model) => {
    const { prediction, wanted } = compare(batch, model);
    const { indices } = prediction.topK(Math.min(k, prediction.shape.at(-1) ?? 1), -1);
    return indices.equal(wanted.unsqueeze(-1)).any(-1).cast("f32").mean();
  };
}

/**
 * How often each label [...] met each prediction: i32 [classes, classes], label by prediction. Predictions are logits
 * [..., classes]. A label outside the classes is an error (code `INDEX`) on reading.
 *
 * ```ts
 * import { metrics, tensor } from "raphson";
 *
 * const logits = tensor([[2, 0], [0, 1], [3, 1]]);
 * console.log(metrics.confusionMatrix(logits, tensor([0, 1, 1], { dtype: "i32" })).toArray());   // [[1, 0], [1, 1]]
 * ```
 */
function confusionMatrix(logits: Tensor, labels: Tensor<"i32">): Tensor<"i32"> {
  const op = "metrics.confusionMatrix";
  const classes = logits.shape.at(-1);
  if (classes === undefined) throw shapeError(op, "logits need an axis of classes at the end", logits.shape);
  if (labels.dtype !== "i32") throw dtypeError(op, `labels are i32, got ${labels.dtype}; cast them`, labels.dtype);
  sameShape(op, logits.shape.slice(0, -1), labels.shape, "labels have the logits' shape without its last axis");
  const cells = labels.mul(classes).add(logits.argmax(-1)).flatten();
  const each = ones([cells.size], { dtype: "i32" });
  return each.scatterAdd(cells, classes * classes).reshape([classes, classes]);
}

/** Of one class: labels that the model found, all labels of it, all predictions of it. */
interface ClassCounts {
  readonly found: number;
  readonly labels: number;
  readonly predictions: number;
}

/** The rows of a confusion matrix, class by class. */
function classCounts(matrix: Float64Array): ClassCounts[] {
  const n = Math.round(Math.sqrt(matrix.length));
  const sum = (cell: (i: number) => number) =>
    Array.from({ length: n }, (_, i) => matrix[cell(i)] ?? 0).reduce((a, b) => a + b, 0);
  return Array.from({ length: n }, (_, c) => ({
    found: matrix[c * n + c] ?? 0,
    labels: sum((i) => c * n + i),
    predictions: sum((i) => i * n + c),
  }));
}

/** a / b, and 0 where there is nothing to divide by. */
const ratio = (a: number, b: number) => (b === 0 ? 0 : a / b);

function classMetric(op: string, of: (counts: ClassCounts) => number) {
  return <B = NamedBatch, M = Predictor>(options: ClassMetricOptions<B, M> = {}): CountedMetric<B, M> => {
    const { average = "macro" } = options ?? {};
    if (average !== "macro" && average !== "micro") {
      throw argumentError(`metrics.${op}`, `average is "macro" or "micro", not ${JSON.stringify(average)}`);
    }
    const compare = comparison(op, options, ["i32"]);
    return {
      count: (batch, model) => {
        const { prediction, wanted } = compare(batch, model);
        return confusionMatrix(prediction, wanted);
      },
      finish: (sums) => {
        const counts = classCounts(sums).filter(({ labels, predictions }) => labels + predictions > 0);
        const total = (key: keyof ClassCounts) => counts.reduce((sum, one) => sum + one[key], 0);
        if (average === "micro") {
          return of({ found: total("found"), labels: total("labels"), predictions: total("predictions") });
        }
        return ratio(
          counts.reduce((sum, one) => sum + of(one), 0),
          counts.length,
        );
      },
    };
  };
}

/** Of what the model took for a class, the part that was of it. */
const precision = classMetric("precision", ({ found, predictions }) => ratio(found, predictions));

/** Of what was of a class, the part that the model took for it. */
const recall = classMetric("recall", ({ found, labels }) => ratio(found, labels));

/** 2 · precision · recall / (precision + recall) = 2 · found / (labels + predictions). */
const f1 = classMetric("f1", ({ found, labels, predictions }) => ratio(2 * found, labels + predictions));

/** exp of the mean cross-entropy of logits and labels. */
function perplexity<B = NamedBatch, M = Predictor>(options: MetricOptions<B, M> = {}): CountedMetric<B, M> {
  const compare = comparison("perplexity", options, ["i32"]);
  return {
    count: (batch, model) => {
      const { prediction, wanted } = compare(batch, model);
      return sumAndCount(crossEntropy(prediction, wanted, { reduction: "none" }));
    },
    finish: ([sum = 0, n = 0]) => Math.exp(sum / n),
  };
}

// ---- numbers

/** [Σ each, number of elements] */
function sumAndCount(each: AnyTensor): Tensor<FloatDType> {
  const dtype = scalarDType();
  return stack([each.cast(dtype).sum(), scalar(each.size, { dtype })]);
}

function numberMetric(op: string, of: (difference: Tensor) => Tensor, finish: (mean: number) => number) {
  return <B = NamedBatch, M = Predictor>(options: MetricOptions<B, M, Tensor> = {}): CountedMetric<B, M> => {
    const compare = comparison(op, options, ["f32", "f64", "f16", "bf16"] satisfies FloatDType[]);
    return {
      count: (batch, model) => {
        const { prediction, wanted } = compare(batch, model);
        const both = `prediction ${showShape(prediction.shape)} and target must not broadcast; reshape one of them`;
        sameShape(`metrics.${op}`, prediction.shape, wanted.shape, both);
        return sumAndCount(of(prediction.sub(wanted)));
      },
      finish: ([sum = 0, n = 0]) => finish(sum / n),
    };
  };
}

/** The mean of |prediction − target| over all numbers. */
const meanAbsoluteError = numberMetric(
  "meanAbsoluteError",
  (d) => d.abs(),
  (mean) => mean,
);

/** The mean of (prediction − target)² over all numbers. */
const meanSquaredError = numberMetric(
  "meanSquaredError",
  (d) => d.square(),
  (mean) => mean,
);

/** The root of the mean of (prediction − target)² over all numbers. */
const rootMeanSquaredError = numberMetric("rootMeanSquaredError", (d) => d.square(), Math.sqrt);

/** Metrics for `train({ evaluate })`, and `correct` and `confusionMatrix` to build one's own. */
export const metrics = {
  accuracy,
  correct,
  topKAccuracy,
  precision,
  recall,
  f1,
  confusionMatrix,
  meanAbsoluteError,
  meanSquaredError,
  rootMeanSquaredError,
  perplexity,
};
