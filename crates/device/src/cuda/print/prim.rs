//! Every primitive of the kernel language for every dtype, as instructions on one element. In registers an f32, an f64, an
//! i32 or u32 is what it is; a bool is a predicate.

use super::real::{Real, Width};
use super::storage;
use super::text::{Class, Register, Single, Text, Wide};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Prim;

/// The class of the register that holds a value of this dtype.
pub const fn class(dtype: DType) -> Class {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Class::Float,
        DType::F64 => Class::Double,
        DType::I32 | DType::U32 | DType::U8 => Class::Word,
        DType::I64 => Class::Long,
        DType::Bool => Class::Predicate,
    }
}

/// The suffix of instructions on this dtype.
pub const fn suffix(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => "f32",
        DType::F64 => "f64",
        DType::I32 => "s32",
        DType::U32 | DType::U8 => "u32",
        DType::I64 => "s64",
        DType::Bool => "pred",
    }
}

/// A constant as an operand.
pub fn immediate(value: Scalar, dtype: DType) -> String {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Single(value.to_f64() as f32).to_string(),
        DType::F64 => Wide(value.to_f64()).to_string(),
        DType::I32 | DType::U32 | DType::U8 => (integer(value) as u32).to_string(),
        DType::I64 => (integer(value) as u64).to_string(),
        DType::Bool => i32::from(value.to_f64() != 0.0).to_string(),
    }
}

fn integer(value: Scalar) -> i64 {
    match value {
        Scalar::Int(value) => value,
        Scalar::Float(_) | Scalar::Bool(_) => value.to_f64() as i64,
    }
}

/// A constant in a register.
pub fn constant(text: &mut Text, value: Scalar, dtype: DType) -> Register {
    let value = immediate(value, dtype);
    text.op(class(dtype), &format!("mov.{}", class(dtype).untyped()), &[&value])
}

fn refuse(prim: Prim, dtype: DType) -> Error {
    Error::internal("kernel", format!("{prim:?} on {dtype} is not in the kernel language"))
}

/// `prim` on operands of dtype `from`, with a result of dtype `to`.
pub fn emit(text: &mut Text, prim: Prim, from: DType, to: DType, args: &[Register]) -> Result<Register> {
    match prim {
        Prim::Cast => return Ok(cast(text, from, to, args[0])),
        Prim::Select => return Ok(select(text, args[0], args[1], args[2])),
        Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne => return Ok(compare(text, prim, from, args[0], args[1])),
        _ => {}
    }
    match from {
        DType::F32 if prim == Prim::RoundF16 => Ok(storage::round(text, DType::F16, args[0])),
        DType::F32 if prim == Prim::RoundBf16 => Ok(storage::round(text, DType::BF16, args[0])),
        DType::F16 | DType::BF16 | DType::U8 => Err(refuse(prim, from)),
        DType::F32 => float(&mut Real { text, width: Width::Single }, prim, from, args),
        DType::F64 => float(&mut Real { text, width: Width::Double }, prim, from, args),
        DType::I32 | DType::U32 => whole(text, prim, from, args),
        DType::I64 => long(text, prim, args),
        DType::Bool => logical(text, prim, args),
    }
}

pub fn compare(text: &mut Text, prim: Prim, dtype: DType, a: Register, b: Register) -> Register {
    if dtype == DType::Bool {
        return compare_bools(text, prim, a, b);
    }
    let comparison = match prim {
        Prim::Lt => "lt",
        Prim::Le => "le",
        Prim::Eq => "eq",
        // A NaN differs from everything.
        _ if dtype.is_float() => "neu",
        _ => "ne",
    };
    text.predicate(&format!("setp.{comparison}.{}", suffix(dtype)), &[&a, &b])
}

fn compare_bools(text: &mut Text, prim: Prim, a: Register, b: Register) -> Register {
    match prim {
        Prim::Lt | Prim::Le => {
            let not_a = text.predicate("not.pred", &[&a]);
            text.predicate(if prim == Prim::Lt { "and.pred" } else { "or.pred" }, &[&not_a, &b])
        }
        _ => {
            let differ = text.predicate("xor.pred", &[&a, &b]);
            if prim == Prim::Eq { text.predicate("not.pred", &[&differ]) } else { differ }
        }
    }
}

