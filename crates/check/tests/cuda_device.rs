//! The CUDA device's own code, on the interpreter: products by every compiled kernel and by the library, donation, faults,
//! graphs, memory. What kernels print is tested elsewhere.

use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::ptx::{Options as MachineOptions, Order};
use raphson_check::runner::device::{OnDevice, from_bytes, to_bytes};
use raphson_compile::compile;
use raphson_device::cuda::{Cuda, Options};
use raphson_device::{Device, Loaded, Memory};
use raphson_graph::dtype::DType::{self, F32, F64, I32};
use raphson_graph::error::Code;
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;
use std::sync::Arc;

const OPTIONS: Options = Options { tf32: false, library: true, pool: false, graphs: true };

fn device(settings: Settings, options: Options) -> (Arc<Interpreted>, Arc<Cuda>) {
    let driver = Arc::new(Interpreted::new(settings));
    (driver.clone(), Arc::new(Cuda::with_driver(driver, options)))
}

/// Values between −1 and 1 that repeat late.
fn values(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from((((i + 7 * seed) * 7919 % 2003) as f32) / 1001.5 - 1.0)).collect()
}

/// A graph of what `build` makes of placeholders of these shapes.
fn graph(inputs: &[(&[usize], DType)], build: impl Fn(&[Value]) -> Vec<Value>) -> Graph {
    let placeholders: Vec<Value> = inputs.iter().map(|&(shape, dtype)| Value::input(shape.into(), dtype)).collect();
    flatten(&placeholders, &build(&placeholders)).expect("a graph").graph
}

/// The greatest difference from the reference, over the greatest value.
fn error_of(cuda: &Arc<Cuda>, graph: &Graph, inputs: &[Vec<f64>]) -> f64 {
    let got = OnDevice::new(cuda.clone(), &DType::ALL)
        .run_donating(graph, inputs, &vec![false; inputs.len()])
        .expect("a run");
    let want = evaluate(&simplify(graph), inputs).expect("the reference");
    let greatest = want.iter().flatten().fold(1e-30_f64, |most, value| most.max(value.abs()));
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    pairs.fold(0.0_f64, |most, (got, want)| most.max(if got == want { 0.0 } else { (got - want).abs() })) / greatest
}

/// Which of the operands are stored transposed.
const LAYOUTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// left · right, with the operands stored as `layout` says.
fn product(m: usize, k: usize, n: usize, (left, right): (bool, bool), dtype: DType) -> (Graph, Vec<Vec<f64>>) {
    let shape = |rows, columns, transposed| if transposed { [columns, rows] } else { [rows, columns] };
    let (l, r) = (shape(m, k, left), shape(k, n, right));
    let straight = |value: &Value, transposed: bool| if transposed { value.transpose() } else { Ok(value.clone()) };
    let graph = graph(&[(&l, dtype), (&r, dtype)], |x| {
        let (left, right) = (straight(&x[0], left).expect("a matrix"), straight(&x[1], right).expect("a matrix"));
        vec![left.dot(&right).expect("a product")]
    });
    (graph, vec![values(m * k, 1), values(k * n, 2)])
}

fn hopper() -> Settings {
    Settings { capability: (9, 0), ..Settings::default() }
}

/// Sizes that are multiples of the tile and of four; of four only; of nothing; long enough for pieces of the sum.
const SIZES: [(usize, usize, usize); 4] = [(128, 32, 128), (68, 20, 132), (67, 19, 129), (64, 300, 65)];

#[test]
fn tensor_core_products() {
    for (m, k, n) in SIZES {
        for layout in LAYOUTS {
            let (graph, inputs) = product(m, k, n, layout, F32);
            let (driver, cuda) = device(hopper(), OPTIONS);
            let error = error_of(&cuda, &graph, &inputs);
            assert!(error < 2e-6, "split {m}·{k}·{n} {layout:?}: {error:e}");
            assert_eq!(driver.counts().gemms, 0);
            let (_, cuda) = device(hopper(), Options { tf32: true, ..OPTIONS });
            let error = error_of(&cuda, &graph, &inputs);
            assert!((1e-6..2e-3).contains(&error), "tf32 {m}·{k}·{n} {layout:?}: {error:e}");
        }
    }
}

