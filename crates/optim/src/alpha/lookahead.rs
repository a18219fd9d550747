//! What the rules that look ahead (`next`, `next_plain`) share: Newton's factor from two averaged slopes, the mean and
//! deviation of losses, the start-up test, and the report. What they keep and when they reject is each one's own.

use super::scalar::{choose, clip, finite_or, report};
use super::{Finish, Rule, Spec};
use crate::direction::Recalled;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// Most that α falls in a step.
pub(super) const DOWN: f64 = 0.5;
/// Decay of the averages of loss and deviation.
pub(super) const DECAY: f64 = 0.9;
/// κ: how fast N and D are forgotten as α travels.
const KAPPA: f64 = 3.0;
/// α, N and D after a decision.
pub(super) struct Rate {
    pub alpha: Value,
    pub sum_n: Value,
    pub sum_d: Value,
}

/// Newton's step on averaged slopes.
pub(super) struct Averages {
    pub alpha: Value,
    /// N
    pub sum_n: Value,
    /// D
    pub sum_d: Value,
    pub gamma: Value,
    /// c: the aim is N = −cD.
    pub aim: Value,
    /// Least factor of α.
    pub floor: Value,
    /// Greatest factor of α.
    pub up: Value,
}

impl Averages {
    /// α′ = α(1 + γ(N + cD)/(D − N)), within floor and up (where D ≤ N: up or down by the sign of N + cD), and
    /// |ln(α′/α)|. N and D are multiplied by exp(−κ|ln(α′/α)|).
    pub(super) fn newton(&self, spec: &Spec) -> Result<(Rate, Value)> {
        let numerator = self.sum_n.add(&self.aim.mul(&self.sum_d)?)?;
        let denominator = self.sum_d.sub(&self.sum_n)?;
        let zero = numerator.like(0.0);
        let by_sign = numerator.greater(&zero)?.select(&self.up, &zero.like(DOWN))?;
        let factor = self.gamma.mul(&numerator)?.div(&denominator)?.shift(1.0)?;
        let factor = denominator.greater(&zero)?.select(&factor, &by_sign)?;
        let factor = finite_or(&factor, DOWN)?.maximum(&self.floor)?.minimum(&self.up)?;
        let alpha = clip(&self.alpha.mul(&factor)?, spec.min, spec.max)?;
        let travel = alpha.div(&self.alpha)?.log()?.abs()?;
        let forget = travel.scale(-KAPPA)?.exp()?;
        let rate = Rate { alpha, sum_n: self.sum_n.mul(&forget)?, sum_d: self.sum_d.mul(&forget)? };
        Ok((rate, travel))
    }
}

/// S ← .9S + .1|L − L̄|, L̄ ← .9L̄ + .1L; at first L̄ = L, S = 0
pub(super) fn loss_statistics(mean: &Value, deviation: &Value, first: &Value, loss: &Value) -> Result<(Value, Value)> {
    let away = loss.sub(mean)?.abs()?.scale(1.0 - DECAY)?;
    let deviation = deviation.scale(DECAY)?.add(&away)?;
    let mean = mean.scale(DECAY)?.add(&loss.scale(1.0 - DECAY)?)?;
    Ok((first.select(loss, &mean)?, first.select(&deviation.like(0.0), &deviation)?))
}

/// What new gradients say about the steps before.
pub(super) struct Look {
    /// n: the slope of earlier directions on the new batch.
    pub n: Value,
    /// Whether n and the gradients are finite.
    pub finite: Value,
}

/// A length of step to be judged by the batch's own loss.
pub(super) struct Reach<'a> {
    pub start: &'a [Value],
    pub omega: &'a [Value],
    /// The length to judge.
    pub s: Value,
    /// ⟨g, ω⟩ at the start, where it is known.
    pub slope: Option<Value>,
    /// The loss at the start.
    pub loss_start: Value,
    /// What rounding may add to the loss.
    pub tolerance: Option<Value>,
    /// Whether no step was taken: there is nothing to learn from it then.
    pub untaken: Value,
}

