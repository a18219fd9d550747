//! Directions: for each optimizer, its options, its initial state, and ω from parameters, gradients and state. A file
//! for each; the registry and the options' checks are here. The learning rate is not: see `alpha`.

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamw;
mod amsgrad;
mod decay;
mod lamb;
mod lion;
mod moments;
mod momentum;
mod muon;
mod nadam;
mod nesterov;
mod radam;
mod rmsprop;
mod sgd;
mod slots;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamw::AdamW;
pub use amsgrad::AmsGrad;
pub use lamb::Lamb;
pub use lion::Lion;
pub use momentum::Momentum;
pub use muon::Muon;
pub use nadam::NAdam;
pub use nesterov::Nesterov;
pub use radam::RAdam;
pub use rmsprop::RmsProp;
pub use sgd::Sgd;

use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;

/// The numbers that an option may take, and how to say so.
#[derive(Debug)]
pub struct Range {
    /// "… must be {sentence}".
    pub sentence: &'static str,
    /// Whether a number is in it. Never true of NaN or an infinity.
    pub holds: fn(f64) -> bool,
}

/// 0 ≤ x < 1
pub static FRACTION: Range = Range { sentence: "at least 0 and less than 1", holds: |x| (0.0..1.0).contains(&x) };
/// 0 < x < ∞
pub static POSITIVE: Range = Range { sentence: "a positive number", holds: |x| x > 0.0 && x.is_finite() };
/// 0 ≤ x < ∞
pub static NOT_NEGATIVE: Range = Range { sentence: "zero or a positive number", holds: |x| x >= 0.0 && x.is_finite() };

/// 0 or 1
pub static FLAG: Range = Range { sentence: "0 (no) or 1 (yes)", holds: |x| x == 0.0 || x == 1.0 };

/// One option of a direction. All options are numbers.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name on both sides, camelCase.
    pub name: &'static str,
    /// Its value where none is given.
    pub default: f64,
    /// What it may be.
    pub range: &'static Range,
    /// One sentence for users.
    pub doc: &'static str,
}

/// The options of one direction, complete and in range.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    direction: &'static str,
    values: Vec<(&'static str, f64)>,
    scalar: DType,
}

impl Options {
    /// The given options and the defaults of the others. Unknown names and numbers out of range are errors.
    pub fn new(direction: &dyn Direction, given: &[(String, f64)]) -> Result<Options> {
        let (name, specs) = (direction.name(), direction.options());
        let mut values: Vec<(&'static str, f64)> = specs.iter().map(|spec| (spec.name, spec.default)).collect();
        for (option, value) in given {
            let Some(at) = specs.iter().position(|spec| spec.name == option) else {
                let known = specs.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "it has none".to_string() } else { format!("it has {known}") };
                return Err(Error::argument(name, format!("there is no option {option}; {known}")));
            };
            let range = specs[at].range;
            if !(range.holds)(*value) {
                return Err(Error::argument(name, format!("{option} must be {}, not {value}", range.sentence)));
            }
            values[at].1 = *value;
        }
        Ok(Options { direction: name, values, scalar: DType::F64 })
    }

    /// The same with scalars of the state in this dtype; f64 otherwise.
    pub fn with_scalar(self, scalar: DType) -> Options {
        Options { scalar, ..self }
    }

    /// Every option by name.
    pub fn values(&self) -> &[(&'static str, f64)] {
        &self.values
    }

    /// An option's value.
    fn get(&self, name: &str) -> Result<f64> {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).ok_or_else(|| {
            Error::argument(self.direction, format!("these are options of {}, which lack {name}", self.direction))
        })
    }

    /// Whether an option of the range [`FLAG`] is on.
    fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.get(name)? != 0.0)
    }
}

/// What a direction gives.
#[derive(Clone, Debug)]
pub struct Applied {
    /// ω for each parameter: θ′ = θ − αω.
    pub omega: Vec<Value>,
    /// The state after the step, like the state before it.
    pub state: Vec<Value>,
}

