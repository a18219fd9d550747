//! From slope and curvature to the next α, once for every same-batch rule: γ, the limits, what to do where the formula
//! makes no sense, and the rejection of bad steps. State: α, and over accepted steps the running mean of L0, its mean
//! absolute deviation, and their count.

use super::measure::{Measured, measure};
use super::scalar::{choose, clip, finite_or, loss_scalar, moved, report};
use super::{Estimate, Finish, Finished, Rule, Spec};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// α grows by at most this factor in a step: 1e-6 reaches 1 in 34 steps, and a wrong curvature costs little.
const UP: f64 = 1.5;
/// α falls to at least this part in a step.
const DOWN: f64 = 0.5;
/// Bounds of the factor after a rejected step.
const REJECTED: (f64, f64) = (0.1, 0.5);
/// Decay of the running mean and deviation of losses.
const DECAY: f64 = 0.9;

/// The scalars of the state, which is nothing else.
pub(super) const SCALARS: usize = 4;

struct State {
    alpha: Value,
    mean: Value,
    deviation: Value,
    count: Value,
}

pub(super) fn init(spec: &Spec) -> Vec<Value> {
    [spec.initial, 0.0, 0.0, 0.0].map(|value| spec.number(value)).to_vec()
}

impl State {
    fn read(spec: &Spec, state: &[Value]) -> Result<State> {
        let [alpha, mean, deviation, count] = state else {
            return Err(Error::argument(spec.rule.name(), format!("{} state tensors; it has 4", state.len())));
        };
        state.iter().try_for_each(|value| super::check_scalar("state", value, spec.scalar))?;
        let [alpha, mean, deviation, count] = [alpha, mean, deviation, count].map(Value::clone);
        Ok(State { alpha, mean, deviation, count })
    }

    /// Mean and deviation with L0 in them: S ← .9S + .1|L − L̄|, L̄ ← .9L̄ + .1L; at first L̄ = L, S = 0.
    fn with(&self, loss: &Value) -> Result<State> {
        let first = self.count.equal(&self.count.like(0.0))?;
        let away = loss.sub(&self.mean)?.abs()?.scale(1.0 - DECAY)?;
        let deviation = self.deviation.scale(DECAY)?.add(&away)?;
        let mean = self.mean.scale(DECAY)?.add(&loss.scale(1.0 - DECAY)?)?;
        Ok(State {
            alpha: self.alpha.clone(),
            mean: first.select(loss, &mean)?,
            deviation: first.select(&deviation.like(0.0), &deviation)?,
            count: self.count.shift(1.0)?,
        })
    }

    fn list(self) -> Vec<Value> {
        vec![self.alpha, self.mean, self.deviation, self.count]
    }
}

/// Where the next α comes from.
enum Proposal {
    /// Newton's numerator and denominator.
    Newton(Estimate),
    /// α′ itself, from a rule of the user's.
    Rate(Value),
}

impl Proposal {
    fn new(rule: Rule, m: &Measured, proposed: &[Value]) -> Result<Proposal> {
        match (rule.formula(), proposed) {
            (Some(formula), _) => Ok(Proposal::Newton((formula.estimate)(m)?)),
            (None, [alpha]) => Ok(Proposal::Rate(alpha.clone())),
            (None, [slope, curvature]) => {
                let (slope, curvature) = (slope.clone(), curvature.clone());
                let noise = curvature.like(0.0);
                Ok(Proposal::Newton(Estimate { slope, curvature, noise }))
            }
            (None, _) => Err(Error::argument(rule.name(), "nothing is proposed; give [slope, curvature] or [alpha]")),
        }
    }

    fn estimate(&self) -> Option<&Estimate> {
        match self {
            Proposal::Newton(estimate) => Some(estimate),
            Proposal::Rate(_) => None,
        }
    }
}

