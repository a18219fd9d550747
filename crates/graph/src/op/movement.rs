//! Movement: reshape, permute, expand, slice, pad, flip, concatenate. Elements change place, not value (pad adds
//! zeros). All are linear, so each jvp is the op itself and each vjp the inverse movement.

use super::Op;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::value::Value;

fn check_rank(op: &str, value: &Value, what: &str, n: usize) -> Result<()> {
    if n == value.shape().rank() {
        return Ok(());
    }
    let message = format!("{n} {what} for shape {}; give one for each axis", value.shape());
    Err(Error::new(Code::Shape, op, message).with_shapes([value.shape()]))
}

impl Value {
    /// The same elements under another shape with as many elements.
    pub fn reshape(&self, shape: &Shape) -> Result<Value> {
        if shape == self.shape() {
            return Ok(self.clone());
        }
        if shape.elements() != self.shape().elements() {
            let (from, to) = (self.shape(), shape);
            let message =
                format!("{from} has {} elements, {to} has {}; the counts must agree", from.elements(), to.elements());
            return Err(Error::new(Code::Shape, "reshape", message).with_shapes([from, to]));
        }
        Ok(Value::node(Op::Reshape, vec![self.clone()], shape.clone(), self.dtype()))
    }

    /// Axis `i` of the result is axis `axes[i]`.
    pub fn permute(&self, axes: &[usize]) -> Result<Value> {
        check_rank("permute", self, "axes", axes.len())?;
        let mut seen = vec![false; axes.len()];
        for &axis in axes {
            if axis >= axes.len() || std::mem::replace(&mut seen[axis], true) {
                let message = format!("{axes:?} is not an order of the axes of {}; name each axis once", self.shape());
                return Err(Error::argument("permute", message).with_shapes([self.shape()]));
            }
        }
        if axes.iter().enumerate().all(|(i, &axis)| i == axis) {
            return Ok(self.clone());
        }
        let sizes: Vec<usize> = axes.iter().map(|&axis| self.shape()[axis]).collect();
        Ok(Value::node(Op::Permute { axes: axes.to_vec() }, vec![self.clone()], sizes[..].into(), self.dtype()))
    }

    /// Swap the last two axes.
    pub fn transpose(&self) -> Result<Value> {
        let rank = self.shape().rank();
        if rank < 2 {
            let message = format!("shape {} has no two axes to swap", self.shape());
            return Err(Error::new(Code::Shape, "transpose", message).with_shapes([self.shape()]));
        }
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.permute(&axes)
    }

    /// Broadcast to `shape` by the numpy rule.
    pub fn expand(&self, shape: &Shape) -> Result<Value> {
        if shape == self.shape() {
            return Ok(self.clone());
        }
        let fits = Shape::broadcast("expand", self.shape(), shape).is_ok_and(|s| s == *shape);
        if !fits {
            let message = format!(
                "cannot repeat {} to {shape}; sizes must agree or be 1 in the first, aligned at the last axis",
                self.shape()
            );
            return Err(Error::new(Code::Shape, "expand", message).with_shapes([self.shape(), shape]));
        }
        let mut sizes = vec![1; shape.rank() - self.shape().rank()];
        sizes.extend_from_slice(self.shape());
        let aligned = self.reshape(&sizes[..].into())?;
        if aligned.shape() == shape {
            return Ok(aligned);
        }
        Ok(Value::node(Op::Expand, vec![aligned], shape.clone(), self.dtype()))
    }

    /// Elements `start, start + step, …` below `stop` of each axis.
    pub fn slice(&self, start: &[usize], stop: &[usize], step: &[usize]) -> Result<Value> {
        let shape = self.shape();
        for (what, n) in [("starts", start.len()), ("stops", stop.len()), ("steps", step.len())] {
            check_rank("slice", self, what, n)?;
        }
        let mut sizes = Vec::with_capacity(shape.rank());
        for axis in 0..shape.rank() {
            if start[axis] > stop[axis] || stop[axis] > shape[axis] || step[axis] == 0 {
                let message = format!(
                    "{}:{}:{} of axis {axis} of {shape}; need 0 ≤ start ≤ stop ≤ {} and step ≥ 1",
                    start[axis], stop[axis], step[axis], shape[axis]
                );
                return Err(Error::argument("slice", message).with_shapes([shape]));
            }
            sizes.push((stop[axis] - start[axis]).div_ceil(step[axis]));
        }
        let sizes: Shape = sizes[..].into();
        if sizes == *shape {
            return Ok(self.clone());
        }
        let op = Op::Slice { start: start.to_vec(), step: step.to_vec() };
        Ok(Value::node(op, vec![self.clone()], sizes, self.dtype()))
    }

    /// `low` zeros before, `high` after and `interior` between the elements of each axis.
    pub fn pad(&self, low: &[usize], high: &[usize], interior: &[usize]) -> Result<Value> {
        for (what, n) in [("low sizes", low.len()), ("high sizes", high.len()), ("interior sizes", interior.len())] {
            check_rank("pad", self, what, n)?;
        }
        let sizes = (0..low.len()).map(|axis| {
            let size = self.shape()[axis];
            // Saturated sizes are refused below.
            let inner = size.saturating_add(interior[axis].saturating_mul(size.saturating_sub(1)));
            inner.saturating_add(low[axis]).saturating_add(high[axis])
        });
        let shape = Shape::new("pad", sizes.collect())?;
        if shape == *self.shape() {
            return Ok(self.clone());
        }
        let op = Op::Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        Ok(Value::node(op, vec![self.clone()], shape, self.dtype()))
    }

