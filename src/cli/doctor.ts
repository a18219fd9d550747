/** `raphson doctor`: what computes on this machine and why, and whether it computes right. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type DeviceSpec, probeDevices } from "../device";
import { difference, type SelfTest, selfTest } from "./selfTest";

/** Devices agree if nothing differs by more than this; f32 sums in another order do differ. */
const TOLERANCE = 1e-3;
const TIMEOUT_MS = 60_000;
/** The argument by which `doctor` calls itself for one device. */
const CHILD = "self-test";
/** What a child's result begins with, so that what drivers print does not disturb. */
const MARK = "raphson-self-test:";

interface Tested {
  readonly spec: string;
  readonly ok: boolean;
  readonly name?: string;
  readonly stepMs?: number;
  readonly difference?: number;
  readonly error?: string;
}

/** The self-test in a process of its own; rejects with why there is no result. */
function testApart(spec: string): Promise<SelfTest> {
  const program = [...process.execArgv, ...(process.argv[1] === undefined ? [] : [process.argv[1]])];
  return new Promise((resolve, reject) => {
    const options = { timeout: TIMEOUT_MS, maxBuffer: 1 << 24 };
    execFile(process.execPath, [...program, "doctor", CHILD, "--device", spec], options, (error, out, err) => {
      const line = out.split("\n").find((text) => text.startsWith(MARK));
      if (line !== undefined) resolve(JSON.parse(line.slice(MARK.length)));
      else if (error?.killed) reject(new Error(`no result after ${TIMEOUT_MS / 1000} s`));
      else reject(new Error(err.trim().split("\n").at(-1) || error?.message || "the self-test gave no result"));
    });
  });
}

async function test(spec: string, cpu: SelfTest | undefined): Promise<{ tested: Tested; found?: SelfTest }> {
  try {
    const found = await testApart(spec);
    const apart = difference(found, cpu ?? found);
    const falling = (found.losses.at(-1) ?? Number.NaN) < (found.losses[0] ?? Number.NaN);
    const ok = apart <= TOLERANCE && falling;
    const error = falling ? `differs from the cpu by ${apart}` : "the training loss did not fall";
    const { name, stepMs } = found;
    return { tested: { spec, ok, name, stepMs, difference: apart, ...(ok ? {} : { error }) }, found };
  } catch (error) {
    return { tested: { spec, ok: false, error: error instanceof Error ? error.message : String(error) } };
  }
}

function versions() {
  const { version } = JSON.parse(readFileSync(join(__dirname, "../../package.json"), "utf8"));
  const { RAPHSON_DEVICE, RAPHSON_THREADS } = process.env;
  return {
    raphson: version,
    node: process.versions.node,
    platform: process.platform,
    arch: process.arch,
    environment: { RAPHSON_DEVICE, RAPHSON_THREADS },
  };
}

async function examine(spec: DeviceSpec) {
  const { probes, chosen, error } = probeDevices(spec);
  const wanted = probes.filter(({ outcome, spec }) => outcome !== "unusable" && spec !== "cpu").map(({ spec }) => spec);
  const cpu = await test("cpu", undefined);
  const tests = [cpu.tested];
  for (const other of wanted) tests.push((await test(other, cpu.found)).tested);
  return { versions: versions(), request: spec, chosen, error, probes, tests };
}

function show(found: Awaited<ReturnType<typeof examine>>): string {
  const { raphson, node, platform, arch, environment } = found.versions;
  const named = Object.entries(environment).map(([name, value]) => `${name}=${value ?? "(not set)"}`);
  const probes = found.probes.map(
    (probe) => `  ${probe.outcome.padEnd(9)} ${probe.spec.padEnd(7)} ${probe.name}: ${probe.reason}`,
  );
  const tests = found.tests.map(({ spec, ok, name, stepMs, difference, error }) =>
    ok
      ? `  ok      ${spec.padEnd(7)} ${name}: ${stepMs?.toFixed(2)} ms a training step, ${difference?.toExponential(1)} from the cpu`
      : `  FAILED  ${spec.padEnd(7)} ${error}`,
  );
  return [
    `raphson ${raphson}, Node ${node}, ${platform} ${arch}; ${named.join(", ")}`,
    `device  ${found.chosen ?? "none"} for "${found.request}"${found.error === undefined ? "" : `: ${found.error}`}`,
    "found",
    ...probes,
    "tested",
    ...tests,
  ].join("\n");
}

/** Runs the command; gives the exit code: 1 where the cpu or the device asked for fails, or is not there. */
export async function doctor(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { device: { type: "string", default: "auto" }, json: { type: "boolean", default: false } },
  });
  const spec = values.device as DeviceSpec; // the addon refuses what is none
  if (positionals[0] === CHILD) {
    console.log(MARK + JSON.stringify(await selfTest(spec)));
    return 0;
  }
  const found = await examine(spec);
  console.log(values.json ? JSON.stringify(found, null, 2) : show(found));
  // A device that was named must pass too; one that "auto" merely passed over need not.
  const named = spec === "auto" ? [] : found.tests.filter((tested) => tested.spec === found.chosen);
  return found.error === undefined && [found.tests[0], ...named].every((tested) => tested?.ok) ? 0 : 1;
}
