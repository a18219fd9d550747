//! How far a result is from the reference. Integers and bools must agree exactly; floats are measured on the natural
//! scale of the result, and NaN and infinities must stand in the same places.

use raphson_graph::dtype::DType;
use raphson_graph::half;

/// What an error is divided by.
#[derive(Clone, Debug)]
pub enum Scale {
    /// The greatest magnitude of the result, at least this.
    Result(f64),
    /// One number for each element; the magnitude of the element where that is greater.
    Elements(Vec<f64>),
}

/// The largest error of `got`, and where it is. Infinite where something is of the wrong kind altogether.
pub fn largest_error(got: &[f64], want: &[f64], dtype: DType, scale: &Scale) -> (f64, usize) {
    if got.len() != want.len() {
        return (f64::INFINITY, got.len().min(want.len()));
    }
    let common = match scale {
        Scale::Result(least) => want.iter().filter(|w| w.is_finite()).fold(*least, |most, w| most.max(w.abs())),
        Scale::Elements(_) => 0.0,
    };
    let mut worst = (0.0, 0);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let scale = match scale {
            Scale::Result(_) => common,
            Scale::Elements(scales) => scales[i],
        };
        let error = element_error(got, want, dtype, scale);
        if error > worst.0 {
            worst = (error, i);
        }
    }
    worst
}

/// |got − want| / max(|want|, scale)
fn element_error(got: f64, want: f64, dtype: DType, scale: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let (greatest, least) = match dtype {
        DType::F32 => (f64::from(f32::MAX), f64::from(f32::MIN_POSITIVE)),
        DType::F64 => (f64::MAX, f64::MIN_POSITIVE),
        // Two of the least subnormals.
        DType::F16 => (65504.0, 2f64.powi(-23)),
        // Computed as f32, which may lose them all.
        DType::BF16 => (half::round(3.39e38, dtype), f64::from(f32::MIN_POSITIVE)),
        DType::I32 | DType::U32 | DType::I64 | DType::U8 | DType::Bool => return f64::INFINITY,
    };
    if got.is_nan() || want.is_nan() {
        return f64::INFINITY;
    }
    // What lies beyond the dtype's range becomes infinite; at its very edge either will do.
    let edge = greatest * (1.0 - 1e-4);
    if want.abs() >= edge && got.abs() >= edge {
        return if got.signum() == want.signum() { 0.0 } else { f64::INFINITY };
    }
    // Denormals may lose their last digits.
    let difference = (got - want).abs();
    if difference <= least { 0.0 } else { difference / want.abs().max(scale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_must_agree() {
        let scale = Scale::Result(1.0);
        let error = |got: f64, want: f64, dtype| largest_error(&[got], &[want], dtype, &scale).0;
        assert_eq!(error(f64::NAN, f64::NAN, DType::F32), 0.0);
        assert_eq!(error(f64::INFINITY, 1e39, DType::F32), 0.0);
        assert_eq!(error(f64::INFINITY, f64::NEG_INFINITY, DType::F64), f64::INFINITY);
        assert_eq!(error(1.0, f64::NAN, DType::F32), f64::INFINITY);
        assert_eq!(error(3.0, 4.0, DType::I32), f64::INFINITY);
        assert_eq!(error(1.5, 2.0, DType::F64), 0.25);
        assert_eq!(error(0.0, 1e-40, DType::F32), 0.0);
    }
}
