//! Gather and scatter-add. An index outside its axis is noted in the error words and otherwise left out.
//!
//! Scatter-add needs no atomics, so its sums are the same every time: each block owns some rows of the output and a run of
//! columns. It reads all indices in order, 256 at a time, keeps those of its own rows in a list in shared memory, and adds
//! the updates of that list, each thread to its own elements.

use super::Launch;
use super::grid::each_point;
use super::parameters::Parameters;
use super::prim::{class, constant, suffix};
use super::row::{load, store};
use super::space::{Point, Walk};
use super::text::{Class, Register, Text};
use raphson_compile::program::{GatherKernel, ScatterAddKernel};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};

/// The first error word after a failed gather, and after a failed scatter-add.
pub const GATHER_FAILED: u32 = 1;
pub const SCATTER_ADD_FAILED: u32 = 2;

const BLOCK: u32 = 256;
const MOST_BLOCKS: usize = 2048;
/// Blocks that a scatter-add aims at: enough to fill a GPU, few enough that reading all indices in each costs little.
const SCATTER_BLOCKS: usize = 1024;

/// Note an index outside its axis, unless another thread has noted one: (code, index, position, axis).
fn note_error(text: &mut Text, words: Register, code: u32, index: Register, position: Register, axis: u32) {
    let old = text.word("atom.global.cas.b32", &[&format!("[{words}]"), &0, &code]);
    let first = text.predicate("setp.eq.s32", &[&old, &0]);
    text.act_if(Some(first), "st.global.b32", &[&format!("[{words}+4]"), &index]);
    text.act_if(Some(first), "st.global.b32", &[&format!("[{words}+8]"), &position]);
    text.act_if(Some(first), "st.global.b32", &[&format!("[{words}+12]"), &axis]);
}

fn narrow(op: &str, size: usize) -> Result<u32> {
    u32::try_from(size).ok().filter(|&size| size <= i32::MAX as u32).ok_or_else(|| {
        Error::internal(op, format!("an axis, or a number of indices, of {size} is more than this device takes"))
    })
}

/// A position in a space of three axes, each coordinate as a 32-bit register.
fn narrow_index(text: &mut Text, index: Register) -> Register {
    if index.class == Class::Long { text.word("cvt.u32.u64", &[&index]) } else { index }
}

/// Each thread copies elements; the index of each is read by all threads that need it.
pub fn gather(kernel: &GatherKernel) -> Result<Option<Launch>> {
    if kernel.outer * kernel.count * kernel.inner == 0 {
        return Ok(None);
    }
    let (axis, _) = (narrow("gather", kernel.axis)?, narrow("gather", kernel.count)?);
    let mut text = Text::default();
    let text = &mut text;
    let mut parameters = Parameters::default();
    let data = parameters.pointer(text, kernel.data);
    let indices = parameters.pointer(text, kernel.indices);
    let out = parameters.pointer(text, kernel.out);
    let words = parameters.error_words(text);
    let walk = Walk::new(&[kernel.outer, kernel.count, kernel.inner], 1);
    let size = kernel.dtype.size_bytes() as i64;
    let (blocks, threads) = each_point(text, &walk, MOST_BLOCKS, |text, position| {
        let next = text.label();
        let mut point = Point::new(position);
        let coordinates: Vec<Register> = (0..3).map(|axis| walk.coordinate(text, &mut point, axis)).collect();
        let address = text.scaled(indices, coordinates[1], 4);
        let index = text.word("ld.global.b32", &[&format!("[{address}]")]);
        // As an unsigned number a negative index is too great as well.
        let inside = text.predicate("setp.lt.u32", &[&index, &axis]);
        let good = text.label();
        text.branch_if(inside, good);
        let at = narrow_index(text, coordinates[1]);
        note_error(text, words, GATHER_FAILED, index, at, axis);
        text.branch(next);
        text.place(good);
        let row_bytes = kernel.inner as i64 * size;
        let from = text.scaled(data, coordinates[0], kernel.axis as i64 * row_bytes);
        let from = text.scaled(from, index, row_bytes);
        let from = text.scaled(from, coordinates[2], size);
        let value = load(text, kernel.dtype, from, 0);
        let to = text.scaled(out, position, size);
        store(text, None, kernel.dtype, to, 0, value);
        text.place(next);
    });
    Launch::new("gather", text, parameters.finish(), blocks, threads).map(Some)
}

