//! Kernels of the CPU, one program each, without Node: products and convolutions of the networks in `bench/peers`, row kernels,
//! the update of all parameters. `cargo bench -p raphson-bench --bench kernels`. Whole steps are `step.rs`'s subject.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use raphson_check::models::Gpt;
use raphson_compile::compile;
use raphson_device::cpu::Cpu;
use raphson_device::{Device, Loaded, Memory};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType::{F32, I32};
use raphson_graph::error::Result;
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::op::conv::Window;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::value::Value;
use std::sync::Arc;

fn main() {
    divan::main();
}

/// A program of the values' graph with f32 inputs that are there.
struct Kernel {
    loaded: Box<dyn Loaded>,
    memory: Vec<Memory>,
    bytes: usize,
}

impl Kernel {
    fn new(inputs: &[Value], outputs: &[Value]) -> Result<Kernel> {
        let device = Cpu::new(None)?;
        let graph = simplify(&flatten(inputs, outputs)?.graph);
        let loaded = device.load(Arc::new(compile(&graph, &vec![false; inputs.len()])?))?;
        let float = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0).to_ne_bytes();
        let whole = |i: usize| ((i * 7919 % 61) as i32).to_ne_bytes();
        let upload = |value: &Value| {
            let number = |i| if value.dtype() == I32 { whole(i) } else { float(i) };
            device.upload(&(0..value.shape().elements()).flat_map(number).collect::<Vec<u8>>())
        };
        let memory = inputs.iter().map(upload).collect::<Result<Vec<_>>>()?;
        let bytes = inputs.iter().chain(outputs).map(|value| value.shape().elements() * 4).sum();
        Ok(Kernel { loaded, memory, bytes })
    }

    fn run(&mut self) -> Vec<Memory> {
        self.loaded.run(self.memory.clone()).expect("a run")
    }
}

fn input(shape: &[usize]) -> Value {
    Value::input(shape.into(), F32)
}

fn bench(bencher: Bencher, inputs: &[Value], output: Result<Value>) {
    bench_all(bencher, inputs, output.map(|output| vec![output]));
}

/// Several results of one program.
fn bench_all(bencher: Bencher, inputs: &[Value], outputs: Result<Vec<Value>>) {
    let mut kernel = Kernel::new(inputs, &outputs.expect("a graph")).expect("a program");
    let bytes = BytesCount::new(kernel.bytes);
    bencher.counter(bytes).bench_local(move || kernel.run());
}

/// Products, counted in multiplications with addition.
fn bench_product(bencher: Bencher, inputs: &[Value], output: Result<Value>, products: usize) {
    let mut kernel = Kernel::new(inputs, &[output.expect("a graph")]).expect("a program");
    bencher.counter(ItemsCount::new(products)).bench_local(move || kernel.run());
}

/// x·Wᵀ: (m, k, n)
#[divan::bench(args = [(128, 784, 512), (128, 512, 512), (32, 784, 512), (64, 3136, 128), (1024, 128, 512), (1024, 512, 128), (256, 512, 512)])]
fn product_forward(bencher: Bencher, (m, k, n): (usize, usize, usize)) {
    let (x, weight) = (input(&[m, k]), input(&[n, k]));
    let product = weight.permute(&[1, 0]).and_then(|weight| x.dot(&weight));
    bench_product(bencher, &[x, weight], product, m * k * n);
}

/// gᵀ·x: (m, k, n)
#[divan::bench(args = [(512, 128, 784), (512, 128, 512), (512, 32, 784), (128, 64, 3136), (512, 1024, 128)])]
fn product_to_weights(bencher: Bencher, (m, k, n): (usize, usize, usize)) {
    let (gradient, x) = (input(&[k, m]), input(&[k, n]));
    let product = gradient.permute(&[1, 0]).and_then(|gradient| gradient.dot(&x));
    bench_product(bencher, &[gradient, x], product, m * k * n);
}

