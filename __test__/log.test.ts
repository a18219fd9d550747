/** What a run leaves to look at: lines, TensorBoard's events, a report, the live page. */
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as echarts from "echarts";
import { data, newton, nn, optim, type Tensor, train } from "raphson";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { page } from "../src/report/page";
import { readRun } from "../src/report/runs";
import { crc32c, record } from "../src/train/tensorboard";
import { ROOT } from "./devices/apart";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-log-"));
});
afterAll(() => rm(folder, { recursive: true }));

type Batch = { readonly x: Tensor; readonly y: Tensor };
function setting() {
  const x = Float32Array.from({ length: 64 }, (_, i) => i / 64);
  const column = (values: Float32Array) => ({ data: values, shape: [64, 1] });
  const points = data.arrays({ x: column(x), y: column(x.map((v) => 2 * v - 1)) });
  return {
    model: nn.linear(1, 1),
    loss: ({ x, y }: Batch, model: nn.Linear) => model(x).sub(y).square().mean(),
    optimizer: newton(optim.sgd(), { telemetry: ["loss1", "curvature"] }),
    data: points.batches(16),
    evaluate: {
      data: points.batches(64),
      metrics: { weight: (_: Batch, model: nn.Linear) => model.weight.value.sum() },
    },
  };
}

/** The records of an event file, check sums verified, with protobuf's fields taken apart. */
function eventsIn(bytes: Buffer) {
  const events: { step: number; scalars: Record<string, number>; version?: string; start: boolean }[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    const body = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.subarray(at, at + 16 + length)).toEqual(record(body));
    at += 16 + length;
    const fields = fieldsOf(body);
    const scalars = fields.flatMap(([field, value]) => (field === 5 ? fieldsOf(value as Buffer) : []));
    const entries = scalars.map(([, value]) => new Map(fieldsOf(value as Buffer)));
    const version = fields.find(([field]) => field === 3)?.[1];
    events.push({
      step: Number(fields.find(([field]) => field === 2)?.[1]),
      scalars: Object.fromEntries(
        entries.map((entry) => [String(entry.get(1)), (entry.get(2) as Buffer).readFloatLE()]),
      ),
      start: fields.some(([field]) => field === 7),
      ...(version && { version: String(version) }),
    });
  }
  return events;
}

function fieldsOf(bytes: Buffer): [field: number, value: number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [field, type] = [tag >> 3, tag & 7];
    if (type === 0) {
      found.push([field, varint()]);
      continue;
    }
    const length = type === 1 ? 8 : type === 5 ? 4 : varint();
    found.push([field, bytes.subarray(at, at + length)]);
    at += length;
  }
  return found;
}

const eventFiles = async (from: string) => (await readdir(from)).filter((name) => name.includes("tfevents")).sort();

