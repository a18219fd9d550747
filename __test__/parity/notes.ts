/** What the parity suite notes of its accuracy, for the table at the end of `npm test` (`scripts/accuracy.mjs`). */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { FloatName } from "./format";

/** The greatest error of an entry's cases, values and derivatives alike. */
export interface Measured {
  readonly name: string;
  readonly cases: number;
  readonly error: number;
}

/** Writes notes to the folder of `RAPHSON_COVERAGE`, if it is set. */
export function noteAccuracy(device: string, dtype: FloatName, entries: readonly Measured[]): void {
  const folder = process.env.RAPHSON_COVERAGE;
  if (folder === undefined) return;
  const lines = entries.map(({ name, cases, error }) =>
    ["PyTorch in f64", device, dtype, name, cases, error === Number.POSITIVE_INFINITY ? "inf" : error].join("\t"),
  );
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `parity-${device}-${dtype}.errors`), `${lines.join("\n")}\n`);
}
