//! Programs that reach outside their buffers are refused, since shaders run without checks of their own.

use super::place::is_narrow;
use raphson_compile::program::{
    AttentionKernel, BufferId, ConvAxis, ConvKernel, ConvView, DotKernel, Instr, Kernel, Level, MatrixView, Place,
    Program, RowKernel,
};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};

/// An error if any kernel touches what is outside its buffers, or takes a buffer for what it is not.
pub fn check_bounds(program: &Program) -> Result<()> {
    for &input in &program.inputs {
        let buffer = definition(program, input)?;
        // Its bytes would be looked for among the words that kernels write.
        if is_narrow(buffer.dtype) && matches!(buffer.place, Place::InPlace { .. }) {
            return Err(bug(format!("a {} input and its output are one buffer", buffer.dtype)));
        }
    }
    program.outputs.iter().try_for_each(|&output| definition(program, output).map(drop))?;
    for kernel in &program.kernels {
        match kernel {
            Kernel::Row(row) => check_row(program, row)?,
            Kernel::Dot(dot) => check_dot(program, dot)?,
            Kernel::Conv(conv) => check_conv(program, conv)?,
            Kernel::Gather(g) => {
                holds(program, g.data, g.dtype, g.outer * g.axis * g.inner)?;
                holds(program, g.indices, g.index_dtype, g.count)?;
                holds(program, g.out, g.dtype, g.outer * g.count * g.inner)?;
                is_index(g.index_dtype)?;
            }
            Kernel::ScatterAdd(s) => {
                holds(program, s.updates, s.dtype, s.outer * s.count * s.inner)?;
                holds(program, s.indices, s.index_dtype, s.count)?;
                holds(program, s.out, s.dtype, s.outer * s.axis * s.inner)?;
                is_index(s.index_dtype)?;
                if is_narrow(s.dtype) {
                    return Err(bug(format!("a scatter of {}", s.dtype)));
                }
            }
            Kernel::Argsort(s) => {
                holds(program, s.data, s.dtype, s.rows * s.length)?;
                holds(program, s.out, DType::I32, s.rows * s.length)?;
            }
            Kernel::Attention(attention) => check_attention(program, attention)?,
            Kernel::Fill { buffer, .. } => definition(program, *buffer).map(drop)?,
        }
    }
    Ok(())
}

fn bug(message: impl Into<String>) -> Error {
    Error::internal("wgpu", message)
}

fn definition(program: &Program, id: BufferId) -> Result<&raphson_compile::program::Buffer> {
    program.buffers.get(id.0 as usize).ok_or_else(|| bug(format!("there is no buffer {}", id.0)))
}

fn is_index(dtype: DType) -> Result<()> {
    if matches!(dtype, DType::I32 | DType::U32) { Ok(()) } else { Err(bug(format!("indices of {dtype}"))) }
}

/// The buffer has this dtype and at least so many elements.
fn holds(program: &Program, id: BufferId, dtype: DType, elements: usize) -> Result<()> {
    let buffer = definition(program, id)?;
    if buffer.dtype != dtype || buffer.elements < elements {
        let message = format!("buffer {} of {} {} for {elements} {dtype}", id.0, buffer.elements, buffer.dtype);
        return Err(bug(message));
    }
    Ok(())
}

/// `offset` and all steps along the axes stay inside the buffer.
fn inside(
    program: &Program,
    id: BufferId,
    dtype: DType,
    offset: i64,
    axes: impl Iterator<Item = (usize, i64)>,
) -> Result<()> {
    holds(program, id, dtype, 0)?;
    let (mut least, mut most) = (i128::from(offset), i128::from(offset));
    for (size, stride) in axes {
        if size == 0 {
            return Ok(());
        }
        let reach = i128::from(stride) * (size as i128 - 1);
        least += reach.min(0);
        most += reach.max(0);
    }
    let elements = program.buffers[id.0 as usize].elements;
    if least < 0 || most >= elements as i128 {
        return Err(bug(format!("a view of {least}..={most} reaches outside buffer {} of {elements} elements", id.0)));
    }
    Ok(())
}

fn check_row(program: &Program, row: &RowKernel) -> Result<()> {
    for step in &row.steps {
        let (buffer, view) = match &step.instr {
            Instr::Load { buffer, view } | Instr::Store { buffer, view, .. } => (*buffer, view),
            Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => continue,
        };
        if view.kept.len() != row.kept.len() || view.reduced.len() != row.reduced.len() {
            return Err(bug("a view of other axes than its kernel"));
        }
        let kept = row.kept.iter().copied().zip(view.kept.iter().copied());
        let reduced = row.reduced.iter().copied().zip(view.reduced.iter().copied());
        let stored = definition(program, buffer)?.dtype;
        if stored.register() != step.dtype {
            return Err(bug(format!("buffer {} of {stored} for {}", buffer.0, step.dtype)));
        }
        let n_reduced = if step.level == Level::Full { row.reduced.len() } else { 0 };
        inside(program, buffer, stored, view.offset, kept.chain(reduced.take(n_reduced)))?;
    }
    Ok(())
}

fn check_dot(program: &Program, dot: &DotKernel) -> Result<()> {
    let matrix = |view: &MatrixView, rows: usize, columns: usize| {
        if view.batch.len() != dot.batch.len() {
            return Err(bug("a matrix of another batch than its product"));
        }
        let batch = dot.batch.iter().copied().zip(view.batch.iter().copied());
        let axes = batch.chain([(rows, view.rows), (columns, view.columns)]);
        inside(program, view.buffer, dot.dtype, view.offset, axes)
    };
    matrix(&dot.left, dot.m, dot.k)?;
    matrix(&dot.right, dot.k, dot.n)?;
    holds(program, dot.out, dot.dtype, dot.batch.iter().product::<usize>() * dot.m * dot.n)
}

fn check_attention(program: &Program, attention: &AttentionKernel) -> Result<()> {
    for (view, rows, columns) in attention.operands() {
        if view.batch.len() != attention.batch.len() {
            return Err(bug("an operand of another batch than its attention"));
        }
        let dtype = if attention.mask.as_ref() == Some(view) { DType::Bool } else { attention.dtype };
        let batch = attention.batch.iter().copied().zip(view.batch.iter().copied());
        let axes = batch.chain([(rows, view.rows), (columns, view.columns)]);
        inside(program, view.buffer, dtype, view.offset, axes)?;
    }
    holds(program, attention.out, attention.dtype, attention.batch.iter().product::<usize>() * attention.packed())
}

fn check_conv(program: &Program, conv: &ConvKernel) -> Result<()> {
    let check = |view: &ConvView, leading: [usize; 3], size: fn(&ConvAxis) -> usize| {
        if view.spatial.len() != conv.axes.len() {
            return Err(bug("a convolution of other axes than its view"));
        }
        let spatial = conv.axes.iter().map(size).zip(view.spatial.iter().copied());
        let axes = leading.into_iter().zip(view.leading).chain(spatial);
        inside(program, view.buffer, conv.dtype, view.offset, axes)
    };
    check(&conv.data, [conv.batch, conv.groups, conv.channels_in], |axis| axis.size)?;
    check(&conv.kernel, [conv.groups, conv.channels_out, conv.channels_in], |axis| axis.taps)?;
    check(&conv.out, [conv.batch, conv.groups, conv.channels_out], |axis| axis.outputs)
}
