/**
 * The start-up of the rules that look ahead: how their first steps find a sensible α, whatever it began with. The answers
 * come from the addon's probe, forward passes on the step's own batch; what they mean together is decided here.
 */

/** How a rule starts. */
export interface StartUp {
  /** Steps that are probed: the first looks far ahead of where it goes, the others only where they lead. */
  readonly probedSteps: number;
  /** Steps whose length the addon bounds when they are taken again. */
  readonly boundedSteps: number;
  /** Whether the first step's search goes both ways; if not, α only shrinks. */
  readonly walks: boolean;
  readonly firstTries: number;
  readonly tries: number;
  readonly shrink: number;
  /** A later step that had to shrink is made this much shorter still. */
  readonly caution: number;
}

const SHARED = { probedSteps: 3, tries: 3, shrink: 0.2, caution: 0.1 } as const;
const START_UPS = new Map<string, StartUp>([
  ["next", { ...SHARED, boundedSteps: 40, walks: true, firstTries: 20 }],
  ["nextPlain", { ...SHARED, boundedSteps: 0, walks: false, firstTries: 14 }],
]);

/** The start-up of a rule that looks ahead; of others undefined. */
export const startUpOf = (rule: string): StartUp | undefined => START_UPS.get(rule);

/** Whether the step with α times the factor passes its probe. */
type Passes = (factor: number) => Promise<boolean>;

/** The factor of α for a probed step. */
export async function searchFactor(startUp: StartUp, first: boolean, passes: Passes): Promise<number> {
  const { walks, firstTries, tries, shrink, caution } = startUp;
  if (first && walks) return walk(firstTries, passes);
  let factor = 1;
  for (let left = first ? firstTries : tries; left > 0 && !(await passes(factor)); left--) factor *= shrink;
  return first || factor === 1 ? factor : factor * caution;
}

/**
 * From 1 by factors of 4 upwards while probes pass, or downwards until one does; then twice that, if it passes too. As the
 * rule takes α to the nearest power of two, this is the largest one that passes, wherever the walk began.
 */
async function walk(tries: number, passes: Passes): Promise<number> {
  const grows = await passes(1);
  let factor = 1;
  for (let left = tries; left > 0; left--) {
    const next = grows ? 4 * factor : factor / 4;
    const passed = await passes(next);
    if (grows && !passed) break;
    factor = next;
    if (!grows && passed) break;
  }
  return (await passes(2 * factor)) ? 2 * factor : factor;
}
