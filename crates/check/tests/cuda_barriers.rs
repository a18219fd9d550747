//! The race detector at work on printed and on committed kernels: with any one barrier left out, some order of warps must
//! fault. A barrier that could go unnoticed is one that is not needed, or one that the detector does not understand.

use raphson_check::ptx::{Machine, Module, Options, Order, Size};
use raphson_compile::compile;
use raphson_compile::program::Kernel;
use raphson_compile::program::Program;
use raphson_device::cuda::print::dot::{PerThread, print_with};
use raphson_device::cuda::print::{Launch, Parameter, print_program};
use raphson_graph::dtype::DType;
use raphson_graph::flat::flatten;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::value::Value;

fn program(inputs: &[Value], outputs: &[Value]) -> Program {
    let graph = flatten(inputs, outputs).unwrap().graph;
    compile(&graph, &vec![false; inputs.len()]).unwrap()
}

/// Run a launch on zeros; whether it faults.
fn faults(launch: &Launch, text: &str, program: &Program, order: Order) -> Option<String> {
    let mut machine = Machine::new(Options { order, ..Options::default() });
    let arguments: Vec<u64> = launch
        .parameters
        .iter()
        .map(|parameter| match parameter {
            Parameter::Buffer(id) => {
                let buffer = &program.buffers[id.0 as usize];
                machine.memory.upload("buffer", &vec![0; buffer.size_bytes()], buffer.dtype.size_bytes())
            }
            Parameter::ErrorWords => machine.memory.upload("error words", &[0; 16], 4),
            Parameter::Workspace => machine.memory.upload("workspace", &vec![0; launch.workspace_bytes], 4),
        })
        .collect();
    let module = Module::parse(text).unwrap();
    machine.launch(&module, &launch.entry, Size::line(launch.grid, launch.block), &arguments).err().map(|fault| fault.0)
}

/// Leave out each barrier in turn. Returns how many there are.
fn without_each_barrier(launch: &Launch, program: &Program) -> usize {
    let orders = [Order::Forward, Order::Backward, Order::Mixed(3)];
    assert_eq!(orders.iter().find_map(|&order| faults(launch, &launch.text, program, order)), None);
    let places: Vec<usize> = launch.text.match_indices("\tbar.sync 0;\n").map(|(at, _)| at).collect();
    for &place in &places {
        let mut text = launch.text.clone();
        text.replace_range(place..place + "\tbar.sync 0;\n".len(), "");
        let found = orders.iter().find_map(|&order| faults(launch, &text, program, order));
        let line = launch.text[..place].lines().count();
        assert!(found.is_some(), "{}: the barrier at line {line} is not missed:\n{}", launch.entry, launch.text);
    }
    places.len()
}

fn softmax_and_more(shape: [usize; 2], axis: usize) -> Program {
    let x = Value::input(shape.into(), DType::F32);
    let greatest = x.reduce(ReduceOp::Max, &[axis]).unwrap();
    let spread = greatest.expand_reduced(&[axis], x.shape()).unwrap();
    let sum = x.sub(&spread).unwrap().exp().unwrap().sum(&[axis]).unwrap();
    let at = x.reduce(ReduceOp::ArgMax, &[axis]).unwrap();
    program(&[x], &[greatest, sum, at])
}

#[test]
fn rows_and_columns_need_their_barriers() {
    for (shape, axis) in [([2, 2100], 1), ([600, 20], 0), ([70, 3], 0)] {
        let program = softmax_and_more(shape, axis);
        let launches = print_program(&program).unwrap();
        let n: usize = launches.iter().flatten().map(|launch| without_each_barrier(launch, &program)).sum();
        assert!(n > 0, "{shape:?}: no barriers");
    }
}

#[test]
fn products_need_their_barriers() {
    let (a, b) = (Value::input([20, 40].into(), DType::F32), Value::input([40, 20].into(), DType::F32));
    let out = a.dot(&b).unwrap();
    let program = program(&[a, b], &[out]);
    let [Kernel::Dot(dot)] = &program.kernels[..] else { panic!("not one product") };
    for per_thread in [PerThread::One, PerThread::Two, PerThread::Four, PerThread::Eight] {
        let launch = print_with(dot, per_thread).unwrap().unwrap();
        assert_eq!(without_each_barrier(&launch, &program), 2);
    }
}

#[test]
fn scatter_add_needs_its_barriers() {
    let (updates, indices) = (Value::input([600, 3].into(), DType::F32), Value::input([600].into(), DType::I32));
    let out = updates.scatter_add(&indices, 0, 50).unwrap();
    let program = program(&[updates, indices], &[out]);
    let launches = print_program(&program).unwrap();
    let n: usize = launches.iter().flatten().map(|launch| without_each_barrier(launch, &program)).sum();
    assert_eq!(n, 2);
}

