//! Attention: values, first and second derivatives on every device; its rules against derivatives of the plain formula, to
//! the third; and that neither pass stores the scores.

use raphson_check::case::{Case, Input};
use raphson_check::draw::{Generator, Values};
use raphson_check::runner::Runner;
use raphson_check::runner::device::OnDevice;
use raphson_check::suite::Suite;
use raphson_compile::compile_for;
use raphson_compile::program::{Fused, Kernel};
use raphson_device::cpu::Cpu;
use raphson_graph::derivative::{jvp, vjp};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Code, Result};
use raphson_graph::flat::flatten;
use raphson_graph::op::attention::Attention;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::reference::evaluate;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::slice::from_ref;
use std::sync::Arc;

const PLAIN: Attention = Attention { causal: false, scale: Scalar::Float(0.6) };
const CAUSAL: Attention = Attention { causal: true, ..PLAIN };

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut suite = Suite::on_all().unwrap();
    cases.into_iter().for_each(|case| suite.check(&case));
    suite.finish();
}

/// Shapes of q, k, v and the mask, if there is one.
fn case(what: &str, dtype: DType, options: Attention, shapes: [&[usize]; 3], mask: Option<&[usize]>) -> Case {
    let mut inputs: Vec<Input> = shapes.iter().map(|&shape| Input::new(shape, dtype)).collect();
    inputs.extend(mask.map(|shape| Input::below(shape, DType::Bool, 2)));
    let what = format!("{what}{}", if options.causal { ", causal" } else { "" });
    Case::new("attention", what, inputs, move |x| x[0].attention(&x[1], &x[2], x.get(3), options))
}

/// Shapes of q, k, v and the mask, and what they are an example of.
type Example<'a> = (&'a str, [&'a [usize]; 3], Option<&'a [usize]>);

#[test]
fn attention_and_its_derivatives() {
    let examples: [Example<'_>; 7] = [
        ("one head", [&[3, 2], &[4, 2], &[4, 3]], None),
        ("a batch of heads, key padding", [&[2, 2, 3, 2], &[2, 2, 3, 2], &[2, 2, 3, 2]], Some(&[2, 1, 1, 3])),
        ("keys shared by heads, a mask for all", [&[2, 4, 3], &[1, 5, 3], &[5, 2]], Some(&[4, 5])),
        ("more queries than keys", [&[5, 2], &[3, 2], &[3, 1]], None),
        ("no keys", [&[2, 3], &[0, 3], &[0, 2]], None),
        ("no queries", [&[2, 0, 3], &[2, 2, 3], &[2, 2, 2]], None),
        ("no width", [&[2, 0], &[3, 0], &[3, 2]], None),
    ];
    let all = examples.iter().flat_map(|&(what, shapes, mask)| {
        let each = [(DType::F32, PLAIN), (DType::F64, CAUSAL), (DType::F32, CAUSAL), (DType::F64, PLAIN)];
        each.map(|(dtype, options)| case(what, dtype, options, shapes, mask))
    });
    check(all);
}

/// Sizes beyond a tile, whole tiles and parts of them, and few and many batch entries.
#[test]
fn attention_over_many_tiles() {
    let examples: [Example<'_>; 4] = [
        ("one entry", [&[150, 5], &[270, 5], &[270, 3]], None),
        ("one entry, more queries", [&[200, 4], &[140, 4], &[140, 4]], Some(&[200, 140])),
        ("many entries", [&[17, 70, 2], &[17, 131, 2], &[17, 131, 2]], Some(&[17, 1, 131])),
        ("whole tiles", [&[128, 16], &[128, 16], &[128, 16]], None),
    ];
    let all = examples.iter().flat_map(|&(what, shapes, mask)| {
        [(DType::F32, CAUSAL), (DType::F64, PLAIN), (DType::F32, PLAIN)].map(|(dtype, options)| {
            let mut case = case(what, dtype, options, shapes, mask);
            let build = std::mem::replace(&mut case.build, Box::new(|_| Ok(Vec::new())));
            // The cotangents too, as values.
            case.build = Box::new(move |x| {
                let out = build(x)?.remove(0);
                let mut outputs = vjp(from_ref(&out), &x[..3], &[out.sin()?])?;
                outputs.push(out);
                Ok(outputs)
            });
            case.values_only().one_of_many()
        })
    });
    // What the GPU devices make of it, the cases above have shown.
    let cpus = Cpu::each_instruction_set(2).unwrap().into_iter();
    let runners = cpus.map(|cpu| Box::new(OnDevice::new(Arc::new(cpu), &DType::ALL)) as Box<dyn Runner>).collect();
    let mut suite = Suite::new(runners);
    all.for_each(|case| suite.check(&case));
    suite.finish();
}

