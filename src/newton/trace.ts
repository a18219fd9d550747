/**
 * From a loss function and an optimizer to programs: forward, backward, direction ω, learning-rate rule and update are
 * traced once and compiled together. Running the programs, step after step, is `step.ts`'s subject.
 */
import { scalarDType } from "../device";
import { DTYPES, type DType, type FloatDType } from "../dtype";
import { argumentError, shapeError } from "../errors";
import { ROW } from "../generated/ops";
import { type Handle, native } from "../native";
import type { Optimizer } from "../optim/optimizer";
import { type AnyTensor, fromHandle, type Shape, Tensor } from "../tensor";
import { where } from "../tensor/composed";
import { arange, full, ones } from "../tensor/creation";
import { concatenate } from "../tensor/movement";
import { dispose, tidy } from "../tidy";
import { traced } from "../trace";
import { type Flat, flatten } from "../tree";
import { type Average, averageAfter, averageKinds } from "./average";
import { type Clip, clipped, meanOf, summed } from "./gradients";
import { alphaCount, alphasIn, byParameter, ratesIn } from "./groups";
import type { NewtonOptimizer } from "./newton";
import { type LossScale, lossScaleAfter, type OwnState, overflowed, scaled, unscaled } from "./precision";
import { ACCEPTED } from "./report";
import type { AlphaProposal, Measure } from "./rule";
import { startUpOf } from "./startUp";
import { handlesOf, recalledOf } from "./state";

