//! Exponential and logarithmic functions, tanh and erf of one float, for both widths: polynomials over IEEE operations,
//! within 2 ulp for f32 and 1e-15 for f64 (1e-14 for erf). Special values as the standard library has them.
#![allow(clippy::excessive_precision, reason = "coefficients are given as published")]

use super::real::{Real, Width};
use super::text::{Class, Register};
use std::f64::consts::LOG2_E;

/// What differs between the widths.
struct Constants {
    /// Beyond these bounds eˣ is infinite, or zero.
    exp: (f64, f64),
    /// Below this bound eˣ − 1 is −1.
    expm1_low: f64,
    /// ln 2 in two parts, the first with so few bits that its multiples by exponents are exact.
    ln2: (f64, f64),
    /// P with eʳ − 1 = r + r²·P(r) for |r| ≤ ln 2 / 2, highest power first.
    exp_polynomial: &'static [f64],
    /// R with ln(1 + f) = f − f²/2 + s·(f²/2 + s²·R(s²)), s = f/(2 + f) (fdlibm `e_logf.c` and `e_log.c`).
    log_polynomial: &'static [f64],
    /// Bits of √½, the least mantissa after splitting.
    sqrt_half: u64,
    mantissa_bits: u32,
    least_normal: f64,
    /// Exponent of the factor that makes denormals normal.
    lift: i32,
}

const SINGLE: Constants = Constants {
    exp: (-105.0, 89.0),
    expm1_low: -30.0,
    // Cephes `expf`
    ln2: (0.693_359_375, -2.121_944_40e-4),
    exp_polynomial: &[
        1.987_569_150_0e-4,
        1.398_199_950_7e-3,
        8.333_451_907_3e-3,
        4.166_579_589_4e-2,
        1.666_666_545_9e-1,
        5.000_000_120_1e-1,
    ],
    log_polynomial: &[0.242_790_788_41, 0.284_987_866_88, 0.400_009_721_52, 0.666_666_626_93],
    sqrt_half: 0x3f35_04f3,
    mantissa_bits: 23,
    least_normal: f32::MIN_POSITIVE as f64,
    lift: 25,
};

const DOUBLE: Constants = Constants {
    exp: (-746.0, 710.0),
    expm1_low: -60.0,
    ln2: (6.931_471_803_691_238_164_90e-1, 1.908_214_929_270_587_700_02e-10),
    // 1/13!, 1/12!, …, 1/2!
    exp_polynomial: &[
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
    ],
    log_polynomial: &[
        1.479_819_860_511_658_591e-1,
        1.531_383_769_920_937_332e-1,
        1.818_357_216_161_805_012e-1,
        2.222_219_843_214_978_396e-1,
        2.857_142_874_366_239_149e-1,
        3.999_999_999_940_941_908e-1,
        6.666_666_666_666_735_130e-1,
    ],
    sqrt_half: 0x3fe6_a09e_667f_3bcd,
    mantissa_bits: 52,
    least_normal: f64::MIN_POSITIVE,
    lift: 54,
};

/// A float split as 2ᵏ·(1 + f).
pub struct Split {
    /// k as a float.
    pub exponent: Register,
    /// f in [√½ − 1, √2 − 1), exact.
    pub fraction: Register,
    /// k as an integer, not counting what a denormal was lifted by.
    whole: Register,
}

