//! Documented derivatives where finite differences cannot say: at kinks, ties and zeros, and far out, where a careless
//! formula overflows. Each line of the table states x, the gradient of Σ f(x), and the second derivative along ones.

use raphson_check::case::{Case, Input};
use raphson_check::runner;
use raphson_check::suite::Suite;
use raphson_graph::derivative::{jvp, vjp};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;

/// A function of one vector, where to look, and its gradient there.
struct Kink {
    name: &'static str,
    build: fn(&Value) -> Result<Value>,
    x: &'static [f64],
    gradient: &'static [f64],
}

const INFINITE: f64 = f64::INFINITY;

const KINKS: &[Kink] = &[
    Kink { name: "relu", build: |x| x.relu(), x: &[-1.0, -0.0, 0.0, 1.0], gradient: &[0.0, 0.0, 0.0, 1.0] },
    Kink { name: "abs", build: |x| x.abs(), x: &[-2.0, -0.0, 0.0, 2.0], gradient: &[-1.0, 0.0, 0.0, 1.0] },
    Kink { name: "sign", build: |x| x.sign(), x: &[-2.0, 0.0, 2.0], gradient: &[0.0; 3] },
    Kink { name: "floor", build: |x| x.floor(), x: &[-1.0, 0.0, 2.0], gradient: &[0.0; 3] },
    Kink { name: "round", build: |x| x.round(), x: &[-0.5, 0.5, 1.5], gradient: &[0.0; 3] },
    Kink { name: "sqrt", build: |x| x.sqrt(), x: &[0.0, 4.0], gradient: &[INFINITE, 0.25] },
    Kink { name: "maximum", build: |x| x.maximum(&x.like(1.0)), x: &[0.0, 1.0, 2.0], gradient: &[0.0, 0.5, 1.0] },
    Kink { name: "minimum", build: |x| x.like(1.0).minimum(x), x: &[0.0, 1.0, 2.0], gradient: &[1.0, 0.5, 0.0] },
    Kink { name: "maximum of itself", build: |x| x.maximum(x), x: &[-1.0, 0.0, 2.0], gradient: &[1.0; 3] },
    Kink {
        name: "max",
        build: |x| x.reduce(ReduceOp::Max, &[0]),
        x: &[1.0, 3.0, 3.0, 2.0],
        gradient: &[0.0, 0.5, 0.5, 0.0],
    },
    Kink { name: "max of equals", build: |x| x.reduce(ReduceOp::Max, &[0]), x: &[2.0; 4], gradient: &[0.25; 4] },
    Kink {
        name: "min",
        build: |x| x.reduce(ReduceOp::Min, &[0]),
        x: &[1.0, 3.0, 1.0, 2.0],
        gradient: &[0.5, 0.0, 0.5, 0.0],
    },
    Kink {
        name: "prod, one zero",
        build: |x| x.reduce(ReduceOp::Prod, &[0]),
        x: &[0.0, 2.0, 3.0, -1.0],
        gradient: &[-6.0, 0.0, 0.0, 0.0],
    },
    Kink {
        name: "prod, two zeros",
        build: |x| x.reduce(ReduceOp::Prod, &[0]),
        x: &[0.0, 2.0, 0.0],
        gradient: &[0.0; 3],
    },
    Kink { name: "pow with 0 exponent", build: |x| x.pow(&x.like(0.0)), x: &[-2.0, 0.0, 2.0], gradient: &[0.0; 3] },
    Kink {
        name: "pow with exponent 2",
        build: |x| x.pow(&x.like(2.0)),
        x: &[-3.0, 0.0, 2.0],
        gradient: &[-6.0, 0.0, 4.0],
    },
    Kink {
        name: "pow with exponent 1",
        build: |x| x.pow(&x.like(1.0)),
        x: &[-3.0, 0.0, 2.0],
        gradient: &[1.0, 1.0, 1.0],
    },
    Kink {
        name: "pow by the exponent, base 0",
        build: |x| x.like(0.0).pow(x),
        x: &[0.5, 1.0, 2.0],
        gradient: &[0.0; 3],
    },
    Kink {
        name: "pow by the exponent, negative base",
        build: |x| x.like(-2.0).pow(x),
        x: &[1.0, 2.0],
        gradient: &[0.0; 2],
    },
    Kink {
        name: "select past a NaN",
        build: |x| x.greater(&x.like(0.0))?.select(&x.square()?, &x.like(f64::NAN)),
        x: &[-4.0, 4.0],
        gradient: &[0.0, 8.0],
    },
    Kink { name: "softplus far out", build: |x| x.softplus(), x: &[-1e3, 1e3], gradient: &[0.0, 1.0] },
    Kink { name: "sigmoid far out", build: |x| x.sigmoid(), x: &[-1e3, 1e3], gradient: &[0.0, 0.0] },
    Kink { name: "tanh far out", build: |x| x.tanh(), x: &[-1e3, 1e3], gradient: &[0.0, 0.0] },
    Kink { name: "erf far out", build: |x| x.erf(), x: &[-1e3, 1e3], gradient: &[0.0, 0.0] },
    Kink { name: "gelu far out", build: |x| x.gelu(), x: &[-1e3, 0.0, 1e3], gradient: &[0.0, 0.5, 1.0] },
    Kink { name: "silu far out", build: |x| x.silu(), x: &[-1e3, 0.0, 1e3], gradient: &[0.0, 0.5, 1.0] },
    Kink { name: "log1p near 0", build: |x| x.log1p(), x: &[1e-12, 0.0], gradient: &[1.0, 1.0] },
    Kink { name: "stopGradient", build: |x| x.mul(&x.stop_gradient()), x: &[2.0, -3.0], gradient: &[2.0, -3.0] },
    Kink { name: "cast through i32", build: |x| x.cast(DType::I32)?.cast(x.dtype()), x: &[2.5], gradient: &[0.0] },
];

