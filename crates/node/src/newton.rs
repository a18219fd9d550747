//! Directions and learning-rate rules, as the optim crate builds them.

use crate::convert::count;
use crate::errors::guarded;
use crate::handles::Handles;
use crate::state::{State, call, call_value, call_values};
use napi_derive::napi;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_optim::alpha::{self, Finish, Needs, Rule, Spec};
use raphson_optim::direction::{self, Direction, Options, Recalled};
use std::collections::HashMap;

fn direction_of(name: &str, options: HashMap<String, f64>, scalar: DType) -> Result<(&'static dyn Direction, Options)> {
    let direction = direction::named(name)?;
    let mut given: Vec<(String, f64)> = options.into_iter().collect();
    // So that of several wrong options the same one is always reported.
    given.sort_by(|a, b| a.0.cmp(&b.0));
    let options = Options::new(direction, &given)?.with_scalar(scalar);
    Ok((direction, options))
}

/// All of a direction's options: those given, checked, and the defaults of the others.
#[napi]
pub fn direction_options(name: String, options: HashMap<String, f64>) -> napi::Result<HashMap<String, f64>> {
    call("direction", |_| {
        // The dtype of the scalars is no option.
        let (_, options) = direction_of(&name, options, DType::F64)?;
        Ok(options.values().iter().map(|(name, value)| (name.to_string(), *value)).collect())
    })
}

/// A direction's state before the first step.
#[napi]
pub fn direction_init(name: String, options: HashMap<String, f64>, params: Vec<f64>) -> napi::Result<Vec<f64>> {
    call_values("direction", |handles| {
        let (direction, options) = direction_of(&name, options, handles.scalar())?;
        direction.init(&options, &handles.get_all(direction.name(), &params)?)
    })
}

/// ω for each parameter, then the state after the step.
#[napi]
pub fn direction_apply(
    name: String,
    options: HashMap<String, f64>,
    params: Vec<f64>,
    gradients: Vec<f64>,
    state: Vec<f64>,
) -> napi::Result<Vec<f64>> {
    call_values("direction", |handles| {
        let (direction, options) = direction_of(&name, options, handles.scalar())?;
        let all = |list: &[f64]| handles.get_all(direction.name(), list);
        let applied = direction.direction(&options, &all(&params)?, &all(&gradients)?, &all(&state)?)?;
        Ok([applied.omega, applied.state].concat())
    })
}

/// θ_start and ω of the step that led to parameters and state, for each parameter; nothing where the direction does not
/// recall them.
#[napi]
pub fn direction_recall(
    name: String,
    options: HashMap<String, f64>,
    params: Vec<f64>,
    applied: f64,
    state: Vec<f64>,
) -> napi::Result<Vec<f64>> {
    call_values("direction", |handles| {
        let (direction, options) = direction_of(&name, options, handles.scalar())?;
        let all = |list: &[f64]| handles.get_all(direction.name(), list);
        let applied = handles.get(direction.name(), applied)?;
        let recalled = direction.recall(&options, &all(&params)?, applied, &all(&state)?)?;
        Ok(recalled.map_or(Vec::new(), |Recalled { start, omega }| [start, omega].concat()))
    })
}

/// What [`direction_recall`] gave, or what another optimizer recalls in that form.
fn recalled_of(handles: &Handles, recalled: &[f64], params: usize) -> Result<Option<Recalled>> {
    if recalled.is_empty() {
        return Ok(None);
    }
    let mut start = handles.get_all("alpha", recalled)?;
    if start.len() != 2 * params {
        let message = format!("{} recalled tensors for {params} parameters; give start and ω of each", start.len());
        return Err(Error::argument("alpha", message));
    }
    let omega = start.split_off(params);
    Ok(Some(Recalled { start, omega }))
}

/// Settings of a learning-rate rule.
#[napi(object)]
pub struct AlphaSpec {
    pub rule: String,
    pub gamma: f64,
    pub min: f64,
    pub max: f64,
    pub initial: f64,
    pub every: f64,
    pub guard: bool,
    /// Rule `next` only: how many steps there will be, if that is known.
    pub total_steps: Option<f64>,
    /// Rule `next` only: of large tensors, traces and slopes see every k-th row.
    pub sample: f64,
    /// Parameters that have an α of their own together: their positions, group after group. Empty: all share one.
    pub groups: Vec<Vec<f64>>,
    /// Rule `custom` only: of loss1, slope1, curvature, lossMinus.
    pub needs: Vec<String>,
}