/// condition ? a : b
pub fn select(text: &mut Text, condition: Register, a: Register, b: Register) -> Register {
    if a.class != Class::Predicate {
        return text.op(a.class, &format!("selp.{}", a.class.untyped()), &[&a, &b, &condition]);
    }
    let first = text.predicate("and.pred", &[&condition, &a]);
    let otherwise = text.predicate("not.pred", &[&condition]);
    let second = text.predicate("and.pred", &[&otherwise, &b]);
    text.predicate("or.pred", &[&first, &second])
}

fn logical(text: &mut Text, prim: Prim, args: &[Register]) -> Result<Register> {
    let opcode = match prim {
        Prim::And => "and.pred",
        Prim::Or => "or.pred",
        Prim::Xor => "xor.pred",
        Prim::Not => return Ok(text.predicate("not.pred", &[&args[0]])),
        _ => return Err(refuse(prim, DType::Bool)),
    };
    Ok(text.predicate(opcode, &[&args[0], &args[1]]))
}

fn float(real: &mut Real<'_>, prim: Prim, dtype: DType, args: &[Register]) -> Result<Register> {
    let (a, b) = (args[0], args[args.len() - 1]);
    let rounding = |mode: &str| format!("cvt.{mode}.{}", suffix(dtype));
    Ok(match prim {
        Prim::Neg => real.neg(&a),
        Prim::Abs => real.abs(&a),
        Prim::Sqrt => real.op("sqrt.rn", &[&a]),
        Prim::Exp => real.exp(a),
        Prim::Expm1 => real.expm1(a),
        Prim::Log => real.log(a),
        Prim::Log1p => real.log1p(a),
        Prim::Sin => real.sin(a),
        Prim::Cos => real.cos(a),
        Prim::Tanh => real.tanh(a),
        Prim::Erf => real.erf(a),
        Prim::Floor => real.op(&rounding("rmi"), &[&a]),
        Prim::Ceil => real.op(&rounding("rpi"), &[&a]),
        Prim::Round => real.op(&rounding("rni"), &[&a]),
        Prim::Trunc => real.op(&rounding("rzi"), &[&a]),
        Prim::Add => real.add(&a, &b),
        Prim::Sub => real.sub(&a, &b),
        Prim::Mul => real.mul(&a, &b),
        Prim::Div => real.div(&a, &b),
        Prim::Rem => real.remainder(a, b),
        Prim::Pow => real.pow(a, b),
        Prim::Min => extremum(real, "min", a, b),
        Prim::Max => extremum(real, "max", a, b),
        Prim::Lt
        | Prim::Le
        | Prim::Eq
        | Prim::Ne
        | Prim::And
        | Prim::Or
        | Prim::Xor
        | Prim::Not
        | Prim::Shl
        | Prim::Shr
        | Prim::Select
        | Prim::Cast
        | Prim::RoundF16
        | Prim::RoundBf16
        | Prim::Threefry => return Err(refuse(prim, dtype)),
    })
}

/// PTX's `min` and `max` prefer a number to a NaN (and those that do not need sm_80).
fn extremum(real: &mut Real<'_>, opcode: &str, a: Register, b: Register) -> Register {
    let value = real.op(opcode, &[&a, &b]);
    let unordered = real.compare("nan", &a, &b);
    let nan = real.c(f64::NAN);
    real.select(unordered, &nan, &value)
}

/// The lesser (`Min`) or greater (`Max`) of two values of a numeric dtype, NaN if either is.
pub fn extremum_of(text: &mut Text, prim: Prim, dtype: DType, a: Register, b: Register) -> Register {
    let opcode = if prim == Prim::Min { "min" } else { "max" };
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => extremum(&mut Real { text, width: Width::Single }, opcode, a, b),
        DType::F64 => extremum(&mut Real { text, width: Width::Double }, opcode, a, b),
        DType::I32 | DType::U32 | DType::U8 | DType::I64 | DType::Bool => {
            text.op(a.class, &format!("{opcode}.{}", suffix(dtype)), &[&a, &b])
        }
    }
}

