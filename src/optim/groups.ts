/**
 * Groups of parameters: several optimizers (or one with several sets of options) as one, each for the parameters that it
 * is meant for. All groups share one learning rate, or one α (unless `newton` gives each its own); a group's factor
 * multiplies it.
 */
import type { DType, FloatDType } from "../dtype";
import { argumentError } from "../errors";
import type { AnyTensor, Shape, Tensor } from "../tensor";
import type { Direction, DirectionInput, Optimizer, RecallInput } from "./optimizer";

/** A parameter as a group's `match` sees it. */
export interface ParameterInfo {
  /** Where it stands: names and positions joined by dots, such as `layers.0.bias`. */
  readonly path: string;
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * Which parameters a group has: those whose path fits the pattern, those at or under a path (a string), or those that a
 * function says yes to.
 */
export type Match = RegExp | string | ((parameter: ParameterInfo) => boolean);

/** A group's members, its factor, and whatever options differ for it. */
export type Group<O> = O & {
  readonly match: Match;
  /** Multiplies the learning rate (or α) for this group; 1 if not given. */
  readonly learningRateFactor?: number;
};

/** A part of `optim.combine`. Without `match` it has all parameters that no part before it has. */
export interface Part<S = unknown> {
  readonly match?: Match;
  readonly optimizer: Optimizer<S>;
  readonly learningRateFactor?: number;
}

/** Whether a parameter belongs to a group. */
function matches(op: string, match: Match, parameter: ParameterInfo): boolean {
  const { path } = parameter;
  if (match instanceof RegExp) return path.search(match) >= 0; // unlike `test`, it forgets the last match of /g
  if (typeof match === "string") return path === match || path.startsWith(`${match}.`) || path.startsWith(`${match}[`);
  const answer: unknown = match(parameter);
  if (typeof answer === "boolean") return answer;
  throw argumentError(op, `match must give true or false; for ${path} it gave ${String(answer)}`);
}

function checkPart(op: string, { match, learningRateFactor = 1 }: Omit<Part, "optimizer">): void {
  const fits = match === undefined || match instanceof RegExp || ["string", "function"].includes(typeof match);
  if (!fits) throw argumentError(op, `match must be a pattern, a path or a function, not ${String(match)}`);
  if (!(Number.isFinite(learningRateFactor) && learningRateFactor > 0)) {
    throw argumentError(op, `learningRateFactor must be a positive number, not ${learningRateFactor}`);
  }
}

/** For each part, the positions of its parameters. */
function membersOf(op: string, parts: readonly Part[], params: readonly AnyTensor[], paths: readonly string[]) {
  const members: number[][] = parts.map(() => []);
  const infos = params.map(({ shape, dtype }, index) => ({ path: paths[index] ?? String(index), shape, dtype }));
  infos.forEach((info, index) => {
    const part = parts.findIndex(({ match }) => match === undefined || matches(op, match, info));
    if (part < 0) throw argumentError(op, `no part has the parameter ${info.path}; add a last part without match`);
    members[part]?.push(index);
  });
  members.forEach((list, part) => {
    const match = parts[part]?.match;
    if (list.length > 0 || match === undefined || params.length === 0) return;
    const known = infos.slice(0, 8).map(({ path }) => path);
    const more = infos.length > known.length ? ", …" : "";
    const what = typeof match === "function" ? "its function" : String(match);
    throw argumentError(op, `group ${part} (${what}) has no parameter; there are ${known.join(", ")}${more}`);
  });
  return members;
}

const pick = (tensors: readonly AnyTensor[], at: readonly number[]): AnyTensor[] =>
  at.map((index) => tensors[index] as AnyTensor); // positions were made from the same list

/** ω times the factor. It has its parameter's dtype, a float (checked where parameters enter). */
function scaled(omega: AnyTensor, factor: number): AnyTensor {
  return factor === 1 ? omega : (omega as Tensor<FloatDType>).mul(factor);
}

/** The parts as one optimizer; `shown` is how it presents itself. */
export function together(
  op: string,
  parts: readonly Part[],
  shown: Pick<Optimizer, "name" | "options" | "learningRate">,
): Optimizer<readonly unknown[]> {
  for (const part of parts) checkPart(op, part);
  return {
    ...shown,
    init(params, paths = []) {
      const members = membersOf(op, parts, params, paths);
      return parts.map(({ optimizer }, part) => {
        const at = members[part] ?? [];
        return optimizer.init(
          pick(params, at),
          at.map((index) => paths[index] ?? String(index)),
        );
      });
    },
    direction({ params, gradients, state, paths = [] }: DirectionInput<readonly unknown[]>) {
      const members = membersOf(op, parts, params, paths);
      const omega: AnyTensor[] = [];
      const after = parts.map(({ optimizer, learningRateFactor = 1 }, part) => {
        const at = members[part] ?? [];
        const result: Direction<unknown> = optimizer.direction({
          params: pick(params, at),
          gradients: pick(gradients, at),
          state: state[part],
          paths: at.map((index) => paths[index] ?? String(index)),
        });
        at.forEach((index, position) => {
          omega[index] = scaled(result.omega[position] as AnyTensor, learningRateFactor);
        });
        return result.state;
      });
      return { omega, state: after };
    },
    groups: (params, paths = []) => membersOf(op, parts, params, paths).filter((at) => at.length > 0),
    recall({ params, applied, state, paths = [], rates }: RecallInput<readonly unknown[]>) {
      const members = membersOf(op, parts, params, paths);
      const left = [...(rates ?? [])];
      const [start, omega]: [AnyTensor[], AnyTensor[]] = [[], []];
      for (const [part, { optimizer, learningRateFactor = 1 }] of parts.entries()) {
        const at = members[part] ?? [];
        const step = optimizer.recall?.({
          params: pick(params, at),
          applied: scaled(at.length > 0 ? (left.shift() ?? applied) : applied, learningRateFactor),
          state: state[part],
          paths: at.map((index) => paths[index] ?? String(index)),
        });
        if (step === undefined) return undefined;
        at.forEach((index, position) => {
          start[index] = step.start[position] as AnyTensor;
          omega[index] = scaled(step.omega[position] as AnyTensor, learningRateFactor);
        });
      }
      return { start, omega };
    },
  };
}

/**
 * Several optimizers as one: each has the parameters that its `match` holds for, the last one usually the rest. They
 * share a learning rate: that of the last part, or the α of `newton`. RaphsonErrors (code ARGUMENT) when training starts:
 * a parameter that no part has, a part with no parameter.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const mixed = optim.combine([
 *   { match: /embedding/, optimizer: optim.adagrad(), learningRateFactor: 0.1 },
 *   { optimizer: optim.adamW() },
 * ]);
 * console.log(newton(mixed).optimizer.name);   // adagrad + adamw
 * ```
 */
export function combine(parts: readonly Part[]): Optimizer<readonly unknown[]> {
  const last = parts.at(-1)?.optimizer;
  if (last === undefined) throw argumentError("optim.combine", "give at least one part");
  for (const { optimizer } of parts) {
    if (typeof optimizer?.direction === "function") continue;
    throw argumentError("optim.combine", "every part needs an optimizer, such as optim.adam()");
  }
  const name = parts.map(({ optimizer }) => optimizer.name).join(" + ");
  return together("optim.combine", parts, { name, options: {}, learningRate: last.learningRate });
}
