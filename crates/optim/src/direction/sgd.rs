//! Plain gradient descent. No state.

use super::{Applied, Direction, OptionSpec, Options, check_float, check_like};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// ω = g
pub struct Sgd;

impl Direction for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn init(&self, _: &Options, params: &[Value]) -> Result<Vec<Value>> {
        check_float(self.name(), params)?;
        Ok(Vec::new())
    }

    fn direction(&self, _: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        if !state.is_empty() {
            return Err(Error::argument(self.name(), "it has no state; pass none"));
        }
        Ok(Applied { omega: gradients.to_vec(), state: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::Sgd, &[], 0, |_, g, _, _| g);
    }
}
