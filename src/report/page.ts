/**
 * The page that shows runs: loss, α on a log axis, slopes, curvature, step time, evaluations. Charts are drawn by Apache
 * ECharts, whose script is part of the page, so that a report is one file that opens anywhere; the live page is the same
 * with runs that it asks for. What a run is, `runs.ts` says.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RaphsonError } from "../errors";
import type { RunData } from "./runs";

/** The library's script: a copy beside the compiled files, or in a checkout the installed package's. */
function chartScript(): string {
  const copied = join(__dirname, "echarts.common.min.js");
  try {
    return readFileSync(existsSync(copied) ? copied : require.resolve("echarts/dist/echarts.common.min.js"), "utf8");
  } catch (cause) {
    throw new RaphsonError("FILE", "report", `cannot read the script of the charts, ${copied}; reinstall raphson`, {
      cause,
    });
  }
}

const STYLE = `
  body { font: 15px/1.5 system-ui, sans-serif; margin: 24px auto; max-width: 1200px; padding: 0 16px; color: #1d2430; }
  h1 { font-size: 20px; margin: 0 0 4px; }
  #charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 20px; }
  .chart { height: 320px; }
  table { border-collapse: collapse; margin: 8px 0 20px; font-size: 13px; }
  th, td { text-align: right; padding: 2px 12px 2px 0; }
  th:first-child, td:first-child { text-align: left; }
  th { color: #667; font-weight: 600; }
`;

/** Runs in the browser. `window.runs` holds the runs of a report; without it, they are asked for every second. */
const CLIENT = `
  const CHARTS = [
    { title: "loss", rows: ["loss"], evaluations: ["loss"] },
    { title: "learning rate α", rows: ["alpha"], log: true },
    { title: "evaluations", metrics: true },
    { title: "slope −φ′", rows: ["slope", "nextSlope"] },
    { title: "curvature φ″", rows: ["curvature"] },
    { title: "measured", measured: true },
    { title: "step time (ms)", rows: ["stepMs"] },
  ];
  const COLORS = ["#3567b8", "#d1603d", "#3a9a6b", "#8a56b0", "#b8892b", "#4aa3b5", "#c4577f", "#6b7280"];
  const short = (value) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(4))));

  function smooth(values) {
    const weight = Math.min(0.98, 1 - 1 / Math.max(1, values.length / 100));
    let [mean, share] = [0, 0];
    return values.map((value) => {
      if (value === null) return null;
      mean = weight * mean + (1 - weight) * value;
      share = weight * share + 1 - weight;
      return mean / share;
    });
  }

  function lines(chart, run, color, several) {
    const found = [];
    const label = (name) => (several ? run.name + (name === chart.title ? "" : " " + name) : name);
    const add = (name, row, style, extra) =>
      found.push({
        type: "line", name, showSymbol: false, ...extra,
        itemStyle: { color }, lineStyle: { width: 1.5, color, ...style },
        data: row.steps.map((step, i) => [step, chart.log && !(row.values[i] > 0) ? null : row.values[i]]),
      });
    const names = chart.measured ? Object.keys(run.rows).filter((name) => name.startsWith("measured "))
      : chart.metrics ? [] : chart.rows;
    names.forEach((name, place) => {
      const row = run.rows[name];
      if (!row) return;
      const type = ["solid", "dashed", "dotted"][place % 3];
      if (name === "loss") {
        add(label("each step"), row, { opacity: 0.25, width: 1 });
        add(label("loss"), { steps: row.steps, values: smooth(row.values) }, {});
      } else add(label(name), row, { type });
    });
    const evaluated = chart.metrics ? Object.keys(run.evaluations).filter((name) => name !== "loss") : chart.evaluations ?? [];
    evaluated.forEach((name, place) => {
      const row = run.evaluations[name];
      const shown = chart.metrics ? name : "held-out " + name;
      if (row) add(label(shown), row, { type: ["dashed", "solid", "dotted"][place % 3] }, { showSymbol: true, symbolSize: 6 });
    });
    if (chart.log && run.rejected.length > 0 && found[0]) {
      const at = run.rejected.slice(0, 200).map((step) => ({ xAxis: step }));
      found[0].markLine = { silent: true, symbol: "none", label: { show: false }, lineStyle: { color, opacity: 0.25 }, data: at };
    }
    return found;
  }

  function table(runs) {
    const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.evaluations)))];
    const head = ["run", "optimizer", "rule", "device", "steps", "loss", "α", "taken back", ...metrics.map((name) => "held-out " + name)];
    const last = (row) => (row ? row.values[row.values.length - 1] : null);
    const body = runs.map((run) => [
      run.name, run.about.optimizer ?? "", run.about.rule ?? "", run.about.device ?? "", String(run.lastStep),
      short(run.rows.loss ? smooth(run.rows.loss.values).at(-1) : null), short(last(run.rows.alpha)), String(run.rejected.length),
      ...metrics.map((name) => short(last(run.evaluations[name]))),
    ]);
    const element = document.getElementById("runs");
    element.replaceChildren(...[head, ...body].map((cells, index) => {
      const row = document.createElement("tr");
      for (const cell of cells) {
        const item = document.createElement(index === 0 ? "th" : "td");
        item.textContent = cell;
        row.append(item);
      }
      return row;
    }));
  }

  const drawn = new Map();
  function draw(runs) {
    table(runs);
    for (const chart of CHARTS) {
      const series = runs.flatMap((run, index) => lines(chart, run, COLORS[index % COLORS.length], runs.length > 1));
      if (series.length === 0) continue;
      if (!drawn.has(chart.title)) {
        const element = document.createElement("div");
        element.className = "chart";
        document.getElementById("charts").append(element);
        drawn.set(chart.title, echarts.init(element));
      }
      drawn.get(chart.title).setOption({
        animation: false,
        title: { text: chart.title, textStyle: { fontSize: 14 } },
        tooltip: { trigger: "axis", valueFormatter: (value) => short(value) },
        legend: { type: "scroll", left: 130, right: 10 },
        grid: { left: 70, right: 20, top: 40, bottom: 50 },
        xAxis: { type: "value", min: "dataMin", max: "dataMax" },
        yAxis: { type: chart.log ? "log" : "value", scale: true, axisLabel: { formatter: (value) => short(value) } },
        dataZoom: [{ type: "inside" }, { type: "slider", height: 16, bottom: 8 }],
        series,
      }, { replaceMerge: ["series"] });
    }
  }
  addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));

  async function follow() {
    const state = document.getElementById("state");
    try {
      const answer = await fetch("runs.json");
      const runs = await answer.json();
      if (!answer.ok) throw new Error(runs.error);
      state.textContent = runs.length === 0 ? "no run yet" : "";
      draw(runs);
    } catch (error) {
      state.textContent = String(error.message ?? error);
    }
    setTimeout(follow, 1000);
  }
  if (window.runs) draw(window.runs);
  else follow();
`;

const escaped = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
/** Text inside a script element: nothing in it may look like the element's end. */
const scripted = (text: string) => text.replaceAll("</", "<\\/").replaceAll("<!--", "<\\!--");

/** The page; with runs it is a report, without it is the live page. */
export function page(title: string, runs?: readonly RunData[]): string {
  const data = runs === undefined ? "" : `<script>window.runs = ${scripted(JSON.stringify(runs))};</script>`;
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${escaped(title)}</title><style>${STYLE}</style></head>
<body>
<h1>${escaped(title)}</h1>
<div id="state"></div>
<table id="runs"></table>
<div id="charts"></div>
<script>${scripted(chartScript())}</script>
${data}<script>${CLIENT}</script>
</body>
</html>
`;
}
