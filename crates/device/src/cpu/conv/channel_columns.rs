//! Convolutions of f32 with few outputs, or sums so long that the rest hardly matters (gradients of kernels, layers behind others), not
//! unfolded: the data of some batch entries and input channels are copied once with zeros around them, so that the elements that an
//! output's taps meet lie fixed ways from a place of its own. Tiles of outputs × output channels read them there, channels after
//! channels, beside the packed kernel. How sums are cut depends on shapes alone.

use super::super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::super::panels::{Panels, Tile, accumulate, leading_to, load_sums, no_sums, part, store_sums, with_tiles};
use super::super::pool::Team;
use super::padding::{Part, places};
use super::{Job, Run, product};
use std::ops::Range;

/// Pieces of work, where there is enough to cut.
const PIECES: usize = 8;
/// The most elements of padded data that a piece holds, of its sums, of the taps of one panel, and of the packed kernel.
const MOST_DATA: usize = 1 << 16;
const MOST_SUMS: usize = 1 << 16;
const MOST_TAPS: usize = 1 << 12;
const MOST_PACKED: usize = 1 << 22;
/// The terms that are wanted between reading a tile's sums and storing them again.
const DEPTH: usize = 192;
/// Multiply-adds that take as long as storing a sum, and as turning it towards its output.
const STORED: usize = 24;

/// How the work is cut.
pub struct Plan {
    tile: Tile,
    /// Padded data of one entry's channel, and how many channels are summed at once.
    block: [usize; 3],
    pass: usize,
    /// Where in them the element of each term lies, less the output's own place; and the places of the outputs of a piece, the last one
    /// again for rows of tiles that are idle.
    places: Vec<i32>,
    starts: Vec<i32>,
    /// Multiply-adds of all tiles, with what takes as long.
    pub cost: usize,
    /// Entries of the batch in a piece, and parts of each sum.
    entries: usize,
    n_parts: usize,
    n_sums: usize,
    /// Packs a panel of the kernel, computes a piece, and adds up what parts of sums left.
    fill: LoopFn,
    run: LoopFn,
    add_up: LoopFn,
}

impl Plan {
    /// A plan for this set's tiles, if the convolution is one for them.
    pub fn new(job: &Job, level: Level) -> Option<Plan> {
        let (s, tile) = (&job.sizes, Tile::of(level));
        let (taps, outputs) = (product(s.taps), product(s.outputs));
        // Copying one entry must be little beside its sums.
        if taps > MOST_TAPS || s.channels_out < tile.low || outputs * s.channels_out < 64 {
            return None;
        }
        let size = |axis: usize| {
            (s.outputs[axis] - 1) * s.stride[axis] as usize + (s.taps[axis] - 1) * s.dilation[axis] as usize + 1
        };
        let block = [size(0), size(1), size(2)];
        let columns = s.channels_out.next_multiple_of(tile.width);
        let rows = |entries: usize| Panels::of(entries * outputs, tile).rows();
        let fitting = |entries: &usize| rows(*entries) * columns <= MOST_SUMS && entries * product(block) <= MOST_DATA;
        let most = (s.batch * s.groups / PIECES).clamp(1, s.batch);
        let all_rows = |entries: &usize| rows(*entries) * s.batch.div_ceil(*entries);
        let entries = (1..=most).rev().filter(fitting).min_by_key(all_rows)?;
        let n_parts = s.batch.div_ceil(entries);
        let n_sums = PIECES.div_ceil(s.groups * n_parts).min(s.channels_in);
        let most = (MOST_DATA / (entries * product(block))).min(DEPTH.div_ceil(taps));
        let passes = s.channels_in.div_ceil(n_sums).div_ceil(most);
        let pass = s.channels_in.div_ceil(n_sums).div_ceil(passes);
        let (sums, used) = (all_rows(&entries) * columns, s.batch * outputs * s.channels_out);
        if sums * 10 > used * 15 || s.groups * s.channels_in * taps * columns > MOST_PACKED {
            return None;
        }
        let steps = |steps: [i64; 3]| {
            let [planes, rows, columns] = steps.map(|step| step as usize);
            [product(block), planes * block[1] * block[2], rows * block[2], columns]
        };
        let of_entry = places(1, s.outputs, steps(s.stride));
        let entry_step = (pass * product(block)) as i32;
        let mut starts: Vec<i32> = (0..entries as i32)
            .flat_map(|entry| of_entry.iter().map(move |place| entry * entry_step + place))
            .collect();
        starts.resize(starts.len() + tile.tall, *starts.last()?);
        Some(Plan {
            tile,
            block,
            pass,
            places: places(pass, s.taps, steps(s.dilation)),
            starts,
            cost: (s.channels_in * taps + STORED) * sums,
            entries,
            n_parts,
            n_sums,
            fill: with_tiles!(level, find_fill())?,
            run: with_tiles!(level, find_run())?,
            add_up: with_tiles!(level, find_add_up())?,
        })
    }

