//! Learning-rate rules. A training step is θ′ = θ − αω; a rule says what to measure along φ(s) = L(θ − sω), all on the
//! step's own batch and random draws, and what α comes next. Here are the rules' names and settings and the calls that
//! a step makes: `begin`, `finish`, and for the start-up of the rules that look ahead `probe` and `rescale`. Every same-batch rule is a
//! file with its formula; what they share (γ, limits, rejection) is in `guard`, what they measure in `measure`.
//!
//! Letters: L0 = φ(0), L1 = φ(α), L₋ = φ(−α), d = −φ′(0) = ⟨∇L(θ), ω⟩, n = −φ′(α) = ⟨∇L(θ′), ω⟩, h ≈ φ″(α).
//! Newton's iteration on φ′ is α′ = α + n/h.

mod alt1;
mod alt2;
mod alt2_gradient_free;
mod constant;
mod exact;
mod groups;
mod guard;
mod hermite;
mod lookahead;
mod measure;
mod next;
mod next_plain;
mod retsinas;
mod sample;
mod scalar;

pub use measure::{Measured, Needs, inner, measure};

use crate::direction::Recalled;
use groups::Groups;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;
use scalar::{choose, loss_scalar};

/// A rule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// α stays as it is.
    Constant,
    /// Curvature by automatic differentiation.
    Exact,
    /// Secant of two slopes (Retsinas et al. 2023).
    Retsinas,
    /// Two losses and the slope at θ′.
    Alt1,
    /// Three losses, and the slope at θ′.
    Alt2,
    /// Three losses and no slope.
    Alt2GradientFree,
    /// The same with the published slope, which is the one at θ. For the record only.
    Alt2GradientFreeAsPublished,
    /// Two losses and two slopes: cubic Hermite interpolation.
    Hermite,
    /// The default: slopes of the directions so far on the next batch.
    Next,
    /// The slope of the previous direction on the next batch.
    NextPlain,
    /// Slope and curvature, or α itself, come from outside.
    Custom,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 11] = [
        Rule::Constant,
        Rule::Exact,
        Rule::Retsinas,
        Rule::Alt1,
        Rule::Alt2,
        Rule::Alt2GradientFree,
        Rule::Alt2GradientFreeAsPublished,
        Rule::Hermite,
        Rule::Next,
        Rule::NextPlain,
        Rule::Custom,
    ];

    /// The name on both sides.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::Constant => "constant",
            Rule::Exact => "exact",
            Rule::Retsinas => "retsinas",
            Rule::Alt1 => "alt1",
            Rule::Alt2 => "alt2",
            Rule::Alt2GradientFree => "alt2GradientFree",
            Rule::Alt2GradientFreeAsPublished => "alt2GradientFreeAsPublished",
            Rule::Hermite => "hermite",
            Rule::Next => "next",
            Rule::NextPlain => "nextPlain",
            Rule::Custom => "custom",
        }
    }

    /// The rule of this name.
    pub fn named(name: &str) -> Result<Rule> {
        Rule::ALL.into_iter().find(|rule| rule.name() == name).ok_or_else(|| {
            let known = Rule::ALL.map(Rule::name).join(", ");
            Error::argument("alpha", format!("there is no rule {name}; choose from {known}"))
        })
    }

    /// Whether the slope is that of earlier directions on the next batch, which costs no pass: such a rule has a start-up,
    /// and takes steps back.
    pub const fn looks_ahead(self) -> bool {
        matches!(self.family(), Family::Next | Family::NextPlain)
    }

    /// Whether groups of parameters can have an α each: the rule is made of inner products, which each group has its own of.
    pub const fn splits(self) -> bool {
        matches!(self, Rule::Next | Rule::NextPlain | Rule::Retsinas)
    }

    const fn family(self) -> Family {
        match self {
            Rule::Constant => Family::Constant,
            Rule::Next => Family::Next,
            Rule::NextPlain => Family::NextPlain,
            Rule::Exact
            | Rule::Retsinas
            | Rule::Alt1
            | Rule::Alt2
            | Rule::Alt2GradientFree
            | Rule::Alt2GradientFreeAsPublished
            | Rule::Hermite
            | Rule::Custom => Family::Measured,
        }
    }

    /// Slope and curvature of the same-batch rules.
    const fn formula(self) -> Option<&'static Formula> {
        match self {
            Rule::Exact => Some(&exact::FORMULA),
            Rule::Retsinas => Some(&retsinas::FORMULA),
            Rule::Alt1 => Some(&alt1::FORMULA),
            Rule::Alt2 => Some(&alt2::FORMULA),
            Rule::Alt2GradientFree => Some(&alt2_gradient_free::FORMULA),
            Rule::Alt2GradientFreeAsPublished => Some(&alt2_gradient_free::AS_PUBLISHED),
            Rule::Hermite => Some(&hermite::FORMULA),
            Rule::Constant | Rule::Next | Rule::NextPlain | Rule::Custom => None,
        }
    }
}

