/** The addon as a file: how large it is, and what it needs to be loaded. */
import { execFileSync } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const FOLDER = join(__dirname, "../native");
const MOST_BYTES = 12e6;
const addons = readdirSync(FOLDER).filter((name) => name.endsWith(".node"));
const own = addons.filter((name) => name.includes(`${process.platform}-${process.arch}`));

describe("the addon", () => {
  it("was built for this machine", () => {
    expect(own.length).toBeGreaterThan(0);
  });

  it.each(addons)("%s has at most 12 MB", (name) => {
    expect(statSync(join(FOLDER, name)).size).toBeLessThanOrEqual(MOST_BYTES);
  });

  // Drivers are looked for when they are asked for; were they linked, the addon would not load without them.
  const linux = process.platform === "linux";
  it.skipIf(!linux).each(own)(`%s needs the C library alone${linux ? "" : " (skipped: ldd is Linux's)"}`, (name) => {
    const lines = execFileSync("ldd", [join(FOLDER, name)], { encoding: "utf8" })
      .trim()
      .split("\n");
    const needed = lines.map((line) => line.trim().split(" ")[0]?.split("/").at(-1) ?? "");
    const allowed =
      /^(linux-(vdso|gate)\.so\.1|libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-(linux|musl)-?[\w-]*\.so\.\d|libc\.musl-\w+\.so\.1)$/;
    expect(needed).not.toEqual([]);
    expect(needed.filter((library) => !allowed.test(library))).toEqual([]);
  });
});
