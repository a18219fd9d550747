//! Adam (Kingma and Ba 2015), ε outside the root as in torch.optim.Adam. State: the step count t (a scalar), then m
//! for each parameter, then v for each parameter.

use super::{Applied, Direction, FRACTION, OptionSpec, Options, POSITIVE, blend, check_like, zeros};
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// t ← t + 1, m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², ω = m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
pub struct Adam;

pub(super) const BETA1: OptionSpec =
    OptionSpec { name: "beta1", default: 0.9, range: &FRACTION, doc: "Decay of the average of gradients." };
pub(super) const BETA2: OptionSpec =
    OptionSpec { name: "beta2", default: 0.999, range: &FRACTION, doc: "Decay of the average of squared gradients." };
pub(super) const EPSILON: OptionSpec = OptionSpec {
    name: "epsilon",
    default: 1e-8,
    range: &POSITIVE,
    doc: "Added to the root of the averaged squares, so that a zero divides nothing.",
};

impl Direction for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, EPSILON] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        init(self.name(), options, params)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        adam(self.name(), options, params, gradients, state)
    }
}

/// t = 0, m = 0, v = 0
pub(super) fn init(name: &str, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
    let zeros = zeros(name, params)?;
    Ok([&[Value::scalar(0.0, options.scalar)], &zeros[..], &zeros].concat())
}

/// Adam's ω and state.
pub(super) fn adam(
    name: &str,
    options: &Options,
    params: &[Value],
    gradients: &[Value],
    state: &[Value],
) -> Result<Applied> {
    let Some((t, moments)) = state.split_first().filter(|(_, moments)| moments.len() == 2 * params.len()) else {
        let message =
            format!("{} state tensors; for {} parameters it has {}", state.len(), params.len(), 1 + 2 * params.len());
        return Err(Error::argument(name, message));
    };
    let (m, v) = moments.split_at(params.len());
    check_like(name, "gradient", params, gradients)?;
    check_like(name, "state", params, m)?;
    check_like(name, "state", params, v)?;
    let (beta1, beta2, epsilon) = (options.get("beta1")?, options.get("beta2")?, options.get("epsilon")?);
    let t = t.shift(1.0)?;
    // 1/(1 − βᵗ) = −1/expm1(t ln β): at β₂ = .999 and t = 1 the difference would cost an f32 half its digits
    // (β = 0 has no logarithm; e to the −1000 is 0 as well)
    let correction = |beta: f64| t.scale(beta.ln().max(-1000.0))?.expm1()?.neg()?.reciprocal();
    let (correction1, correction2) = (correction(beta1)?, correction(beta2)?);
    let (mut omega, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for ((g, m), v) in gradients.iter().zip(m).zip(v) {
        let m = blend(m, beta1, g, 1.0 - beta1)?;
        let v = blend(v, beta2, &g.square()?, 1.0 - beta2)?;
        let root = v.mul(&correction2.cast(v.dtype())?)?.sqrt()?.shift(epsilon)?;
        omega.push(m.mul(&correction1.cast(m.dtype())?)?.div(&root)?);
        first.push(m);
        second.push(v);
    }
    Ok(Applied { omega, state: [vec![t], first, second].concat() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("beta1", 0.8), ("beta2", 0.95), ("epsilon", 1e-3)];
        super::super::tests::follow(&super::Adam, &given, 2, |_, g, state, t| {
            state[0] = 0.8 * state[0] + 0.2 * g;
            state[1] = 0.95 * state[1] + 0.05 * g * g;
            (state[0] / (1.0 - 0.8f64.powi(t))) / ((state[1] / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-3)
        });
    }
}
