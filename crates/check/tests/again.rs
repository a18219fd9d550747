//! Values that a later kernel computes again, on every device: a running mean which a product along the way decides whether to keep, kept
//! and not, held against the graph as it was written.

use raphson_check::runner::Runner;
use raphson_check::runner::device::all;
use raphson_graph::dtype::DType;
use raphson_graph::flat::flatten;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;

const SIZE: usize = 64;

#[test]
fn a_mean_that_is_chosen_later_is_what_it_was() {
    let matrix = || Value::input([SIZE, SIZE].into(), DType::F32);
    let (m, x, w, most) = (matrix(), matrix(), matrix(), Value::input([].into(), DType::F32));
    let gradient = x.dot(&w).unwrap();
    let mean = m.scale(0.9).unwrap().add(&gradient.scale(0.1).unwrap()).unwrap();
    let square = m.scale(0.99).unwrap().add(&gradient.square().unwrap().scale(0.01).unwrap()).unwrap();
    let sums = mean.mul(&square).unwrap().sum(&[1]).unwrap().reshape(&[SIZE, 1].into()).unwrap();
    let sum = x.dot(&sums).unwrap().square().unwrap().sum_all().unwrap();
    let kept = sum.less(&most).unwrap().expand(m.shape()).unwrap();
    let outputs = [kept.select(&mean, &m).unwrap(), kept.select(&square, &w).unwrap(), sum];
    let graph = flatten(&[m, x, w, most], &outputs).unwrap().graph;
    let draw = |seed: usize| (0..SIZE * SIZE).map(|i| f64::from(((i * 7 + seed) % 31) as f32 / 31.0 - 0.5)).collect();
    for most in [1e9, 0.0] {
        let numbers: Vec<Vec<f64>> = vec![draw(3), draw(11), draw(23), vec![most]];
        let wanted = evaluate(&graph, &numbers).unwrap();
        assert!((wanted[0] == numbers[0]) == (most == 0.0) && wanted[2][0] > 0.0);
        for device in all().unwrap() {
            let got = device.run(&graph, &numbers).unwrap();
            for (got, wanted) in got.iter().flatten().zip(wanted.iter().flatten()) {
                assert!((got - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "{}: {got} for {wanted}", device.name());
            }
        }
    }
}
