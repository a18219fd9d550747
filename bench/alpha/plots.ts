/**
 * Pictures of the benchmark's result (`bench:alpha`, option --out): final loss against α₀ for each rule, α over time,
 * and cost; and the error of each rule's curvature. SVG files, drawn with what the demo draws its picture with.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import * as echarts from "echarts";
import { runExample, UsageError } from "../../examples/arguments";
import type { Baseline, Cell, Trace } from "./cells";
import { ordersSheet } from "./orders";
import { CAP, rowsOf } from "./summary";

const ROOT = join(__dirname, "..", "..");
const USAGE = `Usage: npm run bench:alpha:plots -- [options]
  --in FILE        the result of bench:alpha (default runs/alpha/cells.json)
  --out DIR        where the pictures go (default runs/alpha)
  --rules A,B      only these beside the baselines (default all)
  --help`;

/** What `bench:alpha` writes. */
export interface Result {
  readonly cells: readonly Cell[];
  readonly baselines: readonly Baseline[];
  readonly traces: readonly Trace[];
}

/** A line of a picture. `null` breaks it. */
interface Line {
  readonly name: string;
  readonly points: readonly (readonly [number, number | null])[];
  readonly dashed?: boolean;
}

/** A small picture. */
export interface Panel {
  readonly title: string;
  readonly lines: readonly Line[];
}

/** Small pictures of one kind, side by side. */
export interface Sheet {
  readonly title: string;
  readonly x: { readonly name: string; readonly log: boolean };
  readonly y: { readonly name: string; readonly log: boolean };
  readonly panels: readonly Panel[];
}

const [WIDTH, HEIGHT, TOP, COLUMNS] = [320, 250, 100, 3];

/** The same colour for the same name in every picture. */
const COLORS: Readonly<Record<string, string>> = {
  constant: "#888888",
  cosine: "#c0a060",
  next: "#d02020",
  exact: "#2060c0",
  retsinas: "#20a0a0",
  alt1: "#8040b0",
  alt2: "#b060a0",
  hermite: "#4080e0",
  prodigy: "#309030",
  hypergradient: "#d08020",
  gen: "#606000",
  newt: "#a05030",
};

/** A number on an axis: powers of ten as 1e-5 where digits would be many. */
function tick(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.01 || size >= 10_000)) return value.toExponential(0).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