/// Scores far apart, and rows whose greatest scores come late, so that the running maximum moves.
#[test]
fn attention_of_large_scores() {
    let options = Attention { causal: false, scale: Scalar::Float(40.0) };
    let rising: Vec<f64> = (0..300).map(|i| f64::from(i) / 100.0 - 1.0).collect();
    let cases = [DType::F32, DType::F64].map(|dtype| {
        let inputs = vec![
            Input::given([3, 1], dtype, &[1.0, -1.0, 0.0]),
            Input::given([300, 1], dtype, &rising),
            Input::new([300, 2], dtype),
        ];
        Case::new("attention", "large scores", inputs, move |x| x[0].attention(&x[1], &x[2], None, options))
            .within(2e-5, 1e-10)
            .values_only()
    });
    check(cases);
}

/// softmax(scale · q·kᵀ)·v as one would write it; every query sees a key.
fn plainly(x: &[Value], options: Attention) -> Result<Value> {
    let scores = x[0].dot(&x[1].transpose()?)?.scale(options.scale.to_f64())?;
    let shape = scores.shape().clone();
    let rank = shape.rank();
    let seen = Value::iota(&shape, DType::I32, rank - 1)?.less_equal(&Value::iota(&shape, DType::I32, rank - 2)?)?;
    let seen = if options.causal { seen } else { seen.or(&seen.not()?)? };
    let scores = seen.select(&scores, &scores.like(-1e30))?;
    let spread = |value: Value| value.expand_reduced(&[rank - 1], &shape);
    let exponentials = scores.sub(&spread(scores.reduce(ReduceOp::Max, &[rank - 1])?)?.stop_gradient())?.exp()?;
    exponentials.div(&spread(exponentials.sum(&[rank - 1])?)?)?.dot(&x[2])
}

/// Value, gradient, Hessian's product in four ways, and a third derivative in two, of ⟨out, sin out⟩.
fn derivatives(x: &[Value], v: &[Value], out: &Value) -> Result<Vec<Value>> {
    let loss = out.mul(&out.sin()?)?.sum_all()?;
    let one = Value::scalar(1.0, DType::F64);
    let gradient = vjp(from_ref(&loss), x, from_ref(&one))?;
    let slope = jvp(from_ref(&loss), x, v)?;
    let curvature = jvp(&slope, x, v)?;
    let product = jvp(&gradient, x, v)?;
    let mut all = vec![loss];
    all.extend(vjp(&gradient, x, v)?);
    all.extend(vjp(&slope, x, from_ref(&one))?);
    all.extend(vjp(&curvature, x, &[one])?);
    all.extend(jvp(&product, x, v)?);
    all.extend([gradient, slope, curvature, product].concat());
    Ok(all)
}

#[test]
fn the_rules_are_those_of_the_plain_formula() {
    let shapes = [Shape::from([2, 4, 3]), Shape::from([2, 4, 3]), Shape::from([2, 4, 2])];
    let mut generator = Generator::named("attention's rules");
    for options in [PLAIN, CAUSAL] {
        let inputs: Vec<Value> = shapes.iter().chain(&shapes).map(|s| Value::input(s.clone(), DType::F64)).collect();
        let data: Vec<Vec<f64>> = inputs
            .iter()
            .map(|x| Values::Within(-1.0, 1.0).draw(x.shape().elements(), DType::F64, &mut generator))
            .collect();
        let (x, v) = inputs.split_at(3);
        let of = |out: Value| {
            let graph = flatten(&inputs, &derivatives(x, v, &out).unwrap()).unwrap().graph;
            evaluate(&graph, &data).unwrap()
        };
        let got = of(x[0].attention(&x[1], &x[2], None, options).unwrap());
        let want = of(plainly(x, options).unwrap());
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let scale = want.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-12 * scale, "output {i}: {got:e}, not {want:e}");
            }
        }
    }
}

