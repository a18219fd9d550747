//! What is done with a case: its values and derivative graphs on every runner against the reference, and the derivative
//! graphs themselves against finite differences and against each other. Failures are collected, so that one run shows
//! all of them.

use crate::accuracy::Accuracy;
use crate::case::{Case, Derivatives};
use crate::compare::{Scale, largest_error};
use crate::coverage::{Coverage, Fate};
use crate::draw::{Generator, Values, stored};
use crate::report::Report;
use crate::runner::{self, Runner};
use raphson_graph::derivative::{jvp, vjp};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::flat::{Graph, flatten};
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;
use std::collections::{BTreeMap, HashMap};

/// Runs cases and keeps the score.
pub struct Suite {
    runners: Vec<Box<dyn Runner>>,
    report: Report,
    coverage: Coverage,
    accuracy: Accuracy,
    failures: Vec<String>,
    /// Slow runners take a sample of the cases.
    sample: bool,
    /// Cases with derivatives so far, by op and dtype.
    differentiated: HashMap<(String, DType), usize>,
}

/// A case as a graph: the placeholders are x, then directions v of the float inputs, then weights u of the float
/// outputs. The outputs are y, and behind them (each for every float input or output)
/// J·v, ∂(J·v)·v, Jᵀ·u, and H·v three ways, H the second derivative of ⟨u, y⟩.
struct Traced {
    graph: Graph,
    data: Vec<Vec<f64>>,
    /// Positions of the float inputs among the inputs.
    floats: Vec<usize>,
    n_inputs: usize,
    n_outputs: usize,
    /// Positions of the float outputs among the outputs.
    float_outputs: Vec<usize>,
}

impl Suite {
    /// A suite for every runner that this machine has.
    pub fn on_all() -> Result<Suite> {
        Ok(Suite::new(runner::all()?))
    }

    /// A suite for these runners.
    pub fn new(runners: Vec<Box<dyn Runner>>) -> Suite {
        Suite {
            runners,
            report: Report::default(),
            coverage: Coverage::default(),
            accuracy: Accuracy::default(),
            failures: Vec::new(),
            sample: true,
            differentiated: HashMap::new(),
        }
    }

    /// The same suite with every case on every runner, however slow.
    pub fn complete(mut self) -> Suite {
        self.sample = false;
        self
    }

    /// Do everything that the case asks for.
    pub fn check(&mut self, case: &Case) {
        if let Err(error) = self.try_check(case) {
            self.fail(case, "all", &error.to_string());
        }
    }

    /// What went wrong so far.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Print the table; panic with all failures, if there are any.
    pub fn finish(self) {
        println!("{}", self.report);
        let n = self.failures.len();
        if let Err(error) = self.coverage.publish().and_then(|()| self.accuracy.publish()) {
            panic!("{error}");
        }
        assert!(n == 0, "{n} of {} checks failed:\n{}", self.report.cases(), self.failures[..n.min(60)].join("\n"));
    }

    fn fail(&mut self, case: &Case, part: &str, message: &str) {
        self.failures.push(format!("{} {} ({}), {part}: {message}", case.op, case.dtype(), case.what));
    }

    fn try_check(&mut self, case: &Case) -> Result<()> {
        let traced = trace(case)?;
        let want = evaluate(&traced.graph, &traced.data)?;
        self.parity(case, &traced, &want);
        if traced.differentiated() {
            self.first_derivatives(case, &traced, &want)?;
            self.gradient_by_elements(case, &traced, &want)?;
        }
        Ok(())
    }

