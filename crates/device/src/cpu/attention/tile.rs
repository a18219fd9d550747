//! What happens to a tile of scores between the matrix products: scores become weights, with the running maximum and sum of each
//! row; in reverse, weights and the cotangents of scores. Loops are compiled for each instruction set.

use super::super::dot::{Multiply, Strip};
use super::super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use super::super::math;
use super::super::panels::with_tiles;
use super::product::{self, find as find_product};
use std::marker::PhantomData;
use std::ops::{Add, Mul, Sub};
use std::slice::from_raw_parts_mut;

/// Partial sums and maxima of a row, so that they need not wait for each other.
const LANES: usize = 16;

/// Floats of scores.
pub trait Real: Multiply + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    const LEAST: Self;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn exp<I: Isa>(self) -> Self;
    /// The loops for this machine.
    fn loops(level: Level) -> Loops;
    /// A product of tiles.
    ///
    /// # Safety
    /// As for [`Multiply::multiply`] and [`product::multiply`]; the loops are those of this type and machine.
    unsafe fn multiply_tile(strip: Strip<Self>, _loops: &Loops, _packed: *mut Self) {
        // SAFETY: passed on to our caller.
        unsafe { Self::multiply(&strip) }
    }
}

impl Real for f32 {
    const LEAST: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn exp<I: Isa>(self) -> f32 {
        math::exp::<I>(self)
    }
    fn loops(level: Level) -> Loops {
        Loops { product: with_tiles!(level, find_product()), ..with_isa!(level, narrow()) }
    }
    unsafe fn multiply_tile(strip: Strip<f32>, loops: &Loops, packed: *mut f32) {
        // SAFETY: passed on to our caller.
        unsafe {
            match loops.product {
                Some(product_loop) => product::multiply(product_loop, strip, packed),
                None => f32::multiply(&strip),
            }
        }
    }
}

impl Real for f64 {
    const LEAST: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp<I: Isa>(self) -> f64 {
        self.exp()
    }
    fn loops(level: Level) -> Loops {
        with_isa!(level, wide())
    }
}

/// A mask in memory: 1 where a query sees a key.
#[derive(Clone, Copy)]
pub struct Mask {
    pub start: *const u8,
    pub rows: isize,
    pub columns: isize,
}

/// A tile of `rows` × `columns` scores, `stride` apart.
pub struct Tile<T> {
    pub scores: *mut T,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// How many of the keys the first query sees by order, and how many more each next one.
    pub first_seen: i64,
    pub more_seen: i64,
    pub mask: Option<Mask>,
    /// Forward: running maxima and sums, and the output's rows, of this width, that go with them.
    pub greatest: *mut f64,
    pub sums: *mut f64,
    pub out: *mut T,
    pub width: usize,
    /// Reverse: λ and δ of each row, and ō·vᵀ, which becomes s̄.
    pub log_sums: *const T,
    pub log_sums_stride: isize,
    pub delta: *const T,
    pub delta_stride: isize,
    pub cotangents: *mut T,
}

impl<T> Tile<T> {
    /// Run a loop of [`loops`] for this type.
    ///
    /// # Safety
    /// All addresses are valid for the sizes, and the machine has the loop's instruction set.
    pub unsafe fn call(&self, tile_loop: LoopFn) {
        let nothing = std::ptr::null();
        let a = std::ptr::from_ref(self).cast();
        let out = std::ptr::null_mut();
        // SAFETY: passed on to our caller.
        unsafe { tile_loop(&Args { n: 0, m: 0, out, a, b: nothing, c: nothing, d: nothing, single: 0, position: 0 }) }
    }

    /// How many keys the row sees by order.
    #[inline(always)]
    fn seen(&self, row: usize) -> usize {
        (self.first_seen + row as i64 * self.more_seen).clamp(0, self.columns as i64) as usize
    }

    /// A row of scores or cotangents as far as it is seen by order; zeros behind that.
    ///
    /// # Safety
    /// As for [`Tile::call`]; the row is borrowed nowhere else.
    #[inline(always)]
    unsafe fn visible<'a>(&self, numbers: *mut T, row: usize) -> &'a mut [T]
    where
        T: Real,
    {
        // SAFETY: passed on to our caller.
        let numbers = unsafe { from_raw_parts_mut(numbers.add(row * self.stride), self.columns) };
        let (seen, unseen) = numbers.split_at_mut(self.seen(row));
        unseen.fill(T::ZERO);
        seen
    }

