//! Golden values from PyTorch in f64: four functions, four directions, five steps. Every measured quantity and α′ by
//! seven formulas (γ = .5, unguarded) come out of the graph as they stand in `data/alpha.json`.

use crate::json::Json;
use crate::program::{Program, close, numbers, placeholders};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Needs, Rule, Spec, measure};
use raphson_optim::direction::{Options, named};

/// Rules with the names that the file gives them.
const RULES: [(Rule, &str); 7] = [
    (Rule::Exact, "exact"),
    (Rule::Retsinas, "retsinas"),
    (Rule::Alt1, "alt1"),
    (Rule::Alt2, "alt2"),
    (Rule::Alt2GradientFree, "alt2_gradfree_onesided"),
    (Rule::Alt2GradientFreeAsPublished, "alt2_gradfree_as_written"),
    (Rule::Hermite, "hermite"),
];

/// A matrix or vector of the file as a graph: rows joined from constants.
fn constant(data: &Json) -> Value {
    let row = |numbers: &[f64]| {
        let ones: Vec<Value> = numbers.iter().map(|&x| Value::constant(x, DType::F64, &[1].into())).collect();
        Value::concatenate(&ones, 0).unwrap()
    };
    match &data.list()[0] {
        Json::List(_) => {
            let rows: Vec<Value> = data.list().iter().map(|r| row(&r.flat())).collect();
            let shape: Shape = [rows.len(), rows[0].shape()[0]].into();
            Value::concatenate(&rows, 0).unwrap().reshape(&shape).unwrap()
        }
        _ => row(&data.flat()),
    }
}

/// Elements `from..from + n` of a vector in another shape.
fn part(x: &Value, from: usize, shape: &[usize]) -> Result<Value> {
    let n: usize = shape.iter().product();
    x.slice(&[from], &[from + n], &[1])?.reshape(&shape.into())
}

fn mean(x: &Value) -> Result<Value> {
    x.sum_all()?.scale(1.0 / x.shape().elements() as f64)
}

/// The problem's loss as a function of its flat parameters.
fn loss(problem: &str, data: &Json, x: &Value) -> Result<Value> {
    let column = |v: &Value| v.reshape(&[v.shape()[0], 1].into());
    match problem {
        // ½ xᵀAx − bᵀx
        "quadratic" => {
            let ax = constant(data.get("A")).dot(&column(x)?)?.reshape(x.shape())?;
            x.mul(&ax)?.scale(0.5)?.sub(&x.mul(&constant(data.get("b")))?)?.sum_all()
        }
        // (1 − x₀)² + 100(x₁ − x₀²)²
        "rosenbrock" => {
            let (x0, x1) = (part(x, 0, &[])?, part(x, 1, &[])?);
            let valley = x1.sub(&x0.square()?)?.square()?.scale(100.0)?;
            x0.like(1.0).sub(&x0)?.square()?.add(&valley)
        }
        // z = Xw + c, mean(log(1 + eᶻ) − yz) + .005|w|²
        "logistic" => {
            let w = part(x, 0, &[2, 1])?;
            let (features, y) = (constant(data.get("X")), constant(data.get("y")));
            let z = features.dot(&w)?.reshape(y.shape())?.add(&part(x, 2, &[])?)?;
            mean(&z.softplus()?.sub(&y.mul(&z)?)?)?.add(&w.square()?.sum_all()?.scale(0.005)?)
        }
        // W₂ tanh(W₁x + b₁) + b₂, ½ mean (out − y)²
        "mlp_tanh" => {
            let (features, y) = (constant(data.get("X")), constant(data.get("y")));
            let hidden = features.dot(&part(x, 0, &[3, 2])?.transpose()?)?.add(&part(x, 6, &[3])?)?.tanh()?;
            let out = hidden.dot(&part(x, 9, &[3, 1])?)?.reshape(y.shape())?.add(&part(x, 12, &[])?)?;
            mean(&out.sub(&y)?.square()?)?.scale(0.5)
        }
        other => panic!("unknown problem {other}"),
    }
}

