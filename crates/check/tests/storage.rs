//! What the op suite's f64 reference cannot see: the bits of rounded halves, and i64 beyond 2⁵³. Inputs and expected
//! outputs are bytes; every device that has the dtypes must give just these.

use raphson_check::runner::device::{self, OnDevice};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::flatten;
use raphson_graph::half;
use raphson_graph::value::Value;

fn devices(dtypes: &[DType]) -> Vec<OnDevice> {
    use raphson_check::runner::Runner;
    let has = |device: &OnDevice| dtypes.iter().all(|&dtype| device.supports(dtype));
    device::all().unwrap().into_iter().filter(has).collect()
}

/// The bytes that `build` makes of these inputs, all of one length, on each device.
fn outputs(inputs: &[(DType, Vec<u8>)], build: impl Fn(&[Value]) -> Result<Value>) -> Vec<(String, Vec<u8>)> {
    use raphson_check::runner::Runner;
    let n = inputs[0].1.len() / inputs[0].0.size_bytes();
    let x: Vec<Value> = inputs.iter().map(|(dtype, _)| Value::input([n].into(), *dtype)).collect();
    let y = build(&x).unwrap();
    let mut dtypes: Vec<DType> = inputs.iter().map(|(dtype, _)| *dtype).collect();
    dtypes.push(y.dtype());
    let graph = flatten(&x, &[y]).unwrap().graph;
    let bytes: Vec<Vec<u8>> = inputs.iter().map(|(_, bytes)| bytes.clone()).collect();
    let run = |device: &OnDevice| (device.name(), device.run_bytes(&graph, &bytes).unwrap().remove(0));
    devices(&dtypes).iter().map(run).collect()
}

fn singles(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Ties, their neighbours, the ends of the range, zeros, infinities and NaN. Subnormal f32 are left out: a device may
/// take them for zero.
fn hard_values() -> Vec<f32> {
    let exponents = [-24, -20, -15, -14, -1, 0, 5, 15, 16].map(|exponent| 2f32.powi(exponent));
    let digits = [1.0, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.5];
    let mut values = vec![0.0, f32::INFINITY, f32::NAN, f32::MAX, 65504.0, 65519.0, 65520.0, 3.39e38, 2f32.powi(-25)];
    for scale in exponents {
        for digit in digits {
            let value: f32 = scale * digit;
            values.extend([value, value.next_up(), value.next_down()]);
        }
    }
    let negative: Vec<f32> = values.iter().map(|value| -value).collect();
    [values, negative].concat()
}

#[test]
fn halves_are_rounded_to_nearest_ties_to_even_when_stored() {
    let values = hard_values();
    for dtype in [DType::F16, DType::BF16] {
        let bits = |value: f32| if dtype == DType::F16 { half::f32_to_f16(value) } else { half::f32_to_bf16(value) };
        let wide = |bits: u16| if dtype == DType::F16 { half::f16_to_f32(bits) } else { half::bf16_to_f32(bits) };
        for (device, got) in outputs(&[(DType::F32, singles(&values))], |x| x[0].cast(dtype)) {
            for (&value, &got) in values.iter().zip(got.as_chunks::<2>().0) {
                let got = u16::from_le_bytes(got);
                // Not by the conversion that is tested elsewhere against this very rounding.
                let expected = half::round(f64::from(value), dtype) as f32;
                assert!(
                    wide(got) == expected || (wide(got).is_nan() && value.is_nan()),
                    "{device}: {value:e} became {got:#06x} ({}), not {:#06x}",
                    wide(got),
                    bits(expected)
                );
                assert!(
                    value.is_nan() || wide(got).is_sign_negative() == value.is_sign_negative(),
                    "{device}: {value}"
                );
            }
        }
    }
}

#[test]
fn a_cast_in_the_middle_rounds_though_the_kernel_goes_on_in_f32() {
    let values = hard_values();
    for dtype in [DType::F16, DType::BF16] {
        for (device, got) in outputs(&[(DType::F32, singles(&values))], |x| x[0].cast(dtype)?.cast(DType::F32)) {
            for (&value, &got) in values.iter().zip(got.as_chunks::<4>().0) {
                let (got, expected) = (f32::from_le_bytes(got), half::round(f64::from(value), dtype) as f32);
                assert!(
                    got == expected || (got.is_nan() && value.is_nan()),
                    "{device} {dtype}: {value:e} gave {got:e}"
                );
            }
        }
    }
}

#[test]
fn every_half_survives_a_copy() {
    let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, wide) in [(DType::F16, half::f16_to_f32 as fn(u16) -> f32), (DType::BF16, half::bf16_to_f32)] {
        for (device, got) in outputs(&[(dtype, bits.clone())], |x| x[0].flip(&[0])?.flip(&[0])) {
            for (bits, &got) in (0..=u16::MAX).zip(got.as_chunks::<2>().0) {
                let got = u16::from_le_bytes(got);
                // bf16 has subnormals that are subnormal in f32 too.
                let lost = dtype == DType::BF16 && wide(bits).is_subnormal() && wide(got) == 0.0;
                let alike = got == bits || lost || (wide(got).is_nan() && wide(bits).is_nan());
                assert!(alike, "{device} {dtype}: {bits:#06x} became {got:#06x}");
            }
        }
    }
}

