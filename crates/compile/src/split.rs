//! Long reductions in two steps. A sum over a whole tensor has one result, so nothing to run in parallel; summing the
//! trailing axes first leaves partial results for many threads (or thread blocks), and a short second sum. How a
//! reduction is split depends on its shape alone, so results do not depend on the device's width.

use crate::rewrite::rewrite;
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::reduce::{ReduceOp, without_axes};
use raphson_graph::shape::Shape;

/// Reductions of at least this many elements to fewer than `FEW_RESULTS` are split.
const LONG: usize = 16 * 1024;
const FEW_RESULTS: usize = 64;
/// The least length of a partial reduction.
const PARTIAL: usize = 256;
/// The length of a partial reduction of one long axis.
const CHUNK: usize = 4096;
/// Sums down columns at least so long are cut into this many parts, if there are fewer than so many columns: each part then reads whole
/// rows, where a share of the columns would jump from row to row.
const LONG_COLUMN: usize = 2048;
const COLUMN_PARTS: usize = 8;
const FEW_COLUMNS: usize = 8192;

/// The same graph with long reductions in two steps.
pub fn split_reductions(graph: &Graph) -> Graph {
    rewrite(graph, |nodes, mut node, old| {
        if let Op::Reduce { op, axes } = &old.op
            && *op != ReduceOp::ArgMax
        {
            match node.shape.elements() {
                results if results < FEW_RESULTS => partial(nodes, &mut node, *op, axes),
                results if results < FEW_COLUMNS => column_parts(nodes, &mut node, *op, axes),
                _ => {}
            }
        }
        node
    })
}

/// Push the first of two reductions along leading axes and let `node` be the second, if they are long.
fn column_parts(nodes: &mut Vec<Node>, node: &mut Node, op: ReduceOp, axes: &[usize]) {
    let operand = nodes[node.inputs[0] as usize].shape.clone();
    let leading = (0..axes.len()).eq(axes.iter().copied());
    let length: usize = operand[..axes.len()].iter().product();
    if !leading || length < LONG_COLUMN || !operand[0].is_multiple_of(COLUMN_PARTS) {
        return;
    }
    let mut sizes = operand.to_vec();
    sizes.splice(0..1, [COLUMN_PARTS, operand[0] / COLUMN_PARTS]);
    let mut push = |op: Op, input: NodeIndex, shape: Shape| {
        nodes.push(Node { op, inputs: vec![input], shape, dtype: node.dtype });
        (nodes.len() - 1) as NodeIndex
    };
    let cut = push(Op::Reshape, node.inputs[0], sizes[..].into());
    let inner: Vec<usize> = (1..=axes.len()).collect();
    let parts = without_axes(&sizes[..].into(), &inner);
    node.inputs = vec![push(Op::Reduce { op, axes: inner }, cut, parts)];
    node.op = Op::Reduce { op, axes: vec![0] };
}

/// Push the first of two reductions and let `node` be the second, where that pays.
fn partial(nodes: &mut Vec<Node>, node: &mut Node, op: ReduceOp, axes: &[usize]) {
    let operand = nodes[node.inputs[0] as usize].shape.clone();
    let length = |axes: &[usize]| axes.iter().map(|&axis| operand[axis]).product::<usize>();
    if length(axes) < LONG {
        return;
    }
    // The fewest trailing axes that make a partial reduction long enough.
    let first = (1..axes.len()).rev().find(|&first| length(&axes[first..]) >= PARTIAL);
    let (shape, inner) = match first {
        Some(first) => (operand, axes[first..].to_vec()),
        None => {
            // One axis holds nearly everything: cut it into chunks.
            let Some(&axis) = axes.iter().max_by_key(|&&axis| operand[axis]) else { return };
            if operand[axis] < LONG || !operand[axis].is_multiple_of(CHUNK) {
                return;
            }
            let mut sizes = operand.to_vec();
            sizes.splice(axis..=axis, [operand[axis] / CHUNK, CHUNK]);
            let shape: Shape = sizes[..].into();
            let reshape =
                Node { op: Op::Reshape, inputs: node.inputs.clone(), shape: shape.clone(), dtype: node.dtype };
            nodes.push(reshape);
            node.inputs = vec![(nodes.len() - 1) as NodeIndex];
            (shape, vec![axis + 1])
        }
    };
    let all: Vec<usize> = if first.is_some() {
        axes.to_vec()
    } else {
        let cut = inner[0] - 1;
        let mut all: Vec<usize> = axes.iter().map(|&axis| if axis > cut { axis + 1 } else { axis }).collect();
        all.push(cut + 1);
        all.sort_unstable();
        all
    };
    let partial = without_axes(&shape, &inner);
    // Axes that are left to reduce, as numbered in the partial result.
    let rest = all
        .iter()
        .filter(|axis| !inner.contains(axis))
        .map(|&axis| axis - inner.iter().filter(|&&gone| gone < axis).count())
        .collect();
    let op_inner = Op::Reduce { op, axes: inner };
    nodes.push(Node { op: op_inner, inputs: node.inputs.clone(), shape: partial, dtype: node.dtype });
    node.inputs = vec![(nodes.len() - 1) as NodeIndex];
    node.op = Op::Reduce { op, axes: rest };
}
