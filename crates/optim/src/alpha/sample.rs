//! The places of tensors that traces and inner products look at. Small tensors are seen whole; of large ones one number of k,
//! which is enough to compare slopes (both sides of the comparison see the same places) and costs a k-th. Of a matrix that is
//! about every √k-th row, and in it every √k-th line: whole rows would be the weights of a few neurons only. Few numbers make α
//! noisier, and training worse: so k grows with the tensor.

use super::Spec;
use super::measure::inner;
use raphson_graph::error::Result;
use raphson_graph::op::{Op, elementwise};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::collections::{HashMap, HashSet};

/// Tensors of up to this many elements are seen whole.
const WHOLE: usize = 16_384;

/// Where one number of more than `CLOSE` is seen, there are this many at least.
const LEAST: usize = 16_384;
/// The k of the smallest tensors that are not seen whole.
const CLOSE: usize = 8;
/// Rows that are seen at least, so that a matrix is not judged by two or three of them.
const ROWS: usize = 8;
/// Axes are thinned out by this or more (or by k, if that is less): shorter ones are left to the next axis.
const THIN: usize = 4;
/// Numbers that lie together in memory and are seen together.
const LINE: usize = 64;
/// Lines of a row that are seen at least.
const LINES: usize = 2;

/// Every `step`-th block of so many places of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Every {
    axis: usize,
    block: usize,
    first: usize,
    step: usize,
}

impl Every {
    fn new(axis: usize, block: usize, step: usize) -> Every {
        Every { axis, block, first: step / 2, step }
    }

    /// Blocks that are seen of an axis of this size.
    fn seen(&self, size: usize) -> usize {
        (size / self.block - self.first).div_ceil(self.step)
    }
}

/// Where a tensor is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    rows: Every,
    /// Within the rows, on an axis behind theirs.
    columns: Option<Every>,
}

/// The places of a tensor of this shape, `None` where it is seen whole.
fn places(spec: &Spec, shape: &Shape) -> Option<Places> {
    let most = (spec.sample as usize).min((shape.elements() / LEAST).max(CLOSE));
    if most < 2 || shape.elements() <= WHOLE {
        return None;
    }
    let axis = shape.iter().position(|&size| size >= ROWS * most.min(THIN))?;
    let columns = columns(most, &shape[axis + 1..], axis + 1);
    let left = most / columns.map_or(1, |columns| columns.step);
    Some(Places { rows: Every::new(axis, 1, left.min(shape[axis] / ROWS).max(1)), columns })
}

