//! The batched matrix product.

use super::Op;
use super::movement::same_dtype;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::value::Value;

impl Value {
    /// [b…, m, k] · [b…, k, n] → [b…, m, n]; leading axes broadcast.
    pub fn dot(&self, other: &Value) -> Result<Value> {
        let (left, right) = (self.shape(), other.shape());
        let refuse = |message: String| Err(Error::new(Code::Shape, "dot", message).with_shapes([left, right]));
        same_dtype("dot", self, other)?;
        if self.dtype() == DType::Bool {
            return Err(Error::new(Code::DType, "dot", "bool has no product; cast to a number")
                .with_shapes([left, right])
                .with_dtypes([DType::Bool, DType::Bool]));
        }
        let (l, r) = (left.rank(), right.rank());
        if l < 2 || r < 2 {
            return refuse(format!("needs matrices: {left} · {right}; reshape to two axes or more"));
        }
        let (m, k, n) = (left[l - 2], left[l - 1], right[r - 1]);
        if k != right[r - 2] {
            let hint = if k == right[r - 1] { "; did you mean to transpose the second?" } else { "; they must agree" };
            return refuse(format!("inner sizes differ: {left} · {right}{hint}"));
        }
        let batch = Shape::broadcast("dot", &left[..l - 2].into(), &right[..r - 2].into())?;
        let with = |rows: usize, columns: usize| Shape::new("dot", [&batch[..], &[rows, columns]].concat());
        let inputs = vec![self.expand(&with(m, k)?)?, other.expand(&with(k, n)?)?];
        Ok(Value::node(Op::Dot, inputs, with(m, n)?, self.dtype()))
    }
}

/// y′ = a′·b + a·b′
pub(super) fn jvp(x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let left = tangents[0].as_ref().map(|tangent| tangent.dot(&x[1])).transpose()?;
    let right = tangents[1].as_ref().map(|tangent| x[0].dot(tangent)).transpose()?;
    match (left, right) {
        (Some(left), Some(right)) => left.add(&right).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

/// ā = ȳ·bᵀ, b̄ = aᵀ·ȳ
pub(super) fn vjp(x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    let left = if wanted[0] { Some(cotangent.dot(&x[1].transpose()?)?) } else { None };
    let right = if wanted[1] { Some(x[0].transpose()?.dot(cotangent)?) } else { None };
    Ok(vec![left, right])
}
