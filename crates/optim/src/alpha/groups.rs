//! Groups of parameters with an α each, and how a step is put together from them: every group is judged and moved by its
//! own inner products (n and d over its parameters alone), on one loss and one set of gradients. What belongs to the loss is
//! decided for all of them: a refused loss or gradient takes every group back, and the start-up finds one factor for
//! all. One group of all parameters is the usual case. The rules' formulas are in their own files.
//!
//! State: that of each group, one after another.

use super::lookahead::{Look, Reach};
use super::measure::{Measured, inner};
use super::scalar::{loss_scalar, moved};
use super::{Family, Finish, Finished, Spec, constant, guard, next, next_plain};
use crate::direction::Recalled;
use raphson_graph::derivative::{substitute, vjp};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// The part of the first-order decrease that a probe must reach.
const SUFFICIENT: f64 = 0.3;

/// The positions of each group's parameters; each parameter stands in one of them.
pub(super) struct Groups(Vec<Vec<usize>>);

impl Groups {
    pub(super) fn new(spec: &Spec, count: usize) -> Result<Groups> {
        if spec.groups.is_empty() {
            return Ok(Groups(vec![(0..count).collect()]));
        }
        let mut positions = spec.groups.concat();
        positions.sort_unstable();
        if positions != (0..count).collect::<Vec<_>>() || spec.groups.iter().any(Vec::is_empty) {
            let message = format!("the groups {:?} do not share {count} parameters among them", spec.groups);
            return Err(Error::argument(spec.rule.name(), message));
        }
        Ok(Groups(spec.groups.clone()))
    }

    /// Whether there is one α.
    pub(super) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// What each group has of a list in the parameters' order.
    fn each(&self, list: &[Value]) -> Vec<Vec<Value>> {
        let pick = |group: &Vec<usize>| group.iter().map(|&at| list[at].clone()).collect();
        self.0.iter().map(pick).collect()
    }

    /// The groups' lists as one in the parameters' order.
    fn together(&self, lists: &[Vec<Value>]) -> Vec<Value> {
        let mut placed: Vec<_> = self.0.iter().flatten().zip(lists.iter().flatten()).collect();
        placed.sort_unstable_by_key(|(at, _)| **at);
        placed.into_iter().map(|(_, value)| value.clone()).collect()
    }

    /// The step before, for each group.
    fn recalled(&self, recalled: Option<&Recalled>) -> Vec<Option<Recalled>> {
        let Some(Recalled { start, omega }) = recalled else { return self.0.iter().map(|_| None).collect() };
        let pairs = self.each(start).into_iter().zip(self.each(omega));
        pairs.map(|(start, omega)| Some(Recalled { start, omega })).collect()
    }

    /// Where each group's state begins, and where the last one ends. The scalars at the head are as many for all; the
    /// tensors behind them as many for each parameter.
    pub(super) fn bounds(&self, spec: &Spec, state: usize) -> Result<Vec<usize>> {
        let scalars = match spec.rule.family() {
            Family::Constant => 1,
            Family::Next => next::SCALARS,
            Family::NextPlain => next_plain::SCALARS,
            Family::Measured => guard::SCALARS,
        };
        if self.is_one() {
            return Ok(vec![0, state]);
        }
        let count: usize = self.0.iter().map(Vec::len).sum();
        let tensors = state.checked_sub(scalars * self.0.len()).filter(|tensors| tensors % count == 0);
        let Some(tensors) = tensors else {
            let message = format!("{state} state tensors do not make states of {} groups", self.0.len());
            return Err(Error::argument(spec.rule.name(), message));
        };
        let mut bounds = vec![0];
        for group in &self.0 {
            let begin = bounds[bounds.len() - 1];
            bounds.push(begin + scalars + group.len() * tensors / count);
        }
        Ok(bounds)
    }

    /// Each group's state.
    fn states<'a>(&self, spec: &Spec, state: &'a [Value]) -> Result<Vec<&'a [Value]>> {
        Ok(self.bounds(spec, state.len())?.windows(2).map(|bound| &state[bound[0]..bound[1]]).collect())
    }

    /// Each group's part of what [`begin`] gave.
    fn carries<'a>(&self, carry: &'a [Value]) -> Vec<&'a [Value]> {
        let size = carry.len() / self.0.len();
        (0..self.0.len()).map(|group| &carry[group * size..][..size]).collect()
    }
}

pub(super) fn init(spec: &Spec, params: &[Value], direction: &[Value], recalls: bool) -> Result<Vec<Value>> {
    let states = Groups::new(spec, params.len())?.each(params).into_iter().map(|params| match spec.rule.family() {
        Family::Constant => Ok(constant::init(spec)),
        Family::Next => next::init(spec, &params, recalls),
        Family::NextPlain => next_plain::init(spec, &params, direction, recalls),
        Family::Measured => Ok(guard::init(spec)),
    });
    Ok(states.collect::<Result<Vec<_>>>()?.concat())
}

