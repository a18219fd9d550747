/** `bench:alpha` as users run it, on tiny drawn data: its result, what it keeps, and its parts on made-up losses. */
import { execFile } from "node:child_process";
import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readArguments } from "../../bench/alpha/arguments";
import type { Baseline, Cell } from "../../bench/alpha/cells";
import { METHODS } from "../../bench/alpha/methods";
import { OPTIMIZERS } from "../../bench/alpha/optimizers";
import { ESTIMATES, ordersSheet } from "../../bench/alpha/orders";
import type { Group } from "../../bench/alpha/plan";
import { pictures, type Result } from "../../bench/alpha/plots";
import { OutOfTime, Pool } from "../../bench/alpha/pool";
import { PROBLEMS, type ProblemName } from "../../bench/alpha/problems";
import { type RunResult, type RunSpec, runOne } from "../../bench/alpha/run";
import { HALVES } from "../../bench/alpha/split";
import { Store } from "../../bench/alpha/store";
import { rowsOf } from "../../bench/alpha/summary";
import { tune } from "../../bench/alpha/tuning";
import { UsageError } from "../../examples/arguments";

const ROOT = join(__dirname, "..", "..");
const TINY = { folder: undefined, size: "tiny" } as const;

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-alpha-"));
});
afterAll(() => rm(folder, { recursive: true }));

function bench(...options: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const program = ["-r", "ts-node/register/transpile-only", join(ROOT, "bench/alpha/main.ts"), ...options];
  return new Promise((resolve) => {
    execFile(process.execPath, program, { cwd: ROOT }, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? 1 : 0, out, err });
    });
  });
}

