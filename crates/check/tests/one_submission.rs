//! However many kernels a program has, a run of it through the session is one submission on wgpu and, once it has run a few
//! times, one launch of a graph on cuda.

use raphson_check::coverage::say;
use raphson_check::ptx::driver::{Interpreted, Settings};
use raphson_check::step::adam_step;
use raphson_device::Device;
use raphson_device::cuda::{Cuda, Options};
use raphson_device::wgpu::Wgpu;
use raphson_graph::dtype::DType::{self, F32};
use raphson_graph::op::conv::Window;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};
use raphson_session::{ProgramId, Session};
use std::sync::Arc;

const STEPS: usize = 8;

/// A training step of a convolution and a product on a batch that is sorted first; what it carries along, and the batch.
fn training(session: &mut Session) -> (ProgramId, Vec<Value>, Vec<Value>) {
    let params = [[1, 4, 1, 3].as_slice(), &[48, 5]].map(|shape| Value::input(shape.into(), F32));
    let batch = Value::input([6, 12].into(), F32);
    let order = batch.argsort(1, true).unwrap().cast(F32).unwrap();
    let data = batch.mul(&order).unwrap().reshape(&[6, 1, 1, 12].into()).unwrap();
    let windows = [Window { low: 1, ..Window::PLAIN }];
    let hidden = data.conv(&params[0], &windows, &[12]).unwrap().tanh().unwrap();
    let out = hidden.reshape(&[6, 48].into()).unwrap().dot(&params[1]).unwrap();
    let loss = out.mul(&out).unwrap().sum_all().unwrap();
    let scalar = if session.describe().dtypes.contains(&DType::F64) { DType::F64 } else { F32 };
    let spec = Spec { scalar, ..Spec::defaults(Rule::Next) };
    let step = adam_step(&spec, &loss, &params, &[batch]).unwrap();
    let donated = step.donated();
    let id = session.compile(&step.inputs, &step.outputs, &donated).unwrap();
    let start = params.iter().map(|param| param.like(0.1)).chain(step.start).collect::<Vec<_>>();
    session.evaluate(&start).unwrap();
    let scale = Value::constant(1.0, scalar, &[].into());
    session.evaluate(std::slice::from_ref(&scale)).unwrap();
    (id, start, vec![scale])
}

/// Eight steps with a new batch each; `after` sees how many have been queued when all of them are done.
fn train(session: &mut Session, mut after: impl FnMut(usize)) {
    let (id, mut carried, scale) = training(session);
    let stats = session.program_stats(id).unwrap();
    assert!(stats.kernels > 10, "{stats:?}: a program of many kernels is what this is about");
    let bytes = |step: usize| (0..72).flat_map(|i| ((i * 7 + step) as f32 / 72.0).to_le_bytes()).collect::<Vec<u8>>();
    let (done, is_done) = std::sync::mpsc::channel();
    let wait = |session: &Session| {
        let done = done.clone();
        session.then(Box::new(move |_| done.send(()).unwrap()));
        is_done.recv().unwrap();
    };
    wait(session);
    after(0);
    for step in 0..STEPS {
        let batch = session.upload(&bytes(step), [6, 12].into(), F32).unwrap();
        let inputs = [&carried[..], &[batch], &scale].concat();
        carried = session.run(id, &inputs).unwrap();
        carried.pop();
        wait(session);
        after(step + 1);
    }
    let parameter = session.read(&carried[1]).unwrap();
    assert!(parameter.as_chunks::<4>().0.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite()));
}

#[test]
fn a_run_is_one_submission_on_wgpu() {
    let Ok(device) = Wgpu::new() else {
        say("wgpu is skipped: no adapter was found");
        return;
    };
    let device = Arc::new(device);
    let mut session = Session::new(device.clone()).unwrap();
    let mut counts = Vec::new();
    train(&mut session, |_| counts.push(device.submissions()));
    let submitted: Vec<usize> = counts.iter().map(|count| count - counts[0]).collect();
    assert_eq!(submitted, (0..=STEPS).collect::<Vec<_>>());
    // And reading is one more.
    assert_eq!(device.submissions() - counts[0], STEPS + 1);
}

#[test]
fn a_run_is_one_graph_on_cuda() {
    let driver = Arc::new(Interpreted::new(Settings::default()));
    let options = Options { tf32: false, library: false, pool: true, graphs: true };
    let device: Arc<dyn Device> = Arc::new(Cuda::with_driver(driver.clone(), options));
    let mut session = Session::new(device).unwrap();
    let mut counts = Vec::new();
    train(&mut session, |_| counts.push(driver.counts()));
    for pair in counts.windows(2).skip(2) {
        assert_eq!((pair[1].replays - pair[0].replays, pair[1].single - pair[0].single), (1, 0), "{counts:?}");
    }
    let last = counts.last().unwrap();
    assert_eq!((last.graphs, last.replays), (1, STEPS - 2), "made once, after two runs: {last:?}");
}
