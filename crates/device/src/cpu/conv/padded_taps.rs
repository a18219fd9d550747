//! Gradients of kernels (many taps, few outputs) of f32, not unfolded: each sum runs over the places of an image, of which the data are
//! copied once with zeros around them, so that for every output the elements that its taps meet lie together. Tiles of outputs × output
//! channels read them there, image after image, beside the packed kernel. How sums are cut depends on shapes alone.

use super::super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::super::panels::{
    Panels, Tile, accumulate, leading_to, load_sums, no_sums, pack, part, sets, store_sums, with_tiles,
};
use super::super::pool::Team;
use super::padded::{copy_padded, places};
use super::{Job, Run, product};
use raphson_graph::dtype::DType;
use std::ops::Range;

/// Pieces of work, where there is enough to cut.
const PIECES: usize = 8;
/// The most elements of padded data that a piece holds, of taps of one panel, and of the packed kernel.
const MOST_DATA: usize = 1 << 16;
const MOST_TAPS: usize = 1 << 12;
const MOST_PACKED: usize = 1 << 22;

/// How the work is cut.
pub struct Plan {
    tile: Tile,
    /// Padded data of one entry.
    block: [usize; 3],
    /// Where in it the element of each tap lies, less the output's own place; and the places of outputs.
    places: Vec<i32>,
    starts: Vec<i32>,
    /// Parts of the batch, and parts of each sum.
    n_parts: usize,
    n_sums: usize,
    /// Packs the kernel of a channel, and computes a chunk.
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
        let (taps, outputs) = (product(s.taps), product(s.outputs));
        if taps > MOST_TAPS || s.channels_out < tile.low {
            return None;
        }
        let size = |axis: usize| {
            (s.outputs[axis] - 1) * s.stride[axis] as usize + (s.taps[axis] - 1) * s.dilation[axis] as usize + 1
        };
        let block = [size(0), size(1), size(2)];
        let n_parts = s.batch.min(PIECES.div_ceil(s.groups));
        let n_sums = PIECES.div_ceil(s.groups * n_parts).min(s.channels_in);
        let entries = s.batch.div_ceil(n_parts);
        let used = entries * outputs * s.channels_out;
        let tiles = Panels::of(entries * outputs, tile).rows() * s.channels_out.next_multiple_of(tile.width);
        let packed = s.groups * s.channels_in * taps * s.channels_out.next_multiple_of(tile.width);
        // Copying one entry must be little beside its sums.
        let thin = outputs * s.channels_out < 64;
        if tiles * 10 > used * 15 || entries * product(block) > MOST_DATA || packed > MOST_PACKED || thin {
            return None;
        }
        let steps = |steps: [i64; 3]| steps.map(|step| step as usize);
        Some(Plan {
            tile,
            block,
            places: places(1, s.taps, steps(s.dilation), block),
            starts: places(1, s.outputs, steps(s.stride), block),
            n_parts,
            n_sums,
            fill: with_tiles!(level, find_fill())?,
            run: with_tiles!(level, find_run())?,
        })
    }

    fn column_panels(&self, job: &Job) -> usize {
        job.sizes.channels_out.div_ceil(self.tile.width)
    }

    fn entries(&self, job: &Job) -> usize {
        job.sizes.batch.div_ceil(self.n_parts)
    }

    /// Elements of the tiles of a part of the batch.
    fn tile_elements(&self, job: &Job) -> usize {
        let rows = Panels::of(self.entries(job) * self.starts.len(), self.tile).rows();
        rows * self.column_panels(job) * self.tile.width
    }

    fn packed_elements(&self, job: &Job) -> usize {
        let s = &job.sizes;
        s.groups * s.channels_in * product(s.taps) * self.column_panels(job) * self.tile.width
    }

    /// Elements that each thread, and that all together need.
    pub fn scratch(&self, job: &Job) -> (usize, usize) {
        let sums = job.sizes.groups * self.n_parts * self.n_sums * self.tile_elements(job);
        (self.entries(job) * product(self.block), self.packed_elements(job) + sums)
    }
}

fn find_fill<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Fill<W>>
}

fn find_run<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Tiles<W, T, L>>
}

