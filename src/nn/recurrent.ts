/**
 * Recurrent layers, unrolled over time, batch first: [batch, time, inputs] → [batch, time, hidden]. Parameters and formulas
 * are PyTorch's.
 */

import { argumentError, shapeError } from "../errors";
import type { Tensor } from "../tensor";
import { zeros } from "../tensor/creation";
import { concatenate, stack } from "../tensor/movement";
import { checkOptions, count, sameShape, showShape } from "../tensor/validate";
import { dropout } from "./layers";
import { Module, type Parameter } from "./module";

/** Options of `rnn`, `lstm` and `gru`. */
export interface RecurrentOptions {
  /** Layers one above the other (1 unless given). */
  readonly layers?: number;
  /** Whether a second chain of every layer reads from the end; outputs stand side by side, [..., 2 · hidden]. */
  readonly bidirectional?: boolean;
  /** Whether there are biases (true unless given). */
  readonly bias?: boolean;
  /** Rate at which the outputs of all layers but the last are dropped in training (0 unless given). */
  readonly dropout?: number;
}

/** What a chain carries from one time to the next, each [batch, hidden]: h, and the cell c of an LSTM. */
export type RecurrentState = readonly Tensor[];

/** The output at every time, and the state of every chain after its last step: layer by layer, forwards then backwards. */
export interface RecurrentResult {
  readonly output: Tensor;
  readonly states: readonly RecurrentState[];
}

/** One chain: its weights, and the step that subclasses define. */
abstract class Cell extends Module<[x: Tensor, state?: RecurrentState, backwards?: boolean], RecurrentResult> {
  readonly inputWeight: Parameter;
  readonly hiddenWeight: Parameter;
  readonly inputBias: Parameter | undefined;
  readonly hiddenBias: Parameter | undefined;

  constructor(
    inputs: number,
    readonly hidden: number,
    readonly gates: number,
    /** Tensors in the state. */
    readonly carried: number,
    bias: boolean,
  ) {
    super();
    const begin = { uniform: 1 / Math.sqrt(Math.max(1, hidden)) };
    this.inputWeight = this.parameter([gates * hidden, inputs], begin);
    this.hiddenWeight = this.parameter([gates * hidden, hidden], begin);
    this.inputBias = bias ? this.parameter([gates * hidden], begin) : undefined;
    this.hiddenBias = bias ? this.parameter([gates * hidden], begin) : undefined;
  }

  /** The next state from W x + b and U h + c, each [batch, gates · hidden]. */
  protected abstract next(fromInput: Tensor, fromHidden: Tensor, state: RecurrentState): RecurrentState;

  override forward(x: Tensor, begin?: RecurrentState, backwards = false): RecurrentResult {
    const [batch = 0, time = 0] = x.shape;
    // one product for all times; what depends on h comes step by step
    const product = x.matmul(this.inputWeight.value.transpose());
    const fromInputs = this.inputBias === undefined ? product : product.add(this.inputBias.value);
    const recurrent = this.hiddenWeight.value.transpose();
    const nothing = () => zeros([batch, this.hidden], { dtype: x.dtype });
    let state = begin ?? Array.from({ length: this.carried }, nothing);
    const outputs: Tensor[] = Array.from({ length: time });
    for (let step = 0; step < time; step++) {
      const at = backwards ? time - 1 - step : step;
      const h = state[0] as Tensor;
      const plain = h.matmul(recurrent);
      const fromHidden = this.hiddenBias === undefined ? plain : plain.add(this.hiddenBias.value);
      state = this.next(fromInputs.at([], at), fromHidden, state);
      outputs[at] = state[0] as Tensor;
    }
    return { output: stack(outputs, 1), states: [state] };
  }

  /** The parts that belong to the gates. */
  protected split(t: Tensor): Tensor[] {
    return t.split(this.gates, -1);
  }
}

/** h′ = tanh(W x + b + U h + c), or relu. */
class RnnCell extends Cell {
  constructor(
    inputs: number,
    hidden: number,
    bias: boolean,
    readonly activation: "tanh" | "relu",
  ) {
    super(inputs, hidden, 1, 1, bias);
  }

  protected override next(fromInput: Tensor, fromHidden: Tensor): RecurrentState {
    const sum = fromInput.add(fromHidden);
    return [this.activation === "tanh" ? sum.tanh() : sum.relu()];
  }
}

/** i, f, o = σ(…), g = tanh(…) of W x + b + U h + c; c′ = f c + i g; h′ = o tanh(c′). */
class LstmCell extends Cell {
  constructor(inputs: number, hidden: number, bias: boolean) {
    super(inputs, hidden, 4, 2, bias);
  }

  protected override next(fromInput: Tensor, fromHidden: Tensor, state: RecurrentState): RecurrentState {
    const [i, f, g, o] = this.split(fromInput.add(fromHidden)) as [Tensor, Tensor, Tensor, Tensor];
    const c = f
      .sigmoid()
      .mul(state[1] as Tensor)
      .add(i.sigmoid().mul(g.tanh()));
    return [o.sigmoid().mul(c.tanh()), c];
  }
}

/** r, z = σ(W x + b + U h + c); n = tanh(Wₙ x + bₙ + r (Uₙ h + cₙ)); h′ = (1 − z) n + z h. */
class GruCell extends Cell {
  constructor(inputs: number, hidden: number, bias: boolean) {
    super(inputs, hidden, 3, 1, bias);
  }