/// A training step of one head: forward and reverse are one kernel each, and no buffer is as large as the scores.
#[test]
fn neither_pass_stores_the_scores() {
    let (queries, width) = (512, 16);
    let x: Vec<Value> = (0..3).map(|_| Value::input(Shape::from([2, queries, width]), DType::F32)).collect();
    let out = x[0].attention(&x[1], &x[2], None, CAUSAL).unwrap();
    let gradient = vjp(from_ref(&out), &x, &[out.sin().unwrap()]).unwrap();
    let graph = flatten(&x, &gradient).unwrap().graph;
    let fused = Fused { attention: &[DType::F32], attention_width: width };
    let count = |fused: &Fused| {
        let program = compile_for(&graph, &[false; 3], fused).unwrap();
        let attentions = program.kernels.iter().filter(|kernel| matches!(kernel, Kernel::Attention(_))).count();
        let largest = program.buffers.iter().map(|buffer| buffer.elements).max().unwrap();
        (attentions, largest)
    };
    assert_eq!(count(&fused), (2, 2 * 3 * queries * width));
    assert_eq!(count(&Fused { attention_width: width - 1, ..fused }).0, 0);
    assert_eq!(count(&Fused::NONE), (0, 2 * queries * queries));
}

/// Of what padding and the order hide from everyone, nothing comes back.
#[test]
fn a_query_that_sees_no_key_gets_zeros() {
    let x: Vec<Value> = (0..3).map(|_| Value::input(Shape::from([3, 2]), DType::F64)).collect();
    let mask = Value::input(Shape::from([3, 3]), DType::Bool);
    let out = x[0].attention(&x[1], &x[2], Some(&mask), PLAIN).unwrap();
    let gradient = vjp(from_ref(&out), &x, &[out.like(1.0)]).unwrap();
    let inputs = [&x[..], &[mask]].concat();
    let graph = flatten(&inputs, &[out, gradient[0].clone()]).unwrap().graph;
    let ones = vec![1.0; 6];
    let mask = vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    let got = evaluate(&graph, &[ones.clone(), ones.clone(), ones, mask]).unwrap();
    let want = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
    assert!(got[0].iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-15), "{:?}", got[0]);
    // Keys are all alike, so that queries make no difference.
    assert!(got[1].iter().all(|got| got.abs() < 1e-15), "{:?}", got[1]);
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let input = |shape: &[usize], dtype: DType| Value::input(shape.into(), dtype);
    let float = |shape: &[usize]| input(shape, DType::F32);
    let refused = |q: &Value, k: &Value, v: &Value, mask: Option<&Value>| {
        q.attention(k, v, mask, PLAIN).map(|out| out.shape().clone()).unwrap_err().code
    };
    let (q, k, v) = (float(&[2, 5, 4]), float(&[2, 3, 4]), float(&[2, 3, 6]));
    assert_eq!(refused(&q, &float(&[2, 3, 5]), &v, None), Code::Shape);
    assert_eq!(refused(&q, &k, &float(&[2, 4, 6]), None), Code::Shape);
    assert_eq!(refused(&q, &float(&[3, 3, 4]), &v, None), Code::Shape);
    assert_eq!(refused(&float(&[4]), &k, &v, None), Code::Shape);
    assert_eq!(refused(&q, &input(&[2, 3, 4], DType::F64), &v, None), Code::DType);
    assert_eq!(refused(&q, &k, &v, Some(&float(&[5, 3]))), Code::DType);
    assert_eq!(refused(&q, &k, &v, Some(&input(&[5, 4], DType::Bool))), Code::Shape);
    let ints = [&[2, 5, 4][..], &[2, 3, 4], &[2, 3, 6]].map(|shape| input(shape, DType::I32));
    assert_eq!(refused(&ints[0], &ints[1], &ints[2], None), Code::DType);
}
