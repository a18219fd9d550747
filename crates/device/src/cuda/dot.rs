//! How a product is computed: by the library where it is installed, by the compiled kernels where they are at their best, and
//! else by what is printed. Here is the choice and the arguments; the kernels themselves stand in `kernels` and `print`.

use super::driver::Gpu;
use super::plan::{Argument, Entry, Launch, Operand, PlannedGemm, Source, kernel};
use super::print::print;
use raphson_compile::program::{Buffer, BufferId, DotKernel, Kernel, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;

/// What the choice depends on besides the product.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    pub gpu: &'a Gpu,
    /// The library can be loaded.
    pub library: bool,
    /// f32 operands may be rounded to TF32.
    pub tf32: bool,
}

/// Grids have at most this many blocks along y and z.
pub(super) const MOST_BATCHES: usize = 65_535;
/// Side of the tile of the tensor-core kernels and of the narrow one; terms of the sum in a step of each.
const TENSOR: (usize, usize) = (128, 16);
const NARROW: (usize, usize) = (32, 32);
/// Dynamic shared memory of the tensor-core kernels: three stages of two operands of 128 × 20 floats.
const TENSOR_SHARED_BYTES: u32 = 3 * 2 * 128 * 20 * 4;
/// The shortest piece of a sum, and the most pieces.
const SHORTEST_PIECE: usize = 128;
const MOST_PIECES: usize = 32;

/// The entries that compute a product.
pub fn plan(kernel: &DotKernel, buffers: &[Buffer], means: &Means<'_>) -> Result<Vec<Entry>> {
    if let Some(batch) = Batch::of(kernel) {
        if means.library
            && let Some(gemm) = gemm(kernel, &batch, means.tf32)
        {
            return Ok(vec![Entry::Gemm(gemm)]);
        }
        if let Some(launches) = tensor(kernel, &batch, means).or_else(|| narrow(kernel, &batch, means)) {
            return Ok(launches.into_iter().map(Entry::Launch).collect());
        }
    }
    let printed = print(&Kernel::Dot(kernel.clone()), buffers)?;
    Ok(printed.into_iter().map(Launch::printed).map(Entry::Launch).collect())
}

/// Batch axes, merged where both operands allow it, in three places; unused ones come first and have size 1.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    sizes: [usize; 3],
    left: [i64; 3],
    right: [i64; 3],
}

impl Batch {
    /// `None` if more than three axes remain, or there is nothing to compute.
    fn of(kernel: &DotKernel) -> Option<Batch> {
        if kernel.batch.iter().product::<usize>() * kernel.m * kernel.n == 0 {
            return None;
        }
        let mut axes: Vec<(usize, i64, i64)> = Vec::new();
        let given = kernel.batch.iter().zip(&kernel.left.batch).zip(&kernel.right.batch);
        for ((&size, &left), &right) in given.filter(|&((&size, _), _)| size != 1) {
            match axes.last_mut() {
                // An axis is the continuation of the one before if that one steps over just all of it.
                Some(last) if last.1 == left * size as i64 && last.2 == right * size as i64 => {
                    *last = (last.0 * size, left, right);
                }
                _ => axes.push((size, left, right)),
            }
        }
        if axes.len() > 3 {
            return None;
        }
        while axes.len() < 3 {
            axes.insert(0, (1, 0, 0));
        }
        Some(Batch {
            sizes: [axes[0].0, axes[1].0, axes[2].0],
            left: [axes[0].1, axes[1].1, axes[2].1],
            right: [axes[0].2, axes[1].2, axes[2].2],
        })
    }

    fn count(&self) -> usize {
        self.sizes.iter().product()
    }
}

/// A matrix as the library takes it: one of its axes has stride 1. Returns whether that is the first, and the other stride.
fn leading(rows: usize, columns: usize, row_stride: i64, column_stride: i64) -> Option<(bool, i64)> {
    // The stride of an axis of size 1 does not matter.
    let fits = |size: usize, stride: i64| size == 1 || stride == 1;
    let reaches = |n_across: usize, n_along: usize, stride: i64| {
        let least = n_along.max(1) as i64;
        if n_across == 1 { Some(least) } else { (stride >= least && stride <= i64::from(i32::MAX)).then_some(stride) }
    };
    let straight = fits(columns, column_stride).then(|| reaches(rows, columns, row_stride)).flatten();
    let transposed = || fits(rows, row_stride).then(|| reaches(columns, rows, column_stride)).flatten();
    straight.map(|stride| (false, stride)).or_else(|| transposed().map(|stride| (true, stride)))
}

