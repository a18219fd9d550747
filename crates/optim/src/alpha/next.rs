//! The default rule: Retsinas' formula with the slope of the previous direction on the *next* batch,
//! n = ⟨∇L_{t+1}(θ_{t+1}), e_t⟩, smoothed and guarded. On its own batch a direction's slope is biased, for ω holds that
//! batch's noise; on the next one it is not, and that gradient is computed anyway: no extra pass. After the first three
//! steps the caller may probe (forward passes) whether the start was far off.
//!
//! Letters: e the direction, or its decaying sum where the optimizer has no memory; d = ⟨g, e⟩ at the last accepted
//! step; N, D averages of n and |d|; c the aim N = −cD. State: the scalars of `SCALARS`, then θ_prev and ω for each
//! parameter, then e for each, if the direction keeps no state of its own (it is ω otherwise).

use super::measure::inner;
use super::scalar::{choose, clip, finite_or, loss_scalar, moved, report};
use super::{Finish, Finished, Rule, Spec};
use raphson_graph::derivative::substitute;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// ρ: decay of N and D.
const RHO: f64 = 0.85;
/// κ: how fast N and D are forgotten as α travels.
const KAPPA: f64 = 3.0;
/// Most that α grows in a step.
const UP: f64 = 1.5;
/// Most that α falls in a step.
const DOWN: f64 = 0.5;
/// c₀: the aim for a direction along the gradient.
const AIM: f64 = 0.15;
/// Decay of the averages of loss, deviation and cosine, and of the trace e.
const DECAY: f64 = 0.9;
/// Directions closer to the gradient than this have no memory of their own.
const MEMORYLESS: f64 = 0.999;
/// The part of the first-order decrease that a probe must reach.
const SUFFICIENT: f64 = 0.3;

/// The state's scalars, in order.
const SCALARS: usize = 11;

/// The rule's state, named.
struct State<'a> {
    alpha: &'a Value,
    /// Steps taken.
    t: &'a Value,
    sum_n: &'a Value,
    sum_d: &'a Value,
    cosine: &'a Value,
    aim: &'a Value,
    d: &'a Value,
    loss_mean: &'a Value,
    loss_deviation: &'a Value,
    /// The loss of the last step's batch, accepted or not.
    loss: &'a Value,
    start: &'a [Value],
    omega: &'a [Value],
    /// e, where it is not simply ω.
    trace: Option<&'a [Value]>,
}

pub(super) fn init(spec: &Spec, params: &[Value], direction: &[Value]) -> Result<Vec<Value>> {
    // Nodes of their own: each is donated to the step.
    let mut state: Vec<Value> = (0..SCALARS).map(|_| spec.number(0.0)).collect();
    state[0] = spec.number(spec.initial);
    for _ in 0..if direction.is_empty() { 3 } else { 2 } {
        state.extend(params.iter().map(|param| param.like(0.0)));
    }
    Ok(state)
}

