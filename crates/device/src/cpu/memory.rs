//! The host memory that tensors live in: 64-byte aligned blocks that return to a bounded pool when the last owner
//! drops them. What the bytes mean is no concern of this file.

use raphson_graph::error::{Code, Error, Result};
use std::alloc::{Layout, alloc, dealloc};
use std::cell::UnsafeCell;
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every block starts at a multiple of this: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// The most bytes that the pool keeps; beyond it the blocks idle for longest go back to the system.
const POOL_BYTES: usize = 512 << 20;

/// A piece of host memory, owned through an `Arc`.
pub struct Block {
    start: NonNull<u8>,
    bytes: usize,
    class: usize,
    pool: Arc<Pool>,
}

// SAFETY: a block is plain memory. Who may write it and when is settled by the callers: a program writes only blocks
// that it has just allocated or of which it holds the last `Arc`.
unsafe impl Send for Block {}
// SAFETY: as above; shared blocks are only read.
unsafe impl Sync for Block {}

impl Block {
    /// Address of the first byte.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.live_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.class > 0 {
            self.pool.put_back(self.start, self.class);
        }
    }
}

/// Scratch memory for the kernels of a program, made once.
pub struct Workspace {
    threads: Vec<UnsafeCell<Block>>,
    shared: Block,
}

// SAFETY: thread number `t` of a crew uses only block number `t`; the shared one is cut into disjoint pieces.
unsafe impl Send for Workspace {}
// SAFETY: as above.
unsafe impl Sync for Workspace {}

impl Workspace {
    /// Room for kernels that need so many bytes for each of `n_threads` threads and for all together.
    pub fn new(scratch: impl Iterator<Item = (usize, usize)>, n_threads: usize, pool: &Arc<Pool>) -> Result<Workspace> {
        let (own, shared) = scratch.fold((0, 0), |most, next| (most.0.max(next.0), most.1.max(next.1)));
        let threads = (0..n_threads).map(|_| Ok(UnsafeCell::new(pool.allocate(own)?))).collect::<Result<_>>()?;
        Ok(Workspace { threads, shared: pool.allocate(shared)? })
    }

    /// The memory of one thread.
    pub fn own<T>(&self, thread: usize) -> *mut T {
        // SAFETY: a thread number is in use by one thread at a time.
        unsafe { (*self.threads[thread].get()).start().cast() }
    }

    /// The memory of all.
    pub fn shared<T>(&self) -> *mut T {
        self.shared.start().cast()
    }
}

/// A block waiting for reuse.
struct Idle {
    start: NonNull<u8>,
    stamp: u64,
}

// SAFETY: an idle block is memory that nobody uses; its address may be held by any thread.
unsafe impl Send for Idle {}

#[derive(Default)]
struct Shelves {
    /// Per size class, oldest first.
    classes: BTreeMap<usize, VecDeque<Idle>>,
    bytes: usize,
    clock: u64,
}

/// Where blocks come from.
pub struct Pool {
    shelves: Mutex<Shelves>,
    live_bytes: AtomicUsize,
    limit_bytes: usize,
}

impl Pool {
    /// An empty pool that keeps up to half a gigabyte.
    pub fn new() -> Arc<Pool> {
        Pool::with_limit(POOL_BYTES)
    }

    fn with_limit(limit_bytes: usize) -> Arc<Pool> {
        Arc::new(Pool { shelves: Mutex::default(), live_bytes: AtomicUsize::new(0), limit_bytes })
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // The shelves are consistent between statements, so a panic elsewhere leaves them usable.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of `bytes` bytes with arbitrary contents.
    pub fn allocate(self: &Arc<Pool>, bytes: usize) -> Result<Block> {
        let refuse = || {
            Error::new(
                Code::Memory,
                "cpu",
                format!("cannot allocate {bytes} bytes; dispose of tensors or use smaller batches"),
            )
        };
        let class = size_class(bytes).ok_or_else(refuse)?;
        let start = if class == 0 {
            NonNull::<Aligned>::dangling().cast()
        } else {
            match self.take(class) {
                Some(start) => start,
                None => system_allocate(class)
                    .or_else(|| {
                        // What the pool keeps may be just what is missing.
                        self.trim();
                        system_allocate(class)
                    })
                    .ok_or_else(refuse)?,
            }
        };
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Block { start, bytes, class, pool: self.clone() })
    }

