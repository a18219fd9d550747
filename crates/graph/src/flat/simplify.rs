//! Rewriting a flat graph into a smaller one with the same results: common subexpressions, dead code, constants, and
//! algebra that never changes a finite result. One pass in dependency order; each node is rewritten once.

mod parts;

use super::{Graph, Node, NodeIndex};
use crate::dtype::{DType, Scalar};
use crate::half;
use crate::op::Op;
use crate::op::elementwise::{ADD, DIV, MUL, NEG, Row, SELECT, SUB};
use crate::work::{visit, visiting};
use std::collections::HashMap;

/// The simplified graph: same inputs and outputs by position.
pub fn simplify(graph: &Graph) -> Graph {
    let mut rewriter = Rewriter::default();
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = node.inputs.iter().map(|&i| new[i as usize]).collect();
        let node = Node { inputs, ..node.clone() };
        new.push(if node.op == Op::Input { rewriter.push(node) } else { rewriter.add(node) });
    }
    let inputs = graph.inputs.iter().map(|&i| new[i as usize]).collect();
    let outputs = graph.outputs.iter().map(|&i| new[i as usize]).collect();
    remove_dead(Graph { nodes: rewriter.nodes, inputs, outputs })
}

/// Drop nodes that no output needs; inputs stay.
fn remove_dead(graph: Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    for &end in graph.outputs.iter().chain(&graph.inputs) {
        live[end as usize] = true;
    }
    // Users stand behind their operands, so one sweep from the end reaches everything.
    for i in visiting((0..graph.nodes.len()).rev()) {
        if live[i] {
            graph.nodes[i].inputs.iter().for_each(|&input| live[input as usize] = true);
        }
    }
    let mut position = vec![0; graph.nodes.len()];
    let mut nodes = Vec::new();
    for (i, mut node) in graph.nodes.into_iter().enumerate().filter(|(i, _)| live[*i]) {
        node.inputs.iter_mut().for_each(|input| *input = position[*input as usize]);
        position[i] = nodes.len() as NodeIndex;
        nodes.push(node);
    }
    let at = |list: Vec<NodeIndex>| list.into_iter().map(|i| position[i as usize]).collect();
    Graph { nodes, inputs: at(graph.inputs), outputs: at(graph.outputs) }
}

#[derive(Default)]
struct Rewriter {
    nodes: Vec<Node>,
    known: HashMap<Node, NodeIndex>,
}

impl Rewriter {
    fn push(&mut self, node: Node) -> NodeIndex {
        self.nodes.push(node);
        (self.nodes.len() - 1) as NodeIndex
    }

    /// The node itself, an equal one that exists, or something simpler.
    fn add(&mut self, node: Node) -> NodeIndex {
        visit(1 + node.inputs.len());
        if let Some(simpler) = self.rewrite(&node) {
            return simpler;
        }
        if let Some(&same) = self.known.get(&node) {
            return same;
        }
        let index = self.push(node.clone());
        self.known.insert(node, index);
        index
    }

    fn constant(&mut self, value: Scalar, like: &Node) -> NodeIndex {
        self.add(Node { op: Op::Constant(value), inputs: Vec::new(), shape: like.shape.clone(), dtype: like.dtype })
    }

    fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index as usize]
    }

    fn constant_of(&self, index: NodeIndex) -> Option<Scalar> {
        match self.node(index).op {
            Op::Constant(value) => Some(value),
            _ => None,
        }
    }

    fn rewrite(&mut self, node: &Node) -> Option<NodeIndex> {
        let x = node.inputs.first().copied();
        match (&node.op, x) {
            (Op::Alias | Op::StopGradient, Some(x)) => Some(x),
            (Op::Elementwise(row), _) => self.elementwise(row, node),
            (Op::Cast, Some(x)) => {
                let value = self.constant_of(x)?;
                let value = cast_constant(value, node.dtype)?;
                Some(self.constant(value, node))
            }
            (Op::Reshape | Op::Permute { .. } | Op::Expand | Op::Slice { .. } | Op::Flip { .. }, Some(x)) => {
                self.movement(node, x)
            }
            (Op::Reduce { op, axes }, Some(x))
                if *op != crate::op::reduce::ReduceOp::ArgMax
                    && axes.iter().all(|&axis| self.node(x).shape[axis] == 1) =>
            {
                Some(self.add(Node { op: Op::Reshape, ..node.clone() }))
            }
            (Op::Concatenate { axis }, Some(_)) => self.concatenation_of_reshapes(node, *axis),
            _ => None,
        }
    }

    fn movement(&mut self, node: &Node, x: NodeIndex) -> Option<NodeIndex> {
        let operand = self.node(x).clone();
        if let Op::Constant(value) = operand.op {
            return Some(self.constant(value, node));
        }
        match (&node.op, &operand.op) {
            (Op::Reshape, _) if operand.shape == node.shape => Some(x),
            (Op::Reshape, Op::Reshape) | (Op::Expand, Op::Expand) => {
                Some(self.add(Node { inputs: operand.inputs, ..node.clone() }))
            }
            (Op::Permute { axes: outer }, Op::Permute { axes: inner }) => {
                let axes: Vec<usize> = outer.iter().map(|&axis| inner[axis]).collect();
                if axes.iter().enumerate().all(|(i, &axis)| i == axis) {
                    return operand.inputs.first().copied();
                }
                Some(self.add(Node { op: Op::Permute { axes }, inputs: operand.inputs, ..node.clone() }))
            }
            (Op::Slice { start, step }, Op::Pad { low, interior, .. }) if interior.iter().all(|&n| n == 0) => {
                self.slice_of_pad(node, start, step, low, operand.inputs[0])
            }
            (Op::Slice { start, step }, Op::Concatenate { axis }) => {
                self.slice_of_concatenation(node, start, step, *axis, &operand.inputs)
            }
            _ => None,
        }
    }

    /// Zeros, or elements of what was padded.
    fn slice_of_pad(
        &mut self,
        node: &Node,
        start: &[usize],
        step: &[usize],
        low: &[usize],
        x: NodeIndex,
    ) -> Option<NodeIndex> {
        if node.shape.elements() == 0 {
            return None;
        }
        let inner = self.node(x).shape.clone();
        let last = |axis: usize| start[axis] + (node.shape[axis] - 1) * step[axis];
        let mut axes = 0..inner.rank();
        if axes.clone().any(|axis| last(axis) < low[axis] || start[axis] >= low[axis] + inner[axis]) {
            return Some(self.constant(Scalar::of(0.0, node.dtype), node));
        }
        let inside = axes.all(|axis| start[axis] >= low[axis] && last(axis) < low[axis] + inner[axis]);
        inside.then(|| self.slice(node, start.iter().zip(low).map(|(start, low)| start - low).collect(), step, x))
    }

    /// Elements of the one part that the slice reads, if it is one.
    fn slice_of_concatenation(
        &mut self,
        node: &Node,
        start: &[usize],
        step: &[usize],
        axis: usize,
        parts: &[NodeIndex],
    ) -> Option<NodeIndex> {
        if node.shape.elements() == 0 {
            return None;
        }
        let last = start[axis] + (node.shape[axis] - 1) * step[axis];
        let mut before = 0;
        for &part in parts {
            let size = self.node(part).shape[axis];
            if start[axis] >= before && last < before + size {
                let mut start = start.to_vec();
                start[axis] -= before;
                return Some(self.slice(node, start, step, part));
            }
            before += size;
        }
        None
    }

    /// A slice of another operand, or that operand itself.
    fn slice(&mut self, node: &Node, start: Vec<usize>, step: &[usize], of: NodeIndex) -> NodeIndex {
        if self.node(of).shape == node.shape {
            return of;
        }
        self.add(Node { op: Op::Slice { start, step: step.to_vec() }, inputs: vec![of], ..node.clone() })
    }

    fn elementwise(&mut self, row: &'static Row, node: &Node) -> Option<NodeIndex> {
        let constants: Vec<Option<Scalar>> = node.inputs.iter().map(|&x| self.constant_of(x)).collect();
        if let Some(values) = constants.iter().copied().collect::<Option<Vec<_>>>() {
            let x: Vec<f64> = values.iter().map(|value| value.to_f64()).collect();
            let dtype = self.node(*node.inputs.last()?).dtype;
            let result = half::round((row.reference)(&x, dtype), node.dtype.register());
            // The reference computes in f64, which does not hold every i64: those are left to the device.
            let wide = dtype == DType::I64 && x.iter().chain([&result]).any(|value| value.abs() >= EXACT);
            return if wide { None } else { Some(self.constant(Scalar::of(result, node.dtype), node)) };
        }
        let is = |i: usize, value: f64| constants[i].is_some_and(|c| c.to_f64() == value);
        let operand = |i: usize| Some(node.inputs[i]);
        if *row == ADD {
            // x + 0, 0 + x
            if is(1, 0.0) {
                operand(0)
            } else if is(0, 0.0) {
                operand(1)
            } else {
                self.sum_of_pads(node)
            }
        } else if *row == SUB {
            // x − 0, 0 − x
            if is(1, 0.0) {
                operand(0)
            } else if is(0, 0.0) {
                Some(self.add(Node { op: Op::Elementwise(&NEG), inputs: vec![node.inputs[1]], ..node.clone() }))
            } else {
                None
            }
        } else if *row == MUL {
            // x·1, 1·x
            if is(1, 1.0) {
                operand(0)
            } else if is(0, 1.0) {
                operand(1)
            } else {
                None
            }
        } else if *row == DIV {
            // x/1
            if is(1, 1.0) { operand(0) } else { None }
        } else if *row == NEG {
            // −(−x)
            let inner = self.node(node.inputs[0]);
            if inner.op == Op::Elementwise(&NEG) { Some(inner.inputs[0]) } else { None }
        } else if *row == SELECT {
            // c ? x : x, true ? x : y, false ? x : y
            if node.inputs[1] == node.inputs[2] || constants[0].is_some_and(|c| c.to_f64() != 0.0) {
                operand(1)
            } else if constants[0].is_some() {
                operand(2)
            } else {
                None
            }
        } else {
            None
        }
    }
}

