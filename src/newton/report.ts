/** The numbers that a step reports, as the compiled program gives them and as users read them. */
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

/** Numbers of a report: the addon's eight, then those that `telemetry` names, then those of f16. */
export function reportLength(telemetry: readonly Measure[], precision: Precision): number {
  return 8 + telemetry.length + (precision === "f16" ? 2 : 0);
}

const NOTHING_MEASURED: StepReport["measured"] = Object.freeze({});

/** A report from its numbers. */
export function readReport(
  step: number,
  numbers: Float64Array | Float32Array,
  telemetry: readonly Measure[],
  precision: Precision,
): StepReport {
  const at = (index: number) => numbers[index] ?? Number.NaN;
  const plain: StepReport = {
    step,
    loss: at(0),
    alpha: at(1),
    nextAlpha: at(2),
    slope: at(3),
    nextSlope: at(4),
    curvature: at(5),
    nextLoss: at(6),
    accepted: at(ACCEPTED) !== 0,
    measured:
      telemetry.length === 0
        ? NOTHING_MEASURED
        : Object.fromEntries(telemetry.map((name, index) => [name, at(8 + index)])),
  };
  if (precision !== "f16") return plain;
  const behind = 8 + telemetry.length;
  return { ...plain, lossScale: at(behind), overflow: at(behind + 1) !== 0 };
}
