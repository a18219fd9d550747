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
import { Held } from "./held";
import type { Launch } from "./launch";
import type { Precision } from "./precision";
import { ownCopy } from "./state";

const withoutDot = (path: string) => path.replace(/^\./, "");

/** The parameters of a tree, in a fixed order. */
export class ParameterValues {
  readonly #flat: Flat;
  /** For each place in the order: the module's parameter; undefined where the value is ours alone. */
  readonly #places: readonly (Parameter | undefined)[];
  /** The values that have been taken over; those of modules when a step is about to change them. */
  readonly #held: (Held | undefined)[];
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
    this.#places = this.#flat.tensors.map((_, index) => inModules.get(index));
    this.#held = this.#flat.tensors.map((tensor, index) => {
      if (inModules.has(index)) return undefined;
      return new Held(untracked(() => fromHandle(ownCopy(tensor), tensor.dtype, tensor.shape)));
    });
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
    return this.#places.map((place, index) => place?.value ?? (this.#held[index] as Held).tensor());
  }

  /** The handles of the current values, to be read only. */
  handles(): Handle[] {
    return this.#places.map((place, index) => {
      const held = this.#heldAt(index);
      return held === undefined ? (place as Parameter).value.handle : held.handle;
    });
  }

  /** How many there are. */
  get length(): number {
    return this.#places.length;
  }

  /** The value that is still in our hands: the parameter has no other one, and nobody disposed of it. */
  #heldAt(index: number): Held | undefined {
    const [held, place] = [this.#held[index], this.#places[index]];
    if (held === undefined || place === undefined) return held;
    return place.source === held && !held.ended ? held : undefined;
  }

  /** Takes the values over and adds their handles, which may then stand for other values (see `moved`). */
  giveTo(launch: Launch): void {
    for (let index = 0; index < this.#places.length; index++) {
      launch.add((this.#heldAt(index) ?? this.#takeOver(index)).handle);
    }
  }

  #takeOver(index: number): Held {
    const place = this.#places[index] as Parameter; // what has no parameter is held from the start
    this.#held[index]?.end();
    return this.#hold(index, place.value);
  }

  #hold(index: number, value: AnyTensor): Held {
    const held = new Held(value);
    this.#held[index] = held;
    this.#places[index]?.follow(held);
    return held;
  }

  /** The handles that were given stand for new values. */
  moved(): void {
    for (const held of this.#held) held?.moved();
  }

  /** The tree with the current values; modules stand for themselves. */
  tree(): unknown {
    return this.#flat.rebuild(this.tensors(), "themselves");
  }

  /** Puts new values in place and frees the old ones. */
  replace(handles: readonly Handle[]): void {
    this.#places.forEach((place, index) => {
      const held = this.#heldAt(index);
      const old = held === undefined ? place?.current : undefined;
      const value = untracked(() => fromHandle(handles[index] ?? 0, (held ?? old)?.dtype, (held ?? old)?.shape));
      held?.moved();
      this.#held[index]?.end();
      this.#hold(index, value);
      old?.dispose();
    });
  }

  /** Puts these values in place for a while; the function that is given back puts the former ones back and frees these. */
  exchange(handles: readonly Handle[]): () => void {
    const putBack = this.#places.map((_, index) => this.#exchangeAt(index, handles[index] ?? 0));
    return () => {
      for (const put of putBack) put();
    };
  }

  #exchangeAt(index: number, handle: Handle): () => void {
    const [held, place] = [this.#heldAt(index), this.#places[index]];
    const former = held ?? (place as Parameter).value;
    const value = untracked(() => fromHandle(handle, former.dtype, former.shape));
    if (place === undefined) {
      const other = new Held(value);
      this.#held[index] = other;
      return () => {
        this.#held[index] = held;
        other.moved();
        other.end();
      };
    }
    place.set(value as Tensor);
    return () => {
      if (former instanceof Held) place.follow(former);
      else place.set(former as Tensor);
      value.dispose();
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
      if (place !== undefined) given.set(place, values[index] as Tensor);
    });
    const mode = key === undefined ? { training: false } : { training: true, random: fromKey(key) };
    const options = { ...mode, precision: "f32" as const, ...pass };
    const updates: Updates = new Map();
    const result = withValues(given, options, () => use(this.#flat.rebuild(values, "themselves")), updates);
    return { result, states: this.#states.map((state, index) => updates.get(state) ?? (states[index] as AnyTensor)) };
  }

  /** Frees the copies; modules have their values themselves again. */
  dispose(): void {
    this.#held.forEach((held, index) => {
      const place = this.#places[index];
      if (place === undefined) held?.moved();
      held?.end(place);
    });
  }
}
