//! Functions of the kernel language that WGSL lacks or does not promise to be accurate: NaN tests, comparisons that hold
//! for denormals, transcendental functions of f32, exact remainders, Threefry. As text; what a kernel uses is put in
//! front of it.
//!
//! WGSL lets an implementation assume that there is no NaN, flush denormals, and be off by thousands of ulp in `sin`.
//! So everything that must be exact looks at bit patterns, and everything that must be accurate is a polynomial here.

/// The functions whose names occur in `body`, and those that they call in turn, as one text.
pub fn functions_for(body: &str) -> String {
    let mut used = vec![false; FUNCTIONS.len()];
    let mut text = String::new();
    // A function calls only those above it, so one walk from the last to the first finds all.
    for position in (0..FUNCTIONS.len()).rev() {
        let (name, definition) = FUNCTIONS[position];
        used[position] = body.contains(name) || text.contains(name);
        if used[position] {
            text.push_str(definition.trim_start());
        }
    }
    text
}

/// Name with its opening parenthesis, and definition.
const FUNCTIONS: &[(&str, &str)] = &[
    (
        "m_bits(",
        // The variable keeps the compiler from evaluating the bitcast itself, which it refuses for NaN and infinities.
        "
fn m_bits(pattern: u32) -> f32 {
    var kept = pattern;
    return bitcast<f32>(kept);
}
",
    ),
    (
        "m_nan(",
        "
fn m_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
",
    ),
    (
        // An integer that orders as the float does; both zeros give 0.
        "m_order(",
        "
fn m_order(x: f32) -> i32 {
    let b = bitcast<i32>(x);
    return select(b, i32(-2147483648) - b, b < 0);
}
",
    ),
    (
        // The same with NaN as the greatest.
        "m_key(",
        "
fn m_key(x: f32) -> i32 {
    return select(m_order(x), 2147483647, m_nan(x));
}
",
    ),
    (
        "m_lt(",
        "
fn m_lt(x: f32, y: f32) -> bool {
    return m_order(x) < m_order(y) && !m_nan(x) && !m_nan(y);
}
",
    ),
    (
        "m_le(",
        "
fn m_le(x: f32, y: f32) -> bool {
    return m_order(x) <= m_order(y) && !m_nan(x) && !m_nan(y);
}
",
    ),
    (
        "m_eq(",
        "
fn m_eq(x: f32, y: f32) -> bool {
    return m_order(x) == m_order(y) && !m_nan(x);
}
",
    ),
    (
        "m_min(",
        "
fn m_min(x: f32, y: f32) -> f32 {
    let least = select(y, x, m_order(x) < m_order(y));
    return select(least, m_bits(0x7fc00000u), m_nan(x) || m_nan(y));
}
",
    ),
    (
        "m_max(",
        "
fn m_max(x: f32, y: f32) -> f32 {
    let greatest = select(y, x, m_order(x) > m_order(y));
    return select(greatest, m_bits(0x7fc00000u), m_nan(x) || m_nan(y));
}
",
    ),
    (
        // The value of a half given by its bits; by hand, since `unpack2x16float` may flush what is subnormal.
        "m_from_f16(",
        "
fn m_from_f16(half: u32) -> f32 {
    let exponent = (half >> 10u) & 31u;
    let digits = half & 0x3ffu;
    let normal = ((exponent + 112u) << 23u) | (digits << 13u);
    let special = 0x7f800000u | (digits << 13u);
    let subnormal = bitcast<u32>(f32(digits) * 5.9604644775390625e-8);
    let size = select(select(normal, special, exponent == 31u), subnormal, exponent == 0u);
    return m_bits(size | ((half & 0x8000u) << 16u));
}
",
    ),
    (
        // The bits of the nearest half, ties to even: a subnormal one counts units of 2^-24, a normal one gets half a
        // unit added.
        "m_to_f16(",
        "
fn m_to_f16(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    let small = size < 0x38800000u;
    let units = u32(round(select(0.0, bitcast<f32>(size), small) * 16777216.0));
    let normal = (size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u;
    let special = select(0x7c00u, 0x7e00u, size > 0x7f800000u);
    let half = select(select(normal, units, small), special, size >= 0x47800000u);
    return half | ((bits >> 16u) & 0x8000u);
}
",
    ),
    (
        "m_round_f16(",
        "
fn m_round_f16(x: f32) -> f32 {
    return m_from_f16(m_to_f16(x));
}
",
    ),
    (
        "m_round_bf16(",
        "
fn m_round_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
    return m_bits(select(rounded, bits | 0x400000u, m_nan(x)) & 0xffff0000u);
}
",
    ),
    (
        // 2147483520 is the greatest f32 below 2^31.
        "m_to_i32(",
        "
fn m_to_i32(x: f32) -> i32 {
    let inside = i32(clamp(select(x, 0.0, m_nan(x)), -2147483648.0, 2147483520.0));
    let high = select(inside, 2147483647, m_order(x) >= 0x4f000000);
    return select(high, 0, m_nan(x));
}
",
    ),
    (
        "m_to_u32(",
        "
fn m_to_u32(x: f32) -> u32 {
    let inside = u32(clamp(select(x, 0.0, m_nan(x)), 0.0, 4294967040.0));
    let high = select(inside, 4294967295u, m_order(x) >= 0x4f800000);
    return select(high, 0u, m_nan(x));
}
",
    ),
    (
        "m_div_i32(",
        "
fn m_div_i32(x: i32, y: i32) -> i32 {
    let odd = y == 0 || (y == -1 && x == i32(-2147483648));
    return select(x / select(y, 1, odd), select(x, 0, y == 0), odd);
}
",
    ),
    (
        "m_div_u32(",
        "
fn m_div_u32(x: u32, y: u32) -> u32 {
    return select(x / select(y, 1u, y == 0u), 0u, y == 0u);
}
",
    ),
    (
        // x rem -1 is 0 for every x, and asking the hardware overflows for the least one.
        "m_rem_i32(",
        "
fn m_rem_i32(x: i32, y: i32) -> i32 {
    let odd = y == 0 || y == -1;
    return select(x % select(y, 1, odd), 0, odd);
}
",
    ),
    (
        "m_rem_u32(",
        "
fn m_rem_u32(x: u32, y: u32) -> u32 {
    return select(x % select(y, 1u, y == 0u), 0u, y == 0u);
}
",
    ),
    (
        // Exact: mantissas are subtracted and shifted as integers, one step for each power of two between x and y.
        "m_rem(",
        "
fn m_rem(x: f32, y: f32) -> f32 {
    let sign = bitcast<u32>(x) & 0x80000000u;
    let ax = bitcast<u32>(x) & 0x7fffffffu;
    let ay = bitcast<u32>(y) & 0x7fffffffu;
    let undefined = ax >= 0x7f800000u || ay > 0x7f800000u || ay == 0u;
    var mx = (ax & 0x7fffffu) | select(0u, 0x800000u, ax >= 0x800000u);
    let ny = (ay & 0x7fffffu) | select(0u, 0x800000u, ay >= 0x800000u);
    let low = countLeadingZeros(ny | 1u) - 8u;
    let my = ny << low;
    let ey = i32(max(ay >> 23u, 1u)) - i32(low);
    let smaller = ax < ay;
    let steps = select(i32(max(ax >> 23u, 1u)) - ey, 0, undefined || smaller);
    for (var i = 0; i < steps; i++) {
        mx = select(mx, mx - my, mx >= my) << 1u;
    }
    mx = select(mx, mx - my, mx >= my);
    let up = countLeadingZeros(mx | 1u) - 8u;
    let e = ey - i32(up);
    let m = mx << up;
    let normal = (u32(e) << 23u) | (m & 0x7fffffu);
    let tiny = m >> u32(clamp(1 - e, 0, 31));
    let result = select(select(normal, tiny, e < 1), 0u, mx == 0u);
    return m_bits(select(select(sign | result, bitcast<u32>(x), smaller), 0x7fc00000u, undefined));
}
",
    ),
    (
        "m_sqrt(",
        "
fn m_sqrt(x: f32) -> f32 {
    let negative = m_order(x) < 0;
    let root = select(sqrt(abs(x)), x, m_order(x) == 0);
    return select(root, m_bits(0x7fc00000u), negative || m_nan(x));
}
",
    ),
    (
        // 2ⁿ for −126 ≤ n ≤ 127
        "m_pow2(",
        "
fn m_pow2(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}
",
    ),
    (
        // eʳ − 1 for |r| ≤ ln 2 / 2: r + r²·P(r), with P of Cephes `expf`
        "m_expm1_core(",
        "
fn m_expm1_core(r: f32) -> f32 {
    var p = 1.9875691500e-4;
    p = fma(p, r, 1.3981999507e-3);
    p = fma(p, r, 8.3334519073e-3);
    p = fma(p, r, 4.1665795894e-2);
    p = fma(p, r, 1.6666665459e-1);
    p = fma(p, r, 5.0000001201e-1);
    return fma(p, r * r, r);
}
",
    ),
    (
        // x = n·ln 2 + r; ln 2 in two parts, the first of so few bits that its multiples are exact (Cephes)
        "m_exp_rest(",
        "
fn m_exp_rest(x: f32, n: f32) -> f32 {
    return fma(n, 2.12194440e-4, fma(n, -0.693359375, x));
}
",
    ),
    (
        // eˣ = 2ⁿ·(1 + expm1(r)), scaled in two steps so that results may be denormal or infinite
        "m_exp(",
        "
fn m_exp(x: f32) -> f32 {
    let c = clamp(select(x, 0.0, m_nan(x)), -105.0, 89.0);
    let n = round(c * 1.4426950408889634);
    let k = i32(n);
    let y = (1.0 + m_expm1_core(m_exp_rest(c, n))) * m_pow2(k >> 1u) * m_pow2(k - (k >> 1u));
    return select(y, x, m_nan(x));
}
",
    ),
    (
        // eˣ − 1 = 2·(2ⁿ⁻¹·expm1(r) + (2ⁿ⁻¹ − ½)); below −30 it is −1
        "m_expm1(",
        "
fn m_expm1(x: f32) -> f32 {
    let c = clamp(select(x, 0.0, m_nan(x)), -30.0, 89.0);
    let n = round(c * 1.4426950408889634);
    let half = m_pow2(i32(n) - 1);
    let y = 2.0 * fma(half, m_expm1_core(m_exp_rest(c, n)), half - 0.5);
    return select(y, x, m_nan(x) || x == 0.0);
}
",
    ),
    (
        // tanh x = x + x³·P(x²) for |x| < 0.625 (Cephes `tanhf`), else 1 − 2 / (e²ˣ + 1)
        "m_tanh(",
        "
fn m_tanh(x: f32) -> f32 {
    let t = abs(x);
    let z = x * x;
    var p = -5.70498872745e-3;
    p = fma(p, z, 2.06390887954e-2);
    p = fma(p, z, -5.37397155531e-2);
    p = fma(p, z, 1.33314422036e-1);
    p = fma(p, z, -3.33332819422e-1);
    let small = fma(p * z, x, x);
    let large = 1.0 - 2.0 / (m_exp(min(t + t, 20.0)) + 1.0);
    return select(select(small, select(large, -large, x < 0.0), t >= 0.625), x, m_nan(x));
}
",
    ),
    (
        // erf x, minimax polynomials by N. Juffa (stackoverflow.com/a/35148199): x + x·P(x²) near 0, beyond
        // 1 − exp(−t + t·Q(t)) with t = |x|
        "m_erf(",
        "
fn m_erf(x: f32) -> f32 {
    let t = min(abs(x), 10.0);
    let s = t * t;
    var q = fma(-1.72853470e-5, t, 3.83197126e-4);
    q = fma(q, s, fma(-3.88396438e-3, t, 2.42546219e-2));
    q = fma(q, t, -1.06777877e-1);
    q = fma(q, t, -6.34846687e-1);
    q = fma(q, t, -1.28717512e-1);
    q = fma(q, t, -t);
    let large = 1.0 - m_exp(q);
    var p = -5.96761703e-4;
    p = fma(p, s, 4.99119423e-3);
    p = fma(p, s, -2.67681349e-2);
    p = fma(p, s, 1.12819925e-1);
    p = fma(p, s, -3.76125336e-1);
    p = fma(p, s, 1.28379166e-1);
    let small = fma(p, x, x);
    return select(select(small, select(large, -large, x < 0.0), t > 0.927734375), x, m_nan(x));
}
",
    ),
    (
        // The bits of a positive number as (k, bits of 1 + f): 2ᵏ·(1 + f) with 1 + f in [√½, √2). A denormal is taken
        // as its integer mantissa, so that nothing flushes it.
        "m_split(",
        "
fn m_split(x: f32) -> vec2<i32> {
    let b = bitcast<u32>(x);
    let denormal = b < 0x800000u;
    let normal = select(b, bitcast<u32>(f32(b)), denormal);
    let shifted = i32(normal) - 0x3f3504f3;
    let k = (shifted >> 23u) - select(0, 149, denormal);
    return vec2<i32>(k, (shifted & 0x7fffff) + 0x3f3504f3);
}
",
    ),
    (
        // k·ln 2 + ln(1 + f) + c by fdlibm's `e_logf.c`: s = f/(2 + f), ln(1 + f) = f − f²/2 + s·(f²/2 + R(s²))
        "m_log_core(",
        "
fn m_log_core(k: f32, f: f32, c: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    var r = 0.24279078841;
    r = fma(r, z, 0.28498786688);
    r = fma(r, z, 0.40000972152);
    r = fma(r, z, 0.66666662693);
    let half_square = 0.5 * f * f;
    let tail = fma(k, 9.0580006145e-6, c);
    return fma(k, 6.9313812256e-1, (fma(s, half_square + r * z, tail) - half_square) + f);
}
",
    ),
    (
        "m_log(",
        "
fn m_log(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    let parts = m_split(x);
    var y = m_log_core(f32(parts.x), bitcast<f32>(parts.y) - 1.0, 0.0);
    y = select(y, x, b == 0x7f800000u || m_nan(x));
    y = select(y, m_bits(0x7fc00000u), m_order(x) < 0);
    return select(y, m_bits(0xff800000u), (b << 1u) == 0u);
}
",
    ),
    (
        // ln(1 + x) by fdlibm's `s_log1pf.c`: with u = 1 + x rounded, ln u + c/u, where c is the rounding error of u
        "m_log1p(",
        "
fn m_log1p(x: f32) -> f32 {
    let u = 1.0 + x;
    let parts = m_split(u);
    let k = parts.x;
    let near = k == 0;
    let lost = select(x - (u - 1.0), 1.0 - (u - x), k >= 2);
    let c = select(0.0, lost / u, k < 25 && !near);
    var y = m_log_core(f32(k), select(bitcast<f32>(parts.y) - 1.0, x, near), c);
    let one = 0x3f800000;
    y = select(y, x, abs(x) < 5.9e-8 || m_order(x) >= 0x7f800000);
    y = select(y, m_bits(0xff800000u), m_order(x) == -one);
    y = select(y, m_bits(0x7fc00000u), m_order(x) < -one);
    return select(y, x, m_nan(x));
}
",
    ),
    (
        // The upper half of a 64-bit product.
        "m_mul_high(",
        "
fn m_mul_high(x: u32, y: u32) -> u32 {
    let xl = x & 0xffffu;
    let xh = x >> 16u;
    let yl = y & 0xffffu;
    let yh = y >> 16u;
    let middle = xh * yl + ((xl * yl) >> 16u);
    return xh * yh + (middle >> 16u) + (((middle & 0xffffu) + xl * yh) >> 16u);
}
",
    ),
    (
        // One of five words.
        "m_pick(",
        "
fn m_pick(i: i32, a: u32, b: u32, c: u32, d: u32, e: u32) -> u32 {
    return select(select(a, b, i == 1), select(select(c, d, i == 3), e, i == 4), i >= 2);
}
",
    ),
    (
        // |x| = q·π/2 + r by Payne and Hanek's method: |x|·2/π modulo 4 as a 2.62 fixed-point number (after N. Juffa,
        // stackoverflow.com/a/42792940), with three words of 2/π from where the exponent says. Returns (bits of r, q).
        "m_quarter_far(",
        "
fn m_quarter_far(x: f32) -> vec2<i32> {
    let b = bitcast<u32>(x);
    let mantissa = ((b & 0x7fffffu) << 8u) | 0x80000000u;
    let exponent = i32((b >> 23u) & 0xffu) - 126;
    let word = exponent >> 5u;
    let shift = u32(exponent & 31);
    let w0 = m_pick(word, 0u, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u);
    let w1 = m_pick(word, 0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u);
    let w2 = m_pick(word, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u);
    let w3 = m_pick(word, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u, 0u);
    // Two shifts, since one by 32 is none.
    let rest = 31u - shift;
    let high = (w0 << shift) | ((w1 >> rest) >> 1u);
    let middle = (w1 << shift) | ((w2 >> rest) >> 1u);
    let low = (w2 << shift) | ((w3 >> rest) >> 1u);
    let carried = m_mul_high(mantissa, low);
    let product = mantissa * middle + carried;
    let top = m_mul_high(mantissa, middle) + select(0u, 1u, product < carried) + mantissa * high;
    // Beyond an eighth of a turn r is the distance to the next quarter, 2⁶² − p.
    let over = (top & 0x20000000u) != 0u;
    let p_low = select(product, ~product + 1u, over);
    let part = top & 0x3fffffffu;
    let p_high = select(part, 0x40000000u - part - select(1u, 0u, product == 0u), over);
    let q = (top >> 30u) + select(0u, 1u, over);
    let turns = f32(p_high) * 4294967296.0 + f32(p_low);
    // π/2 · 2⁻⁶²
    let r = turns * 3.4061215800304383e-19;
    return vec2<i32>(bitcast<i32>(select(r, -r, over)), i32(q & 3u));
}
",
    ),
    (
        // |x| = q·π/2 + r, π/2 in three parts of few bits (Cephes `sinf`). Returns (bits of r, q).
        "m_quarter_near(",
        "
fn m_quarter_near(x: f32) -> vec2<i32> {
    let n = round(x * 0.6366197723675814);
    let r = fma(n, -7.54978995489188216e-8, fma(n, -4.837512969970703125e-4, fma(n, -1.5703125, x)));
    return vec2<i32>(bitcast<i32>(r), i32(n));
}
",
    ),
    (
        // sin(|x| + quarter·π/2) (polynomials of FreeBSD's `k_sinf.c` and `k_cosf.c`)
        "m_sin_quarter(",
        "
fn m_sin_quarter(x: f32, quarter: i32) -> f32 {
    let t = abs(x);
    var reduced = m_quarter_near(t);
    if (t >= 8192.0) {
        reduced = m_quarter_far(t);
    }
    let r = bitcast<f32>(reduced.x);
    let quadrant = reduced.y + quarter;
    let z = r * r;
    var s = 0.0000027183114939898219064;
    s = fma(s, z, -0.000198393348360966317347);
    s = fma(s, z, 0.0083333293858894631756);
    s = fma(s, z, -0.166666666416265235595);
    let sine = fma(s * z, r, r);
    var c = 0.0000243904487962774090654;
    c = fma(c, z, -0.00138867637746099294692);
    c = fma(c, z, 0.0416666233237390631894);
    c = fma(c, z, -0.499999997251031003120);
    let cosine = fma(c, z, 1.0);
    let y = select(sine, cosine, (quadrant & 1) == 1);
    let valid = (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
    return select(m_bits(0x7fc00000u), select(y, -y, (quadrant & 2) == 2), valid);
}
",
    ),
    (
        "m_sin(",
        "
fn m_sin(x: f32) -> f32 {
    let y = m_sin_quarter(x, 0);
    return select(select(y, -y, x < 0.0), x, x == 0.0);
}
",
    ),
    (
        "m_cos(",
        "
fn m_cos(x: f32) -> f32 {
    return m_sin_quarter(x, 1);
}
",
    ),
    (
        // tʸ for positive finite t and finite y: e^(y·ln t), the logarithm as a sum of two floats, since y multiplies
        // its error. With f/(2 + f) = q + ql: ln(1 + f) = 2q + 2ql + q³·(2/3 + 2/5·q² + …).
        "m_pow_core(",
        "
fn m_pow_core(t: f32, y: f32) -> f32 {
    let parts = m_split(t);
    let k = f32(parts.x);
    let f = bitcast<f32>(parts.y) - 1.0;
    let d = 2.0 + f;
    let q = f / d;
    let ql = (fma(-q, d, f) - q * (f - (d - 2.0))) / d;
    let z = q * q;
    var p = 0.18181818;
    p = fma(p, z, 0.22222222);
    p = fma(p, z, 0.28571429);
    p = fma(p, z, 0.4);
    p = fma(p, z, 0.66666667);
    let a = k * 0.693359375;
    let b = 2.0 * q;
    let high = a + b;
    let part = high - a;
    let low = (a - (high - part)) + (b - part) + fma(k, -2.12194440e-4, fma(q * z, p, 2.0 * ql));
    let power = y * high;
    let rest = fma(y, high, -power) + y * low;
    let c = clamp(power, -105.0, 89.0);
    let n = round(c * 1.4426950408889634);
    let m = i32(n);
    let r = m_exp_rest(c, n) + select(0.0, rest, c == power);
    return (1.0 + m_expm1_core(r)) * m_pow2(m >> 1u) * m_pow2(m - (m >> 1u));
}
",
    ),
    (
        // xʸ with the special values of C's `pow`
        "m_pow(",
        "
fn m_pow(x: f32, y: f32) -> f32 {
    let t = abs(x);
    let bt = bitcast<u32>(t);
    let by = bitcast<u32>(y) & 0x7fffffffu;
    let rises = y > 0.0;
    let infinity = m_bits(0x7f800000u);
    var magnitude: f32;
    if (bt == 0u) {
        magnitude = select(infinity, 0.0, rises);
    } else if (bt >= 0x7f800000u) {
        magnitude = select(0.0, infinity, rises);
    } else if (by >= 0x7f800000u) {
        magnitude = select(0.0, infinity, (bt > 0x3f800000u) == rises);
    } else {
        magnitude = m_pow_core(t, y);
    }
    let whole = by >= 0x4b000000u || trunc(y) == y;
    let odd = whole && by < 0x4b800000u && (i32(clamp(y, -16777216.0, 16777216.0)) & 1) == 1;
    let negative = (bitcast<u32>(x) >> 31u) == 1u;
    var value = select(magnitude, -magnitude, negative && odd);
    let undefined = negative && bt != 0u && bt < 0x7f800000u && !whole;
    value = select(value, m_bits(0x7fc00000u), undefined || m_nan(x) || m_nan(y));
    let one = by == 0u || bitcast<u32>(x) == 0x3f800000u || (bt == 0x3f800000u && by == 0x7f800000u);
    return select(value, 1.0, one);
}
",
    ),
    (
        // First word of Threefry-2x32-20 for the counter (counter, 0): Salmon, Moraes, Dror, Shaw, \"Parallel random
        // numbers: as easy as 1, 2, 3\", SC 2011
        "m_threefry(",
        "
fn m_threefry(key0: u32, key1: u32, counter: u32) -> u32 {
    var keys = array<u32, 3>(key0, key1, 0x1bd11bdau ^ key0 ^ key1);
    var even = vec4<u32>(13u, 15u, 26u, 6u);
    var odd = vec4<u32>(17u, 29u, 16u, 24u);
    var x0 = counter + key0;
    var x1 = key1;
    for (var group = 0u; group < 5u; group++) {
        let by = select(even, odd, (group & 1u) == 1u);
        x0 = x0 + x1;
        x1 = ((x1 << by.x) | (x1 >> (32u - by.x))) ^ x0;
        x0 = x0 + x1;
        x1 = ((x1 << by.y) | (x1 >> (32u - by.y))) ^ x0;
        x0 = x0 + x1;
        x1 = ((x1 << by.z) | (x1 >> (32u - by.z))) ^ x0;
        x0 = x0 + x1;
        x1 = ((x1 << by.w) | (x1 >> (32u - by.w))) ^ x0;
        x0 = x0 + keys[(group + 1u) % 3u];
        x1 = x1 + keys[(group + 2u) % 3u] + group + 1u;
    }
    return x0;
}
",
    ),
];
