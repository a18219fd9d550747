//! RMSProp (Tieleman and Hinton 2012; centered: Graves 2013), as torch.optim.RMSprop, whose α is ρ here. State for each
//! parameter: the mean square of gradients, then their mean where centered, then the velocity where momentum is not 0.

use super::decay::{COUPLED, add_decay};
use super::moments::epsilon;
use super::{Applied, Direction, FLAG, FRACTION, OptionSpec, Options, blend, check_like, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// v ← ρv + (1 − ρ)g², centered: m ← ρm + (1 − ρ)g and v − m² for v; x = g/(√v + ε); b ← momentum·b + x, ω = b
pub struct RmsProp;

/// ρ with this default.
pub(super) const fn rho(default: f64) -> OptionSpec {
    OptionSpec { name: "rho", default, range: &FRACTION, doc: "Decay of the average of squared gradients." }
}

const MOMENTUM: OptionSpec =
    OptionSpec { name: "momentum", default: 0.0, range: &FRACTION, doc: "How much of the last velocity is kept." };
const CENTERED: OptionSpec = OptionSpec {
    name: "centered",
    default: 0.0,
    range: &FLAG,
    doc: "1: divide by the deviation around the mean gradient instead of the mean square.",
};

impl Direction for RmsProp {
    fn name(&self) -> &'static str {
        "rmsprop"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[rho(0.99), epsilon(1e-8), MOMENTUM, CENTERED, COUPLED] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        let extra = usize::from(options.flag("centered")?) + usize::from(options.get("momentum")? > 0.0);
        slots::zeros(options, self.name(), params, 0, 1 + extra)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        let (rho, momentum) = (options.get("rho")?, options.get("momentum")?);
        let nothing: &[Value] = &[];
        let (v, means, velocity) = match (options.flag("centered")?, momentum > 0.0) {
            (false, false) => {
                let ([], [v]) = slots::take(self.name(), params, state)?;
                (v, nothing, nothing)
            }
            (true, false) => {
                let ([], [v, means]) = slots::take(self.name(), params, state)?;
                (v, means, nothing)
            }
            (false, true) => {
                let ([], [v, velocity]) = slots::take(self.name(), params, state)?;
                (v, nothing, velocity)
            }
            (true, true) => {
                let ([], [v, means, velocity]) = slots::take(self.name(), params, state)?;
                (v, means, velocity)
            }
        };
        let gradients = add_decay(options, params, gradients)?;
        let each = |old: &[Value], new: &dyn Fn(&Value, &Value) -> Result<Value>| {
            old.iter().zip(&gradients).map(|(old, g)| new(old, g)).collect::<Result<Vec<_>>>()
        };
        let v = each(v, &|v, g| blend(v, rho, &g.square()?, 1.0 - rho))?;
        let means = each(means, &|m, g| blend(m, rho, g, 1.0 - rho))?;
        let scaled = scale(options.get("epsilon")?, &gradients, &v, &means)?;
        let velocity =
            velocity.iter().zip(&scaled).map(|(b, x)| blend(b, momentum, x, 1.0)).collect::<Result<Vec<_>>>()?;
        let omega = if velocity.is_empty() { scaled } else { velocity.clone() };
        Ok(Applied { omega, state: [v, means, velocity].concat() })
    }
}

/// g/(√v + ε), v less m² where there are means
fn scale(epsilon: f64, gradients: &[Value], v: &[Value], means: &[Value]) -> Result<Vec<Value>> {
    let one = |(at, (g, v)): (usize, (&Value, &Value))| {
        let v = match means.get(at) {
            // Rounding can make a variance of nearly equal gradients negative.
            Some(m) => v.sub(&m.square()?)?.maximum(&v.like(0.0))?,
            None => v.clone(),
        };
        g.div(&v.sqrt()?.shift(epsilon)?)
    };
    gradients.iter().zip(v).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::follow;
    use super::RmsProp;

    #[test]
    fn follows_the_plain_loop() {
        follow(&RmsProp, &[("rho", 0.8), ("weightDecay", 0.1)], 1, |theta, g, v, _| {
            let g = g + 0.1 * theta;
            v[0] = 0.8 * v[0] + 0.2 * g * g;
            g / (v[0].sqrt() + 1e-8)
        });
    }

    #[test]
    fn centered_and_with_momentum_it_follows_the_plain_loop() {
        let given = [("rho", 0.8), ("momentum", 0.7), ("centered", 1.0), ("epsilon", 0.1)];
        follow(&RmsProp, &given, 3, |_, g, state, _| {
            state[0] = 0.8 * state[0] + 0.2 * g * g;
            state[1] = 0.8 * state[1] + 0.2 * g;
            state[2] = 0.7 * state[2] + g / ((state[0] - state[1] * state[1]).sqrt() + 0.1);
            state[2]
        });
        follow(&RmsProp, &[("momentum", 0.7)], 2, |_, g, state, _| {
            state[0] = 0.99 * state[0] + 0.01 * g * g;
            state[1] = 0.7 * state[1] + g / (state[0].sqrt() + 1e-8);
            state[1]
        });
        follow(&RmsProp, &[("centered", 1.0), ("epsilon", 0.1)], 2, |_, g, state, _| {
            state[0] = 0.99 * state[0] + 0.01 * g * g;
            state[1] = 0.99 * state[1] + 0.01 * g;
            g / ((state[0] - state[1] * state[1]).sqrt() + 0.1)
        });
    }
}
