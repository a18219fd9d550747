/**
 * TensorFlow.js on its wasm backend, spoken to as `protocol.mjs` says. It has one thread in Node (its own rule), and no jit.
 * Images are NHWC, kernels HWIO, dense weights [in, out]. Embeddings are products with one-hot rows, whose gradient it has.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { openFile, serve } from "./protocol.mjs";

const require = createRequire(join(import.meta.dirname, "javascript/package.json"));
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");
console.log = console.error; // the answers have standard output to themselves

const softmaxLoss = (logits, labels) => tf.losses.softmaxCrossEntropy(labels, logits);
const squared = (outputs, targets) => tf.losses.meanSquaredError(targets, outputs);

function dense(x, weight, bias) {
  return tf.add(tf.matMul(x, weight), bias);
}

function layerNorm(x, scale, shift) {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, 1e-5))), scale), shift);
}

/** x/2 · (1 + erf(x/√2)) */
const gelu = (x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1));

const models = {
  mlp: (_, p, x) => dense(tf.relu(dense(tf.relu(dense(x, p[0], p[1])), p[2], p[3])), p[4], p[5]),
  tiny: (_, p, x) => dense(tf.tanh(dense(x, p[0], p[1])), p[2], p[3]),
  cnn(_, p, x) {
    const first = tf.maxPool(tf.relu(tf.add(tf.conv2d(x, p[0], 1, "same"), p[1])), 2, 2, "valid");
    const second = tf.maxPool(tf.relu(tf.add(tf.conv2d(first, p[2], 1, "same"), p[3])), 2, 2, "valid");
    return dense(tf.relu(dense(tf.reshape(second, [x.shape[0], -1]), p[4], p[5])), p[6], p[7]);
  },
  gpt({ width, heads, layers, batch, length, mask }, params, x0) {
    const p = params[Symbol.iterator]();
    const next = () => p.next().value;
    const table = next();
    const positions = next();
    const rows = batch * length;
    // [batch · length, width] throughout
    const embedded = tf.reshape(tf.matMul(x0, table), [batch, length, width]);
    let x = tf.reshape(tf.add(embedded, positions), [rows, width]);
    const split = (t) => tf.transpose(tf.reshape(t, [batch, length, heads, width / heads]), [0, 2, 1, 3]);
    for (let layer = 0; layer < layers; layer++) {
      const parts = tf.split(dense(layerNorm(x, next(), next()), next(), next()), 3, -1);
      const [q, k, v] = parts.map(split);
      const scores = tf.add(tf.matMul(tf.mul(q, 1 / Math.sqrt(width / heads)), k, false, true), mask);
      const attended = tf.transpose(tf.matMul(tf.softmax(scores), v), [0, 2, 1, 3]);
      x = tf.add(x, dense(tf.reshape(attended, [rows, width]), next(), next()));
      const hidden = gelu(dense(layerNorm(x, next(), next()), next(), next()));
      x = tf.add(x, dense(hidden, next(), next()));
    }
    return tf.matMul(layerNorm(x, next(), next()), table, false, true);
  },
};
const criteria = { mlp: softmaxLoss, cnn: softmaxLoss, gpt: softmaxLoss, tiny: squared };

/** A parameter as PyTorch lays it out → as the models above take it. */
function ownLayout(kind, index, t) {
  if (kind === "cnn" && t.rank === 4) return tf.transpose(t, [2, 3, 1, 0]);
  if (kind === "cnn" && index === 4) {
    const [out, all] = t.shape;
    const side = Math.sqrt(all / 64);
    return tf.reshape(tf.transpose(tf.reshape(t, [out, 64, side, side]), [2, 3, 1, 0]), [all, out]);
  }
  return t.rank === 2 && !(kind === "gpt" && index < 2) ? tf.transpose(t) : t;
}

function makeBatch({ kind, classes, sizes }, read, { x, y }) {
  const oneHot = (entry, count) => tf.cast(tf.oneHot(tf.tensor1d(read(entry), "int32"), count), "float32");
  const target = y.dtype === "i32" ? oneHot(y, classes) : tf.tensor(read(y), y.shape);
  if (kind === "gpt") return [oneHot(x, sizes.vocabulary), target];
  const input = tf.tensor(read(x), x.shape);
  return [kind === "cnn" ? tf.transpose(input, [0, 2, 3, 1]) : input, target];
}

function loadStep(workload) {
  const read = openFile(workload.file);
  const { kind, alpha, optimizer: optimizerName } = workload;
  const params = workload.params.map((entry, index) =>
    tf.variable(ownLayout(kind, index, tf.tensor(read(entry), entry.shape))),
  );
  const batches = workload.batches.map((batch) => makeBatch(workload, read, batch));
  const sizes = { ...workload.sizes };
  if (kind === "gpt") {
    const [batch, length] = workload.batches[0].x.shape;
    const hidden = tf.sub(1, tf.linalg.bandPart(tf.ones([length, length]), -1, 0));
    Object.assign(sizes, { batch, length, mask: tf.mul(hidden, -1e9) });
  }
  const optimizer = optimizerName === "adam" ? tf.train.adam(alpha, 0.9, 0.999, 1e-8) : tf.train.sgd(alpha);
  let count = 0;
  return {
    step(last) {
      last?.dispose();
      const [x, y] = batches[count++ % batches.length];
      return optimizer.minimize(() => criteria[kind](models[kind](sizes, params, x), y), true, params);
    },
    async wait(loss) {
      const [value] = await loss.data();
      loss.dispose();
      return value;
    },
  };
}

async function main() {
  const folder = dirname(require.resolve("@tensorflow/tfjs-backend-wasm"));
  wasm.setWasmPaths(`${folder}/`);
  if (!(await tf.setBackend("wasm"))) throw new Error(`the wasm backend did not start from ${pathToFileURL(folder)}`);
  await tf.ready();
  await serve(tf.version.tfjs, loadStep, () => {
    throw new Error("operations are not measured here");
  });
}

await main();
