//! Products along a line: where A·ω is wanted anyway, A·(W − sω) = A·W − s(A·ω) takes no more products than before, and W − sω is not
//! needed until the step is over. So a step that looks at its loss, slope and curvature at θ − sω writes its parameters once, not twice.
//! What this does to rounding, `along` of the derivatives says, which does the same where A does not depend on s.

use crate::rewrite::{MOST_VIEWS, rewrite};
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::elementwise::{MUL, SUB};
use raphson_graph::work::visiting;
use std::collections::HashMap;

/// A node W − sω.
struct Line {
    base: NodeIndex,
    direction: NodeIndex,
    /// One element.
    scale: NodeIndex,
    /// Whether some product reads it, and whether all that read it early can do without.
    read: bool,
    spared: bool,
}

/// A product of which one operand is a view of a line.
struct Along {
    operand: usize,
    line: NodeIndex,
}

/// The graph with such products apart, if it has any.
pub fn part_products(graph: &Graph) -> Option<Graph> {
    let mut lines: HashMap<NodeIndex, Line> =
        graph.nodes.iter().enumerate().filter_map(|(i, node)| Some((i as NodeIndex, line(graph, node)?))).collect();
    if lines.is_empty() {
        return None;
    }
    let known: HashMap<&Node, NodeIndex> = visiting(&graph.nodes).zip(0..).collect();
    // The line of which a node is a view, and how many movements lie between them.
    let mut origin: HashMap<NodeIndex, (NodeIndex, usize)> = lines.keys().map(|&line| (line, (line, 0))).collect();
    let mut products: HashMap<NodeIndex, Along> = HashMap::new();
    for (i, node) in visiting(&graph.nodes).enumerate() {
        let i = i as NodeIndex;
        for (operand, input) in node.inputs.iter().enumerate() {
            let Some(&(at, views)) = origin.get(input) else { continue };
            let Some(line) = lines.get_mut(&at) else { continue };
            match node.op {
                Op::Reshape | Op::Permute { .. } if views < MOST_VIEWS => {
                    origin.insert(i, (at, views + 1));
                }
                // What is elementwise, as the choice between W and W − sω, comes when the step is over.
                Op::Elementwise(_) => {}
                Op::Dot | Op::Conv { .. } => {
                    let tangent = view_of(graph, *input, at, line.direction, &mut |node| known.get(&node).copied());
                    let wanted = tangent.is_some_and(|tangent| {
                        let mut inputs = node.inputs.clone();
                        inputs[operand] = tangent;
                        known.contains_key(&Node { inputs, ..node.clone() })
                    });
                    line.read = true;
                    line.spared &= wanted && !products.contains_key(&i);
                    products.insert(i, Along { operand, line: at });
                }
                _ => line.spared = false,
            }
        }
    }
    lines.retain(|_, line| line.read && line.spared);
    products.retain(|_, product| lines.contains_key(&product.line));
    if products.is_empty() {
        return None;
    }
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    let mut i: NodeIndex = 0;
    Some(rewrite(graph, |nodes, node, old| {
        let made = match products.get(&i) {
            Some(product) => part(graph, &lines[&product.line], product, &new, nodes, node, old),
            None => node,
        };
        new.push(nodes.len() as NodeIndex);
        i += 1;
        made
    }))
}

/// W − sω, if the node is that: one number s, repeated.
fn line(graph: &Graph, node: &Node) -> Option<Line> {
    let is = |node: &Node, row| node.op == Op::Elementwise(row);
    let at = |index: NodeIndex| &graph.nodes[index as usize];
    let &[base, moved] = &node.inputs[..] else { return None };
    if !is(node, &SUB) || !is(at(moved), &MUL) || node.shape.rank() < 2 {
        return None;
    }
    let &[a, b] = &at(moved).inputs[..] else { return None };
    let scale = |repeated: NodeIndex| {
        let &one = at(repeated).inputs.first().filter(|_| at(repeated).op == Op::Expand)?;
        (at(one).shape.iter().product::<usize>() == 1).then_some(one)
    };
    let (direction, scale) = scale(b).map(|scale| (a, scale)).or_else(|| scale(a).map(|scale| (b, scale)))?;
    Some(Line { base, direction, scale, read: false, spared: true })
}

/// The view `of` what `view` is of `origin`, each of its nodes by `make`.
fn view_of(
    graph: &Graph,
    view: NodeIndex,
    origin: NodeIndex,
    of: NodeIndex,
    make: &mut impl FnMut(Node) -> Option<NodeIndex>,
) -> Option<NodeIndex> {
    if view == origin {
        return Some(of);
    }
    let node = &graph.nodes[view as usize];
    let input = view_of(graph, node.inputs[0], origin, of, make)?;
    make(Node { inputs: vec![input], ..node.clone() })
}

/// A·W − s(A·ω). `new` says where old nodes are.
fn part(
    graph: &Graph,
    line: &Line,
    product: &Along,
    new: &[NodeIndex],
    nodes: &mut Vec<Node>,
    node: Node,
    old: &Node,
) -> Node {
    let mut push = |node: Node| {
        nodes.push(node);
        (nodes.len() - 1) as NodeIndex
    };
    let like = |op: Op, inputs: Vec<NodeIndex>| Node { op, inputs, ..node.clone() };
    let mut with = |of: NodeIndex| {
        let view = view_of(graph, old.inputs[product.operand], product.line, of, &mut |node| Some(push(node)));
        let mut inputs = node.inputs.clone();
        inputs[product.operand] = view.unwrap_or(of);
        push(like(node.op.clone(), inputs))
    };
    let (at_base, tangent) = (with(new[line.base as usize]), with(new[line.direction as usize]));
    let scale = new[line.scale as usize];
    let ones = vec![1; node.shape.rank()];
    let dtype = graph.nodes[line.scale as usize].dtype;
    let scale = push(Node { op: Op::Reshape, inputs: vec![scale], shape: ones[..].into(), dtype });
    let scale = push(like(Op::Expand, vec![scale]));
    let moved = push(like(Op::Elementwise(&MUL), vec![tangent, scale]));
    like(Op::Elementwise(&SUB), vec![at_base, moved])
}
