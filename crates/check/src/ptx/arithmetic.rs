//! What instructions compute, as functions on register bits. Every function takes as many low bits of its operands as its type
//! has, so what stands above them does not matter. `None`: not in the set.

use std::cmp::Ordering;

pub type Unary = fn(u64) -> u64;
pub type Binary = fn(u64, u64) -> u64;
pub type Ternary = fn(u64, u64, u64) -> u64;
pub type Compare = fn(u64, u64) -> bool;

/// A type of register contents.
pub trait Bits: Copy + PartialOrd {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! bits {
    ($($float:ty: $word:ty),*; $($whole:ty),*) => {
        $(impl Bits for $float {
            fn of(bits: u64) -> Self {
                <$float>::from_bits(bits as $word)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        })*
        $(impl Bits for $whole {
            fn of(bits: u64) -> Self {
                bits as $whole
            }
            fn bits(self) -> u64 {
                self as u64
            }
        })*
    };
}
bits!(f32: u32, f64: u64; u8, u16, u32, u64, i8, i16, i32, i64);

/// Arithmetic that floats and integers share.
pub trait Number: Bits {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
    fn negative(self) -> Self;
    fn magnitude(self) -> Self;
    fn times_plus(self, other: Self, more: Self) -> Self;
    /// The lesser; a number rather than a NaN; −0 before 0.
    fn lesser(self, other: Self) -> Self;
    fn greater(self, other: Self) -> Self;
}

macro_rules! float {
    ($($float:ty),*) => {$(impl Number for $float {
        fn plus(self, other: Self) -> Self {
            self + other
        }
        fn minus(self, other: Self) -> Self {
            self - other
        }
        fn times(self, other: Self) -> Self {
            self * other
        }
        fn over(self, other: Self) -> Self {
            self / other
        }
        fn negative(self) -> Self {
            -self
        }
        fn magnitude(self) -> Self {
            self.abs()
        }
        fn times_plus(self, other: Self, more: Self) -> Self {
            self.mul_add(other, more)
        }
        fn lesser(self, other: Self) -> Self {
            match (self.is_nan(), other.is_nan()) {
                (true, true) => <$float>::NAN,
                (true, false) => other,
                (false, true) => self,
                (false, false) => if self.total_cmp(&other) == Ordering::Less { self } else { other },
            }
        }
        fn greater(self, other: Self) -> Self {
            match (self.is_nan(), other.is_nan()) {
                (true, true) => <$float>::NAN,
                (true, false) => other,
                (false, true) => self,
                (false, false) => if self.total_cmp(&other) == Ordering::Greater { self } else { other },
            }
        }
    })*};
}
float!(f32, f64);

macro_rules! whole {
    ($($whole:ty),*) => {$(impl Number for $whole {
        fn plus(self, other: Self) -> Self {
            self.wrapping_add(other)
        }
        fn minus(self, other: Self) -> Self {
            self.wrapping_sub(other)
        }
        fn times(self, other: Self) -> Self {
            self.wrapping_mul(other)
        }
        // PTX leaves division by zero open: a value that no test takes for right.
        fn over(self, other: Self) -> Self {
            if other == 0 { 0x55 as $whole } else { self.wrapping_div(other) }
        }
        fn negative(self) -> Self {
            self.wrapping_neg()
        }
        fn magnitude(self) -> Self {
            if (self as i128) < 0 { self.wrapping_neg() } else { self }
        }
        fn times_plus(self, other: Self, more: Self) -> Self {
            self.wrapping_mul(other).wrapping_add(more)
        }
        fn lesser(self, other: Self) -> Self {
            self.min(other)
        }
        fn greater(self, other: Self) -> Self {
            self.max(other)
        }
    })*};
}
whole!(u16, u32, u64, i16, i32, i64);

/// Arithmetic of integers only.
pub trait Whole: Number {
    fn wide(self) -> i128;
    fn narrow(value: i128) -> Self;
    const BITS: u32;
}

macro_rules! only_whole {
    ($($whole:ty),*) => {$(impl Whole for $whole {
        fn wide(self) -> i128 {
            self as i128
        }
        fn narrow(value: i128) -> Self {
            value as $whole
        }
        const BITS: u32 = <$whole>::BITS;
    })*};
}
only_whole!(u16, u32, u64, i16, i32, i64);

/// `$f` for the type that a name stands for.
macro_rules! numeric {
    ($name:expr, $f:ident) => {
        match $name {
            "f32" => Some($f::<f32>),
            "f64" => Some($f::<f64>),
            _ => integral!($name, $f),
        }
    };
}
macro_rules! integral {
    ($name:expr, $f:ident) => {
        match $name {
            "u16" | "b16" => Some($f::<u16>),
            "s16" => Some($f::<i16>),
            "u32" | "b32" => Some($f::<u32>),
            "s32" => Some($f::<i32>),
            "u64" | "b64" => Some($f::<u64>),
            "s64" => Some($f::<i64>),
            _ => None,
        }
    };
}

fn add<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).plus(T::of(b)).bits()
}
fn sub<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).minus(T::of(b)).bits()
}
fn mul<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).times(T::of(b)).bits()
}
fn div<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).over(T::of(b)).bits()
}
fn min<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).lesser(T::of(b)).bits()
}
fn max<T: Number>(a: u64, b: u64) -> u64 {
    T::of(a).greater(T::of(b)).bits()
}
fn neg<T: Number>(a: u64) -> u64 {
    T::of(a).negative().bits()
}
fn abs<T: Number>(a: u64) -> u64 {
    T::of(a).magnitude().bits()
}
fn fma<T: Number>(a: u64, b: u64, c: u64) -> u64 {
    T::of(a).times_plus(T::of(b), T::of(c)).bits()
}
fn mul_hi<T: Whole>(a: u64, b: u64) -> u64 {
    T::narrow(T::of(a).wide().wrapping_mul(T::of(b).wide()) >> T::BITS).bits()
}
fn mad_hi<T: Whole>(a: u64, b: u64, c: u64) -> u64 {
    T::of(mul_hi::<T>(a, b)).plus(T::of(c)).bits()
}
fn mul_wide<T: Whole>(a: u64, b: u64) -> u64 {
    T::of(a).wide().wrapping_mul(T::of(b).wide()) as u64
}
fn mad_wide<T: Whole>(a: u64, b: u64, c: u64) -> u64 {
    mul_wide::<T>(a, b).wrapping_add(c)
}
fn rem<T: Whole>(a: u64, b: u64) -> u64 {
    let (a, b) = (T::of(a).wide(), T::of(b).wide());
    if b == 0 { 0x55 } else { T::narrow(a % b).bits() }
}
fn shr<T: Whole>(a: u64, by: u64) -> u64 {
    T::narrow(T::of(a).wide() >> (by as u32).min(T::BITS)).bits()
}
fn shl<T: Whole>(a: u64, by: u64) -> u64 {
    let by = by as u32;
    if by >= T::BITS { 0 } else { T::narrow(T::of(a).wide() << by).bits() }
}

