//! Convolutions as matrix products over blocks of unfolded data that stay in the second-level cache, each unfolded by
//! the thread that multiplies it. Many outputs (a forward pass, the gradient of the data) are cut into blocks of outputs; many
//! taps (the gradient of a kernel) into partial sums over blocks of taps. Few channels go to `direct`. Where tiles of f32 suit,
//! nothing is unfolded: `output_columns` and `channel_columns`. How work is cut depends on shapes alone, so results do not depend on the
//! number of threads.

mod channel_columns;
mod direct;
mod output_columns;
mod outputs;
mod padding;
mod taps;
mod unfold;

use super::dot::Multiply;
use super::isa::Level;
use super::memory::Workspace;
use super::panels::sets;
use super::pool::Team;
use super::row::Bases;
use raphson_compile::program::{Buffer, ConvKernel, ConvView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use std::ops::Range;
use unfold::{Side, Unfold};

/// Elements of an unfolded block: 256 KiB of f32, half of a second-level cache.
const BLOCK: usize = 1 << 16;
/// Multiply-adds that make a piece of work.
const PIECE: usize = 1 << 18;
/// The most pieces that one sum, or one lone block, is cut into.
const MOST_PIECES: usize = 16;
/// Up to so many output channels of a group, unfolding costs more than it saves.
const FEW_CHANNELS: usize = 2;

/// The sizes of a convolution, with three spatial axes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    groups: usize,
    channels_in: usize,
    channels_out: usize,
    data: [usize; 3],
    taps: [usize; 3],
    outputs: [usize; 3],
    stride: [i64; 3],
    dilation: [i64; 3],
    low: [i64; 3],
}

/// An operand's strides, with three spatial axes.
#[derive(Clone, Copy, Debug)]
struct Operand {
    buffer: usize,
    offset: isize,
    leading: [isize; 3],
    spatial: [isize; 3],
}

impl Operand {
    fn new(view: &ConvView) -> Operand {
        let mut spatial = [0; 3];
        let missing = 3 - view.spatial.len();
        view.spatial.iter().enumerate().for_each(|(axis, &stride)| spatial[missing + axis] = stride as isize);
        let leading = view.leading.map(|stride| stride as isize);
        Operand { buffer: view.buffer.0 as usize, offset: view.offset as isize, leading, spatial }
    }

    /// The stride under which the spatial axes are one, if there is such.
    fn merged(&self, sizes: [usize; 3]) -> Option<isize> {
        let mut merged: Option<(isize, usize)> = None;
        for axis in (0..3).rev().filter(|&axis| sizes[axis] != 1) {
            merged = match merged {
                None => Some((self.spatial[axis], sizes[axis])),
                Some((stride, n)) if self.spatial[axis] == stride * n as isize => Some((stride, n * sizes[axis])),
                Some(_) => return None,
            };
        }
        Some(merged.map_or(1, |(stride, _)| stride))
    }

    fn base<T>(&self, bases: &Bases) -> *mut T {
        bases.0[self.buffer].cast::<T>().wrapping_offset(self.offset)
    }
}

/// A convolution ready to run.
pub struct ConvPlan {
    dtype: DType,
    job: Job,
    way: Way,
    parallel: bool,
}

/// What all ways share.
struct Job {
    sizes: Sizes,
    data: Operand,
    kernel: Operand,
    out: Operand,
}

enum Way {
    Direct(direct::Plan),
    Outputs(outputs::Plan),
    Taps(taps::Plan),
    OutputColumns(output_columns::Plan),
    ChannelColumns(channel_columns::Plan),
}

impl ConvPlan {
    /// Bytes that each thread, and that all together need.
    pub fn scratch_bytes(&self) -> (usize, usize) {
        let (own, shared) = match &self.way {
            Way::Direct(plan) => plan.scratch(),
            Way::Outputs(plan) => plan.scratch(),
            Way::Taps(plan) => plan.scratch(),
            Way::OutputColumns(plan) => plan.scratch(&self.job),
            Way::ChannelColumns(plan) => plan.scratch(&self.job),
        };
        (own * self.dtype.size_bytes(), shared * self.dtype.size_bytes())
    }
}

