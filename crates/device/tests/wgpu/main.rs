//! The wgpu device on kernels and programs of every form, opened in several ways: with and without subgroup operations,
//! with few bindings, with checks in the shaders. Where there is no adapter the tests say so and pass. Every elementwise
//! row and every op are run on this device by the crate `raphson-check`.

#[path = "../reference/mod.rs"]
mod reference;
mod tiles;

use raphson_compile::program::*;
use raphson_device::wgpu::{Settings, Wgpu};
use raphson_device::{Device, Memory};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Code;
use raphson_graph::kernel::Prim;
use reference::{Build, Random, buffer, compare, from_bytes, program, read, run, strides, to_bytes};
use std::sync::Arc;

const F32: DType = DType::F32;

/// Open the device, or say that there is none.
fn open(settings: Settings) -> Option<Wgpu> {
    if Wgpu::adapters().is_empty() {
        println!("no wgpu adapter here: nothing is tested");
        return None;
    }
    Some(Wgpu::with_settings(settings).unwrap())
}

/// The ways to open it that print different texts.
pub fn each_way() -> Vec<(&'static str, Wgpu)> {
    let plain = Settings::default();
    let ways = [
        ("as it is", plain),
        ("without subgroups", Settings { subgroups: false, ..plain }),
        ("two bindings, checked", Settings { storage_buffers: 2, checked: true, ..plain }),
    ];
    ways.into_iter().filter_map(|(name, settings)| Some((name, open(settings)?))).collect()
}

/// Any value of a dtype.
pub fn drawn(dtype: DType, random: &mut Random) -> f64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => random.unit(),
        DType::Bool => (random.below(9) > 0).into(),
        DType::I32 | DType::U32 | DType::I64 => random.below(1000) as f64,
        DType::U8 => random.below(256) as f64,
    }
}

#[test]
fn reductions_of_every_shape() {
    let mut random = Random(11);
    let shapes: [(&[usize], &[usize]); 9] = [
        (&[7], &[5]),
        (&[3, 2], &[4, 6]),
        (&[5], &[1]),
        (&[], &[700]),
        (&[3], &[40, 50]),
        (&[1500], &[3]),
        (&[300], &[65]),
        (&[4], &[0]),
        (&[0], &[4]),
    ];
    let ops = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax];
    for (_, device) in each_way() {
        for (kept, reduced) in shapes {
            for order in [Order::Row, Order::Column] {
                for dtype in [F32, DType::I32, DType::U32, DType::Bool] {
                    if dtype != F32 && kept.len() > 1 {
                        continue;
                    }
                    let mut build = Build::new(kept, reduced, order);
                    let n = build.n_kept() * build.n_reduced();
                    let input = build.input(dtype, (0..n).map(|_| drawn(dtype, &mut random)).collect());
                    let view = build.full_view();
                    let x = build.load(input, view, Level::Full, 0);
                    for op in ops {
                        let value = build.reduce(op, x);
                        build.put(value, Level::Kept);
                    }
                    build.check(&device, 2e-6);
                }
            }
        }
    }
}

#[test]
fn nan_wins_max_min_and_argmax() {
    for (_, device) in each_way() {
        for length in [3usize, 300] {
            for order in [Order::Row, Order::Column] {
                for at in [0, length / 2, length - 1] {
                    let mut build = Build::new(&[2], &[length], order);
                    let mut data: Vec<f64> = (0..2 * length).map(|i| (i % 7) as f64 - 3.0).collect();
                    data[if order == Order::Row { at } else { 2 * at }] = f64::NAN;
                    let input = build.input(F32, data);
                    let view = build.full_view();
                    let x = build.load(input, view, Level::Full, 0);
                    for op in [ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::Sum] {
                        let value = build.reduce(op, x);
                        build.put(value, Level::Kept);
                    }
                    build.check(&device, 1e-6);
                }
            }
        }
    }
}

