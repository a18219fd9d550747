/**
 * Parity with PyTorch: every entry of the parity files in f64 and f32, and FEATURES.md beside them.
 */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { errorsOf, FEATURES_PATH, SOURCES } from "./features";
import { ALLOWED, readParity } from "./format";

for (const { file, runners } of SOURCES) {
  const { entries, unit, source } = readParity(file);
  describe(`${file} against ${source}`, () => {
    it("computes every entry, and no others", () => {
      expect(Object.keys(runners).sort()).toEqual(entries.map((entry) => entry.name).sort());
    });
    for (const entry of entries) {
      for (const dtype of ["f64", "f32"] as const) {
        it(`${entry.name}, ${dtype}`, () => {
          const run = runners[entry.name];
          if (run === undefined) throw new Error("nothing computes this entry");
          const { value, gradient, second } = errorsOf(entry, run, unit, dtype);
          expect(value, "value").toBeLessThanOrEqual(ALLOWED[dtype]);
          expect(gradient ?? 0, "first derivatives").toBeLessThanOrEqual(ALLOWED[dtype]);
          expect(second ?? 0, "second derivatives").toBeLessThanOrEqual(ALLOWED[dtype]);
        });
      }
    }
  });
}

it("FEATURES.md lists exactly what the parity files hold", () => {
  const rows = readFileSync(FEATURES_PATH, "utf8").matchAll(/^\| (\w+) \| (\d+) \|/gm);
  const listed = [...rows].map(([, name, cases]) => `${name} ${cases}`);
  const held = SOURCES.flatMap(({ file }) =>
    readParity(file).entries.map((entry) => `${entry.name} ${entry.cases.length}`),
  );
  expect(listed.sort(), "run npm run features").toEqual(held.sort());
});
