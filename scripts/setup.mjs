// Makes a checkout ready to run: packages when they are stale, the addon when Rust sources are newer than it. Says what is
// missing and where to get it; when there is nothing to do, says so in one line.

import { spawnSync } from "node:child_process";
import { existsSync, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const WINDOWS = process.platform === "win32";
const OLDEST_NODE = [20, 19];
/** Crates that are no part of the addon. */
const DEVELOPMENT = ["check", "xtask"];

/** Prints the sentence and ends. */
function stop(sentence) {
  console.error(`raphson setup: ${sentence}`);
  process.exit(1);
}

/** Runs a command with its output shown; ends when it fails. */
function run(command, args) {
  // on Windows npm and npx are .cmd files, which only a shell starts
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit", shell: WINDOWS });
  if (error) stop(`could not start ${command}: ${error.message}`);
  if (status !== 0) stop(`\`${[command, ...args].join(" ")}\` failed; its output is above`);
}

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

/** The latest change of a file below `folder` that counts. */
function newest(folder, counts) {
  let latest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) latest = Math.max(latest, newest(path, counts));
    else if (counts(entry.name)) latest = Math.max(latest, modified(path));
  }
  return latest;
}

function checkNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_NODE;
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
    stop(`Node ${process.versions.node} is too old; install ${OLDEST_NODE.join(".")} or later from https://nodejs.org`);
  }
}

function checkCargo() {
  const { status } = spawnSync("cargo", ["--version"], { stdio: "ignore", shell: WINDOWS });
  if (status !== 0) {
    stop(
      "the addon is built with Rust, and `cargo` was not found; install it from https://rustup.rs and run this again",
    );
  }
}

/** `npm ci` empties node_modules first: through a link it would empty somebody else's. */
function refuseLink(path) {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || !found.isSymbolicLink()) return;
  const target = existsSync(path) ? realpathSync(path) : "a folder that is not there";
  stop(
    `node_modules is a link to ${target}, and its packages are not those of package-lock.json. \`npm ci\` would empty ` +
      "that folder; remove the link and run this again, or bring the packages up to date where it leads",
  );
}

/** Installs the lockfile's packages unless they are there; says whether it did. */
function installPackages() {
  const installed = modified(join(root, "node_modules", ".package-lock.json"));
  if (installed > 0 && installed >= modified(join(root, "package-lock.json"))) return false;
  refuseLink(join(root, "node_modules"));
  console.log("raphson setup: installing packages (npm ci)");
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
  return true;
}

function buildAddon() {
  const native = join(root, "native");
  const binaries = existsSync(native) ? readdirSync(native).filter((name) => name.endsWith(".node")) : [];
  const built = Math.min(
    modified(join(native, "index.cjs")),
    Math.max(0, ...binaries.map((name) => modified(join(native, name)))),
  );
  const isSource = (name) => name.endsWith(".rs") || name === "Cargo.toml";
  const crates = readdirSync(join(root, "crates")).filter((name) => !DEVELOPMENT.includes(name));
  const sources = Math.max(
    ...crates.map((name) => newest(join(root, "crates", name), isSource)),
    modified(join(root, "Cargo.toml")),
    modified(join(root, "Cargo.lock")),
  );
  if (built > sources) return false;
  checkCargo();
  console.log("raphson setup: building the addon (a minute or two the first time)");
  run("npm", ["run", "--silent", "build:native"]);
  return true;
}

checkNode();
const installed = installPackages();
const built = buildAddon();
if (!installed && !built) console.log("raphson setup: nothing to do");