/// A step of a same-batch or custom rule.
pub(super) fn finish(spec: &Spec, step: &Finish) -> Result<Finished> {
    let state = State::read(spec, step.state)?;
    let applied = state.alpha.mul(step.scale)?;
    if !spec.measure {
        return unmeasured(spec, step, state, &applied);
    }
    let m = measure(spec.needs(), step.loss, step.params, step.gradients, step.omega, &applied)?;
    let allowed = allowed(spec, std::slice::from_ref(&m), &[step.state])?;
    finish_measured(spec, step, &m, allowed.as_ref())
}

/// Whether a step of groups that were measured together is kept; `None` where every step is. A bad group takes all of
/// them back.
pub(super) fn allowed(spec: &Spec, measured: &[Measured], states: &[&[Value]]) -> Result<Option<Value>> {
    if !spec.guard {
        return Ok(None);
    }
    let mut all: Option<Value> = None;
    for (m, state) in measured.iter().zip(states) {
        let own = accepted(m, &State::read(spec, state)?.with(&m.loss0)?)?;
        all = Some(match all {
            Some(all) => all.and(&own)?,
            None => own,
        });
    }
    Ok(all)
}

/// The step after measuring; `allowed` says whether it is kept.
pub(super) fn finish_measured(spec: &Spec, step: &Finish, m: &Measured, allowed: Option<&Value>) -> Result<Finished> {
    let state = State::read(spec, step.state)?;
    let applied = m.alpha.clone();
    let proposal = Proposal::new(spec.rule, m, step.proposal)?;
    let seen = state.with(&m.loss0)?;
    let bare = match &proposal {
        Proposal::Newton(estimate) => state.alpha.add(&newton_step(spec, &state.alpha, &applied, estimate)?)?,
        Proposal::Rate(alpha) => alpha.clone(),
    };
    let outcome = if let Some(accepted) = allowed {
        let moved = sensible(m, &proposal, &state.alpha, &bare)?;
        let shrunk = state.alpha.mul(&rejected_factor(m, proposal.estimate())?)?;
        let alpha = clip(&accepted.select(&moved, &shrunk)?, spec.min, spec.max)?;
        Outcome { accepted: Some(accepted.clone()), alpha }
    } else {
        Outcome { accepted: None, alpha: bare }
    };
    finished(step, state, seen, &applied, outcome, Some((m, proposal.estimate())))
}

/// What was decided about a step. `accepted` is a bool scalar, or `None` where every step is.
struct Outcome {
    accepted: Option<Value>,
    alpha: Value,
}

/// α′ − α. With a = scale·α the rate at which n and h were measured, Newton's best rate is a* = a + n/h and
/// α′ = α + γ(a* − α); without a scale that is α + γ n/h. So α follows the best rate, and a schedule's factor stays
/// outside.
fn newton_step(spec: &Spec, alpha: &Value, applied: &Value, estimate: &Estimate) -> Result<Value> {
    let newton = estimate.slope.div(&estimate.curvature)?;
    newton.add(&applied.sub(alpha)?)?.scale(spec.gamma)
}

/// α′ after an accepted step, before the limits of the spec:
/// - h > noise: the formula's, within [.5α, 1.5α]; .5α where it is not finite;
/// - |h| ≤ noise: α, but 1.5α where the step changed the slope by less than half or the loss not at all (then α is too
///   small to see any curvature);
/// - h < −noise: the line bends down, so go on downhill: 1.5α where n > 0, else .5α;
/// - a rate proposed as such: itself, .5α where it is not finite.
fn sensible(m: &Measured, proposal: &Proposal, alpha: &Value, bare: &Value) -> Result<Value> {
    let (up, down, zero) = (alpha.scale(UP)?, alpha.scale(DOWN)?, alpha.like(0.0));
    let finite = bare.is_finite()?.select(bare, &down)?;
    let Proposal::Newton(Estimate { slope, curvature, noise }) = proposal else { return Ok(finite) };
    let limited = finite.maximum(&down)?.minimum(&up)?;
    let downhill = slope.greater(&zero)?.select(&up, &down)?;
    let mut unchanged = slope.greater(&m.slope0.scale(0.5)?)?;
    if let Some(loss1) = &m.loss1 {
        unchanged = unchanged.or(&loss1.equal(&m.loss0)?)?;
    }
    let unchanged = unchanged.and(&m.slope0.greater(&zero)?)?;
    let unseen = unchanged.select(&up, alpha)?;
    let bent = curvature.less(&noise.neg()?)?.select(&downhill, &limited)?;
    curvature.abs()?.less_equal(noise)?.select(&unseen, &bent)
}