    fn column_panels(&self, job: &Job) -> usize {
        job.sizes.channels_out.div_ceil(self.tile.width)
    }

    /// Elements of the tiles of a piece.
    fn tile_elements(&self, job: &Job) -> usize {
        let rows = Panels::of(self.entries * product(job.sizes.outputs), self.tile).rows();
        rows * self.column_panels(job) * self.tile.width
    }

    fn padded_elements(&self) -> usize {
        self.entries * self.pass * product(self.block)
    }

    fn packed_elements(&self, job: &Job) -> usize {
        let s = &job.sizes;
        s.groups * s.channels_in * product(s.taps) * self.column_panels(job) * self.tile.width
    }

    /// Elements that each thread, and that all together need. Sums in one part stay with the thread that writes their outputs.
    pub fn scratch(&self, job: &Job) -> (usize, usize) {
        let (padded, packed, tiles) = (self.padded_elements(), self.packed_elements(job), self.tile_elements(job));
        if self.n_sums == 1 {
            (padded + tiles, packed)
        } else {
            (padded, packed + job.sizes.groups * self.n_parts * self.n_sums * tiles)
        }
    }

    /// The entries of a part of the batch.
    fn batch(&self, job: &Job, index: usize) -> Range<usize> {
        index * self.entries..job.sizes.batch.min((index + 1) * self.entries)
    }
}

fn find_fill<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Fill<W>>
}

fn find_run<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Piece<W, T, L>>
}

fn find_add_up<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<AddUp<W>>
}

/// # Safety
/// As for `conv::run`; the data are f32, and the machine has the plan's instruction set.
pub unsafe fn run(plan: &Plan, run: &Run, team: &Team) {
    let (job, s) = (run.job, &run.job.sizes);
    let panels = plan.column_panels(job);
    let group_elements = panels * s.channels_in * product(s.taps) * plan.tile.width;
    let packed = || run.workspace.shared::<f32>();
    let fill = |_: usize, index: usize| {
        let (channel, rest) = (index % s.channels_in, index / s.channels_in);
        let out = packed().wrapping_add(index * product(s.taps) * plan.tile.width);
        let fresh = Fresh { run, group: rest / panels, panel: rest % panels, channel, out };
        // SAFETY: the kernel was checked when the program was loaded; each panel has its own part of the workspace.
        unsafe { (plan.fill)(&leading_to(&fresh)) };
    };
    run.prepare(team, s.groups * panels * s.channels_in, &fill);
    let out = |group: usize| job.out.base::<f32>(run.bases).wrapping_offset(group as isize * job.out.leading[1]);
    let parts_of_sums = || packed().wrapping_add(plan.packed_elements(job));
    let body = |thread: usize, chunk: usize| {
        let (sum, index) = (chunk % plan.n_sums, chunk / plan.n_sums);
        let (batch, group) = (plan.batch(job, index % plan.n_parts), index / plan.n_parts);
        let padded = run.workspace.own::<f32>(thread);
        let tiles = if plan.n_sums == 1 {
            padded.wrapping_add(plan.padded_elements())
        } else {
            parts_of_sums().wrapping_add(chunk * plan.tile_elements(job))
        };
        let call = Call {
            sums: Sums { plan, job, batch, tiles, out: out(group) },
            channels: part(s.channels_in, plan.n_sums, sum),
            data: job.data.base::<f32>(run.bases).wrapping_offset(group as isize * job.data.leading[1]),
            kernel: packed().wrapping_add(group * group_elements).cast_const(),
            padded,
        };
        // SAFETY: the loop was chosen for this machine; each chunk has tiles of its own.
        unsafe { (plan.run)(&leading_to(&call)) };
    };
    run.chunks(team, s.groups * plan.n_parts * plan.n_sums, &body);
    if plan.n_sums > 1 {
        let body = |_: usize, index: usize| {
            let (batch, group) = (plan.batch(job, index % plan.n_parts), index / plan.n_parts);
            let tiles = parts_of_sums().wrapping_add(index * plan.n_sums * plan.tile_elements(job));
            let sums = Sums { plan, job, batch, tiles, out: out(group) };
            // SAFETY: all tiles are complete; each part of the batch of a group has outputs of its own.
            unsafe { (plan.add_up)(&leading_to(&sums)) };
        };
        run.chunks(team, s.groups * plan.n_parts, &body);
    }
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
        // SAFETY: our caller put this behind `a`, with room for the panel; the kernel was checked when the program was loaded.
        unsafe {
            let &Fresh { run, group, panel, channel, out } = &*args.a.cast::<Fresh>();
            let start = panel * W;
            let kernel = run.job.kernel_of(run.bases, group, start);
            let kernel = kernel.offset(channel as isize * run.job.kernel.leading[2]);
            run.job.pack::<I, W>(kernel, start, 1, out);
        }
    }
}

