/**
 * Open traces: the brackets around a user's function inside transforms and compile, during which the addon keeps the
 * history of values, so that derivatives and programs can be made of it.
 */

import { native } from "./native";

let depth = 0;

/** Whether a function is being traced right now. */
export function isTracing(): boolean {
  return depth > 0;
}

/** Calls `fn` with a trace open. */
export function traced<R>(fn: () => R): R {
  native.enterTrace();
  depth++;
  try {
    return fn();
  } finally {
    depth--;
    native.leaveTrace();
  }
}
