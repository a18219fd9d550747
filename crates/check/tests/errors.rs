//! What the builders refuse, and how: the code, the op, and the operands' shapes or dtypes in the error; the sentence
//! names what was given.

use raphson_graph::derivative::{jvp, substitute, vjp};
use raphson_graph::dtype::DType::{self, Bool, F32, F64, I32, U32};
use raphson_graph::error::{Code, Result};
use raphson_graph::flat::flatten;
use raphson_graph::op::elementwise::{ADD, ROWS, apply};
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::reference::evaluate;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

fn input<const N: usize>(shape: [usize; N], dtype: DType) -> Value {
    Value::input(shape.into(), dtype)
}

/// A call that must fail: with which code, in which op, and with what in its sentence.
struct Refusal {
    call: fn() -> Result<Value>,
    code: Code,
    op: &'static str,
    /// Parts of the sentence.
    says: &'static [&'static str],
    /// Whether the error carries shapes, and dtypes.
    carries: (bool, bool),
}

const SHAPES: (bool, bool) = (true, false);
const DTYPES: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

const fn refusal(
    op: &'static str,
    code: Code,
    says: &'static [&'static str],
    carries: (bool, bool),
    call: fn() -> Result<Value>,
) -> Refusal {
    Refusal { call, code, op, says, carries }
}

