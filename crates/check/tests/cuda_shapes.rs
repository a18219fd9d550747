//! Printed PTX at the sizes where its form changes: four elements at a time, grids that loop, rows shared by some lanes, by
//! a warp, by a block, columns shared by parts of a block, every tile of the plain product, scatter-add over several
//! blocks. Executed by the interpreter, compared with the reference.

use raphson_check::case::{Case, Input};
use raphson_check::runner::interpreted::Interpreted;
use raphson_check::suite::Suite;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::reference::evaluate;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut suite = Suite::new(vec![Box::new(Interpreted::default())]);
    cases.into_iter().for_each(|case| suite.check(&case.values_only()));
    suite.finish();
}

const NUMERIC: [DType; 4] = [DType::F32, DType::F64, DType::I32, DType::U32];

#[test]
fn elements_four_at_a_time() {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for shape in [[32, 64], [64, 33], [33, 64], [7, 1000], [2052, 1]] {
            let combine = move |x: &[Value]| x[0].select(&x[1], &x[2]);
            let row: [usize; 1] = [shape[1]];
            let inputs = vec![Input::new(shape, DType::Bool), Input::new(shape, dtype), Input::new(row, dtype)];
            cases.push(Case::new("select", format!("{shape:?} with a row"), inputs, combine));
            let column: [usize; 2] = [shape[0], 1];
            let inputs = vec![Input::new(column, DType::Bool), Input::new(shape, dtype), Input::new([], dtype)];
            cases.push(Case::new("select", format!("{shape:?} with a column and one"), inputs, combine));
        }
        // Views whose rows are aligned, and whose rows are not.
        for (low, high, step) in [(4, 68, 1), (1, 65, 1), (0, 128, 2), (3, 67, 1)] {
            let view = move |x: &[Value]| x[0].slice(&[0, low], &[40, high], &[1, step])?.cast(DType::F64);
            cases.push(Case::new("slice", format!("{low}..{high}"), vec![Input::new([40, 128], dtype)], view));
        }
        let turned = |x: &[Value]| x[0].transpose()?.select(&x[1], &x[2].flip(&[0, 1])?);
        let inputs = vec![Input::new([48, 64], DType::Bool), Input::new([64, 48], dtype), Input::new([64, 48], dtype)];
        cases.push(Case::new("select", "transposed and flipped", inputs, turned));
        let iota = move |x: &[Value]| Value::iota(&Shape::from([50, 64]), dtype, 1)?.equal(&x[0]);
        if dtype != DType::Bool {
            cases.push(Case::new("iota", "four at a time", vec![Input::below([50, 64], dtype, 64)], iota));
        }
    }
    check(cases);
}

#[test]
fn grids_that_loop() {
    let double = |x: &[Value]| x[0].add(&x[0]);
    check([
        Case::new("add", "four at a time", vec![Input::new([2_200_000], DType::I32)], double),
        Case::new("add", "one at a time", vec![Input::new([600_001], DType::I32)], double),
    ]);
}

fn softmax(x: &Value, axis: usize) -> Result<Value> {
    let greatest = x.reduce(ReduceOp::Max, &[axis])?.expand_reduced(&[axis], x.shape())?;
    let power = x.sub(&greatest)?.exp()?;
    power.div(&power.sum(&[axis])?.expand_reduced(&[axis], x.shape())?)
}

fn normalise(x: &Value, axis: usize) -> Result<Value> {
    let n = x.shape()[axis] as f64;
    let spread = |value: Value| value.scale(1.0 / n)?.expand_reduced(&[axis], x.shape());
    let centred = x.sub(&spread(x.sum(&[axis])?)?)?;
    let variance = spread(centred.mul(&centred)?.sum(&[axis])?)?;
    centred.mul(&variance.shift(1e-5)?.rsqrt()?)
}

/// Lengths around the bounds at which rows get more lanes, and whole blocks.
const LENGTHS: [usize; 16] = [1, 2, 3, 5, 8, 10, 31, 32, 33, 64, 100, 128, 131, 513, 1000, 2052];

#[test]
fn rows() {
    let mut cases = Vec::new();
    for length in LENGTHS {
        for rows in [1, 3, 40] {
            for dtype in [DType::F32, DType::F64] {
                let input = || vec![Input::new([rows, length], dtype)];
                cases.push(Case::new("softmax", format!("{rows} rows of {length}"), input(), |x| softmax(&x[0], 1)));
                let what = format!("{rows} rows of {length}");
                cases.push(Case::new("normalise", what, input(), |x| normalise(&x[0], 1)).within(2e-5, 1e-10));
            }
        }
    }
    // So many rows that a warp each is better than a block.
    cases.push(Case::new("softmax", "1100 rows of 600", vec![Input::new([1100, 600], DType::F32)], |x| {
        softmax(&x[0], 1)
    }));
    check(cases);
}

