//! Attention and its reverse by the compiled kernels, on the interpreter: each kernel where the device's own plan chooses it, in
//! several orders of warps and blocks, on ragged sizes and every layout; and that none of its barriers and waits is left over.

use raphson_check::draw::{Generator, Values};
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::ptx::{Machine, Module, Options as MachineOptions, Order, Size};
use raphson_check::runner::device::{OnDevice, from_bytes, to_bytes};
use raphson_device::cuda::{Cuda, Options};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::op::attention::Attention;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An attention: batch…, queries, keys, width, values, and how its operands lie.
#[derive(Clone, Copy, Debug)]
struct Example<'a> {
    batch: &'a [usize],
    /// Queries, keys, width, values.
    sizes: [usize; 4],
    causal: bool,
    /// The mask's shape, if there is one.
    mask: Option<&'a [usize]>,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Rows follow each other.
    Plain,
    /// Heads are inside positions, as layers make them: [b, position, head, width].
    HeadsInside,
    /// Columns are contiguous.
    Transposed,
    /// All batch entries share keys and values, and queries are seen in reverse order of batch axes.
    Shared,
}

/// An operand of [batch…, rows, columns] by a view of an input, and that input.
fn operand(example: &Example<'_>, [rows, columns]: [usize; 2], is_query: bool) -> (Value, Value) {
    let n = example.batch.len();
    let made = |shape: &[usize], order: &[usize]| {
        let input = Value::input(shape.into(), DType::F32);
        let view = input.permute(order).unwrap();
        (input, view)
    };
    let natural: Vec<usize> = (0..n + 2).collect();
    match example.layout {
        Layout::Shared if is_query => {
            let shape: Vec<usize> = example.batch.iter().rev().copied().chain([rows, columns]).collect();
            made(&shape, &(0..n).rev().chain([n, n + 1]).collect::<Vec<_>>())
        }
        Layout::Shared => made(&[rows, columns], &[0, 1]),
        Layout::Plain => made(&[example.batch, &[rows, columns]].concat(), &natural),
        Layout::Transposed => made(&[example.batch, &[columns, rows]].concat(), &[&natural[..n], &[n + 1, n]].concat()),
        Layout::HeadsInside => {
            let (heads, outer) = example.batch.split_last().unwrap();
            let shape = [outer, &[rows, *heads, columns]].concat();
            made(&shape, &[&natural[..n - 1], &[n, n - 1, n + 1]].concat())
        }
    }
}

/// The output and the cotangents of q, k and v, for a cotangent that is an input.
fn training(example: &Example<'_>, seed: &str) -> (Graph, Vec<Vec<f64>>) {
    let [queries, keys, width, values] = example.sizes;
    let (q, q_view) = operand(example, [queries, width], true);
    let (k, k_view) = operand(example, [keys, width], false);
    let (v, v_view) = operand(example, [keys, values], false);
    let mask = example.mask.map(|shape| Value::input(shape.into(), DType::Bool));
    let options = Attention { causal: example.causal, scale: Scalar::Float(0.4) };
    let out = q_view.attention(&k_view, &v_view, mask.as_ref(), options).unwrap();
    let weights = Value::input(out.shape().clone(), DType::F32);
    let wanted = [q.clone(), k.clone(), v.clone()];
    let gradients = vjp(std::slice::from_ref(&out), &wanted, std::slice::from_ref(&weights)).unwrap();
    let inputs: Vec<Value> = wanted.into_iter().chain([weights]).chain(mask).collect();
    let graph = flatten(&inputs, &[vec![out], gradients].concat()).unwrap().graph;
    let mut generator = Generator::named(seed);
    let mut draw = |value: &Value| {
        let values = if value.dtype() == DType::Bool { Values::Below(4) } else { Values::Within(-1.5, 1.5) };
        let drawn = values.draw(value.shape().elements(), value.dtype(), &mut generator);
        drawn.iter().map(|&x| if value.dtype() == DType::Bool { x.min(1.0) } else { f64::from(x as f32) }).collect()
    };
    let data = inputs.iter().map(&mut draw).collect();
    (graph, data)
}

