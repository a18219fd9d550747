//! The innermost loop of products and convolutions of f32, and when it is worth using: a tile of rows × 16 sums that stays in
//! registers while terms go by. What rows and columns are, and how they are packed, is the matter of
//! `product.rs`, `conv` and `attention`.

use super::isa::{Args, Isa, Level};
use raphson_graph::dtype::DType;

/// Sums of one row of a tile: neighbours in memory, two vectors of AVX2.
pub const WIDTH: usize = 16;
/// Rows of a tile: twelve accumulators of AVX2's sixteen registers, or eight where six rows would leave more of them idle.
pub const TALL: usize = 6;
pub const LOW: usize = 4;

/// Whether tiles are used: the loop is written for sixteen vectors of eight numbers. Sets without fused multiply-add, and those with
/// longer vectors, keep to the `gemm` crate.
pub fn suits(dtype: DType, level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return dtype == DType::F32 && level == Level::Avx2;
    #[cfg(not(target_arch = "x86_64"))]
    return dtype == DType::F32 && level != level;
}

/// The rows of a tile that leave the fewest idle.
pub fn height(rows: usize) -> usize {
    if rows.next_multiple_of(LOW) < rows.next_multiple_of(TALL) { LOW } else { TALL }
}

/// sums[r][l] += Σ_t rows[r][x_t] · columns[y_t + l], where (x_t, y_t) = at(t)
///
/// # Safety
/// Every address so made may be read: one element of a row, `WIDTH` of the columns.
#[inline(always)]
pub unsafe fn accumulate<I: Isa, const R: usize>(
    terms: usize,
    rows: [*const f32; R],
    columns: *const f32,
    at: impl Fn(usize) -> (isize, isize),
    sums: &mut [[f32; WIDTH]; R],
) {
    let mut local = *sums;
    for term in 0..terms {
        let (x, y) = at(term);
        // SAFETY: passed on to our caller.
        let column = unsafe { columns.offset(y).cast::<[f32; WIDTH]>().read_unaligned() };
        for r in 0..R {
            // SAFETY: passed on to our caller.
            let row = unsafe { *rows[r].offset(x) };
            for l in 0..WIDTH {
                local[r][l] = I::fma32(row, column[l], local[r][l]);
            }
        }
    }
    *sums = local;
}

/// Write `width` numbers of each of `terms` terms in groups of `W`, with zeros behind them: `out[t·W + i] = from[t·term + i·step]`.
///
/// # Safety
/// These addresses may be read, and `terms · W` elements written.
#[inline(always)]
pub unsafe fn pack<const W: usize>(
    from: *const f32,
    (term, step): (isize, isize),
    terms: usize,
    width: usize,
    out: *mut f32,
) {
    for t in 0..terms {
        // SAFETY: passed on to our caller.
        unsafe {
            let (from, out) = (from.offset(t as isize * term), out.add(t * W));
            if width == W && step == 1 {
                out.cast::<[f32; W]>().write_unaligned(from.cast::<[f32; W]>().read_unaligned());
            } else if width == W {
                out.cast::<[f32; W]>().write_unaligned(std::array::from_fn(|i| *from.offset(i as isize * step)));
            } else {
                (0..W).for_each(|i| *out.add(i) = if i < width { *from.offset(i as isize * step) } else { 0.0 });
            }
        }
    }
}

/// Arguments that lead a loop to what it works on.
pub fn leading_to<C>(call: &C) -> Args {
    let a = std::ptr::from_ref(call).cast::<u8>();
    Args { n: 0, m: 0, out: std::ptr::null_mut(), a, b: a, c: a, d: a, single: 0, position: 0 }
}

/// Part `index` of `0..n` cut into `parts` even ones.
pub fn part(n: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    index * n / parts..(index + 1) * n / parts
}
