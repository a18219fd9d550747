//! The default rule: Newton's step on slopes that later batches see. e and f are slow and fast decaying sums of
//! directions, y one of gradients. On the *next* batch, whose gradient g is computed anyway, n = ⟨g, e − f/2⟩ says
//! whether the directions of the last steps still lead down, without the noise of the batches that they were made of; d = ⟨y, ω⟩ is
//! the scale to compare it with, alike for every optimizer. α′ = α(1 + γ_t(N + cD)/(D − N)), with γ_t = γ·√(100/(t + 1)), between γ
//! and 3γ: the way from where the start-up ends is longer than any that comes later. c is bounded by what the loss lost lately ([`aim`]).
//!
//! Around it: α falls at most like 1/t, later t^−½; while the running loss stays above its best, α is halved; a step after which
//! the loss is far too high or not finite is taken back and made shorter; the way of the first steps is bounded, and the
//! very first one is found by forward passes ([`reach`], [`rescale`]). Where the number of steps T is known, α may only fall
//! from T/2 on and is multiplied by 2(1 − t/T), outside its own state.
//!
//! Of large tensors, traces and slopes see every k-th row only (`sample`). State: α, the rate of the last step, and the other scalars of
//! [`Scalars`] in a row, then (unless the direction recalls them) θ_prev and ω for each parameter, then e, f, y for each.

use super::lookahead::{
    Averages, DOWN, Look, Now, Previous, Rate, Reach, Seen, loss_statistics, previous_init, split, too_short,
};
use super::sample::{Sampler, finite_unseen, inner_sampled, zeros};
use super::scalar::{choose, clip, in_a_row, loss_scalar, moved};
use super::{Finish, Finished, Rule, Spec, check_scalar};
use crate::direction::Recalled;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::f64::consts::LN_2;

/// ρ: decay of N and D.
const RHO: f64 = 0.9;
/// c: the aim is N = −cD at most ...
const AIM: f64 = 0.3;
/// ... and −αN/10, which is twice what the noise of the steps costs, no more than this part of what the loss lost lately.
const PRICE: f64 = 0.1;
/// The steps in which γ is larger, like t to minus one half, and how many times as large at most.
const EAGER_STEPS: f64 = 100.0;
const EAGER: f64 = 3.0;
/// Most that α grows in a step.
const UP: f64 = 1.25;
/// Decay of e and y.
const SLOW: f64 = 0.99;
/// Decay of f.
const FAST: f64 = 0.9;
/// The part of f that is taken from e.
const PART: f64 = 0.5;
/// How fast e, f and y are forgotten as α travels.
const KAPPA_TRACE: f64 = 2.0;
/// α falls at most like t to minus this, and like 1/t in the first so many steps.
const FALL: f64 = 0.5;
const STEEPER: f64 = 200.0;
/// How many times as large c is where α may only fall any more.
const LATE: f64 = 2.0;
/// How fast the slower mean of the loss follows it down: this part of the distance, or this over t + 1 where that is less.
const LATELY: f64 = 0.01;
const LATELY_OF_ALL: f64 = 2.0;
/// How many of the mean deviations that the running loss had at its best it may stand above that.
const ABOVE: f64 = 2.0;
/// Steps before the running loss is compared with its best, and between two halvings.
const WATCH: f64 = 10.0;
/// High losses in a row that are taken for bad steps; after them, it is the loss that has changed.
const PATIENCE: f64 = 5.0;
/// Steps whose way is bounded.
const RAMP_STEPS: f64 = 40.0;
/// How much longer than a random walk of first steps it may be: more by this factor with each step, up to [`RAMP_MOST`].
const RAMP: f64 = 1.1;
const RAMP_MOST: f64 = 8.0;
/// How many times as far as the first step its probe looks.
const REACH: f64 = 20.0;

/// The tensors at the head of the state that hold its scalars: α, the last rate, and a row of the others.
pub(super) const SCALARS: usize = 3;

/// The scalars.
const COUNT: usize = 17;

