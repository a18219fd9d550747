/**
 * The short test of one device: a few ops and twenty training steps. `doctor.ts` runs it in a process of its own, so that
 * a driver that crashes takes nobody along, and compares the numbers with the cpu's.
 */
import { type DeviceSpec, setDevice } from "../device";
import * as loss from "../loss";
import { newton, trainingStep } from "../newton";
import * as nn from "../nn";
import * as optim from "../optim";
import * as random from "../random";
import type { Tensor } from "../tensor";
import { arange } from "../tensor/creation";

/** What a device computed. */
export interface SelfTest {
  readonly name: string;
  readonly results: Readonly<Record<string, readonly number[]>>;
  readonly losses: readonly number[];
  /** Milliseconds of a step: the median of the last ten. */
  readonly stepMs: number;
}

const STEPS = 20;

function ops(): Record<string, readonly number[]> {
  const draws = random.generator(1);
  const [a, b] = [draws.normal([16, 24]), draws.normal([24, 8])];
  const row = (tensor: Tensor) => [...tensor.dataSync()];
  return {
    elementwise: row(a.tanh().mul(0.5).add(a.exp())),
    sum: row(a.sum(1)),
    matmul: row(a.matmul(b)),
    softmax: row(a.softmax()),
  };
}

async function train(): Promise<{ losses: number[]; stepMs: number }> {
  const draws = random.generator(2);
  const batch = { x: draws.normal([32, 16]), y: arange(0, 32, 1, { dtype: "i32" }).rem(4) };
  const model = nn.sequential(nn.linear(16, 32), nn.relu(), nn.linear(32, 4));
  const step = trainingStep({
    model,
    loss: ({ x, y }: typeof batch, model) => loss.crossEntropy(model(x), y),
    optimizer: newton(optim.adamW(), { initial: 1e-3 }),
  });
  const [losses, times]: [number[], number[]] = [[], []];
  for (let index = 0; index < STEPS; index++) {
    const start = performance.now();
    losses.push((await step.step(batch)).loss);
    times.push(performance.now() - start);
  }
  step.dispose();
  const late = times.slice(STEPS / 2).sort((one, other) => one - other);
  return { losses, stepMs: late[late.length / 2] ?? Number.NaN };
}

/** Tests the device in this process. */
export async function selfTest(spec: DeviceSpec): Promise<SelfTest> {
  const { name } = setDevice(spec);
  return { name, results: ops(), ...(await train()) };
}

/** The largest difference from `expected`, relative to its size where that is above 1. */
export function difference(found: SelfTest, expected: SelfTest): number {
  const apart = (a: readonly number[], b: readonly number[]) =>
    a.length === b.length
      ? Math.max(
          ...a.map((value, index) => Math.abs(value - (b[index] ?? NaN)) / Math.max(1, Math.abs(b[index] ?? NaN))),
        )
      : Number.NaN;
  const names = Object.keys(expected.results);
  const all = names.map((name) => apart(found.results[name] ?? [], expected.results[name] ?? []));
  return Math.max(...all, apart(found.losses, expected.losses));
}
