/**
 * α-rules written in TypeScript: what they may ask to be measured, and what they answer. They are traced into the
 * compiled step like the built-in ones.
 */
import type { FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { Tensor } from "../tensor";

/**
 * What can be measured along φ(s) = L(θ − sω), beside the loss φ(0) and slope −φ′(0) that are always there: `loss1`
 * φ(α), `slope1` −φ′(α), `curvature` φ″(α), `lossMinus` φ(−α).
 */
export const MEASURES = ["loss1", "slope1", "curvature", "lossMinus"] as const;

/** The name of a measured number. */
export type Measure = (typeof MEASURES)[number];

/** f64, or f32 on a device without f64. */
type Scalar = Tensor<FloatDType>;

/** What a rule is given; all are scalars of one dtype: f64, or f32 on a device without f64 (wgpu). */
export type AlphaMeasures<M extends Measure> = {
  /** α as the rule keeps it, schedule not included. */
  readonly alpha: Scalar;
  /** α as applied, schedule included: what the numbers were measured with. */
  readonly applied: Scalar;
  /** φ(0) = L(θ). */
  readonly loss0: Scalar;
  /** −φ′(0) = ⟨∇L(θ), ω⟩. */
  readonly slope0: Scalar;
} & { readonly [Name in M]: Scalar };

/** The next α itself, or slope and curvature for a Newton step α + γ · slope / curvature. Scalars of the dtype of what was given. */
export type AlphaProposal = { readonly alpha: Scalar } | { readonly slope: Scalar; readonly curvature: Scalar };

/** What `defineAlphaRule` takes. `S` is the rule's own state, any tree of tensors. */
export interface AlphaRuleDefinition<M extends Measure, S> {
  readonly name?: string;
  readonly needs: readonly M[];
  /** The state before the first step; leave it out if there is none. */
  init?(): S;
  next(measures: AlphaMeasures<M>, state: S): AlphaProposal & { readonly state?: S };
}

/** A rule for `newton(optimizer, { rule })`. */
export interface AlphaRule {
  readonly name: string;
  readonly needs: readonly Measure[];
  init(): unknown;
  next(
    measures: Readonly<Record<string, Scalar>>,
    state: unknown,
  ): { readonly proposal: AlphaProposal; readonly state: unknown };
}

/**
 * A learning-rate rule of your own.
 *
 * ```ts
 * import { defineAlphaRule, newton, optim } from "raphson";
 *
 * // Newton's iteration with the secant curvature.
 * const secant = defineAlphaRule({
 *   name: "secant",
 *   needs: ["slope1"],
 *   next: ({ applied, slope0, slope1 }) => ({ slope: slope1, curvature: slope0.sub(slope1).div(applied) }),
 * });
 * console.log(newton(optim.sgd(), { rule: secant, gamma: 0.5 }).spec.gamma);
 * ```
 */
export function defineAlphaRule<const M extends Measure, S = undefined>(
  definition: AlphaRuleDefinition<M, S>,
): AlphaRule {
  const { name = "custom", needs } = definition;
  const unknown = needs.find((need) => !MEASURES.includes(need));
  if (unknown !== undefined) {
    throw argumentError(
      "defineAlphaRule",
      `there is nothing named ${unknown} to measure; choose from ${MEASURES.join(", ")}`,
    );
  }
  if (typeof definition.next !== "function") throw argumentError("defineAlphaRule", "next must be a function");
  return {
    name,
    needs,
    init: () => definition.init?.(),
    next(measures, state) {
      // The step measures exactly what `needs` lists, and hands back the state that `init` or `next` gave.
      const { state: after, ...proposal } = definition.next(measures as AlphaMeasures<M>, state as S);
      return { proposal: proposal as AlphaProposal, state: after ?? state };
    },
  };
}