#[test]
fn long_sums_are_accurate() {
    for (_, device) in each_way() {
        for order in [Order::Row, Order::Column] {
            let mut build = Build::new(&[2], &[1 << 18], order);
            let input = build.input(F32, vec![0.1; 2 << 18]);
            let view = build.full_view();
            let x = build.load(input, view, Level::Full, 0);
            let sum = build.reduce(ReduceOp::Sum, x);
            build.put(sum, Level::Kept);
            // Equal elements err alike; plain f32 addition is wrong in the third digit here.
            build.check(&device, 5e-6);
        }
    }
}

/// (x − max) as e^…, divided by its sum, times a gain along the row; the maximum's position and ln Σ as kept results,
/// and the row doubled as a full result of the first pass.
fn softmax(kept: &[usize], reduced: &[usize], order: Order, random: &mut Random) -> Build {
    let mut build = Build::new(kept, reduced, order);
    let n = build.n_kept() * build.n_reduced();
    let input = build.input(F32, random.floats(n).iter().map(|v| v * 5.0).collect());
    let gain = build.input(F32, random.floats(build.n_reduced()));
    let shift = build.input(F32, random.floats(build.n_kept()));
    let (view, kept_view) = (build.full_view(), build.kept_view());
    let x = build.load(input, view, Level::Full, 0);
    let gain_view = View { offset: 0, kept: vec![0; kept.len()], reduced: strides(reduced) };
    let gain = build.load(gain, gain_view, Level::Full, 0);
    let shift = build.load(shift, kept_view, Level::Kept, 0);
    let (max, position) = (build.reduce(ReduceOp::Max, x), build.reduce(ReduceOp::ArgMax, x));
    let shifted = build.prim(Prim::Sub, &[x, max]);
    let power = build.prim(Prim::Exp, &[shifted]);
    let sum = build.reduce(ReduceOp::Sum, power);
    let y = build.prim(Prim::Div, &[power, sum]);
    let y = build.prim(Prim::Mul, &[y, gain]);
    let y = build.prim(Prim::Add, &[y, shift]);
    let log = build.prim(Prim::Log, &[sum]);
    let doubled = build.prim(Prim::Add, &[x, x]);
    build.put(y, Level::Full);
    build.put(log, Level::Kept);
    build.put(log, Level::Full);
    build.put(position, Level::Kept);
    build.put(doubled, Level::Full);
    build
}

#[test]
fn kernels_of_several_passes() {
    let mut random = Random(3);
    for (_, device) in each_way() {
        for order in [Order::Row, Order::Column] {
            for (kept, reduced) in [(&[9][..], &[12][..]), (&[3, 2], &[7, 11]), (&[300], &[40]), (&[2], &[1000])] {
                softmax(kept, reduced, order, &mut random).check(&device, 3e-6);
            }
        }
    }
}

#[test]
fn views_may_step_backwards_stand_still_and_transpose() {
    let Some(device) = open(Settings::default()) else { return };
    let mut random = Random(5);
    let mut build = Build::new(&[6, 5, 4], &[], Order::Row);
    let input = build.input(F32, random.floats(120));
    let views = [
        View { offset: 119, kept: vec![-20, -4, -1], reduced: vec![] },
        View { offset: 3, kept: vec![0, 4, 0], reduced: vec![] },
        View { offset: 0, kept: vec![1, 6, 30], reduced: vec![] },
    ];
    let loads: Vec<_> = views.iter().map(|view| build.load(input, view.clone(), Level::Full, 0)).collect();
    let sum = build.prim(Prim::Add, &[loads[0], loads[1]]);
    let product = build.prim(Prim::Mul, &[sum, loads[2]]);
    let index = build.step(Instr::Index(views[2].clone()), DType::I32, Level::Full, 0);
    let flags = build.prim(Prim::Lt, &[loads[0], loads[2]]);
    for value in [product, index, flags] {
        build.put(value, Level::Full);
    }
    build.check(&device, 1e-6);
}

