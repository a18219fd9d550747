//! Attention in tiles of queries × keys that stay in the second-level cache: each tile's scores are a matrix product,
//! become weights in place with the running maximum and sum of their rows, and are multiplied on (Dao et al. 2022). The
//! reverse computes the weights anew from the logarithms of the sums. How work is cut depends on shapes alone, so results do not
//! depend on the number of threads. What happens inside a tile, between the products, is in `tile`.

mod product;
mod tile;

use super::dot::{Strip, batch_position};
use super::isa::Level;
use super::memory::Workspace;
use super::pool::Team;
use super::row::Bases;
use raphson_compile::program::{AttentionKernel, Buffer, Fused, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use std::ops::Range;
use tile::{Mask, Real, Tile};

/// What this device computes without expanding it.
pub const FUSED: Fused = Fused { attention: &[DType::F32, DType::F64], attention_width: 1024 };

/// Queries and keys of a tile: 24 KiB of f32 scores. A multiple of the rows that are multiplied at once, and few, as half of what
/// a tile at the edge of causal order computes is hidden.
const QUERIES: usize = 48;
const KEYS: usize = 128;
/// Multiply-adds that make a piece of work.
const PIECE: usize = 1 << 18;
/// With fewer batch entries, those are cut for the reverse too, which then computes the scores twice.
const FEW: usize = 16;

/// An attention ready to run.
pub struct AttentionPlan {
    kernel: AttentionKernel,
    n_batch: usize,
    jobs: Vec<Job>,
    loops: tile::Loops,
    parallel: bool,
}

/// Pieces of work that may run at the same time; each is a batch entry, or a tile of queries or of keys of one.
#[derive(Clone, Copy, Debug)]
struct Job {
    what: What,
    per_batch: usize,
    /// Those that make a chunk.
    per_chunk: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Output and logarithms of a tile of queries.
    Forward,
    /// All cotangents of a batch entry.
    Reverse,
    /// The cotangents of a tile of queries.
    OfQueries,
    /// The cotangents of a tile of keys and values.
    OfKeys,
}

impl AttentionPlan {
    /// Bytes that each thread needs.
    pub fn scratch_bytes(&self) -> usize {
        let kernel = &self.kernel;
        let scores = QUERIES * KEYS * if kernel.reverse.is_some() { 2 } else { 1 };
        (scores + QUERIES * kernel.width + self.packed()) * kernel.dtype.size_bytes() + 2 * QUERIES * size_of::<f64>()
    }

    /// Elements of the largest packed matrix: its sides are the size of a tile and a width.
    fn packed(&self) -> usize {
        let widest = self.kernel.width.max(self.kernel.values);
        if self.loops.product.is_some() { product::packed(KEYS, widest).max(product::packed(widest, KEYS)) } else { 0 }
    }
}

/// Check an attention and decide how it is cut.
pub fn lower(kernel: &AttentionKernel, buffers: &[Buffer], level: Level) -> Result<AttentionPlan> {
    let n_batch = kernel.batch.iter().product();
    check(kernel, buffers, n_batch)?;
    let loops = match kernel.dtype {
        DType::F32 => f32::loops(level),
        DType::F64 => f64::loops(level),
        other => return Err(Error::internal("attention", format!("no kernel for {other}"))),
    };
    let (queries, keys) = (kernel.queries, kernel.keys);
    let products = if kernel.reverse.is_some() { 5 } else { 2 };
    let work =
        [queries, keys, kernel.width.max(kernel.values), products].iter().fold(1, |a: usize, &b| a.saturating_mul(b));
    let job = |what: What, per_batch: usize| Job {
        what,
        per_batch,
        per_chunk: (PIECE / (work / per_batch.max(1)).max(1)).max(1),
    };
    let (query_tiles, key_tiles) = (queries.div_ceil(QUERIES), keys.div_ceil(KEYS));
    let jobs = match kernel.reverse {
        None => vec![job(What::Forward, query_tiles)],
        Some(_) if n_batch >= FEW || query_tiles * key_tiles <= 2 => vec![job(What::Reverse, 1)],
        Some(_) => vec![job(What::OfQueries, query_tiles), job(What::OfKeys, key_tiles)],
    };
    let parallel = work.saturating_mul(n_batch) >= PIECE / 2;
    Ok(AttentionPlan { kernel: kernel.clone(), n_batch, jobs, loops, parallel })
}

fn check(kernel: &AttentionKernel, buffers: &[Buffer], n_batch: usize) -> Result<()> {
    let bug = |message: String| Err(Error::internal("attention", message));
    let find = |view: &MatrixView| buffers.get(view.buffer.0 as usize);
    match buffers.get(kernel.out.0 as usize) {
        Some(out) if out.dtype == kernel.dtype && out.elements == n_batch * kernel.packed() => {}
        found => return bug(format!("the result is {found:?}, the kernel wants {} × {}", n_batch, kernel.packed())),
    }
    for (view, rows, columns) in kernel.operands() {
        let Some(buffer) = find(view) else { return bug(format!("no buffer {}", view.buffer.0)) };
        let dtype = if kernel.mask.as_ref() == Some(view) { DType::Bool } else { kernel.dtype };
        if buffer.dtype != dtype || view.batch.len() != kernel.batch.len() {
            return bug("an operand has another dtype or rank than the kernel".into());
        }
        if n_batch * rows * columns == 0 {
            continue;
        }
        let axes = kernel.batch.iter().copied().zip(view.batch.iter().copied());
        let axes = axes.chain([(rows, view.rows), (columns, view.columns)]);
        let (least, most) = axes.fold((view.offset, view.offset), |(least, most), (size, stride)| {
            let reach = stride.saturating_mul(size as i64 - 1);
            (least.saturating_add(reach.min(0)), most.saturating_add(reach.max(0)))
        });
        if least < 0 || most as u64 >= buffer.elements as u64 {
            return bug(format!("a view reaches outside buffer {}", view.buffer.0));
        }
    }
    Ok(())
}

/// Run an attention.
///
/// # Safety
/// As for `row::run`; the result overlaps no operand.
pub unsafe fn run(plan: &AttentionPlan, bases: &Bases, workspace: &Workspace, team: &Team) {
    for job in &plan.jobs {
        let pieces = plan.n_batch * job.per_batch;
        let work = |thread: usize, chunk: usize| {
            for piece in chunk * job.per_chunk..pieces.min((chunk + 1) * job.per_chunk) {
                let (batch, part) = (piece / job.per_batch, piece % job.per_batch);
                // SAFETY: passed on to our caller; the plan was checked when the program was loaded. Pieces of a job write
                // disjoint parts of the result.
                unsafe {
                    match plan.kernel.dtype {
                        DType::F32 => Entry::<f32>::new(plan, bases, workspace, thread, batch).run(job.what, part),
                        DType::F64 => Entry::<f64>::new(plan, bases, workspace, thread, batch).run(job.what, part),
                        // Refused when the program was loaded.
                        other => unreachable!("attention of {other}"),
                    }
                }
            }
        };
        let n_chunks = pieces.div_ceil(job.per_chunk);
        if plan.parallel {
            team.run(n_chunks, &work);
        } else {
            (0..n_chunks).for_each(|chunk| work(0, chunk));
        }
    }
}

/// A matrix in memory.
#[derive(Clone, Copy)]
struct Matrix<T> {
    start: *mut T,
    rows: isize,
    columns: isize,
}

impl<T> Matrix<T> {
    /// The matrix that begins at this row of it.
    fn below(self, row: usize) -> Matrix<T> {
        Matrix { start: self.start.wrapping_offset(row as isize * self.rows), ..self }
    }

    fn transposed(self) -> Matrix<T> {
        Matrix { rows: self.columns, columns: self.rows, ..self }
    }

    fn contiguous(start: *mut T, columns: usize) -> Matrix<T> {
        Matrix { start, rows: columns as isize, columns: 1 }
    }
}

/// The cotangents that a piece of work computes: of queries, of keys and values.
#[derive(Clone, Copy)]
struct Cotangents<T> {
    query: Option<Matrix<T>>,
    keys: Option<(Matrix<T>, Matrix<T>)>,
}

/// One batch entry of an attention, and the scratch memory of the thread that works on it.
struct Entry<'a, T> {
    kernel: &'a AttentionKernel,
    loops: tile::Loops,
    query: Matrix<T>,
    key: Matrix<T>,
    value: Matrix<T>,
    mask: Option<Mask>,
    log_sums: Matrix<T>,
    delta: Matrix<T>,
    cotangent: Matrix<T>,
    out: *mut T,
    /// QUERIES × KEYS scores, then weights; as many cotangents of scores.
    scores: *mut T,
    score_cotangents: *mut T,
    /// QUERIES × width: the tile's queries, scaled.
    scaled: *mut T,
    /// The right matrix of a product.
    packed: *mut T,
    /// QUERIES each: running maxima and sums.
    greatest: *mut f64,
    sums: *mut f64,
}

