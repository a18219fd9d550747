//! Rows of one operand.

use super::{Accept, FLOAT, Gives, Row};
use crate::dtype::DType;
use crate::kernel::{Emit, Prim, Reg};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// −x
pub static NEG: Row = Row {
    name: "neg",
    doc: "−x; integers wrap.",
    accept: Accept::Numeric,
    reference: |x, dtype| super::binary::wrap(-x[0], dtype),
    kernel: |e, x| e.unary(Prim::Neg, x[0]),
    // −1
    partial: |x, _, _| Ok(Some(x[0].like(-1.0))),
    ..FLOAT
};

/// |x|
pub static ABS: Row = Row {
    name: "abs",
    doc: "|x|; the derivative at 0 is 0.",
    accept: Accept::Numeric,
    reference: |x, dtype| super::binary::wrap(x[0].abs(), dtype),
    kernel: |e, x| e.unary(Prim::Abs, x[0]),
    // sign x
    partial: |x, _, _| x[0].sign().map(Some),
    domain: &[(0.1, 3.0)],
    ..FLOAT
};

/// sign x
pub static SIGN: Row = Row {
    name: "sign",
    doc: "−1, 0 or 1 by the sign of x, NaN for NaN; the derivative is 0.",
    accept: Accept::Numeric,
    reference: |x, _| {
        if x[0] > 0.0 {
            1.0
        } else if x[0] < 0.0 {
            -1.0
        } else {
            x[0]
        }
    },
    kernel: |e, x| {
        let (zero, one) = (e.like(0.0, x[0]), e.like(1.0, x[0]));
        let below = if e.dtype(x[0]) == DType::U32 {
            x[0]
        } else {
            let (minus, negative) = (e.like(-1.0, x[0]), e.binary(Prim::Lt, x[0], zero));
            e.select(negative, minus, x[0])
        };
        let positive = e.binary(Prim::Lt, zero, x[0]);
        e.select(positive, one, below)
    },
    domain: &[(0.1, 3.0)],
    ..FLOAT
};

/// √x
pub static SQRT: Row = Row {
    name: "sqrt",
    doc: "√x; NaN below 0, an infinite derivative at 0.",
    reference: |x, _| x[0].sqrt(),
    kernel: |e, x| e.unary(Prim::Sqrt, x[0]),
    // 1/(2√x)
    partial: |_, y, _| y.like(0.5).div(y).map(Some),
    domain: &[(0.2, 4.0)],
    ..FLOAT
};

/// 1/√x
pub static RSQRT: Row = Row {
    name: "rsqrt",
    doc: "1/√x.",
    reference: |x, _| 1.0 / x[0].sqrt(),
    kernel: |e, x| {
        let (one, root) = (e.like(1.0, x[0]), e.unary(Prim::Sqrt, x[0]));
        e.binary(Prim::Div, one, root)
    },
    // −y³/2
    partial: |_, y, _| y.square()?.mul(y)?.scale(-0.5).map(Some),
    domain: &[(0.2, 4.0)],
    ..FLOAT
};

/// 1/x
pub static RECIPROCAL: Row = Row {
    name: "reciprocal",
    doc: "1/x; infinite at 0.",
    reference: |x, _| 1.0 / x[0],
    kernel: |e, x| {
        let one = e.like(1.0, x[0]);
        e.binary(Prim::Div, one, x[0])
    },
    // −y²
    partial: |_, y, _| y.square()?.neg().map(Some),
    domain: &[(0.3, 3.0)],
    ..FLOAT
};

/// x²
pub static SQUARE: Row = Row {
    name: "square",
    doc: "x²; integers wrap.",
    accept: Accept::Numeric,
    reference: |x, dtype| super::binary::exact(x[0], x[0], dtype, |a, b| a * b, i64::wrapping_mul),
    kernel: |e, x| e.binary(Prim::Mul, x[0], x[0]),
    // 2x
    partial: |x, _, _| x[0].scale(2.0).map(Some),
    ..FLOAT
};

/// eˣ
pub static EXP: Row = Row {
    name: "exp",
    doc: "eˣ.",
    reference: |x, _| x[0].exp(),
    kernel: |e, x| e.unary(Prim::Exp, x[0]),
    // y
    partial: |_, y, _| Ok(Some(y.clone())),
    ..FLOAT
};

/// eˣ − 1
pub static EXPM1: Row = Row {
    name: "expm1",
    doc: "eˣ − 1, exact for small x.",
    reference: |x, _| x[0].exp_m1(),
    kernel: |e, x| e.unary(Prim::Expm1, x[0]),
    // y + 1
    partial: |_, y, _| y.shift(1.0).map(Some),
    ..FLOAT
};

/// ln x
pub static LOG: Row = Row {
    name: "log",
    doc: "The natural logarithm; −∞ at 0, NaN below.",
    reference: |x, _| x[0].ln(),
    kernel: |e, x| e.unary(Prim::Log, x[0]),
    // 1/x
    partial: |x, _, _| x[0].reciprocal().map(Some),
    domain: &[(0.2, 4.0)],
    ..FLOAT
};

