//! AMSGrad (Reddi, Kale, Kumar 2018), as torch.optim.Adam(amsgrad=True): Adam whose mean square never falls. State: the
//! step count t, then m, v, and the largest v so far.

use super::decay::{EITHER, FORM, after, before};
use super::moments::{BETA1, BETA2, adaptive, epsilon, moments};
use super::{Applied, Direction, OptionSpec, Options, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// m and v as Adam's, u ← max(u, v), ω = m/(1 − β₁ᵗ) / (√(u/(1 − β₂ᵗ)) + ε)
pub struct AmsGrad;

impl Direction for AmsGrad {
    fn name(&self) -> &'static str {
        "amsgrad"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-8), EITHER, FORM] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 1, 3)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([t], [m, v, most]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let epsilon = options.get("epsilon")?;
        let means = moments(options, &before(options, params, gradients)?, t, m, v)?;
        let most = most.iter().zip(&means.v).map(|(most, v)| most.maximum(v)).collect::<Result<Vec<_>>>()?;
        let omega =
            (means.m.iter().zip(&most)).map(|(m, most)| adaptive(&means, m, most, epsilon)).collect::<Result<_>>()?;
        let omega = after(options, params, omega)?;
        Ok(Applied { omega, state: [vec![means.t], means.m, means.v, most].concat() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("beta2", 0.5), ("weightDecay", 0.1)];
        super::super::tests::follow(&super::AmsGrad, &given, 3, |theta, g, state, t| {
            let g = g + 0.1 * theta;
            state[0] = 0.9 * state[0] + 0.1 * g;
            state[1] = 0.5 * state[1] + 0.5 * g * g;
            state[2] = state[2].max(state[1]);
            (state[0] / (1.0 - 0.9f64.powi(t))) / ((state[2] / (1.0 - 0.5f64.powi(t))).sqrt() + 1e-8)
        });
    }
}
