//! NVIDIA GPUs with nothing but the driver: kernels are PTX text, which the driver compiles when it loads them. `print` makes
//! the text and needs no GPU; `kernels` holds what is compiled at development time; the rest runs programs, through a
//! `Driver` that tests can play as well. All work goes on one stream and nothing waits for it but reading.

mod attention;
mod blas;
mod conv;
mod dot;
pub mod driver;
mod fault;
mod graph;
mod memory;
mod module;
mod nvidia;
mod plan;
pub mod print;
mod run;
mod staging;

use crate::{Description, Device, Loaded, Memory, Usage};
use driver::Driver;
use memory::Pool;
use module::Modules;
pub use nvidia::{is_driver_present, list, shortcoming};
use raphson_compile::direct::without_convolutions;
use raphson_compile::program::{Fused, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use run::{CudaProgram, Tensor};
use staging::Staging;
use std::sync::Arc;

/// What may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Round the operands of f32 products and convolutions to TF32 (10 bits of mantissa): several times faster, and about as exact as f16.
    /// Off unless `RAPHSON_TF32=1`, as PyTorch has it for products ("highest"): curvature is a difference of close numbers.
    /// Without it tensor cores are still used where that pays, with operands split in two, at the accuracy of f32.
    pub tf32: bool,
    /// Use cuBLAS where it can be loaded. On unless `RAPHSON_CUBLAS=0`.
    pub library: bool,
    /// Keep memory for reuse. On unless `RAPHSON_CUDA_POOL=0`, which is for compute-sanitizer and the like.
    pub pool: bool,
    /// Replay programs as CUDA graphs. On unless `RAPHSON_CUDA_GRAPHS=0`.
    pub graphs: bool,
}

impl Options {
    /// As the environment has it.
    pub fn by_environment() -> Result<Options> {
        Ok(Options {
            tf32: switch("RAPHSON_TF32", false)?,
            library: switch("RAPHSON_CUBLAS", true)?,
            pool: switch("RAPHSON_CUDA_POOL", true)?,
            graphs: switch("RAPHSON_CUDA_GRAPHS", true)?,
        })
    }
}

fn switch(name: &str, otherwise: bool) -> Result<bool> {
    match std::env::var(name).as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("") => Ok(otherwise),
        Ok("0") => Ok(false),
        Ok("1") => Ok(true),
        found => Err(Error::argument("cuda", format!("{name} is {found:?}; use 0 or 1"))),
    }
}

/// What a device and its programs share.
pub(crate) struct Core {
    pub driver: Arc<dyn Driver>,
    pub pool: Arc<Pool>,
    pub modules: Modules,
    pub staging: Staging,
    pub options: Options,
}

/// An NVIDIA GPU as a device.
pub struct Cuda {
    core: Arc<Core>,
}

impl Cuda {
    /// The GPU of this number, in the driver's order. An error where there is no driver, no such GPU, or one too old.
    pub fn open(ordinal: usize) -> Result<Cuda> {
        Cuda::open_with(ordinal, Options::by_environment()?)
    }

    /// The same with these options.
    pub fn open_with(ordinal: usize, options: Options) -> Result<Cuda> {
        Ok(Cuda::with_driver(Arc::new(nvidia::Nvidia::open(ordinal, options.library)?), options))
    }

    /// A device on any driver.
    pub fn with_driver(driver: Arc<dyn Driver>, options: Options) -> Cuda {
        let core = Core {
            pool: Pool::new(driver.clone(), options.pool),
            modules: Modules::new(driver.clone()),
            staging: Staging::new(driver.clone()),
            driver,
            options,
        };
        Cuda { core: Arc::new(core) }
    }

    /// Name and version of the library that computes products, if there is one; looking for it may take a second.
    pub fn library(&self) -> Option<String> {
        self.core.driver.library()
    }
}

impl Device for Cuda {
    fn describe(&self) -> Description {
        let gpu = self.core.driver.gpu();
        let (major, minor) = gpu.capability;
        let gib = gpu.memory_bytes as f64 / (1_u64 << 30) as f64;
        let name = format!("{} (compute {major}.{minor}, {gib:.0} GiB)", gpu.name);
        Description { kind: "cuda", name, dtypes: &DType::ALL, threads: 1 }
    }

    fn fused(&self) -> Fused {
        attention::FUSED
    }

    fn usage(&self) -> Usage {
        Usage { live_bytes: self.core.pool.live_bytes(), pooled_bytes: self.core.pool.pooled_bytes() }
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let block = self.core.pool.allocate(bytes.len())?;
        // SAFETY: the block has room for all bytes.
        unsafe { self.core.staging.copy_in(block.address(), bytes)? };
        Ok(Tensor { block, faults: Vec::new() }.wrap())
    }

    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()> {
        let tensor = Tensor::of(memory, &self.core.pool)?;
        if into.len() != tensor.block.bytes() {
            let message = format!("{} bytes are to be read into {}", tensor.block.bytes(), into.len());
            return Err(Error::internal("download", message));
        }
        tensor.faults.iter().try_for_each(|fault| fault.check(&*self.core.driver))?;
        if into.is_empty() {
            return Ok(());
        }
        // SAFETY: the block has exactly `into.len()` bytes.
        unsafe { self.core.driver.copy_out(into.as_mut_ptr(), tensor.block.address(), into.len()) }
    }

    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>> {
        let program = Arc::new(without_convolutions(&program, conv::is_compiled));
        Ok(Box::new(CudaProgram::new(self.core.clone(), program)?))
    }

    fn trim(&self) {
        // An error of earlier work is reported to whoever reads its results.
        let _ = self.core.pool.trim();
    }
}
