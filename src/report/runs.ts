/** Runs as they are drawn: rows of numbers read from the `steps.jsonl` that `train` writes. */
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { createInterface } from "node:readline";

/** The file of a run's folder that everything is read from. */
export const LOG_FILE = "steps.jsonl";

/** The numbers of a step that are drawn. */
export const STEP_FIELDS = ["loss", "alpha", "slope", "nextSlope", "curvature", "nextLoss", "stepMs"] as const;
type StepField = (typeof STEP_FIELDS)[number];

/** A row of points: steps, and a number at each; null where there is none. */
export interface Row {
  readonly steps: readonly number[];
  readonly values: readonly (number | null)[];
}

/** A run, ready to draw. */
export interface RunData {
  readonly name: string;
  /** What it says about itself: optimizer, rule, device, settings. */
  readonly about: Readonly<Record<string, unknown>>;
  readonly rows: Readonly<Record<string, Row>>;
  /** Loss and metrics of the evaluations. */
  readonly evaluations: Readonly<Record<string, Row>>;
  /** Steps that were taken back. */
  readonly rejected: readonly number[];
  readonly lastStep: number;
}

type Entry = Readonly<Record<string, unknown>>;

/** Numbers as the log has them; what JSON has no word for is text there, and nothing to draw. */
const numberOf = (value: unknown): number | null => (typeof value === "number" ? value : null);

/** Milliseconds of each step: the mean since the step drawn before. */
function stepTimes(entries: readonly Entry[]): (number | null)[] {
  return entries.map((entry, index) => {
    const [now, before] = [entry, entries[index - 1]];
    const [seconds, earlier] = [numberOf(now.seconds), numberOf(before?.seconds)];
    const steps = Number(now.step) - Number(before?.step);
    return seconds === null || earlier === null || !(steps > 0) ? null : (1000 * (seconds - earlier)) / steps;
  });
}

function rowsOf(drawn: readonly Entry[]): Record<string, Row> {
  const steps = drawn.map(({ step }) => Number(step));
  const measured = [...new Set(drawn.flatMap(({ measured }) => Object.keys(measured ?? {})))];
  const values = (field: StepField) => drawn.map((entry) => numberOf(entry[field]));
  const rows = STEP_FIELDS.map((field): [string, Row] => [
    field,
    { steps, values: field === "stepMs" ? stepTimes(drawn) : values(field) },
  ]);
  const more = measured.map((name): [string, Row] => {
    const of = (entry: Entry) => numberOf((entry.measured as Entry | undefined)?.[name]);
    return [`measured ${name}`, { steps, values: drawn.map(of) }];
  });
  return Object.fromEntries([...rows, ...more].filter(([, row]) => row.values.some((value) => value !== null)));
}

function evaluationsOf(entries: readonly Entry[]): Record<string, Row> {
  const steps = entries.map(({ step }) => Number(step));
  const numbers = entries.map((entry): Entry => ({ loss: entry.loss, ...(entry.metrics as Entry | undefined) }));
  const names = [...new Set(numbers.flatMap((entry) => Object.keys(entry)))];
  return Object.fromEntries(
    names.map((name) => [name, { steps, values: numbers.map((entry) => numberOf(entry[name])) }]),
  );
}

/** Points that are drawn of a row are at most twice as many, and the last step. */
const POINTS = 2000;

/** Takes in a log line by line; of a long run every second, fourth, … step is kept. */
class Reading {
  #about: Entry = {};
  #steps: Entry[] = [];
  readonly #evaluations: Entry[] = [];
  readonly #rejected: number[] = [];
  #last: Entry | undefined;
  #stride = 1;
  #count = 0;

  line(text: string): void {
    let entry: Entry;
    try {
      entry = JSON.parse(text);
    } catch {
      return; // empty, or a line that is being written: it is whole the next time
    }
    if (entry.kind === "step") this.#step(entry);
    else if (entry.kind === "evaluation") this.#evaluations.push(entry);
    else if (entry.kind === "run") this.#about = entry;
  }

  #step(entry: Entry): void {
    this.#last = entry;
    if (entry.accepted === false) this.#rejected.push(Number(entry.step));
    if (this.#count++ % this.#stride !== 0) return;
    this.#steps.push(entry);
    if (this.#steps.length < 2 * POINTS) return;
    this.#steps = this.#steps.filter((_, index) => index % 2 === 0);
    this.#stride *= 2;
  }

  run(name: string): RunData {
    const { kind: _, ...about } = this.#about;
    const last = this.#last;
    const steps = last === undefined || this.#steps.at(-1) === last ? this.#steps : [...this.#steps, last];
    return {
      name,
      about,
      rows: rowsOf(steps),
      evaluations: evaluationsOf(this.#evaluations),
      rejected: this.#rejected,
      lastStep: Number(last?.step ?? -1) + 1,
    };
  }
}

/** The run in a folder. */
export async function readRun(folder: string, name = basename(folder)): Promise<RunData> {
  const reading = new Reading();
  const lines = createInterface({ input: createReadStream(join(folder, LOG_FILE), "utf8") });
  for await (const line of lines) reading.line(line);
  return reading.run(name);
}

/** Reads the runs below a folder over and over; those that have not changed are not read again. */
export class RunReader {
  readonly #root: string;
  readonly #known = new Map<string, { readonly stamp: string; readonly run: RunData }>();

  constructor(root: string) {
    this.#root = root;
  }

  /** The runs as they are now, by name. */
  async read(): Promise<RunData[]> {
    const names = await readdir(this.#root, { recursive: true, encoding: "utf8" });
    const folders = names.filter((name) => basename(name) === LOG_FILE).map((name) => join(this.#root, name, ".."));
    const runs = await Promise.all(folders.map((folder) => this.#readOne(folder)));
    return runs.sort((one, other) => one.name.localeCompare(other.name));
  }

  async #readOne(folder: string): Promise<RunData> {
    const { mtimeMs, size } = await stat(join(folder, LOG_FILE));
    const stamp = `${mtimeMs} ${size}`;
    const known = this.#known.get(folder);
    if (known?.stamp === stamp) return known.run;
    const run = await readRun(folder, relative(this.#root, folder) || basename(this.#root));
    this.#known.set(folder, { stamp, run });
    return run;
  }
}
