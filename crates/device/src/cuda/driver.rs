//! What the CUDA device asks of a driver: memory, copies, modules, launches, graphs and products of a library, all in the
//! order of one stream. The NVIDIA driver answers in `nvidia`; tests answer with an interpreter or with notes of what was
//! asked. No policy lives here: what is cached, reused or replayed is decided by the callers.

use raphson_graph::error::Result;

/// What a GPU says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// For people: `NVIDIA A100-SXM4-40GB`.
    pub name: String,
    /// Compute capability: (8, 0).
    pub capability: (u32, u32),
    /// Bytes of its memory.
    pub memory_bytes: usize,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// The CUDA version that the driver implements, as it counts them: 12040 is 12.4.
    pub driver_version: u32,
}

/// A loaded module, a function in it, an event, a graph: numbers that the driver gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Module(pub u64);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub u64);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub u64);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph(pub u64);

/// One kernel launch. Every parameter is 64 bits wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub function: Function,
    pub grid: [u32; 3],
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    pub arguments: Vec<u64>,
}

/// A matrix of a [`Gemm`]: element (i, j) of batch b lies at `address + size·(b·batch_stride + i·leading + j)`, or with i and j
/// exchanged if `transposed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub address: u64,
    pub transposed: bool,
    pub leading: i64,
    pub batch_stride: i64,
}

/// A batch of row-major products by the library: out[b] = left[b] · right[b].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// f64 instead of f32.
    pub double: bool,
    /// f32 operands may be rounded to TF32.
    pub tf32: bool,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub batches: usize,
    pub left: Matrix,
    pub right: Matrix,
    pub out: u64,
}

/// One entry of the stream or of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Call(Call),
    Gemm(Gemm),
}

/// A GPU's driver with one stream. Methods may be called from any thread; work is done in the order of the calls.
pub trait Driver: Send + Sync {
    /// The GPU.
    fn gpu(&self) -> &Gpu;
    /// Name and version of the library for products, if it can be loaded.
    fn library(&self) -> Option<String>;

    /// Memory of the GPU, aligned to 256 bytes at least; `None` when there is not enough.
    fn allocate(&self, bytes: usize) -> Result<Option<u64>>;
    /// Give memory back.
    ///
    /// # Safety
    /// The address comes from `allocate`, and no work that uses it is in the stream or comes later.
    unsafe fn free(&self, address: u64);
    /// Host memory that the GPU copies from without waiting; `None` when there is not enough.
    fn allocate_host(&self, bytes: usize) -> Result<Option<*mut u8>>;
    /// Give host memory back.
    ///
    /// # Safety
    /// As for `free`.
    unsafe fn free_host(&self, address: *mut u8);

    /// Copy from host memory of `allocate_host` to the GPU, in stream order.
    ///
    /// # Safety
    /// Both ranges exist, and the host's stays as it is until the copy has happened.
    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<()>;
    /// Copy to ordinary host memory, in stream order; returns when the bytes are there.
    ///
    /// # Safety
    /// Both ranges exist.
    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<()>;
    /// Copy within the GPU, in stream order.
    ///
    /// # Safety
    /// Both ranges exist and do not overlap.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;
    /// Set bytes to zero, in stream order.
    ///
    /// # Safety
    /// The range exists.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Compile and load PTX text.
    fn load(&self, text: &str) -> Result<Module>;
    /// A kernel of a module, ready to be launched with this much dynamic shared memory.
    ///
    /// # Safety
    /// The module is loaded.
    unsafe fn function(&self, module: Module, name: &str, shared_bytes: u32) -> Result<Function>;
    /// Forget a module and its functions.
    ///
    /// # Safety
    /// No work that uses it is in the stream or comes later.
    unsafe fn unload(&self, module: Module);

    /// Put work on the stream.
    ///
    /// # Safety
    /// Functions are loaded and get what they expect; all memory exists until the work is done.
    unsafe fn launch(&self, work: &Work) -> Result<()>;
    /// Make a graph of work to be done in this order.
    ///
    /// # Safety
    /// Functions are loaded as long as the graph lives.
    unsafe fn graph(&self, work: &[Work]) -> Result<Graph>;
    /// Exchange the arguments of one entry for later launches; false if the graph must be made anew for that.
    ///
    /// # Safety
    /// `at` is an entry of the graph, and `work` differs from it in addresses only.
    unsafe fn update(&self, graph: Graph, at: usize, work: &Work) -> Result<bool>;
    /// Put a whole graph on the stream.
    ///
    /// # Safety
    /// As for `launch`, for all its entries.
    unsafe fn replay(&self, graph: Graph) -> Result<()>;
    /// Forget a graph; it may still be at work.
    fn drop_graph(&self, graph: Graph);

    /// A new event.
    fn event(&self) -> Result<Event>;
    /// The event happens when all work that is on the stream now is done.
    fn record(&self, event: Event) -> Result<()>;
    /// Whether the event, as last recorded, has happened.
    fn happened(&self, event: Event) -> Result<bool>;
    /// Wait for the event as last recorded.
    fn wait(&self, event: Event) -> Result<()>;
    /// Forget an event.
    fn drop_event(&self, event: Event);
    /// Wait for all work on the stream.
    fn synchronize(&self) -> Result<()>;
}