/// A step, told from what it left behind.
#[derive(Clone, Debug)]
pub struct Recalled {
    /// θ before the step.
    pub start: Vec<Value>,
    /// ω of the step.
    pub omega: Vec<Value>,
}

/// An optimizer without its learning rate.
pub trait Direction: Sync {
    /// The name on both sides.
    fn name(&self) -> &'static str;

    /// What can be set.
    fn options(&self) -> &'static [OptionSpec];

    /// The state before the first step.
    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>>;

    /// ω and the state after the step. Gradients and state stand in the parameters' order.
    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied>;

    /// The step θ = θ_start − applied·ω that led to `params` and `state`, so that a rule need not store it; `None` where
    /// ω is not a function of the state, or may be so large that adding it back would leave rounding noise of θ_start.
    /// ω = 0 before the first step.
    fn recall(
        &self,
        _options: &Options,
        _params: &[Value],
        _applied: &Value,
        _state: &[Value],
    ) -> Result<Option<Recalled>> {
        Ok(None)
    }
}

/// Every direction.
pub static ALL: &[&dyn Direction] = &[
    &Sgd, &Momentum, &Nesterov, &Adam, &AdamW, &AmsGrad, &NAdam, &RAdam, &Adagrad, &Adadelta, &RmsProp, &Lion,
    &Adafactor, &Lamb, &Muon,
];

/// The direction of this name.
pub fn named(name: &str) -> Result<&'static dyn Direction> {
    ALL.iter().copied().find(|direction| direction.name() == name).ok_or_else(|| {
        let known = ALL.iter().map(|direction| direction.name()).collect::<Vec<_>>().join(", ");
        Error::argument("direction", format!("there is no direction {name}; choose from {known}"))
    })
}

fn check_float(name: &str, params: &[Value]) -> Result<()> {
    match params.iter().find(|param| !param.dtype().is_float()) {
        Some(param) => {
            let message = format!("a parameter is {}; only float parameters can be trained", param.dtype());
            Err(Error::new(Code::DType, name, message).with_dtypes([param.dtype()]))
        }
        None => Ok(()),
    }
}

/// Refuse gradients or states that do not stand one for each parameter, alike in shape and dtype.
fn check_like(name: &str, what: &str, params: &[Value], given: &[Value]) -> Result<()> {
    check_float(name, params)?;
    if params.len() != given.len() {
        let message = format!("{} {what} tensors for {} parameters; give one each", given.len(), params.len());
        return Err(Error::argument(name, message));
    }
    for (param, given) in params.iter().zip(given) {
        if param.shape() != given.shape() || param.dtype() != given.dtype() {
            let (shape, dtype) = (param.shape(), param.dtype());
            let message = format!(
                "a {what} tensor is {} {} where its parameter is {dtype} {shape}; they must agree",
                given.dtype(),
                given.shape()
            );
            return Err(Error::new(Code::Shape, name, message).with_shapes([given.shape(), shape]));
        }
    }
    Ok(())
}

/// decay · a + weight · b
fn blend(a: &Value, decay: f64, b: &Value, weight: f64) -> Result<Value> {
    let b = if weight == 1.0 { b.clone() } else { b.scale(weight)? };
    a.scale(decay)?.add(&b)
}

#[cfg(test)]
mod tests {
    //! What every direction's own test uses: two parameters of different dtype, followed for several steps.

    use super::*;
    use raphson_graph::dtype::DType;
    use raphson_graph::flat::{flatten, simplify};
    use raphson_graph::reference::evaluate;
    use raphson_graph::shape::Shape;

    /// ω and state after a step, in plain numbers: reference(θ, g, state of this parameter, step from 1).
    pub(super) type Reference = fn(f64, f64, &mut [f64], i32) -> f64;

    /// A whole parameter in plain numbers, with the reference's own state.
    pub(super) struct Tensor {
        pub theta: Vec<f64>,
        pub gradient: Vec<f64>,
        pub slots: Vec<Vec<f64>>,
    }