#[test]
fn tensor_core_products_in_other_orders() {
    for order in [Order::Backward, Order::Mixed(5)] {
        let machine = MachineOptions { order, ..MachineOptions::default() };
        let (graph, inputs) = product(130, 75, 67, (true, false), F32);
        let (_, cuda) = device(Settings { machine, ..hopper() }, OPTIONS);
        let error = error_of(&cuda, &graph, &inputs);
        assert!(error < 2e-6, "{order:?}: {error:e}");
    }
}

/// Every committed kernel of products runs, chosen by the device's own plan: both kinds of tensor-core products over all layouts, long
/// sums in pieces.
#[test]
fn every_committed_product_runs() {
    let mut ran = std::collections::BTreeSet::new();
    for tf32 in [false, true] {
        for (at, layout) in LAYOUTS.into_iter().enumerate() {
            let machine =
                MachineOptions { order: [Order::Mixed(at as u64), Order::Backward][at % 2], ..Default::default() };
            let (driver, cuda) = device(Settings { machine, ..hopper() }, Options { tf32, ..OPTIONS });
            for (m, k, n) in [(64, 20, 68), (65, 17, 64)] {
                let (graph, inputs) = product(m, k, n, layout, F32);
                let error = error_of(&cuda, &graph, &inputs);
                assert!(error < if tf32 { 2e-3 } else { 2e-6 }, "{m}·{k}·{n} {layout:?}: {error:e}");
            }
            ran.extend(driver.entries());
        }
    }
    let (driver, cuda) = device(Settings { multiprocessors: 40, ..Settings::default() }, OPTIONS);
    let (graph, inputs) = product(9, 520, 10, (false, false), F32);
    assert!(error_of(&cuda, &graph, &inputs) < 2e-6);
    ran.extend(driver.entries());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../device/src/cuda/kernels");
    let files = std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path());
    let kernels = files.filter(|path| path.extension().is_some_and(|extension| extension == "ptx"));
    // Those of convolutions run in cuda_conv.rs.
    let committed: std::collections::BTreeSet<String> = kernels
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_string()))
        .filter(|entry| entry.starts_with("dot"))
        .collect();
    assert_eq!(ran, committed);
}

/// Volta is the oldest GPU that is taken: whatever is chosen for it is written for it.
#[test]
fn old_gpus_get_kernels_that_they_can_load() {
    let volta = Settings { capability: (7, 0), multiprocessors: 40, ..Settings::default() };
    for (m, k, n) in [(9, 520, 10), (64, 64, 64)] {
        let (graph, inputs) = product(m, k, n, (false, false), F32);
        let (_, cuda) = device(volta.clone(), Options { tf32: true, ..OPTIONS });
        assert!(error_of(&cuda, &graph, &inputs) < 2e-6, "{m}·{k}·{n}");
    }
}

#[test]
fn batches_views_and_broadcasts() {
    let graph = graph(&[(&[2, 1, 68, 24], F32), (&[3, 24, 65], F32)], |x| vec![x[0].dot(&x[1]).expect("a product")]);
    let inputs = vec![values(2 * 68 * 24, 1), values(3 * 24 * 65, 2)];
    for settings in [hopper(), Settings { library: true, ..hopper() }, Settings::default()] {
        let (_, cuda) = device(settings, OPTIONS);
        let error = error_of(&cuda, &graph, &inputs);
        assert!(error < 2e-6, "{error:e}");
    }
}

#[test]
fn few_results_of_long_sums() {
    let many = Settings { multiprocessors: 40, ..Settings::default() };
    for layout in LAYOUTS {
        let (graph, inputs) = product(33, 1000, 10, layout, F32);
        let (driver, cuda) = device(many.clone(), OPTIONS);
        let error = error_of(&cuda, &graph, &inputs);
        assert!(error < 2e-6, "{layout:?}: {error:e}");
        assert_eq!(driver.counts().launches, 2, "the pieces and their sum");
    }
}

