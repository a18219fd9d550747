//! Reductions as loops: an accumulator for each row or lane, and how a tile goes into it. Sums of f32 stay in f32 only
//! within blocks of 256 elements, then go into f64. The order of operations is fixed by the tile alone.

use super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use raphson_compile::program::ReduceOp;
use raphson_graph::dtype::DType;
use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Bytes that one accumulator may take.
pub const ACCUMULATOR_BYTES: usize = 16;

/// The most f32 numbers that are added up in f32.
const BLOCK: usize = 256;

/// The loops of one reduction.
#[derive(Clone, Copy)]
pub struct Reducer {
    /// `out[n]` accumulators of an empty set.
    pub begin: LoopFn,
    /// Accumulators `out[n]` take in a tile `a[n][m]`: one row each.
    pub rows: LoopFn,
    /// Accumulators `out[n]` take in a tile `a[m][n]`: one lane each.
    pub lanes: LoopFn,
    /// Results `out[n]` from accumulators `a[n]`.
    pub finish: LoopFn,
    /// Dtype of the results.
    pub result: DType,
}

/// How elements of type `T` combine.
trait Fold<T: Copy> {
    type Accumulator: Copy;
    type Out: Copy;
    /// The accumulator of an empty set.
    fn identity() -> Self::Accumulator;
    fn fold(accumulator: Self::Accumulator, x: T, position: usize) -> Self::Accumulator;
    /// Take in consecutive elements of which the first has this position.
    ///
    /// # Safety
    /// The machine must have the set.
    unsafe fn fold_row<I: Isa>(accumulator: Self::Accumulator, row: &[T], position: usize) -> Self::Accumulator;
    fn finish(accumulator: Self::Accumulator) -> Self::Out;
}

struct Begin<F, T>(PhantomData<(F, T)>);
struct Rows<F, T>(PhantomData<(F, T)>);
struct Lanes<F, T>(PhantomData<(F, T)>);
struct Finish<F, T>(PhantomData<(F, T)>);

impl<F: Fold<T>, T: Copy> Loop for Begin<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for room for `n` accumulators.
        let out = unsafe { from_raw_parts_mut(args.out.cast::<F::Accumulator>(), args.n) };
        out.fill(F::identity());
    }
}

impl<F: Fold<T>, T: Copy> Loop for Rows<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` accumulators and `n·m` elements.
        let (out, a) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Accumulator>(), args.n),
                from_raw_parts(args.a.cast::<T>(), args.n * args.m),
            )
        };
        if args.m > 0 {
            for (out, row) in out.iter_mut().zip(a.chunks_exact(args.m)) {
                // SAFETY: the caller vouches for the set.
                *out = unsafe { F::fold_row::<I>(*out, row, args.position) };
            }
        }
    }
}

impl<F: Fold<T>, T: Copy> Loop for Lanes<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` accumulators and `m·n` elements.
        let (out, a) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Accumulator>(), args.n),
                from_raw_parts(args.a.cast::<T>(), args.n * args.m),
            )
        };
        if args.n > 0 {
            for (row_index, row) in a.chunks_exact(args.n).enumerate() {
                for (out, &x) in out.iter_mut().zip(row) {
                    *out = F::fold(*out, x, args.position + row_index);
                }
            }
        }
    }
}

impl<F: Fold<T>, T: Copy> Loop for Finish<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` accumulators and room for `n` results.
        let (out, a) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Out>(), args.n),
                from_raw_parts(args.a.cast::<F::Accumulator>(), args.n),
            )
        };
        for (out, &accumulator) in out.iter_mut().zip(a) {
            *out = F::finish(accumulator);
        }
    }
}

/// Accumulators `out[n]` take in the products of tiles `a[n][m]` and `b[n][m]`: one row each.
struct Products<T>(PhantomData<T>);

/// `products!(type, set, function of a block)`: Σ a·b, by the rules of `Sum`.
macro_rules! products {
    ($t:ty, $isa:ident, $block:expr) => {
        impl Loop for Products<$t> {
            #[inline(always)]
            unsafe fn run<$isa: Isa>(args: &Args) {
                // SAFETY: the caller vouches for `n` accumulators and `n·m` elements behind either operand.
                let (out, a, b) = unsafe {
                    (
                        from_raw_parts_mut(args.out.cast::<f64>(), args.n),
                        from_raw_parts(args.a.cast::<$t>(), args.n * args.m),
                        from_raw_parts(args.b.cast::<$t>(), args.n * args.m),
                    )
                };
                if args.m == 0 {
                    return;
                }
                for ((out, a), b) in out.iter_mut().zip(a.chunks_exact(args.m)).zip(b.chunks_exact(args.m)) {
                    if args.m < 32 {
                        *out = a.iter().zip(b).fold(*out, |sum, (&a, &b)| sum + f64::from(a * b));
                        continue;
                    }
                    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
                        // SAFETY: the caller vouches for the set.
                        *out += f64::from(unsafe { $block(a, b) });
                    }
                }
            }
        }
    };
}
products!(f32, I, inner_vectors::<I>);
products!(f64, I, inner_f64::<I>);

/// Accumulators `out[n]` take in one element each of the tile `a[n][m]`: the one at the position `b[n]`, if it is in the tile.
struct Picks<T>(PhantomData<T>);

impl<T: Copy> Loop for Picks<T>
where
    Sum: Fold<T>,
{
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` accumulators, `n·m` elements and `n` positions.
        let (out, a, b) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<<Sum as Fold<T>>::Accumulator>(), args.n),
                from_raw_parts(args.a.cast::<T>(), args.n * args.m),
                from_raw_parts(args.b.cast::<i32>(), args.n),
            )
        };
        for (row, (out, &label)) in out.iter_mut().zip(b).enumerate() {
            if let Some(place) = args.place(label) {
                *out = Sum::fold(*out, a[row * args.m + place], place);
            }
        }
    }
}