impl Real<'_> {
    const fn constants(&self) -> &'static Constants {
        match self.width {
            Width::Single => &SINGLE,
            Width::Double => &DOUBLE,
        }
    }

    /// `x` held to `low..=high`; NaN stays NaN.
    fn clamp(&mut self, x: Register, low: f64, high: f64) -> Register {
        let (low, high) = (self.c(low), self.c(high));
        let above = self.compare("gt", &x, &high);
        let x = self.select(above, &high, &x);
        let below = self.compare("lt", &x, &low);
        self.select(below, &low, &x)
    }

    /// x = n·ln 2 + r with |r| ≤ ln 2 / 2: n as an integer, and r.
    fn reduce_exp(&mut self, x: Register) -> (Register, Register) {
        let (high, low) = self.constants().ln2;
        let log2_e = self.c(LOG2_E);
        let scaled = self.mul(&x, &log2_e);
        let (n, whole) = self.nearest(scaled);
        let (high, low) = (self.c(-high), self.c(-low));
        let r = self.fma(&n, &high, &x);
        (whole, self.fma(&n, &low, &r))
    }

    /// eʳ − 1 = r + r²·P(r)
    fn expm1_core(&mut self, r: Register) -> Register {
        let p = self.polynomial(r, self.constants().exp_polynomial);
        let square = self.mul(&r, &r);
        self.fma(&p, &square, &r)
    }

    /// eˣ = 2ⁿ·(1 + expm1(r))
    pub fn exp(&mut self, x: Register) -> Register {
        self.exp_sum(x, None)
    }

    /// eˣ⁺ᵈ for a small correction d; where x lies outside the range of exponents, d does not count.
    pub fn exp_sum(&mut self, x: Register, correction: Option<Register>) -> Register {
        let (low, high) = self.constants().exp;
        let held = self.clamp(x, low, high);
        let (n, mut r) = self.reduce_exp(held);
        if let Some(correction) = correction {
            let inside = self.compare("eq", &held, &x);
            let zero = self.c(0.0);
            let correction = self.select(inside, &correction, &zero);
            r = self.add(&r, &correction);
        }
        let (core, one) = (self.expm1_core(r), self.c(1.0));
        let y = self.add(&core, &one);
        self.scale(y, n)
    }

    /// eˣ − 1 = 2·(2ⁿ⁻¹·expm1(r) + (2ⁿ⁻¹ − ½))
    pub fn expm1(&mut self, x: Register) -> Register {
        let constants = self.constants();
        let held = self.clamp(x, constants.expm1_low, constants.exp.1);
        let (n, r) = self.reduce_exp(held);
        let n = self.integer("sub", "s", &[&n, &1]);
        let (half, core) = (self.power_of_two(n), self.expm1_core(r));
        let minus_half = self.c(-0.5);
        let rest = self.add(&half, &minus_half);
        let y = self.fma(&half, &core, &rest);
        let y = self.add(&y, &y);
        let zero = self.c(0.0);
        let at_zero = self.compare("eq", &x, &zero);
        self.select(at_zero, &x, &y)
    }

    /// The positive `x` as 2ᵏ·(1 + f) with 1 + f in [√½, √2).
    pub fn split(&mut self, x: Register, may_be_denormal: bool) -> Split {
        let constants = self.constants();
        let (least, factor) = (self.c(constants.least_normal), self.c(2f64.powi(constants.lift)));
        let mut normal = x;
        let mut lifted = None;
        if may_be_denormal {
            let denormal = self.compare("lt", &x, &least);
            let larger = self.mul(&x, &factor);
            normal = self.select(denormal, &larger, &x);
            lifted = Some(denormal);
        }
        let mask = (1u64 << constants.mantissa_bits) - 1;
        let bits = self.bits(normal);
        let from_half = self.integer("sub", "s", &[&bits, &constants.sqrt_half]);
        let whole = self.integer("shr", "s", &[&from_half, &constants.mantissa_bits]);
        let mantissa = self.integer("and", "b", &[&from_half, &mask]);
        let mantissa = self.integer("add", "s", &[&mantissa, &constants.sqrt_half]);
        let mantissa = self.float_of(mantissa);
        let minus_one = self.c(-1.0);
        let fraction = self.add(&mantissa, &minus_one);
        let mut exponent = match self.width {
            Width::Single => self.text.float("cvt.rn.f32.s32", &[&whole]),
            Width::Double => self.text.double("cvt.rn.f64.s64", &[&whole]),
        };
        if let Some(denormal) = lifted {
            let (by, zero) = (self.c(-f64::from(constants.lift)), self.c(0.0));
            let by = self.select(denormal, &by, &zero);
            exponent = self.add(&exponent, &by);
        }
        Split { exponent, fraction, whole }
    }

    /// k·ln 2 + ln(1 + f) + c
    fn log_core(&mut self, k: Register, f: Register, c: Register) -> Register {
        let (ln2_high, ln2_low) = self.log_ln2();
        let (two, half) = (self.c(2.0), self.c(0.5));
        let denominator = self.add(&f, &two);
        let s = self.div(&f, &denominator);
        let z = self.mul(&s, &s);
        let r = self.polynomial(z, self.constants().log_polynomial);
        let half_f = self.mul(&f, &half);
        let half_square = self.mul(&half_f, &f);
        let (low, high) = (self.c(ln2_low), self.c(ln2_high));
        let tail = self.fma(&k, &low, &c);
        let inner = self.fma(&r, &z, &half_square);
        let inner = self.fma(&s, &inner, &tail);
        let inner = self.sub(&inner, &half_square);
        let near = self.add(&inner, &f);
        self.fma(&k, &high, &near)
    }

    /// ln 2 in two parts of which the first, times an exponent, is exact (fdlibm).
    pub const fn log_ln2(&self) -> (f64, f64) {
        match self.width {
            Width::Single => (6.931_381_225_6e-1, 9.058_000_614_5e-6),
            Width::Double => DOUBLE.ln2,
        }
    }

    /// ln x; −∞ at 0, NaN below.
    pub fn log(&mut self, x: Register) -> Register {
        let split = self.split(x, true);
        let none = self.constant(0.0);
        let y = self.log_core(split.exponent, split.fraction, none);
        self.log_special(x, y, 0.0)
    }

    /// The values of a logarithm at its edges: infinite at `zero` (where its value is −∞) and ∞, NaN below.
    fn log_special(&mut self, x: Register, y: Register, zero: f64) -> Register {
        let (infinity, minus) = (self.c(f64::INFINITY), self.c(f64::NEG_INFINITY));
        let (zero, nan) = (self.c(zero), self.c(f64::NAN));
        let infinite = self.compare("eq", &x, &infinity);
        let y = self.select(infinite, &x, &y);
        let at_zero = self.compare("eq", &x, &zero);
        let y = self.select(at_zero, &minus, &y);
        let inside = self.compare("ge", &x, &zero);
        self.select(inside, &y, &nan)
    }

    /// ln(1 + x) by fdlibm's `s_log1p.c`: with u = 1 + x rounded, ln u + c/u, where c is the rounding error of u.
    pub fn log1p(&mut self, x: Register) -> Register {
        let (one, minus_one, zero) = (self.c(1.0), self.c(-1.0), self.c(0.0));
        let (digits, tiny) = match self.width {
            Width::Single => (25, 5.9e-8),
            Width::Double => (54, 1.1e-16),
        };
        let u = self.add(&x, &one);
        let split = self.split(u, false);
        let kind = match self.width {
            Width::Single => "s32",
            Width::Double => "s64",
        };
        let is = |real: &mut Self, comparison: &str, bound: i32| {
            real.text.predicate(&format!("setp.{comparison}.{kind}"), &[&split.whole, &bound])
        };
        let large = is(self, "ge", 2);
        let back = self.sub(&u, &x);
        let c_large = self.sub(&one, &back);
        let whole = self.add(&u, &minus_one);
        let c_small = self.sub(&x, &whole);
        let c = self.select(large, &c_large, &c_small);
        let c = self.div(&c, &u);
        let counts = is(self, "lt", digits);
        let c = self.select(counts, &c, &zero);
        let near = is(self, "eq", 0);
        let fraction = self.select(near, &x, &split.fraction);
        let c = self.select(near, &zero, &c);
        let y = self.log_core(split.exponent, fraction, c);
        let tiny = self.c(tiny);
        let size = self.abs(&x);
        let is_tiny = self.compare("lt", &size, &tiny);
        let y = self.select(is_tiny, &x, &y);
        self.log_special(x, y, -1.0)
    }

    /// tanh x
    pub fn tanh(&mut self, x: Register) -> Register {
        match self.width {
            Width::Single => self.tanh_single(x),
            Width::Double => self.tanh_double(x),
        }
    }

    /// x + x³·P(x²) for |x| < 0.625 (Cephes `tanhf`), else 1 − 2 / (e²ˣ + 1).
    fn tanh_single(&mut self, x: Register) -> Register {
        let t = self.abs(&x);
        let z = self.mul(&x, &x);
        let p = self.polynomial(
            z,
            &[
                -5.704_988_727_45e-3,
                2.063_908_879_54e-2,
                -5.373_971_555_31e-2,
                1.333_144_220_36e-1,
                -3.333_328_194_22e-1,
            ],
        );
        let pz = self.mul(&p, &z);
        let small = self.fma(&pz, &t, &t);
        let double = self.add(&t, &t);
        let held = self.clamp(double, 0.0, 20.0);
        let (n, r) = self.reduce_exp(held);
        let (core, one, minus_two) = (self.expm1_core(r), self.c(1.0), self.c(-2.0));
        let mantissa = self.add(&core, &one);
        let power = self.power_of_two(n);
        let e = self.fma(&mantissa, &power, &one);
        let part = self.div(&minus_two, &e);
        let large = self.add(&part, &one);
        let bound = self.c(0.625);
        let is_small = self.compare("lt", &t, &bound);
        let y = self.select(is_small, &small, &large);
        self.with_sign(y, x)
    }

    /// −u/(u + 2) with u = expm1(−2t) for t = |x| < 1, else 1 − 2/(u + 2) with u = expm1(2t) (fdlibm `s_tanh.c`).
    fn tanh_double(&mut self, x: Register) -> Register {
        let t = self.abs(&x);
        let t = self.clamp(t, 0.0, 22.0);
        let (one, two) = (self.c(1.0), self.c(2.0));
        let small = self.compare("lt", &t, &one);
        let double = self.add(&t, &t);
        let minus = self.neg(&double);
        let argument = self.select(small, &minus, &double);
        let u = self.expm1(argument);
        let denominator = self.add(&u, &two);
        let minus_u = self.neg(&u);
        let numerator = self.select(small, &minus_u, &two);
        let quotient = self.div(&numerator, &denominator);
        let rest = self.sub(&one, &quotient);
        let y = self.select(small, &quotient, &rest);
        self.with_sign(y, x)
    }

    /// erf x
    pub fn erf(&mut self, x: Register) -> Register {
        match self.width {
            Width::Single => self.erf_single(x),
            Width::Double => self.erf_double(x),
        }
    }

    /// Minimax polynomials by N. Juffa (stackoverflow.com/a/35148199): x + x·P(x²) near 0, beyond
    /// 1 − exp(−t + t·Q(t)) with t = |x|.
    fn erf_single(&mut self, x: Register) -> Register {
        let t = self.abs(&x);
        let t = self.clamp(t, 0.0, 10.0);
        let s = self.mul(&t, &t);
        let high = self.polynomial(t, &[-1.728_534_70e-5, 3.831_971_26e-4]);
        let low = self.polynomial(t, &[-3.883_964_38e-3, 2.425_462_19e-2]);
        let mut q = self.fma(&high, &s, &low);
        for coefficient in [-1.067_778_77e-1, -6.348_466_87e-1, -1.287_175_12e-1] {
            let coefficient = self.c(coefficient);
            q = self.fma(&q, &t, &coefficient);
        }
        let minus_t = self.neg(&t);
        let q = self.fma(&q, &t, &minus_t);
        let power = self.exp(q);
        let one = self.c(1.0);
        let large = self.sub(&one, &power);
        let p = self.polynomial(
            s,
            &[-5.967_617_03e-4, 4.991_194_23e-3, -2.676_813_49e-2, 1.128_199_25e-1, -3.761_253_36e-1, 1.283_791_66e-1],
        );
        let small = self.fma(&p, &t, &t);
        let bound = self.c(0.927_734_375);
        let is_large = self.compare("gt", &t, &bound);
        let y = self.select(is_large, &large, &small);
        self.with_sign(y, x)
    }

    /// fdlibm `s_erf.c`, one branch for each interval of |x|.
    fn erf_double(&mut self, x: Register) -> Register {
        let t = self.abs(&x);
        let y = self.constant(1.0);
        let (done, beyond_small, beyond_one) = (self.text.label(), self.text.label(), self.text.label());
        // Above 6 it is 1.
        let six = self.c(6.0);
        let far = self.compare("ge", &t, &six);
        self.text.branch_if(far, done);
        let bound = self.c(0.843_75);
        let beyond = self.compare("ge", &t, &bound);
        self.text.branch_if(beyond, beyond_small);
        // t + t·R(t²); NaN comes this way too.
        let z = self.mul(&t, &t);
        let ratio = self.ratio(z, &erf::SMALL_P, &erf::SMALL_Q);
        let small = self.fma(&t, &ratio, &t);
        self.text.set(y, "mov.f64", &[&small]);
        self.text.branch(done);

        self.text.place(beyond_small);
        let bound = self.c(1.25);
        let beyond = self.compare("ge", &t, &bound);
        self.text.branch_if(beyond, beyond_one);
        // erf(1) + P(t − 1)/Q(t − 1)
        let (minus_one, centre) = (self.c(-1.0), self.c(erf::AT_ONE));
        let s = self.add(&t, &minus_one);
        let ratio = self.ratio(s, &erf::NEAR_ONE_P, &erf::NEAR_ONE_Q);
        let near = self.add(&ratio, &centre);
        self.text.set(y, "mov.f64", &[&near]);
        self.text.branch(done);

        self.text.place(beyond_one);
        let (tail, one) = (self.erfc_tail(t), self.c(1.0));
        let large = self.sub(&one, &tail);
        self.text.set(y, "mov.f64", &[&large]);
        self.text.place(done);
        self.with_sign(y, x)
    }

    /// erfc(t) = exp(−t² − 0.5625 + P(1/t²)/Q(1/t²)) / t for t ≥ 1.25. t² is formed exactly from the upper half of t:
    /// −t² = −z² + (z − t)(z + t).
    fn erfc_tail(&mut self, t: Register) -> Register {
        let (one, bound) = (self.c(1.0), self.c(1.0 / 0.35));
        let square = self.mul(&t, &t);
        let s = self.div(&one, &square);
        let middle = self.ratio(s, &erf::MIDDLE_P, &erf::MIDDLE_Q);
        let far = self.ratio(s, &erf::FAR_P, &erf::FAR_Q);
        let is_middle = self.compare("lt", &t, &bound);
        let ratio = self.select(is_middle, &middle, &far);
        let bits = self.bits(t);
        let upper = self.text.op(Class::Long, "and.b64", &[&bits, &"0xFFFFFFFF00000000"]);
        let z = self.float_of(upper);
        let (difference, sum, minus_z, shift) = (self.sub(&z, &t), self.add(&z, &t), self.neg(&z), self.c(-0.5625));
        let first = self.fma(&minus_z, &z, &shift);
        let second = self.fma(&difference, &sum, &ratio);
        let (first, second) = (self.exp(first), self.exp(second));
        let product = self.mul(&first, &second);
        self.div(&product, &t)
    }

    /// P(x)/Q(x), the coefficients given from the lowest power up.
    fn ratio(&mut self, x: Register, p: &[f64], q: &[f64]) -> Register {
        let falling = |c: &[f64]| c.iter().rev().copied().collect::<Vec<f64>>();
        let (p, q) = (self.polynomial(x, &falling(p)), self.polynomial(x, &falling(q)));
        self.div(&p, &q)
    }
}

