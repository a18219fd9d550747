//! Convolutions of f32 without strides between outputs, not unfolded: a block of some images is copied once with zeros around it, so that
//! what a tap reads for neighbouring outputs lies together, a fixed way from the output's own place. Tiles of output channels × outputs
//! read it there. Outputs are counted along padded rows, in each the images of the block side by side; those behind the end of an image's row
//! are computed and left out.

use super::super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::super::panels::{
    Panels, Sums, Tile, WIDE, accumulate, leading_to, load_sums, no_sums, part, store_sums, with_tiles,
};
use super::super::pool::Team;
use super::padding::{Part, places};
use super::{Job, PIECE, Run, piece, product};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Elements of a padded block for each column of a tile: with AVX2 256 KiB of f32, half of a second-level cache, which is twice as large
/// where there is AVX-512.
const BLOCK: usize = 1 << 12;
/// Multiply-adds that take as long as storing a sum.
const STORED: usize = 6;
/// The most terms of a sum that are added up while what a tile reads of the block stays in the first-level cache.
const DEPTH: usize = 192;
/// The least pieces, where rows of outputs allow it.
const FEW_PIECES: usize = 8;

/// How the work is cut.
pub struct Plan {
    /// Output channels, the rows of tiles.
    panels: Panels,
    /// Terms of a sum: taps of each input channel.
    k: usize,
    block: Block,
    /// Where in the padded block the element of each term lies, less the output's own place.
    places: Vec<i32>,
    /// Multiply-adds of all tiles, with what takes as long.
    pub cost: usize,
    /// An item is a block of rows of a plane of some images of a group.
    row_blocks: usize,
    image_blocks: usize,
    n_items: usize,
    items_per_chunk: usize,
    /// Packs a panel of the kernel, and computes a block.
    fill: LoopFn,
    run: LoopFn,
}

/// The padded data of one item: [input channels, taps along planes, rows, images, columns].
#[derive(Clone, Copy)]
struct Block {
    images: usize,
    /// Rows of outputs, and of data.
    rows: usize,
    data_rows: usize,
    /// Columns of an image.
    width: usize,
}

impl Block {
    /// Elements of a row of all images.
    fn row(self) -> usize {
        self.images * self.width
    }

    /// Elements of a plane of all images.
    fn plane(self) -> usize {
        self.data_rows * self.row()
    }

    /// Places of outputs from the first to the last, those that are none included.
    fn places(self, columns: usize) -> usize {
        self.rows * self.row() - self.width + columns
    }
}

impl Plan {
    /// A plan for this set's tiles, if the convolution is one for them.
    pub fn new(job: &Job, level: Level) -> Option<Plan> {
        let (s, tile) = (&job.sizes, Tile::of(level));
        if s.stride != [1; 3] {
            return None;
        }
        let reach = |axis: usize| (s.taps[axis] - 1) * s.dilation[axis] as usize;
        let (columns, k, planes) = (s.outputs[2], s.channels_in * product(s.taps), s.channels_in * s.taps[0]);
        let (width, most) = (columns + reach(2), BLOCK * tile.width);
        let fitting = (most / (planes * width).max(1)).saturating_sub(reach(1));
        let lone = s.batch * s.groups * s.outputs[0];
        let wanted = s.outputs[1].div_ceil(FEW_PIECES.div_ceil(lone));
        let row_blocks = s.outputs[1].div_ceil(wanted.min(fitting).max(1));
        let rows = s.outputs[1].div_ceil(row_blocks);
        let of = |images: usize| Block { images, rows, data_rows: rows + reach(1), width };
        let tiles = |images: usize| of(images).places(columns).div_ceil(tile.width) * s.batch.div_ceil(images);
        let together = (most / (planes * of(1).plane()).max(1)).min(lone / FEW_PIECES).min(s.batch).max(1);
        let images = (1..=together).min_by_key(|&images| tiles(images)).unwrap_or(1);
        let (block, panels) = (of(images), Panels::of(s.channels_out, tile));
        let sums = tiles(images) * tile.width * panels.rows();
        let useful = s.batch * rows * columns * s.channels_out.max(tile.low);
        let idle = sums * 10 > useful * 14;
        let repeated = block.data_rows > 4 * rows;
        if fitting == 0 || idle || repeated || k < 4 || planes * block.plane() > i32::MAX as usize {
            return None;
        }
        let image_blocks = s.batch.div_ceil(images);
        let n_items = image_blocks * s.groups * s.outputs[0] * row_blocks;
        let work = k * s.channels_out * images * rows * columns;
        let [_, rows_apart, columns_apart] = s.dilation.map(|dilation| dilation as usize);
        let steps = [s.taps[0] * block.plane(), block.plane(), rows_apart * block.row(), columns_apart];
        Some(Plan {
            panels,
            k,
            block,
            places: places(s.channels_in, s.taps, steps),
            cost: (k + STORED) * sums * s.outputs[0] * row_blocks,
            row_blocks,
            image_blocks,
            n_items,
            items_per_chunk: (PIECE / work.max(1)).clamp(1, n_items.div_ceil(FEW_PIECES)),
            fill: with_tiles!(level, find_fill())?,
            run: with_tiles!(level, find_run())?,
        })
    }

