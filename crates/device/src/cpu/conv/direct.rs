//! Few output channels (depthwise convolutions above all): no matrix product to speak of, so outputs are summed where
//! they are. Many outputs: rows of outputs collect every tap's product. Many taps: each output is an inner product over rows of
//! taps.

use super::super::dot::Multiply;
use super::super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use super::super::pool::Team;
use super::{Job, PIECE, Run, Sizes, piece, product};
use raphson_graph::dtype::DType;
use std::marker::PhantomData;
use std::ops::Range;

/// Partial sums of an inner product, so that it can use vectors.
const LANES: usize = 16;

/// How the work is cut.
pub struct Plan {
    /// An item is a plane of outputs, or one output.
    n_items: usize,
    items_per_chunk: usize,
    /// Elements of a row of outputs, where rows are collected.
    row: usize,
    run: LoopFn,
}

impl Plan {
    pub fn new(s: &Sizes, dtype: DType, level: Level) -> Plan {
        let (outputs, taps) = (product(s.outputs), product(s.taps));
        let planes = outputs >= taps;
        let lone = if planes { 1 } else { outputs };
        let n_items = s.batch * s.groups * s.channels_out * lone;
        let work = s.channels_in * taps * outputs / lone;
        let items_per_chunk = (PIECE / 4 / work.max(1)).clamp(1, n_items);
        let row = if planes { s.outputs[2] } else { 0 };
        Plan { n_items, items_per_chunk, row, run: with_isa!(level, find(dtype, planes)) }
    }

    pub fn scratch(&self) -> (usize, usize) {
        (self.row, 0)
    }
}

fn find<I: Isa>(dtype: DType, planes: bool) -> LoopFn {
    match (dtype, planes) {
        (DType::F32, true) => I::call::<Planes<f32>>,
        (DType::F32, false) => I::call::<Products<f32>>,
        (DType::F64, true) => I::call::<Planes<f64>>,
        (DType::F64, false) => I::call::<Products<f64>>,
        (DType::I32, true) => I::call::<Planes<i32>>,
        (DType::I32, false) => I::call::<Products<i32>>,
        (DType::I64, true) => I::call::<Planes<i64>>,
        (DType::I64, false) => I::call::<Products<i64>>,
        // Bool and storage dtypes are refused when the program is loaded.
        (DType::U32 | DType::Bool | DType::F16 | DType::BF16 | DType::U8, true) => I::call::<Planes<u32>>,
        (DType::U32 | DType::Bool | DType::F16 | DType::BF16 | DType::U8, false) => I::call::<Products<u32>>,
    }
}

/// What a loop works on; the loop's argument `a` leads here.
struct Call<'a, T> {
    job: &'a Job,
    items: Range<usize>,
    data: *const T,
    kernel: *const T,
    out: *mut T,
    row: *mut T,
}

/// # Safety
/// As for `conv::run`.
pub unsafe fn run<T: Multiply>(plan: &Plan, run: &Run, team: &Team) {
    let body = |thread: usize, chunk: usize| {
        let call = Call {
            job: run.job,
            items: piece(plan.n_items, plan.items_per_chunk, chunk),
            data: run.job.data.base::<T>(run.bases),
            kernel: run.job.kernel.base::<T>(run.bases),
            out: run.job.out.base::<T>(run.bases),
            row: run.workspace.own::<T>(thread),
        };
        let a = (&raw const call).cast::<u8>();
        let args = Args { n: 0, m: 0, out: std::ptr::null_mut(), a, b: a, c: a, d: a, single: 0, position: 0 };
        // SAFETY: the loop was chosen for `T` and for this machine. It finds the call behind `a`: addresses of views that
        // were checked when the program was loaded. Items write disjoint outputs.
        unsafe { (plan.run)(&args) };
    };
    run.chunks(team, plan.n_items.div_ceil(plan.items_per_chunk), &body);
}

/// Indices of an item, by the sizes of its axes.
fn split<const N: usize>(mut item: usize, sizes: [usize; N]) -> [usize; N] {
    let mut index = [0; N];
    for axis in (0..N).rev() {
        index[axis] = item % sizes[axis];
        item /= sizes[axis];
    }
    index
}

