/**
 * Rules whose groups have an α each, once more as plain loops over numbers in float64: `next` as its reference has it, and
 * `retsinas` with its guard, every sum over a group's own parameters and every decision about the loss for all of them.
 */

/** A loss and its gradient on batch `t`. */
export interface Oracle {
  loss(w: readonly number[], t: number): number;
  gradient(w: readonly number[], t: number): number[];
}

/** ω of one gradient, with the optimizer's state in a closure; `undo` forgets the newest call. */
export interface Direction {
  of(gradient: readonly number[], w: readonly number[]): number[];
  undo(): void;
}

/** Where a run is after a step: α as applied and α of the next step for each group, and the parameters. */
export interface Stand {
  readonly applied: readonly number[];
  readonly alphas: readonly number[];
  readonly w: readonly number[];
  readonly accepted: boolean;
}

const clip = (x: number, low: number, high: number) => Math.min(Math.max(x, low), high);
const [LEAST, MOST] = [1e-8, 100];
const within = (alpha: number) => clip(alpha, LEAST, MOST);

/** ⟨a, b⟩ over a group. */
const inner = (group: readonly number[], a: readonly number[], b: readonly number[]) =>
  group.reduce((sum, at) => sum + (a[at] ?? 0) * (b[at] ?? 0), 0);

/** θ − α ω with each group's own α. */
function moved(
  groups: readonly (readonly number[])[],
  w: readonly number[],
  alphas: readonly number[],
  omega: readonly number[],
) {
  const after = [...w];
  groups.forEach((group, k) => {
    for (const at of group) after[at] = (w[at] ?? 0) - (alphas[k] ?? 0) * (omega[at] ?? 0);
  });
  return after;
}

/** What each group has for itself. */
interface Own {
  alpha: number;
  sumN: number;
  sumD: number;
  d: number;
  reach: number;
  applied: number;
}