    /// −∞ for those of a row's scores that the mask hides.
    ///
    /// # Safety
    /// As for [`Tile::call`].
    #[inline(always)]
    unsafe fn hide(&self, row: usize, scores: &mut [T])
    where
        T: Real,
    {
        let Some(mask) = self.mask else { return };
        for (column, score) in scores.iter_mut().enumerate() {
            // SAFETY: passed on to our caller.
            let sees = unsafe { *mask.start.offset(row as isize * mask.rows + column as isize * mask.columns) };
            *score = if sees == 0 { T::LEAST } else { *score };
        }
    }
}

/// The greatest score; NaN is passed over (its exponential stays NaN).
#[inline(always)]
fn greatest<T: Real>(scores: &[T]) -> T {
    let mut lanes = [T::LEAST; LANES];
    let mut chunks = scores.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    chunks.remainder().iter().chain(&lanes).fold(T::LEAST, |most, &x| if x > most { x } else { most })
}

#[inline(always)]
fn sum<T: Real>(weights: &[T]) -> f64 {
    let mut lanes = [T::ZERO; LANES];
    let mut chunks = weights.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = *lane + x;
        }
    }
    chunks.remainder().iter().chain(&lanes).fold(0.0, |sum, x| sum + x.wide())
}

/// m ← max(m, s), l ← l·exp(m_before − m) + Σ exp(s − m), out ← out·exp(m_before − m), s ← exp(s − m)
struct Weigh<T>(PhantomData<T>);

impl<T: Real> Loop for Weigh<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: `Tile::call` gives a tile of this type, whose addresses the caller vouches for.
        unsafe {
            let tile = &*args.a.cast::<Tile<T>>();
            for row in 0..tile.rows {
                let scores = tile.visible(tile.scores, row);
                tile.hide(row, scores);
                let (before, total) = (&mut *tile.greatest.add(row), &mut *tile.sums.add(row));
                let most = greatest(scores).wide().max(*before);
                if most == f64::NEG_INFINITY {
                    // Nothing is seen yet; a NaN shows all the same.
                    scores.iter_mut().for_each(|x| *x = x.exp::<I>());
                    *total += sum(scores);
                    continue;
                }
                if most > *before && *before > f64::NEG_INFINITY {
                    let factor = (*before - most).exp();
                    *total *= factor;
                    let factor = T::of(factor);
                    let out = from_raw_parts_mut(tile.out.add(row * tile.width), tile.width);
                    out.iter_mut().for_each(|x| *x = *x * factor);
                }
                *before = most;
                let most = T::of(most);
                scores.iter_mut().for_each(|x| *x = (*x - most).exp::<I>());
                *total += sum(scores);
            }
        }
    }
}

/// s ← p = exp(s − λ), c ← p·(c − δ)
struct Unweigh<T>(PhantomData<T>);

impl<T: Real> Loop for Unweigh<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: `Tile::call` gives a tile of this type, whose addresses the caller vouches for.
        unsafe {
            let tile = &*args.a.cast::<Tile<T>>();
            for row in 0..tile.rows {
                let scores = tile.visible(tile.scores, row);
                tile.hide(row, scores);
                let cotangents = tile.visible(tile.cotangents, row);
                let log_sum = *tile.log_sums.offset(row as isize * tile.log_sums_stride);
                let delta = *tile.delta.offset(row as isize * tile.delta_stride);
                for (score, cotangent) in scores.iter_mut().zip(cotangents) {
                    let weight = (*score - log_sum).exp::<I>();
                    *score = weight;
                    *cotangent = weight * (*cotangent - delta);
                }
            }
        }
    }
}

/// The loops for one type and instruction set.
#[derive(Clone, Copy)]
pub struct Loops {
    pub weigh: LoopFn,
    pub unweigh: LoopFn,
    /// Products, where tiles have a loop of their own.
    pub product: Option<LoopFn>,
}

fn loops_of<T: Real, I: Isa>() -> Loops {
    Loops { weigh: I::call::<Weigh<T>>, unweigh: I::call::<Unweigh<T>>, product: None }
}

fn narrow<I: Isa>() -> Loops {
    loops_of::<f32, I>()
}

fn wide<I: Isa>() -> Loops {
    loops_of::<f64, I>()
}