    fn take(&self, class: usize) -> Option<NonNull<u8>> {
        let mut shelves = self.shelves();
        // The newest block is the likeliest to be in cache.
        let idle = shelves.classes.get_mut(&class)?.pop_back()?;
        shelves.bytes -= class;
        Some(idle.start)
    }

    fn put_back(&self, start: NonNull<u8>, class: usize) {
        if class > self.limit_bytes {
            system_free(start, class);
            return;
        }
        let mut shelves = self.shelves();
        shelves.clock += 1;
        let stamp = shelves.clock;
        shelves.classes.entry(class).or_default().push_back(Idle { start, stamp });
        shelves.bytes += class;
        while shelves.bytes > self.limit_bytes {
            let oldest = shelves.classes.iter().filter_map(|(&c, idle)| Some((idle.front()?.stamp, c))).min();
            let Some((_, class)) = oldest else { break };
            if let Some(idle) = shelves.classes.get_mut(&class).and_then(VecDeque::pop_front) {
                shelves.bytes -= class;
                system_free(idle.start, class);
            }
        }
    }

    /// Give every idle block back to the system.
    pub fn trim(&self) {
        let mut shelves = self.shelves();
        for (class, idle) in std::mem::take(&mut shelves.classes) {
            for block in idle {
                system_free(block.start, class);
            }
        }
        shelves.bytes = 0;
    }

    /// Bytes in live blocks.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Bytes kept for reuse.
    pub fn pooled_bytes(&self) -> usize {
        self.shelves().bytes
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.trim();
    }
}

/// Gives a dangling pointer of the right alignment for empty blocks.
#[repr(align(64))]
struct Aligned;

/// Sizes are rounded up so that blocks can be reused: to multiples of 64 bytes up to 1 KiB, then to quarters of powers
/// of two (at most a quarter wasted).
fn size_class(bytes: usize) -> Option<usize> {
    let step = if bytes <= 1024 { ALIGN } else { (bytes.checked_next_power_of_two()? >> 3).max(ALIGN) };
    let class = bytes.checked_next_multiple_of(step)?;
    (class <= isize::MAX as usize - ALIGN).then_some(class)
}

fn system_allocate(class: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(class, ALIGN).ok()?;
    // SAFETY: `class` is not zero (empty blocks never come here).
    NonNull::new(unsafe { alloc(layout) })
}

fn system_free(start: NonNull<u8>, class: usize) {
    if let Ok(layout) = Layout::from_size_align(class, ALIGN) {
        // SAFETY: `start` came from `system_allocate` with this very class, and nobody holds it any more.
        unsafe { dealloc(start.as_ptr(), layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_reused() {
        let pool = Pool::new();
        let block = pool.allocate(1000).unwrap();
        let address = block.start() as usize;
        assert_eq!(address % ALIGN, 0);
        assert_eq!(pool.live_bytes(), 1000);
        drop(block);
        assert_eq!((pool.live_bytes(), pool.pooled_bytes()), (0, 1024));
        assert_eq!(pool.allocate(1020).unwrap().start() as usize, address);
        pool.trim();
        assert_eq!(pool.pooled_bytes(), 0);
    }

    #[test]
    fn the_pool_is_bounded_and_frees_the_oldest_first() {
        let pool = Pool::with_limit(4096);
        let blocks: Vec<Block> = (0..5).map(|_| pool.allocate(1024).unwrap()).collect();
        let big = pool.allocate(8192).unwrap();
        drop((blocks, big));
        assert_eq!(pool.pooled_bytes(), 4096);
    }

    #[test]
    fn absurd_sizes_are_errors() {
        let pool = Pool::new();
        assert_eq!(pool.allocate(usize::MAX).map(|_| ()).unwrap_err().code, Code::Memory);
        assert_eq!(pool.allocate(1 << 62).map(|_| ()).unwrap_err().code, Code::Memory);
        assert_eq!(pool.allocate(0).unwrap().start() as usize % ALIGN, 0);
    }

    #[test]
    fn classes_waste_at_most_a_quarter() {
        for bytes in (1..2_000_000).step_by(977) {
            let class = size_class(bytes).unwrap();
            assert!(class >= bytes && (bytes <= 1024 || class * 4 <= bytes * 5 + 4 * ALIGN), "{bytes} -> {class}");
        }
    }
}
