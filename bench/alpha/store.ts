/**
 * Results on disk, one JSON object a line, appended as runs end: what was measured once need not be measured again,
 * also after an interruption. A result counts only for the code that it was measured with.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { METHODS } from "./methods";
import { hasDigits, textFile } from "./problems/examples";
import type { RunResult, RunSpec } from "./run";

const ROOT = join(__dirname, "..", "..");
/** What every run depends on, and what the package's own rules depend on besides. */
const BENCHMARK = ["problems", "comparators", "run.ts", "trainer.ts", "optimizers.ts"].map((name) =>
  join(__dirname, name),
);
const PACKAGE = [join(ROOT, "native"), join(ROOT, "src", "newton"), join(ROOT, "src", "optim")];

function filesIn(path: string): string[] {
  if (!existsSync(path)) return [];
  if (/\.[a-z]+$/.test(path)) return [path];
  const names = readdirSync(path).sort();
  return names.flatMap((name) => (/\.(node|ts)$/.test(name) ? [join(path, name)] : []));
}

function hashOf(paths: readonly string[]): string {
  const hash = createHash("sha256");
  for (const file of paths.flatMap(filesIn)) hash.update(readFileSync(file));
  return hash.digest("hex").slice(0, 12);
}

/** What the store keeps of a run. */
interface Line {
  readonly key: string;
  readonly build: string;
  readonly result: RunResult;
}

/** A run's name: its spec, with the kind of data instead of the folder. */
export function keyOf({ sources, ...spec }: RunSpec): string {
  const data = [hasDigits(sources.folder) ? "mnist" : "drawn", textFile(sources.folder) ? "shakespeare" : "sonnets"];
  return JSON.stringify({ ...spec, size: sources.size, data: data.join("+") });
}

/** The results of runs, by key. */
export class Store {
  readonly #path: string;
  readonly #known = new Map<string, RunResult>();
  readonly #builds: { readonly benchmark: string; readonly withPackage: string };

  /** Reads what there is. `anyBuild`: also results of other code. */
  constructor(path: string, anyBuild: boolean) {
    this.#path = path;
    const benchmark = hashOf(BENCHMARK);
    this.#builds = { benchmark, withPackage: `${benchmark}-${hashOf(PACKAGE)}` };
    mkdirSync(dirname(path), { recursive: true });
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    for (const line of text.split("\n")) {
      const read = parsed(line);
      if (read !== undefined && (anyBuild || read.build === this.#buildOf(read.key)))
        this.#known.set(read.key, read.result);
    }
    // the last line of an interrupted run may be cut short: what follows begins a line of its own
    if (text !== "" && !text.endsWith("\n")) appendFileSync(path, "\n");
  }

  get size(): number {
    return this.#known.size;
  }

  get(spec: RunSpec): RunResult | undefined {
    return this.#known.get(keyOf(spec));
  }

  add(spec: RunSpec, result: RunResult): void {
    const key = keyOf(spec);
    this.#known.set(key, result);
    const line: Line = { key, build: this.#buildOf(key), result };
    appendFileSync(this.#path, `${JSON.stringify(line)}\n`);
  }

  #buildOf(key: string): string {
    const { method } = JSON.parse(key) as { readonly method: string };
    return METHODS[method]?.kind === "rule" ? this.#builds.withPackage : this.#builds.benchmark;
  }
}

/** A line of the store; undefined where it is empty or was cut short. */
function parsed(line: string): Line | undefined {
  if (line === "") return undefined;
  try {
    return JSON.parse(line) as Line;
  } catch {
    return undefined; // measured again
  }
}
