//! Rows that undo others or complete them: inverse trigonometric and hyperbolic functions, the cube root, and the complement of
//! the error function. No device has primitives for these; their kernels are made of those there are.

use super::unary::erf;
use super::{FLOAT, Row};
use crate::fdlibm::{FAR_P, FAR_Q, MIDDLE_P, MIDDLE_Q};
use crate::kernel::{Emit, Prim, Reg};
use crate::value::Value;
use std::f64::consts::{FRAC_2_SQRT_PI, FRAC_PI_2, LN_2, PI};

/// c₀ + x·(c₁ + x·(c₂ + …))
fn polynomial(e: &mut dyn Emit, coefficients: &[f64], x: Reg) -> Reg {
    let mut sum = e.like(coefficients[coefficients.len() - 1], x);
    for &c in coefficients.iter().rev().skip(1) {
        let (product, c) = (e.binary(Prim::Mul, sum, x), e.like(c, x));
        sum = e.binary(Prim::Add, product, c);
    }
    sum
}

/// `value` with the sign of `x`; 0 counts as positive.
fn with_sign(e: &mut dyn Emit, value: Reg, x: Reg) -> Reg {
    let zero = e.like(0.0, x);
    let (negative, minus) = (e.binary(Prim::Lt, x, zero), e.unary(Prim::Neg, value));
    e.select(negative, minus, value)
}

/// √(1 + x²)
fn root_of_one_and_square(e: &mut dyn Emit, x: Reg) -> Reg {
    let (one, square) = (e.like(1.0, x), e.binary(Prim::Mul, x, x));
    let sum = e.binary(Prim::Add, one, square);
    e.unary(Prim::Sqrt, sum)
}

/// arctan of 0 ≤ x ≤ 1: halving the angle twice by x / (1 + √(1 + x²)) leaves x ≤ tan(π/16), where 13 terms of the series
/// x − x³/3 + x⁵/5 − … are exact to the last bit of f64.
fn arctan_below_one(e: &mut dyn Emit, x: Reg) -> Reg {
    let mut x = x;
    for _ in 0..2 {
        let (one, root) = (e.like(1.0, x), root_of_one_and_square(e, x));
        let divisor = e.binary(Prim::Add, one, root);
        x = e.binary(Prim::Div, x, divisor);
    }
    let series: Vec<f64> = (0..13).map(|n| if n % 2 == 0 { 4.0 } else { -4.0 } / (2.0 * f64::from(n) + 1.0)).collect();
    let square = e.binary(Prim::Mul, x, x);
    let sum = polynomial(e, &series, square);
    e.binary(Prim::Mul, x, sum)
}

/// arctan x = π/2 − arctan(1/x) above 1
fn arctan(e: &mut dyn Emit, x: Reg) -> Reg {
    let (size, one) = (e.unary(Prim::Abs, x), e.like(1.0, x));
    let great = e.binary(Prim::Lt, one, size);
    let inverse = e.binary(Prim::Div, one, size);
    let small = e.select(great, inverse, size);
    let angle = arctan_below_one(e, small);
    let quarter = e.like(FRAC_PI_2, x);
    let rest = e.binary(Prim::Sub, quarter, angle);
    let angle = e.select(great, rest, angle);
    with_sign(e, angle, x)
}

/// arctan x
pub static ATAN: Row = Row {
    name: "atan",
    doc: "The angle of (−π/2, π/2) whose tangent is x.",
    reference: |x, _| x[0].atan(),
    kernel: |e, x| arctan(e, x[0]),
    // 1/(1 + x²)
    partial: |x, _, _| x[0].square()?.shift(1.0)?.reciprocal().map(Some),
    domain: &[(-3.0, 3.0)],
    ..FLOAT
};

/// arcsin x
pub static ASIN: Row = Row {
    name: "asin",
    doc: "The angle of [−π/2, π/2] whose sine is x; NaN outside [−1, 1], an infinite derivative at ±1.",
    reference: |x, _| x[0].asin(),
    // arctan(x/√((1 − x)(1 + x)))
    kernel: |e, x| {
        let one = e.like(1.0, x[0]);
        let (below, above) = (e.binary(Prim::Sub, one, x[0]), e.binary(Prim::Add, one, x[0]));
        let product = e.binary(Prim::Mul, below, above);
        let cosine = e.unary(Prim::Sqrt, product);
        let tangent = e.binary(Prim::Div, x[0], cosine);
        arctan(e, tangent)
    },
    // 1/√((1 − x)(1 + x))
    partial: |x, _, _| one_less_square(&x[0])?.rsqrt().map(Some),
    domain: &[(-0.9, 0.9)],
    ..FLOAT
};

