//! Rewriting a program into kernels that this device prints well: fills and thin matrix products become fused kernels,
//! products and convolutions of few tiles but many terms are cut along those, to be added up by another kernel, rows that
//! are too long to be sorted at once are sorted in runs and merged, and fused kernels that are too long are cut as `cut` says.

use super::argsort::run_length;
use super::cut::{contiguous, cut};
use raphson_compile::program::{
    ArgsortKernel, AttentionKernel, Buffer, BufferId, ConvKernel, ConvView, DotKernel, Instr, Kernel, Level,
    MatrixView, Order, Place, Program, ReduceOp, RowKernel, Step, View,
};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::kernel::{Prim, Reg};

/// A product with at most this many rows or columns, or terms, is thin: a tile would mostly be empty.
const THIN: usize = 4;
/// Tiles that keep a device busy.
const BUSY: usize = 128;
/// The least number of terms of a part.
const TERMS: usize = 128;

/// What becomes one text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are kernels, and they live while a program is prepared")]
pub enum Work {
    /// A kernel; an argsort sorts each run of its rows.
    Kernel(Kernel),
    /// Runs of this length, whose positions are in `from`, merged in pairs.
    Merge { sort: ArgsortKernel, from: BufferId, run: usize },
    /// The part of an attention's reverse that is about keys and values; the kernel itself is about queries.
    OfKeys(Box<AttentionKernel>),
}

impl Work {
    /// The buffers that it reads, and those that it writes.
    pub fn buffers(&self) -> (Vec<BufferId>, Vec<BufferId>) {
        match self {
            Work::Kernel(kernel) => kernel.buffers(),
            Work::Merge { sort, from, .. } => (vec![sort.data, *from], vec![sort.out]),
            Work::OfKeys(attention) => Kernel::Attention(attention.clone()).buffers(),
        }
    }
}

/// The buffers of a program and what is to be done.
pub struct Lowered {
    /// Without its kernels.
    pub program: Program,
    pub works: Vec<Work>,
}

impl Lowered {
    fn push(&mut self, kernel: Kernel) {
        self.works.push(Work::Kernel(kernel));
    }

    /// A new temporary.
    fn temporary(&mut self, dtype: DType, elements: usize) -> BufferId {
        self.program.buffers.push(Buffer { dtype, elements, place: Place::Arena(0) });
        BufferId((self.program.buffers.len() - 1) as u32)
    }
}

/// The same program in other kernels.
pub fn lowered(program: &Program) -> Lowered {
    let mut result = Lowered { program: Program { kernels: Vec::new(), ..program.clone() }, works: Vec::new() };
    for kernel in program.kernels.iter().filter(|kernel| writes(kernel)) {
        match kernel {
            Kernel::Fill { buffer, value } => fill(&mut result, *buffer, *value),
            Kernel::Dot(dot) if dot.m.min(dot.n).min(dot.k) <= THIN => result.push(Kernel::Row(thin(dot))),
            Kernel::Dot(dot) => match parts(dot) {
                1 => result.push(kernel.clone()),
                parts => divided(&mut result, dot, parts),
            },
            Kernel::Conv(conv) => match parts_of_conv(conv) {
                1 => result.push(kernel.clone()),
                parts => divided_conv(&mut result, conv, parts),
            },
            Kernel::Row(row) => {
                let pieces = cut(&mut result.program, row);
                pieces.into_iter().for_each(|piece| result.push(Kernel::Row(piece)));
            }
            Kernel::Argsort(sort) => sorted(&mut result, sort),
            Kernel::Attention(attention) => attended(&mut result, attention),
            Kernel::Gather(_) | Kernel::ScatterAdd(_) => result.push(kernel.clone()),
        }
    }
    result
}

/// Whether a kernel has anything to write.
fn writes(kernel: &Kernel) -> bool {
    match kernel {
        Kernel::Row(row) => !row.kept.contains(&0),
        Kernel::Dot(dot) => !dot.batch.contains(&0) && dot.m * dot.n > 0,
        Kernel::Conv(conv) => {
            let (rows, columns, _) = conv.as_product();
            conv.groups * rows * columns > 0
        }
        Kernel::Attention(attention) => !attention.batch.contains(&0) && attention.packed() > 0,
        Kernel::Gather(gather) => gather.outer * gather.count * gather.inner > 0,
        Kernel::ScatterAdd(scatter) => scatter.outer * scatter.axis * scatter.inner > 0,
        Kernel::Argsort(sort) => sort.rows * sort.length > 0,
        Kernel::Fill { .. } => true,
    }
}

/// An attention, or the two kernels of its reverse, where they have rows.
fn attended(result: &mut Lowered, attention: &AttentionKernel) {
    if attention.queries > 0 {
        result.push(Kernel::Attention(Box::new(attention.clone())));
    }
    if attention.reverse.is_some() && attention.keys > 0 {
        result.works.push(Work::OfKeys(Box::new(attention.clone())));
    }
}

