//! Small sentences about scalars and lists of tensors that the rules are written in.

use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// min(max(x, low), high) for finite x.
pub(super) fn clip(x: &Value, low: f64, high: f64) -> Result<Value> {
    x.maximum(&x.like(low))?.minimum(&x.like(high))
}

/// x where it is finite, else `otherwise`.
pub(super) fn finite_or(x: &Value, otherwise: f64) -> Result<Value> {
    x.is_finite()?.select(x, &x.like(otherwise))
}

/// The loss as a scalar of this dtype.
pub(super) fn loss_scalar(op: &str, loss: &Value, dtype: DType) -> Result<Value> {
    if !loss.dtype().is_float() || loss.shape().elements() != 1 {
        let message = format!("the loss is {} {}; it must be one float number", loss.dtype(), loss.shape());
        return Err(Error::new(Code::Shape, op, message).with_shapes([loss.shape()]).with_dtypes([loss.dtype()]));
    }
    loss.reshape(&Shape::scalar())?.cast(dtype)
}

/// θ − s·ω for each parameter, s a scalar.
pub(super) fn moved(params: &[Value], s: &Value, omega: &[Value]) -> Result<Vec<Value>> {
    let one = |(param, omega): (&Value, &Value)| param.sub(&omega.mul(&s.cast(param.dtype())?)?);
    params.iter().zip(omega).map(one).collect()
}

/// condition ? a : b for each pair. By select, never by a product: the branch not taken may be NaN.
pub(super) fn choose(condition: &Value, a: &[Value], b: &[Value]) -> Result<Vec<Value>> {
    a.iter().zip(b).map(|(a, b)| condition.select(a, b)).collect()
}

/// A report: eight scalars in a row.
pub(super) fn report(fields: [&Value; 8]) -> Result<Value> {
    in_a_row(&fields)
}

/// Scalars as one tensor.
pub(super) fn in_a_row(scalars: &[&Value]) -> Result<Value> {
    let rows = scalars.iter().map(|scalar| scalar.reshape(&[1].into())).collect::<Result<Vec<_>>>()?;
    Value::concatenate(&rows, 0)
}