/// # Safety
/// As for `conv::run`; the data are f32, and the machine has the plan's instruction set.
pub unsafe fn run(plan: &Plan, run: &Run, team: &Team) {
    let (job, s) = (run.job, &run.job.sizes);
    let panels = plan.column_panels(job);
    let shared = || run.workspace.shared::<f32>();
    let fill = |_: usize, index: usize| {
        let (channel, rest) = (index % s.channels_in, index / s.channels_in);
        let out = shared().wrapping_add(index * product(s.taps) * plan.tile.width);
        let fresh = Fresh { run, group: rest / panels, panel: rest % panels, channel, out };
        // SAFETY: the kernel was checked when the program was loaded; each panel has its own part of the workspace.
        unsafe { (plan.fill)(&leading_to(&fresh)) };
    };
    run.prepare(team, s.groups * panels * s.channels_in, &fill);
    let tiles = || shared().wrapping_add(plan.packed_elements(job));
    let body = |thread: usize, chunk: usize| {
        let (sum, rest) = (chunk % plan.n_sums, chunk / plan.n_sums);
        let (batch, group) = (part(s.batch, plan.n_parts, rest % plan.n_parts), rest / plan.n_parts);
        let call = Call {
            plan,
            job,
            batch,
            channels: part(s.channels_in, plan.n_sums, sum),
            data: job.data.base::<f32>(run.bases).wrapping_offset(group as isize * job.data.leading[1]),
            kernel: shared()
                .wrapping_add(group * panels * s.channels_in * product(s.taps) * plan.tile.width)
                .cast_const(),
            padded: run.workspace.own::<f32>(thread),
            tiles: tiles().wrapping_add(chunk * plan.tile_elements(job)),
        };
        // SAFETY: the loop was chosen for this machine; each chunk has tiles of its own.
        unsafe { (plan.run)(&leading_to(&call)) };
    };
    run.chunks(team, s.groups * plan.n_parts * plan.n_sums, &body);
    let body = |_: usize, index: usize| {
        let (batch, group) = (part(s.batch, plan.n_parts, index % plan.n_parts), index / plan.n_parts);
        let tiles = tiles().wrapping_add(index * plan.n_sums * plan.tile_elements(job)).cast_const();
        // SAFETY: all tiles are complete; each part of the batch of a group has outputs of its own.
        unsafe { add_up(plan, run, group, batch, tiles) };
    };
    run.chunks(team, s.groups * plan.n_parts, &body);
}

/// A panel of output channels of one input channel of a group's kernel, to be packed.
struct Fresh<'a> {
    run: &'a Run<'a>,
    group: usize,
    panel: usize,
    channel: usize,
    out: *mut f32,
}

/// Packs it: taps × output channels.
struct Fill<const W: usize>;

impl<const W: usize> Loop for Fill<W> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put this behind `a`, with room for the panel.
        let &Fresh { run, group, panel, channel, mut out } = unsafe { &*args.a.cast::<Fresh>() };
        let (s, kernel) = (&run.job.sizes, &run.job.kernel);
        let width = W.min(s.channels_out - panel * W);
        let at = group as isize * kernel.leading[0]
            + (panel * W) as isize * kernel.leading[1]
            + channel as isize * kernel.leading[2];
        let from = kernel.base::<f32>(run.bases).wrapping_offset(at).cast_const();
        for t0 in 0..s.taps[0] as isize {
            for t1 in 0..s.taps[1] as isize {
                let from = from.wrapping_offset(t0 * kernel.spatial[0] + t1 * kernel.spatial[1]);
                // SAFETY: the view was checked when the program was loaded.
                unsafe {
                    pack::<I, W>(from, (kernel.spatial[2], kernel.leading[1]), s.taps[2], width, out);
                    out = out.add(s.taps[2] * W);
                }
            }
        }
    }
}

/// What a loop works on: the sums of some entries of the batch over some input channels.
struct Call<'a> {
    plan: &'a Plan,
    job: &'a Job,
    batch: Range<usize>,
    channels: Range<usize>,
    data: *const f32,
    kernel: *const f32,
    padded: *mut f32,
    tiles: *mut f32,
}

