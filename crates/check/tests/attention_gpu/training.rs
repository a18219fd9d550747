//! A small GPT trains as on the cpu: whole steps with Adam's direction, state donated and carried along.

use raphson_check::models::Gpt;
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::runner::device::{from_bytes, to_bytes, wgpu};
use raphson_check::step::adam_step;
use raphson_compile::compile_for;
use raphson_device::cpu::Cpu;
use raphson_device::cuda::{Cuda, Options};
use raphson_device::{Device, Memory};
use raphson_graph::dtype::DType::{self, F32, F64, I32};
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};
use std::sync::Arc;

const GPT: Gpt = Gpt { blocks: 1, width: 16, heads: 2, context: 40, batch: 2, vocabulary: 7 };
const STEPS: usize = 4;

/// Loss and learning rate of each step. `scalars`: the dtype of what the rule computes.
fn train(device: &dyn Device, rule: Rule, scalars: DType) -> Vec<[f64; 2]> {
    let model = GPT.model().unwrap();
    let spec = Spec { scalar: scalars, ..Spec::defaults(rule) };
    let traced = adam_step(&spec, &model.loss, &model.params, &model.batch).unwrap();
    let load = |inputs: &[Value], outputs: &[Value], donated: &[bool]| {
        let graph = simplify(&flatten(inputs, outputs).unwrap().graph);
        device.load(Arc::new(compile_for(&graph, donated, &device.fused()).unwrap())).unwrap()
    };
    let mut step = load(&traced.inputs, &traced.outputs, &traced.donated());
    let upload = |values: &[f64], dtype: DType| device.upload(&to_bytes(values, dtype)).unwrap();
    let number = |i: usize| f64::from((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.3;
    let parameter = |(at, param): (usize, &Value)| {
        let values: Vec<f64> = (0..param.shape().elements()).map(|i| number(i + 31 * at)).collect();
        upload(&values, F32)
    };
    let mut carried: Vec<Memory> = model.params.iter().enumerate().map(parameter).collect();
    carried.extend(load(&[], &traced.start, &[]).run(Vec::new()).unwrap());
    let rows = GPT.batch * GPT.context;
    let mut trace = Vec::new();
    for at in 0..STEPS {
        let token = |i: usize| (i * i + 3 * i + at) % GPT.vocabulary;
        let tokens: Vec<f64> = (0..rows).map(|i| token(i) as f64).collect();
        let one_hot = |i: usize| (0..GPT.vocabulary).map(move |class| f64::from(u8::from(class == token(i + 1))));
        let targets: Vec<f64> = (0..rows).flat_map(one_hot).collect();
        carried.extend([upload(&tokens, I32), upload(&targets, F32), upload(&[1.0], scalars)]);
        carried = step.run(carried).unwrap();
        let report = carried.pop().unwrap();
        let mut bytes = vec![0; report.bytes];
        device.download(&report, &mut bytes).unwrap();
        let report = from_bytes(&bytes, scalars);
        trace.push([report[0], report[2]]);
    }
    trace
}

fn compare(device: &dyn Device, rule: Rule, scalars: DType) {
    let want = train(&Cpu::new(Some(1)).unwrap(), rule, scalars);
    let got = train(device, rule, scalars);
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(close(got[0], want[0]) && close(got[1], want[1]), "{rule:?}, step {i}: {got:?}, the cpu's {want:?}");
    }
    assert!(want.windows(2).all(|pair| pair[0][1] != pair[1][1]), "{rule:?}: the learning rate moves");
}

#[test]
fn cuda_interpreted_trains_a_gpt_like_the_cpu() {
    for (rule, capability) in [(Rule::Next, (9, 0)), (Rule::Exact, (8, 6))] {
        let driver = Arc::new(Interpreted::new(Settings { capability, ..Settings::default() }));
        let options = Options { tf32: false, library: false, pool: false, graphs: true };
        compare(&Cuda::with_driver(driver.clone(), options), rule, F64);
        let kind = if capability == (9, 0) { "split" } else { "plain" };
        for part in ["forward", "queries", "keys"] {
            assert!(driver.entries().contains(&format!("attention_{kind}_{part}")), "{:?}", driver.entries());
        }
    }
}

#[test]
fn wgpu_trains_a_gpt_like_the_cpu() {
    // Where there is no adapter, that has been said.
    let Some(device) = wgpu() else { return };
    compare(device.device(), Rule::Next, F32);
}
