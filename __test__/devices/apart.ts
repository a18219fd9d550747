/** Running node apart, in an environment of its own, and reading what it printed. */
import { execFile } from "node:child_process";
import { join } from "node:path";

export const ROOT = join(__dirname, "../..");
/** What a child's result begins with. */
export const MARK = "raphson-child:";

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Node on these arguments; variables that are undefined are taken away. */
export function node(args: readonly string[], environment: Environment = {}): Promise<Outcome> {
  const env: NodeJS.ProcessEnv = { ...process.env, RAPHSON_DEVICE: undefined, ...environment };
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: ROOT, env, maxBuffer: 1 << 24 }, (error, out, err) => {
      resolve({ code: typeof error?.code === "number" ? error.code : error ? 1 : 0, out, err });
    });
  });
}

/** What a script of the tests prints after the mark, and what it printed as errors. */
export async function script<T>(
  path: string,
  args: readonly string[],
  environment: Environment = {},
): Promise<{ result: T; err: string }> {
  const file = join(ROOT, "__test__", path);
  const { out, err, code } = await node(["-r", "ts-node/register/transpile-only", file, ...args], environment);
  const line = out.split("\n").find((text) => text.startsWith(MARK));
  if (line === undefined || code !== 0) throw new Error(`${args.join(" ")}: no result, code ${code}: ${err || out}`);
  return { result: JSON.parse(line.slice(MARK.length)), err };
}

/** The result of a task of `child.ts`. */
export async function child<T>(args: readonly string[], environment: Environment = {}): Promise<T & { err: string }> {
  const { result, err } = await script<T>("devices/child.ts", args, environment);
  return { ...result, err };
}
