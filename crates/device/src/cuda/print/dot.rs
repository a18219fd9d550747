//! The plain matrix product: tiles of both operands in shared memory, a few rows × columns of the result in the registers
//! of each thread, the next tiles on their way from memory while these are multiplied. Any strides and sizes, f32, f64,
//! i32 and u32. f32 is accumulated in f32, tile by tile where registers allow. The tuned products stand elsewhere; this is
//! what applies where they do not.

use super::Launch;
use super::parameters::Parameters;
use super::prim::{class, constant, suffix};
use super::row::{list, store};
use super::text::{Register, Text};
use raphson_compile::program::{DotKernel, MatrixView};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};

/// Threads of a block in each direction.
const SIDE: usize = 16;
/// Blocks that fill a large GPU.
const ENOUGH_BLOCKS: usize = 128;

/// Rows, and columns, of the result that one thread computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerThread {
    One = 1,
    Two = 2,
    Four = 4,
    /// f32 and integers only.
    Eight = 8,
}

impl PerThread {
    /// Inner indices of a tile: fewer where the results fill the registers, for the next tiles pass through them.
    const fn depth(self) -> usize {
        if self as usize > 4 { 8 } else { 16 }
    }

    /// The greatest with enough blocks to fill a GPU; smaller for f64, which fills twice the registers.
    fn choose(kernel: &DotKernel) -> PerThread {
        let batch: usize = kernel.batch.iter().product();
        let choices = [PerThread::Eight, PerThread::Four, PerThread::Two];
        let fits = |&choice: &PerThread| {
            let tile = SIDE * choice as usize;
            let blocks = batch * kernel.m.div_ceil(tile) * kernel.n.div_ceil(tile);
            blocks >= ENOUGH_BLOCKS && (choice != PerThread::Eight || kernel.dtype.size_bytes() != 8)
        };
        choices.into_iter().find(fits).unwrap_or(PerThread::One)
    }
}

/// Print a product; nothing if the result has no elements.
pub fn print(kernel: &DotKernel) -> Result<Option<Launch>> {
    print_with(kernel, PerThread::choose(kernel))
}

/// Print a product with a given size of tile.
pub fn print_with(kernel: &DotKernel, per_thread: PerThread) -> Result<Option<Launch>> {
    let batch: usize = kernel.batch.iter().product();
    if batch * kernel.m * kernel.n == 0 {
        return Ok(None);
    }
    let small = [kernel.m, kernel.n, kernel.k].into_iter().all(|size| size < 1 << 30);
    if kernel.dtype == DType::Bool || kernel.dtype.is_storage() || !small {
        return Err(Error::internal("dot", "a product of bools, or an axis beyond 2³⁰, is not in the kernel language"));
    }
    let tile = SIDE * per_thread as usize;
    let (tiles_m, tiles_n) = (kernel.m.div_ceil(tile), kernel.n.div_ceil(tile));
    let mut text = Text::default();
    text.blocks_at_least = 2;
    let mut parameters = Parameters::default();
    let printer = Printer::begin(&mut text, &mut parameters, kernel, per_thread, (tiles_m, tiles_n));
    let sums = printer.multiply(&mut text);
    printer.store(&mut text, &sums);
    Launch::new("dot", &text, parameters.finish(), batch * tiles_m * tiles_n, (SIDE * SIDE) as u32).map(Some)
}

/// One operand's way from memory to its tile, stored in shared memory as [inner index][row or column of the result].
struct Operand {
    /// Address of this thread's first element; moves along the inner axis.
    address: Register,
    /// This thread's inner index within a tile, and its row (column) in the result; of its first element.
    inner: Register,
    outer: Register,
    /// How both grow from one of its elements to the next.
    inner_step: usize,
    outer_step: usize,
    /// Bytes between neighbours along the inner axis and along the other one.
    inner_stride: i64,
    outer_stride: i64,
    /// The number of rows (columns).
    size: usize,
    /// Where this thread's first element goes.
    place: Register,
    /// Where this thread's rows (columns) of the result begin in the tile.
    read: Register,
    /// Inner indices of a tile.
    depth: usize,
    /// The elements on their way.
    staged: Vec<Register>,
}

