//! Loops between memory and registers for the storage dtypes: f16 and bf16 are f32 in registers, u8 is u32. f16 uses the
//! machine's own conversion where there is one; everything else is integer arithmetic that vectorises.

use super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use raphson_graph::dtype::DType;
use raphson_graph::half;
use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// A storage dtype.
trait Storage {
    type Stored: Copy;
    type Register: Copy;
    fn widen(stored: Self::Stored) -> Self::Register;
    fn narrow(value: Self::Register) -> Self::Stored;
}

macro_rules! storage {
    ($name:ident: $stored:ty, $register:ty, $widen:expr, $narrow:expr) => {
        struct $name;
        impl Storage for $name {
            type Stored = $stored;
            type Register = $register;
            #[inline(always)]
            fn widen(stored: $stored) -> $register {
                $widen(stored)
            }
            #[inline(always)]
            fn narrow(value: $register) -> $stored {
                $narrow(value)
            }
        }
    };
}
storage!(Half: u16, f32, half::f16_to_f32, half::f32_to_f16);
storage!(Brain: u16, f32, half::bf16_to_f32, half::f32_to_bf16);
storage!(Byte: u8, u32, u32::from, |value| value as u8);

struct Widen<S>(PhantomData<S>);
struct Narrow<S>(PhantomData<S>);

impl<S: Storage> Loop for Widen<S> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<S::Register>(), args.n),
                from_raw_parts(args.a.cast::<S::Stored>(), args.n),
            )
        };
        for (out, &a) in out.iter_mut().zip(a) {
            *out = S::widen(a);
        }
    }
}

impl<S: Storage> Loop for Narrow<S> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a) = unsafe {
            (
                from_raw_parts_mut(args.out.cast::<S::Stored>(), args.n),
                from_raw_parts(args.a.cast::<S::Register>(), args.n),
            )
        };
        for (out, &a) in out.iter_mut().zip(a) {
            *out = S::narrow(a);
        }
    }
}

/// The loop that reads a storage dtype into registers; nothing for the others, which need none.
pub fn widen(level: Level, stored: DType) -> Option<LoopFn> {
    fn find<I: Isa>(stored: DType) -> Option<LoopFn> {
        match stored {
            DType::F16 => Some(I::call::<Widen<Half>>),
            DType::BF16 => Some(I::call::<Widen<Brain>>),
            DType::U8 => Some(I::call::<Widen<Byte>>),
            DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::Bool => None,
        }
    }
    #[cfg(target_arch = "x86_64")]
    if stored == DType::F16 && f16c::is_available(level) {
        return Some(f16c::widen);
    }
    with_isa!(level, find(stored))
}

/// The loop that writes registers to a storage dtype; nothing for the others.
pub fn narrow(level: Level, stored: DType) -> Option<LoopFn> {
    fn find<I: Isa>(stored: DType) -> Option<LoopFn> {
        match stored {
            DType::F16 => Some(I::call::<Narrow<Half>>),
            DType::BF16 => Some(I::call::<Narrow<Brain>>),
            DType::U8 => Some(I::call::<Narrow<Byte>>),
            DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::Bool => None,
        }
    }
    #[cfg(target_arch = "x86_64")]
    if stored == DType::F16 && f16c::is_available(level) {
        return Some(f16c::narrow);
    }
    with_isa!(level, find(stored))
}

