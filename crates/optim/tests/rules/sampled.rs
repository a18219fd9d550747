//! `next` with large tensors seen at every k-th place: where the places between are like those, nothing changes at all;
//! where they are not, slopes and rates are still close.

use crate::program::close;
use crate::training::Training;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};

/// A vector of that many blocks is large enough to be sampled: one place of each block is seen.
const BLOCKS: usize = 2400;
const BLOCK: usize = 8;

fn spec(sample: u32) -> Spec {
    Spec { sample, initial: 0.01, ..Spec::defaults(Rule::Next) }
}

/// Mean over a block, sum over all, of λ(θ − extra)², with λ from .1 to 1.1 from the first block to the last.
fn loss(x: &Value, extra: &Value) -> Result<Value> {
    let blocks = x.reshape(&[BLOCKS, BLOCK].into())?;
    let weights = Value::iota(blocks.shape(), x.dtype(), 0)?.scale(1.0 / BLOCKS as f64)?.shift(0.1)?;
    blocks.sub(extra)?.square()?.mul(&weights)?.sum_all()?.scale(1.0 / BLOCK as f64)
}

fn theta(alike: bool) -> Vec<f64> {
    (0..BLOCKS * BLOCK).map(|i| ((if alike { i / BLOCK } else { i * 31 }) as f64).sin()).collect()
}

#[test]
fn places_that_are_alike_give_the_same_rate_whether_all_are_seen_or_not() {
    for direction in ["sgd", "momentum", "adamw"] {
        let mut runs = [1, 8].map(|k| Training::new(&spec(k), direction, &theta(true), loss).unwrap());
        let sizes = runs.each_ref().map(|run| run.state.iter().map(Vec::len).sum::<usize>());
        assert!(sizes[1] + 2 * BLOCKS * BLOCK < sizes[0], "{sizes:?}");
        for step in 0..25 {
            let extra = 0.1 * f64::from(step % 5);
            let [all, some] = runs.each_mut().map(|run| run.step(extra, 1.0));
            let pairs = [(all.next, some.next), (all.slope0, some.slope0), (all.loss, some.loss)];
            assert!(pairs.iter().all(|(a, b)| close(*b, *a, 1e-9)), "{direction}, step {step}: {all:?}, {some:?}");
        }
    }
}

#[test]
fn places_that_differ_are_estimated_from_those_that_are_seen() {
    let mut runs = [1, 8].map(|k| Training::new(&spec(k), "adam", &theta(false), loss).unwrap());
    for step in 0..40 {
        let [all, some] = runs.each_mut().map(|run| run.step(0.1 * f64::from(step % 5), 1.0));
        assert!(close(some.next, all.next, 0.1), "step {step}: {some:?}, {all:?}");
        assert!(step == 0 || some.slope0 != all.slope0);
    }
}

#[test]
fn a_gradient_that_is_not_finite_where_it_is_not_seen_is_refused() {
    // √|θ₀| · 0 at θ₀ = 0: the loss is finite, one number of its gradient is not.
    let loss = |x: &Value, extra: &Value| {
        let first = x.slice(&[0], &[1], &[1])?.square()?.sqrt()?.sum_all()?;
        loss(x, extra)?.add(&first.mul(extra)?)
    };
    let mut start = theta(false);
    start[0] = 0.0;
    let mut run = Training::new(&spec(8), "adam", &start, loss).unwrap();
    let report = run.step(0.0, 1.0);
    assert!(!report.accepted && report.loss.is_finite(), "{report:?}");
    assert_eq!(run.theta, start);
}

/// Whether a place of a matrix of `rows` is this one.
fn cell(rows: &Value, at: [f64; 2]) -> Result<Value> {
    let along = |axis: usize| {
        let places = Value::iota(rows.shape(), rows.dtype(), axis)?;
        places.equal(&places.like(at[axis]))
    };
    along(0)?.and(&along(1)?)
}

#[test]
fn a_matrix_product_that_is_not_finite_where_it_is_not_seen_is_refused() {
    let ones = |rows: usize, columns: usize| Value::constant(1.0, DType::F64, &[rows, columns].into());
    // One column of the gradient dataᵀ · δ is not finite, because of one δ: the derivative of √0, times 0.
    let column = |x: &Value, extra: &Value| {
        let y = ones(4, 2400).dot(&x.reshape(&[2400, 8].into())?)?;
        let root = cell(&y, [0.0, 1.0])?.select(&y.scale(0.0)?, &y.like(1.0))?.square()?.sqrt()?;
        loss(x, extra)?.add(&root.sum_all()?.mul(extra)?)
    };
    // One row of it is not, because of one datum whose result the loss does not look at.
    let row = |x: &Value, extra: &Value| {
        let data = ones(4, 4800);
        let data = cell(&data, [3.0, 4.0])?.select(&data.like(f64::NAN), &data)?;
        let y = data.dot(&x.reshape(&[4800, 4].into())?)?;
        let counts = Value::iota(y.shape(), DType::F64, 0)?.less(&y.like(3.0))?;
        loss(x, extra)?.add(&counts.select(&y, &y.like(0.0))?.square()?.sum_all()?)
    };
    let start = theta(false);
    let runs = [Training::new(&spec(8), "adam", &start, column), Training::new(&spec(64), "adam", &start, row)];
    for run in runs {
        let mut run = run.unwrap();
        let report = run.step(0.0, 1.0);
        assert!(!report.accepted && report.loss.is_finite(), "{report:?}");
        assert_eq!(run.theta, start);
    }
}
