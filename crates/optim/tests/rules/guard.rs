//! What the guards promise: from any start the published rules train and never leave the finite numbers; bad steps leave
//! no trace; α keeps its limits.

use crate::training::{Training, quadratic};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Needs, Rule, Spec};

const PUBLISHED: [Rule; 7] = [
    Rule::Exact,
    Rule::Retsinas,
    Rule::Alt1,
    Rule::Alt2,
    Rule::Alt2GradientFree,
    Rule::Alt2GradientFreeAsPublished,
    Rule::Hermite,
];
const STARTS: [f64; 4] = [1e-6, 1e-3, 1.0, 10.0];

fn spec(rule: Rule, initial: f64) -> Spec {
    Spec { gamma: 0.5, initial, ..Spec::defaults(rule) }
}

fn rosenbrock(x: &Value) -> Result<Value> {
    let (x0, x1) = (x.slice(&[0], &[1], &[1])?, x.slice(&[1], &[2], &[1])?);
    let valley = x1.sub(&x0.square()?)?.square()?.scale(100.0)?;
    x0.like(1.0).sub(&x0)?.square()?.add(&valley)?.sum_all()
}

/// The least loss over 300 steps, as a part of the first.
fn least(mut training: Training, offset: f64, at: &str) -> f64 {
    let first = training.step(0.0, 1.0).loss - offset;
    let mut least = first;
    for step in 1..300 {
        let report = training.step(0.0, 1.0);
        assert!(
            report.loss.is_finite() && report.next.is_finite() && report.next > 0.0,
            "{at} step {step}: {report:?}"
        );
        assert!(training.theta.iter().all(|x| x.is_finite()), "{at} step {step}");
        least = least.min(report.loss - offset);
    }
    least / first
}

#[test]
fn published_rules_train_a_quadratic_from_any_start() {
    for rule in PUBLISHED {
        for initial in STARTS {
            let at = format!("{} from {initial}", rule.name());
            let training = Training::new(&spec(rule, initial), "sgd", &[1.0; 10], |x, _| quadratic(x)).unwrap();
            let part = least(training, 0.0, &at);
            assert!(part <= 0.1, "{at}: {part}");
        }
    }
}

#[test]
fn published_rules_survive_rosenbrock_with_any_direction() {
    for rule in PUBLISHED {
        for (initial, direction) in STARTS.into_iter().zip(["sgd", "momentum", "adam", "nesterov"]) {
            let at = format!("{} {direction} from {initial}", rule.name());
            let training = Training::new(&spec(rule, initial), direction, &[-1.2, 1.0], |x, _| rosenbrock(x)).unwrap();
            let part = least(training, 0.0, &at);
            assert!(part <= 0.5, "{at}: {part}");
        }
    }
}

#[test]
fn losses_that_cancel_do_not_trap_a_small_rate() {
    // On top of 10⁶ the differences of losses are rounding until α is about .1.
    for rule in PUBLISHED {
        let loss = |x: &Value, _: &Value| quadratic(x)?.shift(1e6);
        let training = Training::new(&spec(rule, 1e-6), "sgd", &[1.0; 10], loss).unwrap();
        let part = least(training, 1e6, rule.name());
        assert!(part <= 0.1, "{}: {part}", rule.name());
    }
}

#[test]
fn a_step_into_nan_is_taken_back() {
    // θ − log θ, least at 1: the direction 5·.9 + ⅔ leads from 3 below zero.
    let loss = |x: &Value, _: &Value| x.sub(&x.log()?)?.sum_all();
    for rule in PUBLISHED {
        let mut training = Training::new(&spec(rule, 1.0), "momentum", &[3.0], loss).unwrap();
        training.direction = vec![vec![5.0]];
        let report = training.step(0.0, 1.0);
        assert!(!report.accepted && report.loss1.is_nan(), "{}: {report:?}", rule.name());
        assert_eq!((&training.theta[..], &training.direction[0][..]), (&[3.0][..], &[5.0][..]));
        assert!((0.1..=0.5).contains(&report.next), "{}: {report:?}", rule.name());
        assert!((0..200).any(|_| training.step(0.0, 1.0).loss < 1.01), "{}", rule.name());
    }
}

#[test]
fn a_batch_with_a_nan_loss_changes_no_parameter() {
    for rule in [Rule::Retsinas, Rule::Exact, Rule::Next, Rule::NextPlain] {
        for poisoned in [0, 4] {
            let loss = |x: &Value, extra: &Value| quadratic(x)?.mul(extra);
            let mut training = Training::new(&spec(rule, 0.1), "adam", &[1.0; 10], loss).unwrap();
            for step in 0..8 {
                let report = training.step(if step == poisoned { f64::NAN } else { 1.0 }, 1.0);
                assert_eq!(report.accepted, step != poisoned, "{} step {step}", rule.name());
                assert!(training.theta.iter().chain(training.direction.iter().flatten()).all(|x| x.is_finite()));
                assert!(report.next > 0.0);
            }
            assert!(training.step(1.0, 1.0).loss < 2.75 * 0.9, "{} {poisoned}", rule.name());
        }
    }
}

