//! Products summed over their batch, as one product: Σ_b A_b·B_b = [A_1 A_2 …]·[B_1; B_2; …]. So a weight's gradient is
//! summed inside the product, and neither stored for each batch entry nor added up afterwards. (Batches that share an operand are
//! merged where accesses are known, in `lower`.)

use crate::rewrite::{rewrite, uses};
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::shape::Shape;

/// The same graph with such sums inside their products.
pub fn fold_sums(graph: &Graph) -> Graph {
    let uses = uses(graph);
    rewrite(graph, |nodes, mut node, old| {
        if let (Op::Reduce { op: ReduceOp::Sum, axes }, Some(&input)) = (&old.op, old.inputs.first())
            && uses[input as usize] == 1
            && let product = &graph.nodes[input as usize]
            && product.op == Op::Dot
            && (0..product.shape.rank() - 2).eq(axes.iter().copied())
            && !product.inputs.iter().any(|&factor| graph.nodes[factor as usize].op == Op::Expand)
        {
            let factors = nodes[node.inputs[0] as usize].inputs.clone();
            node.inputs = vec![beside(nodes, factors[0]), below(nodes, factors[1])];
            node.op = Op::Dot;
        }
        node
    })
}

fn push(nodes: &mut Vec<Node>, op: Op, of: NodeIndex, sizes: &[usize]) -> NodeIndex {
    let dtype = nodes[of as usize].dtype;
    nodes.push(Node { op, inputs: vec![of], shape: Shape::from(sizes), dtype });
    (nodes.len() - 1) as NodeIndex
}

/// [b…, m, k] → [m, b…·k]: the matrices side by side.
fn beside(nodes: &mut Vec<Node>, of: NodeIndex) -> NodeIndex {
    let sizes = nodes[of as usize].shape.to_vec();
    let (last, m) = (sizes.len() - 1, sizes[sizes.len() - 2]);
    let axes: Vec<usize> = [last - 1].into_iter().chain(0..last - 1).chain([last]).collect();
    let moved: Vec<usize> = axes.iter().map(|&axis| sizes[axis]).collect();
    let moved = push(nodes, Op::Permute { axes }, of, &moved);
    let wide = sizes.iter().enumerate().filter(|&(axis, _)| axis != last - 1).map(|(_, &size)| size).product();
    push(nodes, Op::Reshape, moved, &[m, wide])
}

/// [b…, k, n] → [b…·k, n]: the matrices one below the other.
fn below(nodes: &mut Vec<Node>, of: NodeIndex) -> NodeIndex {
    let sizes = nodes[of as usize].shape.to_vec();
    let (rows, n) = sizes.split_at(sizes.len() - 1);
    push(nodes, Op::Reshape, of, &[rows.iter().product(), n[0]])
}