fn fill(result: &mut Lowered, buffer: BufferId, value: Scalar) {
    let Buffer { dtype, elements, .. } = result.program.buffers[buffer.0 as usize];
    if elements == 0 {
        return;
    }
    let dtype = dtype.register();
    let view = View { offset: 0, kept: vec![1], reduced: Vec::new() };
    let store = Instr::Store { buffer, view, value: Reg(0) };
    let steps = vec![step(Instr::Const(value), dtype, Level::Full, 0), step(store, dtype, Level::Full, 0)];
    result.push(Kernel::Row(RowKernel { kept: vec![elements], reduced: Vec::new(), order: Order::Row, steps }));
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

/// In how many parts to cut a sum of `terms`, of which `of` may be divided: a divisor of that which gives enough tiles, as
/// long as parts stay long.
fn divisor(tiles: usize, terms: usize, of: usize) -> usize {
    let wanted = BUSY.div_ceil(tiles.max(1)).min(terms / TERMS);
    (1..=wanted).rev().find(|&parts| of.is_multiple_of(parts)).unwrap_or(1)
}

fn parts(dot: &DotKernel) -> usize {
    let tiles = dot.m.div_ceil(64) * dot.n.div_ceil(64) * dot.batch.iter().product::<usize>();
    divisor(tiles, dot.k, dot.k)
}

/// Gradients of kernels: what is summed over first is the batch, and there is one group.
fn parts_of_conv(conv: &ConvKernel) -> usize {
    let (rows, columns, terms) = conv.as_product();
    if conv.groups == 1 { divisor(rows.div_ceil(64) * columns.div_ceil(64), terms, conv.channels_in) } else { 1 }
}

/// partial[p, b, m, n] over each part of k, then out = Σₚ partial.
fn divided(result: &mut Lowered, dot: &DotKernel, parts: usize) {
    let results = dot.batch.iter().product::<usize>() * dot.m * dot.n;
    let partial = result.temporary(dot.dtype, parts * results);
    let terms = dot.k / parts;
    let cut = |view: &MatrixView, along: i64| MatrixView {
        batch: std::iter::once(terms as i64 * along).chain(view.batch.iter().copied()).collect(),
        ..view.clone()
    };
    result.push(Kernel::Dot(DotKernel {
        batch: std::iter::once(parts).chain(dot.batch.iter().copied()).collect(),
        k: terms,
        left: cut(&dot.left, dot.left.columns),
        right: cut(&dot.right, dot.right.rows),
        out: partial,
        ..dot.clone()
    }));
    let store = View { offset: 0, kept: vec![1], reduced: vec![0] };
    result.push(Kernel::Row(added_up(dot.dtype, partial, parts, vec![results], dot.out, store)));
}

/// partial[p, b, o, y…] over each part of the channels, as groups, then out = Σₚ partial.
fn divided_conv(result: &mut Lowered, conv: &ConvKernel, parts: usize) {
    let kept: Vec<usize> =
        [conv.batch, conv.channels_out].into_iter().chain(conv.axes.iter().map(|axis| axis.outputs)).collect();
    let results: usize = kept.iter().product();
    let partial = result.temporary(conv.dtype, parts * results);
    let channels_in = conv.channels_in / parts;
    let strides = contiguous(&kept);
    let leading = [strides[0], results as i64, strides[1]];
    let grouped = |view: &ConvView, group: usize| {
        let mut view = view.clone();
        view.leading[group] = channels_in as i64 * view.leading[2];
        view
    };
    result.push(Kernel::Conv(ConvKernel {
        groups: parts,
        channels_in,
        data: grouped(&conv.data, 1),
        kernel: grouped(&conv.kernel, 0),
        out: ConvView { buffer: partial, offset: 0, leading, spatial: strides[2..].to_vec() },
        ..conv.clone()
    }));
    let ConvView { buffer, offset, leading, spatial } = &conv.out;
    let strides = [leading[0], leading[2]].into_iter().chain(spatial.iter().copied()).collect();
    let store = View { offset: *offset, kept: strides, reduced: vec![0] };
    result.push(Kernel::Row(added_up(conv.dtype, partial, parts, kept, *buffer, store)));
}

/// out = Σₚ partial[p, kept…]
fn added_up(dtype: DType, partial: BufferId, parts: usize, kept: Vec<usize>, out: BufferId, store: View) -> RowKernel {
    let load = View { offset: 0, kept: contiguous(&kept), reduced: vec![kept.iter().product::<usize>() as i64] };
    let steps = vec![
        step(Instr::Load { buffer: partial, view: load }, dtype, Level::Full, 0),
        step(Instr::Reduce { op: ReduceOp::Sum, arg: Reg(0) }, dtype, Level::Kept, 0),
        step(Instr::Store { buffer: out, view: store, value: Reg(1) }, dtype, Level::Kept, 1),
    ];
    RowKernel { kept, reduced: vec![parts], order: Order::Column, steps }
}

/// Sorted runs, then merges, each from one buffer to another; the last writes the result.
fn sorted(result: &mut Lowered, sort: &ArgsortKernel) {
    let runs = std::iter::successors(Some(run_length(sort)), |&run| Some(2 * run));
    let runs: Vec<usize> = runs.take_while(|&run| run < sort.length).collect();
    let other = if runs.is_empty() { sort.out } else { result.temporary(DType::I32, sort.rows * sort.length) };
    // Where pass `pass` writes, if the last is to write the result.
    let written = |pass: usize| [sort.out, other][(runs.len() - pass) % 2];
    result.push(Kernel::Argsort(ArgsortKernel { out: written(0), ..sort.clone() }));
    for (pass, &run) in runs.iter().enumerate() {
        let sort = ArgsortKernel { out: written(pass + 1), ..sort.clone() };
        result.works.push(Work::Merge { sort, from: written(pass), run });
    }
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