#[test]
fn i64_is_exact_beyond_what_floats_hold() {
    let values =
        [0, 1, -1, 3, -7, 63, 64, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN, i64::MAX - 1, 1 << 32];
    let pairs: Vec<(i64, i64)> = values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))).collect();
    let (a, b): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    type Op = (&'static str, fn(&Value, &Value) -> Result<Value>, fn(i64, i64) -> i64);
    let ops: [Op; 11] = [
        ("add", Value::add, |a, b| (i128::from(a) + i128::from(b)) as i64),
        ("sub", Value::sub, |a, b| (i128::from(a) - i128::from(b)) as i64),
        ("mul", Value::mul, |a, b| (i128::from(a) * i128::from(b)) as i64),
        ("div", Value::div, |a, b| if b == 0 { 0 } else { (i128::from(a) / i128::from(b)) as i64 }),
        ("rem", Value::rem, |a, b| if b == 0 { 0 } else { (i128::from(a) % i128::from(b)) as i64 }),
        ("maximum", Value::maximum, |a, b| a.max(b)),
        ("minimum", Value::minimum, |a, b| a.min(b)),
        ("xor", Value::xor, |a, b| a ^ b),
        ("shiftLeft", Value::shift_left, |a, b| a << (b & 63)),
        ("shiftRight", Value::shift_right, |a, b| a >> (b & 63)),
        ("less", |a, b| a.less(b)?.cast(DType::I64), |a, b| i64::from(a < b)),
    ];
    for (name, op, exact) in ops {
        let inputs = [(DType::I64, longs(&a)), (DType::I64, longs(&b))];
        for (device, got) in outputs(&inputs, |x| op(&x[0], &x[1])) {
            for (&(a, b), &got) in pairs.iter().zip(got.as_chunks::<8>().0) {
                assert_eq!(i64::from_le_bytes(got), exact(a, b), "{device}: {name}({a}, {b})");
            }
        }
    }
}

#[test]
fn i64_sums_products_and_constants_are_exact() {
    let values: Vec<i64> = (0..1000).map(|i| (1 << 60) + 977 * i).collect();
    let sum = values.iter().fold(0i64, |sum, &value| sum.wrapping_add(value));
    let product = values.iter().fold(1i64, |product, &value| product.wrapping_mul(value | 1));
    let inner = values.iter().fold(0i64, |sum, &value| sum.wrapping_add(value.wrapping_mul(value)));
    let one = |x: &Value| Value::scalar(1.0, x.dtype());
    type Op<'a> = (&'a str, fn(&Value) -> Result<Value>, i64);
    let ops: [Op; 4] = [
        ("sum", |x| x.sum_all(), sum),
        ("prod", |x| x.or(&x.like(1.0))?.reduce(raphson_graph::op::reduce::ReduceOp::Prod, &[0]), product),
        ("dot", |x| x.reshape(&[1, 1000].into())?.dot(&x.reshape(&[1000, 1].into())?)?.reshape(&[].into()), inner),
        ("max", |x| x.reduce(raphson_graph::op::reduce::ReduceOp::Max, &[0]), values[999]),
    ];
    for (name, op, expected) in ops {
        for (device, got) in outputs(&[(DType::I64, longs(&values))], |x| op(&x[0])) {
            assert_eq!(got, expected.to_le_bytes(), "{device}: {name}");
        }
    }
    // 2⁵³ + 1 by constants alone, which folding in f64 would lose.
    for (device, got) in outputs(&[(DType::I64, longs(&[0]))], |x| {
        Value::constant(9_007_199_254_740_992.0, DType::I64, x[0].shape()).add(&one(&x[0]))
    }) {
        assert_eq!(got, 9_007_199_254_740_993i64.to_le_bytes(), "{device}");
    }
}

#[test]
fn long_indices_outside_every_axis_are_refused() {
    use raphson_check::runner::Runner;
    let (data, indices) = (Value::input([4].into(), DType::F32), Value::input([2].into(), DType::I64));
    let graph = flatten(&[data.clone(), indices.clone()], &[data.gather(&indices, 0).unwrap()]).unwrap().graph;
    for device in devices(&[DType::F32, DType::I64]) {
        let run = |indices: &[f64]| device.run(&graph, &[vec![1.0, 2.0, 3.0, 4.0], indices.to_vec()]);
        assert_eq!(run(&[3.0, 0.0]).unwrap(), [[4.0, 1.0]], "{}", device.name());
        // Their low 32 bits are good indices.
        for outside in [4_294_967_296.0, -4_294_967_295.0, 4.0, -1.0] {
            let error = run(&[0.0, outside]).expect_err("an index outside the axis");
            assert_eq!(error.code, raphson_graph::error::Code::Index, "{}: {error}", device.name());
        }
    }
}

#[test]
fn wgpu_names_the_way_out_of_64_bit_numbers() {
    use raphson_check::runner::Runner;
    let Some(device) = device::wgpu() else { return };
    for (dtype, way_out) in [(DType::I64, "cast to i32"), (DType::F64, "cast to f32")] {
        let x = Value::input([2].into(), dtype);
        let graph = flatten(std::slice::from_ref(&x), &[x.neg().unwrap()]).unwrap().graph;
        let error = device.run(&graph, &[vec![1.0, 2.0]]).expect_err("a dtype that is not there");
        assert!(error.message.contains(dtype.name()) && error.message.contains(way_out), "{error}");
    }
}
