//! Graphs as training builds them: losses and layers with their derivatives, Hessian-vector products, the second
//! derivative along a direction, optimizer updates, long chains, many outputs, and sizes that fill tiles and threads.

use raphson_check::case::{Case, Input};
use raphson_check::draw::Values;
use raphson_check::runner::{Runner, device};
use raphson_check::suite::Suite;
use raphson_graph::derivative::{jvp, vjp};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::reference::evaluate;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

const FLOATS: [DType; 2] = [DType::F32, DType::F64];

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut suite = Suite::on_all().unwrap().complete();
    cases.into_iter().for_each(|case| suite.check(&case));
    suite.finish();
}

fn last(x: &Value) -> usize {
    x.shape().rank() - 1
}

/// Sum over the last axis, which stays with size 1.
fn sum_last(x: &Value) -> Result<Value> {
    let mut sizes = x.shape().to_vec();
    sizes[last(x)] = 1;
    x.sum(&[last(x)])?.reshape(&sizes[..].into())
}

fn mean_last(x: &Value) -> Result<Value> {
    sum_last(x)?.scale(1.0 / x.shape()[last(x)] as f64)
}

/// x − max x, over the last axis
fn shifted(x: &Value) -> Result<Value> {
    let mut sizes = x.shape().to_vec();
    sizes[last(x)] = 1;
    x.sub(&x.reduce(ReduceOp::Max, &[last(x)])?.reshape(&sizes[..].into())?.stop_gradient())
}

fn softmax(x: &Value) -> Result<Value> {
    let power = shifted(x)?.exp()?;
    power.div(&sum_last(&power)?)
}

/// mean over rows of ln Σ eˣ − x[label]
fn cross_entropy(logits: &Value, labels: &Value) -> Result<Value> {
    let (rows, classes) = (logits.shape()[0], logits.shape()[1]);
    let x = shifted(logits)?;
    let normalizer = x.exp()?.sum(&[1])?.log()?;
    let places = Value::iota(&[rows, classes].into(), DType::I32, 1)?;
    let hot = places.equal(&labels.reshape(&[rows, 1].into())?)?;
    let picked = hot.select(&x, &x.like(0.0))?.sum(&[1])?;
    normalizer.sub(&picked)?.sum_all()?.scale(1.0 / rows as f64)
}

/// γ·(x − mean)/√(var + ε) + β
fn layer_norm(x: &Value, gain: &Value, bias: &Value) -> Result<Value> {
    let centered = x.sub(&mean_last(x)?)?;
    let variance = mean_last(&centered.square()?)?;
    centered.mul(&variance.shift(1e-5)?.rsqrt()?)?.mul(gain)?.add(bias)
}

/// Cross-entropy of tanh(x·w₁ + b₁)·w₂ + b₂; inputs x, w₁, b₁, w₂, b₂, labels.
fn mlp(x: &[Value]) -> Result<Value> {
    let hidden = x[0].dot(&x[1])?.add(&x[2])?.tanh()?;
    cross_entropy(&hidden.dot(&x[3])?.add(&x[4])?, &x[5])
}

fn mlp_inputs(dtype: DType, rows: usize, sizes: [usize; 3]) -> Vec<Input> {
    let [features, hidden, classes] = sizes;
    let weight = |shape: [usize; 2]| Input::within(shape, dtype, -0.6, 0.6);
    vec![
        Input::new([rows, features], dtype),
        weight([features, hidden]),
        Input::within([hidden], dtype, -0.1, 0.1),
        weight([hidden, classes]),
        Input::within([classes], dtype, -0.1, 0.1),
        Input::below([rows], DType::I32, classes),
    ]
}

/// softmax(q·kᵀ/√d)·v with a causal mask
fn attention(x: &[Value]) -> Result<Value> {
    let (n, d) = (x[0].shape()[1], x[0].shape()[2]);
    let scores = x[0].dot(&x[1].transpose()?)?.scale(1.0 / (d as f64).sqrt())?;
    let row = Value::iota(&[n, n].into(), DType::I32, 0)?;
    let column = Value::iota(&[n, n].into(), DType::I32, 1)?;
    let seen = column.less_equal(&row)?.expand(scores.shape())?;
    softmax(&seen.select(&scores, &scores.like(-1e9))?)?.dot(&x[2])
}

