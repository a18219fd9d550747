//! Points on a line through the parameters: the same values and derivatives as by substitution, with fewer products.

use crate::program::{Program, close};
use raphson_graph::derivative::{along, jvp, substitute};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Needs, measure};

fn input<const N: usize>(sizes: [usize; N]) -> Value {
    Value::input(sizes[..].into(), DType::F64)
}

/// Numbers without a pattern, of (−1, 1).
fn draw(n: usize, seed: f64) -> Vec<f64> {
    (0..n).map(|i| ((i as f64 + 1.0) * 12.9898 + seed * 78.233).sin()).collect()
}

/// Value, slope and curvature by s.
fn jet(of: &Value, s: &Value) -> Result<Vec<Value>> {
    let one = Value::scalar(1.0, DType::F64);
    let derivative = |of: &Value| -> Result<Value> {
        Ok(jvp(std::slice::from_ref(of), std::slice::from_ref(s), std::slice::from_ref(&one))?.remove(0))
    };
    let first = derivative(of)?;
    let second = derivative(&first)?;
    Ok(vec![of.clone(), first, second])
}

/// Jets of a loss at θ − sω, by `along` and by `substitute`, for θ = [W 4×3, b 3, V 3×2].
fn both_ways(loss: impl Fn(&Value, &[Value]) -> Result<Value>) -> Result<[Vec<Vec<f64>>; 2]> {
    let (x, s) = (input([5, 4]), input([]));
    let params = [input([4, 3]), input([3]), input([3, 2])];
    let omega = [input([4, 3]), input([3]), input([3, 2])];
    let outputs = [loss(&x, &params)?];
    let there = along(&outputs, &params, &omega, &s)?;
    let moved = params.iter().zip(&omega).map(|(p, o)| p.sub(&o.mul(&s)?)).collect::<Result<Vec<_>>>()?;
    let plain = substitute(&outputs, &params, &moved)?;
    let inputs = [&[x, s.clone()], &params[..], &omega[..]].concat();
    let sizes = [12, 3, 6, 12, 3, 6];
    let mut data = vec![draw(20, 0.0), vec![0.37]];
    data.extend(sizes.iter().enumerate().map(|(i, &n)| draw(n, i as f64 + 1.0)));
    let run = |value: &Value| Ok::<_, raphson_graph::error::Error>(Program::new(&inputs, &jet(value, &s)?).run(&data));
    Ok([run(&there[0])?, run(&plain[0])?])
}

fn agree(name: &str, loss: impl Fn(&Value, &[Value]) -> Result<Value>) {
    let [there, plain] = both_ways(loss).unwrap();
    for (order, (there, plain)) in there.iter().zip(&plain).enumerate() {
        let (there, plain) = (there[0], plain[0]);
        let same = close(there, plain, 1e-12) || (there - plain).abs() < 1e-13;
        assert!(same, "{name}, derivative {order}: {there} for {plain}");
    }
}

#[test]
fn a_line_has_the_values_and_derivatives_of_its_points() {
    agree("two layers", |x, p| x.dot(&p[0])?.add(&p[1])?.tanh()?.dot(&p[2])?.square()?.sum_all());
    agree("linear", |x, p| x.dot(&p[0])?.sum_all());
    agree("a product of products", |x, p| x.dot(&p[0])?.dot(&p[2])?.exp()?.sum_all());
    agree("parameters on both sides", |_, p| p[0].dot(&p[2])?.sin()?.sum_all());
    agree("moved about", |x, p| {
        let flipped = p[0].transpose()?.flip(&[1])?.neg()?.scale(3.0)?.transpose()?;
        let parts = [flipped.slice(&[0, 0], &[4, 2], &[1, 1])?, p[0].pad(&[0, 0], &[0, 2], &[0, 0])?];
        x.dot(&Value::concatenate(&parts, 1)?)?.square()?.sum_all()
    });
    agree("chosen", |x, p| {
        let chosen = p[0].like(0.5).greater(&p[0].like(0.0))?.select(&p[0], &p[0].div(&p[0].like(4.0))?)?;
        x.dot(&chosen)?.add(&p[1])?.exp()?.sum_all()
    });
    agree("not affine before the product", |x, p| {
        let chosen = p[0].greater(&p[0].like(0.0))?.select(&p[0], &p[0].scale(0.1)?)?;
        x.dot(&chosen)?.add(&x.dot(&p[0].like(1.0).div(&p[0])?.tanh()?)?)?.sin()?.sum_all()
    });
    agree("multiplied by itself", |x, p| x.dot(&p[0].mul(&p[0])?)?.sin()?.sum_all());
    agree("the greatest", |x, p| {
        x.dot(&p[0])?.reduce(raphson_graph::op::reduce::ReduceOp::Max, &[1])?.square()?.sum_all()
    });
    agree("stopped", |x, p| x.dot(&p[0].stop_gradient())?.add(&x.dot(&p[0].alias())?)?.sin()?.sum_all());
    agree("independent", |x, _| x.square()?.sum_all());
}

/// Matrix products of a step that measures `needs` of two layers with ReLU, forward pass at θ included.
fn products(needs: Needs) -> usize {
    let (x, alpha) = (input([5, 4]), input([]));
    let params = [input([4, 3]), input([3, 2])];
    let (omega, gradients) = ([input([4, 3]), input([3, 2])], [input([4, 3]), input([3, 2])]);
    let loss = x.dot(&params[0]).unwrap().relu().unwrap().dot(&params[1]).unwrap().square().unwrap().sum_all().unwrap();
    let m = measure(needs, &loss, &params, &gradients, &omega, &alpha).unwrap();
    let outputs: Vec<Value> =
        [Some(m.loss0), m.loss1, m.slope1, m.curvature, m.loss_minus].into_iter().flatten().collect();
    let inputs = [&[x, alpha], &params[..], &omega[..], &gradients[..]].concat();
    Program::new(&inputs, &outputs).count("dot")
}

#[test]
fn a_product_that_is_affine_in_the_parameters_is_computed_once_for_all_points() {
    let names = |names: &[&str]| products(Needs::named(names).unwrap());
    assert_eq!(names(&[]), 2);
    // x·ω; h·V′
    assert_eq!(names(&["loss1"]), 2 + 2);
    // and h·ω, h′·V′
    assert_eq!(names(&["loss1", "slope1"]), 2 + 4);
    // and h′·ω; h″ = 0
    assert_eq!(names(&["loss1", "slope1", "curvature"]), 2 + 5);
    // x·ω; h·V′ at either point
    assert_eq!(names(&["loss1", "lossMinus"]), 2 + 3);
}
