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
/** PyTorch without CUDA: a tenth of the size. Where it cannot be reached, the ordinary one is installed. */
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
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
  if (process.platform !== "darwin") {
    const cpuOnly = [
      "--retries",
      "0",
      "--index-url",
      CPU_WHEELS,
      "--requirement",
      requirements,
      "--only-binary",
      ":all:",
    ];
    if (run(OWN_PYTHON, [...pip, ...cpuOnly, "--extra-index-url", "https://pypi.org/simple"])) return true;
    console.log("no CPU build of PyTorch to be had from there; taking the ordinary one");
  }
  return run(OWN_PYTHON, [...pip, "--requirement", requirements]);
}

const { values } = parseArgs({ options: { python: { type: "string" } } });
const installed = {
  python: installPython(values.python),
  javascript: run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund"], join(__dirname, "javascript")),
};
console.log(JSON.stringify(installed));
if (!(installed.python && installed.javascript)) process.exitCode = 1;
