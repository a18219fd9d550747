/**
 * Initial values of parameters, by name. Each is drawn from the model's seed and the parameter's place in it.
 */

import { argumentError } from "../errors";
import { generator, type RandomGenerator } from "../random";
import type { Shape, Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { fromTypedArray, full } from "../tensor/creation";
import { checkShape } from "../tensor/validate";

/**
 * A name; `{ uniform: limit }` for ±limit; `{ normal: deviation }`; `{ truncatedNormal: deviation }`, which keeps draws of
 * at most two deviations; `{ orthogonal: gain }`; `{ constant: value }`; or a function. `kaimingUniform` is the default of
 * linear layers in PyTorch: uniform ±1/√fan-in; He's own rule is `heUniform`. Weights are [out, in] by convention, so that
 * fan-in is the product of all sizes but the first.
 */
export type Initializer =
  | keyof typeof NAMED
  | { readonly uniform: number }
  | { readonly normal: number }
  | { readonly truncatedNormal: number }
  | { readonly orthogonal: number }
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
  heNormal,
  /** U(±√(6/in)) */
  heUniform: (shape, random, fanIn) => uniform(shape, random, Math.sqrt(6 / fanIn)),
  /** heNormal by its author's first name */
  kaimingNormal: heNormal,
  glorotNormal,
  glorotUniform,
  /** glorotNormal by its author's first name */
  xavierNormal: glorotNormal,
  /** glorotUniform by its author's first name */
  xavierUniform: glorotUniform,
  /** N(0, 1/in) */
  lecunNormal: (shape, random, fanIn) => random.normal(shape).mul(Math.sqrt(1 / fanIn)),
  /** N(0, 1) without draws beyond ±2 */
  truncatedNormal: (shape, random) => truncatedNormal(shape, random),
  /** Rows (or columns, whichever are fewer) of length 1 at right angles; axes after the first count as columns */
  orthogonal: (shape, random) => orthogonal(shape, random),
} as const satisfies Record<string, Rule>;

/** N(0, 2/in) */
function heNormal(shape: Shape, random: RandomGenerator, fanIn: number): Tensor {
  return random.normal(shape).mul(Math.sqrt(2 / fanIn));
}

/** N(0, 2/(in + out)) */
function glorotNormal(shape: Shape, random: RandomGenerator, fanIn: number, fanOut: number): Tensor {
  return random.normal(shape).mul(Math.sqrt(2 / (fanIn + fanOut)));
}

/** U(±√(6/(in + out))) */
function glorotUniform(shape: Shape, random: RandomGenerator, fanIn: number, fanOut: number): Tensor {
  return uniform(shape, random, Math.sqrt(6 / (fanIn + fanOut)));
}

/** Draws kept in reserve for a place: all of them lie beyond ±2 with probability 0.0455^8 ≈ 2e-11, and then ±2 is taken. */
const RESERVE = 8;

/** The first draw of each place that lies within ±2. */
function truncatedNormal(shape: Shape, random: RandomGenerator): Tensor {
  let value = random.normal(shape);
  for (let draw = 1; draw < RESERVE; draw++) value = where(value.abs().lessEqual(2), value, random.normal(shape));
  return value.clip(-2, 2);
}

/**
 * Gram and Schmidt on a normal matrix of the host, in f64 and twice over (once leaves angles as wrong as the matrix is
 * ill-conditioned). Its rows, or its columns if those are fewer, become orthonormal.
 */
function orthogonal(shape: Shape, random: RandomGenerator): Tensor {
  const rows = shape[0] ?? 1;
  const columns = shape.slice(1).reduce((a, b) => a * b, 1);
  const [few, many] = [Math.min(rows, columns), Math.max(rows, columns)];
  const draws = random.normal([few * many]).dataSync();
  const basis = Array.from({ length: few }, (_, i) => Float64Array.from(draws.subarray(i * many, (i + 1) * many)));
  basis.forEach((row, i) => {
    for (const earlier of [...basis.slice(0, i), ...basis.slice(0, i)]) {
      const product = dotProduct(row, earlier);
      for (let k = 0; k < many; k++) row[k] = (row[k] ?? 0) - product * (earlier[k] ?? 0);
    }
    const length = Math.sqrt(dotProduct(row, row));
    for (let k = 0; k < many; k++) row[k] = (row[k] ?? 0) / length;
  });
  const matrix = fromTypedArray(Float32Array.from(basis.flatMap((row) => [...row])), [few, many]);
  return (rows <= columns ? matrix : matrix.transpose()).reshape(shape);
}

function dotProduct(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += (a[k] ?? 0) * (b[k] ?? 0);
  return sum;
}

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
    if ("truncatedNormal" in initializer) return truncatedNormal(shape, random).mul(initializer.truncatedNormal);
    if ("orthogonal" in initializer) return orthogonal(shape, random).mul(initializer.orthogonal);
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
