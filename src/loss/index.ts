/**
 * Losses: scalars that training makes small. The mean over the batch unless said otherwise.
 */

export * from "./classification";
export type { LossOptions, Reduction } from "./reduction";
export * from "./regression";
export * from "./similarity";
