/**
 * Events for TensorBoard: one file of records, each a length, its check sum, an Event in protobuf's wire format and the
 * check sum of that (TFRecord; tensorboard/compat/proto/event.proto). Only scalars are written.
 */
import { createWriteStream, type WriteStream } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import type { StepReport } from "../newton/step";
import type { Evaluation } from "./history";

/** CRC-32C's polynomial, bits reversed. */
const POLYNOMIAL = 0x82f63b78;
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (TABLE[(crc ^ byte) & 255] ?? 0);
  return ~crc >>> 0;
}

/** As TFRecord stores it: rotated right by 15 bits, plus a constant. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** length (u64), masked crc of it, data, masked crc of them; little endian. */
export function record(data: Uint8Array): Buffer {
  const head = Buffer.alloc(12);
  head.writeBigUInt64LE(BigInt(data.length));
  head.writeUInt32LE(masked(head.subarray(0, 8)), 8);
  const foot = Buffer.alloc(4);
  foot.writeUInt32LE(masked(data));
  return Buffer.concat([head, data, foot]);
}

/** A number in base 128, low digits first. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}

// Field number and wire type: 0 varint, 1 eight bytes, 2 bytes with their length, 5 four bytes.
const whole = (field: number, value: number) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Uint8Array) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);
function double(field: number, value: number): Buffer {
  const number = Buffer.alloc(8);
  number.writeDoubleLE(value);
  return Buffer.concat([varint(field * 8 + 1), number]);
}
function float(field: number, value: number): Buffer {
  const number = Buffer.alloc(4);
  number.writeFloatLE(value);
  return Buffer.concat([varint(field * 8 + 5), number]);
}

/** Event { double wall_time = 1; int64 step = 2; … } */
const event = (step: number, content: Uint8Array) =>
  Buffer.concat([double(1, Date.now() / 1000), whole(2, step), content]);

/** Summary { repeated Value value = 1 }, Value { string tag = 1; float simple_value = 2 }; Event.summary = 5 */
function summary(scalars: readonly (readonly [string, number])[]): Buffer {
  const values = scalars.map(([tag, value]) => bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)])));
  return bytes(5, Buffer.concat(values));
}

let files = 0;

/** Writes an event file in a folder. */
export class TensorBoardLog {
  readonly path: string;
  readonly #stream: WriteStream;

  /**
   * `steps` and `evaluations`: those done before. TensorBoard forgets what an older file says of this step and later ones,
   * and so also an evaluation that was made after the last of the steps.
   */
  constructor(folder: string, steps: number, evaluations: readonly Evaluation[], onError: (error: Error) => void) {
    const time = Math.floor(Date.now() / 1000);
    this.path = join(folder, `events.out.tfevents.${time}.${hostname()}.${process.pid}.${files++}`);
    this.#stream = createWriteStream(this.path);
    this.#stream.on("error", onError);
    this.#stream.write(record(event(0, bytes(3, Buffer.from("brain.Event:2"))))); // Event.file_version = 3
    // Event.session_log = 7, SessionLog { status = 1: START (1) }
    if (steps > 0) this.#stream.write(record(event(steps, bytes(7, whole(1, 1)))));
    for (const evaluation of evaluations) if (steps > 0 && evaluation.step >= steps) this.evaluation(evaluation);
  }

  step(report: StepReport): void {
    const { loss, alpha, slope, nextSlope, curvature, nextLoss, accepted, measured } = report;
    const numbers = { alpha, slope, nextSlope, curvature, nextLoss, accepted: Number(accepted) };
    const known = Object.entries(numbers).filter(([, value]) => !Number.isNaN(value));
    const scalars: [string, number][] = [["train/loss", loss], ...prefixed("train/", known)];
    this.#write(report.step, [...scalars, ...prefixed("measured/", Object.entries(measured))]);
  }

  evaluation({ step, loss, metrics }: Evaluation): void {
    this.#write(step, [["held-out/loss", loss], ...prefixed("held-out/", Object.entries(metrics))]);
  }

  #write(step: number, scalars: readonly (readonly [string, number])[]): void {
    this.#stream.write(record(event(step, summary(scalars))));
  }

  /** Resolves when the file is whole. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stream.closed) return resolve();
      this.#stream.once("close", resolve);
      this.#stream.end();
    });
  }
}

const prefixed = (prefix: string, numbers: readonly (readonly [string, number])[]) =>
  numbers.map(([name, value]): [string, number] => [prefix + name, value]);
