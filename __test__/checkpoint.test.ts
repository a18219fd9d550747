/**
 * Checkpoints: a run that stops and goes on is the run that never stopped, bit for bit; files that do not fit are refused,
 * by name, and change nothing.
 */
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  data,
  defineAlphaRule,
  defineOptimizer,
  earlyStopping,
  io,
  loss,
  metrics,
  type NewtonOptimizer,
  newton,
  nn,
  type Optimizer,
  ones,
  optim,
  type Run,
  schedule,
  type Tensor,
  train,
  trainingStep,
  zeros,
} from "raphson";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { child, ROOT } from "./devices/apart";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-checkpoint-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Two classes in the plane, divided by a line that bends. */
function points(size: number) {
  const x = Float32Array.from({ length: 2 * size }, (_, i) => Math.sin(12.9898 * (i + 1)));
  const y = Int32Array.from({ length: size }, (_, i) => Number((x[2 * i] ?? 0) > (x[2 * i + 1] ?? 0) ** 2));
  return data.arrays({ points: { data: x, shape: [size, 2] }, labels: y });
}

type Batch = { readonly points: Tensor; readonly labels: Tensor<"i32"> };
/** With draws (dropout) and states (running statistics), so that both must go on where they stood. */
const makeModel = (width = 8) =>
  nn.sequential(nn.linear(2, width), nn.batchNorm1d(width), nn.tanh(), nn.dropout(0.2), nn.linear(width, 2));
type Model = ReturnType<typeof makeModel>;

/** 10 batches an epoch. */
const set = points(100);
function setting(optimizer: Optimizer | NewtonOptimizer, model: Model = makeModel()) {
  return {
    model,
    loss: ({ points, labels }: Batch, net: Model) => loss.crossEntropy(net(points), labels),
    optimizer,
    data: set.batches(10, { shuffle: true, seed: 4 }),
    evaluate: { data: set.batches(50), metrics: { accuracy: metrics.accuracy } },
    seed: 2,
  };
}

/** Everything that must be the same, bit for bit. */
async function outcome(run: Run, model: Model) {
  const { history, evaluations, steps, epochs } = run;
  const values = { ...model.parameters(), ...model.states() };
  const tensors = await Promise.all(
    Object.entries(values).map(async ([name, value]) => [name, [...(await value.data())]]),
  );
  return { history, evaluations, steps, epochs, tensors };
}

/** A momentum of one's own, whose state is a tree. */
const own = defineOptimizer({
  name: "own",
  learningRate: 0.05,
  init: (params: readonly Tensor[]) => ({ seen: zeros([]), m: params.map((p) => zeros(p.shape)) }),
  direction: ({ gradients, state }) => {
    const m = state.m.map((old, i) => old.mul(0.9).add(gradients[i] as Tensor));
    return { omega: m, state: { seen: state.seen.add(1), m } };
  },
});
/** A rule of one's own with a state. */
const drifting = () =>
  defineAlphaRule({
    name: "drifting",
    needs: [],
    init: () => ({ age: zeros([], { dtype: "f64" }) }),
    next: ({ alpha, loss0 }, { age }) => ({ alpha: alpha.add(loss0.mul(1e-4)), state: { age: age.add(1) } }),
  });

const CASES: readonly (readonly [string, () => Optimizer | NewtonOptimizer])[] = [
  ["sgd, next", () => newton(optim.sgd())],
  ["momentum, next", () => newton(optim.momentum(), { telemetry: ["loss1", "curvature"] })],
  ["adamW, next", () => newton(optim.adamW())],
  ["muon, next", () => newton(optim.muon())],
  ["adafactor, next, with a schedule", () => newton(optim.adafactor(), { schedule: schedule.cosine({ steps: 50 }) })],
  ["sgd, exact", () => newton(optim.sgd(), { rule: "exact" })],
  ["adamW, exact, every third step", () => newton(optim.adamW(), { rule: "exact", every: 3 })],
  ["one's own optimizer and rule", () => newton(own, { rule: drifting(), initial: 0.01 })],
  ["adam, constant", () => optim.adam({ learningRate: 1e-3 })],
  ["one's own optimizer alone", () => own],
];

const STOP = new Error("stop");

/** The options of a run that is aborted before its batch number `batches`. */
function stopped(rest: ReturnType<typeof setting>, batches: number, path: string) {
  const controller = new AbortController();
  let taken = 0;
  const counted = rest.data.map((batch) => {
    taken += 1;
    if (taken > batches) controller.abort(STOP);
    return batch;
  });
  return { ...rest, data: counted, signal: controller.signal, checkpoint: path };
}

