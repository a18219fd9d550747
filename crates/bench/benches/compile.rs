//! How long a graph takes to become a program: networks' training steps, and graphs of many nodes. `cargo bench -p raphson-bench
//! --bench compile`. How the work grows is counted in `check/tests/compile_work.rs`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use raphson_check::models::{self, Gpt, Model};
use raphson_check::step::adam_step;
use raphson_compile::compile;
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_optim::alpha::{Rule, Spec};

fn main() {
    divan::main();
}

/// The graph of a step by a rule, and what is donated.
fn step_of(model: &Model, rule: Rule) -> (Graph, Vec<bool>) {
    let spec = Spec { initial: 1e-3, ..Spec::defaults(rule) };
    let traced = adam_step(&spec, &model.loss, &model.params, &model.batch).expect("a step");
    (flatten(&traced.inputs, &traced.outputs).expect("a graph").graph, traced.donated())
}

fn bench(bencher: Bencher, (graph, donated): (Graph, Vec<bool>)) {
    let nodes = ItemsCount::new(graph.nodes.len());
    bencher.counter(nodes).bench(|| compile(&simplify(black_box(&graph)), &donated).expect("a program"));
}

#[divan::bench(sample_count = 20, args = [Rule::Constant, Rule::Next, Rule::Exact])]
fn mlp_step(bencher: Bencher, rule: Rule) {
    bench(bencher, step_of(&models::mlp(&[784, 512, 512, 10], 128).expect("a model"), rule));
}

#[divan::bench(sample_count = 10, args = [Rule::Constant, Rule::Exact])]
fn gpt_step(bencher: Bencher, rule: Rule) {
    bench(bencher, step_of(&Gpt::BENCH.model().expect("a model"), rule));
}

#[divan::bench(sample_count = 5, args = [12, 24, 48])]
fn gpt_step_of_blocks(bencher: Bencher, blocks: usize) {
    bench(bencher, step_of(&Gpt { blocks, ..Gpt::BENCH }.model().expect("a model"), Rule::Constant));
}

#[divan::bench(sample_count = 3, args = [10_000, 100_000])]
fn chain(bencher: Bencher, n: usize) {
    bench(bencher, forward(&models::chain(n).expect("a graph")));
}

#[divan::bench(sample_count = 3, args = [10_000, 100_000])]
fn chain_of_products(bencher: Bencher, n: usize) {
    bench(bencher, forward(&models::chain_of_products(n).expect("a graph")));
}

/// A tree has three nodes for each of its leaves.
#[divan::bench(sample_count = 3, args = [10_000, 100_000])]
fn tree(bencher: Bencher, n: usize) {
    bench(bencher, forward(&models::tree(n / 3).expect("a graph")));
}

fn forward(model: &Model) -> (Graph, Vec<bool>) {
    let inputs = [&model.params[..], &model.batch].concat();
    let graph = flatten(&inputs, std::slice::from_ref(&model.loss)).expect("a graph").graph;
    let donated = vec![false; inputs.len()];
    (graph, donated)
}
