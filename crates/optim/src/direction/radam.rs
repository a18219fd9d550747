//! RAdam (Liu et al. 2020), as torch.optim.RAdam: Adam that leaves out the division by √v̂ until v rests on enough steps,
//! and then scales it by the rectification r. State as Adam's.

use super::decay::{EITHER, FORM, after, before};
use super::moments::{BETA1, BETA2, epsilon, moments};
use super::{Applied, Direction, OptionSpec, Options, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// ρ∞ = 2/(1 − β₂) − 1, ρₜ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ), r = √((ρₜ − 4)(ρₜ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρₜ)),
/// ω = m̂ r √(1 − β₂ᵗ)/(√v + ε) where ρₜ > 5, else m̂
pub struct RAdam;

impl Direction for RAdam {
    fn name(&self) -> &'static str {
        "radam"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-8), EITHER, FORM] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 1, 2)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let ([t], [m, v]) = slots::take(self.name(), params, state)?;
        check_like(self.name(), "gradient", params, gradients)?;
        let means = moments(options, &before(options, params, gradients)?, t, m, v)?;
        let (beta2, epsilon) = (options.get("beta2")?, options.get("epsilon")?);
        let (t, correction) = (&means.t, &means.correction2);
        let whole = 2.0 / (1.0 - beta2) - 1.0;
        let length = t.scale(-2.0)?.mul(&t.like(beta2).pow(t)?)?.mul(correction)?.shift(whole)?;
        let enough = length.greater(&length.like(5.0))?;
        // Below ρₜ = 5 the root may have a negative argument; it is not used there.
        let above = length.maximum(&length.like(5.0))?;
        let factor = whole / ((whole - 4.0) * (whole - 2.0));
        let rectified = above.shift(-4.0)?.mul(&above.shift(-2.0)?)?.scale(factor)?.div(&above)?.sqrt()?;
        let numerator = rectified.mul(&correction.rsqrt()?)?;
        let one = |(m, v): (&Value, &Value)| {
            let mean = m.mul(&means.correction1.cast(m.dtype())?)?;
            let divided = mean.mul(&numerator.cast(m.dtype())?)?.div(&v.sqrt()?.shift(epsilon)?)?;
            enough.select(&divided, &mean)
        };
        let omega = means.m.iter().zip(&means.v).map(one).collect::<Result<_>>()?;
        let omega = after(options, params, omega)?;
        Ok(Applied { omega, state: [vec![means.t], means.m, means.v].concat() })
    }
}

#[cfg(test)]
mod tests {
    /// Six steps pass from ρₜ ≤ 5 to ρₜ > 5.
    #[test]
    fn follows_the_plain_loop() {
        super::super::tests::follow(&super::RAdam, &[("beta2", 0.95), ("epsilon", 1e-4)], 2, |_, g, state, t| {
            state[0] = 0.9 * state[0] + 0.1 * g;
            state[1] = 0.95 * state[1] + 0.05 * g * g;
            let mean = state[0] / (1.0 - 0.9f64.powi(t));
            let (whole, power) = (39.0, 0.95f64.powi(t));
            let length = whole - 2.0 * f64::from(t) * power / (1.0 - power);
            assert_eq!(length > 5.0, t > 5);
            if length <= 5.0 {
                return mean;
            }
            let square = (length - 4.0) * (length - 2.0) * whole / ((whole - 4.0) * (whole - 2.0) * length);
            mean * square.sqrt() * (1.0 - power).sqrt() / (state[1].sqrt() + 1e-4)
        });
    }

    /// With a mean over so few steps v never suffices.
    #[test]
    fn a_short_mean_is_never_divided_by() {
        super::super::tests::follow(&super::RAdam, &[("beta2", 0.5)], 2, |_, g, state, t| {
            state[0] = 0.9 * state[0] + 0.1 * g;
            state[0] / (1.0 - 0.9f64.powi(t))
        });
    }
}