/// How the output of a scatter-add is shared out.
struct Share {
    /// Columns that neighbouring threads own, a power of two.
    columns: usize,
    /// Threads in the other direction: each owns every `threads_down`-th row of the block's.
    threads_down: usize,
    /// Rows of a block, a multiple of `threads_down`.
    rows: usize,
    /// Blocks along the rows and along the columns.
    row_blocks: usize,
    column_blocks: usize,
}

impl Share {
    fn of(kernel: &ScatterAddKernel) -> Share {
        let columns = kernel.inner.next_power_of_two().min(BLOCK as usize);
        let threads_down = BLOCK as usize / columns;
        let column_blocks = kernel.inner.div_ceil(columns);
        let others = column_blocks * kernel.outer;
        let rows = (kernel.axis * others).div_ceil(SCATTER_BLOCKS).clamp(1, 64).max(threads_down);
        let rows = rows.next_multiple_of(threads_down);
        Share { columns, threads_down, rows, row_blocks: kernel.axis.div_ceil(rows), column_blocks }
    }
}

/// The registers of a scatter-add that its parts share.
struct Scatter<'a> {
    kernel: &'a ScatterAddKernel,
    share: Share,
    thread: Register,
    /// The block's first row.
    first_row: Register,
    /// Whether this thread's column exists, and which of the rows are its own.
    column_exists: Register,
    down: Register,
    /// Address of (outer, 0, column) in the output and in the updates.
    out: Register,
    updates: Register,
    indices: Register,
    words: Register,
    /// Offsets in shared memory: the list of (position, row) pairs, the counts of the warps.
    list: u32,
    counts: u32,
}

pub fn scatter_add(kernel: &ScatterAddKernel) -> Result<Option<Launch>> {
    if kernel.outer * kernel.axis * kernel.inner == 0 {
        return Ok(None);
    }
    if kernel.dtype == DType::Bool || kernel.dtype.is_storage() {
        return Err(Error::internal("scatterAdd", format!("{} cannot be added", kernel.dtype)));
    }
    narrow("scatterAdd", kernel.axis)?;
    let count = narrow("scatterAdd", kernel.count)?;
    let share = Share::of(kernel);
    let blocks = kernel.outer * share.row_blocks * share.column_blocks;
    let mut text = Text::default();
    let mut parameters = Parameters::default();
    let scatter = Scatter::begin(&mut text, &mut parameters, kernel, share);
    scatter.clear(&mut text);
    if count > 0 {
        // Chunks of indices; every thread of the block goes through all of them.
        let chunk = text.word("mov.b32", &[&0]);
        let again = text.label();
        text.place(again);
        let found = scatter.collect(&mut text, chunk);
        scatter.add(&mut text, found);
        text.set(chunk, "add.u32", &[&chunk, &BLOCK]);
        let more = text.predicate("setp.lt.u32", &[&chunk, &count]);
        text.branch_if(more, again);
    }
    Launch::new("scatter", &text, parameters.finish(), blocks, BLOCK).map(Some)
}

