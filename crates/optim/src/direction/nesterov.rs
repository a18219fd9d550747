//! Nesterov's momentum in the form of Sutskever et al. (2013), as in torch.optim.SGD(nesterov=True). State: m for each
//! parameter.

use super::decay::{COUPLED, add_decay};
use super::momentum::{BETA, accumulate};
use super::{Applied, Direction, OptionSpec, Options, blend, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// m ← βm + g, ω = g + βm
pub struct Nesterov;

impl Direction for Nesterov {
    fn name(&self) -> &'static str {
        "nesterov"
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
        let gradients = add_decay(options, params, gradients)?;
        let m = accumulate(options, &gradients, m)?;
        let beta = options.get("beta")?;
        let omega = m.iter().zip(&gradients).map(|(m, g)| blend(m, beta, g, 1.0)).collect::<Result<_>>()?;
        Ok(Applied { omega, state: m })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::Nesterov, &[("weightDecay", 0.1)], 1, |theta, g, m, _| {
            let g = g + 0.1 * theta;
            m[0] = 0.9 * m[0] + g;
            g + 0.9 * m[0]
        });
    }
}
