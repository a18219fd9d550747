/** Long loops: memory stays flat and handles do not pile up, in compiled steps and in eager work. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const ROOT = join(__dirname, "..");

// In a process of its own: the test runner's memory is not ours to measure.
it("memory is flat over 10,000 compiled steps and 10,000 turns of eager work", { timeout: 120_000 }, async () => {
  const program = ["--expose-gc", "-r", "ts-node/register/transpile-only", join(ROOT, "bench/memory.ts")];
  const { stdout } = await promisify(execFile)(process.execPath, program, { cwd: ROOT });
  const { compiled, eager } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  expect(compiled.mb).toBeLessThan(5);
  expect(compiled.tensors).toBeLessThanOrEqual(8); // reports under way
  expect(eager.mb).toBeLessThan(5);
  expect(eager.tensors).toBe(0);
});