fn whole(text: &mut Text, prim: Prim, dtype: DType, args: &[Register]) -> Result<Register> {
    let (a, b) = (args[0], args[args.len() - 1]);
    let typed = |opcode: &str| format!("{opcode}.{}", suffix(dtype));
    Ok(match prim {
        Prim::Neg => text.word("neg.s32", &[&a]),
        Prim::Abs if dtype == DType::U32 => a,
        Prim::Abs => text.word("abs.s32", &[&a]),
        Prim::Add => text.word(&typed("add"), &[&a, &b]),
        Prim::Sub => text.word(&typed("sub"), &[&a, &b]),
        Prim::Mul => text.word(&typed("mul.lo"), &[&a, &b]),
        Prim::Div | Prim::Rem => division(text, prim, dtype, a, b),
        Prim::Min | Prim::Max => extremum_of(text, prim, dtype, a, b),
        Prim::And => text.word("and.b32", &[&a, &b]),
        Prim::Or => text.word("or.b32", &[&a, &b]),
        Prim::Xor => text.word("xor.b32", &[&a, &b]),
        Prim::Not => text.word("not.b32", &[&a]),
        Prim::Shl | Prim::Shr => {
            let amount = text.word("and.b32", &[&b, &31]);
            let opcode = if prim == Prim::Shl { "shl.b32".to_string() } else { typed("shr") };
            text.word(&opcode, &[&a, &amount])
        }
        Prim::Threefry => threefry(text, args[0], args[1], args[2]),
        Prim::Sqrt
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
        | Prim::Pow
        | Prim::Lt
        | Prim::Le
        | Prim::Eq
        | Prim::Ne
        | Prim::Select
        | Prim::RoundF16
        | Prim::RoundBf16
        | Prim::Cast => return Err(refuse(prim, dtype)),
    })
}

/// i64
fn long(text: &mut Text, prim: Prim, args: &[Register]) -> Result<Register> {
    let (a, b) = (args[0], args[args.len() - 1]);
    let opcode = match prim {
        Prim::Neg => return Ok(text.long("neg.s64", &[&a])),
        Prim::Abs => return Ok(text.long("abs.s64", &[&a])),
        Prim::Not => return Ok(text.long("not.b64", &[&a])),
        Prim::Div | Prim::Rem => return Ok(division(text, prim, DType::I64, a, b)),
        Prim::Shl | Prim::Shr => {
            let amount = text.word("cvt.u32.u64", &[&b]);
            let amount = text.word("and.b32", &[&amount, &63]);
            return Ok(text.long(if prim == Prim::Shl { "shl.b64" } else { "shr.s64" }, &[&a, &amount]));
        }
        Prim::Add => "add.s64",
        Prim::Sub => "sub.s64",
        Prim::Mul => "mul.lo.s64",
        Prim::Min => "min.s64",
        Prim::Max => "max.s64",
        Prim::And => "and.b64",
        Prim::Or => "or.b64",
        Prim::Xor => "xor.b64",
        _ => return Err(refuse(prim, DType::I64)),
    };
    Ok(text.long(opcode, &[&a, &b]))
}

