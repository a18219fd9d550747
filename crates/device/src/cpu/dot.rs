//! Matrix products: floats by the `gemm` crate, cut into pieces that depend on the shape alone; integers by plain
//! loops. Large ones of f32 go to `product.rs` where it suits.

use super::inner;
use super::isa::Level;
use super::memory::Workspace;
use super::pool::Team;
use super::product;
use super::row::Bases;
use raphson_compile::program::{Buffer, DotKernel, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};

/// Multiply-adds below which packing costs more than it saves.
const TINY: usize = 1024;
/// Multiply-adds that make a piece of work.
const PIECE: usize = 1 << 18;
/// Rows or columns of a piece are a multiple of this, so that micro-kernels run full.
const GRAIN: usize = 16;
/// The least rows or columns of a piece, where there are enough: a narrower strip is multiplied without packing, and packs
/// the other operand for too little work.
const NARROWEST: usize = 64;
/// The most pieces one matrix is cut into; each packs the other operand anew.
const MOST_PIECES: usize = 16;

/// A product ready to run.
pub struct DotPlan {
    kernel: DotKernel,
    n_batch: usize,
    /// One piece is some whole products, or a strip of rows or columns of one.
    cut: Cut,
    n_chunks: usize,
    parallel: bool,
    tiles: Option<product::Plan>,
    inner: Option<inner::Plan>,
}

impl DotPlan {
    /// Bytes that each thread, and that all together need.
    pub fn scratch_bytes(&self) -> (usize, usize) {
        self.tiles.as_ref().map_or((0, 0), product::Plan::scratch_bytes)
    }
}

#[derive(Clone, Copy)]
enum Cut {
    Batch { per_chunk: usize },
    Rows { height: usize, per_product: usize },
    Columns { width: usize, per_product: usize },
}

/// Check a product and decide how it is cut.
pub fn lower(kernel: &DotKernel, buffers: &[Buffer], level: Level) -> Result<DotPlan> {
    let n_batch: usize = kernel.batch.iter().product();
    check(kernel, buffers, n_batch)?;
    let (m, n) = (kernel.m, kernel.n);
    let work = m.saturating_mul(n).saturating_mul(kernel.k.max(1));
    let pieces = (work / PIECE).min(MOST_PIECES);
    let strip = |length: usize| strip(length, pieces);
    let cut = if n_batch >= MOST_PIECES || pieces < 2 {
        Cut::Batch { per_chunk: (PIECE / work.max(1)).max(1) }
    } else if m >= n {
        Cut::Rows { height: strip(m), per_product: m.div_ceil(strip(m)) }
    } else {
        Cut::Columns { width: strip(n), per_product: n.div_ceil(strip(n)) }
    };
    let n_chunks = match cut {
        Cut::Batch { per_chunk } => n_batch.div_ceil(per_chunk),
        Cut::Rows { per_product, .. } | Cut::Columns { per_product, .. } => n_batch * per_product,
    };
    let empty = m == 0 || n == 0;
    let parallel = work.saturating_mul(n_batch) >= PIECE / 2;
    let tiles = product::Plan::new(kernel, level);
    let inner =
        inner::Plan::new(kernel, level).filter(|inner| tiles.as_ref().is_none_or(|tiles| inner.cycles < tiles.cycles));
    let tiles = if inner.is_some() { None } else { tiles };
    let n_chunks = if empty { 0 } else { n_chunks };
    Ok(DotPlan { kernel: kernel.clone(), n_batch, cut, n_chunks, parallel, tiles, inner })
}

/// Rows or columns of one of up to `pieces` strips, at least two: an even number (but for rounding), so that two threads get
/// the same.
fn strip(length: usize, pieces: usize) -> usize {
    let fitting = (length / NARROWEST).clamp(2, pieces.max(2));
    length.div_ceil(fitting & !1).next_multiple_of(GRAIN)
}

/// Whether there are products of this dtype; of storage dtypes, `compile` multiplies the registers'.
fn is_multiplied(dtype: DType) -> bool {
    dtype != DType::Bool && !dtype.is_storage()
}