describe("a run that goes on", () => {
  it.each(CASES)("is the one that never stopped: %s", async (_, optimizer) => {
    const whole = setting(optimizer());
    const expected = await outcome(await train({ ...whole, epochs: 3 }), whole.model);
    // During the probes of `next`, in the middle of an epoch, at an epoch's end; and again and again.
    for (const stops of [[2], [13], [20], [1, 4, 17]]) {
      const path = join(folder, "run.safetensors");
      await rm(path, { force: true });
      let before = 0;
      for (const stop of stops) {
        const options = { ...stopped(setting(optimizer()), stop - before, path), resume: true, epochs: 3 };
        await expect(train(options)).rejects.toBe(STOP);
        before = stop;
      }
      const rest = setting(optimizer());
      const run = await train({ ...rest, epochs: 3, resume: path });
      expect(await outcome(run, rest.model), `stopped after ${stops}`).toEqual(expected);
    }
  });

  it("is so in the middle of a step of several batches, with clipping", async () => {
    const options = { clip: { norm: 0.5 }, accumulate: 3, epochs: 3 } as const;
    const whole = setting(newton(optim.adamW()));
    const expected = await outcome(await train({ ...whole, ...options }), whole.model);
    expect(expected.steps).toBe(10);
    const path = join(folder, "accumulated.safetensors");
    for (const batches of [11, 14, 15]) {
      const part = stopped(setting(newton(optim.adamW())), batches, path);
      await expect(train({ ...part, ...options })).rejects.toBe(STOP);
      const rest = setting(newton(optim.adamW()));
      expect(await outcome(await train({ ...rest, ...options, resume: path }), rest.model)).toEqual(expected);
    }
  });

  it("is so in half precision, with its loss scale", async () => {
    const options = { precision: "f16", epochs: 3 } as const;
    const whole = setting(newton(optim.adamW()));
    const expected = await outcome(await train({ ...whole, ...options }), whole.model);
    const path = join(folder, "half.safetensors");
    const part = stopped(setting(newton(optim.adamW())), 13, path);
    await expect(train({ ...part, ...options })).rejects.toBe(STOP);
    const rest = setting(newton(optim.adamW()));
    expect(await outcome(await train({ ...rest, ...options, resume: path }), rest.model)).toEqual(expected);
    const other = train({ ...setting(newton(optim.adamW())), epochs: 3, resume: path });
    await expect(other).rejects.toThrow(/its precision is "f16", and here it is "f32"/);
  });

  it("goes further than the first one was to, from wherever that ended", async () => {
    const whole = setting(newton(optim.adamW(), { totalSteps: 25 }));
    const { history } = await train({ ...whole, steps: 25 });
    const path = join(folder, "further.safetensors");
    await train({ ...setting(newton(optim.adamW(), { totalSteps: 25 })), steps: 12, checkpoint: path });
    const run = await train({ ...setting(newton(optim.adamW(), { totalSteps: 25 })), steps: 25, resume: path });
    expect(run.history).toEqual(history);
    expect(run.evaluations.map(({ step }) => step)).toEqual([10, 12, 20, 25]);
    const again = await train({ ...setting(newton(optim.adamW(), { totalSteps: 25 })), steps: 12, resume: path });
    expect([again.steps, again.history.loss.length], "a run that is over").toEqual([12, 12]);
  });

  it("keeps what freeze held, and early stopping's patience", async () => {
    const callbacks = [
      {
        onEpoch: (epoch: number, control: { freeze(): void; unfreeze(): void }) => {
          if (epoch === 2) control.freeze();
          if (epoch === 4) control.unfreeze();
        },
      },
      earlyStopping({ patience: 2, least: 0.5 }),
    ];
    const options = { epochs: 9, callbacks: callbacks.slice(0, 1) };
    const whole = setting(newton(optim.adamW()));
    const expected = await outcome(await train({ ...whole, ...options }), whole.model);
    const { alpha, slope } = expected.history;
    expect(new Set(alpha.slice(20, 40)).size, "held").toBe(1);
    expect(slope.slice(20, 40).every(Number.isNaN), "nothing is measured").toBe(true);
    expect(alpha[40], "begins where it was held").toBe(alpha[39]);
    expect(new Set(alpha.slice(40)).size, "moves again").toBeGreaterThan(20);
    const path = join(folder, "frozen.safetensors");
    for (const batches of [25, 40, 43]) {
      const part = stopped(setting(newton(optim.adamW())), batches, path);
      await expect(train({ ...part, ...options })).rejects.toBe(STOP);
      const rest = setting(newton(optim.adamW()));
      expect(await outcome(await train({ ...rest, ...options, resume: path }), rest.model)).toEqual(expected);
    }
    const impatient = { epochs: 9, callbacks: callbacks.slice(1) };
    const early = await train({ ...setting(newton(optim.adamW())), ...impatient });
    expect(early.epochs).toBe(3);
    await train({ ...setting(newton(optim.adamW())), epochs: 2, checkpoint: path });
    const resumed = await train({ ...setting(newton(optim.adamW())), ...impatient, resume: path });
    expect(resumed.epochs, "evaluations before the checkpoint count").toBe(3);
  });

  it("continues a log where the checkpoint was made", async () => {
    const [path, log] = [join(folder, "logged.safetensors"), join(folder, "log")];
    const lines = async () =>
      (await readFile(join(log, "steps.jsonl"), "utf8"))
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
    await train({ ...setting(newton(optim.adamW())), steps: 12, checkpoint: path, log });
    await writeFile(
      join(log, "steps.jsonl"),
      `${await readFile(join(log, "steps.jsonl"), "utf8")}{"kind":"step","step":12}\n{"kind":"st`,
    );
    await train({ ...setting(newton(optim.adamW())), steps: 15, resume: path, log });
    const entries = await lines();
    const steps = entries.filter(({ kind }) => kind === "step").map(({ step }) => step);
    expect(steps).toEqual([...Array(15).keys()]);
    expect(entries.filter(({ kind }) => kind === "evaluation").map(({ step }) => step)).toEqual([10, 12, 15]);
    expect(entries.filter(({ kind }) => kind === "run").map(({ firstStep }) => firstStep)).toEqual([0, 12]);
    expect(entries.every(({ kind, loss }) => kind === "run" || typeof loss === "number")).toBe(true);
  });

  it("begins anew where resume is true and there is no checkpoint yet", async () => {
    const path = join(folder, "new", "fresh.safetensors");
    const run = await train({ ...setting(newton(optim.sgd())), steps: 3, checkpoint: path, resume: true });
    expect(run.steps).toBe(3);
    expect(await readdir(join(folder, "new")), "nothing temporary is left").toEqual(["fresh.safetensors"]);
  });
});

