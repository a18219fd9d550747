//! Version 1 of the rule `next`: Retsinas' formula with the slope of the previous direction alone on the *next* batch,
//! n = ⟨∇L_{t+1}(θ_{t+1}), e_t⟩, smoothed and guarded. It keeps fewer tensors than `next`, knows nothing of a horizon, and is the better one
//! where all batches are the same. After the first three steps the caller may probe (forward passes) whether the start
//! was far too high.
//!
//! Letters: e the direction, or its decaying sum where the optimizer has no memory; d = ⟨g, e⟩ at the last accepted
//! step; N, D averages of n and |d|; c the aim N = −cD. State: the scalars of `SCALARS`, then (unless the
//! direction recalls them) θ_prev and ω for each parameter, then e for each, if the direction keeps no state of its own (it is ω otherwise).

use super::lookahead::{
    Averages, DECAY, DOWN, Look, Now, Previous, Rate, Reach, Seen, loss_statistics, previous_init, split, too_short,
};
use super::measure::inner;
use super::scalar::{choose, clip, finite_or, loss_scalar, moved};
use super::{Finish, Finished, Rule, Spec, check_scalar};
use crate::direction::Recalled;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// ρ: decay of N and D.
const RHO: f64 = 0.85;
/// Most that α grows in a step.
const UP: f64 = 1.5;
/// c₀: the aim for a direction along the gradient.
const AIM: f64 = 0.15;
/// Directions closer to the gradient than this have no memory of their own.
const MEMORYLESS: f64 = 0.999;
/// How many times as far as the first step its probe looks.
const REACH: f64 = 10.0;

/// The scalars at the head of the state.
pub(super) const SCALARS: usize = 12;

/// The rule's scalars, named.
struct Scalars<'a> {
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
}

impl<'a> Scalars<'a> {
    fn named(values: &'a [Value; SCALARS]) -> Scalars<'a> {
        let [alpha, _applied, t, sum_n, sum_d, cosine, aim, d, loss_mean, loss_deviation, _rejected, loss] = values;
        Scalars { alpha, t, sum_n, sum_d, cosine, aim, d, loss_mean, loss_deviation, loss }
    }

    /// Whether no step was taken yet.
    fn first(&self) -> Result<Value> {
        self.t.equal(&self.t.like(0.0))
    }
}

/// The rule's state, named.
struct State<'a> {
    scalars: Scalars<'a>,
    previous: Previous<'a>,
    /// e, where it is not simply ω.
    trace: Option<&'a [Value]>,
}

pub(super) fn init(spec: &Spec, params: &[Value], direction: &[Value], recalls: bool) -> Result<Vec<Value>> {
    // Nodes of their own: each is donated to the step.
    let mut state: Vec<Value> = (0..SCALARS).map(|_| spec.number(0.0)).collect();
    state[0] = spec.number(spec.initial);
    state.extend(previous_init(params, recalls));
    if direction.is_empty() {
        state.extend(params.iter().map(|param| param.like(0.0)));
    }
    Ok(state)
}

impl<'a> State<'a> {
    fn read(spec: &Spec, params: &[Value], state: &'a [Value], recalled: Option<&'a Recalled>) -> Result<State<'a>> {
        let count = params.len();
        let previous = if recalled.is_some() { 0 } else { 2 * count };
        let (scalars, tensors) = split::<SCALARS>(Rule::NextPlain, state, &[previous, previous + count])?;
        scalars.iter().try_for_each(|value| check_scalar("state", value, spec.scalar))?;
        let (previous, trace) = Previous::take(params, tensors, recalled);
        let trace = (trace.len() == count && count > 0).then_some(trace);
        Ok(State { scalars: Scalars::named(scalars), previous, trace })
    }
}

/// n of the step before, and whether it is finite.
pub(super) fn look(
    spec: &Spec,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
) -> Result<Look> {
    let state = State::read(spec, params, state, recalled)?;
    let n = inner(gradients, state.trace.unwrap_or(state.previous.omega), spec.scalar)?;
    let finite = n.is_finite()?;
    Ok(Look { n, finite })
}

/// Judge the previous step by the new batch: carry = accepted (bool), α, N, D, n. At the first step only a loss or a
/// gradient that is not finite is refused, and α stays.
pub(super) fn judge(spec: &Spec, loss: &Value, Look { n, finite }: Look, state: &[Value]) -> Result<Vec<Value>> {
    let Some(scalars) = state.first_chunk() else { return Err(too_short(Rule::NextPlain, state)) };
    let state = &Scalars::named(scalars);
    let first = state.first()?;
    let finite = loss.is_finite()?.and(&finite)?;
    // L ≤ L̄ + 4S + |L̄|
    let ceiling = state.loss_mean.add(&state.loss_deviation.scale(4.0)?)?.add(&state.loss_mean.abs()?)?;
    let accepted = finite.and(&first.or(&loss.less_equal(&ceiling)?)?)?;
    let (newton, reject) = (newton(spec, state, &n)?, reject(spec, state, &n, &finite)?);
    let pick = |newton: &Value, reject: &Value, still: &Value| first.select(still, &accepted.select(newton, reject)?);
    Ok(vec![
        accepted.clone(),
        pick(&newton.alpha, &reject.alpha, state.alpha)?,
        pick(&newton.sum_n, &reject.sum_n, state.sum_n)?,
        pick(&newton.sum_d, &reject.sum_d, state.sum_d)?,
        n,
    ])
}

