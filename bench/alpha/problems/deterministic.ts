/** Two problems without noise, in f64: a quadratic with a spread of curvatures, and Rosenbrock's valley. */
import { fromTypedArray, hostRandom, scalar, type Tensor, tensor } from "../../../src";
import type { Problem, Task } from "./problem";

const DIMENSIONS = 40;
const CONDITION = 300;

/** Standard normal numbers (Box and Muller). */
export function normals(count: number, seed: number): Float64Array {
  const random = hostRandom(seed);
  return Float64Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
    return radius * Math.cos(2 * Math.PI * random.uniform());
  });
}

/** Rows of an orthonormal matrix: normal ones, made orthogonal one after another (Gram and Schmidt, twice). */
export function orthonormal(size: number, seed: number): Float64Array {
  const rows = normals(size * size, seed);
  const row = (index: number) => rows.subarray(index * size, (index + 1) * size);
  for (let index = 0; index < size; index++) {
    const current = row(index);
    for (let pass = 0; pass < 2; pass++) {
      for (let other = 0; other < index; other++) {
        const before = row(other);
        const along = current.reduce((sum, value, i) => sum + value * (before[i] ?? 0), 0);
        current.forEach((value, i) => {
          current[i] = value - along * (before[i] ?? 0);
        });
      }
    }
    const norm = Math.hypot(...current);
    current.forEach((value, i) => {
      current[i] = value / norm;
    });
  }
  return rows;
}

/** A task without examples: every batch is the same empty one. */
function whole<P>(params: P, loss: (params: P) => Tensor<"f64">): Task<P> {
  return { params, loss: (_, at) => loss(at), size: 0, batch: () => ({}), fit: () => [{}], held: () => [] };
}

/** ½ Σ λᵢ (Q x)ᵢ² with λ from 1/300 to 1, evenly in logarithm, Q orthonormal; begins at normal numbers. */
export const quadratic: Problem = {
  title: "quadratic, 40 dimensions, condition 300",
  deterministic: true,
  horizons: { short: 400, long: 3000 },
  async make(seed) {
    const shape = [DIMENSIONS, DIMENSIONS];
    const basis = fromTypedArray(orthonormal(DIMENSIONS, 1000), shape);
    const curvatures = Float64Array.from({ length: DIMENSIONS }, (_, i) => CONDITION ** (i / (DIMENSIONS - 1) - 1));
    const scale = fromTypedArray(curvatures);
    const x = fromTypedArray(normals(DIMENSIONS, seed));
    return whole({ x }, ({ x }) => basis.matmul(x.unsqueeze(-1)).squeeze(-1).square().mul(scale).sum().mul(0.5));
  },
};

/** (1 − x)² + 100 (y − x²)² from around (−1.2, 1). */
export const rosenbrock: Problem = {
  title: "Rosenbrock's valley",
  deterministic: true,
  horizons: { short: 500, long: 3000 },
  async make(seed) {
    const [dx = 0, dy = 0] = normals(2, seed);
    const start = tensor([-1.2 + 0.1 * dx, 1 + 0.1 * dy], { dtype: "f64" });
    const one = scalar(1, { dtype: "f64" });
    return whole({ point: start }, ({ point }) => {
      const [x, y] = [point.at(0), point.at(1)];
      return one.sub(x).square().add(y.sub(x.square()).square().mul(100));
    });
  },
};
