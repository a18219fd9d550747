//! Products of attention's tiles: so small that packing both sides, as for large products, would cost as much as multiplying.
//! The right matrix is packed in panels of columns; rows of the left one are read where they lie.

use super::super::dot::Strip;
use super::super::isa::{Args, Isa, Loop, LoopFn};
use super::super::panels::{WIDE, accumulate, leading_to, no_sums, numbers, pack};

/// Elements that packing a right matrix of `k` × `n` takes, at most.
pub fn packed(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(WIDE.width)
}

/// A product and the memory for its packed right matrix.
struct Product {
    strip: Strip<f32>,
    packed: *mut f32,
}

/// The loop for products of f32.
pub fn find<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Tiles<W, T, L>>
}

/// Multiply a strip by a loop from [`find`].
///
/// # Safety
/// As for `Multiply::multiply` of `dot.rs`; `packed` has room for [`packed`] elements of the right matrix and overlaps nothing, and the
/// machine has the loop's instruction set.
pub unsafe fn multiply(product_loop: LoopFn, strip: Strip<f32>, packed: *mut f32) {
    // SAFETY: passed on to our caller.
    unsafe { product_loop(&leading_to(&Product { strip, packed })) }
}

/// Multiplies it tile by tile.
struct Tiles<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Tiles<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: `multiply` gives a product, whose addresses its caller vouches for.
        unsafe {
            let Product { strip: s, packed } = &*args.a.cast::<Product>();
            for first in (0..s.n).step_by(W) {
                let panel = packed.add(first * s.k);
                let width = W.min(s.n - first);
                let columns = s.right.wrapping_offset(first as isize * s.right_columns);
                pack::<I, W>(columns, (s.right_rows, s.right_columns), s.k, width, panel);
                let (left, out) = (|row: usize| s.left.offset(row as isize * s.left_rows), s.out.add(first));
                let out = |row: usize| out.offset(row as isize * s.out_rows);
                let (tall, low) = (s.m - s.m % T, s.m - s.m % T % L);
                for row in (0..tall).step_by(T) {
                    tile::<I, W, T>(s, left(row), panel, out(row), width);
                }
                for row in (tall..low).step_by(L) {
                    tile::<I, W, L>(s, left(row), panel, out(row), width);
                }
                for row in low..s.m {
                    tile::<I, W, 1>(s, left(row), panel, out(row), width);
                }
            }
        }
    }
}

/// `M` rows of the result by one panel.
///
/// # Safety
/// As for [`multiply`], at these rows and columns.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const M: usize>(
    s: &Strip<f32>,
    left: *const f32,
    panel: *const f32,
    out: *mut f32,
    width: usize,
) {
    let rows = std::array::from_fn(|i| left.wrapping_offset(i as isize * s.left_rows));
    let at = |k: usize| (k as isize * s.left_columns, (k * W) as isize);
    // SAFETY: passed on to our caller: a term is a column of the left matrix and a row of the panel.
    let sums = unsafe { numbers::<I, W, M>(accumulate::<I, M, false>(s.k, rows, panel, at, no_sums::<I, M>())) };
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: these elements of the result are ours.
        let out = unsafe { std::slice::from_raw_parts_mut(out.offset(i as isize * s.out_rows), width) };
        if s.accumulate {
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        } else {
            out.copy_from_slice(&sums[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::isa::Level;
    use super::super::super::panels::with_tiles;
    use super::*;

    /// Every size around the tiles', either side transposed, written over or added to, on every instruction set.
    #[test]
    fn products_are_those_of_plain_loops() {
        let numbers =
            |n: usize, seed: usize| -> Vec<f32> { (0..n).map(|i| ((i * 37 + seed) % 19) as f32 - 9.0).collect() };
        let sizes = [(1, 1, 1), (5, 3, 15), (6, 32, 16), (13, 32, 17), (48, 33, 128), (64, 64, 31), (7, 0, 20)];
        for product_loop in Level::available().into_iter().filter_map(|level| with_tiles!(level, find())) {
            for ((m, k, n), case) in sizes.iter().flat_map(|&size| (0..8).map(move |case| (size, case))) {
                let (turned_left, turned_right, accumulate) = (case & 1 == 1, case & 2 == 2, case & 4 == 4);
                let (left, right) = (numbers(m * k, 1), numbers(k * n, 5));
                let out_rows = n + 3;
                let before = numbers(m * out_rows, 7);
                let strides = |turned: bool, rows: usize, columns: usize| {
                    if turned { (1, rows as isize) } else { (columns as isize, 1) }
                };
                let ((left_rows, left_columns), (right_rows, right_columns)) =
                    (strides(turned_left, m, k), strides(turned_right, k, n));
                let (mut out, mut room) = (before.clone(), vec![0f32; packed(k, n)]);
                let strip = Strip {
                    m,
                    n,
                    k,
                    out: out.as_mut_ptr(),
                    out_rows: out_rows as isize,
                    accumulate,
                    left: left.as_ptr(),
                    left_rows,
                    left_columns,
                    right: right.as_ptr(),
                    right_rows,
                    right_columns,
                };
                // SAFETY: all operands have these sizes, and the loop was found for this machine.
                unsafe { multiply(product_loop, strip, room.as_mut_ptr()) };
                for (at, (&got, &was)) in out.iter().zip(&before).enumerate() {
                    let (i, j) = (at / out_rows, at % out_rows);
                    let left = |l: usize| left[(i as isize * left_rows + l as isize * left_columns) as usize];
                    let right = |l: usize| right[(l as isize * right_rows + j as isize * right_columns) as usize];
                    let product = |j: usize| if j < n { (0..k).map(|l| left(l) * right(l)).sum() } else { 0.0 };
                    let want = if j >= n || accumulate { was + product(j) } else { product(j) };
                    assert_eq!(got, want, "{m}×{k}×{n} case {case} at {i}, {j}");
                }
            }
        }
    }
}
