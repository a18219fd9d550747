/**
 * The rules on Rosenbrock's valley f(x, y) = (1 − x)² + 100 (y − x²)², two parameters and no noise: prints how far each
 * rule gets, and draws its path. Always on the CPU: it is about f64, and two numbers are nothing for a GPU.
 */
import { parseArgs } from "node:util";
import { ALPHA_RULES, newton, optim, scalar, setDevice, type Tensor, trainingStep } from "../src";
import { choiceOf, countOf, numberOf, runExample } from "./arguments";
import { type Line, writePicture } from "./picture";

const USAGE = `Usage: npx ts-node --transpile-only examples/rosenbrock.ts [options]
  --steps N           default 500
  --rules A,B,…       default exact,retsinas,alt1,alt2,hermite,nextPlain
  --gamma G           slow adaptation (default 0.5; "next" and "nextPlain" have their own)
  --alpha A           the learning rate to start from (default 1e-4)
  --out FILE          where the picture goes (default runs/rosenbrock.svg)
  --json              the last line is one JSON object
  --help`;

const START = { x: -1.2, y: 1 };

interface Point {
  readonly x: Tensor<"f64">;
  readonly y: Tensor<"f64">;
}

function rosenbrock(_: object, { x, y }: Point): Tensor<"f64"> {
  const valley = y.sub(x.square());
  return x.neg().add(1).square().add(valley.square().mul(100));
}

/** The contour f = level as a closed line: y = x² ± √((level − (1 − x)²) / 100). */
function contour(level: number): Line {
  const width = Math.sqrt(level);
  const xs = Array.from({ length: 201 }, (_, index) => 1 - width + (2 * width * index) / 200);
  const offset = (x: number) => Math.sqrt(Math.max(0, level - (1 - x) ** 2) / 100);
  const upper = xs.map((x) => [x, x * x + offset(x)] as const);
  const lower = [...xs].reverse().map((x) => [x, x * x - offset(x)] as const);
  return { name: `f = ${level}`, points: [...upper, ...lower] };
}

/** The path of one rule from the start; ends early where the rule fails. */
async function descend(rule: (typeof ALPHA_RULES)[number], steps: number, gamma: number, alpha: number) {
  const own = rule === "next" || rule === "nextPlain";
  const options = own ? { rule, initial: alpha } : { rule, gamma, initial: alpha };
  using step = trainingStep({
    params: { x: scalar(START.x, { dtype: "f64" }), y: scalar(START.y, { dtype: "f64" }) },
    loss: rosenbrock,
    optimizer: newton(optim.sgd(), options),
  });
  const path: (readonly [number, number])[] = [[START.x, START.y]];
  let failure: string | undefined;
  for (let index = 0; index < steps && failure === undefined; index++) {
    try {
      await step.step({});
      const { x, y } = step.params;
      path.push([x.item(), y.item()]);
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error);
    }
  }
  const [x, y] = path.at(-1) ?? [Number.NaN, Number.NaN];
  return { rule, path, x, y, value: (1 - x) ** 2 + 100 * (y - x * x) ** 2, alpha: step.alpha, failure };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      steps: { type: "string", default: "500" },
      rules: { type: "string", default: "exact,retsinas,alt1,alt2,hermite,nextPlain" },
      gamma: { type: "string", default: "0.5" },
      alpha: { type: "string", default: "1e-4" },
      out: { type: "string", default: "runs/rosenbrock.svg" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  const steps = countOf("steps", values.steps);
  const gamma = numberOf("gamma", values.gamma, Number.MIN_VALUE, 1);
  const alpha = numberOf("alpha", values.alpha, Number.MIN_VALUE);
  const rules = values.rules.split(",").map((rule) => choiceOf("rules", rule.trim(), ALPHA_RULES));

  setDevice("cpu");
  const results = [];
  for (const rule of rules) {
    const result = await descend(rule, steps, gamma, alpha);
    results.push(result);
    const end = `(${result.x.toFixed(4)}, ${result.y.toFixed(4)})`;
    const note = result.failure === undefined ? "" : `  stopped: ${result.failure}`;
    console.log(
      `${rule.padEnd(28)} f = ${result.value.toExponential(3)} at ${end}, α ${result.alpha.toPrecision(3)}${note}`,
    );
  }
  const picture = writePicture(values.out, {
    title: `Rosenbrock's valley, gradient descent, ${steps} steps`,
    x: "x",
    y: [{ name: "y" }],
    lines: [...[0.1, 1, 4].map(contour), ...results.map(({ rule, path }) => ({ name: rule, points: path }))],
  });
  console.log(`picture ${picture}`);
  if (values.json) console.log(JSON.stringify(Object.fromEntries(results.map(({ rule, value }) => [rule, value]))));
}

runExample(main, USAGE);
