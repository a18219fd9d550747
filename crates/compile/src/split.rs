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

/// The same graph with long reductions in two steps.
pub fn split_reductions(graph: &Graph) -> Graph {
    rewrite(graph, |nodes, mut node, old| {
        if let Op::Reduce { op, axes } = &old.op
            && *op != ReduceOp::ArgMax
            && node.shape.elements() < FEW_RESULTS
        {
            partial(nodes, &mut node, *op, axes);
        }
        node
    })
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
