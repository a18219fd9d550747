//! The rules `next` and `nextPlain` against their PyTorch references: 200 steps of a small network in f64, four
//! optimizers, starts far too low and far too high, with a horizon and without, and batches that make them reject steps.

use crate::json::Json;
use crate::program::{Program, close, numbers, placeholders};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_optim::alpha::{self, Finish, Rule, Spec};
use raphson_optim::direction::{Direction, Options, named};

/// The network's loss on a batch, and what it is a function of.
struct Problem {
    params: Vec<Value>,
    /// x, y, and the weight that makes a batch's loss NaN.
    batch: Vec<Value>,
    loss: Value,
}

fn problem(rows: usize) -> Problem {
    let input = |sizes: &[usize]| Value::input(Shape::from(sizes), DType::F64);
    let params = vec![input(&[3, 5]), input(&[5]), input(&[5, 2]), input(&[2])];
    let batch = vec![input(&[rows, 3]), input(&[rows, 2]), input(&[])];
    let hidden = batch[0].dot(&params[0]).unwrap().add(&params[1]).unwrap().tanh().unwrap();
    let out = hidden.dot(&params[2]).unwrap().add(&params[3]).unwrap();
    let squares = out.sub(&batch[1]).unwrap().square().unwrap();
    let mean = squares.sum_all().unwrap().scale(1.0 / (2 * rows) as f64).unwrap();
    let loss = batch[2].mul(&mean).unwrap();
    Problem { params, batch, loss }
}

/// The three programs of a run, and its state.
struct Run {
    spec: Spec,
    step: Program,
    probe: [Program; 2],
    rescale: [Program; 2],
    params: Vec<Vec<f64>>,
    direction: Vec<Vec<f64>>,
    state: Vec<Vec<f64>>,
}

impl Run {
    /// `recalls`: where the direction can, it tells the step before, which the rule then does not store.
    fn new(problem: &Problem, direction: &dyn Direction, spec: Spec, recalls: bool, start: &[Vec<f64>]) -> Run {
        let Problem { params, batch, loss } = problem;
        let options = Options::new(direction, &[]).unwrap();
        let direction_start = direction.init(&options, params).unwrap();
        let direction_old = placeholders(&direction_start);
        let recall = |applied: &Value, state: &[Value]| {
            let recalled = direction.recall(&options, params, applied, state).unwrap();
            recalled.filter(|_| recalls)
        };
        let recalls = recall(&Value::scalar(0.0, DType::F64), &direction_old).is_some();
        let state_start = alpha::init(&spec, params, &direction_start, recalls).unwrap();
        let state = placeholders(&state_start);
        let recalled = recall(&state[1], &direction_old);
        let recalled = recalled.as_ref();
        let gradients = vjp(std::slice::from_ref(loss), params, &[Value::scalar(1.0, DType::F64)]).unwrap();
        let carry = alpha::begin(&spec, loss, params, &gradients, &state, recalled).unwrap();
        let applied = direction.direction(&options, params, &gradients, &direction_old).unwrap();
        let (rates, staying) =
            alpha::staying(&spec, params.len(), &carry, &state, &direction_old, &applied.state).unwrap();
        let step = recall(&rates[0], &staying);
        let (scale, factor) = (Value::input(Shape::scalar(), DType::F64), Value::input(Shape::scalar(), DType::F64));
        let finish = Finish {
            loss,
            params,
            gradients: &gradients,
            omega: &applied.omega,
            direction_old: &direction_old,
            direction_new: if recalls { &staying } else { &applied.state },
            state: &state,
            carry: &carry,
            recalled: step.as_ref(),
            scale: &scale,
            proposal: &[],
        };
        let done = alpha::finish(&spec, finish).unwrap();
        let outputs = [&done.params[..], &done.direction, &done.state, &[done.report]].concat();
        let step = Program::new(&[&params[..], batch, &direction_old, &state, &[scale]].concat(), &outputs);
        let probe = [true, false].map(|first| {
            let accept = alpha::probe(&spec, loss, params, &state, recalled, first, &factor).unwrap();
            Program::new(
                &[&params[..], batch, &direction_old, &state, std::slice::from_ref(&factor)].concat(),
                &[accept],
            )
        });
        let rescale = [true, false].map(|first| {
            let whole = Value::scalar(1.0, DType::F64);
            let rescaled = alpha::rescale(&spec, params, &state, recalled, first, &factor, &whole).unwrap();
            let inputs = [&params[..], &direction_old, &state, std::slice::from_ref(&factor)].concat();
            Program::new(&inputs, &rescaled)
        });
        let (direction, state) = (numbers(&direction_start), numbers(&state_start));
        Run { spec, step, probe, rescale, params: start.to_vec(), direction, state }
    }

    /// A step; the report. With `scale` 0 it stays where it is: the start-up takes it.
    fn step(&mut self, batch: &[Vec<f64>], scale: f64) -> Vec<f64> {
        let inputs = [&self.params[..], batch, &self.direction, &self.state, &[vec![scale]]].concat();
        let mut out = self.step.run(&inputs).into_iter();
        for list in [&mut self.params, &mut self.direction, &mut self.state] {
            let count = list.len();
            *list = out.by_ref().take(count).collect();
        }
        out.next().unwrap()
    }