#[test]
fn columns() {
    let mut cases = Vec::new();
    for length in [2, 3, 9, 16, 33, 100, 400, 1024] {
        for rows in [2, 3, 10, 33, 70] {
            let input = || vec![Input::new([length, rows], DType::F32)];
            let what = format!("{rows} columns of {length}");
            cases.push(Case::new("softmax", what.clone(), input(), |x| softmax(&x[0], 0)));
            cases.push(Case::new("normalise", what, input(), |x| normalise(&x[0], 0)).within(2e-5, 1e-10));
        }
    }
    let middle = |x: &[Value]| x[0].sum(&[1]);
    cases.push(Case::new("sum", "of a middle axis", vec![Input::new([5, 40, 7], DType::F64)], middle));
    let outer = |x: &[Value]| x[0].sum(&[0, 2]);
    cases.push(Case::new("sum", "of outer axes", vec![Input::new([6, 5, 40], DType::F32)], outer));
    check(cases);
}

#[test]
fn every_reduction_by_every_team() {
    let mut cases = Vec::new();
    for dtype in NUMERIC {
        for op in ReduceOp::ALL.into_iter().chain([ReduceOp::ArgMax]) {
            for (shape, axis) in
                [([9, 5], 1), ([9, 50], 1), ([3, 700], 1), ([2, 2100], 1), ([300, 20], 0), ([9, 200], 0)]
            {
                let range = if op == ReduceOp::Prod { (0.5, 1.6) } else { (-2.0, 2.0) };
                let input = Input::within(shape, dtype, range.0, range.1);
                let what = format!("{shape:?} along {axis}");
                cases.push(Case::new(op.name(), what, vec![input], move |x| x[0].reduce(op, &[axis])));
            }
        }
    }
    check(cases);
}

#[test]
fn extrema_see_nans_and_the_first_of_equals() {
    let mut cases = Vec::new();
    for (shape, axis) in [([6, 7], 1), ([4, 50], 1), ([2, 2100], 1), ([100, 12], 0), ([600, 3], 0)] {
        // Ties everywhere; a NaN now and then; a row of infinities.
        let values: Vec<f64> = (0..shape[0] * shape[1])
            .map(|i| match i % 97 {
                13 => f64::NAN,
                _ if i < 12 => f64::NEG_INFINITY,
                _ => (i * 7 % 5) as f64,
            })
            .collect();
        for dtype in [DType::F32, DType::F64] {
            for op in [ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax] {
                let input = Input::given(shape, dtype, &values);
                let what = format!("{shape:?} along {axis}");
                cases.push(Case::new(op.name(), what, vec![input], move |x| x[0].reduce(op, &[axis])));
            }
        }
    }
    check(cases);
}

#[test]
fn gather_and_scatter_add_over_several_blocks() {
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::I32, DType::F64] {
        for (axis, inner, count) in
            [(5, 1, 700), (3000, 1, 300), (40, 3, 513), (700, 64, 90), (9, 300, 30), (1, 20, 40)]
        {
            let data = Input::new([2, axis, inner], dtype);
            let indices = Input::below([count], DType::I32, axis);
            let what = format!("axis of {axis}, inner {inner}, {count} indices");
            cases.push(Case::new("gather", what.clone(), vec![data, indices.clone()], |x| x[0].gather(&x[1], 1)));
            let updates = Input::new([2, count, inner], dtype);
            let scatter = move |x: &[Value]| x[0].scatter_add(&x[1], 1, axis);
            cases.push(Case::new("scatterAdd", what, vec![updates, indices], scatter));
        }
    }
    check(cases);
}

#[test]
fn one_kernel_with_many_reductions() {
    let build = |x: &[Value]| {
        let mut outputs = Vec::new();
        for power in 1..6 {
            let y = x[0].scale(f64::from(power))?.sin()?;
            outputs.extend([y.sum(&[1])?, y.reduce(ReduceOp::Max, &[1])?, y.reduce(ReduceOp::ArgMax, &[1])?]);
        }
        Ok(outputs)
    };
    let columns = move |x: &[Value]| build(&[x[0].transpose()?]);
    check([
        Case::several("many", "rows", vec![Input::new([3, 2100], DType::F32)], build),
        Case::several("many", "short rows", vec![Input::new([30, 40], DType::F32)], build),
        Case::several("many", "columns", vec![Input::new([120, 30], DType::F32)], columns),
    ]);
}

#[test]
fn rows_in_place() {
    // The last rows of a block may not exist; no thread may read in their name what another one writes.
    for (shape, axis) in [([3, 10], 1), ([5, 40], 1), ([3, 2100], 1), ([40, 3], 0), ([300, 33], 0), ([7, 70], 0)] {
        let x = Value::input(Shape::from(shape), DType::F32);
        let outputs = [x.scale(2.0).unwrap(), x.sum(&[axis]).unwrap()];
        let graph = flatten(std::slice::from_ref(&x), &outputs).unwrap().graph;
        let data: Vec<f64> = (0..shape[0] * shape[1]).map(|i| (i % 37) as f64 - 18.0).collect();
        let want = evaluate(&graph, std::slice::from_ref(&data)).unwrap();
        let runner = Interpreted::default();
        for _ in 0..3 {
            let got = runner.run_donating(&graph, std::slice::from_ref(&data), &[true]).unwrap();
            assert_eq!(got, want, "{shape:?} along {axis}");
        }
    }
}