describe("a checkpoint that does not fit", () => {
  let path = "";
  beforeAll(async () => {
    path = join(folder, "fits.safetensors");
    await train({ ...setting(newton(optim.adamW())), steps: 13, checkpoint: path });
  });
  const refused = async (options: Partial<Parameters<typeof train<Model, Batch>>[0]>, from = path) => {
    const all = { ...setting(newton(optim.adamW())), steps: 20, resume: from, ...options };
    const error = await train(all).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ name: "RaphsonError", code: "FILE", message: expect.stringContaining(from) });
    return error as Error & { shapes: unknown; dtypes: unknown };
  };

  it("names what is different: shapes, names, optimizer, rule, accumulation, data", async () => {
    const wide = await refused({ model: makeModel(16) });
    expect(wide.message).toMatch(/"model\.0\.weight" is \[8, 2\] there and \[16, 2\] here/);
    expect(wide.shapes).toEqual([
      [8, 2],
      [16, 2],
    ]);
    const other = nn.sequential(nn.linear(2, 8), nn.tanh(), nn.linear(8, 2)) as unknown as Model;
    expect((await refused({ model: other })).message).toMatch(/missing: model\.2\.weight.*not known here: model\.1\./);
    expect((await refused({ optimizer: newton(optim.sgd()) })).message).toMatch(
      /its optimizer is "adamw", and here it is "sgd"/,
    );
    expect((await refused({ optimizer: newton(optim.adamW(), { rule: "exact" }) })).message).toMatch(
      /its rule is "next".*"exact"/,
    );
    expect((await refused({ accumulate: 2 })).message).toMatch(/its accumulate is 1/);
    const data = set.batches(20);
    expect((await refused({ data })).message).toMatch(/after batch 3 of 10 in epoch 2, and the data have 5 now/);
  });

  it("is refused where it is missing, damaged, or something else", async () => {
    await refused({}, join(folder, "absent.safetensors"));
    const bytes = await readFile(path);
    const broken = join(folder, "broken.safetensors");
    for (const damaged of [bytes.subarray(0, bytes.length - 10), bytes.subarray(0, 5), Buffer.from("no such thing")]) {
      await writeFile(broken, damaged);
      await refused({}, broken);
    }
    const weights = join(folder, "weights.safetensors");
    await makeModel().save(weights);
    expect((await refused({}, weights)).message).toMatch(/no checkpoint of a training; .*model\.load/);
    const text = bytes.toString("latin1").replace('\\"counter\\":13', '\\"counter\\":-1');
    await writeFile(broken, Buffer.from(text, "latin1"));
    expect((await refused({}, broken)).message).toMatch(/"counter" is -1/);
  });

  it("changes nothing where it is refused", async () => {
    const make = (width: number) =>
      trainingStep({
        model: makeModel(width).initialize(1),
        loss: ({ points }: { points: Tensor }, net: Model) => net(points).square().mean(),
        optimizer: newton(optim.adamW()),
      });
    const batch = { points: ones([4, 2]) };
    const [one, other] = [make(8), make(16)];
    await one.step(batch);
    await other.step(batch);
    const saved = join(folder, "step.safetensors");
    await one.save(saved, { metadata: { note: "mine" }, arrays: { row: Float64Array.of(1, Number.NaN, -0) } });
    await expect(other.load(saved)).rejects.toMatchObject({ code: "FILE", op: "resume" });
    const again = make(16);
    await again.step(batch);
    expect((await other.step(batch)).loss).toBe((await again.step(batch)).loss);
    const extras = await make(8).load(saved);
    expect(extras).toEqual({ metadata: { note: "mine" }, arrays: { row: Float64Array.of(1, Number.NaN, -0) } });
    await expect(train({ ...setting(newton(optim.adamW())), steps: 9, resume: saved })).rejects.toThrow(/step\.load/);
    await expect(one.save(join(folder, "absent", "x"))).rejects.toMatchObject({ code: "FILE" });
  });

  it("is still good for its model's weights", async () => {
    const [model, found] = [makeModel(), await io.load(path)];
    await model.load(path);
    for (const [name, value] of Object.entries({ ...model.parameters(), ...model.states() })) {
      expect(value.toArray(), name).toEqual(found.tensors[`model.${name}`]?.toArray());
    }
    await expect(makeModel(16).load(path)).rejects.toMatchObject({
      code: "SHAPE",
      shapes: [
        [8, 2],
        [16, 2],
      ],
    });
  });

  it("takes options that make sense only", async () => {
    const rest = { ...setting(newton(optim.sgd())), steps: 2 };
    await expect(train({ ...rest, resume: true })).rejects.toThrow(/give checkpoint/);
    await expect(train({ ...rest, checkpoint: "" })).rejects.toThrow(/must be a path/);
    await expect(train({ ...rest, checkpoint: { path, every: 0 } })).rejects.toThrow(/every/);
    expect(() => earlyStopping({ patience: 0 })).toThrow(/patience/);
    const blind = { ...rest, callbacks: [earlyStopping({ metric: "f1" })] };
    await expect(train(blind)).rejects.toThrow(/no metric f1 is measured; there are loss, accuracy/);
  });
});

