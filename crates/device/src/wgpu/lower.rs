//! Rewriting a program into kernels that this device prints well: fills and thin matrix products become fused kernels,
//! products of few tiles but many terms are cut along k, to be added up by another kernel, and fused kernels that are
//! too long are cut as `cut` says.

use super::cut::{contiguous, cut};
use raphson_compile::program::{
    Buffer, BufferId, DotKernel, Instr, Kernel, Level, MatrixView, Order, Place, Program, ReduceOp, RowKernel, Step,
    View,
};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::kernel::{Prim, Reg};

/// A product with at most this many rows or columns, or terms, is thin: a tile would mostly be empty.
const THIN: usize = 4;
/// Tiles that keep a device busy.
const BUSY: usize = 128;
/// The least number of terms of a part.
const TERMS: usize = 128;

/// The same program in other kernels.
pub fn lowered(program: &Program) -> Program {
    let mut result = Program { kernels: Vec::with_capacity(program.kernels.len()), ..program.clone() };
    for kernel in program.kernels.iter().filter(|kernel| writes(kernel)) {
        match kernel {
            Kernel::Fill { buffer, value } => fill(&mut result, *buffer, *value),
            Kernel::Dot(dot) if dot.m.min(dot.n).min(dot.k) <= THIN => {
                let kernel = thin(dot);
                result.kernels.push(Kernel::Row(kernel));
            }
            Kernel::Dot(dot) => match parts(dot) {
                1 => result.kernels.push(kernel.clone()),
                parts => divided(&mut result, dot, parts),
            },
            Kernel::Row(row) => {
                let pieces = cut(&mut result, row);
                result.kernels.extend(pieces.into_iter().map(Kernel::Row));
            }
            Kernel::Conv(_) | Kernel::Gather(_) | Kernel::ScatterAdd(_) | Kernel::Argsort(_) => {
                result.kernels.push(kernel.clone());
            }
        }
    }
    result
}

/// Whether a kernel has anything to write.
fn writes(kernel: &Kernel) -> bool {
    match kernel {
        Kernel::Row(row) => !row.kept.contains(&0),
        Kernel::Dot(dot) => !dot.batch.contains(&0) && dot.m * dot.n > 0,
        // Replaced before.
        Kernel::Conv(_) => true,
        Kernel::Gather(gather) => gather.outer * gather.count * gather.inner > 0,
        Kernel::ScatterAdd(scatter) => scatter.outer * scatter.axis * scatter.inner > 0,
        Kernel::Argsort(sort) => sort.rows * sort.length > 0,
        Kernel::Fill { .. } => true,
    }
}

fn fill(program: &mut Program, buffer: BufferId, value: Scalar) {
    let Buffer { dtype, elements, .. } = program.buffers[buffer.0 as usize];
    if elements == 0 {
        return;
    }
    let dtype = dtype.register();
    let view = View { offset: 0, kept: vec![1], reduced: Vec::new() };
    let store = Instr::Store { buffer, view, value: Reg(0) };
    let steps = vec![step(Instr::Const(value), dtype, Level::Full, 0), step(store, dtype, Level::Full, 0)];
    program.kernels.push(Kernel::Row(RowKernel {
        kept: vec![elements],
        reduced: Vec::new(),
        order: Order::Row,
        steps,
    }));
}

fn step(instr: Instr, dtype: DType, level: Level, pass: u32) -> Step {
    Step { instr, dtype, level, pass }
}