#[rustfmt::skip]
const REFUSALS: &[Refusal] = &[
    refusal("add", Code::Shape, &["[2, 3]", "[4]", "broadcast"], SHAPES, || input([2, 3], F32).add(&input([4], F32))),
    refusal("add", Code::DType, &["f32", "f64", "cast"], BOTH, || input([2], F32).add(&input([2], F64))),
    refusal("add", Code::DType, &["bool"], BOTH, || input([2], Bool).add(&input([2], Bool))),
    refusal("add", Code::Argument, &["1", "2"], NEITHER, || apply(&ADD, &[&input([2], F32)])),
    refusal("exp", Code::DType, &["i32", "float"], BOTH, || input([2], I32).exp()),
    refusal("and", Code::DType, &["f32"], BOTH, || input([2], F32).and(&input([2], F32))),
    refusal("shiftLeft", Code::DType, &["bool"], BOTH, || input([2], Bool).shift_left(&input([2], Bool))),
    refusal("threefry", Code::DType, &["u32", "i32"], BOTH, || {
        input([2], U32).threefry(&input([2], U32), &input([2], I32))
    }),
    refusal("select", Code::DType, &["i32", "bool"], BOTH, || input([2], I32).select(&input([2], F32), &input([2], F32))),
    refusal("select", Code::DType, &["f32", "i32"], BOTH, || input([2], Bool).select(&input([2], F32), &input([2], I32))),
    refusal("select", Code::Shape, &["[2]", "[3]"], SHAPES, || input([2], Bool).select(&input([3], F32), &input([3], F32))),
    refusal("reshape", Code::Shape, &["[2, 3]", "[4]", "6", "4"], SHAPES, || input([2, 3], F32).reshape(&[4].into())),
    refusal("permute", Code::Shape, &["[2, 3]", "1"], SHAPES, || input([2, 3], F32).permute(&[0])),
    refusal("permute", Code::Argument, &["[0, 0]", "[2, 3]"], SHAPES, || input([2, 3], F32).permute(&[0, 0])),
    refusal("permute", Code::Argument, &["[0, 2]", "[2, 3]"], SHAPES, || input([2, 3], F32).permute(&[0, 2])),
    refusal("transpose", Code::Shape, &["[3]"], SHAPES, || input([3], F32).transpose()),
    refusal("expand", Code::Shape, &["[2]", "[3]"], SHAPES, || input([2], F32).expand(&[3].into())),
    refusal("expand", Code::Shape, &["[1, 2]", "[2]"], SHAPES, || input([1, 2], F32).expand(&[2].into())),
    refusal("expand", Code::Shape, &["[3]", "[1]"], SHAPES, || input([3], F32).expand(&[1].into())),
    refusal("slice", Code::Shape, &["[2, 3]", "starts"], SHAPES, || input([2, 3], F32).slice(&[0], &[1, 1], &[1, 1])),
    refusal("slice", Code::Argument, &["0:4:1", "[3]"], SHAPES, || input([3], F32).slice(&[0], &[4], &[1])),
    refusal("slice", Code::Argument, &["2:1:1", "[3]"], SHAPES, || input([3], F32).slice(&[2], &[1], &[1])),
    refusal("slice", Code::Argument, &["0:2:0", "step"], SHAPES, || input([3], F32).slice(&[0], &[2], &[0])),
    refusal("pad", Code::Shape, &["[3]", "2 low"], SHAPES, || input([3], F32).pad(&[0, 1], &[0], &[0])),
    refusal("pad", Code::Shape, &["2^40"], NEITHER, || input([3], F32).pad(&[usize::MAX], &[usize::MAX], &[0])),
    refusal("pad", Code::Shape, &["2^40"], NEITHER, || input([3], F32).pad(&[0], &[0], &[usize::MAX])),
    refusal("flip", Code::Argument, &["[1]", "[3]"], SHAPES, || input([3], F32).flip(&[1])),
    refusal("concatenate", Code::Argument, &["no tensors"], NEITHER, || Value::concatenate(&[], 0)),
    refusal("concatenate", Code::Argument, &["axis 1", "[3]"], SHAPES, || Value::concatenate(&[input([3], F32)], 1)),
    refusal("concatenate", Code::Shape, &["[2, 3]", "[2, 4]"], SHAPES, || {
        Value::concatenate(&[input([2, 3], F32), input([2, 4], F32)], 0)
    }),
    refusal("concatenate", Code::Shape, &["[2, 3]", "[2]"], SHAPES, || {
        Value::concatenate(&[input([2, 3], F32), input([2], F32)], 0)
    }),
    refusal("concatenate", Code::DType, &["f32", "i32"], BOTH, || {
        Value::concatenate(&[input([2], F32), input([2], I32)], 0)
    }),
    refusal("sum", Code::Argument, &["[2]", "[3, 4]"], SHAPES, || input([3, 4], F32).sum(&[2])),
    refusal("sum", Code::DType, &["bool", "i32"], BOTH, || input([3], Bool).sum(&[0])),
    refusal("argmax", Code::Argument, &["[1]", "[3, 0]"], SHAPES, || input([3, 0], F32).reduce(ReduceOp::ArgMax, &[1])),
    refusal("dot", Code::Shape, &["[8, 4]", "[5, 2]", "agree"], SHAPES, || input([8, 4], F32).dot(&input([5, 2], F32))),
    refusal("dot", Code::Shape, &["[8, 4]", "[2, 4]", "transpose"], SHAPES, || input([8, 4], F32).dot(&input([2, 4], F32))),
    refusal("dot", Code::Shape, &["[4]", "matrices"], SHAPES, || input([4], F32).dot(&input([4, 2], F32))),
    refusal("dot", Code::Shape, &["[2]", "[3]"], SHAPES, || input([2, 3, 4], F32).dot(&input([3, 4, 5], F32))),
    refusal("dot", Code::DType, &["f32", "f64"], BOTH, || input([2, 3], F32).dot(&input([3, 2], F64))),
    refusal("dot", Code::DType, &["bool"], BOTH, || input([2, 3], Bool).dot(&input([3, 2], Bool))),
    refusal("gather", Code::Argument, &["axis 1", "[3]"], SHAPES, || input([3], F32).gather(&input([2], I32), 1)),
    refusal("gather", Code::DType, &["f32", "i32"], BOTH, || input([3], F32).gather(&input([2], F32), 0)),
    refusal("scatterAdd", Code::Shape, &["[3]", "[2]"], SHAPES, || input([3], F32).scatter_add(&input([2], I32), 0, 5)),
    refusal("scatterAdd", Code::Shape, &["[3]", "[]"], SHAPES, || input([3], F32).scatter_add(&input([], I32), 2, 5)),
    refusal("scatterAdd", Code::DType, &["bool"], BOTH, || input([3], F32).scatter_add(&input([3], Bool), 0, 5)),
    refusal("scatterAdd", Code::DType, &["bool"], BOTH, || input([3], Bool).scatter_add(&input([3], I32), 0, 5)),
    refusal("argsort", Code::Argument, &["axis 1", "[3]"], SHAPES, || input([3], F32).argsort(1, false)),
    refusal("iota", Code::Argument, &["axis 0", "[]"], SHAPES, || Value::iota(&Shape::scalar(), F32, 0)),
    refusal("iota", Code::DType, &["bool"], DTYPES, || Value::iota(&[3].into(), Bool, 0)),
    refusal("shape", Code::Shape, &["2^40"], NEITHER, || Ok(Value::input(Shape::new("shape", vec![1 << 21, 1 << 20])?, F32))),
    refusal("mul", Code::Shape, &["2^40"], NEITHER, || input([1 << 30, 1], F32).mul(&input([1, 1 << 30], F32))),
    refusal("vjp", Code::Derivative, &["i32", "float"], DTYPES, || {
        let x = input([3], I32);
        Ok(vjp(&[x.cast(F32)?], &[x], &[input([3], F32)])?.remove(0))
    }),
    refusal("jvp", Code::Derivative, &["i32", "float"], DTYPES, || {
        let x = input([3], I32);
        Ok(jvp(&[x.cast(F32)?], std::slice::from_ref(&x), std::slice::from_ref(&x))?.remove(0))
    }),
    refusal("vjp", Code::Shape, &["[]", "[3]", "cotangent"], SHAPES, || {
        let x = input([3], F32);
        Ok(vjp(&[x.exp()?], &[x], &[input([], F32)])?.remove(0))
    }),
    refusal("jvp", Code::Shape, &["f64", "f32", "tangent"], SHAPES, || {
        let x = input([3], F32);
        Ok(jvp(&[x.exp()?], &[x], &[input([3], F64)])?.remove(0))
    }),
    refusal("jvp", Code::Argument, &["0 tangents", "1"], NEITHER, || {
        let x = input([3], F32);
        Ok(jvp(&[x.exp()?], &[x], &[])?.remove(0))
    }),
    refusal("substitute", Code::Shape, &["[2]", "[3]"], SHAPES, || {
        let x = input([3], F32);
        Ok(substitute(&[x.exp()?], &[x], &[input([2], F32)])?.remove(0))
    }),
    refusal("evaluate", Code::Argument, &["placeholder", "[3]"], NEITHER, || {
        flatten(&[], &[input([3], F32).exp()?]).map(|flat| flat.captured[0].clone())
    }),
];