/// Integers below this are exact in f64.
const EXACT: f64 = 9007199254740992.0;

/// The constant after conversion, where the conversion is plain; out-of-range cases are left to the device.
fn cast_constant(value: Scalar, dtype: DType) -> Option<Scalar> {
    let integer = matches!(value, Scalar::Int(_));
    let value = value.to_f64();
    match dtype {
        _ if integer && value.abs() >= EXACT => None,
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Some(Scalar::Float(half::round(value, dtype))),
        DType::Bool => Some(Scalar::Bool(value != 0.0)),
        DType::I32 if value.abs() < 2e9 => Some(Scalar::Int(value as i64)),
        DType::U32 if (0.0..4e9).contains(&value) => Some(Scalar::Int(value as i64)),
        DType::U8 if (0.0..256.0).contains(&value) => Some(Scalar::Int(value as i64)),
        DType::I64 if value.abs() < EXACT => Some(Scalar::Int(value as i64)),
        DType::I32 | DType::U32 | DType::U8 | DType::I64 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flat::flatten;
    use crate::shape::Shape;
    use crate::value::Value;
    use std::slice::from_ref;

    fn simplified(outputs: &[Value], inputs: &[Value]) -> Graph {
        simplify(&flatten(inputs, outputs).unwrap().graph)
    }

    #[test]
    fn equal_subexpressions_are_computed_once() {
        let x = Value::input(Shape::from([3]), DType::F32);
        let y = x.exp().unwrap().add(&x.exp().unwrap()).unwrap();
        assert_eq!(simplified(&[y], &[x]).nodes.len(), 3);
    }

    #[test]
    fn neutral_constants_and_identities_vanish() {
        let x = Value::input(Shape::from([3]), DType::F64);
        let y = x.alias().scale(1.0).unwrap().shift(0.0).unwrap().neg().unwrap().neg().unwrap().stop_gradient();
        let graph = simplified(&[y], &[x]);
        assert_eq!((graph.nodes.len(), graph.outputs[0]), (1, graph.inputs[0]));
    }

    #[test]
    fn constants_fold_through_movement() {
        let two = Value::scalar(2.0, DType::F32).expand(&Shape::from([4, 5])).unwrap();
        let y = two.exp().unwrap().permute(&[1, 0]).unwrap();
        let graph = simplified(&[y], &[]);
        assert_eq!(graph.nodes.len(), 1);
        let Op::Constant(value) = graph.nodes[0].op else { panic!("not a constant: {:?}", graph.nodes[0]) };
        assert_eq!(value.to_f64(), f64::from(2f64.exp() as f32));
    }

    #[test]
    fn products_with_zero_stay_for_the_sake_of_infinity() {
        let x = Value::input(Shape::from([3]), DType::F32);
        let graph = simplified(&[x.scale(0.0).unwrap()], &[x]);
        assert_eq!(graph.nodes.len(), 3);
    }

    #[test]
    fn slices_of_one_part_are_slices_of_that_part() {
        let (x, y) = (Value::input(Shape::from([3, 2]), DType::F32), Value::input(Shape::from([3, 4]), DType::F32));
        let both = Value::concatenate(&[x.clone(), y.clone()], 1).unwrap();
        let own = both.slice(&[0, 2], &[3, 6], &[1, 1]).unwrap();
        let inside = both.slice(&[1, 3], &[3, 6], &[1, 2]).unwrap();
        let across = both.slice(&[0, 1], &[3, 3], &[1, 1]).unwrap();
        let graph = simplified(&[own, inside, across], &[x, y]);
        assert_eq!(graph.outputs[0], graph.inputs[1]);
        let part = &graph.nodes[graph.outputs[1] as usize];
        assert_eq!(
            (&part.op, &part.inputs[..]),
            (&Op::Slice { start: vec![1, 1], step: vec![1, 2] }, &graph.inputs[1..])
        );
        assert_eq!(graph.nodes.iter().filter(|node| matches!(node.op, Op::Concatenate { .. })).count(), 1);
    }

    #[test]
    fn slices_of_a_pad_are_slices_or_zeros() {
        let x = Value::input(Shape::from([3]), DType::F32);
        let padded = x.pad(&[2], &[4], &[0]).unwrap();
        let slice = |from: usize, to: usize| padded.slice(&[from], &[to], &[1]).unwrap();
        let graph = simplified(&[slice(2, 5), slice(5, 9), slice(3, 5), slice(1, 4)], from_ref(&x));
        let op = |i: usize| &graph.nodes[graph.outputs[i] as usize].op;
        assert_eq!(graph.outputs[0], graph.inputs[0]);
        assert_eq!(op(1), &Op::Constant(Scalar::Float(0.0)));
        assert_eq!(op(2), &Op::Slice { start: vec![1], step: vec![1] });
        assert_eq!(graph.nodes.iter().filter(|node| matches!(node.op, Op::Pad { .. })).count(), 1);
    }

    #[test]
    fn unused_inputs_stay_in_place() {
        let (x, y) = (Value::input(Shape::from([3]), DType::F32), Value::input(Shape::from([2]), DType::F32));
        let graph = simplified(&[y.exp().unwrap()], &[x, y]);
        assert_eq!((graph.inputs.len(), graph.nodes.len()), (2, 3));
    }
}
