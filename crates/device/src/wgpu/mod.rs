//! The wgpu device: Vulkan, Metal or DirectX 12, whatever is there. A program is printed as WGSL, one text for each
//! kernel (`row`, `dot`, `conv`, `attention`, `gather`, `argsort` over `scalar`, `math` and `combine`), prepared once (`load`), and run by one submission
//! (`run`). Nothing is linked: where no driver is found, opening the device is an error and nothing else happens.

mod adapters;
mod argsort;
mod attention;
mod bounds;
mod combine;
mod conv;
mod cut;
mod dot;
mod faults;
mod gather;
mod load;
mod lower;
mod math;
mod memory;
mod place;
mod row;
mod run;
mod scalar;
mod slots;
mod text;

use crate::{Description, Device, Loaded, Memory, Usage};
use adapters::{block_on, sorted_adapters, title};
use faults::{Faults, guarded};
use memory::{Pool, Pooled, READ_BACK, STORAGE};
use raphson_compile::program::{Fused, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use text::Abilities;

/// WGSL has no 64-bit numbers.
const DTYPES: &[DType] = &[DType::F32, DType::I32, DType::U32, DType::Bool, DType::F16, DType::BF16, DType::U8];

/// Runs that may be queued before the next one waits.
const MOST_IN_FLIGHT: usize = 32;

/// How to open a device. The default is right for everyone but tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Position in [`Wgpu::adapters`].
    pub adapter: usize,
    /// Use subgroup operations where the adapter has them.
    pub subgroups: bool,
    /// Bind at most this many storage buffers (the adapter's limit if it is lower).
    pub storage_buffers: u32,
    /// Let the shaders check every index and bound every loop.
    pub checked: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { adapter: 0, subgroups: true, storage_buffers: u32::MAX, checked: false }
    }
}

/// An adapter of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// For people: `NVIDIA GeForce RTX 4070 (Vulkan)`.
    pub name: String,
    /// A software renderer rather than a GPU.
    pub is_software: bool,
}

/// A GPU (or a software renderer) by way of wgpu.
pub struct Wgpu {
    shared: Arc<Shared>,
}

/// What the device, its loaded programs and their pending checks have in common.
struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    abilities: Abilities,
    checked: bool,
    /// The largest buffer that a kernel can bind.
    most_bytes: u64,
    /// Runs that may not be done yet, the oldest first.
    in_flight: Mutex<VecDeque<wgpu::SubmissionIndex>>,
    submissions: AtomicUsize,
    faults: Arc<Faults>,
    pool: Arc<Pool>,
    pipelines: Mutex<HashMap<String, Arc<wgpu::ComputePipeline>>>,
    layouts: Mutex<HashMap<Vec<bool>, wgpu::BindGroupLayout>>,
    base_layout: wgpu::BindGroupLayout,
    pending: Mutex<Vec<run::Pending>>,
}

impl Wgpu {
    /// The adapters of this machine, the preferred first: discrete, integrated, virtual, software.
    pub fn adapters() -> Vec<Adapter> {
        let listed = |adapter: &wgpu::Adapter| {
            let info = adapter.get_info();
            Adapter { name: title(&info), is_software: info.device_type == wgpu::DeviceType::Cpu }
        };
        // A driver that fails while it is asked is no adapter to offer.
        guarded(|| Ok(sorted_adapters().iter().map(listed).collect())).unwrap_or_default()
    }

    /// The preferred adapter.
    pub fn new() -> Result<Wgpu> {
        Wgpu::with_settings(Settings::default())
    }

    /// An adapter opened in a certain way.
    pub fn with_settings(settings: Settings) -> Result<Wgpu> {
        guarded(|| Shared::open(settings).map(|shared| Wgpu { shared: Arc::new(shared) }))
    }

    /// Whether this is a software renderer rather than a GPU.
    pub fn is_software(&self) -> bool {
        self.shared.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Command buffers submitted so far: one for each run of a program, one for each download.
    pub fn submissions(&self) -> usize {
        self.shared.submissions.load(Ordering::Relaxed)
    }

    /// Threads of a subgroup, at least and at most; `None` where the adapter has no subgroup operations.
    pub fn subgroup_sizes(&self) -> Option<(u32, u32)> {
        let info = &self.shared.info;
        self.shared.abilities.subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size))
    }
}

