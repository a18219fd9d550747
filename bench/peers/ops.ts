/**
 * Single operations beside PyTorch's (eager and compiled) and JAX's: same operands and threads, in turns. `npm run bench:ops -- --json`;
 * the last line is JSON. `--only matmul,conv` chooses groups. What a peer calculates is compared with ours before it is timed;
 * `_train` means forward and backward together. Whole steps are `step.ts`'s subject.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleaved, round, type Timing, table } from "./measure";
import { type Options, readOptions, startAll } from "./options";
import { OURS, type Peer, type PeerName } from "./peer";
import { ArrayFile, type Entry, makeWorkload, type WorkloadName } from "./workloads";

const PEERS = ["torch_eager", "torch_compile", "jax"] as const;
const GROUPS = ["matmul", "elementwise", "norm", "loss", "conv", "attention", "reduce", "update"] as const;
type Group = (typeof GROUPS)[number];

/** Most of ours over a peer's time. Of products: a rate of at least 0.95 of PyTorch's. */
const BARS: Partial<Record<Group, { readonly peer: PeerName; readonly most: number }>> = {
  matmul: { peer: "torch_eager", most: 1 / 0.95 },
  elementwise: { peer: "jax", most: 1.2 },
  norm: { peer: "jax", most: 1.2 },
  conv: { peer: "torch_eager", most: 1 },
};

/** Means of absolute values agree to this: sums over millions of f32 in another order differ by less. */
const RELATIVE = 1e-3;

interface Case {
  readonly name: string;
  readonly group: Group;
  readonly op: string;
  readonly operands: (file: ArrayFile) => Entry[];
}

const normal = (file: ArrayFile, ...shape: number[]) => file.uniform(shape, -1, 1);

/** Products as the models have them: x·Wᵀ forward, dy·W and dyᵀ·x backward. */
function product(name: string, op: "matmul" | "matmul_at" | "matmul_bt", m: number, k: number, n: number): Case {
  const shapes = { matmul: [m, k, k, n], matmul_at: [k, m, k, n], matmul_bt: [m, k, n, k] } as const;
  const [a, b, c, d] = shapes[op];
  return {
    name: `${name} ${m}×${k}×${n}`,
    group: "matmul",
    op,
    operands: (file) => [normal(file, a, b), normal(file, c, d)],
  };
}

const PRODUCTS = [
  product("mlp128 forward", "matmul_bt", 128, 784, 512),
  product("mlp128 hidden forward", "matmul_bt", 128, 512, 512),
  product("mlp128 to inputs", "matmul", 128, 512, 512),
  product("mlp128 to weights", "matmul_at", 512, 128, 784),
  product("mlp32 forward", "matmul_bt", 32, 784, 512),
  product("mlp32 to weights", "matmul_at", 512, 32, 784),
  product("cnn dense", "matmul_bt", 64, 3136, 128),
  product("gpt queries, keys, values", "matmul_bt", 1024, 128, 384),
  product("gpt expand", "matmul_bt", 1024, 128, 512),
  product("gpt contract", "matmul_bt", 1024, 512, 128),
  product("gpt to weights", "matmul_at", 512, 1024, 128),
  product("gpt characters", "matmul_bt", 1024, 128, 65),
  product("square", "matmul", 1024, 1024, 1024),
];

function rowCases(rows: number, width: number): Case[] {
  const size = `${rows}×${width}`;
  const x = (file: ArrayFile) => normal(file, rows, width);
  const affine = (file: ArrayFile) => [x(file), normal(file, width), normal(file, width)];
  return [
    { name: `softmax ${size}`, group: "norm", op: "softmax", operands: (file) => [x(file)] },
    { name: `softmax_train ${size}`, group: "norm", op: "softmax_train", operands: (file) => [x(file), x(file)] },
    { name: `layer_norm ${size}`, group: "norm", op: "layer_norm", operands: affine },
    {
      name: `layer_norm_train ${size}`,
      group: "norm",
      op: "layer_norm_train",
      operands: (file) => [...affine(file), x(file)],
    },
  ];
}

function crossEntropy(rows: number, classes: number): Case {
  return {
    name: `cross_entropy_train ${rows}×${classes}`,
    group: "loss",
    op: "cross_entropy_train",
    operands: (file) => [normal(file, rows, classes), file.integers([rows], classes), file.constant([], 1)],
  };
}

function convolutions(batch: number, from: number, to: number, side: number): Case[] {
  const x = (file: ArrayFile) => normal(file, batch, from, side, side);
  const w = (file: ArrayFile) => normal(file, to, from, 3, 3);
  const dy = (file: ArrayFile) => normal(file, batch, to, side, side);
  const name = `${batch}×${from}→${to}×${side}×${side}`;
  return [
    { name: `conv ${name}`, group: "conv", op: "conv", operands: (file) => [x(file), w(file)] },
    { name: `conv to inputs ${name}`, group: "conv", op: "conv_input", operands: (f) => [x(f), w(f), dy(f)] },
    { name: `conv to weights ${name}`, group: "conv", op: "conv_weight", operands: (f) => [x(f), w(f), dy(f)] },
  ];
}

function attentions(): Case[] {
  const one = (file: ArrayFile) => normal(file, 8, 4, 128, 32);
  return [
    { name: "attention 8×4×128×32", group: "attention", op: "attention", operands: (f) => [one(f), one(f), one(f)] },
    {
      name: "attention_train 8×4×128×32",
      group: "attention",
      op: "attention_train",
      operands: (f) => [one(f), one(f), one(f), one(f)],
    },
  ];
}

