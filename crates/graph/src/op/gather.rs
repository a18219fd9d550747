//! Gather and its adjoint, scatter-add: rows of a tensor chosen by integer indices along one axis.

use super::Op;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::value::Value;

fn check(op: &str, data: &Value, indices: &Value, axis: usize) -> Result<()> {
    if axis >= data.shape().rank() {
        let message = format!("axis {axis} of shape {}; give an axis below the rank", data.shape());
        return Err(Error::argument(op, message).with_shapes([data.shape()]));
    }
    if !indices.dtype().is_integer() {
        let message = format!("indices are {}; cast them to i32", indices.dtype());
        return Err(Error::new(Code::DType, op, message)
            .with_shapes([data.shape(), indices.shape()])
            .with_dtypes([data.dtype(), indices.dtype()]));
    }
    Ok(())
}

impl Value {
    /// `out[o…, j…, i…] = self[o…, indices[j…], i…]`: shape self[..axis] + indices.shape + self[axis+1..].
    /// An index outside the axis is an error when the value is computed.
    pub fn gather(&self, indices: &Value, axis: usize) -> Result<Value> {
        check("gather", self, indices, axis)?;
        let sizes = [&self.shape()[..axis], &indices.shape()[..], &self.shape()[axis + 1..]].concat();
        let shape = Shape::new("gather", sizes)?;
        Ok(Value::node(Op::Gather { axis }, vec![self.clone(), indices.clone()], shape, self.dtype()))
    }

    /// Zeros of size `size` along `axis`, to which `self[o…, j…, i…]` is added at `[o…, indices[j…], i…]`: the adjoint of
    /// [`Value::gather`]. Repeated indices add up.
    pub fn scatter_add(&self, indices: &Value, axis: usize, size: usize) -> Result<Value> {
        let (rank, n) = (self.shape().rank(), indices.shape().rank());
        if axis + n > rank || self.shape()[axis..axis + n] != indices.shape()[..] {
            let message = format!(
                "updates {} do not hold the indices' shape {} at axis {axis}; they must agree there",
                self.shape(),
                indices.shape()
            );
            return Err(Error::new(Code::Shape, "scatterAdd", message).with_shapes([self.shape(), indices.shape()]));
        }
        let sizes = [&self.shape()[..axis], &[size], &self.shape()[axis + n..]].concat();
        let shape = Shape::new("scatterAdd", sizes)?;
        let out = Value::node(Op::ScatterAdd { axis }, vec![self.clone(), indices.clone()], shape, self.dtype());
        check("scatterAdd", &out, indices, axis)?;
        if self.dtype() == crate::dtype::DType::Bool {
            return Err(Error::new(Code::DType, "scatterAdd", "bool cannot be added; cast to i32")
                .with_shapes([self.shape(), indices.shape()])
                .with_dtypes([self.dtype(), indices.dtype()]));
        }
        Ok(out)
    }
}

/// d̄ata = ȳ added up at the indices
pub(super) fn gather_vjp(axis: usize, data: &Value, indices: &Value, cotangent: &Value) -> Result<Value> {
    cotangent.scatter_add(indices, axis, data.shape()[axis])
}
