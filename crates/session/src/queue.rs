//! The run queue: one named thread that executes jobs in the order in which they were queued. Callers never wait for
//! it, except to read. While it has nothing to do, the caller may perform a job itself. What a job computes is the
//! device's matter.

use crate::cache::Entry;
use crate::stored::Stored;
use raphson_device::{Device, Memory};
use raphson_graph::error::{Code, Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::thread::JoinHandle;

/// What is called with a reading.
pub type Reader = Box<dyn FnOnce(Result<Vec<Vec<u8>>>) + Send>;

/// What is called when its turn comes: with the device, or with the error that prevents it.
pub type Task = Box<dyn FnOnce(Result<&dyn Device>) + Send>;

/// An operand of a run.
pub struct Source {
    pub cell: Arc<Stored>,
    /// Whether the run takes the memory over.
    pub donated: bool,
}

/// A unit of work.
pub enum Job {
    /// Run a program and fill `outputs`.
    Run { entry: Arc<Entry>, inputs: Vec<Source>, outputs: Vec<Arc<Stored>> },
    /// Copy results to the host.
    Read { cells: Vec<Arc<Stored>>, then: Reader },
    /// Anything else that must wait for its turn.
    Task(Task),
}

impl Job {
    /// Answer without doing the work.
    fn refuse(self, error: Error) {
        match self {
            Job::Run { outputs, .. } => outputs.iter().for_each(|output| output.settle(Err(error.clone()))),
            Job::Read { then, .. } => then(Err(error)),
            Job::Task(task) => task(Err(error)),
        }
    }
}

/// The thread and the way to it. Dropping it finishes the current job, refuses the rest and joins the thread.
pub struct Queue {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    /// Jobs that were pushed and are not done.
    open: Arc<AtomicUsize>,
}

impl Queue {
    /// Start the thread.
    pub fn new(device: Arc<dyn Device>) -> Result<Queue> {
        let (sender, receiver) = channel();
        let closing = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let (seen, done) = (closing.clone(), open.clone());
        let thread = std::thread::Builder::new()
            .name("raphson-queue".to_owned())
            .spawn(move || work(&*device, &receiver, &seen, &done))
            .map_err(|error| Error::new(Code::Device, "session", format!("cannot start the run queue: {error}")))?;
        Ok(Queue { jobs: Some(sender), thread: Some(thread), closing, open })
    }

    /// Whether every job is done, its effects visible here. It stays so until the caller pushes one.
    pub fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Append a job.
    pub fn push(&self, job: Job) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if let Some(jobs) = &self.jobs
            && let Err(SendError(job)) = jobs.send(job)
        {
            self.open.fetch_sub(1, Ordering::Relaxed);
            job.refuse(Error::internal("session", "the run queue has ended"));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The thread catches every panic of a job; one of its own has nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn work(device: &dyn Device, jobs: &Receiver<Job>, closing: &AtomicBool, open: &AtomicUsize) {
    for job in jobs {
        let done = Done(open);
        let guarded = catch_unwind(AssertUnwindSafe(move || {
            if closing.load(Ordering::Acquire) {
                job.refuse(Error::new(Code::Disposed, "session", "the session ended before this could run"));
            } else {
                perform(device, job, Some(done));
            }
        }));
        // Runs and readings answer for their own panics; what is left is one of a caller's callback.
        drop(guarded);
    }
}

/// Counts a job as done when it goes.
pub struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Do a job's work. A reading is done before it is told: whoever hears of it finds the queue idle.
pub fn perform(device: &dyn Device, job: Job, done: Option<Done>) {
    match job {
        Job::Run { entry, inputs, outputs } => match guarded(|| run(device, &entry, inputs, outputs.len())) {
            Ok(memories) => outputs.iter().zip(memories).for_each(|(output, memory)| output.settle(Ok(memory))),
            Err(error) => outputs.iter().for_each(|output| output.settle(Err(error.clone()))),
        },
        Job::Read { cells, then } => {
            let readings = guarded(|| cells.iter().map(|cell| download(device, &cell.memory()?)).collect());
            drop((cells, done));
            then(readings);
        }
        Job::Task(task) => task(Ok(device)),
    }
}

fn run(device: &dyn Device, entry: &Entry, inputs: Vec<Source>, n_outputs: usize) -> Result<Vec<Memory>> {
    // The donated last: a memory that is also an ordinary operand is shared then, and so copied. All of them, also on an error,
    // since callers were told that these are gone.
    let ordinary: Vec<_> = inputs.iter().map(|input| (!input.donated).then(|| input.cell.memory())).collect();
    let all = inputs.iter().zip(ordinary).map(|(input, known)| known.unwrap_or_else(|| input.cell.take()));
    let memories: Vec<Result<Memory>> = all.collect();
    drop(inputs);
    let outputs = entry.run(device, memories.into_iter().collect::<Result<_>>()?)?;
    if outputs.len() != n_outputs {
        let message = format!("a program gave {} results in place of {n_outputs}", outputs.len());
        return Err(Error::internal("session", message));
    }
    Ok(outputs)
}

/// A memory's bytes on the host.
pub fn download(device: &dyn Device, memory: &Memory) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(memory.bytes).map_err(|_| {
        let message = format!("cannot allocate {} bytes to read into; read smaller tensors", memory.bytes);
        Error::new(Code::Memory, "read", message)
    })?;
    bytes.resize(memory.bytes, 0);
    device.download(memory, &mut bytes)?;
    Ok(bytes)
}

/// The closure's result; a panic becomes an error.
fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // Memory a panicking run touched belongs to that run alone, and its prepared program is thrown away.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(Error::internal("session", panic_text(&*panic))))
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no message"))
}
