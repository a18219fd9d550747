//! Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), as torch.optim.Muon: momentum whose matrices are brought
//! near the closest orthogonal one by a Newton–Schulz iteration. Parameters that are no matrices take AdamW's direction
//! instead, as in the published recipe; so do matrices where `orthogonalize` is 0 (meant for embeddings and the last
//! layer, by groups). State: the step count t, then for each matrix its momentum, for any other parameter Adam's m and
//! v.

use super::decay::decoupled;
use super::moments::{adaptive, moments};
use super::slots::{norm, split};
use super::{Applied, Direction, FLAG, FRACTION, OptionSpec, Options, POSITIVE, Range, blend, check_float, check_like};
use raphson_graph::error::Result;
use raphson_graph::value::Value;
use std::slice::from_ref;

/// B ← μB + (1 − μ)g, B̃ = μB + (1 − μ)g (nesterov) or B, X = B̃/max(‖B̃‖, ε), then `iterations` times
/// A = XXᵀ, X ← aX + (bA + cA²)X (on the transpose where it has fewer rows); ω = s·X + weightDecay · θ, s by `adjust`:
/// √max(1, rows/columns), .2√max(rows, columns) or √(rows/columns).
/// Other parameters: ω = fallbackFactor · (Adam's ω + weightDecay · θ)
pub struct Muon;

/// (a, b, c) of the post: they make the slope at zero large, so that few iterations do.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

static ITERATIONS: Range =
    Range { sentence: "a whole number from 1 to 99", holds: |x| (1.0..100.0).contains(&x) && x.fract() == 0.0 };
static ADJUST: Range = Range {
    sentence: "0 (original), 1 (matchRmsAdamW) or 2 (spectralUnclamped)",
    holds: |x| x == 0.0 || x == 1.0 || x == 2.0,
};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "momentum", default: 0.95, range: &FRACTION, doc: "Decay of the average of gradients (μ)." },
    OptionSpec { name: "nesterov", default: 1.0, range: &FLAG, doc: "1: look ahead by one gradient." },
    OptionSpec { name: "iterations", default: 5.0, range: &ITERATIONS, doc: "Newton–Schulz iterations." },
    OptionSpec { name: "epsilon", default: 1e-7, range: &POSITIVE, doc: "Smallest norm that is divided by." },
    OptionSpec { name: "adjust", default: 0.0, range: &ADJUST, doc: "How a direction's size follows its shape." },
    OptionSpec { name: "orthogonalize", default: 1.0, range: &FLAG, doc: "0: matrices are treated as all others." },
    OptionSpec {
        name: "fallbackFactor",
        default: 0.015,
        range: &POSITIVE,
        doc: "Learning rate of the other parameters as a part of that of matrices.",
    },
    OptionSpec { name: "beta1", default: 0.9, range: &FRACTION, doc: "β₁ of the other parameters' AdamW." },
    OptionSpec { name: "beta2", default: 0.95, range: &FRACTION, doc: "β₂ of the other parameters' AdamW." },
    OptionSpec { name: "fallbackEpsilon", default: 1e-10, range: &POSITIVE, doc: "ε of the other parameters' AdamW." },
    decoupled(0.1),
];

impl Direction for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn init(&self, options: &Options, params: &[Value]) -> Result<Vec<Value>> {
        check_float(self.name(), params)?;
        let mut state = vec![Value::scalar(0.0, options.scalar)];
        for param in params {
            state.extend((0..slots(options, param)?).map(|_| param.like(0.0)));
        }
        Ok(state)
    }

    fn direction(&self, options: &Options, params: &[Value], gradients: &[Value], state: &[Value]) -> Result<Applied> {
        check_like(self.name(), "gradient", params, gradients)?;
        let counts = params.iter().map(|param| slots(options, param)).collect::<Result<Vec<_>>>()?;
        let (scalars, mut rest) = split(self.name(), state, 1, counts.iter().sum(), params.len())?;
        let decay = options.get("weightDecay")?;
        let (mut omega, mut after) = (Vec::new(), vec![scalars[0].shift(1.0)?]);
        for ((param, g), count) in params.iter().zip(gradients).zip(counts) {
            let (own, others) = rest.split_at(count);
            rest = others;
            own.iter().try_for_each(|slot| check_like(self.name(), "state", from_ref(param), from_ref(slot)))?;
            let (line, slots, factor) = match own {
                [momentum] => {
                    let (line, momentum) = matrix(options, g, momentum)?;
                    (line, vec![momentum], 1.0)
                }
                _ => {
                    let (line, slots) = other(options, g, &scalars[0], own)?;
                    (line, slots, options.get("fallbackFactor")?)
                }
            };
            let line = if decay == 0.0 { line } else { line.add(&param.scale(decay)?)? };
            omega.push(if factor == 1.0 { line } else { line.scale(factor)? });
            after.extend(slots);
        }
        Ok(Applied { omega, state: after })
    }
}

/// Tensors of state: a matrix has its momentum, any other parameter m and v.
fn slots(options: &Options, param: &Value) -> Result<usize> {
    let matrix = param.shape().rank() == 2 && param.shape().elements() > 0 && options.flag("orthogonalize")?;
    Ok(if matrix { 1 } else { 2 })
}

/// A matrix's direction without decay, and its momentum.
fn matrix(options: &Options, g: &Value, momentum: &Value) -> Result<(Value, Value)> {
    let mu = options.get("momentum")?;
    let momentum = blend(momentum, mu, g, 1.0 - mu)?;
    let ahead = if options.flag("nesterov")? { blend(&momentum, mu, g, 1.0 - mu)? } else { momentum.clone() };
    let (rows, columns) = (g.shape()[0] as f64, g.shape()[1] as f64);
    let size = match options.get("adjust")? {
        1.0 => 0.2 * rows.max(columns).sqrt(),
        2.0 => (rows / columns).sqrt(),
        _ => (rows / columns).max(1.0).sqrt(),
    };
    let line = orthogonalized(options, &ahead, options.get("iterations")? as u32, options.get("epsilon")?)?;
    Ok((line.scale(size)?, momentum))
}

