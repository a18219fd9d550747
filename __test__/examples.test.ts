/** The examples and the benchmark, run as users run them, with tiny settings. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const ROOT = join(__dirname, "..");
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-examples-"));
});
afterAll(() => rm(folder, { recursive: true }));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function run(script: string, ...options: readonly string[]): Promise<Outcome> {
  const program = ["-r", "ts-node/register/transpile-only", join(ROOT, script), ...options];
  return new Promise((resolve) => {
    execFile(process.execPath, program, { cwd: ROOT }, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? 1 : 0, out, err });
    });
  });
}

function lastJson({ code, out, err }: Outcome): Record<string, unknown> {
  expect(code, err).toBe(0);
  return JSON.parse(out.trim().split("\n").at(-1) ?? "");
}

describe("digits", () => {
  it("learns its own digits and draws a picture", async () => {
    const picture = join(folder, "digits.svg");
    const outcome = await run("examples/digits.ts", "--size", "400", "--epochs", "3", "--json", "--out", picture);
    const result = lastJson(outcome);
    expect(result).toMatchObject({ rule: "next", optimizer: "adamw", steps: 21, epochs: 3, batch: 64, seed: 0 });
    expect(result.accuracy).toBeGreaterThan(0.3);
    expect(outcome.out).toContain(picture);
    expect(await readFile(picture, "utf8")).toMatch(/^<svg/);
    expect(outcome.err).toMatch(/step 21\/21: loss/);
  });

  it("reads a folder of IDX files", async () => {
    const bytes = (shape: number[], value: (index: number) => number) => {
      const header = Buffer.from([0, 0, 8, shape.length, ...shape.flatMap((size) => [0, 0, size >> 8, size & 255])]);
      const size = shape.reduce((a, b) => a * b);
      return gzipSync(Buffer.concat([header, Uint8Array.from({ length: size }, (_, index) => value(index))]));
    };
    await writeFile(
      join(folder, "t10k-images-idx3-ubyte.gz"),
      bytes([100, 28, 28], (i) => i % 251),
    );
    await writeFile(
      join(folder, "t10k-labels-idx1-ubyte.gz"),
      bytes([100], (i) => i % 10),
    );
    const outcome = await run(
      "examples/digits.ts",
      ...["--data", folder, "--epochs", "1", "--rule", "retsinas", "--alpha", "0.001", "--optimizer", "sgd"],
      ...["--out", join(folder, "idx.svg"), "--json"],
    );
    expect(outcome.out).toContain("80 digits to learn from, 20 held out");
    expect(lastJson(outcome)).toMatchObject({ rule: "retsinas", optimizer: "sgd", steps: 2 });
  });

  it("refuses unknown options and values, with the usage", async () => {
    const mistakes = ["--lr 1", "--rule guess", "--epochs 0", "--alpha -1", "--device gpu", "--device cuda:99"];
    const outcomes = mistakes.map((wrong) => run("examples/digits.ts", ...wrong.split(" ")));
    for (const other of ["cnn", "gpt"]) outcomes.push(run(`examples/${other}.ts`, "--device", "cuda:99"));
    for (const { code, err } of await Promise.all(outcomes)) {
      expect(code).toBe(2);
      expect(err).toContain("Usage:");
    }
  });
});

describe("the others", () => {
  it("shakespeare learns and writes", async () => {
    const outcome = await run("examples/shakespeare.ts", "--steps", "60", "--hidden", "32", "--length", "40", "--json");
    const { heldLoss } = lastJson(outcome);
    expect(heldLoss).toBeLessThan(3.6);
    expect(outcome.out).toMatch(/held-out loss \d/);
  });

  it("cnn learns its own digits, on the device that is asked for", async () => {
    const tiny = "--size 160 --epochs 3 --batch 20 --device cpu --json".split(" ");
    const outcome = await run("examples/cnn.ts", ...tiny);
    const result = lastJson(outcome);
    expect(result).toMatchObject({ device: "cpu", steps: 24, epochs: 3, batch: 20, optimizer: "adamw", rule: "next" });
    expect(result.loss).toBeLessThan(2.3); // guessing evenly
    expect(result.accuracy).toBeGreaterThan(0.2);
    expect(outcome.out).toMatch(/^device {5}cpu, /);
  });

  it("gpt learns the sentences that it makes up", async () => {
    const small =
      "--device cpu --steps 30 --layers 2 --heads 2 --width 32 --context 16 --samples 1 --length 20 --json".split(" ");
    const outcome = await run("examples/gpt.ts", ...small);
    const { heldLoss, steps, device } = lastJson(outcome);
    expect({ steps, device }).toEqual({ steps: 30, device: "cpu" });
    expect(heldLoss).toBeLessThan(3.2); // guessing evenly: 3.37
  });

  it("rosenbrock compares rules and draws their paths", async () => {
    const picture = join(folder, "rosenbrock.svg");
    const result = lastJson(
      await run("examples/rosenbrock.ts", "--steps", "30", "--rules", "exact,hermite", "--json", "--out", picture),
    );
    expect(Object.keys(result)).toEqual(["exact", "hermite"]);
    expect(existsSync(picture)).toBe(true);
  });

  it("the benchmark of overheads names every rule", async () => {
    const result = lastJson(await run("bench/overhead.ts", "--json", "--rounds", "1", "--steps", "1"));
    const names =
      "constant next nextPlain exact retsinas alt1 alt2 hermite alt2GradientFree constant_ms workloads".split(" ");
    expect(Object.keys(result)).toEqual(names);
    expect(result.constant).toBe(1);
  });
});

describe("tokens", () => {
  it("learns the tokens of a tokenizer and writes words", async () => {
    const result = lastJson(await run("examples/tokens.ts", "--steps", "30", "--batch", "16", "--json"));
    expect(result).toMatchObject({ steps: 30 });
    expect(result.vocabulary).toBeGreaterThan(100);
    expect(result.heldLoss).toBeLessThan(Math.log(result.vocabulary as number) + 0.5);
    expect(String(result.text).split(" ").length).toBeGreaterThan(5);
  });
});
