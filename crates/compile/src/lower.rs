//! Movement ops become strided accesses. In a lowered graph every operand says which node's buffer it reads, and how;
//! where no strided access can express a movement (a reshape of a transposed tensor), a copy is inserted. Axes of size 1 vanish
//! from fused nodes, so that shapes that differ only by them fuse.

use crate::interleave::{self, Part, Sums};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::{Graph, Node as FlatNode, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::attention::Attention;
use raphson_graph::op::conv::Window;
use raphson_graph::op::elementwise::Row;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::shape::Shape;
use raphson_graph::work::visiting;
use std::collections::{HashMap, HashSet};

/// How an operand's elements lie in its base node's row-major buffer: one stride for each axis of the operand's shape.
/// For an iota the "position" is the value itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    pub base: NodeIndex,
    pub offset: i64,
    pub strides: Vec<i64>,
}

/// What a lowered node does.
#[derive(Clone, Debug)]
pub enum Kind {
    Input,
    Constant(Scalar),
    /// Its access strides say along which axis it counts.
    Iota,
    Map(&'static Row),
    Cast,
    Copy,
    Reduce {
        op: ReduceOp,
        axes: Vec<usize>,
    },
    Dot,
    Conv {
        windows: Vec<Window>,
    },
    Gather {
        axis: usize,
    },
    ScatterAdd {
        axis: usize,
    },
    Argsort {
        descending: bool,
    },
    Attention {
        options: Attention,
        reverse: bool,
    },
    /// Its operands, one for each part, and zeros around them.
    Pad {
        parts: Vec<Part>,
    },
    Concatenate {
        axis: usize,
    },
}

/// A node whose operands are accesses. `domain` is the shape over which it computes: its own shape, or its operand's for
/// a reduction.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub shape: Vec<usize>,
    pub domain: Vec<usize>,
    pub dtype: DType,
    pub operands: Vec<Access>,
    /// Shapes of the operands as accessed (for opaque kinds).
    pub operand_shapes: Vec<Shape>,
}

impl Node {
    /// Whether it may share a kernel with others.
    pub fn is_fusible(&self) -> bool {
        matches!(self.kind, Kind::Map(_) | Kind::Cast | Kind::Copy | Kind::Reduce { .. })
    }

    /// Whether it has no buffer of its own unless something opaque needs one.
    pub fn is_virtual(&self) -> bool {
        matches!(self.kind, Kind::Constant(_) | Kind::Iota)
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A graph without movement ops.
pub struct Lowered {
    pub nodes: Vec<Node>,
    pub inputs: Vec<NodeIndex>,
    /// All distinct, and none of them an input or virtual.
    pub outputs: Vec<NodeIndex>,
}

/// Row-major strides.
pub fn contiguous(shape: &[usize]) -> Vec<i64> {
    Shape::from(shape).strides().into_iter().map(|stride| stride as i64).collect()
}

/// Whether two stride lists reach the same elements of `shape` (axes of size 1 do not matter).
pub fn same_strides(shape: &[usize], left: &[i64], right: &[i64]) -> bool {
    shape.len() == left.len() && (0..shape.len()).all(|axis| shape[axis] <= 1 || left[axis] == right[axis])
}

/// Lower a simplified graph.
pub fn lower(graph: &Graph) -> Lowered {
    let sums = interleave::sums(graph);
    let mut lowering = Lowering { graph, sums, nodes: Vec::new(), access: Vec::new(), copies: HashMap::new() };
    for node in visiting(&graph.nodes) {
        let access = lowering.node(node);
        lowering.access.push(access);
    }
    let inputs = graph.inputs.iter().map(|&i| lowering.access[i as usize].base).collect();
    let mut outputs = Vec::new();
    let mut taken = HashSet::new();
    for &output in visiting(&graph.outputs) {
        let access = lowering.access[output as usize].clone();
        let shape = graph.nodes[output as usize].shape.clone();
        let base = &lowering.nodes[access.base as usize];
        let own = !base.is_virtual()
            && !matches!(base.kind, Kind::Input)
            && base.elements() == shape.elements()
            && lowering.is_contiguous(&shape, &access)
            && !taken.contains(&access.base);
        let output = if own { access.base } else { lowering.copy(&shape, access) };
        taken.insert(output);
        outputs.push(output);
    }
    Lowered { nodes: lowering.nodes, inputs, outputs }
}

struct Lowering<'a> {
    graph: &'a Graph,
    sums: Sums,
    nodes: Vec<Node>,
    /// How each flat node is read.
    access: Vec<Access>,
    /// Materialised accesses, for reuse by opaque nodes.
    copies: HashMap<(Access, Shape), NodeIndex>,
}

impl Lowering<'_> {
    fn push(&mut self, node: Node) -> NodeIndex {
        self.nodes.push(node);
        (self.nodes.len() - 1) as NodeIndex
    }

