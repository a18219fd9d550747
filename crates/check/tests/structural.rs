//! Every op that is not elementwise: values and derivatives over dtypes, ranks, sizes of 0 and 1, views and repeats.
//! The cases are data; each family is one function.

use raphson_check::case::{Case, Input};
use raphson_check::suite::Suite;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;

/// Makes an op's derivative depend on its operand, so that second derivatives are not all zero.
fn bend(x: &Value) -> Result<Value> {
    if x.dtype().is_float() { x.sin() } else { Ok(x.clone()) }
}

/// `op` on a placeholder, and for floats also between two bends.
fn unary(op: &str, what: String, input: Input, build: impl Fn(&Value) -> Result<Value> + Clone + 'static) -> Vec<Case> {
    let float = input.dtype.is_float();
    let plain = build.clone();
    let mut cases = vec![Case::new(op, what.clone(), vec![input.clone()], move |x| plain(&x[0]))];
    if float {
        let bent = move |x: &[Value]| bend(&build(&bend(&x[0])?)?);
        cases.push(Case::new(op, format!("{what} between sines"), vec![input], bent));
    }
    cases
}

fn check(cases: impl IntoIterator<Item = Case>) {
    let mut suite = Suite::on_all().unwrap();
    cases.into_iter().for_each(|case| suite.check(&case));
    suite.finish();
}

const NUMERIC: [DType; 8] =
    [DType::F32, DType::F64, DType::I32, DType::U32, DType::F16, DType::BF16, DType::I64, DType::U8];

#[test]
fn casts() {
    let mut cases = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL {
            let what = format!("{from} to {to}");
            cases.extend(unary("cast", what.clone(), Input::within([3, 5], from, -9.0, 9.0), move |x| x.cast(to)));
            let special = Input::given(
                [12],
                from,
                &[0.0, -0.0, 0.5, -0.5, 2.7, -2.7, 3e9, -3e9, 1e20, f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
            );
            cases.push(Case::new("cast", what + ", special", vec![special], move |x| x[0].cast(to)).values_only());
        }
    }
    check(cases);
}

#[test]
fn reshape_permute_expand_flip() {
    type Reshape = (&'static [usize], &'static [usize]);
    const RESHAPES: &[Reshape] =
        &[(&[2, 6], &[3, 4]), (&[12], &[2, 2, 3]), (&[1], &[]), (&[], &[1, 1]), (&[0, 3], &[5, 0]), (&[3, 1], &[3])];
    const PERMUTES: &[Reshape] = &[
        (&[2, 3], &[1, 0]),
        (&[2, 3, 4], &[2, 0, 1]),
        (&[2, 1, 3], &[0, 2, 1]),
        (&[2, 3, 1, 4], &[3, 1, 0, 2]),
        (&[0, 3], &[1, 0]),
        (&[17, 9], &[1, 0]),
    ];
    const EXPANDS: &[Reshape] = &[
        (&[1, 3], &[4, 3]),
        (&[3], &[2, 3]),
        (&[], &[2, 3]),
        (&[2, 1, 3], &[2, 5, 3]),
        (&[1], &[0]),
        (&[0, 1], &[0, 4]),
    ];
    const FLIPS: &[Reshape] =
        &[(&[5], &[0]), (&[2, 3], &[0]), (&[2, 3], &[1]), (&[2, 3, 4], &[0, 2]), (&[0, 3], &[1]), (&[1, 3], &[0, 1])];
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for (from, to) in RESHAPES {
            cases.extend(unary("reshape", format!("{from:?} {to:?}"), Input::new(*from, dtype), |x| {
                x.reshape(&(*to).into())
            }));
        }
        for (from, axes) in PERMUTES {
            cases.extend(unary("permute", format!("{from:?} {axes:?}"), Input::new(*from, dtype), |x| x.permute(axes)));
        }
        for (from, to) in EXPANDS {
            cases.extend(unary("expand", format!("{from:?} {to:?}"), Input::new(*from, dtype), |x| {
                x.expand(&(*to).into())
            }));
        }
        for (from, axes) in FLIPS {
            cases.extend(unary("flip", format!("{from:?} {axes:?}"), Input::new(*from, dtype), |x| x.flip(axes)));
        }
        // Views of views, read in one go and written out.
        cases.extend(unary("views", "permute, slice, flip".to_string(), Input::new([4, 6], dtype), |x| {
            x.permute(&[1, 0])?.slice(&[1, 0], &[6, 4], &[2, 3])?.flip(&[0])
        }));
        cases.extend(unary("views", "expand, reshape, permute".to_string(), Input::new([3, 1], dtype), |x| {
            x.expand(&Shape::from([3, 4]))?.reshape(&Shape::from([2, 6]))?.permute(&[1, 0])
        }));
        cases.extend(unary("views", "permute, reshape, slice".to_string(), Input::new([3, 4, 2], dtype), |x| {
            x.permute(&[2, 0, 1])?.reshape(&Shape::from([6, 4]))?.slice(&[1, 1], &[6, 4], &[1, 2])
        }));
        cases.extend(unary("views", "slice, flip, expand".to_string(), Input::new([7], dtype), |x| {
            x.slice(&[2], &[7], &[2])?.flip(&[0])?.expand(&Shape::from([2, 3]))
        }));
    }
    check(cases);
}