impl AlphaSpec {
    fn checked(self, scalar: DType) -> Result<Spec> {
        let rule = Rule::named(&self.rule)?;
        let every = count(rule.name(), "every", self.every)?;
        let every = u32::try_from(every).unwrap_or(u32::MAX);
        let total_steps = self.total_steps.map(|total| count(rule.name(), "totalSteps", total)).transpose()?;
        let total_steps = total_steps.map(|total| u32::try_from(total).unwrap_or(u32::MAX));
        let sample = u32::try_from(count(rule.name(), "sample", self.sample)?).unwrap_or(u32::MAX);
        let positions = |group: &Vec<f64>| group.iter().map(|&at| count(rule.name(), "groups", at)).collect();
        let groups = self.groups.iter().map(positions).collect::<Result<Vec<Vec<usize>>>>()?;
        let AlphaSpec { gamma, min, max, initial, guard, .. } = self;
        // Which steps measure is the caller's matter: it traces the others without a rule.
        let own = Spec {
            gamma,
            min,
            max,
            initial,
            every,
            guard,
            scalar,
            total_steps,
            sample,
            groups,
            measure: true,
            ..Spec::defaults(rule)
        };
        let spec = if rule == Rule::Custom { Spec { needs: Needs::named(&self.needs)?, ..own } } else { own };
        spec.check()?;
        Ok(spec)
    }
}

/// A rule's own settings. Asks no device.
#[napi]
pub fn alpha_defaults(rule: String) -> napi::Result<AlphaSpec> {
    guarded("alpha", || {
        let Spec { rule, gamma, min, max, initial, every, guard, needs, sample, .. } =
            Spec::defaults(Rule::named(&rule)?);
        let needs = if rule == Rule::Custom { needs.names() } else { Vec::new() };
        let (rule, needs) = (rule.name().to_owned(), needs.into_iter().map(str::to_owned).collect());
        Ok(AlphaSpec {
            rule,
            gamma,
            min,
            max,
            initial,
            every: f64::from(every),
            guard,
            total_steps: None,
            sample: f64::from(sample),
            groups: Vec::new(),
            needs,
        })
    })
}

/// Refuse settings that make no sense. Asks no device.
#[napi]
pub fn alpha_check(spec: AlphaSpec) -> napi::Result<()> {
    guarded("alpha", || spec.checked(DType::F64).map(drop))
}

/// A rule's state before the first step.
#[napi]
pub fn alpha_init(spec: AlphaSpec, params: Vec<f64>, direction: Vec<f64>, recalls: bool) -> napi::Result<Vec<f64>> {
    call_values("alpha", |handles| {
        let all = |list: &[f64]| handles.get_all("alpha", list);
        alpha::init(&spec.checked(handles.scalar())?, &all(&params)?, &all(&direction)?, recalls)
    })
}

/// The part of a step before the direction.
#[napi]
pub fn alpha_begin(
    spec: AlphaSpec,
    loss: f64,
    params: Vec<f64>,
    gradients: Vec<f64>,
    state: Vec<f64>,
    recalled: Vec<f64>,
) -> napi::Result<Vec<f64>> {
    call_values("alpha", |handles| {
        let all = |list: &[f64]| handles.get_all("alpha", list);
        let loss = handles.get("alpha", loss)?;
        let recalled = recalled_of(handles, &recalled, params.len())?;
        let spec = spec.checked(handles.scalar())?;
        alpha::begin(&spec, loss, &all(&params)?, &all(&gradients)?, &all(&state)?, recalled.as_ref())
    })
}

/// Numbers along the step's line, by name.
#[napi]
pub fn alpha_measure(
    needs: Vec<String>,
    loss: f64,
    params: Vec<f64>,
    gradients: Vec<f64>,
    omega: Vec<f64>,
    alpha: f64,
) -> napi::Result<HashMap<String, f64>> {
    call("alpha", |state| {
        let handles = &state.handles;
        let all = |list: &[f64]| handles.get_all("alpha", list);
        let (loss, alpha) = (handles.get("alpha", loss)?, handles.get("alpha", alpha)?);
        let needs = Needs::named(&needs)?;
        let found = alpha::measure(needs, loss, &all(&params)?, &all(&gradients)?, &all(&omega)?, alpha)?;
        let named = [
            ("loss0", Some(found.loss0)),
            ("slope0", Some(found.slope0)),
            ("loss1", found.loss1),
            ("slope1", found.slope1),
            ("curvature", found.curvature),
            ("lossMinus", found.loss_minus),
        ];
        let asked_for = |name: &str| matches!(name, "loss0" | "slope0") || needs.names().contains(&name);
        let mut result = HashMap::new();
        for (name, value) in named {
            if let Some(value) = value.filter(|_| asked_for(name)) {
                result.insert(name.to_owned(), state.handles.add(value)?);
            }
        }
        Ok(result)
    })
}

