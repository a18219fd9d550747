//! Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms"): the sign of an average, with decoupled
//! decay. State: m for each parameter.

use super::decay::{add_decay, decoupled};
use super::moments::{BETA1, BETA2};
use super::{Applied, Direction, OptionSpec, Options, blend, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// ω = sign(β₁m + (1 − β₁)g) + weightDecay · θ, m ← β₂m + (1 − β₂)g
pub struct Lion;

impl Direction for Lion {
    fn name(&self) -> &'static str {
        "lion"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, OptionSpec { default: 0.99, doc: "Decay of the average that is kept.", ..BETA2 }, decoupled(0.0)] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 0, 1)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([], [m]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let mean =
            |beta: f64| m.iter().zip(gradients).map(|(m, g)| blend(m, beta, g, 1.0 - beta)).collect::<Result<Vec<_>>>();
        let signs = mean(options.get("beta1")?)?.iter().map(Value::sign).collect::<Result<Vec<_>>>()?;
        Ok(Applied { omega: add_decay(options, params, &signs)?, state: mean(options.get("beta2")?)? })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("beta1", 0.6), ("beta2", 0.8), ("weightDecay", 0.1)];
        super::super::tests::follow(&super::Lion, &given, 1, |theta, g, m, _| {
            let omega = (0.6 * m[0] + 0.4 * g).signum() + 0.1 * theta;
            m[0] = 0.8 * m[0] + 0.2 * g;
            omega
        });
    }
}
