//! Products with −x, where x is wanted too: A·(−x) = −(A·x) bit for bit, so only x is stored, and the sign goes to what reads the product.

use crate::rewrite::{MOST_VIEWS, rewrite, uses};
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

/// x, if a node is −x or a view of that, with a few movements between them at most.
fn negated(graph: &Graph, at: NodeIndex) -> Option<NodeIndex> {
    let mut node = &graph.nodes[at as usize];
    for _ in 0..MOST_VIEWS {
        if !matches!(node.op, Op::Reshape | Op::Permute { .. }) {
            break;
        }
        node = &graph.nodes[node.inputs[0] as usize];
    }
    (node.op == Op::Elementwise(&NEG)).then(|| node.inputs[0])
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
