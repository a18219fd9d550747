/**
 * What the tests of devices run in processes of their own, for a thread has one device: `child.ts TASK [arguments]` prints
 * one line of JSON after a mark, so that what drivers print does not disturb.
 */
import { Worker } from "node:worker_threads";
import {
  type AnyTensor,
  conv2d,
  data,
  deviceInfo,
  fromTypedArray,
  io,
  loss,
  newton,
  nn,
  ones,
  optim,
  probeDevices,
  RaphsonError,
  setDevice,
  type Tensor,
  type TrainOptions,
  train,
  trainingStep,
  valueAndGrad,
} from "../../src";
import type { DeviceSpec } from "../../src/device";
import { native } from "../../src/native";
import { MARK } from "./apart";

type Batch = { readonly x: Tensor; readonly y: Tensor<"i32"> };

const FEATURES = 8;
const CLASSES = 3;
const BATCH = 32;

/** Numbers from −1 to 1 that every device is given alike. */
function numbers(size: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: size }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

/** Points with the class of their largest coordinate of three, but every seventh at random: the loss does not vanish. */
function points(size: number) {
  const x = numbers(size * FEATURES, 1);
  const noise = numbers(size, 2);
  const y = Int32Array.from({ length: size }, (_, row) => {
    const [a = 0, b = 0, c = 0] = x.subarray(row * FEATURES, row * FEATURES + 3);
    const clean = a >= b && a >= c ? 0 : b >= c ? 1 : 2;
    return row % 7 === 0 ? Math.floor(((noise[row] ?? 0) + 1) * 1.4999) : clean;
  });
  return data.arrays({ x: { data: x, shape: [size, FEATURES] }, y });
}

const OPTIMIZERS = { adamW: () => optim.adamW(), momentum: () => optim.momentum(), sgd: () => optim.sgd() };

/** Losses and rates of a small network's steps with the rule `next`, for each optimizer and start, as `adamW:1e-3`. */
async function curves(spec: string, steps: string, ...settings: string[]) {
  const found: { losses: number[]; alphas: number[] }[] = [];
  let device = "";
  for (const setting of settings) {
    const [optimizer = "", initial] = setting.split(":");
    const [used, { loss: losses, alpha }] = await learn(spec as DeviceSpec, optimizer, Number(initial), Number(steps));
    found.push({ losses: [...losses], alphas: [...alpha] });
    device = used;
  }
  return { device, curves: found, probes: probeDevices(spec as DeviceSpec).probes };
}

async function learn(device: DeviceSpec, optimizer: string, initial: number, steps: number) {
  const model = nn.sequential(nn.linear(FEATURES, 16), nn.tanh(), nn.linear(16, CLASSES));
  const run = await train({
    device,
    model,
    loss: ({ x, y }, model) => loss.crossEntropy(model(x), y),
    optimizer: newton(OPTIMIZERS[optimizer as keyof typeof OPTIMIZERS](), { initial }),
    data: points(BATCH * 8).batches(BATCH),
    steps,
    seed: 5,
  });
  return [deviceInfo().spec, run.history] as const;
}

const errorOf = (error: unknown) =>
  error instanceof RaphsonError ? { code: error.code, op: error.op, message: error.message } : String(error);

/** The device goes in the middle of a training; what every way to notice throws, and whether others still compute. */
async function lose(spec: string) {
  setDevice(spec as DeviceSpec);
  const held = ones([4]);
  await held.sum().data();
  const model = nn.sequential(nn.linear(FEATURES, CLASSES));
  const step = trainingStep({
    model,
    loss: ({ x, y }: Batch, model) => loss.crossEntropy(model(x), y),
    optimizer: newton(optim.sgd()),
  });
  const batch = { x: ones([BATCH, FEATURES]), y: ones([BATCH], { dtype: "i32" }) };
  const before = (await step.step(batch)).loss;
  native.loseDeviceForTest();
  const caught = async (run: () => unknown) => {
    try {
      await run();
      return "nothing thrown";
    } catch (error) {
      return errorOf(error);
    }
  };
  const errors = {
    step: await caught(() => step.step(batch)),
    read: await caught(() => held.data()),
    readSync: await caught(() => held.mul(2).dataSync()),
    upload: await caught(() => ones([3]).add(1).data()),
  };
  return { before, errors, worker: await inWorker("curves", "cpu", "3", "adamW:1e-3") };
}

/** Another task in a thread of this process. */
function inWorker(...args: string[]): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(__filename, {
      argv: args,
      execArgv: ["-r", "ts-node/register/transpile-only"],
      stdout: true,
    });
    let out = "";
    worker.stdout.on("data", (text) => {
      out += text;
    });
    worker.on("error", reject);
    worker.on("exit", () => resolve(JSON.parse(out.slice(out.indexOf(MARK) + MARK.length))));
  });
}

