//! Many outputs: kernel matrix [out, in·taps] times unfolded data [in·taps, outputs], in blocks of outputs.

use super::super::dot::{Multiply, Strip};
use super::super::pool::Team;
use super::{BLOCK, Job, MOST_PIECES, PIECE, Run, piece, product};

/// Outputs of a block at least, unless there are fewer: below this a product runs slower.
const LEAST_COLUMNS: usize = 96;
/// Blocks are a multiple of so many outputs, so that micro-kernels run full.
const GRAIN: usize = 16;

/// How the work is cut.
pub struct Plan {
    /// Images that share a block (then `width` is an image's), or 1.
    images: usize,
    /// Outputs of a block within each of its images.
    width: usize,
    /// Output channels of a piece.
    height: usize,
    blocks_per_image: usize,
    n_blocks: usize,
    blocks_per_chunk: usize,
    n_parts: usize,
    /// Whether the kernel is a matrix as it lies.
    matrix: bool,
    /// Whether an image's outputs lie one after another.
    direct_store: bool,
    /// Whether an image's data is the unfolded data as it lies.
    direct_load: bool,
    k: usize,
    scratch: (usize, usize),
}

impl Plan {
    pub fn new(job: &Job) -> Plan {
        let s = &job.sizes;
        let (p, k) = (product(s.outputs), s.channels_in * product(s.taps));
        // Whole images where they are small; parts of one, evened out, where they are large.
        let images = (2 * LEAST_COLUMNS / p).clamp(1, (BLOCK / (k * p)).max(1)).min(s.batch);
        let most = (BLOCK / k).max(LEAST_COLUMNS);
        let width = if p <= most { p } else { p.div_ceil(p.div_ceil(most)).next_multiple_of(GRAIN).min(p) };
        let blocks_per_image = p.div_ceil(width);
        let n_blocks = s.batch.div_ceil(images) * blocks_per_image;
        let block_work = images * width * k * s.channels_out;
        // Too few blocks for many threads: cut the output channels too.
        let few = n_blocks * s.groups < MOST_PIECES / 2;
        let wanted = if few { (MOST_PIECES / 2).div_ceil(n_blocks * s.groups).min(block_work / PIECE) } else { 1 };
        let height = s.channels_out.div_ceil(wanted.max(1)).next_multiple_of(GRAIN).min(s.channels_out);
        let n_parts = s.channels_out.div_ceil(height);
        let blocks_per_chunk = (PIECE / block_work.max(1)).clamp(1, n_blocks);
        let taps_stride = job.kernel.merged(s.taps);
        let matrix =
            taps_stride == Some(1) && (s.channels_in == 1 || job.kernel.leading[2] == product(s.taps) as isize);
        let direct_store = images == 1 && job.out.merged(s.outputs) == Some(1);
        let plain = s.low == [0; 3] && s.stride == [1; 3] && s.taps == [1; 3] && s.outputs == s.data;
        let direct_load = images == 1 && plain && job.data.merged(s.data) == Some(1);
        let own =
            if direct_load { 0 } else { images * width * k } + if direct_store { 0 } else { images * width * height };
        let shared = if matrix { 0 } else { s.groups * s.channels_out * k };
        Plan {
            images,
            width,
            height,
            blocks_per_image,
            n_blocks,
            blocks_per_chunk,
            n_parts,
            matrix,
            direct_store,
            direct_load,
            k,
            scratch: (own, shared),
        }
    }

    pub fn scratch(&self) -> (usize, usize) {
        self.scratch
    }
}

/// # Safety
/// As for `conv::run`.
pub unsafe fn run<T: Multiply>(plan: &Plan, run: &Run, team: &Team) {
    let s = &run.job.sizes;
    if !plan.matrix {
        let matrix = run.job.kernel_matrix();
        let body = |_: usize, group: usize| {
            let kernel = run.job.kernel.base::<T>(run.bases);
            let from = kernel.wrapping_offset(group as isize * run.job.kernel.leading[0]);
            let to = run.workspace.shared::<T>().wrapping_add(group * s.channels_out * plan.k);
            // SAFETY: the kernel was checked when the program was loaded; each group has its own part of the workspace.
            unsafe { matrix.pack(from, 0..s.channels_out, 0..plan.k, to) };
        };
        run.prepare(team, s.groups, &body);
    }
    let chunks = plan.n_blocks.div_ceil(plan.blocks_per_chunk);
    let body = |thread: usize, chunk: usize| {
        let (group, rest) = (chunk / (chunks * plan.n_parts), chunk % (chunks * plan.n_parts));
        let (part, chunk) = (rest / chunks, rest % chunks);
        for block in piece(plan.n_blocks, plan.blocks_per_chunk, chunk) {
            // SAFETY: passed on to our caller; blocks write disjoint outputs.
            unsafe { multiply::<T>(plan, run, thread, group, part, block) };
        }
    };
    run.chunks(team, s.groups * plan.n_parts * chunks, &body);
}

