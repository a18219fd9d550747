//! Runners: ways to compute a flat graph. The reference on the simplified graph, the emulated kernel language, and
//! every device. A new device is one line in `device::all`; the whole suite then runs on it.

pub mod device;
pub mod interpreted;

use crate::emulate::Emulated;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::{Graph, simplify};
use raphson_graph::reference;

/// Something that computes graphs.
pub trait Runner {
    /// The name in tables and failures.
    fn name(&self) -> String;
    /// The kind of device, if it is one: `cpu`, `wgpu`, `cuda`.
    fn device(&self) -> Option<&'static str> {
        None
    }
    /// Whether tensors of this dtype exist there.
    fn supports(&self, dtype: DType) -> bool;
    /// Of the cases with derivatives, and of those that are many, one in this many is run here, and of derivatives some of
    /// each op and dtype. Above 1 where compiling kernels is slow; all of them are run where `RAPHSON_TEST=all` is set.
    fn one_in(&self) -> u64 {
        1
    }
    /// Outputs, row-major, for inputs given row-major; every value is exact in f64.
    fn run(&self, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>>;
}

/// Every runner that this machine has.
pub fn all() -> Result<Vec<Box<dyn Runner>>> {
    let mut runners: Vec<Box<dyn Runner>> = vec![Box::new(Simplified), Box::new(Emulated)];
    runners.extend(device::all()?.into_iter().map(|device| Box::new(device) as Box<dyn Runner>));
    runners.push(Box::new(interpreted::Interpreted::default()));
    Ok(runners)
}

/// The reference on the simplified graph: what simplification must not change.
pub struct Simplified;

impl Runner for Simplified {
    fn name(&self) -> String {
        "simplified".to_string()
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn run(&self, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        reference::evaluate(&simplify(graph), inputs)
    }
}
