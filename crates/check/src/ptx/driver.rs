//! The interpreter as a driver of the CUDA device, so that the device's own code — memory, uploads, plans, graphs, faults — runs
//! without a GPU. What is put on the stream is done when somebody waits, as late as a GPU might, so memory or modules that are
//! given back too early are found out. Products of the library are computed by plain loops.

use super::{Fault, Machine, Module as Parsed, Options, Size};
use raphson_device::cuda::driver::{Call, Driver, Event, Function, Gemm, Gpu, Graph, Matrix, Module, Work};
use raphson_graph::error::{Code, Error, Result};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the GPU is said to be.
#[derive(Clone, Debug)]
pub struct Settings {
    pub capability: (u32, u32),
    pub multiprocessors: u32,
    /// Allocations beyond this fail.
    pub memory_bytes: usize,
    /// Whether there is a library for products.
    pub library: bool,
    /// Whether graphs can be made, and whether they take other arguments.
    pub graphs: bool,
    pub updates: bool,
    pub machine: Options,
}

impl Default for Settings {
    fn default() -> Settings {
        let machine = Options::default();
        Settings {
            capability: (8, 0),
            multiprocessors: 4,
            memory_bytes: 1 << 30,
            library: false,
            graphs: true,
            updates: true,
            machine,
        }
    }
}

/// What was asked of the driver, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub allocations: usize,
    pub frees: usize,
    pub modules: usize,
    /// Kernels that ran, by themselves or in graphs.
    pub launches: usize,
    /// Kernels and products that were put on the stream one by one.
    pub single: usize,
    pub gemms: usize,
    pub graphs: usize,
    pub graphs_dropped: usize,
    pub updates: usize,
    pub replays: usize,
    pub copies: usize,
}

enum Queued {
    CopyIn { to: u64, from: HostAddress, bytes: usize },
    Copy { to: u64, from: u64, bytes: usize },
    Clear { address: u64, bytes: usize },
    Work(Work),
    Record(Event),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct HostAddress(*mut u8);

// SAFETY: the address is used under the lock only.
unsafe impl Send for HostAddress {}

#[derive(Default)]
struct State {
    machine: Machine,
    stream: VecDeque<Queued>,
    allocated: HashMap<u64, usize>,
    host: HashMap<HostAddress, Box<[u8]>>,
    modules: HashMap<u64, Arc<Parsed>>,
    functions: HashMap<u64, (u64, String, u32)>,
    graphs: HashMap<u64, Vec<Work>>,
    happened: HashMap<u64, bool>,
    next: u64,
    /// Once something has failed, everything does.
    failed: Option<Error>,
    counts: Counts,
    /// The kernels that have run.
    entries: BTreeSet<String>,
}

/// The driver.
pub struct Interpreted {
    gpu: Gpu,
    settings: Settings,
    state: Mutex<State>,
}

impl Interpreted {
    /// A GPU with nothing on it.
    pub fn new(settings: Settings) -> Interpreted {
        let gpu = Gpu {
            name: "interpreter".into(),
            capability: settings.capability,
            memory_bytes: settings.memory_bytes,
            multiprocessors: settings.multiprocessors,
            driver_version: 12_000,
        };
        let state = State { machine: Machine::new(settings.machine), next: 1, ..State::default() };
        Interpreted { gpu, settings, state: Mutex::new(state) }
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The names of the kernels that have run.
    pub fn entries(&self) -> BTreeSet<String> {
        self.state().entries.clone()
    }

    /// Bytes that are allocated now.
    pub fn allocated_bytes(&self) -> usize {
        self.state().allocated.values().sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, queued: Queued) -> Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.stream.push_back(queued);
        Ok(())
    }
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::Device, "cuda", message)
}

impl From<Fault> for Error {
    fn from(Fault(message): Fault) -> Error {
        refuse(message)
    }
}