#[test]
fn slice_pad_concatenate() {
    type Window = (&'static [usize], &'static [usize], &'static [usize], &'static [usize]);
    const SLICES: &[Window] = &[
        (&[7], &[2], &[5], &[1]),
        (&[7], &[0], &[7], &[3]),
        (&[7], &[1], &[6], &[2]),
        (&[7], &[6], &[7], &[5]),
        (&[4, 5], &[1, 0], &[4, 5], &[1, 2]),
        (&[4, 5], &[2, 2], &[2, 4], &[1, 1]),
        (&[2, 3, 4], &[0, 1, 1], &[2, 3, 4], &[1, 1, 2]),
        (&[0, 3], &[0, 1], &[0, 3], &[1, 1]),
        (&[3], &[3], &[3], &[1]),
    ];
    const PADS: &[Window] = &[
        (&[4], &[1], &[2], &[0]),
        (&[4], &[0], &[0], &[2]),
        (&[4], &[2], &[1], &[1]),
        (&[2, 3], &[1, 0], &[0, 2], &[1, 2]),
        (&[1, 3], &[0, 0], &[2, 1], &[5, 0]),
        (&[0], &[2], &[3], &[4]),
        (&[0, 2], &[1, 1], &[1, 0], &[0, 1]),
        (&[2, 2, 2], &[1, 0, 1], &[1, 1, 0], &[0, 1, 0]),
    ];
    const CONCATENATES: &[(&[&[usize]], usize)] = &[
        (&[&[2], &[3]], 0),
        (&[&[2, 3], &[1, 3], &[4, 3]], 0),
        (&[&[2, 3], &[2, 1]], 1),
        (&[&[2, 0], &[2, 2]], 1),
        (&[&[2, 2, 3], &[2, 5, 3]], 1),
        (&[&[0, 2], &[0, 2]], 0),
    ];
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for (shape, start, stop, step) in SLICES {
            let what = format!("{shape:?} {start:?} {stop:?} {step:?}");
            cases.extend(unary("slice", what, Input::new(*shape, dtype), |x| x.slice(start, stop, step)));
        }
        for (shape, low, high, interior) in PADS {
            let what = format!("{shape:?} {low:?} {high:?} {interior:?}");
            cases.extend(unary("pad", what, Input::new(*shape, dtype), |x| x.pad(low, high, interior)));
        }
        for (shapes, axis) in CONCATENATES {
            let inputs = shapes.iter().map(|&shape| Input::new(shape, dtype)).collect();
            cases.push(Case::new("concatenate", format!("{shapes:?} at {axis}"), inputs, |x| {
                bend(&Value::concatenate(&x.iter().map(bend).collect::<Result<Vec<_>>>()?, *axis)?)
            }));
        }
        cases.extend(unary("concatenate", "one value twice, views".to_string(), Input::new([3, 2], dtype), |x| {
            let turned = x.permute(&[1, 0])?;
            Value::concatenate(&[turned.clone(), turned.flip(&[1])?, turned], 1)
        }));
    }
    check(cases);
}

