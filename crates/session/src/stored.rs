//! The cell behind a realised value: empty until the run queue fills it, then memory or the error that prevented it.
//! Who fills it and when is the queue's matter.

use raphson_device::Memory;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

enum State {
    /// A queued run will fill it; `awaited` once a thread waits for that.
    Pending {
        awaited: bool,
    },
    Ready(Memory),
    Failed(Error),
    /// A compiled step took the memory over.
    Taken,
}

/// A result that may not exist yet.
pub struct Stored {
    state: Mutex<State>,
    settled: Condvar,
    /// Set on the caller's thread when a run that takes the memory over is queued: what is queued earlier may still use
    /// it, what is asked for later may not.
    donated: AtomicBool,
}

impl Stored {
    /// A cell that a queued run will fill.
    pub fn pending() -> Arc<Stored> {
        Stored::with(State::Pending { awaited: false })
    }

    /// A cell that is filled from the start.
    pub fn filled(memory: Memory) -> Arc<Stored> {
        Stored::with(State::Ready(memory))
    }

    fn with(state: State) -> Arc<Stored> {
        Arc::new(Stored { state: Mutex::new(state), settled: Condvar::new(), donated: AtomicBool::new(false) })
    }

    /// The cell of a realised value; `None` while it is lazy.
    pub fn of(value: &Value) -> Result<Option<Arc<Stored>>> {
        let Some(payload) = value.payload() else { return Ok(None) };
        match payload.clone().downcast::<Stored>() {
            Ok(stored) => Ok(Some(stored)),
            Err(_) => Err(Error::internal("session", "a value was realised by something else than a session")),
        }
    }

    /// Fill the cell. The first outcome stays.
    pub fn settle(&self, outcome: Result<Memory>) {
        let mut state = self.lock();
        if let State::Pending { awaited } = *state {
            *state = match outcome {
                Ok(memory) => State::Ready(memory),
                Err(error) => State::Failed(error),
            };
            // Telling nobody is a system call too.
            if awaited {
                self.settled.notify_all();
            }
        }
    }

    /// The memory, for work that runs in its turn: by then everything it needs has settled.
    pub fn memory(&self) -> Result<Memory> {
        let state = self.lock();
        match &*state {
            State::Pending { .. } => Err(Error::internal("session", "a run came before the one it depends on")),
            settled => outcome(settled),
        }
    }

    /// The memory, waiting for the run that makes it.
    pub fn wait(&self) -> Result<Memory> {
        let mut state = self.lock();
        while let State::Pending { awaited } = &mut *state {
            *awaited = true;
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        outcome(&state)
    }

    /// The memory if it is there; nothing while it is not, and where there will be none.
    pub fn ready(&self) -> Option<Memory> {
        match &*self.lock() {
            State::Ready(memory) => Some(memory.clone()),
            State::Pending { .. } | State::Failed(_) | State::Taken => None,
        }
    }

    /// Let go of the memory, which a compiled step takes over.
    pub fn take(&self) {
        *self.lock() = State::Taken;
    }

    /// From now on, asking for this result is an error.
    pub fn mark_donated(&self) {
        self.donated.store(true, Ordering::Relaxed);
    }

    /// An error if the memory was given to a compiled step.
    pub fn check_usable(&self, op: &str) -> Result<()> {
        if self.donated.load(Ordering::Relaxed) { Err(donated(op)) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so a poisoned lock guards a sound state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(state: &State) -> Result<Memory> {
    match state {
        State::Ready(memory) => Ok(memory.clone()),
        State::Failed(error) => Err(error.clone()),
        State::Pending { .. } | State::Taken => Err(donated("session")),
    }
}

fn donated(op: &str) -> Error {
    let message = "this tensor was donated to a compiled step, which overwrote it; use the step's result instead";
    Error::new(Code::Disposed, op, message)
}