/// The product as one call of the library, if its operands can be described to it.
fn gemm(kernel: &DotKernel, batch: &Batch, tf32: bool) -> Option<PlannedGemm> {
    let is_float = kernel.dtype.is_float();
    let narrow = |size: usize| i32::try_from(size).is_ok();
    if !is_float
        || kernel.k == 0
        || !narrow(kernel.m)
        || !narrow(kernel.k)
        || !narrow(kernel.n)
        || !narrow(batch.count())
    {
        return None;
    }
    // The library counts over one batch axis.
    if batch.sizes[..2] != [1, 1] {
        return None;
    }
    let (left, right) = (&kernel.left, &kernel.right);
    let (left_transposed, left_leading) = leading(kernel.m, kernel.k, left.rows, left.columns)?;
    let (right_transposed, right_leading) = leading(kernel.k, kernel.n, right.rows, right.columns)?;
    let size = kernel.dtype.size_bytes() as i64;
    let operand = |view: &MatrixView, transposed, leading, batch_stride| Operand {
        buffer: view.buffer,
        offset_bytes: view.offset * size,
        transposed,
        leading,
        batch_stride,
    };
    Some(PlannedGemm {
        double: kernel.dtype == DType::F64,
        tf32,
        m: kernel.m,
        k: kernel.k,
        n: kernel.n,
        batches: batch.count(),
        left: operand(left, left_transposed, left_leading, batch.left[2]),
        right: operand(right, right_transposed, right_leading, batch.right[2]),
        out: kernel.out,
    })
}

/// How an operand lies in memory, for the tensor-core kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    AlongK,
    AlongOuter,
    Any,
}

/// `outer` and `inner` are the strides along m (or n) and along k. Copies of 16 bytes need rows and batches that start at
/// multiples of four elements; every buffer starts at a multiple of 64 bytes.
fn layout(view: &MatrixView, outer: i64, inner: i64, batch: &[i64; 3]) -> Layout {
    let aligned = |stride: i64| stride % 4 == 0;
    let starts_aligned = aligned(view.offset) && batch.iter().all(|&stride| aligned(stride));
    match (outer, inner) {
        (outer, 1) if starts_aligned && aligned(outer) => Layout::AlongK,
        (1, inner) if starts_aligned && aligned(inner) => Layout::AlongOuter,
        _ => Layout::Any,
    }
}

/// The compiled kernel for two layouts, in TF32 or split in two.
fn tensor_kernel(left: Layout, right: Layout, tf32: bool) -> Source {
    use Layout::{AlongK, AlongOuter, Any};
    match (left, right, tf32) {
        (AlongK, AlongOuter, true) => kernel!("dot_tf32_nn"),
        (AlongK, AlongK, true) => kernel!("dot_tf32_nt"),
        (AlongOuter, AlongOuter, true) => kernel!("dot_tf32_tn"),
        (AlongOuter, AlongK, true) => kernel!("dot_tf32_tt"),
        (Any, _, true) | (_, Any, true) => kernel!("dot_tf32_any"),
        (AlongK, AlongOuter, false) => kernel!("dot_split_nn"),
        (AlongK, AlongK, false) => kernel!("dot_split_nt"),
        (AlongOuter, AlongOuter, false) => kernel!("dot_split_tn"),
        (AlongOuter, AlongK, false) => kernel!("dot_split_tt"),
        (Any, _, false) | (_, Any, false) => kernel!("dot_split_any"),
    }
}

/// Whether three products on tensor cores are faster than one on the ordinary units: on the GPUs for data centres, whose TF32
/// rate is eight times that of f32 or more; on others it is at most twice.
pub(super) fn splitting_pays(gpu: &Gpu) -> bool {
    matches!(gpu.capability, (8, 0) | (9, _) | (10, _))
}

/// The product on tensor cores, if it is large enough to fill their tiles. Where operands are split, an infinite one makes NaN
/// of what it touches, also where the exact result would be infinite.
fn tensor(kernel: &DotKernel, batch: &Batch, means: &Means<'_>) -> Option<Vec<Launch>> {
    let able = means.gpu.capability >= (8, 0) && (means.tf32 || splitting_pays(means.gpu));
    let fits = kernel.m >= TENSOR.0 / 2 && kernel.n >= TENSOR.0 / 2 && kernel.k >= TENSOR.1;
    if kernel.dtype != DType::F32 || !able || !fits {
        return None;
    }
    let left = layout(&kernel.left, kernel.left.rows, kernel.left.columns, &batch.left);
    let right = layout(&kernel.right, kernel.right.columns, kernel.right.rows, &batch.right);
    let source = tensor_kernel(left, right, means.tf32);
    launches(kernel, batch, source, TENSOR, TENSOR_SHARED_BYTES, means.gpu)
}

