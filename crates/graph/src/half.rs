//! The 16-bit float formats: rounding to them, and their bits. Nothing computes in these formats; what is stored in one is
//! converted to f32, computed with, and rounded once when it is stored again. The conversions have no branches, so
//! that loops over them vectorise.

use crate::dtype::DType;

/// The nearest value of a format with `digits` bits behind the leading one and `least` as its least normal exponent;
/// ties go to the even one, and beyond `greatest` lies infinity.
fn nearest(x: f64, digits: i32, least: i32, greatest: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    // The exponent field of an f64; an f64 that is subnormal itself is far below any of these formats.
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let unit = 2f64.powi(exponent - digits);
    let rounded = (x / unit).round_ties_even() * unit;
    if rounded.abs() > greatest { f64::INFINITY.copysign(x) } else { rounded }
}

/// The value of `dtype` nearest to `x`, for floats; ties to even, infinity beyond the greatest.
pub fn round(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => nearest(x, 10, -14, 65504.0),
        DType::BF16 => nearest(x, 7, -126, f64::from(f32::from_bits(0x7f7f_0000))),
        DType::F32 => f64::from(x as f32),
        DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U8 | DType::Bool => x,
    }
}

/// The bits of the f16 nearest to `x`, ties to even (after F. Giesen, "Float→half conversions"): a normal result by
/// integer addition of half a unit, a subnormal one by a float addition that lets its last digit be the last of ½.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let size = bits & 0x7fff_ffff;
    let special = if size > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let subnormal = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    // The exponent's bias goes from 127 to 15.
    let normal = size.wrapping_sub(112 << 23).wrapping_add(0xfff + (size >> 13 & 1)) >> 13;
    let finite = if size < 0x3880_0000 { subnormal } else { normal };
    let half = if size >= 0x4780_0000 { special } else { finite };
    (half | (bits >> 16 & 0x8000)) as u16
}

/// The value of an f16.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    let size = (u32::from(half) & 0x7fff) << 13;
    // 2¹¹², the difference of the biases; exact for subnormal halves too.
    let scaled = (f32::from_bits(size) * f32::from_bits(239 << 23)).to_bits();
    let special = if size >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled | special | (u32::from(half) & 0x8000) << 16)
}

/// The bits of the bf16 nearest to `x`, ties to even.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let chosen = if bits & 0x7fff_ffff > 0x7f80_0000 { bits | 0x40_0000 } else { rounded };
    (chosen >> 16) as u16
}

/// The value of a bf16.
#[inline(always)]
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of a format, the midpoints between neighbours, and what lies just beside them.
    fn check(dtype: DType, narrow: fn(f32) -> u16, widen: fn(u16) -> f32) {
        let mut seen = 0;
        for half in 0..=u16::MAX {
            let value = widen(half);
            if value.is_nan() {
                assert!(widen(narrow(value)).is_nan(), "{half:#06x}");
                continue;
            }
            assert_eq!(narrow(value), half, "{value}");
            let next = widen(half.wrapping_add(1));
            if !value.is_finite() || next.is_nan() || value.is_sign_negative() != next.is_sign_negative() {
                continue;
            }
            // Infinity stands for the power of two behind the greatest value.
            let last = if next.is_finite() { next } else { value + (value - widen(half - 1)) };
            // A midpoint has one digit more, which an f32 holds unless it is subnormal there.
            let middle = ((f64::from(value) + f64::from(last)) / 2.0) as f32;
            for x in [middle, middle.next_down(), middle.next_up()] {
                assert_eq!(f64::from(widen(narrow(x))), round(f64::from(x), dtype), "{dtype} {x:e}");
                seen += 1;
            }
        }
        assert!(seen > 100_000, "{seen}");
    }

    #[test]
    fn conversions_agree_with_rounding_at_every_value_and_midpoint() {
        check(DType::F16, f32_to_f16, f16_to_f32);
        check(DType::BF16, f32_to_bf16, bf16_to_f32);
    }

    #[test]
    fn known_bits() {
        let halves = [(1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (65520.0, 0x7c00), (65519.99, 0x7bff)];
        for (value, bits) in halves {
            assert_eq!(f32_to_f16(value), bits, "{value}");
        }
        let small = [(2f32.powi(-24), 1), (2f32.powi(-25), 0), (2f32.powi(-25).next_up(), 1), (-0.0, 0x8000)];
        for (value, bits) in small {
            assert_eq!(f32_to_f16(value), bits, "{value:e}");
        }
        assert_eq!(f32_to_f16(f32::NEG_INFINITY), 0xfc00);
        assert_eq!([f32_to_bf16(1.0), f32_to_bf16(f32::MAX), f32_to_bf16(-0.0)], [0x3f80, 0x7f80, 0x8000]);
        assert_eq!(round(f64::MAX, DType::F16), f64::INFINITY);
        assert!(round(f64::NAN, DType::BF16).is_nan());
    }
}