/// Near UVᵀ of x = USVᵀ, by X ← aX + (bA + cA²)X with A = XXᵀ.
fn orthogonalized(options: &Options, x: &Value, iterations: u32, epsilon: f64) -> Result<Value> {
    let (a, b, c) = COEFFICIENTS;
    let tall = x.shape()[0] > x.shape()[1];
    let wide = if tall { x.transpose()? } else { x.clone() };
    let length = norm(options, x)?;
    let length = length.maximum(&length.like(epsilon))?;
    let mut x = wide.mul(&length.reciprocal()?.cast(x.dtype())?)?;
    for _ in 0..iterations {
        let gram = x.dot(&x.transpose()?)?;
        let update = gram.scale(b)?.add(&gram.dot(&gram)?.scale(c)?)?;
        x = x.scale(a)?.add(&update.dot(&x)?)?;
    }
    if tall { x.transpose() } else { Ok(x) }
}

/// Adam's direction for a parameter that is no matrix, and its m and v.
fn other(options: &Options, g: &Value, t: &Value, state: &[Value]) -> Result<(Value, Vec<Value>)> {
    let (m, v) = state.split_at(1);
    let means = moments(options, from_ref(g), t, m, v)?;
    let line = adaptive(&means, &means.m[0], &means.v[0], options.get("fallbackEpsilon")?)?;
    Ok((line, [means.m, means.v].concat()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Tensor, follow_tensors};

    type Matrix = [[f64; 2]; 2];

    fn times(x: Matrix, y: Matrix) -> Matrix {
        let at = |i: usize, j: usize| x[i][0] * y[0][j] + x[i][1] * y[1][j];
        [[at(0, 0), at(0, 1)], [at(1, 0), at(1, 1)]]
    }

    fn newton_schulz(x: &[f64]) -> Vec<f64> {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let mut x = [[x[0] / norm, x[1] / norm], [x[2] / norm, x[3] / norm]];
        for _ in 0..5 {
            let gram = times(x, [[x[0][0], x[1][0]], [x[0][1], x[1][1]]]);
            let square = times(gram, gram);
            let mut update = gram;
            (0..4).for_each(|i| update[i / 2][i % 2] = -4.7750 * gram[i / 2][i % 2] + 2.0315 * square[i / 2][i % 2]);
            let moved = times(update, x);
            (0..4).for_each(|i| x[i / 2][i % 2] = 3.4445 * x[i / 2][i % 2] + moved[i / 2][i % 2]);
        }
        x.concat()
    }

    /// One matrix of 2 × 2 and one vector of 3.
    fn by_hand(tensor: &mut Tensor, t: i32) -> Vec<f64> {
        let (theta, g, slots) = (&tensor.theta, &tensor.gradient, &mut tensor.slots);
        for i in 0..g.len() {
            let beta = if g.len() == 4 { 0.9 } else { 0.8 };
            slots[0][i] = beta * slots[0][i] + (1.0 - beta) * g[i];
            slots[1][i] = 0.95 * slots[1][i] + 0.05 * g[i] * g[i];
        }
        if g.len() == 4 {
            let ahead: Vec<f64> = (0..4).map(|i| 0.9 * slots[0][i] + 0.1 * g[i]).collect();
            let line = newton_schulz(&ahead);
            return (0..4).map(|i| 0.2 * 2f64.sqrt() * line[i] + 0.1 * theta[i]).collect();
        }
        let one = |i: usize| {
            let (m, v) = (slots[0][i] / (1.0 - 0.8f64.powi(t)), slots[1][i] / (1.0 - 0.95f64.powi(t)));
            0.5 * (m / (v.sqrt() + 1e-10) + 0.1 * theta[i])
        };
        (0..3).map(one).collect()
    }

    #[test]
    fn follows_the_plain_loop() {
        let given = [("momentum", 0.9), ("adjust", 1.0), ("fallbackFactor", 0.5), ("beta1", 0.8)];
        follow_tensors(&super::Muon, &given, 2, by_hand);
    }

    /// Five iterations leave singular values near 1: ‖XXᵀ − 1‖ is small on the shorter side of both forms.
    #[test]
    fn tall_and_wide_matrices_become_nearly_orthogonal() {
        use raphson_graph::flat::{flatten, simplify};
        use raphson_graph::{dtype::DType, reference::evaluate, shape::Shape, value::Value};
        let options = super::Options::new(&super::Muon, &[]).unwrap();
        for (rows, columns) in [(2, 5), (5, 2)] {
            let x = Value::input(Shape::from([rows, columns]), DType::F64);
            let y = super::orthogonalized(&options, &x, 5, 1e-7).unwrap();
            assert_eq!(y.shape(), x.shape());
            let graph = simplify(&flatten(&[x], &[y]).unwrap().graph);
            let given: Vec<f64> = (0..10).map(|i| f64::from(i * i % 7) - 2.5).collect();
            let out = evaluate(&graph, &[given]).unwrap().remove(0);
            let entry = |i: usize, k: usize| if rows < columns { out[i * columns + k] } else { out[k * columns + i] };
            for i in 0..2 {
                for j in 0..2 {
                    let product: f64 = (0..5).map(|k| entry(i, k) * entry(j, k)).sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    // the iteration's own band: singular values of .7 … 1.2
                    assert!((product - wanted).abs() < 0.5, "{rows}×{columns} {i}{j}: {product}");
                }
            }
        }
    }
}
