//! Convolutions as fused kernels, where a device has no kernel of its own for them: where a window reaches outside
//! the data, the data is copied into a frame of zeros first; then every output is a sum of products through strided views. Plain, and
//! what faster ways are held against.

use crate::lower::contiguous;
use crate::program::{
    Buffer, BufferId, ConvKernel, ConvView, Instr, Kernel, Level, Order, Place, Program, ReduceOp, RowKernel, Step,
    View,
};
use raphson_graph::dtype::Scalar;
use raphson_graph::kernel::{Prim, Reg};

/// Alignment of temporaries in bytes, as `plan` has it.
const ALIGNMENT: usize = 64;

/// The same program with other kernels in place of its convolutions, but those that are to be kept. Frames lie at the end of the arena, all at the same
/// place: each is read by the kernel behind the one that fills it, and then no more.
pub fn without_convolutions(program: &Program, is_kept: impl Fn(&ConvKernel) -> bool) -> Program {
    let mut result = Program { kernels: Vec::with_capacity(program.kernels.len()), ..program.clone() };
    let frames = program.arena_bytes.next_multiple_of(ALIGNMENT);
    for kernel in &program.kernels {
        match kernel {
            Kernel::Conv(conv) if !is_kept(conv) => {
                let data = framed(&mut result, conv, frames);
                result.kernels.push(Kernel::Row(sums(conv, &data)));
            }
            Kernel::Row(_)
            | Kernel::Dot(_)
            | Kernel::Conv(_)
            | Kernel::Gather(_)
            | Kernel::ScatterAdd(_)
            | Kernel::Argsort(_)
            | Kernel::Attention(_)
            | Kernel::Fill { .. } => result.kernels.push(kernel.clone()),
        }
    }
    result
}

fn step(conv: &ConvKernel, instr: Instr, level: Level, pass: u32) -> Step {
    Step { instr, dtype: conv.dtype, level, pass }
}

/// The data as every output and tap may read it: the element where output 0 meets tap 0, and the strides. Pushes the
/// kernels that make a frame, if one is needed.
fn framed(program: &mut Program, conv: &ConvKernel, place: usize) -> ConvView {
    let before: Vec<usize> = conv.axes.iter().map(|axis| axis.low.max(0) as usize).collect();
    // The last element that is read is (outputs − 1)·stride + (taps − 1)·dilation − low.
    let after = conv.axes.iter().map(|axis| {
        let last = ((axis.outputs - 1) * axis.stride + (axis.taps - 1) * axis.dilation) as i64 - axis.low;
        (last + 1 - axis.size as i64).max(0) as usize
    });
    let after: Vec<usize> = after.collect();
    let starting = |view: ConvView, shift: &dyn Fn(usize) -> i64| {
        let offset = view.offset + (0..conv.axes.len()).map(|axis| shift(axis) * view.spatial[axis]).sum::<i64>();
        ConvView { offset, ..view }
    };
    if before.iter().chain(&after).all(|&n| n == 0) {
        return starting(conv.data.clone(), &|axis| -conv.axes[axis].low);
    }
    let leading = [conv.batch, conv.groups, conv.channels_in];
    let sizes: Vec<usize> = conv.axes.iter().map(|axis| axis.size).collect();
    let framed = (0..sizes.len()).map(|axis| before[axis] + sizes[axis] + after[axis]);
    let shape: Vec<usize> = leading.iter().copied().chain(framed).collect();
    let elements = shape.iter().product();
    program.buffers.push(Buffer { dtype: conv.dtype, elements, place: Place::Arena(place) });
    let buffer = BufferId((program.buffers.len() - 1) as u32);
    program.arena_bytes = program.arena_bytes.max(place + elements * conv.dtype.size_bytes());
    program.kernels.push(Kernel::Fill { buffer, value: Scalar::of(0.0, conv.dtype) });
    let strides = contiguous(&shape);
    let frame =
        ConvView { buffer, offset: 0, leading: [strides[0], strides[1], strides[2]], spatial: strides[3..].to_vec() };
    let inside = starting(frame.clone(), &|axis| before[axis] as i64);
    program.kernels.push(Kernel::Row(copy(conv, leading.into_iter().chain(sizes).collect(), &inside)));
    starting(frame, &|axis| before[axis] as i64 - conv.axes[axis].low)
}

fn all(view: &ConvView) -> View {
    let kept = view.leading.iter().chain(&view.spatial).copied().collect();
    View { offset: view.offset, kept, reduced: Vec::new() }
}

fn copy(conv: &ConvKernel, kept: Vec<usize>, to: &ConvView) -> RowKernel {
    let load = Instr::Load { buffer: conv.data.buffer, view: all(&conv.data) };
    let store = Instr::Store { buffer: to.buffer, view: all(to), value: Reg(0) };
    let steps = vec![step(conv, load, Level::Full, 0), step(conv, store, Level::Full, 0)];
    RowKernel { kept, reduced: Vec::new(), order: Order::Row, steps }
}

/// out[b, g, o, y…] = Σ data·kernel: kept (b, g, o, y…), reduced (i, t…).
fn sums(conv: &ConvKernel, data: &ConvView) -> RowKernel {
    let scaled = |by: fn(&crate::program::ConvAxis) -> usize| {
        conv.axes.iter().zip(&data.spatial).map(move |(axis, &stride)| by(axis) as i64 * stride)
    };
    let none = conv.axes.iter().map(|_| 0);
    let data_view = View {
        offset: data.offset,
        kept: [data.leading[0], data.leading[1], 0].into_iter().chain(scaled(|axis| axis.stride)).collect(),
        reduced: std::iter::once(data.leading[2]).chain(scaled(|axis| axis.dilation)).collect(),
    };
    let kernel = &conv.kernel;
    let kernel_view = View {
        offset: kernel.offset,
        kept: [0, kernel.leading[0], kernel.leading[1]].into_iter().chain(none).collect(),
        reduced: std::iter::once(kernel.leading[2]).chain(kernel.spatial.iter().copied()).collect(),
    };
    let sizes = |of: fn(&crate::program::ConvAxis) -> usize| conv.axes.iter().map(of);
    let kept: Vec<usize> =
        [conv.batch, conv.groups, conv.channels_out].into_iter().chain(sizes(|a| a.outputs)).collect();
    let reduced: Vec<usize> = std::iter::once(conv.channels_in).chain(sizes(|a| a.taps)).collect();
    let store = View { reduced: vec![0; reduced.len()], ..all(&conv.out) };
    let many_taps = sizes(|a| a.taps).product::<usize>() > sizes(|a| a.outputs).product();
    let order = if many_taps { Order::Row } else { Order::Column };
    let steps = vec![
        step(conv, Instr::Load { buffer: data.buffer, view: data_view }, Level::Full, 0),
        step(conv, Instr::Load { buffer: kernel.buffer, view: kernel_view }, Level::Full, 0),
        step(conv, Instr::Prim { prim: Prim::Mul, args: [Reg(0), Reg(1), Reg(0)] }, Level::Full, 0),
        step(conv, Instr::Reduce { op: ReduceOp::Sum, arg: Reg(2) }, Level::Kept, 0),
        step(conv, Instr::Store { buffer: conv.out.buffer, view: store, value: Reg(3) }, Level::Kept, 1),
    ];
    RowKernel { kept, reduced, order, steps }
}
