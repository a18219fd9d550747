//! Transcendental functions of one f32, written without branches so that loops over them vectorise: at most 2 ulp from
//! the true value (the tests print what is reached). The f64 kernels call the standard library instead.
#![allow(clippy::excessive_precision, reason = "coefficients are given as published")]

use super::isa::Isa;

/// Adding 1.5·2²³ leaves the nearest integer in the low bits of an f32.
const ROUND: f32 = 12_582_912.0;
/// The same for f64: 1.5·2⁵².
const ROUND64: f64 = 6_755_399_441_055_744.0;

/// ln 2 in two parts, the first of so few bits that its multiples are exact (Cephes `expf`).
const LN2_HIGH: f32 = 0.693_359_375;
const LN2_LOW: f32 = -2.121_944_40e-4;

/// x = n·ln 2 + r with |r| ≤ ln 2 / 2. NaN gives an arbitrary n and r = NaN.
#[inline(always)]
fn reduce_exp<I: Isa>(x: f32) -> (i32, f32) {
    let shifted = I::fma32(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = I::fma32(n, -LN2_LOW, I::fma32(n, -LN2_HIGH, x));
    ((shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32), r)
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// eʳ − 1 for |r| ≤ ln 2 / 2: r + r²·P(r), with P of Cephes `expf`.
#[inline(always)]
fn expm1_core<I: Isa>(r: f32) -> f32 {
    let mut p = 1.987_569_150_0e-4;
    p = I::fma32(p, r, 1.398_199_950_7e-3);
    p = I::fma32(p, r, 8.333_451_907_3e-3);
    p = I::fma32(p, r, 4.166_579_589_4e-2);
    p = I::fma32(p, r, 1.666_666_545_9e-1);
    p = I::fma32(p, r, 5.000_000_120_1e-1);
    I::fma32(p, r * r, r)
}

/// `x` held to `low..=high`; NaN stays NaN.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}

/// eˣ = 2ⁿ·(1 + expm1(r)), scaled in two steps so that results may be denormal or infinite.
#[inline(always)]
pub fn exp<I: Isa>(x: f32) -> f32 {
    let (n, r) = reduce_exp::<I>(clamp(x, -105.0, 89.0));
    let half = n >> 1;
    (1.0 + expm1_core::<I>(r)) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// eˣ − 1 = 2·(2ⁿ⁻¹·expm1(r) + (2ⁿ⁻¹ − ½)); below −30 it is −1.
#[inline(always)]
pub fn expm1<I: Isa>(x: f32) -> f32 {
    let (n, r) = reduce_exp::<I>(clamp(x, -30.0, 89.0));
    let half = power_of_two(n.wrapping_sub(1));
    let y = 2.0 * I::fma32(half, expm1_core::<I>(r), half - 0.5);
    if x == 0.0 { x } else { y }
}

/// tanh x = x + x³·P(x²) for |x| < 0.625 (Cephes `tanhf`), else 1 − 2 / (e²ˣ + 1).
#[inline(always)]
pub fn tanh<I: Isa>(x: f32) -> f32 {
    let t = x.abs();
    let z = x * x;
    let mut p = -5.704_988_727_45e-3;
    p = I::fma32(p, z, 2.063_908_879_54e-2);
    p = I::fma32(p, z, -5.373_971_555_31e-2);
    p = I::fma32(p, z, 1.333_144_220_36e-1);
    p = I::fma32(p, z, -3.333_328_194_22e-1);
    let small = I::fma32(p * z, t, t);
    let (n, r) = reduce_exp::<I>(clamp(t + t, 0.0, 20.0));
    let e = (1.0 + expm1_core::<I>(r)) * power_of_two(n);
    let large = 1.0 - 2.0 / (e + 1.0);
    (if t < 0.625 { small } else { large }).copysign(x)
}

/// Bits of √½, from which mantissas are counted, so that they lie in [√½, √2).
const SQRT_HALF: i32 = 0x3f35_04f3;

/// The positive normal `x` as 2ᵏ·(1 + f), with 1 + f in [√½, √2).
#[inline(always)]
fn split(x: f32) -> (i32, f32) {
    let bits = (x.to_bits() as i32).wrapping_sub(SQRT_HALF);
    let k = bits >> 23;
    let mantissa = (bits & 0x007f_ffff).wrapping_add(SQRT_HALF);
    (k, f32::from_bits(mantissa as u32) - 1.0)
}

/// k·ln 2 + ln(1 + f) + c, by fdlibm's `e_logf.c`: s = f/(2 + f), ln(1 + f) = f − f²/2 + s·(f²/2 + R(s²)).
#[inline(always)]
fn log_core<I: Isa>(k: f32, f: f32, c: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let mut r = 0.242_790_788_41;
    r = I::fma32(r, z, 0.284_987_866_88);
    r = I::fma32(r, z, 0.400_009_721_52);
    r = I::fma32(r, z, 0.666_666_626_93);
    let half_square = 0.5 * f * f;
    let tail = I::fma32(k, 9.058_000_614_5e-6, c);
    I::fma32(k, 6.931_381_225_6e-1, (I::fma32(s, half_square + r * z, tail) - half_square) + f)
}

/// ln x; −∞ at 0, NaN below.
#[inline(always)]
pub fn log<I: Isa>(x: f32) -> f32 {
    let denormal = x < f32::MIN_POSITIVE;
    let (k, f) = split(if denormal { x * 33_554_432.0 } else { x });
    let y = log_core::<I>(k as f32 - if denormal { 25.0 } else { 0.0 }, f, 0.0);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// ln(1 + x) by fdlibm's `s_log1pf.c`: with u = 1 + x rounded, ln u + c/u, where c is the rounding error of u.
#[inline(always)]
pub fn log1p<I: Isa>(x: f32) -> f32 {
    let u = 1.0 + x;
    let (k, f) = split(u);
    let c = if k >= 2 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let c = if k < 25 { c / u } else { 0.0 };
    let near = k == 0;
    let y = log_core::<I>(k as f32, if near { x } else { f }, if near { 0.0 } else { c });
    let y = if x.abs() < 5.9e-8 { x } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    if x >= -1.0 { y } else { f32::NAN }
}

/// Largest |x| for which `sin` and `cos` here hold; the loops use the standard functions beyond.
pub const TRIGONOMETRIC_LIMIT: f32 = 1.0e6;

/// sin(x + quarter·π/2). Cody–Waite reduction and polynomials in f64, which makes every f32 argument exact
/// (fdlibm `__rem_pio2f`, FreeBSD `k_sinf.c` and `k_cosf.c`).
#[inline(always)]
fn sin_quarter<I: Isa>(x: f32, quarter: u64) -> f32 {
    let x = f64::from(x);
    let shifted = I::fma64(x, std::f64::consts::FRAC_2_PI, ROUND64);
    let n = shifted - ROUND64;
    let quadrant = shifted.to_bits().wrapping_add(quarter);
    let r = I::fma64(n, -1.589_325_477_352_819_669_16e-8, I::fma64(n, -1.570_796_310_901_641_845_70, x));
    let z = r * r;
    let mut s = 0.000_002_718_311_493_989_821_906_4;
    s = I::fma64(s, z, -0.000_198_393_348_360_966_317_347);
    s = I::fma64(s, z, 0.008_333_329_385_889_463_175_6);
    s = I::fma64(s, z, -0.166_666_666_416_265_235_595);
    let sin = I::fma64(s * z, r, r);
    let mut c = 0.000_024_390_448_796_277_409_065_4;
    c = I::fma64(c, z, -0.001_388_676_377_460_992_946_92);
    c = I::fma64(c, z, 0.041_666_623_323_739_063_189_4);
    c = I::fma64(c, z, -0.499_999_997_251_031_003_120);
    let cos = I::fma64(c, z, 1.0);
    let magnitude = if quadrant & 1 == 0 { sin } else { cos };
    f64::from_bits(magnitude.to_bits() ^ ((quadrant & 2) << 62)) as f32
}

/// sin x for |x| ≤ [`TRIGONOMETRIC_LIMIT`].
#[inline(always)]
pub fn sin<I: Isa>(x: f32) -> f32 {
    let y = sin_quarter::<I>(x, 0);
    if x == 0.0 { x } else { y }
}

/// cos x for |x| ≤ [`TRIGONOMETRIC_LIMIT`].
#[inline(always)]
pub fn cos<I: Isa>(x: f32) -> f32 {
    sin_quarter::<I>(x, 1)
}

/// erf x. Minimax polynomials by N. Juffa (stackoverflow.com/a/35148199): x + x·P(x²) near 0, beyond
/// 1 − exp(−t + t·Q(t)) with t = |x|.
#[inline(always)]
pub fn erf<I: Isa>(x: f32) -> f32 {
    let t = clamp(x.abs(), 0.0, 10.0);
    let s = t * t;
    let mut q = I::fma32(-1.728_534_70e-5, t, 3.831_971_26e-4);
    q = I::fma32(q, s, I::fma32(-3.883_964_38e-3, t, 2.425_462_19e-2));
    q = I::fma32(q, t, -1.067_778_77e-1);
    q = I::fma32(q, t, -6.348_466_87e-1);
    q = I::fma32(q, t, -1.287_175_12e-1);
    q = I::fma32(q, t, -t);
    let large = 1.0 - exp::<I>(q);
    let mut p = -5.967_617_03e-4;
    p = I::fma32(p, s, 4.991_194_23e-3);
    p = I::fma32(p, s, -2.676_813_49e-2);
    p = I::fma32(p, s, 1.128_199_25e-1);
    p = I::fma32(p, s, -3.761_253_36e-1);
    p = I::fma32(p, s, 1.283_791_66e-1);
    let small = I::fma32(p, t, t);
    (if t > 0.927_734_375 { large } else { small }).copysign(x)
}

/// log₂ of a positive finite number, by 2·atanh((m − 1)/(m + 1)) of its mantissa; relative error about 2⁻³⁸.
#[inline(always)]
fn log2_wide<I: Isa>(x: f64) -> f64 {
    let bits = x.to_bits();
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // The exponent as a float without an integer conversion: it is put into the mantissa of 2⁵².
    let e = f64::from_bits((bits >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1023.0);
    let high = m > std::f64::consts::SQRT_2;
    let m = if high { 0.5 * m } else { m };
    let e = if high { e + 1.0 } else { e };
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 15.0;
    for divisor in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        p = I::fma64(p, z, 1.0 / divisor);
    }
    I::fma64(s * p, 2.0 * std::f64::consts::LOG2_E, e)
}

/// 2ᵖ for |p| ≤ 1000, by the Taylor series of eʳ; relative error about 2⁻³².
#[inline(always)]
fn exp2_wide<I: Isa>(p: f64) -> f64 {
    let shifted = p + ROUND64;
    let r = (p - (shifted - ROUND64)) * std::f64::consts::LN_2;
    let mut y = 1.0 / 362_880.0;
    for factorial in [40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        y = I::fma64(y, r, 1.0 / factorial);
    }
    let n = shifted.to_bits().wrapping_sub(ROUND64.to_bits());
    y * f64::from_bits(n.wrapping_add(1023) << 52)
}

/// xʸ = 2^(y·log₂ x) in f64, with the special values of C's `pow`.
#[inline(always)]
pub fn pow<I: Isa>(x: f32, y: f32) -> f32 {
    let (wide_x, wide_y) = (f64::from(x), f64::from(y));
    let t = wide_x.abs();
    let log = log2_wide::<I>(t);
    let log = if t == 0.0 { f64::NEG_INFINITY } else { log };
    let log = if t == f64::INFINITY { t } else { log };
    let p = wide_y * log;
    let p = if p > 160.0 { 160.0 } else { p };
    let p = if p < -160.0 { -160.0 } else { p };
    let magnitude = exp2_wide::<I>(p) as f32;

    let shifted = wide_y + ROUND64;
    let whole = shifted - ROUND64 == wide_y;
    let odd = whole & (shifted.to_bits() & 1 == 1) & (wide_y.abs() < 16_777_216.0);
    let negative = x.to_bits() >> 31 == 1;
    let signed = if negative & odd { -magnitude } else { magnitude };
    let undefined = (x < 0.0) & (t < f64::INFINITY) & !whole;
    let undefined = undefined | x.is_nan() | y.is_nan();
    let value = if undefined { f32::NAN } else { signed };
    let one = (y == 0.0) | (x == 1.0) | ((t == 1.0) & (wide_y.abs() == f64::INFINITY));
    if one { 1.0 } else { value }
}

/// First word of Threefry-2x32-20 for the counter (counter, 0): Salmon, Moraes, Dror, Shaw, "Parallel random numbers:
/// as easy as 1, 2, 3", SC 2011.
#[inline(always)]
pub fn threefry(key0: u32, key1: u32, counter: u32) -> u32 {
    threefry_block(key0, key1, counter, 0).0
}

#[inline(always)]
fn threefry_block(key0: u32, key1: u32, counter0: u32, counter1: u32) -> (u32, u32) {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key0, key1, 0x1bd1_1bda ^ key0 ^ key1];
    let (mut x0, mut x1) = (counter0.wrapping_add(key0), counter1.wrapping_add(key1));
    for group in 0..5 {
        for round in 0..4 {
            x0 = x0.wrapping_add(x1);
            x1 = x1.rotate_left(ROTATIONS[(4 * group + round) % 8]) ^ x0;
        }
        x0 = x0.wrapping_add(keys[(group + 1) % 3]);
        x1 = x1.wrapping_add(keys[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    (x0, x1)
}

#[cfg(test)]
mod tests {
    use super::threefry_block;

    /// Known answers of the Random123 library, `kat_vectors`, threefry2x32 with 20 rounds.
    #[test]
    fn threefry_gives_the_published_words() {
        assert_eq!(threefry_block(0, 0, 0, 0), (0x6b20_0159, 0x99ba_4efe));
        assert_eq!(threefry_block(!0, !0, !0, !0), (0x1cb9_96fc, 0xbb00_2be7));
        assert_eq!(threefry_block(0x1319_8a2e, 0x0370_7344, 0x243f_6a88, 0x85a3_08d3), (0xc492_3a9c, 0x483d_f7a0));
    }
}
