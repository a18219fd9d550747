/**
 * The 16-bit float formats in JavaScript: the bits of numbers, and the numbers of bits. Kernels convert by themselves;
 * this is for data on its way in and out.
 */

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/**
 * The bits of the f16 (or bf16) nearest to `value`, ties to even; too large gives infinity.
 *
 * ```ts
 * import { floatToHalf, halfToFloat } from "raphson";
 *
 * console.log(floatToHalf(1).toString(16), halfToFloat(0x3c00), halfToFloat(0x3f80, "bf16")); // 3c00 1 1
 * ```
 */
export function floatToHalf(value: number, dtype: "f16" | "bf16" = "f16"): number {
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  // A NaN in either format.
  if (Number.isNaN(value)) return 0x7fc0;
  const [digits, least, infinity] = dtype === "f16" ? [10, -14, 0x7c00] : [7, -126, 0x7f80];
  if (size === Number.POSITIVE_INFINITY) return sign | infinity;
  // The spacing of values at this size; dividing by it is exact, since it is a power of two.
  const exponent = Math.max(exponentOf(size), least);
  const units = roundHalfToEven(size / 2 ** (exponent - digits));
  // A normal number of units carries the leading one, which is an exponent field of 1; a carry goes into the exponent.
  return sign | Math.min((exponent - least) * 2 ** digits + units, infinity);
}

/** The number that the bits of an f16 (or bf16) stand for. */
export function halfToFloat(half: number, dtype: "f16" | "bf16" = "f16"): number {
  if (dtype === "bf16") {
    bits[0] = half << 16;
    return single[0] ?? Number.NaN;
  }
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const digits = half & 0x3ff;
  if (exponent === 31) return digits === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * digits * 2 ** -24 : sign * (1024 + digits) * 2 ** (exponent - 25);
}

function exponentOf(size: number): number {
  if (size === 0) return Number.NEGATIVE_INFINITY;
  const guess = Math.floor(Math.log2(size));
  if (2 ** guess > size) return guess - 1;
  return 2 ** (guess + 1) <= size ? guess + 1 : guess;
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
