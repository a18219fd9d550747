/** The command line, `npx raphson <command>`: which command is meant. What a command does is its own file's subject. */
import { doctor } from "./doctor";
import { watch } from "./watch";

const USAGE = `Usage: npx raphson doctor [--device SPEC] [--json]
       npx raphson watch [FOLDER] [--port N] [--host NAME]
  doctor           what computes here and why, with a short test of each device that can be used
  --device SPEC    what would be asked for: auto, cpu, cuda, wgpu, cuda:1, …; tests it even if it is a software renderer
  --json           one JSON object instead of text
  watch            a live page of the runs below FOLDER (default runs), which train({ log }) writes
  --port N         default 6007; 0 is any that is free
  --host NAME      default 127.0.0.1: this machine only`;

async function main(): Promise<void> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === "doctor" || command === "watch") {
    process.exitCode = await (command === "doctor" ? doctor : watch)(rest);
    return;
  }
  const asked = command === "--help" || command === "help";
  (asked ? console.log : console.error)(asked ? USAGE : `there is no command ${command ?? "(none given)"}\n\n${USAGE}`);
  process.exitCode = asked ? 0 : 2;
}

main().catch((error: unknown) => {
  const code = typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  const usage = code.startsWith("ERR_PARSE_ARGS");
  console.error(usage ? `${error instanceof Error ? error.message : error}\n\n${USAGE}` : error);
  process.exitCode = usage ? 2 : 1;
});