    /// Follow `direction` and its reference for six steps. `slots`: numbers of state for each element.
    pub(super) fn follow(direction: &dyn Direction, given: &[(&str, f64)], slots: usize, reference: Reference) {
        follow_tensors(direction, given, slots, |tensor, step| {
            let one = |i: usize| {
                let mut own: Vec<f64> = tensor.slots.iter().map(|slot| slot[i]).collect();
                let omega = reference(tensor.theta[i], tensor.gradient[i], &mut own, step);
                tensor.slots.iter_mut().zip(own).for_each(|(slot, value)| slot[i] = value);
                omega
            };
            (0..tensor.theta.len()).map(one).collect()
        });
    }

    /// Follow `direction` and its reference for six steps of θ′ = θ − ω/10 on gradients that vary from step to step, with
    /// a matrix of 2 × 2 in f64 and a vector of 3 in f32. `reference` gives a parameter's ω.
    pub(super) fn follow_tensors(
        direction: &dyn Direction,
        given: &[(&str, f64)],
        slots: usize,
        reference: impl Fn(&mut Tensor, i32) -> Vec<f64>,
    ) {
        let given: Vec<(String, f64)> = given.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let options = Options::new(direction, &given).unwrap();
        let dtypes = [(Shape::from([2, 2]), DType::F64), (Shape::from([3]), DType::F32)];
        let inputs = |_: usize| dtypes.iter().map(|(shape, dtype)| Value::input(shape.clone(), *dtype));
        let (params, gradients): (Vec<Value>, Vec<Value>) = (inputs(0).collect(), inputs(1).collect());
        let start = direction.init(&options, &params).unwrap();
        let state: Vec<Value> = start.iter().map(|s| Value::input(s.shape().clone(), s.dtype())).collect();
        let applied = direction.direction(&options, &params, &gradients, &state).unwrap();
        let placeholders: Vec<Value> = [&params[..], &gradients, &state].concat();
        let outputs: Vec<Value> = [&applied.omega[..], &applied.state].concat();
        assert_eq!(outputs.len(), params.len() + state.len());
        for (output, like) in outputs.iter().zip(params.iter().chain(&state)) {
            assert_eq!((output.shape(), output.dtype()), (like.shape(), like.dtype()));
        }
        let graph = simplify(&flatten(&placeholders, &outputs).unwrap().graph);
        let mut numbers = evaluate(&simplify(&flatten(&[], &start).unwrap().graph), &[]).unwrap();
        let mut tensors = [(0, 4), (4, 7)].map(|(from, to)| Tensor {
            theta: (from..to).map(|i| 0.3 * f64::from(i) - 1.0).collect(),
            gradient: Vec::new(),
            slots: vec![vec![0.0; (to - from) as usize]; slots],
        });
        for step in 1..=6 {
            let mut at = 0;
            for tensor in &mut tensors {
                tensor.gradient =
                    tensor.theta.iter().map(|_| (at += 1, f64::from((at - 1) * 3 + step * 5 % 7).sin()).1).collect();
            }
            let theta = tensors.iter().map(|tensor| tensor.theta.clone());
            let g = tensors.iter().map(|tensor| tensor.gradient.clone());
            let out = evaluate(&graph, &theta.chain(g).chain(numbers).collect::<Vec<_>>()).unwrap();
            for (tensor, omega) in tensors.iter_mut().zip(&out) {
                let expected = reference(tensor, step);
                for (i, (omega, expected)) in omega.iter().zip(&expected).enumerate() {
                    let close = (omega - expected).abs() <= 1e-7 * expected.abs();
                    assert!(close, "step {step}, {i}: {omega} for {expected}");
                    tensor.theta[i] -= 0.1 * expected;
                }
            }
            numbers = out[2..].to_vec();
        }
    }

    #[test]
    fn names_lead_to_directions() {
        for direction in ALL {
            assert_eq!(named(direction.name()).unwrap().name(), direction.name());
        }
        assert!(named("adamm").err().unwrap().message.contains("adamw"));
    }

