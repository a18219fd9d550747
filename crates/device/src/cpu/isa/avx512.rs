//! Registers of sixteen numbers. Safety is the trait's matter: `Isa` says what each function may read and write.

use std::arch::asm;
use std::arch::x86_64::*;

pub use super::avx2::transpose;

pub type Vector = __m512;

#[inline(always)]
pub unsafe fn load(from: *const f32) -> Vector {
    // SAFETY: passed on to our caller.
    unsafe { _mm512_loadu_ps(from) }
}

#[inline(always)]
pub unsafe fn store(vector: Vector, to: *mut f32) {
    // SAFETY: passed on to our caller.
    unsafe { _mm512_storeu_ps(to, vector) }
}

/// A bit for each lane before `end`.
#[inline]
fn before(end: usize) -> u16 {
    ((1u32 << end) - 1) as u16
}

#[inline(always)]
pub unsafe fn load_part(from: *const f32, first: usize, end: usize) -> Vector {
    // SAFETY: passed on to our caller; lanes that are left out are not read.
    unsafe { _mm512_maskz_loadu_ps(before(end) & !before(first), from) }
}

#[inline(always)]
pub unsafe fn store_first(vector: Vector, n: usize, to: *mut f32) {
    // SAFETY: passed on to our caller; lanes that are left out are not written.
    unsafe { _mm512_mask_storeu_ps(to, before(n), vector) }
}

#[inline(always)]
pub unsafe fn splat(a: f32) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm512_set1_ps(a) }
}

#[inline(always)]
pub unsafe fn add(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm512_add_ps(a, b) }
}

#[inline(always)]
pub unsafe fn max(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        // If either is NaN, the instruction gives its second operand.
        _mm512_mask_mov_ps(_mm512_max_ps(b, a), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(b, b), b)
    }
}

#[inline(always)]
pub unsafe fn min(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        // As in `max`.
        _mm512_mask_mov_ps(_mm512_min_ps(b, a), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(b, b), b)
    }
}

#[inline(always)]
pub unsafe fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm512_fmadd_ps(a, b, c) }
}

#[inline(always)]
pub unsafe fn add_scaled(a: f32, b: Vector, c: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm512_fmadd_ps(_mm512_set1_ps(a), b, c) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub unsafe fn add_row(
    from: *const f32,
    [left, right]: [Vector; 2],
    [mut first, mut second]: [Vector; 2],
) -> [Vector; 2] {
    // Its type says which kind of register.
    let _row: Vector;
    // SAFETY: one number is read, for which our caller vouches, and nothing written.
    unsafe {
        asm!(
            "vbroadcastss {row}, dword ptr [{from}]",
            "vfmadd231ps {first}, {row}, {left}",
            "vfmadd231ps {second}, {row}, {right}",
            from = in(reg) from,
            row = out(zmm_reg) _row,
            left = in(zmm_reg) left,
            right = in(zmm_reg) right,
            first = inout(zmm_reg) first,
            second = inout(zmm_reg) second,
            options(readonly, nostack, preserves_flags),
        );
    }
    [first, second]
}
