/**
 * The package as a stranger has it: packed, unpacked into an empty project beside its platform's binary, and used from
 * CommonJS, ESM and TypeScript (ts-node, and tsc with module NodeNext), and by its command.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROOT } from "./devices/apart";

/** What of a checkout goes into the package, or makes it. */
const PARTS = "bin docs native scripts src CHANGELOG.md LICENSE-APACHE LICENSE-MIT README.md package.json".split(" ");
const MINUTES = { timeout: 5 * 60_000 };
/** npm is a .cmd file on Windows, which only a shell starts. */
const shell = process.platform === "win32";

let folder = "";
let project = "";
let files: string[] = [];

interface Outcome {
  readonly code: unknown;
  readonly out: string;
  readonly err: string;
}

function run(command: string, args: readonly string[], cwd = project): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, shell: command === "npm" && shell, maxBuffer: 1 << 24 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : error.code, out, err });
    });
  });
}
const node = (...args: string[]) => run(process.execPath, args);
const tool = (path: string) => join(ROOT, "node_modules", path);

async function succeeded(outcome: Promise<Outcome>): Promise<string> {
  const { code, out, err } = await outcome;
  expect(code, `${err}\n${out}`.slice(0, 2000)).toBe(0);
  return out;
}

/** Packs a copy of the checkout: the checkout's own `dist` is other tests' affair. */
async function pack(): Promise<string> {
  const checkout = join(folder, "checkout");
  await mkdir(checkout);
  const configs = (await readdir(ROOT)).filter((name) => name.startsWith("tsconfig"));
  for (const name of [...PARTS, ...configs]) await cp(join(ROOT, name), join(checkout, name), { recursive: true });
  await symlink(join(ROOT, "node_modules"), join(checkout, "node_modules"), "junction");
  const args = ["pack", "--json", "--loglevel=error", "--pack-destination", folder];
  const out = await succeeded(run("npm", args, checkout));
  const [packed] = JSON.parse(out.slice(out.indexOf("[")));
  files = packed.files.map(({ path }: { path: string }) => path);
  return join(folder, packed.filename);
}

/** The platform's own package, as the release makes it: the binary and a package.json. */
async function addPlatform(modules: string): Promise<void> {
  const names = await readdir(join(ROOT, "native"));
  const binary = names.find((name) => name.endsWith(".node")) ?? "";
  const name = binary.replace(/\.node$/, "").replace(".", "-");
  await mkdir(join(modules, name));
  await copyFile(join(ROOT, "native", binary), join(modules, name, binary));
  await writeFile(join(modules, name, "package.json"), JSON.stringify({ name, version: "0.1.0", main: binary }));
}

/** Copies dependencies and those of them, as an installation would lay them out. */
async function addDependencies(modules: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (existsSync(join(modules, name))) continue;
    await cp(tool(name), join(modules, name), { recursive: true });
    const { dependencies = {} } = JSON.parse(await readFile(join(tool(name), "package.json"), "utf8"));
    await addDependencies(modules, Object.keys(dependencies));
  }
}