impl Shared {
    fn open(settings: Settings) -> Result<Shared> {
        let mut adapters = sorted_adapters();
        if settings.adapter >= adapters.len() {
            let found: Vec<String> = adapters.iter().map(|adapter| title(&adapter.get_info())).collect();
            let message = match found.len() {
                0 => "no graphics adapter was found; install a Vulkan, Metal or DirectX 12 driver, or use device: \"cpu\""
                    .to_string(),
                n => format!("there is no adapter {}; the {n} adapters are: {}", settings.adapter, found.join(", ")),
            };
            return Err(Error::new(Code::Device, "device", message));
        }
        let adapter = adapters.swap_remove(settings.adapter);
        let (info, mut limits) = (adapter.get_info(), adapter.limits());
        limits.max_storage_buffers_per_shader_stage =
            limits.max_storage_buffers_per_shader_stage.min(settings.storage_buffers);
        let subgroups = settings.subgroups && adapter.features().contains(wgpu::Features::SUBGROUP);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("raphson"),
            required_features: if subgroups { wgpu::Features::SUBGROUP } else { wgpu::Features::empty() },
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = block_on(adapter.request_device(&descriptor)).map_err(|error| {
            Error::new(Code::Device, "device", format!("{} cannot be opened: {error}", title(&info)))
        })?;
        let faults = watched(&device);
        // Words are counted in i32.
        let countable = 4 * (i32::MAX as u64 / 2);
        let most_bytes = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size).min(countable) / 256 * 256;
        let abilities = Abilities {
            subgroups,
            workgroup: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) as usize,
            workgroups: limits.max_compute_workgroups_per_dimension as usize,
            shared_bytes: limits.max_compute_workgroup_storage_size as usize,
        };
        Ok(Shared {
            pool: Arc::new(Pool::new(device.clone(), faults.clone(), most_bytes)),
            base_layout: load::base_layout(&device),
            device,
            queue,
            info,
            limits,
            abilities,
            checked: settings.checked,
            most_bytes,
            in_flight: Mutex::default(),
            submissions: AtomicUsize::new(0),
            faults,
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
            pending: Mutex::default(),
        })
    }

    /// Bytes in a buffer of the device, as they are.
    fn upload(&self, bytes: &[u8]) -> Result<Pooled> {
        self.faults.check()?;
        let memory = self.pool.take(bytes.len(), STORAGE)?;
        let whole = bytes.len() / 4 * 4;
        if whole > 0 {
            self.queue.write_buffer(&memory.buffer, 0, &bytes[..whole]);
        }
        if whole < bytes.len() {
            // Only whole words can be written.
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&memory.buffer, whole as u64, &last);
        }
        self.faults.check()?;
        Ok(memory)
    }

    fn download(&self, memory: &Pooled, into: &mut [u8]) -> Result<()> {
        if !into.is_empty() {
            let size = into.len().next_multiple_of(4) as u64;
            let staging = self.pool.take(size as usize, READ_BACK)?;
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&memory.buffer, 0, &staging.buffer, 0, size);
            let submission = self.hand_over(encoder.finish());
            let slice = staging.buffer.slice(..size);
            let (sender, receiver) = std::sync::mpsc::channel();
            // The receiver outlives the wait below; if it did not, nobody would ask for the answer.
            slice.map_async(wgpu::MapMode::Read, move |result| drop(sender.send(result)));
            self.wait(submission)?;
            let failed = |what: String| Error::new(Code::Device, "device", format!("reading back failed: {what}"));
            receiver.recv().map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
            {
                let view = slice.get_mapped_range().map_err(|error| failed(error.to_string()))?;
                into.copy_from_slice(&view[..into.len()]);
            }
            staging.buffer.unmap();
        }
        run::check_pending(self, true)?;
        self.faults.check()
    }

    /// Submit a run. A caller who never reads anything back must not get ahead without bound, so the oldest of many runs
    /// is waited for.
    fn submit(&self, commands: wgpu::CommandBuffer) -> Result<()> {
        let submission = self.hand_over(commands);
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.push_back(submission);
        let oldest = if in_flight.len() > MOST_IN_FLIGHT { in_flight.pop_front() } else { None };
        drop(in_flight);
        oldest.map_or(Ok(()), |oldest| self.wait(oldest))
    }

    /// The one place where commands go to the queue.
    fn hand_over(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.queue.submit([commands])
    }

    /// Wait until a submission is done.
    fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let poll = self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        self.faults.check()?;
        poll.map(drop)
            .map_err(|error| Error::new(Code::Device, "device", format!("waiting for the device failed: {error}")))
    }
}

/// Let wgpu report to a new `Faults` instead of ending the process.
fn watched(device: &wgpu::Device) -> Arc<Faults> {
    let faults = Arc::new(Faults::default());
    let noted = faults.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| noted.note_wgpu(&error)));
    let lost = faults.clone();
    device.set_device_lost_callback(move |reason, message| {
        if reason != wgpu::DeviceLostReason::Destroyed {
            lost.note_lost(&message);
        }
    });
    faults
}

impl Device for Wgpu {
    fn describe(&self) -> Description {
        Description { kind: "wgpu", name: format!("wgpu: {}", title(&self.shared.info)), dtypes: DTYPES, threads: 1 }
    }

    fn fused(&self) -> Fused {
        attention::FUSED
    }

    fn usage(&self) -> Usage {
        self.shared.pool.usage()
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let pooled = guarded(|| self.shared.upload(bytes))?;
        Ok(Memory { inner: Arc::new(pooled), bytes: bytes.len() })
    }

    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()> {
        let pooled = run::own(memory)?;
        if into.len() != memory.bytes {
            let message = format!("{} bytes asked for, the memory has {}", into.len(), memory.bytes);
            return Err(Error::internal("download", message));
        }
        guarded(|| self.shared.download(pooled, into))
    }

    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>> {
        let loaded = guarded(|| load::load(&self.shared, &program))?;
        Ok(Box::new(loaded))
    }

    fn trim(&self) {
        self.shared.pool.trim();
        // Buffers that are let go of are freed when the device is next asked how it is doing.
        let _ = guarded(|| {
            let _ = self.shared.device.poll(wgpu::PollType::Poll);
            Ok(())
        });
        self.shared
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, pipeline| Arc::strong_count(pipeline) > 1);
    }

    fn lose_for_test(&self) -> bool {
        self.shared.faults.note_lost("a test asked for it");
        self.shared.device.destroy();
        true
    }
}
