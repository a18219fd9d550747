//! Registers of eight numbers. Safety is the trait's matter: `Isa` says what each function may read and write.

use std::arch::x86_64::*;

pub type Vector = __m256;

#[inline(always)]
pub unsafe fn load(from: *const f32) -> Vector {
    // SAFETY: passed on to our caller.
    unsafe { _mm256_loadu_ps(from) }
}

#[inline(always)]
pub unsafe fn store(vector: Vector, to: *mut f32) {
    // SAFETY: passed on to our caller.
    unsafe { _mm256_storeu_ps(to, vector) }
}

#[inline(always)]
pub unsafe fn load_part(from: *const f32, first: usize, end: usize) -> Vector {
    // SAFETY: passed on to our caller; lanes that are left out are not read.
    unsafe {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let after = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first as i32 - 1));
        let before = _mm256_cmpgt_epi32(_mm256_set1_epi32(end as i32), lane);
        _mm256_maskload_ps(from, _mm256_and_si256(after, before))
    }
}

/// By halves: a store under a mask takes several times as long on some processors.
#[inline(always)]
pub unsafe fn store_first(vector: Vector, n: usize, mut to: *mut f32) {
    // SAFETY: passed on to our caller.
    unsafe {
        if n >= 8 {
            return _mm256_storeu_ps(to, vector);
        }
        let mut rest = _mm256_castps256_ps128(vector);
        if n & 4 != 0 {
            _mm_storeu_ps(to, rest);
            rest = _mm256_extractf128_ps::<1>(vector);
            to = to.add(4);
        }
        if n & 2 != 0 {
            _mm_storel_pd(to.cast(), _mm_castps_pd(rest));
            rest = _mm_movehl_ps(rest, rest);
            to = to.add(2);
        }
        if n & 1 != 0 {
            _mm_store_ss(to, rest);
        }
    }
}

#[inline(always)]
pub unsafe fn splat(a: f32) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm256_set1_ps(a) }
}

#[inline(always)]
pub unsafe fn add(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm256_add_ps(a, b) }
}

#[inline(always)]
pub unsafe fn max(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        // If either is NaN, the instruction gives its second operand.
        _mm256_blendv_ps(_mm256_max_ps(b, a), b, _mm256_cmp_ps::<_CMP_UNORD_Q>(b, b))
    }
}

#[inline(always)]
pub unsafe fn min(a: Vector, b: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe {
        // As in `max`.
        _mm256_blendv_ps(_mm256_min_ps(b, a), b, _mm256_cmp_ps::<_CMP_UNORD_Q>(b, b))
    }
}

#[inline(always)]
pub unsafe fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm256_fmadd_ps(a, b, c) }
}

#[inline(always)]
pub unsafe fn add_scaled(a: f32, b: Vector, c: Vector) -> Vector {
    // SAFETY: our caller vouches for the set.
    unsafe { _mm256_fmadd_ps(_mm256_set1_ps(a), b, c) }
}

/// Left to the compiler: with as few registers as these, it finds more of them for sums than beside written instructions.
#[inline(always)]
pub unsafe fn add_row(from: *const f32, [left, right]: [Vector; 2], [first, second]: [Vector; 2]) -> [Vector; 2] {
    // SAFETY: passed on to our caller.
    unsafe {
        let row = _mm256_set1_ps(*from);
        [_mm256_fmadd_ps(row, left, first), _mm256_fmadd_ps(row, right, second)]
    }
}

#[inline(always)]
pub unsafe fn put_sums<const C: usize>(sums: [[Vector; 4]; C], out: *mut f32, step: usize) {
    for (c, [first, second, third, fourth]) in sums.into_iter().enumerate() {
        // SAFETY: passed on to our caller.
        unsafe {
            let quads = _mm256_hadd_ps(_mm256_hadd_ps(first, second), _mm256_hadd_ps(third, fourth));
            let sums = _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps::<1>(quads));
            for (r, sum) in std::mem::transmute::<__m128, [f32; 4]>(sums).into_iter().enumerate() {
                *out.add(r * step + c) = sum;
            }
        }
    }
}

/// Pairs of rows, then pairs of pairs, then halves are interleaved.
#[inline(always)]
pub unsafe fn transpose(from: *const f32, step: isize, out: *mut f32, out_step: usize) {
    use std::arch::x86_64::{_mm256_unpackhi_ps as high, _mm256_unpacklo_ps as low};
    const FIRST: i32 = 0b01_00_01_00;
    const LAST: i32 = 0b11_10_11_10;
    // SAFETY: passed on to our caller.
    unsafe {
        let row = |i: usize| -> __m256 { _mm256_loadu_ps(from.offset(i as isize * step)) };
        let quads = |i: usize| -> [__m256; 4] {
            let [a, b, c, d] = [row(i), row(i + 1), row(i + 2), row(i + 3)];
            let (ab, cd, ab_high, cd_high) = (low(a, b), low(c, d), high(a, b), high(c, d));
            [
                _mm256_shuffle_ps::<FIRST>(ab, cd),
                _mm256_shuffle_ps::<LAST>(ab, cd),
                _mm256_shuffle_ps::<FIRST>(ab_high, cd_high),
                _mm256_shuffle_ps::<LAST>(ab_high, cd_high),
            ]
        };
        let (top, bottom) = (quads(0), quads(4));
        for j in 0..4 {
            _mm256_storeu_ps(out.add(j * out_step), _mm256_permute2f128_ps::<0x20>(top[j], bottom[j]));
            _mm256_storeu_ps(out.add((j + 4) * out_step), _mm256_permute2f128_ps::<0x31>(top[j], bottom[j]));
        }
    }
}
