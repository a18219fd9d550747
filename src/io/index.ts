/**
 * Files of tensors (safetensors). Writing is atomic: to a temporary file in the same folder, then renamed. What is in
 * the file is a flat list of names; a module's `save` and `load` stand on the same format.
 */
import { argumentError } from "../errors";
import { native } from "../native";
import { type AnyTensor, fromHandle } from "../tensor";
import { flatten, type ReadonlyTensors } from "../tree";

/** What a file held. */
export interface Loaded {
  readonly tensors: Readonly<Record<string, AnyTensor>>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** `.layers[0].weight` in a tree is `layers.0.weight` in a file. */
function nameOf(path: string): string {
  return path.replace(/\[(\d+)\]/g, ".$1").replace(/^\./, "") || "tensor";
}

/**
 * Saves the tensors of a tree under their paths (`layers.0.weight`). RaphsonErrors: a tree without tensors, two paths
 * with the same name, a file that cannot be written.
 *
 * @example
 *     await io.save({ weight: ones([2, 3]) }, "weights.safetensors");
 *     const { tensors } = await io.load("weights.safetensors");
 */
export async function save(
  tree: ReadonlyTensors,
  path: string,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { tensors, paths } = flatten(tree, "io.save");
  const names = paths.map(nameOf);
  if (tensors.length === 0) throw argumentError("io.save", "the tree has no tensors");
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw argumentError("io.save", `two tensors of the tree would be named ${twice}; rename one`);
  const handles = tensors.map((tensor) => tensor.handle);
  await native.saveSafetensors(path, names, handles, { ...metadata });
}

/** Loads all tensors of a safetensors file, by name. A RaphsonError where the file is missing or damaged. */
export async function load(path: string): Promise<Loaded> {
  const { names, handles, metadata } = await native.loadSafetensors(path);
  const entries = names.map((name, index): [string, AnyTensor] => [name, fromHandle(handles[index] ?? 0)]);
  return { tensors: Object.fromEntries(entries), metadata };
}
