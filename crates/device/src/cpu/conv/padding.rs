//! What tiles read: data copied with zeros around them, and packed kernels.

use super::super::isa::Isa;
use super::super::panels::pack;
use super::super::row::Bases;
use super::{Job, Operand, product};
use std::ops::Range;

/// Places of all taps of all channels, in elements between neighbouring channels and taps along each axis.
pub fn places(channels: usize, taps: [usize; 3], steps: [usize; 4]) -> Vec<i32> {
    let mut places = Vec::with_capacity(channels * product(taps));
    for channel in 0..channels {
        for t0 in 0..taps[0] {
            for t1 in 0..taps[1] {
                let row = channel * steps[0] + t0 * steps[1] + t1 * steps[2];
                places.extend((0..taps[2]).map(|t2| (row + t2 * steps[3]) as i32));
            }
        }
    }
    places
}

/// Part of some data, in columns from `first` on, which may be outside.
pub struct Part {
    strides: [isize; 3],
    sizes: [usize; 3],
    first: i64,
    width: usize,
}

impl Part {
    pub fn new(data: &Operand, sizes: [usize; 3], first: i64, width: usize) -> Part {
        Part { strides: data.spatial, sizes, first, width }
    }

    /// Copy rows of plane `z` of the data at `from` to rows that lie `pitch` elements apart, with zeros where there are no data.
    ///
    /// # Safety
    /// The data may be read with these strides and sizes, and the rows written. The machine has the set.
    #[inline(always)]
    pub unsafe fn copy<I: Isa>(&self, from: *const f32, z: i64, rows: &Range<i64>, to: *mut f32, pitch: usize) {
        let inside = if (0..self.sizes[0] as i64).contains(&z) { self.sizes[1] as i64 } else { 0 };
        let begin = 0.clamp(rows.start, rows.end);
        let end = inside.clamp(begin, rows.end);
        let plane = from.wrapping_offset(z as isize * self.strides[0]);
        let to_row = |y: i64| to.wrapping_add((y - rows.start) as usize * pitch);
        for x in (0..self.width).step_by(I::LANES) {
            let at = self.first + x as i64;
            let n = (self.width - x).min(I::LANES);
            let first = (-at).clamp(0, n as i64) as usize;
            let last = (self.sizes[2] as i64 - at).clamp(first as i64, n as i64) as usize;
            let column = plane.wrapping_offset(at as isize * self.strides[2]);
            // SAFETY: `begin..end` are rows inside the data, lanes from `first` to `last` columns inside them.
            unsafe {
                for y in (rows.start..begin).chain(end..rows.end) {
                    I::store_first(I::zeros(), n, to_row(y).add(x));
                }
                for y in begin..end {
                    let (row, to) = (column.wrapping_offset(y as isize * self.strides[1]), to_row(y).add(x));
                    if self.strides[2] == 1 {
                        I::store_first(I::load_part(row, first, last), n, to);
                    } else {
                        I::store_first(I::zeros(), n, to);
                        for lane in first..last {
                            *to.add(lane) = *row.wrapping_offset(lane as isize * self.strides[2]);
                        }
                    }
                }
            }
        }
    }
}

impl Job {
    /// Where the kernel of a group begins, at an output channel of it.
    pub fn kernel_of(&self, bases: &Bases, group: usize, channel_out: usize) -> *const f32 {
        let [groups, channels_out, _] = self.kernel.leading;
        let at = group as isize * groups + channel_out as isize * channels_out;
        self.kernel.base::<f32>(bases).wrapping_offset(at).cast_const()
    }

    /// Write the weights from output channel `start` on, which lie at `from`, in the order of the terms of a sum, those of `W` output channels
    /// side by side: [channels in, taps, `W`].
    ///
    /// # Safety
    /// The kernel may be read there, for so many input channels, and there is room. The machine has the set.
    #[inline(always)]
    pub unsafe fn pack<I: Isa, const W: usize>(&self, from: *const f32, start: usize, channels: usize, out: *mut f32) {
        let (kernel, taps) = (&self.kernel, self.sizes.taps);
        let (n_taps, width) = (product(taps), W.min(self.sizes.channels_out - start));
        let [_, step, channel_step] = kernel.leading;
        // The longest runs of terms that lie in one direction.
        let (along, merged) = (kernel.merged(taps), |step: isize| channel_step == step * n_taps as isize);
        // SAFETY: passed on to our caller.
        unsafe {
            match along {
                Some(term) if merged(term) => pack::<I, W>(from, (term, step), channels * n_taps, width, out),
                Some(term) => {
                    for channel in 0..channels {
                        let from = from.offset(channel as isize * channel_step);
                        pack::<I, W>(from, (term, step), n_taps, width, out.add(channel * n_taps * W));
                    }
                }
                None => {
                    for row in 0..channels * taps[0] * taps[1] {
                        let (channel, t0, t1) = (row / taps[1] / taps[0], row / taps[1] % taps[0], row % taps[1]);
                        let at = channel as isize * channel_step
                            + t0 as isize * kernel.spatial[0]
                            + t1 as isize * kernel.spatial[1];
                        let out = out.add(row * taps[2] * W);
                        pack::<I, W>(from.offset(at), (kernel.spatial[2], step), taps[2], width, out);
                    }
                }
            }
        }
    }
}
