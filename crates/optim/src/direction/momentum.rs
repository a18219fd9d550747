//! Heavy-ball momentum (Polyak 1964), as in torch.optim.SGD without dampening. State: m for each parameter.

use super::decay::{COUPLED, add_decay};
use super::{Applied, Direction, FRACTION, OptionSpec, Options, blend, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// m ← βm + g, ω = m
pub struct Momentum;

pub(super) const BETA: OptionSpec = OptionSpec {
    name: "beta",
    default: 0.9,
    range: &FRACTION,
    doc: "How much of the previous direction stays in the next one.",
};

impl Direction for Momentum {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA, COUPLED] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 0, 1)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([], [m]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let m = accumulate(options, &add_decay(options, params, gradients)?, m)?;
        Ok(Applied { omega: m.clone(), state: m })
    }
}

/// m ← βm + g
pub(super) fn accumulate(options: &Options, gradients: &[Value], m: &[Value]) -> Result<Vec<Value>> {
    let beta = options.get("beta")?;
    m.iter().zip(gradients).map(|(m, g)| blend(m, beta, g, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::Momentum, &[("beta", 0.8), ("weightDecay", 0.1)], 1, |theta, g, m, _| {
            m[0] = 0.8 * m[0] + g + 0.1 * theta;
            m[0]
        });
    }
}
