//! The error function in double precision, which the standard library lacks. The rational approximations are those of
//! fdlibm (`s_erf.c`, Sun Microsystems 1993): error below one ulp.
#![allow(clippy::excessive_precision, reason = "coefficients are given as published")]

use raphson_graph::fdlibm::{FAR_P, FAR_Q, MIDDLE_P, MIDDLE_Q};

/// erf(1) rounded to 24 bits: the centre of the second interval.
const ERF_ONE: f64 = 8.450_629_115_104_675e-1;

/// Numerators and denominators, lowest power first; each denominator starts with 1.
const SMALL_P: [f64; 5] = [
    1.283_791_670_955_125_585_61e-1,
    -3.250_421_072_470_014_993_70e-1,
    -2.848_174_957_559_851_047_66e-2,
    -5.770_270_296_489_441_591_57e-3,
    -2.376_301_665_665_016_260_84e-5,
];
const SMALL_Q: [f64; 6] = [
    1.0,
    3.979_172_239_591_553_528_19e-1,
    6.502_224_998_876_729_444_85e-2,
    5.081_306_281_875_765_627_76e-3,
    1.324_947_380_043_216_445_26e-4,
    -3.960_228_278_775_368_123_20e-6,
];
const NEAR_ONE_P: [f64; 7] = [
    -2.362_118_560_752_659_440_77e-3,
    4.148_561_186_837_483_316_66e-1,
    -3.722_078_760_357_013_238_47e-1,
    3.183_466_199_011_617_536_74e-1,
    -1.108_946_942_823_966_774_76e-1,
    3.547_830_432_561_823_593_71e-2,
    -2.166_375_594_868_790_843_00e-3,
];
const NEAR_ONE_Q: [f64; 7] = [
    1.0,
    1.064_208_804_008_442_282_86e-1,
    5.403_979_177_021_710_489_37e-1,
    7.182_865_441_419_626_628_68e-2,
    1.261_712_198_087_616_421_12e-1,
    1.363_708_391_202_905_073_62e-2,
    1.198_449_984_679_910_741_70e-2,
];

fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// erf(x) = 2/√π · ∫₀ˣ exp(−t²) dt
pub fn erf(x: f64) -> f64 {
    let t = x.abs();
    if x.is_nan() {
        return x;
    }
    if t < 0.843_75 {
        // erf(x) = x + x·R(x²); below 2⁻²⁸ R is its constant, and scaling by 8 keeps denormals exact.
        if t < 3.725_290_298_461_914e-9 {
            return 0.125 * (8.0 * x + 8.0 * SMALL_P[0] * x);
        }
        let z = x * x;
        return x + x * (polynomial(&SMALL_P, z) / polynomial(&SMALL_Q, z));
    }
    let magnitude = if t < 1.25 {
        // erf(t) = erf(1) + P(t − 1)/Q(t − 1)
        let s = t - 1.0;
        ERF_ONE + polynomial(&NEAR_ONE_P, s) / polynomial(&NEAR_ONE_Q, s)
    } else if t < 6.0 {
        1.0 - erfc_tail(t)
    } else {
        1.0
    };
    magnitude.copysign(x)
}

/// erfc(t) = exp(−t² − 0.5625 + P(1/t²)/Q(1/t²)) / t for t ≥ 1.25. t² is formed exactly from the upper half of t:
/// −t² = −z² + (z − t)(z + t).
fn erfc_tail(t: f64) -> f64 {
    let s = 1.0 / (t * t);
    let ratio = if t < 1.0 / 0.35 {
        polynomial(&MIDDLE_P, s) / polynomial(&MIDDLE_Q, s)
    } else {
        polynomial(&FAR_P, s) / polynomial(&FAR_Q, s)
    };
    let z = f64::from_bits(t.to_bits() & 0xffff_ffff_0000_0000);
    (-z * z - 0.5625).exp() * ((z - t) * (z + t) + ratio).exp() / t
}
