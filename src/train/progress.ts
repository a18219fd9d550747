/**
 * How far a run is, on the terminal: a bar where there is one, plain lines where the output goes elsewhere. Both write
 * to standard error, so that standard output stays the program's own.
 */
import { Presets, SingleBar } from "cli-progress";
import { short } from "./history";

/** What is shown. */
export interface Standing {
  /** Steps done. */
  readonly step: number;
  readonly loss: number;
  readonly alpha: number;
}

/** Shows a run's standing. */
export interface Progress {
  update(standing: Standing): void;
  /** A line of its own, such as an evaluation's result. */
  say(line: string): void;
  stop(): void;
}

/** `true`: a bar on a terminal and lines otherwise. */
export type ProgressOption = boolean | "bar" | "lines";

/** Shows nothing. */
export const SILENT: Progress = { update: () => undefined, say: () => undefined, stop: () => undefined };

/** Steps a second since the start. */
function rateSince(start: number, steps: number): number {
  return steps / Math.max((performance.now() - start) / 1000, 1e-3);
}

function clock(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.ceil(seconds);
  const minutes = Math.floor(whole / 60);
  return minutes === 0 ? `${whole} s` : `${minutes} min ${whole % 60} s`;
}

function bar(total: number, first: number): Progress {
  const start = performance.now();
  const shown = new SingleBar(
    {
      format: "{bar} {value}/{total} | loss {loss} | α {alpha} | {rate} steps/s | ETA {left}",
      hideCursor: true,
      fps: 10,
      clearOnComplete: false,
    },
    Presets.shades_classic,
  );
  shown.start(total, first, { loss: "–", alpha: "–", rate: "–", left: "–" });
  return {
    update({ step, loss, alpha }) {
      const rate = rateSince(start, step - first);
      shown.update(step, {
        loss: short(loss),
        alpha: short(alpha),
        rate: short(rate),
        left: clock((total - step) / rate),
      });
    },
    say(line) {
      process.stderr.write(`\r\x1b[K${line}\n`);
    },
    stop: () => shown.stop(),
  };
}

/** At most one line in this time, besides the first and the last. */
const LINE_MS = 2000;

function lines(total: number | undefined, first: number): Progress {
  const start = performance.now();
  let written = Number.NEGATIVE_INFINITY;
  let pending: Standing | undefined;
  const write = ({ step, loss, alpha }: Standing) => {
    const rate = rateSince(start, step - first);
    const left = total === undefined ? "" : `, ETA ${clock((total - step) / rate)}`;
    const of = total === undefined ? "" : `/${total}`;
    process.stderr.write(`step ${step}${of}: loss ${short(loss)}, α ${short(alpha)}, ${short(rate)} steps/s${left}\n`);
    written = performance.now();
    pending = undefined;
  };
  return {
    update(standing) {
      pending = standing;
      if (performance.now() - written >= LINE_MS) write(standing);
    },
    say: (line) => process.stderr.write(`${line}\n`),
    stop() {
      if (pending !== undefined) write(pending);
    },
  };
}

/** The display for a run of `total` steps (undefined: not known beforehand), of which `first` are done already. */
export function progressFor(option: ProgressOption, total: number | undefined, first: number): Progress {
  if (option === false) return SILENT;
  const wantsBar = option === "bar" || (option === true && process.stderr.isTTY === true);
  return wantsBar && total !== undefined ? bar(total, first) : lines(total, first);
}
