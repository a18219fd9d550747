/** `train`: from hopeless learning rates to a solution, metrics, evaluation, stopping, logs, reproducibility. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { data, loss, metrics, newton, nn, optim, RaphsonError, type Tensor, train } from "raphson";
import { describe, expect, it, vi } from "vitest";

/** Three noisy clusters in the plane. */
function clusters(size: number) {
  let state = 7;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const points = new Float32Array(2 * size);
  const labels = new Int32Array(size);
  for (let index = 0; index < size; index++) {
    const label = Math.floor(3 * uniform());
    labels[index] = label;
    points[2 * index] = Math.cos(2.1 * label) + 0.5 * (uniform() - 0.5);
    points[2 * index + 1] = Math.sin(2.1 * label) + 0.5 * (uniform() - 0.5);
  }
  return data.arrays({ points: { data: points, shape: [size, 2] }, labels });
}

type Points = { readonly points: Tensor; readonly labels: Tensor<"i32"> };
const makeModel = () => nn.sequential(nn.linear(2, 16), nn.tanh(), nn.linear(16, 3));

/** Everything but what a test is about. */
function setting(size = 240) {
  const [fit, held] = clusters(size).split(0.75, { seed: 1 });
  return {
    model: makeModel(),
    loss: ({ points, labels }: Points, model: ReturnType<typeof makeModel>) => loss.crossEntropy(model(points), labels),
    data: fit.batches(20, { shuffle: true, seed: 2 }),
    held: held.batches(25),
    seed: 3,
  };
}

