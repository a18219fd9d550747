//! The common layout of a direction's state: a few f64 scalars, then slots, each a tensor like every parameter in the
//! parameters' order. And the norms that some directions take of whole tensors.

use super::{check_float, check_like};
use crate::alpha::inner;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// `scalars` zeros (f64), then `slots` zeros like each parameter.
pub(super) fn zeros(name: &str, params: &[Value], scalars: usize, slots: usize) -> Result<Vec<Value>> {
    filled(name, params, &vec![0.0; scalars], &vec![0.0; slots])
}

/// These scalars (f64), then a slot for each number, filled with it.
pub(super) fn filled(name: &str, params: &[Value], scalars: &[f64], slots: &[f64]) -> Result<Vec<Value>> {
    check_float(name, params)?;
    let mut state: Vec<Value> = scalars.iter().map(|&scalar| Value::scalar(scalar, DType::F64)).collect();
    for &value in slots {
        state.extend(params.iter().map(|param| param.like(value)));
    }
    Ok(state)
}

/// A state taken apart: its scalars and its slots. Refused where its form is not that of the parameters.
pub(super) fn take<'a, const SCALARS: usize, const SLOTS: usize>(
    name: &str,
    params: &[Value],
    state: &'a [Value],
) -> Result<([&'a Value; SCALARS], [&'a [Value]; SLOTS])> {
    let count = params.len();
    let (scalars, tensors) = split(name, state, SCALARS, SLOTS * count, count)?;
    let slots: [&[Value]; SLOTS] = std::array::from_fn(|slot| &tensors[slot * count..(slot + 1) * count]);
    slots.iter().try_for_each(|slot| check_like(name, "state", params, slot))?;
    Ok((std::array::from_fn(|at| &scalars[at]), slots))
}

/// A state cut into `scalars` scalars and `tensors` tensors.
pub(super) fn split<'a>(
    name: &str,
    state: &'a [Value],
    scalars: usize,
    tensors: usize,
    params: usize,
) -> Result<(&'a [Value], &'a [Value])> {
    let wanted = scalars + tensors;
    if state.len() != wanted {
        let message = format!("{} state tensors; for {params} parameters it has {wanted}", state.len());
        return Err(Error::argument(name, message));
    }
    let (scalars, tensors) = state.split_at(scalars);
    match scalars.iter().find(|scalar| scalar.shape().rank() != 0 || !scalar.dtype().is_float()) {
        Some(scalar) => {
            let message =
                format!("a count in the state is {} {}; it is a float scalar", scalar.dtype(), scalar.shape());
            Err(Error::argument(name, message).with_shapes([scalar.shape()]))
        }
        None => Ok((scalars, tensors)),
    }
}

/// ‖x‖, summed in f64.
pub(super) fn norm(x: &Value) -> Result<Value> {
    inner(std::slice::from_ref(x), std::slice::from_ref(x))?.sqrt()
}

/// ‖x‖/√n
pub(super) fn root_mean_square(x: &Value) -> Result<Value> {
    let n = x.shape().elements().max(1) as f64;
    norm(x)?.scale(1.0 / n.sqrt())
}