/// out[b, m, n] over fresh operands of which either may lie transposed.
fn multiplied(
    dtype: DType,
    batch: &[usize],
    [m, k, n]: [usize; 3],
    transposed: [bool; 2],
    random: &mut Random,
) -> (Program, Vec<Vec<f64>>, Vec<f64>) {
    let n_batch: usize = batch.iter().product();
    let (kernel, buffers) = reference::product(dtype, batch, [m, k, n], transposed);
    let (left, right) = (&kernel.left, &kernel.right);
    let data: Vec<Vec<f64>> = buffers
        .iter()
        .map(|b| (0..b.elements).map(|_| reference::rounded(drawn(dtype, random), dtype)).collect())
        .collect();
    let mut truth = Vec::new();
    for b in 0..n_batch {
        for i in 0..m {
            for j in 0..n {
                let l = |t: usize| data[0][b * m * k + (i as i64 * left.rows + t as i64 * left.columns) as usize];
                let r = |t: usize| data[1][b * k * n + (t as i64 * right.rows + j as i64 * right.columns) as usize];
                truth.push((0..k).map(|t| l(t) * r(t)).sum());
            }
        }
    }
    (program(&buffers, vec![Kernel::Dot(kernel)], 0), data, truth)
}

#[test]
fn products_of_all_sizes_strides_and_batches() {
    let mut random = Random(8);
    let sizes = [[5, 7, 9], [17, 33, 20], [70, 40, 65], [1, 50, 90], [90, 50, 2], [6, 3, 8], [8, 0, 8], [20, 1024, 24]];
    for (_, device) in each_way() {
        for (position, size) in sizes.into_iter().enumerate() {
            let transposed = [position % 2 == 1, position % 3 == 1];
            let batch: &[usize] = if position % 4 == 1 { &[2, 3] } else { &[] };
            let dtypes: &[DType] = if position < 2 { &[F32, DType::I32, DType::U32] } else { &[F32] };
            for &dtype in dtypes {
                let (program, data, truth) = multiplied(dtype, batch, size, transposed, &mut random);
                let got = run(&device, &program, &data).unwrap();
                compare(&from_bytes(&got[0], dtype), &truth, dtype, 1e-5, &format!("{size:?} {transposed:?}"));
            }
        }
    }
}

/// A gather from, and a scatter to, [outer, axis, inner].
fn moves(dtype: DType, [outer, axis, inner]: [usize; 3], indices: &[f64]) -> (Program, usize, usize) {
    let count = indices.len();
    let (large, small) = (outer * axis * inner, outer * count * inner);
    let buffers = vec![
        buffer(dtype, large, Place::Input(0)),
        buffer(DType::I32, count, Place::Input(1)),
        buffer(dtype, small, Place::Output(0)),
        buffer(dtype, large, Place::Output(1)),
    ];
    let (index_dtype, [data, index, out, back]) = (DType::I32, [0, 1, 2, 3].map(BufferId));
    let gather = GatherKernel { dtype, index_dtype, outer, axis, inner, count, data, indices: index, out };
    let scatter =
        ScatterAddKernel { dtype, index_dtype, outer, axis, inner, count, updates: out, indices: index, out: back };
    (program(&buffers, vec![Kernel::Gather(gather), Kernel::ScatterAdd(scatter)], 0), large, small)
}

#[test]
fn gather_and_scatter_add() {
    let mut random = Random(21);
    for (_, device) in each_way() {
        for dtype in [F32, DType::I32, DType::U32] {
            for [outer, axis, inner] in [[1, 5, 3], [3, 4, 1], [2, 100, 7]] {
                let indices: Vec<f64> = (0..9).map(|_| random.below(axis) as f64).collect();
                let (program, large, _) = moves(dtype, [outer, axis, inner], &indices);
                let data: Vec<f64> = (0..large).map(|_| reference::rounded(drawn(dtype, &mut random), dtype)).collect();
                let (mut gathered, mut scattered) = (Vec::new(), vec![0.0; large]);
                for o in 0..outer {
                    for &index in &indices {
                        for i in 0..inner {
                            let at = (o * axis + index as usize) * inner + i;
                            gathered.push(data[at]);
                            scattered[at] += data[at];
                        }
                    }
                }
                let got = run(&device, &program, &[data, indices.clone(), vec![], vec![]]).unwrap();
                compare(&from_bytes(&got[0], dtype), &gathered, dtype, 0.0, "gather");
                compare(&from_bytes(&got[1], dtype), &scattered, dtype, 1e-6, "scatter");
            }
        }
    }
}

