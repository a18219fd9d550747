//! Leaves and identities: constants, iota, alias, stop-gradient, cast.

use super::Op;
use crate::dtype::{DType, Scalar};
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::value::Value;

impl Value {
    /// `value` everywhere.
    pub fn constant(value: f64, dtype: DType, shape: &Shape) -> Value {
        Value::node(Op::Constant(Scalar::of(value, dtype)), Vec::new(), shape.clone(), dtype)
    }

    /// A scalar constant.
    pub fn scalar(value: f64, dtype: DType) -> Value {
        Value::constant(value, dtype, &Shape::scalar())
    }

    /// A constant with the shape and dtype of this value.
    pub fn like(&self, value: f64) -> Value {
        Value::constant(value, self.dtype(), self.shape())
    }

    /// The position along `axis`, in any dtype but bool.
    pub fn iota(shape: &Shape, dtype: DType, axis: usize) -> Result<Value> {
        if axis >= shape.rank() {
            let message = format!("axis {axis} of shape {shape}; give an axis below the rank");
            return Err(Error::argument("iota", message).with_shapes([shape]));
        }
        if dtype == DType::Bool {
            return Err(Error::new(Code::DType, "iota", "bool cannot count; use i32").with_dtypes([dtype]));
        }
        Ok(Value::node(Op::Iota { axis }, Vec::new(), shape.clone(), dtype))
    }

    /// The identity with its own identity: a derivative with respect to the alias does not reach other uses of `self`.
    pub fn alias(&self) -> Value {
        Value::node(Op::Alias, vec![self.clone()], self.shape().clone(), self.dtype())
    }

    /// The same value, as a constant for every derivative.
    pub fn stop_gradient(&self) -> Value {
        Value::node(Op::StopGradient, vec![self.clone()], self.shape().clone(), self.dtype())
    }

    /// Convert the elements: float → integer truncates and saturates (NaN → 0), integer → integer keeps the low bits,
    /// anything → f16 or bf16 rounds to nearest by way of f32, anything → bool is `≠ 0`.
    pub fn cast(&self, dtype: DType) -> Result<Value> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        Ok(Value::node(Op::Cast, vec![self.clone()], self.shape().clone(), dtype))
    }
}
