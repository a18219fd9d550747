/** The numbers that a step reports, as the compiled program gives them and as users read them. */
import { type FloatDType, view } from "../dtype";
import type { Precision } from "./precision";
import type { Measure } from "./rule";

/** What happened in one training step. NaN where the rule does not measure the number. */
export interface StepReport {
  /** The step's number, from 0. */
  readonly step: number;
  /** The loss before the step, on its batch. */
  readonly loss: number;
  /** The learning rate as applied, schedule included. */
  readonly alpha: number;
  /** α for the next step, schedule not included. */
  readonly nextAlpha: number;
  /** −φ′(0) = ⟨∇L(θ), ω⟩. */
  readonly slope: number;
  /** −φ′ at the new parameters, or of the last direction on this batch (rule `next`). */
  readonly nextSlope: number;
  /** φ″, as the rule estimates it. */
  readonly curvature: number;
  /** The loss on the same batch after the step. */
  readonly nextLoss: number;
  /** False where the step before was taken back, and where this one was left out because of an overflow. */
  readonly accepted: boolean;
  /** With `precision: "f16"`: the factor that the loss had while gradients were computed. */
  readonly lossScale?: number;
  /** With `precision: "f16"`: whether gradients overflowed. Nothing has changed then but the factor. */
  readonly overflow?: boolean;
  /** What `telemetry` asked for. */
  readonly measured: Readonly<Partial<Record<Measure, number>>>;
}

/** Where the report says whether the step before was kept. */
export const ACCEPTED = 7;

/** The first eight numbers of a report are the addon's; those that `telemetry` names follow, then those of f16. */
export function readReport(
  step: number,
  bytes: Uint8Array,
  dtype: FloatDType,
  telemetry: readonly Measure[],
  precision: Precision = "f32",
): StepReport {
  const numbers = view(dtype, bytes);
  const at = (index: number) => numbers[index] ?? Number.NaN;
  const behind = 8 + telemetry.length;
  const scaling = precision === "f16" ? { lossScale: at(behind), overflow: at(behind + 1) !== 0 } : {};
  return {
    step,
    loss: at(0),
    alpha: at(1),
    nextAlpha: at(2),
    slope: at(3),
    nextSlope: at(4),
    curvature: at(5),
    nextLoss: at(6),
    accepted: at(ACCEPTED) !== 0,
    ...scaling,
    measured: Object.fromEntries(telemetry.map((name, index) => [name, at(8 + index)])),
  };
}