/// Steps of `0..n` at which `origin + i·step` is in `0..size`.
fn inside(origin: i64, step: i64, n: usize, size: usize) -> Range<usize> {
    let up = |x: i64| if x <= 0 { 0 } else { (x + step - 1) / step };
    let (first, end) = (up(-origin).min(n as i64), up(size as i64 - origin).min(n as i64));
    first as usize..end.max(first) as usize
}

/// Planes of outputs, row by row.
struct Planes<T>(PhantomData<T>);

impl<T: Multiply> Loop for Planes<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call<T>>() };
        let (job, s) = (call.job, &call.job.sizes);
        for item in call.items.clone() {
            let [b, g, o] = split(item, [s.batch, s.groups, s.channels_out]).map(|index| index as isize);
            let l = &job.data.leading;
            let data = call.data.wrapping_offset(b * l[0] + g * l[1]);
            let kernel = call.kernel.wrapping_offset(g * job.kernel.leading[0] + o * job.kernel.leading[1]);
            let l = &job.out.leading;
            let out = call.out.wrapping_offset(b * l[0] + g * l[1] + o * l[2]);
            for plane in 0..s.outputs[0] {
                for row in 0..s.outputs[1] {
                    // SAFETY: passed on to our caller.
                    unsafe {
                        let sums = std::slice::from_raw_parts_mut(call.row, s.outputs[2]);
                        collect::<T>(job, data, kernel, [plane, row], sums);
                        let [z, y, step] = job.out.spatial;
                        let out = out.wrapping_offset(plane as isize * z + row as isize * y);
                        for (i, &sum) in sums.iter().enumerate() {
                            *out.offset(i as isize * step) = sum;
                        }
                    }
                }
            }
        }
    }
}

/// One row of outputs: the sum over channels and taps.
///
/// # Safety
/// As for `conv::run`; data and kernel are those of the row's batch entry, group and channel.
#[inline(always)]
unsafe fn collect<T: Multiply>(job: &Job, data: *const T, kernel: *const T, row: [usize; 2], sums: &mut [T]) {
    let s = &job.sizes;
    let step = s.stride[2] as isize * job.data.spatial[2];
    sums.fill(T::ZERO);
    for tap in 0..s.channels_in * product(s.taps) {
        let [channel, t0, t1, t2] = split(tap, [s.channels_in, s.taps[0], s.taps[1], s.taps[2]]);
        let t = [t0, t1, t2];
        let x = [0, 1].map(|a| row[a] as i64 * s.stride[a] + t[a] as i64 * s.dilation[a] - s.low[a]);
        if (0..2).any(|a| x[a] < 0 || x[a] >= s.data[a] as i64) {
            continue;
        }
        let origin = t2 as i64 * s.dilation[2] - s.low[2];
        let meets = inside(origin, s.stride[2], sums.len(), s.data[2]);
        let at = channel as isize * job.data.leading[2]
            + x[0] as isize * job.data.spatial[0]
            + x[1] as isize * job.data.spatial[1]
            + origin as isize * job.data.spatial[2]
            + meets.start as isize * step;
        let weight = channel as isize * job.kernel.leading[2]
            + (0..3).map(|a| t[a] as isize * job.kernel.spatial[a]).sum::<isize>();
        let source = data.wrapping_offset(at);
        // SAFETY: `meets` are the outputs whose elements are inside the data.
        unsafe {
            let weight = *kernel.offset(weight);
            let sums = &mut sums[meets];
            if step == 1 {
                let source = std::slice::from_raw_parts(source, sums.len());
                sums.iter_mut().zip(source).for_each(|(sum, &x)| *sum = sum.add_product(weight, x));
            } else {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.add_product(weight, *source.offset(i as isize * step));
                }
            }
        }
    }
}

/// Single outputs, as inner products.
struct Products<T>(PhantomData<T>);

