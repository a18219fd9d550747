//! Convolutions without dilated data. Where the data is dilated (the gradient of a strided convolution), most products
//! would be with zeros between its elements; but outputs a period apart meet the same taps, so each phase of that period is a
//! plain convolution of fewer taps, which writes every so many outputs.

use crate::program::{BufferId, ConvAxis, ConvKernel, ConvView};
use raphson_graph::dtype::DType;
use raphson_graph::op::conv::{LEADING, Window};

/// A convolution as the graph has it, with the places of its operands.
pub struct Whole<'a> {
    pub dtype: DType,
    pub data_shape: &'a [usize],
    pub kernel_shape: &'a [usize],
    pub out_shape: &'a [usize],
    pub data: ConvView,
    pub kernel: ConvView,
    pub out: ConvView,
}

/// A view from the strides of all axes.
pub fn view(buffer: BufferId, offset: i64, strides: &[i64]) -> ConvView {
    let leading = [strides[0], strides[1], strides[2]];
    ConvView { buffer, offset, leading, spatial: strides[LEADING..].to_vec() }
}

/// The outputs `first, first + period, …` of one axis, and the taps `tap, tap + step, …` that they meet.
struct Phase {
    axis: ConvAxis,
    first: usize,
    period: usize,
    tap: usize,
    step: usize,
}

/// The kernels that together compute it; outputs that meet no tap are in none of them.
pub fn parts(whole: &Whole, windows: &[Window]) -> Vec<ConvKernel> {
    if whole.data_shape.contains(&0) || whole.kernel_shape.contains(&0) {
        return Vec::new();
    }
    let mut parts = vec![start(whole)];
    for (axis, window) in windows.iter().enumerate() {
        let sizes = [whole.data_shape, whole.kernel_shape, whole.out_shape].map(|shape| shape[LEADING + axis]);
        let phases = phases(window, sizes);
        parts = parts.iter().flat_map(|part| phases.iter().map(move |phase| restricted(part, axis, phase))).collect();
    }
    parts
}

/// Elements that the kernels write.
pub fn covered(parts: &[ConvKernel]) -> usize {
    let written = |part: &ConvKernel| {
        part.batch * part.groups * part.channels_out * part.axes.iter().map(|axis| axis.outputs).product::<usize>()
    };
    parts.iter().map(written).sum()
}

fn start(whole: &Whole) -> ConvKernel {
    ConvKernel {
        dtype: whole.dtype,
        batch: whole.data_shape[0],
        groups: whole.data_shape[1],
        channels_in: whole.data_shape[2],
        channels_out: whole.kernel_shape[1],
        axes: Vec::new(),
        data: whole.data.clone(),
        kernel: whole.kernel.clone(),
        out: whole.out.clone(),
    }
}

/// The part with one more spatial axis, of which only the phase's outputs and taps are left.
fn restricted(part: &ConvKernel, axis: usize, phase: &Phase) -> ConvKernel {
    let mut part = part.clone();
    part.out.offset += phase.first as i64 * part.out.spatial[axis];
    part.out.spatial[axis] *= phase.period as i64;
    part.kernel.offset += phase.tap as i64 * part.kernel.spatial[axis];
    part.kernel.spatial[axis] *= phase.step as i64;
    part.axes.push(phase.axis);
    part
}

/// With stride s, dilations d (data) and e (kernel): output y meets tap t where d divides y·s + t·e − low. That depends on
/// y modulo d/gcd(d, s) alone, and holds for every (d/gcd(d, e))-th tap, if for any.
fn phases(window: &Window, [size, taps, outputs]: [usize; 3]) -> Vec<Phase> {
    let d = window.data_dilation;
    let period = d / gcd(d, window.stride);
    let step = d / gcd(d, window.kernel_dilation);
    let phase = |first: usize| {
        let at = |tap: usize| (first * window.stride + tap * window.kernel_dilation) as i64 - window.low;
        let tap = (0..step.min(taps)).find(|&tap| at(tap) % d as i64 == 0)?;
        let axis = ConvAxis {
            size,
            taps: (taps - tap).div_ceil(step),
            outputs: (outputs - first).div_ceil(period),
            stride: window.stride * period / d,
            dilation: window.kernel_dilation * step / d,
            low: -at(tap) / d as i64,
        };
        Some(Phase { axis, first, period, tap, step })
    };
    (0..period.min(outputs)).filter_map(phase).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every meeting of output, tap and element, as the window defines it and as the phases have it.
    #[test]
    fn phases_meet_what_the_window_meets() {
        for (stride, low, d, e) in [(1, 0, 1, 1), (2, 1, 1, 3), (1, 2, 2, 1), (1, -3, 3, 2), (2, 5, 4, 6), (3, 0, 6, 4)]
        {
            let window = Window { stride, low, data_dilation: d, kernel_dilation: e };
            let (size, taps, outputs) = (5, 4, 11);
            let mut want = Vec::new();
            for y in 0..outputs {
                want.extend((0..taps).filter_map(|t| window.meets(y, t, size).map(|x| (y, t, x))));
            }
            let mut found = Vec::new();
            for phase in phases(&window, [size, taps, outputs]) {
                let axis = phase.axis;
                for y in 0..axis.outputs {
                    for t in 0..axis.taps {
                        let x = (y * axis.stride + t * axis.dilation) as i64 - axis.low;
                        if (0..size as i64).contains(&x) {
                            found.push((phase.first + y * phase.period, phase.tap + t * phase.step, x as usize));
                        }
                    }
                }
            }
            found.sort_unstable();
            assert_eq!(found, want, "{window:?}");
        }
    }

    #[test]
    fn a_part_without_taps_is_left_out() {
        let window = Window { stride: 1, low: 0, data_dilation: 2, kernel_dilation: 1 };
        assert_eq!(phases(&window, [3, 1, 5]).len(), 1);
        assert_eq!(phases(&window, [3, 2, 5]).len(), 2);
    }
}
