/** `newton`, its rules, and the compiled training step. */
export type { Average } from "./average";
export type { CheckpointExtras } from "./checkpoint";
export type { Clip } from "./gradients";
export type { AlphaRuleName, NewtonOptimizer, NewtonOptions } from "./newton";
export { ALPHA_RULES, newton } from "./newton";
export type { Precision } from "./precision";
export type { GroupReport } from "./report";
export type { AlphaMeasures, AlphaProposal, AlphaRule, AlphaRuleDefinition, Measure } from "./rule";
export { defineAlphaRule, MEASURES } from "./rule";
export type { StepProgram, StepReport, TrainingStep, TrainingStepOptions } from "./step";
export { trainingStep } from "./step";
