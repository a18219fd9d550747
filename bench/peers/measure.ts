/** How peers are timed beside each other: bursts that take turns after a pause, medians, spreads. What is run stands with the benchmarks. */
import { setTimeout } from "node:timers/promises";
import type { Peer, PeerName } from "./peer";

export interface Timing {
  /** Milliseconds of one step or call: the median of the rounds. */
  readonly ms: number;
  /** The width of the middle half of the rounds, relative to the median. */
  readonly spread: number;
  readonly rounds: number;
}

export interface Rounds {
  readonly rounds: number;
  /** About how long a burst takes. */
  readonly burstMs: number;
}

/** A peer with slower steps than this takes part in SLOW_ROUNDS rounds only, or the others would wait for it all the time. */
const SLOW_MS = 250;
const SLOW_ROUNDS = 3;
const MOST_TURNS = 5000;
const SETTLE_MS = 30;

function quantile(sorted: readonly number[], q: number): number {
  const position = q * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(position)] ?? Number.NaN, sorted[Math.ceil(position)] ?? Number.NaN];
  return below + (above - below) * (position - Math.floor(position));
}

function timingOf(times: readonly number[]): Timing {
  const sorted = [...times].sort((a, b) => a - b);
  const ms = quantile(sorted, 0.5);
  return { ms, spread: (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / ms, rounds: times.length };
}

/**
 * Times `request` (`burst` or `turns`) of all peers, round by round; each round begins with another peer. A peer that fails is
 * named in `failures` and left out from there on.
 */
export async function interleaved(
  peers: readonly Peer[],
  request: "burst" | "turns",
  { rounds, burstMs }: Rounds,
  failures: Map<PeerName, string>,
): Promise<Map<PeerName, Timing>> {
  const racers = peers.map((peer) => ({ peer, count: 1, stride: 1, times: [] as number[] }));
  const attempt = async (name: PeerName, action: () => Promise<void>) => {
    if (failures.has(name)) return;
    await action().catch((error: unknown) => {
      failures.set(name, error instanceof Error ? error.message : String(error));
    });
  };
  const time = async (peer: Peer, count: number) => (await peer.number({ do: request, count }, "ms")) / count;
  for (const racer of racers) {
    await attempt(racer.peer.name, async () => {
      let ms = await time(racer.peer, 1);
      if (ms < burstMs) ms = await time(racer.peer, Math.min(MOST_TURNS, Math.ceil(burstMs / 4 / Math.max(ms, 1e-3))));
      racer.count = Math.min(MOST_TURNS, Math.max(1, Math.round(burstMs / ms)));
      racer.stride = ms > SLOW_MS ? Math.ceil(rounds / SLOW_ROUNDS) : 1;
    });
  }
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < racers.length; turn++) {
      // Backwards in every other round, so that nobody always follows the same one.
      const place = (round + (round % 2 === 0 ? turn : racers.length - turn)) % racers.length;
      const racer = racers[place];
      if (racer === undefined || round % racer.stride !== 0) continue;
      await attempt(racer.peer.name, async () => {
        await setTimeout(SETTLE_MS); // threads of the one before may still spin
        racer.times.push(await time(racer.peer, racer.count));
      });
    }
  }
  const done = racers.filter(({ peer, times }) => !failures.has(peer.name) && times.length > 0);
  return new Map(done.map(({ peer, times }) => [peer.name, timingOf(times)]));
}

export function round(value: number, digits = 4): number {
  return Number(value.toPrecision(digits));
}

/** Rows as columns of text, numbers to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  "),
    )
    .join("\n");
}
