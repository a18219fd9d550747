//! Devices run compiled programs. One trait; what a device is never knows about ops, gradients or optimizers.

pub mod cpu;
pub mod cuda;
mod open;
pub mod wgpu;

pub use open::{Opened, Outcome, Probe, choose, normalized, open, open_with_probes};

use raphson_compile::program::{Fused, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::any::Any;
use std::sync::Arc;

/// A piece of a device's memory. Dropping the last clone gives it back.
#[derive(Clone)]
pub struct Memory {
    /// The device's own representation.
    pub inner: Arc<dyn Any + Send + Sync>,
    /// Size in bytes.
    pub bytes: usize,
}

/// What a device says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `cpu`, `wgpu`, `cuda`
    pub kind: &'static str,
    /// For people: `cpu (AVX2 + FMA, 2 threads)`.
    pub name: String,
    /// The dtypes that its kernels know.
    pub dtypes: &'static [DType],
    /// Threads of this machine that it computes with.
    pub threads: usize,
}

impl Description {
    /// What scalars of a controller are kept in: f64 where the device has it, else f32.
    pub fn scalar(&self) -> DType {
        if self.dtypes.contains(&DType::F64) { DType::F64 } else { DType::F32 }
    }

    /// An error that names the way out, unless the device has this dtype.
    pub fn check_dtype(&self, op: &str, dtype: DType) -> Result<()> {
        if self.dtypes.contains(&dtype) {
            return Ok(());
        }
        let known = self.dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", ");
        let message = format!(
            "{} has no {dtype}, only {known}; use {}, or a device that has {dtype}, such as \"cpu\"",
            self.name,
            DType::F32
        );
        Err(Error::new(Code::DType, op, message).with_dtypes([dtype]))
    }
}

/// Counters that tests and users read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in live `Memory`.
    pub live_bytes: usize,
    /// Bytes kept for reuse.
    pub pooled_bytes: usize,
}

/// A device: it holds memory and runs programs.
pub trait Device: Send + Sync {
    /// Who this is.
    fn describe(&self) -> Description;
    /// Which ops it has kernels of its own for: programs for it are compiled so.
    fn fused(&self) -> Fused {
        Fused::NONE
    }
    /// Memory counters.
    fn usage(&self) -> Usage;
    /// Copy bytes to the device. Zero bytes are allowed.
    fn upload(&self, bytes: &[u8]) -> Result<Memory>;
    /// Copy a memory's bytes back; waits for the work that produces them. `into` has exactly `memory.bytes` bytes.
    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()>;
    /// Whether `download` only copies, since a run's results are complete when it returns.
    fn reads_at_once(&self) -> bool {
        false
    }
    /// Prepare a program for running.
    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>>;
    /// Give pooled memory back to the system.
    fn trim(&self);
    /// For tests: lose the device, as when a GPU is unplugged or its driver gives up. False where that cannot be done.
    #[doc(hidden)]
    fn lose_for_test(&self) -> bool {
        false
    }
}

/// A program prepared by a device. Owns its arena, so one `Loaded` runs once at a time.
pub trait Loaded: Send {
    /// Run with the inputs by position; the outputs come back by position. An input that an output takes over
    /// (`Place::InPlace`) is overwritten when this was its last clone, and copied first otherwise.
    fn run(&mut self, inputs: Vec<Memory>) -> Result<Vec<Memory>>;
    /// Whether a run is complete when `run` returns and takes so little time, some ten microseconds, that handing it to another
    /// thread would cost more.
    fn is_brief(&self) -> bool {
        false
    }
}