impl<'a> State<'a> {
    fn read(spec: &Spec, params: &[Value], state: &'a [Value]) -> Result<State<'a>> {
        let count = params.len();
        let fits = |rest: &[Value]| rest.len() == 2 * count || rest.len() == 3 * count;
        let Some((scalars, rest)) = state.split_at_checked(SCALARS).filter(|(_, rest)| fits(rest)) else {
            let (least, most) = (SCALARS + 2 * count, SCALARS + 3 * count);
            let message = format!("{} state tensors; it has {least}, or {most} with a trace", state.len());
            return Err(Error::argument(Rule::Next.name(), message));
        };
        scalars.iter().try_for_each(|value| super::check_scalar("state", value, spec.scalar))?;
        let [alpha, t, sum_n, sum_d, cosine, aim, d, loss_mean, loss_deviation, _rejected, loss] = scalars else {
            return Err(Error::internal(Rule::Next.name(), "the scalars were counted"));
        };
        let (start, omega, trace) = (&rest[..count], &rest[count..2 * count], &rest[2 * count..]);
        let trace = (trace.len() == count && count > 0).then_some(trace);
        Ok(State { alpha, t, sum_n, sum_d, cosine, aim, d, loss_mean, loss_deviation, loss, start, omega, trace })
    }

    /// Whether no step was taken yet.
    fn first(&self) -> Result<Value> {
        self.t.equal(&self.t.like(0.0))
    }
}

/// α, N and D after a decision.
struct Rate {
    alpha: Value,
    sum_n: Value,
    sum_d: Value,
}

/// Judge the previous step by the new batch: carry = accepted (bool), α, N, D, n. At the first step only a loss or a
/// gradient that is not finite is refused, and α stays.
pub(super) fn begin(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
) -> Result<Vec<Value>> {
    let state = State::read(spec, params, state)?;
    let first = state.first()?;
    let n = inner(gradients, state.trace.unwrap_or(state.omega), spec.scalar)?;
    let finite = loss.is_finite()?.and(&n.is_finite()?)?;
    // L ≤ L̄ + 4S + |L̄|
    let ceiling = state.loss_mean.add(&state.loss_deviation.scale(4.0)?)?.add(&state.loss_mean.abs()?)?;
    let accepted = finite.and(&first.or(&loss.less_equal(&ceiling)?)?)?;
    let (newton, reject) = (newton(spec, &state, &n)?, reject(spec, &state, &n, &finite)?);
    let pick = |newton: &Value, reject: &Value, still: &Value| first.select(still, &accepted.select(newton, reject)?);
    Ok(vec![
        accepted.clone(),
        pick(&newton.alpha, &reject.alpha, state.alpha)?,
        pick(&newton.sum_n, &reject.sum_n, state.sum_n)?,
        pick(&newton.sum_d, &reject.sum_d, state.sum_d)?,
        n,
    ])
}

/// N ← ρN + n, D ← ρD + |d|; α′ = α(1 + γ(N + cD)/(D − N)), limited (where D ≤ N, up or down by the sign above);
/// then N and D are multiplied by exp(−κ|ln(α′/α)|).
fn newton(spec: &Spec, state: &State, n: &Value) -> Result<Rate> {
    let sum_n = state.sum_n.scale(RHO)?.add(n)?;
    let sum_d = state.sum_d.scale(RHO)?.add(&state.d.abs()?)?;
    let numerator = sum_n.add(&state.aim.mul(&sum_d)?)?;
    let denominator = sum_d.sub(&sum_n)?;
    let zero = numerator.like(0.0);
    let by_sign = numerator.greater(&zero)?.select(&zero.like(UP), &zero.like(DOWN))?;
    let factor = numerator.scale(spec.gamma)?.div(&denominator)?.shift(1.0)?;
    let factor = denominator.greater(&zero)?.select(&factor, &by_sign)?;
    let factor = clip(&finite_or(&factor, DOWN)?, DOWN, UP)?;
    let alpha = clip(&state.alpha.mul(&factor)?, spec.min, spec.max)?;
    let forget = alpha.div(state.alpha)?.log()?.abs()?.scale(-KAPPA)?.exp()?;
    Ok(Rate { alpha, sum_n: sum_n.mul(&forget)?, sum_d: sum_d.mul(&forget)? })
}

/// α ← max(min, α·clip(1/(1 − n/|d|), .1, .5)), .1 where loss or slope are not finite; N = D = 0
fn reject(spec: &Spec, state: &State, n: &Value, finite: &Value) -> Result<Rate> {
    let ratio = n.like(1.0).sub(&n.div(&state.d.abs()?)?)?.reciprocal()?;
    let usable = finite.and(&state.d.not_equal(&state.d.like(0.0))?)?;
    let ratio = usable.select(&finite_or(&ratio, 0.0)?, &ratio.like(0.0))?;
    let alpha = state.alpha.mul(&clip(&ratio, 0.1, 0.5)?)?.maximum(&spec.number(spec.min))?;
    Ok(Rate { alpha, sum_n: spec.number(0.0), sum_d: spec.number(0.0) })
}

/// What the new gradient and direction say about memory: the averaged cosine, the aim, e and d.
struct Memory {
    cosine: Value,
    aim: Value,
    trace: Vec<Value>,
    d: Value,
}

/// q = |⟨g, ω⟩|/(|g||ω|), averaged; c = c₀·cos⁴. For a direction that keeps no state, e ← .9e + ω where q > .999 (plain
/// gradient descent), else ω, and d = ⟨g, e⟩, which is .9n or 0, plus ⟨g, ω⟩: no further pass over e.
fn remember(state: &State, first: &Value, n: &Value, gradients: &[Value], omega: &[Value]) -> Result<Memory> {
    let dtype = n.dtype();
    let along = inner(gradients, omega, dtype)?;
    let norms = inner(gradients, gradients, dtype)?.sqrt()?.mul(&inner(omega, omega, dtype)?.sqrt()?)?;
    let q = along.abs()?.div(&norms.maximum(&norms.like(1e-30))?)?;
    let cosine = first.select(&q, &state.cosine.scale(DECAY)?.add(&q.scale(1.0 - DECAY)?)?)?;
    let aim = cosine.square()?.square()?.scale(AIM)?;
    let Some(trace) = state.trace else { return Ok(Memory { cosine, aim, trace: Vec::new(), d: along }) };
    let fresh = first.or(&q.less(&q.like(MEMORYLESS))?)?;
    let trace = (trace.iter().zip(omega))
        .map(|(e, omega)| fresh.select(omega, &e.scale(DECAY)?.add(omega)?))
        .collect::<Result<Vec<_>>>()?;
    let d = fresh.select(&along, &n.scale(DECAY)?.add(&along)?)?;
    Ok(Memory { cosine, aim, trace, d })
}

/// Move: θ′ = θ_start − scale·α·ω. An accepted step starts at θ with the new ω; after a rejection the previous start and
/// direction are taken again with the smaller α, and the direction's state stays. Nothing of a refused loss, gradient
/// or parameter enters the result: every choice is a select.
pub(super) fn finish(spec: &Spec, step: &Finish) -> Result<Finished> {
    let state = State::read(spec, step.params, step.state)?;
    let [accepted, alpha, sum_n, sum_d, n] = step.carry else {
        let message = format!("{} carried tensors; pass on what begin gave", step.carry.len());
        return Err(Error::argument(spec.rule.name(), message));
    };
    let loss = loss_scalar(spec.rule.name(), step.loss, spec.scalar)?;
    let first = state.first()?;
    let (mean, deviation) = loss_statistics(&state, &first, &loss)?;
    // At a refused first step there is no previous start: stay at θ (ω is still zero).
    let start = choose(&accepted.or(&first)?, step.params, state.start)?;
    let omega = choose(accepted, step.omega, state.omega)?;
    // With the chosen ω, so that everything about a parameter hangs on the decision and fits one kernel; after a
    // rejection what comes out is not used.
    let memory = remember(&state, &first, n, step.gradients, &omega)?;
    let applied = alpha.mul(step.scale)?;
    let params = moved(&start, &applied, &omega)?;
    let started = accepted.or(&first.not()?)?;
    let rejected = accepted.not()?.cast(spec.scalar)?;
    let mut new = vec![
        alpha.clone(),
        state.t.add(&started.cast(spec.scalar)?)?,
        sum_n.clone(),
        sum_d.clone(),
        accepted.select(&memory.cosine, state.cosine)?,
        accepted.select(&memory.aim, state.aim)?,
        accepted.select(&memory.d, state.d)?,
        accepted.select(&mean, state.loss_mean)?,
        accepted.select(&deviation, state.loss_deviation)?,
        rejected,
        loss.clone(),
    ];
    new.extend(start);
    new.extend(omega);
    new.extend(choose(accepted, &memory.trace, state.trace.unwrap_or_default())?);
    let report = next_report(&state, &first, &loss, &applied, step.carry, &new)?;
    let direction = choose(accepted, step.direction_new, step.direction_old)?;
    Ok(Finished { params, direction, state: new, report })
}

/// S ← .9S + .1|L − L̄|, L̄ ← .9L̄ + .1L; at first L̄ = L, S = 0
fn loss_statistics(state: &State, first: &Value, loss: &Value) -> Result<(Value, Value)> {
    let away = loss.sub(state.loss_mean)?.abs()?.scale(1.0 - DECAY)?;
    let deviation = state.loss_deviation.scale(DECAY)?.add(&away)?;
    let mean = state.loss_mean.scale(DECAY)?.add(&loss.scale(1.0 - DECAY)?)?;
    Ok((first.select(loss, &mean)?, first.select(&deviation.like(0.0), &deviation)?))
}

/// d of this step, n of the previous direction, and the secant curvature (|d_prev| − n)/α_prev between them.
fn next_report(
    before: &State,
    first: &Value,
    loss: &Value,
    applied: &Value,
    carry: &[Value],
    new: &[Value],
) -> Result<Value> {
    let (accepted, alpha, n) = (&carry[0], &carry[1], &carry[4]);
    let nan = n.like(f64::NAN);
    let slope1 = first.select(&nan, n)?;
    let curvature = first.select(&nan, &before.d.abs()?.sub(n)?.div(before.alpha)?)?;
    report([loss, applied, alpha, &new[6], &slope1, &curvature, &nan, &accepted.cast(n.dtype())?])
}

/// L(θ_start − s·ω) ≤ L − .3·s·max(d, 0) with s = reach·α·factor. Always true where the first step was refused (t = 0):
/// there is nothing to learn from it.
pub(super) fn probe(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    state: &[Value],
    reach: f64,
    factor: &Value,
) -> Result<Value> {
    let state = State::read(spec, params, state)?;
    let s = state.alpha.mul(factor)?.scale(reach)?;
    let there = substitute(std::slice::from_ref(loss), params, &moved(state.start, &s, state.omega)?)?;
    let there = loss_scalar("probe", &there[0], spec.scalar)?;
    let wanted = s.mul(&state.d.maximum(&state.d.like(0.0))?)?.scale(SUFFICIENT)?;
    there.less_equal(&state.loss.sub(&wanted)?)?.or(&state.first()?)
}

/// α ← α·factor, θ′ = θ_start − scale·α·ω
pub(super) fn rescale(
    spec: &Spec,
    params: &[Value],
    state: &[Value],
    factor: &Value,
    scale: &Value,
) -> Result<Vec<Value>> {
    let named = State::read(spec, params, state)?;
    let alpha = named.alpha.mul(factor)?;
    let moved = moved(named.start, &alpha.mul(scale)?, named.omega)?;
    Ok([&moved[..], &[alpha], &state[1..]].concat())
}