/** Steps of `next` from one α₀; `total` where their number is known. */
export function nextPath(
  groups: readonly (readonly number[])[],
  oracle: Oracle,
  direction: Direction,
  begin: readonly number[],
  { alpha, total, steps, gamma = 0.07 }: { alpha: number; total?: number; steps: number; gamma?: number },
): Stand[] {
  const own = groups.map((): Own => ({ alpha, sumN: 0, sumD: 0, d: 0, reach: 0, applied: 0 }));
  let [mean, slow, deviation, peak, best, usual] = [0, 0, 0, 0, Number.NaN, 0];
  let [inARow, halved] = [0, -10];
  let [e, f, y, omega, start] = [1, 2, 3, 4, 5].map(() => begin.map(() => 0)) as [
    number[],
    number[],
    number[],
    number[],
    number[],
  ];
  let w = [...begin];
  const stands: Stand[] = [];

  /** α ← α(1 + γ(N + cD)/(D − N)), limited, c too, only down after half of the steps; sums and traces forget as α travels. */
  function newton(k: number, n: number, t: number): void {
    const now = own[k] as Own;
    const sumN = 0.9 * now.sumN + n;
    const signed = 0.9 * now.sumD + now.d;
    const sumD = signed > 0 ? signed : 0.9 * now.sumD + Math.abs(now.d);
    const gained = Math.max(slow - mean, 0) + deviation;
    const grows = total === undefined || 2 * t < total;
    const most = gained / Math.max(now.applied, 1e-30) / Math.max(sumD, 1e-30); // a tenth of what was gained; sums are of ten
    const aim = Math.min(0.3, most) * (grows ? 1 : 2);
    const up = grows ? 1.25 : 1;
    const [top, bottom] = [sumN + aim * sumD, sumD - sumN];
    const eager = Math.min(gamma * clip(Math.sqrt(100 / (t + 1)), 1, 3), 1);
    const bare = bottom > 0 ? 1 + (eager * top) / bottom : top > 0 ? up : 0.5;
    const floor = grows && sumN < -0.5 * sumD ? 0.5 : 1 - clip(200 / (t + 1), 0.5, 1) / (t + 1);
    const fresh = within(now.alpha * clip(bare, floor, up));
    const travel = Math.abs(Math.log(fresh / now.alpha));
    Object.assign(now, { alpha: fresh, sumN: sumN * Math.exp(-3 * travel), sumD: sumD * Math.exp(-3 * travel) });
    for (const at of groups[k] ?? [])
      for (const trace of [e, f, y]) trace[at] = (trace[at] ?? 0) * Math.exp(-2 * travel);
  }

  function track(loss: number, t: number): void {
    if (t === 0) {
      [mean, slow, deviation, peak] = [loss, loss, 0, loss];
      return;
    }
    peak = Math.max(loss, 0.99 * peak);
    deviation = 0.9 * deviation + 0.1 * Math.abs(loss - mean);
    mean = inARow > 5 ? loss : 0.9 * mean + 0.1 * loss;
    slow += Math.min(0.01, 2 / (t + 1)) * Math.min(mean - slow, 0);
    if (t < 10) {
      usual = deviation;
      return;
    }
    if (Number.isNaN(best)) best = mean;
    if (mean > best + Math.max(2 * usual, deviation) && t - halved >= 10) {
      for (const now of own) Object.assign(now, { alpha: Math.max(0.5 * now.alpha, LEAST), sumN: 0, sumD: 0 });
      halved = t;
    }
    best = Math.min(mean, best + 0.01 * Math.max(mean - best, 0));
    usual = mean <= best ? deviation : usual + 0.01 * Math.max(deviation - usual, 0);
  }

  /** One factor for all: at the first step the largest power of two that passes, shorter only at the next two. */
  function startUp(loss: number, t: number, slopes: readonly number[]): void {
    const ahead = t === 0 ? 20 : 1;
    const tolerance = 4 * 2 ** -52 * Math.abs(loss);
    if (t === 0) for (const now of own) now.alpha = 2 ** Math.round(Math.log2(now.alpha));
    const passes = (factor: number) => {
      const lengths = own.map((now) => ahead * factor * now.alpha);
      const wanted = lengths.reduce((sum, length, k) => sum + length * (slopes[k] ?? 0), 0);
      return oracle.loss(moved(groups, start, lengths, omega), t) <= loss - 0.3 * Math.max(wanted, 0) + tolerance;
    };
    let factor = 1;
    if (t === 0) {
      const grows = passes(1);
      for (let tries = 0; tries < 20; tries++) {
        const next = grows ? 4 * factor : factor / 4;
        const passed = passes(next);
        if (grows && !passed) break;
        factor = next;
        if (!grows && passed) break;
      }
      if (passes(2 * factor)) factor *= 2;
    } else {
      for (let tries = 0; tries < 3 && !passes(factor); tries++) factor *= 0.2;
      if (factor < 1) factor *= 0.1;
    }
    for (const now of own) now.alpha = within(now.alpha * factor);
  }

  for (let t = 0; t < steps; t++) {
    const [loss, gradient] = [oracle.loss(w, t), oracle.gradient(w, t)];
    let rejected = false;
    if (t > 0) {
      const line = e.map((x, at) => x - 0.5 * (f[at] ?? 0));
      const slopes = groups.map((group) => inner(group, gradient, line));
      const finite = [loss, ...slopes].every(Number.isFinite);
      const high = !finite || loss > Math.max(mean + Math.abs(mean) + 10 * deviation, 2 * peak);
      rejected = !finite || (high && inARow < 5);
      inARow = high ? inARow + 1 : 0;
      const factor = finite && inARow === 1 ? 0.5 : 0.1;
      if (rejected) {
        for (const now of own) Object.assign(now, { alpha: Math.max(now.alpha * factor, LEAST), sumN: 0, sumD: 0 });
      } else {
        for (const [k, n] of slopes.entries()) newton(k, n, t);
      }
    }
    if (rejected) {
      [e, f] = [[...omega], [...omega]];
      y = y.map((x) => 0.99 * x);
    } else {
      track(loss, t);
      start = [...w];
      omega = direction.of(gradient, w);
      e = e.map((x, at) => 0.99 * x + (omega[at] ?? 0));
      f = f.map((x, at) => 0.9 * x + (omega[at] ?? 0));
      y = y.map((x, at) => 0.99 * x + (gradient[at] ?? 0));
      groups.forEach((group, k) => {
        (own[k] as Own).d = inner(group, y, omega);
      });
      if (t < 3)
        startUp(
          loss,
          t,
          groups.map((group) => inner(group, gradient, omega)),
        );
    }
    groups.forEach((group, k) => {
      const now = own[k] as Own;
      const travelled = Math.sqrt(inner(group, e, e));
      if (t === 0) now.reach = now.alpha * travelled;
      else if (t < 40) {
        const longest = now.reach * Math.sqrt(t + 1) * Math.min(1.1 ** t, 8);
        now.alpha = within(Math.min(now.alpha, longest / Math.max(travelled, 1e-30)));
      }
    });
    const outside = total === undefined ? 1 : clip(2 * (1 - t / total), 0, 1);
    for (const now of own) now.applied = outside * now.alpha;
    const applied = own.map((now) => now.applied);
    w = moved(groups, start, applied, omega);
    stands.push({ applied, alphas: own.map((now) => now.alpha), w, accepted: !rejected });
  }
  return stands;
}

