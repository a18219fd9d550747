//! Plain gradient descent. No state.

use super::decay::{COUPLED, add_decay};
use super::{Applied, Direction, OptionSpec, Options, check_float, check_like};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// ω = g (+ weightDecay · θ)
pub struct Sgd;

impl Direction for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[COUPLED] }
    }

    fn init(&self, _: &Options, params: &[Value]) -> Result<Vec<Value>> {
        check_float(self.name(), params)?;
        Ok(Vec::new())
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        if !state.is_empty() {
            return Err(Error::argument(self.name(), "it has no state; pass none"));
        }
        Ok(Applied { omega: add_decay(options, params, gradients)?, state: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::Sgd, &[], 0, |_, g, _, _| g);
        super::super::tests::follow(&super::Sgd, &[("weightDecay", 0.1)], 0, |theta, g, _, _| g + 0.1 * theta);
    }
}