/// Quotient or remainder; 0 where b = 0. PTX leaves that case open, and that of the least integer by −1, which wraps here.
fn division(text: &mut Text, prim: Prim, dtype: DType, a: Register, b: Register) -> Register {
    let class = class(dtype);
    let (equal, choice, negative) = match class {
        Class::Long => ("setp.eq.s64", "selp.b64", "neg.s64"),
        _ => ("setp.eq.s32", "selp.b32", "neg.s32"),
    };
    let by_zero = text.predicate(equal, &[&b, &0]);
    let mut divisor = text.op(class, choice, &[&1, &b, &by_zero]);
    let mut by_minus_one = None;
    if matches!(dtype, DType::I32 | DType::I64) {
        let minus_one = text.predicate(equal, &[&b, &-1]);
        divisor = text.op(class, choice, &[&1, &divisor, &minus_one]);
        by_minus_one = Some(minus_one);
    }
    let opcode = format!("{}.{}", if prim == Prim::Div { "div" } else { "rem" }, suffix(dtype));
    let mut result = text.op(class, &opcode, &[&a, &divisor]);
    // A remainder by −1 is that by 1.
    if let Some(minus_one) = by_minus_one.filter(|_| prim == Prim::Div) {
        let minus = text.op(class, negative, &[&a]);
        result = text.op(class, choice, &[&minus, &result, &minus_one]);
    }
    text.op(class, choice, &[&0, &result, &by_zero])
}

/// First word of Threefry-2x32 with 20 rounds for the counter (counter, 0) (Salmon, Moraes, Dror, Shaw, "Parallel random
/// numbers: as easy as 1, 2, 3", SC 2011).
fn threefry(text: &mut Text, key0: Register, key1: Register, counter: Register) -> Register {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let parity = text.word("xor.b32", &[&key0, &key1]);
    let keys = [key0, key1, text.word("xor.b32", &[&parity, &0x1bd1_1bda])];
    let (mut x0, mut x1) = (text.word("add.u32", &[&counter, &key0]), key1);
    for round in 0..20 {
        x0 = text.word("add.u32", &[&x0, &x1]);
        let rotated = text.word("shf.l.wrap.b32", &[&x1, &x1, &ROTATIONS[round % 8]]);
        x1 = text.word("xor.b32", &[&rotated, &x0]);
        if round % 4 == 3 {
            let step = round / 4 + 1;
            x0 = text.word("add.u32", &[&x0, &keys[step % 3]]);
            x1 = text.word("add.u32", &[&x1, &keys[(step + 1) % 3]]);
            x1 = text.word("add.u32", &[&x1, &step]);
        }
    }
    x0
}

/// The value in another dtype: float to integer truncates and saturates, NaN gives 0; anything to bool is `≠ 0`.
pub fn cast(text: &mut Text, from: DType, to: DType, a: Register) -> Register {
    if from == to {
        return a;
    }
    match (from, to) {
        (DType::Bool, _) => {
            let (one, zero) = (immediate(Scalar::Int(1), to), immediate(Scalar::Int(0), to));
            text.op(class(to), &format!("selp.{}", class(to).untyped()), &[&one, &zero, &a])
        }
        (_, DType::Bool) => {
            let comparison = if from.is_float() { "neu" } else { "ne" };
            let zero = immediate(Scalar::Int(0), from);
            text.predicate(&format!("setp.{comparison}.{}", suffix(from)), &[&a, &zero])
        }
        (DType::F32, DType::F64) => text.double("cvt.f64.f32", &[&a]),
        (DType::F64, DType::F32) => text.float("cvt.rn.f32.f64", &[&a]),
        (DType::F32 | DType::F64, _) => {
            let value = text.op(class(to), &format!("cvt.rzi.{}.{}", suffix(to), suffix(from)), &[&a]);
            // What a NaN gives differs between the widths, and between editions of the PTX manual.
            let is_nan = text.predicate(&format!("setp.nan.{}", suffix(from)), &[&a, &a]);
            text.op(class(to), &format!("selp.{}", class(to).untyped()), &[&0, &value, &is_nan])
        }
        (_, DType::F32 | DType::F64) => text.op(class(to), &format!("cvt.rn.{}.{}", suffix(to), suffix(from)), &[&a]),
        (DType::I32, DType::I64) => text.long("cvt.s64.s32", &[&a]),
        (DType::U32, DType::I64) => text.long("cvt.u64.u32", &[&a]),
        (DType::I64, _) => text.word("cvt.u32.u64", &[&a]),
        // i32 and u32: the same bits.
        _ => a,
    }
}