/// About the root of k-th part of the first of these axes that has enough lines, whose numbers lie as close as a line.
fn columns(most: usize, sizes: &[usize], first: usize) -> Option<Every> {
    let lines = |i: usize| {
        let block = (LINE / sizes[i + 1..].iter().product::<usize>().max(1)).max(1);
        (block, sizes[i] / block)
    };
    let found = (0..sizes.len()).find(|&i| lines(i).1 >= LINES * THIN)?;
    let (block, blocks) = lines(found);
    let step = most.isqrt().min(blocks / LINES);
    (step > 1).then(|| Every::new(first + found, block, step))
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
            Op::Expand if operands[0].shape().elements() == 1 => {
                let shape = places.shape(value.shape());
                operands[0].reshape(&vec![1; shape.rank()][..].into())?.expand(&shape)
            }
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

/// Whether the gradients are finite at places that are not seen as well. A matrix product needs no look at all of it: a number of
/// the left factor that is not finite spoils a whole row, one of the right factor a whole column, so one row and one column show it.
pub(super) fn finite_unseen(spec: &Spec, gradients: &[Value]) -> Result<Option<Value>> {
    let mut all: Option<Value> = None;
    for gradient in gradients.iter().filter(|g| places(spec, g.shape()).is_some()) {
        let looked_at = row_and_column(gradient)?.unwrap_or_else(|| vec![gradient.clone()]);
        for part in looked_at {
            let finite = part.sum_all()?.is_finite()?;
            all = Some(match all {
                Some(all) => all.and(&finite)?,
                None => finite,
            });
        }
    }
    Ok(all)
}

/// The first row and the first column of each matrix of a product, which the gradient is in perhaps another arrangement. They are taken
/// of a transposed product as it stands: one that is read both ways would have to be stored the other way.
fn row_and_column(gradient: &Value) -> Result<Option<Vec<Value>>> {
    let (mut value, mut axes) = (gradient.clone(), (0..gradient.shape().rank()).collect::<Vec<_>>());
    let mut seen = gradient.clone();
    while value.op().is_view() && value.payload().is_none() {
        let below = value.inputs()[0].clone();
        match value.op() {
            Op::Permute { axes: order } => axes = (0..axes.len()).map(|axis| axes[place_of(order, axis)]).collect(),
            Op::Alias | Op::StopGradient => {}
            _ => (seen, axes) = (below.clone(), (0..below.shape().rank()).collect()),
        }
        value = below;
    }
    if !matches!(value.op(), Op::Dot) {
        return Ok(None);
    }
    let first = |&axis: &usize| {
        let (rank, mut sizes) = (seen.shape().rank(), seen.shape().to_vec());
        sizes[axis] = sizes[axis].min(1);
        seen.slice(&vec![0; rank], &sizes, &vec![1; rank])
    };
    axes[axes.len() - 2..].iter().map(first).collect::<Result<_>>().map(Some)
}

/// Where an axis has gone.
fn place_of(order: &[usize], axis: usize) -> usize {
    order.iter().position(|&from| from == axis).unwrap_or(axis)
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
    /// The shape of what is seen: columns seen in blocks are an axis of blocks and one of the numbers in them.
    fn shape(&self, whole: &Shape) -> Shape {
        let mut sizes = whole.to_vec();
        sizes[self.rows.axis] = self.rows.seen(whole[self.rows.axis]);
        if let Some(columns) = self.columns {
            sizes[columns.axis] = columns.seen(whole[columns.axis]);
            if columns.block > 1 {
                sizes.insert(columns.axis + 1, columns.block);
            }
        }
        sizes[..].into()
    }

    fn slice(&self, value: &Value) -> Result<Value> {
        let rows = every(value, &self.rows)?;
        let Some(columns) = self.columns else { return Ok(rows) };
        if columns.block == 1 {
            return every(&rows, &columns);
        }
        let mut sizes = rows.shape().to_vec();
        let blocks = sizes[columns.axis] / columns.block;
        sizes[columns.axis] = blocks * columns.block;
        let even = rows.slice(&vec![0; sizes.len()], &sizes, &vec![1; sizes.len()])?;
        sizes[columns.axis] = blocks;
        sizes.insert(columns.axis + 1, columns.block);
        every(&even.reshape(&sizes[..].into())?, &columns)
    }
}

/// Every so many places of an axis.
fn every(value: &Value, &Every { axis, first, step, .. }: &Every) -> Result<Value> {
    let (mut starts, mut steps) = (vec![0; value.shape().rank()], vec![1; value.shape().rank()]);
    (starts[axis], steps[axis]) = (first, step);
    value.slice(&starts, value.shape(), &steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alpha::Rule;
    use raphson_graph::dtype::DType;
    use raphson_graph::flat::{flatten, simplify};
    use raphson_graph::reference::evaluate;

    fn spec(sample: u32) -> Spec {
        Spec { sample, ..Spec::defaults(Rule::Next) }
    }

    /// Positions that are seen of a tensor, in order.
    fn seen(sample: u32, sizes: &[usize]) -> Vec<f64> {
        let shape: Shape = sizes.into();
        let all = Value::iota(&shape, DType::F64, 0).unwrap();
        let strides = (0..sizes.len()).map(|axis| sizes[axis + 1..].iter().product::<usize>());
        let positions = strides.enumerate().fold(all.like(0.0), |sum, (axis, stride)| {
            let along = Value::iota(&shape, DType::F64, axis).unwrap();
            sum.add(&along.scale(stride as f64).unwrap()).unwrap()
        });
        // An input, so that the slices are taken of something that exists.
        let input = Value::input(shape, DType::F64);
        let spec = spec(sample);
        let some = Sampler::new(&spec, []).one(&input).unwrap();
        let zero = zeros(&spec, std::slice::from_ref(&input));
        assert_eq!(some.shape(), zero[0].shape(), "{sizes:?}");
        let run = |inputs: &[Value], output: Value, numbers: &[Vec<f64>]| {
            evaluate(&simplify(&flatten(inputs, &[output]).unwrap().graph), numbers).unwrap().concat()
        };
        let numbers = run(&[], positions, &[]);
        run(&[input], some, &[numbers])
    }

    #[test]
    fn of_a_matrix_some_rows_are_seen_and_some_lines_of_those() {
        let mut want = Vec::new();
        for row in (3..512).step_by(6) {
            for line in [2, 6, 10] {
                want.extend((0..64).map(|i| (row * 784 + line * 64 + i) as f64));
            }
        }
        assert_eq!(seen(64, &[512, 784]), want);
    }

    #[test]
    fn what_is_seen_is_about_a_kth() {
        // Of those in the middle 16,384 numbers.
        let cases: [(&[usize], f64); 7] = [
            (&[512, 512], 16.0),
            (&[384, 128], 8.0),
            (&[128, 512], 8.0),
            (&[10, 5005], 8.0),
            (&[64, 32, 3, 3], 8.0),
            (&[512, 512, 3, 3], 64.0),
            (&[20_000], 8.0),
        ];
        for (sizes, part) in cases {
            let found = seen(64, sizes);
            let all = sizes.iter().product::<usize>() as f64;
            let ratio = all / found.len() as f64;
            assert!((0.7..1.4).contains(&(ratio / part)), "{sizes:?}: 1 of {ratio}");
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]) && found[found.len() - 1] < all, "{sizes:?}");
        }
        assert_eq!(seen(64, &[128, 128]).len(), 128 * 128);
        assert_eq!(seen(1, &[512, 512]).len(), 512 * 512);
    }

    #[test]
    fn elementwise_values_are_computed_at_the_places_only() {
        let sizes: Shape = [80, 800].into();
        let (a, scalar) = (Value::input(sizes.clone(), DType::F64), Value::input(Shape::scalar(), DType::F64));
        let value = a.mul(&scalar).unwrap().add(&a.square().unwrap()).unwrap().shift(1.0).unwrap();
        let spec = spec(64);
        let computed = Sampler::new(&spec, []).one(&value).unwrap();
        let places = places(&spec, &sizes).unwrap();
        let sliced = places.slice(&value).unwrap();
        let graph = simplify(&flatten(&[a, scalar], &[computed.clone(), sliced]).unwrap().graph);
        let numbers = [(0..64_000).map(|i| f64::from(i).sin()).collect(), vec![0.3]];
        let results = evaluate(&graph, &numbers).unwrap();
        assert_eq!(results[0], results[1]);
        // No operand of what is computed is a whole tensor, but for those that are sliced.
        let mut open = vec![computed];
        while let Some(value) = open.pop() {
            if matches!(value.op(), Op::Elementwise(_)) {
                assert!(value.shape().elements() < 64_000);
                open.extend(value.inputs().iter().cloned());
            }
        }
    }
}
