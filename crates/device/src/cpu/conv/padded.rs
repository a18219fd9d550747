//! Convolutions of f32 without strides between outputs, not unfolded: a block of an image is copied once with zeros around it, so that
//! what a tap reads for neighbouring outputs lies together, a fixed way from the output's own place. Tiles of output channels × outputs
//! read it there. Outputs are counted along padded rows; those behind the end of a row are computed and left out.

use super::super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::super::panels::{Panels, Tile, WIDE, accumulate, leading_to, no_sums, numbers, pack, sets, with_tiles};
use super::super::pool::Team;
use super::{Job, PIECE, Run, piece, product};
use raphson_graph::dtype::DType;
use std::ops::Range;

/// Elements of a padded block: 256 KiB of f32, half of a second-level cache.
const BLOCK: usize = 1 << 16;
/// The least pieces, where rows of outputs allow it.
const FEW_PIECES: usize = 8;

/// How the work is cut.
pub struct Plan {
    /// Output channels, the rows of tiles.
    panels: Panels,
    /// Terms of a sum: taps of each input channel.
    k: usize,
    /// Padded planes, rows and columns of a block, and rows of outputs in it.
    block: [usize; 3],
    rows: usize,
    /// Where in the padded block the element of each term lies, less the output's own place.
    places: Vec<i32>,
    /// An item is a block of rows of a plane of an image of a group.
    row_blocks: usize,
    n_items: usize,
    items_per_chunk: usize,
    /// Packs a panel of the kernel, and computes a block.
    fill: LoopFn,
    run: LoopFn,
}

impl Plan {
    /// A plan, if the convolution is one for tiles.
    pub fn new(job: &Job, dtype: DType, level: Level) -> Option<Plan> {
        sets(dtype, level).iter().find_map(|&set| Plan::on(job, set))
    }

    fn on(job: &Job, level: Level) -> Option<Plan> {
        let (s, tile) = (&job.sizes, Tile::of(level));
        if s.stride != [1; 3] || s.channels_out < tile.low {
            return None;
        }
        let reach = |axis: usize| (s.taps[axis] - 1) * s.dilation[axis] as usize;
        let (pitch, k) = (s.outputs[2] + reach(2), s.channels_in * product(s.taps));
        let plane_row = s.channels_in * s.taps[0] * pitch;
        let fitting = (BLOCK / plane_row.max(1)).saturating_sub(reach(1));
        let planes = s.batch * s.groups * s.outputs[0];
        let wanted = s.outputs[1].div_ceil(FEW_PIECES.div_ceil(planes));
        let row_blocks = s.outputs[1].div_ceil(wanted.min(fitting).max(1));
        let rows = s.outputs[1].div_ceil(row_blocks);
        let panels = Panels::of(s.channels_out, tile);
        let tiles = (rows * pitch - reach(2)).next_multiple_of(tile.width) * panels.rows();
        let idle = tiles * 10 > rows * s.outputs[2] * s.channels_out * 14;
        let repeated = (rows + reach(1)) > 4 * rows;
        let block = [s.taps[0], rows + reach(1), pitch];
        let elements = s.channels_in * product(block);
        if fitting == 0 || idle || repeated || k < 4 || elements > i32::MAX as usize {
            return None;
        }
        let n_items = planes * row_blocks;
        let work = k * s.channels_out * rows * s.outputs[2];
        Some(Plan {
            panels,
            k,
            block,
            rows,
            places: places(s.channels_in, s.taps, [1, s.dilation[1] as usize, s.dilation[2] as usize], block),
            row_blocks,
            n_items,
            items_per_chunk: (PIECE / work.max(1)).clamp(1, n_items.div_ceil(FEW_PIECES)),
            fill: with_tiles!(level, find_fill())?,
            run: with_tiles!(level, find_run())?,
        })
    }

    fn block_elements(&self, channels: usize) -> usize {
        channels * product(self.block)
    }

    /// Elements that each thread (with what the last tile reads behind its block), and that all together need.
    pub fn scratch(&self, job: &Job) -> (usize, usize) {
        let s = &job.sizes;
        (self.block_elements(s.channels_in) + WIDE.width + self.block[2], s.groups * self.panels.rows() * self.k)
    }
}