/// How a rule's step is made.
enum Family {
    Constant,
    Next,
    NextPlain,
    /// Measured on the step's own batch, α found by `guard`.
    Measured,
}

/// A same-batch rule: what it needs, and what it makes of it.
struct Formula {
    needs: Needs,
    estimate: fn(&Measured) -> Result<Estimate>,
}

/// Newton's numerator and denominator.
#[derive(Clone)]
struct Estimate {
    /// n ≈ −φ′(α)
    slope: Value,
    /// h ≈ φ″(α)
    curvature: Value,
    /// An |h| up to this is rounding noise.
    noise: Value,
}

/// A rule's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Which rule.
    pub rule: Rule,
    /// Slow adaptation, in (0, 1]: the part of Newton's step that is taken.
    pub gamma: f64,
    /// α never falls below this (the start-up of `nextPlain` may pass it).
    pub min: f64,
    /// α never rises above this.
    pub max: f64,
    /// α before the first step.
    pub initial: f64,
    /// The caller sets `measure` at every k-th step only. Data for the caller; nothing here reads it.
    pub every: u32,
    /// Whether senseless proposals are held back and bad steps rejected; without it the bare formula runs.
    pub guard: bool,
    /// What is measured for `Rule::Custom`; other rules know their own.
    pub needs: Needs,
    /// What α and everything it is computed from are kept in: f64, or f32 for a device that has no f64.
    pub scalar: DType,
    /// `next` only: how many steps there will be, if that is known. α then stays as it is in the second half, and falls
    /// to nothing by a factor outside its state.
    pub total_steps: Option<u32>,
    /// `next` only: of large tensors, traces and slopes see every k-th row, but at least 8 rows. 1: they see everything.
    pub sample: u32,
    /// Parameters that have an α of their own together: their positions, group after group. Empty: all share one.
    pub groups: Vec<Vec<usize>>,
    /// Whether this traced step measures and moves α. Without it the step is taken with α as it is.
    pub measure: bool,
}

impl Spec {
    /// The rule's own settings.
    pub fn defaults(rule: Rule) -> Spec {
        let gamma = match rule.family() {
            Family::Next => 0.07,
            Family::NextPlain => 0.1,
            Family::Constant | Family::Measured => 0.5,
        };
        let needs = rule.formula().map_or(Needs::default(), |formula| formula.needs);
        let (min, max, initial, scalar) = (1e-8, 100.0, 1e-3, DType::F64);
        Spec {
            rule,
            gamma,
            min,
            max,
            initial,
            every: 1,
            guard: true,
            needs,
            scalar,
            total_steps: None,
            sample: 64,
            groups: Vec::new(),
            measure: true,
        }
    }

    /// Refuse settings that make no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::argument(self.rule.name(), message));
        let Spec { gamma, min, max, initial, .. } = *self;
        if !(gamma > 0.0 && gamma <= 1.0) {
            return refuse(format!("gamma must be greater than 0 and at most 1, not {gamma}"));
        }
        for (name, value) in [("min", min), ("max", max), ("initial", initial)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(format!("{name} must be a positive number, not {value}"));
            }
        }
        if min >= max {
            return refuse(format!("min must be less than max, not {min} with max {max}"));
        }
        if !(min..=max).contains(&initial) {
            return refuse(format!("initial must lie between min {min} and max {max}, not {initial}"));
        }
        let looks_ahead = self.rule.looks_ahead();
        if self.every == 0 || (looks_ahead && self.every != 1) {
            let most = if looks_ahead { "1 (this rule measures nothing extra)" } else { "at least 1" };
            return refuse(format!("every must be {most}, not {}", self.every));
        }
        if self.sample == 0 {
            return refuse("sample must be at least 1, not 0".to_owned());
        }
        if self.total_steps.is_some_and(|total| total == 0 || self.rule != Rule::Next) {
            return refuse("total_steps must be at least 1, and is for the rule next only".to_owned());
        }
        if !self.groups.is_empty() && !self.rule.splits() {
            let known = Rule::ALL.into_iter().filter(|rule| rule.splits()).map(Rule::name).collect::<Vec<_>>();
            let (name, known) = (self.rule.name(), known.join(", "));
            return refuse(format!("{name} has one α for all parameters; groups have an α each with one of {known}"));
        }
        Ok(())
    }

    /// A constant among the scalars.
    fn number(&self, value: f64) -> Value {
        Value::scalar(value, self.scalar)
    }

    /// What this step measures.
    fn needs(&self) -> Needs {
        if !self.measure {
            return Needs::default();
        }
        self.rule.formula().map_or(self.needs, |formula| formula.needs)
    }
}