/** A placeholder's dtype and shape. */
export interface Kind {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** What is traced: a loss of the batch, where `inside` puts the traced parameters in their places meanwhile. */
export interface Subject {
  readonly params: readonly Kind[];
  /** Where the parameters stand, for the optimizer's groups. */
  readonly paths: readonly string[];
  readonly clip: Clip | undefined;
  /** Micro-batches of a step. */
  readonly accumulate: number;
  readonly direction: Flat;
  /** The rule's state and, behind it, an `OwnState`: that of a rule from TypeScript, and the loss scale. */
  readonly rule: readonly Kind[];
  readonly ownRule: Flat;
  /** Whether and how parameters are averaged. */
  readonly average: Average | undefined;
  readonly batch: Flat;
  /** The states of the model's modules. */
  readonly states: readonly Kind[];
  /** The loss for traced parameters, states and batch, and the states after it; random draws in it come from the key. */
  lossOf(
    params: readonly AnyTensor[],
    states: readonly AnyTensor[],
    batch: unknown,
    key: Tensor<"u32">,
  ): { readonly result: unknown; readonly states: readonly AnyTensor[] };
}

const placeholder = ({ dtype, shape }: Kind): AnyTensor => fromHandle(native.input(DTYPE_CODE[dtype], [...shape]));
/** Inputs of a program to be, of these kinds. */
export const placeholders = (kinds: readonly Kind[]): AnyTensor[] => kinds.map(placeholder);
/** The addon's results as tensors, which the surrounding `tidy` frees. */
const owned = (handles: readonly Handle[]): AnyTensor[] => handles.map((handle) => fromHandle(handle));
const DTYPE_CODE = Object.fromEntries(DTYPES.map((dtype, code) => [dtype, code])) as Readonly<Record<DType, number>>;
const scalarKind = (): Kind => ({ dtype: scalarDType(), shape: [] });

/** The same tree of tensors without their memory: dtypes and shapes remain. */
export function withoutValues(flat: Flat): Flat {
  const stand = placeholders(flat.tensors);
  const tree = flatten(flat.rebuild(stand, "themselves"), "trainingStep");
  dispose(stand);
  return tree;
}

/** What two batches must share to share a program: form, dtypes, shapes, and whatever is not a tensor. */
export function signatureOf(batch: Flat): string {
  const kinds = batch.tensors.map(({ dtype, shape }) => `${dtype}[${shape.join(",")}]`);
  const others = batch.statics.map(({ path, value }) => {
    if (value === null || ["number", "string", "boolean", "undefined"].includes(typeof value))
      return JSON.stringify(value);
    throw argumentError("batch", `${path} is neither a tensor nor a plain value; wrap arrays in tensor(…)`);
  });
  return `${batch.structure} ${kinds.join(" ")} ${others.join(" ")}`;
}

/** The traced inputs that every program of a step has, in this order: parameters, states, batch, key, counter. */
interface Inputs {
  readonly params: readonly AnyTensor[];
  readonly states: readonly AnyTensor[];
  readonly batch: readonly AnyTensor[];
  readonly key: Tensor<"u32">;
  readonly counter: Tensor<"u32">;
}

function commonInputs(subject: Subject): Inputs {
  return {
    params: placeholders(subject.params),
    states: placeholders(subject.states),
    batch: placeholders(subject.batch.tensors),
    key: fromHandle(native.input(DTYPE_CODE.u32, [2]), "u32"),
    counter: fromHandle(native.input(DTYPE_CODE.u32, []), "u32"),
  };
}

/** Calls `trace` with a trace open; everything it makes is freed afterwards. */
export function tracing<R>(trace: () => R): R {
  return tidy(() => traced(trace));
}

/** The step's own key: subkey number `counter` of the run's key, as `subkey` has it on the host. */
function stepKey({ key, counter }: Inputs): Tensor<"u32"> {
  const counters = arange(0, 2, 1, { dtype: "u32" }).add(counter.mul(2));
  const [key0, key1] = [key.at(0), key.at(1)];
  return fromHandle(native.elementwise3(ROW.threefry, key0.handle, key1.handle, counters.handle), "u32");
}

/**
 * The loss, checked: one number of a float dtype; and the states after it. Draws made inside come from the step's own key.
 */
function tracedLoss(subject: Subject, inputs: Inputs): { loss: AnyTensor; states: readonly AnyTensor[] } {
  const batch = subject.batch.rebuild(inputs.batch, "themselves");
  const { result: loss, states } = subject.lossOf(inputs.params, inputs.states, batch, stepKey(inputs));
  if (!(loss instanceof Tensor))
    throw argumentError("trainingStep", "the loss function must return a tensor (and not a promise)");
  if (loss.shape.length !== 0) {
    throw shapeError(
      "trainingStep",
      `the loss must be one number, but has shape [${loss.shape.join(", ")}]; take its mean()`,
      loss.shape,
    );
  }
  if (loss.dtype !== "f32" && loss.dtype !== "f64") {
    throw argumentError("trainingStep", `the loss must be f32 or f64, not ${loss.dtype}; cast it`);
  }
  return { loss, states };
}

/** ∂loss/∂params, computed of the loss times a factor, if there is one. */
function gradientsOf(loss: AnyTensor, params: readonly AnyTensor[], scale: Tensor | undefined): readonly AnyTensor[] {
  const one = native.constant(1, DTYPE_CODE[loss.dtype], []);
  const gradients = native.vjp([scaled(loss, scale).handle], handlesOf(params), [one]);
  native.dispose([one]);
  return unscaled(owned(gradients), scale);
}

/** A number of the addon's report as a row of one. */
const entry = (value: AnyTensor): Tensor<FloatDType> => value.cast(scalarDType()).reshape([1]);

/**
 * A micro-batch that is not its step's last. Inputs: the sums of gradients so far (given away; none at the step's first),
 * then params, the loss scale (if there is one), states, batch, key, counter. Outputs: the sums with this one's gradients,
 * its states and its loss.
 */
export function compileMicroBatch(subject: Subject, first: boolean): number {
  return tracing(() => {
    const inputs = commonInputs(subject);
    const sums = first ? [] : placeholders(subject.params);
    const { loss, states } = tracedLoss(subject, inputs);
    const scale = ownStateOf(subject, placeholders(subject.ownRule.tensors)).lossScale?.scale;
    const gradients = gradientsOf(loss, inputs.params, scale);
    const results = [...(first ? gradients : summed(sums, gradients)), ...states, entry(loss)];
    const outputs = handlesOf(owned(handlesOf(results).map(native.alias)));
    const scales = scale === undefined ? [] : [scale];
    const kept = [...inputs.params, ...scales, ...inputs.states, ...inputs.batch, inputs.key, inputs.counter];
    const donate = [...sums.map(() => true), ...kept.map(() => false)];
    return native.compileProgram(handlesOf([...sums, ...kept]), outputs, donate);
  });
}

/**
 * The whole step. Inputs: params, direction state, rule state, own rule state, average (all given away), then the sums of
 * gradients of the micro-batches before this one and the states before them (neither without micro-batches), states,
 * batch, key, counter, scale. Outputs: what was given away anew, the report, and the states: those after this batch, or where
 * the step before is taken back, those from before.
 */
export function compileStep(subject: Subject, newton: NewtonOptimizer, measures: boolean): number {
  return tracing(() => {
    const inputs = commonInputs(subject);
    const direction = placeholders(subject.direction.tensors);
    const rule = placeholders(subject.rule);
    const ownRule = placeholders(subject.ownRule.tensors);
    const average = subject.average === undefined ? [] : placeholders(averageKinds(subject.params));
    const scale = placeholder(scalarKind()) as Tensor<FloatDType>;
    const { loss, states } = tracedLoss(subject, inputs);
    const { own: ownState, lossScale } = ownStateOf(subject, ownRule);
    const own = gradientsOf(loss, inputs.params, lossScale?.scale);
    const sums = subject.accumulate === 1 ? [] : placeholders(subject.params);
    const before = subject.accumulate === 1 ? [] : placeholders(subject.states);
    const gradients = subject.accumulate === 1 ? own : meanOf(sums, own, subject.accumulate);

    const given = { subject, newton, inputs, direction, rule, ownRule, ownState, scale, loss, own, gradients };
    const plain = measures ? measuringOutputs(given) : restingOutputs(given);
    const results = lossScale === undefined ? plain : unlessOverflowed(given, plain, lossScale);
    const report = results.at(-1) as Tensor<FloatDType>;
    const accepted = acceptedIn(report);
    const averaged =
      subject.average === undefined ? [] : averageAfter(subject.average, average, inputs.params, accepted);
    // The forward pass moves states only where the step before is not taken back.
    const old = before.length > 0 ? before : inputs.states;
    const moved = states.map((state, index) => where(accepted, state, old[index] as AnyTensor));
    // Every output is a value of its own, also where a state passes through unchanged.
    const outputs = owned(handlesOf([...results.slice(0, -1), ...averaged, report, ...moved]).map(native.alias));

    const donated = [...inputs.params, ...direction, ...rule, ...ownRule, ...average];
    const kept = [...sums, ...before, ...inputs.states, ...inputs.batch, inputs.key, inputs.counter, scale];
    const donate = [...donated.map(() => true), ...kept.map(() => false)];
    return native.compileProgram(handlesOf([...donated, ...kept]), handlesOf(outputs), donate);
  });
}

const ownStateOf = (subject: Subject, ownRule: readonly AnyTensor[]) =>
  subject.ownRule.rebuild(ownRule, "records") as OwnState;

/**
 * The outputs with the next loss scale. Where gradients overflowed nothing has happened but that: everything is as it was,
 * and the report says that the step was taken back, and why in its last number (behind the scale).
 */
function unlessOverflowed(given: Given, results: readonly AnyTensor[], lossScale: LossScale): AnyTensor[] {
  const { inputs, direction, rule, ownRule, loss, gradients } = given;
  const overflow = overflowed(loss, gradients, lossScale);
  const before = [...inputs.params, ...direction, ...rule, ...ownRule.slice(0, -2)];
  const kept = before.map((old, index) => where(overflow, old, results[index] as AnyTensor));
  const next = lossScaleAfter(lossScale, overflow);
  const report = results.at(-1) as Tensor<FloatDType>;
  // What `telemetry` asks for is not known either.
  const rows = restingRows(given);
  const rest = (report.shape[0] ?? 0) - (rows.shape[0] ?? 0);
  const numbers = rest > 0 ? concatenate([rows, full([rest], Number.NaN, { dtype: report.dtype })]) : rows;
  const skipped = withAccepted(numbers, full([], 0));
  const whole = concatenate([where(overflow, skipped, report), entry(lossScale.scale), entry(overflow)]);
  return [...kept, next.scale, next.steps, whole];
}

/**
 * The addon's report of a step that measures nothing and is kept: loss, α, α next, and no more; of several groups, that of
 * the last one and behind it for each α, α next, and no more.
 */
function restingRows({ inputs, newton, rule, scale, loss }: Given): Tensor<FloatDType> {
  const alphas = alphasIn(newton, inputs.params.length, rule) as Tensor<FloatDType>[];
  const rates = alphas.map((alpha) => concatenate([entry(alpha.mul(scale)), entry(alpha)]));
  const nothing = (count: number) => full([count], Number.NaN, { dtype: scalarDType() });
  const kept = full([1], 1, { dtype: scalarDType() });
  const behind = rates.length > 1 ? rates.flatMap((rate) => [rate, nothing(3)]) : [];
  return concatenate([entry(loss), rates.at(-1) as Tensor<FloatDType>, nothing(4), kept, ...behind]);
}

/** A report with another answer to whether the step was kept. */
function withAccepted(report: Tensor<FloatDType>, accepted: AnyTensor): Tensor<FloatDType> {
  const positions = arange(0, report.shape[0] ?? 0, 1, { dtype: "i32" });
  return where(positions.equal(ACCEPTED), accepted.cast(report.dtype), report);
}

/** Whether a report says that the step before was kept. */
const acceptedIn = (report: Tensor<FloatDType>): Tensor<"bool"> =>
  report
    .slice(ACCEPTED, ACCEPTED + 1)
    .notEqual(0)
    .reshape([]);

interface Given {
  readonly subject: Subject;
  readonly newton: NewtonOptimizer;
  readonly inputs: Inputs;
  readonly direction: readonly AnyTensor[];
  readonly rule: readonly AnyTensor[];
  readonly ownRule: readonly AnyTensor[];
  /** The state of a rule from TypeScript. */
  readonly ownState: unknown;
  readonly scale: Tensor<FloatDType>;
  readonly loss: AnyTensor;
  /** The gradients of this very batch, which is the step's last micro-batch. */
  readonly own: readonly AnyTensor[];
  /** Their mean over the step's micro-batches. */
  readonly gradients: readonly AnyTensor[];
}

/** ω and the direction's new state, flat. */
function directionOf({ subject, newton, inputs, direction, gradients }: Given) {
  const optimizer: Optimizer = newton.optimizer;
  const state = subject.direction.rebuild(direction, "records");
  const result = optimizer.direction({
    params: inputs.params,
    gradients: clipped(gradients, subject.clip),
    state,
    paths: subject.paths,
  });
  const after = flatten(result.state, optimizer.name);
  sameKinds(optimizer.name, after, subject.direction);
  return { omega: result.omega, after: after.tensors };
}

function sameKinds(name: string, after: Flat, before: Flat): void {
  const kinds = ({ tensors, structure }: Flat) =>
    `${structure} ${tensors.map(({ dtype, shape }) => `${dtype}[${shape.join(", ")}]`).join(" ")}`;
  if (kinds(after) !== kinds(before)) {
    throw argumentError(name, `the state changed its form in a step: ${kinds(before)} became ${kinds(after)}`);
  }
}

/** Numbers along the step's line with the rate `applied`: `loss0`, `slope0` and those named. */
function measured(given: Given, omega: readonly AnyTensor[], needs: readonly Measure[], applied: Tensor<FloatDType>) {
  const { loss, inputs, own } = given;
  const [params, slopes, lines] = [inputs.params, own, omega].map(handlesOf) as [Handle[], Handle[], Handle[]];
  const found = native.alphaMeasure([...needs], loss.handle, params, slopes, lines, applied.handle);
  return Object.fromEntries(
    Object.entries(found).map(([name, handle]) => [name, fromHandle<FloatDType>(handle, applied.dtype, [])]),
  );
}

/**
 * What a rule's inner products are made of. A rule that looks ahead compares directions with gradients only, so it has the
 * mean ones; whatever is measured along the line belongs to one batch, the last micro-batch, and needs that one's gradients.
 */
const ruleGradients = ({ newton, own, gradients }: Given) => (startUpOf(newton.spec.rule) ? gradients : own);

function measuringOutputs(given: Given): AnyTensor[] {
  const { subject, newton, inputs, direction, rule, ownRule, ownState, scale, loss } = given;
  const { spec, rule: chosen, telemetry } = newton;
  const gradients = ruleGradients(given);
  const [params, state] = [handlesOf(inputs.params), handlesOf(rule)];
  const before = recalledIn(given);
  const carry = owned(native.alphaBegin(spec, loss.handle, params, handlesOf(gradients), state, before));
  const { omega, after: fresh } = directionOf(given);
  const { after, recalled } = before.length === 0 ? { after: fresh, recalled: [] } : stepToTake(given, carry, fresh);

  let proposal: readonly AnyTensor[] = [];
  let ownAfter: readonly AnyTensor[] = ownRule;
  if (typeof chosen !== "string") {
    const alpha = rule[0] as Tensor<FloatDType>;
    const applied = alpha.mul(scale);
    const measures = { alpha, applied, ...measured(given, omega, chosen.needs, applied) };
    const answer = chosen.next(measures, ownState);
    proposal = proposalOf(chosen.name, answer.proposal);
    const { lossScale } = ownStateOf(subject, ownRule);
    const flat = flatten(
      lossScale === undefined ? { own: answer.state } : { own: answer.state, lossScale },
      chosen.name,
    );
    sameKinds(chosen.name, flat, subject.ownRule);
    ownAfter = flat.tensors;
  }
  const result = native.alphaFinish(
    spec,
    loss.handle,
    params,
    handlesOf(gradients),
    handlesOf(omega),
    handlesOf(direction),
    handlesOf(after),
    state,
    handlesOf(carry),
    recalled,
    scale.handle,
    handlesOf(proposal),
  );
  const report = withTelemetry(given, omega, fromHandle<FloatDType>(result.report, scale.dtype), telemetry);
  return [...owned([...result.params, ...result.direction, ...result.state]), ...ownAfter, report];
}

/** What the optimizer goes on from, and the step that it recalls from there: a new one, or the one before once more. */
function stepToTake(
  { subject, newton, inputs, direction, rule }: Given,
  carry: readonly AnyTensor[],
  fresh: readonly AnyTensor[],
) {
  const [state, old, after] = [rule, direction, fresh].map(handlesOf) as [Handle[], Handle[], Handle[]];
  const count = inputs.params.length;
  const staying = owned(native.alphaStaying(newton.spec, count, handlesOf(carry), state, old, after));
  const rates = staying.splice(0, alphaCount(newton));
  const recalled = recalledOf(newton, {
    params: inputs.params,
    applied: rates.at(-1) as AnyTensor,
    state: subject.direction.rebuild(staying, "records"),
    paths: subject.paths,
    rates,
  });
  return { after: staying, recalled };
}

function proposalOf(name: string, proposal: AlphaProposal): readonly AnyTensor[] {
  const parts = "alpha" in proposal ? [proposal.alpha] : [proposal.slope, proposal.curvature];
  for (const part of parts) {
    if (part instanceof Tensor && part.dtype === scalarDType() && part.shape.length === 0) continue;
    throw argumentError(
      name,
      `next must give { alpha } or { slope, curvature } as ${scalarDType()} scalars; cast or sum() them`,
    );
  }
  return parts;
}

/** The report with the numbers that `telemetry` asks for behind it. */
function withTelemetry(
  given: Given,
  omega: readonly AnyTensor[],
  report: Tensor<FloatDType>,
  telemetry: readonly Measure[],
) {
  if (telemetry.length === 0) return report;
  const applied = (given.rule[0] as Tensor<FloatDType>).mul(given.scale);
  const numbers = measured(given, omega, telemetry, applied);
  return concatenate([report, ...telemetry.map((name) => entry(numbers[name] as AnyTensor))]);
}

/** Whether the loss is finite, and with micro-batches the mean gradients too, which the last loss says nothing about. */
function finite({ subject, loss, gradients }: Given): Tensor<"bool"> {
  const sums = subject.accumulate === 1 ? [] : gradients.map((gradient) => entry((gradient as Tensor).abs().sum()));
  return concatenate([entry(loss), ...sums])
    .sum()
    .isFinite();
}

/** A step between two measurements: α stays, θ′ = θ − scale · α · ω. A guarded rule refuses a loss that is not finite. */
function restingOutputs(given: Given): AnyTensor[] {
  const { inputs, direction, rule, ownRule, scale, newton } = given;
  const { omega, after } = directionOf(given);
  const count = inputs.params.length;
  const alphas = alphasIn(newton, count, rule) as Tensor<FloatDType>[];
  const applied = alphas.map((alpha) => alpha.mul(scale));
  const rates = byParameter(newton, count, applied);
  const moved = inputs.params.map((param, index) => {
    // Parameters are floats (checked where they enter), and ω has their dtypes.
    const [theta, line] = [param, omega[index]] as [Tensor<FloatDType>, Tensor<FloatDType>];
    return theta.sub(line.mul((rates[index] as Tensor<FloatDType>).cast(theta.dtype)));
  });
  const accepted = newton.spec.guard ? finite(given) : ones([], { dtype: "bool" });
  const kept = (fresh: readonly AnyTensor[], old: readonly AnyTensor[]) =>
    newton.spec.guard ? fresh.map((tensor, index) => where(accepted, tensor, old[index] as AnyTensor)) : fresh;
  const report = withAccepted(restingRows(given), accepted);
  const all = [...kept(moved, inputs.params), ...kept(after, direction), ...rule, ...ownRule];
  return [...all, withTelemetry(given, omega, report, newton.telemetry)];
}

/** The step before, as the optimizer recalls it from the state that it left; freed by the surrounding `tidy`. */
function recalledIn(
  given: Pick<Given, "subject" | "newton" | "direction" | "rule"> & { inputs: Pick<Inputs, "params"> },
) {
  const { subject, newton, inputs, direction, rule } = given;
  const rates = ratesIn(newton, inputs.params.length, rule);
  const applied = rates.at(-1);
  if (applied === undefined) return []; // a rule of α alone
  const state = subject.direction.rebuild(direction, "records");
  return recalledOf(newton, { params: inputs.params, applied, state, paths: subject.paths, rates });
}

/**
 * Whether the step with α times a factor passes the start-up's test. Inputs: params, direction state, rule state, states,
 * batch, key, counter, factor.
 */
export function compileProbe(subject: Subject, newton: NewtonOptimizer, first: boolean): number {
  return tracing(() => {
    const inputs = commonInputs(subject);
    const direction = placeholders(subject.direction.tensors);
    const rule = placeholders(subject.rule);
    const factor = placeholder(scalarKind());
    const recalled = recalledIn({ subject, newton, inputs, direction, rule });
    const { loss } = tracedLoss(subject, inputs);
    const [params, state] = [handlesOf(inputs.params), handlesOf(rule)];
    const accept = owned([native.alphaProbe(newton.spec, loss.handle, params, state, recalled, first, factor.handle)]);
    const all = [
      ...inputs.params,
      ...direction,
      ...rule,
      ...inputs.states,
      ...inputs.batch,
      inputs.key,
      inputs.counter,
      factor,
    ];
    return native.compileProgram(
      handlesOf(all),
      handlesOf(accept),
      all.map(() => false),
    );
  });
}

/**
 * The step with α times a factor; `first`: the one that the first step's search has found. Inputs: params, rule state
 * (given away), direction state, factor, scale. Outputs: the first two anew.
 */
export function compileRescale(subject: Subject, newton: NewtonOptimizer, first: boolean): number {
  return tracing(() => {
    const params = placeholders(subject.params);
    const rule = placeholders(subject.rule);
    const direction = placeholders(subject.direction.tensors);
    const [factor, scale] = placeholders([scalarKind(), scalarKind()]) as [AnyTensor, AnyTensor];
    const recalled = recalledIn({ subject, newton, inputs: { params }, direction, rule });
    const [theta, state] = [handlesOf(params), handlesOf(rule)];
    const results = native.alphaRescale(newton.spec, theta, state, recalled, first, factor.handle, scale.handle);
    const outputs = handlesOf(owned(handlesOf(owned(results)).map(native.alias)));
    const donated = [...params, ...rule];
    const kept = [...direction, factor, scale];
    const donate = [...donated.map(() => true), ...kept.map(() => false)];
    return native.compileProgram(handlesOf([...donated, ...kept]), outputs, donate);
  });
}
