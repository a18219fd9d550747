/**
 * jax-js on its wasm device, spoken to as `protocol.mjs` says. A whole step is one jitted function. Layouts are PyTorch's,
 * which are also its convolution's; embeddings are products with one-hot rows. Arrays are consumed by what they are
 * given to, hence `ref` wherever one is used again.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { openFile, serve } from "./protocol.mjs";

const folder = join(import.meta.dirname, "javascript/node_modules/@jax-js/jax");
const jax = await import(pathToFileURL(join(folder, "dist/index.js")).href);
const { blockUntilReady, jit, lax, nn, numpy: np, valueAndGrad } = jax;
const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

const dense = (x, weight, bias) => np.matmul(x, np.transpose(weight)).add(bias);

/** Mean over rows of −Σ target · log softmax(logits) */
function crossEntropy(logits, targets) {
  const rows = logits.shape[0];
  return np.sum(nn.logSoftmax(logits, -1).mul(targets)).mul(-1 / rows);
}

const squared = (outputs, targets) => np.mean(np.square(outputs.sub(targets)));

function layerNorm(x, scale, shift) {
  const centred = x.ref.sub(np.mean(x, -1, { keepdims: true }));
  const variance = np.mean(np.square(centred.ref), -1, { keepdims: true });
  return centred
    .mul(np.reciprocal(np.sqrt(variance.add(1e-5))))
    .mul(scale)
    .add(shift);
}

function maxPool(x) {
  const [batch, channels, rows, columns] = x.shape;
  return np.max(x.reshape([batch, channels, rows / 2, 2, columns / 2, 2]), [3, 5]);
}

const convolution = (x, weight, bias) => lax.conv(x, weight, [1, 1], "SAME").add(bias.reshape([1, -1, 1, 1]));

const models = {
  mlp: (_, p, x) => dense(nn.relu(dense(nn.relu(dense(x, p[0], p[1])), p[2], p[3])), p[4], p[5]),
  tiny: (_, p, x) => dense(np.tanh(dense(x, p[0], p[1])), p[2], p[3]),
  cnn(_, p, x) {
    const batch = x.shape[0];
    const first = maxPool(nn.relu(convolution(x, p[0], p[1])));
    const second = maxPool(nn.relu(convolution(first, p[2], p[3])));
    return dense(nn.relu(dense(second.reshape([batch, -1]), p[4], p[5])), p[6], p[7]);
  },
  gpt({ width, heads, layers, batch, length }, params, x0) {
    const p = params[Symbol.iterator]();
    const next = () => p.next().value;
    const table = next();
    const rows = batch * length;
    const embedded = np.matmul(x0, table.ref).reshape([batch, length, width]);
    let x = embedded.add(next()).reshape([rows, width]);
    const split = (t) => t.reshape([batch, length, heads, width / heads]);
    for (let layer = 0; layer < layers; layer++) {
      const parts = np.split(dense(layerNorm(x.ref, next(), next()), next(), next()), 3, 1);
      const attended = nn.dotProductAttention(...parts.map(split), { isCausal: true });
      x = x.add(dense(attended.reshape([rows, width]), next(), next()));
      const hidden = nn.gelu(dense(layerNorm(x.ref, next(), next()), next(), next()), { approximate: false });
      x = x.add(dense(hidden, next(), next()));
    }
    return np.matmul(layerNorm(x, next(), next()), np.transpose(table));
  },
};
const criteria = { mlp: crossEntropy, cnn: crossEntropy, gpt: crossEntropy, tiny: squared };

/** θ − α·g */
const sgd = (alpha) => ({
  begin: () => [],
  update: (params, gradients, state) => [params.map((param, i) => param.sub(gradients[i].mul(alpha))), state],
});

/** Adam as Kingma and Ba have it; the last of the state is [β₁ᵗ, β₂ᵗ]. */
const adam = (alpha, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8) => ({
  begin: (shapes) => [shapes.map((s) => np.zeros(s)), shapes.map((s) => np.zeros(s)), [np.array(1), np.array(1)]],
  update(params, gradients, [firsts, seconds, [power1, power2]]) {
    const [next1, next2] = [power1.mul(beta1), power2.mul(beta2)];
    const newFirsts = firsts.map((m, i) => m.mul(beta1).add(gradients[i].ref.mul(1 - beta1)));
    const newSeconds = seconds.map((v, i) => v.mul(beta2).add(np.square(gradients[i]).mul(1 - beta2)));
    const correct1 = np.reciprocal(np.subtract(1, next1.ref));
    const correct2 = np.reciprocal(np.subtract(1, next2.ref));
    const updated = params.map((param, i) => {
      const denominator = np.sqrt(newSeconds[i].ref.mul(correct2.ref)).add(epsilon);
      return param.sub(newFirsts[i].ref.mul(correct1.ref).mul(alpha).div(denominator));
    });
    correct1.dispose();
    correct2.dispose();
    return [updated, [newFirsts, newSeconds, [next1, next2]]];
  },
});

function makeBatch({ kind, classes, sizes }, read, { x, y }) {
  const oneHot = (entry, count) => nn.oneHot(np.array(read(entry), { dtype: np.int32 }), count);
  const target = y.dtype === "i32" ? oneHot(y, classes) : np.array(read(y)).reshape(y.shape);
  const input = kind === "gpt" ? oneHot(x, sizes.vocabulary) : np.array(read(x)).reshape(x.shape);
  return [input, target];
}

function loadStep(workload) {
  const read = openFile(workload.file);
  const { kind, alpha } = workload;
  let params = workload.params.map((entry) => np.array(read(entry)).reshape(entry.shape));
  const batches = workload.batches.map((batch) => makeBatch(workload, read, batch));
  const [batch, length] = workload.batches[0].x.shape;
  const sizes = { ...workload.sizes, batch, length };
  const optimizer = workload.optimizer === "adam" ? adam(alpha) : sgd(alpha);
  let state = optimizer.begin(workload.params.map(({ shape }) => shape));
  const compiled = jit((params, state, x, y) => {
    const lossOf = (params) => criteria[kind](models[kind](sizes, params, x), y);
    const [loss, gradients] = valueAndGrad(lossOf)(params.map((param) => param.ref));
    return [...optimizer.update(params, gradients, state), loss];
  });
  let count = 0;
  return {
    step(last) {
      last?.dispose();
      const [x, y] = batches[count++ % batches.length];
      let loss;
      [params, state, loss] = compiled(params, state, x.ref, y.ref);
      return loss;
    },
    async wait(loss) {
      await blockUntilReady([params, state]);
      return (await loss.data())[0];
    },
  };
}

await jax.init("wasm");
jax.defaultDevice("wasm");
await serve(version, loadStep, () => {
  throw new Error("operations are not measured here");
});