/// What [`finish`] works on. Lists stand in the parameters' order.
pub struct Finish<'a> {
    /// The batch's loss at the parameters, one element.
    pub loss: &'a Value,
    /// θ
    pub params: &'a [Value],
    /// ∇L(θ)
    pub gradients: &'a [Value],
    /// ω from the direction.
    pub omega: &'a [Value],
    /// The direction's state before the step, kept where the step is rejected.
    pub direction_old: &'a [Value],
    /// The direction's state after the step.
    pub direction_new: &'a [Value],
    /// The rule's state before the step.
    pub state: &'a [Value],
    /// What [`begin`] gave.
    pub carry: &'a [Value],
    /// Where the direction recalls steps: the one to take now, from [`staying`]'s rate and state, which `direction_new` is then.
    /// Else the rule has stored the step before.
    pub recalled: Option<&'a Recalled>,
    /// Scalar that multiplies α outside its state: θ′ = θ − scale·α·ω. What is measured is measured at θ′.
    pub scale: &'a Value,
    /// `Rule::Custom`: \[slope, curvature\] or \[α\], scalars. Empty for every other rule.
    pub proposal: &'a [Value],
}

/// What a step leaves behind.
pub struct Finished {
    /// θ′, or θ where the step was rejected.
    pub params: Vec<Value>,
    /// The direction's state.
    pub direction: Vec<Value>,
    /// The rule's state; `state[0]` is α, and `state[1]` of a rule that looks ahead the rate that the step was made with (of
    /// each group, see [`heads`]).
    pub state: Vec<Value>,
    /// Eight scalars in a row: loss, α applied (scale included), α next, d, n, h, L1, accepted (1 or 0). NaN where not measured.
    /// With several groups these are the last one's, and for each group α applied, α next, d, n, h stand behind them.
    pub report: Value,
}

/// The rule's state before the first step. `state[0]` is α. Scalars are of the spec's dtype. `recalls`: whether every later
/// call is given the step before by the direction's `recall`, so that the state need not hold it.
pub fn init(spec: &Spec, params: &[Value], direction: &[Value], recalls: bool) -> Result<Vec<Value>> {
    spec.check()?;
    groups::init(spec, params, direction, recalls)
}

/// Where the state of each group begins in the rule's state of `state` tensors for `params` parameters: at its α, and with a
/// rule that looks ahead the rate of its last step behind that.
pub fn heads(spec: &Spec, params: usize, state: usize) -> Result<Vec<usize>> {
    let mut bounds = Groups::new(spec, params)?.bounds(spec, state)?;
    bounds.pop();
    Ok(bounds)
}

/// The part of a step that stands before the direction: what rules that look ahead decide from the new gradient. Others
/// decide nothing here. The result goes to [`finish`] as `carry`. `recalled`: the step before, where the direction recalls
/// it (only `nextPlain` looks at it).
pub fn begin(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
) -> Result<Vec<Value>> {
    spec.check()?;
    if !spec.rule.looks_ahead() {
        return Ok(Vec::new());
    }
    let loss = loss_scalar(spec.rule.name(), loss, spec.scalar)?;
    groups::begin(spec, &loss, params, gradients, state, recalled)
}

/// What the direction goes on from, and the rate (one for each group) with which its `recall` tells the step to take: after a
/// kept step, the new state and 0 (from θ along the new ω); where the step before is taken back, the old state and that
/// step's rate.
pub fn staying(
    spec: &Spec,
    params: usize,
    carry: &[Value],
    state: &[Value],
    direction_old: &[Value],
    direction_new: &[Value],
) -> Result<(Vec<Value>, Vec<Value>)> {
    let [accepted, ..] = carry else {
        return Err(Error::argument(spec.rule.name(), "only rules that look ahead take steps back"));
    };
    let mut rates = Vec::new();
    for rate in groups::rates(spec, params, state)? {
        check_scalar("rate", rate, spec.scalar)?;
        rates.push(accepted.select(&rate.like(0.0), rate)?);
    }
    Ok((rates, choose(accepted, direction_new, direction_old)?))
}

