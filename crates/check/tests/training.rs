//! Whole training steps on a device: a small network with an embedding and layer norm, twenty steps of several rules, all
//! parameters and state donated and carried along, losses and learning rates compared with the cpu's. Where a device has no
//! f64, the rule's scalars are f32, on the cpu that it is compared with too.

use raphson_check::coverage::say;
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::ptx::{Options as MachineOptions, Order};
use raphson_check::runner::Runner;
use raphson_check::runner::device::{from_bytes, to_bytes, wgpu};
use raphson_check::step::adam_step;
use raphson_compile::compile;
use raphson_device::cpu::Cpu;
use raphson_device::cuda::{Cuda, Options as CudaOptions};
use raphson_device::{Device, Memory};
use raphson_graph::dtype::DType::{self, F32, F64, I32};
use raphson_graph::error::Result;
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};
use std::sync::Arc;

const BATCH: usize = 6;
const WORDS: usize = 5;
const WIDTH: usize = 8;
const CLASSES: usize = 3;
const STEPS: usize = 20;

/// Shapes of the parameters: embedding, hidden weights and bias, output weights and bias.
const PARAMETERS: [&[usize]; 5] = [&[WORDS, WIDTH], &[WIDTH, WIDTH], &[WIDTH], &[WIDTH, CLASSES], &[CLASSES]];

fn numbers(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from((((i + 31 * seed) * 7919 % 1009) as f32) / 504.5 - 1.0)).collect()
}

/// Σ over the last axis, which stays with size 1 and is expanded again.
fn row_sum(x: &Value) -> Result<Value> {
    let shape = x.shape();
    let last = shape.rank() - 1;
    let mut kept = shape.to_vec();
    kept[last] = 1;
    x.sum(&[last])?.reshape(&Shape::from(&kept[..]))?.expand(shape)
}

/// (x − mean)/√(variance + 10⁻⁵) along the last axis
fn layer_norm(x: &Value) -> Result<Value> {
    let each = 1.0 / x.shape()[x.shape().rank() - 1] as f64;
    let centred = x.sub(&row_sum(x)?.scale(each)?)?;
    let variance = row_sum(&centred.mul(&centred)?)?.scale(each)?;
    centred.div(&variance.add(&variance.like(1e-5))?.sqrt()?)
}

fn biased(x: &Value, bias: &Value) -> Result<Value> {
    x.add(&bias.reshape(&[1, bias.shape()[0]].into())?.expand(x.shape())?)
}

/// Cross-entropy of the network on words and one-hot targets, averaged.
fn loss(parameters: &[Value], words: &Value, targets: &Value) -> Result<Value> {
    let embedded = parameters[0].gather(words, 0)?;
    let hidden = biased(&layer_norm(&embedded)?.dot(&parameters[1])?, &parameters[2])?.tanh()?;
    let logits = biased(&hidden.dot(&parameters[3])?, &parameters[4])?;
    let likelihood = logits.sub(&row_sum(&logits.exp()?)?.log()?)?;
    likelihood.mul(targets)?.sum_all()?.scale(-1.0 / BATCH as f64)
}

