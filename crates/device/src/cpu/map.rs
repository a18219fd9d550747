//! Elementwise loops: every `Prim` for every dtype it allows, as a loop over dense operands, and the table that finds
//! them. Bools are bytes, 0 or 1. How tiles come about is not known here.

mod long;

use super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use super::{erf, math};
use long::ToI64;
use raphson_graph::dtype::DType;
use raphson_graph::half;
use raphson_graph::kernel::Prim;
use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// A function of one operand.
trait Map1<T: Copy> {
    type Out: Copy;
    /// Whether some operands need [`Map1::rare`].
    const HAS_RARE: bool = false;
    fn apply<I: Isa>(x: T) -> Self::Out;
    /// Operands that `apply` does not serve.
    fn is_rare(_x: T) -> bool {
        false
    }
    fn rare(x: T) -> Self::Out;
}

/// A function of two operands.
trait Map2<T: Copy> {
    type Out: Copy;
    fn apply<I: Isa>(a: T, b: T) -> Self::Out;
}

struct Run1<F, T>(PhantomData<(F, T)>);
struct Run2<F, T>(PhantomData<(F, T)>);
/// The first operand is one value for the whole tile.
struct Run2First<F, T>(PhantomData<(F, T)>);
/// The second operand is one value for the whole tile.
struct Run2Second<F, T>(PhantomData<(F, T)>);
struct RunSelect<T>(PhantomData<T>);
struct RunThreefry;

impl<F: Map1<T>, T: Copy> Loop for Run1<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a) = unsafe {
            (from_raw_parts_mut(args.out.cast::<F::Out>(), args.n), from_raw_parts(args.a.cast::<T>(), args.n))
        };
        for (out, &a) in out.iter_mut().zip(a) {
            *out = F::apply::<I>(a);
        }
        if F::HAS_RARE && a.iter().fold(false, |any, &a| any | F::is_rare(a)) {
            for (out, &a) in out.iter_mut().zip(a).filter(|(_, a)| F::is_rare(**a)) {
                *out = F::rare(a);
            }
        }
    }
}

impl<F: Map2<T>, T: Copy> Loop for Run2<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a, b) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Out>(), args.n),
                from_raw_parts(args.a.cast::<T>(), args.n),
                from_raw_parts(args.b.cast::<T>(), args.n),
            )
        };
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *out = F::apply::<I>(a, b);
        }
    }
}

impl<F: Map2<T>, T: Copy> Loop for Run2First<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer (one is enough behind the first operand)
        // and for no overlap.
        let (out, a, b) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Out>(), args.n),
                *args.a.cast::<T>(),
                from_raw_parts(args.b.cast::<T>(), args.n),
            )
        };
        for (out, &b) in out.iter_mut().zip(b) {
            *out = F::apply::<I>(a, b);
        }
    }
}

impl<F: Map2<T>, T: Copy> Loop for Run2Second<F, T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: as above, with the second operand.
        let (out, a, b) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<F::Out>(), args.n),
                from_raw_parts(args.a.cast::<T>(), args.n),
                *args.b.cast::<T>(),
            )
        };
        for (out, &a) in out.iter_mut().zip(a) {
            *out = F::apply::<I>(a, b);
        }
    }
}

/// The bits of an element.
trait Bits: Copy {
    /// `a` where the condition holds, else `b`, by masks: a choice of operands would become one of addresses, gathered one by one.
    fn choose(condition: bool, a: Self, b: Self) -> Self;
}

macro_rules! bits {
    ($($t:ty),+) => {
        $(impl Bits for $t {
            #[inline(always)]
            fn choose(condition: bool, a: $t, b: $t) -> $t {
                let mask = <$t>::from(condition).wrapping_neg();
                (a & mask) | (b & !mask)
            }
        })+
    };
}
bits!(u8, u32, u64);

impl<T: Bits> Loop for RunSelect<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, condition, a, b) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<T>(), args.n),
                from_raw_parts(args.a, args.n),
                from_raw_parts(args.b.cast::<T>(), args.n),
                from_raw_parts(args.c.cast::<T>(), args.n),
            )
        };
        for (((out, &condition), &a), &b) in out.iter_mut().zip(condition).zip(a).zip(b) {
            *out = T::choose(condition != 0, a, b);
        }
    }
}