/// Pads that take turns, follow each other, leave zeros, or meet; also where something else reads a part or a pad.
#[test]
fn sums_of_pads() {
    /// Low and high sizes of each part, and the interior ones of all.
    type Parts = (&'static [[[usize; 2]; 2]], [usize; 2]);
    const PARTS: &[Parts] = &[
        (&[[[0, 0], [0, 1]], [[0, 1], [0, 0]]], [0, 1]),
        (&[[[0, 0], [1, 0]], [[1, 0], [0, 0]]], [1, 0]),
        (&[[[0, 0], [0, 2]], [[0, 2], [0, 0]]], [0, 2]),
        (&[[[0, 0], [0, 2]], [[0, 2], [0, 0]], [[0, 1], [0, 1]]], [0, 2]),
        (&[[[0, 0], [0, 3]], [[0, 3], [0, 0]]], [0, 0]),
        (&[[[0, 0], [0, 4]], [[0, 4], [0, 0]]], [0, 0]),
        (&[[[0, 0], [0, 2]], [[0, 2], [0, 0]]], [0, 0]),
        (&[[[0, 0], [0, 2]], [[0, 2], [0, 0]]], [0, 1]),
        (&[[[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]], [[1, 1], [0, 0]]], [1, 1]),
    ];
    let sum = |x: &Value, parts: &[[[usize; 2]; 2]], interior: &[usize]| {
        let mut values = vec![x.clone()];
        while values.len() < parts.len() {
            values.push(bend(&values[values.len() - 1].add(x)?)?);
        }
        let pads = values.iter().zip(parts).map(|(value, [low, high])| value.pad(low, high, interior));
        let pads = pads.collect::<Result<Vec<_>>>()?;
        let total = pads[1..].iter().try_fold(pads[0].clone(), |total, pad| total.add(pad))?;
        Result::Ok((total, pads, values))
    };
    let mut cases = Vec::new();
    for dtype in NUMERIC {
        for &(parts, interior) in PARTS {
            let what = |more: &str| format!("{parts:?} {interior:?}{more}");
            for shape in [[2, 3], [1, 3], [0, 3]] {
                let input = Input::new(shape, dtype);
                cases.extend(unary("pad", what(""), input.clone(), move |x| Ok(sum(x, parts, &interior)?.0)));
                // In half precision its second derivatives add up the roundings of five ops; those are bounded op by op elsewhere.
                if !matches!(dtype, DType::F16 | DType::BF16) {
                    cases.push(Case::new("pad", what(", a pad read twice"), vec![input.clone()], move |x| {
                        let (total, pads, _) = sum(&bend(&x[0])?, parts, &interior)?;
                        bend(&total)?.mul(&pads[1])
                    }));
                }
                cases.push(Case::new("pad", what(", a part read twice"), vec![input], move |x| {
                    let (total, _, values) = sum(&bend(&x[0])?, parts, &interior)?;
                    total.sum(&[0, 1])?.expand_reduced(&[0, 1], values[1].shape())?.mul(&values[1])
                }));
            }
        }
    }
    check(cases);
}

/// The gradient of a maximum over windows: kernels write its parts where they belong.
#[test]
fn pooling() {
    let pool = |x: &Value| {
        let mut pooled = x.clone();
        for axis in [2, 1] {
            let sizes = pooled.shape().to_vec();
            let half = |first: usize| {
                let (mut start, mut step) = (vec![0; 3], vec![1; 3]);
                (start[axis], step[axis]) = (first, 2);
                pooled.slice(&start, &sizes, &step)
            };
            pooled = half(0)?.maximum(&half(1)?)?;
        }
        Ok(pooled)
    };
    let dtypes = [DType::F32, DType::F64, DType::F16, DType::BF16];
    check(
        dtypes
            .into_iter()
            .flat_map(|dtype| unary("maximum", "windows".to_string(), Input::new([3, 4, 6], dtype), pool)),
    );
}

#[test]
fn reductions() {
    const AXES: &[(&[usize], &[usize])] = &[
        (&[7], &[0]),
        (&[3, 5], &[0]),
        (&[3, 5], &[1]),
        (&[3, 5], &[0, 1]),
        (&[2, 3, 4], &[0]),
        (&[2, 3, 4], &[1]),
        (&[2, 3, 4], &[2]),
        (&[2, 3, 4], &[0, 1]),
        (&[2, 3, 4], &[1, 2]),
        (&[2, 3, 4], &[0, 2]),
        (&[1], &[0]),
        (&[3, 1], &[1]),
        (&[0], &[0]),
        (&[3, 0], &[1]),
        (&[0, 3], &[0]),
        (&[0, 3], &[1]),
        (&[2, 0, 3], &[1, 2]),
    ];
    const LARGE: &[(&[usize], &[usize])] =
        &[(&[5, 1000], &[1]), (&[1000, 5], &[0]), (&[33, 70], &[0, 1]), (&[9, 40, 11], &[1]), (&[3000], &[0])];
    let mut cases = Vec::new();
    for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax] {
        for dtype in NUMERIC {
            for (shape, axes) in AXES {
                let empty = axes.iter().any(|&axis| shape[axis] == 0);
                if op == ReduceOp::ArgMax && empty {
                    continue;
                }
                let what = format!("{shape:?} {axes:?}");
                let ordered = matches!(op, ReduceOp::Max | ReduceOp::Min | ReduceOp::ArgMax);
                let input = if ordered { Input::distinct(*shape, dtype) } else { Input::new(*shape, dtype) };
                // An empty maximum is infinite: its value counts, its derivative means nothing.
                if empty && matches!(op, ReduceOp::Max | ReduceOp::Min) {
                    cases.push(Case::new(op.name(), what, vec![input], move |x| x[0].reduce(op, axes)).values_only());
                } else {
                    cases.extend(unary(op.name(), what, input, move |x| x.reduce(op, axes)));
                }
            }
            for (shape, axes) in LARGE {
                let input = Input::within(*shape, dtype, 0.95, 1.05);
                let what = format!("{shape:?} {axes:?}");
                cases.push(Case::new(op.name(), what, vec![input], move |x| x[0].reduce(op, axes)).values_only());
            }
            let views = move |x: &Value| x.permute(&[1, 0])?.slice(&[0, 1], &[4, 5], &[1, 2])?.reduce(op, &[1]);
            cases.extend(unary(op.name(), "of a view".to_string(), Input::new([5, 4], dtype), views));
            cases.push(Case::new(op.name(), "no axes", vec![Input::new([3], dtype)], move |x| x[0].reduce(op, &[])));
            let scalar = Input::new([], dtype);
            cases.push(Case::new(op.name(), "scalar", vec![scalar], move |x| x[0].reduce(op, &[])));
        }
        for dtype in [DType::F32, DType::F64] {
            let special = [1.0, f64::NAN, 2.0, f64::INFINITY, 1.0, f64::NEG_INFINITY, -0.0, 0.0, 3.0, 2.0, 3.0, 1.0];
            let input = Input::given([4, 3], dtype, &special);
            for axis in [0, 1] {
                let what = format!("special values along {axis}");
                let build = move |x: &[Value]| x[0].reduce(op, &[axis]);
                cases.push(Case::new(op.name(), what, vec![input.clone()], build).values_only());
            }
        }
    }
    check(cases);
}

