//! One scalar operation of the kernel language as a WGSL expression, and constants as literals. Pure text; the functions
//! that the expressions call stand in `math`.

use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Prim;

/// The WGSL type of a register. There are no f64 and i64: such programs are refused before anything is printed.
pub fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => "f32",
        DType::I32 | DType::I64 => "i32",
        DType::U32 | DType::U8 => "u32",
        DType::Bool => "bool",
    }
}

/// A constant.
pub fn literal(value: Scalar, dtype: DType) -> String {
    match (dtype, value) {
        (DType::F32 | DType::F64 | DType::F16 | DType::BF16, _) => float_literal(value.to_f64() as f32),
        (DType::I32 | DType::I64, Scalar::Int(v)) => format!("i32({})", v as i32),
        (DType::I32 | DType::I64, _) => format!("i32({})", value.to_f64() as i32),
        (DType::U32 | DType::U8, Scalar::Int(v)) => format!("{}u", v as u32),
        (DType::U32 | DType::U8, _) => format!("{}u", value.to_f64() as u32),
        (DType::Bool, _) => (value.to_f64() != 0.0).to_string(),
    }
}

/// A float by its shortest decimal; what WGSL has no literal for (NaN, infinities, −0, denormals) by its bits.
pub fn float_literal(value: f32) -> String {
    if value.is_normal() || value.to_bits() == 0 {
        format!("f32({value:?})")
    } else {
        format!("m_bits({:#010x}u)", value.to_bits())
    }
}

/// `prim` of the named operands. `from` is the dtype of the last operand, `to` of the result.
pub fn expression(prim: Prim, x: &[&str], from: DType, to: DType) -> Result<String> {
    let text = match from {
        DType::F32 | DType::F64 => float(prim, x, to),
        DType::I32 | DType::U32 => integer(prim, x, from, to),
        DType::Bool => boolean(prim, x, to),
        DType::F16 | DType::BF16 | DType::I64 | DType::U8 => None,
    };
    text.ok_or_else(|| Error::internal("wgpu", format!("{prim:?} of {from} giving {to} cannot be printed")))
}

fn call(name: &str, x: &[&str]) -> Option<String> {
    Some(format!("{name}({})", x.join(", ")))
}

fn infix(x: &[&str], operator: &str) -> Option<String> {
    Some(format!("({} {operator} {})", x[0], x[1]))
}

fn select(x: &[&str]) -> Option<String> {
    Some(format!("select({}, {}, {})", x[2], x[1], x[0]))
}

fn float(prim: Prim, x: &[&str], to: DType) -> Option<String> {
    match prim {
        Prim::Neg => Some(format!("(-{})", x[0])),
        Prim::Abs => call("abs", x),
        Prim::Sqrt => call("m_sqrt", x),
        Prim::Exp => call("m_exp", x),
        Prim::Expm1 => call("m_expm1", x),
        Prim::Log => call("m_log", x),
        Prim::Log1p => call("m_log1p", x),
        Prim::Sin => call("m_sin", x),
        Prim::Cos => call("m_cos", x),
        Prim::Tanh => call("m_tanh", x),
        Prim::Erf => call("m_erf", x),
        Prim::Floor => call("floor", x),
        Prim::Ceil => call("ceil", x),
        // WGSL rounds halves to even.
        Prim::Round => call("round", x),
        Prim::Trunc => call("trunc", x),
        Prim::Add => infix(x, "+"),
        Prim::Sub => infix(x, "-"),
        Prim::Mul => infix(x, "*"),
        Prim::Div => infix(x, "/"),
        Prim::Rem => call("m_rem", x),
        Prim::Pow => call("m_pow", x),
        Prim::Min => call("m_min", x),
        Prim::Max => call("m_max", x),
        Prim::Lt => call("m_lt", x),
        Prim::Le => call("m_le", x),
        Prim::Eq => call("m_eq", x),
        Prim::Ne => Some(format!("!m_eq({}, {})", x[0], x[1])),
        Prim::Select => select(x),
        Prim::Cast => match to {
            DType::F32 | DType::F64 => Some(x[0].to_string()),
            DType::I32 => call("m_to_i32", x),
            DType::U32 => call("m_to_u32", x),
            // By bits, so that a denormal is true even where arithmetic flushes it.
            DType::Bool => Some(format!("((bitcast<u32>({}) << 1u) != 0u)", x[0])),
            DType::F16 | DType::BF16 | DType::I64 | DType::U8 => None,
        },
        Prim::RoundF16 => call("m_round_f16", x),
        Prim::RoundBf16 => call("m_round_bf16", x),
        Prim::And | Prim::Or | Prim::Xor | Prim::Not | Prim::Shl | Prim::Shr | Prim::Threefry => None,
    }
}

