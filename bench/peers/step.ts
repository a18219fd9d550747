/**
 * A whole training step beside that of PyTorch, JAX, TensorFlow.js and jax-js: same models, weights, data and threads, in
 * turns. `npm run bench:step -- --json`; the last line is JSON. A peer counts only if its losses agree with ours at the start and
 * after 20 steps. `npm run bench:peers:install` installs the peers; one that is absent or fails is named with its reason.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleaved, round, type Timing, table } from "./measure";
import { type Options, readOptions, startAll } from "./options";
import { OURS, type Peer, type PeerName } from "./peer";
import { makeWorkload, WORKLOADS, type Workload, type WorkloadName } from "./workloads";

/** Most of ours over the fastest peer's time, and over the faster of TensorFlow.js and jax-js. */
const BARS: Readonly<Record<WorkloadName, number>> = { mlp128: 0.8, mlp32: 0.8, cnn: 0.8, gpt: 0.7, tiny: 0.1 };
const JAVASCRIPT_BAR = 0.05;
const JAVASCRIPT: readonly PeerName[] = ["tfjs_wasm", "jaxjs"];

/** Steps after which losses are compared, and how far they may be apart. */
const CHECKED_STEPS = 20;
const RELATIVE = 1e-3;
const MEMORY_STEPS = 3;

interface Start {
  readonly first: number;
  readonly after: number;
  readonly firstMs: number;
  readonly rssBeforeMb: number | undefined;
  readonly plan: unknown;
}

interface Report {
  readonly name: WorkloadName;
  readonly raphson_ms: number | null;
  readonly peers: Readonly<Record<string, number>>;
  readonly ratio_to_best: number | null;
  readonly most: number;
  readonly ratio_to_javascript: number | null;
  readonly spread: Readonly<Record<string, number>>;
  readonly first_ms: Readonly<Record<string, number>>;
  /** Highest resident memory in a step less that before the model was there. */
  readonly step_mb: Readonly<Record<string, number>>;
  readonly plan: unknown;
  readonly loss: { readonly first: number; readonly after: number } | null;
  readonly failures: Readonly<Record<string, string>>;
}

async function begin(peer: Peer, workload: Workload, patienceS: number): Promise<Start> {
  const loaded = await peer.ask({ do: "load", workload });
  const losses: number[] = [];
  const start = performance.now();
  while (losses.length < CHECKED_STEPS) {
    losses.push(...((await peer.ask({ do: "steps", count: 1 })) as { losses: number[] }).losses);
    const seconds = (performance.now() - start) / 1e3;
    if (seconds > patienceS && losses.length < CHECKED_STEPS) {
      throw new Error(`too slow to wait for (--patience-s): ${losses.length} steps took ${seconds.toFixed(1)} s`);
    }
  }
  const { loss, first_ms, rss_before_mb, plan } = loaded;
  const rssBeforeMb = typeof rss_before_mb === "number" ? rss_before_mb : undefined;
  return { first: Number(loss), after: losses.at(-1) ?? Number.NaN, firstMs: Number(first_ms), rssBeforeMb, plan };
}

/** What is wrong with a peer's losses, if something is. */
function disagreement(start: Start, ours: Start): string | undefined {
  const differs = (a: number, b: number) => !(Math.abs(a - b) <= RELATIVE * Math.abs(b));
  if (differs(start.first, ours.first)) return `does other work: its first loss is ${start.first}, ours ${ours.first}`;
  if (!differs(start.after, ours.after)) return undefined;
  return `does other work: its loss after ${CHECKED_STEPS} steps is ${start.after}, ours ${ours.after}`;
}

async function memoryOf(peer: Peer, start: Start): Promise<number | undefined> {
  if (start.rssBeforeMb === undefined) return undefined;
  return (await peer.number({ do: "memory", count: MEMORY_STEPS }, "peak_mb")) - start.rssBeforeMb;
}

type Failures = Map<PeerName, string>;

async function beginAll(peers: readonly Peer[], workload: Workload, failures: Failures, patienceS: number) {
  const starts = new Map<PeerName, Start>();
  for (const peer of peers) {
    try {
      starts.set(peer.name, await begin(peer, workload, patienceS));
    } catch (error) {
      failures.set(peer.name, error instanceof Error ? error.message : String(error));
      await peer.end(); // or it may go on with its steps beside the others
    }
  }
  const ours = starts.get(OURS);
  for (const [name, start] of starts) {
    const wrong = ours === undefined ? undefined : disagreement(start, ours);
    if (wrong !== undefined) failures.set(name, wrong);
  }
  return starts;
}

