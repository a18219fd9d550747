//! Loaded PTX modules, one for each kernel, shared by all programs that have the same kernel.

use super::driver::{Driver, Function, Module};
use raphson_graph::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// With more modules than this, those that no program uses are unloaded.
const MANY: usize = 1024;

/// A kernel that can be launched as long as this lives.
pub struct Kernel {
    module: Module,
    pub function: Function,
}

/// The cache.
pub struct Modules {
    driver: Arc<dyn Driver>,
    /// By name and dynamic shared memory, for how much of that a function may have is told to the driver when it is loaded.
    by_entry: Mutex<HashMap<(String, u32), Arc<Kernel>>>,
}

impl Modules {
    /// No modules yet.
    pub fn new(driver: Arc<dyn Driver>) -> Modules {
        Modules { driver, by_entry: Mutex::default() }
    }

    fn by_entry(&self) -> MutexGuard<'_, HashMap<(String, u32), Arc<Kernel>>> {
        // The table is consistent between statements.
        self.by_entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel `entry` of this text. Equal names mean equal texts: printed kernels are named by a hash of theirs.
    pub fn kernel(&self, entry: &str, text: &str, shared_bytes: u32) -> Result<Arc<Kernel>> {
        let key = (entry.to_string(), shared_bytes);
        if let Some(kernel) = self.by_entry().get(&key) {
            return Ok(kernel.clone());
        }
        self.forget_unused()?;
        let module = self.driver.load(text)?;
        // SAFETY: the module has just been loaded.
        let function = unsafe { self.driver.function(module, entry, shared_bytes) }.inspect_err(|_| {
            // SAFETY: nothing was launched from it.
            unsafe { self.driver.unload(module) }
        })?;
        let kernel = Arc::new(Kernel { module, function });
        self.by_entry().insert(key, kernel.clone());
        Ok(kernel)
    }

    fn forget_unused(&self) -> Result<()> {
        let mut by_entry = self.by_entry();
        if by_entry.len() < MANY {
            return Ok(());
        }
        // Programs that are gone may still be at work.
        self.driver.synchronize()?;
        by_entry.retain(|_, kernel| {
            let used = Arc::strong_count(kernel) > 1;
            if !used {
                // SAFETY: no program has it, and the stream is idle.
                unsafe { self.driver.unload(kernel.module) };
            }
            used
        });
        Ok(())
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let _ = self.driver.synchronize();
        for kernel in self.by_entry.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            // SAFETY: programs hold the device's core and so this; they are gone, and the stream is idle.
            unsafe { self.driver.unload(kernel.module) };
        }
    }
}
