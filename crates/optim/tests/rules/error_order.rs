//! How far each rule's curvature is from φ″(α): the order in α and the leading constant, on a smooth φ.

use crate::program::{Program, numbers};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Rule, Spec};

/// φ(s) = L(−s) with L(θ) = exp(.7θ) + sin(1.3θ) + θ⁴/5 at θ = .4, ω = 1.
const THETA: f64 = 0.4;

fn loss(x: &Value) -> Value {
    let exponential = x.scale(0.7).unwrap().exp().unwrap();
    let wave = x.scale(1.3).unwrap().sin().unwrap();
    let quartic = x.square().unwrap().square().unwrap().scale(0.2).unwrap();
    exponential.add(&wave).unwrap().add(&quartic).unwrap()
}

/// φ″, φ‴, φ⁗ at s, from the formulas: derivatives of L at θ − s, the odd ones with the other sign.
fn derivatives(s: f64) -> [f64; 3] {
    let x = THETA - s;
    let (e, sin, cos) = ((0.7 * x).exp(), (1.3 * x).sin(), (1.3 * x).cos());
    [
        0.7f64.powi(2) * e - 1.3f64.powi(2) * sin + 2.4 * x * x,
        -(0.7f64.powi(3) * e - 1.3f64.powi(3) * cos + 4.8 * x),
        0.7f64.powi(4) * e + 1.3f64.powi(4) * sin + 4.8,
    ]
}

/// The rule's h at each α, unguarded.
fn curvatures(rule: Rule, alphas: &[f64]) -> Vec<f64> {
    let x = Value::input(Shape::scalar(), DType::F64);
    let params = std::slice::from_ref(&x);
    let loss = loss(&x);
    let one = Value::scalar(1.0, DType::F64);
    let gradients = vjp(std::slice::from_ref(&loss), params, std::slice::from_ref(&one)).unwrap();
    let spec = Spec { guard: false, ..Spec::defaults(rule) };
    let alpha = Value::input(Shape::scalar(), DType::F64);
    let mut state = alpha::init(&spec, params, &[], false).unwrap();
    assert_eq!(numbers(&state)[0], [spec.initial]);
    state[0] = alpha.clone();
    let step = Finish {
        loss: &loss,
        params,
        gradients: &gradients,
        omega: std::slice::from_ref(&one),
        direction_old: &[],
        direction_new: &[],
        state: &state,
        carry: &[],
        recalled: None,
        scale: &one,
        proposal: &[],
    };
    let report = alpha::finish(&spec, step).unwrap().report;
    let program = Program::new(&[x.clone(), alpha], &[report]);
    alphas.iter().map(|&alpha| program.run(&[vec![THETA], vec![alpha]])[0][5]).collect()
}

#[test]
fn curvatures_have_the_derived_order_and_constant() {
    // α small enough for the leading term, large enough for the differences of losses
    let first = [4e-3, 2e-3, 1e-3];
    let second = [4e-2, 2e-2, 1e-2];
    let table = [
        (Rule::Retsinas, 1, 1.0 / 2.0, first),
        (Rule::Alt1, 1, 1.0 / 3.0, first),
        (Rule::Alt2, 1, 1.0, first),
        (Rule::Hermite, 2, 1.0 / 12.0, second),
    ];
    for (rule, order, constant, alphas) in table {
        let errors: Vec<f64> =
            (curvatures(rule, &alphas).iter().zip(alphas)).map(|(h, alpha)| h - derivatives(alpha)[0]).collect();
        let slope = (errors[0] / errors[2]).ln() / (alphas[0] / alphas[2]).ln();
        assert!((slope - f64::from(order)).abs() < 0.1, "{}: slope {slope}", rule.name());
        let derivative = derivatives(alphas[2])[order as usize];
        let found = -errors[2] / (alphas[2].powi(order) * derivative);
        assert!((found / constant - 1.0).abs() < 0.02, "{}: constant {found} for {constant}", rule.name());
    }
}

#[test]
fn the_exact_curvature_is_exact() {
    for (alpha, h) in [1e-6, 1e-2, 1.0].into_iter().zip(curvatures(Rule::Exact, &[1e-6, 1e-2, 1.0])) {
        assert!((h / derivatives(alpha)[0] - 1.0).abs() < 1e-12, "{alpha}: {h}");
    }
}
