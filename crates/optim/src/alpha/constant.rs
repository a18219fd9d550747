//! The rule that leaves α alone: an optimizer with a learning rate of the user's choice. State: α.

use super::scalar::{loss_scalar, moved, report};
use super::{Finish, Finished, Rule, Spec};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

pub(super) fn init(spec: &Spec) -> Vec<Value> {
    vec![spec.number(spec.initial)]
}

/// θ′ = θ − scale·α·ω. Nothing is measured and nothing rejected.
pub(super) fn finish(step: &Finish) -> Result<Finished> {
    let name = Rule::Constant.name();
    let [alpha] = step.state else {
        return Err(Error::argument(name, format!("{} state tensors; it has α alone", step.state.len())));
    };
    let loss = loss_scalar(name, step.loss, alpha.dtype())?;
    let applied = alpha.mul(step.scale)?;
    let nan = alpha.like(f64::NAN);
    Ok(Finished {
        params: moved(step.params, &applied, step.omega)?,
        direction: step.direction_new.to_vec(),
        state: step.state.to_vec(),
        report: report([&loss, &applied, alpha, &nan, &nan, &nan, &nan, &alpha.like(1.0)])?,
    })
}