/** Trains a small model. `types`: what TypeScript wants to be told. */
const script = (imported: string, types: boolean) => `
${imported}
const x = Float32Array.from({ length: 64 }, (_, i) => i / 64);
const points = data.arrays({ x: { data: x, shape: [64, 1] }, y: { data: x.map((v) => 2 * v - 1), shape: [64, 1] } });
async function main()${types ? ": Promise<void>" : ""} {
  const model = nn.linear(1, 1);
  const run${types ? ": Run" : ""} = await train({
    model,
    loss: ({ x, y }, model) => model(x).sub(y).square().mean(),
    optimizer: newton(optim.adamW()),
    data: points.batches(16, { shuffle: true }),
    epochs: 40,
    log: "runs/small",
    checkpoint: "runs/small.safetensors",
  });
  const loss${types ? ": Float64Array" : ""} = run.history.loss;
  console.log(JSON.stringify([run.steps, run.loss < 0.1 * (loss[0] ?? 0), Object.keys(model.parameters())]));
}
main();
`;
const NAMES = "data, newton, nn, optim, train";
const PRINTED = [160, true, ["weight", "bias"]];
const lastLine = (out: string) => JSON.parse(out.trim().split("\n").at(-1) ?? "");

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "raphson-package-"));
  project = join(folder, "project");
  const modules = join(project, "node_modules");
  await mkdir(join(modules, "raphson"), { recursive: true });
  await succeeded(run("tar", ["-xzf", await pack(), "--strip-components=1", "-C", join(modules, "raphson")]));
  await addPlatform(modules);
  const { dependencies } = JSON.parse(await readFile(join(modules, "raphson/package.json"), "utf8"));
  await addDependencies(modules, [...Object.keys(dependencies), "@types/node"]);
  await writeFile(join(project, "package.json"), JSON.stringify({ name: "stranger", version: "1.0.0" }));
  const compilerOptions = { module: "nodenext", target: "es2023", strict: true, exactOptionalPropertyTypes: true };
  const config = {
    compilerOptions: { ...compilerOptions, types: ["node"], outDir: "built" },
    include: ["*.ts", "*.mts"],
  };
  await writeFile(join(project, "tsconfig.json"), JSON.stringify(config));
  await writeFile(join(project, "common.cjs"), script(`const { ${NAMES} } = require("raphson");`, false));
  await writeFile(join(project, "module.mjs"), script(`import { ${NAMES} } from "raphson";`, false));
  await writeFile(join(project, "typed.ts"), script(`import { ${NAMES}, type Run } from "raphson";`, true));
  await writeFile(join(project, "typed-module.mts"), script(`import { ${NAMES}, type Run } from "raphson";`, true));
}, MINUTES.timeout);
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("the package", () => {
  it("has what it needs, and nothing of a machine's own", async () => {
    const wanted = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "package.json", "bin/raphson.cjs"];
    wanted.push(
      "native/index.cjs",
      "native/index.d.cts",
      "dist/index.js",
      "dist/index.d.ts",
      "dist/cli/main.js",
      "src/index.ts",
    );
    wanted.push("dist/report/echarts.common.min.js", "dist/report/echarts.LICENSE.txt");
    for (const name of wanted) expect(files).toContain(name);
    expect(files.filter((name) => /\.node$|\.test\.|^__test__|^examples|^crates/.test(name))).toEqual([]);
    const { dependencies, engines, scripts } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
    expect(Object.keys(dependencies)).toEqual(["cli-progress"]);
    expect(engines.node).toMatch(/^>=20/);
    expect(scripts.install ?? scripts.postinstall, "nothing runs at installation").toBeUndefined();
  });

  it("has source maps that lead to its sources", async () => {
    for (const name of files.filter((file) => file.endsWith(".map"))) {
      const path = join(project, "node_modules/raphson", name);
      const { sources } = JSON.parse(await readFile(path, "utf8"));
      for (const source of sources) expect(existsSync(join(dirname(path), source)), `${name}: ${source}`).toBe(true);
    }
  });

  it("has an export for everything, and no doors beside it", async () => {
    const require = createRequire(join(project, "common.cjs"));
    expect(require("raphson/package.json").name).toBe("raphson");
    expect(() => require("raphson/dist/native.js")).toThrow(/not defined by "exports"/);
    const code =
      "const c = require('raphson'); import('raphson').then((m) => console.log(Object.keys(c).filter((n) => !(n in m))))";
    expect((await succeeded(node("-e", code))).trim(), "names that ESM does not see").toBe("[]");
  });

  it.each(["common.cjs", "module.mjs"])("trains from %s", MINUTES, async (name) => {
    expect(lastLine(await succeeded(node(name)))).toEqual(PRINTED);
    expect((await readdir(join(project, "runs/small"))).sort()).toContain("report.html");
  });

  it("trains from TypeScript: ts-node, and tsc with module NodeNext", MINUTES, async () => {
    expect(lastLine(await succeeded(node(tool("ts-node/dist/bin.js"), "--transpile-only", "typed.ts")))).toEqual(
      PRINTED,
    );
    await succeeded(node(tool("typescript/bin/tsc"), "-p", "."));
    for (const name of ["typed.js", "typed-module.mjs"]) {
      expect(lastLine(await succeeded(node(`built/${name}`)))).toEqual(PRINTED);
    }
  });

  it("has a command", MINUTES, async () => {
    const { bin } = JSON.parse(await readFile(join(project, "node_modules/raphson/package.json"), "utf8"));
    const command = join(project, "node_modules/raphson", bin.raphson);
    const report = JSON.parse(await succeeded(node(command, "doctor", "--device", "cpu", "--json")));
    expect(report).toMatchObject({ chosen: "cpu", tests: [{ spec: "cpu", ok: true }] });
    expect((await node(command, "nonsense")).code).toBe(2);
  });

  it("says what is missing where the platform's binary is", async () => {
    const hidden = join(project, "node_modules");
    const name = (await readdir(hidden)).find((entry) => entry.startsWith("raphson-")) ?? "";
    await cp(join(hidden, name), join(folder, "kept"), { recursive: true });
    await rm(join(hidden, name), { recursive: true });
    const code = "const { ones } = require('raphson'); try { ones([1]) } catch (e) { console.log(e.code, e.message) }";
    const out = await succeeded(node("-e", code));
    await cp(join(folder, "kept"), join(hidden, name), { recursive: true });
    expect(out).toMatch(/^ADDON .*could not be loaded.*reinstall raphson with optional dependencies/);
  });
});
