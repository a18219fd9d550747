//! Arithmetic on one float type, written as ordinary expressions: each method appends one or two instructions and gives
//! their register. Everything is an IEEE operation with its rounding spelled out, so nothing is contracted and the result is
//! the same bits on every GPU. The functions made of it stand in `elementary`, `trigonometric` and `power`.

use super::text::{Class, Register, Single, Text, Wide};
use std::fmt::Display;

/// Which float type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Single,
    Double,
}

impl Width {
    /// The register class.
    pub const fn class(self) -> Class {
        match self {
            Width::Single => Class::Float,
            Width::Double => Class::Double,
        }
    }

    /// The suffix of instructions.
    pub const fn suffix(self) -> &'static str {
        match self {
            Width::Single => "f32",
            Width::Double => "f64",
        }
    }

    /// An immediate.
    pub fn immediate(self, value: f64) -> String {
        match self {
            Width::Single => Single(value as f32).to_string(),
            Width::Double => Wide(value).to_string(),
        }
    }
}

/// Writes arithmetic of one width into a text.
pub struct Real<'a> {
    pub text: &'a mut Text,
    pub width: Width,
}

type Operand<'a> = &'a dyn Display;

impl Real<'_> {
    /// `opcode` with the width's suffix.
    pub fn op(&mut self, opcode: &str, operands: &[Operand<'_>]) -> Register {
        let opcode = format!("{opcode}.{}", self.width.suffix());
        self.text.op(self.width.class(), &opcode, operands)
    }

    /// An immediate.
    pub fn c(&self, value: f64) -> String {
        self.width.immediate(value)
    }

    /// A constant in a register.
    pub fn constant(&mut self, value: f64) -> Register {
        let value = self.c(value);
        self.op("mov", &[&value])
    }

    /// a + b
    pub fn add(&mut self, a: Operand<'_>, b: Operand<'_>) -> Register {
        self.op("add.rn", &[a, b])
    }

    /// a − b
    pub fn sub(&mut self, a: Operand<'_>, b: Operand<'_>) -> Register {
        self.op("sub.rn", &[a, b])
    }

    /// a·b
    pub fn mul(&mut self, a: Operand<'_>, b: Operand<'_>) -> Register {
        self.op("mul.rn", &[a, b])
    }

    /// a/b, correctly rounded
    pub fn div(&mut self, a: Operand<'_>, b: Operand<'_>) -> Register {
        self.op("div.rn", &[a, b])
    }

    /// a·b + c, rounded once
    pub fn fma(&mut self, a: Operand<'_>, b: Operand<'_>, c: Operand<'_>) -> Register {
        self.op("fma.rn", &[a, b, c])
    }

    /// −a
    pub fn neg(&mut self, a: Operand<'_>) -> Register {
        self.op("neg", &[a])
    }

    /// |a|
    pub fn abs(&mut self, a: Operand<'_>) -> Register {
        self.op("abs", &[a])
    }

    /// `a` with the sign of `sign`
    pub fn with_sign(&mut self, a: Register, sign: Register) -> Register {
        self.op("copysign", &[&sign, &a])
    }

    /// The predicate `a ? b` for a comparison of PTX (`lt`, `gtu`, …; those with `u` hold for NaN).
    pub fn compare(&mut self, comparison: &str, a: Operand<'_>, b: Operand<'_>) -> Register {
        let opcode = format!("setp.{comparison}.{}", self.width.suffix());
        self.text.predicate(&opcode, &[a, b])
    }

    /// condition ? a : b
    pub fn select(&mut self, condition: Register, a: Operand<'_>, b: Operand<'_>) -> Register {
        self.op("selp", &[a, b, &condition])
    }

    /// c₀ + x(c₁ + x(c₂ + …)), the coefficients given from the highest power down; there are two at least.
    pub fn polynomial(&mut self, x: Register, coefficients: &[f64]) -> Register {
        let first = self.c(coefficients[0]);
        let second = self.c(coefficients[1]);
        let mut sum = self.fma(&first, &x, &second);
        for &coefficient in &coefficients[2..] {
            let coefficient = self.c(coefficient);
            sum = self.fma(&sum, &x, &coefficient);
        }
        sum
    }

    /// The bits of a float as an integer register.
    pub fn bits(&mut self, a: Register) -> Register {
        match self.width {
            Width::Single => self.text.word("mov.b32", &[&a]),
            Width::Double => self.text.long("mov.b64", &[&a]),
        }
    }

    /// The float of these bits.
    pub fn float_of(&mut self, bits: Register) -> Register {
        match self.width {
            Width::Single => self.text.float("mov.b32", &[&bits]),
            Width::Double => self.text.double("mov.b64", &[&bits]),
        }
    }

    /// An integer instruction on as many bits as the float has; `opcode` comes without its type, `kind` is `b`, `s` or `u`.
    pub fn integer(&mut self, opcode: &str, kind: &str, operands: &[Operand<'_>]) -> Register {
        match self.width {
            Width::Single => self.text.word(&format!("{opcode}.{kind}32"), operands),
            Width::Double => self.text.long(&format!("{opcode}.{kind}64"), operands),
        }
    }

    /// The nearest integer, both as a float and as an integer, of a float whose magnitude is far below 2²² (2⁵¹).
    /// Adding 1.5·2²³ (1.5·2⁵²) leaves the integer in the low bits.
    pub fn nearest(&mut self, a: Register) -> (Register, Register) {
        let magic: f64 = match self.width {
            Width::Single => 12_582_912.0,
            Width::Double => 6_755_399_441_055_744.0,
        };
        let magic_bits = match self.width {
            Width::Single => u64::from((magic as f32).to_bits()),
            Width::Double => magic.to_bits(),
        };
        let magic = self.c(magic);
        let shifted = self.add(&a, &magic);
        let float = self.sub(&shifted, &magic);
        let bits = self.bits(shifted);
        (float, self.integer("sub", "s", &[&bits, &magic_bits]))
    }

    /// 2ⁿ for an integer n in the range of normal numbers.
    pub fn power_of_two(&mut self, n: Register) -> Register {
        let (bias, shift) = match self.width {
            Width::Single => (127, 23),
            Width::Double => (1023, 52),
        };
        let biased = self.integer("add", "s", &[&n, &bias]);
        let bits = self.integer("shl", "b", &[&biased, &shift]);
        self.float_of(bits)
    }

    /// a·2ⁿ in two steps, so that the result may be denormal, zero or infinite; |n| up to twice the exponent range.
    pub fn scale(&mut self, a: Register, n: Register) -> Register {
        let half = self.integer("shr", "s", &[&n, &1]);
        let rest = self.integer("sub", "s", &[&n, &half]);
        let (half, rest) = (self.power_of_two(half), self.power_of_two(rest));
        let scaled = self.mul(&a, &half);
        self.mul(&scaled, &rest)
    }
}
