/**
 * Runs every ```ts example in the documentation comments of `src/` that imports from "raphson", each as a module of its own.
 */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const SOURCE = join(__dirname, "..", "src");

interface Example {
  readonly title: string;
  readonly code: string;
}

function examplesIn(path: string): Example[] {
  const text = readFileSync(path, "utf8");
  const found: Example[] = [];
  for (const match of text.matchAll(/```ts\r?\n([\s\S]*?)```/g)) {
    const code = (match[1] ?? "").replaceAll(/^ *\* ?/gm, "");
    const line = text.slice(0, match.index).split("\n").length;
    if (/from "raphson"/.test(code)) found.push({ title: `${relative(SOURCE, path)}:${line}`, code });
  }
  return found;
}

const folder = mkdtempSync(join(__dirname, "docs-"));
afterAll(() => rmSync(folder, { recursive: true }));

const files = readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .sort();
const examples = files.flatMap((name) => examplesIn(join(SOURCE, name)));

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
