/** `train` and what belongs to it. */
export type { CheckpointOptions } from "./checkpoint";
export type { EarlyStoppingOptions } from "./earlyStopping";
export { earlyStopping } from "./earlyStopping";
export type { Evaluation, History } from "./history";
export { Run } from "./history";
export type { LogOptions } from "./log";
export type { ClassMetricOptions, Compared, CountedMetric, Metric, MetricOptions } from "./metrics";
export { metrics } from "./metrics";
export type { ProgressOption } from "./progress";
export { type StatisticsOptions, updateStatistics } from "./statistics";
export type { Callbacks, Control, TrainOptions } from "./train";
export { train } from "./train";
