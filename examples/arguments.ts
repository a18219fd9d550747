/** What the examples share about the command line: numbers out of strings, choices, devices, and errors people can read. */
import { type DeviceInfo, type DeviceSpec, RaphsonError, setDevice } from "../src";

/** A mistake on the command line; shown without a stack trace. */
export class UsageError extends Error {}

/** A number from an option's text, between limits. */
export function numberOf(name: string, text: string, low: number, high = Number.POSITIVE_INFINITY): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (value >= low && value <= high) return value;
  const range = high === Number.POSITIVE_INFINITY ? `of at least ${low}` : `between ${low} and ${high}`;
  throw new UsageError(`--${name} must be a number ${range}, not "${text}"`);
}

/** A whole number from an option's text. */
export function countOf(name: string, text: string, low = 1): number {
  const value = numberOf(name, text, low);
  if (Number.isSafeInteger(value)) return value;
  throw new UsageError(`--${name} must be a whole number, not "${text}"`);
}

/** The learning rate to start from; not given, the rule's own. */
export function alphaOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : numberOf("alpha", text, Number.MIN_VALUE, 1e6);
}

/** One of several words. */
export function choiceOf<T extends string>(name: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((word) => word === text);
  if (choice !== undefined) return choice;
  throw new UsageError(`--${name} must be one of ${choices.join(", ")}, not "${text}"`);
}

/** Computes on the device that an option names, and says which it is. */
export function useDevice(name: string, text: string): DeviceInfo {
  try {
    const device = setDevice(text as DeviceSpec); // the addon refuses what is none
    console.log(`device     ${device.spec}, ${device.name} (${device.reason})`);
    return device;
  } catch (error) {
    const isWish = error instanceof RaphsonError && (error.code === "ARGUMENT" || error.code === "DEVICE");
    throw isWish ? new UsageError(`--${name}: ${error.message}`) : error;
  }
}

/** Runs an example; a mistake on the command line ends with its sentence and code 2, any other error with code 1. */
export function runExample(main: () => Promise<void>, usage: string): void {
  main().catch((error: unknown) => {
    const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
    if (error instanceof UsageError || code.startsWith("ERR_PARSE_ARGS")) {
      console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`);
      process.exitCode = 2;
      return;
    }
    console.error(error);
    process.exitCode = 1;
  });
}
