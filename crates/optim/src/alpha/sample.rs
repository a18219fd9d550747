//! The places of tensors that traces and inner products look at. Small tensors are seen whole; of large ones every k-th
//! row, which is enough to compare slopes (both sides of the comparison see the same places) and costs a k-th. Rows of a layer's matrix
//! are its neurons, which are alike; its columns may be features of the data, which are not.

use super::Spec;
use super::measure::inner;
use raphson_graph::error::Result;
use raphson_graph::op::reduce::ReduceOp;
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
/// to the tensors that exist anyway. So are products that are larger than their factors: the few rows are multiplied again, and
/// all of the product may wait until it is used.
pub(super) struct Sampler<'a> {
    spec: &'a Spec,
    /// Tensors that exist anyway.
    existing: HashSet<u64>,
    /// What is seen of values, by the axis along which.
    known: HashMap<(u64, usize), Value>,
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
        let key = (value.id(), places.axis);
        if let Some(found) = self.known.get(&key) {
            return Ok(found.clone());
        }
        let found = if self.existing.contains(&value.id()) || value.payload().is_some() {
            places.slice(value)?
        } else {
            self.computed_at(value, places)?
        };
        self.known.insert(key, found.clone());
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
            Op::Alias | Op::StopGradient => self.at(&operands[0], places),
            Op::Permute { axes } => {
                let below = Places { axis: axes[places.axis], ..places.clone() };
                self.at(&operands[0], &below)?.permute(axes)
            }
            Op::Dot => match factor(value, places.axis) {
                Some(of) => {
                    let mut factors = operands.clone();
                    factors[of] = places.slice(&factors[of])?;
                    factors[0].dot(&factors[1])
                }
                None => places.slice(value),
            },
            _ => places.slice(value),
        }
    }
}