/// Rows `out[n][m]` of the number `c`, but for `b[n]` at the position `a[n]`, if it is in the tile.
struct RunOneHot<T>(PhantomData<T>);

impl<T: Copy> Loop for RunOneHot<T> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for room for `n·m` elements, `n` positions and numbers, one element behind `c`, and
        // for no overlap.
        let (out, labels, put, elsewhere) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<T>(), args.n * args.m),
                from_raw_parts(args.a.cast::<i32>(), args.n),
                from_raw_parts(args.b.cast::<T>(), args.n),
                *args.c.cast::<T>(),
            )
        };
        out.fill(elsewhere);
        for (row, (&label, &put)) in labels.iter().zip(put).enumerate() {
            if let Some(place) = args.place(label) {
                out[row * args.m + place] = put;
            }
        }
    }
}

impl Loop for RunThreefry {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, key0, key1, counter) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<u32>(), args.n),
                from_raw_parts(args.a.cast::<u32>(), args.n),
                from_raw_parts(args.b.cast::<u32>(), args.n),
                from_raw_parts(args.c.cast::<u32>(), args.n),
            )
        };
        for (((out, &key0), &key1), &counter) in out.iter_mut().zip(key0).zip(key1).zip(counter) {
            *out = math::threefry(key0, key1, counter);
        }
    }
}

/// `map1!(Name(x): type -> type = expression, …)`; `I` is the instruction set.
macro_rules! map1 {
    ($name:ident($x:ident): $($t:ty => $out:ty = $value:expr),+ $(,)?) => {
        struct $name;
        $(impl Map1<$t> for $name {
            type Out = $out;
            #[inline(always)]
            fn apply<I: Isa>($x: $t) -> $out { $value }
            #[inline(always)]
            fn rare($x: $t) -> $out { Self::apply::<super::isa::Baseline>($x) }
        })+
    };
}

macro_rules! map2 {
    ($name:ident($a:ident, $b:ident): $($t:ty => $out:ty = $value:expr),+ $(,)?) => {
        struct $name;
        $(impl Map2<$t> for $name {
            type Out = $out;
            #[inline(always)]
            fn apply<I: Isa>($a: $t, $b: $t) -> $out { $value }
        })+
    };
}

map1!(Neg(x): f32 => f32 = -x, f64 => f64 = -x, i32 => i32 = x.wrapping_neg(), u32 => u32 = x.wrapping_neg());
map1!(Abs(x): f32 => f32 = x.abs(), f64 => f64 = x.abs(), i32 => i32 = x.wrapping_abs(), u32 => u32 = x);
map1!(Sqrt(x): f32 => f32 = x.sqrt(), f64 => f64 = x.sqrt());
map1!(Exp(x): f32 => f32 = math::exp::<I>(x), f64 => f64 = x.exp());
map1!(Expm1(x): f32 => f32 = math::expm1::<I>(x), f64 => f64 = x.exp_m1());
map1!(Log(x): f32 => f32 = math::log::<I>(x), f64 => f64 = x.ln());
map1!(Log1p(x): f32 => f32 = math::log1p::<I>(x), f64 => f64 = x.ln_1p());
map1!(Tanh(x): f32 => f32 = math::tanh::<I>(x), f64 => f64 = x.tanh());
map1!(Erf(x): f32 => f32 = math::erf::<I>(x), f64 => f64 = erf::erf(x));
map1!(Floor(x): f32 => f32 = x.floor(), f64 => f64 = x.floor());
map1!(Ceil(x): f32 => f32 = x.ceil(), f64 => f64 = x.ceil());
map1!(Round(x): f32 => f32 = x.round_ties_even(), f64 => f64 = x.round_ties_even());
map1!(Trunc(x): f32 => f32 = x.trunc(), f64 => f64 = x.trunc());
map1!(RoundF16(x): f32 => f32 = half::f16_to_f32(half::f32_to_f16(x)));
map1!(RoundBf16(x): f32 => f32 = half::bf16_to_f32(half::f32_to_bf16(x)));
map1!(Not(x): u8 => u8 = x ^ 1, i32 => i32 = !x, u32 => u32 = !x);