/// The sums of some entries of the batch, and where their outputs go.
struct Sums<'a> {
    plan: &'a Plan,
    job: &'a Job,
    batch: Range<usize>,
    tiles: *mut f32,
    out: *mut f32,
}

/// What a piece works on: of those sums, the terms of some input channels.
struct Call<'a> {
    sums: Sums<'a>,
    channels: Range<usize>,
    data: *const f32,
    kernel: *const f32,
    padded: *mut f32,
}

/// All tiles of a piece, and its outputs if they are whole sums.
struct Piece<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Piece<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call>() };
        let &Sums { plan, job, ref batch, tiles, .. } = &call.sums;
        let s = &job.sizes;
        let panels = Panels::of(batch.len() * product(s.outputs), plan.tile);
        for first in call.channels.clone().step_by(plan.pass) {
            let channels = first..call.channels.end.min(first + plan.pass);
            // SAFETY: there is room for every entry's channels.
            unsafe { I::call::<Copied>(&leading_to(&Pass { call, channels: channels.clone() })) };
            for column in 0..s.channels_out.div_ceil(W) {
                for panel in 0..panels.count() {
                    let (start, held) = (panels.start(panel), (column * panels.rows() + panels.start(panel)) * W);
                    // SAFETY: tiles have room.
                    unsafe {
                        if panels.is_tall(panel) {
                            tile::<I, W, T>(call, &channels, column, start, tiles.add(held));
                        } else {
                            tile::<I, W, L>(call, &channels, column, start, tiles.add(held));
                        }
                    }
                }
            }
        }
        if plan.n_sums == 1 {
            // SAFETY: the tiles are complete.
            unsafe { I::call::<Written<W>>(&leading_to(&call.sums)) };
        }
    }
}

/// Some input channels of a piece.
struct Pass<'a> {
    call: &'a Call<'a>,
    channels: Range<usize>,
}

/// Copies their data. A loop of its own, and so a function: beside it the compiler would find too few registers for the sums of tiles.
struct Copied;

impl Loop for Copied {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the channels behind `a`, and there is room for their data.
        unsafe {
            let Pass { call, channels } = &*args.a.cast::<Pass>();
            copy::<I>(call, channels);
        }
    }
}

/// Copy the data of some channels, with zeros around them.
///
/// # Safety
/// As for `conv::run`; there is room for them.
#[inline(always)]
unsafe fn copy<I: Isa>(call: &Call, channels: &Range<usize>) {
    let &Sums { plan, job, ref batch, .. } = &call.sums;
    let s = &job.sizes;
    let origin = s.low.map(|low| -low);
    let part = Part::new(&job.data, s.data, origin[2], plan.block[2]);
    let rows = origin[1]..origin[1] + plan.block[1] as i64;
    for (entry, b) in batch.clone().enumerate() {
        for (index, channel) in channels.clone().enumerate() {
            let at = b as isize * job.data.leading[0] + channel as isize * job.data.leading[2];
            for plane in 0..plan.block[0] {
                let to = (entry * plan.pass + index) * product(plan.block) + plane * plan.block[1] * plan.block[2];
                let (z, to) = (origin[0] + plane as i64, call.padded.wrapping_add(to));
                // SAFETY: the view was checked when the program was loaded; the rest is passed on to our caller.
                unsafe { part.copy::<I>(call.data.wrapping_offset(at), z, &rows, to, plan.block[2]) };
            }
        }
    }
}

