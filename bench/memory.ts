/**
 * Whether memory stays flat: 10,000 compiled steps of a tiny network and 10,000 turns of eager work. Prints how much
 * resident memory and the table of tensors grew after the first 500 of each. Run it with `node --expose-gc`; the last
 * line is JSON.
 */
import { parseArgs } from "node:util";
import { newton, nn, optim, random, stats, type Tensor, tidy, trainingStep } from "../src";

const { values } = parseArgs({ options: { turns: { type: "string", default: "10000" } } });
const turns = Number(values.turns);
if (!(Number.isSafeInteger(turns) && turns > 500)) throw new Error("--turns must be a whole number above 500");

/** Resident megabytes and live tensors after the collector had its chances. */
async function standing(): Promise<{ mb: number; tensors: number }> {
  for (let round = 0; round < 4; round++) {
    global.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { mb: process.memoryUsage().rss / 2 ** 20, tensors: stats().tensors };
}

async function growth(turn: () => Promise<void>): Promise<{ mb: number; tensors: number }> {
  for (let index = 0; index < 500; index++) await turn();
  const before = await standing();
  for (let index = 500; index < turns; index++) await turn();
  const after = await standing();
  return { mb: Number((after.mb - before.mb).toFixed(3)), tensors: after.tensors - before.tensors };
}

async function compiled() {
  const model = nn.sequential(nn.linear(4, 8), nn.tanh(), nn.linear(8, 1));
  const batch = { x: random.generator(1).normal([16, 4]), y: random.generator(2).normal([16, 1]) };
  using step = trainingStep({
    model,
    loss: ({ x, y }: { x: Tensor; y: Tensor }, model) => model(x).sub(y).square().mean(),
    optimizer: newton(optim.adam()),
  });
  const result = await growth(() => step.run(batch));
  await step.drain();
  return result;
}

async function eager() {
  const [x, w] = [random.generator(1).normal([16, 4]), random.generator(2).normal([4, 4])];
  return growth(() =>
    tidy(async () => {
      await x.matmul(w).tanh().sum().data();
    }),
  );
}

async function main(): Promise<void> {
  console.log(JSON.stringify({ compiled: await compiled(), eager: await eager() }));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