/// A struct of values, and the same as a list in the order of its fields.
macro_rules! listed {
    ($(#[$about:meta])* struct $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone)]
        struct $name { $($(#[$doc])* $field: Value,)* }

        impl $name {
            fn named(values: &[Value; COUNT]) -> $name {
                let [$($field),*] = values.clone();
                $name { $($field),* }
            }

            fn list(self) -> [Value; COUNT] {
                [$(self.$field),*]
            }
        }
    };
}

listed! {
    /// The rule's scalars, named.
    struct Scalars {
        alpha,
        /// The rate that the last step was made with: α times what stands outside its state.
        applied,
        /// Steps taken.
        t,
        sum_n,
        sum_d,
        d,
        /// Running mean of the loss, its mean deviation, its slowly forgotten peak, and the mean's best.
        mean,
        deviation,
        peak,
        best,
        /// The mean deviation when the mean was at its best.
        usual,
        /// 1 once there is a best.
        watching,
        /// High losses in a row.
        high,
        /// The step at which α was halved last.
        halved,
        /// R = α|ω| of the first step, 0 where no start-up bounded it.
        reach,
        /// A slower mean of `mean` that only falls.
        slow,
        /// The loss of the last step's batch, accepted or not.
        loss,
    }
}

impl Scalars {
    /// As the state holds them, of the right dtype and shape.
    fn read(spec: &Spec, [alpha, applied, row]: &[Value; SCALARS]) -> Result<Scalars> {
        check_scalar("state", alpha, spec.scalar)?;
        check_scalar("state", applied, spec.scalar)?;
        if row.dtype() != spec.scalar || row.shape()[..] != [COUNT - 2] {
            let message =
                format!("state[2] is {} {}; it holds {} {}", row.dtype(), row.shape(), COUNT - 2, spec.scalar);
            return Err(Error::new(Code::Shape, Rule::Next.name(), message).with_shapes([row.shape()]));
        }
        let mut values = vec![alpha.clone(), applied.clone()];
        for at in 0..COUNT - 2 {
            values.push(row.slice(&[at], &[at + 1], &[1])?.reshape(&Shape::scalar())?);
        }
        let values = <[Value; COUNT]>::try_from(values);
        values.map(|values| Scalars::named(&values)).map_err(|_| Error::internal("next", "a scalar is missing"))
    }

    /// As the state holds them.
    fn kept(self) -> Result<[Value; SCALARS]> {
        let [alpha, applied, row @ ..] = self.list();
        Ok([alpha, applied, in_a_row(&row.each_ref())?])
    }

    /// Whether no step was taken yet.
    fn first(&self) -> Result<Value> {
        self.t.equal(&self.t.like(0.0))
    }
}

/// The rule's state, named.
struct State<'a> {
    scalars: Scalars,
    previous: Previous<'a>,
    traces: Traces<'a>,
}

impl<'a> State<'a> {
    fn read(spec: &Spec, params: &[Value], state: &'a [Value], recalled: Option<&'a Recalled>) -> Result<State<'a>> {
        let count = params.len();
        let tensors = if recalled.is_some() { 3 * count } else { 5 * count };
        let (scalars, tensors) = split::<SCALARS>(Rule::Next, state, &[tensors])?;
        let (previous, traces) = Previous::take(params, tensors, recalled);
        Ok(State { scalars: Scalars::read(spec, scalars)?, previous, traces: Traces::named(count, traces) })
    }
}

/// What is seen of e, f and y.
#[derive(Clone, Copy)]
struct Traces<'a> {
    slow: &'a [Value],
    fast: &'a [Value],
    gradients: &'a [Value],
}

impl<'a> Traces<'a> {
    /// The last three lists of a state.
    fn named(count: usize, tensors: &'a [Value]) -> Traces<'a> {
        let part = |behind: usize| &tensors[tensors.len() - behind * count..][..count];
        Traces { slow: part(3), fast: part(2), gradients: part(1) }
    }
}

pub(super) fn init(spec: &Spec, params: &[Value], recalls: bool) -> Result<Vec<Value>> {
    // Nodes of their own: each is donated to the step.
    let mut scalars = Scalars::named(&std::array::from_fn(|_| spec.number(0.0)));
    scalars.alpha = spec.number(spec.initial);
    // Long ago.
    scalars.halved = spec.number(-WATCH);
    let mut state = scalars.kept()?.to_vec();
    state.extend(previous_init(params, recalls));
    for _ in 0..3 {
        state.extend(zeros(spec, params));
    }
    Ok(state)
}

/// What the new gradients say about the steps before: n, and whether it and they are finite.
pub(super) fn look(spec: &Spec, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Look> {
    let count = params.len();
    // What is stored of the step before does not matter here.
    let (_, tensors) = split::<SCALARS>(Rule::Next, state, &[3 * count, 5 * count])?;
    let traces = Traces::named(count, tensors);
    let lines = traces.slow.iter().zip(traces.fast).map(|(e, f)| e.sub(&f.scale(PART)?)).collect::<Result<Vec<_>>>()?;
    let n = inner_sampled(spec, params, &Sampler::new(spec, []).all(gradients)?, &lines)?;
    let mut finite = n.is_finite()?;
    if let Some(unseen) = finite_unseen(spec, gradients)? {
        finite = finite.and(&unseen)?;
    }
    Ok(Look { n, finite })
}

/// Judge the steps before by the new batch. Carry: accepted (bool), n, what is left of the traces, and the scalars as
/// they will be. At the first step only a loss or a gradient that is not finite is refused, and α stays.
pub(super) fn judge(spec: &Spec, loss: &Value, Look { n, finite }: Look, state: &[Value]) -> Result<Vec<Value>> {
    let Some(scalars) = state.first_chunk() else { return Err(too_short(Rule::Next, state)) };
    let now = &Scalars::read(spec, scalars)?;
    let first = now.first()?;
    let finite = loss.is_finite()?.and(&finite)?;
    let high = finite.not()?.or(&loss.greater(&ceiling(now)?)?)?;
    let patient = now.high.less(&now.high.like(PATIENCE))?;
    let refused = finite.not()?.or(&high.and(&patient)?.and(&first.not()?)?)?;
    let accepted = refused.not()?;
    // Of the first step's loss nothing is known to compare it with.
    let in_a_row = first.or(&high.not()?)?.select(&now.high.like(0.0), &now.high.shift(1.0)?)?;

    let moves = first.not()?;
    let (newton, travel) = newton(spec, now, &n)?;
    let still = Rate { alpha: now.alpha.clone(), sum_n: now.sum_n.clone(), sum_d: now.sum_d.clone() };
    let kept = pick(&moves, &newton, &still)?;
    let left = moves.and(&accepted)?.select(&travel.scale(-KAPPA_TRACE)?.exp()?, &travel.like(1.0))?;
    let seen = Scalars { high: in_a_row.clone(), loss: loss.clone(), ..with_rate(now, kept) };
    let seen = watched(spec, seen, &first, loss)?;
    let taken_back = Scalars {
        high: in_a_row.clone(),
        loss: loss.clone(),
        ..with_rate(now, reject(spec, now, &finite, &in_a_row)?)
    };
    // A first step that is refused leaves everything but the loss as it was.
    let untouched = Scalars { loss: loss.clone(), ..now.clone() }.list();
    let refusal = choose(&first, &untouched, &taken_back.list())?;
    let mut after = choose(&accepted, &seen.list(), &refusal)?;
    let steps = accepted.or(&first.not()?)?.cast(spec.scalar)?;
    after[2] = now.t.add(&steps)?; // t
    Ok([vec![accepted, n, left], after].concat())
}

fn pick(condition: &Value, a: &Rate, b: &Rate) -> Result<Rate> {
    let one = |a: &Value, b: &Value| condition.select(a, b);
    Ok(Rate { alpha: one(&a.alpha, &b.alpha)?, sum_n: one(&a.sum_n, &b.sum_n)?, sum_d: one(&a.sum_d, &b.sum_d)? })
}

fn with_rate(now: &Scalars, Rate { alpha, sum_n, sum_d }: Rate) -> Scalars {
    Scalars { alpha, sum_n, sum_d, ..now.clone() }
}

/// max(L̄ + |L̄| + 10S, 2·peak)
fn ceiling(now: &Scalars) -> Result<Value> {
    let usual = now.mean.add(&now.mean.abs()?)?.add(&now.deviation.scale(10.0)?)?;
    usual.maximum(&now.peak.scale(2.0)?)
}

/// Whether α may still grow at step t: always, or before T/2.
fn grows(spec: &Spec, t: &Value) -> Result<Value> {
    match spec.total_steps {
        Some(total) => t.less(&t.like(total as f64 / 2.0)),
        None => t.is_finite(),
    }
}

/// N ← ρN + n, D ← ρD + d (|d| where that leaves nothing); then Newton's factor, at least 1 − q/(t + 1)
/// with q between 1 (in the first 200 steps) and ½, .5 where N < −D/2. From T/2 on it is at most 1, never .5, and c is doubled: what is
/// left is to correct an α that is too large.
fn newton(spec: &Spec, now: &Scalars, n: &Value) -> Result<(Rate, Value)> {
    let sum_n = now.sum_n.scale(RHO)?.add(n)?;
    let sum_d = now.sum_d.scale(RHO)?;
    let (signed, absolute) = (sum_d.add(&now.d)?, sum_d.add(&now.d.abs()?)?);
    let zero = n.like(0.0);
    let sum_d = signed.greater(&zero)?.select(&signed, &absolute)?;
    let grows = grows(spec, &now.t)?;
    let part = now.t.shift(1.0)?.reciprocal()?;
    let steep = sum_n.less(&sum_d.scale(-0.5)?)?.and(&grows)?;
    let fall = clip(&part.scale(STEEPER)?, FALL, 2.0 * FALL)?;
    let floor = steep.select(&zero.like(DOWN), &part.mul(&fall)?.scale(-1.0)?.shift(1.0)?)?;
    let aim = grows.select(&zero.like(1.0), &zero.like(LATE))?.mul(&aim(now, &sum_d)?)?;
    let gamma = clip(&part.scale(EAGER_STEPS)?.sqrt()?, 1.0, EAGER)?.scale(spec.gamma)?.minimum(&zero.like(1.0))?;
    let up = grows.select(&zero.like(UP), &zero.like(1.0))?;
    Averages { alpha: now.alpha.clone(), sum_n, sum_d, gamma, aim, floor, up }.newton(spec)
}

/// c, or less: cD stays below .1·(max(L̄_slow − L̄, 0) + S)/(α(1 − ρ)), with α as it was applied. By the quadratic model, −αn is twice
/// what the loss would lose on the way back to the mean of the last parameters. D grows with the noise of ω itself, which for directions
/// of fixed length (Lion, Muon) says little about the loss.
fn aim(now: &Scalars, sum_d: &Value) -> Result<Value> {
    let zero = sum_d.like(0.0);
    let least = zero.like(1e-30);
    let gained = now.slow.sub(&now.mean)?.maximum(&zero)?.add(&now.deviation)?;
    let most = gained.scale(PRICE / (1.0 - RHO))?.div(&now.applied.maximum(&least)?)?;
    most.div(&sum_d.maximum(&least)?)?.minimum(&zero.like(AIM))
}

/// α halved at the first high loss in a row, else a tenth; N = D = 0.
fn reject(spec: &Spec, now: &Scalars, finite: &Value, in_a_row: &Value) -> Result<Rate> {
    let mild = finite.and(&in_a_row.equal(&in_a_row.like(1.0))?)?;
    let factor = mild.select(&now.alpha.like(0.5), &now.alpha.like(0.1))?;
    let alpha = now.alpha.mul(&factor)?.maximum(&spec.number(spec.min))?;
    Ok(Rate { alpha, sum_n: spec.number(0.0), sum_d: spec.number(0.0) })
}

/// Peak, deviation and mean with L in them (the mean is L itself after `PATIENCE` high losses). From step `WATCH` on: if
/// the mean stands above its best by two of the deviations it had there, and by one of those it has now, and nothing was done about it
/// in the last `WATCH` steps, α is halved and N = D = 0; the best, and the deviation there, forget by 1 % of what they are now below.
fn watched(spec: &Spec, now: Scalars, first: &Value, loss: &Value) -> Result<Scalars> {
    let peak = first.select(loss, &loss.maximum(&now.peak.scale(SLOW)?)?)?;
    let (mean, deviation) = loss_statistics(&now.mean, &now.deviation, first, loss)?;
    let changed = now.high.greater(&now.high.like(PATIENCE))?;
    let mean = changed.select(loss, &mean)?;

    let due = now.t.greater_equal(&now.t.like(WATCH))?;
    let best = now.watching.not_equal(&now.watching.like(0.0))?.select(&now.best, &mean)?;
    let above = mean.greater(&best.add(&now.usual.scale(ABOVE)?.maximum(&deviation)?)?)?;
    let rested = now.t.sub(&now.halved)?.greater_equal(&now.t.like(WATCH))?;
    let halve = due.and(&above)?.and(&rested)?;
    let zero = loss.like(0.0);
    let forgetting = |low: &Value, now: &Value| low.add(&now.sub(low)?.maximum(&zero)?.scale(1.0 - SLOW)?);
    let best = mean.minimum(&forgetting(&best, &mean)?)?;
    let at_best = due.not()?.or(&mean.less_equal(&best)?)?;
    let usual = at_best.select(&deviation, &forgetting(&now.usual, &deviation)?)?;
    let lately = now.t.shift(1.0)?.reciprocal()?.scale(LATELY_OF_ALL)?.minimum(&zero.like(LATELY))?;
    let slow = now.slow.add(&mean.sub(&now.slow)?.minimum(&zero)?.mul(&lately)?)?;
    Ok(Scalars {
        alpha: halve.select(&now.alpha.scale(0.5)?.maximum(&spec.number(spec.min))?, &now.alpha)?,
        sum_n: halve.select(&zero, &now.sum_n)?,
        sum_d: halve.select(&zero, &now.sum_d)?,
        halved: halve.select(&now.t, &now.halved)?,
        slow: first.select(loss, &slow)?,
        best: due.select(&best, &now.best)?,
        usual,
        watching: due.cast(spec.scalar)?.maximum(&now.watching)?,
        mean,
        deviation,
        peak,
        ..now
    })
}

/// Move: θ′ = θ_start − scale·2(1 − t/T)·α·ω. An accepted step starts at θ with the new ω; after a rejection the previous
/// start and direction are taken again with the smaller α, and the direction's state stays. Nothing of a refused loss,
/// gradient or parameter enters the result: every choice is a select.
pub(super) fn finish(spec: &Spec, step: &Finish) -> Result<Finished> {
    let state = State::read(spec, step.params, step.state, step.recalled)?;
    let now = &state.scalars;
    let carried = step.carry.split_first_chunk::<3>().and_then(|(head, rest)| Some((head, rest.try_into().ok()?)));
    let Some(([accepted, n, left], after)) = carried else {
        let message = format!("{} carried tensors; pass on what begin gave", step.carry.len());
        return Err(Error::argument(spec.rule.name(), message));
    };
    let mut after = Scalars::named(after);
    let first = now.first()?;
    let Now { start, omega, kept, direction } = state.previous.now(accepted, &first, step)?;
    let mut sampler = Sampler::new(spec, [step.params, &kept, &direction]);
    let (gradients, lines) = (sampler.all(step.gradients)?, sampler.all(&omega)?);
    let [slow, fast, gradients] = traced(&state.traces, accepted, left, &gradients, &lines)?;
    let d = inner_sampled(spec, step.params, &gradients, &lines)?;
    after.d = accepted.select(&d, &now.d)?;

    let applied = after.alpha.mul(step.scale)?.mul(&multiplier(spec, &now.t)?)?;
    after.applied = applied.clone();
    let params = moved(&start, &applied, &omega)?;
    let loss = loss_scalar(spec.rule.name(), step.loss, spec.scalar)?;
    let seen = Seen {
        loss: &loss,
        applied: &applied,
        alpha: &after.alpha,
        d: &after.d,
        before: (&now.d, &now.alpha),
        n,
        first: &first,
        accepted,
    };
    let report = seen.report()?;
    let state = [after.kept()?.to_vec(), kept, slow, fast, gradients].concat();
    Ok(Finished { params, direction, state, report })
}

/// e ← .99ke + ω, f ← .9kf + ω, y ← .99ky + g, with k what is left of them as α travelled. After a rejection e = f = ω
/// and y ← .99y.
fn traced(
    traces: &Traces,
    accepted: &Value,
    left: &Value,
    gradients: &[Value],
    omega: &[Value],
) -> Result<[Vec<Value>; 3]> {
    let kept = |decay: f64| accepted.select(&left.scale(decay)?, &left.like(0.0));
    let decayed = |trace: &Value, by: &Value, add: &Value| trace.mul(&by.cast(trace.dtype())?)?.add(add);
    let all = |traces: &[Value], by: &Value, add: &[Value]| {
        traces.iter().zip(add).map(|(trace, add)| decayed(trace, by, add)).collect::<Result<Vec<_>>>()
    };
    let fresh = gradients.iter().map(|g| accepted.select(g, &g.like(0.0))).collect::<Result<Vec<_>>>()?;
    Ok([
        all(traces.slow, &kept(SLOW)?, omega)?,
        all(traces.fast, &kept(FAST)?, omega)?,
        all(traces.gradients, &left.scale(SLOW)?, &fresh)?,
    ])
}

/// min(1, max(0, 2(1 − t/T))), 1 where T is not known.
fn multiplier(spec: &Spec, t: &Value) -> Result<Value> {
    match spec.total_steps {
        Some(total) => clip(&t.scale(-2.0 / total as f64)?.shift(2.0)?, 0.0, 1.0),
        None => Ok(t.like(1.0)),
    }
}

/// α·factor; at the first step the power of two that is nearest to it in logarithm, so that the search for it ends at the same α
/// wherever it began.
fn tried(now: &Scalars, first: bool, factor: &Value) -> Result<Value> {
    let alpha = now.alpha.mul(factor)?;
    if !first {
        return Ok(alpha);
    }
    alpha.log()?.scale(1.0 / LN_2)?.round()?.scale(LN_2)?.exp()
}

/// Start-up: where a step `factor` times as long leads (at the first step, 20 times as far), and the loss that is to fall.
pub(super) fn reach<'a>(
    spec: &Spec,
    params: &[Value],
    state: &'a [Value],
    recalled: Option<&'a Recalled>,
    first: bool,
    factor: &Value,
) -> Result<Reach<'a>> {
    let State { scalars, previous: Previous { start, omega, .. }, .. } = State::read(spec, params, state, recalled)?;
    let s = tried(&scalars, first, factor)?.scale(if first { REACH } else { 1.0 })?;
    let epsilon = params.iter().map(|param| param.dtype().epsilon()).fold(0.0, f64::max);
    let tolerance = Some(scalars.loss.abs()?.scale(4.0 * epsilon)?);
    // At the first step y is the gradient itself, so that d = ⟨g, ω⟩; later on it has to be found at the start.
    let slope = first.then(|| scalars.d.clone());
    let untaken = scalars.first()?;
    Ok(Reach { start, omega, s, slope, loss_start: scalars.loss, tolerance, untaken })
}

/// Start-up: α as it was [`tried`]; the first step sets R = α|ω|, and then α ← min(α, R·√(t + 1)·min(1.1ᵗ, 8)/|e|) up to step 40: the
/// way that the steps make together grows like that of a random walk, and by a tenth more with each. θ′ = θ_start − scale·2(1 − t/T)·α·ω.
pub(super) fn rescale(
    spec: &Spec,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    first: bool,
    factor: &Value,
    scale: &Value,
) -> Result<Vec<Value>> {
    let State { scalars: now, previous: Previous { start, omega, .. }, traces } =
        &State::read(spec, params, state, recalled)?;
    // The step that is taken again has been counted.
    let t = now.t.shift(-1.0)?;
    let alpha = clip(&tried(now, first, factor)?, spec.min, spec.max)?;
    let first = t.less_equal(&t.like(0.0))?;
    let travelled = inner_sampled(spec, params, traces.slow, traces.slow)?.sqrt()?;
    let reach = first.select(&alpha.mul(&travelled)?, &now.reach)?;
    let growth = t.scale(RAMP.ln())?.exp()?.minimum(&t.like(RAMP_MOST))?.mul(&t.shift(1.0)?.sqrt()?)?;
    let bound = reach.mul(&growth)?.div(&travelled.maximum(&travelled.like(1e-30))?)?;
    let bounded = first.not()?.and(&t.less(&t.like(RAMP_STEPS))?)?;
    let alpha = bounded.select(&clip(&alpha.minimum(&bound)?, spec.min, spec.max)?, &alpha)?;
    let applied = alpha.mul(scale)?.mul(&multiplier(spec, &t)?)?;
    let moved = moved(start, &applied, omega)?;
    let scalars = Scalars { alpha, applied, reach, ..now.clone() }.kept()?;
    Ok([&moved[..], &scalars, &state[SCALARS..]].concat())
}