/// arccos x
pub static ACOS: Row = Row {
    name: "acos",
    doc: "The angle of [0, π] whose cosine is x; NaN outside [−1, 1], an infinite derivative at ±1.",
    reference: |x, _| x[0].acos(),
    // 2·arctan √((1 − x)/(1 + x))
    kernel: |e, x| {
        let one = e.like(1.0, x[0]);
        let (below, above) = (e.binary(Prim::Sub, one, x[0]), e.binary(Prim::Add, one, x[0]));
        let quotient = e.binary(Prim::Div, below, above);
        let tangent = e.unary(Prim::Sqrt, quotient);
        let half = arctan(e, tangent);
        e.binary(Prim::Add, half, half)
    },
    // −1/√((1 − x)(1 + x))
    partial: |x, _, _| one_less_square(&x[0])?.rsqrt()?.neg().map(Some),
    domain: &[(-0.9, 0.9)],
    ..FLOAT
};

/// (1 − x)(1 + x)
fn one_less_square(x: &Value) -> crate::error::Result<Value> {
    x.neg()?.shift(1.0)?.mul(&x.shift(1.0)?)
}

/// arsinh x
pub static ASINH: Row = Row {
    name: "asinh",
    doc: "The number whose hyperbolic sine is x.",
    reference: |x, _| x[0].asinh(),
    // ln(1 + t + t²/(1 + √(1 + t²))), t = |x|; ln 2t where t² is too great
    kernel: |e, x| {
        let (size, limit) = (e.unary(Prim::Abs, x[0]), e.like(1e8, x[0]));
        let (one, root) = (e.like(1.0, x[0]), root_of_one_and_square(e, size));
        let divisor = e.binary(Prim::Add, one, root);
        let share = e.binary(Prim::Div, size, divisor);
        let square = e.binary(Prim::Mul, size, share);
        let sum = e.binary(Prim::Add, size, square);
        let near = e.unary(Prim::Log1p, sum);
        let (logarithm, two) = (e.unary(Prim::Log, size), e.like(LN_2, x[0]));
        let far = e.binary(Prim::Add, logarithm, two);
        let great = e.binary(Prim::Lt, limit, size);
        let value = e.select(great, far, near);
        with_sign(e, value, x[0])
    },
    // 1/√(1 + x²)
    partial: |x, _, _| x[0].square()?.shift(1.0)?.rsqrt().map(Some),
    domain: &[(-3.0, 3.0)],
    ..FLOAT
};

/// ∛x
pub static CBRT: Row = Row {
    name: "cbrt",
    doc: "The cube root, negative below 0; an infinite derivative at 0.",
    reference: |x, _| x[0].cbrt(),
    kernel: |e, x| {
        let (size, third) = (e.unary(Prim::Abs, x[0]), e.like(1.0 / 3.0, x[0]));
        let root = e.binary(Prim::Pow, size, third);
        with_sign(e, root, x[0])
    },
    // 1/(3y²)
    partial: |_, y, _| y.square()?.scale(3.0)?.reciprocal().map(Some),
    domain: &[(0.2, 4.0)],
    ..FLOAT
};

/// Below this erfc x is not small beside 1, so that 1 − erf x is exact enough.
const ERFC_NEAR: f64 = 1.25;
/// Where one rational approximation of fdlibm (`s_erf.c`, Sun Microsystems 1993) gives way to another.
const ERFC_FAR: f64 = 1.0 / 0.35;