    #[test]
    fn recalled_steps_are_those_that_were_made() {
        let inputs = |_| [3, 2].map(|n| Value::input(Shape::from([n]), DType::F64)).to_vec();
        let (params, gradients): (Vec<Value>, Vec<Value>) = (inputs(0), inputs(1));
        let rate = Value::scalar(0.3, DType::F64);
        let mut recalling = Vec::new();
        for direction in ALL {
            let given = direction.options().iter().any(|option| option.name == "weightDecay");
            let given = if given { vec![("weightDecay".to_string(), 0.1)] } else { Vec::new() };
            let options = Options::new(*direction, &given).unwrap();
            let before = direction.init(&options, &params).unwrap();
            let zero = direction.recall(&options, &params, &rate, &before).unwrap();
            let applied = direction.direction(&options, &params, &gradients, &before).unwrap();
            let step = |(param, omega): (&Value, &Value)| param.sub(&omega.mul(&rate).unwrap()).unwrap();
            let after: Vec<Value> = params.iter().zip(&applied.omega).map(step).collect();
            let Some(recalled) = direction.recall(&options, &after, &rate, &applied.state).unwrap() else { continue };
            recalling.push(direction.name());
            let outputs = [recalled.start, recalled.omega, params.clone(), applied.omega, zero.unwrap().omega].concat();
            let graph = simplify(&flatten(&[&params[..], &gradients].concat(), &outputs).unwrap().graph);
            let numbers = [vec![1.0, -2.0, 0.5], vec![3.0, 0.1], vec![0.2, -5.0, 1e-3], vec![1.0, -1.0]];
            let out = evaluate(&graph, &numbers).unwrap().concat();
            for i in 0..10 {
                let (got, want) = (out[i], out[10 + i]);
                assert!((got - want).abs() <= 1e-12 * want.abs(), "{}: {got} for {want}", direction.name());
            }
            // Before the first step there is no direction, but for the decay.
            assert!(out[20..].iter().all(|omega| omega.abs() <= 0.4), "{}: {out:?}", direction.name());
        }
        assert_eq!(recalling, ["adam", "adamw"]);
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let check = |name: &str, option: &str, value: f64| {
            Options::new(named(name).unwrap(), &[(option.to_string(), value)]).map_err(|error| error.message)
        };
        assert_eq!(check("momentum", "beta", 1.0).unwrap_err(), "beta must be at least 0 and less than 1, not 1");
        assert_eq!(check("adam", "epsilon", f64::NAN).unwrap_err(), "epsilon must be a positive number, not NaN");
        assert_eq!(check("sgd", "beta", 0.9).unwrap_err(), "there is no option beta; it has weightDecay");
        assert!(check("adam", "rho", 0.1).unwrap_err().contains("beta1, beta2, epsilon, weightDecay"));
        assert_eq!(check("rmsprop", "centered", 2.0).unwrap_err(), "centered must be 0 (no) or 1 (yes), not 2");
        assert!(check("muon", "iterations", 1.5).unwrap_err().starts_with("iterations must be a whole number"));
        assert!(check("muon", "adjust", 3.0).unwrap_err().contains("matchRmsAdamW"));
        assert!(check("adafactor", "beta2Decay", 0.1).is_err());
        assert!(check("adamw", "weightDecay", f64::INFINITY).is_err());
        assert!(check("adamw", "weightDecay", 0.0).is_ok());
        for direction in ALL {
            for option in direction.options() {
                assert!((option.range.holds)(option.default), "{} {}", direction.name(), option.name);
            }
        }
    }

    #[test]
    fn gradients_that_do_not_fit_are_refused() {
        let param = Value::input(Shape::from([3]), DType::F32);
        let wrong = Value::input(Shape::from([2]), DType::F32);
        let integer = Value::input(Shape::from([3]), DType::I32);
        for direction in ALL {
            let options = Options::new(*direction, &[]).unwrap();
            let state = direction.init(&options, std::slice::from_ref(&param)).unwrap();
            for gradients in [vec![], vec![wrong.clone()]] {
                assert!(direction.direction(&options, std::slice::from_ref(&param), &gradients, &state).is_err());
            }
            assert!(direction.init(&options, std::slice::from_ref(&integer)).is_err());
            assert!(direction.init(&options, &[]).is_ok());
        }
    }
}
