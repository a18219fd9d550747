/** What both benchmarks are told on the command line, and the start of all their peers. */
import { parseArgs } from "node:util";
import { OURS, OWN_PYTHON, PEERS, Peer, type PeerName, type PeerOptions } from "./peer";

export interface Options<Name extends string = string> extends PeerOptions {
  readonly json: boolean;
  readonly rounds: number;
  readonly burstMs: number;
  /** Seconds after which a peer that has not finished its first steps is given up. */
  readonly patienceS: number;
  /** What to measure. */
  readonly only: readonly Name[];
  readonly peers: readonly PeerName[];
  /** Filled in as peers start. */
  readonly versions: Record<string, string>;
}

function listOf<Name extends string>(flag: string, text: string | undefined, all: readonly Name[]): readonly Name[] {
  if (text === undefined) return all;
  if (text === "none") return [];
  const wanted = text.split(",");
  const unknown = wanted.filter((name) => !(all as readonly string[]).includes(name));
  if (unknown.length > 0) throw new Error(`--${flag} knows ${all.join(", ")}; not ${unknown.join(", ")}`);
  return all.filter((name) => wanted.includes(name));
}

function countOf(flag: string, text: string): number {
  const value = Number(text);
  if (!(Number.isSafeInteger(value) && value >= 1)) throw new Error(`--${flag} must be a whole number of at least 1`);
  return value;
}

/** The options; `all` is what `--only` chooses from, `peers` what `--peers` does. */
export function readOptions<Name extends string>(
  all: readonly Name[],
  peers: readonly (typeof PEERS)[number][] = PEERS,
): Options<Name> {
  const { values } = parseArgs({
    options: {
      json: { type: "boolean", default: false },
      only: { type: "string" },
      peers: { type: "string" },
      rounds: { type: "string", default: "15" },
      "burst-ms": { type: "string", default: "150" },
      "patience-s": { type: "string", default: "60" },
      threads: { type: "string", default: "2" },
      python: { type: "string", default: OWN_PYTHON },
    },
  });
  return {
    json: values.json,
    rounds: countOf("rounds", values.rounds),
    burstMs: countOf("burst-ms", values["burst-ms"]),
    patienceS: countOf("patience-s", values["patience-s"]),
    threads: countOf("threads", values.threads),
    python: values.python,
    only: listOf("only", values.only, all),
    peers: [OURS, ...listOf("peers", values.peers, peers)],
    versions: {},
  };
}

/** Starts all peers; those that cannot start are in `failures` with their reasons. */
export async function startAll(options: Options): Promise<{ peers: Peer[]; failures: Map<PeerName, string> }> {
  const peers: Peer[] = [];
  const failures = new Map<PeerName, string>();
  for (const name of options.peers) {
    try {
      const [peer, version] = await Peer.start(name, options);
      peers.push(peer);
      options.versions[name] = version;
    } catch (error) {
      failures.set(name, error instanceof Error ? error.message : String(error));
    }
  }
  return { peers, failures };
}
