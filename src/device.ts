/**
 * Which device computes.
 */

import { native } from "./native";

/** The device of this thread's session. */
export interface DeviceInfo {
  readonly kind: string;
  readonly name: string;
  readonly threads: number;
}

/** The device that computes: its kind (`cpu`), its name, and how many threads it uses. */
export function deviceInfo(): DeviceInfo {
  return native.deviceInfo();
}
