/**
 * Trees of tensors: nested arrays and plain objects whose leaves are tensors, modules (which stand for their
 * parameters), and anything else (which is left as it is). Flattening and putting together again, with exact types.
 */

import { argumentError } from "./errors";
import type { Parameters } from "./nn/module";
import { isModule, type ModuleLike, type ParameterLike } from "./nn/moduleLike";
import { type AnyTensor, Tensor } from "./tensor";

/** Anything that may hold tensors for `dispose` and its like. */
export type ReadonlyTensors = AnyTensor | ModuleLike | readonly ReadonlyTensors[] | { readonly [key: string]: unknown };

/** The tree of gradients for a tree of parameters: the same type, where a module becomes its parameters by name. */
export type GradientOf<T> = T extends AnyTensor
  ? T
  : T extends ModuleLike
    ? Parameters
    : T extends readonly unknown[] | object
      ? { [K in keyof T]: GradientOf<T[K]> }
      : T;

/** The same tree, with every tensor in it of unknown dtype: what `like` arguments take. */
export type LeafPath = readonly (string | number)[];

/** A tree taken apart: its tensors in order, and what is needed to put a like tree together. */
export interface Flat {
  /** The tensors, in order of first visit. */
  readonly tensors: readonly AnyTensor[];
  /** Where each tensor stands, as text for messages: `.layers[0].weight`. */
  readonly paths: readonly string[];
  /** The modules met, in order. */
  readonly modules: readonly ModuleNode[];
  /** The leaves that are neither tensor nor container. */
  readonly statics: readonly { readonly path: string; readonly value: unknown }[];
  /** The structure without the leaves, for comparing. */
  readonly structure: string;
  /** A tree of the same structure with other tensors; modules become records of parameters, or stay themselves. */
  rebuild(tensors: readonly AnyTensor[], modules: "records" | "themselves"): unknown;
}

/** A module in a tree: its parameters are among the tensors, from `first` on; those met before are left out. */
export interface ModuleNode {
  readonly module: ModuleLike;
  /** Where the module stands, as `paths` has it; empty at the root. */
  readonly path: string;
  readonly first: number;
  readonly names: readonly string[];
  readonly parameters: readonly ParameterLike[];
}

type Node =
  | { readonly kind: "tensor"; readonly index: number }
  | ({ readonly kind: "module" } & ModuleNode)
  | { readonly kind: "array"; readonly items: readonly Node[] }
  | { readonly kind: "object"; readonly entries: readonly (readonly [string, Node])[] }
  | { readonly kind: "static"; readonly value: unknown };

/** Takes a tree apart. Cycles are an error; a class instance that is not a module is a static leaf. */
export function flatten(tree: unknown, op: string): Flat {
  const tensors: AnyTensor[] = [];
  const paths: string[] = [];
  const modules: ModuleNode[] = [];
  const met = new Set<ParameterLike>();
  const statics: { path: string; value: unknown }[] = [];
  const shape: string[] = [];
  const above = new Set<unknown>();

  const visit = (value: unknown, path: string): Node => {
    if (value instanceof Tensor) {
      shape.push("t");
      paths.push(path);
      return { kind: "tensor", index: tensors.push(value) - 1 };
    }
    if (isModule(value)) {
      const named = value.namedParameters().filter(([, parameter]) => !met.has(parameter));
      const [names, parameters] = [named.map(([name]) => name), named.map(([, parameter]) => parameter)];
      const node = { module: value, path, first: tensors.length, names, parameters };
      for (const [name, parameter] of named) {
        met.add(parameter);
        tensors.push(parameter.value);
        paths.push(`${path}.${name}`);
      }
      modules.push(node);
      shape.push(`m${named.length}`);
      return { kind: "module", ...node };
    }
    if (!Array.isArray(value) && !isPlainObject(value)) {
      shape.push("s");
      statics.push({ path, value });
      return { kind: "static", value };
    }
    if (above.has(value)) throw argumentError(op, `the tree contains itself at ${path || "its root"}`);
    above.add(value);
    const node: Node = Array.isArray(value)
      ? visitArray(value, path)
      : { kind: "object", entries: visitObject(value, path) };
    above.delete(value);
    return node;
  };
  const visitArray = (value: readonly unknown[], path: string): Node => {
    shape.push("[");
    const items = value.map((item, i) => visit(item, `${path}[${i}]`));
    shape.push("]");
    return { kind: "array", items };
  };
  const visitObject = (value: Readonly<Record<string, unknown>>, path: string): (readonly [string, Node])[] => {
    shape.push("{");
    const entries = Object.keys(value).map((key) => {
      shape.push(JSON.stringify(key));
      return [key, visit(value[key], `${path}.${key}`)] as const;
    });
    shape.push("}");
    return entries;
  };

  const root = visit(tree, "");
  return {
    tensors,
    paths,
    modules,
    statics,
    structure: shape.join(""),
    rebuild: (leaves, how) => build(root, leaves, how),
  };
}

function build(node: Node, leaves: readonly AnyTensor[], modules: "records" | "themselves"): unknown {
  switch (node.kind) {
    case "tensor":
      return leaves[node.index];
    case "module":
      if (modules === "themselves") return node.module;
      return Object.fromEntries(node.names.map((name, i) => [name, leaves[node.first + i]]));
    case "array":
      return node.items.map((item) => build(item, leaves, modules));
    case "object":
      return Object.fromEntries(node.entries.map(([key, child]) => [key, build(child, leaves, modules)]));
    case "static":
      return node.value;
  }
}

/** The states of the modules in a tree, each once. */
export function statesIn({ modules }: Flat): ParameterLike[] {
  return [...new Set(modules.flatMap(({ module }) => module.namedStates().map(([, state]) => state)))];
}

/** The tensors in a tree, in order, without taking it apart; modules contribute the parameters that exist already. */
export function tensorsIn(tree: unknown): AnyTensor[] {
  const found: AnyTensor[] = [];
  const seen = new Set<unknown>();
  const visit = (value: unknown): void => {
    if (value instanceof Tensor) {
      found.push(value);
      return;
    }
    if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return;
    seen.add(value);
    if (isModule(value)) {
      for (const [, parameter] of [...value.namedParameters(), ...value.namedStates()]) {
        const tensor = parameter.current;
        if (tensor !== undefined) found.push(tensor);
      }
    } else if (Array.isArray(value)) {
      for (const item of value) visit(item);
    } else if (isPlainObject(value)) {
      for (const key of Object.keys(value)) visit(value[key]);
    } else if (value instanceof Map) {
      for (const item of value.values()) visit(item);
    }
  };
  visit(tree);
  return found;
}

/** Applies `fn` to every tensor of `tree`, leaf by leaf; modules become records of parameters by name. */
export function mapTree<T>(tree: T, fn: (tensor: AnyTensor, path: string) => AnyTensor): GradientOf<T> {
  const flat = flatten(tree, "mapTree");
  const mapped = flat.tensors.map((tensor, i) => fn(tensor, flat.paths[i] ?? ""));
  return flat.rebuild(mapped, "records") as GradientOf<T>;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