/// L0, d and (if measured) L1 finite, and L1 ≤ L̄ + 4S + |L̄|. A running mean with deviations, not the last loss alone:
/// on noisy batches that would reject good steps one after another.
fn accepted(m: &Measured, seen: &State) -> Result<Value> {
    let finite = m.loss0.is_finite()?.and(&m.slope0.is_finite()?)?;
    let Some(loss1) = &m.loss1 else { return Ok(finite) };
    let ceiling = seen.mean.add(&seen.deviation.scale(4.0)?)?.add(&seen.mean.abs()?)?;
    // With a NaN on either side the comparison is false, so the step is rejected; an infinite ceiling is not.
    finite.and(&loss1.is_finite()?)?.and(&loss1.less_equal(&ceiling)?)
}

/// clip(1/(1 − n/|d|), .1, .5): the secant's best rate where the slope turned round; .1 where there is none.
fn rejected_factor(m: &Measured, estimate: Option<&Estimate>) -> Result<Value> {
    let (low, high) = REJECTED;
    let Some(Estimate { slope, .. }) = estimate else { return Ok(m.slope0.like(low)) };
    let ratio = slope.like(1.0).sub(&slope.div(&m.slope0.abs()?)?)?.reciprocal()?;
    clip(&finite_or(&ratio, low)?, low, high)
}

/// A step between two measured ones: α as it is. Where the guard is on, a loss that is not finite rejects the step.
fn unmeasured(spec: &Spec, step: &Finish, state: State, applied: &Value) -> Result<Finished> {
    let loss = loss_scalar(spec.rule.name(), step.loss, spec.scalar)?;
    let accepted = if spec.guard { Some(loss.is_finite()?) } else { None };
    let (seen, alpha) = (state.with(&loss)?, state.alpha.clone());
    finished(step, state, seen, applied, Outcome { accepted, alpha }, None)
}

/// Parameters, states and report. A rejected step leaves the parameters, the direction's state and the statistics.
fn finished(
    step: &Finish,
    before: State,
    seen: State,
    applied: &Value,
    outcome: Outcome,
    measured: Option<(&Measured, Option<&Estimate>)>,
) -> Result<Finished> {
    let nan = applied.like(f64::NAN);
    let (mut params, mut direction) = (moved(step.params, applied, step.omega)?, step.direction_new.to_vec());
    let mut state = State { alpha: outcome.alpha.clone(), ..seen }.list();
    let mut flag = applied.like(1.0);
    if let Some(accepted) = &outcome.accepted {
        params = choose(accepted, &params, step.params)?;
        direction = choose(accepted, &direction, step.direction_old)?;
        let kept = State { alpha: outcome.alpha.clone(), ..before }.list();
        state = [vec![outcome.alpha.clone()], choose(accepted, &state[1..], &kept[1..])?].concat();
        flag = accepted.cast(flag.dtype())?;
    }
    let loss = loss_scalar("report", step.loss, applied.dtype())?;
    let slope0 = measured.map_or(&nan, |(m, _)| &m.slope0);
    let loss1 = measured.and_then(|(m, _)| m.loss1.as_ref()).unwrap_or(&nan);
    let estimate = measured.and_then(|(_, estimate)| estimate);
    let slope1 = estimate.map(|e| &e.slope).or_else(|| measured.and_then(|(m, _)| m.slope1.as_ref())).unwrap_or(&nan);
    let curvature =
        estimate.map(|e| &e.curvature).or_else(|| measured.and_then(|(m, _)| m.curvature.as_ref())).unwrap_or(&nan);
    let report = report([&loss, applied, &outcome.alpha, slope0, slope1, curvature, loss1, &flag])?;
    Ok(Finished { params, direction, state, report })
}
