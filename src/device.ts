/**
 * Which device computes: choosing it, describing it, and what there is to choose from. One thread has one device at a
 * time; the kernels are the addon's matter.
 */

import type { DType, FloatDType } from "./dtype";
import { argumentError } from "./errors";
import { native } from "./native";

/**
 * A device as one asks for it: `cpu`; an NVIDIA GPU, `cuda`; any GPU with a graphics driver (Vulkan, Metal, DirectX 12),
 * `wgpu`; the latter two with a number where there are several. `auto` is the first that works of cuda, wgpu (never a
 * software renderer) and cpu, unless the environment variable `RAPHSON_DEVICE` names one.
 */
export type DeviceSpec = "auto" | "cpu" | "cuda" | "wgpu" | `cuda:${number}` | `wgpu:${number}`;

/** The device of this thread. */
export interface DeviceInfo {
  readonly kind: "cpu" | "cuda" | "wgpu";
  /** What to ask for to get this very device: `cpu`, `cuda:0`. */
  readonly spec: string;
  /** For people: the processor's instruction set, or the GPU. */
  readonly name: string;
  /** Why it is this one. */
  readonly reason: string;
  /** Threads of this process that compute. */
  readonly threads: number;
  /** The dtypes that tensors can have here: wgpu has no f64. */
  readonly dtypes: readonly DType[];
}

/** A device that was looked for. */
export interface DeviceProbe {
  readonly spec: string;
  readonly name: string;
  /** Whether the request comes to this one, or could. */
  readonly outcome: "taken" | "usable" | "unusable";
  readonly reason: string;
}

/** What a machine has, and what a request comes to on it. */
export interface DeviceProbes {
  readonly probes: readonly DeviceProbe[];
  /** The device that the request comes to; not given where there is none. */
  readonly chosen?: string;
  /** Why there is none. */
  readonly error?: string;
}

/**
 * Compute on this device from now on. Call it before the first tensor: tensors stay where they were made. RaphsonErrors:
 * `ARGUMENT` for what is no device; `DEVICE` where it is not there (with what is), or where tensors or compiled functions
 * of this thread are alive on another. `auto` leaves a device that is in use alone.
 *
 * ```ts
 * import { ones, setDevice } from "raphson";
 *
 * const device = setDevice("cpu");
 * console.log(device.name, ones([2]).sum().item());
 * ```
 */
export function setDevice(spec: DeviceSpec): DeviceInfo {
  if (typeof spec !== "string") throw argumentError("device", `expected a name such as "cpu", got ${typeof spec}`);
  native.setDevice(spec);
  return deviceInfo();
}

/**
 * The device of this thread. Where none is in use yet, this opens the one that `auto` comes to.
 *
 * ```ts
 * import { deviceInfo } from "raphson";
 *
 * const { name, reason, dtypes } = deviceInfo();
 * console.log(`${name}: ${reason}; ${dtypes.join(", ")}`);
 * ```
 */
export function deviceInfo(): DeviceInfo {
  const { scalar: _, ...info } = native.deviceInfo();
  return info as DeviceInfo; // the addon's names are those of the types above
}

/**
 * What this machine has, and what `spec` would come to: why each device was taken or passed over. Opens nothing that
 * stays open.
 *
 * ```ts
 * import { probeDevices } from "raphson";
 *
 * for (const { spec, outcome, reason } of probeDevices().probes) console.log(spec, outcome, reason);
 * ```
 */
export function probeDevices(spec: DeviceSpec = "auto"): DeviceProbes {
  return native.probeDevices(spec) as DeviceProbes;
}

/**
 * The dtype of the numbers that control training: f64 where the device has it, else f32.
 *
 * @internal
 */
export function scalarDType(): FloatDType {
  return native.deviceInfo().scalar as FloatDType;
}
