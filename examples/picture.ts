/** Pictures of runs as SVG files, drawn by echarts on the server side. Numbers in, a file out. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as echarts from "echarts";

/** One line of a picture: points (x, y), on the left (0) or right (1) axis. */
export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [number, number])[];
  readonly axis?: 0 | 1;
}

/** What is drawn, and how. */
export interface Picture {
  readonly title: string;
  readonly x: string;
  /** One or two axes. */
  readonly y: readonly { readonly name: string; readonly log?: boolean }[];
  readonly lines: readonly Line[];
}

/** At most `count` of the points, evenly chosen: a picture needs no more. */
function thinned(points: Line["points"], count = 1000): Line["points"] {
  const stride = Math.ceil(points.length / count);
  return stride <= 1 ? points : points.filter((_, index) => index % stride === 0 || index === points.length - 1);
}

/** Writes the picture as SVG and returns the file's whole path. */
export function writePicture(path: string, picture: Picture): string {
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: 960, height: 540 });
  chart.setOption({
    animation: false,
    backgroundColor: "#ffffff",
    title: { text: picture.title, left: "center" },
    legend: { top: 30 },
    grid: { left: 80, right: 80, top: 70, bottom: 60 },
    xAxis: { type: "value", name: picture.x, nameLocation: "middle", nameGap: 30, min: "dataMin", max: "dataMax" },
    yAxis: picture.y.map(({ name, log }) => ({ type: log === true ? "log" : "value", name, scale: true })),
    series: picture.lines.map(({ name, points, axis = 0 }) => ({
      type: "line",
      name,
      yAxisIndex: axis,
      showSymbol: false,
      lineStyle: { width: 1.5 },
      data: thinned(points.filter(([, y]) => Number.isFinite(y) && !(picture.y[axis]?.log === true && y <= 0))).map(
        (point) => [...point],
      ),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  const whole = resolve(path);
  mkdirSync(dirname(whole), { recursive: true });
  writeFileSync(whole, svg);
  return whole;
}
