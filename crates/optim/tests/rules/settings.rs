//! Settings and arguments that make no sense are refused with a sentence; results look like what they replace.

use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Needs, Rule, Spec};

#[test]
fn every_rule_has_a_name_and_good_defaults() {
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()).unwrap(), rule);
        Spec::defaults(rule).check().unwrap();
    }
    assert!(Rule::named("newton").unwrap_err().message.contains("retsinas"));
    assert_eq!(Spec::defaults(Rule::Alt2).needs.names(), ["loss1", "slope1", "lossMinus"]);
    assert_eq!(Needs::named(&["curvature"]).unwrap(), Needs { curvature: true, ..Needs::default() });
    assert!(Needs::named(&["loss0"]).is_err());
}

#[test]
fn bad_settings_are_refused_by_name() {
    let refuse = |change: fn(&mut Spec), word: &str| {
        let mut spec = Spec::defaults(Rule::Alt1);
        change(&mut spec);
        let message = spec.check().unwrap_err().message;
        assert!(message.starts_with(word), "{message}");
    };
    refuse(|spec| spec.gamma = 0.0, "gamma");
    refuse(|spec| spec.gamma = f64::NAN, "gamma");
    refuse(|spec| spec.gamma = 1.1, "gamma");
    refuse(|spec| spec.min = 0.0, "min");
    refuse(|spec| spec.max = f64::INFINITY, "max");
    refuse(|spec| spec.initial = -1.0, "initial");
    refuse(|spec| spec.min = 200.0, "min must be less");
    refuse(|spec| spec.initial = 1000.0, "initial must lie");
    refuse(|spec| spec.every = 0, "every");
    for rule in [Rule::Next, Rule::NextPlain] {
        assert!(Spec { every: 2, ..Spec::defaults(rule) }.check().is_err());
        assert_eq!(Spec { total_steps: Some(9), ..Spec::defaults(rule) }.check().is_ok(), rule == Rule::Next);
        assert!(Spec { sample: 0, ..Spec::defaults(rule) }.check().is_err());
        assert!(Spec { total_steps: Some(0), ..Spec::defaults(rule) }.check().is_err());
    }
}

#[test]
fn a_loss_must_be_one_float() {
    let x = Value::input([2].into(), DType::F64);
    let params = std::slice::from_ref(&x);
    let alpha = Value::scalar(0.1, DType::F64);
    let measure = |loss: &Value| alpha::measure(Needs::default(), loss, params, params, params, &alpha);
    assert!(measure(&x).unwrap_err().message.contains("one float"));
    assert!(measure(&x.sum_all().unwrap().cast(DType::I32).unwrap()).is_err());
    assert!(measure(&x.sum_all().unwrap().reshape(&[1, 1].into()).unwrap()).is_ok());
}

#[test]
fn only_rules_that_look_ahead_have_a_start_up() {
    let (x, factor) = (Value::input([2].into(), DType::F64), Value::scalar(0.2, DType::F64));
    let params = std::slice::from_ref(&x);
    let loss = x.square().unwrap().sum_all().unwrap();
    let spec = Spec::defaults(Rule::Exact);
    let state = alpha::init(&spec, params, &[], false).unwrap();
    assert!(alpha::probe(&spec, &loss, params, &state, None, true, &factor).is_err());
    assert!(alpha::rescale(&spec, params, &state, None, true, &factor, &factor).is_err());
}

/// A step of `rule` on parameters of both float dtypes, with a loss in f32.
fn mixed(rule: Rule) -> Result<()> {
    let params = vec![Value::input([3].into(), DType::F32), Value::input([2, 2].into(), DType::F64)];
    let second = params[1].cast(DType::F32)?.square()?.sum_all()?;
    let loss = params[0].square()?.sum_all()?.add(&second)?;
    let spec = Spec::defaults(rule);
    let state = alpha::init(&spec, &params, &[], false)?;
    let carry = alpha::begin(&spec, &loss, &params, &params, &state, None)?;
    let scale = Value::scalar(1.0, DType::F64);
    let step = Finish {
        loss: &loss,
        params: &params,
        gradients: &params,
        omega: &params,
        direction_old: &params,
        direction_new: &params,
        state: &state,
        carry: &carry,
        recalled: None,
        scale: &scale,
        proposal: &[],
    };
    let done = alpha::finish(&spec, step)?;
    let like = |a: &[Value], b: &[Value]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.shape() == b.shape() && a.dtype() == b.dtype())
    };
    assert!(like(&done.params, &params) && like(&done.direction, &params) && like(&done.state, &state));
    assert_eq!((done.report.shape(), done.report.dtype()), (&Shape::from([8]), DType::F64));
    if rule.looks_ahead() {
        let rescaled = alpha::rescale(&spec, &params, &state, None, false, &scale, &scale)?;
        assert!(like(&rescaled, &[&params[..], &state].concat()));
        for first in [true, false] {
            let accept = alpha::probe(&spec, &loss, &params, &state, None, first, &scale)?;
            assert_eq!((accept.dtype(), accept.shape().rank()), (DType::Bool, 0));
        }
    }
    Ok(())
}

#[test]
fn results_look_like_what_they_replace() {
    for rule in Rule::ALL.into_iter().filter(|&rule| rule != Rule::Custom) {
        mixed(rule).unwrap();
    }
}
