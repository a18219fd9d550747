//! Weight decay in its two forms. Coupled (an L2 penalty, as in most of torch.optim): the gradient gains weightDecay · θ
//! before anything else sees it. Decoupled (Loshchilov and Hutter 2019): ω gains it at the end.

use super::{FLAG, NOT_NEGATIVE, OptionSpec, Options};
use raphson_graph::error::Result;
use raphson_graph::value::Value;

pub(super) const COUPLED: OptionSpec = OptionSpec {
    name: "weightDecay",
    default: 0.0,
    range: &NOT_NEGATIVE,
    doc: "L2 penalty: the gradient gains weightDecay · parameter.",
};
pub(super) const EITHER: OptionSpec = OptionSpec {
    name: "weightDecay",
    default: 0.0,
    range: &NOT_NEGATIVE,
    doc: "The gradient gains weightDecay · parameter, or the direction does where decoupled is 1.",
};
pub(super) const FORM: OptionSpec = OptionSpec {
    name: "decoupled",
    default: 0.0,
    range: &FLAG,
    doc: "1: the decay is added to the direction instead of the gradient.",
};

/// A decoupled decay with this default.
pub(super) const fn decoupled(default: f64) -> OptionSpec {
    OptionSpec {
        name: "weightDecay",
        default,
        range: &NOT_NEGATIVE,
        doc: "Decoupled decay: the direction gains weightDecay · parameter.",
    }
}

/// x + weightDecay · θ for each parameter.
pub(super) fn add_decay(options: &Options, params: &[Value], x: &[Value]) -> Result<Vec<Value>> {
    let decay = options.get("weightDecay")?;
    if decay == 0.0 {
        return Ok(x.to_vec());
    }
    x.iter().zip(params).map(|(x, param)| x.add(&param.scale(decay)?)).collect()
}

/// The gradients that a direction with the options [`EITHER`] and [`FORM`] starts from.
pub(super) fn before(options: &Options, params: &[Value], gradients: &[Value]) -> Result<Vec<Value>> {
    if options.flag("decoupled")? { Ok(gradients.to_vec()) } else { add_decay(options, params, gradients) }
}

/// The ω that such a direction ends with.
pub(super) fn after(options: &Options, params: &[Value], omega: Vec<Value>) -> Result<Vec<Value>> {
    if options.flag("decoupled")? { add_decay(options, params, &omega) } else { Ok(omega) }
}
