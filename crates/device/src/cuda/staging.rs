//! Uploads that do not wait: bytes go through chunks of host memory that the GPU copies from in its own time. A chunk is used
//! again when its copy has happened.

use super::driver::{Driver, Event};
use raphson_graph::error::{Code, Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sizes of chunks: one for labels and small batches, one for pieces of what is large.
const CHUNK_BYTES: [usize; 2] = [64 << 10, 4 << 20];
/// The most chunks of each size; beyond it an upload waits for the oldest copy.
const MOST_CHUNKS: [usize; 2] = [32, 16];

struct Chunk {
    start: *mut u8,
    copied: Event,
}

// SAFETY: a chunk is plain memory, used by whoever has taken it out of the list.
unsafe impl Send for Chunk {}

/// Chunks of one size.
#[derive(Default)]
struct Shelf {
    /// In the order of their copies, oldest first.
    chunks: Vec<Chunk>,
    made: usize,
}

/// The way into the GPU's memory.
pub struct Staging {
    driver: Arc<dyn Driver>,
    shelves: [Mutex<Shelf>; 2],
}

impl Staging {
    /// No chunks yet.
    pub fn new(driver: Arc<dyn Driver>) -> Staging {
        Staging { driver, shelves: Default::default() }
    }

    fn shelf(&self, size: usize) -> MutexGuard<'_, Shelf> {
        // The list is consistent between statements.
        self.shelves[size].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copy bytes to the GPU, in stream order; returns when they have been read.
    ///
    /// # Safety
    /// The GPU has this much memory at `to`.
    pub unsafe fn copy_in(&self, to: u64, bytes: &[u8]) -> Result<()> {
        let size = usize::from(bytes.len() > CHUNK_BYTES[0]);
        for (i, piece) in bytes.chunks(CHUNK_BYTES[size]).enumerate() {
            let chunk = self.take(size)?;
            let to = to + (i * CHUNK_BYTES[size]) as u64;
            // SAFETY: the chunk is ours until it is put back, and its event is recorded behind the copy. Our caller vouches
            // for the GPU's memory.
            let copied = unsafe {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), chunk.start, piece.len());
                self.driver.copy_in(to, chunk.start, piece.len()).and_then(|()| self.driver.record(chunk.copied))
            };
            self.shelf(size).chunks.push(chunk);
            copied?;
        }
        Ok(())
    }

    /// A chunk that no copy reads from any more.
    fn take(&self, size: usize) -> Result<Chunk> {
        let oldest = {
            let mut shelf = self.shelf(size);
            let is_free = match shelf.chunks.first() {
                Some(oldest) => shelf.made >= MOST_CHUNKS[size] || self.driver.happened(oldest.copied)?,
                None => false,
            };
            if is_free {
                Some(shelf.chunks.remove(0))
            } else {
                shelf.made += 1;
                None
            }
        };
        match oldest {
            Some(chunk) => match self.driver.wait(chunk.copied) {
                Ok(()) => Ok(chunk),
                Err(error) => {
                    self.shelf(size).chunks.push(chunk);
                    Err(error)
                }
            },
            None => self.make(size).inspect_err(|_| self.shelf(size).made -= 1),
        }
    }

    fn make(&self, size: usize) -> Result<Chunk> {
        let start = self.driver.allocate_host(CHUNK_BYTES[size])?.ok_or_else(|| {
            Error::new(
                Code::Memory,
                "cuda",
                "no host memory is left for uploads; dispose of tensors or close other programs",
            )
        })?;
        match self.driver.event() {
            Ok(copied) => Ok(Chunk { start, copied }),
            Err(error) => {
                // SAFETY: the chunk is new.
                unsafe { self.driver.free_host(start) };
                Err(error)
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // An error of earlier work has been reported where that work was waited for.
        let _ = self.driver.synchronize();
        for shelf in &mut self.shelves {
            for chunk in shelf.get_mut().unwrap_or_else(PoisonError::into_inner).chunks.drain(..) {
                self.driver.drop_event(chunk.copied);
                // SAFETY: the copies are done.
                unsafe { self.driver.free_host(chunk.start) };
            }
        }
    }
}