#[test]
fn layers_and_losses_with_second_derivatives() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        cases.push(Case::new("softmax", "[3, 5]", vec![Input::new([3, 5], dtype)], |x| softmax(&x[0])));
        cases.push(Case::new("softmax", "[2, 1, 4]", vec![Input::new([2, 1, 4], dtype)], |x| softmax(&x[0])));
        let logits = vec![Input::new([4, 6], dtype), Input::below([4], DType::I32, 6)];
        cases.push(Case::new("crossEntropy", "[4, 6]", logits, |x| cross_entropy(&x[0], &x[1])));
        let operands = vec![Input::new([3, 7], dtype), Input::new([7], dtype), Input::new([7], dtype)];
        cases.push(Case::new("layerNorm", "[3, 7]", operands, |x| layer_norm(&x[0], &x[1], &x[2])));
        cases.push(Case::new("mlp", "4 rows", mlp_inputs(dtype, 4, [3, 5, 3]), mlp));
        let heads = [(); 3].map(|()| Input::new([2, 4, 3], dtype)).to_vec();
        cases.push(Case::new("attention", "2 heads", heads, attention));
        // An embedding whose rows repeat, normalised over the batch.
        let table = vec![Input::new([5, 4], dtype), Input::given([6], DType::I32, &[0.0, 3.0, 3.0, 4.0, 0.0, 0.0])];
        cases.push(Case::new("embedding", "batch norm", table, |x| {
            let rows = x[0].gather(&x[1], 0)?;
            let centered = rows.sub(&rows.sum(&[0])?.scale(1.0 / 6.0)?)?;
            centered.mul(&centered.square()?.sum(&[0])?.scale(1.0 / 6.0)?.shift(1e-3)?.rsqrt()?)
        }));
        cases.push(Case::new("logsumexp", "both axes", vec![Input::new([3, 4], dtype)], |x| {
            x[0].exp()?.sum_all()?.log()?.add(&x[0].exp()?.sum(&[0])?.log()?.sum_all()?)
        }));
    }
    check(cases);
}

#[test]
fn derivatives_along_a_step() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        // L, L′ and L″ of the step size α in L(θ + α·d), by jvp of jvp.
        let mut inputs = mlp_inputs(dtype, 5, [3, 4, 3]);
        inputs.extend([[3, 4], [4, 3]].map(|shape| Input::within(shape, dtype, -0.5, 0.5)));
        inputs.push(Input::given([], dtype, &[0.25]));
        cases.push(
            Case::several("jvp of jvp in α", "mlp", inputs, |x| {
                let alpha = &x[8];
                let step = |weight: usize, direction: usize| x[weight].add(&x[direction].mul(alpha)?);
                let moved = [x[0].clone(), step(1, 6)?, x[2].clone(), step(3, 7)?, x[4].clone(), x[5].clone()];
                let loss = mlp(&moved)?;
                let (alpha, one) = (std::slice::from_ref(alpha), [alpha.like(1.0)]);
                let slope = jvp(std::slice::from_ref(&loss), alpha, &one)?;
                let curvature = jvp(&slope, alpha, &one)?;
                Ok(vec![loss, slope[0].clone(), curvature[0].clone()])
            })
            .values_only(),
        );
        // Gradient and Hessian times its own gradient, in one graph.
        cases.push(
            Case::several("hessian · gradient", "mlp", mlp_inputs(dtype, 5, [3, 4, 3]), |x| {
                let (loss, weights) = (mlp(x)?, &x[1..5]);
                let gradient = vjp(std::slice::from_ref(&loss), weights, &[loss.like(1.0)])?;
                let product = jvp(&gradient, weights, &gradient)?;
                Ok([vec![loss], gradient, product].concat())
            })
            .values_only(),
        );
        // Third and fourth derivatives: the suite differentiates a second derivative twice more.
        cases.push(Case::new("fourth derivative", "of sin x·e^x", vec![Input::new([4], dtype)], |x| {
            let y = x[0].sin()?.mul(&x[0].exp()?)?;
            let first = vjp(std::slice::from_ref(&y), &x[..1], &[y.like(1.0)])?;
            Ok(jvp(&first, &x[..1], &[x[0].like(1.0)])?.remove(0))
        }));
    }
    check(cases);
}

/// m, v, θ after one step of Adam (Kingma and Ba 2015); x is θ, g, m, v and the step counter.
fn adam(x: &[Value]) -> Result<Vec<Value>> {
    let (first, second, rate) = (0.9, 0.999, 1e-2);
    let m = x[2].scale(first)?.add(&x[1].scale(1.0 - first)?)?;
    let v = x[3].scale(second)?.add(&x[1].square()?.scale(1.0 - second)?)?;
    let correction = |decay: f64| x[4].like(1.0).sub(&x[4].like(decay).pow(&x[4])?);
    let direction = m.div(&correction(first)?)?.div(&v.div(&correction(second)?)?.sqrt()?.shift(1e-8)?)?;
    Ok(vec![m, v, x[0].sub(&direction.scale(rate)?)?, x[4].shift(1.0)?])
}