/// Places of all taps of all channels in blocks `size` with one plane for each tap along the first axis.
pub(super) fn places(channels: usize, taps: [usize; 3], steps: [usize; 3], size: [usize; 3]) -> Vec<i32> {
    let [_, rows, pitch] = size;
    let plane = size[0] * rows * pitch;
    let mut places = Vec::with_capacity(channels * product(taps));
    for channel in 0..channels {
        for t0 in 0..taps[0] {
            for t1 in 0..taps[1] {
                let row = channel * plane + (t0 * steps[0] * rows + t1 * steps[1]) * pitch;
                places.extend((0..taps[2]).map(|t2| (row + t2 * steps[2]) as i32));
            }
        }
    }
    places
}

fn find_fill<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Fill<T, L>>
}

fn find_run<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Tiles<W, T, L>>
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
        let own = run.workspace.own::<f32>(thread);
        for item in piece(plan.n_items, plan.items_per_chunk, chunk) {
            let (block, rest) = (item % plan.row_blocks, item / plan.row_blocks);
            let (plane, rest) = (rest % s.outputs[0], rest / s.outputs[0]);
            let (group, image) = (rest % s.groups, rest / s.groups);
            let rows = piece(s.outputs[1], plan.rows, block);
            let data = job
                .data
                .base::<f32>(run.bases)
                .wrapping_offset(image as isize * job.data.leading[0] + group as isize * job.data.leading[1]);
            let out = job.out.base::<f32>(run.bases).wrapping_offset(
                image as isize * job.out.leading[0]
                    + group as isize * job.out.leading[1]
                    + plane as isize * job.out.spatial[0]
                    + rows.start as isize * job.out.spatial[1],
            );
            // SAFETY: the views were checked when the program was loaded, and this thread's memory has room for a block.
            unsafe {
                let origin = [plane as i64 - s.low[0], rows.start as i64 - s.low[1], -s.low[2]];
                let steps = [s.dilation[0], 1, 1];
                for channel in 0..s.channels_in {
                    let from = data.wrapping_offset(channel as isize * job.data.leading[2]);
                    let to = own.add(channel * product(plan.block));
                    copy_padded(from, job.data.spatial, s.data, origin, steps, plan.block, to);
                }
                let call = Call { plan, job, kernel: packed(group).cast_const(), data: own, out, rows: rows.len() };
                (plan.run)(&leading_to(&call));
            }
        }
    };
    run.chunks(team, plan.n_items.div_ceil(plan.items_per_chunk), &body);
}

/// Elements of some data from `origin` on, `steps` apart, with zeros where there are none.
///
/// # Safety
/// The data may be read with these strides and sizes, and a block written.
pub(super) unsafe fn copy_padded(
    from: *const f32,
    strides: [isize; 3],
    sizes: [usize; 3],
    origin: [i64; 3],
    steps: [i64; 3],
    block: [usize; 3],
    mut to: *mut f32,
) {
    let first = (-origin[2]).clamp(0, block[2] as i64) as usize;
    let end = (sizes[2] as i64 - origin[2]).clamp(first as i64, block[2] as i64) as usize;
    for z in 0..block[0] as i64 {
        for y in 0..block[1] as i64 {
            let at = [origin[0] + z * steps[0], origin[1] + y * steps[1]];
            let inside = (0..2).all(|axis| (0..sizes[axis] as i64).contains(&at[axis]));
            let (first, end) = if inside { (first, end) } else { (0, 0) };
            let row = from.wrapping_offset(at[0] as isize * strides[0] + at[1] as isize * strides[1]);
            // SAFETY: `first..end` are the columns inside the data, all of them inside the block.
            unsafe {
                for x in 0..first {
                    *to.add(x) = 0.0;
                }
                for x in first..end {
                    *to.add(x) = *row.wrapping_offset((x as isize + origin[2] as isize) * strides[2]);
                }
                for x in end..block[2] {
                    *to.add(x) = 0.0;
                }
                to = to.add(block[2]);
            }
        }
    }
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
        // SAFETY: our caller put this behind `a`, with room for the panel.
        unsafe {
            let Fresh { plan, run, group, panel, out } = *args.a.cast::<Fresh>();
            let start = plan.panels.start(panel);
            if plan.panels.is_tall(panel) {
                pack_kernel::<I, T>(run, group, start, out);
            } else {
                pack_kernel::<I, L>(run, group, start, out);
            }
        }
    }
}

