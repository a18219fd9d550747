/** The numbers that a step reports, as the compiled program gives them and as users read them. */
import type { Precision } from "./precision";
import type { Measure } from "./rule";

/** What a step reports of each group of parameters that has an α of its own. */
export type GroupReport = Pick<StepReport, "alpha" | "nextAlpha" | "slope" | "nextSlope" | "curvature">;

/** α as applied in a step, and α of the next one. */
export type Rates = Pick<StepReport, "alpha" | "nextAlpha">;

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
  /** With `groups: "separate"`: each group's numbers, in the optimizer's order. Those above are the last one's. */
  readonly groups?: readonly GroupReport[];
  /** What `telemetry` asked for. */
  readonly measured: Readonly<Partial<Record<Measure, number>>>;
}

/** Where the report says whether the step before was kept. */
export const ACCEPTED = 7;

/** The addon's numbers of a report: eight, and five for each of several groups. */
const [OWN, OF_GROUP] = [8, 5];

/** What a report consists of. */
export interface ReportForm {
  readonly telemetry: readonly Measure[];
  readonly precision: Precision;
  /** How many α there are. */
  readonly alphas: number;
}

const ownNumbers = (alphas: number): number => OWN + (alphas > 1 ? OF_GROUP * alphas : 0);

/** Numbers of a report: the addon's, then those that `telemetry` names, then those of f16. */
export function reportLength({ telemetry, precision, alphas }: ReportForm): number {
  return ownNumbers(alphas) + telemetry.length + (precision === "f16" ? 2 : 0);
}

const NOTHING_MEASURED: StepReport["measured"] = Object.freeze({});

/** A report from its numbers. */
export function readReport(step: number, numbers: Float64Array | Float32Array, form: ReportForm): StepReport {
  const { telemetry, precision, alphas } = form;
  const at = (index: number) => numbers[index] ?? Number.NaN;
  const named = ownNumbers(alphas);
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
        : Object.fromEntries(telemetry.map((name, index) => [name, at(named + index)])),
  };
  if (precision !== "f16" && alphas === 1) return plain;
  const behind = named + telemetry.length;
  return {
    ...plain,
    ...(precision === "f16" && { lossScale: at(behind), overflow: at(behind + 1) !== 0 }),
    ...(alphas > 1 && { groups: Array.from({ length: alphas }, (_, group) => groupAt(at, OWN + OF_GROUP * group)) }),
  };
}

const groupAt = (at: (index: number) => number, first: number): GroupReport => ({
  alpha: at(first),
  nextAlpha: at(first + 1),
  slope: at(first + 2),
  nextSlope: at(first + 3),
  curvature: at(first + 4),
});

/** The α that a report says comes next, one for each group. */
export const nextAlphas = ({ nextAlpha, groups }: StepReport): readonly number[] =>
  groups?.map((group) => group.nextAlpha) ?? [nextAlpha];

/** A report with other rates, one for each group. */
export function withRates(report: StepReport, rates: readonly Rates[]): StepReport {
  const groups = report.groups?.map((group, index) => ({ ...group, ...rates[index] }));
  return { ...report, ...rates.at(-1), ...(groups !== undefined && { groups }) };
}
