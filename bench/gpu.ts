/**
 * A GPU beside PyTorch on it: an MLP's training step, matrix products, a fused elementwise chain, launch overhead, memory.
 * Everything is measured in child processes, one for each side, on a device that is chosen there. Without a GPU it says so and
 * ends. `--device cpu` or `wgpu` with `--small` runs the measurements themselves anywhere; no number of theirs means anything.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  deviceInfo,
  fromTypedArray,
  loss,
  newton,
  nn,
  optim,
  random,
  stats,
  type Tensor,
  tidy,
  trainingStep,
} from "../src";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    small: { type: "boolean", default: false },
    device: { type: "string", default: "cuda" },
    python: { type: "string", default: "python3" },
    measure: { type: "boolean", default: false },
  },
});

/** Bars: our step over PyTorch's, eager and compiled. */
const BARS = { eager: 0.8, compiled: 1.0 };
/** f32 and TF32 (dense) TFLOP/s and memory GB/s, by what a GPU's name contains, from NVIDIA's data sheets. */
const PEAKS: readonly (readonly [name: string, f32: number, tf32: number, bandwidth: number])[] = [
  ["H200", 67, 494.7, 4800],
  ["H100 PCIe", 51.2, 378, 2000],
  ["H100", 67, 494.7, 3350],
  ["A100-SXM4-80GB", 19.5, 156, 2039],
  ["A100", 19.5, 156, 1555],
  ["RTX 4090", 82.6, 82.6, 1008],
];
const tf32 = process.env.RAPHSON_TF32 === "1";

const sizes = values.small
  ? { mlp: [16, 32, 10, 8], matmul: [64], elementwise: 4096, rounds: 3, turns: 2, tf32 }
  : { mlp: [784, 4096, 10, 4096], matmul: [4096, 8192], elementwise: 1 << 26, rounds: 7, turns: 10, tf32 };

interface Own {
  readonly device: string;
  readonly mlpMs: number;
  readonly mlpNextMs: number;
  readonly memoryMb: number;
  readonly matmulMs: Record<string, number>;
  readonly elementwiseMs: number;
  readonly launchUs: number;
}

interface Torch {
  readonly version: string;
  readonly mlp_eager: { readonly ms: number; readonly memory_mb: number };
  readonly mlp_compiled?: { readonly ms: number; readonly memory_mb: number };
  readonly compile_error?: string;
  readonly matmul: Record<string, number>;
  readonly elementwise_eager: number;
  readonly elementwise_compiled?: number;
  readonly launch_us: number;
}

/** The first GPU's name as the driver's own tool has it; the tool comes with the driver. */
function gpuName(): string | undefined {
  const { status, stdout } = spawnSync("nvidia-smi", ["--query-gpu=name", "--format=csv,noheader"], {
    encoding: "utf8",
  });
  return status === 0 ? stdout.split("\n")[0]?.trim() || undefined : undefined;
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

/** Milliseconds of one turn: the median of rounds. `finish` waits for the device, by reading something that comes last. */
async function time(turn: () => Promise<void>, finish: () => Promise<void>, turns = sizes.turns): Promise<number> {
  for (let index = 0; index < 5; index++) await turn();
  await finish();
  const times: number[] = [];
  for (let round = 0; round < sizes.rounds; round++) {
    const start = performance.now();
    for (let index = 0; index < turns; index++) await turn();
    await finish();
    times.push((performance.now() - start) / turns);
  }
  return median(times);
}

type Digits = { readonly images: Tensor; readonly labels: Tensor<"i32"> };

async function mlp(rule: "constant" | "next"): Promise<number> {
  const [inputs = 0, hidden = 0, outputs = 0, batchSize = 0] = sizes.mlp;
  const model = nn.sequential(
    nn.linear(inputs, hidden),
    nn.relu(),
    nn.linear(hidden, hidden),
    nn.relu(),
    nn.linear(hidden, outputs),
  );
  model.initialize(1);
  const labels = Int32Array.from({ length: batchSize }, (_, index) => (index * 7) % outputs);
  const batch = { images: random.generator(1).normal([batchSize, inputs]), labels: fromTypedArray(labels) };
  using step = trainingStep({
    model,
    loss: ({ images, labels }: Digits, model) => loss.crossEntropy(model(images), labels),
    optimizer: newton(optim.adam(), { rule, initial: 1e-3, min: 1e-8, max: 1e-2 }),
  });
  // `step` reads the loss, so it waits for all the steps before it; its one step more is part of each round for both sides.
  const ms = await time(
    () => step.run(batch),
    async () => void (await step.step(batch)),
  );
  return (ms * sizes.turns) / (sizes.turns + 1);
}

/** A computation whose results are kept on the device; an element of the last one is read to wait for it. */
async function repeated(compute: () => Tensor, turns?: number): Promise<number> {
  let last: Tensor | undefined;
  const turn = async () => {
    last?.dispose();
    last = tidy(() => compute().evaluate());
  };
  const finish = () => tidy(async () => void (await last?.reshape([-1]).slice(0, 1).data()));
  const ms = await time(turn, finish, turns);
  last?.dispose();
  return ms;
}

async function measure(): Promise<Own> {
  const { kind, name } = deviceInfo();
  if (kind !== values.device.split(":")[0]) throw new Error(`the device is ${kind} (${name}), not ${values.device}`);
  const mlpMs = await mlp("constant");
  const memoryMb = (stats().liveBytes + stats().pooledBytes) / 2 ** 20;
  const mlpNextMs = await mlp("next");
  const matmulMs: Record<string, number> = {};
  for (const n of sizes.matmul) {
    const [a, b] = [random.generator(1).normal([n, n]).evaluate(), random.generator(2).normal([n, n]).evaluate()];
    matmulMs[n] = await repeated(() => a.matmul(b));
    a.dispose();
    b.dispose();
  }
  const [x, y] = [1, 2].map((seed) => random.generator(seed).normal([sizes.elementwise]).evaluate()) as [
    Tensor,
    Tensor,
  ];
  const elementwiseMs = await repeated(() => x.mul(y).add(x).tanh().mul(y.sigmoid()));
  const one = fromTypedArray(new Float32Array(1));
  const launchUs = (await repeated(() => one.add(1), values.small ? 5 : 100)) * 1e3;
  return { device: name, mlpMs, mlpNextMs, memoryMb, matmulMs, elementwiseMs, launchUs };
}

/** The last line that a child process prints, as JSON. */
function child<T>(command: string, args: readonly string[], env: NodeJS.ProcessEnv): T | string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: "utf8", env, maxBuffer: 1 << 26 });
  if (error) return error.message;
  if (status !== 0) return stderr.trim().split("\n").at(-1) ?? `${command} failed`;
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "null") as T;
}

