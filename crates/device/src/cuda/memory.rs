//! The GPU memory that tensors live in: blocks of a few size classes that return to a pool when their last owner drops them.
//! All work is done in the order of one stream, so a block may be given out again while work that uses it is still queued:
//! what its next owner asks for comes later. What the bytes mean is no concern of this file.

use super::driver::Driver;
use raphson_graph::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The smallest class, and the alignment of every block.
const SMALLEST_BYTES: usize = 512;
/// Classes up to this are cut from slabs, since the driver's own allocations cost microseconds and pages.
const SMALL_BYTES: usize = 128 << 10;
const SLAB_BYTES: usize = 2 << 20;

/// Size classes: powers of two and three steps between each, so that at most a fifth is wasted. No bytes are no class.
fn size_class(bytes: usize) -> Option<usize> {
    if bytes == 0 {
        return Some(0);
    }
    if bytes <= SMALLEST_BYTES {
        return Some(SMALLEST_BYTES);
    }
    // 2^k < bytes ≤ 2^(k+1)
    let step = 1_usize << ((bytes - 1).ilog2() - 2);
    bytes.checked_next_multiple_of(step.max(SMALLEST_BYTES))
}

/// A piece of GPU memory.
pub struct Block {
    address: u64,
    bytes: usize,
    class: usize,
    pool: Arc<Pool>,
}

impl Block {
    /// Address of the first byte; 0 for a block of no bytes.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is of this pool, and so of this GPU and stream.
    pub fn is_from(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.live_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.class > 0 {
            self.pool.put_back(self.class, self.address);
        }
    }
}

#[derive(Default)]
struct Shelves {
    /// Idle blocks per class; the newest is taken first, so that a step finds the blocks that it used before.
    idle: BTreeMap<usize, Vec<u64>>,
    idle_bytes: usize,
    /// By the address of their start.
    slabs: BTreeMap<u64, Slab>,
}

struct Slab {
    class: usize,
    /// Blocks that are not idle.
    used: usize,
}

impl Shelves {
    fn take(&mut self, class: usize) -> Option<u64> {
        let address = self.idle.get_mut(&class)?.pop()?;
        self.idle_bytes -= class;
        if class <= SMALL_BYTES
            && let Some(slab) = self.slab_of(address)
        {
            slab.used += 1;
        }
        Some(address)
    }

    fn put(&mut self, class: usize, address: u64) {
        self.idle.entry(class).or_default().push(address);
        self.idle_bytes += class;
        if class <= SMALL_BYTES
            && let Some(slab) = self.slab_of(address)
        {
            slab.used -= 1;
        }
    }

    fn slab_of(&mut self, address: u64) -> Option<&mut Slab> {
        self.slabs.range_mut(..=address).next_back().map(|(_, slab)| slab)
    }

    /// Cut a new slab into blocks; the first of them comes out on top.
    fn add_slab(&mut self, class: usize, start: u64) {
        let n = SLAB_BYTES / class;
        self.slabs.insert(start, Slab { class, used: 0 });
        self.idle.entry(class).or_default().extend((0..n as u64).rev().map(|i| start + i * class as u64));
        self.idle_bytes += n * class;
    }

    /// Take out all that can go back to the driver: idle blocks of their own, and slabs of which no block is in use.
    fn take_free(&mut self) -> Vec<u64> {
        let mut free: Vec<u64> = self.idle.split_off(&(SMALL_BYTES + 1)).into_values().flatten().collect();
        let unused: Vec<(u64, usize)> =
            self.slabs.iter().filter(|(_, slab)| slab.used == 0).map(|(&start, slab)| (start, slab.class)).collect();
        for (start, class) in unused {
            self.slabs.remove(&start);
            if let Some(idle) = self.idle.get_mut(&class) {
                idle.retain(|&address| !(start..start + SLAB_BYTES as u64).contains(&address));
            }
            free.push(start);
        }
        self.idle_bytes = self.idle.iter().map(|(class, addresses)| class * addresses.len()).sum();
        free
    }
}

/// Where blocks come from.
pub struct Pool {
    driver: Arc<dyn Driver>,
    keeps: bool,
    shelves: Mutex<Shelves>,
    live_bytes: AtomicUsize,
}

impl Pool {
    /// An empty pool. Without `keeps` every block is an allocation of the driver of exactly its size, given back at once: slow,
    /// but what checks memory sees each block.
    pub fn new(driver: Arc<dyn Driver>, keeps: bool) -> Arc<Pool> {
        Arc::new(Pool { driver, keeps, shelves: Mutex::default(), live_bytes: AtomicUsize::new(0) })
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // The shelves are consistent between statements, so a panic elsewhere leaves them usable.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of `bytes` bytes with arbitrary contents.
    pub fn allocate(self: &Arc<Pool>, bytes: usize) -> Result<Block> {
        let class = if self.keeps { size_class(bytes).ok_or_else(|| self.refuse(bytes))? } else { bytes };
        let address = if class == 0 { 0 } else { self.address(class, bytes)? };
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Block { address, bytes, class, pool: self.clone() })
    }

    fn address(&self, class: usize, bytes: usize) -> Result<u64> {
        if let Some(address) = self.shelves().take(class) {
            return Ok(address);
        }
        let small = self.keeps && class <= SMALL_BYTES;
        let wanted = if small { SLAB_BYTES } else { class };
        let found = match self.driver.allocate(wanted)? {
            Some(address) => Some(address),
            None => {
                // What the pool keeps may be just what is missing.
                self.trim()?;
                self.driver.allocate(wanted)?
            }
        };
        let start = found.ok_or_else(|| self.refuse(bytes))?;
        if !small {
            return Ok(start);
        }
        let mut shelves = self.shelves();
        shelves.add_slab(class, start);
        shelves.take(class).ok_or_else(|| Error::internal("cuda", "a new slab is empty"))
    }

    fn put_back(&self, class: usize, address: u64) {
        if self.keeps {
            self.shelves().put(class, address);
            return;
        }
        // An error of earlier work is reported to whoever reads its results.
        let _ = self.driver.synchronize();
        // SAFETY: the address came from the driver, its only holder is gone, and the stream is idle.
        unsafe { self.driver.free(address) };
    }

    fn refuse(&self, bytes: usize) -> Error {
        let (live, all) = (self.live_bytes(), self.driver.gpu().memory_bytes);
        let message = format!(
            "cannot allocate {bytes} bytes; tensors take {live} of the GPU's {all}. Dispose of tensors or use smaller batches"
        );
        Error::new(Code::Memory, "cuda", message)
    }

    /// Give all idle memory back to the driver, after waiting for the work that may use it.
    pub fn trim(&self) -> Result<()> {
        // Whatever used these blocks was queued before they became idle.
        let free = self.shelves().take_free();
        let waited = self.driver.synchronize();
        for address in free {
            // SAFETY: the address came from the driver, nobody holds it, and its work is done (or has failed for good).
            unsafe { self.driver.free(address) };
        }
        waited
    }

    /// Bytes in live blocks.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::Relaxed)
    }

    /// Bytes kept for reuse.
    pub fn pooled_bytes(&self) -> usize {
        self.shelves().idle_bytes
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Nobody is left to hear of an error, and the process's end frees the rest.
        let _ = self.trim();
    }
}
