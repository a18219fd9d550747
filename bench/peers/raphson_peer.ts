/**
 * Our own side of the benchmarks, in a process like those of the peers and spoken to as `protocol.mjs` says: steps by
 * `trainingStep`, operations by `compile`. The models stand in `raphson_models.ts`.
 */
import { deviceInfo, newton, optim, trainingStep } from "../../src";
import { type Batch, loadModel, lossOf } from "./raphson_models";
import { loadOp } from "./raphson_ops";
import type { Workload } from "./workloads";

async function main(): Promise<void> {
  const { openFile, serve } = await import("./protocol.mjs");
  const { name } = deviceInfo();
  const loadStep = (workload: Workload) => {
    const { model, batches } = loadModel(workload, openFile(workload.file));
    const { alpha } = workload;
    const optimizer = workload.optimizer === "adam" ? optim.adam() : optim.sgd();
    let last = Number.NaN;
    const step = trainingStep({
      model,
      loss: lossOf,
      optimizer: newton(optimizer, { rule: "constant", initial: alpha, min: alpha * 1e-6, max: alpha * 1e6 }),
      onReport: (report) => {
        last = report.loss;
      },
    });
    let count = 0;
    return {
      step: () => step.run(batches[count++ % batches.length] as Batch),
      wait: async () => {
        await step.drain();
        return last;
      },
      plan: () => step.programs(),
    };
  };
  await serve(name, loadStep, loadOp);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
