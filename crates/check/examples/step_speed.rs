//! Times a whole training step on the CPU, rule by rule: an MLP 784-512-512-10, batch 128, Adam, interleaved so that a busy
//! machine slows all alike. `cargo run --release -p raphson-check --example step_speed -- next exact`; with
//! `RAPHSON_PROFILE=1` each program's kernels are listed. The benchmark of the package itself is `bench/overhead.ts`.

use raphson_check::step::adam_step;
use raphson_compile::compile;
use raphson_device::cpu::Cpu;
use raphson_device::{Device, Loaded, Memory};
use raphson_graph::dtype::DType::F32;
use raphson_graph::error::Result;
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};
use std::sync::Arc;
use std::time::Instant;

const BATCH: usize = 128;
const SHAPES: [&[usize]; 6] = [&[512, 784], &[512], &[512, 512], &[512], &[10, 512], &[10]];
const ROUNDS: usize = 25;
const STEPS: usize = 8;

fn linear(x: &Value, weight: &Value, bias: &Value) -> Result<Value> {
    let product = x.dot(&weight.permute(&[1, 0])?)?;
    let shape = product.shape().clone();
    product.add(&bias.reshape(&[1, shape[1]].into())?.expand(&shape)?)
}

/// Cross-entropy with one-hot targets, averaged.
fn loss(params: &[Value], images: &Value, targets: &Value) -> Result<Value> {
    let relu = |x: Value| x.maximum(&x.like(0.0));
    let hidden = relu(linear(images, &params[0], &params[1])?)?;
    let hidden = relu(linear(&hidden, &params[2], &params[3])?)?;
    let logits = linear(&hidden, &params[4], &params[5])?;
    let sums = logits.exp()?.sum(&[1])?.log()?;
    let likelihood = logits.sub(&sums.reshape(&[BATCH, 1].into())?.expand(logits.shape())?)?;
    likelihood.mul(targets)?.sum_all()?.scale(-1.0 / BATCH as f64)
}

/// One rule's step, with what it carries along.
struct Runner {
    rule: Rule,
    step: Box<dyn Loaded>,
    carried: Vec<Memory>,
    batch: Vec<Memory>,
    ms: Vec<f64>,
}

impl Runner {
    fn new(device: &dyn Device, rule: Rule) -> Result<Runner> {
        let params: Vec<Value> = SHAPES.iter().map(|&shape| Value::input(shape.into(), F32)).collect();
        let (images, targets) = (Value::input([BATCH, 784].into(), F32), Value::input([BATCH, 10].into(), F32));
        let loss = loss(&params, &images, &targets)?;
        let spec = Spec { initial: 1e-3, min: 1e-8, max: 1e-2, ..Spec::defaults(rule) };
        let traced = adam_step(&spec, &loss, &params, &[images, targets])?;
        let outputs: Vec<Value> = traced.outputs.iter().map(Value::alias).collect();
        let graph = simplify(&flatten(&traced.inputs, &outputs)?.graph);
        let step = device.load(Arc::new(compile(&graph, &traced.donated())?))?;

        let floats = |n: usize, scale: f32| -> Vec<u8> {
            (0..n).flat_map(|i| (((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale).to_ne_bytes()).collect()
        };
        let mut carried = Vec::new();
        for shape in SHAPES {
            carried.push(device.upload(&floats(shape.iter().product(), 0.04))?);
        }
        let start = simplify(&flatten(&[], &traced.start)?.graph);
        carried.extend(device.load(Arc::new(compile(&start, &[])?))?.run(Vec::new())?);
        let one_hot = (0..BATCH * 10).flat_map(|i| f32::from(u8::from(i / 10 * 7 % 10 == i % 10)).to_ne_bytes());
        let batch = vec![
            device.upload(&floats(BATCH * 784, 1.0))?,
            device.upload(&one_hot.collect::<Vec<u8>>())?,
            device.upload(&1f64.to_ne_bytes())?,
        ];
        Ok(Runner { rule, step, carried, batch, ms: Vec::new() })
    }

    fn steps(&mut self, n: usize) -> Result<()> {
        let start = Instant::now();
        for _ in 0..n {
            let inputs = std::mem::take(&mut self.carried).into_iter().chain(self.batch.iter().cloned());
            self.carried = self.step.run(inputs.collect())?;
            self.carried.pop();
        }
        self.ms.push(start.elapsed().as_secs_f64() * 1e3 / n as f64);
        Ok(())
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() -> Result<()> {
    let device = Cpu::new(None)?;
    println!("{}", device.describe().name);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted = if wanted.is_empty() { vec!["next".to_string()] } else { wanted };
    let mut runners = vec![Runner::new(&device, Rule::Constant)?];
    for name in &wanted {
        runners.push(Runner::new(&device, Rule::named(name)?)?);
    }
    for runner in &mut runners {
        runner.steps(5)?;
        runner.ms.clear();
    }
    for _ in 0..ROUNDS {
        runners.iter_mut().try_for_each(|runner| runner.steps(STEPS))?;
    }
    let constant = runners[0].ms.clone();
    for runner in &runners {
        let ratios = runner.ms.iter().zip(&constant).map(|(ms, constant)| ms / constant).collect();
        let (ms, ratio) = (median(runner.ms.clone()), median(ratios));
        println!("{:10} {ms:.3} ms, {ratio:.3} × constant", runner.rule.name());
    }
    Ok(())
}
