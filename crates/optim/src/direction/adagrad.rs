//! Adagrad (Duchi, Hazan, Singer 2011), as torch.optim.Adagrad. State: the step count t (f64 scalar), then for each
//! parameter the sum of squared gradients.

use super::decay::{COUPLED, add_decay};
use super::moments::epsilon;
use super::{Applied, Direction, NOT_NEGATIVE, OptionSpec, Options, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// s ← s + g², ω = g/(√s + ε) / (1 + (t − 1)·learningRateDecay)
pub struct Adagrad;

const RATE_DECAY: OptionSpec = OptionSpec {
    name: "learningRateDecay",
    default: 0.0,
    range: &NOT_NEGATIVE,
    doc: "Divides the direction by 1 + (t − 1)·learningRateDecay at step t.",
};
const INITIAL: OptionSpec = OptionSpec {
    name: "initialAccumulator",
    default: 0.0,
    range: &NOT_NEGATIVE,
    doc: "What the sum of squares starts with.",
};

impl Direction for Adagrad {
    fn name(&self) -> &'static str {
        "adagrad"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[epsilon(1e-10), RATE_DECAY, INITIAL, COUPLED] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::filled(options, self.name(), params, &[0.0], &[options.get("initialAccumulator")?])
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([t], [sums]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let gradients = add_decay(options, params, gradients)?;
        let (epsilon, decay) = (options.get("epsilon")?, options.get("learningRateDecay")?);
        let factor = t.scale(decay)?.shift(1.0)?.reciprocal()?;
        let sums = sums.iter().zip(&gradients).map(|(s, g)| s.add(&g.square()?)).collect::<Result<Vec<_>>>()?;
        let one = |(g, s): (&Value, &Value)| g.div(&s.sqrt()?.shift(epsilon)?)?.mul(&factor.cast(g.dtype())?);
        let omega = gradients.iter().zip(&sums).map(one).collect::<Result<_>>()?;
        Ok(Applied { omega, state: [vec![t.shift(1.0)?], sums].concat() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("learningRateDecay", 0.2), ("initialAccumulator", 0.1), ("epsilon", 1e-3), ("weightDecay", 0.1)];
        super::super::tests::follow(&super::Adagrad, &given, 1, |theta, g, sum, t| {
            if t == 1 {
                sum[0] = 0.1;
            }
            let g = g + 0.1 * theta;
            sum[0] += g * g;
            g / (sum[0].sqrt() + 1e-3) / (1.0 + 0.2 * f64::from(t - 1))
        });
    }
}
