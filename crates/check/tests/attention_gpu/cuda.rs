//! On cuda, as the interpreter runs it: each kernel where the device's own plan chooses it, in several orders of warps and
//! blocks; and that none of their barriers and waits is left over.

use super::examples::{Example, PLAIN, errors, examples, training};
use raphson_check::draw::{Generator, Values};
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::ptx::{Machine, Module, Options as MachineOptions, Order, Size};
use raphson_check::runner::device::{OnDevice, from_bytes, to_bytes};
use raphson_device::cuda::{Cuda, Options};
use raphson_graph::dtype::DType;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What GPUs there are: with tensor cores that pay, and without; whether TF32 is allowed, and the error that is.
fn gpus() -> [(Settings, bool, f64); 3] {
    let with = |capability| Settings { capability, ..Settings::default() };
    [(with((9, 0)), false, 4e-6), (with((8, 0)), true, 6e-3), (with((8, 6)), false, 4e-6)]
}

/// A device, and its driver.
fn open(settings: Settings, tf32: bool) -> (OnDevice, Arc<Interpreted>) {
    let driver = Arc::new(Interpreted::new(settings));
    let options = Options { tf32, library: false, pool: false, graphs: true };
    (OnDevice::new(Arc::new(Cuda::with_driver(driver.clone(), options)), &DType::ALL), driver)
}

#[test]
fn attention_and_its_reverse() {
    let mut ran = BTreeSet::new();
    for (number, example) in examples().iter().enumerate() {
        let (graph, inputs) = training(example, &format!("attention {number}"));
        for (settings, tf32, allowed) in gpus() {
            let order = [Order::Forward, Order::Backward, Order::Mixed(number as u64)][number % 3];
            let settings = Settings { machine: MachineOptions { order, ..MachineOptions::default() }, ..settings };
            let capability = settings.capability;
            let (cuda, driver) = open(settings, tf32);
            let (errors, entries) = (errors(&cuda, &graph, &inputs), driver.entries());
            assert!(errors.iter().all(|&error| error < allowed), "{example:?} on {capability:?}: {errors:?}");
            if tf32 && example.sizes.iter().all(|&size| size > 8) {
                assert!(errors[0] > 1e-6, "{example:?}: not rounded to TF32: {errors:?}");
            }
            assert!(!entries.iter().any(|entry| entry.starts_with("dot")), "{example:?}: expanded: {entries:?}");
            ran.extend(entries.into_iter().filter(|entry| entry.starts_with("attention_")));
        }
    }
    assert_eq!(ran, kernels().collect());
}

fn kernels() -> impl Iterator<Item = String> {
    let parts = ["forward", "queries", "keys"];
    ["plain", "split", "tf32"].into_iter().flat_map(move |kind| parts.map(|part| format!("attention_{kind}_{part}")))
}

/// Heads wider than the kernels' tiles, and f64, are computed by products.
#[test]
fn what_is_too_wide_is_expanded() {
    for sizes in [[6, 7, 129, 4], [6, 7, 4, 129]] {
        let (graph, inputs) = training(&Example { sizes, ..PLAIN }, "wide");
        let (cuda, driver) = open(Settings::default(), false);
        let (errors, entries) = (errors(&cuda, &graph, &inputs), driver.entries());
        assert!(errors.iter().all(|&error| error < 4e-6), "{errors:?}");
        assert!(!entries.iter().any(|entry| entry.starts_with("attention")), "{entries:?}");
    }
}

/// One device runs heads of one width and then wider ones by the same kernel, which takes more memory of a block then.
#[test]
fn wider_heads_follow_narrow_ones() {
    let (cuda, driver) = open(Settings { capability: (9, 0), ..Settings::default() }, false);
    for width in [8, 128, 40] {
        let (graph, inputs) = training(&Example { sizes: [20, 20, width, width], ..PLAIN }, "widths");
        let errors = errors(&cuda, &graph, &inputs);
        assert!(errors.iter().all(|&error| error < 4e-6), "{width}: {errors:?}");
    }
    assert!(driver.entries().contains("attention_split_keys"));
}

