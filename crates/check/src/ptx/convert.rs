//! Conversions between types: floats and integers of every width, and the short floats of tensor cores.

use super::arithmetic::{Binary, Bits, Number, Unary, Whole, integral};

/// How a float becomes an integer, as constants for generic functions.
const NEAREST: u8 = 0;
const ZERO: u8 = 1;
const DOWN: u8 = 2;
const UP: u8 = 3;

fn integral_value<const HOW: u8>(value: f64) -> f64 {
    match HOW {
        NEAREST => value.round_ties_even(),
        ZERO => value.trunc(),
        DOWN => value.floor(),
        _ => value.ceil(),
    }
}

trait Float: Number {
    fn widened(self) -> f64;
    fn narrowed(value: f64) -> Self;
    const IS_DOUBLE: bool;
}
impl Float for f32 {
    fn widened(self) -> f64 {
        f64::from(self)
    }
    fn narrowed(value: f64) -> f32 {
        value as f32
    }
    const IS_DOUBLE: bool = false;
}
impl Float for f64 {
    fn widened(self) -> f64 {
        self
    }
    fn narrowed(value: f64) -> f64 {
        value
    }
    const IS_DOUBLE: bool = true;
}

fn round<F: Float, const HOW: u8>(a: u64) -> u64 {
    F::narrowed(integral_value::<HOW>(F::of(a).widened())).bits()
}

/// Saturates; a NaN gives zero from f32 to at most 32 bits, else the highest bit alone.
fn to_whole<F: Float, T: Whole, const HOW: u8>(a: u64) -> u64 {
    let value = F::of(a).widened();
    if value.is_nan() {
        return if F::IS_DOUBLE || T::BITS == 64 { T::narrow(1 << (T::BITS - 1)).bits() } else { 0 };
    }
    let signed = T::narrow(-1).wide() < 0;
    let (least, most) =
        if signed { (-(1i128 << (T::BITS - 1)), (1i128 << (T::BITS - 1)) - 1) } else { (0, (1i128 << T::BITS) - 1) };
    T::narrow((integral_value::<HOW>(value) as i128).clamp(least, most)).bits()
}

fn from_whole<T: Whole, F: Float>(a: u64) -> u64 {
    // From an integer of 64 bits straight to f32 would round twice by way of f64; `as` on the integer does not.
    let value = T::of(a).wide();
    if F::IS_DOUBLE { F::narrowed(value as f64).bits() } else { (value as f32).bits() }
}

fn extend<T: Whole>(a: u64) -> u64 {
    T::of(a).wide() as u64
}

macro_rules! to_integer {
    ($float:ty, $to:expr, $how:expr) => {
        match ($to, $how) {
            ("s32", "rzi") => Some(to_whole::<$float, i32, ZERO>),
            ("u32", "rzi") => Some(to_whole::<$float, u32, ZERO>),
            ("s64", "rzi") => Some(to_whole::<$float, i64, ZERO>),
            ("u64", "rzi") => Some(to_whole::<$float, u64, ZERO>),
            ("s32", "rni") => Some(to_whole::<$float, i32, NEAREST>),
            ("u32", "rni") => Some(to_whole::<$float, u32, NEAREST>),
            ("s32", "rmi") => Some(to_whole::<$float, i32, DOWN>),
            ("s32", "rpi") => Some(to_whole::<$float, i32, UP>),
            _ => None,
        }
    };
}
macro_rules! to_integral {
    ($float:ty, $how:expr) => {
        match $how {
            "rni" => Some(round::<$float, NEAREST>),
            "rzi" => Some(round::<$float, ZERO>),
            "rmi" => Some(round::<$float, DOWN>),
            "rpi" => Some(round::<$float, UP>),
            _ => None,
        }
    };
}
macro_rules! from_integer {
    ($float:ty, $from:expr) => {
        match $from {
            "u16" => Some(from_whole::<u16, $float>),
            "s16" => Some(from_whole::<i16, $float>),
            "u32" => Some(from_whole::<u32, $float>),
            "s32" => Some(from_whole::<i32, $float>),
            "u64" => Some(from_whole::<u64, $float>),
            "s64" => Some(from_whole::<i64, $float>),
            _ => None,
        }
    };
}