#[test]
fn rates_keep_their_limits_and_change_by_bounded_factors() {
    let mut limited = spec(Rule::Exact, 0.2);
    (limited.min, limited.max) = (0.1, 0.5);
    let mut training = Training::new(&limited, "sgd", &[1.0; 10], |x, _| quadratic(x)).unwrap();
    let mut alpha = 0.2;
    for _ in 0..20 {
        let next = training.step(0.0, 1.0).next;
        assert!((0.1..=0.5).contains(&next) && (0.5..=1.5000001).contains(&(next / alpha)), "{alpha} → {next}");
        alpha = next;
    }
    assert_eq!(alpha, 0.5);
}

#[test]
fn without_guards_the_bare_formula_runs() {
    // λ = 1: Newton's best rate is 1 from anywhere, whatever the factor and the limits.
    let bare = Spec { guard: false, gamma: 1.0, max: 0.5, initial: 1e-3, ..Spec::defaults(Rule::Exact) };
    let mut training = Training::new(&bare, "sgd", &[2.0], |x, _| x.square()?.scale(0.5)?.sum_all()).unwrap();
    assert!((training.step(0.0, 1.0).next - 1.0).abs() < 1e-12);
}

#[test]
fn a_schedule_stays_outside_the_rate() {
    let newton = Spec { guard: false, gamma: 1.0, initial: 0.5, ..Spec::defaults(Rule::Retsinas) };
    let mut training = Training::new(&newton, "sgd", &[2.0], |x, _| x.square()?.scale(0.5)?.sum_all()).unwrap();
    let report = training.step(0.0, 0.1);
    assert_eq!(report.applied, 0.05);
    assert!((report.slope1 - 3.8).abs() < 1e-12, "measured where the step leads: {report:?}");
    assert!((training.theta[0] - 1.9).abs() < 1e-12);
    assert!((report.next - 1.0).abs() < 1e-9, "α is the best rate, not the best rate over the schedule: {report:?}");
}

#[test]
fn between_measured_steps_the_rate_stays() {
    let still = Spec { measure: false, every: 5, ..spec(Rule::Exact, 0.25) };
    let mut training = Training::new(&still, "sgd", &[1.0; 10], |x, _| quadratic(x)).unwrap();
    let report = training.step(0.0, 1.0);
    assert!(report.accepted && report.slope0.is_nan() && report.loss1.is_nan() && report.curvature.is_nan());
    assert_eq!((report.applied, report.next), (0.25, 0.25));
    assert!((training.theta[0] - 0.975).abs() < 1e-12);
}

#[test]
fn only_what_a_rule_needs_is_computed() {
    // The number of times the loss is evaluated, by its one tanh.
    let loss = |x: &Value, _: &Value| x.sum_all()?.tanh()?.square();
    let table = [
        (Rule::Constant, 1),
        (Rule::Next, 1),
        (Rule::NextPlain, 1),
        (Rule::Exact, 2),
        (Rule::Retsinas, 2),
        (Rule::Alt1, 2),
        (Rule::Hermite, 2),
        (Rule::Alt2, 3),
        (Rule::Alt2GradientFree, 3),
    ];
    for (rule, evaluations) in table {
        let training = Training::new(&spec(rule, 0.1), "sgd", &[0.1; 3], loss).unwrap();
        assert_eq!(training.count("tanh"), evaluations, "{}", rule.name());
    }
}

#[test]
fn a_custom_rule_proposes_slope_and_curvature_or_the_rate() {
    let number = |x: f64| Value::scalar(x, DType::F64);
    let custom = Spec { needs: Needs { loss1: true, ..Needs::default() }, ..spec(Rule::Custom, 0.2) };
    let run = |proposal: Vec<Value>| {
        let loss = |x: &Value, _: &Value| quadratic(x);
        let propose = |_: &Value| proposal.clone();
        Training::with_proposal(&custom, "sgd", &[1.0; 10], loss, propose).map(|mut training| training.step(0.0, 1.0))
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} for {b}");
    close(run(vec![number(0.1), number(1.0)]).unwrap().next, 0.25);
    close(run(vec![number(1.0), number(-1.0)]).unwrap().next, 0.3);
    close(run(vec![number(-1.0), number(-1.0)]).unwrap().next, 0.1);
    close(run(vec![number(7.0)]).unwrap().next, 7.0);
    close(run(vec![number(f64::NAN)]).unwrap().next, 0.1);
    close(run(vec![number(1e9)]).unwrap().next, 100.0);
    assert!(run(vec![]).is_err() && run(vec![number(1.0), number(1.0), number(1.0)]).is_err());
}
