// Tests run in forked processes, because leak tests need the collector and threads refuse the flag.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    alias: { raphson: fileURLToPath(new URL("./src/index.ts", import.meta.url)) },
  },
  test: {
    include: ["__test__/**/*.test.ts"],
    pool: "forks",
    execArgv: ["--expose-gc"],
    testTimeout: 60_000,
    typecheck: {
      enabled: true,
      include: ["__test__/**/*.test-d.ts"],
      tsconfig: "./tsconfig.json",
    },
  },
});