/// Gradient by vjp and the same by one jvp for each basis vector, with the second derivative along ones both ways.
fn derivatives(kink: &Kink, dtype: DType) -> (raphson_graph::flat::Graph, Vec<Vec<f64>>) {
    let n = kink.x.len();
    let mut placeholders = vec![Value::input([n].into(), dtype)];
    let mut data = vec![kink.x.to_vec()];
    let y = (kink.build)(&placeholders[0]).unwrap();
    let x = vec![placeholders[0].clone()];
    let gradient = vjp(std::slice::from_ref(&y), &x, &[y.like(1.0)]).unwrap();
    let mut outputs = gradient.clone();
    outputs.extend(jvp(&gradient, &x, &[x[0].like(1.0)]).unwrap());
    for i in 0..n {
        let basis = Value::input([n].into(), dtype);
        let tangent = jvp(std::slice::from_ref(&y), &x, std::slice::from_ref(&basis)).unwrap();
        outputs.push(tangent[0].sum_all().unwrap());
        placeholders.push(basis);
        data.push((0..n).map(|j| f64::from(u8::from(i == j))).collect());
    }
    (flatten(&placeholders, &outputs).unwrap().graph, data)
}

fn agrees(got: f64, want: f64) -> bool {
    got == want || (got - want).abs() < 1e-6
}

#[test]
fn derivatives_at_kinks_are_as_documented() {
    let mut failures = Vec::new();
    for kink in KINKS {
        for dtype in [DType::F32, DType::F64] {
            let (graph, data) = derivatives(kink, dtype);
            let mut results = vec![("reference".to_string(), evaluate(&graph, &data).unwrap())];
            for runner in runner::all().unwrap().iter().filter(|runner| runner.supports(dtype)) {
                results.push((runner.name(), runner.run(&graph, &data).unwrap()));
            }
            for (name, result) in results {
                let forward: Vec<f64> = result[2..].iter().map(|value| value[0]).collect();
                // An infinite slope times a zero direction is NaN, forward: only reverse is asked for there.
                let finite = kink.gradient.iter().all(|g| g.is_finite());
                let same = |got: &[f64]| got.iter().zip(kink.gradient).all(|(&got, &want)| agrees(got, want));
                if !same(&result[0]) || (finite && !same(&forward)) || (finite && result[1].iter().any(|h| h.is_nan()))
                {
                    failures.push(format!(
                        "{} {dtype} on {name}: vjp {:?}, jvp {forward:?}, not {:?}; second {:?}",
                        kink.name, result[0], kink.gradient, result[1]
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn second_derivatives_beside_kinks_are_right() {
    let mut suite = Suite::on_all().unwrap();
    for dtype in [DType::F32, DType::F64] {
        let given = |values: &[f64]| Input::given([values.len()], dtype, values);
        type Beside = (&'static str, Vec<Input>, fn(&[Value]) -> Result<Value>);
        let cases: [Beside; 5] = [
            ("prod with a zero", vec![given(&[0.0, 2.0, 3.0, -1.0])], |x| x[0].reduce(ReduceOp::Prod, &[0])),
            ("prod with two zeros", vec![given(&[0.0, 2.0, 0.0, -1.0])], |x| x[0].reduce(ReduceOp::Prod, &[0])),
            ("pow at exponent 0", vec![given(&[0.5, 2.0]), given(&[0.0, 0.0])], |x| x[0].pow(&x[1])),
            ("pow, negative base", vec![given(&[-0.5, -2.0])], |x| x[0].pow(&x[0].like(3.0))),
            ("pow, base 0", vec![given(&[0.0, 0.0])], |x| x[0].pow(&x[0].like(3.0))),
        ];
        for (what, inputs, build) in cases {
            suite.check(&Case::new("beside a kink", what, inputs, build));
        }
    }
    suite.finish();
}

#[test]
fn inputs_of_a_derivative_are_independent() {
    // z = x·y with y = 2x: by x and y together, ∂z/∂x is y alone; by x alone, it is 4x.
    let x = Value::input([1].into(), DType::F64);
    let y = x.scale(2.0).unwrap();
    let z = x.mul(&y).unwrap();
    let one = Value::constant(1.0, DType::F64, &[1].into());
    let (of, both, seed) = (std::slice::from_ref(&z), [x.clone(), y], std::slice::from_ref(&one));
    let mut outputs = vjp(of, &both, seed).unwrap();
    outputs.extend(vjp(of, &both[..1], seed).unwrap());
    outputs.extend(jvp(of, &both, &[one.clone(), one.like(0.0)]).unwrap());
    outputs.extend(jvp(of, &both[..1], seed).unwrap());
    let graph = flatten(&[x], &outputs).unwrap().graph;
    assert_eq!(evaluate(&graph, &[vec![3.0]]).unwrap().concat(), [6.0, 3.0, 12.0, 6.0, 12.0]);
}
