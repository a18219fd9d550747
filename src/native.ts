/**
 * The only file that touches the addon. It loads the binary at the first call (so that importing the package never
 * fails, and tools can say what is missing), and turns what the addon throws into RaphsonErrors.
 */

import { createRequire } from "node:module";
import type * as Addon from "../native/index.cjs";
import { RaphsonError, translateError } from "./errors";

/** A tensor's number in the addon's table; 0 is never valid. */
export type Handle = number;

export type { AlphaSpec } from "../native/index.cjs";

const NAMES = [
  "deviceInfo",
  "setDevice",
  "probeDevices",
  "stats",
  "synchronize",
  "upload",
  "constant",
  "iota",
  "input",
  "shapeOf",
  "dtypeOf",
  "dispose",
  "clone",
  "elementwise1",
  "elementwise2",
  "elementwise3",
  "elementwiseScalar",
  "cast",
  "reshape",
  "permute",
  "expand",
  "slice",
  "pad",
  "flip",
  "concatenate",
  "reduce",
  "argmax",
  "argsort",
  "dot",
  "attention",
  "conv",
  "gather",
  "scatterAdd",
  "stopGradient",
  "alias",
  "enterTrace",
  "leaveTrace",
  "vjp",
  "jvp",
  "substitute",
  "evaluate",
  "read",
  "readAtOnce",
  "readSync",
  "compileProgram",
  "runProgram",
  "runStep",
  "programStats",
  "disposeProgram",
  "directionOptions",
  "directionInit",
  "directionRecall",
  "directionApply",
  "alphaDefaults",
  "alphaCheck",
  "alphaInit",
  "alphaHeads",
  "alphaBegin",
  "alphaMeasure",
  "alphaFinish",
  "alphaStaying",
  "alphaProbe",
  "alphaRescale",
  "saveSafetensors",
  "loadSafetensors",
  "setAtOnceForTest",
  "panicForTest",
  "loseDeviceForTest",
] as const satisfies readonly (keyof typeof Addon)[];

/** The addon's functions. */
export type Native = Pick<typeof Addon, (typeof NAMES)[number]>;

type Never<T extends never> = T;

/** What the list lacks: this does not compile unless it is nothing but the loader's own mark. */
export type Unlisted = Never<Exclude<keyof typeof Addon, keyof Native | "__napiBindingTarget">>;

/** Where the loader that `napi build` writes is found, from `src/` and from `dist/` alike. */
const LOADER = "../native/index.cjs";

let loaded: Native | undefined;

/** Loads the addon, or throws a RaphsonError (code `ADDON`) that says what was tried and how to build it. */
export function loadAddon(): Native {
  if (loaded !== undefined) return loaded;
  try {
    loaded = createRequire(__filename)(LOADER) as Native; // the boundary: types are those the build wrote beside it
    return loaded;
  } catch (cause) {
    const { platform, arch, versions } = process;
    const tried =
      process.env.NAPI_RS_NATIVE_LIBRARY_PATH ?? `native/index.cjs and the package raphson-${platform}-${arch}`;
    const reason = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
    throw new RaphsonError(
      "ADDON",
      "raphson",
      `the native addon could not be loaded on ${platform} ${arch} (Node ${versions.node}); tried ${tried}: ${reason}. ` +
        "In a checkout, run `npm run setup` (it needs Rust from https://rustup.rs); " +
        "in a project, reinstall raphson with optional dependencies enabled",
      { cause },
    );
  }
}

type AnyFunction = (...values: readonly unknown[]) => unknown;

/** A stand-in for the addon's function `name`: loads the addon when first called, and translates errors. */
function wrapped(name: keyof Native): AnyFunction {
  let target: AnyFunction | undefined;
  const rethrow = (error: unknown): never => {
    throw translateError(error);
  };
  return (...values) => {
    target ??= loadAddon()[name] as AnyFunction;
    try {
      const result = target(...values);
      return result instanceof Promise ? result.catch(rethrow) : result;
    } catch (error) {
      throw translateError(error);
    }
  };
}

/** The addon, with errors as RaphsonErrors. Arguments are not checked here: callers validate numbers first. */
export const native: Native = Object.fromEntries(NAMES.map((name) => [name, wrapped(name)])) as Native;

/** A tensor's bytes: at once where they are there and few, else a promise of them. */
export function readBytes(handle: Handle): Uint8Array | Promise<Uint8Array> {
  return native.readAtOnce(handle) ?? native.read([handle]);
}
