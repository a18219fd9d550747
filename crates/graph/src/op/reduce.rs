//! Reductions along axes: sum, product, maximum, minimum, and the position of the maximum.

use super::Op;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::shape::Shape;
use crate::value::Value;

/// How elements combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Zero over no elements; f32 accumulates in f64, f16 and bf16 as f32 does.
    Sum,
    /// One over no elements.
    Prod,
    /// NaN if any element is NaN; the least value of the dtype over no elements.
    Max,
    /// NaN if any element is NaN; the greatest value of the dtype over no elements.
    Min,
    /// Position (i32) of the first greatest element along the flattened reduced axes; a NaN counts as greatest.
    ArgMax,
}

impl ReduceOp {
    /// Every reduction that keeps the dtype, in code order (the addon's interface numbers them so).
    pub const ALL: [ReduceOp; 4] = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min];

    /// The name users see.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::ArgMax => "argmax",
        }
    }
}

impl Value {
    /// Combine the elements along `axes`, which vanish from the shape. No axes: the value itself.
    pub fn reduce(&self, op: ReduceOp, axes: &[usize]) -> Result<Value> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        if axes.iter().any(|&axis| axis >= self.shape().rank()) {
            let message = format!("axes {axes:?} of shape {}; give axes below the rank", self.shape());
            return Err(Error::argument(op.name(), message).with_shapes([self.shape()]));
        }
        if self.dtype() == DType::Bool {
            return Err(Error::new(Code::DType, op.name(), "bool cannot be reduced; cast to i32 first")
                .with_shapes([self.shape()])
                .with_dtypes([DType::Bool]));
        }
        if axes.is_empty() && op != ReduceOp::ArgMax {
            return Ok(self.clone());
        }
        let empty = axes.iter().any(|&axis| self.shape()[axis] == 0);
        if op == ReduceOp::ArgMax && empty {
            let message = format!("no elements along axes {axes:?} of {}; there is no position to give", self.shape());
            return Err(Error::argument("argmax", message).with_shapes([self.shape()]));
        }
        let dtype = if op == ReduceOp::ArgMax { DType::I32 } else { self.dtype() };
        let shape = without_axes(self.shape(), &axes);
        Ok(Value::node(Op::Reduce { op, axes }, vec![self.clone()], shape, dtype))
    }

    /// Sum along axes.
    pub fn sum(&self, axes: &[usize]) -> Result<Value> {
        self.reduce(ReduceOp::Sum, axes)
    }

    /// Sum of all elements.
    pub fn sum_all(&self) -> Result<Value> {
        self.sum(&(0..self.shape().rank()).collect::<Vec<_>>())
    }

    /// Put reduced axes back with size 1, then repeat along them to `shape`.
    pub fn expand_reduced(&self, axes: &[usize], shape: &Shape) -> Result<Value> {
        let mut sizes = shape.to_vec();
        for &axis in axes {
            sizes[axis] = 1;
        }
        self.reshape(&sizes[..].into())?.expand(shape)
    }
}

/// The sizes of the axes that stay.
pub fn without_axes(shape: &Shape, axes: &[usize]) -> Shape {
    let kept: Vec<usize> = (0..shape.rank()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    kept[..].into()
}

/// ∂y/∂x for the reductions that are not linear, shaped like x; of f16 and bf16 in f32, so that the many products of a
/// product's are not rounded one by one.
fn weights(op: ReduceOp, axes: &[usize], y: &Value, x: &Value) -> Result<Option<Value>> {
    let back = |value: &Value| value.expand_reduced(axes, x.shape());
    match op {
        ReduceOp::Sum | ReduceOp::ArgMax => Ok(None),
        // y = max x: 1 at the greatest element; several share it equally
        ReduceOp::Max | ReduceOp::Min => {
            let at = x.equal(&back(y)?)?.cast(x.dtype())?;
            at.div(&back(&at.sum(axes)?)?).map(Some)
        }
        ReduceOp::Prod => others_product(axes, x).map(Some),
    }
}

/// ∂(∏x)/∂xᵢ = ∏ⱼ≠ᵢ xⱼ, as the product of prefix and suffix products, so that zeros need no division.
/// Composed of doubling steps: after step s, prefix[i] = ∏ of the 2ˢ elements before i.
fn others_product(axes: &[usize], x: &Value) -> Result<Value> {
    let rank = x.shape().rank();
    let kept: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
    let order: Vec<usize> = kept.iter().chain(axes).copied().collect();
    let moved = x.cast(x.dtype().register())?.permute(&order)?;
    let n_kept: usize = kept.iter().map(|&axis| x.shape()[axis]).product();
    let n_reduced: usize = axes.iter().map(|&axis| x.shape()[axis]).product();
    let rows = moved.reshape(&[n_kept, n_reduced].into())?;
    let before = exclusive_product(&rows)?;
    let after = exclusive_product(&rows.flip(&[1])?)?.flip(&[1])?;
    let product = before.mul(&after)?.reshape(moved.shape())?;
    super::movement::permute_vjp(&order, &product)
}

/// out[r, i] = ∏ⱼ<ᵢ x[r, j]
fn exclusive_product(x: &Value) -> Result<Value> {
    let n = x.shape()[1];
    let mut product = shift_right(x, 1)?;
    let mut reach = 1;
    while reach < n {
        product = product.mul(&shift_right(&product, reach)?)?;
        reach *= 2;
    }
    Ok(product)
}

/// out[r, i] = x[r, i − by], and 1 where there is none.
fn shift_right(x: &Value, by: usize) -> Result<Value> {
    let (rows, n) = (x.shape()[0], x.shape()[1]);
    let by = by.min(n);
    let ones = Value::constant(1.0, x.dtype(), &[rows, by].into());
    Value::concatenate(&[ones, x.slice(&[0, 0], &[rows, n - by], &[1, 1])?], 1)
}

/// y′ = Σ w·x′ along the axes, w = ∂y/∂x (1 for the sum)
pub(super) fn jvp(
    op: ReduceOp,
    axes: &[usize],
    y: &Value,
    x: &[Value],
    tangents: &[Option<Value>],
) -> Result<Option<Value>> {
    let Some(tangent) = &tangents[0] else { return Ok(None) };
    match weights(op, axes, y, &x[0])? {
        Some(weights) => tangent.cast(weights.dtype())?.mul(&weights)?.sum(axes)?.cast(y.dtype()).map(Some),
        None => tangent.sum(axes).map(Some),
    }
}

/// x̄ = w·ȳ repeated along the axes
pub(super) fn vjp(op: ReduceOp, axes: &[usize], y: &Value, x: &Value, cotangent: &Value) -> Result<Option<Value>> {
    if op == ReduceOp::ArgMax {
        return Ok(None);
    }
    let spread = cotangent.expand_reduced(axes, x.shape())?;
    match weights(op, axes, y, x)? {
        Some(weights) => spread.cast(weights.dtype())?.mul(&weights)?.cast(x.dtype()).map(Some),
        None => Ok(Some(spread)),
    }
}
