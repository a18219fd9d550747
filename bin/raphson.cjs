#!/usr/bin/env node
// `npx raphson`: the compiled command line where there is one, else (in a checkout) the sources.
const { existsSync } = require("node:fs");
const { join } = require("node:path");

const compiled = join(__dirname, "../dist/cli/main.js");
if (existsSync(compiled)) {
  require(compiled);
} else {
  require("ts-node/register/transpile-only");
  require("../src/cli/main.ts");
}
