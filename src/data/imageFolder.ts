/**
 * Folders of images, one folder for each class, decoded and resized as batches are drawn, by `sharp` (libvips: every common
 * format, four to five times as fast as decoders in JavaScript, on npm for every platform that this package is for).
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { argumentError, RaphsonError } from "../errors";
import type { Tensor } from "../tensor";
import type { Column } from "./columns";
import { Dataset } from "./dataset";
import { fileError, optionalPackage } from "./optional";

/** `images` [batch, channels, height, width] with values in [0, 1], and their `labels` [batch]. */
export type PictureBatch = { readonly images: Tensor<"f32">; readonly labels: Tensor<"i32"> };

/** How pictures are brought to one size. */
export interface ImageFolderOptions {
  /** Height and width in pixels. */
  readonly size: readonly [height: number, width: number];
  /** 3 for colours, 1 for grey; 3 if not given. */
  readonly channels?: 1 | 3;
  /** What happens to pictures of other proportions: the middle is cut out (`cover`), or they are stretched (`fill`). */
  readonly fit?: "cover" | "fill";
}

/** Pictures on disk and the names of their folders. */
export class ImageFolder extends Dataset<PictureBatch> {
  /** The folders' names, sorted; a label is a place here. */
  readonly classes: readonly string[];

  /** @internal Use `data.imageFolder`. */
  constructor(columns: ReadonlyMap<string, Column>, classes: readonly string[]) {
    super(columns);
    this.classes = classes;
  }
}

const ENDINGS = /\.(avif|gif|jpe?g|png|svg|tiff?|webp)$/i;

/** Subfolders, sorted; files beside them are left alone. */
async function classesIn(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch((cause: unknown) => {
    throw fileError("data.imageFolder", path, cause);
  });
  const names = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  if (names.length > 0) return names.sort();
  throw new RaphsonError("FILE", "data.imageFolder", `${path} has no folders; it needs one of images for each class`);
}

type Sharp = typeof import("sharp");

/** One picture as bytes, channel after channel. */
async function decode(sharp: Sharp, path: string, options: Required<ImageFolderOptions>): Promise<Uint8Array> {
  const { channels, fit } = options;
  const [height, width] = options.size;
  try {
    const upright = sharp(path).rotate().flatten({ background: "white" }).resize({ width, height, fit });
    const { data, info } = await (channels === 1 ? upright.toColourspace("b-w") : upright.toColourspace("srgb"))
      .raw()
      .toBuffer({ resolveWithObject: true });
    const planes = new Uint8Array(channels * height * width);
    for (let channel = 0; channel < channels; channel++) {
      for (let pixel = 0; pixel < height * width; pixel++) {
        planes[channel * height * width + pixel] =
          data[pixel * info.channels + Math.min(channel, info.channels - 1)] ?? 0;
      }
    }
    return planes;
  } catch (cause) {
    throw fileError("data.imageFolder", path, cause);
  }
}

/** Pictures that are decoded when they are drawn. */
function pictureColumn(sharp: Sharp, paths: readonly string[], options: Required<ImageFolderOptions>): Column {
  const [height, width] = options.size;
  const one = options.channels * height * width;
  return {
    dtype: "f32",
    shape: [options.channels, height, width],
    size: paths.length,
    async gather(rows) {
      const into = new Float32Array(rows.length * one);
      const each = async (row: number, position: number) => {
        const bytes = await decode(sharp, paths[row] ?? "", options);
        for (let i = 0; i < one; i++) into[position * one + i] = (bytes[i] ?? 0) / 255;
      };
      await Promise.all(Array.from(rows, each));
      return into;
    },
  };
}

/**
 * Images in folders, one for each class (`flowers/rose/1.jpg`), through the package `sharp`, which you install beside this one.
 * Pictures are turned upright, laid on white and resized when a batch is drawn, so that only batches are in memory; with
 * `prefetch` the next ones are decoded meanwhile. RaphsonErrors, with the file: a folder without classes or without images, a
 * picture that cannot be decoded; the package is not there.
 *
 * @example
 *     const flowers = await data.imageFolder("flowers", { size: [64, 64] });
 *     const [fit, held] = flowers.split(0.8, { seed: 1 });
 *     for await (const { images, labels } of fit.batches(32, { shuffle: true }).prefetch()) …
 */
export async function imageFolder(path: string, options: ImageFolderOptions): Promise<ImageFolder> {
  const op = "data.imageFolder";
  const { size, channels = 3, fit = "cover" } = options ?? {};
  if (
    !Array.isArray(size) ||
    size.length !== 2 ||
    size.some((length) => !(Number.isSafeInteger(length) && length >= 1))
  ) {
    throw argumentError(op, `size must be [height, width] in pixels, not ${JSON.stringify(size)}`);
  }
  if (channels !== 1 && channels !== 3) throw argumentError(op, `channels is 1 (grey) or 3 (colours), not ${channels}`);
  if (fit !== "cover" && fit !== "fill")
    throw argumentError(op, `fit is "cover" or "fill", not ${JSON.stringify(fit)}`);
  const { default: sharp } = await optionalPackage(op, "sharp", () => import("sharp"));
  const classes = await classesIn(path);
  const paths: string[] = [];
  const labels: number[] = [];
  for (const [label, name] of classes.entries()) {
    const files = (await readdir(join(path, name))).filter((file) => ENDINGS.test(file)).sort();
    if (files.length === 0) throw new RaphsonError("FILE", op, `${join(path, name)} has no images (png, jpg, webp, …)`);
    paths.push(...files.map((file) => join(path, name, file)));
    labels.push(...files.map(() => label));
  }
  const numbers = Int32Array.from(labels);
  const labelColumn: Column = {
    dtype: "i32",
    shape: [],
    size: numbers.length,
    gather: (rows) => Int32Array.from(rows, (row) => numbers[row] ?? 0),
  };
  const pictures = pictureColumn(sharp as Sharp, paths, { size, channels, fit });
  return new ImageFolder(
    new Map([
      ["images", pictures],
      ["labels", labelColumn],
    ]),
    classes,
  );
}