impl<'a, T: Real> Entry<'a, T> {
    /// # Safety
    /// As for [`run`].
    unsafe fn new(plan: &'a AttentionPlan, bases: &Bases, workspace: &Workspace, thread: usize, batch: usize) -> Self {
        let kernel = &plan.kernel;
        let at = |view: &MatrixView| batch_position(view, &kernel.batch, batch);
        let matrix = |view: &MatrixView| Matrix {
            start: bases.0[view.buffer.0 as usize].cast::<T>().wrapping_offset(at(view)),
            rows: view.rows as isize,
            columns: view.columns as isize,
        };
        let mask = kernel.mask.as_ref().map(|view| Mask {
            start: bases.0[view.buffer.0 as usize].cast_const().wrapping_offset(at(view)),
            rows: view.rows as isize,
            columns: view.columns as isize,
        });
        let none = Matrix { start: std::ptr::null_mut(), rows: 0, columns: 0 };
        let of_reverse = |which: fn(&raphson_compile::program::AttentionReverse) -> &MatrixView| {
            kernel.reverse.as_ref().map_or(none, |reverse| matrix(which(reverse)))
        };
        // The f64 come first, as they are aligned the most.
        let states = workspace.own::<f64>(thread);
        let scores = states.wrapping_add(2 * QUERIES).cast::<T>();
        let score_cotangents = scores.wrapping_add(if kernel.reverse.is_some() { QUERIES * KEYS } else { 0 });
        Entry {
            kernel,
            loops: plan.loops,
            query: matrix(&kernel.query),
            key: matrix(&kernel.key),
            value: matrix(&kernel.value),
            mask,
            log_sums: of_reverse(|reverse| &reverse.log_sums),
            delta: of_reverse(|reverse| &reverse.delta),
            cotangent: of_reverse(|reverse| &reverse.cotangent),
            out: bases.0[kernel.out.0 as usize].cast::<T>().wrapping_add(batch * kernel.packed()),
            scores,
            score_cotangents,
            scaled: score_cotangents.wrapping_add(QUERIES * KEYS),
            packed: score_cotangents.wrapping_add(QUERIES * (KEYS + kernel.width)),
            greatest: states,
            sums: states.wrapping_add(QUERIES),
        }
    }