struct Printer<'a> {
    kernel: &'a DotKernel,
    per_thread: usize,
    tile: usize,
    depth: usize,
    /// Position of the current tiles on the inner axis.
    at: Register,
    left: Operand,
    right: Operand,
    out: Register,
    /// The first row and column of this thread.
    row: Register,
    column: Register,
}

/// Elements in shared memory from one inner index to the next: a little more than a tile, so that threads that write
/// along the inner axis meet in fewer banks.
fn pitch(tile: usize) -> usize {
    tile + 4
}

impl<'a> Printer<'a> {
    fn begin(
        text: &mut Text,
        parameters: &mut Parameters,
        kernel: &'a DotKernel,
        per_thread: PerThread,
        (tiles_m, tiles_n): (usize, usize),
    ) -> Printer<'a> {
        let (per_thread, depth) = (per_thread as usize, per_thread.depth());
        let tile = SIDE * per_thread;
        let left = parameters.pointer(text, kernel.left.buffer);
        let right = parameters.pointer(text, kernel.right.buffer);
        let out = parameters.pointer(text, kernel.out);
        let thread = text.word("mov.u32", &[&"%tid.x"]);
        let block = text.word("mov.u32", &[&"%ctaid.x"]);
        let (block, tile_n) = text.divide_with_rest(block, tiles_n);
        let (batch, tile_m) = text.divide_with_rest(block, tiles_m);
        let row = text.word("mul.lo.u32", &[&tile_m, &tile]);
        let column = text.word("mul.lo.u32", &[&tile_n, &tile]);
        let (left, right) = (
            batch_start(text, kernel, &kernel.left, left, batch),
            batch_start(text, kernel, &kernel.right, right, batch),
        );
        let size = kernel.dtype.size_bytes() as i64;
        let out = text.scaled(out, batch, (kernel.m * kernel.n) as i64 * size);
        let (y, x) = text.divide_with_rest(thread, SIDE);
        // What a thread reads from a tile at once: 16 bytes at most.
        let group = per_thread.min(16 / size as usize);
        let (y, x) = (text.word("mul.lo.u32", &[&y, &group]), text.word("mul.lo.u32", &[&x, &group]));
        let (m, n, tiles) = (&kernel.left, &kernel.right, (tile, depth));
        let left =
            Operand::new(text, kernel, tiles, (left, m.columns * size, m.rows * size), (row, kernel.m), thread, y);
        let right =
            Operand::new(text, kernel, tiles, (right, n.rows * size, n.columns * size), (column, kernel.n), thread, x);
        let at = text.word("mov.b32", &[&0]);
        let (row, column) = (text.word("add.u32", &[&row, &y]), text.word("add.u32", &[&column, &x]));
        Printer { kernel, per_thread, tile, depth, at, left, right, out, row, column }
    }

    /// The products of all tiles: a register for each row and column of this thread.
    fn multiply(&self, text: &mut Text) -> Vec<Register> {
        let kernel = self.kernel;
        let zero = Scalar::of(0.0, kernel.dtype);
        let sums: Vec<Register> =
            (0..self.per_thread * self.per_thread).map(|_| constant(text, zero, kernel.dtype)).collect();
        if kernel.k == 0 {
            return sums;
        }
        let (again, last) = (text.label(), text.label());
        self.fetch(text);
        text.place(again);
        self.left.put(text, kernel.dtype, self.tile);
        self.right.put(text, kernel.dtype, self.tile);
        text.barrier();
        text.set(self.at, "add.u32", &[&self.at, &self.depth]);
        let more = text.predicate("setp.lt.u32", &[&self.at, &kernel.k]);
        text.branch_unless(more, last);
        for operand in [&self.left, &self.right] {
            let step = operand.inner_stride * self.depth as i64;
            text.set(operand.address, "add.s64", &[&operand.address, &step]);
        }
        self.fetch(text);
        text.place(last);
        self.add_tile(text, &sums);
        text.barrier();
        text.branch_if(more, again);
        sums
    }

    /// Add the product of the current tiles.
    fn add_tile(&self, text: &mut Text, sums: &[Register]) {
        let dtype = self.kernel.dtype;
        // A sum of sums has fewer roundings after one another; with 64 results a thread has no registers left for it.
        let by_tile = dtype == DType::F32 && self.per_thread < PerThread::Eight as usize;
        let zero = Scalar::of(0.0, dtype);
        let parts: Vec<Register> =
            if by_tile { sums.iter().map(|_| constant(text, zero, dtype)).collect() } else { sums.to_vec() };
        let opcode = format!("{}.{}", if dtype.is_float() { "fma.rn" } else { "mad.lo" }, suffix(dtype));
        for inner in 0..self.depth {
            let rows = self.left.get(text, dtype, self.tile, self.per_thread, inner);
            let columns = self.right.get(text, dtype, self.tile, self.per_thread, inner);
            for (i, row) in rows.iter().enumerate() {
                for (j, column) in columns.iter().enumerate() {
                    let part = parts[i * self.per_thread + j];
                    text.set(part, &opcode, &[row, column, &part]);
                }
            }
        }
        for (&sum, part) in sums.iter().zip(&parts).filter(|_| by_tile) {
            text.set(sum, "add.rn.f32", &[&sum, part]);
        }
    }

    fn fetch(&self, text: &mut Text) {
        self.left.fetch(text, self.kernel, self.at, self.tile);
        self.right.fetch(text, self.kernel, self.at, self.tile);
    }

    /// Write this thread's rows and columns, several columns at once where they are aligned.
    fn store(&self, text: &mut Text, sums: &[Register]) {
        let (kernel, size) = (self.kernel, self.kernel.dtype.size_bytes());
        let group = self.per_thread.min(16 / size);
        let together = if kernel.n.is_multiple_of(group) { group } else { 1 };
        let kind = class(kernel.dtype).untyped();
        let offset = |index: usize| index / group * (SIDE * group) + index % group;
        for i in 0..self.per_thread {
            let row = text.word("add.u32", &[&self.row, &offset(i)]);
            let inside = text.predicate("setp.lt.u32", &[&row, &kernel.m]);
            let start = text.scaled(self.out, row, (kernel.n * size) as i64);
            for j in (0..self.per_thread).step_by(together) {
                let column = text.word("add.u32", &[&self.column, &offset(j)]);
                let guard = text.predicate("setp.lt.u32", &[&column, &kernel.n]);
                let guard = text.predicate("and.pred", &[&guard, &inside]);
                let address = text.scaled(start, column, size as i64);
                let values = &sums[i * self.per_thread + j..][..together];
                if together == 1 {
                    store(text, Some(guard), kernel.dtype, address, 0, values[0]);
                } else {
                    let opcode = format!("st.global.v{together}.{kind}");
                    text.act_if(Some(guard), &opcode, &[&format!("[{address}]"), &list(values)]);
                }
            }
        }
    }
}

