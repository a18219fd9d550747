/**
 * The comparators of `bench/alpha` once more, as plain loops over numbers after the papers: slow, in float64, without
 * anything of the package. And a loss to hold them against each other on, another one for each batch.
 */

/** A loss and its gradient on batch `t`. */
export interface Oracle {
  loss(w: readonly number[], t: number): number;
  gradient(w: readonly number[], t: number): number[];
}

/** Scale and shift of batch `t`. */
export const batchOf = (t: number) => ({ scale: 1 + 0.5 * Math.sin(t), shift: 0.1 * Math.cos(3 * t) });

/** Curvatures of the seven numbers. */
export const CURVATURES = [0.5, 1, 2, 4, 0.3, 0.7, 1.5];

/** scale · (½ Σ cᵢ (wᵢ − shift)² + ¼ Σ wᵢ⁴ + 0.05 (Σ w)²) */
export const oracle: Oracle = {
  loss(w, t) {
    const { scale, shift } = batchOf(t);
    const total = w.reduce((sum, x) => sum + x, 0);
    let value = 0.05 * total ** 2;
    w.forEach((x, i) => {
      value += 0.5 * (CURVATURES[i] ?? 0) * (x - shift) ** 2 + x ** 4 / 4;
    });
    return scale * value;
  },
  gradient(w, t) {
    const { scale, shift } = batchOf(t);
    const total = w.reduce((sum, x) => sum + x, 0);
    return w.map((x, i) => scale * ((CURVATURES[i] ?? 0) * (x - shift) + x ** 3 + 0.1 * total));
  },
};

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
const zerosLike = (w: readonly number[]) => w.map(() => 0);

/** A base optimizer's direction, with its state in a closure. */
export type Direction = (gradient: readonly number[], w: readonly number[]) => number[];

/** Directions by the names that the package has for its optimizers. */
export const DIRECTIONS: Readonly<Record<"sgd" | "momentum" | "adam" | "adamW", (size: number) => Direction>> = {
  sgd: () => (g) => [...g],
  momentum: (size) => {
    const buffer = new Array<number>(size).fill(0);
    return (g) => g.map((x, i) => (buffer[i] = 0.9 * (buffer[i] ?? 0) + x));
  },
  adam: (size) => adamDirection(size, 0),
  adamW: (size) => adamDirection(size, 0.01),
};

function adamDirection(size: number, decay: number): Direction {
  const [m, v] = [new Array<number>(size).fill(0), new Array<number>(size).fill(0)];
  let t = 0;
  return (g, w) => {
    t += 1;
    return g.map((x, i) => {
      m[i] = 0.9 * (m[i] ?? 0) + 0.1 * x;
      v[i] = 0.999 * (v[i] ?? 0) + 0.001 * x * x;
      return m[i] / (1 - 0.9 ** t) / (Math.sqrt(v[i] / (1 - 0.999 ** t)) + 1e-8) + decay * (w[i] ?? 0);
    });
  };
}

/** A method: the parameters after each step. */
export type Reference = (begin: readonly number[], steps: number) => number[][];

/** Collects what a step function gives. */
function path(begin: readonly number[], steps: number, step: (w: number[], t: number) => number[]): number[][] {
  const found: number[][] = [];
  let w = [...begin];
  for (let t = 0; t < steps; t++) {
    w = step(w, t);
    found.push(w);
  }
  return found;
}

