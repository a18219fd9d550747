//! AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay. The decay is part of ω, so that θ′ = θ − αω
//! is the whole step. State as Adam's.

use super::adam::{adam, omega_left, starts};
use super::decay::{add_decay, decoupled};
use super::moments::{BETA1, BETA2, epsilon};
use super::{Applied, Direction, OptionSpec, Options, Recalled, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// ω = Adam's ω + weightDecay · θ
pub struct AdamW;

impl Direction for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-8), decoupled(0.01)] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 1, 2)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let Applied { omega, state } = adam(self.name(), options, params, gradients, state)?;
        Ok(Applied { omega: add_decay(options, params, &omega)?, state })
    }

    /// With u Adam's ω and λ the decay, θ = θ_start − applied·(u + λθ_start), so θ_start = (θ + applied·u)/(1 − applied·λ).
    /// A step that took more than half of every parameter away (applied·λ > ½) comes back in part only.
    fn recall(
        &self,
        options: &Options,
        params: &[Value],
        applied: &Value,
        state: &[Value],
    ) -> Result<Option<Recalled>> {
        let adam = omega_left(self.name(), options, params, state)?;
        let left = applied.scale(-options.get("weightDecay")?)?.shift(1.0)?;
        let grow = left.maximum(&left.like(0.5))?.reciprocal()?;
        let start = starts(params, applied, &adam, |start| start.mul(&grow.cast(start.dtype())?))?;
        let omega = add_decay(options, &start, &adam)?;
        Ok(Some(Recalled { start, omega }))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::AdamW, &[("weightDecay", 0.1)], 2, |theta, g, state, t| {
            state[0] = 0.9 * state[0] + 0.1 * g;
            state[1] = 0.999 * state[1] + 0.001 * g * g;
            let adam = (state[0] / (1.0 - 0.9f64.powi(t))) / ((state[1] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
            adam + 0.1 * theta
        });
    }
}
