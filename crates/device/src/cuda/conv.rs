//! Convolutions by the compiled kernels of `kernels/conv.cu` and `kernels/conv_tensor.cu`: which are computed so, by which
//! kernel, with what arguments. The others — of other dtypes, or too small to fill a tile — become sums, as
//! `raphson_compile::direct` makes them.

use super::dot::{MOST_BATCHES, Means, pieces, splitting_pays};
use super::plan::{Argument, Entry, Launch, Source, kernel};
use raphson_compile::program::{ConvAxis, ConvKernel, ConvView};
use raphson_graph::dtype::DType;

/// Rows (channels of the result) and columns (positions) of a tile; terms of a step are as many for all kernels.
const PLAIN: (usize, usize) = (64, 64);
const TENSOR: (usize, usize) = (64, 128);
const STEP: usize = 16;
/// Dynamic shared memory of the tensor-core kernels: what is known of 128 columns and of the terms of three steps, then three
/// stages of 64 × 20 floats of the kernel and 16 × 136 or 128 × 20 of patches.
const TABLES_BYTES: u32 = 128 * 20 + 3 * 16 * 20;
const OUTPUTS_SHARED_BYTES: u32 = TABLES_BYTES + 3 * (64 * 20 + 16 * 136) * 4;
const TAPS_SHARED_BYTES: u32 = TABLES_BYTES + 3 * (64 * 20 + 128 * 20) * 4;
/// Offsets within a group, coordinates and sizes stay below this.
const MOST: i128 = 1 << 29;

/// A convolution as a product of matrices.
struct Product {
    rows: usize,
    columns: usize,
    terms: usize,
    /// The last three spatial axes; those that there are not have one output, one tap and one element.
    axes: [ConvAxis; 3],
}

impl Product {
    fn of(conv: &ConvKernel) -> Product {
        let one = ConvAxis { size: 1, taps: 1, outputs: 1, stride: 1, dilation: 1, low: 0 };
        let mut axes = [one; 3];
        let n = conv.axes.len();
        axes[3 - n..].copy_from_slice(&conv.axes);
        let (rows, columns, terms) = conv.as_product();
        Product { rows, columns, terms, axes }
    }

    fn tiles(&self, tile: (usize, usize)) -> usize {
        self.rows.div_ceil(tile.0) * self.columns.div_ceil(tile.1)
    }
}

/// Strides of the three axes of `Product`.
fn spatial(view: &ConvView) -> [i64; 3] {
    let mut strides = [0; 3];
    strides[3 - view.spatial.len()..].copy_from_slice(&view.spatial);
    strides
}

/// Whether a compiled kernel computes it: f32, one step of terms at least, tiles that are at least an eighth full (else the
/// sums, which read every element from the cache for each multiplication, are as fast), and offsets that 32 bits hold.
pub fn is_compiled(conv: &ConvKernel) -> bool {
    let product = Product::of(conv);
    let room = product.tiles(PLAIN) * PLAIN.0 * PLAIN.1;
    let fills = 8 * product.rows * product.columns >= room && product.terms >= STEP;
    conv.dtype == DType::F32 && conv.groups > 0 && conv.axes.len() <= 3 && fills && is_narrow(conv, &product)
}

fn is_narrow(conv: &ConvKernel, product: &Product) -> bool {
    let wide = |n: usize| n as i128;
    let reach = |view: &ConvView, leading: [(usize, usize); 2], spatial: &dyn Fn(&ConvAxis) -> i128| -> i128 {
        let axes = conv.axes.iter().zip(&view.spatial).map(|(axis, &stride)| spatial(axis) * i128::from(stride).abs());
        let leading = leading.map(|(axis, size)| wide(size) * i128::from(view.leading[axis]).abs());
        axes.chain(leading).sum()
    };
    // The greatest coordinate, inside or outside.
    let farthest = |axis: &ConvAxis| {
        wide(axis.outputs) * wide(axis.stride) + wide(axis.taps) * wide(axis.dilation) + i128::from(axis.low).abs()
    };
    let sizes = [product.rows, product.columns, product.terms, product.rows * product.columns].map(wide);
    let coordinates = conv.axes.iter().map(|axis| farthest(axis).max(wide(axis.size)));
    let reaches = [
        reach(&conv.data, [(0, conv.batch), (2, conv.channels_in)], &farthest),
        reach(&conv.kernel, [(1, conv.channels_out), (2, conv.channels_in)], &|axis| wide(axis.taps)),
        reach(&conv.out, [(0, conv.batch), (2, conv.channels_out)], &|axis| wide(axis.outputs)),
    ];
    sizes.into_iter().chain(coordinates).chain(reaches).all(|n| n < MOST)
}

