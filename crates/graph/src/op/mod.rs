//! The ops. `elementwise` holds the table of rows; each other file states one family: shape rule, builder, reference,
//! jvp and vjp. This file holds the closed list and dispatches over it, with no catch-all arm.

pub mod argsort;
pub mod attention;
pub mod conv;
pub mod dot;
pub mod elementwise;
pub mod gather;
pub mod leaf;
pub mod movement;
pub mod reduce;

use crate::dtype::Scalar;
use crate::error::Result;
use crate::value::Value;
use attention::Attention;
use conv::Window;
use elementwise::Row;
use reduce::ReduceOp;

/// What a node computes. Result shape and dtype stand beside it in the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A placeholder or stored data.
    Input,
    /// One value everywhere.
    Constant(Scalar),
    /// The position along an axis.
    Iota { axis: usize },
    /// The identity with an identity of its own: what transforms differentiate with respect to.
    Alias,
    /// The identity, through which no derivative passes.
    StopGradient,
    /// A row of the elementwise table.
    Elementwise(&'static Row),
    /// Conversion to the node's dtype.
    Cast,
    /// The same elements in row-major order under another shape.
    Reshape,
    /// Axis `i` of the result is axis `axes[i]` of the operand.
    Permute { axes: Vec<usize> },
    /// Axes of size 1 repeated to the node's shape (equal rank).
    Expand,
    /// Elements `start + i·step` of each axis.
    Slice { start: Vec<usize>, step: Vec<usize> },
    /// Zeros around (`low`, `high`) and between (`interior`) the elements of each axis.
    Pad { low: Vec<usize>, high: Vec<usize>, interior: Vec<usize> },
    /// These axes backwards.
    Flip { axes: Vec<usize> },
    /// Operands one after another along an axis.
    Concatenate { axis: usize },
    /// Combine along axes, which vanish.
    Reduce { op: ReduceOp, axes: Vec<usize> },
    /// Batched matrix product [b…, m, k] · [b…, k, n].
    Dot,
    /// Convolution of data [batch, groups, in, size…] with a kernel [groups, out, in, taps…]; the node's shape says how
    /// many outputs there are.
    Conv { windows: Vec<Window> },
    /// Rows of `data` along an axis, chosen by integer indices.
    Gather { axis: usize },
    /// Sum of updates into positions along an axis: the adjoint of gather.
    ScatterAdd { axis: usize },
    /// Positions along the last axis in the order of their elements.
    Argsort { descending: bool },
    /// Attention and the logarithms of its sums, packed; operands q, k, v and perhaps a mask.
    Attention(Attention),
    /// The cotangents of attention's q, k and v, packed; operands q, k, v, the logarithms, δ, the output's cotangent and
    /// perhaps the mask.
    AttentionVjp(Attention),
}

impl Op {
    /// The name in errors and listings.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Constant(_) => "constant",
            Op::Iota { .. } => "iota",
            Op::Alias => "alias",
            Op::StopGradient => "stopGradient",
            Op::Elementwise(row) => row.name,
            Op::Cast => "cast",
            Op::Reshape => "reshape",
            Op::Permute { .. } => "permute",
            Op::Expand => "expand",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Flip { .. } => "flip",
            Op::Concatenate { .. } => "concatenate",
            Op::Reduce { op, .. } => op.name(),
            Op::Dot => "dot",
            Op::Conv { .. } => "conv",
            Op::Gather { .. } => "gather",
            Op::ScatterAdd { .. } => "scatterAdd",
            Op::Argsort { .. } => "argsort",
            Op::Attention(_) => "attention",
            Op::AttentionVjp(_) => "attentionVjp",
        }
    }

    /// Whether the result is the operand's elements in another arrangement, so that a strided view may do.
    pub fn is_view(&self) -> bool {
        match self {
            Op::Alias
            | Op::StopGradient
            | Op::Reshape
            | Op::Permute { .. }
            | Op::Expand
            | Op::Slice { .. }
            | Op::Flip { .. } => true,
            Op::Input
            | Op::Constant(_)
            | Op::Iota { .. }
            | Op::Elementwise(_)
            | Op::Cast
            | Op::Pad { .. }
            | Op::Concatenate { .. }
            | Op::Reduce { .. }
            | Op::Dot
            | Op::Conv { .. }
            | Op::Gather { .. }
            | Op::ScatterAdd { .. }
            | Op::Argsort { .. }
            | Op::Attention(_)
            | Op::AttentionVjp(_) => false,
        }
    }
}

/// The same op on other operands of the same shapes and dtypes.
pub fn rebuild(node: &Value, inputs: Vec<Value>) -> Value {
    Value::node(node.op().clone(), inputs, node.shape().clone(), node.dtype())
}

