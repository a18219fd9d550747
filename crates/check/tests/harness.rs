//! The harness itself: wrong rows are found out. A check that cannot fail checks nothing.

use raphson_check::case::{Case, Input};
use raphson_check::suite::Suite;
use raphson_graph::dtype::DType;
use raphson_graph::kernel::Prim;
use raphson_graph::op::elementwise::{Accept, Gives, Row, apply};
use raphson_graph::value::Value;

/// x³ with everything right.
const CUBE: Row = Row {
    name: "cube",
    doc: "x³.",
    arity: 1,
    accept: Accept::Float,
    gives: Gives::Same,
    reference: |x, _| x[0] * x[0] * x[0],
    kernel: |e, x| {
        let square = e.binary(Prim::Mul, x[0], x[0]);
        e.binary(Prim::Mul, square, x[0])
    },
    partial: |x, _, _| x[0].square()?.scale(3.0).map(Some),
    domain: &[(-2.0, 2.0)],
};
static RIGHT: Row = CUBE;
static WRONG_KERNEL: Row = Row { name: "kernel", kernel: |e, x| e.binary(Prim::Mul, x[0], x[0]), ..CUBE };
static WRONG_SLOPE: Row = Row { name: "slope", partial: |x, _, _| x[0].square()?.scale(2.999_999).map(Some), ..CUBE };
/// The slope is right, but its own derivative is cut off.
static WRONG_CURVATURE: Row =
    Row { name: "curvature", partial: |x, _, _| x[0].square()?.scale(3.0).map(|y| Some(y.stop_gradient())), ..CUBE };
static NO_SLOPE: Row = Row { name: "none", partial: |_, _, _| Ok(None), ..CUBE };
static WRONG_SHAPE: Row = Row { name: "shape", partial: |x, _, _| x[0].sum_all().map(Some), ..CUBE };

fn failures(row: &'static Row) -> Vec<String> {
    let mut suite = Suite::on_all().unwrap();
    suite
        .check(&Case::new(row.name, "[5]", vec![Input::new([5], DType::F64)], move |x: &[Value]| apply(row, &[&x[0]])));
    suite.failures().to_vec()
}

#[test]
fn a_right_row_passes() {
    assert_eq!(failures(&RIGHT), Vec::<String>::new());
}

#[test]
fn wrong_rows_are_found_out() {
    let wrong: [(&'static Row, &str); 5] = [
        (&WRONG_KERNEL, "value"),
        (&WRONG_SLOPE, "jvp against finite differences"),
        (&WRONG_CURVATURE, "jvp of vjp against finite differences"),
        (&NO_SLOPE, "vjp against finite differences"),
        (&WRONG_SHAPE, "finite differences"),
    ];
    for (row, part) in wrong {
        let failures = failures(row);
        assert!(failures.iter().any(|failure| failure.contains(part)), "{}: {failures:?}", row.name);
    }
}

#[test]
fn a_refused_graph_is_a_failure() {
    let mut suite = Suite::on_all().unwrap();
    let inputs = vec![Input::new([5], DType::F64), Input::new([4], DType::F64)];
    suite.check(&Case::new("add", "clash", inputs, |x| x[0].add(&x[1])));
    assert_eq!(suite.failures().len(), 1);
}