#[test]
fn an_index_outside_its_axis_is_named_and_the_device_lives_on() {
    for (_, device) in each_way() {
        for bad in [7.0, -1.0] {
            let (program, large, _) = moves(F32, [1, 7, 2], &[0.0, 6.0, bad, 3.0]);
            let data = [vec![1.0; large], vec![0.0, 6.0, bad, 3.0], vec![], vec![]];
            let error = run(&device, &program, &data).unwrap_err();
            assert_eq!((error.code, error.op.as_str()), (Code::Index, "gather"));
            assert_eq!(error.message, format!("index {bad} is outside an axis of size 7; use 0 to 6"));
            let good = [vec![1.0; large], vec![0.0, 6.0, 5.0, 3.0], vec![], vec![]];
            assert!(run(&device, &program, &good).is_ok());
        }
    }
}

#[test]
fn bools_are_bytes_outside_and_words_inside() {
    for (_, device) in each_way() {
        let n = 1003;
        let mut random = Random(9);
        let bits: Vec<f64> = (0..n).map(|_| f64::from(random.below(2) as u32)).collect();
        let others: Vec<f64> = (0..n).map(|_| f64::from(random.below(2) as u32)).collect();
        let buffers = vec![
            buffer(DType::Bool, n, Place::Input(0)),
            buffer(DType::Bool, n, Place::Input(1)),
            buffer(DType::Bool, n, Place::Arena(0)),
            buffer(DType::Bool, n, Place::InPlace { input: 0, output: 0 }),
            buffer(DType::Bool, n, Place::Output(1)),
        ];
        let view = |backwards: bool| {
            let (offset, step) = if backwards { (n as i64 - 1, -1) } else { (0, 1) };
            View { offset, kept: vec![step], reduced: vec![] }
        };
        let kernel = |prim: Prim, from: [(u32, bool); 2], to: u32| {
            let step = |instr: Instr| Step { instr, dtype: DType::Bool, level: Level::Full, pass: 0 };
            let load = |(id, backwards)| step(Instr::Load { buffer: BufferId(id), view: view(backwards) });
            let args = [0, 1, 0].map(raphson_graph::kernel::Reg);
            let store = Instr::Store { buffer: BufferId(to), view: view(false), value: raphson_graph::kernel::Reg(2) };
            let steps = vec![load(from[0]), load(from[1]), step(Instr::Prim { prim, args }), step(store)];
            Kernel::Row(RowKernel { kept: vec![n], reduced: vec![], order: Order::Row, steps })
        };
        let kernels = vec![
            kernel(Prim::Xor, [(0, false), (1, true)], 2),
            kernel(Prim::Or, [(2, false), (0, false)], 3),
            kernel(Prim::And, [(3, true), (2, false)], 4),
        ];
        let mut program = program(&buffers, kernels, 1024);
        program.inputs = vec![BufferId(0), BufferId(1)];
        let xor: Vec<bool> = (0..n).map(|i| bits[i] != others[n - 1 - i]).collect();
        let or: Vec<bool> = (0..n).map(|i| xor[i] || bits[i] != 0.0).collect();
        let and: Vec<bool> = (0..n).map(|i| or[n - 1 - i] && xor[i]).collect();
        let got = run(&device, &program, &[bits, others]).unwrap();
        let bytes = |values: &[bool]| values.iter().map(|&b| u8::from(b)).collect::<Vec<u8>>();
        assert_eq!(got, [bytes(&or), bytes(&and)]);
    }
}