/// Sine and cosine: beyond the reach of the fast reduction the standard functions take over.
macro_rules! trigonometric {
    ($name:ident, $function:ident) => {
        struct $name;
        impl Map1<f32> for $name {
            type Out = f32;
            const HAS_RARE: bool = true;
            #[inline(always)]
            fn apply<I: Isa>(x: f32) -> f32 {
                math::$function::<I>(x)
            }
            #[inline(always)]
            fn is_rare(x: f32) -> bool {
                x.abs() > math::TRIGONOMETRIC_LIMIT
            }
            fn rare(x: f32) -> f32 {
                x.$function()
            }
        }
        impl Map1<f64> for $name {
            type Out = f64;
            #[inline(always)]
            fn apply<I: Isa>(x: f64) -> f64 {
                x.$function()
            }
            fn rare(x: f64) -> f64 {
                x.$function()
            }
        }
    };
}
trigonometric!(Sin, sin);
trigonometric!(Cos, cos);

map2!(Add(a, b): f32 => f32 = a + b, f64 => f64 = a + b, i32 => i32 = a.wrapping_add(b), u32 => u32 = a.wrapping_add(b));
map2!(Sub(a, b): f32 => f32 = a - b, f64 => f64 = a - b, i32 => i32 = a.wrapping_sub(b), u32 => u32 = a.wrapping_sub(b));
map2!(Mul(a, b): f32 => f32 = a * b, f64 => f64 = a * b, i32 => i32 = a.wrapping_mul(b), u32 => u32 = a.wrapping_mul(b));
map2!(Div(a, b):
    f32 => f32 = a / b,
    f64 => f64 = a / b,
    i32 => i32 = if b == 0 { 0 } else { a.wrapping_div(b) },
    u32 => u32 = a.checked_div(b).unwrap_or(0),
);
map2!(Rem(a, b):
    f32 => f32 = a % b,
    f64 => f64 = a % b,
    i32 => i32 = if b == 0 { 0 } else { a.wrapping_rem(b) },
    u32 => u32 = a.checked_rem(b).unwrap_or(0),
);
map2!(Pow(a, b): f32 => f32 = math::pow::<I>(a, b), f64 => f64 = a.powf(b));
map2!(Min(a, b):
    f32 => f32 = if (a < b) | a.is_nan() { a } else { b },
    f64 => f64 = if (a < b) | a.is_nan() { a } else { b },
    i32 => i32 = a.min(b), u32 => u32 = a.min(b), u8 => u8 = a & b,
);
map2!(Max(a, b):
    f32 => f32 = if (a > b) | a.is_nan() { a } else { b },
    f64 => f64 = if (a > b) | a.is_nan() { a } else { b },
    i32 => i32 = a.max(b), u32 => u32 = a.max(b), u8 => u8 = a | b,
);
map2!(Lt(a, b): f32 => u8 = (a < b).into(), f64 => u8 = (a < b).into(), i32 => u8 = (a < b).into(),
    u32 => u8 = (a < b).into(), u8 => u8 = (a < b).into());
map2!(Le(a, b): f32 => u8 = (a <= b).into(), f64 => u8 = (a <= b).into(), i32 => u8 = (a <= b).into(),
    u32 => u8 = (a <= b).into(), u8 => u8 = (a <= b).into());
map2!(Eq(a, b): f32 => u8 = (a == b).into(), f64 => u8 = (a == b).into(), i32 => u8 = (a == b).into(),
    u32 => u8 = (a == b).into(), u8 => u8 = (a == b).into());
map2!(Ne(a, b): f32 => u8 = (a != b).into(), f64 => u8 = (a != b).into(), i32 => u8 = (a != b).into(),
    u32 => u8 = (a != b).into(), u8 => u8 = (a != b).into());
map2!(And(a, b): u8 => u8 = a & b, i32 => i32 = a & b, u32 => u32 = a & b);
map2!(Or(a, b): u8 => u8 = a | b, i32 => i32 = a | b, u32 => u32 = a | b);
map2!(Xor(a, b): u8 => u8 = a ^ b, i32 => i32 = a ^ b, u32 => u32 = a ^ b);
map2!(Shl(a, b): i32 => i32 = a.wrapping_shl(b as u32), u32 => u32 = a.wrapping_shl(b));
map2!(Shr(a, b): i32 => i32 = a.wrapping_shr(b as u32), u32 => u32 = a.wrapping_shr(b));

