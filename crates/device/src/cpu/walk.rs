//! Strided views as walks over a flat index space: where a run of elements lies, and copying runs into and out of
//! dense tiles. What the elements mean is not known here.

use raphson_graph::dtype::DType;

/// The most axes left after merging; a kernel with more is refused when it is loaded.
pub const MAX_AXES: usize = 16;

/// One axis of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    size: usize,
    stride: i64,
}

/// An affine map from a flat, row-major index to element positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Outermost first; sizes of 1 left out, neighbours that step alike merged.
    axes: Vec<Axis>,
    offset: i64,
}

/// Elements `position, position + stride, …`, which are numbers `done..done + count` of what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub position: i64,
    pub stride: i64,
    pub done: usize,
    pub count: usize,
}

impl Walk {
    /// The walk over axes of these sizes and strides; nothing when it has more than [`MAX_AXES`] axes.
    pub fn new(axes: impl Iterator<Item = (usize, i64)>, offset: i64) -> Option<Walk> {
        let mut merged: Vec<Axis> = Vec::new();
        for (size, stride) in axes.filter(|&(size, _)| size != 1) {
            match merged.last_mut() {
                Some(outer) if outer.stride == stride * size as i64 => {
                    *outer = Axis { size: outer.size * size, stride };
                }
                _ => merged.push(Axis { size, stride }),
            }
        }
        (merged.len() <= MAX_AXES).then_some(Walk { axes: merged, offset })
    }

    /// Whether positions are consecutive all along.
    pub fn is_dense(&self) -> bool {
        match self.axes[..] {
            [] => true,
            [axis] => axis.stride == 1,
            _ => false,
        }
    }

    /// Whether every index leads to one position.
    pub fn is_uniform(&self) -> bool {
        self.axes.iter().all(|axis| axis.stride == 0)
    }

    /// Where the run starts.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Least and greatest position; nothing for an empty space.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        let (mut least, mut greatest) = (self.offset, self.offset);
        for axis in &self.axes {
            let reach = axis.stride.checked_mul(i64::try_from(axis.size.checked_sub(1)?).ok()?)?;
            least = least.checked_add(reach.min(0))?;
            greatest = greatest.checked_add(reach.max(0))?;
        }
        Some((least, greatest))
    }

    /// The position of index `start`, if `n` elements from there are consecutive.
    #[inline]
    pub fn contiguous(&self, start: usize, n: usize) -> Option<i64> {
        let Some((inner, outer)) = self.axes.split_last() else { return (n == 1).then_some(self.offset) };
        if inner.stride != 1 && n != 1 {
            return None;
        }
        if outer.is_empty() {
            return Some(self.offset + start as i64 * inner.stride);
        }
        let (mut rest, along) = (start / inner.size, start % inner.size);
        if along + n > inner.size {
            return None;
        }
        let mut position = self.offset + along as i64 * inner.stride;
        for axis in outer.iter().rev() {
            position += (rest % axis.size) as i64 * axis.stride;
            rest /= axis.size;
        }
        Some(position)
    }

    /// The position of index `start`, and the distance from one row to the next, of rows of `n` elements whose indices are `step` apart,
    /// if rows are consecutive and evenly spaced.
    #[inline]
    pub fn rows(&self, start: usize, n: usize, step: usize) -> Option<(i64, i64)> {
        let distance = match self.axes[..] {
            [axis] => step as i64 * axis.stride,
            [outer, inner] if inner.size == step => outer.stride,
            _ => return None,
        };
        Some((self.contiguous(start, n)?, distance))
    }

    /// Visit `n` elements from index `start` as runs of even stride.
    #[inline]
    pub fn runs(&self, start: usize, n: usize, mut visit: impl FnMut(Run)) {
        if n == 0 {
            return;
        }
        let Some((inner, outer)) = self.axes.split_last() else {
            return visit(Run { position: self.offset, stride: 0, done: 0, count: n });
        };
        let mut at = [0usize; MAX_AXES];
        let (mut rest, mut along) = (start / inner.size, start % inner.size);
        let mut position = self.offset;
        for (axis, at) in outer.iter().zip(&mut at).rev() {
            *at = rest % axis.size;
            rest /= axis.size;
            position += *at as i64 * axis.stride;
        }
        let mut done = 0;
        loop {
            let count = (inner.size - along).min(n - done);
            visit(Run { position: position + along as i64 * inner.stride, stride: inner.stride, done, count });
            done += count;
            if done == n {
                return;
            }
            along = 0;
            for (axis, at) in outer.iter().zip(&mut at).rev() {
                *at += 1;
                position += axis.stride;
                if *at < axis.size {
                    break;
                }
                position -= axis.size as i64 * axis.stride;
                *at = 0;
            }
        }
    }
}