function reductions(): Case[] {
  return ["sum_0", "sum_1", "sum_all", "max_1"].map((op) => ({
    name: `${op} 2048×2048`,
    group: "reduce",
    op,
    operands: (file) => [normal(file, 2048, 2048)],
  }));
}

/** Adam over all parameters of a model: they, then their gradients. */
function update(model: WorkloadName, folder: string): Case {
  const shapes = makeWorkload(model, folder).params.map(({ shape }) => shape);
  return {
    name: `adam ${model}`,
    group: "update",
    op: "adam",
    operands: (file) => [...shapes, ...shapes].map((shape) => normal(file, ...shape)),
  };
}

function casesIn(folder: string): Case[] {
  const elements = 4 * 2 ** 20;
  return [
    ...PRODUCTS,
    {
      name: "tanh(x·y + x) 4 Mi",
      group: "elementwise",
      op: "elementwise",
      operands: (file) => [normal(file, elements), normal(file, elements)],
    },
    ...rowCases(4096, 1024),
    ...rowCases(1024, 128),
    crossEntropy(1024, 65),
    crossEntropy(4096, 1000),
    ...convolutions(64, 32, 64, 14),
    ...convolutions(64, 1, 32, 28),
    ...attentions(),
    ...reductions(),
    update("mlp128", folder),
    update("gpt", folder),
  ];
}

interface Report {
  readonly name: string;
  readonly group: Group;
  readonly raphson_ms: number | null;
  readonly peers: Readonly<Record<string, number>>;
  readonly spread: Readonly<Record<string, number>>;
  readonly ratio: number | null;
  readonly bar: { readonly peer: PeerName; readonly most: number } | null;
  readonly failures: Readonly<Record<string, string>>;
}

/** Has every peer calculate once; those whose results are others than ours fail. */
async function loadAll(peers: readonly Peer[], request: object, failures: Map<PeerName, string>): Promise<void> {
  let ours: readonly number[] | undefined;
  for (const peer of peers) {
    try {
      const { sums } = (await peer.ask({ do: "op", ...request })) as { sums: number[] };
      if (peer.name === OURS) ours = sums;
      else if (ours !== undefined && !agree(sums, ours)) throw new Error(`gives ${sums.join()}, ours ${ours.join()}`);
    } catch (error) {
      failures.set(peer.name, error instanceof Error ? error.message : String(error));
    }
  }
}

function agree(sums: readonly number[], ours: readonly number[]): boolean {
  const close = (a: number, b: number) => Math.abs(a - b) <= RELATIVE * Math.max(Math.abs(b), 1e-6);
  return sums.length === ours.length && sums.every((sum, index) => close(sum, ours[index] ?? Number.NaN));
}

async function measure(one: Case, peers: readonly Peer[], folder: string, options: Options): Promise<Report> {
  const arrays = new ArrayFile();
  const operands = one.operands(arrays);
  const file = join(folder, "operands.bin");
  arrays.write(file);
  const failures = new Map<PeerName, string>();
  await loadAll(peers, { op: one.op, arrays: operands, file }, failures);
  const able = peers.filter(({ name }) => !failures.has(name));
  return reportOf(one, await interleaved(able, "turns", options, failures), failures);
}

function reportOf(one: Case, timings: ReadonlyMap<PeerName, Timing>, failures: ReadonlyMap<PeerName, string>): Report {
  const own = timings.get(OURS)?.ms;
  const bar = BARS[one.group] ?? null;
  const other = bar === null ? undefined : timings.get(bar.peer)?.ms;
  const numbers = (of: (timing: Timing) => number) =>
    Object.fromEntries([...timings].map(([name, timing]) => [name, round(of(timing))]));
  const { [OURS]: _, ...others } = numbers(({ ms }) => ms);
  return {
    name: one.name,
    group: one.group,
    raphson_ms: own === undefined ? null : round(own),
    peers: others,
    spread: numbers(({ spread }) => spread),
    ratio: own === undefined || other === undefined ? null : round(own / other),
    bar,
    failures: Object.fromEntries(failures),
  };
}

function print(reports: readonly Report[]): void {
  const time = (value: number | null | undefined) => (value == null ? "–" : (value * 1e3).toFixed(1));
  const rows = reports.map(({ name, raphson_ms, peers, ratio, bar }) => [
    name,
    time(raphson_ms),
    ...PEERS.map((peer) => time(peers[peer])),
    ratio === null ? "–" : ratio.toFixed(2),
    bar === null ? "" : `≤ ${bar.most.toFixed(2)} × ${bar.peer}`,
    bar === null || ratio === null ? "" : ratio <= bar.most ? "passes" : "fails",
  ]);
  console.log(table([["µs", OURS, ...PEERS, "ratio", "bar", ""], ...rows]));
  for (const { name, failures } of reports) {
    for (const [peer, reason] of Object.entries(failures)) console.log(`${peer}, ${name}: ${reason}`);
  }
}

async function main(): Promise<void> {
  const options = readOptions(GROUPS, PEERS);
  const folder = mkdtempSync(join(tmpdir(), "raphson-bench-"));
  const { peers, failures } = await startAll(options);
  for (const [peer, reason] of failures) console.log(`${peer}: ${reason}`);
  const reports: Report[] = [];
  try {
    const wanted = casesIn(folder).filter(({ group }) => options.only.includes(group));
    for (const one of wanted) reports.push(await measure(one, peers, folder, options));
  } finally {
    for (const peer of peers) await peer.end();
    rmSync(folder, { recursive: true });
  }
  print(reports);
  const { threads, versions } = options;
  if (options.json)
    console.log(JSON.stringify({ threads, versions, failures: Object.fromEntries(failures), ops: reports }));
  if (reports.some((report) => report.raphson_ms === null)) process.exitCode = 1;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