#[test]
fn dots() {
    const SHAPES: &[(&[usize], &[usize])] = &[
        (&[2, 3], &[3, 4]),
        (&[1, 1], &[1, 1]),
        (&[1, 5], &[5, 1]),
        (&[5, 1], &[1, 5]),
        (&[3, 0], &[0, 2]),
        (&[0, 3], &[3, 2]),
        (&[2, 3], &[3, 0]),
        (&[7, 5], &[5, 3]),
        (&[2, 3, 4], &[2, 4, 2]),
        (&[2, 3, 4], &[4, 2]),
        (&[3, 4], &[2, 4, 2]),
        (&[2, 1, 3, 4], &[3, 4, 2]),
        (&[0, 2, 3], &[0, 3, 2]),
        (&[3, 1, 1, 4], &[1, 2, 4, 1]),
    ];
    const LARGE: &[(&[usize], &[usize])] =
        &[(&[65, 33], &[33, 17]), (&[1, 300], &[300, 70]), (&[130, 7], &[7, 1]), (&[3, 20, 31], &[3, 31, 19])];
    let mut cases = Vec::new();
    for dtype in NUMERIC {
        for (left, right) in SHAPES.iter().chain(LARGE) {
            let inputs = vec![Input::new(*left, dtype), Input::new(*right, dtype)];
            let what = format!("{left:?} {right:?}");
            let large = left.iter().product::<usize>() > 100;
            let case = Case::new("dot", what.clone(), inputs, |x| x[0].dot(&x[1]));
            cases.push(if large { case.values_only() } else { case });
            // Both operands transposed in memory.
            let turned = |shape: &[usize]| {
                let mut shape = shape.to_vec();
                let rank = shape.len();
                shape.swap(rank - 2, rank - 1);
                Input::new(&shape[..], dtype)
            };
            let build = |x: &[Value]| bend(&bend(&x[0])?.transpose()?.dot(&x[1].transpose()?)?);
            let case = Case::new("dot", format!("{what} transposed"), vec![turned(left), turned(right)], build);
            cases.push(if large { case.values_only() } else { case });
        }
        cases.push(Case::new(
            "dot",
            "sliced and flipped",
            vec![Input::new([5, 6], dtype), Input::new([3, 4], dtype)],
            |x| x[0].slice(&[0, 1], &[5, 6], &[2, 2])?.dot(&x[1].flip(&[0, 1])?),
        ));
        cases.push(Case::new("dot", "with itself", vec![Input::new([3, 4], dtype)], |x| x[0].dot(&x[0].transpose()?)));
        let pair = |left: &[usize], right: &[usize]| vec![Input::new(left, dtype), Input::new(right, dtype)];
        for (left, what) in [
            (&[2, 3, 4, 5][..], "one matrix for a batch of rows"),
            (&[4, 1, 5], "one matrix for a batch of single rows"),
            (&[2, 1, 3, 5], "one matrix for a batch with an axis of one"),
        ] {
            cases.push(Case::new("dot", what, pair(left, &[5, 2]), |x| bend(&bend(&x[0])?.dot(&bend(&x[1])?)?)));
        }
        let turned = |x: &[Value]| bend(&x[0].transpose()?.dot(&x[1])?);
        cases.push(Case::new("dot", "one matrix for a batch of columns", pair(&[2, 5, 3], &[5, 2]), turned));
        let moved = |x: &[Value]| bend(&x[0].permute(&[1, 0, 2])?.dot(&x[1])?);
        cases.push(Case::new("dot", "one matrix for a batch out of order", pair(&[2, 3, 5], &[5, 2]), moved));
        let sum = |x: &[Value]| x[0].dot(&x[1])?.sum(&[0]);
        cases.push(Case::new("dot", "summed over its batch", pair(&[3, 2, 4], &[3, 4, 5]), sum));
        cases.push(Case::new("dot", "summed over a broadcast batch", pair(&[2, 4], &[3, 4, 5]), sum));
        cases.push(Case::new("dot", "summed over part of its batch", pair(&[2, 2, 2, 3], &[2, 2, 3, 2]), sum));
        let sum = |x: &[Value]| bend(&x[0].transpose()?.dot(&bend(&x[1])?)?.sum(&[0, 1])?.transpose()?);
        cases.push(Case::new("dot", "transposed, summed over two axes", pair(&[2, 3, 4, 2], &[2, 3, 4, 3]), sum));
        let both = |x: &[Value]| {
            let product = x[0].dot(&x[1])?;
            product.add(&product.sum(&[0])?)
        };
        cases.push(Case::new("dot", "summed over its batch and read", pair(&[3, 2, 4], &[3, 4, 5]), both));
        cases.push(Case::new(
            "dot",
            "bias and activation",
            [[4, 3], [3, 5], [1, 5]].map(|s| Input::new(s, dtype)).into(),
            |x| bend(&x[0].dot(&x[1])?.add(&x[2])?),
        ));
    }
    let extremes = [2_147_483_647.0, -2_147_483_648.0, 4_294_967_295.0, 3.0, 65_537.0];
    for dtype in [DType::I32, DType::U32] {
        let inputs = vec![Input::given([2, 5], dtype, &extremes), Input::given([5, 3], dtype, &extremes)];
        cases.push(Case::new("dot", "wrapping", inputs, |x| x[0].dot(&x[1])));
    }
    check(cases);
}

