//! What instructions compute, as functions on register bits. Every function takes as many low bits of its operands as its type
//! has, so what stands above them does not matter. `None`: not in the set.

use std::cmp::Ordering;

pub type Unary = fn(u64) -> u64;
pub type Binary = fn(u64, u64) -> u64;
pub type Ternary = fn(u64, u64, u64) -> u64;
pub type Compare = fn(u64, u64) -> bool;

/// A type of register contents.
trait Bits: Copy + PartialOrd {
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
trait Number: Bits {
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
trait Whole: Number {
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
    fn integers_are_as_wide_as_their_type() {
        let of = |opcode: &[&str]| binary(opcode).unwrap();
        assert_eq!(of(&["mul", "hi", "u32"])(0xffff_ffff, 0xffff_ffff), 0xffff_fffe);
        assert_eq!(of(&["mul", "wide", "s32"])(0xffff_ffff, 5), -5i64 as u64);
        assert_eq!(of(&["shr", "s32"])(0x8000_0000, 40) as u32, u32::MAX);
        assert_eq!(of(&["shr", "u32"])(0x8000_0000, 40), 0);
        assert_eq!(funnel(0x8000_0001, 0x8000_0001, 1, true), 3);
        assert_eq!(convert(&["cvt", "rzi", "s32", "f32"]).unwrap()(f32::NAN.bits()), 0);
        assert_eq!(convert(&["cvt", "rzi", "s32", "f32"]).unwrap()(3e9f32.bits()) as u32, i32::MAX as u32);
        assert_eq!(convert(&["cvt", "s64", "s32"]).unwrap()(0xffff_ffff), u64::MAX);
        assert!(convert(&["cvt", "rz", "f32", "f64"]).is_none());
    }
}