impl<'a> Scatter<'a> {
    fn begin(text: &mut Text, parameters: &mut Parameters, kernel: &'a ScatterAddKernel, share: Share) -> Scatter<'a> {
        let updates = parameters.pointer(text, kernel.updates);
        let indices = parameters.pointer(text, kernel.indices);
        let out = parameters.pointer(text, kernel.out);
        let words = parameters.error_words(text);
        let thread = text.word("mov.u32", &[&"%tid.x"]);
        let block = text.word("mov.u32", &[&"%ctaid.x"]);
        let (block, column_block) = text.divide_with_rest(block, share.column_blocks);
        let (outer, row_block) = text.divide_with_rest(block, share.row_blocks);
        let first_row = text.word("mul.lo.u32", &[&row_block, &share.rows]);
        let (down, lane) = text.divide_with_rest(thread, share.columns);
        let column = text.word("mad.lo.u32", &[&column_block, &share.columns, &lane]);
        let column_exists = text.predicate("setp.lt.u32", &[&column, &kernel.inner]);
        let size = kernel.dtype.size_bytes() as i64;
        let row_bytes = kernel.inner as i64 * size;
        let start = |text: &mut Text, base: Register, rows: usize| {
            let base = text.scaled(base, outer, rows as i64 * row_bytes);
            text.scaled(base, column, size)
        };
        let (out, updates) = (start(text, out, kernel.axis), start(text, updates, kernel.count));
        let (list, counts) = (text.shared(BLOCK * 8), text.shared(BLOCK / 32 * 4));
        Scatter { kernel, share, thread, first_row, column_exists, down, out, updates, indices, words, list, counts }
    }

    fn row_bytes(&self) -> i64 {
        (self.kernel.inner * self.kernel.dtype.size_bytes()) as i64
    }

    /// Each thread sets its own elements to zero.
    fn clear(&self, text: &mut Text) {
        let zero = constant(text, Scalar::of(0.0, self.kernel.dtype), self.kernel.dtype);
        let row = text.word("add.u32", &[&self.first_row, &self.down]);
        let row = text.copy(row);
        let end = text.word("add.u32", &[&self.first_row, &self.share.rows]);
        let end = text.word("min.u32", &[&end, &self.kernel.axis]);
        let (again, done) = (text.label(), text.label());
        text.branch_unless(self.column_exists, done);
        text.place(again);
        let beyond = text.predicate("setp.ge.u32", &[&row, &end]);
        text.branch_if(beyond, done);
        let address = text.scaled(self.out, row, self.row_bytes());
        store(text, None, self.kernel.dtype, address, 0, zero);
        text.set(row, "add.u32", &[&row, &self.share.threads_down]);
        text.branch(again);
        text.place(done);
    }

    /// Read the indices at chunk + thread, and write those of the block's rows to the list in their order. Returns how many
    /// there are.
    fn collect(&self, text: &mut Text, chunk: Register) -> Register {
        let at = text.word("add.u32", &[&chunk, &self.thread]);
        let exists = text.predicate("setp.lt.u32", &[&at, &self.kernel.count]);
        // What does not exist is no row of any block.
        let index = text.word("mov.b32", &[&-1]);
        let row = text.word("mov.b32", &[&-1]);
        let address = text.scaled(self.indices, at, 4);
        text.act_if(Some(exists), "ld.global.b32", &[&index, &format!("[{address}]")]);
        self.note_outside(text, at, exists, index);
        text.set(row, "sub.u32", &[&index, &self.first_row]);
        let inside = text.predicate("setp.lt.u32", &[&index, &self.kernel.axis]);
        let own = text.predicate("setp.lt.u32", &[&row, &self.share.rows]);
        let own = text.predicate("and.pred", &[&own, &inside]);
        let own = text.predicate("and.pred", &[&own, &exists]);
        // Position in the list: those of earlier warps, and of earlier lanes.
        let votes = text.word("vote.sync.ballot.b32", &[&own, &"0xFFFFFFFF"]);
        let warp = text.word("shr.u32", &[&self.thread, &5]);
        let lane = text.word("and.b32", &[&self.thread, &31]);
        let total = text.word("popc.b32", &[&votes]);
        let speaks = text.predicate("setp.eq.s32", &[&lane, &0]);
        let address = text.shared_address(self.counts, warp, 4);
        text.act_if(Some(speaks), "st.shared.b32", &[&format!("[{address}]"), &total]);
        text.barrier();
        let (mut found, mut before) = (text.word("mov.b32", &[&0]), text.word("mov.b32", &[&0]));
        let start = text.shared_address(self.counts, warp, 0);
        for earlier in 0..BLOCK / 32 {
            let of_warp = text.word("ld.shared.b32", &[&format!("[{start}+{}]", 4 * earlier)]);
            let counts = text.predicate("setp.gt.u32", &[&warp, &earlier]);
            let part = text.word("selp.b32", &[&of_warp, &0, &counts]);
            before = text.word("add.u32", &[&before, &part]);
            found = text.word("add.u32", &[&found, &of_warp]);
        }
        let bit = text.word("shl.b32", &[&1, &lane]);
        let mask = text.word("sub.u32", &[&bit, &1]);
        let earlier = text.word("and.b32", &[&votes, &mask]);
        let earlier = text.word("popc.b32", &[&earlier]);
        let place = text.word("add.u32", &[&before, &earlier]);
        let address = text.shared_address(self.list, place, 8);
        text.act_if(Some(own), "st.shared.v2.b32", &[&format!("[{address}]"), &format!("{{{at}, {row}}}")]);
        text.barrier();
        found
    }

    /// The first block reports indices outside the axis.
    fn note_outside(&self, text: &mut Text, at: Register, exists: Register, index: Register) {
        let good = text.label();
        let outside = text.predicate("setp.ge.u32", &[&index, &self.kernel.axis]);
        let outside = text.predicate("and.pred", &[&outside, &exists]);
        text.branch_unless(outside, good);
        let block = text.word("mov.u32", &[&"%ctaid.x"]);
        let elsewhere = text.predicate("setp.ne.s32", &[&block, &0]);
        text.branch_if(elsewhere, good);
        note_error(text, self.words, SCATTER_ADD_FAILED, index, at, self.kernel.axis as u32);
        text.place(good);
    }

    /// Add the updates of the list; each thread takes those of its own rows and column.
    fn add(&self, text: &mut Text, found: Register) {
        let dtype = self.kernel.dtype;
        let entry = text.word("mov.b32", &[&0]);
        let (again, next, done) = (text.label(), text.label(), text.label());
        let zero = text.word("mov.b32", &[&0]);
        let address = text.shared_address(self.list, zero, 8);
        text.branch_unless(self.column_exists, done);
        text.place(again);
        let beyond = text.predicate("setp.ge.u32", &[&entry, &found]);
        text.branch_if(beyond, done);
        let (at, row) = (text.fresh(Class::Word), text.fresh(Class::Word));
        text.act("ld.shared.v2.b32", &[&format!("{{{at}, {row}}}"), &format!("[{address}]")]);
        if self.share.threads_down > 1 {
            let mine = text.word("and.b32", &[&row, &(self.share.threads_down - 1)]);
            let other = text.predicate("setp.ne.s32", &[&mine, &self.down]);
            text.branch_if(other, next);
        }
        let from = text.scaled(self.updates, at, self.row_bytes());
        let row = text.word("add.u32", &[&row, &self.first_row]);
        let to = text.scaled(self.out, row, self.row_bytes());
        let (update, old) = (load(text, dtype, from, 0), load(text, dtype, to, 0));
        let rounding = if dtype.is_float() { ".rn" } else { "" };
        let sum = text.op(class(dtype), &format!("add{rounding}.{}", suffix(dtype)), &[&old, &update]);
        store(text, None, dtype, to, 0, sum);
        text.place(next);
        text.set(entry, "add.u32", &[&entry, &1]);
        text.set(address, "add.u32", &[&address, &8]);
        text.branch(again);
        text.place(done);
    }
}
