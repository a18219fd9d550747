//! cuBLAS, loaded at run time if it is installed: handle, workspace and the one call that is used. When it is used is
//! decided in `dot`.

use super::driver::Gemm;
use cudarc::cublas::sys::{
    self, cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cublasStatus_t, cudaDataType,
};
use cudarc::driver::sys as cu;
use raphson_graph::error::{Code, Error, Result};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// The workspace that NVIDIA advises for Hopper and later, and for others.
const WORKSPACE_BYTES: [usize; 2] = [32 << 20, 4 << 20];

/// The oldest version whose calls have the types that are used here, 11.0.
const OLDEST_VERSION: i32 = 110_000;

/// cuBLAS on one stream, and a second handle that records for graphs. What both launch runs in one order, so they share a
/// workspace.
pub struct Blas {
    /// The library's functions may not be called with one handle from two threads at once.
    handles: [Mutex<sys::cublasHandle_t>; 2],
    workspace: u64,
    version: i32,
}

// SAFETY: each handle is used by one thread at a time.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

fn check(call: &str, status: cublasStatus_t) -> Result<()> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Err(Error::new(
            Code::Memory,
            "dot",
            "the GPU has no memory left for cuBLAS; dispose of tensors or use smaller batches",
        )),
        status => Err(Error::new(
            Code::Device,
            "dot",
            format!("{call} failed ({status:?}); set RAPHSON_CUBLAS=0 to do without cuBLAS"),
        )),
    }
}

impl Blas {
    /// Load the library for work on the first stream and recording on the second. Panics or fails where it cannot be loaded.
    ///
    /// # Safety
    /// The streams' context is current, and the streams outlive this.
    pub unsafe fn open(streams: [cu::CUstream; 2], capability: (u32, u32)) -> Result<Blas> {
        // SAFETY: this loads the library by name and lets go of it.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new(Code::Device, "dot", "cuBLAS cannot be loaded"));
        }
        let handles = [Mutex::new(null_mut()), Mutex::new(null_mut())];
        let mut blas = Blas { handles, workspace: 0, version: 0 };
        let bytes = if capability.0 >= 9 { WORKSPACE_BYTES[0] } else { WORKSPACE_BYTES[1] };
        // SAFETY: the library writes its handles; our caller vouches for streams and context. What was made is given back
        // by `drop` if a later step fails. A workspace of our own keeps the library from allocating while it is
        // recorded; setting the stream would reset it, so it comes after.
        unsafe {
            if cu::cuMemAlloc_v2(&mut blas.workspace, bytes) != cu::CUresult::CUDA_SUCCESS {
                blas.workspace = 0;
                return Err(Error::new(Code::Memory, "dot", "no memory for the workspace of cuBLAS"));
            }
            for (handle, stream) in blas.handles.iter_mut().zip(streams) {
                let handle = handle.get_mut().unwrap_or_else(PoisonError::into_inner);
                check("cublasCreate", sys::cublasCreate_v2(handle))?;
                check("cublasSetStream", sys::cublasSetStream_v2(*handle, stream.cast()))?;
                let workspace = blas.workspace as *mut c_void;
                check("cublasSetWorkspace", sys::cublasSetWorkspace_v2(*handle, workspace, bytes))?;
                check("cublasGetVersion", sys::cublasGetVersion_v2(*handle, &mut blas.version))?;
            }
        }
        // The loader takes older libraries too, whose functions have the same names and other arguments.
        if blas.version < OLDEST_VERSION {
            return Err(Error::new(Code::Device, "dot", format!("{} is too old; 11.0 is needed", blas.name())));
        }
        Ok(blas)
    }

    /// Name and version, for people.
    pub fn name(&self) -> String {
        // 12.4.5 is 120405.
        let v = self.version;
        format!("cuBLAS {}.{}.{}", v / 10_000, v / 100 % 100, v % 100)
    }

    /// Put a product on the stream.
    ///
    /// # Safety
    /// The context is current, and the operands exist until the work is done.
    pub unsafe fn launch(&self, gemm: &Gemm) -> Result<()> {
        // SAFETY: passed on to our caller.
        unsafe { multiply(&self.handles[0], gemm) }
    }

    /// Put a product on the second stream, which is being recorded.
    ///
    /// # Safety
    /// As for `launch`, whenever the recording is replayed.
    pub unsafe fn record(&self, gemm: &Gemm) -> Result<()> {
        // SAFETY: passed on to our caller.
        unsafe { multiply(&self.handles[1], gemm) }
    }
}

/// The library is column-major, so it is given rightᵀ · leftᵀ = outᵀ.
///
/// # Safety
/// As for `launch`.
unsafe fn multiply(handle: &Mutex<sys::cublasHandle_t>, gemm: &Gemm) -> Result<()> {
    let operation =
        |transposed| if transposed { cublasOperation_t::CUBLAS_OP_T } else { cublasOperation_t::CUBLAS_OP_N };
    let size = |size: usize| {
        i32::try_from(size).map_err(|_| Error::internal("dot", format!("a size of {size} was given to cuBLAS")))
    };
    let leading = |leading: i64| size(usize::try_from(leading).unwrap_or(usize::MAX));
    // The bits of 1 and 0; of an f32 they stand in the low half.
    let one = if gemm.double { 1.0_f64.to_bits() } else { u64::from(1.0_f32.to_bits()) };
    let zero = 0_u64;
    let (kind, compute) = match (gemm.double, gemm.tf32) {
        (true, _) => (cudaDataType::CUDA_R_64F, cublasComputeType_t::CUBLAS_COMPUTE_64F),
        (false, true) => (cudaDataType::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32),
        (false, false) => (cudaDataType::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F),
    };
    let handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: our caller vouches for the operands; the scalars are host memory of the computation's type, which the
    // library reads before it returns.
    let status = unsafe {
        sys::cublasGemmStridedBatchedEx(
            *handle,
            operation(gemm.right.transposed),
            operation(gemm.left.transposed),
            size(gemm.n)?,
            size(gemm.m)?,
            size(gemm.k)?,
            std::ptr::from_ref(&one).cast(),
            gemm.right.address as *const c_void,
            kind,
            leading(gemm.right.leading)?,
            gemm.right.batch_stride,
            gemm.left.address as *const c_void,
            kind,
            leading(gemm.left.leading)?,
            gemm.left.batch_stride,
            std::ptr::from_ref(&zero).cast(),
            gemm.out as *mut c_void,
            kind,
            size(gemm.n)?,
            (gemm.m * gemm.n) as i64,
            size(gemm.batches)?,
            compute,
            cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
        )
    };
    check("cublasGemmStridedBatchedEx", status)
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: handles and workspace are ours; the stream is idle when its owner drops this.
        unsafe {
            for handle in &mut self.handles {
                let handle = handle.get_mut().unwrap_or_else(PoisonError::into_inner);
                if !handle.is_null() {
                    let _ = sys::cublasDestroy_v2(*handle);
                }
            }
            if self.workspace != 0 {
                let _ = cu::cuMemFree_v2(self.workspace);
            }
        }
    }
}
