/**
 * Initial values of parameters, by name. Each is drawn from the model's seed and the parameter's place in it.
 */

import { argumentError } from "../errors";
import { generator, type RandomGenerator } from "../random";
import type { Shape, Tensor } from "../tensor";
import { full } from "../tensor/creation";
import { checkShape } from "../tensor/validate";

/**
 * A name; `{ uniform: limit }` for ±limit; `{ normal: deviation }`; `{ constant: value }`; or a function.
 * `kaimingUniform` is the default of linear layers in PyTorch: uniform ±1/√fan-in. Weights are [out, in] by convention, so
 * that fan-in is the product of all sizes but the first.
 */
export type Initializer =
  | keyof typeof NAMED
  | { readonly uniform: number }
  | { readonly normal: number }
  | { readonly constant: number }
  | ((shape: Shape, random: RandomGenerator) => Tensor);

type Rule = (shape: Shape, random: RandomGenerator, fanIn: number, fanOut: number) => Tensor;

const NAMED = {
  zeros: (shape) => full(shape, 0),
  ones: (shape) => full(shape, 1),
  /** N(0, 1) */
  normal: (shape, random) => random.normal(shape),
  /** U(±1/√in) */
  kaimingUniform: (shape, random, fanIn) => uniform(shape, random, 1 / Math.sqrt(fanIn)),
  /** N(0, 2/in) */
  heNormal: (shape, random, fanIn) => random.normal(shape).mul(Math.sqrt(2 / fanIn)),
  /** U(±√(6/in)) */
  heUniform: (shape, random, fanIn) => uniform(shape, random, Math.sqrt(6 / fanIn)),
  /** N(0, 2/(in + out)) */
  glorotNormal: (shape, random, fanIn, fanOut) => random.normal(shape).mul(Math.sqrt(2 / (fanIn + fanOut))),
  /** U(±√(6/(in + out))) */
  glorotUniform: (shape, random, fanIn, fanOut) => uniform(shape, random, Math.sqrt(6 / (fanIn + fanOut))),
  /** N(0, 1/in) */
  lecunNormal: (shape, random, fanIn) => random.normal(shape).mul(Math.sqrt(1 / fanIn)),
} as const satisfies Record<string, Rule>;

function uniform(shape: Shape, random: RandomGenerator, limit: number): Tensor {
  return random.uniform(shape, { low: -limit, high: limit });
}

/** Draws the value of parameter number `index` of a model. */
export function initialValue(initializer: Initializer, shape: Shape, seed: number, index: number): Tensor {
  const random = generator(seed).fold(index);
  if (typeof initializer === "function") return initializer(shape, random);
  if (typeof initializer === "object") {
    if ("uniform" in initializer) return uniform(shape, random, initializer.uniform);
    if ("normal" in initializer) return random.normal(shape).mul(initializer.normal);
    return full(shape, initializer.constant);
  }
  const rule: Rule | undefined = NAMED[initializer];
  if (rule === undefined) {
    throw argumentError("initializer", `unknown "${initializer}"; the names are ${Object.keys(NAMED).join(", ")}`);
  }
  const product = (sizes: Shape): number =>
    Math.max(
      1,
      checkShape("initializer", sizes).reduce((a, b) => a * b, 1),
    );
  const receptive = product(shape.slice(2));
  return rule(shape, random, product(shape.slice(1)), (shape[0] ?? 1) * receptive);
}