pub(super) use integral;

/// Functions of one operand.
pub fn unary(opcode: &[&str]) -> Option<Unary> {
    let kind = opcode[opcode.len() - 1];
    match (opcode[0], kind) {
        ("neg", _) => numeric!(kind, neg),
        ("abs", _) => numeric!(kind, abs),
        ("not", "pred") => Some(|a| a & 1 ^ 1),
        ("not", "b16") => Some(|a| u64::from(!(a as u16))),
        ("not", "b32") => Some(|a| u64::from(!(a as u32))),
        ("not", "b64") => Some(|a| !a),
        ("popc", "b32") => Some(|a| u64::from((a as u32).count_ones())),
        ("popc", "b64") => Some(|a| u64::from(a.count_ones())),
        ("clz", "b32") => Some(|a| u64::from((a as u32).leading_zeros())),
        ("brev", "b32") => Some(|a| u64::from((a as u32).reverse_bits())),
        ("sqrt", "f32") if opcode.contains(&"rn") => Some(|a| f32::of(a).sqrt().bits()),
        ("sqrt", "f64") if opcode.contains(&"rn") => Some(|a| f64::of(a).sqrt().bits()),
        ("rcp", "f32") if opcode.contains(&"rn") => Some(|a| (1.0 / f32::of(a)).bits()),
        ("rcp", "f64") if opcode.contains(&"rn") => Some(|a| (1.0 / f64::of(a)).bits()),
        (_, "f32") if opcode.contains(&"approx") => approximate(opcode[0]),
        _ => None,
    }
}

/// The hardware's approximations, here correctly rounded.
fn approximate(name: &str) -> Option<Unary> {
    Some(match name {
        "rcp" => |a| ((1.0 / f64::from(f32::of(a))) as f32).bits(),
        "rsqrt" => |a| ((1.0 / f64::from(f32::of(a)).sqrt()) as f32).bits(),
        "sqrt" => |a| f32::of(a).sqrt().bits(),
        "ex2" => |a| (f64::from(f32::of(a)).exp2() as f32).bits(),
        "lg2" => |a| (f64::from(f32::of(a)).log2() as f32).bits(),
        "sin" => |a| (f64::from(f32::of(a)).sin() as f32).bits(),
        "cos" => |a| (f64::from(f32::of(a)).cos() as f32).bits(),
        "tanh" => |a| (f64::from(f32::of(a)).tanh() as f32).bits(),
        _ => return None,
    })
}