    /// Elements that each thread (with what the last tile reads behind its block), and that all together need.
    pub fn scratch(&self, job: &Job) -> (usize, usize) {
        let s = &job.sizes;
        let sums = self.panels.rows() * WIDE.width;
        (self.padded_elements(job) + sums, s.groups * self.panels.rows() * self.k)
    }

    fn padded_elements(&self, job: &Job) -> usize {
        job.sizes.channels_in * job.sizes.taps[0] * self.block.plane() + WIDE.width + self.block.row()
    }
}

fn find_fill<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Fill<T, L>>
}

fn find_run<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Item<W, T, L>>
}

/// # Safety
/// As for `conv::run`; the data are f32, and the machine has the plan's instruction set.
pub unsafe fn run(plan: &Plan, run: &Run, team: &Team) {
    let (job, s) = (run.job, &run.job.sizes);
    let panels = plan.panels.count();
    let packed = |group: usize| run.workspace.shared::<f32>().wrapping_add(group * plan.panels.rows() * plan.k);
    let fill = |_: usize, index: usize| {
        let (group, panel) = (index / panels, index % panels);
        let out = packed(group).wrapping_add(plan.panels.start(panel) * plan.k);
        // SAFETY: the kernel was checked when the program was loaded; each panel has its own part of the workspace.
        unsafe { (plan.fill)(&leading_to(&Fresh { plan, run, group, panel, out })) };
    };
    run.prepare(team, s.groups * panels, &fill);
    let body = |thread: usize, chunk: usize| {
        for item in piece(plan.n_items, plan.items_per_chunk, chunk) {
            let (block, rest) = (item % plan.row_blocks, item / plan.row_blocks);
            let (plane, rest) = (rest % s.outputs[0], rest / s.outputs[0]);
            let (images, group) =
                (piece(s.batch, plan.block.images, rest % plan.image_blocks), rest / plan.image_blocks);
            let rows = piece(s.outputs[1], plan.block.rows, block);
            let data = job
                .data
                .base::<f32>(run.bases)
                .wrapping_offset(images.start as isize * job.data.leading[0] + group as isize * job.data.leading[1]);
            let out = job.out.base::<f32>(run.bases).wrapping_offset(
                images.start as isize * job.out.leading[0]
                    + group as isize * job.out.leading[1]
                    + plane as isize * job.out.spatial[0]
                    + rows.start as isize * job.out.spatial[1],
            );
            let origin = [plane as i64 - s.low[0], rows.start as i64 - s.low[1], -s.low[2]];
            let (kernel, padded) = (packed(group).cast_const(), run.workspace.own::<f32>(thread));
            let held = padded.wrapping_add(plan.padded_elements(job));
            let (images, rows) = (images.len(), rows.len());
            let call = Call { plan, job, kernel, data, origin, padded, held, out, images, rows };
            // SAFETY: the views were checked when the program was loaded, and this thread's memory has room for a block.
            unsafe { (plan.run)(&leading_to(&call)) };
        }
    };
    run.chunks(team, plan.n_items.div_ceil(plan.items_per_chunk), &body);
}

