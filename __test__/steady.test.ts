/** Long loops: memory stays flat and handles do not pile up, in compiled steps and in eager work. */
import { newton, nn, optim, random, stats, type Tensor, tidy, trainingStep } from "raphson";
import { describe, expect, it } from "vitest";

const MEGABYTE = 2 ** 20;

/** Resident bytes after the collector had its chances. */
async function residentBytes(): Promise<number> {
  for (let round = 0; round < 4; round++) {
    global.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return process.memoryUsage().rss;
}

/** Runs `turn` many times; returns how resident memory grew after the first few hundred, and the handles. */
async function growth(turns: number, turn: () => Promise<void> | void): Promise<{ bytes: number; tensors: number }> {
  let before = { bytes: 0, tensors: 0 };
  for (let index = 0; index < turns; index++) {
    if (index === 500) before = { bytes: await residentBytes(), tensors: stats().tensors };
    await turn();
    if (index % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return { bytes: (await residentBytes()) - before.bytes, tensors: stats().tensors - before.tensors };
}

describe("memory", () => {
  it("is flat over 10,000 compiled steps", async () => {
    const model = nn.sequential(nn.linear(4, 8), nn.tanh(), nn.linear(8, 1));
    const batch = { x: random.generator(1).normal([16, 4]), y: random.generator(2).normal([16, 1]) };
    using step = trainingStep({
      model,
      loss: ({ x, y }: { x: Tensor; y: Tensor }, model) => model(x).sub(y).square().mean(),
      optimizer: newton(optim.adam()),
    });
    const { bytes, tensors } = await growth(10_000, () => step.run(batch));
    await step.drain();
    expect(bytes).toBeLessThan(5 * MEGABYTE);
    expect(tensors).toBeLessThanOrEqual(8);
  });

  it("is flat over 10,000 turns of eager work", async () => {
    const x = random.generator(1).normal([16, 4]);
    const w = random.generator(2).normal([4, 4]);
    const { bytes, tensors } = await growth(10_000, async () => {
      await tidy(async () => {
        const y = x.matmul(w).tanh().sum();
        await y.data();
      });
    });
    expect(bytes).toBeLessThan(5 * MEGABYTE);
    expect(tensors).toBe(0);
  });
});
