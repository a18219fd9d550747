/**
 * Parity with PyTorch: every entry of the parity files in every float dtype on the CPU, one case of each on wgpu in f32, and
 * FEATURES.md beside them. The greatest errors are noted for the table at the end of `npm test`, and printed.
 */

import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { wgpu } from "../devices/adapter";
import { script } from "../devices/apart";
import { errorsOf, FEATURES_PATH, SOURCES } from "./features";
import { ALLOWED, FLOATS, readParity } from "./format";
import { type Measured, noteAccuracy } from "./notes";

const measured = new Map(FLOATS.map((dtype) => [dtype, [] as Measured[]]));
afterAll(() => {
  const lines = [...measured].map(([dtype, entries]) => {
    noteAccuracy("cpu", dtype, entries);
    const worst = entries.reduce((a, b) => (b.error > a.error ? b : a), { name: "", cases: 0, error: 0 });
    const cases = entries.reduce((sum, entry) => sum + entry.cases, 0);
    const greatest = `${worst.error.toExponential(1)} of ${ALLOWED[dtype].toExponential(1)} (${worst.name})`;
    return `${dtype} ${entries.length} entries, ${cases} cases, ${greatest}`;
  });
  console.log(`greatest relative errors on the cpu: ${lines.join("; ")}`);
});

for (const { file, runners } of SOURCES) {
  const { entries, unit, source } = readParity(file);
  describe(`${file} against ${source}`, () => {
    it("computes every entry, and no others", () => {
      expect(Object.keys(runners).sort()).toEqual(entries.map((entry) => entry.name).sort());
    });
    for (const entry of entries) {
      for (const dtype of FLOATS) {
        it(`${entry.name}, ${dtype}`, () => {
          const run = runners[entry.name];
          if (run === undefined) throw new Error("nothing computes this entry");
          const { value, gradient, second } = errorsOf(entry, run, unit, dtype);
          const worst = Math.max(value, gradient ?? 0, second ?? 0);
          measured.get(dtype)?.push({ name: entry.name, cases: entry.cases.length, error: worst });
          expect(value, "value").toBeLessThanOrEqual(ALLOWED[dtype]);
          expect(gradient ?? 0, "first derivatives").toBeLessThanOrEqual(ALLOWED[dtype]);
          expect(second ?? 0, "second derivatives").toBeLessThanOrEqual(ALLOWED[dtype]);
        });
      }
    }
  });
}

const MINUTES = { timeout: 10 * 60_000 };
it.skipIf(!wgpu.there)(`one case of each entry on wgpu, f32 (${wgpu.title})`, MINUTES, async () => {
  const { result } = await script<Measured[]>("parity/onDevice.ts", ["wgpu", "f32"]);
  noteAccuracy("wgpu", "f32", result);
  expect(result).toHaveLength(SOURCES.flatMap(({ file }) => readParity(file).entries).length);
  expect(result.filter(({ error }) => !(error <= ALLOWED.f32))).toEqual([]);
});

it("FEATURES.md lists exactly what the parity files hold", () => {
  const rows = readFileSync(FEATURES_PATH, "utf8").matchAll(/^\| (\w+) \| (\d+) \|/gm);
  const listed = [...rows].map(([, name, cases]) => `${name} ${cases}`);
  const held = SOURCES.flatMap(({ file }) =>
    readParity(file).entries.map((entry) => `${entry.name} ${entry.cases.length}`),
  );
  expect(listed.sort(), "run npm run features").toEqual(held.sort());
});
