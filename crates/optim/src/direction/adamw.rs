//! AdamW (Loshchilov and Hutter 2019): Adam with decoupled weight decay. The decay is part of ω, so that θ′ = θ − αω
//! is the whole step. State as Adam's.

use super::adam::{BETA1, BETA2, EPSILON, adam, init};
use super::{Applied, Direction, NOT_NEGATIVE, OptionSpec, Options};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// ω = Adam's ω + weightDecay · θ
pub struct AdamW;

const WEIGHT_DECAY: OptionSpec = OptionSpec {
    name: "weightDecay",
    default: 0.01,
    range: &NOT_NEGATIVE,
    doc: "Decoupled decay: the direction gains weightDecay · parameter.",
};

impl Direction for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, EPSILON, WEIGHT_DECAY] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        init(self.name(), options, params)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let decay = options.get("weightDecay")?;
        let mut applied = adam(self.name(), options, params, gradients, state)?;
        for (omega, param) in applied.omega.iter_mut().zip(params) {
            *omega = omega.add(&param.scale(decay)?)?;
        }
        Ok(applied)
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