/// Check a convolution and decide how it is cut.
pub fn lower(kernel: &ConvKernel, buffers: &[Buffer], level: Level) -> Result<ConvPlan> {
    check(kernel, buffers)?;
    let job = Job {
        sizes: sizes(kernel),
        data: Operand::new(&kernel.data),
        kernel: Operand::new(&kernel.kernel),
        out: Operand::new(&kernel.out),
    };
    let s = &job.sizes;
    let (outputs, taps) = (product(s.outputs), product(s.taps));
    let work = [s.batch, s.groups, s.channels_in, s.channels_out, outputs, taps]
        .iter()
        .fold(1usize, |work, &n| work.saturating_mul(n));
    let way = sets(kernel.dtype, level).iter().find_map(|&set| in_tiles(&job, set)).unwrap_or_else(|| {
        if s.channels_out <= FEW_CHANNELS {
            Way::Direct(direct::Plan::new(s, kernel.dtype, level))
        } else if outputs >= taps {
            Way::Outputs(outputs::Plan::new(&job))
        } else {
            Way::Taps(taps::Plan::new(&job))
        }
    });
    Ok(ConvPlan { dtype: kernel.dtype, job, way, parallel: work >= PIECE / 2 })
}

/// The tiles that cost less, if there are any for this convolution.
fn in_tiles(job: &Job, level: Level) -> Option<Way> {
    match (output_columns::Plan::new(job, level), channel_columns::Plan::new(job, level)) {
        (Some(outputs), Some(channels)) if channels.cost < outputs.cost => Some(Way::ChannelColumns(channels)),
        (Some(outputs), _) => Some(Way::OutputColumns(outputs)),
        (None, channels) => channels.map(Way::ChannelColumns),
    }
}

fn product(sizes: [usize; 3]) -> usize {
    sizes.iter().product()
}

fn sizes(kernel: &ConvKernel) -> Sizes {
    let missing = 3 - kernel.axes.len();
    let each = |of: fn(&raphson_compile::program::ConvAxis) -> i64, default: i64| {
        [0, 1, 2].map(|axis: usize| axis.checked_sub(missing).map_or(default, |axis| of(&kernel.axes[axis])))
    };
    let counts = |of: fn(&raphson_compile::program::ConvAxis) -> i64| each(of, 1).map(|n| n as usize);
    Sizes {
        batch: kernel.batch,
        groups: kernel.groups,
        channels_in: kernel.channels_in,
        channels_out: kernel.channels_out,
        data: counts(|axis| axis.size as i64),
        taps: counts(|axis| axis.taps as i64),
        outputs: counts(|axis| axis.outputs as i64),
        stride: each(|axis| axis.stride as i64, 1),
        dilation: each(|axis| axis.dilation as i64, 1),
        low: each(|axis| axis.low, 0),
    }
}

fn check(kernel: &ConvKernel, buffers: &[Buffer]) -> Result<()> {
    let bug = |message: String| Err(Error::internal("conv", message));
    let n_spatial = kernel.axes.len();
    let axes = &kernel.axes;
    if !(1..=3).contains(&n_spatial) || kernel.dtype == DType::Bool || kernel.dtype.is_storage() {
        return bug(format!("{n_spatial} spatial axes of {}", kernel.dtype));
    }
    if axes.iter().any(|axis| axis.stride == 0 || axis.dilation == 0 || axis.taps == 0) {
        return bug("an axis without steps or taps".into());
    }
    let (b, g, i, o) = (kernel.batch, kernel.groups, kernel.channels_in, kernel.channels_out);
    let sides = [
        (&kernel.data, [b, g, i], axes.iter().map(|axis| axis.size).collect::<Vec<_>>()),
        (&kernel.kernel, [g, o, i], axes.iter().map(|axis| axis.taps).collect()),
        (&kernel.out, [b, g, o], axes.iter().map(|axis| axis.outputs).collect()),
    ];
    for (view, leading, spatial) in sides {
        let Some(buffer) = buffers.get(view.buffer.0 as usize) else {
            return bug(format!("no buffer {}", view.buffer.0));
        };
        if buffer.dtype != kernel.dtype || view.spatial.len() != n_spatial {
            return bug("an operand has another dtype or rank than the kernel".into());
        }
        let sizes = leading.iter().chain(&spatial).copied();
        let strides = view.leading.iter().chain(&view.spatial).copied();
        if sizes.clone().any(|size| size == 0) {
            return bug("an axis is empty".into());
        }
        let (least, most) = sizes.zip(strides).fold((view.offset, view.offset), |(least, most), (size, stride)| {
            let reach = stride.saturating_mul(size as i64 - 1);
            (least.saturating_add(reach.min(0)), most.saturating_add(reach.max(0)))
        });
        if least < 0 || most as u64 >= buffer.elements as u64 {
            return bug(format!("a view reaches outside buffer {}", view.buffer.0));
        }
    }
    Ok(())
}