/** Steps of `retsinas`: slopes at θ and at θ′, where all groups have moved; a rejected step moves nothing. */
export function retsinasPath(
  groups: readonly (readonly number[])[],
  oracle: Oracle,
  direction: Direction,
  begin: readonly number[],
  { alpha, steps, gamma = 0.5 }: { alpha: number; steps: number; gamma?: number },
): Stand[] {
  let alphas = groups.map(() => alpha);
  let [mean, deviation, count] = [0, 0, 0];
  let w = [...begin];
  const stands: Stand[] = [];
  for (let t = 0; t < steps; t++) {
    const [loss0, gradient] = [oracle.loss(w, t), oracle.gradient(w, t)];
    const omega = direction.of(gradient, w);
    const there = moved(groups, w, alphas, omega);
    const [loss1, ahead] = [oracle.loss(there, t), oracle.gradient(there, t)];
    const slopes = groups.map((group) => [inner(group, gradient, omega), inner(group, ahead, omega)] as const);
    const nextDeviation = count === 0 ? 0 : 0.9 * deviation + 0.1 * Math.abs(loss0 - mean);
    const nextMean = count === 0 ? loss0 : 0.9 * mean + 0.1 * loss0;
    const finite = [loss0, loss1, ...slopes.map(([d]) => d)].every(Number.isFinite);
    const accepted = finite && loss1 <= nextMean + 4 * nextDeviation + Math.abs(nextMean);
    const applied = alphas;
    alphas = alphas.map((now, k) => {
      const [d, n] = slopes[k] ?? [0, 0];
      if (!accepted) {
        const ratio = 1 / (1 - n / Math.abs(d));
        return within(now * clip(Number.isFinite(ratio) ? ratio : 0.1, 0.1, 0.5));
      }
      const [h, noise] = [(d - n) / now, (4 * 2 ** -52 * (Math.abs(d) + Math.abs(n))) / now];
      const bare = now + (gamma * n) / h;
      if (Math.abs(h) <= noise) return within(n > 0.5 * d && d > 0 ? 1.5 * now : now);
      if (h < -noise) return within(n > 0 ? 1.5 * now : 0.5 * now);
      return within(clip(Number.isFinite(bare) ? bare : 0.5 * now, 0.5 * now, 1.5 * now));
    });
    if (accepted) {
      [mean, deviation, count] = [nextMean, nextDeviation, count + 1];
      w = there;
    } else direction.undo();
    stands.push({ applied, alphas, w, accepted });
  }
  return stands;
}
