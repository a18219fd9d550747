//! The NVIDIA driver, loaded at run time: calls, handles and error texts. What is called when is decided elsewhere. Only
//! `open` may be called where no driver exists; it looks for the library first and fails with a sentence.

use super::blas::Blas;
use super::driver::{Call, Driver, Event, Function, Gemm, Gpu, Graph, Module, Work};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute, CUresult};
use raphson_graph::error::{Code, Error, Result};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The oldest driver: the calls for graphs are those of CUDA 12.0 (Linux driver 525).
const OLDEST_DRIVER: u32 = 12_000;
/// The oldest GPUs that the kernels are written for.
const OLDEST_CAPABILITY: (u32, u32) = (7, 0);
/// Dynamic shared memory beyond this must be asked for.
const ORDINARY_SHARED_BYTES: u32 = 48 << 10;

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::Device, "cuda", message)
}

/// What the driver calls an error.
fn describe(status: CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the driver writes a pointer to a constant string, or leaves null.
    let found = unsafe { sys::cuGetErrorString(status, &mut text) };
    if found != CUresult::CUDA_SUCCESS || text.is_null() {
        return format!("error {}", status as u32);
    }
    // SAFETY: as above; the string ends with a zero.
    format!("error {}, {}", status as u32, unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

/// The result of a driver call, or an error that says which call failed.
fn check(call: &str, status: CUresult) -> Result<()> {
    match status {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(Error::new(
            Code::Memory,
            "cuda",
            format!("the GPU has no memory left for {call}; dispose of tensors or use smaller batches"),
        )),
        status => Err(refuse(format!(
            "{call} failed ({}); if it does so again, start the process anew or use device: \"cpu\"",
            describe(status)
        ))),
    }
}

/// Run code that may panic where a library or one of its functions is missing.
fn guarded<T>(what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(refuse(format!("{what} is not usable ({text}); update the NVIDIA driver or use device: \"cpu\"")))
    })
}

/// Whether libcuda (nvcuda.dll) can be loaded.
pub fn is_driver_present() -> bool {
    // SAFETY: this loads the library by name and lets go of it.
    guarded("libcuda", || Ok(unsafe { sys::is_culib_present() })).unwrap_or(false)
}

/// The GPUs that the driver shows, in its order.
pub fn list() -> Result<Vec<Gpu>> {
    if !is_driver_present() {
        return Err(refuse(
            "libcuda cannot be loaded, so there is no NVIDIA driver; install it or use device: \"cpu\"",
        ));
    }
    guarded("libcuda", || {
        result::init().map_err(|error| refuse(format!("the driver does not start ({})", describe(error.0))))?;
        let n = result::device::get_count().map_err(|error| refuse(describe(error.0)))?;
        (0..n).map(describe_gpu).collect()
    })
}

fn describe_gpu(ordinal: i32) -> Result<Gpu> {
    let wrong = |error: result::DriverError| refuse(format!("GPU {ordinal} does not answer ({})", describe(error.0)));
    let device = result::device::get(ordinal).map_err(wrong)?;
    let attribute = |attribute| {
        // SAFETY: the device comes from the driver.
        unsafe { result::device::get_attribute(device, attribute) }.map(|value| value as u32).map_err(wrong)
    };
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
    Ok(Gpu {
        name: result::device::get_name(device).map_err(wrong)?,
        capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: the device comes from the driver.
        memory_bytes: unsafe { result::device::total_mem(device) }.map_err(wrong)?,
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        driver_version: version as u32,
    })
}

/// Why a GPU cannot be used, if so.
pub fn shortcoming(gpu: &Gpu) -> Option<String> {
    let version = |v: u32| format!("{}.{}", v / 1000, v % 1000 / 10);
    if gpu.driver_version < OLDEST_DRIVER {
        let (has, needs) = (version(gpu.driver_version), version(OLDEST_DRIVER));
        return Some(format!("the driver is for CUDA {has}; {needs} is needed, so update the NVIDIA driver"));
    }
    if gpu.capability < OLDEST_CAPABILITY {
        let ((a, b), (c, d)) = (gpu.capability, OLDEST_CAPABILITY);
        return Some(format!("compute capability {a}.{b} is too old; {c}.{d} is needed"));
    }
    None
}

/// A graph with its entries.
struct Native {
    /// Kept because its nodes name the entries of `exec`.
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
}

// SAFETY: the driver's handles may be used from any thread; the table of graphs is locked.
unsafe impl Send for Native {}

/// One GPU with its primary context and one stream.
pub struct Nvidia {
    gpu: Gpu,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Where calls of the library are recorded for graphs; nothing runs on it. Other threads put work on `stream` at any
    /// time, which must not get into a recording.
    recorder: sys::CUstream,
    recording: Mutex<()>,
    blas_wanted: bool,
    blas: OnceLock<Option<Blas>>,
    graphs: Mutex<HashMap<u64, Native>>,
    next_graph: AtomicU64,
}