/// The greatest difference of each output from the reference, over the output's greatest value; and the kernels that ran.
fn errors(graph: &Graph, inputs: &[Vec<f64>], settings: Settings, tf32: bool) -> (Vec<f64>, BTreeSet<String>) {
    let driver = Arc::new(Interpreted::new(settings));
    let options = Options { tf32, library: false, pool: false, graphs: true };
    let cuda = OnDevice::new(Arc::new(Cuda::with_driver(driver.clone(), options)), &DType::ALL);
    let got = cuda.run_donating(graph, inputs, &vec![false; inputs.len()]).unwrap();
    let want = evaluate(&simplify(graph), inputs).unwrap();
    let error = |(got, want): (&Vec<f64>, &Vec<f64>)| {
        assert_eq!(got.len(), want.len());
        let greatest = want.iter().fold(1e-3_f64, |most, value| most.max(value.abs()));
        let worst = |most: f64, (got, want): (&f64, &f64)| {
            let difference = (got - want).abs();
            if difference.is_nan() { f64::INFINITY } else { most.max(difference) }
        };
        got.iter().zip(want).fold(0.0, worst) / greatest
    };
    (got.iter().zip(&want).map(error).collect(), driver.entries())
}

/// What GPUs there are: with tensor cores that pay, and without; whether TF32 is allowed, and the error that is.
fn gpus() -> [(Settings, bool, f64); 3] {
    let with = |capability| Settings { capability, ..Settings::default() };
    [(with((9, 0)), false, 4e-6), (with((8, 0)), true, 6e-3), (with((8, 6)), false, 4e-6)]
}

const PLAIN: Example<'static> =
    Example { batch: &[], sizes: [70, 90, 24, 20], causal: false, mask: None, layout: Layout::Plain };

fn examples() -> Vec<Example<'static>> {
    vec![
        PLAIN,
        Example { causal: true, ..PLAIN },
        // More keys than queries and the other way round; whole tiles; odd sizes with a mask for every score.
        Example { batch: &[2], sizes: [33, 101, 17, 9], causal: true, layout: Layout::Transposed, ..PLAIN },
        Example { sizes: [101, 33, 8, 40], causal: true, ..PLAIN },
        Example { batch: &[2], sizes: [64, 64, 64, 64], causal: true, ..PLAIN },
        Example { batch: &[2], sizes: [37, 41, 5, 7], mask: Some(&[2, 37, 41]), ..PLAIN },
        Example { batch: &[2, 2], sizes: [35, 35, 16, 16], causal: true, mask: Some(&[2, 1, 1, 35]), ..PLAIN },
        // Layers' heads; keys for all heads; axes that no order merges, more than the kernels count.
        Example { batch: &[2, 3], sizes: [40, 40, 12, 12], causal: true, layout: Layout::HeadsInside, ..PLAIN },
        Example { batch: &[2, 3], sizes: [9, 70, 8, 4], layout: Layout::Shared, ..PLAIN },
        Example { batch: &[2, 2, 2, 2, 2], sizes: [3, 4, 2, 3], layout: Layout::Shared, ..PLAIN },
        // The widest; the smallest; none of something.
        Example { sizes: [70, 40, 128, 128], causal: true, ..PLAIN },
        Example { sizes: [40, 70, 100, 128], ..PLAIN },
        Example { sizes: [1, 70, 16, 16], causal: true, ..PLAIN },
        Example { sizes: [1, 1, 1, 1], ..PLAIN },
        Example { batch: &[2], sizes: [5, 0, 3, 4], ..PLAIN },
        Example { batch: &[2], sizes: [0, 5, 3, 4], ..PLAIN },
        Example { batch: &[2], sizes: [6, 5, 0, 4], ..PLAIN },
        Example { batch: &[2], sizes: [6, 5, 3, 0], ..PLAIN },
        Example { batch: &[0], sizes: [6, 5, 3, 2], ..PLAIN },
    ]
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
            let (errors, entries) = errors(&graph, &inputs, settings, tf32);
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
        let (errors, entries) = errors(&graph, &inputs, Settings::default(), false);
        assert!(errors.iter().all(|&error| error < 4e-6), "{errors:?}");
        assert!(!entries.iter().any(|entry| entry.starts_with("attention")), "{entries:?}");
    }
}

/// What is not a number in a query shows in its row and in no other; rows that see nothing are zero.
#[test]
fn nan_shows_where_it_belongs() {
    let (graph, mut inputs) = training(&Example { sizes: [6, 40, 4, 4], ..PLAIN }, "nan");
    inputs[0][2 * 4 + 1] = f64::NAN;
    for (settings, tf32, _) in gpus() {
        let driver = Arc::new(Interpreted::new(settings));
        let options = Options { tf32, library: false, pool: false, graphs: true };
        let cuda = OnDevice::new(Arc::new(Cuda::with_driver(driver, options)), &DType::ALL);
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