    /// Every output on every runner against the reference.
    fn parity(&mut self, case: &Case, traced: &Traced, want: &[Vec<f64>]) {
        let graph = &traced.graph;
        // No more precision can be asked for than that of the coarsest dtype that anything passes through.
        let floats = graph.nodes.iter().map(|node| node.dtype).filter(|dtype| dtype.is_float());
        let coarsest = floats.max_by(|a, b| a.epsilon().total_cmp(&b.epsilon()));
        let always = self.is_always_run(case, traced);
        let mut fates: BTreeMap<&'static str, Fate> = BTreeMap::new();
        for index in 0..self.runners.len() {
            let runner = &self.runners[index];
            let name = runner.name();
            let fate = self.fate(&**runner, case, traced, always);
            if let Some(kind) = runner.device() {
                let best = fates.entry(kind).or_insert(fate);
                *best = fate.max(*best);
            }
            if fate < Fate::Values {
                continue;
            }
            let got = match runner.run(graph, &traced.data) {
                Ok(got) => got,
                Err(error) => {
                    self.fail(case, &name, &error.to_string());
                    continue;
                }
            };
            let mut worst = 0f64;
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                let dtype = graph.nodes[graph.outputs[i] as usize].dtype;
                let scale = if case.elementwise && i < traced.n_outputs {
                    Scale::Elements(operand_magnitudes(want.len(), &traced.data[..traced.n_inputs]))
                } else {
                    Scale::Result(0.1)
                };
                let (error, at) = largest_error(got, want, dtype, &scale);
                worst = worst.max(error);
                let precision = coarsest.filter(|_| dtype.is_float()).unwrap_or(dtype);
                // A single op is rounded once: ε/2 at most, which is within two units wherever in its binade it lies.
                let single = i < traced.n_outputs && case.elementwise && precision.is_storage();
                if error > if single { 0.5 } else { 1.0 } * case.allowed(precision) {
                    let part = format!("{name} {}", traced.part(i));
                    let message = mismatch(got, want, at, error, &traced.data[..traced.n_inputs]);
                    self.fail(case, &part, &message);
                }
            }
            self.report.note(&case.op, case.dtype(), &name, worst);
            if let Some(kind) = self.runners[index].device() {
                self.accuracy.note(kind, coarsest.unwrap_or(case.dtype()), &case.op, worst);
            }
        }
        self.coverage.note(&case.op, case.dtype(), &fates);
    }

    /// Whether a case is in every sample: two of those with derivatives, of each op and dtype, are.
    fn is_always_run(&mut self, case: &Case, traced: &Traced) -> bool {
        if !traced.differentiated() || case.many {
            return false;
        }
        let before = self.differentiated.entry((case.op.clone(), case.dtype())).or_default();
        *before += 1;
        matches!(*before, 1 | 4)
    }

    /// What is to become of a case on a runner.
    fn fate(&self, runner: &dyn Runner, case: &Case, traced: &Traced, always: bool) -> Fate {
        if !traced.graph.nodes.iter().all(|node| runner.supports(node.dtype)) {
            return Fate::Unsupported;
        }
        let draw = Generator::named(&format!("{} {} {}", case.op, case.dtype(), case.what)).bits();
        let is_one_of_many = (traced.differentiated() || case.many) && !always;
        if self.sample && is_one_of_many && !draw.is_multiple_of(runner.one_in()) {
            Fate::LeftOut
        } else if traced.differentiated() {
            Fate::Derivatives
        } else {
            Fate::Values
        }
    }

    /// J·v, ∂(J·v)·v and H·v against central differences of y, J·v and Jᵀ·u along v; ⟨u, J·v⟩ = ⟨v, Jᵀ·u⟩; all
    /// three H·v alike.
    fn first_derivatives(&mut self, case: &Case, traced: &Traced, want: &[Vec<f64>]) -> Result<()> {
        let part = |i| traced.block(i).map(|at| want[at].clone()).collect::<Vec<_>>().concat();
        let along =
            |i: usize, values: &[Vec<f64>]| traced.block(i).map(|at| values[at].clone()).collect::<Vec<_>>().concat();
        let shifted = |by: f64| evaluate(&traced.graph, &traced.moved(by));
        let (far, near, back, behind) = (shifted(2.0 * H)?, shifted(H)?, shifted(-H)?, shifted(-2.0 * H)?);
        let difference =
            |i: usize| central_difference(&along(i, &far), &along(i, &near), &along(i, &back), &along(i, &behind));
        let y_difference = {
            let y = |values: &[Vec<f64>]| {
                traced.float_outputs.iter().map(|&at| values[at].clone()).collect::<Vec<_>>().concat()
            };
            central_difference(&y(&far), &y(&near), &y(&back), &y(&behind))
        };
        let (j, jj, g, h) = (part(JVP), part(JVP_JVP), part(VJP), part(JVP_VJP));
        self.agree(case, "jvp", "finite differences", &j, &y_difference, FINITE);
        self.agree(case, "jvp of jvp", "finite differences of jvp", &jj, &difference(JVP), FINITE);
        self.agree(case, "jvp of vjp", "finite differences of vjp", &h, &difference(VJP), FINITE);
        self.agree(case, "vjp of vjp", "jvp of vjp", &part(VJP_VJP), &h, EXACT);
        self.agree(case, "vjp of jvp", "jvp of vjp", &part(VJP_JVP), &h, EXACT);
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (u, v) = (traced.weights(), traced.directions());
        self.agree(case, "⟨u, Jv⟩", "⟨v, Jᵀu⟩", &[inner(&u, &j)], &[inner(&v, &g)], EXACT);
        Ok(())
    }

    /// Jᵀ·u against central differences of ⟨u, y⟩ by some elements of each input.
    fn gradient_by_elements(&mut self, case: &Case, traced: &Traced, want: &[Vec<f64>]) -> Result<()> {
        let mut y = Graph { outputs: Vec::new(), ..traced.graph.clone() };
        y.outputs = traced.float_outputs.iter().map(|&at| traced.graph.outputs[at]).collect();
        let y = raphson_graph::flat::simplify(&y);
        let u = traced.weights();
        let gradients = &want[traced.block(VJP)];
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for (&input, gradient) in traced.floats.iter().zip(gradients) {
            let n = gradient.len();
            for element in (0..n).step_by((n / 8).max(1)) {
                let at = |by: f64| -> Result<f64> {
                    let mut data = traced.data.clone();
                    data[input][element] += by;
                    Ok(evaluate(&y, &data)?.concat().iter().zip(&u).map(|(y, u)| y * u).sum())
                };
                let values = [at(2.0 * H)?, at(H)?, at(-H)?, at(-2.0 * H)?].map(|value| vec![value]);
                expected.extend(central_difference(&values[0], &values[1], &values[2], &values[3]));
                found.push(gradient[element]);
            }
        }
        self.agree(case, "vjp", "finite differences", &found, &expected, FINITE);
        Ok(())
    }

    fn agree(&mut self, case: &Case, this: &str, that: &str, got: &[f64], want: &[f64], allowed: f64) {
        let (error, at) = largest_error(got, want, DType::F64, &Scale::Result(1.0));
        self.report.note(&case.op, case.dtype(), this_column(allowed), error);
        if error > allowed {
            self.fail(case, &format!("{this} against {that}"), &mismatch(got, want, at, error, &[]));
        }
    }
}

