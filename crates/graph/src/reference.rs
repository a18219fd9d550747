//! The reference: evaluates a flat graph element by element in f64, plainly and slowly. Every device is held against
//! it. Values of every dtype are exact in f64, but for i64 beyond 2⁵³; float results are not rounded to their dtype, so that
//! they can be differentiated numerically.

use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::flat::{Graph, Node};
use crate::op::Op;
use crate::op::conv::{LEADING, Window};
use crate::op::reduce::ReduceOp;
use crate::shape::Shape;

/// All outputs of `graph`, row-major, for inputs given row-major.
pub fn evaluate(graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
    for (position, node) in graph.nodes.iter().enumerate() {
        let value = match node.op {
            Op::Input => {
                let which = graph.inputs.iter().position(|&i| i as usize == position);
                which
                    .and_then(|i| inputs.get(i))
                    .cloned()
                    .ok_or_else(|| Error::internal("reference", "missing input"))?
            }
            _ => {
                let x: Vec<&[f64]> = node.inputs.iter().map(|&i| &values[i as usize][..]).collect();
                let of: Vec<&Node> = node.inputs.iter().map(|&i| &graph.nodes[i as usize]).collect();
                compute(node, &of, &x)?
            }
        };
        values.push(value);
    }
    Ok(graph.outputs.iter().map(|&i| values[i as usize].clone()).collect())
}

/// Every index of a shape, in row-major order.
pub fn indices(shape: &Shape) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..shape.elements()).map(|mut flat| {
        let mut index = vec![0; shape.rank()];
        for axis in (0..shape.rank()).rev() {
            index[axis] = flat % shape[axis];
            flat /= shape[axis];
        }
        index
    })
}

fn offset(shape: &Shape, index: &[usize]) -> usize {
    index.iter().zip(shape.iter()).fold(0, |sum, (&i, &size)| sum * size + i)
}

fn compute(node: &Node, of: &[&Node], x: &[&[f64]]) -> Result<Vec<f64>> {
    // The element of operand 0 at an index computed from the result's index.
    let pick = |from: &dyn Fn(&[usize]) -> Vec<usize>| -> Vec<f64> {
        indices(&node.shape).map(|index| x[0][offset(&of[0].shape, &from(&index))]).collect()
    };
    Ok(match &node.op {
        Op::Input => return Err(Error::internal("reference", "an input has no operands")),
        Op::Constant(value) => vec![value.to_f64(); node.shape.elements()],
        Op::Iota { axis } => indices(&node.shape).map(|index| index[*axis] as f64).collect(),
        Op::Alias | Op::StopGradient | Op::Reshape => x[0].to_vec(),
        Op::Elementwise(row) => {
            let dtype = of[of.len() - 1].dtype;
            let at = |i: usize| x.iter().map(|x| x[i]).collect::<Vec<_>>();
            (0..node.shape.elements()).map(|i| (row.reference)(&at(i), dtype)).collect()
        }
        Op::Cast => x[0].iter().map(|&value| cast(value, of[0].dtype, node.dtype)).collect(),
        Op::Permute { axes } => pick(&|index| {
            let mut from = vec![0; axes.len()];
            axes.iter().zip(index).for_each(|(&axis, &i)| from[axis] = i);
            from
        }),
        Op::Expand => pick(&|index| {
            let sizes = of[0].shape.iter();
            index.iter().zip(sizes).map(|(&i, &size)| if size == 1 { 0 } else { i }).collect()
        }),
        Op::Slice { start, step } => pick(&|index| (0..index.len()).map(|a| start[a] + index[a] * step[a]).collect()),
        Op::Flip { axes } => pick(&|index| {
            let flipped =
                |axis: usize| if axes.contains(&axis) { node.shape[axis] - 1 - index[axis] } else { index[axis] };
            (0..index.len()).map(flipped).collect()
        }),
        Op::Pad { low, interior, .. } => {
            let mut out = vec![0.0; node.shape.elements()];
            for (index, &value) in indices(&of[0].shape).zip(x[0]) {
                let to: Vec<usize> = (0..index.len()).map(|a| low[a] + index[a] * (interior[a] + 1)).collect();
                out[offset(&node.shape, &to)] = value;
            }
            out
        }
        Op::Concatenate { axis } => {
            let (mut out, mut base) = (vec![0.0; node.shape.elements()], 0);
            for (x, of) in x.iter().zip(of) {
                for (mut index, &value) in indices(&of.shape).zip(*x) {
                    index[*axis] += base;
                    out[offset(&node.shape, &index)] = value;
                }
                base += of.shape[*axis];
            }
            out
        }
        Op::Reduce { op, axes } => reduce(*op, axes, node, of[0], x[0]),
        Op::Dot => dot(node, of, x),
        Op::Conv { windows } => conv(windows, node, of, x),
        Op::Gather { axis } => gather(*axis, node, of, x)?,
        Op::ScatterAdd { axis } => scatter_add(*axis, node, of, x)?,
        Op::Argsort { descending } => argsort(*descending, node, x[0]),
    })
}