#[test]
fn products_by_the_library() {
    let with_library = Settings { library: true, ..Settings::default() };
    for dtype in [F32, F64] {
        for (m, k, n) in [(5, 7, 3), (1, 4, 6), (6, 1, 4), (3, 5, 1), (1, 1, 1)] {
            for layout in LAYOUTS {
                let (graph, inputs) = product(m, k, n, layout, dtype);
                let (driver, cuda) = device(with_library.clone(), OPTIONS);
                let error = error_of(&cuda, &graph, &inputs);
                assert!(error < 1e-6, "{m}·{k}·{n} {layout:?}: {error:e}");
                assert_eq!(driver.counts().gemms, 1, "{m}·{k}·{n} {layout:?}");
            }
        }
    }
    // What the library does not take: integers, sums of nothing.
    for (k, dtype) in [(4, I32), (0, F32)] {
        let (graph, inputs) = product(3, k, 2, (false, false), dtype);
        let whole = inputs.iter().map(|x| x.iter().map(|x| (x * 9.0).round()).collect()).collect::<Vec<_>>();
        let (driver, cuda) = device(with_library.clone(), OPTIONS);
        assert_eq!(error_of(&cuda, &graph, &whole), 0.0);
        assert_eq!(driver.counts().gemms, 0);
    }
}

fn upload(cuda: &Cuda, values: &[f64], dtype: DType) -> Memory {
    cuda.upload(&to_bytes(values, dtype)).expect("an upload")
}

fn read(cuda: &Cuda, memory: &Memory) -> Vec<f64> {
    let mut bytes = vec![0; memory.bytes];
    cuda.download(memory, &mut bytes).expect("a download");
    from_bytes(&bytes, F32)
}

/// Side of the matrices of `step`.
const N: usize = 8;

/// parameters ← parameters − parameters³·batch/100, and the sum of parameters³·batch: three products and a fused kernel, of which
/// half never see the batch or the loss; one donated input.
fn step(cuda: &Cuda) -> Box<dyn Loaded> {
    let graph = graph(&[(&[N, N], F32), (&[N, N], F32)], |x| {
        let dot = |a: &Value, b: &Value| a.dot(b).expect("a product");
        let product = dot(&dot(&dot(&x[0], &x[0]), &x[0]), &x[1]);
        let rate = Value::constant(0.01, F32, &[N, N].into());
        let moved = x[0].sub(&product.mul(&rate).expect("a value")).expect("a value");
        vec![moved, product.sum(&[0, 1]).expect("a sum")]
    });
    let program = Arc::new(compile(&simplify(&graph), &[true, false]).expect("a program"));
    cuda.load(program).expect("loaded")
}

fn times(a: &[f64], b: &[f64]) -> Vec<f64> {
    let element = |at: usize| (0..N).map(|k| a[at / N * N + k] * b[N * k + at % N]).sum();
    (0..N * N).map(element).collect()
}

fn step_by_hand(parameters: &mut [f64], batch: &[f64]) -> f64 {
    let product = times(&times(&times(parameters, parameters), parameters), batch);
    parameters.iter_mut().zip(&product).for_each(|(parameter, product)| *parameter -= 0.01 * product);
    product.iter().sum()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 * (1.0 + b.abs())
}

/// Ten steps with a new batch each, all losses kept.
fn train(cuda: &Cuda) {
    let mut loaded = step(cuda);
    let mut parameters = upload(cuda, &values(N * N, 3), F32);
    let mut expected = values(N * N, 3);
    let mut losses = Vec::new();
    for i in 0..10 {
        let batch = values(N * N, 10 + i);
        let outputs = loaded.run(vec![parameters, upload(cuda, &batch, F32)]).expect("a run");
        let [new, loss] = <[Memory; 2]>::try_from(outputs).ok().expect("two outputs");
        parameters = new;
        losses.push((loss, step_by_hand(&mut expected, &batch)));
    }
    for (loss, expected) in &losses {
        assert!(close(read(cuda, loss)[0], *expected));
    }
    assert!(read(cuda, &parameters).iter().zip(&expected).all(|(&a, &b)| close(a, b)));
}

