//! A whole training step on the CPU without Node: the MLPs and the GPT of `bench/peers`, by Adam. `cargo bench -p raphson-bench
//! --bench step`. Rules against each other, in turns, are `check/examples/step_speed.rs`'s subject.

use divan::Bencher;
use raphson_check::models::{self, Gpt, Model};
use raphson_check::step::Running;
use raphson_device::cpu::Cpu;
use raphson_optim::alpha::{Rule, Spec};

fn main() {
    divan::main();
}

fn bench(bencher: Bencher, model: &Model, rule: Rule) {
    let device = Cpu::new(None).expect("a device");
    let spec = Spec { initial: 1e-3, min: 1e-8, max: 1e-2, ..Spec::defaults(rule) };
    let mut step = Running::new(&device, model, &spec).expect("a step");
    step.run().expect("a run");
    bencher.bench_local(move || step.run().expect("a run"));
}

/// Batch sizes.
#[divan::bench(args = [32, 128])]
fn mlp(bencher: Bencher, batch: usize) {
    bench(bencher, &models::mlp(&[784, 512, 512, 10], batch).expect("a model"), Rule::Constant);
}

#[divan::bench(args = [Rule::Constant, Rule::Next, Rule::Exact])]
fn mlp_by_rule(bencher: Bencher, rule: Rule) {
    bench(bencher, &models::mlp(&[784, 512, 512, 10], 128).expect("a model"), rule);
}

/// What a step costs that computes nearly nothing.
#[divan::bench]
fn tiny(bencher: Bencher) {
    bench(bencher, &models::mlp(&[4, 16, 2], 8).expect("a model"), Rule::Constant);
}

#[divan::bench(sample_count = 20)]
fn gpt(bencher: Bencher) {
    bench(bencher, &Gpt::BENCH.model().expect("a model"), Rule::Constant);
}
