/**
 * A task as compiled functions of its parameters, for methods that need more of the loss than its gradient. All passes
 * of one step see the same batch and the same random draws; running statistics move with gradients only.
 */
import {
  type AnyTensor,
  compile,
  dispose,
  type FloatDType,
  fromTypedArray,
  nn,
  random,
  type Tensor,
  untracked,
  valueAndGrad,
} from "../../../src";
import type { Batch, Task } from "../problems/problem";

/** Tensors by the names of the parameters. */
export type Named = Readonly<Record<string, Tensor>>;

/** A function of tensors applied to each name of several records. */
export function mapNamed(of: (...tensors: readonly Tensor[]) => Tensor, ...records: readonly Named[]): Named {
  const [first = {}] = records;
  const at = (name: string) => records.map((record) => record[name] as Tensor); // all have the names of the parameters
  return Object.fromEntries(Object.keys(first).map((name) => [name, of(...at(name))]));
}

/** Σ ⟨a, b⟩ over all names, in f64. */
export function inner(a: Named, b: Named): Tensor<"f64"> {
  const products = Object.keys(a).map((name) =>
    (a[name] as Tensor)
      .cast("f64")
      .mul((b[name] as Tensor).cast("f64"))
      .sum(),
  );
  return products.reduce((sum, product) => sum.add(product));
}

/** θ − αω, with α in each tensor's own dtype. */
export const moved = (params: Named, omega: Named, alpha: Tensor<"f64">): Named =>
  mapNamed(
    (theta, line) => (theta as Tensor).sub((line as Tensor).mul(alpha.cast(theta?.dtype ?? "f32") as Tensor)),
    params,
    omega,
  );

/** Loss and gradient of one batch. */
export interface Evaluated {
  readonly loss: number;
  readonly gradient: Named;
}

/** What `lossOf` needs beside the parameters. */
interface Inputs {
  readonly states: Named;
  readonly batch: Batch;
  readonly key: Tensor<"u32">;
}

/** The loss of a task as a function of parameters, with its derivatives, and how often each was asked for. */
export class Objective {
  gradients = 0;
  forwards = 0;
  readonly #task: Task;
  readonly #keys: ReturnType<typeof random.generator>;
  #key: Tensor<"u32">;
  #states: Named;

  constructor(task: Task, seed: number) {
    this.#task = task;
    this.#keys = random.generator(seed);
    this.#key = untracked(() => this.#keys.key());
    this.#states = task.params instanceof nn.Module ? copies(task.params.states()) : {};
  }

  /** Copies of the parameters that the task begins with. */
  begin(): Named {
    const { params } = this.#task;
    return copies(params instanceof nn.Module ? params.parameters() : (params as Named));
  }

  /** Loss and gradient on a batch, with fresh random draws. */
  async gradient(params: Named, batch: Batch): Promise<Evaluated> {
    this.gradients += 1;
    const [oldKey, oldStates] = [this.#key, this.#states];
    this.#key = untracked(() => this.#keys.key());
    const { value, gradient, states } = this.#gradient(params, { states: oldStates, batch, key: this.#key });
    this.#states = copies(states);
    dispose(oldKey, oldStates);
    return { loss: await numberOf(value), gradient };
  }

  /** The loss alone, with the random draws of the last gradient. */
  async loss(params: Named, batch: Batch): Promise<number> {
    this.forwards += 1;
    return numberOf(this.#loss(params, { states: this.#states, batch, key: this.#key }));
  }

  /** Gives the task these parameters, and the states; returns what is to be evaluated. */
  place(params: Named): unknown {
    const { params: own } = this.#task;
    if (!(own instanceof nn.Module)) return params;
    own.setParameters(params);
    for (const [name, state] of own.namedStates()) state.set(this.#states[name] as Tensor);
    return own;
  }

  dispose(): void {
    dispose(this.#key, this.#states);
    this.#gradient.dispose();
    this.#loss.dispose();
  }

  readonly #gradient = compile((params: Named, inputs: Inputs) => {
    const lossOf = (at: Named): readonly [Tensor, Named] => this.#lossOf(at, inputs);
    const { value, gradient, aux } = valueAndGrad(lossOf, { aux: true })(params);
    return { value, gradient, states: { ...inputs.states, ...aux } };
  });

  readonly #loss = compile((params: Named, inputs: Inputs) => this.#lossOf(params, inputs)[0]);

  #lossOf(params: Named, { states, batch, key }: Inputs): readonly [Tensor, Named] {
    const task = this.#task;
    const model = task.params;
    if (!(model instanceof nn.Module)) return [task.loss(batch, params) as Tensor, {}];
    let after: Named = {};
    const onStates = (moved: Named) => {
      after = moved;
    };
    const options = { training: true, random: random.fromKey(key), onStates };
    const loss = nn.apply(model, { ...params, ...states }, options, () => task.loss(batch, model));
    return [loss as Tensor, after];
  }
}

/** The tensors' values in memory of their own, outside every scope. */
export const copies = (tensors: Named): Named =>
  untracked(() => mapNamed((tensor) => (tensor as Tensor).clone(), tensors));

/** A scalar's value. */
export async function numberOf(scalar: AnyTensor): Promise<number> {
  const [value = Number.NaN] = await (scalar as Tensor<FloatDType>).data();
  return value;
}

/** α as a tensor, so that compiled functions see it change. */
export const alphaTensor = (alpha: number): Tensor<"f64"> => fromTypedArray(Float64Array.of(alpha)).reshape([]);