/// The terms of some input channels of one tile, added to those of the channels before.
///
/// # Safety
/// The padded data are those of the channels, and `held` has room for a tile.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const R: usize>(
    call: &Call,
    channels: &Range<usize>,
    column: usize,
    start: usize,
    held: *mut f32,
) {
    let (plan, s) = (call.sums.plan, &call.sums.job.sizes);
    let taps = product(s.taps);
    let kernel = call.kernel.wrapping_add((column * s.channels_in + channels.start) * taps * W);
    let terms = channels.len() * taps;
    // SAFETY: passed on to our caller; there are as many places as terms, all inside the padded data, and places of idle rows too.
    unsafe {
        let starts = plan.starts.as_ptr().add(start);
        let rows = std::array::from_fn(|r| call.padded.wrapping_add(*starts.add(r) as usize).cast_const());
        let begun = channels.start > call.channels.start;
        let sums = if begun { load_sums::<I, R>(held, W) } else { no_sums::<I, R>() };
        let place = |t: usize| (*plan.places.get_unchecked(t) as isize, (t * W) as isize);
        let sums = accumulate::<I, R, true>(terms, rows, kernel, place, sums);
        store_sums::<I, R>(sums, R, held, W);
    }
}

/// The outputs of some entries, whose sums were computed in parts.
struct AddUp<const W: usize>;

impl<const W: usize> Loop for AddUp<W> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`; the tiles of all parts are complete and lie one after another.
        unsafe {
            let sums = &*args.a.cast::<Sums>();
            let n = sums.plan.tile_elements(sums.job);
            let total = std::slice::from_raw_parts_mut(sums.tiles, n);
            for other in 1..sums.plan.n_sums {
                let part = std::slice::from_raw_parts(sums.tiles.add(other * n), n);
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
            write::<I, W>(sums);
        }
    }
}

/// Writes the outputs of whole sums; a function for the same reason.
struct Written<const W: usize>;

impl<const W: usize> Loop for Written<W> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the sums behind `a`.
        unsafe { write::<I, W>(&*args.a.cast::<Sums>()) }
    }
}

/// Write the outputs of some entries of the batch.
///
/// # Safety
/// As for `conv::run`; the tiles are complete.
#[inline(always)]
unsafe fn write<I: Isa, const W: usize>(sums: &Sums) {
    let (job, s) = (sums.job, &sums.job.sizes);
    let outputs = product(s.outputs);
    let rows = Panels::of(sums.batch.len() * outputs, sums.plan.tile).rows();
    let channel_step = job.out.leading[2];
    // Eight by eight sums are turned at once where the outputs of a channel are neighbours.
    let turned = I::HAS_TRANSPOSE && channel_step > 0 && job.out.merged(s.outputs) == Some(1);
    let whole = if turned { outputs - outputs % 8 } else { 0 };
    let [_, n1, n2] = s.outputs;
    for (entry, b) in sums.batch.clone().enumerate() {
        let out = sums.out.wrapping_offset(b as isize * job.out.leading[0]);
        for channel in (0..s.channels_out).step_by(8) {
            let channels = 8.min(s.channels_out - channel);
            let tiles = sums.tiles.wrapping_add((channel / W * rows + entry * outputs) * W + channel % W).cast_const();
            let out = out.wrapping_offset(channel as isize * channel_step);
            let whole = if channels == 8 { whole } else { 0 };
            // SAFETY: passed on to our caller.
            unsafe {
                for index in (0..whole).step_by(8) {
                    I::transpose(tiles.add(index * W), W as isize, out.add(index), channel_step as usize);
                }
                for index in whole..outputs {
                    let y = [index / n2 / n1, index / n2 % n1, index % n2];
                    let place = (0..3).map(|axis| y[axis] as isize * job.out.spatial[axis]).sum::<isize>();
                    for r in 0..channels {
                        *out.offset(place + r as isize * channel_step) = *tiles.add(index * W + r);
                    }
                }
            }
        }
    }
}
