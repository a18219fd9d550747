/**
 * The parameters that a step changes, wherever they live: in modules (whose stored values are replaced) or loose in a
 * tree (where the step keeps copies of its own); and the states of the modules, which its forward passes move.
 */
import { dtypeError } from "../errors";
import type { Handle } from "../native";
import { type Updates, withValues } from "../nn/context";
import { Parameter } from "../nn/module";
import type { ParameterLike } from "../nn/moduleLike";
import { State } from "../nn/state";
import { fromKey } from "../random";
import { type AnyTensor, fromHandle, type Tensor } from "../tensor";
import { untracked } from "../tidy";
import { type Flat, flatten } from "../tree";
import type { Precision } from "./precision";
import { ownCopy } from "./state";

const withoutDot = (path: string) => path.replace(/^\./, "");

/** The parameters of a tree, in a fixed order. */
export class ParameterValues {
  readonly #flat: Flat;
  /** For each place in the order: the module's parameter, or our own tensor. */
  readonly #places: (Parameter | AnyTensor)[];
  readonly #states: readonly State[];
  /** Where each state stands, as `paths` has it. */
  readonly statePaths: readonly string[];

  constructor(tree: unknown) {
    this.#flat = untracked(() => flatten(tree, "trainingStep"));
    this.#flat.tensors.forEach((tensor, index) => {
      if (tensor.dtype === "f32" || tensor.dtype === "f64") return;
      const path = this.#flat.paths[index] ?? "";
      throw dtypeError(
        "trainingStep",
        `parameter ${path} is ${tensor.dtype}; only f32 and f64 can be trained (in lower precision by the option precision)`,
        tensor.dtype,
      );
    });
    const inModules = new Map<number, Parameter>();
    for (const { parameters, first } of this.#flat.modules) {
      parameters.forEach((parameter, offset) => {
        if (parameter instanceof Parameter) inModules.set(first + offset, parameter);
      });
    }
    this.#places = this.#flat.tensors.map(
      (tensor, index) => inModules.get(index) ?? untracked(() => fromHandle(ownCopy(tensor))),
    );
    const states = new Map<State, string>();
    for (const { module, path } of this.#flat.modules) {
      for (const [name, state] of module.namedStates()) {
        if (state instanceof State && !states.has(state)) states.set(state, withoutDot(`${path}.${name}`));
      }
    }
    this.#states = [...states.keys()];
    this.statePaths = [...states.values()];
  }

  /** Where each parameter stands: names and positions joined by dots, without a leading one. */
  get paths(): readonly string[] {
    return this.#flat.paths.map(withoutDot);
  }

  /** The current values. */
  tensors(): AnyTensor[] {
    return this.#places.map((place) => (place instanceof Parameter ? place.value : place));
  }

  /** The tree with the current values; modules stand for themselves. */
  tree(): unknown {
    return this.#flat.rebuild(this.tensors(), "themselves");
  }

  /** Puts new values in place and frees the old ones. */
  replace(handles: readonly Handle[]): void {
    this.#places.forEach((place, index) => {
      const old = place instanceof Parameter ? place.current : place;
      const value = untracked(() => fromHandle(handles[index] ?? 0, old?.dtype, old?.shape));
      if (place instanceof Parameter) place.set(value as Tensor);
      else this.#places[index] = value;
      old?.dispose();
    });
  }

  /** Puts these values in place for a while; the function that is given back puts the former ones back and frees these. */
  exchange(handles: readonly Handle[]): () => void {
    const former = this.tensors();
    const put = (values: readonly AnyTensor[]) =>
      this.#places.forEach((place, index) => {
        if (place instanceof Parameter) place.set(values[index] as Tensor);
        else this.#places[index] = values[index] as AnyTensor;
      });
    const lent = untracked(() =>
      handles.map((handle, index) => fromHandle(handle, former[index]?.dtype, former[index]?.shape)),
    );
    put(lent);
    return () => {
      put(former);
      for (const tensor of lent) tensor.dispose();
    };
  }

  /** The current values of the states. */
  states(): Tensor[] {
    return this.#states.map((state) => state.value);
  }

  /** Puts new values of the states in place and frees the old ones. */
  replaceStates(handles: readonly Handle[]): void {
    this.#states.forEach((state, index) => {
      const old = state.current;
      state.set(untracked(() => fromHandle(handles[index] ?? 0, "f32", state.shape)));
      old?.dispose();
    });
  }

  /**
   * Calls `use` with a tree of the given values; modules have them and the given states in place meanwhile. With a key,
   * modules are in training mode and draw from it. Gives the states as the call leaves them beside its result.
   */
  bound<R>(
    values: readonly AnyTensor[],
    states: readonly AnyTensor[],
    key: Tensor<"u32"> | undefined,
    use: (tree: unknown) => R,
    pass: { readonly precision?: Precision; readonly statisticsWeight?: Tensor } = {},
  ): { readonly result: R; readonly states: AnyTensor[] } {
    const given = new Map<ParameterLike, Tensor>();
    this.#states.forEach((state, index) => {
      given.set(state, states[index] as Tensor);
    });
    this.#places.forEach((place, index) => {
      if (place instanceof Parameter) given.set(place, values[index] as Tensor);
    });
    const mode = key === undefined ? { training: false } : { training: true, random: fromKey(key) };
    const options = { ...mode, precision: "f32" as const, ...pass };
    const updates: Updates = new Map();
    const result = withValues(given, options, () => use(this.#flat.rebuild(values, "themselves")), updates);
    return { result, states: this.#states.map((state, index) => updates.get(state) ?? (states[index] as AnyTensor)) };
  }

  /** Frees the copies; what modules hold stays. */
  dispose(): void {
    for (const place of this.#places) if (!(place instanceof Parameter)) place.dispose();
  }
}