// Rust's `as` between numbers is the cast of `Prim::Cast`: truncating, saturating, NaN to 0, bits kept i32 ↔ u32.
map1!(ToF32(x): f32 => f32 = x, f64 => f32 = x as f32, i32 => f32 = x as f32, u32 => f32 = x as f32,
    u8 => f32 = f32::from(x));
map1!(ToF64(x): f32 => f64 = f64::from(x), f64 => f64 = x, i32 => f64 = f64::from(x), u32 => f64 = f64::from(x),
    u8 => f64 = f64::from(x));
map1!(ToI32(x): f32 => i32 = x as i32, f64 => i32 = x as i32, i32 => i32 = x, u32 => i32 = x as i32,
    u8 => i32 = i32::from(x));
map1!(ToU32(x): f32 => u32 = x as u32, f64 => u32 = x as u32, i32 => u32 = x as u32, u32 => u32 = x,
    u8 => u32 = u32::from(x));
map1!(ToBool(x): f32 => u8 = (x != 0.0).into(), f64 => u8 = (x != 0.0).into(), i32 => u8 = (x != 0).into(),
    u32 => u8 = (x != 0).into(), u8 => u8 = x);

/// The loop for `prim` over operands of dtype `operand` (for `Select`, the second and third) with results of dtype
/// `result`; nothing when the language has no such instruction.
pub fn find(level: Level, prim: Prim, operand: DType, result: DType) -> Option<LoopFn> {
    let expected = match prim {
        Prim::Cast => result,
        Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne => DType::Bool,
        _ => operand,
    };
    (expected == result).then(|| with_isa!(level, find_for(prim, operand, result))).flatten()
}

macro_rules! choose {
    ($run:ident, $function:ident, $dtype:expr, [$($variant:ident $t:ty),+]) => {
        match $dtype {
            $(DType::$variant => Some(I::call::<$run<$function, $t>> as LoopFn),)+
            #[allow(unreachable_patterns, reason = "some functions take every dtype")]
            _ => None,
        }
    };
}
macro_rules! floats {
    ($run:ident, $function:ident, $dtype:expr) => {
        choose!($run, $function, $dtype, [F32 f32, F64 f64])
    };
}
macro_rules! numbers {
    ($run:ident, $function:ident, $dtype:expr) => {
        choose!($run, $function, $dtype, [F32 f32, F64 f64, I32 i32, U32 u32, I64 i64])
    };
}
macro_rules! integers {
    ($run:ident, $function:ident, $dtype:expr) => {
        choose!($run, $function, $dtype, [I32 i32, U32 u32, I64 i64])
    };
}
macro_rules! bits {
    ($run:ident, $function:ident, $dtype:expr) => {
        choose!($run, $function, $dtype, [Bool u8, I32 i32, U32 u32, I64 i64])
    };
}
macro_rules! any {
    ($run:ident, $function:ident, $dtype:expr) => {
        choose!($run, $function, $dtype, [F32 f32, F64 f64, I32 i32, U32 u32, I64 i64, Bool u8])
    };
}

/// The loop that puts one number into each row.
pub fn find_one_hot(level: Level, dtype: DType) -> LoopFn {
    fn find<I: Isa>(dtype: DType) -> LoopFn {
        match dtype.size_bytes() {
            1 => I::call::<RunOneHot<u8>>,
            4 => I::call::<RunOneHot<u32>>,
            _ => I::call::<RunOneHot<u64>>,
        }
    }
    with_isa!(level, find(dtype))
}

/// The loop for a float instruction of which one operand is a single value, where there is a faster one.
pub fn find_uniform(level: Level, prim: Prim, dtype: DType, first: bool) -> Option<LoopFn> {
    with_isa!(level, find_uniform_for(prim, dtype, first))
}

fn find_uniform_for<I: Isa>(prim: Prim, dtype: DType, first: bool) -> Option<LoopFn> {
    macro_rules! either {
        ($function:ident) => {
            if first { floats!(Run2First, $function, dtype) } else { floats!(Run2Second, $function, dtype) }
        };
    }
    match prim {
        Prim::Add => either!(Add),
        Prim::Sub => either!(Sub),
        Prim::Mul => either!(Mul),
        Prim::Div => either!(Div),
        Prim::Max => either!(Max),
        Prim::Min => either!(Min),
        _ => None,
    }
}

