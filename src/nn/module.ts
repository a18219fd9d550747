/**
 * Modules: functions with parameters. This file holds the base class and the parameter; states stand in `state`, the
 * layers in files of their own, initial values in `initializers`, and how a forward pass gets its values, its mode and its
 * randomness in `context`.
 */

import { argumentError, shapeError } from "../errors";
import { type Shape, Tensor } from "../tensor";
import { checkShape, describe, showShape } from "../tensor/validate";
import { untracked } from "../tidy";
import { currentValue, enter, inPrecision } from "./context";
import { type Initializer, initialValue } from "./initializers";
import { MODULE, type ModuleLike, type ParameterLike } from "./moduleLike";
import { State } from "./state";
import { loadModule, saveModule } from "./store";
import { summarize } from "./summary";

/** Parameters by name, as `parameters()` gives them and gradients come back: a plain tree of tensors. */
export type Parameters = { readonly [name: string]: Tensor };

/** Where a parameter's value is while a training step moves it. */
export interface ValueSource {
  /** The value as a tensor, made when somebody asks; undefined after that was disposed of. */
  lend(): Tensor | undefined;
}

/** A value that training changes: a shape and an initialiser, and in time a tensor. */
export class Parameter implements ParameterLike {
  readonly shape: Shape;
  readonly initializer: Initializer;
  #value: Tensor | undefined;
  #source: ValueSource | undefined;

  constructor(shape: Shape, initializer: Initializer = "kaimingUniform") {
    this.shape = checkShape("parameter", shape);
    this.initializer = initializer;
  }

