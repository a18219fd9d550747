// TypeScript to `dist`: emptied first, so that nothing stays of files that are gone. The script of the charts is put beside
// the compiled files, with its licence: so the package needs no dependency for its reports.

import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(import.meta.url);
rmSync(join(root, "dist"), { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [require.resolve("typescript/bin/tsc"), "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);

const charts = dirname(require.resolve("echarts/package.json"));
const copies = {
  "dist/echarts.common.min.js": "echarts.common.min.js",
  LICENSE: "echarts.LICENSE.txt",
  NOTICE: "echarts.NOTICE.txt",
};
for (const [from, to] of Object.entries(copies)) copyFileSync(join(charts, from), join(root, "dist/report", to));
