/**
 * Activations as layers: the tensor methods of the same names, and the one that is trained.
 */

import { argumentError } from "../errors";
import type { Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { count } from "../tensor/validate";
import { lambda } from "./layers";
import { Module, type Parameter } from "./module";

/** The input itself. */
export function identity(): Module {
  return lambda((x: Tensor) => x, "identity()");
}

/** max(x, 0) */
export function relu(): Module {
  return lambda((x: Tensor) => x.relu(), "relu()");
}

/** x held between 0 and 6 */
export function relu6(): Module {
  return lambda((x: Tensor) => x.relu6(), "relu6()");
}

/** x where positive, slope · x elsewhere */
export function leakyRelu(slope = 0.01): Module {
  return lambda((x: Tensor) => x.leakyRelu(slope), `leakyRelu(${slope})`);
}

/** x where positive, α (eˣ − 1) elsewhere */
export function elu(alpha = 1): Module {
  return lambda((x: Tensor) => x.elu(alpha), `elu(${alpha})`);
}

/** x where positive, α (e^(x/α) − 1) elsewhere */
export function celu(alpha = 1): Module {
  return lambda((x: Tensor) => x.celu(alpha), `celu(${alpha})`);
}

/** The scaled `elu` that keeps mean 0 and variance 1. */
export function selu(): Module {
  return lambda((x: Tensor) => x.selu(), "selu()");
}

/** x · Φ(x), with the normal distribution's Φ */
export function gelu(): Module {
  return lambda((x: Tensor) => x.gelu(), "gelu()");
}

/** `gelu` by its approximation with tanh. */
export function geluTanh(): Module {
  return lambda((x: Tensor) => x.geluTanh(), "geluTanh()");
}

/** The hyperbolic tangent. */
export function tanh(): Module {
  return lambda((x: Tensor) => x.tanh(), "tanh()");
}

/** 1 / (1 + exp(−x)) */
export function sigmoid(): Module {
  return lambda((x: Tensor) => x.sigmoid(), "sigmoid()");
}

/** log of the sigmoid */
export function logSigmoid(): Module {
  return lambda((x: Tensor) => x.logSigmoid(), "logSigmoid()");
}

/** x / (1 + exp(−x)) */
export function silu(): Module {
  return lambda((x: Tensor) => x.silu(), "silu()");
}

/** x · tanh(softplus(x)) */
export function mish(): Module {
  return lambda((x: Tensor) => x.mish(), "mish()");
}

/** log(1 + eˣ) */
export function softplus(): Module {
  return lambda((x: Tensor) => x.softplus(), "softplus()");
}

/** x / (1 + |x|) */
export function softsign(): Module {
  return lambda((x: Tensor) => x.softsign(), "softsign()");
}

/** x held between `low` and `high` */
export function hardtanh(low = -1, high = 1): Module {
  return lambda((x: Tensor) => x.hardtanh(low, high), `hardtanh(${low}, ${high})`);
}

/** x/6 + ½ held between 0 and 1 */
export function hardSigmoid(): Module {
  return lambda((x: Tensor) => x.hardSigmoid(), "hardSigmoid()");
}

/** x · hardSigmoid(x) */
export function hardSwish(): Module {
  return lambda((x: Tensor) => x.hardSwish(), "hardSwish()");
}

/** eˣ / Σ eˣ along `axis` */
export function softmax(axis = -1): Module {
  return lambda((x: Tensor) => x.softmax(axis), `softmax(${axis})`);
}

/** log softmax along `axis` */
export function logSoftmax(axis = -1): Module {
  return lambda((x: Tensor) => x.logSoftmax(axis), `logSoftmax(${axis})`);
}

/** The first half along `axis` times the sigmoid of the second. */
export function glu(axis = -1): Module {
  return lambda((x: Tensor) => x.glu(axis), `glu(${axis})`);
}

/** x where positive, slope · x elsewhere, with one trained slope, or one for each channel (axis 1). */
export class PRelu extends Module {
  readonly slope: Parameter;

  constructor(channels = 1, initial = 0.25) {
    super();
    if (!Number.isFinite(initial)) throw argumentError("nn.prelu", `the slope must be a number, got ${initial}`);
    this.slope = this.parameter([count("nn.prelu", "the number of channels", channels)], { constant: initial });
  }

  override forward(x: Tensor): Tensor {
    const after = Math.max(0, x.rank - 2);
    const slope = this.slope.value.reshape([-1, ...Array<number>(after).fill(1)]);
    return where(x.greater(0), x, x.mul(slope));
  }

  override describe(): string {
    return `prelu(${this.slope.shape[0]})`;
  }
}

/** A `leakyRelu` whose slope is trained: one, or one for each of `channels` (axis 1). */
export function prelu(channels?: number, initial?: number): PRelu {
  return new PRelu(channels, initial);
}