fn check(kernel: &DotKernel, buffers: &[Buffer], n_batch: usize) -> Result<()> {
    let bug = |message: String| Error::internal("dot", message);
    let buffer = |id: u32| buffers.get(id as usize).ok_or_else(|| bug(format!("no buffer {id}")));
    let out = buffer(kernel.out.0)?;
    if out.dtype != kernel.dtype || out.elements != n_batch * kernel.m * kernel.n || !is_multiplied(kernel.dtype) {
        return Err(bug(format!("the output is {} × {}, the kernel wants {}", out.dtype, out.elements, kernel.dtype)));
    }
    let sides = [(&kernel.left, kernel.m, kernel.k), (&kernel.right, kernel.k, kernel.n)];
    for (view, rows, columns) in sides {
        let buffer = buffer(view.buffer.0)?;
        if buffer.dtype != kernel.dtype || view.batch.len() != kernel.batch.len() {
            return Err(bug("an operand has another dtype or rank than the kernel".into()));
        }
        let axes = kernel.batch.iter().copied().zip(view.batch.iter().copied());
        let axes = axes.chain([(rows, view.rows), (columns, view.columns)]);
        if n_batch * rows * columns == 0 {
            continue;
        }
        let (least, most) = axes.fold((view.offset, view.offset), |(least, most), (size, stride)| {
            let reach = stride.saturating_mul(size as i64 - 1);
            (least.saturating_add(reach.min(0)), most.saturating_add(reach.max(0)))
        });
        if least < 0 || most as u64 >= buffer.elements as u64 {
            return Err(bug(format!("a view reaches outside buffer {}", view.buffer.0)));
        }
    }
    Ok(())
}

/// Run a product.
///
/// # Safety
/// As for `row::run`; the output overlaps neither operand.
pub unsafe fn run(plan: &DotPlan, bases: &Bases, workspace: &Workspace, team: &Team) {
    if let Some(inner) = &plan.inner {
        // SAFETY: passed on to our caller; the plan was made for this machine.
        return unsafe { inner::run(inner, bases, team) };
    }
    if let Some(tiles) = &plan.tiles {
        // SAFETY: passed on to our caller; the plan was made for this machine.
        return unsafe { product::run(tiles, bases, workspace, team) };
    }
    let work = |_: usize, chunk: usize| {
        // SAFETY: passed on to our caller; chunks write disjoint parts of the output.
        unsafe {
            match plan.kernel.dtype {
                DType::F32 => chunk_of::<f32>(plan, bases, chunk),
                DType::F64 => chunk_of::<f64>(plan, bases, chunk),
                DType::I32 => chunk_of::<i32>(plan, bases, chunk),
                DType::U32 => chunk_of::<u32>(plan, bases, chunk),
                DType::I64 => chunk_of::<i64>(plan, bases, chunk),
                // Refused when the program was loaded.
                DType::Bool | DType::F16 | DType::BF16 | DType::U8 => unreachable!("dot of {}", plan.kernel.dtype),
            }
        }
    };
    if plan.parallel {
        team.run(plan.n_chunks, &work);
    } else {
        (0..plan.n_chunks).for_each(|chunk| work(0, chunk));
    }
}

/// A strip `rows × columns` of one product.
pub(super) struct Strip<T> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub out: *mut T,
    pub out_rows: isize,
    /// Add to what is there, rather than write over it.
    pub accumulate: bool,
    pub left: *const T,
    pub left_rows: isize,
    pub left_columns: isize,
    pub right: *const T,
    pub right_rows: isize,
    pub right_columns: isize,
}

/// Numbers that can be multiplied as matrices.
pub(super) trait Multiply: Copy + Send + Sync {
    const ZERO: Self;
    /// a + b·c
    fn add_product(self, b: Self, c: Self) -> Self;
    /// a + b
    fn plus(self, b: Self) -> Self;
    /// One strip.
    ///
    /// # Safety
    /// The strip's addresses are valid for its sizes and strides; `out` holds numbers where it is added to.
    unsafe fn multiply(strip: &Strip<Self>) {
        // SAFETY: passed on to our caller.
        unsafe { multiply_plainly(strip) }
    }
}