#[test]
fn gather_scatter() {
    // data, indices, axis
    const SHAPES: &[(&[usize], &[usize], usize)] = &[
        (&[5], &[3], 0),
        (&[5], &[], 0),
        (&[4, 3], &[7], 0),
        (&[4, 3], &[2], 1),
        (&[2, 4, 3], &[2, 2], 1),
        (&[2, 3, 5], &[1], 2),
        (&[2, 3, 5], &[], 2),
        (&[4, 3], &[0], 0),
        (&[1, 3], &[5], 0),
        (&[4, 0], &[3], 0),
        (&[0, 4], &[3], 1),
    ];
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for index in [DType::I32, DType::U32] {
            for (data, indices, axis) in SHAPES {
                let what = format!("{data:?} {indices:?} at {axis}, {index}");
                let n = data[*axis];
                let inputs = vec![Input::new(*data, dtype), Input::below(*indices, index, n)];
                cases.push(Case::new("gather", what.clone(), inputs, |x| bend(&bend(&x[0])?.gather(&x[1], *axis)?)));
                if dtype == DType::Bool {
                    continue;
                }
                let updates = [&data[..*axis], indices, &data[axis + 1..]].concat();
                let inputs = vec![Input::new(&updates[..], dtype), Input::below(*indices, index, n)];
                let build = move |x: &[Value]| bend(&bend(&x[0])?.scatter_add(&x[1], *axis, n)?);
                cases.push(Case::new("scatterAdd", what, inputs, build));
            }
        }
        if dtype == DType::Bool {
            continue;
        }
        let repeated = Input::given([6], DType::I32, &[2.0, 0.0, 2.0, 2.0, 1.0, 0.0]);
        let inputs = vec![Input::new([6, 2], dtype), repeated.clone()];
        cases.push(Case::new("scatterAdd", "repeated", inputs, |x| bend(&x[0].scatter_add(&x[1], 0, 4)?)));
        let inputs = vec![Input::new([3, 2], dtype), repeated];
        cases.push(Case::new("gather", "repeated, of a view", inputs, |x| {
            x[0].permute(&[1, 0])?.permute(&[1, 0])?.flip(&[1])?.gather(&x[1], 0)
        }));
        // Parts of one buffer that look alike: a leading part, and two parts of equal strides and counts.
        let inputs =
            vec![Input::new([4, 2], dtype), Input::below([3], DType::I32, 4), Input::below([5], DType::U32, 3)];
        cases.push(Case::several("gather", "leading parts", inputs, |x| {
            let part = x[0].slice(&[0, 0], &[3, 2], &[1, 1])?;
            Ok(vec![
                part.gather(&x[2], 0)?,
                part.scatter_add(&x[1], 0, 4)?,
                x[0].gather(&x[2].slice(&[0], &[2], &[1])?, 0)?,
            ])
        }));
        let inputs = vec![Input::new([6, 6], dtype), Input::below([4], DType::I32, 2)];
        cases.push(Case::several("gather", "parts of equal strides", inputs, |x| {
            let wide = x[0].slice(&[0, 0], &[2, 3], &[1, 1])?;
            let high = x[0].slice(&[0, 0], &[3, 2], &[1, 1])?;
            Ok(vec![wide.gather(&x[1], 0)?, high.gather(&x[1], 0)?])
        }));
        let computed = vec![Input::new([3, 5], dtype), Input::new([5, 4], dtype)];
        cases.push(Case::new("gather", "at the greatest", computed, |x| {
            x[1].gather(&x[0].reduce(ReduceOp::ArgMax, &[1])?, 0)
        }));
    }
    check(cases);
}

