//! Products with −x, where x is wanted too: A·(−x) = −(A·x) bit for bit, so only x is stored, and the sign goes to what reads the product.

use crate::rewrite::{rewrite, uses};
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::elementwise::NEG;

/// The same graph with such signs behind their products.
pub fn move_signs(graph: &Graph) -> Graph {
    let uses = uses(graph);
    rewrite(graph, |nodes, node, old| {
        if !matches!(old.op, Op::Dot | Op::Conv { .. }) {
            return node;
        }
        let negated = (0..2).find(|&i| negated(graph, old.inputs[i]).is_some_and(|x| uses[x as usize] > 1));
        let Some(i) = negated else { return node };
        let mut inputs = node.inputs.clone();
        inputs[i] = without_sign(nodes, inputs[i]);
        nodes.push(Node { inputs, ..node.clone() });
        Node { op: Op::Elementwise(&NEG), inputs: vec![(nodes.len() - 1) as NodeIndex], ..node }
    })
}

/// x, if a node is a view of −x.
fn negated(graph: &Graph, at: NodeIndex) -> Option<NodeIndex> {
    let node = &graph.nodes[at as usize];
    match node.op {
        Op::Elementwise(row) if *row == NEG => Some(node.inputs[0]),
        Op::Reshape | Op::Permute { .. } => negated(graph, node.inputs[0]),
        _ => None,
    }
}

/// The same view of x.
fn without_sign(nodes: &mut Vec<Node>, at: NodeIndex) -> NodeIndex {
    let node = nodes[at as usize].clone();
    if let Op::Elementwise(_) = node.op {
        return node.inputs[0];
    }
    let input = without_sign(nodes, node.inputs[0]);
    nodes.push(Node { inputs: vec![input], ..node });
    (nodes.len() - 1) as NodeIndex
}