/// Copy `n` elements from index `start` of `walk` over `memory` into `tile`.
///
/// # Safety
/// Every position of the walk lies in `memory`, `tile` has room for `n` elements of `size` bytes, they do not overlap,
/// and both are aligned for the size.
pub unsafe fn gather(size: usize, walk: &Walk, start: usize, n: usize, memory: *const u8, tile: *mut u8) {
    // SAFETY: passed on to our caller; only the size of elements matters for copying.
    unsafe {
        match size {
            1 => gather_typed::<u8>(walk, start, n, memory.cast(), tile.cast()),
            2 => gather_typed::<u16>(walk, start, n, memory.cast(), tile.cast()),
            4 => gather_typed::<u32>(walk, start, n, memory.cast(), tile.cast()),
            _ => gather_typed::<u64>(walk, start, n, memory.cast(), tile.cast()),
        }
    }
}

/// # Safety
/// As for [`gather`].
unsafe fn gather_typed<T: Copy>(walk: &Walk, start: usize, n: usize, memory: *const T, tile: *mut T) {
    walk.runs(start, n, |run| {
        // SAFETY: the caller vouches for all positions and for the room.
        unsafe {
            let (source, target) = (memory.offset(run.position as isize), tile.add(run.done));
            match run.stride {
                1 => std::ptr::copy_nonoverlapping(source, target, run.count),
                0 => std::slice::from_raw_parts_mut(target, run.count).fill(*source),
                2 => gather_every_second(source, run.count, target),
                stride => {
                    for i in 0..run.count {
                        *target.add(i) = *source.offset(i as isize * stride as isize);
                    }
                }
            }
        }
    });
}

/// Every second element, as in pooling, eight at a time: of two vectors the compiler picks one. The element behind the last may not be there.
///
/// # Safety
/// `2n − 1` elements may be read, and `n` written elsewhere.
unsafe fn gather_every_second<T: Copy>(source: *const T, n: usize, target: *mut T) {
    const L: usize = 8;
    let pieces = n.saturating_sub(1) / L;
    // SAFETY: passed on to our caller. A piece reads the element behind its last, which is no more than that before the next one.
    unsafe {
        for piece in 0..pieces {
            let both = source.add(piece * 2 * L).cast::<[[T; 2]; L]>().read();
            target.add(piece * L).cast::<[T; L]>().write(both.map(|[first, _]| first));
        }
        for i in pieces * L..n {
            *target.add(i) = *source.add(2 * i);
        }
    }
}

/// Copy `tile` to `n` elements from index `start` of `walk` over `memory`.
///
/// # Safety
/// As for [`gather`].
pub unsafe fn scatter(size: usize, walk: &Walk, start: usize, n: usize, memory: *mut u8, tile: *const u8) {
    // SAFETY: passed on to our caller; only the size of elements matters for copying.
    unsafe {
        match size {
            1 => scatter_typed::<u8>(walk, start, n, memory.cast(), tile.cast()),
            2 => scatter_typed::<u16>(walk, start, n, memory.cast(), tile.cast()),
            4 => scatter_typed::<u32>(walk, start, n, memory.cast(), tile.cast()),
            _ => scatter_typed::<u64>(walk, start, n, memory.cast(), tile.cast()),
        }
    }
}

/// # Safety
/// As for [`gather`].
unsafe fn scatter_typed<T: Copy>(walk: &Walk, start: usize, n: usize, memory: *mut T, tile: *const T) {
    walk.runs(start, n, |run| {
        // SAFETY: the caller vouches for all positions and for the elements.
        unsafe {
            let (source, target) = (tile.add(run.done), memory.offset(run.position as isize));
            if run.stride == 1 {
                std::ptr::copy_nonoverlapping(source, target, run.count);
            } else {
                for i in 0..run.count {
                    *target.offset(i as isize * run.stride as isize) = *source.add(i);
                }
            }
        }
    });
}

/// Write the positions themselves, as numbers of `dtype`, of `n` elements from index `start`.
///
/// # Safety
/// `tile` has room for `n` elements of `dtype` and is aligned for it.
pub unsafe fn positions(dtype: DType, walk: &Walk, start: usize, n: usize, tile: *mut u8) {
    // SAFETY: passed on to our caller.
    unsafe {
        match dtype {
            DType::F32 => positions_typed::<f32>(walk, start, n, tile.cast(), |p| p as f32),
            DType::F64 => positions_typed::<f64>(walk, start, n, tile.cast(), |p| p as f64),
            DType::I32 => positions_typed::<i32>(walk, start, n, tile.cast(), |p| p as i32),
            DType::U32 => positions_typed::<u32>(walk, start, n, tile.cast(), |p| p as u32),
            DType::I64 => positions_typed::<i64>(walk, start, n, tile.cast(), |p| p),
            DType::Bool => positions_typed::<u8>(walk, start, n, tile.cast(), |p| u8::from(p != 0)),
            // Refused when the program was loaded.
            DType::F16 | DType::BF16 | DType::U8 => unreachable!("positions of a storage dtype"),
        }
    }
}