impl State {
    fn alive(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Do all that is on the stream.
    fn drain(&mut self) -> Result<()> {
        while let Some(queued) = self.stream.pop_front() {
            if let Err(error) = self.alive().and_then(|()| self.execute(queued)) {
                self.failed = Some(error);
            }
        }
        self.alive()
    }

    fn execute(&mut self, queued: Queued) -> Result<()> {
        match queued {
            Queued::CopyIn { to, from, bytes } => {
                let source = self.host.get(&from).filter(|source| source.len() >= bytes);
                let source = source.ok_or_else(|| refuse("a copy reads host memory that was given back"))?;
                // SAFETY: the host writes its chunks through the address that it was given, so they are read through it too;
                // this one has the bytes, as was just checked, and is not written before its copy has happened.
                let bytes = unsafe { std::slice::from_raw_parts(source.as_ptr(), bytes) }.to_vec();
                self.write(to, &bytes)
            }
            Queued::Copy { to, from, bytes } => {
                let bytes = self.read(from, bytes)?;
                self.write(to, &bytes)
            }
            Queued::Clear { address, bytes } => self.write(address, &vec![0; bytes]),
            Queued::Work(Work::Call(call)) => self.call(&call),
            Queued::Work(Work::Gemm(gemm)) => self.gemm(&gemm),
            Queued::Record(event) => {
                self.happened.insert(event.0, true);
                Ok(())
            }
        }
    }

    fn call(&mut self, call: &Call) -> Result<()> {
        let function =
            self.functions.get(&call.function.0).ok_or_else(|| refuse("a function of an unloaded module"))?;
        let (module, entry, shared_bytes) = function;
        let module = self.modules.get(module).ok_or_else(|| refuse("a function of an unloaded module"))?.clone();
        if call.shared_bytes > *shared_bytes {
            return Err(refuse("more shared memory than was asked for"));
        }
        let entry = entry.clone();
        let size = Size { grid: call.grid, block: [call.block, 1, 1], shared_bytes: call.shared_bytes as usize };
        self.counts.launches += 1;
        // What a GPU takes: 2³¹ − 1 blocks along x, 65,535 along y and z, 48 KiB of shared memory unless more was asked for.
        let [x, y, z] = call.grid;
        if x > i32::MAX as u32 || y.max(z) > 65_535 || x.min(y).min(z) == 0 || !(1..=1024).contains(&call.block) {
            return Err(refuse(format!("no GPU takes a grid of {:?} blocks of {} threads", call.grid, call.block)));
        }
        self.entries.insert(entry.clone());
        Ok(self.machine.launch(&module, &entry, size, &call.arguments)?)
    }

    fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>> {
        let (region, offset) = self.machine.memory.find(address)?;
        let range = usize::try_from(offset).ok().map(|start| start..start + bytes);
        let found = range.and_then(|range| region.bytes().get(range));
        found.map(<[u8]>::to_vec).ok_or_else(|| refuse("a copy reads outside of a buffer"))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (region, offset) = self.machine.memory.find(address)?;
        Ok(region.fill(offset, bytes)?)
    }

    /// One element of a product's operand.
    fn element(&mut self, matrix: &Matrix, double: bool, batch: usize, row: usize, column: usize) -> Result<f64> {
        let (across, along) = if matrix.transposed { (column, row) } else { (row, column) };
        let size = if double { 8 } else { 4 };
        let at = batch as i64 * matrix.batch_stride + across as i64 * matrix.leading + along as i64;
        let bytes = self.read(matrix.address.wrapping_add_signed(at * size), size as usize)?;
        Ok(match <[u8; 8]>::try_from(&bytes[..]) {
            Ok(bytes) => f64::from_le_bytes(bytes),
            Err(_) => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        })
    }

    fn gemm(&mut self, gemm: &Gemm) -> Result<()> {
        // The library's own conditions, in its terms: a stored matrix's rows fit into its leading dimension.
        let fits = |matrix: &Matrix, rows: usize, columns: usize| {
            matrix.leading >= if matrix.transposed { rows } else { columns }.max(1) as i64
        };
        if !fits(&gemm.left, gemm.m, gemm.k) || !fits(&gemm.right, gemm.k, gemm.n) {
            return Err(refuse("a leading dimension that cuBLAS would refuse"));
        }
        self.counts.gemms += 1;
        for batch in 0..gemm.batches {
            for i in 0..gemm.m {
                for j in 0..gemm.n {
                    let mut sum = 0.0;
                    for p in 0..gemm.k {
                        let left = self.element(&gemm.left, gemm.double, batch, i, p)?;
                        sum += left * self.element(&gemm.right, gemm.double, batch, p, j)?;
                    }
                    let at = ((batch * gemm.m + i) * gemm.n + j) as u64;
                    match gemm.double {
                        true => self.write(gemm.out + 8 * at, &sum.to_le_bytes())?,
                        false => self.write(gemm.out + 4 * at, &(sum as f32).to_le_bytes())?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether two entries are the same but for addresses.
fn differ_in_addresses_only(a: &Work, b: &Work) -> bool {
    match (a, b) {
        (Work::Call(a), Work::Call(b)) => Call { arguments: a.arguments.clone(), ..b.clone() } == *a,
        (Work::Gemm(a), Work::Gemm(b)) => {
            let matrix = |address, matrix: Matrix| Matrix { address, ..matrix };
            let (left, right) = (matrix(a.left.address, b.left), matrix(a.right.address, b.right));
            Gemm { left, right, out: a.out, ..b.clone() } == *a
        }
        _ => false,
    }
}

impl Driver for Interpreted {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn library(&self) -> Option<String> {
        self.settings.library.then(|| "plain loops".into())
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>> {
        if self.allocated_bytes() + bytes > self.gpu.memory_bytes {
            return Ok(None);
        }
        let mut state = self.state();
        state.alive()?;
        let number = state.counts.allocations;
        let address = state.machine.memory.reserve(&format!("allocation {number}"), bytes, 1);
        state.allocated.insert(address, bytes);
        state.counts.allocations += 1;
        Ok(Some(address))
    }

    unsafe fn free(&self, address: u64) {
        let mut state = self.state();
        state.counts.frees += 1;
        if state.allocated.remove(&address).is_none() {
            state.failed = Some(refuse("memory is given back that was not allocated"));
        }
        if let Err(Fault(why)) = state.machine.memory.free(address) {
            state.failed = Some(refuse(why));
        }
    }

    fn allocate_host(&self, bytes: usize) -> Result<Option<*mut u8>> {
        let mut memory = vec![0; bytes].into_boxed_slice();
        let address = memory.as_mut_ptr();
        self.state().host.insert(HostAddress(address), memory);
        Ok(Some(address))
    }

    unsafe fn free_host(&self, address: *mut u8) {
        let mut state = self.state();
        if state.host.remove(&HostAddress(address)).is_none() {
            state.failed = Some(refuse("host memory is given back that was not allocated"));
        }
    }

    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<()> {
        self.push(Queued::CopyIn { to, from: HostAddress(from.cast_mut()), bytes })
    }

    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<()> {
        let mut state = self.state();
        state.drain()?;
        let found = state.read(from, bytes)?;
        // SAFETY: our caller vouches for the target.
        unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), to, bytes) };
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.state().counts.copies += 1;
        self.push(Queued::Copy { to, from, bytes })
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.push(Queued::Clear { address, bytes })
    }

    fn load(&self, text: &str) -> Result<Module> {
        let parsed = Parsed::parse(text)?;
        let (major, minor) = self.gpu.capability;
        let target =
            text.split_once(".target sm_").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        match target.and_then(|target| target.parse::<u32>().ok()) {
            Some(target) if target <= 10 * major + minor => {}
            _ => return Err(refuse(format!("compute capability {major}.{minor} cannot load PTX for sm_{target:?}"))),
        }
        let mut state = self.state();
        let number = state.number();
        state.modules.insert(number, Arc::new(parsed));
        state.counts.modules += 1;
        Ok(Module(number))
    }

    unsafe fn function(&self, module: Module, name: &str, shared_bytes: u32) -> Result<Function> {
        let mut state = self.state();
        let number = state.number();
        state.functions.insert(number, (module.0, name.to_string(), shared_bytes));
        Ok(Function(number))
    }

    unsafe fn unload(&self, module: Module) {
        self.state().modules.remove(&module.0);
    }

    unsafe fn launch(&self, work: &Work) -> Result<()> {
        self.state().counts.single += 1;
        self.push(Queued::Work(work.clone()))
    }

    unsafe fn graph(&self, work: &[Work]) -> Result<Graph> {
        if !self.settings.graphs {
            return Err(refuse("graphs are not to be had"));
        }
        let mut state = self.state();
        let number = state.number();
        state.graphs.insert(number, work.to_vec());
        state.counts.graphs += 1;
        Ok(Graph(number))
    }

    unsafe fn update(&self, graph: Graph, at: usize, work: &Work) -> Result<bool> {
        let mut state = self.state();
        if !self.settings.updates {
            return Ok(false);
        }
        state.counts.updates += 1;
        let entry = state.graphs.get_mut(&graph.0).and_then(|entries| entries.get_mut(at));
        let entry = entry.ok_or_else(|| refuse("an entry that the graph does not have"))?;
        if !differ_in_addresses_only(entry, work) {
            return Err(refuse("an entry of a graph may change its addresses only"));
        }
        *entry = work.clone();
        Ok(true)
    }

    unsafe fn replay(&self, graph: Graph) -> Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.counts.replays += 1;
        let entries = state.graphs.get(&graph.0).cloned().ok_or_else(|| refuse("a graph that was dropped"))?;
        state.stream.extend(entries.into_iter().map(Queued::Work));
        Ok(())
    }

    fn drop_graph(&self, graph: Graph) {
        let mut state = self.state();
        state.counts.graphs_dropped += usize::from(state.graphs.remove(&graph.0).is_some());
    }

    fn event(&self) -> Result<Event> {
        let mut state = self.state();
        Ok(Event(state.number()))
    }

    fn record(&self, event: Event) -> Result<()> {
        self.state().happened.insert(event.0, false);
        self.push(Queued::Record(event))
    }

    fn happened(&self, event: Event) -> Result<bool> {
        // An event that was never recorded counts as happened, as it does on a GPU.
        Ok(self.state().happened.get(&event.0).copied().unwrap_or(true))
    }

    fn wait(&self, event: Event) -> Result<()> {
        if self.happened(event)? { Ok(()) } else { self.synchronize() }
    }

    fn drop_event(&self, event: Event) {
        self.state().happened.remove(&event.0);
    }

    fn synchronize(&self) -> Result<()> {
        self.state().drain()
    }
}