/// Coefficients of fdlibm's `s_erf.c` (Sun Microsystems 1993), lowest power first.
#[rustfmt::skip]
mod erf {
    /// erf(1) rounded to 24 bits.
    pub const AT_ONE: f64 = 8.450_629_115_104_675e-1;
    pub const SMALL_P: [f64; 5] = [
        1.283_791_670_955_125_585_61e-1, -3.250_421_072_470_014_993_70e-1, -2.848_174_957_559_851_047_66e-2,
        -5.770_270_296_489_441_591_57e-3, -2.376_301_665_665_016_260_84e-5,
    ];
    pub const SMALL_Q: [f64; 6] = [
        1.0, 3.979_172_239_591_553_528_19e-1, 6.502_224_998_876_729_444_85e-2, 5.081_306_281_875_765_627_76e-3,
        1.324_947_380_043_216_445_26e-4, -3.960_228_278_775_368_123_20e-6,
    ];
    pub const NEAR_ONE_P: [f64; 7] = [
        -2.362_118_560_752_659_440_77e-3, 4.148_561_186_837_483_316_66e-1, -3.722_078_760_357_013_238_47e-1,
        3.183_466_199_011_617_536_74e-1, -1.108_946_942_823_966_774_76e-1, 3.547_830_432_561_823_593_71e-2,
        -2.166_375_594_868_790_843_00e-3,
    ];
    pub const NEAR_ONE_Q: [f64; 7] = [
        1.0, 1.064_208_804_008_442_282_86e-1, 5.403_979_177_021_710_489_37e-1, 7.182_865_441_419_626_628_68e-2,
        1.261_712_198_087_616_421_12e-1, 1.363_708_391_202_905_073_62e-2, 1.198_449_984_679_910_741_70e-2,
    ];
    pub const MIDDLE_P: [f64; 8] = [
        -9.864_944_034_847_148_227_05e-3, -6.938_585_727_071_817_643_72e-1, -1.055_862_622_532_329_098_14e1,
        -6.237_533_245_032_600_603_96e1, -1.623_966_694_625_734_703_55e2, -1.846_050_929_067_110_359_94e2,
        -8.128_743_550_630_659_342_46e1, -9.814_329_344_169_145_485_92,
    ];
    pub const MIDDLE_Q: [f64; 9] = [
        1.0, 1.965_127_166_743_925_712_92e1, 1.376_577_541_435_190_426_00e2, 4.345_658_774_752_292_288_21e2,
        6.453_872_717_332_678_803_36e2, 4.290_081_400_275_678_333_86e2, 1.086_350_055_417_794_351_34e2,
        6.570_249_770_319_281_701_35, -6.042_441_521_485_809_874_38e-2,
    ];
    pub const FAR_P: [f64; 7] = [
        -9.864_942_924_700_099_285_97e-3, -7.992_832_376_805_230_065_74e-1, -1.775_795_491_775_475_198_89e1,
        -1.606_363_848_558_219_160_62e2, -6.375_664_433_683_896_277_22e2, -1.025_095_131_611_077_249_54e3,
        -4.835_191_916_086_513_970_19e2,
    ];
    pub const FAR_Q: [f64; 8] = [
        1.0, 3.033_806_074_348_245_829_24e1, 3.257_925_129_965_739_188_26e2, 1.536_729_586_084_436_959_94e3,
        3.199_858_219_508_595_539_08e3, 2.553_050_406_433_164_425_83e3, 4.745_285_412_069_553_672_15e2,
        -2.244_095_244_658_581_833_62e1,
    ];
}
