//! Concatenations: the derivative of cutting a tensor into parts is a sum of pads, which is the parts' derivatives one after
//! another; and parts that are only reshaped are joined before, so that the reshape costs nothing.

use super::Rewriter;
use crate::flat::{Node, NodeIndex};
use crate::op::Op;
use crate::op::elementwise::ADD;
use crate::shape::Shape;
use crate::work::visit;

/// A pad along one axis: `low` zeros, `size` elements of `part`, then zeros.
struct Padded {
    axis: usize,
    low: usize,
    size: usize,
    part: NodeIndex,
}

/// The most pads of one sum that are looked at together.
const MOST_TERMS: usize = 64;

impl Rewriter {
    /// pad(x) + pad(y) + … where each follows on another: pad(concatenate(x, y, …)), or the concatenation itself where nothing
    /// is missing.
    pub(super) fn sum_of_pads(&mut self, node: &Node) -> Option<NodeIndex> {
        let mut terms = self.pads_of(node)?;
        terms.sort_by_key(|term| term.low);
        let axis = terms[0].axis;
        let follows = |pair: &[Padded]| pair[1].axis == axis && pair[0].low + pair[0].size == pair[1].low;
        if !terms.windows(2).all(follows) {
            return None;
        }
        let inputs = terms.iter().flat_map(|term| self.parts(term.part, axis)).collect();
        let (total, size) = (node.shape[axis], terms.iter().map(|term| term.size).sum());
        let mut sizes = node.shape.to_vec();
        sizes[axis] = size;
        let shape = Shape::from(&sizes[..]);
        let joined = self.add(Node { op: Op::Concatenate { axis }, inputs, shape, dtype: node.dtype });
        if size == total {
            return Some(joined);
        }
        let zeros = vec![0; sizes.len()];
        let (mut low, mut high) = (zeros.clone(), zeros.clone());
        (low[axis], high[axis]) = (terms[0].low, total - terms[0].low - size);
        Some(self.add(Node { op: Op::Pad { low, high, interior: zeros }, inputs: vec![joined], ..node.clone() }))
    }