/// Conversions of one operand: `cvt.how.to.from`.
pub fn convert(opcode: &[&str]) -> Option<Unary> {
    let [_, middle @ .., to, from] = opcode else { return None };
    let how = match middle {
        [] => "",
        [how] => *how,
        _ => return None,
    };
    match (to, from) {
        (&"f32", &"f32") => to_integral!(f32, how),
        (&"f64", &"f64") => to_integral!(f64, how),
        (&"f64", &"f32") if how.is_empty() => Some(|a| f64::from(f32::of(a)).bits()),
        (&"f32", &"f64") if how == "rn" => Some(|a| (f64::of(a) as f32).bits()),
        (&"f32", &"bf16") if how.is_empty() => Some(|a| (a & 0xffff) << 16),
        (&"f32", &"f16") if how.is_empty() => Some(|a| half_to_float(a as u16).bits()),
        (&"bf16", &"f32") if how == "rn" => Some(|a| u64::from(float_to_bfloat(f32::of(a)))),
        (&"f16", &"f32") if how == "rn" => Some(|a| u64::from(float_to_half(f32::of(a)))),
        (&"tf32", &"f32") if how == "rna" => Some(|a| u64::from(float_to_tf32(f32::of(a)))),
        (_, &"f32") => to_integer!(f32, *to, how),
        (_, &"f64") => to_integer!(f64, *to, how),
        (&"f32", _) if how == "rn" => from_integer!(f32, *from),
        (&"f64", _) if how == "rn" => from_integer!(f64, *from),
        (&("u16" | "s16" | "u32" | "s32" | "u64" | "s64"), _) if how.is_empty() => match *from {
            "u8" => Some(|a| a & 0xff),
            "s8" => Some(|a| a as i8 as u64),
            _ => integral!(*from, extend),
        },
        (&("u8" | "s8"), _) if how.is_empty() => Some(|a| a & 0xff),
        _ => None,
    }
}

/// `cvt.rn.bf16x2.f32 d, high, low`
pub fn pack_floats(opcode: &[&str]) -> Option<Binary> {
    match opcode {
        ["cvt", "rn", "bf16x2", "f32"] => {
            Some(|high, low| u64::from(float_to_bfloat(f32::of(high))) << 16 | u64::from(float_to_bfloat(f32::of(low))))
        }
        ["cvt", "rn", "f16x2", "f32"] => {
            Some(|high, low| u64::from(float_to_half(f32::of(high))) << 16 | u64::from(float_to_half(f32::of(low))))
        }
        _ => None,
    }
}

/// To the nearest, ties to even.
fn float_to_bfloat(value: f32) -> u16 {
    if value.is_nan() {
        return 0x7fff;
    }
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// To the nearest with ten bits after the point, ties away from zero.
fn float_to_tf32(value: f32) -> u32 {
    if value.is_finite() { (value.to_bits() + 0x1000) & 0xffff_e000 } else { value.to_bits() }
}

/// Exact.
pub fn half_to_float(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 => {
            if mantissa == 0.0 {
                f32::INFINITY
            } else {
                f32::NAN
            }
        }
        _ => (1024.0 + mantissa) * 2f32.powi(exponent - 25),
    }
}

/// To the nearest, ties to even.
fn float_to_half(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16 & 0x8000) as u16;
    let size = value.abs();
    if size.is_nan() {
        return 0x7fff;
    }
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    // The spacing of halves at this size; a multiple of it is exact in f32.
    let exponent = ((size.to_bits() >> 23) as i32 - 127).max(-14);
    let unit = 2f32.powi(exponent - 10);
    let steps = (size / unit).round_ties_even() as u16;
    sign | (((exponent + 14) as u16) << 10).wrapping_add(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_there_and_back() {
        for bits in 0..0x7c00u16 {
            assert_eq!(float_to_half(half_to_float(bits)), bits, "{bits:04x}");
        }
        assert_eq!(float_to_half(-2.0), 0xc000);
        assert_eq!(float_to_bfloat(1.0 + 1.0 / 256.0), 0x3f80);
        assert_eq!(float_to_bfloat(1.0 + 3.0 / 256.0), 0x3f82);
    }

    #[test]
    fn floats_saturate_and_integers_extend() {
        let of = |opcode: [&str; 4]| convert(&opcode).unwrap();
        assert_eq!(of(["cvt", "rzi", "s32", "f32"])(f32::NAN.bits()), 0);
        assert_eq!(of(["cvt", "rzi", "s32", "f32"])(3e9f32.bits()) as u32, i32::MAX as u32);
        assert_eq!(of(["cvt", "rzi", "s32", "f64"])(f64::NAN.bits()) as u32, 0x8000_0000);
        assert_eq!(convert(&["cvt", "s64", "s32"]).unwrap()(0xffff_ffff), u64::MAX);
        assert!(convert(&["cvt", "rz", "f32", "f64"]).is_none());
    }
}