/// Lanes of a row of f32.
const LANES: usize = 32;

/// Combine a row of f32 in [`LANES`] interleaved lanes, and then the lanes by halves.
///
/// # Safety
/// The machine must have the set.
#[inline(always)]
unsafe fn fold_vectors<I: Isa>(
    identity: f32,
    row: &[f32],
    take: impl Fn(I::Vector, I::Vector) -> I::Vector,
    merge: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (body, tail) = row.as_chunks::<LANES>();
    // SAFETY: the caller vouches for the set; chunks are [`LANES`] long.
    let lanes = unsafe {
        let mut held = [I::splat(identity); MOST_VECTORS];
        for chunk in body {
            for (v, held) in held.iter_mut().enumerate().take(LANES / I::LANES) {
                *held = take(*held, I::load(chunk.as_ptr().add(v * I::LANES)));
            }
        }
        lanes::<I>(&held)
    };
    if tail.is_empty() {
        return by_halves(lanes, merge);
    }
    // In lanes of its own: a loop over some of the others would keep all of them out of registers.
    let mut rest = [identity; LANES];
    rest.iter_mut().zip(tail).for_each(|(lane, &x)| *lane = x);
    by_halves::<_, LANES>(std::array::from_fn(|i| merge(lanes[i], rest[i])), merge)
}

/// Σ a·b in [`LANES`] interleaved lanes, and then the lanes by halves.
///
/// # Safety
/// The machine must have the set; both are of one length.
#[inline(always)]
unsafe fn inner_vectors<I: Isa>(a: &[f32], b: &[f32]) -> f32 {
    let ((body_a, tail_a), (body_b, tail_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    // SAFETY: the caller vouches for the set; chunks are [`LANES`] long.
    let lanes = unsafe {
        let mut held = [I::zeros(); MOST_VECTORS];
        for (a, b) in body_a.iter().zip(body_b) {
            for (v, held) in held.iter_mut().enumerate().take(LANES / I::LANES) {
                let at = v * I::LANES;
                *held = I::multiply_add(I::load(a.as_ptr().add(at)), I::load(b.as_ptr().add(at)), *held);
            }
        }
        lanes::<I>(&held)
    };
    if tail_a.is_empty() {
        return by_halves(lanes, |a, b| a + b);
    }
    let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
    a[..tail_a.len()].copy_from_slice(tail_a);
    b[..tail_b.len()].copy_from_slice(tail_b);
    by_halves::<_, LANES>(std::array::from_fn(|i| I::fma32(a[i], b[i], lanes[i])), |a, b| a + b)
}

/// The same for f64, in sixteen lanes that the compiler finds registers for.
///
/// # Safety
/// The machine must have the set; both are of one length.
#[inline(always)]
unsafe fn inner_f64<I: Isa>(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 16];
    let mut take = |a: &[f64; 16], b: &[f64; 16]| {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = I::fma64(a, b, *lane);
        }
    };
    let ((body_a, tail_a), (body_b, tail_b)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    body_a.iter().zip(body_b).for_each(|(a, b)| take(a, b));
    if !tail_a.is_empty() {
        // Filled up with zeros: a loop over some of the lanes would keep all of them out of registers.
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        a[..tail_a.len()].copy_from_slice(tail_a);
        b[..tail_b.len()].copy_from_slice(tail_b);
        take(&a, &b);
    }
    by_halves(lanes, |a, b| a + b)
}

/// Vectors that hold the lanes of a row, if one holds eight.
const MOST_VECTORS: usize = LANES / 8;

/// # Safety
/// The machine must have the set.
#[inline(always)]
unsafe fn lanes<I: Isa>(held: &[I::Vector; MOST_VECTORS]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (held, lanes) in held.iter().zip(lanes.chunks_exact_mut(I::LANES)) {
        // SAFETY: the caller vouches for the set.
        unsafe { I::store(*held, lanes.as_mut_ptr()) };
    }
    lanes
}

/// All lanes in one. Halving keeps it vectorised.
#[inline(always)]
fn by_halves<A: Copy, const L: usize>(mut lanes: [A; L], merge: impl Fn(A, A) -> A) -> A {
    let mut width = L / 2;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut().zip(&*high).for_each(|(low, &high)| *low = merge(*low, high));
        width /= 2;
    }
    lanes[0]
}