describe("train", () => {
  it.each([
    ["sgd", 1e-6],
    ["sgd", 10],
    ["momentum", 1e-6],
    ["momentum", 10],
    ["adamW", 1e-6],
    ["adamW", 10],
  ] as const)("learns with %s from α₀ = %f", async (name, initial) => {
    const { held, ...rest } = setting();
    const run = await train({
      ...rest,
      optimizer: newton(optim[name](), { initial }),
      evaluate: { data: held, metrics: { accuracy: metrics.accuracy } },
      epochs: 20,
    });
    expect(run.steps).toBe(180);
    expect(run.evaluations.length).toBe(20);
    expect(run.evaluations.at(-1)?.metrics.accuracy).toBeGreaterThan(0.97);
    expect(run.loss).toBeLessThan(0.2);
  });

  it("keeps a history and says in words what happened", async () => {
    const { held, ...rest } = setting();
    const run = await train({ ...rest, optimizer: newton(optim.adam()), evaluate: { data: held }, steps: 12 });
    expect([run.steps, run.epochs]).toEqual([12, 2]);
    const { measured, ...rows } = run.history;
    for (const row of Object.values(rows)) expect(row).toHaveLength(12);
    expect(measured).toEqual({});
    expect(run.history.loss.every(Number.isFinite)).toBe(true);
    const summary = run.summary();
    for (const part of ["12 in", "adam", '"next"', "loss", "held out"]) expect(summary).toContain(part);
  });

  it("is the same, bit for bit, for the same seeds", async () => {
    const once = async (seed: number) => {
      const { held, ...rest } = setting();
      const run = await train({ ...rest, seed, optimizer: newton(optim.adamW()), evaluate: { data: held }, steps: 25 });
      return [...run.history.loss, ...run.history.alpha, run.evaluations.at(-1)?.loss];
    };
    const first = await once(3);
    expect(await once(3)).toEqual(first);
    expect(await once(4)).not.toEqual(first);
  });

  it("weights an evaluation by the examples of each batch", async () => {
    const { held: _, ...rest } = setting();
    const one = clusters(50);
    const measure = async (size: number) => {
      const options = { ...rest, model: makeModel(), optimizer: optim.sgd({ learningRate: 1e-12 }), steps: 1 };
      return (await train({ ...options, evaluate: { data: one.batches(size) } })).evaluations[0]?.loss ?? Number.NaN;
    };
    expect(await measure(50)).toBeCloseTo(await measure(30), 5);
  });

  it("stops on an AbortSignal, with its reason, also when aborted beforehand", async () => {
    const { held: _, ...rest } = setting();
    const reason = new Error("enough");
    let steps = 0;
    const early = train({
      ...rest,
      optimizer: newton(optim.sgd()),
      epochs: 1,
      signal: AbortSignal.abort(reason),
      onStep: () => steps++,
    });
    await expect(early).rejects.toBe(reason);
    expect(steps).toBe(0);
    const controller = new AbortController();
    const later = train({
      ...rest,
      optimizer: newton(optim.sgd()),
      epochs: 1000,
      signal: controller.signal,
      onStep: ({ step }) => step === 20 && controller.abort(reason),
    });
    await expect(later).rejects.toBe(reason);
  });

  it("stops when a callback says so", async () => {
    const { held: _, ...rest } = setting();
    const run = await train({
      ...rest,
      optimizer: newton(optim.sgd()),
      epochs: 100,
      callbacks: [
        {
          onEpoch: (epoch, { stop }) => {
            if (epoch === 2) stop();
          },
        },
      ],
    });
    expect(run.epochs).toBe(2);
  });

  it("names the step at which a constant learning rate diverged", async () => {
    const { held: _, ...rest } = setting();
    const failure = await train({
      ...rest,
      loss: ({ points }, model) => model(points).square().square().sum(),
      optimizer: optim.sgd({ learningRate: 1e3 }),
      epochs: 50,
    }).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(RaphsonError);
    expect(failure).toMatchObject({
      code: "NON_FINITE",
      message: expect.stringMatching(/step \d+ is (NaN|Infinity|-Infinity)/),
    });
  });

  it("writes a log of JSON lines", async () => {
    const folder = await mkdtemp(join(tmpdir(), "raphson-log-"));
    const { held, ...rest } = setting();
    await train({ ...rest, optimizer: newton(optim.sgd()), evaluate: { data: held }, steps: 5, log: folder });
    const lines = (await readFile(join(folder, "steps.jsonl"), "utf8")).trim().split("\n");
    const entries = lines.map((line): Record<string, unknown> => JSON.parse(line));
    expect(entries.filter(({ kind }) => kind === "step").map(({ step }) => step)).toEqual([0, 1, 2, 3, 4]);
    expect(entries.filter(({ kind }) => kind === "evaluation")).toHaveLength(1);
    await writeFile(join(folder, "file"), "");
    const refused = train({ ...rest, optimizer: newton(optim.sgd()), steps: 5, log: join(folder, "file") });
    await expect(refused).rejects.toThrow(/cannot write the log/);
    await rm(folder, { recursive: true });
  });

  it("shows progress in lines where there is no terminal", async () => {
    const { held, ...rest } = setting();
    const written: string[] = [];
    const spy = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      written.push(String(text));
      return true;
    });
    try {
      await train({ ...rest, optimizer: newton(optim.sgd()), evaluate: { data: held }, epochs: 2, progress: "lines" });
    } finally {
      spy.mockRestore();
    }
    const text = written.join("");
    expect(text).toMatch(/step \d+\/18: loss .*α .*steps\/s/);
    expect(text).toMatch(/epoch 2: held-out loss/);
    expect(text).toMatch(/step 18\/18/);
  });

  it("refuses wrong options and data that run dry", async () => {
    const { held: _, ...rest } = setting();
    const optimizer = newton(optim.sgd());
    await expect(train({ ...rest, optimizer })).rejects.toThrow(/either epochs or steps/);
    await expect(train({ ...rest, optimizer, epochs: 1, steps: 2 })).rejects.toThrow(/either epochs or steps/);
    await expect(train({ ...rest, optimizer, epochs: 0 })).rejects.toThrow(/epochs/);
    await expect(train({ ...rest, optimizer, steps: 1.5 })).rejects.toThrow(/steps/);
    await expect(train({ ...rest, optimizer, steps: 1, data: [] as unknown as typeof rest.data })).rejects.toThrow(
      /batches/,
    );
    const stream = (function* () {
      yield { points: { data: new Float32Array(4), shape: [2, 2] }, labels: new Int32Array(2) };
    })();
    await expect(train({ ...rest, optimizer, steps: 5, data: data.from(stream) })).rejects.toThrow(/read once only/);
  });

  it("leaves the event loop free", async () => {
    const { held, ...rest } = setting(2000);
    // Between two turns of the loop no more happens than a few steps, whatever else the machine does.
    let [sinceTurn, most, turns, going] = [0, 0, 0, true];
    const turn = () => {
      sinceTurn = 0;
      turns += 1;
      if (going) setImmediate(turn);
    };
    setImmediate(turn);
    const onStep = () => {
      sinceTurn += 1;
      most = Math.max(most, sinceTurn);
    };
    const run = await train({ ...rest, optimizer: newton(optim.adam()), evaluate: { data: held }, epochs: 10, onStep });
    going = false;
    expect(run.steps).toBe(750);
    expect(most, "steps between two turns").toBeLessThanOrEqual(20);
    expect(turns, "turns of the loop").toBeGreaterThanOrEqual(run.steps / 20);
  });
});
