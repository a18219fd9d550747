/** The RaphsonError that a function throws; anything else that happens fails the test. */
import { RaphsonError } from "raphson";

export function thrown(run: () => unknown): RaphsonError {
  try {
    run();
  } catch (error) {
    if (error instanceof RaphsonError) return error;
    throw error;
  }
  throw new Error("nothing thrown");
}