#[test]
fn argsort() {
    let mut cases = Vec::new();
    for dtype in DType::ALL {
        for descending in [false, true] {
            for (shape, axis) in [(&[7][..], 0), (&[1], 0), (&[0], 0), (&[3, 5], 1), (&[5, 3], 0), (&[2, 300], 1)] {
                let what = format!("{shape:?} at {axis}, descending {descending}");
                let input = Input::new(shape, dtype);
                cases.push(Case::new("argsort", what.clone(), vec![input], move |x| x[0].argsort(axis, descending)));
                // A sort: the elements gathered by their order, which is a constant for derivatives.
                let input = Input::distinct(shape, dtype);
                let n = shape.len();
                let sort = move |x: &[Value]| {
                    let x = bend(&x[0])?;
                    let order = x.argsort(axis, descending)?;
                    if n == 1 { bend(&x.gather(&order, 0)?) } else { order.cast(DType::F32) }
                };
                let case = Case::new("argsort", what + ", sorted", vec![input], sort);
                cases.push(if n == 1 { case } else { case.values_only() });
            }
            let ties = [2.0, 1.0, 0.0, 2.0, 1.0, 2.0, 0.0, 1.0];
            let view = move |x: &[Value]| x[0].permute(&[1, 0])?.flip(&[1])?.argsort(1, descending);
            cases.push(Case::new("argsort", "ties in a view", vec![Input::given([8, 3], dtype, &ties)], view));
            let infinity = f64::INFINITY;
            let special = [f64::NAN, 1.0, infinity, -0.0, 0.0, -infinity, f64::NAN, -1.0, 0.0, -0.0, f64::MIN_POSITIVE];
            let input = Input::given([2, 11], dtype, &special);
            let build = move |x: &[Value]| x[0].argsort(1, descending);
            cases.push(Case::new("argsort", "special", vec![input], build).values_only());
            let long = Input::new([3, 1000], dtype);
            cases.push(Case::new("argsort", "long", vec![long], build).values_only());
        }
    }
    // Rows that are sorted in runs and merged: with ties, NaN, and runs that end early.
    for (dtype, descending, shape) in
        [(DType::F32, false, [2, 2500]), (DType::I32, true, [1, 4500]), (DType::Bool, false, [1, 2100])]
    {
        let values: Vec<f64> = (0..shape[0] * shape[1])
            .map(|i| if i % 97 == 5 && dtype.is_float() { f64::NAN } else { f64::from((i * 7919 % 211) as u8 % 90) })
            .collect();
        let what = format!("merged {shape:?}, descending {descending}");
        let input = Input::given(shape, dtype, &values);
        cases.push(Case::new("argsort", what, vec![input], move |x| x[0].argsort(1, descending)).values_only());
    }
    check(cases);
}

