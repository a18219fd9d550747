//! The innermost loop of products and convolutions of f32, and when it is worth using: a tile of sums, some rows of some vectors, that
//! stays in registers while terms go by. What rows and columns are, and how they are packed, is the matter of
//! `product.rs`, `conv` and `attention`.

use super::isa::{Args, Isa, Level};
use raphson_graph::dtype::DType;

/// The sizes of tiles on an instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Sums of one row: neighbours in memory, two vectors.
    pub width: usize,
    /// Rows of a tile: two accumulators each, as many as leave registers for the operands.
    pub tall: usize,
    /// Rows of a low one, where many of a tall one would be idle: eight accumulators, just enough not to wait for one another.
    pub low: usize,
}

/// Sixteen registers of eight numbers (AVX2), or more.
pub const NARROW: Tile = Tile { width: 16, tall: 6, low: 4 };
/// Thirty-two registers of sixteen numbers (AVX-512).
pub const WIDE: Tile = Tile { width: 32, tall: 12, low: 4 };

/// What a function gives that is generic over the instruction set and its tiles' width and rows; none without fused multiply-add.
macro_rules! with_tiles {
    ($level:expr, $function:ident()) => {{
        use $crate::cpu::isa::Level;
        use $crate::cpu::panels::{NARROW, WIDE};
        match $level {
            Level::Baseline => None,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                Some($function::<$crate::cpu::isa::Avx2, { NARROW.width }, { NARROW.tall }, { NARROW.low }>())
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Some($function::<$crate::cpu::isa::Avx512, { WIDE.width }, { WIDE.tall }, { WIDE.low }>()),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => {
                Some($function::<$crate::cpu::isa::Neon, { NARROW.width }, { NARROW.tall }, { NARROW.low }>())
            }
        }
    }};
}
pub(crate) use with_tiles;

impl Tile {
    /// The sizes that [`with_tiles`] passes on; those of the sets that have none are never used.
    pub fn of(level: Level) -> Tile {
        with_tiles!(level, sizes()).unwrap_or(NARROW)
    }
}

fn sizes<I: Isa, const W: usize, const T: usize, const L: usize>() -> Tile {
    Tile { width: W, tall: T, low: L }
}

/// The sets whose tiles may be used, those to be tried first in front: wide ones are idle where there are few columns. Sets without fused
/// multiply-add, and ARM's, keep to the `gemm` crate.
pub fn sets(dtype: DType, level: Level) -> &'static [Level] {
    match (dtype, level) {
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Level::Avx2) => &[Level::Avx2],
        #[cfg(target_arch = "x86_64")]
        (DType::F32, Level::Avx512) => &[Level::Avx512, Level::Avx2],
        _ => &[],
    }
}

/// Rows cut into panels: tall ones, but for up to two low ones at the end, so that as few rows as can be are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panels {
    tile: Tile,
    tall: usize,
    low: usize,
}

impl Panels {
    pub fn of(rows: usize, tile: Tile) -> Panels {
        let tall = rows / tile.tall;
        let with = |tall: usize| {
            let low = rows.saturating_sub(tall * tile.tall).div_ceil(tile.low);
            (low <= 2).then_some(Panels { tile, tall, low })
        };
        let all_tall = Panels { tile, tall: rows.div_ceil(tile.tall), low: 0 };
        let others = [with(tall), tall.checked_sub(1).and_then(with)].into_iter().flatten();
        others.fold(all_tall, |best, next| if next.rows() < best.rows() { next } else { best })
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
        tall * self.tile.tall + (panel - tall) * self.tile.low
    }

    /// All rows, idle ones included.
    pub fn rows(self) -> usize {
        self.start(self.count())
    }
}

/// The sums of a tile of `R` rows: two vectors each, in registers as long as nothing but the functions here touches them.
pub type Sums<I, const R: usize> = [[<I as Isa>::Vector; 2]; R];

/// sums[r][l] + Σ_t rows[r][x_t] · columns[y_t + l], where (x_t, y_t) = at(t). `APART`: the rows lie anywhere, and not one step after
/// the other.
///
/// # Safety
/// Every address so made may be read: one element of a row, two vectors of the columns. The machine has the set.
#[inline(always)]
pub unsafe fn accumulate<I: Isa, const R: usize, const APART: bool>(
    terms: usize,
    rows: [*const f32; R],
    columns: *const f32,
    at: impl Fn(usize) -> (isize, isize),
    mut sums: Sums<I, R>,
) -> Sums<I, R> {
    for term in 0..terms {
        let (x, y) = at(term);
        // SAFETY: passed on to our caller.
        unsafe {
            let column = columns.offset(y);
            let (left, right) = (I::load(column), I::load(column.add(I::LANES)));
            for r in 0..R {
                let row = rows[r].offset(x);
                sums[r] = if APART {
                    I::add_row(row, [left, right], sums[r])
                } else {
                    [I::add_scaled(*row, left, sums[r][0]), I::add_scaled(*row, right, sums[r][1])]
                };
            }
        }
    }
    sums
}

/// No sums yet.
#[inline(always)]
pub fn no_sums<I: Isa, const R: usize>() -> Sums<I, R> {
    [[I::zeros(); 2]; R]
}

/// The sums whose rows lie `step` elements apart.
///
/// # Safety
/// These rows may be read, and the machine has the set.
#[inline(always)]
pub unsafe fn load_sums<I: Isa, const R: usize>(from: *const f32, step: usize) -> Sums<I, R> {
    let mut sums = no_sums::<I, R>();
    for (r, sum) in sums.iter_mut().enumerate() {
        // SAFETY: passed on to our caller.
        unsafe {
            let row = from.add(r * step);
            *sum = [I::load(row), I::load(row.add(I::LANES))];
        }
    }
    sums
}

/// Put the first `rows` rows of sums where they lie `step` elements apart.
///
/// # Safety
/// These rows may be written, and the machine has the set.
#[inline(always)]
pub unsafe fn store_sums<I: Isa, const R: usize>(sums: Sums<I, R>, rows: usize, to: *mut f32, step: usize) {
    for (r, [left, right]) in sums.into_iter().enumerate().filter(|&(r, _)| r < rows) {
        // SAFETY: passed on to our caller.
        unsafe {
            let row = to.add(r * step);
            I::store(left, row);
            I::store(right, row.add(I::LANES));
        }
    }
}

/// Sums as numbers.
///
/// # Safety
/// The machine has the set, and `W` is two of its vectors.
#[inline(always)]
pub unsafe fn numbers<I: Isa, const W: usize, const R: usize>(sums: Sums<I, R>) -> [[f32; W]; R] {
    let mut numbers = [[0.0; W]; R];
    // SAFETY: passed on to our caller.
    unsafe { store_sums::<I, R>(sums, R, numbers.as_mut_ptr().cast(), W) };
    numbers
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
        for (rows, tile) in (0..200).flat_map(|rows| [(rows, NARROW), (rows, WIDE)]) {
            let panels = Panels::of(rows, tile);
            let mut end = 0;
            for panel in 0..panels.count() {
                assert_eq!(panels.start(panel), end, "{rows} rows");
                assert!(end < rows, "{rows} rows: panel {panel} is idle");
                end += if panels.is_tall(panel) { tile.tall } else { tile.low };
            }
            assert_eq!(panels.rows(), end);
            let most = if tile == NARROW && rows >= tile.low { 1 } else { 3 };
            assert!(end >= rows && end - rows <= most, "{rows} rows of {end}");
        }
    }
}
