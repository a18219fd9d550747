//! What a program with attention needs in memory grows with the length of the text, not with its square.

use raphson_check::models::Gpt;
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_compile::compile_for;
use raphson_compile::program::Fused;
use raphson_device::Device;
use raphson_device::cpu::Cpu;
use raphson_device::cuda::{Cuda, Options};
use raphson_device::wgpu::Wgpu;
use raphson_graph::derivative::vjp;
use raphson_graph::flat::{Graph, flatten, simplify};
use raphson_graph::value::Value;
use std::sync::Arc;

/// The loss of a GPT and its gradient, for texts of this length.
fn gradient(context: usize) -> (Graph, usize) {
    let gpt = Gpt { blocks: 2, width: 32, heads: 2, context, batch: 1, vocabulary: 16 };
    let model = gpt.model().unwrap();
    let gradient = vjp(std::slice::from_ref(&model.loss), &model.params, &[model.loss.like(1.0)]).unwrap();
    let inputs: Vec<Value> = model.params.iter().chain(&model.batch).cloned().collect();
    let graph = flatten(&inputs, &[vec![model.loss], gradient].concat()).unwrap().graph;
    (simplify(&graph), inputs.len())
}

fn peak_bytes(context: usize, fused: &Fused) -> f64 {
    let (graph, n) = gradient(context);
    compile_for(&graph, &vec![false; n], fused).unwrap().peak_bytes() as f64
}

/// How much more a text of four times the length needs: four times as much, were it not for the parameters; sixteen times the
/// scores, where those are stored.
#[test]
fn memory_grows_with_the_length_alone() {
    let driver = Arc::new(Interpreted::new(Settings::default()));
    let options = Options { tf32: false, library: false, pool: false, graphs: true };
    let cuda: Box<dyn Device> = Box::new(Cuda::with_driver(driver, options));
    let mut devices = vec![Box::new(Cpu::new(Some(1)).unwrap()) as Box<dyn Device>, cuda];
    devices.extend(Wgpu::new().ok().map(|wgpu| Box::new(wgpu) as Box<dyn Device>));
    let growth = |fused: &Fused| peak_bytes(2048, fused) / peak_bytes(512, fused);
    for device in devices {
        let growth = growth(&device.fused());
        assert!(growth < 4.05, "{}: {growth}", device.describe().name);
    }
    assert!(growth(&Fused::NONE) > 10.0);
}
