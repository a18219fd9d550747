//! The common layout of a direction's state: a few scalars (of the dtype that the options name), then slots, each a tensor like every parameter in the
//! parameters' order. And the norms that some directions take of whole tensors.

use super::{Options, check_float, check_like};
use crate::alpha::inner;
use raphson_graph::error::{Error, Result};
use raphson_graph::value::Value;

/// `scalars` zeros, then `slots` zeros like each parameter.
pub(super) fn zeros(
    options: &Options,
    name: &str,
    params: &[Value],
    scalars: usize,
    slots: usize,
) -> Result<Vec<Value>> {
    filled(options, name, params, &vec![0.0; scalars], &vec![0.0; slots])
}

/// These scalars, then a slot for each number, filled with it.
pub(super) fn filled(
    options: &Options,
    name: &str,
    params: &[Value],
    scalars: &[f64],
    slots: &[f64],
) -> Result<Vec<Value>> {
    check_float(name, params)?;
    let mut state: Vec<Value> = scalars.iter().map(|&scalar| Value::scalar(scalar, options.scalar)).collect();
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

/// ‖x‖, summed in the dtype of the controller's scalars.
pub(super) fn norm(options: &Options, x: &Value) -> Result<Value> {
    inner(std::slice::from_ref(x), std::slice::from_ref(x), options.scalar)?.sqrt()
}

/// ‖x‖/√n
pub(super) fn root_mean_square(options: &Options, x: &Value) -> Result<Value> {
    let n = x.shape().elements().max(1) as f64;
    norm(options, x)?.scale(1.0 / n.sqrt())
}
