//! Creation and ops: each function looks up its operands, calls the builder of the graph crate, and hands out a handle.

use crate::convert::{
    constant as checked_constant, count, counts, dtype as dtype_of_code, dtype_code, integer, reduction, row, shape,
};
use crate::state::{call, call_value};
use napi::Env;
use napi_derive::napi;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::op::attention::Attention;
use raphson_graph::op::conv::Window;
use raphson_graph::op::elementwise::apply;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::value::Value;

/// Copy elements, given as their bytes, row-major.
#[napi]
pub fn upload(env: Env, bytes: &[u8], dtype: f64, shape: Vec<f64>) -> napi::Result<f64> {
    call("upload", |state| {
        let (dtype, shape) = (dtype_of_code("upload", dtype)?, self::shape("upload", &shape)?);
        check_truth_values(bytes, dtype)?;
        let value = state.session.upload(bytes, shape, dtype)?;
        state.report_memory(&env)?;
        state.handles.add(value)
    })
}

fn check_truth_values(bytes: &[u8], dtype: DType) -> Result<()> {
    if dtype != DType::Bool {
        return Ok(());
    }
    match bytes.iter().position(|&byte| byte > 1) {
        None => Ok(()),
        Some(i) => {
            let message = format!("byte {i} of bool data is {}; each must be 0 or 1", bytes[i]);
            Err(Error::argument("upload", message).with_dtypes([dtype]))
        }
    }
}

/// One value everywhere.
#[napi]
pub fn constant(value: f64, dtype: f64, shape: Vec<f64>) -> napi::Result<f64> {
    call_value("constant", |_| {
        let (dtype, shape) = (dtype_of_code("constant", dtype)?, self::shape("constant", &shape)?);
        Ok(Value::constant(checked_constant("constant", value, dtype)?, dtype, &shape))
    })
}

/// The position along an axis.
#[napi]
pub fn iota(dtype: f64, shape: Vec<f64>, axis: f64) -> napi::Result<f64> {
    call_value("iota", |_| {
        let (dtype, shape) = (dtype_of_code("iota", dtype)?, self::shape("iota", &shape)?);
        Value::iota(&shape, dtype, count("iota", "the axis", axis)?)
    })
}

/// A placeholder for tracing.
#[napi]
pub fn input(dtype: f64, shape: Vec<f64>) -> napi::Result<f64> {
    call_value("input", |_| Ok(Value::input(self::shape("input", &shape)?, dtype_of_code("input", dtype)?)))
}

/// The sizes of a tensor's axes.
#[napi]
pub fn shape_of(h: f64) -> napi::Result<Vec<f64>> {
    call("shape", |state| Ok(state.handles.get("shape", h)?.shape().iter().map(|&size| size as f64).collect()))
}

/// The code of a tensor's dtype.
#[napi]
pub fn dtype_of(h: f64) -> napi::Result<u32> {
    call("dtype", |state| Ok(dtype_code(state.handles.get("dtype", h)?.dtype())))
}

/// Give handles back. One that is unknown is found before any goes.
#[napi]
pub fn dispose(env: Env, handles: Vec<f64>) -> napi::Result<()> {
    call("dispose", |state| {
        for &handle in &handles {
            state.handles.get("dispose", handle)?;
        }
        for handle in handles {
            drop(state.handles.remove(handle)?);
        }
        state.report_memory(&env)
    })
}

/// A second handle on the same value.
#[napi]
pub fn clone(h: f64) -> napi::Result<f64> {
    call_value("clone", |handles| handles.get("clone", h).cloned())
}

/// An elementwise op of one operand, by its row.
#[napi]
pub fn elementwise1(row: f64, a: f64) -> napi::Result<f64> {
    call_value("elementwise", |handles| {
        let row = self::row(row)?;
        apply(row, &[handles.get(row.name, a)?])
    })
}

/// An elementwise op of two operands, which broadcast.
#[napi]
pub fn elementwise2(row: f64, a: f64, b: f64) -> napi::Result<f64> {
    call_value("elementwise", |handles| {
        let row = self::row(row)?;
        apply(row, &[handles.get(row.name, a)?, handles.get(row.name, b)?])
    })
}

