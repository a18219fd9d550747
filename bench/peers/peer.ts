/** The processes that are measured: how each is started, and the conversation with it. What is asked stands with the benchmarks. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";

export const OURS = "raphson";
export const PEERS = ["torch_eager", "torch_compile", "jax", "tfjs_wasm", "jaxjs"] as const;
export type PeerName = typeof OURS | (typeof PEERS)[number];

/** Lines of standard error that are kept for a message about a peer that ended. */
const KEPT_LINES = 20;

const python = (environment: string) =>
  join(environment, ...(process.platform === "win32" ? ["Scripts", "python.exe"] : ["bin", "python"]));
const inFolder = (name: string) => join(__dirname, name);

/** The Python that `npm run bench:peers:install` makes, unless `--python` names another. */
export const OWN_PYTHON = python(inFolder(".venv"));

export interface PeerOptions {
  readonly threads: number;
  readonly python: string;
}

interface Start {
  readonly command: string;
  readonly args: readonly string[];
  /** A file without which the peer is not installed. */
  readonly needs: string;
}

function startOf(name: PeerName, options: PeerOptions): Start {
  const script = (file: string, mode: string): Start => {
    const args = [inFolder(file), mode, String(options.threads)];
    return { command: options.python, args, needs: options.python };
  };
  const node = (file: string, needs: string): Start => ({
    command: process.execPath,
    args: ["--expose-gc", inFolder(file)],
    needs: inFolder(`javascript/node_modules/${needs}/package.json`),
  });
  switch (name) {
    case "raphson": {
      const tsNode = join(__dirname, "../../node_modules/ts-node/dist/bin.js");
      const args = ["--expose-gc", tsNode, "--transpile-only", inFolder("raphson_peer.ts")];
      return { command: process.execPath, args, needs: tsNode };
    }
    case "torch_eager":
      return script("torch_peer.py", "eager");
    case "torch_compile":
      return script("torch_peer.py", "compile");
    case "jax":
      return script("jax_peer.py", "jit");
    case "tfjs_wasm":
      return node("tfjs_peer.mjs", "@tensorflow/tfjs-backend-wasm");
    case "jaxjs":
      return node("jaxjs_peer.mjs", "@jax-js/jax");
  }
}

type Answer = Readonly<Record<string, unknown>>;

/** A running peer. One question at a time. */
export class Peer {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;
  readonly #complaints: string[] = [];

  private constructor(
    readonly name: PeerName,
    options: PeerOptions,
  ) {
    const { command, args, needs } = startOf(name, options);
    if (!existsSync(needs)) throw new Error("not installed; run npm run bench:peers:install");
    const threads = String(options.threads);
    const env = { ...process.env, RAPHSON_THREADS: threads, RAPHSON_DEVICE: "cpu", OMP_NUM_THREADS: threads };
    this.#process = spawn(command, args, { env });
    this.#process.on("error", (error) => this.#complaints.push(error.message));
    this.#process.stdin.on("error", () => undefined); // it ended; the missing answer says so
    this.#reader = createInterface({ input: this.#process.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
    createInterface({ input: this.#process.stderr }).on("line", (line) => {
      if (process.env.RAPHSON_PROFILE === "1" && name === OURS) console.error(line);
      this.#complaints.push(line);
      if (this.#complaints.length > KEPT_LINES) this.#complaints.shift();
    });
  }

  /** Starts a peer; the second is its version. */
  static async start(name: PeerName, options: PeerOptions): Promise<[peer: Peer, version: string]> {
    const peer = new Peer(name, options);
    try {
      const { version } = await peer.#answer();
      return [peer, String(version)];
    } catch (error) {
      await peer.end();
      throw error;
    }
  }

  /** Asks, and waits for the answer. Throws what the peer calls an error. */
  ask(request: Answer): Promise<Answer> {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    return this.#answer();
  }

  /** The same for an answer that is a number by this name. */
  async number(request: Answer, name: string): Promise<number> {
    const value = (await this.ask(request))[name];
    if (typeof value !== "number") throw new Error(`${this.name} answered no ${name}`);
    return value;
  }

  async #answer(): Promise<Answer> {
    const { value, done } = await this.#lines.next();
    if (done === true) {
      const last = this.#complaints.filter((line) => line.trim() !== "").at(-1);
      throw new Error(`the process ended: ${last ?? "without a word"}`);
    }
    const answer = JSON.parse(value) as Answer;
    if (typeof answer.error === "string") throw new Error(answer.error);
    return answer;
  }

  /** Ends the process and waits until it is gone. */
  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null || this.#process.pid === undefined) return;
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    const late = setTimeout(() => this.#process.kill("SIGKILL"), 10_000);
    await gone;
    clearTimeout(late);
    this.#reader.close();
  }
}
