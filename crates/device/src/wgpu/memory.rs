//! Device memory: buffers by size class, reused instead of freed. A buffer that goes back while work that uses it is
//! still queued may be handed out at once: whatever uses it next is queued behind that work.

use super::faults::{Faults, out_of_memory};
use crate::Usage;
use raphson_graph::error::{Code, Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The least size of a buffer.
const LEAST_BYTES: u64 = 256;

/// Buffers of one device.
pub struct Pool {
    device: wgpu::Device,
    faults: Arc<Faults>,
    most_bytes: u64,
    free: Mutex<HashMap<(u64, wgpu::BufferUsages), Vec<wgpu::Buffer>>>,
    live_bytes: AtomicUsize,
    pooled_bytes: AtomicUsize,
}

/// A buffer of a pool; dropping it gives it back.
pub struct Pooled {
    pub buffer: wgpu::Buffer,
    pool: Arc<Pool>,
    counted_bytes: usize,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.live_bytes.fetch_sub(self.counted_bytes, Ordering::Relaxed);
        let size = self.buffer.size();
        self.pool.pooled_bytes.fetch_add(size as usize, Ordering::Relaxed);
        self.pool.lock().entry((size, self.buffer.usage())).or_default().push(self.buffer.clone());
    }
}

/// Usages of a buffer that holds tensors.
pub const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);
/// Usages of a buffer through which results come back.
pub const READ_BACK: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

impl Pool {
    /// An empty pool. `most_bytes` is the largest buffer that a kernel can bind.
    pub fn new(device: wgpu::Device, faults: Arc<Faults>, most_bytes: u64) -> Pool {
        let (live_bytes, pooled_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Pool { device, faults, most_bytes, free: Mutex::default(), live_bytes, pooled_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(u64, wgpu::BufferUsages), Vec<wgpu::Buffer>>> {
        // The map is whole between any two operations on it.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of at least `bytes`, contents arbitrary.
    pub fn take(self: &Arc<Self>, bytes: usize, usage: wgpu::BufferUsages) -> Result<Pooled> {
        if bytes as u64 > self.most_bytes {
            let message = format!(
                "a tensor of {bytes} bytes; this adapter binds at most {} bytes. Use smaller tensors or device: \"cpu\"",
                self.most_bytes
            );
            return Err(Error::new(Code::Device, "device", message));
        }
        let size = class_of(bytes as u64).min(self.most_bytes);
        let known = self.lock().get_mut(&(size, usage)).and_then(Vec::pop);
        let buffer = match known {
            Some(buffer) => {
                self.pooled_bytes.fetch_sub(size as usize, Ordering::Relaxed);
                buffer
            }
            None => self.create(size, usage)?,
        };
        // What comes back through a staging buffer is no tensor.
        let counted_bytes = if usage == STORAGE { bytes } else { 0 };
        self.live_bytes.fetch_add(counted_bytes, Ordering::Relaxed);
        Ok(Pooled { buffer, pool: self.clone(), counted_bytes })
    }

    fn create(&self, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        match self.try_create(&descriptor) {
            Err(error) if error.code == Code::Memory => {
                // What lies in the pool may be enough.
                self.trim();
                self.try_create(&descriptor)
            }
            result => result,
        }
    }

    fn try_create(&self, descriptor: &wgpu::BufferDescriptor) -> Result<wgpu::Buffer> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(descriptor);
        match super::block_on(scope.pop()) {
            Some(_) => Err(out_of_memory()),
            None => self.faults.check().map(|()| buffer),
        }
    }

    /// Let go of all buffers that nobody uses.
    pub fn trim(&self) {
        let freed: Vec<wgpu::Buffer> = self.lock().drain().flat_map(|(_, buffers)| buffers).collect();
        let bytes: u64 = freed.iter().map(wgpu::Buffer::size).sum();
        self.pooled_bytes.fetch_sub(bytes as usize, Ordering::Relaxed);
    }

    pub fn usage(&self) -> Usage {
        Usage {
            live_bytes: self.live_bytes.load(Ordering::Relaxed),
            pooled_bytes: self.pooled_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Sizes in steps of an eighth of a power of two, so that at most an eighth is wasted.
fn class_of(bytes: u64) -> u64 {
    let bytes = bytes.max(LEAST_BYTES);
    let step = (bytes.next_power_of_two() / 16).max(LEAST_BYTES);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little() {
        assert_eq!(class_of(0), 256);
        assert_eq!(class_of(257), 512);
        assert_eq!(class_of(1 << 20), 1 << 20);
        for bytes in [1000, 5000, 70_000, 1_000_001, 123_456_789] {
            let class = class_of(bytes);
            assert!(class >= bytes && class.is_multiple_of(256) && class_of(class) == class);
            assert!(bytes < 5000 || class <= bytes + bytes / 8, "{bytes} {class}");
        }
    }
}