impl<T: Multiply> Loop for Products<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call<T>>() };
        let (job, s) = (call.job, &call.job.sizes);
        for item in call.items.clone() {
            let [b, g, o, y0, y1, y2] =
                split(item, [s.batch, s.groups, s.channels_out, s.outputs[0], s.outputs[1], s.outputs[2]]);
            let y = [y0, y1, y2];
            let [b, g, o] = [b, g, o].map(|index| index as isize);
            let l = &job.data.leading;
            let data = call.data.wrapping_offset(b * l[0] + g * l[1]);
            let kernel = call.kernel.wrapping_offset(g * job.kernel.leading[0] + o * job.kernel.leading[1]);
            let l = &job.out.leading;
            let at = b * l[0] + g * l[1] + o * l[2] + (0..3).map(|a| y[a] as isize * job.out.spatial[a]).sum::<isize>();
            // SAFETY: passed on to our caller.
            unsafe { *call.out.wrapping_offset(at) = inner_product::<T>(job, data, kernel, y) };
        }
    }
}

/// The sum over channels and taps for one output.
///
/// # Safety
/// As for `conv::run`; data and kernel are those of the output's batch entry, group and channel.
#[inline(always)]
unsafe fn inner_product<T: Multiply>(job: &Job, data: *const T, kernel: *const T, y: [usize; 3]) -> T {
    let s = &job.sizes;
    let origin: [i64; 3] = [0, 1, 2].map(|a| y[a] as i64 * s.stride[a] - s.low[a]);
    let meets = [0, 1, 2].map(|a| inside(origin[a], s.dilation[a], s.taps[a], s.data[a]));
    let steps = [0, 1, 2].map(|a| s.dilation[a] as isize * job.data.spatial[a]);
    let start: isize = (0..3).map(|a| origin[a] as isize * job.data.spatial[a]).sum();
    let mut lanes = [T::ZERO; LANES];
    for channel in 0..s.channels_in as isize {
        for t0 in meets[0].clone() {
            for t1 in meets[1].clone() {
                let (t0, t1, t2) = (t0 as isize, t1 as isize, meets[2].start as isize);
                let x = channel * job.data.leading[2] + start + t0 * steps[0] + t1 * steps[1] + t2 * steps[2];
                let k = channel * job.kernel.leading[2]
                    + t0 * job.kernel.spatial[0]
                    + t1 * job.kernel.spatial[1]
                    + t2 * job.kernel.spatial[2];
                let (x, k) = (data.wrapping_offset(x), kernel.wrapping_offset(k));
                let n = meets[2].len();
                // SAFETY: `meets` are the taps whose elements are inside the data.
                unsafe { multiply_rows(&mut lanes, (x, steps[2]), (k, job.kernel.spatial[2]), n) };
            }
        }
    }
    lanes.iter().fold(T::ZERO, |sum, &lane| sum.plus(lane))
}

/// lanes[i mod LANES] += x[i]·k[i]
///
/// # Safety
/// `n` elements may be read from each pointer with its step.
#[inline(always)]
unsafe fn multiply_rows<T: Multiply>(
    lanes: &mut [T; LANES],
    (x, x_step): (*const T, isize),
    (k, k_step): (*const T, isize),
    n: usize,
) {
    if x_step == 1 && k_step == 1 {
        // SAFETY: passed on to our caller.
        let (x, k) = unsafe { (std::slice::from_raw_parts(x, n), std::slice::from_raw_parts(k, n)) };
        let ((x, x_rest), (k, k_rest)) = (x.as_chunks::<LANES>(), k.as_chunks::<LANES>());
        for (x, k) in x.iter().zip(k) {
            for lane in 0..LANES {
                lanes[lane] = lanes[lane].add_product(x[lane], k[lane]);
            }
        }
        for (lane, (&x, &k)) in lanes.iter_mut().zip(x_rest.iter().zip(k_rest)) {
            *lane = lane.add_product(x, k);
        }
    } else {
        for i in 0..n {
            // SAFETY: passed on to our caller.
            let (x, k) = unsafe { (*x.offset(i as isize * x_step), *k.offset(i as isize * k_step)) };
            lanes[i % LANES] = lanes[i % LANES].add_product(x, k);
        }
    }
}