#[test]
fn leaves_and_identities() {
    let mut cases = Vec::new();
    for dtype in NUMERIC {
        for (shape, axis) in [(&[5][..], 0), (&[2, 3], 0), (&[2, 3], 1), (&[0, 3], 1), (&[2, 3, 4], 1)] {
            let what = format!("{shape:?} {axis}");
            cases.push(Case::new("iota", what.clone(), vec![], move |_| Value::iota(&shape.into(), dtype, axis)));
            let build = move |x: &[Value]| Value::iota(&shape.into(), dtype, axis)?.mul(&x[0]);
            cases.push(Case::new("iota", what + " in use", vec![Input::new(shape, dtype)], build));
        }
        for value in [0.0, -0.0, 1.0, -1.0, 0.1, 1e30, f64::INFINITY, f64::NAN, -7.5] {
            let build = move |_: &[Value]| Ok(Value::constant(value, dtype, &Shape::from([2, 3])));
            cases.push(Case::new("constant", format!("{value}"), vec![], build));
            let build = move |x: &[Value]| x[0].maximum(&x[0].like(value));
            cases.push(
                Case::new("constant", format!("{value} in use"), vec![Input::new([3], dtype)], build).values_only(),
            );
        }
        cases.push(Case::new("alias", "x + alias", vec![Input::new([3], dtype)], |x| bend(&x[0].alias())?.mul(&x[0])));
        cases.push(Case::new("input", "as an output", vec![Input::new([2, 3], dtype)], |x| Ok(x[0].clone())));
        cases.push(Case::several("input", "several times", vec![Input::new([3], dtype)], |x| {
            Ok(vec![x[0].clone(), x[0].alias(), x[0].reshape(&Shape::from([3, 1]))?, x[0].neg()?, x[0].neg()?])
        }));
        cases.push(Case::several("input", "none used", vec![Input::new([3], dtype)], move |_| {
            Ok(vec![Value::scalar(2.0, dtype), Value::scalar(2.0, dtype)])
        }));
        // No derivative passes, so finite differences do not apply.
        let stopped = |x: &[Value]| x[0].stop_gradient().mul(&x[0]);
        cases.push(Case::new("stopGradient", "x·stop(x)", vec![Input::new([3], dtype)], stopped).values_only());
    }
    for dtype in DType::ALL {
        let inputs = vec![Input::new([2, 1], DType::Bool), Input::new([3], dtype), Input::new([2, 3], dtype)];
        cases.push(Case::new("select", "broadcast", inputs, |x| bend(&x[0].select(&bend(&x[1])?, &x[2])?)));
        cases.push(Case::new(
            "select",
            "by comparison",
            vec![Input::new([2, 3], dtype), Input::new([3], dtype)],
            |x| x[0].less(&x[1])?.select(&x[0], &bend(&x[1])?.expand(x[0].shape())?),
        ));
    }
    check(cases);
}