    /// # Safety
    /// As for [`run`].
    unsafe fn run(&self, what: What, part: usize) {
        let (queries, keys) = (0..self.kernel.queries, 0..self.kernel.keys);
        // SAFETY: passed on to our caller.
        unsafe {
            match what {
                What::Forward => self.forward(tile_of(part, QUERIES, queries.end)),
                What::Reverse => self.reverse(queries, keys, what),
                What::OfQueries => self.reverse(tile_of(part, QUERIES, queries.end), keys, what),
                What::OfKeys => self.reverse(queries, tile_of(part, KEYS, keys.end), what),
            }
        }
    }

    /// How many of the first keys the query sees at most, by order.
    fn seen(&self, query: usize) -> usize {
        let AttentionKernel { queries, keys, causal, .. } = *self.kernel;
        if causal { (query + 1 + keys).saturating_sub(queries).min(keys) } else { keys }
    }

    /// Tiles of `keys` that the last of these queries sees.
    fn key_tiles(&self, queries: &Range<usize>, keys: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<T> {
        let end = if queries.is_empty() { 0 } else { self.seen(queries.end - 1).min(keys.end) };
        (keys.start..end).step_by(KEYS).map(move |start| start..end.min(start + KEYS))
    }

    /// out = left·right, or added to it.
    ///
    /// # Safety
    /// The matrices have these sizes.
    unsafe fn product(
        &self,
        out: Matrix<T>,
        left: Matrix<T>,
        right: Matrix<T>,
        [m, k, n]: [usize; 3],
        accumulate: bool,
    ) {
        let strip = Strip {
            m,
            n,
            k,
            out: out.start,
            out_rows: out.rows,
            accumulate,
            left: left.start,
            left_rows: left.rows,
            left_columns: left.columns,
            right: right.start,
            right_rows: right.rows,
            right_columns: right.columns,
        };
        // SAFETY: passed on to our caller. The scratch memory has room for the largest right matrix, and no result has columns
        // apart.
        unsafe { T::multiply_tile(strip, &self.loops, self.packed) }
    }

    /// Copy a tile's queries, scaled.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn scale_queries(&self, queries: &Range<usize>) -> Matrix<T> {
        let (width, scale) = (self.kernel.width, T::of(self.kernel.scale.to_f64()));
        let from = self.query.below(queries.start);
        for row in 0..queries.len() {
            for column in 0..width {
                let at = row as isize * from.rows + column as isize * from.columns;
                // SAFETY: the view was checked, and a tile of queries fits the scratch memory.
                unsafe { *self.scaled.add(row * width + column) = *from.start.offset(at) * scale };
            }
        }
        Matrix::contiguous(self.scaled, width)
    }

