//! Tests that sweep the transcendental loops of every instruction set and print how far they stray from the true
//! values. Run with `--nocapture` to see the figures.

use super::isa::{Args, Level};
use super::map;
use raphson_graph::dtype::DType;
use raphson_graph::kernel::Prim;

unsafe extern "C" {
    /// The C library's error function, which the standard library does not offer.
    #[link_name = "erf"]
    safe fn c_erf(x: f64) -> f64;
}

fn run<T: Copy + Default>(level: Level, prim: Prim, dtype: DType, a: &[T], b: &[T]) -> Vec<T> {
    let run = map::find(level, prim, dtype, dtype).expect("a loop for floats");
    let mut out = vec![T::default(); a.len()];
    let args = Args {
        n: a.len(),
        m: 0,
        out: out.as_mut_ptr().cast(),
        a: a.as_ptr().cast(),
        b: b.as_ptr().cast(),
        d: std::ptr::null(),
        single: 0,
        c: std::ptr::null(),
        position: 0,
    };
    // SAFETY: the slices have the same length and the loop was found for their dtype and this machine.
    unsafe { run(&args) };
    out
}

/// Distance in units of the last place of the f32 nearest to `truth`.
fn ulps(got: f32, truth: f64) -> f64 {
    let nearest = truth as f32;
    if got.is_nan() || truth.is_nan() {
        return if got.is_nan() && truth.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == nearest {
        return 0.5f64.min((f64::from(got) - truth).abs() / ulp(nearest));
    }
    if nearest.is_infinite() {
        return if got == f32::MAX.copysign(nearest) { 1.0 } else { f64::INFINITY };
    }
    (f64::from(got) - truth).abs() / ulp(nearest)
}

fn ulp(x: f32) -> f64 {
    let x = x.abs().max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(x.to_bits() & 0x7f80_0000)) * f64::from(f32::EPSILON)
}

/// Floats of every exponent in a range of magnitudes, both signs, about `n` in all.
fn sweep(least: f32, most: f32, n: u32) -> Vec<f32> {
    let (low, high) = (least.to_bits(), most.to_bits());
    let step = ((high - low) / (n / 2)).max(1) as usize;
    (low..=high).step_by(step).map(f32::from_bits).flat_map(|x| [x, -x]).collect()
}

fn worst(level: Level, prim: Prim, inputs: &[f32], truth: impl Fn(f64) -> f64) -> f64 {
    let outputs = run(level, prim, DType::F32, inputs, inputs);
    let mut worst = (0.0, 0.0);
    for (&x, &got) in inputs.iter().zip(&outputs) {
        let error = ulps(got, truth(f64::from(x)));
        if error > worst.0 {
            worst = (error, x);
        }
    }
    println!("{:10} {prim:?}: {:.3} ulp, at {:e}", level.name(), worst.0, worst.1);
    worst.0
}

/// A true function.
type Truth = fn(f64) -> f64;

#[test]
fn f32_functions_stay_within_two_ulps() {
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -1.0, f32::MAX, f32::MIN, 1e-45, -1e-45];
    let cases: [(Prim, Truth, f32, f32); 8] = [
        (Prim::Exp, f64::exp, 1e-10, 110.0),
        (Prim::Expm1, f64::exp_m1, 1e-40, 110.0),
        (Prim::Log, f64::ln, 1e-45, f32::MAX),
        (Prim::Log1p, f64::ln_1p, 1e-40, f32::MAX),
        (Prim::Tanh, f64::tanh, 1e-40, 100.0),
        (Prim::Erf, |x| c_erf(x), 1e-40, 100.0),
        (Prim::Sin, f64::sin, 1e-40, 2e6),
        (Prim::Cos, f64::cos, 1e-40, 2e6),
    ];
    for level in Level::available() {
        for (prim, truth, least, most) in cases {
            let mut inputs = sweep(least, most, 400_000);
            // Densely where most arguments are.
            inputs.extend((-200_000..200_000).map(|i| i as f32 * 6.1e-5));
            inputs.extend(special);
            assert!(worst(level, prim, &inputs, truth) <= 2.0, "{level:?} {prim:?}");
        }
    }
}

#[test]
fn signed_zeros_and_infinities_are_kept() {
    let odd = [Prim::Expm1, Prim::Log1p, Prim::Tanh, Prim::Erf, Prim::Sin];
    for level in Level::available() {
        for prim in odd {
            let zeros = run(level, prim, DType::F32, &[0.0f32, -0.0], &[0.0; 2]);
            assert_eq!([zeros[0].to_bits(), zeros[1].to_bits()], [0, 1 << 31], "{prim:?}");
        }
        let ends = [f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(run(level, Prim::Exp, DType::F32, &ends, &ends), [f32::INFINITY, 0.0]);
        assert_eq!(run(level, Prim::Expm1, DType::F32, &ends, &ends), [f32::INFINITY, -1.0]);
        assert_eq!(run(level, Prim::Tanh, DType::F32, &ends, &ends), [1.0, -1.0]);
        assert_eq!(run(level, Prim::Erf, DType::F32, &ends, &ends), [1.0, -1.0]);
        assert_eq!(run(level, Prim::Log, DType::F32, &[0.0, f32::INFINITY], &ends), [f32::NEG_INFINITY, f32::INFINITY]);
        assert_eq!(
            run(level, Prim::Log1p, DType::F32, &[-1.0, f32::INFINITY], &ends),
            [f32::NEG_INFINITY, f32::INFINITY]
        );
    }
}

#[test]
fn pow_of_f32_stays_within_two_ulps() {
    let special =
        [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 2.0, -2.0, 3.0, -3.0, 0.5, 1e-40, 2.5];
    let bases: Vec<f32> = sweep(1e-40, 1e30, 1200).into_iter().chain(special).collect();
    let exponents: Vec<f32> = sweep(1e-3, 50.0, 400).into_iter().chain(special).collect();
    let (a, b): (Vec<f32>, Vec<f32>) = bases.iter().flat_map(|&x| exponents.iter().map(move |&y| (x, y))).unzip();
    for level in Level::available() {
        let got = run(level, Prim::Pow, DType::F32, &a, &b);
        let mut worst = 0.0f64;
        for ((&x, &y), &got) in a.iter().zip(&b).zip(&got) {
            let truth = f64::from(x).powf(f64::from(y));
            let error = ulps(got, truth);
            assert!(error <= 2.0, "{level:?}: {x:e} ^ {y:e} = {got:e}, not {truth:e}");
            worst = worst.max(error);
        }
        println!("{:10} Pow: {worst:.3} ulp", level.name());
    }
}

#[test]
fn erf_of_f64_agrees_with_the_c_library() {
    let mut worst = 0.0f64;
    for i in -700_000..=700_000 {
        let x = f64::from(i) * 1e-5;
        let (got, truth) = (super::erf::erf(x), c_erf(x));
        let error = if truth == 0.0 { got.abs() } else { ((got - truth) / truth).abs() };
        assert!(error <= 1e-15, "erf({x}) = {got:e}, not {truth:e}");
        worst = worst.max(error);
    }
    println!("f64 erf: relative error {worst:e}");
    assert!(super::erf::erf(f64::NAN).is_nan());
    assert_eq!([super::erf::erf(f64::INFINITY), super::erf::erf(f64::NEG_INFINITY)], [1.0, -1.0]);
    assert_eq!(super::erf::erf(5e-324), c_erf(5e-324));
}
