//! Products that are only read transposed. (A·B)ᵀ = Bᵀ·Aᵀ, and a product reads its operands through any strides, so
//! computing the transpose costs nothing, while reading one costs a walk across memory. The weight gradients of a dense
//! layer are of this kind.

use crate::rewrite::{rewrite, uses};
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;

/// The same graph with such products turned round.
pub fn orient_products(graph: &Graph) -> Graph {
    let uses = uses(graph);
    rewrite(graph, |nodes, node, old| {
        if let (Op::Permute { axes }, Some(&input)) = (&old.op, old.inputs.first())
            && swaps_last_two(axes)
            && graph.nodes[input as usize].op == Op::Dot
            && uses[input as usize] == 1
        {
            let factors = nodes[node.inputs[0] as usize].inputs.clone();
            let inputs = factors.iter().rev().map(|&factor| transpose(nodes, factor)).collect();
            return Node { op: Op::Dot, inputs, ..node };
        }
        node
    })
}

fn swaps_last_two(axes: &[usize]) -> bool {
    let rank = axes.len();
    rank >= 2 && axes[rank - 2..] == [rank - 1, rank - 2] && axes[..rank - 2].iter().enumerate().all(|(i, &a)| i == a)
}

fn transpose(nodes: &mut Vec<Node>, of: NodeIndex) -> NodeIndex {
    let node = &nodes[of as usize];
    let rank = node.shape.rank();
    let mut sizes = node.shape.to_vec();
    sizes.swap(rank - 2, rank - 1);
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    let dtype = node.dtype;
    nodes.push(Node { op: Op::Permute { axes }, inputs: vec![of], shape: sizes[..].into(), dtype });
    (nodes.len() - 1) as NodeIndex
}