/// One block of outputs of one group, for some of its output channels.
///
/// # Safety
/// As for `conv::run`.
unsafe fn multiply<T: Multiply>(plan: &Plan, run: &Run, thread: usize, group: usize, part: usize, block: usize) {
    let (job, s, k) = (run.job, &run.job.sizes, plan.k);
    let p = product(s.outputs);
    let (image, first) = (block / plan.blocks_per_image * plan.images, block % plan.blocks_per_image * plan.width);
    let images = plan.images.min(s.batch - image);
    let width = plan.width.min(p - first);
    let columns = images * width;
    let channels = piece(s.channels_out, plan.height, part);
    let own = run.workspace.own::<T>(thread);
    let data = job.data.base::<T>(run.bases).wrapping_offset(group as isize * job.data.leading[1]);
    let (right, right_rows) = if plan.direct_load {
        let at = image as isize * job.data.leading[0] + first as isize;
        (data.wrapping_offset(at), job.data.leading[2])
    } else {
        let (taps, outputs) = job.sides();
        let start = image * p + first;
        // SAFETY: the views were checked when the program was loaded, and the workspace has room for a block.
        unsafe { job.unfold(taps, outputs).pack(data, 0..k, start..start + columns, own) };
        (own, columns as isize)
    };
    let (left, left_rows) = if plan.matrix {
        let at = group as isize * job.kernel.leading[0] + channels.start as isize * job.kernel.leading[1];
        (job.kernel.base::<T>(run.bases).wrapping_offset(at), job.kernel.leading[1])
    } else {
        let at = (group * s.channels_out + channels.start) * k;
        (run.workspace.shared::<T>().wrapping_add(at), k as isize)
    };
    let at = group as isize * job.out.leading[1]
        + image as isize * job.out.leading[0]
        + channels.start as isize * job.out.leading[2];
    let target = job.out.base::<T>(run.bases).wrapping_offset(at);
    let loaded = if plan.direct_load { 0 } else { plan.images * plan.width * k };
    let (out, out_rows) = if plan.direct_store {
        (target.wrapping_add(first), job.out.leading[2])
    } else {
        (own.wrapping_add(loaded), columns as isize)
    };
    let strip = Strip {
        m: channels.len(),
        n: columns,
        k,
        out,
        out_rows,
        accumulate: false,
        left,
        left_rows,
        left_columns: 1,
        right,
        right_rows,
        right_columns: 1,
    };
    // SAFETY: the addresses are those of checked views, or of the workspace, which has room for them.
    unsafe { T::multiply(&strip) };
    if !plan.direct_store {
        for image in 0..images {
            for channel in 0..channels.len() {
                let from = out.wrapping_add(channel * columns + image * width);
                let to =
                    target.wrapping_offset(image as isize * job.out.leading[0] + channel as isize * job.out.leading[2]);
                // SAFETY: as above.
                unsafe { scatter(from, to, s.outputs, job.out.spatial, first, width) };
            }
        }
    }
}

/// Write `n` outputs of an image, from number `first` on, to where they belong.
///
/// # Safety
/// `from` holds `n` elements; the outputs lie at `to` with these strides.
unsafe fn scatter<T: Copy>(from: *const T, to: *mut T, sizes: [usize; 3], strides: [isize; 3], first: usize, n: usize) {
    let (mut done, mut at) = (0, first);
    while done < n {
        let inner = at % sizes[2];
        let length = (sizes[2] - inner).min(n - done);
        let (row, plane) = (at / sizes[2] % sizes[1], at / sizes[2] / sizes[1]);
        let start = to.wrapping_offset(plane as isize * strides[0] + row as isize * strides[1]);
        for i in 0..length {
            // SAFETY: passed on to our caller.
            unsafe { *start.wrapping_offset((inner + i) as isize * strides[2]) = *from.add(done + i) };
        }
        (done, at) = (done + length, at + length);
    }
}
