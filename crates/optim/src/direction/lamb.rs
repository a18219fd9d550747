//! LAMB (You et al. 2020, "Large batch optimization for deep learning"): Adam with decay, where each tensor's direction is
//! as long as the tensor itself. State as Adam's.

use super::adam::adam;
use super::decay::{add_decay, decoupled};
use super::moments::{BETA1, BETA2, epsilon};
use super::slots::norm;
use super::{Applied, Direction, OptionSpec, Options, slots};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// r = Adam's ω + weightDecay · θ, ω = r · ‖θ‖/‖r‖ for each tensor; r itself where either norm is 0
pub struct Lamb;

impl Direction for Lamb {
    fn name(&self) -> &'static str {
        "lamb"
    }

    fn options(&self) -> &'static [OptionSpec] {
        const { &[BETA1, BETA2, epsilon(1e-6), decoupled(0.01)] }
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        slots::zeros(options, self.name(), params, 1, 2)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        let Applied { omega, state } = adam(self.name(), options, params, gradients, state)?;
        let raw = add_decay(options, params, &omega)?;
        let omega = params.iter().zip(&raw).map(|(theta, r)| trusted(options, theta, r)).collect::<Result<_>>()?;
        Ok(Applied { omega, state })
    }
}

/// r · ‖θ‖/‖r‖
fn trusted(options: &Options, theta: &Value, r: &Value) -> Result<Value> {
    let (size, length) = (norm(options, theta)?, norm(options, r)?);
    let one = size.like(1.0);
    let usable = size.greater(&size.like(0.0))?.and(&length.greater(&length.like(0.0))?)?;
    r.mul(&usable.select(&size.div(&length)?, &one)?.cast(r.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Tensor, follow_tensors};

    fn by_hand(tensor: &mut Tensor, t: i32) -> Vec<f64> {
        let (m, v) = tensor.slots.split_at_mut(1);
        let (m, v) = (&mut m[0], &mut v[0]);
        let raw: Vec<f64> = (0..tensor.theta.len())
            .map(|i| {
                let (theta, g) = (tensor.theta[i], tensor.gradient[i]);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                (m[i] / (1.0 - 0.9f64.powi(t))) / ((v[i] / (1.0 - 0.99f64.powi(t))).sqrt() + 1e-6) + 0.1 * theta
            })
            .collect();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let ratio = norm(&tensor.theta) / norm(&raw);
        raw.iter().map(|r| r * ratio).collect()
    }

    #[test]
    fn follows_the_plain_loop() {
        follow_tensors(&super::Lamb, &[("beta2", 0.99), ("weightDecay", 0.1)], 2, by_hand);
    }
}