/// Each group looks at its own gradients; what is not finite anywhere is refused by all. Their losses being the same, so is
/// whatever else they decide about them.
pub(super) fn begin(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
) -> Result<Vec<Value>> {
    let groups = Groups::new(spec, params.len())?;
    let states = groups.states(spec, state)?;
    let lists = groups.each(params).into_iter().zip(groups.each(gradients)).zip(groups.recalled(recalled));
    let looks = lists.zip(&states).map(|(((params, gradients), recalled), state)| match spec.rule.family() {
        Family::NextPlain => next_plain::look(spec, &params, &gradients, state, recalled.as_ref()),
        _ => next::look(spec, &params, &gradients, state),
    });
    let looks = looks.collect::<Result<Vec<_>>>()?;
    let mut finite = looks[0].finite.clone();
    for look in &looks[1..] {
        finite = finite.and(&look.finite)?;
    }
    let judged = looks.into_iter().zip(&states).map(|(Look { n, .. }, state)| {
        let look = Look { n, finite: finite.clone() };
        match spec.rule.family() {
            Family::NextPlain => next_plain::judge(spec, loss, look, state),
            _ => next::judge(spec, loss, look, state),
        }
    });
    Ok(judged.collect::<Result<Vec<_>>>()?.concat())
}

/// The rates with which the step before was made, one for each group.
pub(super) fn rates<'a>(spec: &Spec, params: usize, state: &'a [Value]) -> Result<Vec<&'a Value>> {
    let states = Groups::new(spec, params)?.states(spec, state)?;
    let rate = |state: &&'a [Value]| state.get(1).ok_or_else(|| super::lookahead::too_short(spec.rule, state));
    states.iter().map(rate).collect()
}

/// Each group's step. The direction's state is common to them, and goes through with the last one.
pub(super) fn finish(spec: &Spec, step: &Finish, groups: &Groups) -> Result<Finished> {
    let (states, carries, count) = (groups.states(spec, step.state)?, groups.carries(step.carry), groups.0.len());
    let [params, gradients, omega] = [step.params, step.gradients, step.omega].map(|list| groups.each(list));
    let recalled = groups.recalled(step.recalled);
    let measured = match spec.rule.family() {
        Family::Measured => Some(measure_all(spec, step, groups, &states)?),
        _ => None,
    };
    let mut finished = Vec::new();
    for group in 0..count {
        let last = group + 1 == count;
        let own = Finish {
            params: &params[group],
            gradients: &gradients[group],
            omega: &omega[group],
            direction_old: if last { step.direction_old } else { &[] },
            direction_new: if last { step.direction_new } else { &[] },
            state: states[group],
            carry: carries[group],
            recalled: recalled[group].as_ref(),
            ..*step
        };
        finished.push(match (spec.rule.family(), &measured) {
            (Family::NextPlain, _) => next_plain::finish(spec, &own)?,
            (_, Some(measured)) => {
                guard::finish_measured(spec, &own, &measured[group], guard::allowed(spec, measured, &states)?.as_ref())?
            }
            _ => next::finish(spec, &own)?,
        });
    }
    let report = report(&finished)?;
    let params = groups.together(&finished.iter().map(|one| one.params.clone()).collect::<Vec<_>>());
    let state = finished.iter().flat_map(|one| one.state.clone()).collect();
    let direction = finished.pop().map_or(Vec::new(), |one| one.direction);
    Ok(Finished { params, direction, state, report })
}

/// The last group's report, and behind it for each group α applied, α next, d, n, h.
fn report(finished: &[Finished]) -> Result<Value> {
    let mut rows: Vec<Value> = finished.last().map(|one| one.report.clone()).into_iter().collect();
    for one in finished {
        rows.push(one.report.slice(&[1], &[6], &[1])?);
    }
    Value::concatenate(&rows, 0)
}