/// Of a product that is larger than its factors: which of them an axis belongs to. It has the same number there.
fn factor(product: &Value, axis: usize) -> Option<usize> {
    let [left, right] = &product.inputs()[..] else { return None };
    let elements = |value: &Value| value.shape().elements();
    let of = (axis + 2).checked_sub(product.shape().rank())?;
    (elements(left) + elements(right) <= elements(product)).then_some(of)
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
/// Of one that is larger than its factors nothing is looked at: what is seen is whole rows or columns of it, which leaves one factor,
/// and nothing where a sum of that is a gradient too (a bias's).
pub(super) fn finite_unseen(spec: &Spec, gradients: &[Value]) -> Result<Option<Value>> {
    let mut all: Option<Value> = None;
    for gradient in gradients {
        let Some(places) = places(spec, gradient.shape()) else { continue };
        for part in looked_at(gradient, places.axis)?.into_iter().filter(|part| !is_summed(spec, gradients, part)) {
            let finite = part.sum_all()?.is_finite()?;
            all = Some(match all {
                Some(all) => all.and(&finite)?,
                None => finite,
            });
        }
    }
    Ok(all)
}

/// What shows whether a gradient that is seen at places of an axis is finite. The first row and column of a product are taken
/// of a transposed product as it stands: one that is read both ways would have to be stored the other way. A sum of products over a
/// batch is as good as one.
fn looked_at(gradient: &Value, axis: usize) -> Result<Vec<Value>> {
    // For each axis of the value its axis in what is seen; none of those that a sum has taken.
    let (mut value, mut axes) = (gradient.clone(), (0..gradient.shape().rank()).map(Some).collect::<Vec<_>>());
    let mut seen = gradient.clone();
    let mut axis = Some(axis);
    while value.payload().is_none() {
        let Some(below) = value.inputs().first().cloned() else { break };
        let all = || (0..below.shape().rank()).map(Some).collect::<Vec<_>>();
        match value.op() {
            Op::Permute { axes: order } => {
                axes = (0..axes.len()).map(|axis| axes[place_of(order, axis)]).collect();
                axis = axis.map(|axis| order[axis]);
            }
            Op::Alias | Op::StopGradient => {}
            Op::Reduce { op: ReduceOp::Sum, axes: summed } => {
                let mut rest = axes.into_iter();
                let each = |below: usize| if summed.contains(&below) { None } else { rest.next().flatten() };
                (axes, axis) = ((0..below.shape().rank()).map(each).collect(), None);
            }
            op if op.is_view() => (seen, axes, axis) = (below.clone(), all(), None),
            _ => break,
        }
        value = below;
    }
    if !matches!(value.op(), Op::Dot) {
        return Ok(vec![gradient.clone()]);
    }
    if let Some(of) = axis.and_then(|axis| factor(&value, axis)) {
        return Ok(vec![value.inputs()[of].clone()]);
    }
    let first = |axis: usize| {
        let (rank, mut sizes) = (seen.shape().rank(), seen.shape().to_vec());
        sizes[axis] = sizes[axis].min(1);
        seen.slice(&vec![0; rank], &sizes, &vec![1; rank])
    };
    match axes[axes.len() - 2..] {
        [Some(rows), Some(columns)] => [rows, columns].into_iter().map(first).collect(),
        _ => Ok(vec![gradient.clone()]),
    }
}

/// Whether a sum of what this is a view of is a gradient that is seen whole.
fn is_summed(spec: &Spec, gradients: &[Value], part: &Value) -> bool {
    let sums = |gradient: Value| {
        let sum = matches!(gradient.op(), Op::Reduce { op: ReduceOp::Sum, .. }) && gradient.payload().is_none();
        sum && viewed(&gradient.inputs()[0]).id() == viewed(part).id()
    };
    gradients.iter().any(|gradient| places(spec, gradient.shape()).is_none() && sums(viewed(gradient)))
}

/// What this value is a view of, all of it.
fn viewed(value: &Value) -> Value {
    let mut value = value.clone();
    while matches!(value.op(), Op::Permute { .. } | Op::Alias | Op::StopGradient | Op::Reshape)
        && value.payload().is_none()
    {
        value = value.inputs()[0].clone();
    }
    value
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
    fn of_a_matrix_some_rows_are_seen() {
        let rows = |first: usize, step: usize| {
            (first..512).step_by(step).flat_map(|row| (0..784).map(move |i| (row * 784 + i) as f64)).collect::<Vec<_>>()
        };
        assert_eq!(seen(32, &[512, 784]), rows(16, 32));
        // At least eight of them.
        assert_eq!(seen(1000, &[512, 784]), rows(32, 64));
        assert_eq!(seen(1, &[512, 784]), rows(0, 1));
    }

    #[test]
    fn axes_that_are_short_are_left_to_the_next() {
        let cases: [(&[usize], usize); 5] = [
            (&[10, 5008], 10 * 5008 / 32),
            (&[64, 32, 3, 3], 8 * 32 * 9),
            (&[512, 512, 3, 3], 16 * 512 * 9),
            (&[20_480], 20_480 / 32),
            (&[128, 128], 128 * 128),
        ];
        for (sizes, count) in cases {
            let found = seen(32, sizes);
            assert!(found.len().abs_diff(count) <= 10, "{sizes:?}: {}", found.len());
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
        }
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

    #[test]
    fn of_products_that_are_larger_than_their_factors_the_rows_that_are_seen_are_multiplied() {
        let input = |sizes: [usize; 2]| Value::input(Shape::from(sizes), DType::F64);
        let (left, right) = (input([200, 5]), input([5, 300]));
        let product = left.dot(&right).unwrap();
        let spec = spec(64);
        // Rows of the left factor, and of the transposed product columns of the right one; and a factor of it all.
        let values = [product.clone(), product.permute(&[1, 0]).unwrap(), product.scale(3.0).unwrap()];
        let seen = Sampler::new(&spec, []).all(&values).unwrap();
        let sliced = values.clone().map(|value| places(&spec, value.shape()).unwrap().slice(&value).unwrap());
        let graph = flatten(&[left.clone(), right.clone()], &[&seen[..], &sliced].concat()).unwrap().graph;
        let numbers = [1000, 1500].map(|n| (0..n).map(|i| f64::from(i).sin()).collect());
        let results = evaluate(&simplify(&graph), &numbers).unwrap();
        for (seen, sliced) in results[..3].iter().zip(&results[3..]) {
            assert_eq!(seen, sliced);
        }
        // One that is smaller than its factors is not: there it is the product that is looked at.
        let mut open = seen;
        while let Some(value) = open.pop() {
            assert!(value.shape().elements() < 60_000);
            open.extend(value.inputs().iter().cloned());
        }
        let small = input([200, 400]).dot(&input([400, 200])).unwrap();
        assert_eq!(Sampler::new(&spec, []).one(&small).unwrap().inputs()[0].id(), small.id());
    }

    #[test]
    fn numbers_that_are_not_finite_are_found_wherever_they_are() {
        let input = |sizes: &[usize]| Value::input(Shape::from(sizes), DType::F64);
        let (x, delta) = (input(&[5, 300]), input(&[5, 200]));
        let weights = delta.permute(&[1, 0]).unwrap().dot(&x).unwrap();
        let bias = delta.sum(&[0]).unwrap();
        let spec = spec(64);
        for gradients in [vec![weights.clone()], vec![weights.clone(), bias], vec![weights.scale(0.5).unwrap()]] {
            // What the rule asks: n, of all that is seen, and what is not.
            let seen = Sampler::new(&spec, []).all(&gradients).unwrap();
            let n = inner_sampled(&spec, &gradients, &seen, &seen).unwrap().is_finite().unwrap();
            let unseen = finite_unseen(&spec, &gradients).unwrap();
            let finite = unseen.map_or(n.clone(), |unseen| n.and(&unseen).unwrap());
            let graph = simplify(&flatten(&[x.clone(), delta.clone()], &[finite]).unwrap().graph);
            let on = |x: Option<usize>, delta: Option<usize>, number: f64| {
                let numbers =
                    |n: usize, at: Option<usize>| (0..n).map(|i| if Some(i) == at { number } else { 0.01 }).collect();
                evaluate(&graph, &[numbers(1500, x), numbers(1000, delta)]).unwrap()[0][0] == 1.0
            };
            assert!(on(None, None, 0.0));
            for (number, at) in [f64::NAN, f64::INFINITY]
                .into_iter()
                .flat_map(|number| (0..1000).step_by(37).map(move |at| (number, at)))
            {
                assert!(!on(Some(at), None, number), "{number} at {at} of x");
                assert!(!on(None, Some(at), number), "{number} at {at} of delta");
            }
        }
    }
}
