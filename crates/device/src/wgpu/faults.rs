//! What goes wrong on the device: errors that wgpu reports from the side, a lost device, indices outside their axes.
//! They are kept here until the next call that can return them.

use raphson_graph::error::{Code, Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The faults of one device.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The first error since the last check.
    error: Option<Error>,
    /// Why the device is gone, for good.
    lost: Option<String>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each field is whole at any time, so a poisoned lock is still sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keep an error, if it is the first.
    pub fn note(&self, error: Error) {
        self.lock().error.get_or_insert(error);
    }

    /// Keep what wgpu reports.
    pub fn note_wgpu(&self, error: &wgpu::Error) {
        self.note(match error {
            wgpu::Error::OutOfMemory { .. } => out_of_memory(),
            wgpu::Error::Validation { description, .. } => {
                Error::internal("device", format!("wgpu refused a command: {description}"))
            }
            wgpu::Error::Internal { description, .. } => Error::new(Code::Device, "device", description.clone()),
        });
    }

    /// The device is gone.
    pub fn note_lost(&self, reason: &str) {
        self.lock().lost.get_or_insert(reason.to_string());
    }

    /// The error that has not been returned yet, if any.
    pub fn check(&self) -> Result<()> {
        let mut state = self.lock();
        if let Some(reason) = &state.lost {
            let message = format!(
                "the device was lost ({reason}); its tensors are gone. Save what you have on the host, and go on in a new process or worker thread"
            );
            return Err(Error::new(Code::Device, "device", message));
        }
        state.error.take().map_or(Ok(()), Err)
    }
}

/// Memory could not be had.
pub fn out_of_memory() -> Error {
    let message = "the device is out of memory; use smaller batches, or dispose of tensors earlier";
    Error::new(Code::Memory, "device", message)
}

/// Run calls of wgpu. It panics in corners where a driver misbehaves; that must not end the process.
pub fn guarded<T>(calls: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(calls)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let message = format!("wgpu failed: {}; the device may be unusable", text.unwrap_or("without a message"));
        Err(Error::new(Code::Device, "device", message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_returned_once_and_a_loss_for_ever() {
        let faults = Faults::default();
        assert_eq!(faults.check(), Ok(()));
        faults.note(out_of_memory());
        faults.note(Error::internal("device", "later"));
        assert_eq!(faults.check(), Err(out_of_memory()));
        assert_eq!(faults.check(), Ok(()));
        faults.note_lost("unplugged");
        let message = |result: Result<()>| result.map_or_else(|error| error.message, |()| String::new());
        assert!(message(faults.check()).contains("unplugged"));
        assert!(message(faults.check()).contains("unplugged"));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let result: Result<()> = guarded(|| panic!("driver"));
        assert!(result.is_err_and(|error| error.code == Code::Device && error.message.contains("driver")));
    }
}