/// The loss at θ′, where all groups have moved, and each group's slopes: ⟨∇L(θ), ω⟩ and ⟨∇L(θ′), ω⟩ over its parameters.
fn measure_all(spec: &Spec, step: &Finish, groups: &Groups, states: &[&[Value]]) -> Result<Vec<Measured>> {
    let (omega, gradients) = (groups.each(step.omega), groups.each(step.gradients));
    let applied = states.iter().map(|state| state[0].mul(step.scale)).collect::<Result<Vec<_>>>()?;
    let lines = groups.each(step.params).into_iter().zip(&omega).zip(&applied);
    let there = lines.map(|((params, omega), applied)| moved(&params, applied, omega)).collect::<Result<Vec<_>>>()?;
    let there = groups.together(&there);
    let loss1 = substitute(std::slice::from_ref(step.loss), step.params, &there)?;
    let loss1 = loss_scalar("measure", &loss1[0], spec.scalar)?;
    let slopes = groups.each(&gradients_at(step.loss, step.params, &there)?);
    let one = |group: usize| {
        Ok(Measured {
            alpha: applied[group].clone(),
            loss0: loss_scalar("measure", step.loss, spec.scalar)?,
            slope0: inner(&gradients[group], &omega[group], spec.scalar)?,
            loss1: Some(loss1.clone()),
            slope1: Some(inner(&slopes[group], &omega[group], spec.scalar)?),
            curvature: None,
            loss_minus: None,
            epsilon: step.loss.dtype().epsilon().max(spec.scalar.epsilon()),
        })
    };
    (0..groups.0.len()).map(one).collect()
}

/// ∇L at other parameters.
fn gradients_at(loss: &Value, params: &[Value], there: &[Value]) -> Result<Vec<Value>> {
    let one = loss.like(1.0);
    let gradients = vjp(std::slice::from_ref(loss), params, std::slice::from_ref(&one))?;
    substitute(&gradients, params, there)
}

/// L(θ_start − Σ s·ω) ≤ L − .3·max(Σ s·⟨g, ω⟩, 0) + tolerance, with sums over the groups; or no step was taken. Never true of
/// a loss that is NaN.
pub(super) fn probe(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    first: bool,
    factor: &Value,
) -> Result<Value> {
    let groups = Groups::new(spec, params.len())?;
    let (states, own, recalled) = (groups.states(spec, state)?, groups.each(params), groups.recalled(recalled));
    let reaches = (0..groups.0.len()).map(|group| {
        let (params, state, recalled) = (&own[group], states[group], recalled[group].as_ref());
        match spec.rule.family() {
            Family::NextPlain => next_plain::reach(spec, params, state, recalled, first, factor),
            _ => next::reach(spec, params, state, recalled, first, factor),
        }
    });
    let reaches = reaches.collect::<Result<Vec<_>>>()?;
    let there = reaches.iter().map(|reach| moved(reach.start, &reach.s, reach.omega)).collect::<Result<Vec<_>>>()?;
    let there = substitute(std::slice::from_ref(loss), params, &groups.together(&there))?;
    let there = loss_scalar("probe", &there[0], spec.scalar)?;

    let wanted = decrease(spec, loss, params, &groups, &reaches)?;
    let Reach { loss_start, tolerance, untaken, .. } = &reaches[0];
    let mut bound = loss_start.sub(&wanted.maximum(&wanted.like(0.0))?.scale(SUFFICIENT)?)?;
    if let Some(tolerance) = tolerance {
        bound = bound.add(tolerance)?;
    }
    there.less_equal(&bound)?.or(untaken)
}

/// Σ s·⟨g, ω⟩, with g at the start.
fn decrease(spec: &Spec, loss: &Value, params: &[Value], groups: &Groups, reaches: &[Reach]) -> Result<Value> {
    let known = reaches.iter().map(|reach| reach.slope.clone()).collect::<Option<Vec<_>>>();
    let slopes = match known {
        Some(slopes) => slopes,
        None => {
            let start = groups.together(&reaches.iter().map(|reach| reach.start.to_vec()).collect::<Vec<_>>());
            let gradients = groups.each(&gradients_at(loss, params, &start)?);
            let slope = |(gradients, reach): (&Vec<Value>, &Reach)| inner(gradients, reach.omega, spec.scalar);
            gradients.iter().zip(reaches).map(slope).collect::<Result<Vec<_>>>()?
        }
    };
    let mut sum = reaches[0].s.mul(&slopes[0])?;
    for (reach, slope) in reaches.iter().zip(&slopes).skip(1) {
        sum = sum.add(&reach.s.mul(slope)?)?;
    }
    Ok(sum)
}

/// Each group's step taken again with its α·factor.
pub(super) fn rescale(
    spec: &Spec,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    first: bool,
    factor: &Value,
    scale: &Value,
) -> Result<Vec<Value>> {
    let groups = Groups::new(spec, params.len())?;
    let (states, recalled) = (groups.states(spec, state)?, groups.recalled(recalled));
    let (mut moved, mut after) = (Vec::new(), Vec::new());
    for (group, params) in groups.each(params).iter().enumerate() {
        let (state, recalled) = (states[group], recalled[group].as_ref());
        let mut results = match spec.rule.family() {
            Family::NextPlain => next_plain::rescale(spec, params, state, recalled, factor, scale)?,
            _ => next::rescale(spec, params, state, recalled, first, factor, scale)?,
        };
        after.extend(results.split_off(params.len()));
        moved.push(results);
    }
    Ok([groups.together(&moved), after].concat())
}
