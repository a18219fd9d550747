//! The plain product in PTX with every size of tile, over ragged sizes, transposed and repeated operands.

use raphson_check::draw::Generator;
use raphson_check::ptx::{Machine, Module, Options, Order, Size};
use raphson_check::runner::device::{from_bytes, to_bytes};
use raphson_compile::program::{BufferId, DotKernel, MatrixView};
use raphson_device::cuda::print::dot::{PerThread, print_with};
use raphson_graph::dtype::DType;

/// How the operands lie in memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    left_transposed: bool,
    right_transposed: bool,
    /// Every batch reads the same right matrix.
    shared_right: bool,
}

fn kernel(dtype: DType, batch: usize, [m, k, n]: [usize; 3], layout: Layout) -> DotKernel {
    let matrix = |buffer, rows: usize, columns: usize, transposed: bool, shared: bool| MatrixView {
        buffer: BufferId(buffer),
        offset: 0,
        batch: vec![if shared { 0 } else { (rows * columns) as i64 }],
        rows: if transposed { 1 } else { columns as i64 },
        columns: if transposed { rows as i64 } else { 1 },
    };
    DotKernel {
        dtype,
        batch: vec![batch],
        m,
        k,
        n,
        left: matrix(0, m, k, layout.left_transposed, false),
        right: matrix(1, k, n, layout.right_transposed, layout.shared_right),
        out: BufferId(2),
    }
}

fn element(values: &[f64], view: &MatrixView, batch: usize, row: usize, column: usize) -> f64 {
    let at = view.offset + batch as i64 * view.batch[0] + row as i64 * view.rows + column as i64 * view.columns;
    values[at as usize]
}

/// The largest error of the printed kernel.
fn error(kernel: &DotKernel, per_thread: PerThread, order: Order) -> f64 {
    let mut generator = Generator::named(&format!("{kernel:?}"));
    let batch = kernel.batch[0];
    let mut draw = |n: usize| -> Vec<f64> {
        (0..n).map(|_| f64::from((generator.uniform(-8.0, 8.0) as f32 * 4.0).round() / 4.0)).collect()
    };
    let whole = |values: Vec<f64>| -> Vec<f64> {
        if kernel.dtype.is_float() { values } else { values.iter().map(|v| v.abs().round()).collect() }
    };
    let left = whole(draw(batch * kernel.m * kernel.k));
    let right = whole(draw(batch * kernel.k * kernel.n));
    let launch = print_with(kernel, per_thread).unwrap().unwrap();
    let module = Module::parse(&launch.text).unwrap();
    let mut machine = Machine::new(Options { order, ..Options::default() });
    let grain = kernel.dtype.size_bytes();
    let n_out = batch * kernel.m * kernel.n;
    let addresses = [
        machine.memory.upload("left", &to_bytes(&left, kernel.dtype), grain),
        machine.memory.upload("right", &to_bytes(&right, kernel.dtype), grain),
        machine.memory.reserve("out", n_out * grain, grain),
    ];
    machine.launch(&module, &launch.entry, Size::line(launch.grid, launch.block), &addresses).unwrap();
    let got = from_bytes(machine.memory.download(addresses[2]).unwrap(), kernel.dtype);
    let mut worst = 0f64;
    for (at, got) in got.iter().enumerate() {
        let (b, row, column) = (at / kernel.n / kernel.m, at / kernel.n % kernel.m, at % kernel.n);
        let term = |i| element(&left, &kernel.left, b, row, i) * element(&right, &kernel.right, b, i, column);
        let want: f64 = (0..kernel.k).map(term).sum();
        worst = worst.max((got - want).abs());
    }
    worst
}

#[test]
fn every_tile_on_every_layout() {
    let layouts = [(false, false), (true, false), (false, true), (true, true)];
    for per_thread in [PerThread::One, PerThread::Two, PerThread::Four, PerThread::Eight] {
        let tile = 16 * per_thread as usize;
        for (dtype, allowed) in [(DType::F32, 1e-3), (DType::F64, 0.0), (DType::I32, 0.0), (DType::U32, 0.0)] {
            if dtype == DType::F64 && per_thread == PerThread::Eight {
                continue;
            }
            // Layouts, ragged and whole sizes, and orders of warps in turn.
            for (turn, (left_transposed, right_transposed)) in layouts.into_iter().enumerate() {
                let layout = Layout { left_transposed, right_transposed, shared_right: turn % 2 == 1 };
                let order = [Order::Forward, Order::Backward, Order::Mixed(7), Order::Mixed(8)][turn];
                for sizes in [[tile + 3, 21, tile / 2 + 1], [tile, 32, 2 * tile]] {
                    let kernel = kernel(dtype, 2, sizes, layout);
                    let error = error(&kernel, per_thread, order);
                    assert!(error <= allowed, "{per_thread:?} {dtype} {sizes:?} {layout:?}: error {error}");
                }
            }
        }
    }
}

#[test]
fn small_and_empty_sizes() {
    let layout = Layout { left_transposed: false, right_transposed: false, shared_right: false };
    for sizes in [[1, 1, 1], [1, 40, 1], [5, 0, 3], [1, 17, 300], [300, 2, 1]] {
        for per_thread in [PerThread::One, PerThread::Four] {
            let error = error(&kernel(DType::F64, 3, sizes, layout), per_thread, Order::Forward);
            assert_eq!(error, 0.0, "{sizes:?}");
        }
    }
    assert_eq!(print_with(&kernel(DType::F32, 0, [4, 4, 4], layout), PerThread::One).unwrap(), None);
}