/// A rounding other than to nearest is not in the set, nor is flushing of denormals.
fn rounds_to_nearest(opcode: &[&str]) -> bool {
    !opcode.iter().any(|part| ["rz", "rm", "rp", "ftz", "sat", "cc"].contains(part))
}

/// Functions of two operands.
pub fn binary(opcode: &[&str]) -> Option<Binary> {
    if !rounds_to_nearest(opcode) {
        return None;
    }
    let kind = opcode[opcode.len() - 1];
    match (opcode[0], kind) {
        ("add", _) => numeric!(kind, add),
        ("sub", _) => numeric!(kind, sub),
        ("mul", "f32" | "f64") => numeric!(kind, mul),
        ("mul", _) if opcode.contains(&"lo") => integral!(kind, mul),
        ("mul", _) if opcode.contains(&"hi") => integral!(kind, mul_hi),
        ("mul", _) if opcode.contains(&"wide") => integral!(kind, mul_wide),
        ("div", _) => numeric!(kind, div),
        ("rem", _) => integral!(kind, rem),
        ("min", "f32") if opcode.contains(&"NaN") => Some(|a, b| propagate(a, b, min::<f32>(a, b))),
        ("max", "f32") if opcode.contains(&"NaN") => Some(|a, b| propagate(a, b, max::<f32>(a, b))),
        ("min", _) => numeric!(kind, min),
        ("max", _) => numeric!(kind, max),
        ("and", "pred" | "b16" | "b32" | "b64") => Some(|a, b| a & b),
        ("or", "pred" | "b16" | "b32" | "b64") => Some(|a, b| a | b),
        ("xor", "pred" | "b16" | "b32" | "b64") => Some(|a, b| a ^ b),
        ("shl", _) => integral!(kind, shl),
        ("shr", _) => integral!(kind, shr),
        ("copysign", "f32") => Some(|a, b| f32::of(b).copysign(f32::of(a)).bits()),
        ("copysign", "f64") => Some(|a, b| f64::of(b).copysign(f64::of(a)).bits()),
        _ => None,
    }
}

fn propagate(a: u64, b: u64, value: u64) -> u64 {
    if f32::of(a).is_nan() || f32::of(b).is_nan() { f32::NAN.bits() } else { value }
}

/// Functions of three operands.
pub fn ternary(opcode: &[&str]) -> Option<Ternary> {
    if !rounds_to_nearest(opcode) {
        return None;
    }
    let kind = opcode[opcode.len() - 1];
    let has = |part: &str| opcode.contains(&part);
    match opcode[0] {
        "fma" => match kind {
            "f32" => Some(fma::<f32>),
            "f64" => Some(fma::<f64>),
            _ => None,
        },
        "mad" if has("lo") => integral!(kind, fma),
        "mad" if has("hi") => integral!(kind, mad_hi),
        "mad" if has("wide") => integral!(kind, mad_wide),
        "shf" if has("l") && has("wrap") => Some(|low, high, by| funnel(low, high, by, true)),
        "shf" if has("r") && has("wrap") => Some(|low, high, by| funnel(low, high, by, false)),
        "bfe" if kind == "u32" => Some(|a, start, length| extract(a as u32, start, length)),
        "prmt" if kind == "b32" && opcode.len() == 2 => Some(permute),
        _ => None,
    }
}

/// A word out of two, shifted by by mod 32.
fn funnel(low: u64, high: u64, by: u64, left: bool) -> u64 {
    let (both, by) = ((high << 32) | (low & 0xffff_ffff), by & 31);
    if left { ((both << by) >> 32) & 0xffff_ffff } else { (both >> by) & 0xffff_ffff }
}

fn extract(a: u32, start: u64, length: u64) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    let shifted = if start > 31 { 0 } else { u64::from(a) >> start };
    shifted & ((1u64 << length.min(32)) - 1)
}

/// Four bytes out of eight, by four selectors; the high bit of a selector spreads the byte's sign.
fn permute(a: u64, b: u64, selectors: u64) -> u64 {
    let bytes = (a & 0xffff_ffff) | (b << 32);
    (0..4).fold(0, |result, at| {
        let selector = selectors >> (4 * at);
        let byte = (bytes >> (8 * (selector & 7))) as u8;
        let byte = if selector & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        result | (u64::from(byte) << (8 * at))
    })
}

