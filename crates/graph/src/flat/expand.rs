//! Ops that carry their expansion (attention), replaced by it where a device has no kernel of its own for them.

use super::{Graph, Node, NodeIndex, flatten};
use crate::error::Result;
use crate::op::{Op, attention};
use crate::value::Value;

/// The expansion of a node on operands like `of`, as a graph with those as its inputs; `None` for a plain op.
pub fn expansion_of(node: &Node, of: &[&Node]) -> Result<Option<Graph>> {
    if !matches!(node.op, Op::Attention(_) | Op::AttentionVjp(_)) {
        return Ok(None);
    }
    let x: Vec<Value> = of.iter().map(|of| Value::input(of.shape.clone(), of.dtype)).collect();
    let expansion = attention::expand(&node.op, &x).transpose()?;
    expansion.map(|expansion| Ok(flatten(&x, &[expansion])?.graph)).transpose()
}

/// The same graph with expansions in place of those nodes that `keeps` does not name.
pub fn expand(graph: &Graph, keeps: impl Fn(&Node, &[&Node]) -> bool) -> Result<Graph> {
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let of: Vec<&Node> = node.inputs.iter().map(|&i| &graph.nodes[i as usize]).collect();
        let expansion = if keeps(node, &of) { None } else { expansion_of(node, &of)? };
        let inputs: Vec<NodeIndex> = node.inputs.iter().map(|&i| new[i as usize]).collect();
        let position = match expansion {
            Some(expansion) => inline(&mut nodes, &expansion, &inputs),
            None => {
                nodes.push(Node { inputs, ..node.clone() });
                (nodes.len() - 1) as NodeIndex
            }
        };
        new.push(position);
    }
    let at = |list: &[NodeIndex]| list.iter().map(|&i| new[i as usize]).collect();
    Ok(Graph { inputs: at(&graph.inputs), outputs: at(&graph.outputs), nodes })
}

/// Push the nodes of a graph on these operands; where its one output stands.
fn inline(nodes: &mut Vec<Node>, graph: &Graph, operands: &[NodeIndex]) -> NodeIndex {
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for (position, node) in graph.nodes.iter().enumerate() {
        match graph.inputs.iter().position(|&input| input as usize == position) {
            Some(operand) => new.push(operands[operand]),
            None => {
                let inputs = node.inputs.iter().map(|&i| new[i as usize]).collect();
                nodes.push(Node { inputs, ..node.clone() });
                new.push((nodes.len() - 1) as NodeIndex);
            }
        }
    }
    new[graph.outputs[0] as usize]
}
