// What the suites wrote of their accuracy (`*.errors` in the folder of RAPHSON_COVERAGE), summed up for each source of truth,
// device and dtype, and held against the bounds. The suites themselves measure; nothing is computed here.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The largest relative error allowed: for halves two units of storage, 2⁻¹⁰ and 2⁻⁷; whole numbers and truth values are exact. */
const BOUNDS = { f64: 1e-10, f32: 1e-5, f16: 2 ** -9, bf16: 2 ** -6, i32: 0, i64: 0, u32: 0, u8: 0, bool: 0 };
const DTYPES = Object.keys(BOUNDS);
const FLOATS = ["f64", "f32", "f16", "bf16"];
const DEVICES = ["cpu", "wgpu", "cuda"];
/** Against what the suites compare: those of Rust, and the parity suite of TypeScript. */
const SOURCES = ["the f64 reference", "PyTorch in f64"];
/** Cases that are no op: graphs drawn at random. */
const NO_OP = /^random/;

/** The lines of all files: `{ source, device, dtype, op, cases, error }`. */
export function accuracyIn(folder) {
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".errors")) : [];
  return files.flatMap((name) =>
    readFileSync(join(folder, name), "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [source, device, dtype, op, cases, error] = line.split("\t");
        return { source, device, dtype, op, cases: Number(cases), error: error === "inf" ? Infinity : Number(error) };
      }),
  );
}

/** The table of all that was noted, and what is wrong with it, in sentences. */
export function judged(notes) {
  const rows = [];
  const wrong = [];
  for (const source of SOURCES) {
    for (const device of DEVICES) {
      for (const dtype of DTYPES) {
        const those = notes.filter((n) => n.source === source && n.device === device && n.dtype === dtype);
        if (those.length === 0) {
          if (device === "cpu" && FLOATS.includes(dtype)) wrong.push(`nothing in ${dtype} was compared with ${source}`);
          continue;
        }
        const worst = those.reduce((a, b) => (b.error > a.error ? b : a));
        const bound = BOUNDS[dtype];
        // not `>`: what is no number is wrong too
        if (!(worst.error <= bound)) {
          wrong.push(`${worst.op} in ${dtype} on ${device} is ${worst.error} from ${source}; ${bound} is allowed`);
        }
        const ops = new Set(those.map((n) => n.op).filter((op) => !NO_OP.test(op))).size;
        const cases = those.reduce((sum, n) => sum + n.cases, 0);
        const largest = worst.error === 0 ? "exact" : `${worst.error.toExponential(1)} (${worst.op})`;
        rows.push([source, device, dtype, String(ops), String(cases), bound.toExponential(1), largest]);
      }
    }
  }
  const head = ["compared with", "device", "dtype", "ops", "cases", "allowed", "largest relative error"];
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at].length)));
  const line = (row) =>
    row
      .map((cell, at) => (at === 3 || at === 4 ? cell.padStart(widths[at]) : cell.padEnd(widths[at])))
      .join("  ")
      .trimEnd();
  return { text: [`accuracy of ops on each device`, ...[head, ...rows].map(line)].join("\n"), wrong };
}
