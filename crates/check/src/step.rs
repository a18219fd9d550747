//! A whole training step as graph: gradients, Adam's direction, a rule, the update. What a loss is made of, and on which device
//! a step runs, is the caller's matter.

use raphson_graph::derivative::vjp;
use raphson_graph::error::Result;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Rule, Spec};
use raphson_optim::direction::{Options, named};

/// A step, and how what it carries along begins.
pub struct Step {
    /// Parameters, the direction's state, the rule's state; then the batch, and the factor of α.
    pub inputs: Vec<Value>,
    /// The first three anew, then the report.
    pub outputs: Vec<Value>,
    /// The direction's and the rule's state before the first step; they depend on no input.
    pub start: Vec<Value>,
}

impl Step {
    /// Which inputs an output takes over: all that is carried along.
    pub fn donated(&self) -> Vec<bool> {
        let carried = self.outputs.len() - 1;
        (0..self.inputs.len()).map(|input| input < carried).collect()
    }
}

/// A step by Adam down the gradient of `loss`, which is computed from the placeholders `params` and `batch`.
pub fn adam_step(spec: &Spec, loss: &Value, params: &[Value], batch: &[Value]) -> Result<Step> {
    let gradients = vjp(std::slice::from_ref(loss), params, &[loss.like(1.0)])?;
    let direction = named("adam")?;
    let options = Options::new(direction, &[])?.with_scalar(spec.scalar);
    let direction_start = direction.init(&options, params)?;
    let state_start = alpha::init(spec, params, &direction_start, spec.rule == Rule::Next)?;
    let (old, state) = (placeholders(&direction_start), placeholders(&state_start));
    let scale = Value::input(Shape::scalar(), spec.scalar);
    let carry = alpha::begin(spec, loss, params, &gradients, &state, None)?;
    let applied = direction.direction(&options, params, &gradients, &old)?;
    let (recalled, new) = if spec.rule == Rule::Next {
        let (rate, staying) = alpha::staying(spec, &carry, &state, &old, &applied.state)?;
        (direction.recall(&options, params, &rate, &staying)?, staying)
    } else {
        (None, applied.state)
    };
    let finish = Finish {
        loss,
        params,
        gradients: &gradients,
        omega: &applied.omega,
        direction_old: &old,
        direction_new: &new,
        state: &state,
        carry: &carry,
        recalled: recalled.as_ref(),
        scale: &scale,
        proposal: &[],
    };
    let done = alpha::finish(spec, finish)?;
    Ok(Step {
        inputs: [params, &old, &state, batch, &[scale]].concat(),
        outputs: [&done.params[..], &done.direction, &done.state, &[done.report]].concat(),
        start: [direction_start, state_start].concat(),
    })
}

fn placeholders(like: &[Value]) -> Vec<Value> {
    like.iter().map(|value| Value::input(value.shape().clone(), value.dtype())).collect()
}
