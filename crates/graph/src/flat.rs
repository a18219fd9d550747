//! Flat graphs: what lazy values become when they leave for the compiler. Nodes stand in an order that respects every
//! dependency; equal graphs are equal as data, so a flat graph is its own cache key. `simplify` rewrites one, `expand` puts
//! the expansions of fused ops in their place.

mod expand;
mod simplify;

pub use expand::{expand, expansion_of};
pub use simplify::simplify;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Shape;
use crate::value::{Value, topological_order};
use crate::work::visiting;
use std::collections::HashMap;

/// Position of a node in [`Graph::nodes`].
pub type NodeIndex = u32;

/// One node of a flat graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it computes; never `Alias` or `StopGradient` after simplification.
    pub op: Op,
    /// Operands; all stand before this node.
    pub inputs: Vec<NodeIndex>,
    /// Shape of the result.
    pub shape: Shape,
    /// Dtype of the result.
    pub dtype: DType,
}

/// A graph with named ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Graph {
    /// Operands before users.
    pub nodes: Vec<Node>,
    /// The `Op::Input` node of each input, by position. A node may stand twice only if the caller listed a value twice.
    pub inputs: Vec<NodeIndex>,
    /// The node of each output, by position; several may share one.
    pub outputs: Vec<NodeIndex>,
}

/// A flat graph and the stored values it captured.
pub struct Flat {
    /// The graph: inputs are the declared placeholders, then the captured values.
    pub graph: Graph,
    /// Realised leaves that are not among the placeholders, in the order of the graph's further inputs.
    pub captured: Vec<Value>,
}

/// Flatten everything `outputs` depend on. `inputs` are placeholders; realised values are captured; any other `Input`
/// is a placeholder that escaped its trace.
pub fn flatten(inputs: &[Value], outputs: &[Value]) -> Result<Flat> {
    let mut graph = Graph::default();
    let mut index: HashMap<u64, NodeIndex> = HashMap::new();
    let leaf =
        |value: &Value| Node { op: Op::Input, inputs: Vec::new(), shape: value.shape().clone(), dtype: value.dtype() };
    for input in inputs {
        let position = graph.nodes.len() as NodeIndex;
        graph.nodes.push(leaf(input));
        graph.inputs.push(position);
        index.insert(input.id(), position);
    }
    let mut captured = Vec::new();
    for value in visiting(topological_order(outputs, false)) {
        if index.contains_key(&value.id()) {
            continue;
        }
        let position = graph.nodes.len() as NodeIndex;
        if value.payload().is_some() {
            graph.nodes.push(leaf(&value));
            graph.inputs.push(position);
            captured.push(value.clone());
        } else if *value.op() == Op::Input {
            let message = format!(
                "a placeholder of shape {} is used outside the function that was traced with it; return it from there",
                value.shape()
            );
            return Err(Error::argument("evaluate", message));
        } else {
            let inputs = value.inputs().iter().map(|x| index[&x.id()]).collect();
            let (shape, dtype) = (value.shape().clone(), value.dtype());
            graph.nodes.push(Node { op: value.op().clone(), inputs, shape, dtype });
        }
        index.insert(value.id(), position);
    }
    graph.outputs = outputs.iter().map(|output| index[&output.id()]).collect();
    Ok(Flat { graph, captured })
}