async function memories(peers: readonly Peer[], starts: ReadonlyMap<PeerName, Start>, failures: Failures) {
  const found = new Map<PeerName, number>();
  for (const peer of peers) {
    const start = starts.get(peer.name);
    if (start === undefined || failures.has(peer.name)) continue;
    const mb = await memoryOf(peer, start);
    if (mb !== undefined) found.set(peer.name, mb);
  }
  return found;
}

function plain(numbers: Iterable<readonly [PeerName, number]>): Record<string, number> {
  return Object.fromEntries([...numbers].map(([name, value]) => [name, round(value)]));
}

async function measure(workload: Workload, options: Options): Promise<Report> {
  const { peers, failures } = await startAll(options);
  try {
    const starts = await beginAll(peers, workload, failures, options.patienceS);
    const able = peers.filter(({ name }) => !failures.has(name));
    const timings = await interleaved(able, "burst", options, failures);
    const memory = await memories(able, starts, failures);
    return reportOf(workload.name as WorkloadName, starts, timings, memory, failures);
  } finally {
    for (const peer of peers) await peer.end();
  }
}

function reportOf(
  name: WorkloadName,
  starts: ReadonlyMap<PeerName, Start>,
  timings: ReadonlyMap<PeerName, Timing>,
  memory: ReadonlyMap<PeerName, number>,
  failures: Failures,
): Report {
  const others = [...timings].filter(([peer]) => peer !== OURS);
  const ownMs = timings.get(OURS)?.ms;
  const over = (times: readonly number[]) =>
    ownMs === undefined || times.length === 0 ? null : round(ownMs / Math.min(...times));
  const ours = starts.get(OURS);
  return {
    name,
    raphson_ms: ownMs === undefined ? null : round(ownMs),
    peers: plain(others.map(([peer, { ms }]) => [peer, ms])),
    ratio_to_best: over(others.map(([, { ms }]) => ms)),
    most: BARS[name],
    ratio_to_javascript: over(others.filter(([peer]) => JAVASCRIPT.includes(peer)).map(([, { ms }]) => ms)),
    spread: plain([...timings].map(([peer, { spread }]) => [peer, spread])),
    first_ms: plain([...starts].map(([peer, { firstMs }]) => [peer, firstMs])),
    step_mb: plain(memory),
    plan: ours?.plan ?? null,
    loss: ours === undefined ? null : { first: ours.first, after: ours.after },
    failures: Object.fromEntries(failures),
  };
}

function print(report: Report): void {
  const { name, peers, spread, first_ms, step_mb } = report;
  const times: Record<string, number> = report.raphson_ms === null ? {} : { [OURS]: report.raphson_ms, ...peers };
  const best = Math.min(...Object.values(peers));
  const percent = (value: number | undefined) => `±${((value ?? 0) * 50).toFixed(0)} %`;
  const rows = Object.entries(times).map(([peer, ms]) => [
    peer,
    ms.toPrecision(4),
    percent(spread[peer]),
    (ms / best).toFixed(3),
    first_ms[peer]?.toFixed(0) ?? "",
    step_mb[peer]?.toFixed(0) ?? "",
  ]);
  console.log(`\n${name}`);
  console.log(table([["", "ms/step", "spread", "÷ best peer", "first step ms", "MB of a step"], ...rows]));
  for (const [peer, reason] of Object.entries(report.failures)) console.log(`${peer}: ${reason}`);
  const bar = (what: string, ratio: number | null, most: number) =>
    ratio === null
      ? `${what}: no peer to compare with`
      : `${what}: ${ratio} (bar ${most}: ${ratio <= most ? "passes" : "fails"})`;
  console.log(bar("ours over the fastest peer", report.ratio_to_best, report.most));
  console.log(bar("ours over the faster one in JavaScript", report.ratio_to_javascript, JAVASCRIPT_BAR));
}

async function main(): Promise<void> {
  const options = readOptions(WORKLOADS);
  const folder = mkdtempSync(join(tmpdir(), "raphson-bench-"));
  const reports: Report[] = [];
  try {
    for (const name of options.only) {
      const report = await measure(makeWorkload(name, folder), options);
      print(report);
      reports.push(report);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  if (options.json)
    console.log(JSON.stringify({ threads: options.threads, versions: options.versions, workloads: reports }));
  // A peer that is not here is no failure of ours; ours that fails or does other work is.
  if (reports.some((report) => report.raphson_ms === null)) process.exitCode = 1;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
