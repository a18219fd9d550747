//! Elements in memory: reading one into a register, and writing one. bool, u8, f16 and bf16 take less than a word there,
//! and a conversion on the way. bf16 is rounded by integer arithmetic, since older devices have no instruction for it.

use super::prim;
use super::text::{Class, Register, Text};
use raphson_graph::dtype::DType;

/// The type in loads and stores: what is narrower than a word travels as an integer.
pub const fn memory_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::U8 => "u8",
        DType::F16 | DType::BF16 => "u16",
        DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 => prim::class(dtype).untyped(),
    }
}

/// The class of the register that is loaded or stored.
pub const fn memory_class(dtype: DType) -> Class {
    match dtype {
        DType::Bool | DType::U8 | DType::F16 | DType::BF16 => Class::Word,
        DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 => prim::class(dtype),
    }
}

/// What has been loaded, as registers hold it.
pub fn unpack(text: &mut Text, dtype: DType, loaded: Register) -> Register {
    match dtype {
        DType::Bool => text.predicate("setp.ne.s32", &[&loaded, &0]),
        DType::F16 => {
            let half = text.op(Class::Half, "cvt.u16.u32", &[&loaded]);
            text.float("cvt.f32.f16", &[&half])
        }
        DType::BF16 => {
            let bits = text.word("shl.b32", &[&loaded, &16]);
            text.float("mov.b32", &[&bits])
        }
        DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U8 => loaded,
    }
}

/// A value as it is stored.
pub fn pack(text: &mut Text, dtype: DType, value: Register) -> Register {
    match dtype {
        DType::Bool => text.word("selp.b32", &[&1, &0, &value]),
        DType::F16 => {
            let half = text.op(Class::Half, "cvt.rn.f16.f32", &[&value]);
            text.word("cvt.u32.u16", &[&half])
        }
        DType::BF16 => {
            let bits = bf16_bits(text, value);
            text.word("shr.u32", &[&bits, &16])
        }
        DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U8 => value,
    }
}

/// The nearest value that `dtype` (f16 or bf16) holds, still in f32.
pub fn round(text: &mut Text, dtype: DType, value: Register) -> Register {
    if dtype == DType::F16 {
        let half = text.op(Class::Half, "cvt.rn.f16.f32", &[&value]);
        return text.float("cvt.f32.f16", &[&half]);
    }
    let bits = bf16_bits(text, value);
    let upper = text.word("and.b32", &[&bits, &0xffff_0000u32]);
    text.float("mov.b32", &[&upper])
}

/// The upper half of this is the nearest bf16, ties to even: half a unit less one, and the last digit, are added.
fn bf16_bits(text: &mut Text, value: Register) -> Register {
    let bits = text.word("mov.b32", &[&value]);
    let shifted = text.word("shr.u32", &[&bits, &16]);
    let last = text.word("and.b32", &[&shifted, &1]);
    let half = text.word("add.u32", &[&last, &0x7fff]);
    let rounded = text.word("add.u32", &[&bits, &half]);
    // A NaN stays one.
    let quiet = text.word("or.b32", &[&bits, &0x40_0000]);
    let is_nan = text.predicate("setp.nan.f32", &[&value, &value]);
    text.word("selp.b32", &[&quiet, &rounded, &is_nan])
}