/// ln(1 + x)
pub static LOG1P: Row = Row {
    name: "log1p",
    doc: "ln(1 + x), exact for small x.",
    reference: |x, _| x[0].ln_1p(),
    kernel: |e, x| e.unary(Prim::Log1p, x[0]),
    // 1/(1 + x)
    partial: |x, _, _| x[0].shift(1.0)?.reciprocal().map(Some),
    domain: &[(-0.7, 3.0)],
    ..FLOAT
};

/// sin x
pub static SIN: Row = Row {
    name: "sin",
    doc: "The sine of x in radians.",
    reference: |x, _| x[0].sin(),
    kernel: |e, x| e.unary(Prim::Sin, x[0]),
    // cos x
    partial: |x, _, _| x[0].cos().map(Some),
    ..FLOAT
};

/// cos x
pub static COS: Row = Row {
    name: "cos",
    doc: "The cosine of x in radians.",
    reference: |x, _| x[0].cos(),
    kernel: |e, x| e.unary(Prim::Cos, x[0]),
    // −sin x
    partial: |x, _, _| x[0].sin()?.neg().map(Some),
    ..FLOAT
};

/// tan x
pub static TAN: Row = Row {
    name: "tan",
    doc: "The tangent of x in radians.",
    reference: |x, _| x[0].tan(),
    kernel: |e, x| {
        let (sin, cos) = (e.unary(Prim::Sin, x[0]), e.unary(Prim::Cos, x[0]));
        e.binary(Prim::Div, sin, cos)
    },
    // 1 + y²
    partial: |_, y, _| y.square()?.shift(1.0).map(Some),
    domain: &[(-1.2, 1.2)],
    ..FLOAT
};

/// tanh x
pub static TANH: Row = Row {
    name: "tanh",
    doc: "The hyperbolic tangent.",
    reference: |x, _| x[0].tanh(),
    kernel: |e, x| e.unary(Prim::Tanh, x[0]),
    // 1 − y²
    partial: |_, y, _| y.like(1.0).sub(&y.square()?).map(Some),
    ..FLOAT
};

fn emit_sigmoid(e: &mut dyn Emit, x: Reg) -> Reg {
    let (one, minus) = (e.like(1.0, x), e.unary(Prim::Neg, x));
    let power = e.unary(Prim::Exp, minus);
    let sum = e.binary(Prim::Add, one, power);
    e.binary(Prim::Div, one, sum)
}

/// 1/(1 + e⁻ˣ)
pub static SIGMOID: Row = Row {
    name: "sigmoid",
    doc: "1/(1 + e⁻ˣ).",
    reference: |x, _| 1.0 / (1.0 + (-x[0]).exp()),
    kernel: |e, x| emit_sigmoid(e, x[0]),
    // y(1 − y)
    partial: |_, y, _| y.mul(&y.like(1.0).sub(y)?).map(Some),
    ..FLOAT
};

/// ln(1 + eˣ)
pub static SOFTPLUS: Row = Row {
    name: "softplus",
    doc: "ln(1 + eˣ), without overflow.",
    reference: |x, _| x[0].max(0.0) + (-x[0].abs()).exp().ln_1p(),
    kernel: |e, x| {
        // max(x, 0) + log1p(e^−|x|)
        let zero = e.like(0.0, x[0]);
        let top = e.binary(Prim::Max, x[0], zero);
        let size = e.unary(Prim::Abs, x[0]);
        let minus = e.unary(Prim::Neg, size);
        let power = e.unary(Prim::Exp, minus);
        let rest = e.unary(Prim::Log1p, power);
        e.binary(Prim::Add, top, rest)
    },
    // sigmoid x
    partial: |x, _, _| x[0].sigmoid().map(Some),
    ..FLOAT
};

/// max(x, 0)
pub static RELU: Row = Row {
    name: "relu",
    doc: "max(x, 0); the derivative at 0 is 0.",
    accept: Accept::Numeric,
    reference: |x, _| if x[0] < 0.0 { 0.0 } else { x[0] },
    kernel: |e, x| {
        let zero = e.like(0.0, x[0]);
        e.binary(Prim::Max, x[0], zero)
    },
    // 1 where y > 0 (so x need not be kept), else 0
    partial: |_, y, _| y.greater(&y.like(0.0))?.cast(y.dtype()).map(Some),
    domain: &[(0.1, 3.0)],
    ..FLOAT
};

/// x·Φ(x), Φ the normal distribution function
pub static GELU: Row = Row {
    name: "gelu",
    doc: "x·Φ(x) with the exact normal distribution function Φ(x) = (1 + erf(x/√2))/2.",
    reference: |x, _| 0.5 * x[0] * (1.0 + erf(x[0] * FRAC_1_SQRT_2)),
    kernel: |e, x| {
        let (root, half, one) = (e.like(FRAC_1_SQRT_2, x[0]), e.like(0.5, x[0]), e.like(1.0, x[0]));
        let scaled = e.binary(Prim::Mul, x[0], root);
        let error = e.unary(Prim::Erf, scaled);
        let sum = e.binary(Prim::Add, one, error);
        let weight = e.binary(Prim::Mul, half, sum);
        e.binary(Prim::Mul, x[0], weight)
    },
    // Φ(x) + x·e^(−x²/2)/√(2π)
    partial: |x, _, _| {
        let weight = x[0].scale(FRAC_1_SQRT_2)?.erf()?.shift(1.0)?.scale(0.5)?;
        let density = x[0].square()?.scale(-0.5)?.exp()?.scale(1.0 / (2.0 * PI).sqrt())?;
        weight.add(&x[0].mul(&density)?).map(Some)
    },
    ..FLOAT
};

