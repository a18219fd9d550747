//! Products that are only read transposed. (A·B)ᵀ = Bᵀ·Aᵀ, and a product reads its operands through any strides, so
//! computing the transpose costs nothing, while reading one costs a walk across memory. The weight gradients of a dense
//! layer are of this kind.

use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::work::visiting;

/// The same graph with such products turned round.
pub fn orient_products(graph: &Graph) -> Graph {
    let mut uses = vec![0usize; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|&input| uses[input as usize] += 1);
    graph.outputs.iter().for_each(|&output| uses[output as usize] += 1);
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for node in visiting(&graph.nodes) {
        let mut oriented = node.clone();
        oriented.inputs.iter_mut().for_each(|input| *input = new[*input as usize]);
        if let (Op::Permute { axes }, Some(&input)) = (&node.op, node.inputs.first())
            && swaps_last_two(axes)
            && graph.nodes[input as usize].op == Op::Dot
            && uses[input as usize] == 1
        {
            let factors = nodes[new[input as usize] as usize].inputs.clone();
            let transposed: Vec<NodeIndex> =
                factors.iter().rev().map(|&factor| transpose(&mut nodes, factor)).collect();
            oriented = Node { op: Op::Dot, inputs: transposed, ..oriented };
        }
        nodes.push(oriented);
        new.push((nodes.len() - 1) as NodeIndex);
    }
    let at = |list: &[NodeIndex]| list.iter().map(|&i| new[i as usize]).collect();
    Graph { inputs: at(&graph.inputs), outputs: at(&graph.outputs), nodes }
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