/// N ← ρN + n, D ← ρD + |d|, and Newton's factor.
fn newton(spec: &Spec, state: &Scalars, n: &Value) -> Result<Rate> {
    let sum_n = state.sum_n.scale(RHO)?.add(n)?;
    let sum_d = state.sum_d.scale(RHO)?.add(&state.d.abs()?)?;
    let (alpha, aim, gamma) = (state.alpha.clone(), state.aim.clone(), spec.number(spec.gamma));
    let (rate, _) = Averages { alpha, sum_n, sum_d, gamma, aim, floor: n.like(DOWN), up: n.like(UP) }.newton(spec)?;
    Ok(rate)
}

/// α ← max(min, α·clip(1/(1 − n/|d|), .1, .5)), .1 where loss or slope are not finite; N = D = 0
fn reject(spec: &Spec, state: &Scalars, n: &Value, finite: &Value) -> Result<Rate> {
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
    let cosine = first.select(&q, &state.scalars.cosine.scale(DECAY)?.add(&q.scale(1.0 - DECAY)?)?)?;
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
    let state = State::read(spec, step.params, step.state, step.recalled)?;
    let [accepted, alpha, sum_n, sum_d, n] = step.carry else {
        let message = format!("{} carried tensors; pass on what begin gave", step.carry.len());
        return Err(Error::argument(spec.rule.name(), message));
    };
    let loss = loss_scalar(spec.rule.name(), step.loss, spec.scalar)?;
    let now = &state.scalars;
    let first = now.first()?;
    let (mean, deviation) = loss_statistics(now.loss_mean, now.loss_deviation, &first, &loss)?;
    let Now { start, omega, kept, direction } = state.previous.now(accepted, &first, step)?;
    // With the chosen ω, so that everything about a parameter hangs on the decision and fits one kernel; after a
    // rejection what comes out is not used.
    let memory = remember(&state, &first, n, step.gradients, &omega)?;
    let applied = alpha.mul(step.scale)?;
    let params = moved(&start, &applied, &omega)?;
    let started = accepted.or(&first.not()?)?;
    let rejected = accepted.not()?.cast(spec.scalar)?;
    let mut new = vec![
        alpha.clone(),
        applied.clone(),
        now.t.add(&started.cast(spec.scalar)?)?,
        sum_n.clone(),
        sum_d.clone(),
        accepted.select(&memory.cosine, now.cosine)?,
        accepted.select(&memory.aim, now.aim)?,
        accepted.select(&memory.d, now.d)?,
        accepted.select(&mean, now.loss_mean)?,
        accepted.select(&deviation, now.loss_deviation)?,
        rejected,
        loss.clone(),
    ];
    new.extend(kept);
    new.extend(choose(accepted, &memory.trace, state.trace.unwrap_or_default())?);
    let seen = Seen {
        loss: &loss,
        applied: &applied,
        alpha,
        d: &new[7],
        before: (now.d, now.alpha),
        n,
        first: &first,
        accepted,
    };
    let report = seen.report()?;
    Ok(Finished { params, direction, state: new, report })
}

/// Start-up: where a step `factor` times as long leads (at the first step, 10 times as far), and the loss that is to fall.
pub(super) fn reach<'a>(
    spec: &Spec,
    params: &[Value],
    state: &'a [Value],
    recalled: Option<&'a Recalled>,
    first: bool,
    factor: &Value,
) -> Result<Reach<'a>> {
    let State { scalars, previous: Previous { start, omega, .. }, .. } = State::read(spec, params, state, recalled)?;
    let s = scalars.alpha.mul(factor)?.scale(if first { REACH } else { 1.0 })?;
    let (slope, loss_start) = (Some(scalars.d.clone()), scalars.loss.clone());
    Ok(Reach { start, omega, s, slope, loss_start, tolerance: None, untaken: scalars.first()? })
}

/// α ← α·factor, θ′ = θ_start − scale·α·ω
pub(super) fn rescale(
    spec: &Spec,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    factor: &Value,
    scale: &Value,
) -> Result<Vec<Value>> {
    let named = State::read(spec, params, state, recalled)?;
    let alpha = named.scalars.alpha.mul(factor)?;
    let applied = alpha.mul(scale)?;
    let moved = moved(named.previous.start, &applied, named.previous.omega)?;
    Ok([&moved[..], &[alpha, applied], &state[2..]].concat())
}