/** Panels in rows of three, with one legend. */
function draw(sheet: Sheet): string {
  const rows = Math.ceil(sheet.panels.length / COLUMNS);
  const [width, height] = [COLUMNS * WIDTH + 40, TOP + rows * HEIGHT - 20];
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width, height });
  const at = (index: number) => [index % COLUMNS, Math.floor(index / COLUMNS)] as const;
  const axis = ({ name, log }: Sheet["x"], index: number) => ({
    ...{ type: log ? ("log" as const) : ("value" as const), gridIndex: index, name, scale: true },
    ...{ nameLocation: "middle" as const, nameGap: 24, axisLabel: { fontSize: 9, hideOverlap: true, formatter: tick } },
    splitLine: { lineStyle: { opacity: 0.3 } },
  });
  const names = [...new Set(sheet.panels.flatMap(({ lines }) => lines.map(({ name }) => name)))];
  chart.setOption({
    animation: false,
    backgroundColor: "#ffffff",
    title: [
      { text: sheet.title, left: "center", textStyle: { fontSize: 15 } },
      ...sheet.panels.map(({ title }, index) => {
        const [column, row] = at(index);
        const place = { left: 60 + column * WIDTH, top: TOP + row * HEIGHT - 24 };
        return { text: title, ...place, textStyle: { fontSize: 11, fontWeight: "normal" as const } };
      }),
    ],
    legend: { top: 36, data: names, textStyle: { fontSize: 10 } },
    grid: sheet.panels.map((_, index) => {
      const [column, row] = at(index);
      return { left: 60 + column * WIDTH, top: TOP + row * HEIGHT, width: WIDTH - 80, height: HEIGHT - 80 };
    }),
    xAxis: sheet.panels.map((_, index) => ({
      ...axis(sheet.x, index),
      min: "dataMin" as const,
      max: "dataMax" as const,
    })),
    yAxis: sheet.panels.map((_, index) => ({ ...axis(sheet.y, index), nameGap: 40 })),
    series: sheet.panels.flatMap(({ lines }, index) =>
      lines.map(({ name, points, dashed = false }) => ({
        ...{ type: "line" as const, name, xAxisIndex: index, yAxisIndex: index, showSymbol: points.length <= 12 },
        ...{
          symbolSize: 4,
          color: COLORS[name],
          lineStyle: { width: 1.5, type: dashed ? "dashed" : ("solid" as const) },
        },
        data: points.map(([x, y]) => [x, y !== null && sheet.y.log && y <= 0 ? null : y]),
      })),
    ),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** Values by key, in order of first appearance. */
function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

type Place = Pick<Cell, "problem" | "optimizer" | "horizon" | "batch">;
const placeOf = ({ problem, optimizer, horizon, batch }: Place) =>
  `${problem}, ${optimizer}, ${horizon} steps${batch === 0 ? "" : ` of ${batch}`}`;

/** Final training loss against α₀: a valley for constants, and flat for a rule that finds its α itself. */
export function lossSheet(cells: readonly Cell[], title: string): Sheet {
  const started = cells.filter(({ alpha0 }) => alpha0 !== null);
  const panels = [...groupBy(started, placeOf)].map(([name, own]): Panel => {
    // A loss far above the best says no more than "did not learn"; without a bound it would flatten all the rest.
    const best = Math.min(...own.map(({ loss }) => loss ?? Number.POSITIVE_INFINITY));
    const shown = (loss: number | null) => (loss === null || loss > CAP * best ? null : loss);
    const lines = [...groupBy(own, ({ rule }) => rule)].map(([rule, points]): Line => {
      const sorted = [...points].sort((a, b) => (a.alpha0 ?? 0) - (b.alpha0 ?? 0));
      const dashed = rule === "constant" || rule === "cosine";
      return { name: rule, dashed, points: sorted.map(({ alpha0, loss }) => [alpha0 ?? 0, shown(loss)] as const) };
    });
    return { title: name, lines };
  });
  return { title, x: { name: "α₀", log: true }, y: { name: "training loss", log: true }, panels };
}

/** α over the steps of a run, from each α₀. */
export function alphaSheet(traces: readonly Trace[], title: string): Sheet {
  const panels = [...groupBy(traces, placeOf)].map(([name, runs]): Panel => {
    const lines = runs.map(({ alpha0, alphas }): Line => ({ name: `α₀ = ${alpha0 ?? "none"}`, points: alphas }));
    return { title: name, lines };
  });
  return { title, x: { name: "step", log: false }, y: { name: "α", log: true }, panels };
}

/** A bar for each rule and optimizer: gradient evaluations per step. */
function costPicture({ cells, baselines }: Result): string {
  const rows = rowsOf(cells, baselines);
  const rules = [...new Set(rows.map(({ rule }) => rule))];
  const optimizers = [...new Set(rows.map(({ optimizer }) => optimizer))];
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: 960, height: 420 });
  chart.setOption({
    animation: false,
    backgroundColor: "#ffffff",
    title: {
      text: "Gradient evaluations per step (a forward pass is a third)",
      left: "center",
      textStyle: { fontSize: 15 },
    },
    legend: { top: 36 },
    grid: { left: 60, right: 20, top: 80, bottom: 90 },
    xAxis: { type: "category", data: rules, axisLabel: { rotate: 40, interval: 0 } },
    yAxis: { type: "value", min: 0 },
    series: optimizers.map((optimizer) => ({
      ...{ type: "bar" as const, name: optimizer },
      data: rules.map((rule) => rows.find((row) => row.rule === rule && row.optimizer === optimizer)?.cost ?? null),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** All pictures of a result, by file name: a sheet for each optimizer, and besides for each half or each rule. */
export function pictures(result: Result): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const [place, cells] of groupBy(result.cells, ({ half, optimizer }) => `${half}-${optimizer}`)) {
    const [{ half, optimizer } = {} as Cell] = cells;
    const sheet = lossSheet(cells, `Final training loss from each α₀: ${optimizer}, ${half} half`);
    files.set(`alpha-loss-${place}.svg`, draw(sheet));
  }
  const started = result.traces.filter(({ alpha0 }) => alpha0 !== null);
  for (const [place, traces] of groupBy(started, ({ rule, optimizer }) => `${rule}-${optimizer}`)) {
    const [{ rule, optimizer } = {} as Trace] = traces;
    files.set(`alpha-time-${place}.svg`, draw(alphaSheet(traces, `α over time: ${rule}, ${optimizer}`)));
  }
  files.set("alpha-cost.svg", costPicture(result));
  return files;
}

/** The result with these rules only, and the baselines. */
function only({ cells, baselines, traces }: Result, rules: readonly string[] | undefined): Result {
  if (rules === undefined) return { cells, baselines, traces };
  const has = ({ rule }: { readonly rule: string }) => rules.includes(rule);
  return {
    cells: cells.filter((cell) => cell.kind === "baseline" || has(cell)),
    baselines,
    traces: traces.filter(has),
  };
}

function read(path: string): Result {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Result;
  } catch (cause) {
    throw new UsageError(
      `--in: cannot read ${path} (${cause instanceof Error ? cause.message : cause}); run bench:alpha first`,
    );
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      in: { type: "string", default: join(ROOT, "runs", "alpha", "cells.json") },
      out: { type: "string", default: join(ROOT, "runs", "alpha") },
      rules: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const drawn = pictures(only(read(values.in), values.rules?.split(",")));
  for (const [name, svg] of [...drawn, ["alpha-orders.svg", draw(await ordersSheet())] as const]) {
    const path = resolve(values.out, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, svg);
    console.log(path);
  }
}

if (require.main === module) runExample(main, USAGE);
