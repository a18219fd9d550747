/**
 * Compiled functions: traced once for each signature of their arguments, then replayed as one program, without any work
 * per operation in JavaScript.
 */

import { type DType, dtypeCode } from "./dtype";
import { argumentError } from "./errors";
import { native } from "./native";
import { withValues } from "./nn/context";
import type { ParameterLike } from "./nn/moduleLike";
import { type AnyTensor, fromHandle, type Shape, type Tensor } from "./tensor";
import { checkFunction, checkOptions } from "./tensor/validate";
import { tidy, untracked } from "./tidy";
import { isTracing, traced } from "./trace";
import { moduleValues } from "./transforms";
import { type Flat, flatten, statesIn } from "./tree";

/** Options of `compile`. */
export interface CompileOptions {
  /** Numbers of arguments whose tensors are given up: their memory is reused for results, and they are disposed of. */
  readonly donate?: readonly number[];
  /** How many signatures to keep programs for (32 unless given); the least recently used goes first. */
  readonly cacheSize?: number;
}

/** A compiled function. */
export interface Compiled<A extends readonly unknown[], R> {
  (...args: A): R;
  /** How many signatures have been traced so far. */
  readonly traces: number;
  /**
   * Sizes of the cached programs, the most recently used last.
   *
   * ```ts
   * import { compile, ones, type Tensor } from "raphson";
   *
   * const f = compile((x: Tensor) => x.add(1), { donate: [0] });
   * f(ones([256]));
   * console.log(f.programs()[0]?.peakBytes);   // 1024: the result stands where the argument stood
   * ```
   */
  programs(): ProgramSize[];
  /** Frees the programs; a later call traces again. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/** The size of a compiled program, as planned before it runs. */
export interface ProgramSize {
  /** Kernels of one run. */
  readonly kernels: number;
  /** Bytes of temporaries: all of them share one arena, by their lifetimes. */
  readonly arenaBytes: number;
  /**
   * Bytes in use while it runs: arguments, results and the arena; a result that takes over a donated argument's memory
   * counts once. What a device's own kernels set aside while they run (a block of an unfolded convolution) is not in it.
   */
  readonly peakBytes: number;
  /** Tensors that a run takes and gives. */
  readonly inputs: number;
  readonly outputs: number;
  /** Nodes of the simplified graph. */
  readonly nodes: number;
}

interface Entry {
  readonly program: number;
  /** What each result is. */
  readonly kinds: readonly { readonly dtype: DType; readonly shape: Shape }[];
  /** The tree that the function returned, with these tensors in it. */
  rebuild(tensors: readonly AnyTensor[]): unknown;
}

/** Frees the programs of compiled functions that nobody disposed of. */
const backstop = new FinalizationRegistry<Map<string, Entry>>(clear);

/**
 * A function that does the same as `f`, as one program for each signature: dtypes and shapes of the tensors in its
 * arguments (trees of them; modules count by their parameters and states) and the values of everything else. `f` itself runs
 * once per signature, so it must not have side effects, and must not read tensors. Tensors that it captures are
 * constants of the program, as they were when it was traced: pass what changes as an argument.
 *
 * ```ts
 * import { compile, ones, type Tensor } from "raphson";
 *
 * const step = compile((state: { w: Tensor; n: Tensor }, rate: number) => ({
 *   w: state.w.sub(state.w.mul(rate)),
 *   n: state.n.add(1),
 * }));
 * let state = { w: ones([3]), n: ones([]) };
 * for (let i = 0; i < 3; i++) state = step(state, 0.5);
 * console.log(state.w.toArray(), step.traces);   // [0.125, 0.125, 0.125] 1
 * ```
 */
export function compile<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  options: CompileOptions = {},
): Compiled<A, R> {
  checkFunction("compile", f);
  checkOptions("compile", options, ["cacheSize", "donate"]);
  const limit = options.cacheSize ?? 32;
  if (!Number.isInteger(limit) || limit < 1)
    throw argumentError("compile", `cacheSize must be an integer ≥ 1, got ${limit}`);
  const donated = new Set(options.donate ?? []);
  const cache = new Map<string, Entry>();
  let traces = 0;

  const call = (...args: A): R => {
    if (isTracing()) return f(...args); // part of a larger graph, which is compiled or differentiated as a whole
    const flat = args.map((arg) => flatten(arg, "compile"));
    const key = signature(flat);
    const found = cache.get(key);
    const entry = found ?? trace(f, flat, donated);
    cache.delete(key); // the last in order is the most recently used
    cache.set(key, entry);
    if (found === undefined) {
      traces++;
      if (cache.size > limit) evict(cache);
    }
    return run(entry, flat, donated) as R;
  };
  const compiled = Object.assign(call, {
    programs: () => [...cache.values()].map(({ program }) => native.programStats(program)),
    dispose: () => clear(cache),
    [Symbol.dispose]: () => clear(cache),
  });
  Object.defineProperty(compiled, "traces", { get: () => traces });
  backstop.register(compiled, cache);
  return compiled as typeof compiled & { readonly traces: number };
}