/// What a step leaves behind.
#[napi(object)]
pub struct AlphaFinished {
    pub params: Vec<f64>,
    pub direction: Vec<f64>,
    pub state: Vec<f64>,
    pub report: f64,
}

/// The part of a step after the direction: measure, find the next learning rate, move the parameters.
#[napi]
#[allow(clippy::too_many_arguments)] // one for each part of a step, as the interface has it
pub fn alpha_finish(
    spec: AlphaSpec,
    loss: f64,
    params: Vec<f64>,
    gradients: Vec<f64>,
    omega: Vec<f64>,
    direction_old: Vec<f64>,
    direction_new: Vec<f64>,
    state: Vec<f64>,
    carry: Vec<f64>,
    recalled: Vec<f64>,
    scale: f64,
    proposal: Vec<f64>,
) -> napi::Result<AlphaFinished> {
    call("alpha", |State { handles, .. }| {
        let all = |list: &[f64]| handles.get_all("alpha", list);
        let recalled = recalled_of(handles, &recalled, params.len())?;
        let finished = alpha::finish(
            &spec.checked(handles.scalar())?,
            Finish {
                loss: handles.get("alpha", loss)?,
                params: &all(&params)?,
                gradients: &all(&gradients)?,
                omega: &all(&omega)?,
                direction_old: &all(&direction_old)?,
                direction_new: &all(&direction_new)?,
                state: &all(&state)?,
                carry: &all(&carry)?,
                recalled: recalled.as_ref(),
                scale: handles.get("alpha", scale)?,
                proposal: &all(&proposal)?,
            },
        )?;
        Ok(AlphaFinished {
            params: handles.add_all(finished.params)?,
            direction: handles.add_all(finished.direction)?,
            state: handles.add_all(finished.state)?,
            report: handles.add(finished.report)?,
        })
    })
}

/// Where the state of each group begins: at its α.
#[napi]
pub fn alpha_heads(spec: AlphaSpec, params: f64, state: f64) -> napi::Result<Vec<f64>> {
    guarded("alpha", || {
        let (params, state) = (count("alpha", "params", params)?, count("alpha", "state", state)?);
        let heads = alpha::heads(&spec.checked(DType::F64)?, params, state)?;
        Ok(heads.into_iter().map(|head| head as f64).collect())
    })
}

/// The rates (one for each group), then the direction's state, from which the direction recalls the step to take.
#[napi]
pub fn alpha_staying(
    spec: AlphaSpec,
    params: f64,
    carry: Vec<f64>,
    state: Vec<f64>,
    direction_old: Vec<f64>,
    direction_new: Vec<f64>,
) -> napi::Result<Vec<f64>> {
    call_values("alpha", |handles| {
        let all = |list: &[f64]| handles.get_all("alpha", list);
        let spec = spec.checked(handles.scalar())?;
        let (old, new) = (all(&direction_old)?, all(&direction_new)?);
        let params = count("alpha", "params", params)?;
        let (rates, staying) = alpha::staying(&spec, params, &all(&carry)?, &all(&state)?, &old, &new)?;
        Ok([rates, staying].concat())
    })
}

/// Start-up of a rule that looks ahead: whether the loss falls far enough.
#[napi]
pub fn alpha_probe(
    spec: AlphaSpec,
    loss: f64,
    params: Vec<f64>,
    state: Vec<f64>,
    recalled: Vec<f64>,
    first: bool,
    factor: f64,
) -> napi::Result<f64> {
    call_value("alpha", |handles| {
        let recalled = recalled_of(handles, &recalled, params.len())?;
        let (params, state) = (handles.get_all("alpha", &params)?, handles.get_all("alpha", &state)?);
        let (loss, factor) = (handles.get("alpha", loss)?, handles.get("alpha", factor)?);
        alpha::probe(&spec.checked(handles.scalar())?, loss, &params, &state, recalled.as_ref(), first, factor)
    })
}

/// Start-up of a rule that looks ahead: the step taken again with another learning rate.
#[napi]
pub fn alpha_rescale(
    spec: AlphaSpec,
    params: Vec<f64>,
    state: Vec<f64>,
    recalled: Vec<f64>,
    first: bool,
    factor: f64,
    scale: f64,
) -> napi::Result<Vec<f64>> {
    call_values("alpha", |handles| {
        let recalled = recalled_of(handles, &recalled, params.len())?;
        let (params, state) = (handles.get_all("alpha", &params)?, handles.get_all("alpha", &state)?);
        alpha::rescale(
            &spec.checked(handles.scalar())?,
            &params,
            &state,
            recalled.as_ref(),
            first,
            handles.get("alpha", factor)?,
            handles.get("alpha", scale)?,
        )
    })
}
