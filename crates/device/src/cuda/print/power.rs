//! xʸ and the remainder of a division, for both float widths.

use super::real::{Real, Width};
use super::text::Register;

impl Real<'_> {
    /// xʸ = e^(y·ln x), with ln x and the product carried in two registers each, so that large exponents lose nothing; the
    /// special values are those of C's `pow`.
    pub fn pow(&mut self, x: Register, y: Register) -> Register {
        let t = self.abs(&x);
        let (high, low) = self.log_pair(t);
        // y·(high + low) = p + correction
        let p = self.mul(&y, &high);
        let minus_p = self.neg(&p);
        let rest = self.fma(&y, &high, &minus_p);
        let correction = self.fma(&y, &low, &rest);
        let magnitude = self.exp_sum(p, Some(correction));
        self.pow_special(x, y, t, magnitude)
    }

    /// ln t = high + low for t ≥ 0, relative error about the square of the width's.
    fn log_pair(&mut self, t: Register) -> (Register, Register) {
        let split = self.split(t, true);
        let (k, f) = (split.exponent, split.fraction);
        // s + s_low = f/(2 + f)
        let (two, minus_two) = (self.c(2.0), self.c(-2.0));
        let denominator = self.add(&f, &two);
        let back = self.add(&denominator, &minus_two);
        let denominator_low = self.sub(&f, &back);
        let s = self.div(&f, &denominator);
        let minus_s = self.neg(&s);
        let rest = self.fma(&minus_s, &denominator, &f);
        let rest = self.fma(&minus_s, &denominator_low, &rest);
        let s_low = self.div(&rest, &denominator);
        // ln(1 + f) = 2·artanh s = 2s + s³·(2/3 + 2/5·s² + …), s² ≤ 0.0295
        let z = self.mul(&s, &s);
        let n_terms = match self.width {
            Width::Single => 5,
            Width::Double => 11,
        };
        let coefficients: Vec<f64> = (0..n_terms).rev().map(|i| 2.0 / f64::from(2 * i + 3)).collect();
        let series = self.polynomial(z, &coefficients);
        let cube = self.mul(&z, &s);
        let (ln2_high, ln2_low) = self.log_ln2();
        let (ln2_high, ln2_low) = (self.c(ln2_high), self.c(ln2_low));
        let twice = self.add(&s, &s);
        let whole = self.mul(&k, &ln2_high);
        let high = self.add(&whole, &twice);
        let part = self.sub(&high, &whole);
        let low = self.sub(&twice, &part);
        let low = self.fma(&two, &s_low, &low);
        let low = self.fma(&cube, &series, &low);
        let low = self.fma(&k, &ln2_low, &low);
        let sum = self.add(&high, &low);
        let part = self.sub(&sum, &high);
        let rest = self.sub(&low, &part);
        // The ends.
        let (zero, infinity, minus) = (self.c(0.0), self.c(f64::INFINITY), self.c(f64::NEG_INFINITY));
        let at_zero = self.compare("eq", &t, &zero);
        let sum = self.select(at_zero, &minus, &sum);
        let at_infinity = self.compare("equ", &t, &infinity);
        let sum = self.select(at_infinity, &t, &sum);
        let inner = self.text.predicate("or.pred", &[&at_zero, &at_infinity]);
        let rest = self.select(inner, &zero, &rest);
        (sum, rest)
    }

    fn pow_special(&mut self, x: Register, y: Register, t: Register, magnitude: Register) -> Register {
        let (zero, one, half, infinity) = (self.c(0.0), self.c(1.0), self.c(0.5), self.c(f64::INFINITY));
        let trunc = format!("cvt.rzi.{0}", self.width.suffix());
        let cut = self.op(&trunc, &[&y]);
        let whole = self.compare("eq", &cut, &y);
        let half_y = self.mul(&y, &half);
        let cut = self.op(&trunc, &[&half_y]);
        let odd = self.compare("ne", &cut, &half_y);
        let odd = self.text.predicate("and.pred", &[&odd, &whole]);
        // The sign of −0 counts.
        let signed_one = self.with_sign_of(&one, x);
        let negative = self.compare("lt", &signed_one, &zero);
        let flips = self.text.predicate("and.pred", &[&odd, &negative]);
        let minus = self.neg(&magnitude);
        let value = self.select(flips, &minus, &magnitude);
        // Undefined: a finite negative base and a fractional exponent, or a NaN.
        let below = self.compare("lt", &x, &zero);
        let finite = self.compare("lt", &t, &infinity);
        let fractional = self.text.predicate("not.pred", &[&whole]);
        let undefined = self.text.predicate("and.pred", &[&below, &finite]);
        let undefined = self.text.predicate("and.pred", &[&undefined, &fractional]);
        let unordered = self.compare("nan", &x, &y);
        let undefined = self.text.predicate("or.pred", &[&undefined, &unordered]);
        let nan = self.c(f64::NAN);
        let value = self.select(undefined, &nan, &value);
        // One: exponent 0, base 1, or base −1 to an infinite power.
        let by_exponent = self.compare("eq", &y, &zero);
        let by_base = self.compare("eq", &x, &one);
        let unit = self.compare("eq", &t, &one);
        let size = self.abs(&y);
        let endless = self.compare("eq", &size, &infinity);
        let unit = self.text.predicate("and.pred", &[&unit, &endless]);
        let is_one = self.text.predicate("or.pred", &[&by_exponent, &by_base]);
        let is_one = self.text.predicate("or.pred", &[&is_one, &unit]);
        self.select(is_one, &one, &value)
    }

    fn with_sign_of(&mut self, a: &dyn std::fmt::Display, sign: Register) -> Register {
        self.op("copysign", &[&sign, a])
    }

    /// x − y·trunc(x/y) exactly, with the sign of x. Where the quotient fits the mantissa, one division and a correction;
    /// else long division by doubling, bit by bit.
    pub fn remainder(&mut self, x: Register, y: Register) -> Register {
        let (zero, infinity, half) = (self.c(0.0), self.c(f64::INFINITY), self.c(0.5));
        let limit = match self.width {
            Width::Single => 4_194_304.0,
            Width::Double => 2_251_799_813_685_248.0,
        };
        let limit = self.c(limit);
        let (a, b) = (self.abs(&x), self.abs(&y));
        let quotient = self.div(&a, &b);
        let cut = self.op(&format!("cvt.rzi.{}", self.width.suffix()), &[&quotient]);
        let minus = self.neg(&cut);
        let rest = self.fma(&minus, &b, &a);
        let below = self.compare("lt", &rest, &zero);
        let more = self.add(&rest, &b);
        let rest = self.select(below, &more, &rest);
        let above = self.compare("ge", &rest, &b);
        let less = self.sub(&rest, &b);
        let rest = self.select(above, &less, &rest);
        let smaller = self.compare("lt", &a, &b);
        let result = self.select(smaller, &a, &rest);

        let done = self.text.label();
        let finite = self.compare("lt", &a, &infinity);
        let divides = self.compare("gt", &b, &zero);
        let long = self.compare("ge", &quotient, &limit);
        let long = self.text.predicate("and.pred", &[&long, &finite]);
        let long = self.text.predicate("and.pred", &[&long, &divides]);
        self.text.branch_unless(long, done);
        let movement = format!("mov.{}", self.width.suffix());
        let (sum, difference, product) =
            ["add.rn", "sub.rn", "mul.rn"].map(|op| format!("{op}.{}", self.width.suffix())).into();
        let (left, step) = (self.text.copy(a), self.text.copy(b));
        // The greatest step = b·2ⁱ that is not above a.
        let (up, top, down) = (self.text.label(), self.text.label(), self.text.label());
        self.text.place(up);
        let room = self.sub(&left, &step);
        let fits = self.compare("le", &step, &room);
        self.text.branch_unless(fits, top);
        self.text.set(step, &sum, &[&step, &step]);
        self.text.branch(up);
        self.text.place(top);
        self.text.place(down);
        let goes = self.compare("ge", &left, &step);
        let skip = self.text.label();
        self.text.branch_unless(goes, skip);
        self.text.set(left, &difference, &[&left, &step]);
        self.text.place(skip);
        let again = self.compare("gt", &step, &b);
        self.text.set(step, &product, &[&step, &half]);
        self.text.branch_if(again, down);
        self.text.set(result, &movement, &[&left]);
        self.text.place(done);

        let defined = self.text.predicate("and.pred", &[&finite, &divides]);
        let nan = self.c(f64::NAN);
        let result = self.select(defined, &result, &nan);
        // A NaN divisor compares as "does not divide"; the sign is that of x.
        self.with_sign(result, x)
    }
}
