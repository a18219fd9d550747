//! Small sentences about f64 scalars and lists of tensors that the rules are written in.

use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// An f64 scalar constant.
pub(super) fn number(value: f64) -> Value {
    Value::scalar(value, DType::F64)
}

/// min(max(x, low), high) for finite x.
pub(super) fn clip(x: &Value, low: f64, high: f64) -> Result<Value> {
    x.maximum(&number(low))?.minimum(&number(high))
}

/// x where it is finite, else `otherwise`.
pub(super) fn finite_or(x: &Value, otherwise: f64) -> Result<Value> {
    x.is_finite()?.select(x, &number(otherwise))
}

/// The loss as an f64 scalar.
pub(super) fn loss_scalar(op: &str, loss: &Value) -> Result<Value> {
    if !loss.dtype().is_float() || loss.shape().elements() != 1 {
        let message = format!("the loss is {} {}; it must be one float number", loss.dtype(), loss.shape());
        return Err(Error::new(Code::Shape, op, message).with_shapes([loss.shape()]).with_dtypes([loss.dtype()]));
    }
    loss.reshape(&Shape::scalar())?.cast(DType::F64)
}

/// θ − s·ω for each parameter, s an f64 scalar.
pub(super) fn moved(params: &[Value], s: &Value, omega: &[Value]) -> Result<Vec<Value>> {
    let one = |(param, omega): (&Value, &Value)| param.sub(&omega.mul(&s.cast(param.dtype())?)?);
    params.iter().zip(omega).map(one).collect()
}

/// condition ? a : b for each pair. By select, never by a product: the branch not taken may be NaN.
pub(super) fn choose(condition: &Value, a: &[Value], b: &[Value]) -> Result<Vec<Value>> {
    a.iter().zip(b).map(|(a, b)| condition.select(a, b)).collect()
}

/// A report: f64 \[8\].
pub(super) fn report(fields: [&Value; 8]) -> Result<Value> {
    let rows = fields.iter().map(|field| field.reshape(&[1].into())).collect::<Result<Vec<_>>>()?;
    Value::concatenate(&rows, 0)
}
