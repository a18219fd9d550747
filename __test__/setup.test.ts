/** `npm run setup` where node_modules is a link: it must not empty the folder that the link leads to. */
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ROOT } from "./devices/apart";

it("refuses to install through a linked node_modules, and leaves it as it is", async () => {
  const folder = await mkdtemp(join(tmpdir(), "raphson-setup-"));
  try {
    const [checkout, packages] = [join(folder, "checkout"), join(folder, "packages")];
    await mkdir(join(checkout, "scripts"), { recursive: true });
    await mkdir(packages);
    await writeFile(join(packages, "kept.txt"), "");
    await copyFile(join(ROOT, "scripts/setup.mjs"), join(checkout, "scripts/setup.mjs"));
    await writeFile(join(checkout, "package-lock.json"), "{}");
    await symlink(packages, join(checkout, "node_modules"), "junction");
    const { code, err } = await new Promise<{ code: unknown; err: string }>((resolve) => {
      execFile(process.execPath, [join(checkout, "scripts/setup.mjs")], (error, _, err) =>
        resolve({ code: error?.code, err }),
      );
    });
    expect(code).toBe(1);
    expect(err).toMatch(/node_modules is a link to .*packages.*remove the link/);
    expect(await readdir(packages)).toEqual(["kept.txt"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
