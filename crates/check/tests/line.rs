//! Products along a line. Their accuracy in f32, θ − sω for s from far below the rounding of θ to far above ω: by `along` and
//! by moving the parameters first, both held against f64. And loss, slope and curvature along the line of a small network,
//! whose products compilation takes apart, held against the graph as it was written.

use raphson_check::runner::Runner;
use raphson_check::runner::device::all;
use raphson_graph::derivative::{along, jvp, substitute};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;

const ROWS: usize = 8;
const INNER: usize = 784;
const COLUMNS: usize = 16;

/// Numbers of (−1, 1) that are f32.
fn draw(n: usize, seed: f64) -> Vec<f64> {
    (0..n).map(|i| f64::from(((i as f64 + 1.0) * 12.9898 + seed * 78.233).sin() as f32)).collect()
}

/// x·θ, and x·(θ − sω) by `along` and by substitution, as graph over [x, θ, ω, s].
fn graph() -> Result<(Vec<Value>, Vec<Value>)> {
    let input = |shape: &[usize]| Value::input(shape.into(), DType::F32);
    let (x, theta, omega) = (input(&[ROWS, INNER]), input(&[INNER, COLUMNS]), input(&[INNER, COLUMNS]));
    // In the dtype that every device has.
    let s = input(&[]);
    let product = [x.dot(&theta)?];
    let (from, by) = (std::slice::from_ref(&theta), std::slice::from_ref(&omega));
    let there = along(&product, from, by, &s)?.remove(0);
    let moved = theta.sub(&omega.mul(&s)?)?;
    let plain = substitute(&product, from, &[moved])?.remove(0);
    let [product] = product;
    Ok((vec![x, theta, omega, s], vec![product, there, plain]))
}

/// [x·θ, x·(θ − sω), |x|·(|θ| + |s||ω|)] at each element, in f64.
fn exactly(x: &[f64], theta: &[f64], omega: &[f64], s: f64) -> Vec<[f64; 3]> {
    let element = |at: usize| {
        let (row, column) = (at / COLUMNS, at % COLUMNS);
        let terms = (0..INNER).map(|k| {
            let (x, theta, move_) = (x[row * INNER + k], theta[k * COLUMNS + column], s * omega[k * COLUMNS + column]);
            [x * theta, x * (theta - move_), x.abs() * (theta.abs() + move_.abs())]
        });
        terms.fold([0.0; 3], |sum, term| [0, 1, 2].map(|i| sum[i] + term[i]))
    };
    (0..ROWS * COLUMNS).map(element).collect()
}

fn root_mean_square(errors: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = errors.fold((0.0, 0.0), |(n, sum), error| (n + 1.0, sum + error * error));
    f64::sqrt(sum / n)
}

#[test]
fn a_product_along_a_line_is_as_accurate_as_one_at_its_point() {
    let (inputs, outputs) = graph().unwrap();
    let graph = flatten(&inputs, &outputs).unwrap().graph;
    let (x, theta, omega) = (draw(ROWS * INNER, 0.0), draw(INNER * COLUMNS, 1.0), draw(INNER * COLUMNS, 2.0));
    for device in all().unwrap() {
        for s in [1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 0.5, 1.0, 1e2, 1e4] {
            let s = f64::from(s as f32);
            let results = device.run(&graph, &[x.clone(), theta.clone(), omega.clone(), vec![s]]).unwrap();
            let [product, there, plain] = &results[..] else { panic!("{} results", results.len()) };
            let exact = exactly(&x, &theta, &omega, s);
            // How far a result may be off at all: rounding units of |x|·(|θ| + |s||ω|).
            for (there, exact) in there.iter().zip(&exact) {
                let bound = 4.0 * f64::from(f32::EPSILON) * exact[2];
                assert!((there - exact[1]).abs() <= bound, "{} at {s}: {there} for {}", device.name(), exact[1]);
            }
            let error = |of: &[f64]| root_mean_square(of.iter().zip(&exact).map(|(got, exact)| got - exact[1]));
            let (along, substituted) = (error(there), error(plain));
            assert!(along <= 1.5 * substituted, "{} at {s}: {along:e}, by substitution {substituted:e}", device.name());
            // Differences along the line: what the rules form of losses. Here the common error of x·θ cancels.
            let difference = |of: &[f64]| {
                let each = of.iter().zip(product).zip(&exact);
                root_mean_square(each.map(|((got, start), exact)| (got - start) - (exact[1] - exact[0])))
            };
            let (along, substituted) = (difference(there), difference(plain));
            assert!(along <= 1.5 * substituted, "{} at {s}: {along:e}, by substitution {substituted:e}", device.name());
        }
    }
}

/// φ, φ′, φ″ and the parameters at θ − sω, of two dense layers with `activation` between them.
fn network(activation: fn(&Value) -> Result<Value>) -> Result<(Vec<Value>, Vec<Value>)> {
    let input = |shape: &[usize]| Value::input(shape.into(), DType::F32);
    let (x, s) = (input(&[6, 20]), input(&[]));
    let params = [input(&[24, 20]), input(&[16, 24])];
    let omega = [input(&[24, 20]), input(&[16, 24])];
    let hidden = activation(&x.dot(&params[0].transpose()?)?)?;
    let loss = [hidden.dot(&params[1].transpose()?)?.square()?.sum_all()?];
    let line = s.alias();
    let phi = along(&loss, &params, &omega, &line)?;
    let derivative = |of: &[Value]| jvp(of, std::slice::from_ref(&line), &[Value::scalar(1.0, DType::F32)]);
    let first = derivative(&phi)?;
    let second = derivative(&first)?;
    let moved = params.iter().zip(&omega).map(|(w, omega)| w.sub(&omega.mul(&line)?));
    let moved: Vec<Value> = moved.collect::<Result<_>>()?;
    Ok(([vec![x, s], params.to_vec(), omega.to_vec()].concat(), [phi, first, second, moved].concat()))
}

#[test]
fn a_network_along_a_line_is_what_its_graph_says() {
    for activation in [Value::relu as fn(&Value) -> Result<Value>, Value::tanh] {
        let (inputs, outputs) = network(activation).unwrap();
        let graph = flatten(&inputs, &outputs).unwrap().graph;
        for s in [0.0, 1e-6, 0.3, 2.0] {
            let sizes = [6 * 20, 24 * 20, 16 * 24, 24 * 20, 16 * 24];
            let mut data: Vec<Vec<f64>> = sizes.iter().zip(3u8..).map(|(&n, seed)| draw(n, f64::from(seed))).collect();
            data.insert(1, vec![f64::from(s as f32)]);
            let wanted = evaluate(&graph, &data).unwrap();
            for device in all().unwrap() {
                let got = device.run(&graph, &data).unwrap();
                for (output, (got, want)) in got.iter().zip(&wanted).enumerate() {
                    let scale = want.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
                    let error = got.iter().zip(want).fold(0.0, |most: f64, (got, want)| most.max((got - want).abs()));
                    assert!(error <= 2e-5 * scale, "{} at {s}, output {output}: off by {error:e}", device.name());
                }
            }
        }
    }
}
