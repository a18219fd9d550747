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

/// Four columns at once, so that a row of four is stored, then two, then one. Up to seven, and no loops: they would keep the sums in memory.
#[inline(always)]
pub unsafe fn put_sums<const C: usize>(sums: [[Vector; 4]; C], out: *mut f32, step: usize) {
    // SAFETY: passed on to our caller.
    unsafe {
        const { assert!(C < 8) };
        if C >= 4 {
            let [a, b, c, d] = [sums[0], sums[1], sums[2], sums[3]];
            let upper = halves(by_quarters(a[0], b[0], c[0], d[0]), by_quarters(a[1], b[1], c[1], d[1]));
            let lower = halves(by_quarters(a[2], b[2], c[2], d[2]), by_quarters(a[3], b[3], c[3], d[3]));
            let all = quarters(upper, lower);
            _mm_storeu_ps(out, _mm512_castps512_ps128(all));
            _mm_storeu_ps(out.add(step), _mm512_extractf32x4_ps::<1>(all));
            _mm_storeu_ps(out.add(2 * step), _mm512_extractf32x4_ps::<2>(all));
            _mm_storeu_ps(out.add(3 * step), _mm512_extractf32x4_ps::<3>(all));
        }
        let c = C / 4 * 4;
        if C % 4 >= 2 {
            // Two columns of two rows stand in a quarter.
            let [a, b] = [sums[c], sums[c + 1]];
            let both = halves(by_quarters(a[0], b[0], a[1], b[1]), by_quarters(a[2], b[2], a[3], b[3]));
            let all = _mm512_add_ps(both, _mm512_shuffle_f32x4::<0b10_11_00_01>(both, both));
            let (upper, lower) = (_mm512_castps512_ps128(all), _mm512_extractf32x4_ps::<2>(all));
            _mm_storel_pd(out.add(c).cast(), _mm_castps_pd(upper));
            _mm_storeh_pd(out.add(step + c).cast(), _mm_castps_pd(upper));
            _mm_storel_pd(out.add(2 * step + c).cast(), _mm_castps_pd(lower));
            _mm_storeh_pd(out.add(3 * step + c).cast(), _mm_castps_pd(lower));
        }
        if C % 2 == 1 {
            let [first, second, third, fourth] = sums[C - 1];
            *out.add(C - 1) = _mm512_reduce_add_ps(first);
            *out.add(step + C - 1) = _mm512_reduce_add_ps(second);
            *out.add(2 * step + C - 1) = _mm512_reduce_add_ps(third);
            *out.add(3 * step + C - 1) = _mm512_reduce_add_ps(fourth);
        }
    }
}

/// In each quarter the sums of these vectors' quarters.
#[inline(always)]
unsafe fn by_quarters(a: Vector, b: Vector, c: Vector, d: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        let pairs = |x, y| {
            let kept = _mm512_mask_mov_ps(x, 0b1100_1100_1100_1100, y);
            _mm512_add_ps(kept, _mm512_shuffle_ps::<0b01_00_11_10>(x, y))
        };
        let (ab, cd) = (pairs(a, b), pairs(c, d));
        let (even, odd) = (_mm512_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm512_shuffle_ps::<0b11_01_11_01>(ab, cd));
        _mm512_add_ps(even, odd)
    }
}

/// `a`'s quarters added up in pairs in two quarters, and `b`'s in the other two.
#[inline(always)]
unsafe fn halves(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        let kept = _mm512_mask_mov_ps(a, 0xff00, b);
        _mm512_add_ps(kept, _mm512_shuffle_f32x4::<0b01_00_11_10>(a, b))
    }
}

/// The quarters of two results of [`halves`] added up in pairs, one after another.
#[inline(always)]
unsafe fn quarters(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        let (even, odd) = (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        _mm512_add_ps(even, odd)
    }
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