#[test]
fn a_step_is_replayed_with_other_batches_and_losses_kept() {
    for library in [false, true] {
        let (driver, cuda) = device(Settings { library, ..Settings::default() }, OPTIONS);
        train(&cuda);
        let counts = driver.counts();
        assert_eq!((counts.graphs, counts.replays), (1, 8), "two runs before the graph is made");
        assert!(counts.updates > 0, "batches and losses have other addresses each time");
        assert_eq!(counts.copies, 0, "the parameters are overwritten");
        assert_eq!(counts.graphs_dropped, 1);
    }
}

#[test]
fn steps_do_without_graphs_and_updates() {
    let (driver, cuda) = device(Settings { updates: false, ..Settings::default() }, OPTIONS);
    train(&cuda);
    assert_eq!((driver.counts().graphs, driver.counts().replays), (8, 8), "made anew each time");
    let without = [
        (Settings { graphs: false, ..Settings::default() }, OPTIONS),
        (Settings::default(), Options { graphs: false, ..OPTIONS }),
    ];
    for (settings, options) in without {
        let (driver, cuda) = device(settings, options);
        train(&cuda);
        assert_eq!((driver.counts().graphs, driver.counts().replays), (0, 0));
    }
}

#[test]
fn a_shared_donation_is_copied_first() {
    let (driver, cuda) = device(Settings::default(), OPTIONS);
    let mut loaded = step(&cuda);
    let (given, batch) = (values(N * N, 3), values(N * N, 4));
    let mut expected = given.clone();
    step_by_hand(&mut expected, &batch);
    let parameters = upload(&cuda, &given, F32);
    let outputs = loaded.run(vec![parameters.clone(), upload(&cuda, &batch, F32)]).expect("a run");
    assert_eq!(driver.counts().copies, 1);
    assert!(read(&cuda, &parameters).iter().zip(&given).all(|(&a, &b)| a == f64::from(b as f32)));
    assert!(read(&cuda, &outputs[0]).iter().zip(&expected).all(|(&a, &b)| close(a, b)));
    // The same memory as both inputs.
    let outputs = loaded.run(vec![parameters.clone(), parameters.clone()]).expect("a run");
    let mut expected = given.clone();
    step_by_hand(&mut expected, &given);
    assert!(read(&cuda, &outputs[0]).iter().zip(&expected).all(|(&a, &b)| close(a, b)));
}

#[test]
fn wrong_indices_are_reported_to_whoever_reads() {
    let (_, cuda) = device(Settings::default(), OPTIONS);
    let gather = graph(&[(&[4, 2], F32), (&[3], I32)], |x| vec![x[0].gather(&x[1], 0).expect("a gather")]);
    let mut loaded =
        cuda.load(Arc::new(compile(&simplify(&gather), &[false, false]).expect("a program"))).expect("loaded");
    // Of the gathered rows only the first, which is always there.
    let plus = graph(&[(&[3, 2], F32)], |x| {
        let row = x[0].slice(&[0, 0], &[1, 2], &[1, 1]).expect("a row");
        vec![row.add(&row).expect("a sum")]
    });
    let mut twice = cuda.load(Arc::new(compile(&simplify(&plus), &[false]).expect("a program"))).expect("loaded");
    let data = upload(&cuda, &values(8, 1), F32);
    let mut run = |indices: [f64; 3]| {
        let outputs = loaded.run(vec![data.clone(), upload(&cuda, &indices, I32)]).expect("a run");
        twice.run(outputs).expect("a run").remove(0)
    };
    let (good, bad, later) = (run([0.0, 3.0, 1.0]), run([0.0, -2.0, 1.0]), run([2.0, 2.0, 2.0]));
    let mut bytes = vec![0; bad.bytes];
    for _ in 0..2 {
        let error = cuda.download(&bad, &mut bytes).expect_err("an index outside");
        assert_eq!(error.code, Code::Index);
        assert!(
            error.message.contains("index -2 at position 1") && error.message.contains("0 to 3"),
            "{}",
            error.message
        );
    }
    let data = values(8, 1);
    assert!(close(read(&cuda, &good)[1], 2.0 * data[1]));
    assert!(close(read(&cuda, &later)[0], 2.0 * data[4]));
    // Questions that nobody asks do not pile up: after some runs the GPU is asked.
    for _ in 0..100 {
        run([1.0, 1.0, 1.0]);
    }
    assert!(cuda.usage().live_bytes < 4096);
}