/// Combine a row in `L` interleaved lanes, which vectorise, and then the lanes in order.
#[inline(always)]
fn fold_interleaved<T: Copy, A: Copy, const L: usize>(
    identity: A,
    row: &[T],
    take: impl Fn(A, T) -> A,
    merge: impl Fn(A, A) -> A,
) -> A {
    if row.len() < L {
        return row.iter().fold(identity, |sum, &x| take(sum, x));
    }
    let mut lanes = [identity; L];
    let (body, tail) = row.as_chunks::<L>();
    for chunk in body {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = take(*lane, x);
        }
    }
    if !tail.is_empty() {
        // In lanes of its own: a loop over some of the others would keep all of them out of registers.
        let mut rest = [identity; L];
        rest.iter_mut().zip(tail).for_each(|(lane, &x)| *lane = take(*lane, x));
        lanes.iter_mut().zip(rest).for_each(|(lane, rest)| *lane = merge(*lane, rest));
    }
    by_halves(lanes, merge)
}

struct Sum;
struct Prod;
struct Max;
struct Min;
struct ArgMax;

impl Fold<f32> for Sum {
    type Accumulator = f64;
    type Out = f32;
    #[inline(always)]
    fn identity() -> f64 {
        0.0
    }
    #[inline(always)]
    fn fold(sum: f64, x: f32, _: usize) -> f64 {
        sum + f64::from(x)
    }
    #[inline(always)]
    unsafe fn fold_row<I: Isa>(sum: f64, row: &[f32], _: usize) -> f64 {
        if row.len() < LANES {
            return row.iter().fold(sum, |sum, &x| sum + f64::from(x));
        }
        // Not by `fold`, which would not be inlined into the loop of this instruction set.
        let mut sum = sum;
        for block in row.chunks(BLOCK) {
            // SAFETY: passed on to our caller.
            sum += f64::from(unsafe { fold_vectors::<I>(0.0, block, |s, x| I::add(s, x), |a, b| a + b) });
        }
        sum
    }
    #[inline(always)]
    fn finish(sum: f64) -> f32 {
        sum as f32
    }
}

/// `fold!(Op, type, accumulator, lanes, identity, |a, x| take, |a, b| merge, |a| finish -> type)`
macro_rules! fold {
    ($op:ident, $t:ty, $accumulator:ty, $lanes:literal, $identity:expr, $take:expr, $merge:expr, $finish:expr) => {
        impl Fold<$t> for $op {
            type Accumulator = $accumulator;
            type Out = $t;
            #[inline(always)]
            fn identity() -> $accumulator {
                $identity
            }
            #[inline(always)]
            fn fold(accumulator: $accumulator, x: $t, _: usize) -> $accumulator {
                let take: fn($accumulator, $t) -> $accumulator = $take;
                take(accumulator, x)
            }
            #[inline(always)]
            unsafe fn fold_row<I: Isa>(accumulator: $accumulator, row: &[$t], _: usize) -> $accumulator {
                let merge: fn($accumulator, $accumulator) -> $accumulator = $merge;
                merge(accumulator, fold_interleaved::<_, _, $lanes>($identity, row, $take, $merge))
            }
            #[inline(always)]
            fn finish(accumulator: $accumulator) -> $t {
                let finish: fn($accumulator) -> $t = $finish;
                finish(accumulator)
            }
        }
    };
}