/** Shares of the GPU's peak: products of the f32 (or TF32) rate, the chain of the memory's. */
function shares(own: Own, gpu: string | undefined) {
  const peak = PEAKS.find(([name]) => gpu?.includes(name));
  if (peak === undefined) return undefined;
  const [, f32, tf32Rate, bandwidth] = peak;
  const products = Object.entries(own.matmulMs).map(([n, ms]) => {
    const tflops = (2 * Number(n) ** 3) / (ms * 1e9);
    return [n, { tflops, share: tflops / (tf32 ? tf32Rate : f32) }] as const;
  });
  const gbPerS = (3 * 4 * sizes.elementwise) / (own.elementwiseMs * 1e6);
  return { matmul: Object.fromEntries(products), elementwise: { gbPerS, share: gbPerS / bandwidth } };
}

function ratios(own: Own, torch: Torch) {
  const bar = (ratio: number, most: number) => ({ ratio, most, passes: ratio <= most });
  const eager = bar(own.mlpMs / torch.mlp_eager.ms, BARS.eager);
  const compiled = torch.mlp_compiled && bar(own.mlpMs / torch.mlp_compiled.ms, BARS.compiled);
  return { eager, compiled: compiled ?? null };
}

async function main(): Promise<void> {
  if (values.measure) {
    console.log(JSON.stringify(await measure()));
    return;
  }
  const gpu = gpuName();
  if (values.device.startsWith("cuda") && gpu === undefined) {
    console.log("There is no NVIDIA GPU here (nvidia-smi shows none), so nothing is measured.");
    return;
  }
  const script = ["--transpile-only", join(__dirname, "gpu.ts"), "--measure", "--device", values.device];
  const tsNode = join(__dirname, "../node_modules/ts-node/dist/bin.js");
  const env = { ...process.env, RAPHSON_DEVICE: values.device };
  const own = child<Own>(process.execPath, [tsNode, ...script, ...(values.small ? ["--small"] : [])], env);
  if (typeof own === "string") throw new Error(own);
  const isGpu = values.device.startsWith("cuda");
  const torch = isGpu
    ? child<Torch>(values.python, [join(__dirname, "gpu_torch.py"), JSON.stringify(sizes)], process.env)
    : "not asked";
  const compared = typeof torch === "string" ? undefined : ratios(own, torch);
  const report = { gpu: gpu ?? null, tf32, own, shares: shares(own, gpu) ?? null, torch, ratios: compared ?? null };
  if (values.json) console.log(JSON.stringify(report));
  else console.log(JSON.stringify(report, null, 2));
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
