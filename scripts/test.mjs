// `npm test`: every test of Rust and TypeScript, and then how close the ops came on each device, in one table. It fails where a
// test fails, where an error is above its bound, and where a float dtype was not compared at all on the CPU.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { accuracyIn, judged } from "./accuracy.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const own = process.env.RAPHSON_COVERAGE === undefined ? mkdtempSync(join(tmpdir(), "raphson-accuracy-")) : undefined;
const folder = process.env.RAPHSON_COVERAGE ?? own;

function run(command, args) {
  const env = { ...process.env, RAPHSON_COVERAGE: folder };
  // on Windows npx is a .cmd file, which only a shell starts
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    env,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  if (error) console.error(`${command} could not be started: ${error.message}`);
  return status === 0;
}

try {
  const passed =
    run("cargo", ["test", "--workspace", "--exclude", "raphson-node"]) && run("npx", ["--no-install", "vitest", "run"]);
  const { text, wrong } = judged(accuracyIn(folder));
  console.log(`\n${text}`);
  for (const sentence of wrong) console.error(sentence);
  process.exitCode = passed && wrong.length === 0 ? 0 : 1;
} finally {
  if (own !== undefined) rmSync(own, { recursive: true, force: true });
}