    fn is_contiguous(&self, shape: &Shape, access: &Access) -> bool {
        access.offset == 0 && same_strides(shape, &access.strides, &contiguous(shape))
    }

    /// Push a node and read it as a contiguous buffer of `shape`.
    fn own(&mut self, node: Node, shape: &Shape) -> Access {
        let base = self.push(node);
        Access { base, offset: 0, strides: contiguous(shape) }
    }

    fn copy(&mut self, shape: &Shape, access: Access) -> NodeIndex {
        let dtype = self.nodes[access.base as usize].dtype;
        let node = fused(Kind::Copy, shape, dtype, vec![access]);
        self.push(node)
    }

    /// The access itself if its base has a buffer, else a copy's. Opaque kernels that need a contiguous operand need a
    /// whole buffer: a leading part of a larger one does not do.
    fn stored(&mut self, shape: &Shape, access: Access, needs_contiguous: bool) -> Access {
        let base = &self.nodes[access.base as usize];
        let whole = base.elements() == shape.elements() && self.is_contiguous(shape, &access);
        if !base.is_virtual() && (!needs_contiguous || whole) {
            return access;
        }
        // Equal strides say nothing about how far they reach: the shape belongs to the key.
        let key = (access.clone(), shape.clone());
        let base = match self.copies.get(&key) {
            Some(&base) => base,
            None => {
                let base = self.copy(shape, access);
                self.copies.insert(key, base);
                base
            }
        };
        Access { base, offset: 0, strides: contiguous(shape) }
    }