/// The step of finite differences.
const H: f64 = 3e-4;
/// Allowed between a derivative and finite differences, on a scale of 1 or the result's.
const FINITE: f64 = 1e-9;
/// Allowed between two expressions for the same thing.
const EXACT: f64 = 1e-10;

fn this_column(allowed: f64) -> &'static str {
    if allowed == EXACT { "adjoint" } else { "differences" }
}

// The blocks of outputs behind y.
const JVP: usize = 0;
const JVP_JVP: usize = 1;
const VJP: usize = 2;
const JVP_VJP: usize = 3;
const VJP_VJP: usize = 4;
const VJP_JVP: usize = 5;
const BLOCKS: [&str; 6] = ["jvp", "jvp of jvp", "vjp", "jvp of vjp", "vjp of vjp", "vjp of jvp"];

impl Traced {
    fn differentiated(&self) -> bool {
        self.graph.outputs.len() > self.n_outputs
    }

    /// Positions of a block among the outputs.
    fn block(&self, block: usize) -> std::ops::Range<usize> {
        let size = |block| if block < VJP { self.float_outputs.len() } else { self.floats.len() };
        let start = self.n_outputs + (0..block).map(size).sum::<usize>();
        start..start + size(block)
    }

    /// What an output is.
    fn part(&self, output: usize) -> String {
        let block = (0..BLOCKS.len()).find(|&block| output >= self.n_outputs && self.block(block).contains(&output));
        block.map_or_else(|| "value".to_string(), |block| BLOCKS[block].to_string())
    }

    /// v, one input after another.
    fn directions(&self) -> Vec<f64> {
        self.data[self.n_inputs..][..self.floats.len()].concat()
    }

    /// u, one output after another.
    fn weights(&self) -> Vec<f64> {
        self.data[self.n_inputs + self.floats.len()..].concat()
    }

    /// The data with x + by·v in place of x.
    fn moved(&self, by: f64) -> Vec<Vec<f64>> {
        let mut data = self.data.clone();
        for (i, &input) in self.floats.iter().enumerate() {
            for element in 0..data[input].len() {
                data[input][element] += by * self.data[self.n_inputs + i][element];
            }
        }
        data
    }
}

