/** A worker process: runs one spec after another as they are sent, and sends back what came of them. */
import { type RunSpec, runOne } from "./run";

/** What a worker answers. */
export type Answer = { readonly result: Awaited<ReturnType<typeof runOne>> } | { readonly error: string };

process.on("message", (spec: RunSpec) => {
  runOne(spec)
    .then((result): Answer => ({ result }))
    .catch(
      (error: unknown): Answer => ({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    )
    .then((answer) => process.send?.(answer));
});
process.on("disconnect", () => process.exit()); // nobody is left to answer
