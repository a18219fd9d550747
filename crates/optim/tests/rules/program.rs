//! Programs run by the reference, and what else the tests of this crate share.

use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;

/// A graph traced once and run often.
pub struct Program(Graph);

impl Program {
    /// The simplified graph of `outputs` as a function of the placeholders `inputs`.
    pub fn new(inputs: &[Value], outputs: &[Value]) -> Program {
        Program(simplify(&flatten(inputs, outputs).unwrap().graph))
    }

    /// One row-major list for each output.
    pub fn run(&self, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
        evaluate(&self.0, inputs).unwrap()
    }

    /// How many ops of this name it has.
    pub fn count(&self, name: &str) -> usize {
        self.0.nodes.iter().filter(|node| node.op.name() == name).count()
    }
}

/// Placeholders like the values.
pub fn placeholders(like: &[Value]) -> Vec<Value> {
    like.iter().map(|value| Value::input(value.shape().clone(), value.dtype())).collect()
}

/// The numbers of values that depend on no placeholder.
pub fn numbers(values: &[Value]) -> Vec<Vec<f64>> {
    Program::new(&[], values).run(&[])
}

/// |a − b| ≤ relative · |b|
pub fn close(a: f64, b: f64, relative: f64) -> bool {
    (a - b).abs() <= relative * b.abs() || a == b
}