fn find_for<I: Isa>(prim: Prim, operand: DType, result: DType) -> Option<LoopFn> {
    match prim {
        Prim::Neg => numbers!(Run1, Neg, operand),
        Prim::Abs => numbers!(Run1, Abs, operand),
        Prim::Sqrt => floats!(Run1, Sqrt, operand),
        Prim::Exp => floats!(Run1, Exp, operand),
        Prim::Expm1 => floats!(Run1, Expm1, operand),
        Prim::Log => floats!(Run1, Log, operand),
        Prim::Log1p => floats!(Run1, Log1p, operand),
        Prim::Sin => floats!(Run1, Sin, operand),
        Prim::Cos => floats!(Run1, Cos, operand),
        Prim::Tanh => floats!(Run1, Tanh, operand),
        Prim::Erf => floats!(Run1, Erf, operand),
        Prim::Floor => floats!(Run1, Floor, operand),
        Prim::Ceil => floats!(Run1, Ceil, operand),
        Prim::Round => floats!(Run1, Round, operand),
        Prim::Trunc => floats!(Run1, Trunc, operand),
        Prim::Add => numbers!(Run2, Add, operand),
        Prim::Sub => numbers!(Run2, Sub, operand),
        Prim::Mul => numbers!(Run2, Mul, operand),
        Prim::Div => numbers!(Run2, Div, operand),
        Prim::Rem => numbers!(Run2, Rem, operand),
        Prim::Pow => floats!(Run2, Pow, operand),
        Prim::Min => any!(Run2, Min, operand),
        Prim::Max => any!(Run2, Max, operand),
        Prim::Lt => any!(Run2, Lt, operand),
        Prim::Le => any!(Run2, Le, operand),
        Prim::Eq => any!(Run2, Eq, operand),
        Prim::Ne => any!(Run2, Ne, operand),
        Prim::And => bits!(Run2, And, operand),
        Prim::Or => bits!(Run2, Or, operand),
        Prim::Xor => bits!(Run2, Xor, operand),
        Prim::Not => bits!(Run1, Not, operand),
        Prim::Shl => integers!(Run2, Shl, operand),
        Prim::Shr => integers!(Run2, Shr, operand),
        Prim::Select => Some(match operand.size_bytes() {
            1 => I::call::<RunSelect<u8>>,
            4 => I::call::<RunSelect<u32>>,
            _ => I::call::<RunSelect<u64>>,
        }),
        Prim::Cast => match result {
            DType::F32 => any!(Run1, ToF32, operand),
            DType::F64 => any!(Run1, ToF64, operand),
            DType::I32 => any!(Run1, ToI32, operand),
            DType::U32 => any!(Run1, ToU32, operand),
            DType::I64 => choose!(Run1, ToI64, operand, [F32 f32, F64 f64, I32 i32, U32 u32, Bool u8]),
            DType::Bool => any!(Run1, ToBool, operand),
            DType::F16 | DType::BF16 | DType::U8 => None,
        },
        Prim::RoundF16 => choose!(Run1, RoundF16, operand, [F32 f32]),
        Prim::RoundBf16 => choose!(Run1, RoundBf16, operand, [F32 f32]),
        Prim::Threefry => (operand == DType::U32).then_some(I::call::<RunThreefry>),
    }
}

/// How many cheap instructions one of these is worth; only a guide for splitting work.
pub fn cost(prim: Prim, dtype: DType) -> usize {
    let vectorised = dtype == DType::F32;
    match prim {
        Prim::Exp | Prim::Expm1 | Prim::Log | Prim::Log1p | Prim::Tanh | Prim::Erf if vectorised => 6,
        Prim::Sin | Prim::Cos if vectorised => 12,
        Prim::Pow if vectorised => 25,
        Prim::Exp | Prim::Expm1 | Prim::Log | Prim::Log1p | Prim::Sin | Prim::Cos | Prim::Tanh | Prim::Erf => 60,
        Prim::Pow | Prim::Rem => 60,
        Prim::Div | Prim::Sqrt | Prim::RoundF16 | Prim::RoundBf16 => 4,
        Prim::Threefry => 30,
        Prim::Neg
        | Prim::Abs
        | Prim::Floor
        | Prim::Ceil
        | Prim::Round
        | Prim::Trunc
        | Prim::Add
        | Prim::Sub
        | Prim::Mul
        | Prim::Min
        | Prim::Max
        | Prim::Lt
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
        | Prim::Cast => 1,
    }
}
