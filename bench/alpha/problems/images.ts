/** Problems on digits: softmax regression, perceptrons, convolutional networks, an autoencoder. */
import { loss, nn, type Tensor } from "../../../src";
import { type DigitBatch, digitExamples } from "./examples";
import { type Problem, rightOnes, type Sources, type Task } from "./problem";

const HORIZONS = { short: 500, long: 3000 } as const;

/** A classifier of digits as a problem; `small` ones see 14 × 14 pixels. */
function classifier(title: string, small: boolean, network: () => nn.Module): Problem {
  return {
    title,
    deterministic: false,
    horizons: HORIZONS,
    async make(seed: number, sources: Sources): Promise<Task> {
      const model = network().initialize(seed);
      const task: Task<nn.Module, DigitBatch> = {
        params: model,
        loss: ({ images, labels }, model) => loss.crossEntropy(model(images), labels),
        accuracy: ({ images, labels }, model) => rightOnes(model(images), labels),
        ...(await digitExamples(sources, small)),
      };
      return task as Task;
    },
  };
}

export const mnistSoftmax = classifier("softmax regression on 784 pixels", false, () =>
  nn.sequential(nn.flatten(), nn.linear(784, 10)),
);

export const mnistMlpRelu = classifier("MLP 784-256-10, ReLU", false, () =>
  nn.sequential(nn.flatten(), nn.linear(784, 256), nn.relu(), nn.linear(256, 10)),
);

export const mnistMlpTanh = classifier("MLP 196-64-64-10, tanh", true, () =>
  nn.sequential(nn.flatten(), nn.linear(196, 64), nn.tanh(), nn.linear(64, 64), nn.tanh(), nn.linear(64, 10)),
);

const channels = () => nn.lambda((images: Tensor) => images.unsqueeze(1), "channels");

export const mnistCnn = classifier("CNN 14×14: 16 and 32 channels with strides of 2", true, () =>
  nn.sequential(
    channels(),
    nn.conv2d(1, 16, 3, { stride: 2, padding: 1 }),
    nn.relu(),
    nn.conv2d(16, 32, 3, { stride: 2, padding: 1 }),
    nn.relu(),
    nn.flatten(),
    nn.linear(32 * 4 * 4, 10),
  ),
);

export const mnistCnnNorm = classifier("the same CNN with batch norm", true, () =>
  nn.sequential(
    channels(),
    nn.conv2d(1, 16, 3, { stride: 2, padding: 1, bias: false }),
    nn.batchNorm2d(16),
    nn.relu(),
    nn.conv2d(16, 32, 3, { stride: 2, padding: 1, bias: false }),
    nn.batchNorm2d(32),
    nn.relu(),
    nn.flatten(),
    nn.linear(32 * 4 * 4, 10),
  ),
);

export const mnistCnnDropout = classifier("the same CNN with dropout of .3", true, () =>
  nn.sequential(
    channels(),
    nn.conv2d(1, 16, 3, { stride: 2, padding: 1 }),
    nn.relu(),
    nn.dropout(0.3),
    nn.conv2d(16, 32, 3, { stride: 2, padding: 1 }),
    nn.relu(),
    nn.flatten(),
    nn.dropout(0.3),
    nn.linear(32 * 4 * 4, 10),
  ),
);

/** 196-64-16-64-196 with sigmoids, cross-entropy of each pixel. */
export const autoencoder: Problem = {
  title: "autoencoder 196-64-16-64-196",
  deterministic: false,
  horizons: HORIZONS,
  async make(seed, sources) {
    const model = nn.sequential(
      nn.flatten(),
      nn.linear(196, 64),
      nn.sigmoid(),
      nn.linear(64, 16),
      nn.linear(16, 64),
      nn.sigmoid(),
      nn.linear(64, 196),
    );
    model.initialize(seed);
    const task: Task<typeof model, DigitBatch> = {
      params: model,
      loss: ({ images }, model) => loss.bceWithLogits(model(images), images.flatten(1)),
      ...(await digitExamples(sources, true)),
    };
    return task as Task;
  },
};
