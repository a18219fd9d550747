//! Storage dtypes out of the kernels that cannot convert while they read and write. Fused kernels load and store f16,
//! bf16 and u8 themselves; products, convolutions, scatter-adds and sums in parts get operands converted before and results
//! after, so that they accumulate in the register's dtype, and every device has them without further ado. So do argsorts,
//! whose results are i32 anyway. Indices become i32.

use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::{Graph, Node, NodeIndex};
use raphson_graph::op::Op;
use raphson_graph::op::elementwise::{Accept, Gives, MAXIMUM, MINIMUM, Row};
use raphson_graph::op::reduce::ReduceOp;

/// The same graph with conversions around such nodes. Equal conversions are not merged here.
pub fn widen(graph: &Graph) -> Graph {
    let mut widening = Widening { nodes: Vec::with_capacity(graph.nodes.len()) };
    let mut new: Vec<NodeIndex> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = node.inputs.iter().map(|&input| new[input as usize]).collect();
        let index = widening.node(Node { inputs, ..node.clone() });
        new.push(index);
    }
    let at = |list: &[NodeIndex]| list.iter().map(|&i| new[i as usize]).collect();
    Graph { inputs: at(&graph.inputs), outputs: at(&graph.outputs), nodes: widening.nodes }
}

/// From a register's dtype to f16 or bf16 without rounding: that is left to the store, if there is one. (A cast that somebody
/// asked for rounds at once.) So the mean of many f16 does not overflow where their sum would, and is rounded once.
static NARROW: Row = Row {
    name: "narrow",
    doc: "",
    arity: 1,
    accept: Accept::Float,
    gives: Gives::Same,
    reference: |x, _| x[0],
    kernel: |_, x| x[0],
    partial: |_, _, _| Ok(None),
    domain: &[(-1.0, 1.0)],
};

struct Widening {
    nodes: Vec<Node>,
}

impl Widening {
    fn push(&mut self, node: Node) -> NodeIndex {
        self.nodes.push(node);
        (self.nodes.len() - 1) as NodeIndex
    }

    fn cast(&mut self, of: NodeIndex, dtype: DType) -> NodeIndex {
        let node = &self.nodes[of as usize];
        if node.dtype == dtype {
            return of;
        }
        let shape = node.shape.clone();
        self.push(Node { op: Op::Cast, inputs: vec![of], shape, dtype })
    }

    /// A value in its register's dtype. The conversion goes before what only moves elements, to where they are computed: there
    /// it costs nothing, and nothing is rounded in between.
    fn widened(&mut self, of: NodeIndex) -> NodeIndex {
        let node = self.nodes[of as usize].clone();
        let dtype = node.dtype.register();
        match node.op {
            _ if dtype == node.dtype => of,
            Op::Elementwise(row) if *row == NARROW => node.inputs[0],
            Op::Reshape | Op::Permute { .. } | Op::Expand | Op::Flip { .. } => {
                let inputs = vec![self.widened(node.inputs[0])];
                self.push(Node { inputs, dtype, ..node })
            }
            _ => self.cast(of, dtype),
        }
    }

    /// The result of an op on wide operands, as the op's own dtype.
    fn narrowed(&mut self, wide: NodeIndex, dtype: DType) -> NodeIndex {
        if !dtype.is_float() {
            return self.cast(wide, dtype);
        }
        let shape = self.nodes[wide as usize].shape.clone();
        self.push(Node { op: Op::Elementwise(&NARROW), inputs: vec![wide], shape, dtype })
    }

    fn node(&mut self, mut node: Node) -> NodeIndex {
        if let (Op::Gather { .. } | Op::ScatterAdd { .. }, &[_, indices]) = (&node.op, &node.inputs[..]) {
            node.inputs[1] = self.indices(indices);
        }
        // How many of the operands hold numbers.
        let operands = match &node.op {
            Op::Dot | Op::Conv { .. } => 2,
            Op::ScatterAdd { .. } => 1,
            Op::Reduce { op: ReduceOp::Sum | ReduceOp::Prod, .. } => 1,
            // The greatest and the least are elements; the rest are fused, or only move elements.
            Op::Reduce { op: ReduceOp::Max | ReduceOp::Min | ReduceOp::ArgMax, .. }
            | Op::Input
            | Op::Constant(_)
            | Op::Iota { .. }
            | Op::Alias
            | Op::StopGradient
            | Op::Elementwise(_)
            | Op::Cast
            | Op::Reshape
            | Op::Permute { .. }
            | Op::Expand
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Flip { .. }
            | Op::Concatenate { .. }
            | Op::Gather { .. }
            | Op::Argsort { .. } => 0,
        };
        let dtype = node.dtype;
        // Wider numbers are in the same order.
        if let Op::Argsort { .. } = node.op {
            node.inputs[0] = self.widened(node.inputs[0]);
        }
        if operands == 0 || !dtype.is_storage() {
            return self.push(node);
        }
        node.dtype = dtype.register();
        for at in 0..operands {
            node.inputs[at] = self.widened(node.inputs[at]);
        }
        let wide = self.push(node);
        self.narrowed(wide, dtype)
    }

    /// Indices as devices read them, i32 or u32. Of i64 those beyond the range of i32 stay outside every axis: −1 and the
    /// greatest i32 stand for them.
    fn indices(&mut self, mut indices: NodeIndex) -> NodeIndex {
        let Node { dtype, shape, .. } = self.nodes[indices as usize].clone();
        if dtype == DType::I64 {
            for (row, bound) in [(&MAXIMUM, -1), (&MINIMUM, i64::from(i32::MAX))] {
                let bound = Op::Constant(Scalar::Int(bound));
                let bound = self.push(Node { op: bound, inputs: Vec::new(), shape: shape.clone(), dtype });
                let inputs = vec![indices, bound];
                indices = self.push(Node { op: Op::Elementwise(row), inputs, shape: shape.clone(), dtype });
            }
        }
        if matches!(dtype, DType::I64 | DType::U8) { self.cast(indices, DType::I32) } else { indices }
    }
}