#[test]
fn more_buffers_than_can_be_bound() {
    // 14 inputs, two of them updated in place, 6 more outputs.
    let mut random = Random(2);
    for storage_buffers in [2, 8, u32::MAX] {
        let Some(device) = open(Settings { storage_buffers, ..Settings::default() }) else { return };
        let mut build = Build::new(&[130], &[], Order::Row);
        let view = build.full_view();
        let kept = [build.in_place(F32, random.floats(130)), build.in_place(F32, random.floats(130))];
        let inputs: Vec<BufferId> = (0..12).map(|_| build.input(F32, random.floats(130))).collect();
        let all: Vec<_> = kept.iter().chain(&inputs).map(|&id| build.load(id, view.clone(), Level::Full, 0)).collect();
        let sums: Vec<_> = (0..8).map(|i| build.prim(Prim::Add, &[all[i], all[i + 6]])).collect();
        for (i, sum) in sums.into_iter().enumerate() {
            let mixed = build.prim(Prim::Mul, &[sum, all[(i * 5) % 14]]);
            match kept.get(i) {
                Some(&id) => build.store(id, view.clone(), mixed, Level::Full),
                None => build.put(mixed, Level::Full),
            }
        }
        build.check(&device, 1e-6);
    }
}

/// A kernel too long for one shader: 90 sines of running sums, some stored on the way, one over an input.
#[test]
fn long_kernels_are_cut_and_stay_right() {
    let Some(device) = open(Settings::default()) else { return };
    for (kept, reduced, order) in
        [(&[60][..], &[][..], Order::Row), (&[5], &[12], Order::Row), (&[12], &[5], Order::Column)]
    {
        let mut random = Random(6);
        let mut build = Build::new(kept, reduced, order);
        let x = build.input(F32, random.floats(60));
        let y = build.in_place(F32, random.floats(60));
        let view = build.full_view();
        let (x, old) = (build.load(x, view.clone(), Level::Full, 0), build.load(y, view.clone(), Level::Full, 0));
        let mut value = x;
        let mut on_the_way = Vec::new();
        for i in 0..90 {
            let sum = build.prim(Prim::Add, &[value, if i % 3 == 0 { old } else { x }]);
            value = build.prim(Prim::Sin, &[sum]);
            if i % 40 == 10 {
                on_the_way.push(value);
            }
        }
        if !reduced.is_empty() {
            let total = build.reduce(ReduceOp::Sum, value);
            build.put(total, Level::Kept);
        }
        build.store(y, view, on_the_way[0], Level::Full);
        on_the_way.into_iter().chain([value, old]).for_each(|value| build.put(value, Level::Full));
        build.check(&device, 2e-5);
    }
}

#[test]
fn a_donated_input_is_reused_and_a_shared_one_copied() {
    let Some(device) = open(Settings::default()) else { return };
    let mut build = Build::new(&[100], &[], Order::Row);
    let id = build.in_place(F32, vec![1.5; 100]);
    let view = build.full_view();
    let x = build.load(id, view.clone(), Level::Full, 0);
    let doubled = build.prim(Prim::Add, &[x, x]);
    build.store(id, view, doubled, Level::Full);
    let mut loaded = device.load(Arc::new(build.program())).unwrap();
    let values = |memory: &Memory| from_bytes(&read(&device, memory).unwrap(), F32);
    let x = device.upload(&to_bytes(&[1.5; 100], F32)).unwrap();
    let y = loaded.run(vec![x.clone()]).unwrap();
    assert_eq!((values(&x), values(&y[0])), (vec![1.5; 100], vec![3.0; 100]));
    assert_eq!(device.usage().live_bytes - arena_bytes(&device, &build), 800);
    let z = loaded.run(vec![x]).unwrap();
    assert_eq!(values(&z[0]), vec![3.0; 100]);
    // It took over the memory of its input.
    assert_eq!(device.usage().live_bytes - arena_bytes(&device, &build), 800);
}

/// Bytes that a loaded program holds.
fn arena_bytes(device: &Wgpu, build: &Build) -> usize {
    let before = device.usage().live_bytes;
    let loaded = device.load(Arc::new(build.program())).unwrap();
    let bytes = device.usage().live_bytes - before;
    drop(loaded);
    bytes
}