/// The conversion instructions of x86-64, which no portable loop compiles to.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use super::{Args, Half, Level, Storage};
    use std::arch::x86_64::{
        __m128i, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };
    use std::slice::{from_raw_parts, from_raw_parts_mut};

    const LANES: usize = 8;

    pub fn is_available(level: Level) -> bool {
        level != Level::Baseline && std::arch::is_x86_feature_detected!("f16c")
    }

    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn widen(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a) = unsafe {
            (from_raw_parts_mut(args.out.cast::<f32>(), args.n), from_raw_parts(args.a.cast::<u16>(), args.n))
        };
        let ((out, out_tail), (a, a_tail)) = (out.as_chunks_mut::<LANES>(), a.as_chunks::<LANES>());
        for (out, a) in out.iter_mut().zip(a) {
            // SAFETY: both are eight elements long; no alignment is asked for.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(a.as_ptr().cast::<__m128i>())))
            };
        }
        out_tail.iter_mut().zip(a_tail).for_each(|(out, &a)| *out = Half::widen(a));
    }

    #[target_feature(enable = "avx,f16c")]
    pub unsafe fn narrow(args: &Args) {
        // SAFETY: the caller vouches for `n` valid elements behind each pointer and for no overlap.
        let (out, a) = unsafe {
            (from_raw_parts_mut(args.out.cast::<u16>(), args.n), from_raw_parts(args.a.cast::<f32>(), args.n))
        };
        let ((out, out_tail), (a, a_tail)) = (out.as_chunks_mut::<LANES>(), a.as_chunks::<LANES>());
        for (out, a) in out.iter_mut().zip(a) {
            // SAFETY: both are eight elements long; no alignment is asked for.
            unsafe {
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(a.as_ptr()));
                _mm_storeu_si128(out.as_mut_ptr().cast::<__m128i>(), halves);
            }
        }
        out_tail.iter_mut().zip(a_tail).for_each(|(out, &a)| *out = Half::narrow(a));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Copy, R: Copy + Default>(function: LoopFn, a: &[T]) -> Vec<R> {
        let mut out = vec![R::default(); a.len()];
        let a = a.as_ptr().cast::<u8>();
        let out_pointer = out.as_mut_ptr().cast::<u8>();
        let args = Args { n: out.len(), m: 0, out: out_pointer, a, b: a, c: a, d: a, single: 0, position: 0 };
        // SAFETY: the operand and the result have `n` elements each and do not overlap; the level is available.
        unsafe { function(&args) };
        out
    }

    #[test]
    fn every_instruction_set_converts_every_half_and_what_lies_between() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        // Every exponent, with low bits around the ties.
        let singles: Vec<f32> = (0..=u32::from(u16::MAX))
            .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0x1000].map(|low| high << 16 | low))
            .map(f32::from_bits)
            .collect();
        for level in Level::available() {
            for (dtype, widen_one, narrow_one) in [
                (DType::F16, half::f16_to_f32 as fn(u16) -> f32, half::f32_to_f16 as fn(f32) -> u16),
                (DType::BF16, half::bf16_to_f32, half::f32_to_bf16),
            ] {
                let wide: Vec<f32> = run(widen(level, dtype).unwrap(), &halves);
                for (&half, &wide) in halves.iter().zip(&wide) {
                    let expected = widen_one(half);
                    let same = wide.to_bits() == expected.to_bits() || (wide.is_nan() && expected.is_nan());
                    assert!(same, "{level:?} {dtype} {half:#06x}: {wide} instead of {expected}");
                }
                let narrow: Vec<u16> = run(narrow(level, dtype).unwrap(), &singles);
                for (&single, &got) in singles.iter().zip(&narrow) {
                    let expected = narrow_one(single);
                    let same = got == expected || (widen_one(got).is_nan() && single.is_nan());
                    assert!(same, "{level:?} {dtype} {single:e}: {got:#06x} instead of {expected:#06x}");
                }
            }
        }
    }

    #[test]
    fn bytes_keep_their_low_bits() {
        let narrow: Vec<u8> = run(narrow(Level::best(), DType::U8).unwrap(), &[0u32, 255, 256, 511, u32::MAX]);
        assert_eq!(narrow, [0, 255, 0, 255, 255]);
        assert_eq!(run::<u8, u32>(widen(Level::best(), DType::U8).unwrap(), &[0u8, 200, 255]), [0, 200, 255]);
    }
}
