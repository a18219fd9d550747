//! The scalar part of the kernel language: what one element of a fused kernel may compute. The set of `Prim`s is
//! closed and small, so that every device can print or interpret all of them; op rows are written in terms of it.
//! Registers are f32, f64, i32, u32, i64 or bool; the other dtypes exist in memory alone (`DType::register`).
//! Loops, loads, stores and reductions belong to `raphson-compile`; no device is named here.

use crate::dtype::{DType, Scalar};

/// One machine-level scalar operation. Operands share one dtype unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prim {
    // one operand, numeric
    Neg,
    Abs,
    // one operand, float
    Sqrt,
    Exp,
    Expm1,
    Log,
    Log1p,
    Sin,
    Cos,
    Tanh,
    Erf,
    Floor,
    Ceil,
    /// To the nearest integer, halves to even.
    Round,
    Trunc,
    // two operands, numeric (integers wrap; integer division by zero gives 0; Rem has the sign of the dividend)
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    /// Float only.
    Pow,
    /// NaN if either operand is NaN.
    Min,
    /// NaN if either operand is NaN.
    Max,
    // comparisons: any dtype in, bool out
    Lt,
    Le,
    Eq,
    Ne,
    // bool and integers
    And,
    Or,
    Xor,
    /// Logical for bool, bitwise for integers.
    Not,
    /// Integer shifts; the amount is taken modulo the bits of the dtype. `Shr` is arithmetic for i32 and i64, logical for u32.
    Shl,
    Shr,
    /// (bool, T, T) → T
    Select,
    /// Convert to the result dtype. Float → integer truncates and saturates, NaN → 0; anything → bool is `!= 0`;
    /// integer → integer keeps the low bits.
    Cast,
    /// f32 → f32: the nearest value that an f16 holds, ties to even.
    RoundF16,
    /// f32 → f32: the nearest value that a bf16 holds, ties to even.
    RoundBf16,
    /// (u32 key0, u32 key1, u32 counter) → u32: first word of Threefry-2x32-20 with counter (counter, 0).
    Threefry,
}

impl Prim {
    /// Number of operands.
    pub const fn arity(self) -> usize {
        match self {
            Prim::Neg
            | Prim::Abs
            | Prim::Sqrt
            | Prim::Exp
            | Prim::Expm1
            | Prim::Log
            | Prim::Log1p
            | Prim::Sin
            | Prim::Cos
            | Prim::Tanh
            | Prim::Erf
            | Prim::Floor
            | Prim::Ceil
            | Prim::Round
            | Prim::Trunc
            | Prim::Not
            | Prim::Cast
            | Prim::RoundF16
            | Prim::RoundBf16 => 1,
            Prim::Add
            | Prim::Sub
            | Prim::Mul
            | Prim::Div
            | Prim::Rem
            | Prim::Pow
            | Prim::Min
            | Prim::Max
            | Prim::Lt
            | Prim::Le
            | Prim::Eq
            | Prim::Ne
            | Prim::And
            | Prim::Or
            | Prim::Xor
            | Prim::Shl
            | Prim::Shr => 2,
            Prim::Select | Prim::Threefry => 3,
        }
    }

    /// Whether every device does it in about the time of an addition.
    pub const fn is_simple(self) -> bool {
        let root = matches!(self, Prim::Div | Prim::Rem | Prim::Sqrt | Prim::Pow);
        let series = matches!(self, Prim::Exp | Prim::Expm1 | Prim::Log | Prim::Log1p | Prim::Sin | Prim::Cos);
        let long = matches!(self, Prim::Tanh | Prim::Erf | Prim::RoundF16 | Prim::RoundBf16 | Prim::Threefry);
        !(root || series || long)
    }

    /// Whether the result is bool whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne)
    }
}

/// A value inside a kernel body under construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

/// What an op row writes its kernel expression into. Implemented by the kernel builder of `raphson-compile`.
pub trait Emit {
    /// The dtype of a register.
    fn dtype(&self, reg: Reg) -> DType;
    /// A constant of the given dtype.
    fn constant(&mut self, value: Scalar, dtype: DType) -> Reg;
    /// `prim` applied to `args`; the result has dtype `dtype`.
    fn prim(&mut self, prim: Prim, args: &[Reg], dtype: DType) -> Reg;

    /// A constant of the same dtype as `like`.
    fn like(&mut self, value: f64, like: Reg) -> Reg {
        let dtype = self.dtype(like);
        self.constant(Scalar::of(value, dtype), dtype)
    }
    /// One operand, same dtype out.
    fn unary(&mut self, prim: Prim, a: Reg) -> Reg {
        let dtype = self.dtype(a);
        self.prim(prim, &[a], dtype)
    }
    /// Two operands, same dtype out (bool for comparisons).
    fn binary(&mut self, prim: Prim, a: Reg, b: Reg) -> Reg {
        let dtype = if prim.is_comparison() { DType::Bool } else { self.dtype(a) };
        self.prim(prim, &[a, b], dtype)
    }
    /// `condition ? a : b`
    fn select(&mut self, condition: Reg, a: Reg, b: Reg) -> Reg {
        let dtype = self.dtype(a);
        self.prim(Prim::Select, &[condition, a, b], dtype)
    }
}
