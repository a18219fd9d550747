//! One training step of any rule and direction, traced once and run with its state carried along.

use crate::program::{Program, numbers, placeholders};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Finished, Spec};
use raphson_optim::direction::{Options, named};

/// A step on one parameter vector. Its loss may use a second input, `extra` (a scalar that differs from step to step).
pub struct Training {
    program: Program,
    pub theta: Vec<f64>,
    pub direction: Vec<Vec<f64>>,
    pub state: Vec<Vec<f64>>,
}

/// Fields of a report.
#[derive(Debug)]
pub struct Report {
    pub loss: f64,
    pub applied: f64,
    pub next: f64,
    pub slope0: f64,
    pub slope1: f64,
    pub curvature: f64,
    pub loss1: f64,
    pub accepted: bool,
}

impl Training {
    /// The step of `spec` and `direction` on `loss(θ, extra)` from `theta`; `propose` for custom rules gets α and the
    /// placeholders of θ.
    pub fn with_proposal(
        spec: &Spec,
        direction: &str,
        theta: &[f64],
        loss: impl Fn(&Value, &Value) -> Result<Value>,
        propose: impl Fn(&Value) -> Vec<Value>,
    ) -> Result<Training> {
        let x = Value::input([theta.len()].into(), DType::F64);
        let params = std::slice::from_ref(&x);
        let (extra, scale) = (Value::input(Shape::scalar(), DType::F64), Value::input(Shape::scalar(), DType::F64));
        let loss = loss(&x, &extra)?;
        let gradients = vjp(std::slice::from_ref(&loss), params, &[Value::scalar(1.0, DType::F64)])?;
        let direction = named(direction)?;
        let options = Options::new(direction, &[])?;
        let direction_start = direction.init(&options, params)?;
        let state_start = alpha::init(spec, params, &direction_start, false)?;
        let (old, state) = (placeholders(&direction_start), placeholders(&state_start));
        let carry = alpha::begin(spec, &loss, params, &gradients, &state, None)?;
        let applied = direction.direction(&options, params, &gradients, &old)?;
        let step = Finish {
            loss: &loss,
            params,
            gradients: &gradients,
            omega: &applied.omega,
            direction_old: &old,
            direction_new: &applied.state,
            state: &state,
            carry: &carry,
            recalled: None,
            scale: &scale,
            proposal: &propose(&state[0]),
        };
        let Finished { params: moved, direction: new, state: after, report } = alpha::finish(spec, step)?;
        let inputs = [params, &[extra, scale], &old, &state].concat();
        let program = Program::new(&inputs, &[&moved[..], &new, &after, &[report]].concat());
        let (direction, state) = (numbers(&direction_start), numbers(&state_start));
        Ok(Training { program, theta: theta.to_vec(), direction, state })
    }

    /// The same without a proposal.
    pub fn new(
        spec: &Spec,
        direction: &str,
        theta: &[f64],
        loss: impl Fn(&Value, &Value) -> Result<Value>,
    ) -> Result<Training> {
        Training::with_proposal(spec, direction, theta, loss, |_| Vec::new())
    }

    pub fn step(&mut self, extra: f64, scale: f64) -> Report {
        let inputs = [&[self.theta.clone(), vec![extra], vec![scale]], &self.direction[..], &self.state].concat();
        let mut out = self.program.run(&inputs).into_iter();
        self.theta = out.next().unwrap();
        for list in [&mut self.direction, &mut self.state] {
            let count = list.len();
            *list = out.by_ref().take(count).collect();
        }
        let [loss, applied, next, slope0, slope1, curvature, loss1, accepted] = out.next().unwrap()[..] else {
            panic!("a report has eight fields")
        };
        assert_eq!(next, self.state[0][0], "state[0] is α");
        Report { loss, applied, next, slope0, slope1, curvature, loss1, accepted: accepted == 1.0 }
    }

    /// How many ops of this name the step has.
    pub fn count(&self, name: &str) -> usize {
        self.program.count(name)
    }
}

/// ½ Σ λᵢθᵢ² with λ from .1 to 1.
pub fn quadratic(x: &Value) -> Result<Value> {
    let n = x.shape()[0];
    let weights = Value::iota(x.shape(), DType::F64, 0)?.scale(0.9 / (n - 1) as f64)?.shift(0.1)?;
    x.square()?.mul(&weights)?.sum_all()?.scale(0.5)
}
