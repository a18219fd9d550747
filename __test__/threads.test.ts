/**
 * Threads: with the same number of them losses are the same bit for bit, with another number to 1e-5. Each in a process of
 * its own, for RAPHSON_THREADS is read once.
 */
import { expect, it } from "vitest";
import { child } from "./devices/apart";

interface Found {
  readonly threads: number;
  readonly convolution: readonly number[];
  readonly losses: readonly (readonly number[])[];
}

const withThreads = (count: number) => child<Found>(["threads"], { RAPHSON_THREADS: String(count) });

/** The largest difference, relative to the numbers' largest size. */
function apart(one: readonly number[], other: readonly number[]): number {
  expect(other).toHaveLength(one.length);
  const size = Math.max(...one.map(Math.abs));
  return Math.max(...one.map((value, index) => Math.abs(value - (other[index] ?? Number.NaN)))) / size;
}

it("convolutions and training losses do not depend on the number of threads", { timeout: 5 * 60_000 }, async () => {
  const [two, again, one, three] = await Promise.all([2, 2, 1, 3].map(withThreads));
  if (two === undefined || one === undefined || three === undefined) throw new Error("a child is missing");
  expect([one, two, three].map(({ threads }) => threads)).toEqual([1, 2, 3]);
  expect(again, "the same number of threads").toEqual(two);
  for (const other of [one, three]) {
    expect(apart(two.convolution, other.convolution)).toBeLessThan(1e-5);
    two.losses.forEach((losses, index) => {
      expect(losses.at(-1), "it learns").toBeLessThan(losses[0] ?? 0);
      expect(apart(losses, other.losses[index] ?? [])).toBeLessThan(1e-5);
    });
  }
});