/// The part of a step that stands after the direction: measure, find the next α, move the parameters.
pub fn finish(spec: &Spec, step: Finish) -> Result<Finished> {
    spec.check()?;
    check_step(spec, &step)?;
    let groups = Groups::new(spec, step.params.len())?;
    if !groups.is_one() {
        return groups::finish(spec, &step, &groups);
    }
    match spec.rule.family() {
        Family::Constant => constant::finish(&step),
        Family::Next => next::finish(spec, &step),
        Family::NextPlain => next_plain::finish(spec, &step),
        Family::Measured => guard::finish(spec, &step),
    }
}

/// Start-up of a rule that looks ahead, after a step: whether this batch's loss falls far enough with α·factor (at the
/// `first` step, twenty times as far), a bool scalar. `loss` is the batch's loss as a function of `params`; `state` is the state
/// after the step. What the caller makes of the answers, before [`rescale`]:
/// - first step: `next` walks `factor` up by 4 while the answer is true, or down by ¼ until it is, at most 20 times, and takes
///   twice the last factor that passed if that passes too, else the factor; as α·factor is taken to the nearest power of two, it ends
///   at the same α wherever it began. `nextPlain` only shrinks by .2, at most 14 times;
/// - second and third step: shrink by .2 until the answer is true, at most 3 times; a reduced factor is multiplied by .1
///   once more.
pub fn probe(
    spec: &Spec,
    loss: &Value,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    first: bool,
    factor: &Value,
) -> Result<Value> {
    check_scalar("factor", factor, spec.scalar)?;
    check_start_up(spec, "probe")?;
    groups::probe(spec, loss, params, state, recalled, first, factor)
}

/// Start-up of a rule that looks ahead, after the probes: the step taken again with α·factor. Parameters, then the state.
/// `next` bounds the way of its first forty steps here: call it after each of them, with factor 1 where nothing was
/// probed. `first` as the probes had it.
pub fn rescale(
    spec: &Spec,
    params: &[Value],
    state: &[Value],
    recalled: Option<&Recalled>,
    first: bool,
    factor: &Value,
    scale: &Value,
) -> Result<Vec<Value>> {
    check_scalar("factor", factor, spec.scalar)?;
    check_scalar("scale", scale, spec.scalar)?;
    check_start_up(spec, "rescale")?;
    groups::rescale(spec, params, state, recalled, first, factor, scale)
}

fn check_start_up(spec: &Spec, what: &str) -> Result<()> {
    if spec.rule.looks_ahead() {
        return Ok(());
    }
    Err(Error::argument(what, format!("only rules that look ahead have a start-up, not {}", spec.rule.name())))
}

fn check_scalar(what: &str, value: &Value, dtype: DType) -> Result<()> {
    if value.dtype() == dtype && value.shape().rank() == 0 {
        return Ok(());
    }
    let message = format!("{what} is {} {}; give a scalar of dtype {dtype}", value.dtype(), value.shape());
    Err(Error::new(Code::DType, "alpha", message).with_shapes([value.shape()]).with_dtypes([value.dtype()]))
}

fn check_step(spec: &Spec, step: &Finish) -> Result<()> {
    let name = spec.rule.name();
    let count = step.params.len();
    if step.gradients.len() != count || step.omega.len() != count {
        let (gradients, omega) = (step.gradients.len(), step.omega.len());
        let message = format!("{gradients} gradients and {omega} directions for {count} parameters; give one each");
        return Err(Error::argument(name, message));
    }
    if step.direction_old.len() != step.direction_new.len() {
        let (old, new) = (step.direction_old.len(), step.direction_new.len());
        return Err(Error::argument(name, format!("the direction's state had {old} tensors and now has {new}")));
    }
    check_scalar("scale", step.scale, spec.scalar)?;
    step.proposal.iter().try_for_each(|value| check_scalar("proposal", value, spec.scalar))?;
    let wanted = spec.rule == Rule::Custom && spec.measure;
    match (wanted, step.proposal.len()) {
        (true, 1 | 2) | (false, 0) => Ok(()),
        (true, n) => Err(Error::argument(name, format!("{n} proposed values; give [slope, curvature] or [alpha]"))),
        (false, n) => Err(Error::argument(name, format!("{n} proposed values; this step takes none"))),
    }
}
