//! Many taps and few outputs, as in the gradient of a kernel: kernel matrix [out, in·taps] times the transpose of
//! unfolded data [outputs, in·taps]. The sum is long, so it is cut into partial sums, which are added up at the end.

use super::super::dot::{Multiply, Strip};
use super::super::pool::Team;
use super::{BLOCK, Job, MOST_PIECES, PIECE, Run, piece, product};

/// Outputs of a block at most.
const MOST_ROWS: usize = 512;
/// Taps of a block at least, unless there are fewer.
const LEAST_COLUMNS: usize = 128;
/// Blocks are a multiple of so many taps.
const GRAIN: usize = 16;
/// Elements of the result that one piece adds up.
const ADDED: usize = 1 << 12;

/// How the work is cut.
pub struct Plan {
    /// Outputs (with the batch) of a block, and how many such parts there are.
    height: usize,
    n_parts: usize,
    /// Channels that share a block (then `width` is all their taps), or 1.
    channels: usize,
    width: usize,
    blocks_per_channel: usize,
    n_blocks: usize,
    /// Partial sums.
    n_sums: usize,
    /// The stride of the taps of one channel, if a block of the kernel is a matrix as it lies.
    taps_stride: Option<isize>,
    rows: usize,
    scratch: (usize, usize),
}

impl Plan {
    pub fn new(job: &Job) -> Plan {
        let s = &job.sizes;
        let (taps, rows) = (product(s.taps), s.batch * product(s.outputs));
        let height = rows.div_ceil(rows.div_ceil(MOST_ROWS));
        let n_parts = rows.div_ceil(height);
        let most = (BLOCK / height).max(LEAST_COLUMNS);
        let channels = (most / taps).clamp(1, s.channels_in);
        let width =
            if taps <= most { taps } else { taps.div_ceil(taps.div_ceil(most)).next_multiple_of(GRAIN).min(taps) };
        let blocks_per_channel = taps.div_ceil(width);
        let n_blocks = s.channels_in.div_ceil(channels) * blocks_per_channel;
        let work = rows * taps * s.channels_in * s.channels_out * s.groups;
        let n_sums = (work / PIECE).min(MOST_PIECES).div_ceil(s.groups * n_parts).clamp(1, n_blocks);
        let taps_stride = if channels == 1 { job.kernel.merged(s.taps) } else { None };
        let block = channels * width;
        let own = block * height + if taps_stride.is_some() { 0 } else { block * s.channels_out };
        let shared = s.groups * n_sums * s.channels_out * rows;
        let scratch = (own, shared);
        Plan { height, n_parts, channels, width, blocks_per_channel, n_blocks, n_sums, taps_stride, rows, scratch }
    }

    pub fn scratch(&self) -> (usize, usize) {
        self.scratch
    }
}

/// # Safety
/// As for `conv::run`.
pub unsafe fn run<T: Multiply>(plan: &Plan, run: &Run, team: &Team) {
    let s = &run.job.sizes;
    let body = |thread: usize, chunk: usize| {
        let (group, rest) = (chunk / (plan.n_parts * plan.n_sums), chunk % (plan.n_parts * plan.n_sums));
        // SAFETY: passed on to our caller; each chunk has its own part of the partial sums.
        unsafe { partial_sum::<T>(plan, run, thread, group, rest / plan.n_sums, rest % plan.n_sums) };
    };
    run.chunks(team, s.groups * plan.n_parts * plan.n_sums, &body);
    let n = s.groups * s.channels_out * plan.rows;
    let body = |_: usize, chunk: usize| {
        for index in piece(n, ADDED, chunk) {
            // SAFETY: the partial sums are complete; each output is written once.
            unsafe { add_up::<T>(plan, run, index) };
        }
    };
    run.chunks(team, n.div_ceil(ADDED), &body);
}

/// Some blocks of taps, for some outputs of one group.
///
/// # Safety
/// As for `conv::run`.
unsafe fn partial_sum<T: Multiply>(plan: &Plan, run: &Run, thread: usize, group: usize, part: usize, sum: usize) {
    let (job, s) = (run.job, &run.job.sizes);
    let taps = product(s.taps);
    let rows = piece(plan.rows, plan.height, part);
    let own = run.workspace.own::<T>(thread);
    let sums = run.workspace.shared::<T>();
    let out = sums.wrapping_add((group * plan.n_sums + sum) * s.channels_out * plan.rows + rows.start);
    let data = job.data.base::<T>(run.bases).wrapping_offset(group as isize * job.data.leading[1]);
    let kernel = job.kernel.base::<T>(run.bases).wrapping_offset(group as isize * job.kernel.leading[0]);
    let (side_taps, side_outputs) = job.sides();
    let unfold = job.unfold(side_outputs, side_taps);
    let blocks = plan.n_blocks * sum / plan.n_sums..plan.n_blocks * (sum + 1) / plan.n_sums;
    let begin = blocks.start;
    for block in blocks {
        let channel = block / plan.blocks_per_channel * plan.channels;
        let first = block % plan.blocks_per_channel * plan.width;
        let columns = plan.channels.min(s.channels_in - channel) * plan.width.min(taps - first);
        let start = channel * taps + first;
        // SAFETY: the views were checked when the program was loaded, and the workspace has room for a block.
        unsafe { unfold.pack(data, rows.clone(), start..start + columns, own) };
        let (left, left_rows, left_columns) = match plan.taps_stride {
            Some(stride) => {
                let at = channel as isize * job.kernel.leading[2] + first as isize * stride;
                (kernel.wrapping_offset(at), job.kernel.leading[1], stride)
            }
            None => {
                let packed = own.wrapping_add(plan.channels * plan.width * plan.height);
                // SAFETY: as above.
                unsafe { job.kernel_matrix().pack(kernel, 0..s.channels_out, start..start + columns, packed) };
                (packed, columns as isize, 1)
            }
        };
        let strip = Strip {
            m: s.channels_out,
            n: rows.len(),
            k: columns,
            out,
            out_rows: plan.rows as isize,
            accumulate: block > begin,
            left: left.cast_const(),
            left_rows,
            left_columns,
            right: own.cast_const(),
            right_rows: 1,
            right_columns: columns as isize,
        };
        // SAFETY: the addresses are those of checked views, or of the workspace, which has room for them.
        unsafe { T::multiply(&strip) };
    }
}

/// One element of the result, counted as [groups, channels out, batch, outputs…].
///
/// # Safety
/// As for `conv::run`.
unsafe fn add_up<T: Multiply>(plan: &Plan, run: &Run, index: usize) {
    let (job, s) = (run.job, &run.job.sizes);
    let matrix = s.channels_out * plan.rows;
    let (group, within) = (index / matrix, index % matrix);
    let sums = run.workspace.shared::<T>();
    let mut total = T::ZERO;
    for sum in 0..plan.n_sums {
        // SAFETY: the workspace holds this many partial sums.
        total = total.plus(unsafe { *sums.add((group * plan.n_sums + sum) * matrix + within) });
    }
    let (channel, row) = (within / plan.rows, within % plan.rows);
    let p = product(s.outputs);
    let (batch, y) = (row / p, row % p);
    let [_, b, c] = s.outputs;
    let y = [y / c / b, y / c % b, y % c];
    let at = batch as isize * job.out.leading[0]
        + group as isize * job.out.leading[1]
        + channel as isize * job.out.leading[2]
        + (0..3).map(|axis| y[axis] as isize * job.out.spatial[axis]).sum::<isize>();
    // SAFETY: the output was checked when the program was loaded.
    unsafe { *job.out.base::<T>(run.bases).offset(at) = total };
}
