//! The shape of an elementwise row, how rows are applied with broadcasting, and their derivatives. The rows themselves
//! stand in `unary`, `binary` and `ternary`: one `Row` states everything about one op.

mod binary;
mod inverse;
mod ternary;
mod unary;

pub use binary::*;
pub use inverse::*;
pub use ternary::*;
pub use unary::*;

use super::Op;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::kernel::{Emit, Reg};
use crate::shape::Shape;
use crate::value::Value;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Which operand dtypes a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Floats.
    Float,
    /// Everything but bool.
    Numeric,
    /// Bool and integers.
    Bits,
    /// Integers.
    Integer,
    /// Everything.
    Any,
    /// (bool, T, T)
    Select,
    /// u32 only.
    U32,
}

impl Accept {
    /// Whether operands of this dtype will do (for `Select`: as the second and third operand).
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Accept::Float => dtype.is_float(),
            Accept::Numeric => dtype != DType::Bool,
            Accept::Bits => !dtype.is_float(),
            Accept::Integer => dtype.is_integer(),
            Accept::Any | Accept::Select => true,
            Accept::U32 => dtype == DType::U32,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Accept::Float => "a float dtype",
            Accept::Numeric => "a numeric dtype",
            Accept::Bits => "bool or an integer dtype",
            Accept::Integer => "an integer dtype",
            Accept::Any => "any dtype",
            Accept::Select => "a bool condition and two operands of one dtype",
            Accept::U32 => "u32",
        }
    }
}

/// The dtype of a row's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// That of the (last) operand.
    Same,
    /// Bool.
    Bool,
}

/// ∂y/∂xᵢ in graph ops, given the operands x, the result y and i. `None`: zero everywhere it exists.
pub type Partial = fn(x: &[Value], y: &Value, i: usize) -> Result<Option<Value>>;

/// Everything about one elementwise op.
pub struct Row {
    /// The name on both sides, camelCase.
    pub name: &'static str,
    /// One sentence for users: formula, and what happens at kinks and outside the domain.
    pub doc: &'static str,
    /// Number of operands.
    pub arity: usize,
    /// Operand dtypes.
    pub accept: Accept,
    /// Result dtype.
    pub gives: Gives,
    /// The value at one element, in f64 (exact for every dtype, but for i64 beyond 2⁵³).
    pub reference: fn(x: &[f64], dtype: DType) -> f64,
    /// The same in the kernel language.
    pub kernel: fn(e: &mut dyn Emit, x: &[Reg]) -> Reg,
    /// Derivative with respect to each operand.
    pub partial: Partial,
    /// Interval of each operand on which tests draw values; smooth inside.
    pub domain: &'static [(f64, f64)],
}

/// A smooth function of floats; the fields that most rows share.
const FLOAT: Row = Row {
    name: "",
    doc: "",
    arity: 1,
    accept: Accept::Float,
    gives: Gives::Same,
    reference: |_, _| f64::NAN,
    kernel: |_, x| x[0],
    partial: no_partial,
    domain: &[(-3.0, 3.0)],
};

/// Every row; the position is the number that the addon's interface uses.
pub static ROWS: &[&Row] = &[
    &NEG,
    &ABS,
    &SIGN,
    &SQRT,
    &RSQRT,
    &RECIPROCAL,
    &SQUARE,
    &EXP,
    &EXPM1,
    &LOG,
    &LOG1P,
    &SIN,
    &COS,
    &TAN,
    &TANH,
    &SIGMOID,
    &SOFTPLUS,
    &RELU,
    &GELU,
    &SILU,
    &ERF,
    &FLOOR,
    &CEIL,
    &ROUND,
    &TRUNC,
    &IS_FINITE,
    &IS_NAN,
    &NOT,
    &ADD,
    &SUB,
    &MUL,
    &DIV,
    &REM,
    &POW,
    &MAXIMUM,
    &MINIMUM,
    &LESS,
    &LESS_EQUAL,
    &GREATER,
    &GREATER_EQUAL,
    &EQUAL,
    &NOT_EQUAL,
    &AND,
    &OR,
    &XOR,
    &SHIFT_LEFT,
    &SHIFT_RIGHT,
    &SELECT,
    &THREEFRY,
    &ATAN,
    &ASIN,
    &ACOS,
    &ASINH,
    &CBRT,
    &ERFC,
    &ATAN2,
];

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        std::ptr::eq(self, other) || self.name == other.name
    }
}
impl Eq for Row {}
impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The partial derivative of an op that has none to give.
pub(crate) fn no_partial(_: &[Value], _: &Value, _: usize) -> Result<Option<Value>> {
    Ok(None)
}

/// Apply a row to operands of one dtype, broadcasting their shapes.
pub fn apply(row: &'static Row, operands: &[&Value]) -> Result<Value> {
    if operands.len() != row.arity {
        return Err(Error::argument(row.name, format!("{} operands; it takes {}", operands.len(), row.arity)));
    }
    let dtype = check_dtypes(row, operands)?;
    let mut shape = operands[0].shape().clone();
    for operand in &operands[1..] {
        if *operand.shape() != shape {
            shape = Shape::broadcast(row.name, &shape, operand.shape())?;
        }
    }
    let inputs = operands.iter().map(|operand| operand.expand(&shape)).collect::<Result<Vec<_>>>()?;
    let dtype = if row.gives == Gives::Bool { DType::Bool } else { dtype };
    Ok(Value::node(Op::Elementwise(row), inputs, shape, dtype))
}

