/**
 * How each entry of convolutions.json is computed here: convolutions take data and kernel, pools take data and a window.
 */

import type { Tensor } from "../../src";
import * as api from "../../src";
import type { Runner } from "./format";

type Pair = (x: Tensor, kernel: Tensor, options: object) => Tensor;
type Pool = (x: Tensor, window: number, options: object) => Tensor;
type Adaptive = (x: Tensor, size: number | readonly number[]) => Tensor;

const pair =
  (f: Pair): Runner =>
  ([x, kernel], _indices, args) =>
    f(x as Tensor, kernel as Tensor, args);
const pool =
  (f: Pool): Runner =>
  ([x], _indices, { window = 4, ...options }) =>
    f(x as Tensor, window, options);
const adaptive =
  (f: Adaptive): Runner =>
  ([x], _indices, { size }) =>
    f(x as Tensor, size);

/** Every entry by its name. */
export const CONVOLUTIONS: Readonly<Record<string, Runner>> = {
  conv1d: pair(api.conv1d),
  conv2d: pair(api.conv2d),
  convTranspose1d: pair(api.convTranspose1d),
  convTranspose2d: pair(api.convTranspose2d),
  maxPool1d: pool(api.maxPool1d),
  maxPool2d: pool(api.maxPool2d),
  avgPool1d: pool(api.avgPool1d),
  avgPool2d: pool(api.avgPool2d),
  maxPoolBlocks: pool(api.maxPool2d),
  avgPoolBlocks: pool(api.avgPool2d),
  adaptiveAvgPool2d: adaptive(api.adaptiveAvgPool2d),
  adaptiveMaxPool2d: adaptive(api.adaptiveMaxPool2d),
};
