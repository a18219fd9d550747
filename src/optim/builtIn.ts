/**
 * The built-in optimizers: a function each. Their mathematics is the addon's; the table with formulas, sources and memory
 * is `docs/optimizers.md`.
 */
import { argumentError } from "../errors";
import { checkObject } from "../tensor/validate";
import { type Group, type Part, together } from "./groups";
import { checkedLearningRate, nativeOptimizer, type Optimizer } from "./optimizer";
import type {
  AdadeltaOptions,
  AdafactorOptions,
  AdagradOptions,
  AdamOptions,
  AdamWOptions,
  AmsgradOptions,
  LambOptions,
  LionOptions,
  MomentumOptions,
  MuonOptions,
  NadamOptions,
  PlainOptions,
  RadamOptions,
  RmspropOptions,
  SgdOptions,
  WithGroups,
} from "./options";
import { numbersOf } from "./options";

const APART = ["learningRate", "groups", "match", "learningRateFactor"];

/** The optimizer `name` of the addon with these options, for each group its own. */
function builtIn<O extends PlainOptions>(name: string, options: WithGroups<O>, usual: number): Optimizer {
  const op = `optim.${name}`;
  checkObject(op, options, "{ learningRate: … }");
  const { groups, learningRate: given = usual } = options as WithGroups<PlainOptions>;
  const learningRate = checkedLearningRate(op, given);
  const shared = numbersOf(op, options, ["learningRate", "groups"]);
  const rest = nativeOptimizer(name, shared, learningRate);
  if (groups === undefined) return rest;
  if (!Array.isArray(groups)) throw argumentError(op, "groups must be an array of { match, … }");
  const parts = groups.map((group: Group<object>, index): Part => {
    const { match, learningRateFactor = 1 } = group;
    if (match === undefined) throw argumentError(op, `group ${index} has no match; say which parameters it has`);
    if ("learningRate" in group) {
      throw argumentError(op, `group ${index} has a learningRate; groups share one, give learningRateFactor instead`);
    }
    const own = numbersOf(op, group, APART);
    return { match, learningRateFactor, optimizer: nativeOptimizer(name, { ...shared, ...own }, learningRate) };
  });
  return together(op, [...parts, { optimizer: rest }], { name, options: rest.options, learningRate });
}

/**
 * Gradient descent: ω = ∇L.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const plain = optim.sgd({ learningRate: 0.1 });
 * const automatic = newton(optim.sgd());   // no learning rate
 * console.log(plain.name, automatic.optimizer.name);
 * ```
 */
export function sgd(options: WithGroups<SgdOptions> = {}): Optimizer {
  return builtIn("sgd", options, 0.01);
}

/** Heavy ball: v ← βv + ∇L, ω = v. */
export function momentum(options: WithGroups<MomentumOptions> = {}): Optimizer {
  return builtIn("momentum", options, 0.01);
}

/** Nesterov's momentum: v ← βv + ∇L, ω = ∇L + βv. */
export function nesterov(options: WithGroups<MomentumOptions> = {}): Optimizer {
  return builtIn("nesterov", options, 0.01);
}

/** Adam: ω = m̂ / (√v̂ + ε), with bias-corrected means of the gradient and of its square. */
export function adam(options: WithGroups<AdamOptions> = {}): Optimizer {
  return builtIn("adam", options, 0.001);
}

/**
 * AdamW: Adam's ω plus weightDecay · θ.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const decayed = optim.adamW({
 *   weightDecay: 0.1,
 *   groups: [{ match: ({ shape }) => shape.length < 2, weightDecay: 0 }],   // biases and norms: all that is no matrix
 * });
 * console.log(newton(decayed).optimizer.options.weightDecay);
 * ```
 */
export function adamW(options: WithGroups<AdamWOptions> = {}): Optimizer {
  return builtIn("adamw", options, 0.001);
}

/** AMSGrad: Adam whose mean square never falls. */
export function amsgrad(options: WithGroups<AmsgradOptions> = {}): Optimizer {
  return builtIn("amsgrad", options, 0.001);
}

/** NAdam: Adam that looks ahead as Nesterov does. */
export function nadam(options: WithGroups<NadamOptions> = {}): Optimizer {
  return builtIn("nadam", options, 0.002);
}

/** RAdam: Adam that divides by √v̂ only once v̂ rests on enough steps. */
export function radam(options: WithGroups<RadamOptions> = {}): Optimizer {
  return builtIn("radam", options, 0.001);
}

/** Adagrad: s ← s + g², ω = g / (√s + ε). */
export function adagrad(options: WithGroups<AdagradOptions> = {}): Optimizer {
  return builtIn("adagrad", options, 0.01);
}

/** Adadelta: ω = g √(u + ε) / √(v + ε), with running mean squares v of gradients and u of directions. */
export function adadelta(options: WithGroups<AdadeltaOptions> = {}): Optimizer {
  return builtIn("adadelta", options, 1);
}

/** RMSProp: ω = g / (√v + ε), optionally centered and with momentum. */
export function rmsprop(options: WithGroups<RmspropOptions> = {}): Optimizer {
  return builtIn("rmsprop", options, 0.01);
}

/** Lion: ω = sign(β₁m + (1 − β₁)g) + weightDecay · θ. */
export function lion(options: WithGroups<LionOptions> = {}): Optimizer {
  return builtIn("lion", options, 0.0001);
}

/**
 * Adafactor: mean squares of matrices kept as rows and columns, directions in proportion to the parameters' size. A plain
 * learning rate is the paper's relative step; its fall with time is a schedule.
 *
 * ```ts
 * import { optim } from "raphson";
 *
 * const paper = optim.adafactor({ learningRate: (step) => Math.min(0.01, 1 / Math.sqrt(step + 1)) });
 * console.log(paper.name);
 * ```
 */
export function adafactor(options: WithGroups<AdafactorOptions> = {}): Optimizer {
  return builtIn("adafactor", options, 0.01);
}

/** LAMB: AdamW's direction, for each tensor as long as the tensor itself. */
export function lamb(options: WithGroups<LambOptions> = {}): Optimizer {
  return builtIn("lamb", options, 0.001);
}

/**
 * Muon: momentum, brought near the closest orthogonal matrix; AdamW for what is no matrix. Embeddings and the last layer
 * are better off with AdamW too: put them into a group with `orthogonalize: false`.
 *
 * ```ts
 * import { newton, optim } from "raphson";
 *
 * const muon = optim.muon({ adjust: "matchRmsAdamW", groups: [{ match: /embedding|head/, orthogonalize: false }] });
 * console.log(newton(muon).optimizer.name);
 * ```
 */
export function muon(options: WithGroups<MuonOptions> = {}): Optimizer {
  const matched = options.adjust === "matchRmsAdamW" && options.fallbackFactor === undefined;
  return builtIn("muon", matched ? { ...options, fallbackFactor: 1 } : options, 0.001);
}