describe.skipIf(process.platform === "win32")("a process that ends", () => {
  /** Starts a long run apart, and sends it a signal once `checkpoint` is there. */
  async function ended(path: string, signal: "SIGINT" | "SIGKILL") {
    const script = join(ROOT, "__test__/devices/child.ts");
    const program = ["-r", "ts-node/register/transpile-only", script, "long", path];
    const process_ = spawn(process.execPath, program, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    let err = "";
    process_.stderr.on("data", (text) => {
      err += text;
    });
    const found = new Promise<{ code: number | null; by: string | null }>((resolve) => {
      process_.on("exit", (code, by) => resolve({ code, by }));
    });
    process_.stdout.on("data", (text) => String(text).includes("saved") && process_.kill(signal));
    return { ...(await found), err };
  }

  it("by Ctrl-C or by force leaves a checkpoint to go on from", { timeout: 5 * 60_000 }, async () => {
    const [interrupted, killed] = [join(folder, "interrupted.safetensors"), join(folder, "killed.safetensors")];
    const outcomes = await Promise.all([ended(interrupted, "SIGINT"), ended(killed, "SIGKILL")]);
    expect(outcomes[0]).toMatchObject({
      by: "SIGINT",
      err: expect.stringMatching(/stopped by Ctrl-C after \d+ steps/),
    });
    expect(outcomes[1].by).toBe("SIGKILL");
    const went = await child<{ same: boolean[] }>(["goOn", interrupted, killed]);
    expect(went.same).toEqual([true, true]);
  });
});
