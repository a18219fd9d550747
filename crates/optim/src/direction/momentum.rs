//! Heavy-ball momentum (Polyak 1964), as in torch.optim.SGD without dampening. State: m for each parameter.

use super::{Applied, Direction, FRACTION, OptionSpec, Options, blend, check_like, zeros};
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
        const { &[BETA] }
    }

    fn init(&self, _: &Options, params: &[Value]) -> Result<Vec<Value>> {
        zeros(self.name(), params)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let m = accumulate(self.name(), options, params, gradients, state)?;
        Ok(Applied { omega: m.clone(), state: m })
    }
}

/// m ← βm + g
pub(super) fn accumulate(
    name: &str,
    options: &Options,
    params: &[Value],
    gradients: &[Value],
    m: &[Value],
) -> Result<Vec<Value>> {
    check_like(name, "gradient", params, gradients)?;
    check_like(name, "state", params, m)?;
    let beta = options.get("beta")?;
    m.iter().zip(gradients).map(|(m, g)| blend(m, beta, g, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::Momentum, &[("beta", 0.8)], 1, |_, g, m, _| {
            m[0] = 0.8 * m[0] + g;
            m[0]
        });
    }
}