/// A panel of a group's kernel, to be packed.
struct Fresh<'a> {
    plan: &'a Plan,
    run: &'a Run<'a>,
    group: usize,
    panel: usize,
    out: *mut f32,
}

/// Packs it.
struct Fill<const T: usize, const L: usize>;

impl<const T: usize, const L: usize> Loop for Fill<T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put this behind `a`, with room for the panel; the kernel was checked when the program was loaded.
        unsafe {
            let Fresh { plan, run, group, panel, out } = *args.a.cast::<Fresh>();
            let start = plan.panels.start(panel);
            let kernel = run.job.kernel_of(run.bases, group, start);
            if plan.panels.is_tall(panel) {
                run.job.pack::<I, T>(kernel, start, run.job.sizes.channels_in, out);
            } else {
                run.job.pack::<I, L>(kernel, start, run.job.sizes.channels_in, out);
            }
        }
    }
}

/// What a loop works on: some rows of outputs of some images, and where their data begin.
struct Call<'a> {
    plan: &'a Plan,
    job: &'a Job,
    kernel: *const f32,
    data: *const f32,
    origin: [i64; 3],
    padded: *mut f32,
    /// The sums of all tiles at some places, between blocks of terms.
    held: *mut f32,
    out: *mut f32,
    images: usize,
    rows: usize,
}

/// Copies an item's block and computes all its tiles.
struct Item<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Item<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`; this thread's memory has room for a block.
        let call = unsafe {
            I::call::<Copied>(args);
            &*args.a.cast::<Call>()
        };
        let (panels, block) = (call.plan.panels, call.plan.block);
        let blocks = call.plan.k.div_ceil(DEPTH);
        let mut place = Place { row: 0, image: 0, column: 0 };
        let end = Block { rows: call.rows, ..block }.places(call.job.sizes.outputs[2]);
        for first in (0..end).step_by(W) {
            let (pieces, n_pieces) = place.pieces::<W>(call);
            let pieces = &pieces[..n_pieces];
            for terms in (0..blocks).map(|block| part(call.plan.k, blocks, block)) {
                for panel in 0..panels.count() {
                    // SAFETY: the last tile may read behind the block, where there is room for it.
                    unsafe {
                        if panels.is_tall(panel) {
                            tile::<I, W, T>(call, panels.start(panel), first, &terms, pieces);
                        } else {
                            tile::<I, W, L>(call, panels.start(panel), first, &terms, pieces);
                        }
                    }
                }
            }
        }
    }
}

/// Copies an item's block. A loop of its own, and so a function: beside it the compiler would find too few registers for the sums of tiles.
struct Copied;

impl Loop for Copied {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`, and there is room for its block.
        unsafe { copy::<I>(&*args.a.cast::<Call>()) }
    }
}

/// Copy an item's data, with zeros around them.
///
/// # Safety
/// As for `conv::run`; there is room for a block.
#[inline(always)]
unsafe fn copy<I: Isa>(call: &Call) {
    let (job, s, block) = (call.job, &call.job.sizes, call.plan.block);
    let rows = call.origin[1]..call.origin[1] + block.data_rows as i64;
    let part = Part::new(&job.data, s.data, call.origin[2], block.width);
    let mut to = call.padded;
    for channel in 0..s.channels_in as isize {
        for tap in 0..s.taps[0] as i64 {
            let z = call.origin[0] + tap * s.dilation[0];
            // Those of images that are missing stay what they were: their outputs are left out.
            for image in 0..call.images {
                let at = image as isize * job.data.leading[0] + channel * job.data.leading[2];
                let to = to.wrapping_add(image * block.width);
                // SAFETY: passed on to our caller.
                unsafe { part.copy::<I>(call.data.wrapping_offset(at), z, &rows, to, block.row()) };
            }
            to = to.wrapping_add(block.plane());
        }
    }
}

