/**
 * What the JavaScript peers share: the conversation with the benchmark (as in `protocol.py`), memory, and reading a workload's
 * file. Models stand elsewhere.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** Megabytes of a field of /proc/self/status; undefined where there is no /proc. */
function statusMb(field) {
  if (!existsSync("/proc/self/status")) return undefined;
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(readFileSync("/proc/self/status", "utf8"));
  if (found === null) throw new Error(`no ${field} in /proc/self/status`);
  return Number(found[1]) / 1024;
}

/** Lets go of what loading modules left behind, so that it is not taken for the model's memory. */
async function settle() {
  for (let turn = 0; turn < 4; turn++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The arrays of a workload's file by their descriptions. */
export function openFile(path) {
  const { buffer, byteOffset } = readFileSync(path);
  return ({ shape, offset, dtype }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    const bytes = buffer.slice(byteOffset + offset, byteOffset + offset + 4 * size);
    return dtype === "f32" ? new Float32Array(bytes) : new Int32Array(bytes);
  };
}

/** Answers requests until the input ends. `loadStep(workload)` gives `step()` → a loss not waited for, and `wait(loss)`. */
export async function serve(version, loadStep, loadOp) {
  let subject;
  const reply = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
  const answers = {
    async load({ workload }) {
      await settle();
      const before = statusMb("VmRSS");
      const start = performance.now();
      subject = await loadStep(workload);
      const loss = await subject.wait(await subject.step());
      return { loss, first_ms: performance.now() - start, rss_before_mb: before, plan: subject.plan?.() };
    },
    async steps({ count }) {
      const losses = [];
      for (let index = 0; index < count; index++) losses.push(await subject.wait(await subject.step()));
      return { losses };
    },
    async burst({ count }) {
      await subject.wait(await subject.step());
      const start = performance.now();
      let loss;
      for (let index = 0; index < count; index++) loss = await subject.step(loss);
      await subject.wait(loss);
      return { ms: performance.now() - start };
    },
    async memory({ count }) {
      writeFileSync("/proc/self/clear_refs", "5"); // forgets the highest resident size so far
      for (let index = 0; index < count; index++) await subject.wait(await subject.step());
      return { peak_mb: statusMb("VmHWM") };
    },
    async op({ op, arrays, file }) {
      const read = openFile(file);
      subject = await loadOp(
        op,
        arrays.map((entry) => ({ ...entry, values: read(entry) })),
      );
      await subject.run();
      return { sums: await subject.sums() };
    },
    async turns({ count }) {
      await subject.run();
      await subject.wait();
      const start = performance.now();
      for (let index = 0; index < count; index++) await subject.run();
      await subject.wait();
      return { ms: performance.now() - start };
    },
  };
  reply({ version });
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    try {
      reply(await answers[request.do](request));
    } catch (error) {
      console.error(error);
      reply({ error: String(error instanceof Error ? error.message : error).split("\n")[0] });
    }
  }
}
