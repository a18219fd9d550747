/**
 * Modules to and from safetensors files.
 */

import { argumentError, RaphsonError, shapeError } from "../errors";
import { native } from "../native";
import { type AnyTensor, fromHandle, type Tensor } from "../tensor";
import { showShape } from "../tensor/validate";
import { dispose, untracked } from "../tidy";
import type { Parameter } from "./module";
import type { State } from "./state";

/** How the metadata of a training's checkpoint say that it is one, and what the names of its model's tensors begin with. */
export const CHECKPOINT_FORMAT = "raphson-checkpoint";
export const MODEL_PREFIX = "model.";

interface Stored {
  namedParameters(): readonly (readonly [string, Parameter])[];
  namedStates(): readonly (readonly [string, State])[];
}

/** All that a file holds: what is trained, and the states. */
const namedTensors = (module: Stored) => [...module.namedParameters(), ...module.namedStates()];

/** Writes parameters and states under their names. */
export function saveModule(module: Stored, path: string, metadata: Readonly<Record<string, string>>): Promise<void> {
  const named = namedTensors(module);
  const names = named.map(([name]) => name);
  const handles = named.map(([, parameter]) => parameter.value.handle);
  return native.saveSafetensors(path, names, handles, { format: "raphson", ...metadata });
}

/** Reads parameters and states; nothing is changed unless all of them fit. */
export async function loadModule(module: Stored, path: string): Promise<Record<string, string>> {
  if (typeof path !== "string" || path === "") throw argumentError("load", "needs the path of a safetensors file");
  const file = await native.loadSafetensors(path);
  const all = untracked(() => new Map(file.names.map((name, i) => [name, fromHandle(file.handles[i] ?? 0)])));
  const loaded = file.metadata.format === CHECKPOINT_FORMAT ? modelIn(all) : all;
  try {
    checkFit(module, loaded, path);
  } catch (error) {
    dispose([...loaded.values()]);
    throw error;
  }
  for (const [name, parameter] of namedTensors(module)) {
    const value = loaded.get(name);
    if (value !== undefined) parameter.set(value as Tensor); // f32: checkFit has seen to it
  }
  return file.metadata;
}

/** The model's part of a training's checkpoint; the rest is freed. */
function modelIn(all: ReadonlyMap<string, AnyTensor>): Map<string, AnyTensor> {
  const own = new Map<string, AnyTensor>();
  for (const [name, tensor] of all) {
    if (name.startsWith(MODEL_PREFIX)) own.set(name.slice(MODEL_PREFIX.length), tensor);
    else tensor.dispose();
  }
  return own;
}

function checkFit(module: Stored, loaded: ReadonlyMap<string, AnyTensor>, path: string): void {
  const named = namedTensors(module);
  const own = new Set(named.map(([name]) => name));
  const missing = [...own].filter((name) => !loaded.has(name));
  const unknown = [...loaded.keys()].filter((name) => !own.has(name));
  if (missing.length > 0 || unknown.length > 0) {
    const lists = `missing: ${missing.join(", ") || "none"}; not the model's: ${unknown.join(", ") || "none"}`;
    throw new RaphsonError("FILE", "load", `${path} does not hold this model's parameters; ${lists}`);
  }
  for (const [name, parameter] of named) {
    const value = loaded.get(name);
    if (value === undefined) continue;
    if (value.shape.join() !== parameter.shape.join()) {
      const both = `${showShape(value.shape)} in ${path}, ${showShape(parameter.shape)} in the model`;
      throw shapeError(
        "load",
        `"${name}" is ${both}; build the model with the sizes it was saved with`,
        value.shape,
        parameter.shape,
      );
    }
    if (value.dtype !== "f32") {
      throw new RaphsonError("DTYPE", "load", `"${name}" is ${value.dtype} in ${path}; parameters are f32`);
    }
  }
}
