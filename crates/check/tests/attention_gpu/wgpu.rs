//! On wgpu, opened in several ways; where there is no adapter the tests say so and pass.

use super::examples::{Example, PLAIN, errors, examples, training};
use raphson_check::coverage::say;
use raphson_check::runner::device::OnDevice;
use raphson_device::wgpu::{Settings, Wgpu};
use raphson_graph::dtype::DType;
use std::sync::Arc;

/// Open the device, or say that there is none. With it comes how many examples there are for each that is run: a software
/// renderer takes a second to compile them.
fn open(settings: Settings) -> Option<(OnDevice, usize)> {
    if Wgpu::adapters().is_empty() {
        say("attention on wgpu is skipped: no adapter was found");
        return None;
    }
    let device = Wgpu::with_settings(settings).unwrap();
    let everything = std::env::var("RAPHSON_TEST").is_ok_and(|which| which == "all");
    let one_in = if device.is_software() && !everything { 3 } else { 1 };
    Some((OnDevice::new(Arc::new(device), &DType::ALL), one_in))
}

#[test]
fn attention_and_its_reverse() {
    let Some((device, one_in)) = open(Settings::default()) else { return };
    for (number, example) in examples().iter().enumerate().skip(1).step_by(one_in) {
        let (graph, inputs) = training(example, &format!("attention {number}"));
        let errors = errors(&device, &graph, &inputs);
        assert!(errors.iter().all(|&error| error < 4e-6), "{example:?}: {errors:?}");
    }
}

/// Fewer bindings than operands, and shaders that check every index: a mask, and more tiles than one.
#[test]
fn attention_with_few_bindings() {
    let checked = Settings { storage_buffers: 2, checked: true, subgroups: false, ..Settings::default() };
    let Some((device, _)) = open(checked) else { return };
    let masked = Example { batch: &[2], sizes: [70, 67, 9, 6], mask: Some(&[2, 70, 67]), causal: true, ..PLAIN };
    let (graph, inputs) = training(&masked, "few bindings");
    let errors = errors(&device, &graph, &inputs);
    assert!(errors.iter().all(|&error| error < 4e-6), "{errors:?}");
}

/// What is not a number in a query shows in its row and in no other.
#[test]
fn nan_shows_where_it_belongs() {
    let Some((device, _)) = open(Settings::default()) else { return };
    let (graph, mut inputs) = training(&Example { sizes: [6, 40, 4, 4], ..PLAIN }, "nan");
    inputs[0][2 * 4 + 1] = f64::NAN;
    let out = &device.run_donating(&graph, &inputs, &[false; 4]).unwrap()[0];
    let is_nan: Vec<bool> = out.iter().map(|x| x.is_nan()).collect();
    assert_eq!(is_nan, (0..24).map(|at| at / 4 == 2).collect::<Vec<_>>());
}