/// What is not a number in a query shows in its row and in no other; rows that see nothing are zero.
#[test]
fn nan_shows_where_it_belongs() {
    let (graph, mut inputs) = training(&Example { sizes: [6, 40, 4, 4], ..PLAIN }, "nan");
    inputs[0][2 * 4 + 1] = f64::NAN;
    for (settings, tf32, _) in gpus() {
        let (cuda, _) = open(settings, tf32);
        let out = &cuda.run_donating(&graph, &inputs, &[false; 4]).unwrap()[0];
        let is_nan: Vec<bool> = out.iter().map(|x| x.is_nan()).collect();
        assert_eq!(is_nan, (0..24).map(|at| at / 4 == 2).collect::<Vec<_>>());
    }
}

/// One launch of a kernel by hand, of 40 own rows and 140 others in one batch entry. Returns the packed result.
fn alone(text: &str, entry: &str, order: Order) -> Result<Vec<f64>, String> {
    let (own, other, width, values) = (40usize, 140usize, 20usize, 36usize);
    let (queries, keys) = if entry.ends_with("keys") { (other, own) } else { (own, other) };
    let mut machine = Machine::new(MachineOptions { order, ..MachineOptions::default() });
    let mut generator = Generator::named("attention alone");
    let mut operand = |name: &str, rows: usize, columns: usize| {
        let drawn = Values::Within(-1.0, 1.0).draw(rows * columns, DType::F32, &mut generator);
        let address = machine.memory.upload(name, &to_bytes(&drawn, DType::F32), 4);
        [address, columns as u64, 1, 0, 0, 0]
    };
    let q = operand("query", queries, width);
    let operands = [q, operand("key", keys, width), operand("value", keys, values), [0; 6]];
    let of_reverse =
        [operand("log sums", queries, 1), operand("delta", queries, 1), operand("cotangent", queries, values)];
    let forward = entry.ends_with("forward");
    let packed = if forward { queries * (values + 1) } else { queries * width + keys * (width + values) };
    let out = machine.memory.reserve("out", packed * 4, 4);
    let [queries, keys, width, values] = [queries, keys, width, values].map(|size| size as u64);
    let scale = u64::from(0.5f32.to_bits());
    // Two copies one after the other, so that both ways to copy are seen.
    let aligned = 0b0101;
    let mut arguments = vec![out, 0, 1, 1, queries, keys, width, values, 1, scale, aligned];
    arguments.extend(operands.into_iter().chain(of_reverse).flatten());
    let block = if entry.contains("plain") { 256 } else { 128 };
    let size = Size { grid: [1, 1, 1], block: [block, 1, 1], shared_bytes: 101_376 };
    let module = Module::parse(text).map_err(|fault| fault.0)?;
    machine.launch(&module, entry, size, &arguments).map_err(|fault| fault.0)?;
    Ok(from_bytes(machine.memory.download(out).ok_or("no memory")?, DType::F32))
}

/// With any barrier or wait left out, some order of warps must fault, or change the result.
#[test]
fn kernels_need_their_barriers_and_waits() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../device/src/cuda/kernels");
    let orders = [Order::Forward, Order::Backward, Order::Mixed(3)];
    for entry in kernels() {
        let text = std::fs::read_to_string(format!("{folder}/{entry}.ptx")).unwrap();
        let want = orders.map(|order| alone(&text, &entry, order).unwrap_or_else(|fault| panic!("{entry}: {fault}")));
        assert!(want.iter().all(|other| bits(other) == bits(&want[0])), "{entry}: the order of warps shows");
        // The last wait is for groups that are empty.
        let waits = text.match_indices("cp.async.wait_group").map(|(at, _)| at).collect::<Vec<_>>();
        let barriers = text.match_indices("bar.sync").map(|(at, _)| at).collect::<Vec<_>>();
        assert!(!barriers.is_empty(), "{entry}: no barriers");
        for at in barriers.into_iter().chain(waits.into_iter().rev().skip(1)) {
            let mut without = text.clone();
            let end = at + text[at..].find(';').unwrap() + 1;
            without.replace_range(at..end, "");
            let equals = |order| alone(&without, &entry, order).is_ok_and(|got| bits(&got) == bits(&want[0]));
            let noticed = orders.iter().any(|&order| !equals(order));
            assert!(noticed, "{entry}: `{}` at line {} is not missed", &text[at..end], text[..at].lines().count());
        }
    }
}

/// Bit for bit, so that what a kernel does not write (NaN, perhaps) is equal to itself.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}