/// 3 × 3, the output as large as the data: (batch, channels, to, side)
const CONVOLUTIONS: [(usize, usize, usize, usize); 2] = [(64, 32, 64, 14), (64, 1, 32, 28)];

/// What [`bench_convolution`] times.
enum Wanted {
    Output,
    /// The gradient of the data (0) or of the kernel (1).
    Gradient(usize),
}

fn bench_convolution(bencher: Bencher, (batch, from, to, side): (usize, usize, usize, usize), wanted: Wanted) {
    // The op has its groups as an axis: [batch, groups, channels, …] with [groups, to, channels, …].
    let inputs = [input(&[batch, 1, from, side, side]), input(&[1, to, from, 3, 3])];
    let window = Window { low: 1, ..Window::PLAIN };
    let output = inputs[0].conv(&inputs[1], &[window, window], &[side, side]).expect("a graph");
    let products = batch * from * to * side * side * 9;
    let Wanted::Gradient(of) = wanted else {
        return bench_product(bencher, &inputs, Ok(output), products);
    };
    let cotangent = input(output.shape());
    let gradients = vjp(&[output], &inputs, std::slice::from_ref(&cotangent)).expect("a graph");
    let inputs = [&inputs[1 - of], &cotangent].map(Value::clone);
    bench_product(bencher, &inputs, Ok(gradients[of].clone()), products);
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution(bencher: Bencher, sizes: (usize, usize, usize, usize)) {
    bench_convolution(bencher, sizes, Wanted::Output);
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution_to_data(bencher: Bencher, sizes: (usize, usize, usize, usize)) {
    bench_convolution(bencher, sizes, Wanted::Gradient(0));
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution_to_kernel(bencher: Bencher, sizes: (usize, usize, usize, usize)) {
    bench_convolution(bencher, sizes, Wanted::Gradient(1));
}

#[divan::bench]
fn tanh_of_product_and_sum(bencher: Bencher) {
    let (x, y) = (input(&[1 << 22]), input(&[1 << 22]));
    let value = x.mul(&y).and_then(|xy| xy.add(&x)).and_then(|sum| sum.tanh());
    bench(bencher, &[x, y], value);
}

/// (rows, width)
#[divan::bench(args = [(4096, 1024), (1024, 128), (128, 10)])]
fn log_softmax(bencher: Bencher, (rows, width): (usize, usize)) {
    let x = input(&[rows, width]);
    let value = || x.sub(&x.exp()?.sum(&[1])?.log()?.expand_reduced(&[1], x.shape())?);
    bench(bencher, std::slice::from_ref(&x), value());
}

/// (rows, width)
#[divan::bench(args = [(4096, 1024), (1024, 128)])]
fn softmax(bencher: Bencher, (rows, width): (usize, usize)) {
    let x = input(&[rows, width]);
    let value = || {
        let along = |x: Value| x.expand_reduced(&[1], &[rows, width].into());
        let weights = x.sub(&along(x.reduce(ReduceOp::Max, &[1])?)?)?.exp()?;
        weights.div(&along(weights.sum(&[1])?)?)
    };
    bench(bencher, std::slice::from_ref(&x), value());
}

/// (x − mean)/√(variance + 10⁻⁵) · scale + shift, along rows
fn layer_norm_of(x: &Value, scale: &Value, shift: &Value) -> Result<Value> {
    let shape = x.shape();
    let mean = |x: &Value| x.sum(&[1])?.scale(1.0 / shape[1] as f64);
    let centred = x.sub(&mean(x)?.expand_reduced(&[1], shape)?)?;
    let inverse = mean(&centred.square()?)?.shift(1e-5)?.rsqrt()?;
    let scaled = centred.mul(&inverse.expand_reduced(&[1], shape)?)?.mul(&scale.expand_reduced(&[0], shape)?)?;
    scaled.add(&shift.expand_reduced(&[0], shape)?)
}

/// (rows, width)
#[divan::bench(args = [(4096, 1024), (1024, 128)])]
fn layer_norm(bencher: Bencher, (rows, width): (usize, usize)) {
    let inputs = [input(&[rows, width]), input(&[width]), input(&[width])];
    bench(bencher, &inputs, layer_norm_of(&inputs[0], &inputs[1], &inputs[2]));
}

/// Forward and backward together: (rows, width)
#[divan::bench(args = [(4096, 1024), (1024, 128)])]
fn layer_norm_train(bencher: Bencher, (rows, width): (usize, usize)) {
    let inputs = [input(&[rows, width]), input(&[width]), input(&[width]), input(&[rows, width])];
    let outputs = || {
        let output = layer_norm_of(&inputs[0], &inputs[1], &inputs[2])?;
        let mut outputs = vjp(std::slice::from_ref(&output), &inputs[..3], &inputs[3..])?;
        outputs.push(output);
        Ok(outputs)
    };
    bench_all(bencher, &inputs, outputs());
}

/// The mean cross-entropy and its gradient: (rows, classes)
#[divan::bench(args = [(4096, 1000), (1024, 65)])]
fn cross_entropy_train(bencher: Bencher, (rows, classes): (usize, usize)) {
    let (logits, labels) = (input(&[rows, classes]), Value::input([rows].into(), I32));
    let outputs = || {
        let along = |x: Value| x.expand_reduced(&[1], logits.shape());
        let shifted = logits.sub(&along(logits.reduce(ReduceOp::Max, &[1])?.stop_gradient())?)?;
        let is_label = Value::iota(logits.shape(), I32, 1)?.equal(&along(labels.clone())?)?;
        let of_label = is_label.select(&shifted, &shifted.like(0.0))?.sum(&[1])?;
        let output = shifted.exp()?.sum(&[1])?.log()?.sub(&of_label)?.sum(&[0])?.scale(1.0 / rows as f64)?;
        let mut outputs = vjp(std::slice::from_ref(&output), std::slice::from_ref(&logits), &[output.like(1.0)])?;
        outputs.push(output);
        Ok(outputs)
    };
    bench_all(bencher, &[logits.clone(), labels.clone()], outputs());
}

#[divan::bench(args = [0, 1])]
fn sum_along(bencher: Bencher, axis: usize) {
    let x = input(&[2048, 2048]);
    bench(bencher, std::slice::from_ref(&x), x.sum(&[axis]));
}

#[divan::bench(args = [1024, 2048])]
fn max_of_rows(bencher: Bencher, width: usize) {
    let x = input(&[2048, width]);
    bench(bencher, std::slice::from_ref(&x), x.reduce(ReduceOp::Max, &[1]));
}

#[divan::bench]
fn sum_of_all(bencher: Bencher) {
    let x = input(&[2048, 2048]);
    bench(bencher, std::slice::from_ref(&x), x.sum(&[0, 1]));
}

/// What goes back through a ReLU, and its sums along the batch, a bias's gradient: (batch, width)
#[divan::bench(args = [(128, 512), (1024, 512)])]
fn relu_reverse(bencher: Bencher, shape: (usize, usize)) {
    let (x, gradient) = (input(&[shape.0, shape.1]), input(&[shape.0, shape.1]));
    let outputs = || {
        let zero = x.like(0.0);
        let back = x.greater(&zero)?.select(&gradient, &zero)?;
        Ok(vec![back.sum(&[0])?, back])
    };
    bench_all(bencher, &[x.clone(), gradient.clone()], outputs());
}

/// θ − αm over a GPT's parameters.
#[divan::bench]
fn update(bencher: Bencher) {
    let params = Gpt::BENCH.model().expect("a model").params;
    let directions: Vec<Value> = params.iter().map(|param| input(param.shape())).collect();
    let moved = |(param, direction): (&Value, &Value)| param.sub(&direction.scale(1e-3)?);
    let outputs = params.iter().zip(&directions).map(moved).collect();
    bench_all(bencher, &[&params[..], &directions].concat(), outputs);
}