fn check_dtypes(row: &Row, operands: &[&Value]) -> Result<DType> {
    let dtype = operands[row.arity - 1].dtype();
    let first = if row.accept == Accept::Select { DType::Bool } else { dtype };
    let fits = row.accept.takes(dtype)
        && operands[0].dtype() == first
        && operands[1..].iter().all(|operand| operand.dtype() == dtype);
    if fits {
        return Ok(dtype);
    }
    let dtypes: Vec<DType> = operands.iter().map(|operand| operand.dtype()).collect();
    let names = dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(" · ");
    let message = format!("takes {}, all operands alike, but got {names}; cast first", row.accept.description());
    Err(Error::new(Code::DType, row.name, message)
        .with_shapes(operands.iter().map(|operand| operand.shape()))
        .with_dtypes(dtypes))
}

/// Whether the row is affine in those operands that `moves` names together.
pub(super) fn is_affine(row: &Row, moves: &[bool]) -> bool {
    if [&NEG, &ADD, &SUB].contains(&row) {
        true
    } else if *row == MUL {
        !(moves[0] && moves[1])
    } else if *row == DIV {
        !moves[1]
    } else {
        *row == SELECT && !moves[0]
    }
}

/// y′ = Σ ∂y/∂xᵢ · xᵢ′
pub(super) fn jvp(row: &Row, y: &Value, x: &[Value], tangents: &[Option<Value>]) -> Result<Option<Value>> {
    if *row == SELECT {
        return select_jvp(x, tangents);
    }
    let mut sum: Option<Value> = None;
    for (i, tangent) in tangents.iter().enumerate() {
        let Some(tangent) = tangent else { continue };
        let Some(partial) = (row.partial)(x, y, i)? else { continue };
        let term = times(&partial, tangent)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    Ok(sum)
}

/// x̄ᵢ = ∂y/∂xᵢ · ȳ
pub(super) fn vjp(row: &Row, y: &Value, x: &[Value], cotangent: &Value, wanted: &[bool]) -> Result<Vec<Option<Value>>> {
    if *row == SELECT {
        return select_vjp(x, cotangent, wanted);
    }
    (0..x.len())
        .map(|i| {
            if !wanted[i] {
                return Ok(None);
            }
            (row.partial)(x, y, i)?.map(|partial| times(&partial, cotangent)).transpose()
        })
        .collect()
}

/// `partial · factor`, sparing the product with the constants 1 and −1.
fn times(partial: &Value, factor: &Value) -> Result<Value> {
    match partial.op() {
        Op::Constant(c) if c.to_f64() == 1.0 => Ok(factor.clone()),
        Op::Constant(c) if c.to_f64() == -1.0 => factor.neg(),
        _ => partial.mul(factor),
    }
}

macro_rules! methods {
    ($($name:ident $row:ident ($($arg:ident),*);)*) => {
        impl Value { $(
            #[doc = concat!("The row [`", stringify!($row), "`].")]
            pub fn $name(&self, $($arg: &Value),*) -> Result<Value> {
                apply(&$row, &[self, $($arg),*])
            }
        )* }
    };
}

methods! {
    neg NEG(); abs ABS(); sign SIGN(); sqrt SQRT(); rsqrt RSQRT(); reciprocal RECIPROCAL(); square SQUARE(); exp EXP();
    expm1 EXPM1(); log LOG(); log1p LOG1P(); sin SIN(); cos COS(); tan TAN(); tanh TANH(); sigmoid SIGMOID();
    softplus SOFTPLUS(); relu RELU(); gelu GELU(); silu SILU(); erf ERF(); floor FLOOR(); ceil CEIL(); round ROUND();
    trunc TRUNC(); is_finite IS_FINITE(); is_nan IS_NAN(); not NOT(); add ADD(other); sub SUB(other); mul MUL(other);
    div DIV(other); rem REM(other); pow POW(other); maximum MAXIMUM(other); minimum MINIMUM(other); less LESS(other);
    less_equal LESS_EQUAL(other); greater GREATER(other); greater_equal GREATER_EQUAL(other); equal EQUAL(other);
    not_equal NOT_EQUAL(other); and AND(other); or OR(other); xor XOR(other); shift_left SHIFT_LEFT(other);
    shift_right SHIFT_RIGHT(other); select SELECT(a, b); threefry THREEFRY(key1, counter);
    atan ATAN(); asin ASIN(); acos ACOS(); asinh ASINH(); cbrt CBRT(); erfc ERFC(); atan2 ATAN2(x);
}

impl Value {
    /// `self · factor` with a constant factor.
    pub fn scale(&self, factor: f64) -> Result<Value> {
        self.mul(&self.like(factor))
    }

    /// `self + shift` with a constant shift.
    pub fn shift(&self, shift: f64) -> Result<Value> {
        self.add(&self.like(shift))
    }
}
