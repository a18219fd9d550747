//! Rows of two operands: arithmetic, extrema, comparison, bits.

use super::{Accept, Gives, Row, no_partial};
use crate::dtype::DType;
use crate::kernel::Prim;

/// Bring an exact integer result into its dtype by wrapping; floats pass.
pub(super) fn wrap(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::I32 => f64::from(x as i64 as i32),
        DType::U32 => f64::from(x as i64 as u32),
        DType::U8 => f64::from(x as i64 as u8),
        DType::I64 => (x as i128 as i64) as f64,
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::Bool => x,
    }
}

/// A float formula, or the exact integer one with wrapping.
pub(super) fn exact(a: f64, b: f64, dtype: DType, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> f64 {
    match dtype {
        DType::I32 => f64::from(int(a as i64, b as i64) as i32),
        DType::U32 => f64::from(int(a as i64, b as i64) as u32),
        DType::U8 => f64::from(int(a as i64, b as i64) as u8),
        DType::I64 => int(a as i64, b as i64) as f64,
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::Bool => float(a, b),
    }
}

fn truth(x: bool) -> f64 {
    f64::from(u8::from(x))
}

/// Arithmetic on any numeric dtype; the fields that most rows share.
const NUMERIC: Row = Row {
    name: "",
    doc: "",
    arity: 2,
    accept: Accept::Numeric,
    gives: Gives::Same,
    reference: |_, _| f64::NAN,
    kernel: |_, x| x[0],
    partial: no_partial,
    domain: &[(-3.0, 3.0), (-3.0, 3.0)],
};

/// x + y
pub static ADD: Row = Row {
    name: "add",
    doc: "x + y; integers wrap.",
    reference: |x, dtype| exact(x[0], x[1], dtype, |a, b| a + b, i64::wrapping_add),
    kernel: |e, x| e.binary(Prim::Add, x[0], x[1]),
    // 1, 1
    partial: |x, _, i| Ok(Some(x[i].like(1.0))),
    ..NUMERIC
};

/// x − y
pub static SUB: Row = Row {
    name: "sub",
    doc: "x − y; integers wrap.",
    reference: |x, dtype| exact(x[0], x[1], dtype, |a, b| a - b, i64::wrapping_sub),
    kernel: |e, x| e.binary(Prim::Sub, x[0], x[1]),
    // 1, −1
    partial: |x, _, i| Ok(Some(x[i].like(if i == 0 { 1.0 } else { -1.0 }))),
    ..NUMERIC
};

/// x·y
pub static MUL: Row = Row {
    name: "mul",
    doc: "x·y; integers wrap.",
    reference: |x, dtype| exact(x[0], x[1], dtype, |a, b| a * b, i64::wrapping_mul),
    kernel: |e, x| e.binary(Prim::Mul, x[0], x[1]),
    // y, x
    partial: |x, _, i| Ok(Some(x[1 - i].clone())),
    ..NUMERIC
};

/// x/y
pub static DIV: Row = Row {
    name: "div",
    doc: "x/y; integers truncate, and give 0 where y is 0.",
    reference: |x, dtype| exact(x[0], x[1], dtype, |a, b| a / b, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) }),
    kernel: |e, x| e.binary(Prim::Div, x[0], x[1]),
    // 1/y, −(x/y)/y
    partial: |x, y, i| if i == 0 { x[1].reciprocal() } else { y.div(&x[1])?.neg() }.map(Some),
    domain: &[(-3.0, 3.0), (0.3, 3.0)],
    ..NUMERIC
};

