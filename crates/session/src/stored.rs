//! The cell behind a realised value: empty until the run queue fills it, then memory or the error that prevented it.
//! Who fills it and when is the queue's matter.

use raphson_device::Memory;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::value::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

enum State {
    /// A queued run will fill it.
    Pending,
    Ready(Memory),
    Failed(Error),
    /// A compiled step took the memory over.
    Taken,
}

/// What a cell holds, and what is yet to come.
struct Contents {
    state: State,
    /// Queued runs that will fill it again after having taken what it holds.
    refills: u32,
    /// Whether a thread waits for that.
    awaited: bool,
}

/// A result that may not exist yet.
pub struct Stored {
    contents: Mutex<Contents>,
    settled: Condvar,
    /// Set on the caller's thread when a run that takes the memory over is queued: what is queued earlier may still use
    /// it, what is asked for later may not.
    donated: AtomicBool,
    /// A compiled function has captured it.
    kept: AtomicBool,
}

impl Stored {
    /// A cell that a queued run will fill.
    pub fn pending() -> Arc<Stored> {
        Stored::with(State::Pending)
    }

    /// A cell that is filled from the start.
    pub fn filled(memory: Memory) -> Arc<Stored> {
        Stored::with(State::Ready(memory))
    }

    fn with(state: State) -> Arc<Stored> {
        let contents = Mutex::new(Contents { state, refills: 0, awaited: false });
        Arc::new(Stored {
            contents,
            settled: Condvar::new(),
            donated: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        })
    }

    /// The cell of a realised value; `None` while it is lazy.
    pub fn of(value: &Value) -> Result<Option<Arc<Stored>>> {
        let Some(payload) = value.payload() else { return Ok(None) };
        match payload.clone().downcast::<Stored>() {
            Ok(stored) => Ok(Some(stored)),
            Err(_) => Err(Error::internal("session", "a value was realised by something else than a session")),
        }
    }

    /// Fill the cell, for the first time or again. Beyond what it waits for, the first outcome stays.
    pub fn settle(&self, outcome: Result<Memory>) {
        let mut contents = self.lock();
        match contents.state {
            State::Pending => {}
            _ if contents.refills > 0 => contents.refills -= 1,
            _ => return,
        }
        contents.state = match outcome {
            Ok(memory) => State::Ready(memory),
            Err(error) => State::Failed(error),
        };
        // Telling nobody is a system call too.
        if std::mem::take(&mut contents.awaited) {
            self.settled.notify_all();
        }
    }

    /// A run is queued that takes the memory over and fills this very cell with its result: to whoever asks from now on, that is
    /// what it holds. What is queued earlier finds what it held before. False where that cannot be, for it was captured.
    pub fn expect_refill(&self) -> bool {
        if self.kept.load(Ordering::Relaxed) {
            return false;
        }
        self.lock().refills += 1;
        self.donated.store(false, Ordering::Relaxed);
        true
    }

    /// A compiled function captures it: it must go on holding this, or nothing.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The memory, for work that runs in its turn: by then everything it needs has settled.
    pub fn memory(&self) -> Result<Memory> {
        in_turn(&self.lock().state)
    }

    /// The same, taken away: a compiled step has it from now on.
    pub fn take(&self) -> Result<Memory> {
        match std::mem::replace(&mut self.lock().state, State::Taken) {
            State::Ready(memory) => Ok(memory),
            state => in_turn(&state),
        }
    }

    /// The memory, waiting for the runs that make it.
    pub fn wait(&self) -> Result<Memory> {
        let mut contents = self.lock();
        while contents.is_due() {
            contents.awaited = true;
            contents = self.settled.wait(contents).unwrap_or_else(PoisonError::into_inner);
        }
        outcome(&contents.state)
    }

    /// The memory if it is there; nothing while it is not, and where there will be none.
    pub fn ready(&self) -> Option<Memory> {
        match &*self.lock() {
            Contents { state: State::Ready(memory), refills: 0, .. } => Some(memory.clone()),
            _ => None,
        }
    }

    /// From now on, asking for this result is an error.
    pub fn mark_donated(&self) {
        self.donated.store(true, Ordering::Relaxed);
    }

    /// An error if the memory was given to a compiled step.
    pub fn check_usable(&self, op: &str) -> Result<()> {
        if self.donated.load(Ordering::Relaxed) { Err(donated(op)) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // No change leaves the contents half-made, so a poisoned lock guards a sound state.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    /// Whether something is yet to come.
    fn is_due(&self) -> bool {
        self.refills > 0 || matches!(self.state, State::Pending)
    }
}

fn in_turn(state: &State) -> Result<Memory> {
    match state {
        State::Pending => Err(Error::internal("session", "a run came before the one it depends on")),
        settled => outcome(settled),
    }
}

fn outcome(state: &State) -> Result<Memory> {
    match state {
        State::Ready(memory) => Ok(memory.clone()),
        State::Failed(error) => Err(error.clone()),
        State::Pending | State::Taken => Err(donated("session")),
    }
}

fn donated(op: &str) -> Error {
    let message = "this tensor was donated to a compiled step, which overwrote it; use the step's result instead";
    Error::new(Code::Disposed, op, message)
}
