/**
 * Devices in processes of their own: the same training on cpu and wgpu, a lost device, a machine without drivers,
 * RAPHSON_DEVICE and `raphson doctor`. What needs an adapter of wgpu is skipped where there is none, and says why.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { wgpu } from "./devices/adapter";
import { child, node } from "./devices/apart";

/** Kernels of a software renderer take their time to compile, the more so beside other tests. */
const MINUTES = { timeout: 5 * 60_000 };
const STEPS = "50";

interface Curve {
  readonly losses: readonly number[];
  readonly alphas: readonly number[];
}

interface Curves {
  readonly device: string;
  readonly curves: readonly Curve[];
  readonly probes: Report["probes"];
}

describe("wgpu beside cpu", () => {
  const settings = ["adamW:1e-3", "adamW:1e-6", "momentum:1e-6"];
  it.skipIf(!wgpu.there)(`has the same losses, and is silent without a desktop (${wgpu.title})`, MINUTES, async () => {
    const nothing = { XDG_RUNTIME_DIR: undefined, WAYLAND_DISPLAY: undefined, DISPLAY: undefined };
    const on = (device: string) => child<Curves>(["curves", device, STEPS, ...settings], nothing);
    const [cpu, other] = await Promise.all([on("cpu"), on("wgpu")]);
    expect([cpu.device, other.device]).toEqual(["cpu", "wgpu:0"]);
    expect(other.err).toBe("");
    for (const [index, setting] of settings.entries()) sameCurve(setting, cpu.curves[index], other.curves[index]);
  });
});

function sameCurve(setting: string, cpu: Curve | undefined, other: Curve | undefined): void {
  expect(cpu?.losses, setting).toHaveLength(Number(STEPS));
  const apart = cpu?.losses.map((loss, step) => Math.abs((other?.losses[step] ?? Number.NaN) - loss) / loss) ?? [];
  const worst = Math.max(...apart);
  expect(worst, `${setting}, worst at step ${apart.indexOf(worst)}`).toBeLessThan(1e-3);
  // The rate left its start, and that was of use.
  expect(Math.max(...(other?.alphas ?? [])), setting).toBeGreaterThan(10 * Number(setting.split(":")[1]));
  expect(other?.losses.at(-1), setting).toBeLessThan(0.8 * (other?.losses[0] ?? 0));
}

describe("a lost device", () => {
  it.skipIf(!wgpu.there)(`is a typed error, and the process goes on (${wgpu.title})`, MINUTES, async () => {
    interface Lost {
      readonly before: number;
      readonly errors: Readonly<Record<string, { code: string; message: string } | string>>;
      readonly worker: Curves;
    }
    const { before, errors, worker } = await child<Lost>(["lose", "wgpu"]);
    expect(before).toBeGreaterThan(0);
    expect(Object.keys(errors)).toEqual(["step", "read", "readSync", "upload"]);
    for (const error of Object.values(errors)) {
      expect(error).toMatchObject({ code: "DEVICE", message: expect.stringContaining("the device was lost") });
    }
    expect(worker.curves[0]?.losses).toHaveLength(3);
  });
});

/** What `doctor --json` prints. */
interface Report {
  readonly request: string;
  readonly chosen?: string;
  readonly error?: string;
  readonly versions: { readonly environment: Readonly<Record<string, string>> };
  readonly probes: readonly { spec: string; outcome: string; reason: string }[];
  readonly tests: readonly { spec: string; ok: boolean; error?: string; difference?: number }[];
}

async function doctor(args: readonly string[], environment = {}): Promise<Report & { code: number; err: string }> {
  const { out, err, code } = await node(["bin/raphson.cjs", "doctor", "--json", ...args], environment);
  if (!out.startsWith("{")) throw new Error(`no report, code ${code}: ${err || out}`);
  return { ...JSON.parse(out), code, err };
}

