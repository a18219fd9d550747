//! Input values: a small seeded generator, ranges, and the special values of each dtype.

use raphson_graph::dtype::DType;
use raphson_graph::half;

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for test data, the same on every platform.
#[derive(Clone, Debug)]
pub struct Generator(u64);

impl Generator {
    /// A generator that yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Generator {
        Generator(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66_D1CE_4E5B)
    }

    /// A generator seeded by text.
    pub fn named(name: &str) -> Generator {
        // FNV-1a
        Generator::new(
            name.bytes()
                .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)),
        )
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [low, high).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform(0.0, 1.0) < probability
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Where an input's values come from.
#[derive(Clone, Debug)]
pub enum Values {
    /// Uniform in an open interval; integers take any value of the dtype now and then, bools are fair coins.
    Within(f64, f64),
    /// Uniform among the integers 0..n (indices, labels).
    Below(usize),
    /// Shuffled, far enough apart that no small step changes which one is greatest.
    Distinct,
    /// These, repeated as often as needed.
    Given(Vec<f64>),
}

impl Values {
    /// `n` values of a dtype, each one exact there.
    pub fn draw(&self, n: usize, dtype: DType, generator: &mut Generator) -> Vec<f64> {
        let mut order: Vec<usize> = (0..n).collect();
        if matches!(self, Values::Distinct) {
            // Fisher and Yates
            (1..n).for_each(|i| order.swap(i, generator.below(i + 1)));
        }
        (0..n)
            .map(|i| match self {
                Values::Distinct => stored((order[i] as f64 - n as f64 / 2.0) / 8.0, dtype),
                Values::Given(values) => stored(values[i % values.len()], dtype),
                Values::Below(n) => generator.below(*n) as f64,
                Values::Within(low, high) => within(*low, *high, dtype, generator),
            })
            .collect()
    }
}

fn within(low: f64, high: f64, dtype: DType, generator: &mut Generator) -> f64 {
    // Finite differences step out of the drawn point, so the ends of the interval are left out.
    let margin = 0.01 * (high - low);
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            stored(generator.uniform(low + margin, high - margin), dtype)
        }
        DType::Bool => generator.below(2) as f64,
        DType::I32 | DType::U32 | DType::U8 if generator.chance(0.25) => *generator.choose(specials(dtype)),
        // Small, so that sums and products stay exact in f64; `integers` tests the rest of i64.
        DType::I32 | DType::I64 => generator.below(19) as f64 - 9.0,
        DType::U32 | DType::U8 => generator.below(19) as f64,
    }
}

/// The value as a dtype stores it.
pub fn stored(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => half::round(value, dtype),
        DType::I32 => f64::from(value as i32),
        DType::U32 => f64::from(value as u32),
        DType::I64 => value as i64 as f64,
        DType::U8 => f64::from(value as u8),
        DType::Bool => f64::from(u8::from(value != 0.0)),
    }
}

/// Values at which implementations go wrong: signed zeros, infinities, NaN, denormals, extremes, ties of rounding.
pub fn specials(dtype: DType) -> &'static [f64] {
    const TINY32: f64 = 1e-40;
    const TINY64: f64 = 1e-310;
    match dtype {
        DType::F32 => &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            3.0,
            -7.0,
            1e-3,
            -1e-3,
            1e-10,
            -1e-10,
            TINY32,
            -TINY32,
            20.0,
            -20.0,
            90.0,
            -90.0,
            105.0,
            -105.0,
            1e4,
            -1e4,
            1e30,
            -1e30,
            3.402_823_466_385_288_6e38,
            -3.402_823_466_385_288_6e38,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ],
        DType::F64 => &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            3.0,
            -7.0,
            1e-3,
            -1e-3,
            1e-10,
            -1e-10,
            TINY64,
            -TINY64,
            20.0,
            -20.0,
            90.0,
            -90.0,
            105.0,
            -105.0,
            1e4,
            -1e4,
            720.0,
            -720.0,
            1e300,
            -1e300,
            f64::MAX,
            f64::MIN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ],
        DType::I32 => &[0.0, 1.0, -1.0, 2.0, -3.0, 31.0, 32.0, 33.0, 65_537.0, -2_147_483_648.0, 2_147_483_647.0],
        DType::U32 => &[0.0, 1.0, 2.0, 3.0, 31.0, 32.0, 33.0, 65_537.0, 2_147_483_648.0, 4_294_967_295.0],
        // The greatest, the least normal and the least subnormal f16; ties between neighbours lie near 2049 and 1.0005.
        DType::F16 => &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            3.0,
            -7.0,
            1.000_976_562_5,
            2048.0,
            2050.0,
            -1e-3,
            6.103_515_625e-5,
            5.960_464_477_539_063e-8,
            -5.960_464_477_539_063e-8,
            20.0,
            -20.0,
            300.0,
            -300.0,
            65504.0,
            -65504.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ],
        DType::BF16 => &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            3.0,
            -7.0,
            1.007_812_5,
            256.0,
            258.0,
            20.0,
            -20.0,
            105.0,
            -105.0,
            1e-10,
            -1e-10,
            1e30,
            -1e30,
            3.38e38,
            -3.38e38,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ],
        DType::I64 => {
            &[0.0, 1.0, -1.0, 2.0, -3.0, 31.0, 63.0, 64.0, 65.0, -65_537.0, 4_294_967_296.0, -2_147_483_649.0]
        }
        DType::U8 => &[0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 9.0, 127.0, 128.0, 254.0, 255.0],
        DType::Bool => &[0.0, 1.0],
    }
}
