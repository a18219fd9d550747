//! Sine and cosine. Arguments are reduced by π/2: in three steps of Cody and Waite where that is exact enough, else by the
//! digits of 2/π that matter (Payne and Hanek, "Radian reduction for trigonometric functions", SIGNUM 1983), so that
//! every argument holds, up to the greatest.
#![allow(clippy::excessive_precision, reason = "coefficients are given as published")]

use super::real::{Real, Width};
use super::text::Register;
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// 2/π·2⁻² in words of 64 bits, the highest first: enough for every exponent of f64.
const TWO_OVER_PI: [u64; 19] = [
    0x28be_60db_9391_054a,
    0x7f09_d5f4_7d4d_3770,
    0x36d8_a566_4f10_e410,
    0x7f94_58ea_f7ae_f158,
    0x6dc9_1b8e_9093_74b8,
    0x0192_4bba_8274_6487,
    0x3f87_7ac7_2c4a_69cf,
    0xba20_8d7d_4bae_d121,
    0x3a67_1c09_ad17_df90,
    0x4e64_758e_60d4_ce7d,
    0x2721_17e2_ef7e_4a0e,
    0xc7fe_25ff_f781_6603,
    0xfbcb_c462_d682_9b47,
    0xdb4d_9fb3_c9f2_c26d,
    0xd3d1_8fd9_a797_fa8b,
    0x5d49_eeb1_faf9_7c5e,
    0xcf41_ce7d_e294_a4ba,
    0x9afe_d7ec_47e3_5742,
    0x1580_cc11_bf1e_daea,
];

/// The declaration of the table, which stands before the functions of a module that reads it.
pub fn table() -> String {
    let words: Vec<String> = TWO_OVER_PI.iter().map(|word| format!("0x{word:016X}")).collect();
    format!(".const .align 8 .b64 two_over_pi[{}] = {{{}}};\n", words.len(), words.join(", "))
}

/// An argument less a multiple of π/2.
struct Reduced {
    /// In [−π/4, π/4].
    rest: Register,
    /// The multiple, of which the last two bits count.
    quadrant: Register,
}