macro_rules! by_gemm {
    ($t:ty) => {
        impl Multiply for $t {
            const ZERO: $t = 0.0;
            #[inline(always)]
            fn add_product(self, b: $t, c: $t) -> $t {
                self + b * c
            }
            #[inline(always)]
            fn plus(self, b: $t) -> $t {
                self + b
            }
            unsafe fn multiply(s: &Strip<$t>) {
                if s.m * s.n * s.k <= TINY {
                    // SAFETY: passed on to our caller.
                    return unsafe { multiply_plainly(s) };
                }
                // SAFETY: the caller vouches for the addresses. The output is read only where it is added to.
                unsafe {
                    gemm::gemm(
                        s.m,
                        s.n,
                        s.k,
                        s.out,
                        1,
                        s.out_rows,
                        s.accumulate,
                        s.left,
                        s.left_columns,
                        s.left_rows,
                        s.right,
                        s.right_columns,
                        s.right_rows,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        gemm::Parallelism::None,
                    );
                }
            }
        }
    };
}
by_gemm!(f32);
by_gemm!(f64);

/// Integers wrap around.
macro_rules! by_wrapping {
    ($integer:ty) => {
        impl Multiply for $integer {
            const ZERO: $integer = 0;
            #[inline(always)]
            fn add_product(self, b: $integer, c: $integer) -> $integer {
                self.wrapping_add(b.wrapping_mul(c))
            }
            #[inline(always)]
            fn plus(self, b: $integer) -> $integer {
                self.wrapping_add(b)
            }
        }
    };
}
by_wrapping!(i32);
by_wrapping!(i64);
by_wrapping!(u32);

/// # Safety
/// As for [`Multiply::multiply`].
unsafe fn multiply_plainly<T: Multiply>(s: &Strip<T>) {
    for i in 0..s.m as isize {
        for j in 0..s.n as isize {
            // SAFETY: indices are within the strip.
            let mut sum = if s.accumulate { unsafe { *s.out.offset(i * s.out_rows + j) } } else { T::ZERO };
            for k in 0..s.k as isize {
                // SAFETY: indices are within the strip.
                let (a, b) = unsafe {
                    (
                        *s.left.offset(i * s.left_rows + k * s.left_columns),
                        *s.right.offset(k * s.right_rows + j * s.right_columns),
                    )
                };
                sum = sum.add_product(a, b);
            }
            // SAFETY: indices are within the strip.
            unsafe { *s.out.offset(i * s.out_rows + j) = sum };
        }
    }
}

/// Element position of a batch entry of an operand.
pub(super) fn batch_position(view: &MatrixView, sizes: &[usize], mut index: usize) -> isize {
    let mut position = view.offset;
    for (&size, &stride) in sizes.iter().zip(&view.batch).rev() {
        position += (index % size) as i64 * stride;
        index /= size;
    }
    position as isize
}

/// # Safety
/// As for [`run`].
unsafe fn chunk_of<T: Multiply>(plan: &DotPlan, bases: &Bases, chunk: usize) {
    let kernel = &plan.kernel;
    let (m, n) = (kernel.m, kernel.n);
    let (batches, rows, columns) = match plan.cut {
        Cut::Batch { per_chunk } => (chunk * per_chunk..plan.n_batch.min((chunk + 1) * per_chunk), 0..m, 0..n),
        Cut::Rows { height, per_product } => {
            let (batch, strip) = (chunk / per_product, chunk % per_product);
            (batch..batch + 1, strip * height..m.min((strip + 1) * height), 0..n)
        }
        Cut::Columns { width, per_product } => {
            let (batch, strip) = (chunk / per_product, chunk % per_product);
            (batch..batch + 1, 0..m, strip * width..n.min((strip + 1) * width))
        }
    };
    let base = |view: &MatrixView, batch: usize| {
        let position = batch_position(view, &kernel.batch, batch);
        bases.0[view.buffer.0 as usize].cast::<T>().wrapping_offset(position)
    };
    let (left, right) = (&kernel.left, &kernel.right);
    for batch in batches {
        let out =
            bases.0[kernel.out.0 as usize].cast::<T>().wrapping_add(batch * m * n + rows.start * n + columns.start);
        let strip = Strip {
            m: rows.len(),
            n: columns.len(),
            k: kernel.k,
            out,
            out_rows: n as isize,
            accumulate: false,
            left: base(left, batch).wrapping_offset(rows.start as isize * left.rows as isize),
            left_rows: left.rows as isize,
            left_columns: left.columns as isize,
            right: base(right, batch).wrapping_offset(columns.start as isize * right.columns as isize),
            right_rows: right.rows as isize,
            right_columns: right.columns as isize,
        };
        // SAFETY: the views were checked against their buffers when the program was loaded.
        unsafe { T::multiply(&strip) };
    }
}