    /// A sum of pads that do not meet, as one node.
    fn parts(&mut self, node: &FlatNode, pads: &[NodeIndex]) -> Access {
        let (mut operands, mut operand_shapes, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for &pad in pads {
            let input = self.graph.nodes[pad as usize].inputs[0];
            if let Some((part, shape)) = interleave::part(self.graph, pad) {
                operands.push(self.access[input as usize].clone());
                operand_shapes.push(Shape::from(&shape[..]));
                parts.push(part);
            }
        }
        let (shape, dtype) = (node.shape.to_vec(), node.dtype);
        let domain = shape.clone();
        self.own(Node { kind: Kind::Pad { parts }, shape, domain, dtype, operands, operand_shapes }, &node.shape)
    }

    fn node(&mut self, node: &FlatNode) -> Access {
        let index = self.access.len() as NodeIndex;
        if self.sums.absorbed.contains(&index) {
            // Nobody but a sum reads it, and that reads the operands of its pads.
            return self.access[node.inputs[0] as usize].clone();
        }
        if let Some(pads) = self.sums.pads.get(&index).cloned() {
            return self.parts(node, &pads);
        }
        let operands: Vec<Access> = node.inputs.iter().map(|&i| self.access[i as usize].clone()).collect();
        let shapes: Vec<Shape> = node.inputs.iter().map(|&i| self.graph.nodes[i as usize].shape.clone()).collect();
        let opaque = |kind: Kind, operands: Vec<Access>| Node {
            kind,
            shape: node.shape.to_vec(),
            domain: node.shape.to_vec(),
            dtype: node.dtype,
            operands,
            operand_shapes: shapes.clone(),
        };
        match &node.op {
            Op::Input => self.own(opaque(Kind::Input, operands), &node.shape),
            Op::Constant(value) => {
                let base = self.push(opaque(Kind::Constant(*value), operands));
                Access { base, offset: 0, strides: vec![0; node.shape.rank()] }
            }
            Op::Iota { axis } => {
                let base = self.push(opaque(Kind::Iota, operands));
                let strides = (0..node.shape.rank()).map(|a| i64::from(a == *axis)).collect();
                Access { base, offset: 0, strides }
            }
            Op::Alias | Op::StopGradient => operands[0].clone(),
            Op::Reshape | Op::Permute { .. } | Op::Expand | Op::Slice { .. } | Op::Flip { .. } => {
                self.movement(node, &shapes[0], operands[0].clone())
            }
            Op::Elementwise(row) => self.own(fused(Kind::Map(row), &node.shape, node.dtype, operands), &node.shape),
            Op::Cast => self.own(fused(Kind::Cast, &node.shape, node.dtype, operands), &node.shape),
            Op::Reduce { op, axes } => self.reduce(*op, axes, node, &shapes[0], operands[0].clone()),
            Op::Dot => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, false)).collect();
                let product = merge_batch(opaque(Kind::Dot, operands));
                self.own(product, &node.shape)
            }
            Op::Conv { windows } => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, false)).collect();
                self.own(opaque(Kind::Conv { windows: windows.clone() }, operands), &node.shape)
            }
            Op::Gather { axis } => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, true)).collect();
                self.own(opaque(Kind::Gather { axis: *axis }, operands), &node.shape)
            }
            Op::ScatterAdd { axis } => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, true)).collect();
                self.own(opaque(Kind::ScatterAdd { axis: *axis }, operands), &node.shape)
            }
            Op::Argsort { descending } => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, true)).collect();
                self.own(opaque(Kind::Argsort { descending: *descending }, operands), &node.shape)
            }
            Op::Attention(options) | Op::AttentionVjp(options) => {
                let operands = operands.into_iter().zip(&shapes).map(|(a, s)| self.stored(s, a, false)).collect();
                let reverse = matches!(node.op, Op::AttentionVjp(_));
                self.own(opaque(Kind::Attention { options: *options, reverse }, operands), &node.shape)
            }
            Op::Pad { low, interior, .. } => {
                let parts = vec![Part { low: low.clone(), interior: interior.clone() }];
                self.own(opaque(Kind::Pad { parts }, operands), &node.shape)
            }
            Op::Concatenate { axis } => self.own(opaque(Kind::Concatenate { axis: *axis }, operands), &node.shape),
        }
    }

    fn movement(&mut self, node: &FlatNode, from: &Shape, access: Access) -> Access {
        let Access { base, mut offset, strides } = access.clone();
        let strides = match &node.op {
            Op::Permute { axes } => axes.iter().map(|&axis| strides[axis]).collect(),
            Op::Expand => (0..from.rank()).map(|a| if from[a] == node.shape[a] { strides[a] } else { 0 }).collect(),
            Op::Slice { start, step } => {
                offset += (0..from.rank()).map(|a| start[a] as i64 * strides[a]).sum::<i64>();
                (0..from.rank()).map(|a| step[a] as i64 * strides[a]).collect()
            }
            Op::Flip { axes } => {
                let flipped = |a: usize| axes.contains(&a) && from[a] > 0;
                offset +=
                    (0..from.rank()).filter(|&a| flipped(a)).map(|a| (from[a] as i64 - 1) * strides[a]).sum::<i64>();
                (0..from.rank()).map(|a| if flipped(a) { -strides[a] } else { strides[a] }).collect()
            }
            _ => match reshape_strides(from, &strides, &node.shape) {
                Some(strides) => strides,
                None => {
                    let base = self.copy(from, access);
                    return Access { base, offset: 0, strides: contiguous(&node.shape) };
                }
            },
        };
        Access { base, offset, strides }
    }

    fn reduce(&mut self, op: ReduceOp, axes: &[usize], node: &FlatNode, from: &Shape, access: Access) -> Access {
        let stay: Vec<usize> = (0..from.rank()).filter(|&axis| from[axis] != 1).collect();
        let axes: Vec<usize> = (0..stay.len()).filter(|&i| axes.contains(&stay[i])).collect();
        if axes.is_empty() {
            // Only axes of size 1 vanish: the position of the maximum is 0, everything else a copy.
            let kind = if op == ReduceOp::ArgMax { Kind::Constant(Scalar::Int(0)) } else { Kind::Copy };
            let strides = contiguous(&node.shape);
            if op == ReduceOp::ArgMax {
                let shape = node.shape.to_vec();
                let domain = shape.clone();
                let (operands, operand_shapes) = (Vec::new(), Vec::new());
                let base = self.push(Node { kind, shape, domain, dtype: node.dtype, operands, operand_shapes });
                return Access { base, offset: 0, strides: vec![0; node.shape.rank()] };
            }
            let base = self.push(fused(kind, from, node.dtype, vec![access]));
            return Access { base, offset: 0, strides };
        }
        let domain: Vec<usize> = stay.iter().map(|&axis| from[axis]).collect();
        let shape = (0..domain.len()).filter(|i| !axes.contains(i)).map(|i| domain[i]).collect();
        let strides = stay.iter().map(|&axis| access.strides[axis]).collect();
        let operands = vec![Access { strides, ..access }];
        let kind = Kind::Reduce { op, axes };
        let lowered = Node { kind, shape, domain, dtype: node.dtype, operands, operand_shapes: Vec::new() };
        self.own(lowered, &node.shape)
    }
}