/// A place of a block.
struct Place {
    row: usize,
    image: usize,
    column: usize,
}

/// Neighbouring outputs of a tile: their lanes, and where the first one goes.
#[derive(Clone, Copy)]
struct Piece {
    lane: usize,
    n: usize,
    at: isize,
}

impl Place {
    /// The outputs among the next `W` places, behind which this then is, and how many pieces they are.
    #[inline(always)]
    fn pieces<const W: usize>(&mut self, call: &Call) -> ([Piece; W], usize) {
        let (out, block, columns) = (&call.job.out, call.plan.block, call.job.sizes.outputs[2]);
        let mut pieces = [Piece { lane: 0, n: 0, at: 0 }; W];
        let (mut lane, mut count) = (0, 0);
        while lane < W && self.row < call.rows {
            let length = (block.width - self.column).min(W - lane);
            let n = columns.saturating_sub(self.column).min(length);
            if n > 0 && self.image < call.images {
                let at = self.row as isize * out.spatial[1]
                    + self.image as isize * out.leading[0]
                    + self.column as isize * out.spatial[2];
                pieces[count] = Piece { lane, n, at };
                count += 1;
            }
            lane += length;
            self.column += length;
            if self.column == block.width {
                self.column = 0;
                self.image += 1;
            }
            if self.image == block.images {
                self.image = 0;
                self.row += 1;
            }
        }
        (pieces, count)
    }
}

/// Some terms of one tile: output channels from `start` on, at the places of a block from `first` on.
///
/// # Safety
/// The call's kernel, and `W` elements of the block from each term's place on, may be read; the output is the call's.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const R: usize>(
    call: &Call,
    start: usize,
    first: usize,
    terms: &Range<usize>,
    pieces: &[Piece],
) {
    let plan = call.plan;
    // SAFETY: passed on to our caller. There are as many places as terms.
    unsafe {
        let (kernel, held) = (call.kernel.add(start * plan.k + terms.start * R), call.held.add(start * W));
        let places = plan.places.as_ptr().add(terms.start);
        let place = |t: usize| ((t * R) as isize, *places.add(t) as isize);
        let rows = std::array::from_fn(|r| kernel.add(r));
        let sums = if terms.start == 0 { no_sums::<I, R>() } else { load_sums::<I, R>(held, W) };
        let sums = accumulate::<I, R, false>(terms.len(), rows, call.padded.add(first).cast_const(), place, sums);
        if terms.end == plan.k {
            store::<I, W, R>(call, start..(start + R).min(call.job.sizes.channels_out), pieces, sums);
        } else {
            store_sums::<I, R>(sums, R, held, W);
        }
    }
}

/// A tile's sums in memory, with room to read a vector from any of them on.
#[repr(C)]
struct Held<const W: usize, const R: usize> {
    sums: [[f32; W]; R],
    behind: [f32; W],
}

/// Write those sums that are outputs.
///
/// # Safety
/// The output is the call's.
#[inline(always)]
unsafe fn store<I: Isa, const W: usize, const R: usize>(
    call: &Call,
    channels: Range<usize>,
    pieces: &[Piece],
    sums: Sums<I, R>,
) {
    let (step, channel_step) = (call.job.out.spatial[2], call.job.out.leading[2]);
    let mut held = MaybeUninit::<Held<W, R>>::uninit();
    let from = held.as_mut_ptr().cast::<f32>();
    // SAFETY: passed on to our caller; `held` has room for the sums and for a vector behind them.
    unsafe {
        store_sums::<I, R>(sums, R, from, W);
        for piece in pieces {
            for (r, channel) in channels.clone().enumerate() {
                let to = call.out.offset(piece.at + channel as isize * channel_step);
                let from = from.add(r * W + piece.lane).cast_const();
                if step == 1 {
                    for i in (0..piece.n).step_by(I::LANES) {
                        I::store_first(I::load(from.add(i)), (piece.n - i).min(I::LANES), to.add(i));
                    }
                } else {
                    (0..piece.n).for_each(|i| *to.offset(i as isize * step) = *from.add(i));
                }
            }
        }
    }
}