/// x·sigmoid(x)
pub static SILU: Row = Row {
    name: "silu",
    doc: "x/(1 + e⁻ˣ).",
    reference: |x, _| x[0] / (1.0 + (-x[0]).exp()),
    kernel: |e, x| {
        let weight = emit_sigmoid(e, x[0]);
        e.binary(Prim::Mul, x[0], weight)
    },
    // s + x·s·(1 − s), s = sigmoid x
    partial: |x, _, _| {
        let s = x[0].sigmoid()?;
        s.add(&x[0].mul(&s.mul(&s.like(1.0).sub(&s)?)?)?).map(Some)
    },
    ..FLOAT
};

/// erf x
pub static ERF: Row = Row {
    name: "erf",
    doc: "The error function 2/√π ∫₀ˣ e^(−t²) dt.",
    reference: |x, _| erf(x[0]),
    kernel: |e, x| e.unary(Prim::Erf, x[0]),
    // 2/√π · e^(−x²)
    partial: |x, _, _| x[0].square()?.neg()?.exp()?.scale(FRAC_2_SQRT_PI).map(Some),
    ..FLOAT
};

/// ⌊x⌋
pub static FLOOR: Row = Row {
    name: "floor",
    doc: "The greatest integer not above x; the derivative is 0.",
    reference: |x, _| x[0].floor(),
    kernel: |e, x| e.unary(Prim::Floor, x[0]),
    domain: &[(0.1, 0.9)],
    ..FLOAT
};

/// ⌈x⌉
pub static CEIL: Row = Row {
    name: "ceil",
    doc: "The least integer not below x; the derivative is 0.",
    reference: |x, _| x[0].ceil(),
    kernel: |e, x| e.unary(Prim::Ceil, x[0]),
    domain: &[(0.1, 0.9)],
    ..FLOAT
};

/// the nearest integer
pub static ROUND: Row = Row {
    name: "round",
    doc: "The nearest integer, halves to even; the derivative is 0.",
    reference: |x, _| x[0].round_ties_even(),
    kernel: |e, x| e.unary(Prim::Round, x[0]),
    domain: &[(0.6, 1.4)],
    ..FLOAT
};

/// x without its fraction
pub static TRUNC: Row = Row {
    name: "trunc",
    doc: "x without its fraction; the derivative is 0.",
    reference: |x, _| x[0].trunc(),
    kernel: |e, x| e.unary(Prim::Trunc, x[0]),
    domain: &[(0.1, 0.9)],
    ..FLOAT
};

/// neither infinite nor NaN
pub static IS_FINITE: Row = Row {
    name: "isFinite",
    doc: "Whether x is neither infinite nor NaN.",
    gives: Gives::Bool,
    reference: |x, _| f64::from(u8::from(x[0].is_finite())),
    kernel: |e, x| {
        let (size, infinity) = (e.unary(Prim::Abs, x[0]), e.like(f64::INFINITY, x[0]));
        e.binary(Prim::Lt, size, infinity)
    },
    ..FLOAT
};

/// NaN
pub static IS_NAN: Row = Row {
    name: "isNan",
    doc: "Whether x is NaN.",
    gives: Gives::Bool,
    reference: |x, _| f64::from(u8::from(x[0].is_nan())),
    kernel: |e, x| e.binary(Prim::Ne, x[0], x[0]),
    ..FLOAT
};

/// ¬x
pub static NOT: Row = Row {
    name: "not",
    doc: "Logical for bool, bitwise for integers.",
    accept: Accept::Bits,
    reference: |x, dtype| match dtype {
        DType::Bool => 1.0 - x[0],
        DType::U32 => f64::from(!(x[0] as u32)),
        DType::U8 => f64::from(!(x[0] as u8)),
        DType::I64 => !(x[0] as i64) as f64,
        _ => f64::from(!(x[0] as i32)),
    },
    kernel: |e, x| e.unary(Prim::Not, x[0]),
    domain: &[(0.0, 9.0)],
    ..FLOAT
};

/// The error function, slowly: the Maclaurin series below 3, the continued fraction of erfc above
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
pub fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size < 3.0 {
        // erf x = 2/√π · e^(−x²) Σ 2ⁿ x^(2n+1) / (1·3·5…(2n+1))
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    // erfc x = e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …))))
    let tail = (1..=60).rev().fold(size, |below, n| size + 0.5 * f64::from(n) / below);
    (1.0 - (-x * x).exp() / (PI.sqrt() * tail)).copysign(x)
}
