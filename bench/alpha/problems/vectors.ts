/** Problems on drawn vectors: logistic regression with ill-scaled features, and a deep linear network. */
import { fromTypedArray, hostRandom, loss, nn, type Tensor } from "../../../src";
import { normals } from "./deterministic";
import { type Problem, ranges, type Sources, type Task } from "./problem";

/** Features [batch, width] and targets [batch, outputs]. */
type Vectors = { readonly x: Tensor; readonly y: Tensor };

/** Examples as rows in host memory. */
interface Rows {
  readonly x: Float32Array;
  readonly y: Float32Array;
  readonly width: number;
  readonly outputs: number;
}

const SIZES = { full: 4000, small: 2000, tiny: 200 } as const;

/** What tasks on vectors share: of `count` examples the first four fifths are learned from. */
function examples({ x, y, width, outputs }: Rows, count: number) {
  const train = Math.floor(0.8 * count);
  const pick = (from: Float32Array, size: number, rows: Uint32Array) => {
    const into = new Float32Array(rows.length * size);
    rows.forEach((row, at) => {
      into.set(from.subarray(row * size, (row + 1) * size), at * size);
    });
    return fromTypedArray(into, [rows.length, size]);
  };
  const batch = (rows: Uint32Array): Vectors => ({ x: pick(x, width, rows), y: pick(y, outputs, rows) });
  return {
    size: train,
    batch,
    fit: () => ranges(0, train, 1000).map(batch),
    held: () => ranges(train, count - train, 1000).map(batch),
  };
}

/** 30 features whose scales spread over two decades; labels by a line, of which 5 % are turned over. */
function illScaled(size: Sources["size"]): Rows {
  const [width, count] = [30, SIZES[size]];
  const [values, weights] = [normals(count * width, 77), normals(width, 78)];
  const scales = Float64Array.from({ length: width }, (_, i) => 10 ** ((2 * i) / (width - 1) - 1.5));
  const random = hostRandom(79);
  const y = new Float32Array(count);
  for (let row = 0; row < count; row++) {
    let score = 0;
    for (let i = 0; i < width; i++) score += (values[row * width + i] ?? 0) * (weights[i] ?? 0);
    y[row] = score > 0 !== random.uniform() < 0.05 ? 1 : 0;
  }
  const x = Float32Array.from(values, (value, at) => value * (scales[at % width] ?? 0));
  return { x, y, width, outputs: 1 };
}

export const logistic: Problem = {
  title: "logistic regression, 30 features over two decades of scale",
  deterministic: false,
  horizons: { short: 400, long: 3000 },
  async make(seed, { size }) {
    const model = nn.linear(30, 1).initialize(seed);
    const task: Task<nn.Linear, Vectors> = {
      params: model,
      loss: ({ x, y }, model) => loss.bceWithLogits(model(x), y),
      accuracy: ({ x, y }, model) => model(x).greater(0).equal(y.greater(0.5)).cast("f32").mean(),
      ...examples(illScaled(size), SIZES[size]),
    };
    return task as Task;
  },
};

/** y = A x with singular values of A over a decade, x of width 16, and noise of .1. */
function linearMap(size: Sources["size"]): Rows {
  const [width, count] = [16, SIZES[size]];
  const [x, noise, map] = [normals(count * width, 87), normals(count * width, 88), normals(width * width, 89)];
  const y = new Float32Array(count * width);
  for (let row = 0; row < count; row++) {
    for (let out = 0; out < width; out++) {
      let sum = 0.1 * (noise[row * width + out] ?? 0);
      for (let i = 0; i < width; i++) {
        sum += ((map[out * width + i] ?? 0) * (x[row * width + i] ?? 0) * 10 ** (-i / (width - 1))) / 4;
      }
      y[row * width + out] = sum;
    }
  }
  return { x: Float32Array.from(x), y, width, outputs: width };
}

/** Four linear layers one after another: not convex, with a plateau at the start. */
export const deepLinear: Problem = {
  title: "four linear layers of width 16",
  deterministic: false,
  horizons: { short: 400, long: 3000 },
  async make(seed, { size }) {
    const layer = () => nn.linear(16, 16, { bias: false });
    const model = nn.sequential(layer(), layer(), layer(), layer());
    model.initialize(seed);
    const task: Task<typeof model, Vectors> = {
      params: model,
      loss: ({ x, y }, model) => loss.mse(model(x), y),
      ...examples(linearMap(size), SIZES[size]),
    };
    return task as Task;
  },
};
