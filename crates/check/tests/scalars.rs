//! The scalars of a learning-rate rule where a device has no f64: inner products and losses over a million elements, added
//! in f32, held against f64. A rule takes a difference of losses below 16ε|L| for rounding (ε that of f32), so each of
//! the two may err by 8ε; inner products by 8ε Σ|aᵢbᵢ|.

use raphson_check::coverage::say;
use raphson_check::draw::Generator;
use raphson_check::runner::Runner;
use raphson_check::runner::device::{OnDevice, wgpu};
use raphson_device::cpu::Cpu;
use raphson_graph::dtype::DType::{F32, I32};
use raphson_graph::flat::{Graph, flatten};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::inner;
use std::sync::Arc;

const BOUND: f64 = 8.0 * f32::EPSILON as f64;

/// Shapes with at least a million elements each: rows of many lengths, one long row, many short ones.
const SHAPES: [&[usize]; 4] = [&[1 << 20], &[1000, 1201], &[4, 1 << 18], &[1 << 18, 5]];

/// Elements that f32 has, within limits.
fn elements(n: usize, low: f64, high: f64, generator: &mut Generator) -> Vec<f64> {
    (0..n).map(|_| f64::from(generator.uniform(low, high) as f32)).collect()
}

fn devices() -> Vec<OnDevice> {
    let cpu = OnDevice::new(Arc::new(Cpu::new(None).expect("a cpu")), &[F32, I32]);
    // Where there is no adapter, that is said.
    std::iter::once(cpu).chain(wgpu()).collect()
}

fn scalar_of(device: &OnDevice, graph: &Graph, inputs: &[Vec<f64>]) -> f64 {
    device.run(graph, inputs).expect("a scalar")[0][0]
}

fn inputs(shape: &[usize], n: usize) -> Vec<Value> {
    (0..n).map(|_| Value::input(Shape::from(shape), F32)).collect()
}

/// The largest error of Σ aᵢbᵢ as f32 over all shapes, in units of Σ|aᵢbᵢ|; values of both signs, and positive ones, whose
/// partial sums grow.
fn inner_products(device: &OnDevice) -> f64 {
    let mut generator = Generator::new(7);
    let mut worst = 0.0_f64;
    for shape in SHAPES {
        let n = shape.iter().product();
        let ends = inputs(shape, 2);
        let sum = inner(&ends[..1], &ends[1..], F32).expect("a graph");
        let graph = flatten(&ends, &[sum]).expect("a flat graph").graph;
        for low in [-1.0, 0.25] {
            let given = [elements(n, low, 1.0, &mut generator), elements(n, low, 1.0, &mut generator)];
            let products = || given[0].iter().zip(&given[1]).map(|(a, b)| a * b);
            let (want, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
            worst = worst.max((scalar_of(device, &graph, &given) - want).abs() / size);
        }
    }
    worst
}

/// The largest error of L = Σ (xᵢ − tᵢ)²/n over all shapes, in units of L. The squares themselves are rounded to f32 too.
fn losses(device: &OnDevice) -> f64 {
    let mut generator = Generator::new(11);
    let mut worst = 0.0_f64;
    for shape in SHAPES {
        let n: usize = shape.iter().product();
        let ends = inputs(shape, 2);
        let difference = ends[0].sub(&ends[1]).expect("shapes fit");
        let squares = difference.mul(&difference).and_then(|squares| squares.sum_all());
        let loss = squares.and_then(|sum| sum.scale(1.0 / n as f64)).expect("a graph");
        let graph = flatten(&ends, &[loss]).expect("a flat graph").graph;
        let given = [elements(n, -1.0, 1.0, &mut generator), elements(n, 1.0, 2.0, &mut generator)];
        let want = given[0].iter().zip(&given[1]).map(|(x, t)| (x - t) * (x - t)).sum::<f64>() / n as f64;
        worst = worst.max((scalar_of(device, &graph, &given) - want).abs() / want);
    }
    worst
}

#[test]
fn sums_in_f32_stay_below_what_a_rule_takes_for_rounding() {
    for device in devices() {
        let (inner, loss) = (inner_products(&device), losses(&device));
        say(&format!("f32 scalars on {}: inner products err by {inner:.1e}, losses by {loss:.1e}", device.name()));
        assert!(inner <= BOUND, "{}: an inner product errs by {inner:e} of its size", device.name());
        assert!(loss <= BOUND, "{}: a loss errs by {loss:e}", device.name());
    }
}