/// out[b, m, n] = Σₖ left[b, m, k]·right[b, k, n] as a fused kernel: kept (b, m, n), reduced (k).
fn thin(dot: &DotKernel) -> RowKernel {
    let kept: Vec<usize> = dot.batch.iter().copied().chain([dot.m, dot.n]).collect();
    let matrix = |view: &MatrixView, strides: [i64; 2], along: i64| View {
        offset: view.offset,
        kept: view.batch.iter().copied().chain(strides).collect(),
        reduced: vec![along],
    };
    let (left, right) = (&dot.left, &dot.right);
    let left_view = matrix(left, [left.rows, 0], left.columns);
    let right_view = matrix(right, [0, right.columns], right.rows);
    // Threads run along k where the greater matrix is contiguous there.
    let along = if dot.m > dot.n { left.columns } else { right.rows };
    let order = if along == 1 { Order::Row } else { Order::Column };
    let store = View { offset: 0, kept: contiguous(&kept), reduced: vec![0] };
    let dtype = dot.dtype;
    let steps = vec![
        step(Instr::Load { buffer: left.buffer, view: left_view }, dtype, Level::Full, 0),
        step(Instr::Load { buffer: right.buffer, view: right_view }, dtype, Level::Full, 0),
        step(Instr::Prim { prim: Prim::Mul, args: [Reg(0), Reg(1), Reg(0)] }, dtype, Level::Full, 0),
        step(Instr::Reduce { op: ReduceOp::Sum, arg: Reg(2) }, dtype, Level::Kept, 0),
        step(Instr::Store { buffer: dot.out, view: store, value: Reg(3) }, dtype, Level::Kept, 1),
    ];
    RowKernel { kept, reduced: vec![dot.k], order, steps }
}

/// In how many parts to cut k: a divisor that gives enough tiles, as long as parts stay long.
fn parts(dot: &DotKernel) -> usize {
    let tiles = dot.m.div_ceil(64) * dot.n.div_ceil(64) * dot.batch.iter().product::<usize>();
    let wanted = BUSY.div_ceil(tiles.max(1)).min(dot.k / TERMS);
    (1..=wanted).rev().find(|&parts| dot.k.is_multiple_of(parts)).unwrap_or(1)
}

/// partial[p, b, m, n] over each part of k, then out = Σₚ partial.
fn divided(program: &mut Program, dot: &DotKernel, parts: usize) {
    let results = dot.batch.iter().product::<usize>() * dot.m * dot.n;
    program.buffers.push(Buffer { dtype: dot.dtype, elements: parts * results, place: Place::Arena(0) });
    let partial = BufferId((program.buffers.len() - 1) as u32);
    let terms = dot.k / parts;
    let cut = |view: &MatrixView, along: i64| MatrixView {
        batch: std::iter::once(terms as i64 * along).chain(view.batch.iter().copied()).collect(),
        ..view.clone()
    };
    program.kernels.push(Kernel::Dot(DotKernel {
        batch: std::iter::once(parts).chain(dot.batch.iter().copied()).collect(),
        k: terms,
        left: cut(&dot.left, dot.left.columns),
        right: cut(&dot.right, dot.right.rows),
        out: partial,
        ..dot.clone()
    }));
    let load = View { offset: 0, kept: vec![1], reduced: vec![results as i64] };
    let store = View { offset: 0, kept: vec![1], reduced: vec![0] };
    let steps = vec![
        step(Instr::Load { buffer: partial, view: load }, dot.dtype, Level::Full, 0),
        step(Instr::Reduce { op: ReduceOp::Sum, arg: Reg(0) }, dot.dtype, Level::Kept, 0),
        step(Instr::Store { buffer: dot.out, view: store, value: Reg(1) }, dot.dtype, Level::Kept, 1),
    ];
    let sum = RowKernel { kept: vec![results], reduced: vec![parts], order: Order::Column, steps };
    program.kernels.push(Kernel::Row(sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(m: usize, k: usize, n: usize) -> DotKernel {
        let view = |rows: i64| MatrixView { buffer: BufferId(0), offset: 0, batch: vec![], rows, columns: 1 };
        let (left, right) = (view(k as i64), view(n as i64));
        DotKernel { dtype: DType::F32, batch: vec![], m, k, n, left, right, out: BufferId(1) }
    }

    #[test]
    fn long_sums_of_few_tiles_are_cut() {
        assert_eq!(parts(&dot(1024, 1024, 1024)), 1);
        assert_eq!(parts(&dot(64, 4096, 64)), 32);
        assert_eq!(parts(&dot(64, 100, 64)), 1);
        assert_eq!(parts(&dot(64, 300, 64)), 2);
        assert_eq!(parts(&dot(64, 8191, 64)), 1);
    }
}
