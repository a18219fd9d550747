//! Numbers from JavaScript, checked: napi would turn −1 into 4294967295 and NaN into 0.

use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::op::elementwise::{ROWS, Row};
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::shape::{MAX_ELEMENTS, Shape};

/// A size, position or axis: a whole number from 0 to the most elements that a tensor may have.
pub fn count(op: &str, what: &str, number: f64) -> Result<usize> {
    if number >= 0.0 && number <= MAX_ELEMENTS as f64 && number.fract() == 0.0 {
        return Ok(number as usize);
    }
    Err(Error::argument(op, format!("{what} is {number}; give a whole number from 0 to 2^40")))
}

/// Several of them.
pub fn counts(op: &str, what: &str, numbers: &[f64]) -> Result<Vec<usize>> {
    numbers.iter().map(|&number| count(op, what, number)).collect()
}

/// A whole number of either sign.
pub fn integer(op: &str, what: &str, number: f64) -> Result<i64> {
    if number.abs() <= MAX_ELEMENTS as f64 && number.fract() == 0.0 {
        return Ok(number as i64);
    }
    Err(Error::argument(op, format!("{what} is {number}; give a whole number from -2^40 to 2^40")))
}

/// A shape.
pub fn shape(op: &str, sizes: &[f64]) -> Result<Shape> {
    Shape::new(op, counts(op, "a size of the shape", sizes)?)
}

/// A dtype from its code.
pub fn dtype(op: &str, code: f64) -> Result<DType> {
    entry(&DType::ALL, code)
        .copied()
        .ok_or_else(|| Error::argument(op, format!("{code} is no dtype code; codes are 0 to {}", DType::ALL.len() - 1)))
}

/// A dtype's code.
pub fn dtype_code(dtype: DType) -> u32 {
    dtype as u32
}

/// An elementwise op from its number.
pub fn row(number: f64) -> Result<&'static Row> {
    let message = || Error::argument("elementwise", format!("{number} is no op; the newest is {}", ROWS.len() - 1));
    entry(ROWS, number).copied().ok_or_else(message)
}

/// A reduction from its number.
pub fn reduction(number: f64) -> Result<ReduceOp> {
    let all = &ReduceOp::ALL;
    let message = || Error::argument("reduce", format!("{number} is no reduction; the last is {}", all.len() - 1));
    entry(all, number).copied().ok_or_else(message)
}

/// A constant of a dtype: integers must fit, truth values are 0 or 1.
pub fn constant(op: &str, value: f64, dtype: DType) -> Result<f64> {
    let (low, high) = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => return Ok(value),
        // What JavaScript's numbers hold exactly.
        DType::I64 => (-9_007_199_254_740_991.0, 9_007_199_254_740_991.0),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        DType::Bool => (0.0, 1.0),
    };
    if value >= low && value <= high && value.fract() == 0.0 {
        return Ok(value);
    }
    let message = format!("{value} is no {dtype}; give a whole number from {low} to {high}, or use a float dtype");
    Err(Error::argument(op, message).with_dtypes([dtype]))
}

fn entry<T>(table: &[T], number: f64) -> Option<&T> {
    let index = number as usize;
    table.get(index).filter(|_| index as f64 == number)
}