/// The product in small tiles and pieces of the sum, if its tiles alone leave multiprocessors idle.
fn narrow(kernel: &DotKernel, batch: &Batch, means: &Means<'_>) -> Option<Vec<Launch>> {
    let tiles = batch.count() * kernel.m.div_ceil(NARROW.0) * kernel.n.div_ceil(NARROW.0);
    let leaves_idle = tiles < means.gpu.multiprocessors as usize && kernel.k >= 2 * SHORTEST_PIECE;
    if kernel.dtype != DType::F32 || !leaves_idle {
        return None;
    }
    launches(kernel, batch, kernel!("dot_narrow"), NARROW, 0, means.gpu)
}

/// In how many pieces to cut the sum so that every multiprocessor has two blocks, and the terms of each.
pub(super) fn pieces(k: usize, tiles: usize, step: usize, gpu: &Gpu) -> (usize, usize) {
    let wanted = (2 * gpu.multiprocessors as usize / tiles.max(1)).clamp(1, MOST_PIECES);
    let wanted = wanted.min(k / SHORTEST_PIECE).max(1);
    let terms = k.div_ceil(wanted).next_multiple_of(step);
    (k.div_ceil(terms), terms)
}

fn launches(
    kernel: &DotKernel,
    batch: &Batch,
    source: Source,
    (tile, step): (usize, usize),
    shared_bytes: u32,
    gpu: &Gpu,
) -> Option<Vec<Launch>> {
    let narrow = |size: usize| size <= i32::MAX as usize;
    let tiles = kernel.m.div_ceil(tile) * kernel.n.div_ceil(tile);
    let batches = batch.count();
    if !narrow(kernel.m) || !narrow(kernel.n) || !narrow(kernel.k) || !narrow(tiles) || !narrow(batches) {
        return None;
    }
    let (n_pieces, terms) = pieces(kernel.k, tiles * batches, step, gpu);
    let target = if n_pieces > 1 { Argument::Workspace } else { Argument::buffer(kernel.out) };
    let mut launches = Vec::new();
    for first in (0..batches).step_by(MOST_BATCHES) {
        let now = MOST_BATCHES.min(batches - first);
        launches.push(Launch {
            source: source.clone(),
            grid: [tiles as u32, now as u32, n_pieces as u32],
            block: 256,
            shared_bytes,
            arguments: arguments(kernel, batch, first, terms, target),
            workspace_bytes: if n_pieces > 1 { n_pieces * batches * kernel.m * kernel.n * 4 } else { 0 },
        });
    }
    if n_pieces > 1 {
        launches.push(sum(kernel.out, batches * kernel.m * kernel.n, n_pieces));
    }
    Some(launches)
}

/// In the order of `DOT_PARAMETERS` in `kernels/batch.cuh`.
fn arguments(kernel: &DotKernel, batch: &Batch, first: usize, terms: usize, target: Argument) -> Vec<Argument> {
    let (left, right) = (&kernel.left, &kernel.right);
    let operand = |view: &MatrixView| Argument::Buffer { buffer: view.buffer, offset_bytes: view.offset * 4 };
    let size = |size: usize| Argument::Value(size as u64);
    let stride = |stride: i64| Argument::Value(stride as u64);
    let mut arguments = vec![operand(left), operand(right), target, size(kernel.m), size(kernel.n), size(kernel.k)];
    arguments.extend([left.rows, left.columns, right.rows, right.columns].map(stride));
    arguments.extend([batch.count(), first, batch.sizes[1], batch.sizes[2]].map(size));
    arguments.extend(batch.left.map(stride));
    arguments.extend(batch.right.map(stride));
    arguments.push(size(terms));
    arguments
}

fn sum(out: BufferId, count: usize, n_pieces: usize) -> Launch {
    Launch {
        source: kernel!("dot_sum"),
        grid: [count.div_ceil(256).min(4096) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        arguments: vec![
            Argument::Workspace,
            Argument::buffer(out),
            Argument::Value(count as u64),
            Argument::Value(n_pieces as u64),
        ],
        workspace_bytes: 0,
    }
}