/// The programs of one case: measures, gradient, ω and direction state; then α′ and h of every rule.
struct Case {
    measures: Program,
    rules: Program,
    direction_state: Vec<Vec<f64>>,
}

impl Case {
    fn new(case: &Json) -> Result<Case> {
        let theta =
            Value::input(Shape::new("theta", vec![case.get("steps").list()[0].get("theta").list().len()])?, DType::F64);
        let params = std::slice::from_ref(&theta);
        let loss = loss(case.get("problem").text(), case.get("definition"), &theta)?;
        let gradients = vjp(std::slice::from_ref(&loss), params, &[Value::scalar(1.0, DType::F64)])?;
        let direction = named(case.get("direction").text())?;
        let decay = [("weightDecay".to_string(), 0.1)];
        let options = Options::new(direction, if direction.name() == "adamw" { &decay } else { &[] })?;
        let start = direction.init(&options, params)?;
        let old = placeholders(&start);
        let applied = direction.direction(&options, params, &gradients, &old)?;
        let alpha = Value::input(Shape::scalar(), DType::F64);
        let all = Needs::named(&Needs::NAMES)?;
        let m = measure(all, &loss, params, &gradients, &applied.omega, &alpha)?;
        let inputs = [params, std::slice::from_ref(&alpha), &old].concat();
        let measured = [m.loss0, m.slope0, m.loss1.unwrap(), m.slope1.unwrap(), m.curvature.unwrap()];
        let outputs = [&measured[..], &[m.loss_minus.unwrap()], &gradients, &applied.omega, &applied.state].concat();
        let mut by_rule = Vec::new();
        for (rule, _) in RULES {
            let spec = Spec { gamma: 0.5, guard: false, ..Spec::defaults(rule) };
            let mut state = alpha::init(&spec, params, &[], false)?;
            state[0] = alpha.clone();
            let step = Finish {
                loss: &loss,
                params,
                gradients: &gradients,
                omega: &applied.omega,
                direction_old: &old,
                direction_new: &applied.state,
                state: &state,
                carry: &[],
                recalled: None,
                scale: &Value::scalar(1.0, DType::F64),
                proposal: &[],
            };
            let done = alpha::finish(&spec, step)?;
            by_rule.extend([done.state[0].clone(), done.report, done.params[0].clone()]);
        }
        let (measures, rules) = (Program::new(&inputs, &outputs), Program::new(&inputs, &by_rule));
        Ok(Case { measures, rules, direction_state: numbers(&start) })
    }
}

fn check(at: &str, what: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{at} {what}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(close(*found, *wanted, 1e-9), "{at} {what}: {found} for {wanted}");
    }
}

#[test]
fn every_quantity_and_every_formula_agrees_with_the_golden_values() {
    let data = Json::read("alpha.json");
    let cases = data.get("cases").list();
    assert_eq!(cases.len(), 16);
    for case in cases {
        let mut programs = Case::new(case).unwrap();
        for step in case.get("steps").list() {
            let at = format!(
                "{} {} step {}",
                case.get("problem").text(),
                case.get("direction").text(),
                step.get("step").number()
            );
            let (theta, alpha) = (step.get("theta").flat(), step.get("alpha").number());
            let inputs = [&[theta, vec![alpha]][..], &programs.direction_state].concat();
            let mut out = programs.measures.run(&inputs);
            programs.direction_state = out.split_off(8);
            let keys = ["L0", "d0", "Lm", "n", "h_exact", "Lp", "grad", "omega"];
            for (key, found) in keys.into_iter().zip(&out) {
                check(&at, key, found, &step.get(key).flat());
            }
            for ((_, name), found) in RULES.into_iter().zip(programs.rules.run(&inputs).chunks(3)) {
                let (next, report, params) = (found[0][0], &found[1], &found[2]);
                check(&at, name, &[next], &[step.get("alpha_next").get(name).number()]);
                check(&at, "theta_next", params, &step.get("theta_next").flat());
                if let ("retsinas" | "alt1" | "alt2" | "hermite", curvatures) = (name, step.get("curv")) {
                    check(&at, name, &[report[5]], &[curvatures.get(name).number()]);
                }
            }
        }
    }
}