/// The address of the first element of a batch's matrix.
fn batch_start(text: &mut Text, kernel: &DotKernel, view: &MatrixView, base: Register, batch: Register) -> Register {
    let size = kernel.dtype.size_bytes() as i64;
    let mut address = text.displaced(base, view.offset * size);
    let mut rest = batch;
    for axis in (0..kernel.batch.len()).rev() {
        let coordinate = if axis == 0 {
            rest
        } else {
            let (quotient, coordinate) = text.divide_with_rest(rest, kernel.batch[axis]);
            rest = quotient;
            coordinate
        };
        address = text.scaled(address, coordinate, view.batch[axis] * size);
    }
    address
}

impl Operand {
    /// `start`, with the strides of the inner and the other axis in bytes; the tile's first row (column) and their number; this
    /// thread, and the first of its rows (columns) in the tile.
    fn new(
        text: &mut Text,
        kernel: &DotKernel,
        (tile, depth): (usize, usize),
        (start, inner_stride, outer_stride): (Register, i64, i64),
        (first, size): (Register, usize),
        thread: Register,
        read: Register,
    ) -> Operand {
        let bytes = kernel.dtype.size_bytes() as i64;
        // Neighbouring threads take neighbours in memory.
        let along_inner = inner_stride.abs() <= outer_stride.abs() || outer_stride == 0;
        let threads = SIDE * SIDE;
        let ((outer, inner), inner_step, outer_step) = if along_inner {
            (text.divide_with_rest(thread, depth), 0, threads / depth)
        } else {
            let (inner, outer) = text.divide_with_rest(thread, tile);
            ((outer, inner), threads.div_ceil(tile), 0)
        };
        let base = text.shared((depth * pitch(tile)) as u32 * bytes as u32);
        let place = text.word("mad.lo.u32", &[&inner, &pitch(tile), &outer]);
        let place = text.shared_address(base, place, bytes as u32);
        let read = text.shared_address(base, read, bytes as u32);
        let outer = text.word("add.u32", &[&outer, &first]);
        let address = text.scaled(start, outer, outer_stride);
        let address = text.scaled(address, inner, inner_stride);
        let address = text.copy(address);
        let n_staged = tile * depth / threads;
        let staged = (0..n_staged).map(|_| text.fresh(class(kernel.dtype))).collect();
        Operand {
            address,
            inner,
            outer,
            inner_step,
            outer_step,
            inner_stride,
            outer_stride,
            size,
            place,
            read,
            depth,
            staged,
        }
    }