    /// The pads that are added up by this sum, one after another; nothing where something else is among them.
    fn pads_of<'a>(&'a self, mut sum: &'a Node) -> Option<Vec<Padded>> {
        let mut terms = Vec::new();
        while terms.len() < MOST_TERMS {
            visit(1);
            let (left, right) = (self.padded(sum.inputs[0]), self.padded(sum.inputs[1]));
            let rest = match (&left, &right) {
                (Some(_), Some(_)) => None,
                (None, Some(_)) => Some(self.node(sum.inputs[0])),
                (Some(_), None) => Some(self.node(sum.inputs[1])),
                (None, None) => return None,
            };
            terms.extend(left.into_iter().chain(right));
            let Some(rest) = rest else { return Some(terms) };
            sum = Some(rest).filter(|rest| rest.op == Op::Elementwise(&ADD))?;
        }
        None
    }

    fn padded(&self, index: NodeIndex) -> Option<Padded> {
        let node = self.node(index);
        let Op::Pad { low, high, interior } = &node.op else { return None };
        let mut axes = (0..low.len()).filter(|&axis| low[axis] + high[axis] > 0);
        let axis = axes.next().filter(|_| axes.next().is_none() && interior.iter().all(|&n| n == 0))?;
        let part = node.inputs[0];
        Some(Padded { axis, low: low[axis], size: self.node(part).shape[axis], part })
    }

    /// The parts of a concatenation along this axis, or the node itself.
    fn parts(&self, index: NodeIndex, axis: usize) -> Vec<NodeIndex> {
        let node = self.node(index);
        if node.op == (Op::Concatenate { axis }) { node.inputs.clone() } else { vec![index] }
    }

    /// A concatenation of reshapes as the reshape of a concatenation: where the axes before it hold as many elements, the
    /// part behind them is a run of memory either way.
    pub(super) fn concatenation_of_reshapes(&mut self, node: &Node, axis: usize) -> Option<NodeIndex> {
        if node.shape.elements() == 0 {
            return None;
        }
        let reshaped = |&part: &NodeIndex| (self.node(part).op == Op::Reshape).then(|| self.node(part).inputs[0]);
        let inputs: Vec<NodeIndex> = node.inputs.iter().map(reshaped).collect::<Option<_>>()?;
        let before: usize = node.shape[..axis].iter().product();
        let first = self.node(inputs[0]).shape.to_vec();
        let along = (0..first.len()).find(|&along| first[..along].iter().product::<usize>() == before)?;
        let mut sizes = first.clone();
        sizes[along] = 0;
        for &input in &inputs {
            let shape = &self.node(input).shape;
            let alike = |axis: usize| axis == along || shape[axis] == first[axis];
            if shape.rank() != first.len() || !(0..first.len()).all(alike) {
                return None;
            }
            sizes[along] += shape[along];
        }
        let inputs = inputs.iter().flat_map(|&input| self.parts(input, along)).collect();
        let (op, shape) = (Op::Concatenate { axis: along }, Shape::from(&sizes[..]));
        let joined = self.add(Node { op, inputs, shape, dtype: node.dtype });
        Some(self.add(Node { op: Op::Reshape, inputs: vec![joined], ..node.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use crate::derivative::vjp;
    use crate::dtype::DType;
    use crate::flat::{Graph, flatten, simplify};
    use crate::op::Op;
    use crate::reference::evaluate;
    use crate::shape::Shape;
    use crate::value::Value;

    /// The simplified graph, which gives what the plain one does on numbers counted up.
    fn simplified(inputs: &[Value], outputs: &[Value]) -> Graph {
        let plain = flatten(inputs, outputs).unwrap().graph;
        let simple = simplify(&plain);
        let counted = |(i, x): (usize, &Value)| {
            (0..x.shape().elements()).map(|j| (7 * i + j) as f64 / 3.0 - 2.0).collect::<Vec<_>>()
        };
        let numbers: Vec<Vec<f64>> = inputs.iter().enumerate().map(counted).collect();
        assert_eq!(evaluate(&simple, &numbers).unwrap(), evaluate(&plain, &numbers).unwrap());
        simple
    }

    fn count(graph: &Graph, is: fn(&Op) -> bool) -> usize {
        graph.nodes.iter().filter(|node| is(&node.op)).count()
    }

    fn pads(graph: &Graph) -> usize {
        count(graph, |op| matches!(op, Op::Pad { .. }))
    }

    fn input<const N: usize>(sizes: [usize; N]) -> Value {
        Value::input(Shape::from(sizes), DType::F32)
    }

    /// Slices of [2, 6] along the second axis, each reshaped to [2, heads, 1], and the derivative for these cotangents.
    fn gradient_of_slices(order: [usize; 3], headed: bool) -> (Vec<Value>, Value) {
        let x = input([2, 6]);
        let ends = [0, 1, 4, 6];
        let part = |i: usize| {
            let slice = x.slice(&[0, ends[i]], &[2, ends[i + 1]], &[1, 1]).unwrap();
            if headed { slice.reshape(&Shape::from([2, ends[i + 1] - ends[i], 1])).unwrap() } else { slice }
        };
        let outputs = order.map(part);
        let cotangents = outputs.clone().map(|output| Value::input(output.shape().clone(), DType::F32));
        let gradient = vjp(&outputs, &[x], &cotangents).unwrap().remove(0);
        (cotangents.to_vec(), gradient)
    }

    #[test]
    fn the_derivative_of_neighbouring_slices_is_a_concatenation() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            let (cotangents, gradient) = gradient_of_slices(order, false);
            let graph = simplified(&cotangents, &[gradient]);
            let end = &graph.nodes[graph.outputs[0] as usize];
            assert_eq!(
                (&end.op, end.inputs.len(), graph.nodes.len()),
                (&Op::Concatenate { axis: 1 }, 3, 4),
                "{order:?}"
            );
        }
    }

    #[test]
    fn pads_that_leave_a_gap_or_overlap_are_added() {
        let (x, y) = (input([3]), input([3]));
        let padded = |x: &Value, low: usize| x.pad(&[low], &[8 - low], &[0]).unwrap();
        let sum = |low: usize| padded(&x, 2).add(&padded(&y, low)).unwrap();
        let both = [x.clone(), y.clone()];
        assert_eq!(pads(&simplified(&both, &[sum(6)])), 2);
        assert_eq!(pads(&simplified(&both, &[sum(3)])), 2);
        // With zeros on either side, one pad is left.
        let graph = simplified(&both, &[sum(5)]);
        let end = &graph.nodes[graph.outputs[0] as usize];
        assert_eq!(end.op, Op::Pad { low: vec![2], high: vec![3], interior: vec![0] });
    }

    #[test]
    fn pads_along_other_axes_or_between_elements_are_added() {
        let (x, y) = (input([2, 2]), input([2, 2]));
        let both = [x.clone(), y.clone()];
        let corner = x.pad(&[0, 0], &[2, 2], &[0, 0]).unwrap().add(&y.pad(&[2, 2], &[0, 0], &[0, 0]).unwrap()).unwrap();
        assert_eq!(pads(&simplified(&both, &[corner])), 2);
        let (a, b) = (input([2]), input([3]));
        let spread = a.pad(&[0], &[3], &[1]).unwrap().add(&b.pad(&[3], &[0], &[0]).unwrap()).unwrap();
        assert_eq!(pads(&simplified(&[a, b], &[spread])), 2);
    }

    #[test]
    fn parts_are_joined_before_they_are_reshaped() {
        let (cotangents, gradient) = gradient_of_slices([0, 1, 2], true);
        let graph = simplified(&cotangents, &[gradient]);
        let end = &graph.nodes[graph.outputs[0] as usize];
        assert_eq!((&end.op, graph.nodes.len()), (&Op::Reshape, 5));
        assert_eq!(graph.nodes[end.inputs[0] as usize].op, Op::Concatenate { axis: 1 });
    }

    #[test]
    fn parts_whose_axes_do_not_match_are_reshaped_before() {
        let (x, y) = (input([4, 3]), input([4, 3]));
        let flat = |x: &Value| x.reshape(&Shape::from([2, 6])).unwrap();
        let graph = simplified(&[x.clone(), y.clone()], &[Value::concatenate(&[flat(&x), flat(&y)], 1).unwrap()]);
        assert_eq!(count(&graph, |op| *op == Op::Reshape), 2);
    }
}
