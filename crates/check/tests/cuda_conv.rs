//! Convolutions and their gradients by the compiled kernels, on the interpreter: each kernel where the device's own plan
//! chooses it, in several orders of warps and blocks, with sums in one piece and in several.

use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::ptx::{Options as MachineOptions, Order};
use raphson_check::runner::device::OnDevice;
use raphson_device::cuda::{Cuda, Options};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::DType;
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::op::conv::Window;
use raphson_graph::reference::evaluate;
use raphson_graph::value::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The data's and the kernel's shapes, and for each spatial axis its window and outputs.
type Shape<'a> = (&'a [usize], &'a [usize], &'a [(Window, usize)]);

const fn window(stride: usize, low: i64, dilation: usize) -> Window {
    Window { stride, low, kernel_dilation: dilation, ..Window::PLAIN }
}

/// A convolution between the square of its data and a product with weights, and its gradients.
fn training(shape: &Shape<'_>) -> (Graph, Vec<Vec<f64>>) {
    let &(data, kernel, axes) = shape;
    let inputs = [data, kernel].map(|shape| Value::input(shape.into(), DType::F32));
    let (windows, outputs): (Vec<Window>, Vec<usize>) = axes.iter().copied().unzip();
    let out = inputs[0].mul(&inputs[0]).unwrap().conv(&inputs[1], &windows, &outputs).unwrap();
    let weights = Value::input(out.shape().clone(), DType::F32);
    let sizes = [&inputs[0], &inputs[1], &weights].map(|value| value.shape().elements());
    let gradients = vjp(std::slice::from_ref(&out), &inputs, std::slice::from_ref(&weights)).unwrap();
    let [data, kernel] = inputs;
    let graph = flatten(&[data, kernel, weights], &[vec![out], gradients].concat()).unwrap().graph;
    let values =
        |(seed, n)| (0..n).map(|i| f64::from((((i + 7 * seed) * 7919 % 2003) as f32) / 1001.5 - 1.0)).collect();
    (graph, sizes.into_iter().enumerate().map(values).collect())
}

/// The greatest difference of each output from the reference, over the output's greatest value; and the kernels that ran.
fn errors(graph: &Graph, inputs: &[Vec<f64>], settings: Settings, tf32: bool) -> (Vec<f64>, BTreeSet<String>) {
    let driver = Arc::new(Interpreted::new(settings));
    let options = Options { tf32, library: false, pool: false, graphs: true };
    let cuda = OnDevice::new(Arc::new(Cuda::with_driver(driver.clone(), options)), &DType::ALL);
    let got = cuda.run_donating(graph, inputs, &vec![false; inputs.len()]).unwrap();
    let want = evaluate(&simplify(graph), inputs).unwrap();
    let error = |(got, want): (&Vec<f64>, &Vec<f64>)| {
        let greatest = want.iter().fold(1e-30_f64, |most, value| most.max(value.abs()));
        got.iter().zip(want).fold(0.0_f64, |most, (got, want)| most.max((got - want).abs())) / greatest
    };
    (got.iter().zip(&want).map(error).collect(), driver.entries())
}

/// What GPUs there are: with tensor cores that pay, and without.
fn gpus() -> [(Settings, bool, f64); 3] {
    let with = |capability| Settings { capability, multiprocessors: 6, ..Settings::default() };
    [(with((9, 0)), false, 2e-6), (with((8, 0)), true, 2e-3), (with((7, 0)), true, 2e-6)]
}

const SHAPES: [Shape<'static>; 6] = [
    // A layer with ragged tiles; one with strides, whose gradient writes every other element; one with dilation.
    (&[2, 1, 19, 9, 11], &[1, 37, 19, 3, 3], &[(window(1, 1, 1), 9), (window(1, 1, 1), 11)]),
    (&[3, 1, 18, 13, 12], &[1, 20, 18, 3, 3], &[(window(2, 1, 1), 7), (window(2, 0, 1), 5)]),
    (&[2, 1, 10, 17], &[1, 66, 10, 3], &[(window(1, 3, 3), 17)]),
    // Groups; three axes; one tap and more channels than a tile has rows.
    (&[4, 3, 8, 30], &[3, 9, 8, 5], &[(window(1, 2, 1), 30)]),
    (&[2, 1, 4, 5, 6, 7], &[1, 12, 4, 3, 2, 3], &[(window(1, 1, 1), 5), (window(2, 0, 1), 3), (window(1, 0, 1), 5)]),
    (&[5, 1, 80, 6], &[1, 70, 80, 1], &[(window(1, 0, 1), 6)]),
];

#[test]
fn convolutions_and_their_gradients() {
    let mut ran = BTreeSet::new();
    for (number, shape) in SHAPES.iter().enumerate() {
        let (graph, inputs) = training(shape);
        for (settings, tf32, allowed) in gpus() {
            let order = [Order::Forward, Order::Backward, Order::Mixed(number as u64)][number % 3];
            let settings = Settings { machine: MachineOptions { order, ..MachineOptions::default() }, ..settings };
            let capability = settings.capability;
            let (errors, entries) = errors(&graph, &inputs, settings, tf32);
            assert!(errors.iter().all(|&error| error < allowed), "{shape:?} on {capability:?}: {errors:?}");
            if allowed > 1e-3 {
                assert!(errors[0] > 1e-6, "{shape:?}: not rounded to TF32: {errors:?}");
            }
            let compiled = entries.into_iter().filter(|entry| entry.starts_with("conv_")).collect::<BTreeSet<_>>();
            assert!(!compiled.is_empty(), "{shape:?} on {capability:?}: sums only");
            ran.extend(compiled);
        }
    }
    let known =
        ["outputs", "taps"].into_iter().flat_map(|walk| ["split", "tf32"].map(|kind| format!("conv_{kind}_{walk}")));
    assert_eq!(ran, known.chain(["conv_plain".to_string(), "conv_sum".to_string()]).collect());
}

/// Sums that are cut into pieces are added up in one order, so repeated runs agree to the last bit.
#[test]
fn gradients_of_kernels_in_pieces() {
    let shape: Shape<'_> = (&[26, 1, 8, 10], &[1, 32, 8, 3], &[(window(1, 1, 1), 10)]);
    let (graph, inputs) = training(&shape);
    for (settings, tf32, allowed) in gpus() {
        let settings = Settings { multiprocessors: 40, ..settings };
        let (errors, entries) = errors(&graph, &inputs, settings, tf32);
        assert!(errors.iter().all(|&error| error < allowed), "{errors:?}");
        assert!(entries.contains("conv_sum"), "{entries:?}");
    }
}

/// What is too small for a tile becomes sums: a layer of one channel for each group, few terms, f64.
#[test]
fn small_convolutions_stay_sums() {
    let axes: &[(Window, usize)] = &[(window(1, 1, 1), 12)];
    let depthwise: Shape<'_> = (&[2, 16, 1, 12], &[16, 1, 1, 3], axes);
    let (graph, inputs) = training(&depthwise);
    for (settings, tf32, _) in gpus() {
        let (errors, entries) = errors(&graph, &inputs, settings, tf32);
        assert!(errors.iter().all(|&error| error < 2e-6), "{errors:?}");
        assert!(!entries.iter().any(|entry| entry.starts_with("conv_")), "{entries:?}");
    }
}