describe("TensorBoard's events", () => {
  it("have CRC-32C check sums", () => {
    // RFC 3720, appendix B.4
    expect(crc32c(new Uint8Array(32)).toString(16)).toBe("8a9136aa");
    expect(crc32c(new Uint8Array(32).fill(255)).toString(16)).toBe("62a8ab43");
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)).toString(16)).toBe("46dd794e");
    expect(crc32c(Buffer.from("123456789")).toString(16)).toBe("e3069283");
  });

  it("hold every step and evaluation, and begin anew after a checkpoint", async () => {
    const [log, checkpoint] = [join(folder, "events"), join(folder, "events.safetensors")];
    const run = await train({ ...setting(), epochs: 2, log, checkpoint });
    const [name = ""] = await eventFiles(log);
    const events = eventsIn(await readFile(join(log, name)));
    expect(events[0]).toMatchObject({ version: "brain.Event:2", step: 0 });
    const steps = events.filter(({ scalars }) => "train/loss" in scalars);
    expect(steps.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    const row = (tag: string) => Float32Array.from(steps, ({ scalars }) => scalars[tag] ?? Number.NaN);
    expect(row("train/loss")).toEqual(Float32Array.from(run.history.loss));
    expect(row("train/alpha")).toEqual(Float32Array.from(run.history.alpha));
    expect(row("train/slope")).toEqual(Float32Array.from(run.history.slope));
    expect(row("measured/curvature")).toEqual(Float32Array.from(run.history.measured.curvature ?? []));
    const held = events.filter(({ scalars }) => "held-out/loss" in scalars);
    expect(held.map(({ step }) => step)).toEqual([4, 8]);
    expect(held[1]?.scalars["held-out/weight"]).toBeCloseTo(run.evaluations[1]?.metrics.weight ?? 0, 5);
    await train({ ...setting(), epochs: 3, log, resume: checkpoint });
    const [, second = ""] = await eventFiles(log);
    const later = eventsIn(await readFile(join(log, second)));
    expect(later[1]).toMatchObject({ step: 8, start: true });
    expect(later[2], "an evaluation of that step is told again").toMatchObject({ step: 8, scalars: held[1]?.scalars });
    expect(later.filter(({ scalars }) => "train/loss" in scalars).map(({ step }) => step)).toEqual([8, 9, 10, 11]);
  });
});

describe("steps.jsonl", () => {
  it("begins with what the run is, and keeps all that was measured of each step", async () => {
    const log = join(folder, "lines");
    const run = await train({ ...setting(), steps: 6, log: { folder: log, formats: ["jsonl"] } });
    expect(await readdir(log)).toEqual(["steps.jsonl"]);
    const lines = (await readFile(join(log, "steps.jsonl"), "utf8")).trim().split("\n");
    const [about, ...rest] = lines.map((line) => JSON.parse(line));
    expect(about).toMatchObject({
      kind: "run",
      optimizer: "sgd",
      rule: "next",
      device: expect.any(String),
      firstStep: 0,
    });
    expect(about.newton).toMatchObject({ rule: "next", gamma: expect.any(Number), min: expect.any(Number) });
    const steps = rest.filter(({ kind }) => kind === "step");
    expect(steps.map(({ loss }) => loss)).toEqual([...run.history.loss]);
    expect(steps.map(({ measured }) => measured.loss1)).toEqual([...(run.history.measured.loss1 ?? [])]);
    const fields = "step loss alpha nextAlpha slope nextSlope curvature nextLoss accepted measured seconds".split(" ");
    for (const step of steps) expect(Object.keys(step)).toEqual(["kind", ...fields]);
  });

  it("takes formats that there are only", async () => {
    const refused = (log: unknown) => train({ ...setting(), steps: 1, log: log as string });
    await expect(refused({ folder, formats: ["xml"] })).rejects.toThrow(
      /no log format "xml"; there are jsonl, tensorboard, report/,
    );
    await expect(refused({ folder, formats: ["report"] })).rejects.toThrow(/made from "jsonl"/);
    await expect(refused("")).rejects.toThrow(/folder/);
  });
});

interface Option {
  readonly title: { readonly text: string };
  readonly series: readonly { readonly type: "line"; readonly name: string; readonly data: [number, number][] }[];
}