    /// The tile at these queries and keys as its loops see it.
    fn tile(&self, queries: &Range<usize>, keys: &Range<usize>) -> Tile<T> {
        let shifted = |mask: Mask| Mask {
            start: mask.start.wrapping_offset(queries.start as isize * mask.rows + keys.start as isize * mask.columns),
            ..mask
        };
        let cut = self
            .kernel
            .causal
            .then(|| (self.kernel.keys + queries.start + 1) as i64 - (self.kernel.queries + keys.start) as i64);
        Tile {
            scores: self.scores,
            stride: KEYS,
            rows: queries.len(),
            columns: keys.len(),
            first_seen: cut.unwrap_or(keys.len() as i64),
            more_seen: i64::from(cut.is_some()),
            mask: self.mask.map(shifted),
            greatest: self.greatest,
            sums: self.sums,
            out: self.out.wrapping_add(queries.start * self.kernel.values),
            width: self.kernel.values,
            log_sums: self.log_sums.below(queries.start).start,
            log_sums_stride: self.log_sums.rows,
            delta: self.delta.below(queries.start).start,
            delta_stride: self.delta.rows,
            cotangents: self.score_cotangents,
        }
    }

    /// Output and logarithms of a tile of queries.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn forward(&self, queries: Range<usize>) {
        let AttentionKernel { width, values, .. } = *self.kernel;
        let rows = queries.len();
        let scores = Matrix::contiguous(self.scores, KEYS);
        let out = Matrix::contiguous(self.out, values).below(queries.start);
        // SAFETY: the views were checked against their buffers, and the scratch memory has room for a tile.
        unsafe {
            let scaled = self.scale_queries(&queries);
            std::slice::from_raw_parts_mut(out.start, rows * values).fill(T::ZERO);
            std::slice::from_raw_parts_mut(self.greatest, rows).fill(f64::NEG_INFINITY);
            std::slice::from_raw_parts_mut(self.sums, rows).fill(0.0);
            for keys in self.key_tiles(&queries, &(0..self.kernel.keys)) {
                let n = keys.len();
                self.product(scores, scaled, self.key.below(keys.start).transposed(), [rows, width, n], false);
                self.tile(&queries, &keys).call(self.loops.weigh);
                self.product(out, scores, self.value.below(keys.start), [rows, n, values], true);
            }
            let log_sums = self.out.add(self.kernel.queries * values + queries.start);
            for row in 0..rows {
                let (greatest, sum) = (*self.greatest.add(row), *self.sums.add(row));
                let sees_none = sum == 0.0;
                *log_sums.add(row) = T::of(if sees_none { 0.0 } else { greatest + sum.ln() });
                let factor = T::of(if sees_none { 0.0 } else { 1.0 / sum });
                let out = std::slice::from_raw_parts_mut(out.start.offset(row as isize * out.rows), values);
                out.iter_mut().for_each(|x| *x = *x * factor);
            }
        }
    }

    /// Cotangents of these queries, of these keys and values, or of all, from the scores between them.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn reverse(&self, queries: Range<usize>, keys: Range<usize>, what: What) {
        let AttentionKernel { width, values, .. } = *self.kernel;
        let key_bar = self.out.wrapping_add(self.kernel.queries * width);
        let value_bar = key_bar.wrapping_add(self.kernel.keys * width);
        let bars = Cotangents {
            query: (what != What::OfKeys).then_some(Matrix::contiguous(self.out, width)),
            keys: (what != What::OfQueries)
                .then_some((Matrix::contiguous(key_bar, width), Matrix::contiguous(value_bar, values))),
        };
        let clear = |matrix: Matrix<T>, rows: &Range<usize>, columns: usize| {
            // SAFETY: these rows of the result are ours.
            let part = unsafe { std::slice::from_raw_parts_mut(matrix.below(rows.start).start, rows.len() * columns) };
            part.fill(T::ZERO);
        };
        if let Some(query_bar) = bars.query {
            clear(query_bar, &queries, width);
        }
        if let Some((key_bar, value_bar)) = bars.keys {
            clear(key_bar, &keys, width);
            clear(value_bar, &keys, values);
        }
        for start in queries.clone().step_by(QUERIES) {
            // SAFETY: passed on to our caller.
            unsafe { self.reverse_queries(start..queries.end.min(start + QUERIES), &keys, bars) };
        }
    }

    /// What a tile of queries adds to the cotangents.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn reverse_queries(&self, queries: Range<usize>, keys: &Range<usize>, bars: Cotangents<T>) {
        let AttentionKernel { width, values, .. } = *self.kernel;
        let (p, s_bar) = (Matrix::contiguous(self.scores, KEYS), Matrix::contiguous(self.score_cotangents, KEYS));
        let (m, cotangent) = (queries.len(), self.cotangent.below(queries.start));
        let query_bar = bars.query.map(|query_bar| query_bar.below(queries.start));
        // SAFETY: the views were checked against their buffers, and the scratch memory has room for a tile.
        unsafe {
            let scaled = self.scale_queries(&queries);
            for keys in self.key_tiles(&queries, keys) {
                let n = keys.len();
                let (key, value) = (self.key.below(keys.start), self.value.below(keys.start));
                self.product(p, scaled, key.transposed(), [m, width, n], false);
                self.product(s_bar, cotangent, value.transposed(), [m, values, n], false);
                self.tile(&queries, &keys).call(self.loops.unweigh);
                if let Some(query_bar) = query_bar {
                    self.product(query_bar, s_bar, key, [m, n, width], true);
                }
                if let Some((key_bar, value_bar)) = bars.keys {
                    self.product(key_bar.below(keys.start), s_bar.transposed(), scaled, [n, m, width], true);
                    self.product(value_bar.below(keys.start), p.transposed(), cotangent, [n, m, values], true);
                }
            }
            if let Some(query_bar) = query_bar {
                let scale = T::of(self.kernel.scale.to_f64());
                let query_bar = std::slice::from_raw_parts_mut(query_bar.start, m * width);
                query_bar.iter_mut().for_each(|x| *x = *x * scale);
            }
        }
    }
}

fn tile_of(index: usize, size: usize, n: usize) -> Range<usize> {
    index * size..n.min((index + 1) * size)
}