fn adam_inputs(dtype: DType, shape: &[usize]) -> Vec<Input> {
    let mut inputs: Vec<Input> = (0..3).map(|_| Input::new(shape, dtype)).collect();
    inputs.push(Input::within(shape, dtype, 0.1, 1.0));
    inputs.push(Input::given([], dtype, &[3.0]));
    inputs
}

#[test]
fn updates() {
    let shapes: [&[usize]; 4] = [&[], &[7], &[33, 5], &[0]];
    let cases = FLOATS.into_iter().flat_map(|dtype| {
        shapes.map(|shape| Case::several("adam", format!("{shape:?}"), adam_inputs(dtype, shape), adam).values_only())
    });
    check(cases);
}

#[test]
fn donated_inputs_give_the_same_results() {
    for dtype in FLOATS {
        let inputs = adam_inputs(dtype, &[300]);
        let mut generator = raphson_check::draw::Generator::new(5);
        let data: Vec<Vec<f64>> =
            inputs.iter().map(|input| input.values.draw(input.shape.elements(), dtype, &mut generator)).collect();
        let x: Vec<Value> = inputs.iter().map(|input| Value::input(input.shape.clone(), dtype)).collect();
        let mut outputs = adam(&x).unwrap();
        // An output in another order than the input that it may take over.
        outputs.push(
            x[0].reshape(&[20, 15].into()).unwrap().permute(&[1, 0]).unwrap().add(&Value::scalar(1.0, dtype)).unwrap(),
        );
        let graph = flatten(&x, &outputs).unwrap().graph;
        let want = evaluate(&graph, &data).unwrap();
        for runner in device::all().unwrap().into_iter().filter(|runner| runner.supports(dtype)) {
            for pattern in 0..32u32 {
                let donated: Vec<bool> = (0..5).map(|i| pattern >> i & 1 == 1).collect();
                let got = runner.run_donating(&graph, &data, &donated).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    let near = |(got, want): (&f64, &f64)| (got - want).abs() < 1e-5;
                    assert!(got.iter().zip(want).all(near), "donated {donated:?}: {got:?} {want:?}");
                }
            }
        }
    }
}

#[test]
fn long_chains() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        for length in [100, 3000] {
            let chain = move |x: &Value, y: &Value| -> Result<Value> {
                let mut value = x.clone();
                for i in 0..length {
                    value = match i % 5 {
                        0 => value.add(y)?,
                        1 => value.sin()?,
                        2 => value.mul(y)?,
                        3 => value.sub(&x.scale(0.5)?)?,
                        _ => value.tanh()?,
                    };
                }
                Ok(value)
            };
            let inputs = vec![Input::new([7], dtype), Input::within([7], dtype, 0.3, 0.8)];
            let what = format!("{length} steps");
            cases.push(Case::new("chain", what.clone(), inputs.clone(), move |x| chain(&x[0], &x[1])).values_only());
            cases.push(
                Case::several("chain", what + " and gradient", inputs, move |x| {
                    let y = chain(&x[0], &x[1])?;
                    vjp(std::slice::from_ref(&y), &x[..2], &[y.like(1.0)])
                })
                .values_only(),
            );
        }
        // Reductions alternate with elementwise work, so nothing fuses for long; movement in between.
        cases.push(
            Case::new("chain", "of reductions and turns", vec![Input::new([6, 6], dtype)], |x| {
                let mut value = x[0].clone();
                for i in 0..300 {
                    let by_row = value.sum(&[i % 2])?.scale(1.0 / 6.0)?;
                    value = value.transpose()?.sub(&by_row)?.sin()?.flip(&[i % 2])?;
                }
                Ok(value)
            })
            .values_only(),
        );
    }
    check(cases);
}

