//! Kernels that work in tiles of a workgroup's memory: convolutions and sorted rows, against plain loops, in every way to open the
//! device.

use super::reference::{Random, buffer, compare, from_bytes, program, rounded, run};
use super::{F32, drawn, each_way};
use raphson_compile::program::*;
use raphson_graph::dtype::{DType, Scalar};

/// Sums of a convolution by plain loops: [batch, groups, out, outputs…], for one spatial axis.
fn conv_by_hand(conv: &ConvKernel, data: &[f64], kernel: &[f64], out: &mut [f64]) {
    let axis = conv.axes[0];
    let at = |view: &ConvView, [a, b, c, x]: [usize; 4]| {
        let [sa, sb, sc] = view.leading;
        (view.offset + a as i64 * sa + b as i64 * sb + c as i64 * sc + x as i64 * view.spatial[0]) as usize
    };
    for b in 0..conv.batch {
        for g in 0..conv.groups {
            for o in 0..conv.channels_out {
                for y in 0..axis.outputs {
                    let mut sum = 0.0;
                    for i in 0..conv.channels_in {
                        for t in 0..axis.taps {
                            let x = (y * axis.stride + t * axis.dilation) as i64 - axis.low;
                            if (0..axis.size as i64).contains(&x) {
                                sum += data[at(&conv.data, [b, g, i, x as usize])]
                                    * kernel[at(&conv.kernel, [g, o, i, t])];
                            }
                        }
                    }
                    out[at(&conv.out, [b, g, o, y])] = sum;
                }
            }
        }
    }
}

/// Layers, a result that fills every other element, and sums long enough to be cut; along outputs and along taps.
#[test]
fn tiled_convolutions() {
    let mut random = Random(33);
    let axis = |size, taps, outputs, stride, dilation, low| ConvAxis { size, taps, outputs, stride, dilation, low };
    let cases = [
        ([3, 2, 9, 33], axis(20, 3, 20, 1, 1, 1), 1),
        ([2, 1, 17, 20], axis(31, 4, 16, 2, 3, 3), 2),
        ([5, 1, 24, 40], axis(18, 18, 3, 1, 1, 1), 1),
    ];
    for (_, device) in each_way() {
        for (at, ([batch, groups, channels_in, channels_out], axis, spread)) in cases.into_iter().enumerate() {
            let dtype = [F32, DType::I32, F32][at];
            let dense = |buffer: u32, sizes: [usize; 4]| ConvView {
                buffer: BufferId(buffer),
                offset: 0,
                leading: [sizes[1] * sizes[2] * sizes[3], sizes[2] * sizes[3], sizes[3]].map(|n| n as i64),
                spatial: vec![1],
            };
            let sizes = [
                [batch, groups, channels_in, axis.size],
                [groups, channels_out, channels_in, axis.taps],
                [batch, groups, channels_out, spread * axis.outputs],
            ];
            let mut out = dense(2, sizes[2]);
            out.spatial = vec![spread as i64];
            let (data, kernel) = (dense(0, sizes[0]), dense(1, sizes[1]));
            let axes = vec![axis];
            let conv = ConvKernel { dtype, batch, groups, channels_in, channels_out, axes, data, kernel, out };
            let [n_data, n_kernel, n_out] = sizes.map(|sizes| sizes.iter().product::<usize>());
            let buffers = [
                buffer(dtype, n_data, Place::Input(0)),
                buffer(dtype, n_kernel, Place::Input(1)),
                buffer(dtype, n_out, Place::Output(0)),
            ];
            let mut draw = |n| (0..n).map(|_| rounded(drawn(dtype, &mut random) / 8.0, dtype).trunc()).collect();
            let (data, kernel): (Vec<f64>, Vec<f64>) = (draw(n_data), draw(n_kernel));
            let mut want = vec![0.0; n_out];
            conv_by_hand(&conv, &data, &kernel, &mut want);
            let fill = Kernel::Fill { buffer: BufferId(2), value: Scalar::of(0.0, dtype) };
            let program = program(&buffers, vec![fill, Kernel::Conv(conv)], 0);
            let got = run(&device, &program, &[data, kernel, vec![]]).unwrap();
            compare(&from_bytes(&got[0], dtype), &want, dtype, 1e-5, &format!("convolution {at}"));
        }
    }
}

/// Short rows that share a workgroup, and long ones that are merged.
#[test]
fn sorted_rows() {
    let mut random = Random(35);
    for (_, device) in each_way() {
        for (dtype, [rows, length], descending) in [
            (F32, [70, 20], true),
            (F32, [2, 2500], false),
            (DType::U32, [1, 5000], true),
            (DType::Bool, [3, 1030], false),
        ] {
            let values: Vec<f64> = (0..rows * length)
                .map(|i| if dtype == F32 && i % 50 == 7 { f64::NAN } else { drawn(dtype, &mut random) })
                .map(|value| rounded(value, dtype))
                .collect();
            let mut want = Vec::new();
            for row in values.chunks(length) {
                let mut order: Vec<usize> = (0..length).collect();
                order.sort_by(|&a, &b| {
                    let by_value = if descending { row[b].partial_cmp(&row[a]) } else { row[a].partial_cmp(&row[b]) };
                    by_value.unwrap_or_else(|| row[a].is_nan().cmp(&row[b].is_nan()))
                });
                want.extend(order.iter().map(|&position| position as f64));
            }
            let buffers =
                [buffer(dtype, rows * length, Place::Input(0)), buffer(DType::I32, rows * length, Place::Output(0))];
            let sort = ArgsortKernel { dtype, rows, length, descending, data: BufferId(0), out: BufferId(1) };
            let program = program(&buffers, vec![Kernel::Argsort(sort)], 0);
            let got = run(&device, &program, &[values, vec![]]).unwrap();
            compare(&from_bytes(&got[0], DType::I32), &want, DType::I32, 0.0, &format!("{rows}×{length} of {dtype}"));
        }
    }
}
