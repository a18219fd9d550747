/**
 * What learning-rate rules are worth: problems × optimizers × rules × α₀ × seeds, each compared with the best constant
 * α and the best warm-up with cosine of a grid, and with prior methods. Every run is kept on disk, so that an
 * interrupted benchmark goes on where it was.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { runExample } from "../../examples/arguments";
import { readArguments, USAGE } from "./arguments";
import { type GroupResult, measureGroup } from "./cells";
import { type Group, groupsOf } from "./plan";
import { OutOfTime, Pool, type Standing } from "./pool";
import { Store } from "./store";
import { summaryOf } from "./summary";

/** Seconds between two lines of progress where there is no terminal. */
const LINE_SECONDS = 10;

function clock(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min` : `${(whole / 3600).toFixed(1)} h`;
}

/**
 * Writes how far the benchmark is to standard error: over the last line on a terminal, in lines of their own elsewhere.
 */
function progress(groups: number, workers: number, started: () => number) {
  const begin = performance.now();
  let shown = 0;
  return ({ done, known, waiting, seconds, last }: Standing): void => {
    const now = performance.now();
    const terminal = process.stderr.isTTY === true;
    if (!terminal && now - shown < 1000 * LINE_SECONDS && waiting > 0) return;
    shown = now;
    const left = clock((waiting * seconds) / workers);
    const line =
      `${clock((now - begin) / 1000)}: ${done} runs done, ${known} known before, ${waiting} waiting (${left}); ` +
      `group ${started()} of ${groups}; ${last}`;
    process.stderr.write(terminal ? `\r\u001b[K${line.slice(0, process.stderr.columns - 1)}` : `${line}\n`);
  };
}

async function main(): Promise<void> {
  const options = readArguments(process.argv.slice(2));
  if (options === undefined) return console.log(USAGE);
  const { plan, workers } = options;
  const groups = groupsOf(plan);
  const store = new Store(options.store, options.anyBuild);
  let started = 0;
  const show = progress(groups.length, workers, () => started);
  const pool = new Pool(store, workers, options.minutes, show);
  console.error(`${groups.length} groups of runs, ${workers} at a time; ${store.size} runs known (${options.store})`);

  const failures: string[] = [];
  let unfinished = 0;
  const measure = async (group: Group): Promise<GroupResult | undefined> => {
    try {
      return await measureGroup((spec) => pool.run(spec), plan, group);
    } catch (error) {
      if (error instanceof OutOfTime) unfinished += 1;
      else failures.push(error instanceof Error ? error.message : String(error));
      return undefined;
    }
  };
  const results: Promise<GroupResult | undefined>[] = [];
  for (const group of groups) {
    await pool.hungry(); // one group after another, so that an interruption leaves whole ones
    started += 1;
    results.push(measure(group));
  }
  const found = (await Promise.all(results)).filter((result) => result !== undefined);
  await pool.close();
  if (process.stderr.isTTY === true) process.stderr.write("\n");

  const cells = found.flatMap((group) => group.cells);
  const baselines = found.flatMap((group) => group.baselines);
  console.log(summaryOf(cells, baselines));
  mkdirSync(dirname(options.out), { recursive: true });
  writeFileSync(options.out, JSON.stringify({ cells, baselines, traces: found.flatMap((group) => group.traces) }));
  console.log(`\n${cells.length} cells in ${options.out}`);
  for (const failure of failures) console.error(`FAILED: ${failure}`);
  if (unfinished > 0) {
    console.error(`${unfinished} of ${groups.length} groups are not through; the same command goes on from here`);
    process.exitCode = 3;
  }
  if (failures.length > 0) process.exitCode = 1;
  if (options.json) console.log(JSON.stringify({ cells, baselines }));
}

runExample(main, USAGE);