fold!(Sum, f64, f64, 16, 0.0, |s, x| s + x, |a, b| a + b, |s| s);
fold!(Sum, i32, i32, 32, 0, |s, x| s.wrapping_add(x), |a, b| a.wrapping_add(b), |s| s);
fold!(Sum, u32, u32, 32, 0, |s, x| s.wrapping_add(x), |a, b| a.wrapping_add(b), |s| s);
fold!(Sum, i64, i64, 16, 0, |s, x| s.wrapping_add(x), |a, b| a.wrapping_add(b), |s| s);
fold!(Sum, u8, u8, 64, 0, |s, x| s | x, |a, b| a | b, |s| s);
fold!(Prod, f32, f64, 16, 1.0, |s, x| s * f64::from(x), |a, b| a * b, |s| s as f32);
fold!(Prod, f64, f64, 16, 1.0, |s, x| s * x, |a, b| a * b, |s| s);
fold!(Prod, i32, i32, 32, 1, |s, x| s.wrapping_mul(x), |a, b| a.wrapping_mul(b), |s| s);
fold!(Prod, u32, u32, 32, 1, |s, x| s.wrapping_mul(x), |a, b| a.wrapping_mul(b), |s| s);
fold!(Prod, i64, i64, 16, 1, |s, x| s.wrapping_mul(x), |a, b| a.wrapping_mul(b), |s| s);
fold!(Prod, u8, u8, 64, 1, |s, x| s & x, |a, b| a & b, |s| s);
fold!(Max, f64, f64, 16, f64::NEG_INFINITY, max_f64, max_f64, |s| s);
fold!(Max, i32, i32, 32, i32::MIN, |s, x| s.max(x), |a, b| a.max(b), |s| s);
fold!(Max, u32, u32, 32, 0, |s, x| s.max(x), |a, b| a.max(b), |s| s);
fold!(Max, i64, i64, 16, i64::MIN, |s, x| s.max(x), |a, b| a.max(b), |s| s);
fold!(Max, u8, u8, 64, 0, |s, x| s | x, |a, b| a | b, |s| s);
fold!(Min, f64, f64, 16, f64::INFINITY, min_f64, min_f64, |s| s);
fold!(Min, i32, i32, 32, i32::MAX, |s, x| s.min(x), |a, b| a.min(b), |s| s);
fold!(Min, u32, u32, 32, u32::MAX, |s, x| s.min(x), |a, b| a.min(b), |s| s);
fold!(Min, i64, i64, 16, i64::MAX, |s, x| s.min(x), |a, b| a.min(b), |s| s);
fold!(Min, u8, u8, 64, 1, |s, x| s & x, |a, b| a & b, |s| s);

/// `fold_extreme!(Op, identity, function of vectors, of numbers)`: of f32.
macro_rules! fold_extreme {
    ($op:ident, $identity:expr, $vectors:ident, $numbers:ident) => {
        impl Fold<f32> for $op {
            type Accumulator = f32;
            type Out = f32;
            #[inline(always)]
            fn identity() -> f32 {
                $identity
            }
            #[inline(always)]
            fn fold(extreme: f32, x: f32, _: usize) -> f32 {
                $numbers(extreme, x)
            }
            #[inline(always)]
            unsafe fn fold_row<I: Isa>(extreme: f32, row: &[f32], _: usize) -> f32 {
                if row.len() < LANES {
                    return row.iter().fold(extreme, |extreme, &x| $numbers(extreme, x));
                }
                // SAFETY: passed on to our caller.
                let of_row = unsafe { fold_vectors::<I>($identity, row, |a, b| I::$vectors(a, b), $numbers) };
                $numbers(extreme, of_row)
            }
            #[inline(always)]
            fn finish(extreme: f32) -> f32 {
                extreme
            }
        }
    };
}
fold_extreme!(Max, f32::NEG_INFINITY, max, max_f32);
fold_extreme!(Min, f32::INFINITY, min, min_f32);

/// `extreme!(name, type, >)`: the operand that compares so with the other; NaN if either is.
macro_rules! extreme {
    ($name:ident, $t:ty, $compare:tt) => {
        #[inline(always)]
        pub fn $name(a: $t, b: $t) -> $t {
            let chosen = if b $compare a { b } else { a };
            // Setting the bits of NaN instead of choosing NaN: two nested choices are not vectorised.
            let nan = if b.is_nan() { <$t>::NAN.to_bits() } else { 0 };
            <$t>::from_bits(chosen.to_bits() | nan)
        }
    };
}
extreme!(max_f32, f32, >);
extreme!(max_f64, f64, >);
extreme!(min_f32, f32, <);
extreme!(min_f64, f64, <);

/// The greatest element so far and its position, −1 before the first.
#[derive(Clone, Copy)]
struct Best<T> {
    value: T,
    position: i32,
}