export const prodigy: Reference = (begin, steps) => {
  const [s, m, v] = [zerosLike(begin), zerosLike(begin), zerosLike(begin)];
  const beta3 = Math.sqrt(0.999);
  let [d, r] = [1e-6, 0];
  return path(begin, steps, (w, t) => {
    const g = oracle.gradient(w, t);
    r = beta3 * r + (d / 1e-6) * d * g.reduce((sum, x, i) => sum + x * ((begin[i] ?? 0) - (w[i] ?? 0)), 0);
    let size = 0;
    g.forEach((x, i) => {
      s[i] = beta3 * (s[i] ?? 0) + (d / 1e-6) * d * x;
      m[i] = 0.9 * (m[i] ?? 0) + 0.1 * d * x;
      v[i] = 0.999 * (v[i] ?? 0) + 0.001 * d * d * x * x;
      size += Math.abs(s[i]);
    });
    const next = Math.max(d, r / size);
    const after = w.map((x, i) => x - (d * (m[i] ?? 0)) / (Math.sqrt(v[i] ?? 0) + next * 1e-8));
    d = next;
    return after;
  });
};

export const dAdaptation: Reference = (begin, steps) => {
  const [s, m, v] = [zerosLike(begin), zerosLike(begin), zerosLike(begin)];
  const root = Math.sqrt(0.999);
  let [d, r] = [1e-6, 0];
  return path(begin, steps, (w, t) => {
    const g = oracle.gradient(w, t);
    let [along, size] = [0, 0];
    g.forEach((x, i) => {
      along += (d * x * (s[i] ?? 0)) / (Math.sqrt(v[i] ?? 0) + 1e-8);
    });
    r = root * r + (1 - root) * along;
    g.forEach((x, i) => {
      m[i] = 0.9 * (m[i] ?? 0) + 0.1 * d * x;
      v[i] = 0.999 * (v[i] ?? 0) + 0.001 * x * x;
      s[i] = root * (s[i] ?? 0) + (1 - root) * d * x;
      size += Math.abs(s[i]);
    });
    d = Math.max(d, r / ((1 - root) * size));
    return w.map((x, i) => x - (m[i] ?? 0) / (Math.sqrt(v[i] ?? 0) + 1e-8));
  });
};

export function hypergradient(direction: Direction, initial: number, beta: number): Reference {
  let last: number[] | undefined;
  let alpha = initial;
  return (begin, steps) =>
    path(begin, steps, (w, t) => {
      const g = oracle.gradient(w, t);
      if (last !== undefined) alpha += beta * dot(g, last);
      last = direction(g, w);
      return w.map((x, i) => x - alpha * (last?.[i] ?? 0));
    });
}