// SAFETY: the driver's functions may be called from any thread once the context is current, which `enter` sees to.
unsafe impl Send for Nvidia {}
// SAFETY: as above; what is not the driver's is locked.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// The GPU of this number. `blas_wanted`: whether to look for cuBLAS.
    pub fn open(ordinal: usize, blas_wanted: bool) -> Result<Nvidia> {
        let gpus = list()?;
        let gpu = gpus.get(ordinal).cloned().ok_or_else(|| {
            let n = gpus.len();
            refuse(format!("there is no GPU {ordinal}; the driver shows {n}, counted from 0"))
        })?;
        if let Some(shortcoming) = shortcoming(&gpu) {
            return Err(refuse(format!("{}: {shortcoming}", gpu.name)));
        }
        guarded("libcuda", || {
            let wrong = |error: result::DriverError| refuse(format!("{}: {}", gpu.name, describe(error.0)));
            let device = result::device::get(ordinal as i32).map_err(wrong)?;
            // SAFETY: the device exists; the context is released when this is dropped.
            let context = unsafe { result::primary_ctx::retain(device) }.map_err(wrong)?;
            let mut nvidia = Nvidia {
                gpu: gpu.clone(),
                device,
                context,
                stream: null_mut(),
                recorder: null_mut(),
                recording: Mutex::default(),
                blas_wanted,
                blas: OnceLock::new(),
                graphs: Mutex::default(),
                next_graph: AtomicU64::new(1),
            };
            nvidia.enter()?;
            // A stream of its own that does not wait for the default one.
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            // SAFETY: the driver writes one handle each.
            unsafe {
                check("cuStreamCreate", sys::cuStreamCreate(&mut nvidia.stream, flags))?;
                check("cuStreamCreate", sys::cuStreamCreate(&mut nvidia.recorder, flags))?;
            }
            Ok(nvidia)
        })
    }

    /// Make the context current on this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained as long as this lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    fn blas(&self) -> Option<&Blas> {
        let open = || {
            if !self.blas_wanted || self.enter().is_err() {
                return None;
            }
            // SAFETY: the context is current, and the streams outlive the library's handles.
            guarded("cuBLAS", || unsafe { Blas::open([self.stream, self.recorder], self.gpu.capability) }).ok()
        };
        self.blas.get_or_init(open).as_ref()
    }

    fn graphs(&self) -> MutexGuard<'_, HashMap<u64, Native>> {
        // The table is consistent between statements.
        self.graphs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The product's kernels as a graph.
    ///
    /// # Safety
    /// As for `launch`.
    unsafe fn captured(&self, gemm: &Gemm) -> Result<sys::CUgraph> {
        let blas = self.library_for_product()?;
        let _one_at_a_time = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        // Other threads may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: passed on to our caller; capturing ends whatever happens in between.
        unsafe {
            check("cuStreamBeginCapture", sys::cuStreamBeginCapture_v2(self.recorder, mode))?;
            let done = blas.record(gemm);
            let mut graph = null_mut();
            let ended = check("cuStreamEndCapture", sys::cuStreamEndCapture(self.recorder, &mut graph));
            match done.and(ended) {
                Ok(()) => Ok(graph),
                Err(error) => {
                    if !graph.is_null() {
                        sys::cuGraphDestroy(graph);
                    }
                    Err(error)
                }
            }
        }
    }

    fn library_for_product(&self) -> Result<&Blas> {
        self.blas().ok_or_else(|| Error::internal("dot", "a product was planned for a library that is not there"))
    }

    /// # Safety
    /// As for `graph`; `graph` is the driver's.
    unsafe fn add_all(&self, graph: sys::CUgraph, work: &[Work]) -> Result<Vec<sys::CUgraphNode>> {
        let mut nodes: Vec<sys::CUgraphNode> = Vec::with_capacity(work.len());
        for work in work {
            let (before, n_before) = nodes.last().map_or((std::ptr::null(), 0), |last| (std::ptr::from_ref(last), 1));
            let mut node = null_mut();
            // SAFETY: passed on to our caller; the driver copies what it is given.
            unsafe {
                match work {
                    Work::Call(call) => {
                        let mut pointers = pointers(call);
                        let parameters = node_parameters(call, &mut pointers);
                        let status = sys::cuGraphAddKernelNode_v2(&mut node, graph, before, n_before, &parameters);
                        check("cuGraphAddKernelNode", status)?;
                    }
                    Work::Gemm(gemm) => {
                        let child = self.captured(gemm)?;
                        let status = sys::cuGraphAddChildGraphNode(&mut node, graph, before, n_before, child);
                        sys::cuGraphDestroy(child);
                        check("cuGraphAddChildGraphNode", status)?;
                    }
                }
            }
            nodes.push(node);
        }
        Ok(nodes)
    }
}