macro_rules! fold_argmax {
    ($t:ty, $least:expr, $is_nan:expr) => {
        impl Fold<$t> for ArgMax {
            type Accumulator = Best<$t>;
            type Out = i32;
            #[inline(always)]
            fn identity() -> Best<$t> {
                Best { value: $least, position: -1 }
            }
            #[inline(always)]
            fn fold(best: Best<$t>, x: $t, position: usize) -> Best<$t> {
                let is_nan: fn($t) -> bool = $is_nan;
                let greater = (x > best.value) | (is_nan(x) & !is_nan(best.value)) | (best.position < 0);
                if greater { Best { value: x, position: position as i32 } } else { best }
            }
            /// The greatest value first, in lanes; then its first place, if it beats the best so far.
            #[inline(always)]
            unsafe fn fold_row<I: Isa>(best: Best<$t>, row: &[$t], position: usize) -> Best<$t> {
                let is_nan: fn($t) -> bool = $is_nan;
                // SAFETY: passed on to our caller.
                let greatest = unsafe { <Max as Fold<$t>>::fold_row::<I>(<Max as Fold<$t>>::identity(), row, 0) };
                let place = row.iter().position(|&x| x == greatest || (is_nan(greatest) && is_nan(x)));
                place.map_or(best, |place| Self::fold(best, greatest, position + place))
            }
            #[inline(always)]
            fn finish(best: Best<$t>) -> i32 {
                best.position.max(0)
            }
        }
    };
}
fold_argmax!(f32, f32::NEG_INFINITY, f32::is_nan);
fold_argmax!(f64, f64::NEG_INFINITY, f64::is_nan);
fold_argmax!(i32, i32::MIN, |_| false);
fold_argmax!(u32, 0, |_| false);
fold_argmax!(i64, i64::MIN, |_| false);
fold_argmax!(u8, 0, |_| false);

/// What accumulators of a sum take in without its being computed first.
#[derive(Clone, Copy)]
pub struct Absorbed {
    /// Rows of products.
    pub products: LoopFn,
    /// One element of each row.
    pub picks: LoopFn,
}

/// These loops, for elements that have them.
pub fn find_absorbed(level: Level, element: DType) -> Option<Absorbed> {
    fn find<I: Isa>(element: DType) -> Option<Absorbed> {
        match element {
            DType::F32 => Some(Absorbed { products: I::call::<Products<f32>>, picks: I::call::<Picks<f32>> }),
            DType::F64 => Some(Absorbed { products: I::call::<Products<f64>>, picks: I::call::<Picks<f64>> }),
            DType::I32 | DType::U32 | DType::I64 | DType::Bool | DType::F16 | DType::BF16 | DType::U8 => None,
        }
    }
    with_isa!(level, find(element))
}

/// The loops for `op` over elements of dtype `element`.
pub fn find(level: Level, op: ReduceOp, element: DType) -> Reducer {
    with_isa!(level, find_for(op, element))
}

fn reducer<I: Isa, F: Fold<T> + 'static, T: Copy + 'static>(result: DType) -> Reducer {
    const { assert!(size_of::<F::Accumulator>() <= ACCUMULATOR_BYTES) };
    Reducer {
        begin: I::call::<Begin<F, T>>,
        rows: I::call::<Rows<F, T>>,
        lanes: I::call::<Lanes<F, T>>,
        finish: I::call::<Finish<F, T>>,
        result,
    }
}

fn find_for<I: Isa>(op: ReduceOp, element: DType) -> Reducer {
    fn by_element<I: Isa, F>(element: DType, result: DType) -> Reducer
    where
        F: Fold<f32> + Fold<f64> + Fold<i32> + Fold<u32> + Fold<i64> + Fold<u8> + 'static,
    {
        match element {
            DType::F32 => reducer::<I, F, f32>(result),
            DType::F64 => reducer::<I, F, f64>(result),
            DType::I32 => reducer::<I, F, i32>(result),
            DType::U32 => reducer::<I, F, u32>(result),
            DType::I64 => reducer::<I, F, i64>(result),
            DType::Bool => reducer::<I, F, u8>(result),
            // A program with registers of a storage dtype was refused before.
            DType::F16 | DType::BF16 | DType::U8 => by_element::<I, F>(element.register(), result),
        }
    }
    match op {
        ReduceOp::Sum => by_element::<I, Sum>(element, element),
        ReduceOp::Prod => by_element::<I, Prod>(element, element),
        ReduceOp::Max => by_element::<I, Max>(element, element),
        ReduceOp::Min => by_element::<I, Min>(element, element),
        ReduceOp::ArgMax => by_element::<I, ArgMax>(element, DType::I32),
    }
}