export function mechanic(direction: Direction): Reference {
  return (begin, steps) => {
    const betas = [0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
    const arms = betas.map(() => ({ s: 1e-8, r: 0, m: 0, v: 0 }));
    const sum = zerosLike(begin);
    return path(begin, steps, (w, t) => {
      const g = oracle.gradient(w, t);
      const scale = arms.reduce((all, { s }) => all + s, 0);
      const decay = (0.01 * scale * Math.hypot(...g)) / (Math.hypot(...w) + 1e-8);
      const h = g.reduce((all, x, i) => all + (x + decay * (w[i] ?? 0)) * (sum[i] ?? 0), 0);
      direction(g, w).forEach((x, i) => {
        sum[i] = (sum[i] ?? 0) + x;
      });
      arms.forEach((arm, i) => {
        const beta = betas[i] ?? 0;
        const clipped = Math.max(-arm.m, Math.min(arm.m, h));
        arm.r = beta * arm.r + clipped * arm.s;
        arm.m = Math.max(beta * arm.m, Math.abs(h) + 1e-8);
        arm.v = beta ** 2 * arm.v + h ** 2;
        arm.s = ((1e-8 / 6) * arm.m + Math.max(0, arm.r)) / (Math.sqrt(arm.v) + 1e-8);
      });
      const next = arms.reduce((all, { s }) => all + s, 0);
      return begin.map((x, i) => x - next * (sum[i] ?? 0));
    });
  };
}

/** The averages x, at which Schedule-Free is evaluated. */
export function scheduleFree(adam: boolean, learningRate: number): Reference {
  return (begin, steps) => {
    const [z, x, v] = [[...begin], [...begin], zerosLike(begin)];
    let weights = 0;
    let largest = 0;
    return path(begin, steps, (_, t) => {
      const y = z.map((value, i) => 0.1 * value + 0.9 * (x[i] ?? 0));
      const g = oracle.gradient(y, t);
      const rate = learningRate * (adam ? Math.sqrt(1 - 0.999 ** (t + 1)) : 1);
      largest = Math.max(largest, rate);
      weights += largest ** 2;
      const c = largest ** 2 / weights;
      g.forEach((slope, i) => {
        v[i] = 0.999 * (v[i] ?? 0) + 0.001 * slope * slope;
        z[i] = (z[i] ?? 0) - (rate * slope) / (adam ? Math.sqrt(v[i] ?? 0) + 1e-8 : 1);
        x[i] = (1 - c) * (x[i] ?? 0) + c * (z[i] ?? 0);
      });
      return [...x];
    });
  };
}

export function armijo(batches: number): Reference {
  let size = 1;
  return (begin, steps) =>
    path(begin, steps, (w, t) => {
      const [loss, g] = [oracle.loss(w, t), oracle.gradient(w, t)];
      const square = dot(g, g);
      size = Math.min(10, size * 2 ** (1 / batches));
      for (let tries = 0; tries <= 100; tries++) {
        const after = w.map((x, i) => x - size * (g[i] ?? 0));
        if (oracle.loss(after, t) <= loss - 0.1 * size * square) return after;
        if (tries < 100) size *= 0.9;
      }
      return w.map((x, i) => x - 1e-6 * (g[i] ?? 0));
    });
}

export function polyak(batches: number): Reference {
  let size = 1;
  return (begin, steps) =>
    path(begin, steps, (w, t) => {
      const g = oracle.gradient(w, t);
      size = Math.min(2 ** (1 / batches) * size, oracle.loss(w, t) / (0.5 * dot(g, g) + 1e-8));
      return w.map((x, i) => x - size * (g[i] ?? 0));
    });
}

/** Measures on batches 1000, 1001, … beside the run's own. */
export function gen(direction: Direction, initial: number): Reference {
  let alpha = initial;
  let other = 1000;
  return (begin, steps) =>
    path(begin, steps, (w, t) => {
      const g = oracle.gradient(w, t);
      if (t % 4 === 3) {
        const omega = direction(g, w);
        const at = (s: number) =>
          oracle.loss(
            w.map((x, i) => x - s * (omega[i] ?? 0)),
            other,
          );
        const [ahead, behind, here] = [at(alpha), at(-alpha), at(0)];
        other += 1;
        // least squares of three points by a parabola through the origin is exact: solve for both coefficients
        const h = (ahead + behind - 2 * here) / alpha ** 2;
        const slope = (behind - ahead) / (2 * alpha);
        if (h > 0 && slope > 0) alpha = 0.9 * alpha + 0.1 * Math.min(2 * alpha, Math.max(alpha / 2, slope / h));
      }
      const omega = direction(g, w);
      return w.map((x, i) => x - alpha * (omega[i] ?? 0));
    });
}

export function newt(direction: Direction, initial: number): Reference {
  let alpha = initial;
  return (begin, steps) =>
    path(begin, steps, (w, t) => {
      const g = oracle.gradient(w, t);
      const line = direction(g, w);
      const after = w.map((x, i) => x - alpha * (line[i] ?? 0));
      const omega = w.map((x, i) => (x - (after[i] ?? 0)) / alpha);
      const [d, n] = [dot(g, omega), dot(oracle.gradient(after, t), omega)];
      let factor = 1;
      if (d - n >= 1e-9) factor = Math.min(1.05, 1 + (1e-3 * n) / (d - n + 1e-9));
      if (oracle.loss(after, t) > oracle.loss(w, t)) factor = 0.1;
      alpha = Math.min(1, Math.max(1e-7, alpha * factor));
      return after;
    });
}