/// Build the graph of a case, with its derivatives where they are asked for, and draw its data.
fn trace(case: &Case) -> Result<Traced> {
    let mut generator = Generator::named(&format!("{} {}", case.op, case.what));
    let x: Vec<Value> = case.inputs.iter().map(|input| Value::input(input.shape.clone(), input.dtype)).collect();
    let mut data: Vec<Vec<f64>> = case
        .inputs
        .iter()
        .map(|input| input.values.draw(input.shape.elements(), input.dtype, &mut generator))
        .collect();
    let y = (case.build)(&x)?;
    let floats: Vec<usize> = (0..x.len()).filter(|&i| x[i].dtype().is_float()).collect();
    let float_outputs: Vec<usize> = (0..y.len()).filter(|&i| y[i].dtype().is_float()).collect();
    let (mut placeholders, mut outputs) = (x.clone(), y.clone());
    if case.derivatives == Derivatives::Second && !floats.is_empty() && !float_outputs.is_empty() {
        let of: Vec<Value> = floats.iter().map(|&i| x[i].clone()).collect();
        let smooth: Vec<Value> = float_outputs.iter().map(|&i| y[i].clone()).collect();
        let mut ends = |values: &[Value]| -> Vec<Value> {
            let directions = values.iter().map(|value| {
                let drawn = Values::Within(-1.0, 1.0).draw(value.shape().elements(), value.dtype(), &mut generator);
                data.push(drawn);
                Value::input(value.shape().clone(), value.dtype())
            });
            directions.collect()
        };
        let (v, u) = (ends(&of), ends(&smooth));
        outputs.extend(derivatives(&of, &smooth, &v, &u)?);
        placeholders.extend(v.into_iter().chain(u));
    }
    let graph = flatten(&placeholders, &outputs)?.graph;
    Ok(Traced { graph, data, floats, n_inputs: x.len(), n_outputs: y.len(), float_outputs })
}

/// The blocks behind y, in their order.
fn derivatives(x: &[Value], y: &[Value], v: &[Value], u: &[Value]) -> Result<Vec<Value>> {
    let forward = jvp(y, x, v)?;
    let gradient = vjp(y, x, u)?;
    let blocks =
        [jvp(&forward, x, v)?, gradient.clone(), jvp(&gradient, x, v)?, vjp(&gradient, x, v)?, vjp(&forward, x, u)?];
    let of = y.iter().chain(x);
    for (like, value) in of.zip(forward.iter().chain(&gradient)) {
        if like.shape() != value.shape() || like.dtype() != value.dtype() {
            return Err(Error::internal("derivative", format!("{value:?} is not like {like:?}")));
        }
    }
    Ok(forward.into_iter().chain(blocks.into_iter().flatten()).collect())
}

/// f′ ≈ (8 f(h) − 8 f(−h) − f(2h) + f(−2h)) / 12h
fn central_difference(far: &[f64], near: &[f64], back: &[f64], behind: &[f64]) -> Vec<f64> {
    (0..far.len()).map(|i| (8.0 * (near[i] - back[i]) - (far[i] - behind[i])) / (12.0 * H)).collect()
}

/// The greatest finite magnitude of the operands at each element, at most 1.
fn operand_magnitudes(n: usize, x: &[Vec<f64>]) -> Vec<f64> {
    let at = |i: usize| x.iter().filter(|x| x.len() == n).map(move |x| x[i].abs()).filter(|x| x.is_finite());
    let broadcast = x.iter().any(|x| x.len() != n);
    (0..n).map(|i| if broadcast { 1.0 } else { at(i).fold(0.0, f64::max).min(1.0) }).collect()
}

fn mismatch(got: &[f64], want: &[f64], at: usize, error: f64, x: &[Vec<f64>]) -> String {
    if got.len() != want.len() {
        return format!("{} elements instead of {}", got.len(), want.len());
    }
    let operands: Vec<f64> = x.iter().filter(|x| x.len() == want.len()).map(|x| x[at]).collect();
    let (got, want, rounded) = (got[at], want[at], stored(want[at], DType::F32));
    format!("got {got:e}, not {want:e} (f32 {rounded:e}), error {error:.1e}, at element {at}, operands {operands:?}")
}
