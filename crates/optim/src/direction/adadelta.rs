//! Adadelta (Zeiler 2012), as torch.optim.Adadelta. State for each parameter: the mean square of gradients, then the mean
//! square of directions.

use super::decay::{COUPLED, add_decay};
use super::moments::epsilon;
use super::rmsprop::rho;
use super::{Applied, Direction, OptionSpec, Options, blend, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// v ← ρv + (1 − ρ)g², ω = g √(u + ε)/√(v + ε), u ← ρu + (1 − ρ)ω²
pub struct Adadelta;

impl Direction for Adadelta {
    fn name(&self) -> &'static str {
        "adadelta"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[rho(0.9), epsilon(1e-6), COUPLED] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 0, 2)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([], [v, u]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let gradients = add_decay(options, params, gradients)?;
        let (rho, epsilon) = (options.get("rho")?, options.get("epsilon")?);
        let mean = |mean: &Value, of: &Value| blend(mean, rho, &of.square()?, 1.0 - rho);
        let v = v.iter().zip(&gradients).map(|(v, g)| mean(v, g)).collect::<Result<Vec<_>>>()?;
        let one =
            |((g, v), u): ((&Value, &Value), &Value)| u.shift(epsilon)?.sqrt()?.div(&v.shift(epsilon)?.sqrt()?)?.mul(g);
        let omega = gradients.iter().zip(&v).zip(u).map(one).collect::<Result<Vec<_>>>()?;
        let u = u.iter().zip(&omega).map(|(u, omega)| mean(u, omega)).collect::<Result<Vec<_>>>()?;
        Ok(Applied { omega, state: [v, u].concat() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("rho", 0.8), ("epsilon", 1e-2), ("weightDecay", 0.1)];
        super::super::tests::follow(&super::Adadelta, &given, 2, |theta, g, state, _| {
            let g = g + 0.1 * theta;
            state[0] = 0.8 * state[0] + 0.2 * g * g;
            let omega = g * (state[1] + 1e-2).sqrt() / (state[0] + 1e-2).sqrt();
            state[1] = 0.8 * state[1] + 0.2 * omega * omega;
            omega
        });
    }
}