#[test]
fn builders_refuse_with_the_code_the_op_and_the_operands() {
    let mut failures = Vec::new();
    for (line, refusal) in REFUSALS.iter().enumerate() {
        let Err(error) = (refusal.call)() else {
            failures.push(format!("{line}: {} was accepted", refusal.op));
            continue;
        };
        let carries = (!error.shapes.is_empty(), !error.dtypes.is_empty());
        let missing: Vec<&&str> = refusal.says.iter().filter(|part| !error.message.contains(**part)).collect();
        if error.code != refusal.code || error.op != refusal.op || carries != refusal.carries || !missing.is_empty() {
            failures.push(format!("{line}: {:?} {error}, carries {carries:?}, lacks {missing:?}", error.code));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), REFUSALS.len(), failures.join("\n"));
}

#[test]
fn every_row_names_itself_when_it_refuses() {
    for row in ROWS {
        let operands: Vec<Value> = (0..row.arity).map(|_| input([3], U32)).collect();
        let mut wrong: Vec<&Value> = operands.iter().collect();
        let bad = DType::ALL.into_iter().find(|&dtype| !row.accept.takes(dtype)).map(|dtype| input([3], dtype));
        if let Some(bad) = &bad {
            wrong[row.arity - 1] = bad;
            let error = apply(row, &wrong).unwrap_err();
            assert_eq!((error.code, error.op.as_str()), (Code::DType, row.name));
            assert_eq!((error.shapes.len(), error.dtypes.len()), (row.arity, row.arity), "{}", row.name);
        }
        wrong.push(&operands[0]);
        assert_eq!(apply(row, &wrong).unwrap_err().code, Code::Argument, "{}", row.name);
    }
}

#[test]
fn indices_outside_are_named_on_every_runner() {
    for index in [-1.0, 4.0, 2_147_483_647.0] {
        let (data, indices) = (input([4, 2], F32), input([3], I32));
        let values = [vec![1.0; 8], vec![0.0, index, 3.0]];
        let gather = flatten(&[data.clone(), indices.clone()], &[data.gather(&indices, 0).unwrap()]).unwrap().graph;
        let updates = data.slice(&[0, 0], &[3, 2], &[1, 1]).unwrap();
        let scatter = flatten(&[data, indices.clone()], &[updates.scatter_add(&indices, 0, 4).unwrap()]).unwrap().graph;
        for (op, graph) in [("gather", gather), ("scatterAdd", scatter)] {
            let mut errors = vec![("reference".to_string(), evaluate(&graph, &values))];
            for runner in raphson_check::runner::all().unwrap() {
                errors.push((runner.name(), runner.run(&graph, &values)));
            }
            for (name, result) in errors {
                let error = result.expect_err(&name);
                assert_eq!((error.code, error.op.as_str()), (Code::Index, op), "{name}: {error}");
                let says = error.message.contains(&format!("{index}")) && error.message.contains('4');
                assert!(says, "{name}: {error}");
            }
        }
    }
}