describe("the report", () => {
  it("is one file with charts, also of a run that failed", async () => {
    const log = join(folder, "a <run>");
    const failed = train({
      ...setting(),
      optimizer: optim.sgd({ learningRate: 1e30 }),
      steps: 50,
      log: { folder: log, formats: ["jsonl", "report"] },
    });
    await expect(failed).rejects.toMatchObject({ code: "NON_FINITE" });
    const html = await readFile(join(log, "report.html"), "utf8");
    expect(html.slice(0, 200)).toContain("<title>a &lt;run></title>");
    const markup = html.replaceAll(/<script>[\s\S]*?<\/script>/g, "<script></script>");
    expect(markup, "nothing is fetched from elsewhere").not.toMatch(/(src|href)=/);
    const runs = JSON.parse(/window\.runs = (.*);<\/script>/.exec(html)?.[1] ?? "");
    expect(runs).toHaveLength(1);
    expect(runs[0].rows.loss.values[0]).toBeGreaterThan(0);
    expect(runs[0].rows.loss.values.at(-1), "NaN is no point").toBeNull();
  });

  it("keeps few points of a long run, and the last one", async () => {
    const line = (step: number) =>
      JSON.stringify({ kind: "step", step, loss: 1 / (step + 1), accepted: step !== 77, seconds: step / 100 });
    await writeFile(
      join(folder, "steps.jsonl"),
      `${Array.from({ length: 30_001 }, (_, i) => line(i)).join("\n")}\n{"kind":"st`,
    );
    const run = await readRun(folder, "long");
    const { steps = [], values = [] } = run.rows.loss ?? {};
    expect(steps.length).toBeLessThan(4002);
    expect([steps[0], steps.at(-1), values.at(-1), run.lastStep]).toEqual([0, 30_000, 1 / 30_001, 30_001]);
    expect(run.rejected).toEqual([77]);
    expect(run.rows.stepMs?.values[1]).toBeCloseTo(10, 6);
    await rm(join(folder, "steps.jsonl"));
  });

  it("draws without an error", async () => {
    // The page's own script, with just enough of a browser for it.
    const html = page("runs", [
      await readRun(join(folder, "lines"), "one"),
      await readRun(join(folder, "lines"), "two"),
    ]);
    const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, code = ""]) => code);
    const options: Option[] = [];
    const drawn: string[] = [];
    const element = () => ({ append: () => undefined, replaceChildren: () => undefined });
    const init = () => {
      const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: 600, height: 300 });
      const setOption = (option: Option, how: object) => {
        options.push(option);
        chart.setOption({ ...option }, how);
        drawn.push(chart.renderToSVGString());
        chart.dispose();
      };
      return { setOption };
    };
    const browser = {
      window: {} as { runs?: unknown },
      document: { createElement: element, getElementById: element },
      echarts: { init },
      addEventListener: () => undefined,
    };
    const run = new Function(...Object.keys(browser), scripts.slice(1).join("\n"));
    run(...Object.values(browser));
    const titles = [
      "loss",
      "learning rate α",
      "evaluations",
      "slope −φ′",
      "curvature φ″",
      "measured",
      "step time (ms)",
    ];
    expect(options.map(({ title }) => title.text)).toEqual(titles);
    const [loss] = options;
    expect(loss?.series.map(({ name }) => name)).toContain("two held-out loss");
    expect(loss?.series[0]?.data).toHaveLength(6);
    for (const svg of drawn) expect(svg.startsWith("<svg") && svg.includes("<path")).toBe(true);
  });
});

describe("raphson watch", () => {
  it("serves the page and the runs as they are now", async () => {
    const args = [join(ROOT, "bin/raphson.cjs"), "watch", folder, "--port", "0"];
    const server = spawn(process.execPath, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise((resolve) => server.once("exit", resolve));
    try {
      const url = await new Promise<string>((resolve) => {
        server.stdout.on("data", (text) => resolve(/http:\/\/\S+/.exec(String(text))?.[0] ?? ""));
      });
      const html = await (await fetch(url)).text();
      expect(html.includes("echarts")).toBe(true);
      const names = async () => {
        const runs = (await (await fetch(`${url}runs.json`)).json()) as { name: string }[];
        return runs.map(({ name }) => name);
      };
      expect(await names()).toEqual(["a <run>", "events", "lines"]);
      await rm(join(folder, "events"), { recursive: true });
      expect(await names()).toEqual(["a <run>", "lines"]);
      expect((await fetch(`${url}../../etc/passwd`)).status).toBe(404);
    } finally {
      server.kill("SIGINT");
    }
    expect(await ended).toBe(0);
  });
});
