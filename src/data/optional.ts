/**
 * Packages that some readers stand on, and that only their users install (`peerDependencies`, optional): loaded at the first
 * call, with an error that says what to install.
 */
import { RaphsonError } from "../errors";

/** What `load` imports; a RaphsonError with the command that installs `name` where it is not there. */
export async function optionalPackage<T>(op: string, name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new RaphsonError(
      "FILE",
      op,
      `needs the package ${name}, which cannot be loaded (${reason}); run: npm install ${name}`,
      { cause },
    );
  }
}

/** A RaphsonError of the code FILE around what a library or the system threw over a file. */
export function fileError(op: string, path: string, cause: unknown): RaphsonError {
  if (cause instanceof RaphsonError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new RaphsonError("FILE", op, `cannot read ${path}: ${reason}`, { cause });
}