/// Tangent of `y` given the tangents of its operands `x` (`None` means zero).
pub fn jvp(y: &Value, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    if !y.dtype().is_float() || tangents.iter().all(Option::is_none) {
        return Ok(None);
    }
    match y.op() {
        Op::Input | Op::Constant(_) | Op::Iota { .. } | Op::StopGradient | Op::Argsort { .. } => Ok(None),
        Op::Elementwise(row) => elementwise::jvp(row, y, x, tangents),
        Op::Concatenate { axis } => movement::concatenate_jvp(*axis, x, tangents),
        Op::Reduce { op, axes } => reduce::jvp(*op, axes, y, x, tangents),
        Op::Dot => dot::jvp(x, tangents),
        Op::Conv { windows } => conv::jvp(windows, y, x, tangents),
        Op::Attention(options) => attention::jvp(*options, y, x, tangents),
        Op::AttentionVjp(_) => attention::reverse_jvp(y, x, tangents),
        // The rest are linear in their first operand: y′ = op(x′).
        Op::Alias
        | Op::Cast
        | Op::Reshape
        | Op::Permute { .. }
        | Op::Expand
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Flip { .. }
        | Op::Gather { .. }
        | Op::ScatterAdd { .. } => Ok(tangents[0].as_ref().map(|tangent| {
            let mut inputs = x.to_vec();
            inputs[0] = tangent.clone();
            rebuild(y, inputs)
        })),
    }
}

/// Whether `y` is an affine function of those operands that `moves` names together, the others held fixed: exactly so but
/// for rounding, and with the derivative that [`jvp`] gives.
pub fn is_affine(y: &Value, moves: &[bool]) -> bool {
    let only_first = moves.iter().skip(1).all(|moves| !moves);
    match y.op() {
        Op::Input | Op::Constant(_) | Op::Iota { .. } | Op::StopGradient | Op::Argsort { .. } => false,
        // A conversion may round coarsely.
        Op::Cast => false,
        Op::Attention(_) | Op::AttentionVjp(_) => false,
        Op::Elementwise(row) => elementwise::is_affine(row, moves),
        Op::Reduce { op, .. } => *op == ReduceOp::Sum,
        Op::Dot | Op::Conv { .. } => !(moves[0] && moves[1]),
        Op::Gather { .. } | Op::ScatterAdd { .. } => only_first,
        Op::Alias
        | Op::Reshape
        | Op::Permute { .. }
        | Op::Expand
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Flip { .. }
        | Op::Concatenate { .. } => true,
    }
}

/// Cotangents of the operands `x` given the cotangent of `y`; `None` means zero. Only operands with `wanted` are asked for.
pub fn vjp(y: &Value, x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    let none = || Ok(vec![None; x.len()]);
    match y.op() {
        Op::Input | Op::Constant(_) | Op::Iota { .. } | Op::StopGradient | Op::Argsort { .. } => none(),
        Op::Elementwise(row) => elementwise::vjp(row, y, x, cotangent, wanted),
        // x̄ = ȳ in the operand's dtype
        Op::Cast if x[0].dtype().is_float() => Ok(vec![Some(cotangent.cast(x[0].dtype())?)]),
        Op::Cast => none(),
        Op::Alias => Ok(vec![Some(cotangent.clone())]),
        Op::Reshape => Ok(vec![Some(cotangent.reshape(x[0].shape())?)]),
        Op::Permute { axes } => Ok(vec![Some(movement::permute_vjp(axes, cotangent)?)]),
        Op::Expand => Ok(vec![Some(movement::expand_vjp(x[0].shape(), cotangent)?)]),
        Op::Slice { start, step } => Ok(vec![Some(movement::slice_vjp(start, step, x[0].shape(), cotangent)?)]),
        Op::Pad { low, interior, .. } => Ok(vec![Some(movement::pad_vjp(low, interior, x[0].shape(), cotangent)?)]),
        Op::Flip { axes } => Ok(vec![Some(cotangent.flip(axes)?)]),
        Op::Concatenate { axis } => movement::concatenate_vjp(*axis, x, cotangent, wanted),
        Op::Reduce { op, axes } => Ok(vec![reduce::vjp(*op, axes, y, &x[0], cotangent)?]),
        Op::Dot => dot::vjp(x, cotangent, wanted),
        Op::Conv { windows } => conv::vjp(windows, x, cotangent, wanted),
        Op::Attention(options) => attention::vjp(*options, y, x, cotangent, wanted),
        Op::AttentionVjp(_) => attention::reverse_vjp(y, x, cotangent, wanted),
        Op::Gather { axis } => Ok(vec![Some(gather::gather_vjp(*axis, &x[0], &x[1], cotangent)?), None]),
        Op::ScatterAdd { axis } => Ok(vec![Some(cotangent.gather(&x[1], *axis)?), None]),
    }
}
