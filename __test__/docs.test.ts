/**
 * Runs every ```ts example that imports from "raphson", each as a module of its own: those in the documentation comments
 * of `src/`, in the README and in `docs/`. They run in a folder that holds a small pair of IDX files.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const ROOT = join(__dirname, "..");

interface Example {
  readonly title: string;
  readonly code: string;
}

function examplesIn(path: string): Example[] {
  const text = readFileSync(path, "utf8");
  const found: Example[] = [];
  for (const match of text.matchAll(/```ts\r?\n([\s\S]*?)```/g)) {
    const inComment = path.endsWith(".ts");
    const code = inComment ? (match[1] ?? "").replaceAll(/^ *\* ?/gm, "") : (match[1] ?? "");
    const line = text.slice(0, match.index).split("\n").length;
    if (/from "raphson"/.test(code)) found.push({ title: `${relative(ROOT, path)}:${line}`, code });
  }
  return found;
}

/** 28×28 images of noise with labels 0 … 9, in the format of MNIST. */
function writeDigits(into: string, count: number): void {
  const header = (...words: number[]) => Buffer.from(Uint32Array.from(words).buffer).swap32();
  const pixels = Buffer.from(Uint8Array.from({ length: count * 784 }, (_, index) => (index * 7919) % 256));
  const labels = Buffer.from(Uint8Array.from({ length: count }, (_, index) => index % 10));
  const write = (name: string, ...parts: Buffer[]) => writeFileSync(join(into, name), gzipSync(Buffer.concat(parts)));
  write("t10k-images-idx3-ubyte.gz", header(0x803, count, 28, 28), pixels);
  write("t10k-labels-idx1-ubyte.gz", header(0x801, count), labels);
}

const folder = mkdtempSync(join(__dirname, "docs-"));
const before = process.cwd();
beforeAll(() => {
  writeDigits(folder, 100);
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

const under = (name: string, ending: string) =>
  readdirSync(join(ROOT, name), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending))
    .map((file) => join(ROOT, name, file))
    .sort();
const examples = [...under("src", ".ts"), ...under("docs", ".md"), join(ROOT, "README.md")].flatMap(examplesIn);

describe("examples in the documentation", () => {
  it("exist", () => {
    expect(examples.length).toBeGreaterThan(10);
  });

  for (const [index, { title, code }] of examples.entries()) {
    it(title, async () => {
      const path = join(folder, `example${index}.ts`);
      writeFileSync(path, code);
      const log = console.log;
      const printed: unknown[][] = [];
      console.log = (...values: unknown[]) => printed.push(values);
      try {
        await import(path);
      } finally {
        console.log = log;
      }
      expect(printed.length, "an example shows something").toBeGreaterThan(0);
    });
  }
});
