//! The places of tensors that traces and inner products look at. Small tensors are seen whole; of large ones every k-th
//! row, which is enough to compare slopes (both sides of the comparison see the same places) and costs a k-th.

use super::Spec;
use super::measure::inner;
use raphson_graph::error::Result;
use raphson_graph::op::{Op, elementwise};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::collections::{HashMap, HashSet};

/// Tensors of up to this many elements are seen whole.
const WHOLE: usize = 16_384;

/// Rows that are seen at least, so that a narrow matrix is not judged by two or three of them.
const ROWS: usize = 8;
/// Axes are thinned out by this or more (or by k, if that is less): shorter ones are left to the next axis.
const THIN: usize = 4;

/// Where a tensor is seen: every k-th place of one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    axis: usize,
    first: usize,
    step: usize,
}

/// The places of a tensor of this shape, `None` where it is seen whole. The axis is the first that is long enough to be
/// thinned out, so that what is seen are long rows of memory: every k-th, or closer together where that would be fewer than [`ROWS`].
fn places(spec: &Spec, shape: &Shape) -> Option<Places> {
    let most = spec.sample as usize;
    if most < 2 || shape.elements() <= WHOLE {
        return None;
    }
    let axis = shape.iter().position(|&size| size >= ROWS * most.min(THIN))?;
    let step = most.min(shape[axis] / ROWS);
    Some(Places { axis, first: step / 2, step })
}

/// Looks at tensors at their places. Elementwise ops are computed there only: their operands are looked at instead, down
/// to the tensors that exist anyway.
pub(super) struct Sampler<'a> {
    spec: &'a Spec,
    /// Tensors that exist anyway.
    existing: HashSet<u64>,
    known: HashMap<u64, Value>,
}

impl<'a> Sampler<'a> {
    pub(super) fn new<const LISTS: usize>(spec: &'a Spec, existing: [&[Value]; LISTS]) -> Sampler<'a> {
        let existing = existing.iter().flat_map(|list| list.iter().map(Value::id)).collect();
        Sampler { spec, existing, known: HashMap::new() }
    }

    /// Each tensor at its places.
    pub(super) fn all(&mut self, values: &[Value]) -> Result<Vec<Value>> {
        values.iter().map(|value| self.one(value)).collect()
    }

    fn one(&mut self, value: &Value) -> Result<Value> {
        match places(self.spec, value.shape()) {
            Some(places) => self.at(value, &places),
            None => Ok(value.clone()),
        }
    }

    fn at(&mut self, value: &Value, places: &Places) -> Result<Value> {
        if let Some(found) = self.known.get(&value.id()) {
            return Ok(found.clone());
        }
        let found = if self.existing.contains(&value.id()) || value.payload().is_some() {
            places.slice(value)?
        } else {
            self.computed_at(value, places)?
        };
        self.known.insert(value.id(), found.clone());
        Ok(found)
    }

    fn computed_at(&mut self, value: &Value, places: &Places) -> Result<Value> {
        let operands = value.inputs();
        let mut seen = || operands.iter().map(|operand| self.at(operand, places)).collect::<Result<Vec<_>>>();
        match value.op() {
            Op::Elementwise(row) => elementwise::apply(row, &seen()?.iter().collect::<Vec<_>>()),
            Op::Cast => seen()?[0].cast(value.dtype()),
            Op::Constant(number) => Ok(Value::constant(number.to_f64(), value.dtype(), &places.shape(value.shape()))),
            Op::Expand if operands[0].shape()[places.axis] == 1 => operands[0].expand(&places.shape(value.shape())),
            Op::Expand => seen()?[0].expand(&places.shape(value.shape())),
            _ => places.slice(value),
        }
    }
}

/// Zeros for what is seen of each tensor.
pub(super) fn zeros(spec: &Spec, params: &[Value]) -> Vec<Value> {
    let zero = |param: &Value| {
        let places = places(spec, param.shape());
        Value::constant(0.0, param.dtype(), &places.map_or(param.shape().clone(), |places| places.shape(param.shape())))
    };
    params.iter().map(zero).collect()
}

/// Whether the gradients are finite at places that are not seen as well. A matrix product needs no look at all of it: a
/// factor that is not finite spoils its rows or columns, and the gradients of the layers before.
pub(super) fn finite_unseen(spec: &Spec, gradients: &[Value]) -> Result<Option<Value>> {
    let mut all: Option<Value> = None;
    for gradient in gradients.iter().filter(|g| places(spec, g.shape()).is_some() && !is_product(g)) {
        let finite = gradient.sum_all()?.is_finite()?;
        all = Some(match all {
            Some(all) => all.and(&finite)?,
            None => finite,
        });
    }
    Ok(all)
}

/// A matrix product, perhaps seen in another arrangement.
fn is_product(value: &Value) -> bool {
    let mut value = value.clone();
    while value.op().is_view() && value.payload().is_none() {
        value = value.inputs()[0].clone();
    }
    matches!(value.op(), Op::Dot)
}

/// ⟨a, b⟩ from what is seen of tensors like `params`: the part of a sampled one counts for all of it.
pub(super) fn inner_sampled(spec: &Spec, params: &[Value], a: &[Value], b: &[Value]) -> Result<Value> {
    let weighted = |(param, a): (&Value, &Value)| {
        let (all, seen) = (param.shape().elements(), a.shape().elements());
        if all == seen { Ok(a.clone()) } else { a.scale(all as f64 / seen as f64) }
    };
    let a = params.iter().zip(a).map(weighted).collect::<Result<Vec<_>>>()?;
    inner(&a, b, spec.scalar)
}

impl Places {
    fn shape(&self, whole: &Shape) -> Shape {
        let mut sizes = whole.to_vec();
        sizes[self.axis] = (sizes[self.axis] - self.first).div_ceil(self.step);
        sizes[..].into()
    }

    fn slice(&self, value: &Value) -> Result<Value> {
        let (mut start, mut step) = (vec![0; value.shape().rank()], vec![1; value.shape().rank()]);
        (start[self.axis], step[self.axis]) = (self.first, self.step);
        value.slice(&start, value.shape(), &step)
    }
}
