//! A whole training step: as graph (gradients, Adam's direction, a rule, the update), and running on a device. What a loss is
//! made of is `models.rs`'s matter.

use crate::models::Model;
use raphson_compile::compile_for;
use raphson_device::{Device, Loaded, Memory};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Rule, Spec};
use raphson_optim::direction::{Options, named};
use std::sync::Arc;

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
        let (rates, staying) = alpha::staying(spec, params.len(), &carry, &state, &old, &applied.state)?;
        (direction.recall(&options, params, &rates[0], &staying)?, staying)
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

/// A model's step on a device, with made-up parameters and data: for timings, not for what it learns.
pub struct Running {
    step: Box<dyn Loaded>,
    carried: Vec<Memory>,
    batch: Vec<Memory>,
}

impl Running {
    /// Compile a model's step by a rule, and make its state.
    pub fn new(device: &dyn Device, model: &Model, spec: &Spec) -> Result<Running> {
        let traced = adam_step(spec, &model.loss, &model.params, &model.batch)?;
        let outputs: Vec<Value> = traced.outputs.iter().map(Value::alias).collect();
        let graph = simplify(&flatten(&traced.inputs, &outputs)?.graph);
        let step = device.load(Arc::new(compile_for(&graph, &traced.donated(), &device.fused())?))?;
        let param = |param: &Value| device.upload(&floats(param.shape().elements(), 0.04));
        let mut carried = model.params.iter().map(param).collect::<Result<Vec<_>>>()?;
        let start = simplify(&flatten(&[], &traced.start)?.graph);
        carried.extend(device.load(Arc::new(compile_for(&start, &[], &device.fused())?))?.run(Vec::new())?);
        let (targets, data) = model.batch.split_last().expect("a model has targets");
        let mut batch = data.iter().map(|data| device.upload(&made_up(data))).collect::<Result<Vec<_>>>()?;
        batch.push(device.upload(&one_hot(targets.shape()))?);
        batch.push(device.upload(&1f64.to_ne_bytes())?);
        Ok(Running { step, carried, batch })
    }

    /// Take one step.
    pub fn run(&mut self) -> Result<()> {
        let inputs = std::mem::take(&mut self.carried).into_iter().chain(self.batch.iter().cloned());
        self.carried = self.step.run(inputs.collect())?;
        self.carried.pop();
        Ok(())
    }
}

fn floats(n: usize, scale: f32) -> Vec<u8> {
    (0..n).flat_map(|i| (((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale).to_ne_bytes()).collect()
}

/// Numbers for f32, positions below 10 for integers.
fn made_up(data: &Value) -> Vec<u8> {
    let n = data.shape().elements();
    match data.dtype() {
        DType::F32 => floats(n, 1.0),
        _ => (0..n).flat_map(|i| (i as i32 * 7 % 10).to_ne_bytes()).collect(),
    }
}

/// Rows of zeros with a one somewhere.
fn one_hot(shape: &Shape) -> Vec<u8> {
    let classes = shape[1];
    let one = |i: usize| f32::from(u8::from(i / classes * 7 % classes == i % classes));
    (0..shape.elements()).flat_map(|i| one(i).to_ne_bytes()).collect()
}
