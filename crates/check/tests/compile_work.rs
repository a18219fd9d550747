//! What compiling costs, in counted visits: a graph twice as large takes at most 2.5 times as many, whatever its shape. Times
//! are `benches/compile.rs`'s subject.

use raphson_check::models::{self, Gpt, Model};
use raphson_check::step::adam_step;
use raphson_compile::compile;
use raphson_graph::error::Result;
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::work::counted;
use raphson_optim::alpha::{Rule, Spec};

/// Most of the visits for 2n over those for n.
const MOST: f64 = 2.5;

/// Nodes of the flat graph, and visits from values to a program. Donated inputs and outputs are those of `graph_of`.
fn work(
    inputs: &[raphson_graph::value::Value],
    outputs: &[raphson_graph::value::Value],
    donated: &[bool],
) -> (usize, u64) {
    let (result, visits) = counted(|| -> Result<usize> {
        let graph = flatten(inputs, outputs)?.graph;
        compile(&simplify(&graph), donated)?;
        Ok(graph.nodes.len())
    });
    (result.unwrap(), visits)
}

/// Only the value itself.
fn forward(model: &Model) -> (usize, u64) {
    let inputs = [&model.params[..], &model.batch].concat();
    let donated = vec![false; inputs.len()];
    work(&inputs, std::slice::from_ref(&model.loss), &donated)
}

/// Every parameter replaced by its double in place: as many outputs as inputs.
fn replaced(model: &Model) -> (usize, u64) {
    let outputs: Vec<_> = model.params.iter().map(|param| param.add(param).unwrap()).collect();
    work(&model.params, &outputs, &vec![true; outputs.len()])
}

/// A whole training step.
fn step(model: &Model) -> (usize, u64) {
    step_by(Rule::Constant, model)
}

fn step_by(rule: Rule, model: &Model) -> (usize, u64) {
    let spec = Spec { initial: 1e-3, ..Spec::defaults(rule) };
    let traced = adam_step(&spec, &model.loss, &model.params, &model.batch).unwrap();
    work(&traced.inputs, &traced.outputs, &traced.donated())
}

/// What is wrong, if something is.
fn check(what: &str, n: usize, work_of: impl Fn(usize) -> (usize, u64)) -> Option<String> {
    let (nodes, visits) = work_of(n);
    let (nodes_twice, visits_twice) = work_of(2 * n);
    let growth = visits_twice as f64 / visits as f64;
    let found =
        format!("{what}: {nodes} nodes take {visits} visits, {nodes_twice} nodes {visits_twice}: {growth:.2} times");
    println!("{found}");
    assert!(nodes_twice as f64 > 1.7 * nodes as f64, "{what}: {nodes_twice} nodes are not twice {nodes}");
    (growth > MOST).then_some(found)
}

fn none(wrong: impl IntoIterator<Item = Option<String>>) {
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chains_take_work_in_proportion() {
    none([250, 1000, 4000].into_iter().flat_map(|n| {
        [
            check("chain", n, |n| forward(&models::chain(n).unwrap())),
            check("chain of products", n, |n| forward(&models::chain_of_products(n).unwrap())),
        ]
    }));
}

#[test]
fn derivatives_of_chains_take_work_in_proportion() {
    let loss = |n: usize, of: fn(usize) -> Result<Model>| {
        let mut model = of(n).unwrap();
        model.loss = model.loss.sum_all().unwrap();
        model
    };
    none([250, 1000].into_iter().flat_map(|n| {
        [
            check("step of a chain", n, |n| step(&loss(n, models::chain))),
            check("step of a chain of products", n, |n| step(&loss(n, models::chain_of_products))),
        ]
    }));
}

#[test]
fn wide_trees_take_work_in_proportion() {
    none([256, 1024, 4096].into_iter().flat_map(|n| {
        [
            check("tree", n, |n| forward(&models::tree(n).unwrap())),
            check("tree of products", n, |n| forward(&models::tree_of_products(n).unwrap())),
            check("updates side by side", n, |n| replaced(&models::tree(n).unwrap())),
        ]
    }));
}

#[test]
fn stacks_of_transformer_blocks_take_work_in_proportion() {
    let small = |blocks: usize| Gpt { blocks, width: 16, heads: 2, context: 8, batch: 2, vocabulary: 11 };
    none([4, 12, 24].into_iter().flat_map(|blocks| {
        [
            check("transformer blocks", blocks, |blocks| forward(&small(blocks).model().unwrap())),
            check("step of transformer blocks", blocks, |blocks| step(&small(blocks).model().unwrap())),
        ]
    }));
}

/// Parameters large enough for the second half of a step to compute again what the first has left unstored.
#[test]
fn steps_that_measure_take_work_in_proportion() {
    let deep = |layers: usize| models::mlp(&vec![64; layers + 1], 64).unwrap();
    none(
        [8, 32].into_iter().map(|layers| {
            check("step of dense layers, measured", layers, |layers| step_by(Rule::Exact, &deep(layers)))
        }),
    );
}
