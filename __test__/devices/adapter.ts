/** Which adapter of wgpu this machine has. */
import { probeDevices } from "../../src/device";

const probe = probeDevices("cpu").probes.find(({ spec }) => spec.startsWith("wgpu"));

/** Whether wgpu can be asked for here, be it a software renderer; and a title's end that says so, or why not. */
export const wgpu =
  probe === undefined || probe.spec === "wgpu"
    ? { there: false, title: `skipped: ${probe?.reason ?? "no wgpu in the list"}` }
    : { there: true, title: probe.name };
