/**
 * How each entry of layers.json is computed here. A layer's inputs are its data and, after it, its parameters under the names
 * that the case gives.
 */

import { concatenate, loss, mapTree, nn, type Tensor, tensor } from "../../src";
import type { Runner } from "./format";

// biome-ignore lint/suspicious/noExplicitAny: arguments are whatever the generator wrote
type Args = any;

const first = (x: readonly Tensor[]): Tensor => x[0] as Tensor;

/** A layer in training mode, with the inputs after the first as its parameters. */
function layer<M extends nn.Layer>(
  make: (args: Args) => M,
  call: (layer: M, x: Tensor, indices: readonly Tensor<"i32">[], args: Args) => Tensor = (layer, x) => layer(x),
): Runner {
  return (x, indices, args) => {
    const made = make(args);
    const names: string[] = args.names;
    const params = Object.fromEntries(names.map((name, i) => [name, x[i + 1] as Tensor]));
    // every parameter is given: none is left at its own value
    if (names.length !== made.namedParameters().length) throw new Error(`${names} are not all parameters`);
    return nn.apply(made, params, { training: true, onStates: () => undefined }, () =>
      call(made, first(x), indices, args),
    );
  };
}

/** The options among the arguments of a case. */
const optionsOf = ({ names: _names, in: _in, out: _out, hidden: _hidden, sizes: _sizes, ...options }: Args): Args =>
  options;

const recurrent = (make: typeof nn.lstm): Runner => layer((a) => make(a.in, a.hidden, optionsOf(a)));

const LAYERS: Readonly<Record<string, Runner>> = {
  linear: layer((a) => nn.linear(a.in, a.out, optionsOf(a))),
  embedding: ([table], [indices]) => {
    const made = nn.embedding(5, 3);
    return nn.apply(made, { table: table as Tensor }, {}, () => made(indices as Tensor<"i32">));
  },
  layerNorm: layer((a) => nn.layerNorm(a.sizes, optionsOf(a))),
  rmsNorm: layer((a) => nn.rmsNorm(a.sizes, optionsOf(a))),
  groupNorm: layer((a) => nn.groupNorm(a.groups, a.channels)),
  batchNorm1d: layer((a) => nn.batchNorm1d(a.channels)),
  batchNorm2d: layer((a) => nn.batchNorm2d(a.channels)),
  batchNormRunning: (x, _indices, { channels, momentum }) => {
    const made = nn.batchNorm1d(channels, { momentum, affine: false });
    let states = mapTree(made.states(), (state) => state.cast(first(x).dtype)) as nn.Parameters;
    const onStates = (after: nn.Parameters) => {
      states = after;
    };
    for (const part of x) nn.apply(made, states, { training: true, onStates }, () => made(part));
    const { runningMean, runningVariance } = states;
    const y = nn.apply(made, states, {}, () => made(first(x)));
    return concatenate([runningMean as Tensor, runningVariance as Tensor, y.flatten()]);
  },
  prelu: ([x, slope], _indices, { channels }) => {
    const made = nn.prelu(channels);
    return nn.apply(made, { slope: slope as Tensor }, {}, () => made(x as Tensor));
  },
  attention: ([q, k, v], [mask], { masked, ...args }) => {
    const options = masked ? { ...args, mask: (mask as Tensor<"i32">).notEqual(0) } : args;
    return nn.attention(q as Tensor, k as Tensor, v as Tensor, options);
  },
  rotary: (x, _indices, args) => nn.rotary(first(x), args),
  multiHeadAttention: layer(
    (a) => nn.multiHeadAttention(a.width, a.heads, a),
    (made, x, [mask], a) => made(x, a.masked ? { keyMask: (mask as Tensor<"i32">).notEqual(0) } : {}),
  ),
  transformerBlock: layer((a) => nn.transformerBlock(a.width, a.heads, a)),
  rnn: recurrent(nn.rnn),
  lstm: recurrent(nn.lstm),
  gru: recurrent(nn.gru),
  rnnRelu: layer((a) => nn.rnn(a.in, a.hidden, { activation: "relu" })),
  lstmStates: layer(
    (a) => nn.lstm(a.in, a.hidden),
    (made, x) => concatenate((made.run(x).states[0] ?? []) as Tensor[], -1),
  ),
};

/** `classWeights` in the dtype of the inputs. */
function withWeights(x: readonly Tensor[], { weights, smoothing, ...others }: Args): loss.CrossEntropyOptions {
  const dtype = first(x).dtype;
  return {
    ...others,
    ...(smoothing === undefined ? {} : { labelSmoothing: smoothing }),
    ...(weights === undefined ? {} : { classWeights: tensor(weights, { dtype }) }),
  };
}

const pair =
  (of: (x: Tensor, y: Tensor, args: Args) => Tensor): Runner =>
  (x, _indices, args) =>
    of(first(x), x[1] as Tensor, args);

const labelled =
  (of: typeof loss.crossEntropy | typeof loss.nll): Runner =>
  (x, [labels], args) =>
    of(first(x), labels as Tensor<"i32">, withWeights(x, args) as object);

const LOSSES: Readonly<Record<string, Runner>> = {
  crossEntropy: labelled(loss.crossEntropy),
  crossEntropySmooth: labelled(loss.crossEntropy),
  nll: labelled(loss.nll),
  crossEntropyProbabilities: (x, _indices, args) =>
    loss.crossEntropy(first(x), (x[1] as Tensor).softmax(-1), withWeights(x, args) as object),
  mse: pair(loss.mse),
  l1: pair(loss.l1),
  huber: pair(loss.huber),
  smoothL1: pair(loss.smoothL1),
  bce: pair(loss.bce),
  bceWithLogits: pair((x, y, { positive, ...others }) =>
    loss.bceWithLogits(x, y, {
      ...others,
      ...(positive === undefined ? {} : { positiveWeight: tensor(positive, { dtype: x.dtype }) }),
    }),
  ),
  poissonNll: pair((x, y, { log, reduction }) => loss.poissonNll(x, y, { logInput: log, reduction })),
  poissonNllRate: pair((x, y, { log, reduction }) => loss.poissonNll(x, y, { logInput: log, reduction })),
  hinge: pair(loss.hinge),
  kl: pair((x, y, { log, reduction }) => loss.kl(x, y, { logTarget: log, reduction })),
  klLog: pair((x, y, { log, reduction }) => loss.kl(x, y, { logTarget: log, reduction })),
  cosineEmbedding: (x, [target], args) => loss.cosineEmbedding(first(x), x[1] as Tensor, target as Tensor<"i32">, args),
  tripletMargin: (x, _indices, args) => loss.tripletMargin(first(x), x[1] as Tensor, x[2] as Tensor, args),
};

/** Every entry by its name. */
export const LAYERS_AND_LOSSES: Readonly<Record<string, Runner>> = { ...LAYERS, ...LOSSES };