/// Losses and learning rates of the steps, and the parameters after them. `scalars`: the dtype of what the rule computes.
fn train(device: &dyn Device, rule: Rule, scalars: DType) -> Result<(Vec<[f64; 2]>, Vec<f64>)> {
    let params: Vec<Value> = PARAMETERS.iter().map(|&shape| Value::input(shape.into(), F32)).collect();
    let words = Value::input([BATCH].into(), I32);
    let targets = Value::input([BATCH, CLASSES].into(), F32);
    let loss = loss(&params, &words, &targets)?;
    let spec = Spec { scalar: scalars, ..Spec::defaults(rule) };
    let traced = adam_step(&spec, &loss, &params, &[words, targets])?;
    let graph = simplify(&flatten(&traced.inputs, &traced.outputs)?.graph);
    let mut step = device.load(Arc::new(compile(&graph, &traced.donated())?))?;

    let upload = |values: &[f64], dtype: DType| device.upload(&to_bytes(values, dtype));
    let mut carried = Vec::new();
    for (i, param) in params.iter().enumerate() {
        let start: Vec<f64> = numbers(param.shape().elements(), i).iter().map(|x| x * 0.4).collect();
        carried.push(upload(&start, F32)?);
    }
    carried.extend(start_of(device, &traced.start)?);
    let mut trace = Vec::new();
    for i in 0..STEPS {
        let words: Vec<f64> = (0..BATCH).map(|b| ((b * 3 + i * 2 + b * i) % WORDS) as f64).collect();
        // Classes that the words only half explain, so that the loss does not vanish and leave rounding errors in α.
        let class = |b: usize| if b.is_multiple_of(2) { words[b] as usize % CLASSES } else { (b + i) % CLASSES };
        let one_hot = |b: usize| (0..CLASSES).map(move |c| f64::from(u8::from(class(b) == c)));
        let targets: Vec<f64> = (0..BATCH).flat_map(one_hot).collect();
        carried.extend([upload(&words, I32)?, upload(&targets, F32)?, upload(&[1.0], scalars)?]);
        carried = step.run(carried)?;
        if let Some(report) = carried.pop() {
            let report = read(device, &report, scalars)?;
            trace.push([report[0], report[2]]);
        }
    }
    let mut parameters = Vec::new();
    for memory in &carried[..params.len()] {
        parameters.extend(read(device, memory, F32)?);
    }
    Ok((trace, parameters))
}

/// The values of a start that depends on no input.
fn start_of(device: &dyn Device, start: &[Value]) -> Result<Vec<Memory>> {
    let graph = simplify(&flatten(&[], start)?.graph);
    device.load(Arc::new(compile(&graph, &[])?))?.run(Vec::new())
}

fn read(device: &dyn Device, memory: &Memory, dtype: DType) -> Result<Vec<f64>> {
    let mut bytes = vec![0; memory.bytes];
    device.download(memory, &mut bytes)?;
    Ok(from_bytes(&bytes, dtype))
}

fn compare(device: &dyn Device, rule: Rule, scalars: DType) {
    let cpu = Cpu::new(Some(1)).expect("a cpu");
    let (want, want_parameters) = train(&cpu, rule, scalars).expect("training on the cpu");
    let (got, got_parameters) = train(device, rule, scalars).expect("training on the device");
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(close(got[0], want[0]) && close(got[1], want[1]), "{rule:?}, step {i}: {got:?}, the cpu's {want:?}");
    }
    for (got, want) in got_parameters.iter().zip(&want_parameters) {
        assert!(close(*got, *want), "{rule:?}: {got}, the cpu's {want}");
    }
    assert!(want.windows(2).all(|pair| pair[0][1] != pair[1][1]), "{rule:?}: the learning rate moves");
}

#[test]
fn cuda_interpreted_trains_like_the_cpu() {
    for rule in [Rule::Next, Rule::Exact] {
        for (library, order) in [(false, Order::Forward), (false, Order::Mixed(9)), (true, Order::Backward)] {
            let machine = MachineOptions { order, ..MachineOptions::default() };
            let driver = Arc::new(Interpreted::new(Settings { library, machine, ..Settings::default() }));
            let options = CudaOptions { tf32: false, library: true, pool: false, graphs: true };
            let cuda = Cuda::with_driver(driver.clone(), options);
            compare(&cuda, rule, F64);
            let counts = driver.counts();
            assert!(counts.replays >= STEPS - 3, "steps are replayed: {counts:?}");
        }
    }
    say(&format!("training on cuda (interpreted): next and exact, {STEPS} steps each, like the cpu"));
}

#[test]
fn wgpu_trains_like_the_cpu() {
    // Where there is no adapter, that has been said.
    let Some(device) = wgpu() else { return };
    for rule in [Rule::Next, Rule::Exact] {
        compare(device.device(), rule, F32);
    }
    say(&format!("training on {}: next and exact, {STEPS} steps each, like the cpu", device.name()));
}