#[test]
fn sorting_needs_its_barriers() {
    let x = Value::input([30, 20].into(), DType::F32);
    let order = x.argsort(1, false).unwrap();
    let program = program(&[x], &[order]);
    let launches = print_program(&program).unwrap();
    let n: usize = launches.iter().flatten().map(|launch| without_each_barrier(launch, &program)).sum();
    assert_eq!(n, 2);
}

/// What a committed kernel is given to compute from ones: where every result is 72.
struct Task {
    /// Elements of the two operands and of the result.
    sizes: [u64; 3],
    /// What follows the three addresses.
    arguments: Vec<u64>,
    tiles: u64,
}

/// A product of 40 × 72 and 72 × 36: one ragged tile, or a few.
fn product(entry: &str) -> Task {
    let (m, n, k) = (40u64, 36u64, 72u64);
    // Strides of the layout that the name tells: n = rows are contiguous, t = columns are.
    let [left_kind, right_kind] = entry.as_bytes()[entry.len() - 2..] else { panic!("{entry}") };
    let (left_row, left_column) = if left_kind == b't' { (1, m) } else { (k, 1) };
    let (right_row, right_column) = if right_kind == b't' { (1, k) } else { (n, 1) };
    let mut arguments = vec![m, n, k, left_row, left_column, right_row, right_column];
    arguments.extend([1, 0, 1, 1, 0, 0, 0, 0, 0, 0, k]);
    let tile = if entry == "dot_narrow" { 32 } else { 128 };
    Task { sizes: [m * k, k * n, m * n], arguments, tiles: m.div_ceil(tile) * n.div_ceil(tile) }
}

/// A convolution of [2, 24, 22] by [40, 24, 3]: one ragged tile.
fn convolution(entry: &str) -> Task {
    let (batch, channels, size, rows, taps, outputs) = (2u64, 24, 22, 40, 3, 20);
    let terms = channels * taps;
    let mut arguments = vec![1, 0, rows, batch * outputs, terms, terms, 0, 0, 0];
    arguments.extend([channels * size, size, terms, taps, rows * outputs, outputs]);
    arguments.extend([[1, 1, 1, 1, 1, 0, 0, 0, 0]; 2].concat());
    arguments.extend([outputs, taps, size, 1, 1, 0, 1, 1, 1]);
    arguments.extend((entry == "conv_plain").then_some(1));
    Task { sizes: [batch * channels * size, rows * terms, batch * rows * outputs], arguments, tiles: 1 }
}

/// Run a committed kernel on ones; whether it faults, and whether every result is right.
fn committed(text: &str, entry: &str, order: Order) -> Result<bool, String> {
    let task = if entry.starts_with("conv") { convolution(entry) } else { product(entry) };
    let mut machine = Machine::new(Options { order, ..Options::default() });
    let ones = |n: u64| (0..n).flat_map(|_| 1f32.to_le_bytes()).collect::<Vec<u8>>();
    let [left, right, results] = task.sizes;
    let left = machine.memory.upload("left", &ones(left), 4);
    let right = machine.memory.upload("right", &ones(right), 4);
    let out = machine.memory.reserve("out", (results * 4) as usize, 4);
    let arguments = [vec![left, right, out], task.arguments].concat();
    let size = Size { grid: [task.tiles as u32, 1, 1], block: [256, 1, 1], shared_bytes: 61_440 };
    let module = Module::parse(text).map_err(|fault| fault.0)?;
    machine.launch(&module, entry, size, &arguments).map_err(|fault| fault.0)?;
    let got = machine.memory.download(out).ok_or("no memory")?;
    Ok(got.as_chunks::<4>().0.iter().all(|&bytes| f32::from_le_bytes(bytes) == 72.0))
}

#[test]
fn committed_kernels_need_their_barriers_and_waits() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../device/src/cuda/kernels");
    let orders = [Order::Forward, Order::Backward, Order::Mixed(3)];
    let mut n_kernels = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let entry = path.file_stem().unwrap().to_str().unwrap().to_string();
        // Those of attention have a test of their own.
        let is_elsewhere = entry.ends_with("_sum") || entry.starts_with("attention");
        if path.extension().is_none_or(|extension| extension != "ptx") || is_elsewhere {
            continue;
        }
        n_kernels += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for order in orders {
            assert_eq!(committed(&text, &entry, order), Ok(true), "{entry} in {order:?}");
        }
        // The last wait is for groups that are empty.
        let waits = text.match_indices("cp.async.wait_group").map(|(at, _)| at).collect::<Vec<_>>();
        let barriers = text.match_indices("bar.sync").map(|(at, _)| at);
        for at in barriers.chain(waits.into_iter().rev().skip(1)) {
            let mut without = text.clone();
            let end = at + text[at..].find(';').unwrap() + 1;
            without.replace_range(at..end, "");
            let noticed = orders.iter().any(|&order| committed(&without, &entry, order) != Ok(true));
            assert!(noticed, "{entry}: `{}` at line {} is not missed", &text[at..end], text[..at].lines().count());
        }
    }
    assert_eq!(
        n_kernels, 16,
        "every layout and walk in TF32 and split, and one product and one convolution without tensor cores"
    );
}