impl Real<'_> {
    /// sin x
    pub fn sin(&mut self, x: Register) -> Register {
        let reduced = self.reduce(x);
        let y = self.quarter_wave(&reduced);
        // Keeps the sign of zero.
        let zero = self.c(0.0);
        let at_zero = self.compare("eq", &x, &zero);
        self.select(at_zero, &x, &y)
    }

    /// cos x = sin(x + π/2)
    pub fn cos(&mut self, x: Register) -> Register {
        let reduced = self.reduce(x);
        let quadrant = self.text.word("add.s32", &[&reduced.quadrant, &1]);
        self.quarter_wave(&Reduced { quadrant, ..reduced })
    }

    /// The sine of rest + quadrant·π/2 (FreeBSD `k_sinf.c`, `k_cosf.c` as minimax polynomials of f32; fdlibm `k_sin.c`,
    /// `k_cos.c` for f64).
    fn quarter_wave(&mut self, reduced: &Reduced) -> Register {
        let (sine, cosine): (&[f64], &[f64]) = match self.width {
            Width::Single => (
                &[2.865_679_56e-6, -1.985_599_23e-4, 8.333_385_92e-3, -1.666_666_72e-1],
                &[2.446_770_67e-5, -1.388_772_97e-3, 4.166_665_67e-2, -0.5, 1.0],
            ),
            Width::Double => (
                &[
                    1.589_690_995_211_550_102_21e-10,
                    -2.505_076_025_340_686_341_95e-8,
                    2.755_731_370_707_006_767_89e-6,
                    -1.984_126_982_985_794_931_34e-4,
                    8.333_333_333_322_489_461_24e-3,
                    -1.666_666_666_666_663_243_48e-1,
                ],
                &[
                    -1.135_964_755_778_819_482_65e-11,
                    2.087_572_321_298_174_827_90e-9,
                    -2.755_731_435_139_066_330_35e-7,
                    2.480_158_728_947_672_941_78e-5,
                    -1.388_888_888_887_410_957_49e-3,
                    4.166_666_666_666_660_190_37e-2,
                    -0.5,
                    1.0,
                ],
            ),
        };
        let r = reduced.rest;
        let z = self.mul(&r, &r);
        let s = self.polynomial(z, sine);
        let sz = self.mul(&s, &z);
        let sin = self.fma(&sz, &r, &r);
        let cos = self.polynomial(z, cosine);
        let low = self.text.word("and.b32", &[&reduced.quadrant, &1]);
        let odd = self.text.predicate("setp.ne.s32", &[&low, &0]);
        let y = self.select(odd, &cos, &sin);
        let high = self.text.word("and.b32", &[&reduced.quadrant, &2]);
        let lower_half = self.text.predicate("setp.ne.s32", &[&high, &0]);
        let minus = self.neg(&y);
        self.select(lower_half, &minus, &y)
    }

    /// x less the nearest multiple of π/2; infinities and NaN give a NaN.
    fn reduce(&mut self, x: Register) -> Reduced {
        // π/2 in three parts; with fused multiplications the first two steps are exact within the bound.
        let (parts, bound) = match self.width {
            Width::Single => ([-1.570_796_01, -3.139_164_73e-7, -5.390_302_53e-15], 40_000.0),
            Width::Double => ([-FRAC_PI_2, -6.123_233_995_736_757_4e-17, -8.478_427_660_368_898_5e-32], 100_000.0),
        };
        let (factor, bound) = (self.c(FRAC_2_PI), self.c(bound));
        let size = self.abs(&x);
        let large = self.compare("gt", &size, &bound);
        let zero = self.c(0.0);
        let held = self.select(large, &zero, &x);
        let scaled = self.mul(&held, &factor);
        let (n, whole) = self.nearest(scaled);
        let mut rest = held;
        for part in parts {
            let part = self.c(part);
            rest = self.fma(&n, &part, &rest);
        }
        let quadrant = match self.width {
            Width::Single => whole,
            Width::Double => self.text.word("cvt.u32.u64", &[&whole]),
        };
        let done = self.text.label();
        self.text.branch_unless(large, done);
        match self.width {
            Width::Single => self.reduce_large_single(x, rest, quadrant),
            Width::Double => self.reduce_large_double(x, rest, quadrant),
        }
        self.text.place(done);
        Reduced { rest, quadrant }
    }

    /// Into `rest` and `quadrant`. The mantissa times the 96 bits of 2/π that its exponent selects, as a fixed-point number
    /// of which the two highest bits are the quadrant (N. Juffa's reduction, here on immediates).
    fn reduce_large_single(&mut self, x: Register, rest: Register, quadrant: Register) {
        let words: Vec<u32> = TWO_OVER_PI[..4].iter().flat_map(|w| [(w >> 32) as u32, *w as u32]).collect();
        let bits = self.bits(x);
        let text = &mut *self.text;
        let mantissa = text.word("and.b32", &[&bits, &0x007f_ffff]);
        let mantissa = text.word("or.b32", &[&mantissa, &0x0080_0000]);
        let mantissa = text.word("shl.b32", &[&mantissa, &8]);
        let exponent = text.word("shr.u32", &[&bits, &23]);
        let exponent = text.word("and.b32", &[&exponent, &0xff]);
        let exponent = text.word("sub.s32", &[&exponent, &126]);
        let shift = text.word("and.b32", &[&exponent, &31]);
        let which = text.word("shr.u32", &[&exponent, &5]);
        // Words which − 1 ..= which + 2; the exponents that come here have which in 0..=4.
        let mut window: Vec<Register> = Vec::new();
        for place in 0..4usize {
            let at = |which: usize| (which + place).checked_sub(1).map_or(0, |word| words[word]);
            let word = text.word("mov.b32", &[&at(4)]);
            for candidate in 0..4 {
                let here = text.predicate("setp.eq.s32", &[&which, &candidate]);
                text.set(word, "selp.b32", &[&at(candidate), &word, &here]);
            }
            window.push(word);
        }
        let shifted = |text: &mut super::text::Text, high: Register, low: Register| {
            text.word("shf.l.wrap.b32", &[&low, &high, &shift])
        };
        let high = shifted(text, window[0], window[1]);
        let middle = shifted(text, window[1], window[2]);
        let low = shifted(text, window[2], window[3]);
        let product = text.long("mul.wide.u32", &[&mantissa, &low]);
        let carry = text.long("shr.u64", &[&product, &32]);
        let product = text.long("mad.wide.u32", &[&mantissa, &middle, &carry]);
        let top = text.word("mul.lo.u32", &[&mantissa, &high]);
        let top = text.long("cvt.u64.u32", &[&top]);
        let top = text.long("shl.b64", &[&top, &32]);
        let product = text.long("add.u64", &[&product, &top]);
        let (whole, fraction) = self.signed_fraction(product);
        // fraction·2⁻⁶²·π/2
        let wide = self.text.double("cvt.rn.f64.s64", &[&fraction]);
        let factor = Width::Double.immediate(FRAC_PI_2 * 2f64.powi(-62));
        let wide = self.text.double("mul.rn.f64", &[&wide, &factor]);
        let found = self.text.float("cvt.rn.f32.f64", &[&wide]);
        self.finish_large(x, found, whole, rest, quadrant);
    }

    /// The same for f64: 64-bit words of the table, a product of 128 bits.
    fn reduce_large_double(&mut self, x: Register, rest: Register, quadrant: Register) {
        let bits = self.bits(x);
        self.text.reads_two_over_pi = true;
        let text = &mut *self.text;
        let mantissa = text.long("and.b64", &[&bits, &"0x000FFFFFFFFFFFFF"]);
        let mantissa = text.long("or.b64", &[&mantissa, &"0x0010000000000000"]);
        let mantissa = text.long("shl.b64", &[&mantissa, &11]);
        let exponent = text.long("shr.u64", &[&bits, &52]);
        let exponent = text.word("cvt.u32.u64", &[&exponent]);
        let exponent = text.word("and.b32", &[&exponent, &0x7ff]);
        let exponent = text.word("sub.s32", &[&exponent, &1022]);
        let shift = text.word("and.b32", &[&exponent, &63]);
        let which = text.word("shr.u32", &[&exponent, &6]);
        // Words which − 1 ..= which + 2, zero before the first. Exponents 1024 (infinity, NaN) give 16 as the greatest.
        let address = text.long("mov.u64", &[&"two_over_pi"]);
        let address = text.long("mad.wide.s32", &[&which, &8, &address]);
        let first = text.long("mov.b64", &[&0]);
        let inner = text.predicate("setp.gt.s32", &[&which, &0]);
        text.act_if(Some(inner), "ld.const.b64", &[&first, &format!("[{address}+-8]")]);
        let mut window = vec![first];
        for place in 0..3 {
            window.push(text.long("ld.const.b64", &[&format!("[{address}+{}]", 8 * place)]));
        }
        // A shift by 64 gives zero, as it should.
        let back = text.word("sub.s32", &[&64, &shift]);
        let shifted: Vec<Register> = (0..3)
            .map(|i| {
                let high = text.long("shl.b64", &[&window[i], &shift]);
                let low = text.long("shr.u64", &[&window[i + 1], &back]);
                text.long("or.b64", &[&high, &low])
            })
            .collect();
        // The upper 128 bits of mantissa · (high, middle, low), without what exceeds them.
        let low_high = text.long("mul.hi.u64", &[&mantissa, &shifted[2]]);
        let middle_low = text.long("mul.lo.u64", &[&mantissa, &shifted[1]]);
        let middle_high = text.long("mul.hi.u64", &[&mantissa, &shifted[1]]);
        let high_low = text.long("mul.lo.u64", &[&mantissa, &shifted[0]]);
        let lower = text.long("add.u64", &[&low_high, &middle_low]);
        let carries = text.predicate("setp.lt.u64", &[&lower, &low_high]);
        let carry = text.long("selp.b64", &[&1, &0, &carries]);
        let upper = text.long("add.u64", &[&middle_high, &high_low]);
        let upper = text.long("add.u64", &[&upper, &carry]);
        let (whole, fraction) = self.signed_fraction(upper);
        // (fraction·2⁻⁶² + lower·2⁻¹²⁶)·π/2
        let high = self.text.double("cvt.rn.f64.s64", &[&fraction]);
        let low = self.text.double("cvt.rn.f64.u64", &[&lower]);
        let (high_unit, low_unit) = (self.c(FRAC_PI_2 * 2f64.powi(-62)), self.c(FRAC_PI_2 * 2f64.powi(-126)));
        let low = self.mul(&low, &low_unit);
        let found = self.fma(&high, &high_unit, &low);
        self.finish_large(x, found, whole, rest, quadrant);
    }

    /// A fixed-point number with two bits before the point as an integer and a signed fraction in [−½, ½).
    fn signed_fraction(&mut self, product: Register) -> (Register, Register) {
        let text = &mut *self.text;
        // Adding ½ before cutting rounds to the nearest integer.
        let half = text.long("add.u64", &[&product, &"0x2000000000000000"]);
        let whole = text.long("shr.u64", &[&half, &62]);
        let multiple = text.long("shl.b64", &[&whole, &62]);
        let fraction = text.long("sub.s64", &[&product, &multiple]);
        (text.word("cvt.u32.u64", &[&whole]), fraction)
    }

    /// Put the sign of x back, and NaN where x is not finite.
    fn finish_large(&mut self, x: Register, found: Register, whole: Register, rest: Register, quadrant: Register) {
        let (zero, infinity, nan) = (self.c(0.0), self.c(f64::INFINITY), self.c(f64::NAN));
        let negative = self.compare("lt", &x, &zero);
        let minus = self.neg(&found);
        let signed = self.select(negative, &minus, &found);
        let size = self.abs(&x);
        let finite = self.compare("lt", &size, &infinity);
        let signed = self.select(finite, &signed, &nan);
        self.text.set(rest, &format!("mov.{}", self.width.suffix()), &[&signed]);
        let minus = self.text.word("neg.s32", &[&whole]);
        self.text.set(quadrant, "selp.b32", &[&minus, &whole, &negative]);
    }
}
