/**
 * The start-up of the rules that look ahead: how their first steps find a sensible α, whatever it began with. The answers
 * come from the addon's probe, forward passes on the step's own batch; what they mean together is decided here.
 */

/** How a rule starts. */
export interface StartUp {
  /** Steps that are probed: the first looks twenty times as far ahead as it goes, the others only where they lead. */
  readonly probedSteps: number;
  /** Steps whose length the addon bounds when they are taken again. */
  readonly boundedSteps: number;
  readonly firstTries: number;
  readonly tries: number;
  /** The factor of α where the first probe is passed at once: the search goes up. Without it, it never does. */
  readonly grow?: number;
  readonly shrink: number;
  /** A later step that had to shrink is made this much shorter still. */
  readonly caution: number;
}

const SHARED = { probedSteps: 3, tries: 3, shrink: 0.2, caution: 0.1 } as const;
const START_UPS = new Map<string, StartUp>([
  ["next", { ...SHARED, boundedSteps: 40, firstTries: 16, grow: 5 }],
  ["nextPlain", { ...SHARED, boundedSteps: 0, firstTries: 14 }],
]);

/** The start-up of a rule that looks ahead; of others undefined. */
export const startUpOf = (rule: string): StartUp | undefined => START_UPS.get(rule);

/**
 * The factor of α for a probed step. At the first step the search walks from 1 upwards while probes pass, or downwards
 * until one does, and ends at the last factor that passed; later steps only shrink.
 */
export async function searchFactor(
  { firstTries, tries, grow, shrink, caution }: StartUp,
  first: boolean,
  passes: (factor: number) => Promise<boolean>,
): Promise<number> {
  let factor = 1;
  let growing: boolean | undefined = first && grow !== undefined ? undefined : false;
  for (let left = first ? firstTries : tries; left > 0; left--) {
    const passed = await passes(factor);
    growing ??= passed;
    if (passed !== growing) return growing ? factor / (grow ?? 1) : shrunk(factor);
    factor *= growing ? (grow ?? 1) : shrink;
  }
  return growing ? factor : shrunk(factor);

  function shrunk(found: number): number {
    return first || found === 1 ? found : found * caution;
  }
}