    /// Whether the batch's loss falls far enough with α·factor.
    fn passes(&self, t: usize, batch: &[Vec<f64>], factor: f64) -> bool {
        let inputs = [&self.params[..], batch, &self.direction, &self.state, &[vec![factor]]].concat();
        self.probe[usize::from(t > 0)].run(&inputs)[0][0] == 1.0
    }

    /// The caller's search for a factor after step `t`.
    fn factor(&self, t: usize, batch: &[Vec<f64>]) -> f64 {
        if t == 0 && self.spec.rule == Rule::Next {
            return self.walked(batch);
        }
        let (tries, caution) = if t == 0 { (14, 1.0) } else { (3, 0.1) };
        let mut factor = 1.0;
        for _ in 0..tries {
            if self.passes(t, batch, factor) {
                break;
            }
            factor *= 0.2;
        }
        if factor < 1.0 { factor * caution } else { factor }
    }

    /// The caller's walk after the first step.
    fn walked(&self, batch: &[Vec<f64>]) -> f64 {
        let grows = self.passes(0, batch, 1.0);
        let mut factor = 1.0;
        for _ in 0..20 {
            let next = if grows { 4.0 * factor } else { factor / 4.0 };
            let passed = self.passes(0, batch, next);
            if grows && !passed {
                break;
            }
            factor = next;
            if !grows && passed {
                break;
            }
        }
        if self.passes(0, batch, 2.0 * factor) { 2.0 * factor } else { factor }
    }

    /// The caller's start-up after step `t`.
    fn start_up(&mut self, t: usize, batch: &[Vec<f64>], probe_steps: usize) {
        let factor = if t < probe_steps { self.factor(t, batch) } else { 1.0 };
        let inputs = [&self.params[..], &self.direction, &self.state, &[vec![factor]]].concat();
        let out = self.rescale[usize::from(t > 0)].run(&inputs);
        let count = self.params.len();
        (self.params, self.state) = (out[..count].to_vec(), out[count..].to_vec());
    }
}

#[test]
fn next_follows_its_reference_for_200_steps() {
    follow("next_trace.json", Rule::Next, false);
}

#[test]
fn next_follows_it_also_where_adam_recalls_the_step_before() {
    follow("next_trace.json", Rule::Next, true);
}

#[test]
fn next_plain_follows_its_reference_for_200_steps() {
    follow("next_plain_trace.json", Rule::NextPlain, false);
    follow("next_plain_trace.json", Rule::NextPlain, true);
}

fn follow(file: &str, rule: Rule, recalls: bool) {
    let data = Json::read(file);
    let rows = data.get("batch").number() as usize;
    let (x, y) = (data.get("x").flat(), data.get("y").flat());
    let total = y.len() / 2;
    let start: Vec<Vec<f64>> = data.get("start").list().iter().map(Json::flat).collect();
    let problem = problem(rows);
    for trace in data.get("traces").list() {
        let (name, initial) = (trace.get("direction").text(), trace.get("initial").number());
        let probe_steps = trace.get("probeSteps").number() as usize;
        let total_steps = Some(trace.get("totalSteps").number() as u32).filter(|&total| total > 0);
        let spec = Spec { initial, total_steps, ..Spec::defaults(rule) };
        let mut run = Run::new(&problem, named(name).unwrap(), spec, recalls, &start);
        let factors: Vec<Vec<f64>> = trace.get("factors").list().iter().map(Json::flat).collect();
        let (alphas, losses) = (trace.get("alpha").flat(), trace.get("loss").flat());
        let mut rejections = 0.0;
        for t in 0..alphas.len() {
            let row = t * rows % total;
            let weight = factors.iter().find(|factor| factor[0] == t as f64).map_or(1.0, |factor| factor[1]);
            let batch = vec![x[row * 3..][..rows * 3].to_vec(), y[row * 2..][..rows * 2].to_vec(), vec![weight]];
            let starting = t < probe_steps.max(if rule == Rule::Next { 40 } else { 0 });
            let report = run.step(&batch, if starting { 0.0 } else { 1.0 });
            if starting {
                run.start_up(t, &batch, probe_steps);
            }
            let at = format!("{name} from {initial}, {probe_steps} probes, {total_steps:?}, step {t}");
            let alpha = run.state[0][0];
            assert!(close(alpha, alphas[t], 1e-6), "{at}: α {alpha}, reference {}", alphas[t]);
            let same = close(report[0], losses[t], 1e-6) || (report[0].is_nan() && losses[t].is_nan());
            assert!(same, "{at}: loss {}, reference {}", report[0], losses[t]);
            rejections += 1.0 - report[7];
            let finite = [&run.params, &run.direction, &run.state].into_iter().flatten().flatten();
            // The loss itself is kept as it came.
            assert_eq!(finite.filter(|value| !value.is_finite()).count(), usize::from(weight.is_nan()), "{at}");
        }
        assert_eq!(rejections, trace.get("rejections").number(), "{name} from {initial}, {total_steps:?}");
    }
}