fn integer(prim: Prim, x: &[&str], from: DType, to: DType) -> Option<String> {
    let signed = from == DType::I32;
    match prim {
        Prim::Neg if signed => Some(format!("(-{})", x[0])),
        Prim::Neg => Some(format!("(0u - {})", x[0])),
        Prim::Abs => call("abs", x),
        Prim::Add => infix(x, "+"),
        Prim::Sub => infix(x, "-"),
        Prim::Mul => infix(x, "*"),
        Prim::Div => call(if signed { "m_div_i32" } else { "m_div_u32" }, x),
        Prim::Rem => call(if signed { "m_rem_i32" } else { "m_rem_u32" }, x),
        Prim::Min => call("min", x),
        Prim::Max => call("max", x),
        Prim::Lt => infix(x, "<"),
        Prim::Le => infix(x, "<="),
        Prim::Eq => infix(x, "=="),
        Prim::Ne => infix(x, "!="),
        Prim::And => infix(x, "&"),
        Prim::Or => infix(x, "|"),
        Prim::Xor => infix(x, "^"),
        Prim::Not => Some(format!("(~{})", x[0])),
        Prim::Shl => Some(format!("({} << (u32({}) & 31u))", x[0], x[1])),
        Prim::Shr => Some(format!("({} >> (u32({}) & 31u))", x[0], x[1])),
        Prim::Select => select(x),
        Prim::Cast => match to {
            DType::F32 | DType::F64 => call("f32", x),
            DType::I32 => call("i32", x),
            DType::U32 => call("u32", x),
            DType::Bool => Some(format!("({} != {})", x[0], if signed { "0" } else { "0u" })),
            DType::F16 | DType::BF16 | DType::I64 | DType::U8 => None,
        },
        Prim::Threefry => call("m_threefry", x),
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
        | Prim::RoundF16
        | Prim::RoundBf16
        | Prim::Pow => None,
    }
}

fn boolean(prim: Prim, x: &[&str], to: DType) -> Option<String> {
    match prim {
        Prim::And | Prim::Min | Prim::Mul => infix(x, "&"),
        Prim::Or | Prim::Max | Prim::Add => infix(x, "|"),
        Prim::Xor | Prim::Ne => infix(x, "!="),
        Prim::Eq => infix(x, "=="),
        Prim::Lt => Some(format!("(!{} & {})", x[0], x[1])),
        Prim::Le => Some(format!("(!{} | {})", x[0], x[1])),
        Prim::Not => Some(format!("(!{})", x[0])),
        Prim::Select => select(x),
        Prim::Cast => match to {
            DType::Bool => Some(x[0].to_string()),
            DType::F32 | DType::F64 => call("f32", x),
            DType::I32 => call("i32", x),
            DType::U32 => call("u32", x),
            DType::F16 | DType::BF16 | DType::I64 | DType::U8 => None,
        },
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
        | Prim::Sub
        | Prim::Div
        | Prim::Rem
        | Prim::Pow
        | Prim::Shl
        | Prim::Shr
        | Prim::RoundF16
        | Prim::RoundBf16
        | Prim::Threefry => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_without_a_literal_go_by_their_bits() {
        assert_eq!(float_literal(0.1), "f32(0.1)");
        assert_eq!(float_literal(-2.0), "f32(-2.0)");
        assert_eq!(float_literal(1e30), "f32(1e30)");
        assert_eq!(float_literal(f32::INFINITY), "m_bits(0x7f800000u)");
        assert_eq!(float_literal(-0.0), "m_bits(0x80000000u)");
        assert_eq!(float_literal(1e-40), "m_bits(0x000116c2u)");
    }
}