#[test]
fn running_again_and_again_takes_no_more_memory() {
    let Some(device) = open(Settings::default()) else { return };
    let build = softmax(&[30], &[40], Order::Row, &mut Random(1));
    let mut loaded = device.load(Arc::new(build.program())).unwrap();
    let inputs: Vec<Memory> = build
        .program()
        .inputs
        .iter()
        .map(|id| device.upload(&to_bytes(&build.data[id.0 as usize], F32)).unwrap())
        .collect();
    let total = |usage: raphson_device::Usage| usage.live_bytes + usage.pooled_bytes;
    loaded.run(inputs.clone()).unwrap();
    let first = device.usage();
    for _ in 0..50 {
        loaded.run(inputs.clone()).unwrap();
    }
    assert_eq!(total(device.usage()), total(first));
    device.trim();
    assert_eq!(device.usage().pooled_bytes, 0);
}

#[test]
fn more_workgroups_than_one_dimension_holds() {
    let Some(device) = open(Settings::default()) else { return };
    let n = 65_536 * 256 + 5;
    let buffers = [buffer(DType::U32, n, Place::Output(0))];
    let fill = Kernel::Fill { buffer: BufferId(0), value: Scalar::Int(7) };
    let got = run(&device, &program(&buffers, vec![fill], 0), &[vec![]]).unwrap();
    assert_eq!(got[0].len(), 4 * n);
    assert!(got[0].as_chunks::<4>().0.iter().all(|word| *word == [7, 0, 0, 0]));
}

#[test]
fn what_cannot_be_is_an_error() {
    let message = |result: Result<Wgpu, raphson_graph::error::Error>| result.err().map(|e| (e.code, e.message));
    let (code, text) = message(Wgpu::with_settings(Settings { adapter: 99, ..Settings::default() })).unwrap();
    assert!(code == Code::Device && text.contains("adapter"), "{text}");
    let Some(device) = open(Settings::default()) else { return };
    let load = |program: Program| device.load(Arc::new(program)).err().unwrap();
    let fill = |id: u32| Kernel::Fill { buffer: BufferId(id), value: Scalar::Int(1) };
    for (dtype, narrow) in [(DType::F64, "f32"), (DType::I64, "i32")] {
        let wide = load(program(&[buffer(dtype, 3, Place::Output(0))], vec![fill(0)], 0));
        assert_eq!(wide.code, Code::Device);
        let message = format!("{dtype} is not available on wgpu; cast to {narrow}, or use device: \"cpu\"");
        assert_eq!(wide.message, message);
    }
    let large = load(program(&[buffer(F32, 1 << 38, Place::Arena(0))], vec![fill(0)], 1 << 40));
    assert_eq!(large.code, Code::Device);
    let mut outside = Build::new(&[8], &[], Order::Row);
    let input = outside.input(F32, vec![0.0; 8]);
    let x = outside.load(input, View { offset: 1, kept: vec![1], reduced: vec![] }, Level::Full, 0);
    outside.put(x, Level::Full);
    assert_eq!(load(outside.program()).code, Code::Internal);
    let foreign = Memory { inner: Arc::new(3), bytes: 4 };
    assert_eq!(device.download(&foreign, &mut [0; 4]).err().map(|e| e.code), Some(Code::Device));
}

#[test]
fn empty_memory_goes_up_and_down() {
    let Some(device) = open(Settings::default()) else { return };
    let memory = device.upload(&[]).unwrap();
    assert_eq!(memory.bytes, 0);
    device.download(&memory, &mut []).unwrap();
    for bytes in [1usize, 3, 4, 5] {
        let data: Vec<u8> = (0..bytes as u8).map(|b| b + 1).collect();
        assert_eq!(read(&device, &device.upload(&data).unwrap()).unwrap(), data);
    }
    println!("{} (subgroups {:?})", device.describe().name, device.subgroup_sizes());
}

#[test]
fn it_is_opened_by_name() {
    if open(Settings::default()).is_some() {
        let device = raphson_device::open("wgpu").unwrap();
        assert_eq!(device.describe().kind, "wgpu");
        assert_eq!(raphson_device::open("wgpu:99").err().map(|error| error.code), Some(Code::Device));
    }
}