/// Where each argument stands, as launches want it. A parameter narrower than 64 bits takes the low ones.
fn pointers(call: &Call) -> Vec<*mut c_void> {
    call.arguments.iter().map(|argument| std::ptr::from_ref(argument).cast_mut().cast()).collect()
}

fn node_parameters(call: &Call, pointers: &mut [*mut c_void]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: call.function.0 as sys::CUfunction,
        gridDimX: call.grid[0],
        gridDimY: call.grid[1],
        gridDimZ: call.grid[2],
        blockDimX: call.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: call.shared_bytes,
        kernelParams: pointers.as_mut_ptr(),
        extra: null_mut(),
        kern: null_mut(),
        ctx: null_mut(),
    }
}

impl Driver for Nvidia {
    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn library(&self) -> Option<String> {
        self.blas().map(Blas::name)
    }

    fn allocate(&self, bytes: usize) -> Result<Option<u64>> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: the driver writes one address.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            status => check("cuMemAlloc", status).map(|()| Some(address)),
        }
    }

    unsafe fn free(&self, address: u64) {
        if self.enter().is_ok() {
            // A failure here is that of earlier work; whoever waits for that work reports it.
            // SAFETY: passed on to our caller.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }

    fn allocate_host(&self, bytes: usize) -> Result<Option<*mut u8>> {
        self.enter()?;
        let mut address = null_mut();
        // SAFETY: the driver writes one address.
        match unsafe { sys::cuMemHostAlloc(&mut address, bytes, 0) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            status => check("cuMemHostAlloc", status).map(|()| Some(address.cast())),
        }
    }

    unsafe fn free_host(&self, address: *mut u8) {
        if self.enter().is_ok() {
            // SAFETY: passed on to our caller.
            let _ = unsafe { sys::cuMemFreeHost(address.cast()) };
        }
    }

    unsafe fn copy_in(&self, to: u64, from: *const u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: passed on to our caller.
        check("cuMemcpyHtoD", unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, self.stream) })
    }

    unsafe fn copy_out(&self, to: *mut u8, from: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: passed on to our caller; the bytes have arrived when the stream is done.
        check("cuMemcpyDtoH", unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, self.stream) })?;
        self.synchronize()
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: passed on to our caller.
        check("cuMemcpyDtoD", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream) })
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: passed on to our caller.
        check("cuMemsetD8", unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.stream) })
    }

    fn load(&self, text: &str) -> Result<Module> {
        self.enter()?;
        let text = CString::new(text).map_err(|_| Error::internal("cuda", "PTX text with a zero byte"))?;
        let mut log = vec![0_u8; 4096];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
        let (n, options, values) = (options.len() as u32, options.as_mut_ptr(), values.as_mut_ptr());
        let mut module = null_mut();
        // SAFETY: the text ends with a zero; the log has the length that is stated.
        let status = unsafe { sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), n, options, values) };
        check("cuModuleLoadData", status).map_err(|mut error| {
            let log = log.split(|&byte| byte == 0).next().unwrap_or_default();
            error.message.push_str(&format!("; the compiler says: {}", String::from_utf8_lossy(log).trim()));
            error
        })?;
        Ok(Module(module as u64))
    }

    unsafe fn function(&self, module: Module, name: &str, shared_bytes: u32) -> Result<Function> {
        self.enter()?;
        let name = CString::new(name).map_err(|_| Error::internal("cuda", "a kernel's name with a zero byte"))?;
        let mut function = null_mut();
        // SAFETY: our caller vouches for the module; the name ends with a zero.
        let status = unsafe { sys::cuModuleGetFunction(&mut function, module.0 as sys::CUmodule, name.as_ptr()) };
        check("cuModuleGetFunction", status)?;
        if shared_bytes > ORDINARY_SHARED_BYTES {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is the driver's.
            let status = unsafe { sys::cuFuncSetAttribute(function, attribute, shared_bytes as i32) };
            check("cuFuncSetAttribute", status)?;
        }
        Ok(Function(function as u64))
    }

    unsafe fn unload(&self, module: Module) {
        if self.enter().is_ok() {
            // SAFETY: passed on to our caller.
            let _ = unsafe { sys::cuModuleUnload(module.0 as sys::CUmodule) };
        }
    }

    unsafe fn launch(&self, work: &Work) -> Result<()> {
        self.enter()?;
        match work {
            Work::Call(call) => {
                let mut pointers = pointers(call);
                let [x, y, z] = call.grid;
                // SAFETY: passed on to our caller; the driver copies the arguments before it returns.
                let status = unsafe {
                    sys::cuLaunchKernel(
                        call.function.0 as sys::CUfunction,
                        x,
                        y,
                        z,
                        call.block,
                        1,
                        1,
                        call.shared_bytes,
                        self.stream,
                        pointers.as_mut_ptr(),
                        null_mut(),
                    )
                };
                check("cuLaunchKernel", status)
            }
            // SAFETY: passed on to our caller.
            Work::Gemm(gemm) => unsafe { self.library_for_product()?.launch(gemm) },
        }
    }

    unsafe fn graph(&self, work: &[Work]) -> Result<Graph> {
        self.enter()?;
        let mut graph = null_mut();
        let mut exec = null_mut();
        // SAFETY: passed on to our caller; the driver writes its handles. The executable graph keeps what it needs.
        let nodes = unsafe {
            check("cuGraphCreate", sys::cuGraphCreate(&mut graph, 0))?;
            let nodes = self.add_all(graph, work).and_then(|nodes| {
                check("cuGraphInstantiate", sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0))?;
                Ok(nodes)
            });
            if nodes.is_err() {
                sys::cuGraphDestroy(graph);
            }
            nodes?
        };
        let number = self.next_graph.fetch_add(1, Ordering::Relaxed);
        self.graphs().insert(number, Native { graph, exec, nodes });
        Ok(Graph(number))
    }

    unsafe fn update(&self, graph: Graph, at: usize, work: &Work) -> Result<bool> {
        self.enter()?;
        let graphs = self.graphs();
        let native = graphs.get(&graph.0).ok_or_else(|| Error::internal("cuda", "an unknown graph"))?;
        let (exec, node) = (native.exec, native.nodes[at]);
        // SAFETY: passed on to our caller; the driver copies what it is given. Launches under way are not affected.
        let status = unsafe {
            match work {
                Work::Call(call) => {
                    let mut pointers = pointers(call);
                    let parameters = node_parameters(call, &mut pointers);
                    sys::cuGraphExecKernelNodeSetParams_v2(exec, node, &parameters)
                }
                Work::Gemm(gemm) => {
                    let child = self.captured(gemm)?;
                    let status = sys::cuGraphExecChildGraphNodeSetParams(exec, node, child);
                    sys::cuGraphDestroy(child);
                    status
                }
            }
        };
        // Another address may mean another kernel of the library, which an existing graph cannot take.
        Ok(status == CUresult::CUDA_SUCCESS)
    }

    unsafe fn replay(&self, graph: Graph) -> Result<()> {
        self.enter()?;
        let exec = self.graphs().get(&graph.0).map(|native| native.exec);
        let exec = exec.ok_or_else(|| Error::internal("cuda", "an unknown graph"))?;
        // SAFETY: passed on to our caller.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(exec, self.stream) })
    }

    fn drop_graph(&self, graph: Graph) {
        let native = self.graphs().remove(&graph.0);
        if let (Some(native), Ok(())) = (native, self.enter()) {
            // SAFETY: the handles are ours; the driver waits with freeing until the work is done.
            unsafe {
                let _ = sys::cuGraphExecDestroy(native.exec);
                let _ = sys::cuGraphDestroy(native.graph);
            }
        }
    }

    fn event(&self) -> Result<Event> {
        self.enter()?;
        let mut event = null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the driver writes one handle.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(Event(event as u64))
    }

    fn record(&self, event: Event) -> Result<()> {
        self.enter()?;
        // SAFETY: events are given out by `event`.
        check("cuEventRecord", unsafe { sys::cuEventRecord(event.0 as sys::CUevent, self.stream) })
    }

    fn happened(&self, event: Event) -> Result<bool> {
        self.enter()?;
        // SAFETY: as above.
        match unsafe { sys::cuEventQuery(event.0 as sys::CUevent) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => check("cuEventQuery", status).map(|()| true),
        }
    }

    fn wait(&self, event: Event) -> Result<()> {
        self.enter()?;
        // SAFETY: as above.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(event.0 as sys::CUevent) })
    }

    fn drop_event(&self, event: Event) {
        if self.enter().is_ok() {
            // SAFETY: as above; the driver frees it when it has happened.
            let _ = unsafe { sys::cuEventDestroy_v2(event.0 as sys::CUevent) };
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is ours.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // The library's handle goes before the stream that it uses.
        let _ = self.synchronize();
        self.blas.take();
        // SAFETY: all is ours, and nothing uses it any more.
        unsafe {
            for stream in [self.stream, self.recorder] {
                if !stream.is_null() {
                    let _ = sys::cuStreamDestroy_v2(stream);
                }
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
