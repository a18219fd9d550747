/**
 * Who owns a tensor's memory: scopes that free what was made inside them (`tidy`), and the garbage collector as the
 * backstop. Scopes follow `await` through AsyncLocalStorage. Nothing here computes.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { type Handle, native } from "./native";
import { checkFunction } from "./tensor/validate";
import { type ReadonlyTensors, tensorsIn } from "./tree";

/** What a scope needs of a tensor. */
export interface Owned {
  readonly isDisposed: boolean;
  /** Gives up the handle, without telling the addon: the caller frees it. 0 when there was none left. */
  release(reason: string): Handle;
}

class Scope {
  readonly owned = new Set<Owned>();

  /** Frees everything except `kept`, in one native call. */
  close(kept: ReadonlySet<Owned>): void {
    const handles: Handle[] = [];
    for (const owned of this.owned) {
      if (kept.has(owned)) continue;
      const handle = owned.release("its tidy scope, or the transform it was made in, has ended");
      if (handle !== 0) handles.push(handle);
    }
    this.owned.clear();
    if (handles.length > 0) disposeHandles(handles);
  }
}

const scopes = new AsyncLocalStorage<Scope | undefined>();
const backstop = new FinalizationRegistry<Handle>((handle) => native.dispose([handle]));

/** Takes charge of a new tensor: its scope frees it, or in the end the collector does. */
export function adopt(tensor: Owned, handle: Handle): void {
  backstop.register(tensor, handle, tensor);
  scopes.getStore()?.owned.add(tensor);
}

/** The collector need not watch over `tensor` any more: its handle has been released. */
export function forget(tensor: Owned): void {
  backstop.unregister(tensor);
  scopes.getStore()?.owned.delete(tensor);
}

/** Frees handles that no tensor holds any more. */
export function disposeHandles(handles: Handle[]): void {
  native.dispose(handles);
}

/** Runs `fn` outside every scope: what it makes lives until it is disposed of or collected. */
export function untracked<R>(fn: () => R): R {
  checkFunction("untracked", fn);
  return scopes.run(undefined, fn);
}

/**
 * Takes the tensors in `tree` out of the scope they belong to, so that they outlive it; returns the tree.
 * For caches that are filled inside a `tidy` or a transform.
 */
export function keep<T>(tree: T): T {
  const scope = scopes.getStore();
  if (scope !== undefined) for (const tensor of tensorsIn(tree)) scope.owned.delete(tensor);
  return tree;
}

/**
 * Calls `fn`, then frees every tensor made during the call except those in what it returns (any tree of tensors).
 * Works across `await` when `fn` is async. Scopes nest: survivors belong to the scope around.
 *
 * ```ts
 * import { arange, tidy } from "raphson";
 *
 * const total = tidy(() => arange(10).mul(2).sum());   // the two intermediate tensors are gone
 * console.log(total.item());
 * ```
 */
export function tidy<R>(fn: () => R): R {
  checkFunction("tidy", fn);
  const outer = scopes.getStore();
  const scope = new Scope();
  const finish = (result: unknown): void => {
    const kept = new Set<Owned>(tensorsIn(result));
    if (outer !== undefined) for (const tensor of kept) if (scope.owned.has(tensor)) outer.owned.add(tensor);
    scope.close(kept);
  };
  let result: R;
  try {
    result = scopes.run(scope, fn);
  } catch (error) {
    scope.close(new Set());
    throw error;
  }
  if (isPromise(result)) {
    return result.then(
      (value) => {
        finish(value);
        return value;
      },
      (error: unknown) => {
        scope.close(new Set());
        throw error;
      },
    ) as R;
  }
  finish(result);
  return result;
}

/** Frees the memory of every tensor in `trees`; tensors that are disposed of already are left alone. */
export function dispose(...trees: ReadonlyTensors[]): void {
  const handles: Handle[] = [];
  for (const tensor of new Set(tensorsIn(trees))) {
    const handle = tensor.isDisposed ? 0 : tensor.release("dispose was called");
    if (handle !== 0) handles.push(handle);
  }
  if (handles.length > 0) disposeHandles(handles);
}

/** What the session holds, and where: live tensors and bytes, pooled bytes, cached programs and how often they were found, runs. */
export interface Stats {
  /** The device, as `deviceInfo().spec` has it. */
  readonly device: string;
  readonly tensors: number;
  readonly liveBytes: number;
  readonly pooledBytes: number;
  readonly programs: number;
  readonly programHits: number;
  readonly programMisses: number;
  readonly runs: number;
}

/**
 * Counts of what this thread's session holds and has done.
 *
 * ```ts
 * import { stats, zeros } from "raphson";
 *
 * const before = stats().tensors;
 * const t = zeros([4]);
 * console.log(stats().tensors - before);   // 1
 * t.dispose();
 * ```
 */
export function stats(): Stats {
  return native.stats();
}

/** Resolves when all queued work has run; rejects with its error if some of it failed. */
export function synchronize(): Promise<void> {
  return native.synchronize();
}

function isPromise(value: unknown): value is Promise<unknown> {
  return value instanceof Promise;
}