describe("bench:alpha", () => {
  it("measures, keeps what it measured, goes on after an interruption, and makes pictures", {
    timeout: 400_000,
  }, async () => {
    const [store, out] = [join(folder, "results.jsonl"), join(folder, "cells.json")];
    const slice = "--problems logistic,quadratic --optimizers sgd --rules next,polyak --alphas 1e-4,1 --steps 12";
    const options = ["--quick", "--json", "--size", "tiny", "--data", "none", "--workers", "2", ...slice.split(" ")];
    const first = await bench(...options, "--store", store, "--out", out);
    expect(first.code, first.err).toBe(0);
    expect(first.out).toMatch(/CHOOSING HALF, without noise: quadratic/);
    expect(first.out).toMatch(/REPORTING HALF, stochastic: logistic/);
    const { cells } = JSON.parse(first.out.trim().split("\n").at(-1) ?? "") as { cells: Cell[] };
    const next = cells.filter(({ problem, rule }) => problem === "logistic" && rule === "next");
    expect(next.map(({ alpha0 }) => alpha0)).toEqual([1e-4, 1]);
    for (const cell of next) {
      expect(cell).toMatchObject({ optimizer: "sgd", horizon: 12, batch: 64, seeds: 1, half: "reporting" });
      expect(cell.ratio_constant).toBeGreaterThan(0);
      expect(cell.held_out).toBeGreaterThan(0.4);
    }
    expect(cells.filter(({ rule }) => rule === "polyak").map(({ alpha0 }) => alpha0)).toEqual([null, null]);
    const best = cells.filter(({ rule, problem }) => rule === "constant" && problem === "logistic");
    expect(Math.min(...best.map(({ ratio_constant }) => ratio_constant ?? Number.NaN))).toBe(1);

    const lines = (await readFile(store, "utf8")).trim().split("\n");
    await appendFile(store, lines[0]?.slice(0, 40) ?? ""); // as an interruption leaves it
    const again = await bench(...options, "--store", store, "--out", out);
    expect(again.out).toBe(first.out);
    expect(again.err).not.toMatch(/runs done/);

    const result = JSON.parse(await readFile(out, "utf8")) as Result;
    const drawn = pictures(result);
    expect([...drawn.keys()].sort()).toEqual([
      "alpha-cost.svg",
      "alpha-loss-choosing-sgd.svg",
      "alpha-loss-reporting-sgd.svg",
      "alpha-time-next-sgd.svg",
    ]);
    for (const svg of drawn.values()) expect(svg).toMatch(/^<svg/);
  });

  it("draws errors of curvatures whose order is that of the docs, until f32 ends it", async () => {
    const [f64, f32] = (await ordersSheet()).panels;
    const errors = (panel: typeof f64, name: string) =>
      panel?.lines.find((line) => line.name === name)?.points.map(([, error]) => error ?? Number.NaN) ?? [];
    for (const name of ESTIMATES) {
      const [a = Number.NaN, b = Number.NaN] = errors(f64, name).slice(4, 6);
      expect(Math.log2(b / a), name).toBeCloseTo(name === "hermite" ? 2 : 1, 1);
    }
    expect(errors(f32, "alt1")[0]).toBeGreaterThan(10 * (errors(f64, "alt1")[0] ?? Number.NaN));
    expect(errors(f32, "retsinas")[4]).toBeLessThan(3 * (errors(f64, "retsinas")[4] ?? Number.NaN));
  });

  it("refuses what it does not know", () => {
    for (const wrong of [
      "--rules guess",
      "--problems mnist",
      "--half third",
      "--seeds 99",
      "--data nowhere",
      "--alphas 0",
      "--steps 1",
    ]) {
      expect(() => readArguments(wrong.split(" ")), wrong).toThrow(UsageError);
    }
    expect(() => readArguments(["--half", "choosing", "--problems", "charLstm"])).toThrow(/choosing|one of/);
  });

  it("begins no run when its time is over, but gives what is known", async () => {
    const store = new Store(join(folder, "late.jsonl"), false);
    const spec = (seed: number): RunSpec => ({
      ...{ problem: "logistic", optimizer: "sgd", method: "next", alpha: 1, steps: 4, batch: 16, seed, sources: TINY },
    });
    store.add(spec(1), { loss: 7 } as RunResult);
    const pool = new Pool(store, 1, -1, () => undefined);
    expect(await pool.run(spec(1))).toEqual({ loss: 7 });
    await expect(pool.run(spec(2))).rejects.toThrow(OutOfTime);
    await pool.close();
    expect(new Store(join(folder, "late.jsonl"), false).get(spec(1))).toEqual({ loss: 7 });
  });

  it("asks for everything unless told otherwise", () => {
    const plan = readArguments(["--data", "none"])?.plan;
    expect(plan?.problems).toHaveLength(Object.keys(PROBLEMS).length);
    expect(plan?.methods).toEqual(Object.keys(METHODS).filter((name) => METHODS[name]?.kind !== "baseline"));
    expect(plan).toMatchObject({ alphas: [1e-6, 1e-4, 0.01, 1, 10], seeds: 3, batches: [64], horizons: ["short"] });
  });
});

describe("runs", () => {
  const spec = (problem: ProblemName, method: string, rest: Partial<RunSpec> = {}): RunSpec => ({
    ...{ problem, optimizer: "sgd", method, alpha: 0.05, steps: 4, batch: 16, seed: 1, sources: TINY },
    ...rest,
  });

  it.each(Object.keys(PROBLEMS) as ProblemName[])("%s can be trained and measured", async (problem) => {
    const alpha = problem === "rosenbrock" ? 1e-4 : 0.05;
    const result = await runOne(spec(problem, "constant", { alpha }));
    expect(result.loss).toBeLessThan(result.begin * 1.5);
    expect(result).toMatchObject({ steps: 4, cost: 1 });
    const { deterministic } = PROBLEMS[problem];
    expect(result.heldLoss === null).toBe(deterministic);
  });

  it.each(Object.keys(METHODS))("%s trains with the optimizers that it names", async (method) => {
    const optimizers = METHODS[method]?.optimizers ?? (["momentum"] as const);
    for (const optimizer of optimizers) {
      const result = await runOne(spec("logistic", method, { optimizer, alpha: 0.01, steps: 6 }));
      expect(result.loss, optimizer).toBeGreaterThan(0);
      expect(result.cost).toBeGreaterThanOrEqual(1);
    }
  });

  it("are the same for the same spec, and others for another seed", async () => {
    const one = await runOne(spec("mnistCnnDropout", "next"));
    const { seconds: _, ...same } = await runOne(spec("mnistCnnDropout", "next"));
    expect(one).toMatchObject(same);
    expect((await runOne(spec("mnistCnnDropout", "next", { seed: 2 }))).loss).not.toBe(one.loss);
  });

  it("that diverge are results too", async () => {
    const result = await runOne(spec("rosenbrock", "constant", { alpha: 1, steps: 40 }));
    expect(result.loss).toBeNull();
  });
});

