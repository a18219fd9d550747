//! Threefry-2x32-20 against the known answers that its authors publish with Random123 (`tests/kat_vectors`), and the
//! row against the block function.

use raphson_check::runner;
use raphson_graph::dtype::DType;
use raphson_graph::flat::flatten;
use raphson_graph::op::elementwise::{threefry, threefry_block};
use raphson_graph::value::Value;

/// Counter, key, answer.
const KNOWN_ANSWERS: [([u32; 2], [u32; 2], [u32; 2]); 3] = [
    ([0, 0], [0, 0], [0x6b20_0159, 0x99ba_4efe]),
    ([u32::MAX, u32::MAX], [u32::MAX, u32::MAX], [0x1cb9_96fc, 0xbb00_2be7]),
    ([0x243f_6a88, 0x85a3_08d3], [0x1319_8a2e, 0x0370_7344], [0xc492_3a9c, 0x483d_f7a0]),
];

#[test]
fn known_answers() {
    for (counter, key, answer) in KNOWN_ANSWERS {
        assert_eq!(threefry_block(key, counter), answer, "counter {counter:x?}, key {key:x?}");
    }
}

#[test]
fn every_runner_draws_the_same_bits() {
    let [key0, key1, counter] = [0, 1, 2].map(|_| Value::input([1000].into(), DType::U32));
    let bits = key0.threefry(&key1, &counter).unwrap();
    let graph = flatten(&[key0, key1, counter], &[bits]).unwrap().graph;
    let data: Vec<Vec<f64>> = [0x9E37_79B9u32, 0x85EB_CA6B, 1]
        .iter()
        .map(|step| (0..1000u32).map(|i| f64::from(i.wrapping_mul(*step))).collect())
        .collect();
    let word = |i: usize| threefry(data[0][i] as u32, data[1][i] as u32, data[2][i] as u32);
    let want: Vec<f64> = (0..1000).map(|i| f64::from(word(i))).collect();
    assert_eq!(want[0], f64::from(0x6b20_0159u32));
    for runner in runner::all().unwrap() {
        assert_eq!(runner.run(&graph, &data).unwrap()[0], want, "{}", runner.name());
    }
}
