/** The compiled programs of each kind of batch, by name; each is compiled when it is needed first. */
import { native } from "../native";
import { untracked } from "../tidy";
import type { Subject } from "./trace";

export interface Programs {
  readonly subject: Subject;
  readonly compiled: Map<string, number>;
}

export function programOf(programs: Programs, name: string, compile: () => number): number {
  const known = programs.compiled.get(name);
  if (known !== undefined) return known;
  const program = untracked(compile);
  programs.compiled.set(name, program);
  return program;
}

/** Kinds of batches that programs are kept for. */
const MAX_SIGNATURES = 16;

/** The programs of the newest kinds of batches, by the batches' signatures; those used longest ago make room. */
export class KindsOfBatches {
  readonly #known = new Map<string, Programs>();

  get size(): number {
    return this.#known.size;
  }

  all(): Programs[] {
    return [...this.#known.values()];
  }

  /** The programs for this kind of batch; `subject` says what they are about, where it is a new one. */
  of(signature: string, subject: () => Subject): Programs {
    const known = this.#known.get(signature);
    if (known !== undefined) {
      this.#known.delete(signature); // last in the map: used most recently
      this.#known.set(signature, known);
      return known;
    }
    const programs: Programs = { subject: subject(), compiled: new Map() };
    this.#known.set(signature, programs);
    const [oldest] = this.#known;
    if (this.#known.size > MAX_SIGNATURES && oldest !== undefined) {
      this.#known.delete(oldest[0]);
      disposePrograms(oldest[1]);
    }
    return programs;
  }

  /** Frees them all. */
  clear(): void {
    for (const programs of this.#known.values()) disposePrograms(programs);
    this.#known.clear();
  }
}

function disposePrograms(programs: Programs): void {
  for (const program of programs.compiled.values()) native.disposeProgram(program);
}