  protected override next(fromInput: Tensor, fromHidden: Tensor, state: RecurrentState): RecurrentState {
    const [inR, inZ, inN] = this.split(fromInput) as [Tensor, Tensor, Tensor];
    const [hR, hZ, hN] = this.split(fromHidden) as [Tensor, Tensor, Tensor];
    const [r, z] = [inR.add(hR).sigmoid(), inZ.add(hZ).sigmoid()];
    const n = inN.add(r.mul(hN)).tanh();
    return [n.add(z.mul((state[0] as Tensor).sub(n)))];
  }
}

/** Layers of chains over time; `run` gives the states beside the output. */
export class Recurrent extends Module {
  readonly cells: readonly Cell[];
  readonly #drop: Module;

  constructor(
    readonly title: string,
    readonly inputs: number,
    readonly hidden: number,
    makeCell: (inputs: number, hidden: number, bias: boolean) => Cell,
    options: RecurrentOptions = {},
  ) {
    super();
    checkOptions<RnnOptions>(`nn.${title}`, options, ["layers", "bidirectional", "bias", "dropout", "activation"]);
    const { layers = 1, bidirectional = false, bias = true } = options;
    count(`nn.${title}`, "the number of inputs", inputs);
    count(`nn.${title}`, "the hidden width", hidden);
    if (!(Number.isSafeInteger(layers) && layers >= 1)) {
      throw argumentError(`nn.${title}`, `the number of layers must be an integer ≥ 1, got ${layers}`);
    }
    this.directions = bidirectional ? 2 : 1;
    this.#drop = dropout(options.dropout ?? 0);
    this.cells = Array.from({ length: layers * this.directions }, (_, index) =>
      makeCell(index < this.directions ? inputs : hidden * this.directions, hidden, bias),
    );
  }

  /** Chains of each layer. */
  readonly directions: number;

  override forward(x: Tensor): Tensor {
    return this.run(x).output;
  }

  /** Output and states; the chains begin with `states` (a state for each, as `run` gives them), or with zeros. */
  run(x: Tensor, states?: readonly RecurrentState[]): RecurrentResult {
    const [batch = 0, time = 0, inputs] = x.shape;
    if (x.rank !== 3 || inputs !== this.inputs || time === 0) {
      const wanted = `must be [batch, time, ${this.inputs}] with at least one time`;
      throw shapeError(`nn.${this.title}`, `the input ${showShape(x.shape)} ${wanted}`, x.shape);
    }
    if (states !== undefined) this.#check(states, batch);
    const after: RecurrentState[] = [];
    let value = x;
    for (let first = 0; first < this.cells.length; first += this.directions) {
      const below = first === 0 ? value : this.#drop(value);
      const chains = this.cells.slice(first, first + this.directions);
      const results = chains.map((cell, i) => cell(below, states?.[first + i], i === 1));
      after.push(...results.flatMap((result) => result.states));
      const outputs = results.map(({ output }) => output);
      value = outputs.length === 1 ? (outputs[0] as Tensor) : concatenate(outputs, -1);
    }
    return { output: value, states: after };
  }

  #check(states: readonly RecurrentState[], batch: number): void {
    const carried = this.cells[0]?.carried ?? 1;
    if (states.length !== this.cells.length || states.some((state) => state.length !== carried)) {
      const wanted = `${this.cells.length} states of ${carried} tensors each`;
      throw argumentError(`nn.${this.title}`, `run needs ${wanted}, as an earlier run gives them`);
    }
    for (const tensor of states.flat()) {
      sameShape(`nn.${this.title}`, tensor.shape, [batch, this.hidden], "states are [batch, hidden]");
    }
  }

  override describe(): string {
    const both = this.directions === 2 ? ", bidirectional" : "";
    const layers = this.cells.length / this.directions;
    return `${this.title}(${this.inputs}, ${this.hidden}${layers === 1 ? "" : `, ${layers} layers`}${both})`;
  }
}

/** Options of `rnn`. */
export interface RnnOptions extends RecurrentOptions {
  /** `tanh` unless given. */
  readonly activation?: "tanh" | "relu";
}

/** Elman's network: h′ = tanh(W x + b + U h + c). */
export function rnn(inputs: number, hidden: number, options: RnnOptions = {}): Recurrent {
  const { activation = "tanh" } = options;
  if (activation !== "tanh" && activation !== "relu") {
    throw argumentError("nn.rnn", `the activation is "tanh" or "relu", got ${String(activation)}`);
  }
  return new Recurrent("rnn", inputs, hidden, (i, h, bias) => new RnnCell(i, h, bias, activation), options);
}

/**
 * Long short-term memory.
 *
 * ```ts
 * import { nn, zeros } from "raphson";
 *
 * const layer = nn.lstm(3, 5, { layers: 2 });
 * const { output, states } = layer.run(zeros([2, 7, 3]));
 * console.log(output.shape, states.length);         // [2, 7, 5] 2
 * console.log(layer(zeros([2, 7, 3])).shape);       // the output alone
 * ```
 */
export function lstm(inputs: number, hidden: number, options: RecurrentOptions = {}): Recurrent {
  return new Recurrent("lstm", inputs, hidden, (i, h, bias) => new LstmCell(i, h, bias), options);
}

/** Gated recurrent units. */
export function gru(inputs: number, hidden: number, options: RecurrentOptions = {}): Recurrent {
  return new Recurrent("gru", inputs, hidden, (i, h, bias) => new GruCell(i, h, bias), options);
}
