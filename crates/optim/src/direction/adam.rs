//! Adam (Kingma and Ba 2015), ε outside the root as in torch.optim.Adam. State: the step count t (a scalar), then m
//! for each parameter, then v for each parameter.

use super::decay::{COUPLED, add_decay};
use super::moments::{BETA1, BETA2, adaptive, epsilon, moments, moments_left};
use super::{Applied, Direction, OptionSpec, Options, Recalled, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// t ← t + 1, m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², ω = m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
pub struct Adam;

impl Direction for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-8), COUPLED] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 1, 2)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        adam(self.name(), options, params, &add_decay(options, params, gradients)?, state)
    }

    /// θ_start = θ + applied·ω
    fn recall(
        &self,
        options: &Options,
        params: &[Value],
        applied: &Value,
        state: &[Value],
    ) -> Result<Option<Recalled>> {
        let omega = omega_left(self.name(), options, params, state)?;
        let start = starts(params, applied, &omega, Ok)?;
        Ok(Some(Recalled { start, omega }))
    }
}

/// Adam's ω of the step that left this state.
pub(super) fn omega_left(name: &str, options: &Options, params: &[Value], state: &[Value]) -> Result<Vec<Value>> {
    let ([t], [m, v]) = slots::take(name, params, state)?;
    let epsilon = options.get("epsilon")?;
    let left = moments_left(options, t, m, v)?;
    m.iter().zip(v).map(|(m, v)| adaptive(&left, m, v, epsilon)).collect()
}

/// θ + applied·ω, and what decay makes of it; or where nothing was applied θ itself. That is a choice for the whole step, so that a device
/// may leave alone what is not chosen: a step that is not taken back costs nothing here.
pub(super) fn starts(
    params: &[Value],
    applied: &Value,
    omega: &[Value],
    grown: impl Fn(Value) -> Result<Value>,
) -> Result<Vec<Value>> {
    let moved = applied.not_equal(&applied.like(0.0))?;
    let start = |(param, omega): (&Value, &Value)| {
        let back = grown(param.add(&omega.mul(&applied.cast(omega.dtype())?)?)?)?;
        moved.select(&back, param)
    };
    params.iter().zip(omega).map(start).collect()
}

/// Adam's ω and state.
pub(super) fn adam(
    name: &str,
    options: &Options,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
) -> Result<Applied> {
    let ([t], [m, v]) = slots::take(name, params, state)?;
    check_like(name, "gradient", params, gradients)?;
    let epsilon = options.get("epsilon")?;
    let after = moments(options, gradients, t, m, v)?;
    let omega = (after.m.iter().zip(&after.v)).map(|(m, v)| adaptive(&after, m, v, epsilon)).collect::<Result<_>>()?;
    Ok(Applied { omega, state: [vec![after.t], after.m, after.v].concat() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("beta1", 0.8), ("beta2", 0.95), ("epsilon", 1e-3), ("weightDecay", 0.2)];
        super::super::tests::follow(&super::Adam, &given, 2, |theta, g, state, t| {
            let g = g + 0.2 * theta;
            state[0] = 0.8 * state[0] + 0.2 * g;
            state[1] = 0.95 * state[1] + 0.05 * g * g;
            (state[0] / (1.0 - 0.8f64.powi(t))) / ((state[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-3)
        });
    }
}
