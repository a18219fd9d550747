//! One pass over a flat graph in which each node may become others: the frame that passes from graph to graph share. What becomes
//! of a node is each pass's own matter.

use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::work::visiting;

/// Movements that are looked through, one behind the other: transposed, and cut into heads or groups.
pub const MOST_VIEWS: usize = 8;

/// How often each node is read, as an operand or as an output.
pub fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes.len()];
    let read = graph.nodes.iter().flat_map(|node| &node.inputs);
    read.chain(&graph.outputs).for_each(|&input| uses[input as usize] += 1);
    uses
}

/// The graph with each node replaced by what `replace` makes of it: given the nodes so far, to which it may add, the node with
/// its operands among them, and the node as it was.
pub fn rewrite(graph: &Graph, mut replace: impl FnMut(&mut Vec<Node>, Node, &Node) -> Node) -> Graph {
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for old in visiting(&graph.nodes) {
        let mut node = old.clone();
        node.inputs.iter_mut().for_each(|input| *input = new[*input as usize]);
        let node = replace(&mut nodes, node, old);
        nodes.push(node);
        new.push((nodes.len() - 1) as NodeIndex);
    }
    let at = |list: &[NodeIndex]| list.iter().map(|&i| new[i as usize]).collect();
    Graph { inputs: at(&graph.inputs), outputs: at(&graph.outputs), nodes }
}