    /// Read this thread's elements of the tiles at `at` into registers; zero outside the matrix.
    fn fetch(&self, text: &mut Text, kernel: &DotKernel, at: Register, tile: usize) {
        let kind = class(kernel.dtype).untyped();
        let zero = super::prim::immediate(Scalar::of(0.0, kernel.dtype), kernel.dtype);
        let inner = text.word("add.u32", &[&self.inner, &at]);
        for (step, &staged) in self.staged.iter().enumerate() {
            let mut guards = Vec::new();
            if !kernel.k.is_multiple_of(self.depth) {
                let inner = text.word("add.u32", &[&inner, &(step * self.inner_step)]);
                guards.push(text.predicate("setp.lt.u32", &[&inner, &kernel.k]));
            }
            if !self.size.is_multiple_of(tile) {
                let outer = text.word("add.u32", &[&self.outer, &(step * self.outer_step)]);
                guards.push(text.predicate("setp.lt.u32", &[&outer, &self.size]));
            }
            let guard = match guards[..] {
                [a, b] => Some(text.predicate("and.pred", &[&a, &b])),
                [a] => Some(a),
                _ => None,
            };
            if guard.is_some() {
                text.set(staged, &format!("mov.{kind}"), &[&zero]);
            }
            let by =
                step as i64 * (self.inner_step as i64 * self.inner_stride + self.outer_step as i64 * self.outer_stride);
            let address = text.displaced(self.address, by);
            text.act_if(guard, &format!("ld.global.{kind}"), &[&staged, &format!("[{address}]")]);
        }
    }

    /// Write the elements to the tile.
    fn put(&self, text: &mut Text, dtype: DType, tile: usize) {
        let kind = class(dtype).untyped();
        let bytes = dtype.size_bytes();
        for (step, staged) in self.staged.iter().enumerate() {
            let by = step * (self.inner_step * pitch(tile) + self.outer_step) * bytes;
            text.act(&format!("st.shared.{kind}"), &[&format!("[{}+{by}]", self.place), staged]);
        }
    }

    /// Read this thread's rows (columns) of the tile at an inner index.
    fn get(&self, text: &mut Text, dtype: DType, tile: usize, per_thread: usize, inner: usize) -> Vec<Register> {
        let bytes = dtype.size_bytes();
        let group = per_thread.min(16 / bytes);
        let kind = class(dtype).untyped();
        let values: Vec<Register> = (0..per_thread).map(|_| text.fresh(class(dtype))).collect();
        for (part, chunk) in values.chunks(group).enumerate() {
            let by = (inner * pitch(tile) + part * SIDE * group) * bytes;
            let place = format!("[{}+{by}]", self.read);
            if group == 1 {
                text.act(&format!("ld.shared.{kind}"), &[&chunk[0], &place]);
            } else {
                text.act(&format!("ld.shared.v{group}.{kind}"), &[&list(chunk), &place]);
            }
        }
        values
    }
}