describe("raphson doctor", () => {
  it("says what there is, and tests the cpu", MINUTES, async () => {
    const { chosen, error, probes, tests, code } = await doctor(["--device", "cpu"]);
    expect({ chosen, error, code }).toEqual({ chosen: "cpu", error: undefined, code: 0 });
    expect(probes.at(-1)).toMatchObject({ spec: "cpu", outcome: "taken", reason: "it was asked for" });
    expect(tests[0]).toMatchObject({ spec: "cpu", ok: true, difference: 0 });
  });

  it("fails where the device asked for is not there", MINUTES, async () => {
    const { chosen, error, code } = await doctor(["--device", "cuda:99"]);
    expect(chosen).toBeUndefined();
    expect(error).toMatch(/DEVICE|driver|GPU/);
    expect(code).toBe(1);
    const wrong = await node(["bin/raphson.cjs", "doctor", "--fast"]);
    expect([wrong.code, wrong.err.includes("Usage:")]).toEqual([2, true]);
  });

  it.skipIf(!wgpu.there)(`heeds RAPHSON_DEVICE=wgpu:0, and tests it (${wgpu.title})`, MINUTES, async () => {
    const { chosen, probes, tests, versions, code, err } = await doctor([], { RAPHSON_DEVICE: "wgpu:0" });
    expect({ chosen, code, err }).toEqual({ chosen: "wgpu:0", code: 0, err: "" });
    expect(versions.environment.RAPHSON_DEVICE).toBe("wgpu:0");
    const probe = probes.find(({ spec }) => spec === "wgpu:0");
    expect(probe).toMatchObject({ outcome: "taken", reason: "RAPHSON_DEVICE asks for it" });
    expect(tests.map(({ spec, ok }) => [spec, ok])).toContainEqual(["wgpu:0", true]);
  });
});

describe("a machine without GPU drivers", () => {
  let folder = "";
  let hidden = {};
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "raphson-no-driver-"));
    // The loader takes the first file of a name, and these are no libraries. Vulkan's loader is hidden too, and so are the
    // drivers that it would find, in both of its variables; GL's and EGL's libraries are hidden lest they be asked instead.
    const names = ["libcuda.so", "libcuda.so.1", "libnvcuda.so", "libvulkan.so", "libvulkan.so.1"];
    for (const name of [...names, "libEGL.so.1", "libEGL.so", "libGL.so.1"]) await writeFile(join(folder, name), "");
    const nothing = join(folder, "nothing.json");
    hidden = { LD_LIBRARY_PATH: folder, VK_DRIVER_FILES: nothing, VK_ICD_FILENAMES: nothing };
  });
  afterAll(() => rm(folder, { recursive: true }));

  const linux = process.platform === "linux";
  const only = linux ? "" : " (skipped: it hides libraries in the way of Linux)";

  it.skipIf(!linux)(`trains on the cpu, and says why no GPU is used${only}`, MINUTES, async () => {
    const { device, curves, probes, err } = await child<Curves>(["curves", "auto", STEPS, "adamW:1e-3"], hidden);
    expect({ device, err }).toEqual({ device: "cpu", err: "" });
    const [curve] = curves;
    expect(curve?.losses.at(-1)).toBeLessThan(curve?.losses[0] ?? 0);
    expect(probes.map(({ spec, outcome }) => [spec, outcome])).toEqual([
      ["cuda", "unusable"],
      ["wgpu", "unusable"],
      ["cpu", "taken"],
    ]);
    expect(probes[0]?.reason).toMatch(/libcuda cannot be loaded/);
    expect(probes[1]?.reason).toMatch(/no graphics adapter was found/);
  });

  it.skipIf(!linux)(`finds no adapter either where Vulkan has a loader but no driver${only}`, MINUTES, async () => {
    const { LD_LIBRARY_PATH: _, ...drivers } = hidden as Record<string, string>;
    const { probes } = await child<Pick<Report, "probes">>(["probe"], drivers);
    expect(probes.filter(({ spec }) => spec.startsWith("wgpu"))).toMatchObject([{ spec: "wgpu", outcome: "unusable" }]);
  });
});