/** A run of a small network with dropout. */
function run(steps: number, options: Pick<TrainOptions<unknown, Batch>, "checkpoint" | "resume" | "onStep"> = {}) {
  const model = nn.sequential(nn.linear(FEATURES, 16), nn.tanh(), nn.dropout(0.1), nn.linear(16, CLASSES));
  return train({
    model,
    loss: ({ x, y }: Batch, net: typeof model) => loss.crossEntropy(net(x), y),
    optimizer: newton(optim.adamW()),
    data: points(BATCH * 8).batches(BATCH, { shuffle: true }),
    steps,
    ...options,
  });
}

/** Trains until somebody ends the process; says when a checkpoint is sure to be there. */
async function long(path: string) {
  const onStep = ({ step }: { step: number }) => void (step % 12 === 11 && console.log("saved"));
  await run(1_000_000, { checkpoint: { path, every: 5 }, onStep });
}

/** Whether runs that go on from the files for another 20 steps are those that were never stopped. */
async function goOn(...paths: string[]) {
  const same: boolean[] = [];
  for (const path of paths) same.push(await goesOn(path));
  return { same };
}

async function goesOn(path: string): Promise<boolean> {
  const { metadata } = await io.load(path);
  const steps: number = JSON.parse(metadata.step ?? "").counter + 20;
  const went = await run(steps, { resume: path });
  const whole = await run(steps);
  const words = ({ history }: typeof went) => JSON.stringify([[...history.loss], [...history.alpha]]);
  return went.steps === steps && words(went) === words(whole);
}

/** Batches that are large enough to be worth several threads: images, and characters. */
function largeBatch() {
  const images = fromTypedArray(numbers(64 * 28 * 28, 3), [64, 1, 28, 28]);
  const labels = fromTypedArray(Int32Array.from({ length: 64 }, (_, i) => (7 * i) % 10));
  const characters = fromTypedArray(
    Int32Array.from({ length: 16 * 64 }, (_, i) => (i * i) % 29),
    [16, 64],
  );
  return { images, labels, characters };
}

/** Losses of a convolutional network and of a transformer, and what a convolution and its derivatives come to. */
async function threads() {
  setDevice("cpu");
  const batch = largeBatch();
  const conv = { stride: 1, padding: 1 };
  const kernel = fromTypedArray(numbers(16 * 9, 4), [16, 1, 3, 3]);
  const convolved = valueAndGrad((x: Tensor, k: Tensor) => conv2d(x, k, conv).tanh().square().sum(), { argument: 1 });
  const { value, gradient } = convolved(batch.images, kernel);
  const image = nn.sequential(
    nn.conv2d(1, 16, 3, { padding: "same" }),
    nn.batchNorm2d(16),
    nn.relu(),
    nn.maxPool2d(2),
    nn.conv2d(16, 32, 3, { padding: "same" }),
    nn.relu(),
    nn.flatten(),
    nn.linear(32 * 14 * 14, 10),
  );
  const text = nn.sequential(nn.embedding(29, 32), nn.transformerBlock(32, 4, { causal: true }), nn.linear(32, 29));
  const losses = [
    await lossesOf(image, ({ images, labels }, model) => loss.crossEntropy(model(images), labels), batch),
    await lossesOf(text, ({ characters }, model) => loss.crossEntropy(model(characters), characters), batch),
  ];
  return { threads: deviceInfo().threads, convolution: [value.item(), ...gradient.dataSync()], losses };
}

async function lossesOf<M>(
  model: M,
  lossOf: (batch: ReturnType<typeof largeBatch>, model: M) => AnyTensor,
  batch: ReturnType<typeof largeBatch>,
): Promise<number[]> {
  const losses: number[] = [];
  const optimizer = newton(optim.adamW(), { initial: 1e-3 });
  using step = trainingStep({ model, loss: lossOf, optimizer, onReport: (report) => losses.push(report.loss) });
  for (let index = 0; index < 8; index++) await step.run(batch);
  await step.drain();
  return losses;
}

const TASKS: Record<string, (...args: string[]) => Promise<unknown>> = {
  curves: (spec = "", steps = "", ...settings) => curves(spec, steps, ...settings),
  lose: (spec = "") => lose(spec),
  long: (path = "") => long(path),
  goOn,
  threads,
  probe: async () => probeDevices(),
};

const [task = "", ...args] = process.argv.slice(2);
const chosen = TASKS[task];
if (chosen === undefined) throw new Error(`there is no task ${task}`);
chosen(...args).then((found) => console.log(MARK + JSON.stringify(found)));
