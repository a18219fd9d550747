/** Where the examples' digits come from: MNIST-style files, or drawn. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { data } from "../src";
import { UsageError } from "./arguments";
import { drawDigits } from "./drawnDigits";

/** The IDX pair in the folder whose names begin with `part`. */
function findPair(folder: string, part: string): { images: string; labels: string } | undefined {
  const names = readdirSync(folder).sort();
  const find = (kind: string) => names.find((name) => name.startsWith(part) && name.includes(kind));
  const [images, labels] = [find("images"), find("labels")];
  return images && labels ? { images: join(folder, images), labels: join(folder, labels) } : undefined;
}

/** Training and held-out digits from a folder: both pairs of files, or the first 80 % and the last 20 % of the only one. */
export async function readDigits(folder: string) {
  const [fitted, test] = [findPair(folder, "train"), findPair(folder, "t10k") ?? findPair(folder, "test")];
  if (fitted && test) return [await data.idx(fitted), await data.idx(test)] as const;
  const only = fitted ?? test ?? findPair(folder, "");
  if (only === undefined) throw new UsageError(`${folder} has no files whose names contain "images" and "labels"`);
  return (await data.idx(only)).split(0.8, { shuffle: false });
}

/** Drawn digits to learn from, and a quarter as many to hold out. */
export function makeDigits(size: number, seed: number) {
  const held = Math.ceil(size / 4);
  const drawn = ({ images, labels }: ReturnType<typeof drawDigits>) =>
    data.arrays({ images: { data: images, shape: [labels.length, 28, 28] }, labels });
  return [drawn(drawDigits(size, 2 * seed + 1)), drawn(drawDigits(held, 2 * seed + 2))] as const;
}