/// Conversion as documented on `Prim::Cast`.
pub fn cast(value: f64, from: DType, to: DType) -> f64 {
    match to {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => value,
        DType::Bool => f64::from(u8::from(value != 0.0)),
        DType::I64 => value as i64 as f64,
        // Between integers the low bits stay.
        DType::I32 if from.is_integer() => f64::from(value as i64 as i32),
        DType::U32 if from.is_integer() => f64::from(value as i64 as u32),
        DType::U8 if from.is_integer() => f64::from(value as i64 as u8),
        DType::I32 => f64::from(value as i32),
        DType::U32 => f64::from(value as u32),
        DType::U8 => f64::from(value as u8),
    }
}

/// What a reduction over no elements gives.
pub fn identity(op: ReduceOp, dtype: DType) -> f64 {
    match (op, dtype) {
        (ReduceOp::Sum | ReduceOp::ArgMax, _) => 0.0,
        (ReduceOp::Prod, _) => 1.0,
        (ReduceOp::Max, DType::I32) => f64::from(i32::MIN),
        (ReduceOp::Max, DType::I64) => i64::MIN as f64,
        (ReduceOp::Max, DType::U32 | DType::U8 | DType::Bool) => 0.0,
        (ReduceOp::Max, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => f64::NEG_INFINITY,
        (ReduceOp::Min, DType::I32) => f64::from(i32::MAX),
        (ReduceOp::Min, DType::U32) => f64::from(u32::MAX),
        (ReduceOp::Min, DType::I64) => i64::MAX as f64,
        (ReduceOp::Min, DType::U8) => f64::from(u8::MAX),
        (ReduceOp::Min, DType::Bool) => 1.0,
        (ReduceOp::Min, DType::F32 | DType::F64 | DType::F16 | DType::BF16) => f64::INFINITY,
    }
}

fn reduce(op: ReduceOp, axes: &[usize], node: &Node, of: &Node, x: &[f64]) -> Vec<f64> {
    let mut out = vec![identity(op, of.dtype); node.shape.elements()];
    let mut best: Vec<Option<f64>> = vec![None; out.len()];
    let mut count = vec![0usize; out.len()];
    for (index, &value) in indices(&of.shape).zip(x) {
        let kept: Vec<usize> = (0..index.len()).filter(|axis| !axes.contains(axis)).map(|axis| index[axis]).collect();
        let at = offset(&node.shape, &kept);
        let pair = [out[at], value];
        out[at] = match op {
            ReduceOp::Sum => (crate::op::elementwise::ADD.reference)(&pair, of.dtype),
            ReduceOp::Prod => (crate::op::elementwise::MUL.reference)(&pair, of.dtype),
            ReduceOp::Max => (crate::op::elementwise::MAXIMUM.reference)(&pair, of.dtype),
            ReduceOp::Min => (crate::op::elementwise::MINIMUM.reference)(&pair, of.dtype),
            ReduceOp::ArgMax => {
                let better = best[at].is_none_or(|best| !best.is_nan() && (value > best || value.is_nan()));
                if better {
                    best[at] = Some(value);
                }
                if better { count[at] as f64 } else { out[at] }
            }
        };
        count[at] += 1;
    }
    out
}

fn dot(node: &Node, of: &[&Node], x: &[&[f64]]) -> Vec<f64> {
    let rank = node.shape.rank();
    let k = of[0].shape[rank - 1];
    indices(&node.shape)
        .map(|index| {
            let (batch, row, column) = (&index[..rank - 2], index[rank - 2], index[rank - 1]);
            // Integers wrap at each step: their exact sum may not fit an f64.
            (0..k).fold(0.0, |sum, i| {
                let left = x[0][offset(&of[0].shape, &[batch, &[row, i]].concat())];
                let right = x[1][offset(&of[1].shape, &[batch, &[i, column]].concat())];
                let product = (crate::op::elementwise::MUL.reference)(&[left, right], node.dtype);
                (crate::op::elementwise::ADD.reference)(&[sum, product], node.dtype)
            })
        })
        .collect()
}

/// The sum over channels and taps, as `Value::conv` defines it.
fn conv(windows: &[Window], node: &Node, of: &[&Node], x: &[&[f64]]) -> Vec<f64> {
    let (data, kernel) = (&of[0].shape, &of[1].shape);
    let taps: Vec<Vec<usize>> = indices(&kernel[LEADING..].into()).collect();
    let output = |index: Vec<usize>| {
        let (batch, group, out) = (index[0], index[1], index[2]);
        let y = &index[LEADING..];
        let mut sum = 0.0;
        for channel in 0..data[2] {
            for t in &taps {
                let meets = |axis: usize| windows[axis].meets(y[axis], t[axis], data[LEADING + axis]);
                let Some(at) = (0..windows.len()).map(meets).collect::<Option<Vec<usize>>>() else { continue };
                let left = x[0][offset(data, &[&[batch, group, channel], &at[..]].concat())];
                let right = x[1][offset(kernel, &[&[group, out, channel], &t[..]].concat())];
                // Integers wrap at each step: their exact sum may not fit an f64.
                let product = (crate::op::elementwise::MUL.reference)(&[left, right], node.dtype);
                sum = (crate::op::elementwise::ADD.reference)(&[sum, product], node.dtype);
            }
        }
        sum
    };
    indices(&node.shape).map(output).collect()
}

/// Positions along `axis` named by the indices, checked.
fn positions(op: &str, indices: &[f64], size: usize) -> Result<Vec<usize>> {
    let check = |(at, &index): (usize, &f64)| {
        if index >= 0.0 && (index as usize) < size {
            return Ok(index as usize);
        }
        Err(Error::new(Code::Index, op, format!("index {index} at position {at} is outside an axis of size {size}")))
    };
    indices.iter().enumerate().map(check).collect()
}

fn argsort(descending: bool, node: &Node, x: &[f64]) -> Vec<f64> {
    let length = node.shape[node.shape.rank() - 1];
    let row = |row: &[f64]| {
        let mut positions: Vec<usize> = (0..length).collect();
        positions.sort_by(|&a, &b| crate::op::argsort::order(row[a], row[b], descending));
        positions.into_iter().map(|position| position as f64).collect::<Vec<f64>>()
    };
    x.chunks(length.max(1)).flat_map(row).collect()
}

fn gather(axis: usize, node: &Node, of: &[&Node], x: &[&[f64]]) -> Result<Vec<f64>> {
    let positions = positions("gather", x[1], of[0].shape[axis])?;
    let n = of[1].shape.rank();
    let from = |index: Vec<usize>| {
        let j = positions[offset(&of[1].shape, &index[axis..axis + n])];
        x[0][offset(&of[0].shape, &[&index[..axis], &[j], &index[axis + n..]].concat())]
    };
    Ok(indices(&node.shape).map(from).collect())
}

fn scatter_add(axis: usize, node: &Node, of: &[&Node], x: &[&[f64]]) -> Result<Vec<f64>> {
    let positions = positions("scatterAdd", x[1], node.shape[axis])?;
    let n = of[1].shape.rank();
    let mut out = vec![0.0; node.shape.elements()];
    for (index, &value) in indices(&of[0].shape).zip(x[0]) {
        let j = positions[offset(&of[1].shape, &index[axis..axis + n])];
        let at = offset(&node.shape, &[&index[..axis], &[j], &index[axis + n..]].concat());
        out[at] = (crate::op::elementwise::ADD.reference)(&[out[at], value], node.dtype);
    }
    Ok(out)
}
