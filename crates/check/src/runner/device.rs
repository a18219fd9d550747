//! A device as a runner: simplify, compile, load, upload, run, download. Also the list of devices to test.

use super::Runner;
use crate::coverage::say;
use crate::ptx::driver::{Interpreted, Settings};
use raphson_compile::compile;
use raphson_device::cpu::Cpu;
use raphson_device::cuda::{Cuda, Options};
use raphson_device::wgpu::Wgpu;
use raphson_device::{Device, Memory};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::flat::{Graph, NodeIndex, simplify};
use raphson_graph::half;
use std::sync::{Arc, OnceLock};

/// Every device that this machine has, the cpu once for each instruction set, wgpu where there is an adapter; and cuda,
/// whose kernels the interpreter runs.
pub fn all() -> Result<Vec<OnDevice>> {
    let mut runners = Vec::new();
    for cpu in Cpu::each_instruction_set(2)? {
        runners.push(OnDevice::new(Arc::new(cpu), &DType::ALL));
    }
    runners.extend(wgpu());
    runners.push(OnDevice::new(Arc::new(interpreted_cuda()), &DType::ALL));
    Ok(runners)
}

/// The cuda device without a GPU: its own run time, every tensor an allocation of its own so that accesses outside show. It is
/// said to have tensor cores that pay, and no library, so that our own products are what is tested.
fn interpreted_cuda() -> Cuda {
    let driver = Interpreted::new(Settings { capability: (9, 0), ..Settings::default() });
    Cuda::with_driver(Arc::new(driver), Options { tf32: false, library: false, pool: false, graphs: true })
}

/// The wgpu device, opened once for all tests of a process so that they share pipelines; where there is none, that is
/// printed.
pub fn wgpu() -> Option<OnDevice> {
    static DEVICE: OnceLock<Option<Arc<Wgpu>>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| match Wgpu::new() {
        Ok(device) => Some(Arc::new(device)),
        Err(error) => {
            say(&format!("wgpu is skipped: no adapter was found ({error})"));
            None
        }
    });
    let device = device.clone()?;
    let everything = std::env::var("RAPHSON_TEST").is_ok_and(|which| which == "all");
    // A software renderer takes tens of milliseconds to compile a kernel.
    let one_in = if device.is_software() && !everything { 8 } else { 1 };
    let dtypes = device.describe().dtypes;
    Some(OnDevice { device, dtypes, one_in })
}

/// Runs graphs on a device.
pub struct OnDevice {
    device: Arc<dyn Device>,
    dtypes: &'static [DType],
    one_in: u64,
}

impl OnDevice {
    /// A runner on `device`, which has these dtypes.
    pub fn new(device: Arc<dyn Device>, dtypes: &'static [DType]) -> OnDevice {
        OnDevice { device, dtypes, one_in: 1 }
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Run with some inputs donated: an output may take over their memory.
    pub fn run_donating(&self, graph: &Graph, inputs: &[Vec<f64>], donated: &[bool]) -> Result<Vec<Vec<f64>>> {
        let dtype = |&index: &NodeIndex| graph.nodes[index as usize].dtype;
        let inputs: Vec<Vec<u8>> =
            inputs.iter().zip(&graph.inputs).map(|(values, index)| to_bytes(values, dtype(index))).collect();
        let outputs = self.run_bytes_donating(graph, &inputs, donated)?;
        Ok(outputs.iter().zip(&graph.outputs).map(|(bytes, index)| from_bytes(bytes, dtype(index))).collect())
    }

    /// Run on elements as they are stored, where f64 cannot hold them.
    pub fn run_bytes(&self, graph: &Graph, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        self.run_bytes_donating(graph, inputs, &vec![false; inputs.len()])
    }

    fn run_bytes_donating(&self, graph: &Graph, inputs: &[Vec<u8>], donated: &[bool]) -> Result<Vec<Vec<u8>>> {
        let program = Arc::new(compile(&simplify(graph), donated)?);
        let mut loaded = self.device.load(program)?;
        let memories = inputs.iter().map(|bytes| self.device.upload(bytes)).collect::<Result<Vec<Memory>>>()?;
        let download = |memory: &Memory| {
            let mut bytes = vec![0; memory.bytes];
            self.device.download(memory, &mut bytes)?;
            Ok(bytes)
        };
        loaded.run(memories)?.iter().map(download).collect()
    }
}

impl Runner for OnDevice {
    fn name(&self) -> String {
        self.device.describe().name
    }

    fn device(&self) -> Option<&'static str> {
        Some(self.device.describe().kind)
    }

    fn supports(&self, dtype: DType) -> bool {
        self.dtypes.contains(&dtype)
    }

    fn one_in(&self) -> u64 {
        self.one_in
    }

    fn run(&self, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        self.run_donating(graph, inputs, &vec![false; inputs.len()])
    }
}

/// Values as a dtype stores them.
pub fn to_bytes(values: &[f64], dtype: DType) -> Vec<u8> {
    let each = values.iter();
    match dtype {
        DType::F32 => each.flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        DType::F64 => each.flat_map(|&v| v.to_le_bytes()).collect(),
        DType::I32 => each.flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        DType::U32 => each.flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        DType::F16 => each.flat_map(|&v| half::f32_to_f16(v as f32).to_le_bytes()).collect(),
        DType::BF16 => each.flat_map(|&v| half::f32_to_bf16(v as f32).to_le_bytes()).collect(),
        DType::I64 => each.flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        DType::U8 => each.map(|&v| v as u8).collect(),
        DType::Bool => each.map(|&v| u8::from(v != 0.0)).collect(),
    }
}

/// Stored bytes as values.
pub fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
    }
    match dtype {
        DType::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        DType::F64 => each(bytes, f64::from_le_bytes),
        DType::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        DType::U32 => each(bytes, |b| f64::from(u32::from_le_bytes(b))),
        DType::F16 => each(bytes, |b| f64::from(half::f16_to_f32(u16::from_le_bytes(b)))),
        DType::BF16 => each(bytes, |b| f64::from(half::bf16_to_f32(u16::from_le_bytes(b)))),
        DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        // A bool is 0 or 1; any other byte is a fault that the comparison must see.
        DType::U8 | DType::Bool => bytes.iter().map(|&b| f64::from(b)).collect(),
    }
}