    /// These axes backwards.
    pub fn flip(&self, axes: &[usize]) -> Result<Value> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        if axes.iter().any(|&axis| axis >= self.shape().rank()) {
            let message = format!("axes {axes:?} of shape {}; give axes below the rank", self.shape());
            return Err(Error::argument("flip", message).with_shapes([self.shape()]));
        }
        if axes.is_empty() {
            return Ok(self.clone());
        }
        Ok(Value::node(Op::Flip { axes }, vec![self.clone()], self.shape().clone(), self.dtype()))
    }

    /// Values one after another along `axis`; all other sizes and the dtypes agree.
    pub fn concatenate(values: &[Value], axis: usize) -> Result<Value> {
        let Some(first) = values.first() else {
            return Err(Error::argument("concatenate", "no tensors; give at least one"));
        };
        let mut sizes = first.shape().to_vec();
        if axis >= sizes.len() {
            let message = format!("axis {axis} of shape {}; give an axis below the rank", first.shape());
            return Err(Error::argument("concatenate", message).with_shapes([first.shape()]));
        }
        sizes[axis] = 0;
        for value in values {
            let same = |i: usize| i == axis || value.shape()[i] == sizes[i];
            if value.shape().rank() != sizes.len() || !(0..sizes.len()).all(same) {
                let message = format!(
                    "shapes differ beside axis {axis}: {} · {}; they must agree there",
                    first.shape(),
                    value.shape()
                );
                return Err(Error::new(Code::Shape, "concatenate", message).with_shapes([first.shape(), value.shape()]));
            }
            same_dtype("concatenate", first, value)?;
            sizes[axis] += value.shape()[axis];
        }
        if values.len() == 1 {
            return Ok(first.clone());
        }
        let shape = Shape::new("concatenate", sizes)?;
        Ok(Value::node(Op::Concatenate { axis }, values.to_vec(), shape, first.dtype()))
    }
}

/// Refuse operands of different dtypes: nothing is ever converted silently.
pub(crate) fn same_dtype(op: &str, left: &Value, right: &Value) -> Result<()> {
    let (l, r): (DType, DType) = (left.dtype(), right.dtype());
    if l == r {
        return Ok(());
    }
    let message = format!("dtypes differ: {l} · {r}; cast one of them");
    Err(Error::new(Code::DType, op, message).with_shapes([left.shape(), right.shape()]).with_dtypes([l, r]))
}

/// x̄ = ȳ with its axes put back.
pub(super) fn permute_vjp(axes: &[usize], cotangent: &Value) -> Result<Value> {
    let mut inverse = vec![0; axes.len()];
    for (i, &axis) in axes.iter().enumerate() {
        inverse[axis] = i;
    }
    cotangent.permute(&inverse)
}

/// x̄ = Σ ȳ over the repeated axes.
pub(super) fn expand_vjp(from: &Shape, cotangent: &Value) -> Result<Value> {
    let repeated: Vec<usize> = (0..from.rank()).filter(|&axis| from[axis] != cotangent.shape()[axis]).collect();
    cotangent.sum(&repeated)?.reshape(from)
}

/// x̄ = ȳ with zeros where the slice skipped.
pub(super) fn slice_vjp(start: &[usize], step: &[usize], from: &Shape, cotangent: &Value) -> Result<Value> {
    if cotangent.shape().elements() == 0 {
        return Ok(Value::constant(0.0, cotangent.dtype(), from));
    }
    let interior: Vec<usize> = step.iter().map(|step| step - 1).collect();
    let high: Vec<usize> = (0..from.rank())
        .map(|axis| from[axis] - start[axis] - (1 + (cotangent.shape()[axis] - 1) * step[axis]))
        .collect();
    cotangent.pad(start, &high, &interior)
}

/// x̄ = the elements of ȳ that came from x.
pub(super) fn pad_vjp(low: &[usize], interior: &[usize], from: &Shape, cotangent: &Value) -> Result<Value> {
    let step: Vec<usize> = interior.iter().map(|between| between + 1).collect();
    let stop: Vec<usize> =
        (0..from.rank()).map(|i| if from[i] == 0 { low[i] } else { low[i] + (from[i] - 1) * step[i] + 1 }).collect();
    cotangent.slice(low, &stop, &step)
}

/// y′ = the tangents one after another, zeros where there is none.
pub(super) fn concatenate_jvp(axis: usize, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    let parts: Vec<Value> =
        x.iter().zip(tangents).map(|(x, tangent)| tangent.clone().unwrap_or_else(|| x.like(0.0))).collect();
    Value::concatenate(&parts, axis).map(Some)
}

/// x̄ᵢ = the part of ȳ that came from xᵢ.
pub(super) fn concatenate_vjp(
    axis: usize,
    x: &[Value],
    cotangent: &Value,
    wanted: &[bool],
) -> Result<Vec<Option<Value>>> {
    let step = vec![1; cotangent.shape().rank()];
    let mut start = vec![0; cotangent.shape().rank()];
    let mut stop = cotangent.shape().to_vec();
    let mut cotangents = Vec::with_capacity(x.len());
    for (x, &wanted) in x.iter().zip(wanted) {
        stop[axis] = start[axis] + x.shape()[axis];
        cotangents.push(if wanted { Some(cotangent.slice(&start, &stop, &step)?) } else { None });
        start[axis] = stop[axis];
    }
    Ok(cotangents)
}
