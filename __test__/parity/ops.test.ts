/**
 * Parity with PyTorch: every entry of the parity files in every float dtype, and FEATURES.md beside them. The greatest error of
 * each dtype is printed.
 */

import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { errorsOf, FEATURES_PATH, SOURCES } from "./features";
import { ALLOWED, FLOATS, readParity } from "./format";

/** The greatest error by dtype, and whose it is. */
const greatest = new Map(FLOATS.map((dtype) => [dtype, { error: 0, name: "" }]));
afterAll(() => {
  const lines = [...greatest].map(
    ([dtype, { error, name }]) => `${dtype} ${error.toExponential(1)} of ${ALLOWED[dtype].toExponential(1)} (${name})`,
  );
  console.log(`greatest relative errors: ${lines.join(", ")}`);
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
          if (worst > (greatest.get(dtype)?.error ?? 0)) greatest.set(dtype, { error: worst, name: entry.name });
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