#[test]
fn out_of_memory_is_an_error_and_passes() {
    let (driver, cuda) =
        device(Settings { memory_bytes: 5 << 20, ..Settings::default() }, Options { pool: true, ..OPTIONS });
    let first = cuda.upload(&vec![1; 3 << 20]).expect("room for one");
    let error = cuda.upload(&vec![2; 3 << 20]).err().expect("no room for two");
    assert_eq!(error.code, Code::Memory);
    assert!(error.message.contains("dispose") || error.message.contains("Dispose"), "{}", error.message);
    drop(first);
    // Another class: what the pool keeps is given back first.
    let other = cuda.upload(&vec![3; 4 << 20]).expect("room again");
    let mut bytes = vec![0; 4 << 20];
    cuda.download(&other, &mut bytes).expect("a download");
    assert!(bytes.iter().all(|&byte| byte == 3));
    assert_eq!(driver.counts().frees, 1);
}

#[test]
fn memory_is_kept_cut_and_given_back() {
    let (driver, cuda) = device(Settings::default(), Options { pool: true, ..OPTIONS });
    let small: Vec<Memory> = (0..100).map(|i| upload(&cuda, &values(100 + i % 20, i), F32)).collect();
    assert_eq!(driver.counts().allocations, 1, "one slab for all");
    let live: usize = small.iter().map(|memory| memory.bytes).sum();
    assert_eq!(cuda.usage().live_bytes, live);
    for (i, memory) in small.iter().enumerate() {
        assert!(read(&cuda, memory).iter().zip(values(100 + i % 20, i)).all(|(&a, b)| a == f64::from(b as f32)));
    }
    let one = small[50].clone();
    drop(small);
    cuda.trim();
    assert_eq!(driver.counts().frees, 0, "one block of the slab is still in use");
    drop(one);
    assert_eq!(cuda.usage().live_bytes, 0);
    assert!(cuda.usage().pooled_bytes > 0);
    cuda.trim();
    assert_eq!((cuda.usage().pooled_bytes, driver.allocated_bytes()), (0, 0));
}

#[test]
fn large_uploads_and_empty_ones() {
    let (_, cuda) = device(Settings::default(), OPTIONS);
    let bytes: Vec<u8> = (0..9_000_001_usize).map(|i| (i * 31 % 251) as u8).collect();
    let memory = cuda.upload(&bytes).expect("an upload");
    let mut back = vec![0; bytes.len()];
    cuda.download(&memory, &mut back).expect("a download");
    assert!(bytes == back);
    let empty = cuda.upload(&[]).expect("an upload");
    cuda.download(&empty, &mut []).expect("a download");
    assert_eq!(empty.bytes, 0);
    // More uploads than there are chunks, none of them waited for.
    let many: Vec<Memory> = (0..80).map(|i| upload(&cuda, &[i as f64], F32)).collect();
    assert!(many.iter().enumerate().all(|(i, memory)| read(&cuda, memory) == [i as f64]));
}

#[test]
fn memory_of_another_device_is_refused() {
    let (_, cuda) = device(Settings::default(), OPTIONS);
    let (_, other) = device(Settings::default(), OPTIONS);
    let cpu = raphson_device::open("cpu").expect("a cpu");
    let foreign = cpu.upload(&[0; 4]).expect("an upload");
    assert_eq!(cuda.download(&foreign, &mut [0; 4]).expect_err("not ours").code, Code::Device);
    let mut loaded = step(&cuda);
    let foreign = other.upload(&[0; 4 * N * N]).expect("an upload");
    let error = loaded.run(vec![foreign, upload(&cuda, &values(N * N, 1), F32)]).err().expect("another GPU's");
    assert_eq!(error.code, Code::Device);
}