  /** The value to calculate with: the one given by `nn.apply` while it runs, else the stored one (made with seed 0 if none is). */
  get value(): Tensor {
    const given = currentValue(this);
    if (given !== undefined) return inPrecision(given);
    const stored = this.current;
    if (stored === undefined) this.initialize(0, 0);
    return inPrecision(stored ?? (this.#value as Tensor));
  }

  /** The stored value, or undefined while there is none. */
  get current(): Tensor | undefined {
    if (this.#value === undefined || this.#value.isDisposed) this.#value = this.#source?.lend();
    return this.#value;
  }

  /** @internal Who has the value, if it is not stored here. */
  get source(): ValueSource | undefined {
    return this.#source;
  }

  /** @internal Lets somebody else have the value, until another one is stored. */
  follow(source: ValueSource): void {
    this.#value = undefined;
    this.#source = source;
  }

  /** Stores another value of the same shape. The old one is not disposed of: others may hold it. */
  set(value: Tensor): void {
    if (!(value instanceof Tensor) || value.dtype !== "f32") {
      throw argumentError("parameter", `a parameter holds an f32 tensor, got ${describe(value)}`);
    }
    if (value.shape.join() !== this.shape.join()) {
      const both = `${showShape(value.shape)} for a parameter of ${showShape(this.shape)}`;
      throw shapeError("parameter", `${both}; the shapes must be equal`, value.shape, this.shape);
    }
    this.#store(value);
  }

  /** Draws a fresh value; `index` tells parameters of one model apart. */
  initialize(seed: number, index: number): void {
    this.#store(untracked(() => initialValue(this.initializer, this.shape, seed, index)));
  }

  #store(value: Tensor): void {
    this.#value = value;
    this.#source = undefined;
  }
}

/** How Node asks for what it prints of an object. */
const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** A module is called like a function: `model(x)` is `model.forward(x)`. */
export interface Module<In extends readonly unknown[] = [x: Tensor], Out = Tensor> {
  // biome-ignore lint/style/useShorthandFunctionType: a type alias cannot merge with the class
  (...input: In): Out;
}

/**
 * Base class of models and layers. Assign `Parameter`s and modules (also in arrays and plain objects) to fields, and say
 * in `forward` what the module computes.
 *
 * ```ts
 * import { nn, ones, type Tensor } from "raphson";
 *
 * class Residual extends nn.Module {
 *   inner = nn.linear(8, 8);
 *   scale = this.parameter([8], "ones");
 *   override forward(x: Tensor): Tensor {
 *     return x.add(this.inner(x).tanh().mul(this.scale.value));
 *   }
 * }
 *
 * const model = new Residual();
 * model.initialize(1);
 * console.log(model(ones([2, 8])).shape, Object.keys(model.parameters()));
 * ```
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: see above
export abstract class Module<In extends readonly unknown[] = [x: Tensor], Out = Tensor> implements ModuleLike {
  declare readonly [MODULE]: true;

  constructor() {
    const callable = (...input: In): Out =>
      enter(input, (...inner: In) => (callable as unknown as Module<In, Out>).forward(...inner));
    // a function's own name and length would shadow fields of subclasses
    Reflect.deleteProperty(callable, "name");
    Reflect.deleteProperty(callable, "length");
    // biome-ignore lint/correctness/noConstructorReturn: an instance is a function with the class's prototype
    return Object.setPrototypeOf(callable, new.target.prototype);
  }

  /** What the module computes. */
  abstract forward(...input: In): Out;

  /** A parameter for a field of this module. */
  parameter(shape: Shape, initializer?: Initializer): Parameter {
    return new Parameter(shape, initializer);
  }

  /** A state for a field of this module: f32, `initial` everywhere, saved with the parameters but not trained. */
  state(shape: Shape, initial?: number): State {
    return new State(shape, initial);
  }

  /** What names are made of: the fields with their values. Containers name their parts as they like. */
  members(): [name: string, value: unknown][] {
    return Object.entries(this);
  }

  /** The parameters with their names (fields joined by dots), in the order of the fields; shared ones once. */
  namedParameters(): [name: string, parameter: Parameter][] {
    return named(this, Parameter);
  }

  /** The states with their names, as `namedParameters` has it. */
  namedStates(): [name: string, state: State][] {
    return named(this, State);
  }

  /** The values of the parameters by name, made with seed 0 where they do not exist yet. */
  parameters(): Parameters {
    return Object.fromEntries(this.namedParameters().map(([name, parameter]) => [name, parameter.value]));
  }

  /** The values of the states by name. */
  states(): Parameters {
    return Object.fromEntries(this.namedStates().map(([name, state]) => [name, state.value]));
  }

  /** Stores values for all parameters, as `parameters()` names them. Missing or unknown names are errors. */
  setParameters(values: Parameters): void {
    const named = this.namedParameters();
    const unknown = Object.keys(values).filter((name) => !named.some(([own]) => own === name));
    const missing = named.filter(([name]) => values[name] === undefined).map(([name]) => name);
    if (unknown.length > 0 || missing.length > 0) {
      throw argumentError("setParameters", `names do not fit; missing: ${list(missing)}; unknown: ${list(unknown)}`);
    }
    for (const [name, parameter] of named) {
      const value = values[name];
      if (value !== undefined) parameter.set(value);
    }
  }

  /** Draws all parameters afresh, and resets the states. The same seed gives the same values, bit for bit. */
  initialize(seed = 0): this {
    for (const [, state] of this.namedStates()) state.reset();
    this.namedParameters().forEach(([, parameter], index) => {
      parameter.initialize(seed, index);
    });
    return this;
  }

  /** Number of trained values. */
  get parameterCount(): number {
    return this.namedParameters().reduce((sum, [, p]) => sum + p.shape.reduce((a, b) => a * b, 1), 0);
  }

  /** Writes parameters and states to a safetensors file, atomically. */
  save(path: string, metadata: Readonly<Record<string, string>> = {}): Promise<void> {
    return saveModule(this, path, metadata);
  }

  /**
   * Reads parameters and states from a safetensors file whose names and shapes are this module's, or from a checkpoint of
   * its training. Returns the file's metadata. RaphsonErrors, after which nothing has changed: `FILE` where the file is
   * missing, damaged or another model's, `SHAPE` and `DTYPE` with the name that does not fit.
   */
  load(path: string): Promise<Record<string, string>> {
    return loadModule(this, path);
  }

  /** Frees the memory of parameters and states. */
  dispose(): void {
    for (const [, state] of this.namedStates()) state.current?.dispose();
    for (const [, parameter] of this.namedParameters()) parameter.current?.dispose();
  }

  /** A line that says what this is, as layers show it in `summary()`. */
  describe(): string {
    return this.constructor.name;
  }

  /**
   * Layers, shapes and counts of parameters, as a table: a line for each module with its name as in `parameters()`, what
   * it is, and its own parameters and states; those that stand elsewhere too are counted once.
   */
  summary(): string {
    return summarize(this);
  }

  toString(): string {
    return this.summary();
  }

  /** What `console.log` shows. */
  [INSPECT](): string {
    return this.summary();
  }
}

Object.defineProperty(Module.prototype, MODULE, { value: true });

/** The parameters or the states below a module, each once, under the first name that leads to it. */
function named<T extends Parameter | State>(
  module: Pick<Module, "members">,
  kind: abstract new (...values: never[]) => T,
): [string, T][] {
  const found: [string, T][] = [];
  const seen = new Set<unknown>([module]);
  const visit = (value: unknown, name: string): void => {
    if (typeof value !== "object" && typeof value !== "function") return;
    if (value === null || seen.has(value)) return;
    seen.add(value);
    if (value instanceof kind) {
      found.push([name, value]);
      return;
    }
    for (const [key, child] of membersOf(value)) visit(child, `${name}.${key}`);
  };
  for (const [key, child] of module.members()) visit(child, key);
  return found;
}

function membersOf(value: object): [string, unknown][] {
  if (value instanceof Module) return value.members();
  return Array.isArray(value) || isPlainObject(value) ? Object.entries(value) : [];
}

function list(names: readonly string[]): string {
  return names.length === 0 ? "none" : names.slice(0, 8).join(", ") + (names.length > 8 ? ", …" : "");
}

function isPlainObject(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