/// A tile's rows of the kernel: [channels in, taps] × output channels.
///
/// # Safety
/// As for `conv::run`; there is room for a panel.
#[inline(always)]
unsafe fn pack_kernel<I: Isa, const R: usize>(run: &Run, group: usize, start: usize, out: *mut f32) {
    let (job, s) = (run.job, &run.job.sizes);
    let (kernel, taps) = (&job.kernel, s.taps);
    let n_channels = R.min(s.channels_out - start);
    let at = group as isize * kernel.leading[0] + start as isize * kernel.leading[1];
    let from = kernel.base::<f32>(run.bases).wrapping_offset(at);
    let mut out = out;
    for channel in 0..s.channels_in as isize {
        for t0 in 0..taps[0] as isize {
            for t1 in 0..taps[1] as isize {
                let at = channel * kernel.leading[2] + t0 * kernel.spatial[0] + t1 * kernel.spatial[1];
                let from = from.wrapping_offset(at).cast_const();
                let steps = (kernel.spatial[2], kernel.leading[1]);
                // SAFETY: passed on to our caller.
                unsafe {
                    pack::<I, R>(from, steps, taps[2], n_channels, out);
                    out = out.add(taps[2] * R);
                }
            }
        }
    }
}

/// What a loop works on: a padded block and where its outputs go.
struct Call<'a> {
    plan: &'a Plan,
    job: &'a Job,
    kernel: *const f32,
    data: *const f32,
    out: *mut f32,
    rows: usize,
}

/// All tiles of a block.
struct Tiles<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Tiles<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call>() };
        let panels = call.plan.panels;
        let end = (call.rows - 1) * call.plan.block[2] + call.job.sizes.outputs[2];
        for first in (0..end).step_by(W) {
            let places = first..(first + W).min(end);
            for panel in 0..panels.count() {
                // SAFETY: the last tile may read behind the block, where there is room for it.
                unsafe {
                    if panels.is_tall(panel) {
                        tile::<I, W, T>(call, panels.start(panel), &places);
                    } else {
                        tile::<I, W, L>(call, panels.start(panel), &places);
                    }
                }
            }
        }
    }
}

/// One tile: output channels from `start` on, at these places of a block.
///
/// # Safety
/// The call's kernel, and `W` elements of the block from each term's place on, may be read; the output is the call's.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const R: usize>(call: &Call, start: usize, places: &Range<usize>) {
    let plan = call.plan;
    // SAFETY: passed on to our caller. There are as many places as terms.
    unsafe {
        let kernel = call.kernel.add(start * plan.k);
        let place = |t: usize| ((t * R) as isize, *plan.places.get_unchecked(t) as isize);
        let rows = std::array::from_fn(|r| kernel.add(r));
        let sums = accumulate::<I, R>(plan.k, rows, call.data.add(places.start), place, no_sums::<I, R>());
        let channels = start..(start + R).min(call.job.sizes.channels_out);
        store::<W, R>(call, channels, places, &numbers::<I, W, R>(sums));
    }
}

/// Write those sums that are outputs.
///
/// # Safety
/// The output is the call's.
#[inline(always)]
unsafe fn store<const W: usize, const R: usize>(
    call: &Call,
    channels: Range<usize>,
    places: &Range<usize>,
    sums: &[[f32; W]; R],
) {
    let (job, pitch, columns) = (call.job, call.plan.block[2], call.job.sizes.outputs[2]);
    let [_, row_step, step] = job.out.spatial;
    let mut place = places.start;
    while place < places.end {
        let (row, column) = (place / pitch, place % pitch);
        let length = (pitch - column).min(places.end - place);
        let n = columns.saturating_sub(column).min(length);
        let lane = place - places.start;
        let to = call.out.wrapping_offset(row as isize * row_step + column as isize * step);
        for (r, channel) in channels.clone().enumerate() {
            let to = to.wrapping_offset(channel as isize * job.out.leading[2]);
            // SAFETY: `n` outputs of a row from this column on.
            unsafe {
                if step == 1 && n == W {
                    to.cast::<[f32; W]>().write_unaligned(sums[r]);
                } else {
                    (0..n).for_each(|i| *to.wrapping_offset(i as isize * step) = sums[r][lane + i]);
                }
            }
        }
        place += length;
    }
}
