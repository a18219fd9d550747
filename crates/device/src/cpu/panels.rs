//! The innermost loop of products and convolutions of f32, and when it is worth using: a tile of rows × 16 sums that stays in
//! registers while terms go by. What rows and columns are, and how they are packed, is the matter of
//! `product.rs`, `conv` and `attention`.

use super::isa::{Args, Isa, Level};
use raphson_graph::dtype::DType;

/// Sums of one row of a tile: neighbours in memory, two vectors of AVX2.
pub const WIDTH: usize = 16;
/// Rows of a tile: twelve accumulators of AVX2's sixteen registers, or eight, which wait for each other, where six rows would be idle.
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

/// Rows cut into panels: of `TALL` rows each, but for up to two of `LOW` at the end, so that at most one row is idle (or three, where
/// there is but one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panels {
    tall: usize,
    low: usize,
}

impl Panels {
    pub fn of(rows: usize) -> Panels {
        let tall = rows / TALL;
        match rows % TALL {
            0 => Panels { tall, low: 0 },
            1 | 2 if tall > 0 => Panels { tall: tall - 1, low: 2 },
            5 => Panels { tall: tall + 1, low: 0 },
            _ => Panels { tall, low: 1 },
        }
    }

    pub fn count(self) -> usize {
        self.tall + self.low
    }

    pub fn is_tall(self, panel: usize) -> bool {
        panel < self.tall
    }

    /// The first row of a panel.
    pub fn start(self, panel: usize) -> usize {
        let tall = panel.min(self.tall);
        tall * TALL + (panel - tall) * LOW
    }

    /// All rows, idle ones included.
    pub fn rows(self) -> usize {
        self.start(self.count())
    }
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
pub unsafe fn pack<I: Isa, const W: usize>(
    from: *const f32,
    (term, step): (isize, isize),
    terms: usize,
    width: usize,
    out: *mut f32,
) {
    let turned = if I::HAS_TRANSPOSE && term == 1 && width == W && W.is_multiple_of(8) { terms - terms % 8 } else { 0 };
    for t in (0..turned).step_by(8) {
        for i in (0..W).step_by(8) {
            // SAFETY: passed on to our caller.
            unsafe { I::transpose(from.offset(t as isize + i as isize * step), step, out.add(t * W + i), W) };
        }
    }
    for t in turned..terms {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_all_rows_and_leave_few_idle() {
        for rows in 0..200 {
            let panels = Panels::of(rows);
            let mut end = 0;
            for panel in 0..panels.count() {
                assert_eq!(panels.start(panel), end, "{rows} rows");
                assert!(end < rows, "{rows} rows: panel {panel} is idle");
                end += if panels.is_tall(panel) { TALL } else { LOW };
            }
            assert_eq!(panels.rows(), end);
            assert!(end >= rows && end - rows <= if rows < LOW { 3 } else { 1 }, "{rows} rows of {end}");
        }
    }
}