/// What a report of these rules says.
pub(super) struct Seen<'a> {
    pub loss: &'a Value,
    pub applied: &'a Value,
    pub alpha: &'a Value,
    /// d of this step.
    pub d: &'a Value,
    /// d and α of the step before.
    pub before: (&'a Value, &'a Value),
    /// n of the step before, on this batch.
    pub n: &'a Value,
    /// Whether there was no step before.
    pub first: &'a Value,
    pub accepted: &'a Value,
}

impl Seen<'_> {
    /// d of this step, n of the one before, and the secant curvature (|d_prev| − n)/α_prev between them.
    pub(super) fn report(&self) -> Result<Value> {
        let n = self.n;
        let nan = n.like(f64::NAN);
        let (d, alpha) = self.before;
        let slope1 = self.first.select(&nan, n)?;
        let curvature = self.first.select(&nan, &d.abs()?.sub(n)?.div(alpha)?)?;
        let accepted = self.accepted.cast(n.dtype())?;
        report([self.loss, self.applied, self.alpha, self.d, &slope1, &curvature, &nan, &accepted])
    }
}

/// The step before.
#[derive(Clone, Copy)]
pub(super) struct Previous<'a> {
    pub start: &'a [Value],
    pub omega: &'a [Value],
    /// Whether it stands in the rule's state. Otherwise the direction has told it (to `finish`: the step to take).
    pub stored: bool,
}

impl<'a> Previous<'a> {
    /// As the direction recalls it, or from the head of the rule's tensors; and the tensors behind it.
    pub(super) fn take(
        params: &[Value],
        tensors: &'a [Value],
        recalled: Option<&'a Recalled>,
    ) -> (Previous<'a>, &'a [Value]) {
        match recalled {
            Some(Recalled { start, omega }) => (Previous { start, omega, stored: false }, tensors),
            None => {
                let (start, rest) = tensors.split_at(params.len());
                let (omega, rest) = rest.split_at(params.len());
                (Previous { start, omega, stored: true }, rest)
            }
        }
    }

    /// The step that is taken now: from θ along the new ω, or where the step before is refused, that one again. At a
    /// refused first step there is none before: stay at θ.
    pub(super) fn now(&self, accepted: &Value, first: &Value, step: &Finish) -> Result<Now> {
        let (start, omega) = (self.start, self.omega);
        if !self.stored {
            let direction = step.direction_new.to_vec();
            return Ok(Now { start: start.to_vec(), omega: omega.to_vec(), kept: Vec::new(), direction });
        }
        let start = choose(&accepted.or(first)?, step.params, start)?;
        let omega = choose(accepted, step.omega, omega)?;
        let direction = choose(accepted, step.direction_new, step.direction_old)?;
        Ok(Now { kept: [&start[..], &omega].concat(), start, omega, direction })
    }
}

/// The step that is taken now.
pub(super) struct Now {
    pub start: Vec<Value>,
    pub omega: Vec<Value>,
    /// What of it the rule's state keeps.
    pub kept: Vec<Value>,
    /// The direction's state after it.
    pub direction: Vec<Value>,
}

/// The tensors of a [`Previous`] that is stored, before the first step; none of one that is not.
pub(super) fn previous_init(params: &[Value], recalls: bool) -> Vec<Value> {
    let twice = if recalls { &[][..] } else { params };
    twice.iter().chain(twice).map(|param| param.like(0.0)).collect()
}

/// The tensors at the head of a rule's state that hold its scalars, and the lists of tensors like the parameters behind them.
pub(super) fn split<'a, const SCALARS: usize>(
    rule: Rule,
    state: &'a [Value],
    rest: &[usize],
) -> Result<(&'a [Value; SCALARS], &'a [Value])> {
    let fits = |tensors: &[Value]| rest.contains(&tensors.len());
    let found = state.split_first_chunk::<SCALARS>().filter(|(_, tensors)| fits(tensors));
    let Some((scalars, tensors)) = found else {
        let known = rest.iter().map(|count| (SCALARS + count).to_string()).collect::<Vec<_>>().join(" or ");
        return Err(Error::argument(rule.name(), format!("{} state tensors; it has {known}", state.len())));
    };
    Ok((scalars, tensors))
}

/// The error for a state without the rule's scalars.
pub(super) fn too_short(rule: Rule, state: &[Value]) -> Error {
    Error::argument(rule.name(), format!("{} state tensors; give what init or the step before gave", state.len()))
}
