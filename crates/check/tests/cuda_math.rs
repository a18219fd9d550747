//! Accuracy of the printed functions: dense samples over each one's range, against the reference in f64 (which is as
//! exact as f64 functions are). Prints what is reached.

use raphson_check::runner::Runner;
use raphson_check::runner::interpreted::Interpreted;
use raphson_graph::dtype::DType;
use raphson_graph::flat::flatten;
use raphson_graph::op::elementwise::{ROWS, Row, apply};
use raphson_graph::value::Value;

/// A function, and intervals to sample evenly (of pow: the exponent's stands second).
const RANGES: &[(&str, &[(f64, f64)])] = &[
    ("exp", &[(-104.0, 89.0), (-1.0, 1.0)]),
    ("expm1", &[(-20.0, 88.0), (-1.0, 1.0), (-1e-3, 1e-3)]),
    ("log", &[(1e-30, 1e-3), (0.5, 2.0), (0.99, 1.01), (1.0, 1e30)]),
    ("log1p", &[(-0.999, 3.0), (-1e-4, 1e-4), (0.0, 1e20)]),
    ("sin", &[(-4.0, 4.0), (-1e3, 1e3), (3.9e4, 4.1e4), (1e6, 1e8), (1e30, 1e38)]),
    ("cos", &[(-4.0, 4.0), (-1e3, 1e3), (3.9e4, 4.1e4), (1e6, 1e8), (1e30, 1e38)]),
    ("tanh", &[(-10.0, 10.0), (-0.7, 0.7), (-1e-3, 1e-3)]),
    ("erf", &[(-5.0, 5.0), (-0.9, 0.9), (-1e-3, 1e-3)]),
    ("sqrt", &[(0.0, 10.0)]),
];

/// Beyond the range of f32.
const WIDE: &[(&str, &[(f64, f64)])] = &[
    ("exp", &[(-700.0, 700.0)]),
    ("log", &[(1e-300, 1e300)]),
    ("sin", &[(1e5, 1e6), (1e100, 1e308)]),
    ("cos", &[(1e5, 1e6), (1e100, 1e308)]),
];

const SAMPLES: usize = 4096;

fn row(name: &str) -> &'static Row {
    ROWS.iter().copied().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
}

fn rounded(value: f64, dtype: DType) -> f64 {
    if dtype == DType::F32 { f64::from(value as f32) } else { value }
}

/// The distance to the next number of the dtype at this size.
fn ulp(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => {
            let size = (value.abs() as f32).clamp(f32::MIN_POSITIVE, f32::MAX / 2.0);
            f64::from(f32::from_bits(size.to_bits() + 1) - size)
        }
        _ => {
            let size = value.abs().clamp(f64::MIN_POSITIVE, f64::MAX / 2.0);
            f64::from_bits(size.to_bits() + 1) - size
        }
    }
}

/// The largest error in ulp over operands given as columns.
fn largest_error(name: &str, dtype: DType, operands: &[Vec<f64>]) -> f64 {
    let inputs: Vec<Value> = operands.iter().map(|x| Value::input([x.len()].into(), dtype)).collect();
    let y = apply(row(name), &inputs.iter().collect::<Vec<_>>()).unwrap();
    let graph = flatten(&inputs, &[y]).unwrap().graph;
    let got = Interpreted::default().run(&graph, operands).unwrap().remove(0);
    let mut worst = 0f64;
    for (i, &got) in got.iter().enumerate() {
        let x: Vec<f64> = operands.iter().map(|x| x[i]).collect();
        let want = (row(name).reference)(&x, dtype);
        if rounded(want, dtype).is_infinite() || want.is_nan() {
            assert!(got == rounded(want, dtype) || (got.is_nan() && want.is_nan()), "{name} {dtype} of {x:?}: {got}");
            continue;
        }
        worst = worst.max((got - want).abs() / ulp(want, dtype));
    }
    worst
}

fn samples((low, high): (f64, f64), dtype: DType) -> Vec<f64> {
    // Positive intervals of many sizes are sampled evenly in the exponent.
    let many = low > 0.0 && high / low > 100.0;
    let at = |i: usize| {
        let t = (i as f64 + 0.37) / SAMPLES as f64;
        if many { low * ((high / low).ln() * t).exp() } else { low + (high - low) * t }
    };
    (0..SAMPLES).map(|i| rounded(at(i), dtype)).collect()
}

#[test]
fn functions_of_one_operand() {
    let mut failures = Vec::new();
    for (dtype, allowed) in [(DType::F32, 3.0), (DType::F64, 8.0)] {
        let tables = [RANGES, if dtype == DType::F64 { WIDE } else { &[] }];
        for &(name, ranges) in tables.into_iter().flatten() {
            for &range in ranges {
                let error = largest_error(name, dtype, &[samples(range, dtype)]);
                println!("{name:<6} {dtype} {:<20} {error:8.3} ulp", format!("{range:?}"));
                // erf of f64 is compared with a series that is not exact to the last digits.
                let allowed = if name == "erf" && dtype == DType::F64 { 40.0 } else { allowed };
                if error > allowed {
                    failures.push(format!("{name} {dtype} {range:?}: {error} ulp"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn powers_and_remainders() {
    let bases = [(0.01, 100.0), (0.9, 1.1), (1e-3, 1e3), (0.5, 2.0)];
    let exponents = [(-8.0, 8.0), (-800.0, 800.0), (-10.0, 10.0), (-120.0, 120.0)];
    for (dtype, allowed) in [(DType::F32, 4.0), (DType::F64, 4.0)] {
        for (base, exponent) in bases.into_iter().zip(exponents) {
            let x = samples(base, dtype);
            let all = samples(exponent, dtype);
            let y = (0..SAMPLES).map(|i| all[i * 1237 % SAMPLES]).collect();
            let error = largest_error("pow", dtype, &[x, y]);
            println!("pow    {dtype} {base:?} to {exponent:?} {error:8.3} ulp");
            assert!(error <= allowed, "pow {dtype} {base:?} {exponent:?}: {error} ulp");
        }
        // Remainders are exact, whatever the sizes.
        for (dividend, divisor) in
            [((-10.0, 10.0), (0.1, 3.0)), ((1.0, 1e30), (1e-3, 7.0)), ((1e-30, 1e-3), (1.0, 2.0))]
        {
            let divisors = samples(divisor, dtype);
            let y = (0..SAMPLES).map(|i| divisors[i * 1237 % SAMPLES]).collect();
            assert_eq!(largest_error("rem", dtype, &[samples(dividend, dtype), y]), 0.0, "{dividend:?} {divisor:?}");
        }
    }
}