/** Numbers for objects that stand in a signature by identity. */
const identities = new WeakMap<object, number>();
let lastIdentity = 0;

function signature(args: readonly Flat[]): string {
  return args
    .map((flat) => {
      const tensors = flat.tensors.map((t) => `${t.dtype}[${t.shape.join()}]`).join(";");
      const statics = flat.statics.map(({ value }) => staticKey(value)).join(";");
      const modules = flat.modules.map(({ module }) => staticKey(module)).join(";");
      return `${flat.structure}|${tensors}|${statics}|${modules}`;
    })
    .join("\n");
}

function staticKey(value: unknown): string {
  if ((typeof value === "object" && value !== null) || typeof value === "function") {
    if (ArrayBuffer.isView(value)) {
      throw argumentError("compile", "a typed array among the arguments would be a constant; wrap it in tensor(…)");
    }
    let identity = identities.get(value);
    if (identity === undefined) {
      identity = ++lastIdentity;
      identities.set(value, identity);
    }
    return `#${identity}`;
  }
  return Object.is(value, -0) ? "number:-0" : `${typeof value}:${String(value)}`.replaceAll(/[;|\n\\]/g, "\\$&");
}

/** Runs `f` on placeholders, and makes a program of what it did. */
function trace<A extends readonly unknown[], R>(
  f: (...args: A) => R,
  args: readonly Flat[],
  donated: ReadonlySet<number>,
): Entry {
  return untracked(() =>
    tidy(() =>
      traced(() => {
        const inputs = args.map((flat) => flat.tensors.map(placeholder));
        const states = statesOf(args);
        const stateInputs = states.map((state) => placeholder(state.value));
        const replaced = args.map((flat, i) => flat.rebuild(inputs[i] ?? [], "themselves"));
        const values = new Map([
          ...args.flatMap((flat, i) => [...moduleValues(flat, inputs[i] ?? [])]),
          ...states.map((state, i) => [state, stateInputs[i] as Tensor] as const),
        ]);
        const returned: unknown = withValues(values, {}, () => f(...(replaced as readonly unknown[] as A)));
        if (returned instanceof Promise) throw argumentError("compile", "the function must not be async");
        const result = flatten(returned, "compile");
        // every output is a value of its own, also where the function hands back an argument or the same tensor twice
        const outputs = result.tensors.map((t) => fromHandle(native.alias(t.handle), t.dtype, t.shape));
        const donate = args.flatMap((flat, i) => flat.tensors.map(() => donated.has(i)));
        const program = native.compileProgram([...inputs.flat(), ...stateInputs].map(handleOf), outputs.map(handleOf), [
          ...donate,
          ...states.map(() => false),
        ]);
        // kinds only: tensors in what a scope returns would outlive it
        const kinds = outputs.map(({ dtype, shape }) => ({ dtype, shape }));
        return { program, kinds, rebuild: (tensors: readonly AnyTensor[]) => result.rebuild(tensors, "records") };
      }),
    ),
  );
}

function placeholder({ dtype, shape }: AnyTensor): AnyTensor {
  return fromHandle(native.input(dtypeCode(dtype, "compile"), [...shape]), dtype, shape);
}

/** The states of the modules among the arguments, each once: read anew at every call, like the parameters. */
function statesOf(args: readonly Flat[]): ParameterLike[] {
  return [...new Set(args.flatMap(statesIn))];
}

function run(entry: Entry, args: readonly Flat[], donated: ReadonlySet<number>): unknown {
  const states = statesOf(args).map((state) => state.value);
  const inputs = [...args.flatMap((flat) => flat.tensors), ...states].map(handleOf);
  const handles = native.runProgram(entry.program, inputs);
  args.forEach((flat, i) => {
    if (donated.has(i)) for (const t of flat.tensors) giveUp(t);
  });
  return entry.rebuild(handles.map((handle, i) => fromHandle(handle, entry.kinds[i]?.dtype, entry.kinds[i]?.shape)));
}

function giveUp(tensor: AnyTensor): void {
  const handle = tensor.release("it was donated to a compiled function; use what that returned");
  if (handle !== 0) native.dispose([handle]);
}

function evict(cache: Map<string, Entry>): void {
  for (const [key, { program }] of cache) {
    cache.delete(key);
    native.disposeProgram(program);
    return;
  }
}

function clear(cache: Map<string, Entry>): void {
  for (const { program } of cache.values()) native.disposeProgram(program);
  cache.clear();
}

function handleOf(tensor: AnyTensor): number {
  return tensor.handle;
}
