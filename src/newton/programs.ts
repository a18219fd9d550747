/** The compiled programs of one kind of batch, by name; each is compiled when it is needed first. */
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

export function disposePrograms(programs: Programs): void {
  for (const program of programs.compiled.values()) native.disposeProgram(program);
}
