/**
 * Installs what the benchmarks compare with: PyTorch, JAX and optax into `.venv` here, TensorFlow.js and jax-js into `javascript`
 * here. Git ignores both, and the package depends on none. `--python PATH` names the interpreter to make the environment with.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { OWN_PYTHON } from "./peer";

/** JAX's current version wants one of these. */
const PYTHONS = ["python3.13", "python3.12", "python3.14", "python3"];
/** PyTorch without CUDA, a tenth of the size; the ordinary one where this cannot be reached. */
const CPU_WHEELS = "https://download.pytorch.org/whl/cpu";

const requirements = join(__dirname, "requirements.txt");

function run(command: string, args: readonly string[], cwd?: string): boolean {
  console.log([command, ...args].join(" "));
  return spawnSync(command, args, { cwd, stdio: "inherit", shell: process.platform === "win32" }).status === 0;
}

function recentEnough(python: string): boolean {
  const check = "import sys; sys.exit(sys.version_info < (3, 12))";
  return spawnSync(python, ["-c", check], { stdio: "ignore" }).status === 0;
}

function installPython(given: string | undefined): boolean {
  const python = given ?? PYTHONS.find(recentEnough);
  if (python === undefined) {
    console.error("no Python of at least 3.12 was found; name one with --python PATH");
    return false;
  }
  if (!existsSync(OWN_PYTHON) && !run(python, ["-m", "venv", join(__dirname, ".venv")])) return false;
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", requirements];
  // An index that cannot be reached is passed over with a warning.
  const cpuOnly = process.platform === "darwin" ? [] : ["--extra-index-url", CPU_WHEELS, "--retries", "1"];
  return run(OWN_PYTHON, [...pip, ...cpuOnly]);
}

const { values } = parseArgs({ options: { python: { type: "string" } } });
const installed = {
  python: installPython(values.python),
  javascript: run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund"], join(__dirname, "javascript")),
};
console.log(JSON.stringify(installed));
if (!(installed.python && installed.javascript)) process.exitCode = 1;
