//! Transforms of the graph: derivatives and substitution.

use crate::handles::Handles;
use crate::state::{call, call_values};
use napi_derive::napi;
use raphson_graph::derivative;
use raphson_graph::error::Result;
use raphson_graph::value::Value;

/// A user's function is about to be traced.
#[napi]
pub fn enter_trace() -> napi::Result<()> {
    call("trace", |state| {
        state.session.enter_trace();
        Ok(())
    })
}

/// It was.
#[napi]
pub fn leave_trace() -> napi::Result<()> {
    call("trace", |state| state.session.leave_trace())
}

type Transform = fn(&[Value], &[Value], &[Value]) -> Result<Vec<Value>>;

fn apply(op: &str, transform: Transform, handles: &Handles, [x, y, z]: [&[f64]; 3]) -> Result<Vec<Value>> {
    transform(&handles.get_all(op, x)?, &handles.get_all(op, y)?, &handles.get_all(op, z)?)
}

/// Cotangents of the inputs given those of the outputs.
#[napi]
pub fn vjp(outputs: Vec<f64>, inputs: Vec<f64>, cotangents: Vec<f64>) -> napi::Result<Vec<f64>> {
    call_values("vjp", |handles| apply("vjp", derivative::vjp, handles, [&outputs, &inputs, &cotangents]))
}

/// Tangents of the outputs given those of the inputs.
#[napi]
pub fn jvp(outputs: Vec<f64>, inputs: Vec<f64>, tangents: Vec<f64>) -> napi::Result<Vec<f64>> {
    call_values("jvp", |handles| apply("jvp", derivative::jvp, handles, [&outputs, &inputs, &tangents]))
}

/// The same graph with `from` replaced by `to`.
#[napi]
pub fn substitute(outputs: Vec<f64>, from: Vec<f64>, to: Vec<f64>) -> napi::Result<Vec<f64>> {
    call_values("substitute", |handles| apply("substitute", derivative::substitute, handles, [&outputs, &from, &to]))
}
