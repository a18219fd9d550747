//! Indices outside their axis. A kernel finds them while nobody waits, so every tensor carries the faults of the runs that it
//! depends on, and whoever reads the tensor learns of them.

use super::driver::Driver;
use super::memory::Block;
use super::print::{ERROR_WORDS, IndexError};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::sync::{Arc, OnceLock};

/// Bytes of the words that a kernel notes an index in.
pub const FAULT_BYTES: usize = 4 * ERROR_WORDS;
/// With more open questions than this, the GPU is asked.
const MANY: usize = 32;

/// Whether the index kernels of one run found all indices inside.
pub struct Fault {
    words: Block,
    /// Of the program's indices, to tell negative ones.
    index_dtype: DType,
    answer: OnceLock<Option<Error>>,
}

impl Fault {
    /// The question of a run whose words are these, all zero before it.
    pub fn new(words: Block, index_dtype: DType) -> Arc<Fault> {
        Arc::new(Fault { words, index_dtype, answer: OnceLock::new() })
    }

    /// Where kernels note an index.
    pub fn address(&self) -> u64 {
        self.words.address()
    }

    fn is_open(&self) -> bool {
        self.answer.get().is_none()
    }

    /// Wait for the run, if nobody has, and say what it found.
    pub fn check(&self, driver: &dyn Driver) -> Result<()> {
        if self.is_open() {
            let mut words = [0_u32; ERROR_WORDS];
            // SAFETY: both sides have `FAULT_BYTES` bytes.
            unsafe { driver.copy_out(words.as_mut_ptr().cast(), self.words.address(), FAULT_BYTES)? };
            let found = IndexError::read(words).map(|error| describe(error, self.index_dtype));
            // Another thread may have asked at the same time, with the same answer.
            let _ = self.answer.set(found);
        }
        self.answer.get().cloned().flatten().map_or(Ok(()), Err)
    }
}

fn describe(error: IndexError, dtype: DType) -> Error {
    let IndexError { op, index, position, axis } = error;
    let index = if dtype == DType::I32 { i64::from(index as i32) } else { i64::from(index) };
    let way_out = if axis == 0 { "the axis is empty".into() } else { format!("use 0 to {}", axis - 1) };
    let message = format!("index {index} at position {position} is outside an axis of size {axis}; {way_out}");
    Error::new(Code::Index, op, message)
}

/// The questions that are still open or were answered badly, each once. A good answer needs no more carrying.
pub fn gather<'a>(faults: impl Iterator<Item = &'a Arc<Fault>>, driver: &dyn Driver) -> Result<Vec<Arc<Fault>>> {
    let mut carried: Vec<Arc<Fault>> = Vec::new();
    for fault in faults {
        let is_good = matches!(fault.answer.get(), Some(None));
        if !is_good && !carried.iter().any(|other| Arc::ptr_eq(other, fault)) {
            carried.push(fault.clone());
        }
    }
    if carried.len() > MANY {
        for fault in &carried {
            fault.check(driver)?;
        }
        carried.clear();
    }
    Ok(carried)
}