/// 1 − erf x
pub static ERFC: Row = Row {
    name: "erfc",
    doc: "1 − erf(x), exact for great x.",
    reference: |x, _| erfc(x[0]),
    // e^(−t² − 0.5625 + P(1/t²)/Q(1/t²))/t for t = |x|, and 2 less that for negative x
    kernel: |e, x| {
        let (x, one) = (x[0], e.like(1.0, x[0]));
        let error = e.unary(Prim::Erf, x);
        let near = e.binary(Prim::Sub, one, error);
        let (size, least) = (e.unary(Prim::Abs, x), e.like(ERFC_NEAR, x));
        let t = e.binary(Prim::Max, size, least);
        let square = e.binary(Prim::Mul, t, t);
        let s = e.binary(Prim::Div, one, square);
        let mut quotient = |p: &[f64], q: &[f64]| {
            let (p, q) = (polynomial(e, p, s), polynomial(e, q, s));
            e.binary(Prim::Div, p, q)
        };
        let (middle, far) = (quotient(&MIDDLE_P, &MIDDLE_Q), quotient(&FAR_P, &FAR_Q));
        let border = e.like(ERFC_FAR, x);
        let is_far = e.binary(Prim::Lt, border, t);
        let correction = e.select(is_far, far, middle);
        let offset = e.like(-0.5625, x);
        let correction = e.binary(Prim::Add, correction, offset);
        // two factors: their exponents round less than that of the sum
        let minus = e.unary(Prim::Neg, square);
        let (main, small) = (e.unary(Prim::Exp, minus), e.unary(Prim::Exp, correction));
        let product = e.binary(Prim::Mul, main, small);
        let tail = e.binary(Prim::Div, product, t);
        let (zero, two) = (e.like(0.0, x), e.like(2.0, x));
        let (negative, rest) = (e.binary(Prim::Lt, x, zero), e.binary(Prim::Sub, two, tail));
        let tail = e.select(negative, rest, tail);
        let is_tail = e.binary(Prim::Lt, least, size);
        e.select(is_tail, tail, near)
    },
    // −2/√π · e^(−x²)
    partial: |x, _, _| x[0].square()?.neg()?.exp()?.scale(-FRAC_2_SQRT_PI).map(Some),
    domain: &[(-3.0, 3.0)],
    ..FLOAT
};

/// erfc, slowly: 1 − erf x below 1, the continued fraction above (Abramowitz and Stegun 7.1.14).
fn erfc(x: f64) -> f64 {
    if x.is_nan() || x < 1.0 {
        return 1.0 - erf(x);
    }
    let tail = (1..=500).rev().fold(x, |below, n| x + 0.5 * f64::from(n) / below);
    (-x * x).exp() / (PI.sqrt() * tail)
}

/// the angle of (x, y)
pub static ATAN2: Row = Row {
    name: "atan2",
    doc: "The angle of (−π, π] of the point with this height, and the other tensor as its width; at the origin it and its derivatives are 0.",
    arity: 2,
    reference: |x, _| (x[0] + 0.0).atan2(x[1] + 0.0),
    kernel: |e, x| {
        let (y, x) = (x[0], x[1]);
        let (height, width) = (e.unary(Prim::Abs, y), e.unary(Prim::Abs, x));
        let (less, more) = (e.binary(Prim::Min, height, width), e.binary(Prim::Max, height, width));
        let (zero, one) = (e.like(0.0, x), e.like(1.0, x));
        let quotient = e.binary(Prim::Div, less, more);
        // ∞/∞ and 0/0
        let equal = e.binary(Prim::Eq, less, more);
        let quotient = e.select(equal, one, quotient);
        let origin = e.binary(Prim::Eq, more, zero);
        let quotient = e.select(origin, zero, quotient);
        let angle = arctan_below_one(e, quotient);
        let (quarter, half) = (e.like(FRAC_PI_2, x), e.like(PI, x));
        let steep = e.binary(Prim::Lt, width, height);
        let rest = e.binary(Prim::Sub, quarter, angle);
        let angle = e.select(steep, rest, angle);
        let back = e.binary(Prim::Lt, x, zero);
        let rest = e.binary(Prim::Sub, half, angle);
        let angle = e.select(back, rest, angle);
        with_sign(e, angle, y)
    },
    // x/(x² + y²), −y/(x² + y²)
    partial: |x, _, i| {
        let square = x[0].square()?.add(&x[1].square()?)?;
        let square = square.equal(&square.like(0.0))?.select(&square.like(1.0), &square)?;
        let part = if i == 0 { x[1].clone() } else { x[0].neg()? };
        part.div(&square).map(Some)
    },
    domain: &[(0.3, 3.0), (-3.0, 3.0)],
    ..FLOAT
};
