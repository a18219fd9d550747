//! What Adam and its relatives share: the options, and the running means m of gradients and v of their squares with
//! their corrections for starting at zero. State: the step count t (a scalar), then m and v.

use super::{FRACTION, OptionSpec, Options, POSITIVE, blend};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

pub(super) const BETA1: OptionSpec =
    OptionSpec { name: "beta1", default: 0.9, range: &FRACTION, doc: "Decay of the average of gradients." };
pub(super) const BETA2: OptionSpec =
    OptionSpec { name: "beta2", default: 0.999, range: &FRACTION, doc: "Decay of the average of squared gradients." };

/// ε with this default.
pub(super) const fn epsilon(default: f64) -> OptionSpec {
    OptionSpec {
        name: "epsilon",
        default,
        range: &POSITIVE,
        doc: "Added to the root of the averaged squares, so that a zero divides nothing.",
    }
}

/// The means after a step. Scalars have the dtype of t.
pub(super) struct Moments {
    pub t: Value,
    pub m: Vec<Value>,
    pub v: Vec<Value>,
    /// 1/(1 − β₁ᵗ)
    pub correction1: Value,
    /// 1/(1 − β₂ᵗ)
    pub correction2: Value,
}

/// t ← t + 1, m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g²
pub(super) fn moments(options: &Options, gradients: &[Value], t: &Value, m: &[Value], v: &[Value]) -> Result<Moments> {
    let (beta1, beta2) = (options.get("beta1")?, options.get("beta2")?);
    let t = t.shift(1.0)?;
    let (correction1, correction2) = corrections(options, &t)?;
    let m = m.iter().zip(gradients).map(|(m, g)| blend(m, beta1, g, 1.0 - beta1)).collect::<Result<_>>()?;
    let v = v.iter().zip(gradients).map(|(v, g)| blend(v, beta2, &g.square()?, 1.0 - beta2)).collect::<Result<_>>()?;
    Ok(Moments { t, m, v, correction1, correction2 })
}

/// 1/(1 − β₁ᵗ) and 1/(1 − β₂ᵗ)
fn corrections(options: &Options, t: &Value) -> Result<(Value, Value)> {
    // 1/(1 − βᵗ) = −1/expm1(t ln β): at β₂ = .999 and t = 1 the difference would cost an f32 half its digits
    // (β = 0 has no logarithm; e to the −1000 is 0 as well)
    let correction = |beta: f64| t.scale(beta.ln().max(-1000.0))?.expm1()?.neg()?.reciprocal();
    Ok((correction(options.get("beta1")?)?, correction(options.get("beta2")?)?))
}

/// The means as a step left them. Before the first step, the corrections are those of step 1: zeros stay zeros.
pub(super) fn moments_left(options: &Options, t: &Value, m: &[Value], v: &[Value]) -> Result<Moments> {
    let (correction1, correction2) = corrections(options, &t.maximum(&t.like(1.0))?)?;
    Ok(Moments { t: t.clone(), m: m.to_vec(), v: v.to_vec(), correction1, correction2 })
}

/// m̂/(√v̂ + ε) with m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ); `v` may be another tensor than the mean itself.
pub(super) fn adaptive(moments: &Moments, m: &Value, v: &Value, epsilon: f64) -> Result<Value> {
    let root = v.mul(&moments.correction2.cast(v.dtype())?)?.sqrt()?.shift(epsilon)?;
    m.mul(&moments.correction1.cast(m.dtype())?)?.div(&root)
}