/// An elementwise op of three operands, which broadcast.
#[napi]
pub fn elementwise3(row: f64, a: f64, b: f64, c: f64) -> napi::Result<f64> {
    call_value("elementwise", |handles| {
        let row = self::row(row)?;
        apply(row, &[handles.get(row.name, a)?, handles.get(row.name, b)?, handles.get(row.name, c)?])
    })
}

/// An elementwise op of a tensor and a constant of its dtype.
#[napi]
pub fn elementwise_scalar(row: f64, a: f64, value: f64, scalar_first: bool) -> napi::Result<f64> {
    call_value("elementwise", |handles| {
        let row = self::row(row)?;
        let a = handles.get(row.name, a)?;
        let scalar = Value::scalar(checked_constant(row.name, value, a.dtype())?, a.dtype());
        if scalar_first { apply(row, &[&scalar, a]) } else { apply(row, &[a, &scalar]) }
    })
}

/// Convert the elements.
#[napi]
pub fn cast(a: f64, dtype: f64) -> napi::Result<f64> {
    call_value("cast", |handles| handles.get("cast", a)?.cast(dtype_of_code("cast", dtype)?))
}

/// The same elements under another shape.
#[napi]
pub fn reshape(a: f64, shape: Vec<f64>) -> napi::Result<f64> {
    call_value("reshape", |handles| handles.get("reshape", a)?.reshape(&self::shape("reshape", &shape)?))
}

/// Axes in another order.
#[napi]
pub fn permute(a: f64, axes: Vec<f64>) -> napi::Result<f64> {
    call_value("permute", |handles| handles.get("permute", a)?.permute(&counts("permute", "an axis", &axes)?))
}

/// Broadcast to a shape.
#[napi]
pub fn expand(a: f64, shape: Vec<f64>) -> napi::Result<f64> {
    call_value("expand", |handles| handles.get("expand", a)?.expand(&self::shape("expand", &shape)?))
}

/// Elements `start, start + step, …` below `stop` of each axis.
#[napi]
pub fn slice(a: f64, start: Vec<f64>, stop: Vec<f64>, step: Vec<f64>) -> napi::Result<f64> {
    call_value("slice", |handles| {
        let start = counts("slice", "a start", &start)?;
        let stop = counts("slice", "a stop", &stop)?;
        let step = counts("slice", "a step", &step)?;
        handles.get("slice", a)?.slice(&start, &stop, &step)
    })
}

/// Zeros around and between the elements.
#[napi]
pub fn pad(a: f64, low: Vec<f64>, high: Vec<f64>, interior: Vec<f64>) -> napi::Result<f64> {
    call_value("pad", |handles| {
        let low = counts("pad", "a low size", &low)?;
        let high = counts("pad", "a high size", &high)?;
        let interior = counts("pad", "an interior size", &interior)?;
        handles.get("pad", a)?.pad(&low, &high, &interior)
    })
}

/// Axes backwards.
#[napi]
pub fn flip(a: f64, axes: Vec<f64>) -> napi::Result<f64> {
    call_value("flip", |handles| handles.get("flip", a)?.flip(&counts("flip", "an axis", &axes)?))
}

/// Tensors one after another along an axis.
#[napi]
pub fn concatenate(handles: Vec<f64>, axis: f64) -> napi::Result<f64> {
    call_value("concatenate", |table| {
        let values = table.get_all("concatenate", &handles)?;
        Value::concatenate(&values, count("concatenate", "the axis", axis)?)
    })
}

/// Combine along axes: 0 sum, 1 prod, 2 max, 3 min.
#[napi]
pub fn reduce(kind: f64, a: f64, axes: Vec<f64>, keep_dims: bool) -> napi::Result<f64> {
    call_value("reduce", |handles| {
        let op = reduction(kind)?;
        let (a, axes) = (handles.get(op.name(), a)?, counts(op.name(), "an axis", &axes)?);
        let reduced = a.reduce(op, &axes)?;
        if !keep_dims {
            return Ok(reduced);
        }
        let size = |(axis, &size): (usize, &usize)| if axes.contains(&axis) { 1 } else { size };
        let kept: Vec<usize> = a.shape().iter().enumerate().map(size).collect();
        reduced.reshape(&kept[..].into())
    })
}