#[test]
fn many_outputs_share_their_work() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        cases.push(Case::several("outputs", "60 of one stem", vec![Input::new([3, 8], dtype)], |x| {
            let mut stem = x[0].tanh()?;
            let mut outputs = Vec::new();
            for i in 0..20 {
                stem = stem.add(&x[0].scale(0.1)?)?.sin()?;
                outputs.push(stem.clone());
                outputs.push(stem.sum(&[i % 2])?);
                outputs.push(stem.transpose()?);
            }
            Ok(outputs)
        }));
        cases.push(
            Case::several("outputs", "views of one value", vec![Input::new([4, 6], dtype)], |x| {
                let y = x[0].exp()?;
                let part = y.slice(&[1, 0], &[3, 6], &[1, 1])?;
                let flat = y.reshape(&Shape::from([24]))?;
                Ok(vec![part.clone(), part.transpose()?, flat.clone(), flat.flip(&[0])?, y.clone(), y.sum_all()?, y])
            })
            .values_only(),
        );
    }
    check(cases);
}

/// A sum moves to the kernel that uses it. What it leaves behind reduces no more, and takes in a number for all of its points.
#[test]
fn sums_that_wait() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        let scalar = || Input::new([], dtype);
        let inputs = vec![Input::new([6, 5], dtype), Input::new([5, 5], dtype), scalar(), scalar()];
        cases.push(Case::several("sums", "of a moment later", inputs, |x| {
            let spread = |number: Value| number.expand_reduced(&[0, 1], x[0].shape());
            let scaled = x[0].mul(&spread(x[2].mul(&x[3])?)?)?;
            let sum = x[0].add(&spread(x[2].add(&x[3])?)?)?.sum(&[0, 1])?;
            let late = x[0].dot(&x[1])?.dot(&x[1])?;
            Ok(vec![scaled, late.mul(&spread(sum)?)?.sum(&[0, 1])?])
        }));
    }
    check(cases);
}

#[test]
fn sizes_that_fill_tiles_and_threads() {
    let mut cases = Vec::new();
    for dtype in FLOATS {
        let with_gradient = |build: fn(&[Value]) -> Result<Value>| {
            move |x: &[Value]| -> Result<Vec<Value>> {
                let y = build(x)?;
                let floats: Vec<Value> = x.iter().filter(|x| x.dtype().is_float()).cloned().collect();
                let weights = y.sin()?;
                Ok([vec![y.clone()], vjp(&[y], &floats, &[weights])?].concat())
            }
        };
        let mut add = |name: &str, inputs: Vec<Input>, build: fn(&[Value]) -> Result<Value>| {
            cases.push(Case::several(name, "large, with gradient", inputs, with_gradient(build)).values_only());
        };
        add("softmax", vec![Input::new([37, 1003], dtype)], |x| softmax(&x[0]));
        add("crossEntropy", vec![Input::new([130, 101], dtype), Input::below([130], DType::I32, 101)], |x| {
            cross_entropy(&x[0], &x[1])
        });
        add("layerNorm", vec![Input::new([65, 300], dtype), Input::new([300], dtype), Input::new([300], dtype)], |x| {
            layer_norm(&x[0], &x[1], &x[2])
        });
        add("mlp", mlp_inputs(dtype, 64, [50, 33, 10]), mlp);
        add("attention", [(); 3].map(|()| Input::new([3, 34, 17], dtype)).to_vec(), attention);
        add("columns", vec![Input::new([1001, 37], dtype)], |x| {
            x[0].sub(&x[0].sum(&[0])?.scale(1e-3)?)?.square()?.sum(&[0])?.scale(1e-3)
        });
        add("long columns", vec![Input::new([8, 260, 65], dtype)], |x| x[0].square()?.sum(&[0, 1])?.scale(1e-3));
        add("elementwise", vec![Input::new([20_011], dtype), Input::within([20_011], dtype, 0.5, 2.0)], |x| {
            x[0].gelu()?.div(&x[1])?.add(&x[1].log()?.mul(&x[0].tanh()?)?)
        });
        add("transposed sum", vec![Input::new([129, 67], dtype), Input::new([67, 129], dtype)], |x| {
            x[0].transpose()?.add(&x[1])?.sin()?.sum(&[1])
        });
    }
    // A dropout mask from counted random bits.
    let counter =
        Input { shape: [5000].into(), dtype: DType::U32, values: Values::Given((0..5000).map(f64::from).collect()) };
    cases.push(
        Case::new("dropout", "5000", vec![Input::new([5000], DType::F32), counter], |x| {
            let key = |word: f64| Value::constant(word, DType::U32, x[1].shape());
            let bits = key(7.0).threefry(&key(9.0), &x[1])?.shift_right(&key(8.0))?;
            let kept = bits.cast(DType::F32)?.scale(1.0 / f64::from(1 << 24))?.less(&x[0].like(0.9))?;
            kept.select(&x[0].scale(1.0 / 0.9)?, &x[0].like(0.0))
        })
        .values_only(),
    );
    check(cases);
}
