/** `train` and what belongs to it. */
export type { Evaluation, History } from "./history";
export { Run } from "./history";
export type { ClassMetricOptions, Compared, CountedMetric, Metric, MetricOptions } from "./metrics";
export { metrics } from "./metrics";
export type { ProgressOption } from "./progress";
export type { Callbacks, TrainOptions } from "./train";
export { train } from "./train";