/// Run a convolution.
///
/// # Safety
/// As for `row::run`; the output overlaps neither operand.
pub unsafe fn run(plan: &ConvPlan, bases: &Bases, workspace: &Workspace, team: &Team) {
    // SAFETY: passed on to our caller.
    unsafe {
        match plan.dtype {
            DType::F32 => run_as::<f32>(plan, bases, workspace, team),
            DType::F64 => run_as::<f64>(plan, bases, workspace, team),
            DType::I32 => run_as::<i32>(plan, bases, workspace, team),
            DType::U32 => run_as::<u32>(plan, bases, workspace, team),
            DType::I64 => run_as::<i64>(plan, bases, workspace, team),
            // Refused when the program was loaded.
            DType::Bool | DType::F16 | DType::BF16 | DType::U8 => unreachable!("convolution of {}", plan.dtype),
        }
    }
}

/// # Safety
/// As for [`run`].
unsafe fn run_as<T: Multiply>(plan: &ConvPlan, bases: &Bases, workspace: &Workspace, team: &Team) {
    let job = Run { job: &plan.job, bases, workspace, parallel: plan.parallel };
    // SAFETY: passed on to our caller.
    unsafe {
        match &plan.way {
            Way::Direct(plan) => direct::run::<T>(plan, &job, team),
            Way::Outputs(plan) => outputs::run::<T>(plan, &job, team),
            Way::Taps(plan) => taps::run::<T>(plan, &job, team),
            // Both are f32's.
            Way::OutputColumns(plan) => output_columns::run(plan, &job, team),
            Way::ChannelColumns(plan) => channel_columns::run(plan, &job, team),
        }
    }
}

/// One run of a convolution.
struct Run<'a> {
    job: &'a Job,
    bases: &'a Bases,
    workspace: &'a Workspace,
    parallel: bool,
}

impl Run<'_> {
    /// `body(thread, chunk)` for every chunk, on one thread where waking others would not pay.
    fn chunks(&self, team: &Team, n: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        if self.parallel {
            team.run(n, body);
        } else {
            (0..n).for_each(|chunk| body(0, chunk));
        }
    }

    /// The same for what comes before the work itself.
    fn prepare(&self, team: &Team, n: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        if self.parallel {
            team.prepare(n, body);
        } else {
            (0..n).for_each(|chunk| body(0, chunk));
        }
    }
}

impl Job {
    /// The sides of the unfolded data: taps (with the input channels) and outputs (with the batch).
    fn sides(&self) -> (Side, Side) {
        let s = &self.sizes;
        let taps = Side { leading_stride: self.data.leading[2], sizes: s.taps, steps: s.dilation };
        let outputs = Side { leading_stride: self.data.leading[0], sizes: s.outputs, steps: s.stride };
        (taps, outputs)
    }

    fn unfold(&self, rows: Side, columns: Side) -> Unfold {
        Unfold { sizes: self.sizes.data, strides: self.data.spatial, low: self.sizes.low, rows, columns }
    }

    /// The kernel as a matrix: a row for each output channel, a column for each channel and tap.
    fn kernel_matrix(&self) -> Unfold {
        let s = &self.sizes;
        let rows = Side { leading_stride: self.kernel.leading[1], sizes: [1; 3], steps: [1; 3] };
        let columns = Side { leading_stride: self.kernel.leading[2], sizes: s.taps, steps: [1; 3] };
        Unfold { sizes: s.taps, strides: self.kernel.spatial, low: [0; 3], rows, columns }
    }
}

/// Part `index` of `0..n` cut into pieces of `size`.
fn piece(n: usize, size: usize, index: usize) -> Range<usize> {
    index * size..n.min((index + 1) * size)
}
