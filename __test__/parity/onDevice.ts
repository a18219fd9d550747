/**
 * The parity files on another device, in a process of its own, for a thread has one device: `onDevice.ts SPEC DTYPE` prints the
 * errors of the first case of every entry as one line of JSON after a mark. Not of all cases: where kernels are compiled for
 * seconds they would take minutes, and each op has its own cases on every device in Rust.
 */
import { setDevice } from "../../src";
import type { DeviceSpec } from "../../src/device";
import { MARK } from "../devices/apart";
import { errorsOf, SOURCES } from "./features";
import { type FloatName, readParity } from "./format";
import type { Measured } from "./notes";

const [spec = "", dtype = ""] = process.argv.slice(2);
setDevice(spec as DeviceSpec);
const found = SOURCES.flatMap(({ file, runners }): Measured[] => {
  const { entries, unit } = readParity(file);
  return entries.map((entry) => {
    const run = runners[entry.name];
    if (run === undefined) throw new Error(`${file}.json has ${entry.name}, which nothing computes`);
    const cases = entry.cases.slice(0, 1);
    const { value, gradient = 0, second = 0 } = errorsOf({ ...entry, cases }, run, unit, dtype as FloatName);
    // JSON has no infinity
    const error = Math.min(Number.MAX_VALUE, Math.max(value, gradient, second));
    return { name: entry.name, cases: cases.length, error };
  });
});
console.log(MARK + JSON.stringify(found));
