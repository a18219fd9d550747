//! The unfolded data of a convolution, block by block: a matrix of which one side runs over outputs and the other over
//! taps, each with a leading axis (batch or channels). Zeros where they meet outside the data. Written once for both sides: outputs and
//! taps differ only in how far apart their neighbours are.

use std::ops::Range;

/// One side of the matrix: a leading axis, as long as need be, and three spatial ones.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Elements of the data between neighbours along the leading axis.
    pub leading_stride: isize,
    pub sizes: [usize; 3],
    /// Positions along the data's spatial axes between neighbours.
    pub steps: [i64; 3],
}

impl Side {
    /// Entries of one leading index.
    pub fn spatial(&self) -> usize {
        self.sizes.iter().product()
    }
}

/// The data and both sides: entry (r, c) is the element at position `r·steps + c·steps − low`.
#[derive(Clone, Copy, Debug)]
pub struct Unfold {
    pub sizes: [usize; 3],
    pub strides: [isize; 3],
    pub low: [i64; 3],
    pub rows: Side,
    pub columns: Side,
}

/// An entry of a side, counted up.
#[derive(Clone, Copy)]
struct Cursor {
    leading: usize,
    at: [usize; 3],
}

impl Cursor {
    fn new(side: &Side, index: usize) -> Cursor {
        let [_, b, c] = side.sizes;
        let inner = index % side.spatial();
        Cursor { leading: index / side.spatial(), at: [inner / c / b, inner / c % b, inner % c] }
    }

    /// `by` entries further, not beyond the end of the last axis.
    fn advance(&mut self, side: &Side, by: usize) {
        self.at[2] += by;
        for axis in [2, 1, 0] {
            if self.at[axis] < side.sizes[axis] {
                return;
            }
            self.at[axis] = 0;
            if axis > 0 {
                self.at[axis - 1] += 1;
            } else {
                self.leading += 1;
            }
        }
    }
}

impl Unfold {
    /// Write the block `rows × columns`, row by row, to `out`.
    ///
    /// # Safety
    /// `data` is the element at position 0 of the data, which reaches as far as sizes, strides and leading axes say;
    /// `out` has room for the block. Zero bytes are the zero of `T`.
    pub unsafe fn pack<T: Copy>(&self, data: *const T, rows: Range<usize>, columns: Range<usize>, out: *mut T) {
        let mut row = Cursor::new(&self.rows, rows.start);
        let first = Cursor::new(&self.columns, columns.start);
        for r in 0..rows.len() {
            let origin = [0, 1, 2].map(|a| row.at[a] as i64 * self.rows.steps[a] - self.low[a]);
            let base = data.wrapping_offset(row.leading as isize * self.rows.leading_stride);
            // SAFETY: passed on to our caller; row r of the block.
            unsafe { self.row(base, origin, first, columns.len(), out.add(r * columns.len())) };
            row.advance(&self.rows, 1);
        }
    }

    /// Entries along the last axis of the columns that meet the data, for a row with this origin.
    fn inside(&self, origin: i64) -> Range<usize> {
        let (step, n) = (self.columns.steps[2], self.columns.sizes[2] as i64);
        // origin + q·step ≥ 0 and < size
        let first = (-origin).max(0).div_euclid(step) + i64::from((-origin).max(0).rem_euclid(step) != 0);
        let reach = self.sizes[2] as i64 - origin;
        let end = if reach <= 0 { 0 } else { (reach + step - 1) / step };
        let (first, end) = (first.min(n), end.min(n));
        first as usize..end.max(first) as usize
    }

    /// # Safety
    /// As for [`Unfold::pack`].
    unsafe fn row<T: Copy>(&self, base: *const T, origin: [i64; 3], first: Cursor, n: usize, mut out: *mut T) {
        let columns = &self.columns;
        let inside = self.inside(origin[2]);
        let step = columns.steps[2] as isize * self.strides[2];
        let start = base.wrapping_offset(origin[2] as isize * self.strides[2]);
        let (mut column, mut left) = (first, n);
        while left > 0 {
            let from = column.at[2];
            let length = (columns.sizes[2] - from).min(left);
            let x = [0, 1].map(|a| origin[a] + column.at[a] as i64 * columns.steps[a]);
            let in_rows = (0..2).all(|a| x[a] >= 0 && x[a] < self.sizes[a] as i64);
            let meets = if in_rows { inside.start.max(from)..inside.end.min(from + length) } else { from..from };
            let meets = if meets.start < meets.end { meets } else { from..from };
            let source = start
                .wrapping_offset(column.leading as isize * columns.leading_stride)
                .wrapping_offset(x[0] as isize * self.strides[0] + x[1] as isize * self.strides[1])
                .wrapping_offset(meets.start as isize * step);
            // SAFETY: `meets` lies in the `length` entries, which fit the block's row; its elements are inside the data.
            unsafe {
                let (before, count) = (meets.start - from, meets.len());
                std::ptr::write_bytes(out, 0, before);
                copy(source, step, count, out.add(before));
                std::ptr::write_bytes(out.add(before + count), 0, length - before - count);
                out = out.add(length);
            }
            column.advance(columns, length);
            left -= length;
        }
    }
}

/// # Safety
/// `n` elements `step` apart may be read from `source`, and `n` written to `out`.
#[inline(always)]
unsafe fn copy<T: Copy>(source: *const T, step: isize, n: usize, out: *mut T) {
    // SAFETY: passed on to our caller.
    unsafe {
        if step == 1 {
            std::ptr::copy_nonoverlapping(source, out, n);
        } else {
            for i in 0..n {
                *out.add(i) = *source.offset(i as isize * step);
            }
        }
    }
}