/// # Safety
/// As for [`positions`].
unsafe fn positions_typed<T>(walk: &Walk, start: usize, n: usize, tile: *mut T, convert: impl Fn(i64) -> T) {
    walk.runs(start, n, |run| {
        for i in 0..run.count {
            // SAFETY: the caller vouches for room for `n` elements, of which this is one.
            unsafe { *tile.add(run.done + i) = convert(run.position + i as i64 * run.stride) };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_step_alike_merge() {
        let walk = Walk::new([(2, 12), (1, 99), (3, 4), (4, 1)].into_iter(), 5).unwrap();
        assert!(walk.is_dense());
        assert_eq!(walk.bounds(), Some((5, 28)));
        assert_eq!(walk.contiguous(3, 7), Some(8));
        assert!(Walk::new([(3, 0), (2, 0)].into_iter(), 1).unwrap().is_uniform());
    }

    #[test]
    fn runs_visit_every_index_in_order() {
        let sizes = [3usize, 2, 4];
        let strides = [-8i64, 100, 3];
        let walk = Walk::new(sizes.into_iter().zip(strides), 50).unwrap();
        let expected: Vec<i64> =
            (0..24).map(|i: i64| 50 + (i / 8) * strides[0] + (i / 4 % 2) * strides[1] + (i % 4) * strides[2]).collect();
        for start in 0..24 {
            for n in 0..=24 - start {
                let mut seen = Vec::new();
                walk.runs(start, n, |run| {
                    assert_eq!(run.done, seen.len());
                    seen.extend((0..run.count as i64).map(|i| run.position + i * run.stride));
                });
                assert_eq!(seen, expected[start..start + n]);
            }
        }
    }

    #[test]
    fn runs_of_every_length_and_step_are_gathered_and_scattered() {
        fn check<T: Copy + PartialEq + std::fmt::Debug + Default>(make: impl Fn(usize) -> T) {
            let memory: Vec<T> = (0..600).map(make).collect();
            let (size, bytes) = (size_of::<T>(), memory.as_ptr().cast::<u8>());
            for (stride, n) in [1i64, 2, 3, -2].into_iter().flat_map(|stride| (0..150).map(move |n| (stride, n))) {
                let first = if stride < 0 { 300 } else { 1 };
                let walk = Walk::new([(n, stride)].into_iter(), first).unwrap();
                let at = |i: usize| (first + i as i64 * stride) as usize;
                let mut tile = vec![T::default(); n];
                // SAFETY: all positions are within the memory, and the tile has room for them.
                unsafe { gather(size, &walk, 0, n, bytes, tile.as_mut_ptr().cast()) };
                assert_eq!(tile, (0..n).map(|i| memory[at(i)]).collect::<Vec<_>>(), "{n} by {stride}");
                let mut other = vec![T::default(); 600];
                // SAFETY: as above.
                unsafe { scatter(size, &walk, 0, n, other.as_mut_ptr().cast(), tile.as_ptr().cast()) };
                let mut want = vec![T::default(); 600];
                (0..n).for_each(|i| want[at(i)] = memory[at(i)]);
                assert_eq!(other, want, "{n} by {stride}");
            }
        }
        check(|i| i as u8);
        check(|i| i as u16);
        check(|i| i as u32);
        check(|i| i as u64);
    }

    #[test]
    fn rows_are_where_their_runs_are() {
        let axes = [vec![(24, 1)], vec![(24, 3)], vec![(4, 6), (6, 1)], vec![(4, 9), (6, 1)], vec![(4, 0), (6, 1)]];
        let more = [vec![(4, -7), (6, 1)], vec![(4, 1), (6, 4)], vec![(2, 50), (2, 9), (6, 1)], vec![]];
        let (mut found, mut none) = (0, 0);
        for sizes in axes.iter().chain(&more) {
            let walk = Walk::new(sizes.iter().copied(), 100).unwrap();
            for (start, n, step) in (0..6).flat_map(|start| [(start, 1, 6), (start, 6 - start, 6), (start, 2, 3)]) {
                let Some((first, distance)) = walk.rows(start, n, step) else {
                    none += 1;
                    continue;
                };
                found += 1;
                for row in 0..3 {
                    walk.runs(start + row * step, n, |run| {
                        assert!(run.count == 1 || run.stride == 1, "{walk:?}");
                        assert_eq!(
                            run.position,
                            first + row as i64 * distance + run.done as i64,
                            "{walk:?}, {start}, {n}"
                        );
                    });
                }
            }
        }
        assert!(found >= 40 && none >= 40, "{found} found, {none} not");
    }
}