/// All tiles of a chunk.
struct Tiles<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Tiles<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call>() };
        let (plan, job, s) = (call.plan, call.job, &call.job.sizes);
        let panels = Panels::of(call.batch.len() * plan.starts.len(), plan.tile);
        let origin = s.low.map(|low| -low);
        for channel in call.channels.clone() {
            for (entry, b) in call.batch.clone().enumerate() {
                let at = b as isize * job.data.leading[0] + channel as isize * job.data.leading[2];
                let to = call.padded.wrapping_add(entry * product(plan.block));
                let from = call.data.wrapping_offset(at);
                // SAFETY: the view was checked when the program was loaded; there is room for every entry.
                unsafe { copy_padded(from, job.data.spatial, s.data, origin, [1; 3], plan.block, to) };
            }
            for column in 0..s.channels_out.div_ceil(W) {
                for panel in 0..panels.count() {
                    let (start, held) = (panels.start(panel), (column * panels.rows() + panels.start(panel)) * W);
                    // SAFETY: tiles have room.
                    unsafe {
                        if panels.is_tall(panel) {
                            tile::<I, W, T>(call, channel, column, start, call.tiles.add(held));
                        } else {
                            tile::<I, W, L>(call, channel, column, start, call.tiles.add(held));
                        }
                    }
                }
            }
        }
    }
}

/// The terms of one input channel of one tile, added to those of the channels before.
///
/// # Safety
/// The padded data are those of the channel, and `held` has room for a tile.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const R: usize>(
    call: &Call,
    channel: usize,
    column: usize,
    start: usize,
    held: *mut f32,
) {
    let (plan, s) = (call.plan, &call.job.sizes);
    let (plane, taps, outputs) = (product(plan.block), plan.places.len(), plan.starts.len());
    let kernel = call.kernel.wrapping_add((column * s.channels_in + channel) * taps * W);
    let last = call.batch.len() * outputs - 1;
    let row = |r: usize| {
        // The last row stands for those that are missing.
        let index = (start + r).min(last);
        call.padded.wrapping_add(index / outputs * plane + plan.starts[index % outputs] as usize).cast_const()
    };
    // SAFETY: passed on to our caller; there are as many places as taps, all inside the padded data.
    unsafe {
        let begun = channel > call.channels.start;
        let sums = if begun { load_sums::<I, R>(held, W) } else { no_sums::<I, R>() };
        let place = |t: usize| (*plan.places.get_unchecked(t) as isize, (t * W) as isize);
        let sums = accumulate::<I, R>(taps, std::array::from_fn(row), kernel, place, sums);
        store_sums::<I, R>(sums, R, held, W);
    }
}

/// Write the outputs of some entries of the batch: the sums of their partial sums.
///
/// # Safety
/// As for `conv::run`; `tiles` are those of this part, all partial sums one after another.
unsafe fn add_up(plan: &Plan, run: &Run, group: usize, batch: Range<usize>, tiles: *const f32) {
    let (job, s) = (run.job, &run.job.sizes);
    let outputs = plan.starts.len();
    let (rows, width) = (Panels::of(batch.len() * outputs, plan.tile).rows(), plan.tile.width);
    let out = job.out.base::<f32>(run.bases).wrapping_offset(group as isize * job.out.leading[1]);
    for index in 0..batch.len() * outputs {
        let (b, y) = (batch.start + index / outputs, index % outputs);
        let [_, n1, n2] = s.outputs;
        let y = [y / n2 / n1, y / n2 % n1, y % n2];
        let place = (0..3).map(|axis| y[axis] as isize * job.out.spatial[axis]).sum::<isize>();
        let row = out.wrapping_offset(b as isize * job.out.leading[0] + place);
        for channel in 0..s.channels_out {
            let at = (channel / width * rows + index) * width + channel % width;
            // SAFETY: passed on to our caller.
            unsafe {
                let sums = (0..plan.n_sums).map(|sum| *tiles.add(sum * plan.tile_elements(job) + at));
                *row.offset(channel as isize * job.out.leading[2]) = sums.fold(0.0, |total, sum| total + sum);
            }
        }
    }
}