/// Batch entries that share their right matrix and whose left ones follow each other row by row are one product of more rows,
/// innermost axis first: a dense layer over [batch, time, width] multiplies batch·time rows at once. The result lies in memory
/// as before.
fn merge_batch(mut product: Node) -> Node {
    while let Some(axis) = product.shape.len().checked_sub(3) {
        let (size, rows) = (product.shape[axis], product.shape[axis + 1]);
        let [left, right] = &mut product.operands[..] else { break };
        let shared = right.strides[axis] == 0;
        if size != 1 && !(shared && (rows == 1 || left.strides[axis] == left.strides[axis + 1] * rows as i64)) {
            break;
        }
        // Of two axes the inner one's stride goes on, unless it has but one element.
        left.strides.remove(if rows == 1 { axis + 1 } else { axis });
        right.strides.remove(axis);
        product.shape.splice(axis..axis + 2, [size * rows]);
        let (k, n) = (product.operand_shapes[0][axis + 2], product.operand_shapes[1][axis + 2]);
        let batch = &product.shape[..axis];
        product.operand_shapes =
            vec![Shape::from(&[batch, &[size * rows, k]].concat()[..]), Shape::from(&[batch, &[k, n]].concat()[..])];
    }
    product.domain.clone_from(&product.shape);
    product
}

/// A fusible node over `shape` without its axes of size 1.
fn fused(kind: Kind, shape: &Shape, dtype: DType, operands: Vec<Access>) -> Node {
    let stay: Vec<usize> = (0..shape.rank()).filter(|&axis| shape[axis] != 1).collect();
    let sizes: Vec<usize> = stay.iter().map(|&axis| shape[axis]).collect();
    let squeeze =
        |access: Access| Access { strides: stay.iter().map(|&axis| access.strides[axis]).collect(), ..access };
    let operands = operands.into_iter().map(squeeze).collect();
    Node { kind, shape: sizes.clone(), domain: sizes, dtype, operands, operand_shapes: Vec::new() }
}

/// Strides under which `to` reads the same elements in the same order as `from` with `strides`, if there are such: axes
/// of `from` that evenly step through memory merge, and split again at will.
fn reshape_strides(from: &Shape, strides: &[i64], to: &Shape) -> Option<Vec<i64>> {
    if from.elements() == 0 {
        return Some(contiguous(to));
    }
    // Runs (size, stride of the last element) of merged axes.
    let mut runs: Vec<(usize, i64)> = Vec::new();
    for axis in (0..from.rank()).filter(|&axis| from[axis] != 1) {
        match runs.last_mut() {
            Some((size, stride)) if *stride == strides[axis] * from[axis] as i64 => {
                *size *= from[axis];
                *stride = strides[axis];
            }
            _ => runs.push((from[axis], strides[axis])),
        }
    }
    // Fill the axes of `to` from the last run backwards.
    let mut result = vec![0; to.rank()];
    let (mut size, mut stride) = runs.pop().unwrap_or((1, 0));
    for axis in (0..to.rank()).rev().filter(|&axis| to[axis] != 1) {
        if size == 1 {
            (size, stride) = runs.pop()?;
        }
        if size % to[axis] != 0 {
            return None;
        }
        result[axis] = stride;
        stride *= to[axis] as i64;
        size /= to[axis];
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_of_strided_views_follow_the_memory() {
        let reshaped =
            |from: &[usize], strides: &[i64], to: &[usize]| reshape_strides(&from.into(), strides, &to.into());
        assert_eq!(reshaped(&[4, 6], &[6, 1], &[2, 2, 3, 2]), Some(vec![12, 6, 2, 1]));
        assert_eq!(reshaped(&[4, 6], &[1, 4], &[24]), None);
        assert_eq!(reshaped(&[4, 6], &[1, 4], &[2, 2, 6]), Some(vec![2, 1, 4]));
        assert_eq!(reshaped(&[4, 6], &[0, 1], &[2, 2, 6]), Some(vec![0, 0, 1]));
        assert_eq!(reshaped(&[1, 6, 1], &[9, 1, 9], &[6]), Some(vec![1]));
        assert_eq!(reshaped(&[], &[], &[1, 1]), Some(vec![0, 0]));
    }
}