/// Whether neighbouring terms rather than neighbouring positions lie next to each other in the data: the longer run of the
/// last axis whose steps are short.
fn is_along_terms(product: &Product) -> bool {
    let axis = &product.axes[2];
    (axis.taps, axis.stride) > (axis.outputs, axis.dilation)
}

/// The launches of a convolution that `is_compiled`.
pub fn plan(conv: &ConvKernel, means: &Means<'_>) -> Vec<Entry> {
    let product = Product::of(conv);
    let along_terms = is_along_terms(&product);
    let on_tensor_cores = means.gpu.capability >= (8, 0) && (means.tf32 || splitting_pays(means.gpu));
    let (source, tile, shared_bytes) = match (on_tensor_cores, along_terms, means.tf32) {
        (false, _, _) => (kernel!("conv_plain"), PLAIN, 0),
        (true, false, true) => (kernel!("conv_tf32_outputs"), TENSOR, OUTPUTS_SHARED_BYTES),
        (true, true, true) => (kernel!("conv_tf32_taps"), TENSOR, TAPS_SHARED_BYTES),
        (true, false, false) => (kernel!("conv_split_outputs"), TENSOR, OUTPUTS_SHARED_BYTES),
        (true, true, false) => (kernel!("conv_split_taps"), TENSOR, TAPS_SHARED_BYTES),
    };
    let tiles = product.tiles(tile);
    let (n_pieces, terms) = pieces(product.terms, tiles * conv.groups, STEP, means.gpu);
    let count = conv.groups * product.rows * product.columns;
    let at = |view: &ConvView| Argument::Buffer { buffer: view.buffer, offset_bytes: 4 * view.offset };
    let target = if n_pieces > 1 { Argument::Workspace } else { at(&conv.out) };
    let mut launches: Vec<Launch> = (0..conv.groups)
        .step_by(MOST_BATCHES)
        .map(|first| {
            let mut arguments = vec![at(&conv.data), at(&conv.kernel), target];
            arguments.extend(shape(conv, &product, first, terms));
            if !on_tensor_cores {
                arguments.push(Argument::Value(u64::from(along_terms)));
            }
            Launch {
                source: source.clone(),
                grid: [tiles as u32, MOST_BATCHES.min(conv.groups - first) as u32, n_pieces as u32],
                block: 256,
                shared_bytes,
                arguments,
                workspace_bytes: if n_pieces > 1 { 4 * n_pieces * count } else { 0 },
            }
        })
        .collect();
    if n_pieces > 1 {
        let mut arguments = vec![Argument::Workspace, at(&conv.kernel), at(&conv.out)];
        arguments.extend(shape(conv, &product, 0, terms));
        arguments.push(Argument::Value(n_pieces as u64));
        launches.push(Launch {
            source: kernel!("conv_sum"),
            grid: [count.div_ceil(256).min(4096) as u32, 1, 1],
            block: 256,
            shared_bytes: 0,
            arguments,
            workspace_bytes: 0,
        });
    }
    launches.into_iter().map(Entry::Launch).collect()
}

/// In the order of `CONV_PARAMETERS` in `kernels/conv.cuh`, behind the three addresses.
fn shape(conv: &ConvKernel, product: &Product, first_group: usize, terms: usize) -> Vec<Argument> {
    let (data, kernel, out) = (&conv.data, &conv.kernel, &conv.out);
    let mut values: Vec<i64> = [conv.groups, first_group, product.rows, product.columns, product.terms, terms]
        .map(|size| size as i64)
        .into_iter()
        .chain([data.leading[1], kernel.leading[0], out.leading[1], data.leading[0], data.leading[2]])
        .chain([kernel.leading[1], kernel.leading[2], out.leading[0], out.leading[2]])
        .collect();
    let (of_data, of_kernel, of_out) = (spatial(data), spatial(kernel), spatial(out));
    for (at, axis) in product.axes.iter().enumerate() {
        values.extend([axis.outputs, axis.taps, axis.size, axis.stride, axis.dilation].map(|n| n as i64));
        values.extend([axis.low, of_data[at], of_kernel[at], of_out[at]]);
    }
    values.into_iter().map(|value| Argument::Value(value as u64)).collect()
}