describe("the parts", () => {
  it("every problem belongs to one half, and the halves share no seed", () => {
    const { choosing, reporting } = HALVES;
    expect([...choosing.problems, ...reporting.problems].sort()).toEqual(Object.keys(PROBLEMS).sort());
    expect(choosing.seeds.filter((seed) => (reporting.seeds as readonly number[]).includes(seed))).toEqual([]);
  });

  const group = {
    problem: "logistic",
    optimizer: "sgd",
    steps: 10,
    batch: 64,
    seeds: [1, 2],
    half: "reporting",
  } as const;
  /** Runs whose loss is a valley in log α, with its bottom at `bottom`; diverged above `edge`. */
  const valley = (bottom: number, edge = Number.POSITIVE_INFINITY) => {
    const tried = new Set<number>();
    const run = async ({ alpha }: RunSpec): Promise<RunResult> => {
      tried.add(alpha ?? Number.NaN);
      const loss = (alpha ?? 0) > edge ? null : 1 + Math.log10((alpha ?? 1) / bottom) ** 2;
      return { loss } as RunResult;
    };
    return { run, tried };
  };

  it("the grid widens until its best lies inside, and is refined once around it", async () => {
    for (const bottom of [1e-4, 0.03, 0.4, 30]) {
      const { run, tried } = valley(bottom);
      const tuned = await tune(run, { ...group, sources: TINY } as Group, "constant");
      expect(Math.abs(Math.log10((tuned.best.alpha ?? 0) / bottom))).toBeLessThanOrEqual(0.126);
      expect(tuned.points.length).toBe(tried.size);
      expect(tuned.gridSteps).toBe(10 * tried.size);
      expect([tuned.points[0], tuned.points.at(-1)]).not.toContain(tuned.best);
    }
    const { run } = valley(1e-2, 1e-3); // diverges below its bottom: the best is the largest that does not
    const tuned = await tune(run, { ...group, sources: TINY } as Group, "constant");
    expect(tuned.best.alpha).toBeCloseTo(1e-3, 8);
  });

  it("a row has the mean, the worst, the share near the constant, and the spread over α₀", () => {
    const place = { problem: "logistic", optimizer: "sgd", horizon: 10, batch: 64, half: "reporting" } as const;
    const cell = (ratio: number | null, alpha0: number, held: number): Cell => ({
      ...{ ...place, rule: "next", kind: "rule", alpha0, seeds: 1, loss: ratio, ratio_constant: ratio },
      ...{ ratio_cosine: ratio, held_out: held, held_out_measure: "accuracy", cost: 1 },
    });
    const tuned = { ...place, alpha: 0.1, loss: 1, held_out: 0.9, grid_steps: 70 };
    const baselines: Baseline[] = [{ ...tuned, method: "constant" }];
    const [row] = rowsOf([cell(0.5, 1e-6, 0.91), cell(2, 1, 0.93)], baselines);
    expect(row).toMatchObject({
      rule: "next",
      optimizer: "sgd",
      cells: 2,
      constant: 1,
      worst: 2,
      near: 0.5,
      spread: 4,
    });
    expect(row?.points).toBeCloseTo(2, 10);
    const [lost] = rowsOf([cell(null, 1, 0.1)], baselines);
    expect(lost?.worst).toBe(100);
  });

  it("every optimizer of the table can be made", () => {
    for (const { make } of Object.values(OPTIMIZERS)) expect(make().learningRate).toBeGreaterThan(0);
  });
});
