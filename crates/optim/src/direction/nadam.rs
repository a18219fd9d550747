//! NAdam (Dozat 2016), as torch.optim.NAdam: Adam with Nesterov's look-ahead and a warmed-up β₁. State: the step count t
//! and the product Π of the μ so far, then m and v.

use super::decay::{EITHER, FORM, after, before};
use super::moments::{BETA1, BETA2, epsilon, moments};
use super::{Applied, Direction, NOT_NEGATIVE, OptionSpec, Options, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// μₜ = β₁(1 − .96^(tψ)/2), Πₜ = μ₁ … μₜ, m and v as Adam's,
/// ω = (g(1 − μₜ)/(1 − Πₜ) + m μₜ₊₁/(1 − Πₜμₜ₊₁)) / (√(v/(1 − β₂ᵗ)) + ε)
pub struct NAdam;

const MOMENTUM_DECAY: OptionSpec = OptionSpec {
    name: "momentumDecay",
    default: 0.004,
    range: &NOT_NEGATIVE,
    doc: "ψ: how fast the look-ahead's weight rises from β₁/2 to β₁.",
};

impl Direction for NAdam {
    fn name(&self) -> &'static str {
        "nadam"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-8), MOMENTUM_DECAY, EITHER, FORM] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::filled(options, self.name(), params, &[0.0, 1.0], &[0.0, 0.0])
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([t, product], [m, v]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let gradients = before(options, params, gradients)?;
        let means = moments(options, &gradients, t, m, v)?;
        let (beta1, psi, epsilon) = (options.get("beta1")?, options.get("momentumDecay")?, options.get("epsilon")?);
        // β₁(1 − .96^(tψ)/2)
        let weight = |t: &Value| t.like(0.96).pow(&t.scale(psi)?)?.scale(-0.5)?.shift(1.0)?.scale(beta1);
        let (now, next) = (weight(&means.t)?, weight(&means.t.shift(1.0)?)?);
        let product = product.mul(&now)?;
        let of_gradient = now.neg()?.shift(1.0)?.div(&product.neg()?.shift(1.0)?)?;
        let of_mean = next.div(&product.mul(&next)?.neg()?.shift(1.0)?)?;
        let one = |((g, m), v): ((&Value, &Value), &Value)| {
            let root = v.mul(&means.correction2.cast(v.dtype())?)?.sqrt()?.shift(epsilon)?;
            let ahead = m.mul(&of_mean.cast(m.dtype())?)?;
            g.mul(&of_gradient.cast(g.dtype())?)?.add(&ahead)?.div(&root)
        };
        let omega = gradients.iter().zip(&means.m).zip(&means.v).map(one).collect::<Result<_>>()?;
        let omega = after(options, params, omega)?;
        Ok(Applied { omega, state: [vec![means.t, product], means.m, means.v].concat() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn follows_the_plain_loop() {
        let given = [("momentumDecay", 0.3), ("weightDecay", 0.1), ("decoupled", 1.0)];
        super::super::tests::follow(&super::NAdam, &given, 2, |theta, g, state, t| {
            let mu = |t: i32| 0.9 * (1.0 - 0.5 * 0.96f64.powf(f64::from(t) * 0.3));
            let product: f64 = (1..=t).map(mu).product();
            state[0] = 0.9 * state[0] + 0.1 * g;
            state[1] = 0.999 * state[1] + 0.001 * g * g;
            let root = (state[1] / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8;
            let ahead = mu(t + 1) * state[0] / (1.0 - product * mu(t + 1));
            ((1.0 - mu(t)) * g / (1.0 - product) + ahead) / root + 0.1 * theta
        });
    }
}