/// Position of the first greatest element along an axis, which vanishes.
#[napi]
pub fn argmax(a: f64, axis: f64) -> napi::Result<f64> {
    call_value("argmax", |handles| {
        handles.get("argmax", a)?.reduce(ReduceOp::ArgMax, &[count("argmax", "the axis", axis)?])
    })
}

/// Positions along an axis in the order of their elements.
#[napi]
pub fn argsort(a: f64, axis: f64, descending: bool) -> napi::Result<f64> {
    call_value("argsort", |handles| handles.get("argsort", a)?.argsort(count("argsort", "the axis", axis)?, descending))
}

/// Batched matrix product.
#[napi]
pub fn dot(a: f64, b: f64) -> napi::Result<f64> {
    call_value("dot", |handles| handles.get("dot", a)?.dot(handles.get("dot", b)?))
}

/// softmax(scale · query·keyᵀ)·value over the last two axes; the mask, bool, is true where a query sees a key.
#[napi]
pub fn attention(query: f64, key: f64, value: f64, mask: Option<f64>, causal: bool, scale: f64) -> napi::Result<f64> {
    call_value("attention", |handles| {
        let [query, key, value] = [query, key, value].map(|handle| handles.get("attention", handle));
        let mask = mask.map(|mask| handles.get("attention", mask)).transpose()?;
        let query = query?;
        let scale = Scalar::of(checked_constant("attention", scale, query.dtype())?, query.dtype());
        query.attention(key?, value?, mask, Attention { causal, scale })
    })
}

/// Convolution of data [batch, groups, in, size…] with a kernel [groups, out, in, taps…]; one stride, low padding (negative
/// to cut off), data dilation, kernel dilation and number of outputs for each spatial axis.
#[napi]
pub fn conv(
    data: f64,
    kernel: f64,
    strides: Vec<f64>,
    low: Vec<f64>,
    data_dilation: Vec<f64>,
    kernel_dilation: Vec<f64>,
    sizes: Vec<f64>,
) -> napi::Result<f64> {
    call_value("conv", |handles| {
        let (data, kernel) = (handles.get("conv", data)?, handles.get("conv", kernel)?);
        let strides = counts("conv", "a stride", &strides)?;
        let data_dilation = counts("conv", "a data dilation", &data_dilation)?;
        let kernel_dilation = counts("conv", "a kernel dilation", &kernel_dilation)?;
        let n = strides.len();
        if [low.len(), data_dilation.len(), kernel_dilation.len()] != [n; 3] {
            return Err(Error::argument("conv", "give one stride, low padding and dilations for each spatial axis"));
        }
        let windows = (0..n).map(|axis| {
            Ok(Window {
                stride: strides[axis],
                low: integer("conv", "a low padding", low[axis])?,
                data_dilation: data_dilation[axis],
                kernel_dilation: kernel_dilation[axis],
            })
        });
        data.conv(kernel, &windows.collect::<Result<Vec<_>>>()?, &counts("conv", "a size", &sizes)?)
    })
}

/// Rows along an axis, chosen by indices.
#[napi]
pub fn gather(data: f64, indices: f64, axis: f64) -> napi::Result<f64> {
    call_value("gather", |handles| {
        handles.get("gather", data)?.gather(handles.get("gather", indices)?, count("gather", "the axis", axis)?)
    })
}

/// Sum of updates into rows along an axis.
#[napi]
pub fn scatter_add(updates: f64, indices: f64, axis: f64, size: f64) -> napi::Result<f64> {
    call_value("scatterAdd", |handles| {
        let (axis, size) = (count("scatterAdd", "the axis", axis)?, count("scatterAdd", "the size", size)?);
        handles.get("scatterAdd", updates)?.scatter_add(handles.get("scatterAdd", indices)?, axis, size)
    })
}

/// The same value, as a constant for every derivative.
#[napi]
pub fn stop_gradient(a: f64) -> napi::Result<f64> {
    call_value("stopGradient", |handles| Ok(handles.get("stopGradient", a)?.stop_gradient()))
}

/// The identity with its own identity.
#[napi]
pub fn alias(a: f64) -> napi::Result<f64> {
    call_value("alias", |handles| Ok(handles.get("alias", a)?.alias()))
}