/// What a memory operation leaves, from (what was there, b, c).
pub fn atomic(opcode: &[&str]) -> Option<Ternary> {
    let kind = opcode[opcode.len() - 1];
    let has = |part: &str| opcode.contains(&part);
    if has("cas") {
        return match kind {
            "b32" => Some(|there, b, c| if there as u32 == b as u32 { c } else { there }),
            "b64" => Some(|there, b, c| if there == b { c } else { there }),
            _ => None,
        };
    }
    if has("exch") {
        return Some(|_, b, _| b);
    }
    match (opcode.iter().find(|part| ["add", "min", "max", "or", "and"].contains(part))?, kind) {
        (&"add", "f32") => Some(|there, b, _| add::<f32>(there, b)),
        (&"add", "f64") => Some(|there, b, _| add::<f64>(there, b)),
        (&"add", "u32" | "s32") => Some(|there, b, _| add::<u32>(there, b)),
        (&"add", "u64") => Some(|there, b, _| add::<u64>(there, b)),
        (&"min", "u32") => Some(|there, b, _| min::<u32>(there, b)),
        (&"max", "u32") => Some(|there, b, _| max::<u32>(there, b)),
        (&"min", "s32") => Some(|there, b, _| min::<i32>(there, b)),
        (&"max", "s32") => Some(|there, b, _| max::<i32>(there, b)),
        (&"or", "b32") => Some(|there, b, _| there | b),
        (&"and", "b32") => Some(|there, b, _| there & b),
        _ => None,
    }
}

macro_rules! comparison {
    ($kind:expr, $how:expr) => {
        match $kind {
            "f32" => Some(|a, b| $how(f32::of(a).partial_cmp(&f32::of(b)))),
            "f64" => Some(|a, b| $how(f64::of(a).partial_cmp(&f64::of(b)))),
            "u16" | "b16" => Some(|a, b| $how(u16::of(a).partial_cmp(&u16::of(b)))),
            "s16" => Some(|a, b| $how(i16::of(a).partial_cmp(&i16::of(b)))),
            "u32" | "b32" => Some(|a, b| $how(u32::of(a).partial_cmp(&u32::of(b)))),
            "s32" => Some(|a, b| $how(i32::of(a).partial_cmp(&i32::of(b)))),
            "u64" | "b64" => Some(|a, b| $how(u64::of(a).partial_cmp(&u64::of(b)))),
            "s64" => Some(|a, b| $how(i64::of(a).partial_cmp(&i64::of(b)))),
            _ => None,
        }
    };
}

/// Comparisons; an order of `None` means that one operand is a NaN.
pub fn compare(how: &str, kind: &str) -> Option<Compare> {
    let signed = matches!(kind, "s16" | "s32" | "s64" | "f32" | "f64");
    match how {
        "eq" => comparison!(kind, |o| o == Some(Ordering::Equal)),
        "ne" => comparison!(kind, |o: Option<Ordering>| o.is_some_and(Ordering::is_ne)),
        "lt" => comparison!(kind, |o: Option<Ordering>| o.is_some_and(Ordering::is_lt)),
        "le" => comparison!(kind, |o: Option<Ordering>| o.is_some_and(Ordering::is_le)),
        "gt" => comparison!(kind, |o: Option<Ordering>| o.is_some_and(Ordering::is_gt)),
        "ge" => comparison!(kind, |o: Option<Ordering>| o.is_some_and(Ordering::is_ge)),
        "equ" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_eq)),
        "neu" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_ne)),
        "ltu" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_lt)),
        "leu" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_le)),
        "gtu" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_gt)),
        "geu" => comparison!(kind, |o: Option<Ordering>| o.is_none_or(Ordering::is_ge)),
        "num" => comparison!(kind, |o: Option<Ordering>| o.is_some()),
        "nan" => comparison!(kind, |o: Option<Ordering>| o.is_none()),
        // Unsigned comparisons have names of their own as well.
        "lo" if !signed => compare("lt", kind),
        "ls" if !signed => compare("le", kind),
        "hi" if !signed => compare("gt", kind),
        "hs" if !signed => compare("ge", kind),
        _ => None,
    }
}

/// A move: the low bits of a type.
pub fn truncation(kind: &str) -> Option<Unary> {
    match super::parse::type_bytes(kind)? {
        1 => Some(|a| a & 1),
        2 => Some(|a| a & 0xffff),
        4 => Some(|a| a & 0xffff_ffff),
        _ => Some(|a| a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_as_wide_as_their_type() {
        let of = |opcode: &[&str]| binary(opcode).unwrap();
        assert_eq!(of(&["mul", "hi", "u32"])(0xffff_ffff, 0xffff_ffff), 0xffff_fffe);
        assert_eq!(of(&["mul", "wide", "s32"])(0xffff_ffff, 5), -5i64 as u64);
        assert_eq!(of(&["shr", "s32"])(0x8000_0000, 40) as u32, u32::MAX);
        assert_eq!(of(&["shr", "u32"])(0x8000_0000, 40), 0);
        assert_eq!(funnel(0x8000_0001, 0x8000_0001, 1, true), 3);
    }
}
