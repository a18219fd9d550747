//! Sums of pads that do not meet, as in the gradient of pooling: each element of the sum is an element of one pad, or zero, so the sum
//! is one buffer to which all parts are written. This file finds them in a flat graph; `lower` makes one node of each.

use crate::rewrite::uses;
use raphson_graph::flat::{Graph, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::work::visiting;
use std::collections::{HashMap, HashSet};

/// More parts than this stay a sum of sums.
const MOST_PARTS: usize = 16;

/// Where the operand of a pad lies in it, axis by axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub low: Vec<usize>,
    pub interior: Vec<usize>,
}

/// The sums of a graph.
#[derive(Default)]
pub struct Sums {
    /// The pads that make up each sum.
    pub pads: HashMap<NodeIndex, Vec<NodeIndex>>,
    /// Pads and sums that only a larger sum reads.
    pub absorbed: HashSet<NodeIndex>,
}

/// Find the sums of pads that do not meet and that nobody else reads.
pub fn sums(graph: &Graph) -> Sums {
    let uses = uses(graph);
    let mut found = Sums::default();
    for (index, node) in visiting(graph.nodes.iter().enumerate()) {
        let adds = matches!(&node.op, Op::Elementwise(row) if row.name == "add");
        if !adds || node.inputs[0] == node.inputs[1] {
            continue;
        }
        let parts_of = |input: NodeIndex| match graph.nodes[input as usize].op {
            _ if uses[input as usize] != 1 => None,
            Op::Pad { .. } => Some(vec![input]),
            _ => found.pads.get(&input).cloned(),
        };
        let (Some(left), Some(right)) = (parts_of(node.inputs[0]), parts_of(node.inputs[1])) else { continue };
        let apart = left.iter().all(|&a| right.iter().all(|&b| apart(graph, a, b)));
        if apart && left.len() + right.len() <= MOST_PARTS {
            found.absorbed.extend(&node.inputs);
            node.inputs.iter().for_each(|input| drop(found.pads.remove(input)));
            found.pads.insert(index as NodeIndex, [left, right].concat());
        }
    }
    found
}

/// Whether the operands of two pads of one shape meet nowhere: along some axis they take turns, or one ends before the other begins.
fn apart(graph: &Graph, a: NodeIndex, b: NodeIndex) -> bool {
    let (Some((a, a_shape)), Some((b, b_shape))) = (part(graph, a), part(graph, b)) else { return false };
    (0..a_shape.len()).any(|axis| {
        let (step, other) = (a.interior[axis] + 1, b.interior[axis] + 1);
        let (first, second) = (a.low[axis], b.low[axis]);
        let end = |low: usize, step: usize, n: usize| low + (n.max(1) - 1) * step;
        let turns = step == other && first % step != second % step;
        turns || end(first, step, a_shape[axis]) < second || end(second, other, b_shape[axis]) < first
    })
}

/// A pad, and the shape of its operand.
pub fn part(graph: &Graph, pad: NodeIndex) -> Option<(Part, Vec<usize>)> {
    let node = &graph.nodes[pad as usize];
    let Op::Pad { low, interior, .. } = &node.op else { return None };
    let shape = graph.nodes[node.inputs[0] as usize].shape.to_vec();
    Some((Part { low: low.clone(), interior: interior.clone() }, shape))
}