/// the remainder of x/y
pub static REM: Row = Row {
    name: "rem",
    doc: "x − y·trunc(x/y), with the sign of x; integers give 0 where y is 0.",
    reference: |x, dtype| exact(x[0], x[1], dtype, |a, b| a % b, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
    kernel: |e, x| e.binary(Prim::Rem, x[0], x[1]),
    // 1, −trunc(x/y)
    partial: |x, _, i| {
        if i == 0 { Ok(Some(x[0].like(1.0))) } else { x[0].div(&x[1])?.trunc()?.neg().map(Some) }
    },
    domain: &[(0.1, 0.9), (1.0, 3.0)],
    ..NUMERIC
};

/// xʸ
pub static POW: Row = Row {
    name: "pow",
    doc: "xʸ; NaN for negative x and fractional y. The derivative by x is 0 where y is 0, that by y is 0 where x ≤ 0.",
    accept: Accept::Float,
    reference: |x, _| x[0].powf(x[1]),
    kernel: |e, x| e.binary(Prim::Pow, x[0], x[1]),
    // y·x^(y−1), z·ln x
    partial: |x, z, i| {
        let zero = z.like(0.0);
        if i == 0 {
            let slope = x[1].mul(&x[0].pow(&x[1].shift(-1.0)?)?)?;
            // 0·x^(−1) is 0 by itself, and its derivative by y is x^(−1), so only 0·∞ needs replacing. A constant y
            // other than 0 folds the whole choice away.
            let near_zero = x[0].abs()?.less(&z.like(1e-12))?.select(&zero, &slope)?;
            x[1].equal(&zero)?.select(&near_zero, &slope).map(Some)
        } else {
            let positive = x[0].greater(&zero)?;
            let safe = positive.select(&x[0], &z.like(1.0))?;
            positive.select(&z.mul(&safe.log()?)?, &zero).map(Some)
        }
    },
    domain: &[(0.3, 2.5), (-2.0, 2.0)],
    ..NUMERIC
};

/// 1 for the operand that won, ½ each on a tie.
fn extremum_partial(
    x: &[crate::value::Value],
    y: &crate::value::Value,
    i: usize,
) -> crate::error::Result<Option<crate::value::Value>> {
    let won = x[i].equal(y)?.cast(y.dtype())?;
    let tie = x[0].equal(&x[1])?;
    tie.select(&y.like(0.5), &won).map(Some)
}

/// max(x, y)
pub static MAXIMUM: Row = Row {
    name: "maximum",
    doc: "The greater of x and y, NaN if either is; on a tie each has derivative ½.",
    reference: |x, _| if x[0].is_nan() || x[1].is_nan() { f64::NAN } else { x[0].max(x[1]) },
    kernel: |e, x| e.binary(Prim::Max, x[0], x[1]),
    partial: extremum_partial,
    domain: &[(-3.0, -0.1), (0.1, 3.0)],
    ..NUMERIC
};

/// min(x, y)
pub static MINIMUM: Row = Row {
    name: "minimum",
    doc: "The lesser of x and y, NaN if either is; on a tie each has derivative ½.",
    reference: |x, _| if x[0].is_nan() || x[1].is_nan() { f64::NAN } else { x[0].min(x[1]) },
    kernel: |e, x| e.binary(Prim::Min, x[0], x[1]),
    partial: extremum_partial,
    domain: &[(-3.0, -0.1), (0.1, 3.0)],
    ..NUMERIC
};

/// A comparison; the fields they share.
const COMPARISON: Row = Row { accept: Accept::Any, gives: Gives::Bool, ..NUMERIC };

/// x < y
pub static LESS: Row = Row {
    name: "less",
    doc: "Whether x < y.",
    reference: |x, _| truth(x[0] < x[1]),
    kernel: |e, x| e.binary(Prim::Lt, x[0], x[1]),
    ..COMPARISON
};

/// x ≤ y
pub static LESS_EQUAL: Row = Row {
    name: "lessEqual",
    doc: "Whether x ≤ y.",
    reference: |x, _| truth(x[0] <= x[1]),
    kernel: |e, x| e.binary(Prim::Le, x[0], x[1]),
    ..COMPARISON
};

/// x > y
pub static GREATER: Row = Row {
    name: "greater",
    doc: "Whether x > y.",
    reference: |x, _| truth(x[0] > x[1]),
    kernel: |e, x| e.binary(Prim::Lt, x[1], x[0]),
    ..COMPARISON
};

/// x ≥ y
pub static GREATER_EQUAL: Row = Row {
    name: "greaterEqual",
    doc: "Whether x ≥ y.",
    reference: |x, _| truth(x[0] >= x[1]),
    kernel: |e, x| e.binary(Prim::Le, x[1], x[0]),
    ..COMPARISON
};

/// x = y
pub static EQUAL: Row = Row {
    name: "equal",
    doc: "Whether x = y; NaN equals nothing.",
    reference: |x, _| truth(x[0] == x[1]),
    kernel: |e, x| e.binary(Prim::Eq, x[0], x[1]),
    ..COMPARISON
};

/// x ≠ y
pub static NOT_EQUAL: Row = Row {
    name: "notEqual",
    doc: "Whether x ≠ y; NaN differs from everything.",
    reference: |x, _| truth(x[0] != x[1]),
    kernel: |e, x| e.binary(Prim::Ne, x[0], x[1]),
    ..COMPARISON
};

/// Bits; the fields these rows share.
const BITS: Row = Row { accept: Accept::Bits, domain: &[(0.0, 9.0), (0.0, 9.0)], ..NUMERIC };

fn bitwise(x: &[f64], dtype: DType, int: fn(i64, i64) -> i64) -> f64 {
    exact(x[0], x[1], if dtype == DType::Bool { DType::I32 } else { dtype }, |a, _| a, int)
}

/// x ∧ y
pub static AND: Row = Row {
    name: "and",
    doc: "Logical for bool, bitwise for integers.",
    reference: |x, dtype| bitwise(x, dtype, |a, b| a & b),
    kernel: |e, x| e.binary(Prim::And, x[0], x[1]),
    ..BITS
};

/// x ∨ y
pub static OR: Row = Row {
    name: "or",
    doc: "Logical for bool, bitwise for integers.",
    reference: |x, dtype| bitwise(x, dtype, |a, b| a | b),
    kernel: |e, x| e.binary(Prim::Or, x[0], x[1]),
    ..BITS
};

/// x ⊻ y
pub static XOR: Row = Row {
    name: "xor",
    doc: "Exclusive or: logical for bool, bitwise for integers.",
    reference: |x, dtype| bitwise(x, dtype, |a, b| a ^ b),
    kernel: |e, x| e.binary(Prim::Xor, x[0], x[1]),
    ..BITS
};

/// Bits of an integer dtype, less one: a shift's amount is taken modulo them.
fn bit_mask(dtype: DType) -> i64 {
    dtype.size_bytes() as i64 * 8 - 1
}

/// x · 2ʸ, wrapping
pub static SHIFT_LEFT: Row = Row {
    name: "shiftLeft",
    doc: "x shifted left by y modulo the bits of the dtype.",
    accept: Accept::Integer,
    reference: |x, dtype| bitwise(&[x[0], (x[1] as i64 & bit_mask(dtype)) as f64], dtype, |a, b| a << b),
    kernel: |e, x| e.binary(Prim::Shl, x[0], x[1]),
    ..BITS
};

/// ⌊x / 2ʸ⌋
pub static SHIFT_RIGHT: Row = Row {
    name: "shiftRight",
    doc: "x shifted right by y modulo the bits of the dtype; i32 and i64 keep their sign.",
    accept: Accept::Integer,
    reference: |x, dtype| bitwise(&[x[0], (x[1] as i64 & bit_mask(dtype)) as f64], dtype, |a, b| a >> b),
    kernel: |e, x| e.binary(Prim::Shr, x[0], x[1]),
    ..BITS
};
