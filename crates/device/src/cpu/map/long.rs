//! The elementwise functions of `map` on i64, and the conversions from and to it.

use super::{
    Abs, Add, And, Div, Eq, Le, Lt, Map1, Map2, Max, Min, Mul, Ne, Neg, Not, Or, Rem, Shl, Shr, Sub, ToBool, ToF32,
    ToF64, ToI32, ToU32, Xor,
};
use crate::cpu::isa::Isa;

macro_rules! one {
    ($($name:ident($x:ident) -> $out:ty = $value:expr;)+) => {$(
        impl Map1<i64> for $name {
            type Out = $out;
            #[inline(always)]
            fn apply<I: Isa>($x: i64) -> $out { $value }
            #[inline(always)]
            fn rare($x: i64) -> $out { $value }
        }
    )+};
}
macro_rules! two {
    ($($name:ident($a:ident, $b:ident) -> $out:ty = $value:expr;)+) => {$(
        impl Map2<i64> for $name {
            type Out = $out;
            #[inline(always)]
            fn apply<I: Isa>($a: i64, $b: i64) -> $out { $value }
        }
    )+};
}

one! {
    Neg(x) -> i64 = x.wrapping_neg();
    Abs(x) -> i64 = x.wrapping_abs();
    Not(x) -> i64 = !x;
    ToF32(x) -> f32 = x as f32;
    ToF64(x) -> f64 = x as f64;
    ToI32(x) -> i32 = x as i32;
    ToU32(x) -> u32 = x as u32;
    ToBool(x) -> u8 = (x != 0).into();
}
two! {
    Add(a, b) -> i64 = a.wrapping_add(b);
    Sub(a, b) -> i64 = a.wrapping_sub(b);
    Mul(a, b) -> i64 = a.wrapping_mul(b);
    Div(a, b) -> i64 = if b == 0 { 0 } else { a.wrapping_div(b) };
    Rem(a, b) -> i64 = if b == 0 { 0 } else { a.wrapping_rem(b) };
    Min(a, b) -> i64 = a.min(b);
    Max(a, b) -> i64 = a.max(b);
    Lt(a, b) -> u8 = (a < b).into();
    Le(a, b) -> u8 = (a <= b).into();
    Eq(a, b) -> u8 = (a == b).into();
    Ne(a, b) -> u8 = (a != b).into();
    And(a, b) -> i64 = a & b;
    Or(a, b) -> i64 = a | b;
    Xor(a, b) -> i64 = a ^ b;
    Shl(a, b) -> i64 = a.wrapping_shl(b as u32);
    Shr(a, b) -> i64 = a.wrapping_shr(b as u32);
}

pub struct ToI64;
macro_rules! to_i64 {
    ($($t:ty),+) => {$(
        impl Map1<$t> for ToI64 {
            type Out = i64;
            // Rust's `as` truncates, saturates, and takes NaN to 0.
            #[inline(always)]
            fn apply<I: Isa>(x: $t) -> i64 { x as i64 }
            #[inline(always)]
            fn rare(x: $t) -> i64 { x as i64 }
        }
    )+};
}
to_i64!(f32, f64, i32, u32, u8);
