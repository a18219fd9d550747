//! The threads that kernels run on: a fixed crew that spins briefly for the next job, then sleeps. Jobs are cut into
//! numbered chunks by the kernels; only which thread takes a chunk varies, never what a chunk is. Each thread has a share
//! of neighbouring chunks, so that it walks memory in one direction and finds from kernel to kernel what it has touched
//! before; who is done helps the others with theirs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds of `spin_loop` before a waiting thread goes to sleep (about 20 µs).
const SPINS: u32 = 4_000;

/// A job as the workers see it: called with (thread, chunk).
type Body = dyn Fn(usize, usize) + Sync;

/// The job on offer. The pointer is valid while the job is open or workers are inside it; `Crew::run` sees to that.
#[derive(Clone, Copy)]
struct Job {
    body: *const Body,
}

// SAFETY: the body is `Sync`, and `Crew::run` does not return while any worker may still call it.
unsafe impl Send for Job {}

#[derive(Default)]
struct Slot {
    job: Option<Job>,
    /// Workers that are inside the current job.
    inside: usize,
    /// Workers asleep at the bell. Ringing is a system call, so it is saved when nobody would hear.
    asleep: usize,
    caller_waits: bool,
    panic: Option<Box<dyn Any + Send>>,
}

struct Shared {
    slot: Mutex<Slot>,
    bell: Condvar,
    done: Condvar,
    /// Counts the jobs, so that spinning threads see a new one without the lock.
    job_number: AtomicU64,
    shares: Vec<Share>,
    inside: AtomicUsize,
    stop: AtomicBool,
}

/// The chunks `next..end` of one thread. On cache lines of its own: others look at it only when they are done.
#[repr(align(128))]
#[derive(Default)]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

impl Shared {
    /// Give every thread its share of the chunks.
    fn share_out(&self, n_chunks: usize) {
        let n = self.shares.len();
        for (thread, share) in self.shares.iter().enumerate() {
            share.next.store(thread * n_chunks / n, Ordering::Relaxed);
            share.end.store((thread + 1) * n_chunks / n, Ordering::Relaxed);
        }
    }

    /// Leave the chunks that nobody has taken yet undone.
    fn give_up(&self) {
        self.shares.iter().for_each(|share| share.next.store(share.end.load(Ordering::Relaxed), Ordering::Relaxed));
    }

    /// Run chunks until none is left: this thread's own, then those of others.
    fn take_chunks(&self, thread: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        let n = self.shares.len();
        for share in (0..n).map(|i| &self.shares[(thread + i) % n]) {
            let end = share.end.load(Ordering::Relaxed);
            loop {
                let chunk = share.next.fetch_add(1, Ordering::Relaxed);
                if chunk >= end {
                    break;
                }
                body(thread, chunk);
            }
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // Panics are caught outside the lock, so the slot is consistent even when the flag says poisoned.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A crew of worker threads. The calling thread works along, as thread 0.
pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// One job at a time.
    busy: Mutex<()>,
}

impl Crew {
    /// A crew of `n_threads` in all, the caller included.
    pub fn new(n_threads: usize) -> std::io::Result<Crew> {
        let shared = Arc::new(Shared {
            slot: Mutex::default(),
            bell: Condvar::new(),
            done: Condvar::new(),
            job_number: AtomicU64::new(0),
            shares: (0..n_threads).map(|_| Share::default()).collect(),
            inside: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut crew = Crew { shared, threads: Vec::new(), busy: Mutex::new(()) };
        for thread in 1..n_threads {
            let shared = crew.shared.clone();
            let name = format!("raphson-cpu-{thread}");
            // On failure the crew is dropped, which joins the threads that did start.
            crew.threads.push(std::thread::Builder::new().name(name).spawn(move || work(&shared, thread))?);
        }
        Ok(crew)
    }

    /// Number of threads, the caller included.
    pub fn n_threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Call `body(thread, chunk)` for every chunk in `0..n_chunks`, on any threads in any order; returns when all are
    /// done. The caller does what is `beside` first. A panic there or in a chunk is a panic here. While another job runs, the
    /// caller does all the work itself.
    fn run(&self, n_chunks: usize, body: &(dyn Fn(usize, usize) + Sync), beside: Beside) {
        let beside = || {
            if let Some(work) = beside {
                work();
            }
        };
        let alone = self.threads.is_empty() || n_chunks <= 1;
        let guard = if alone { None } else { self.busy.try_lock().ok() };
        if guard.is_none() {
            beside();
            (0..n_chunks).for_each(|chunk| body(0, chunk));
            return;
        }
        self.open(n_chunks, body);
        let mine = catch_unwind(AssertUnwindSafe(|| {
            beside();
            self.shared.take_chunks(0, body);
        }));
        if mine.is_err() {
            self.shared.give_up();
        }
        let theirs = self.close();
        drop(guard);
        if let Some(payload) = mine.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    fn open(&self, n_chunks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        // SAFETY: only the lifetime changes; `run` closes the job and waits for every worker before it returns.
        let body = unsafe { std::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static Body>(body) };
        let mut slot = self.shared.slot();
        self.shared.share_out(n_chunks);
        slot.job = Some(Job { body });
        self.shared.job_number.fetch_add(1, Ordering::Release);
        let someone_sleeps = slot.asleep > 0;
        drop(slot);
        if someone_sleeps {
            self.shared.bell.notify_all();
        }
    }

    /// Take the job off offer and wait for those who are inside it.
    fn close(&self) -> Option<Box<dyn Any + Send>> {
        self.shared.slot().job = None;
        for _ in 0..SPINS {
            if self.shared.inside.load(Ordering::Acquire) == 0 {
                break;
            }
            std::hint::spin_loop();
        }
        let mut slot = self.shared.slot();
        while slot.inside > 0 {
            slot.caller_waits = true;
            slot = self.shared.done.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        slot.caller_waits = false;
        slot.panic.take()
    }
}

/// What the caller of a job does before it takes chunks.
pub type Beside<'a> = Option<&'a mut dyn FnMut()>;

/// A crew at one kernel: its jobs, and what is to be done beside the first of them.
pub struct Team<'a> {
    crew: &'a Crew,
    beside: Cell<Beside<'a>>,
}

impl<'a> Team<'a> {
    /// A team from this crew.
    pub fn new(crew: &'a Crew, beside: Beside<'a>) -> Team<'a> {
        Team { crew, beside: Cell::new(beside) }
    }

    /// A job: `body(thread, chunk)` for every chunk in `0..n_chunks`, on any threads in any order; returns when all are done.
    pub fn run(&self, n_chunks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        self.crew.run(n_chunks, body, self.beside.take());
    }

    /// A short job before the one that is worth doing something beside it.
    pub fn prepare(&self, n_chunks: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        self.crew.run(n_chunks, body, None);
    }

    /// Do what is left to do beside a kernel that turned out to have no job.
    pub fn finish(self) {
        if let Some(work) = self.beside.take() {
            work();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let slot = self.shared.slot();
        self.shared.stop.store(true, Ordering::Release);
        drop(slot);
        self.shared.bell.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its jobs, so joining cannot fail; there is nobody to tell if it did.
            let _ = thread.join();
        }
    }
}

/// The life of a worker.
fn work(shared: &Shared, thread: usize) {
    let mut seen = 0;
    while let Some(number) = wait_for_job(shared, seen) {
        seen = number;
        let mut slot = shared.slot();
        let Some(job) = slot.job else { continue };
        slot.inside += 1;
        shared.inside.fetch_add(1, Ordering::Relaxed);
        drop(slot);
        // SAFETY: we are counted as inside, so `Crew::run` keeps the body alive until we leave.
        let body = unsafe { &*job.body };
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_chunks(thread, body)));
        let mut slot = shared.slot();
        if let Err(payload) = outcome {
            shared.give_up();
            slot.panic.get_or_insert(payload);
        }
        slot.inside -= 1;
        shared.inside.fetch_sub(1, Ordering::Release);
        if slot.inside == 0 && slot.caller_waits {
            shared.done.notify_all();
        }
    }
}

/// The number of a job newer than `seen`, or nothing when the crew is dismissed.
fn wait_for_job(shared: &Shared, seen: u64) -> Option<u64> {
    for _ in 0..SPINS {
        let number = shared.job_number.load(Ordering::Acquire);
        if number != seen || shared.stop.load(Ordering::Relaxed) {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = shared.slot();
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        let number = shared.job_number.load(Ordering::Acquire);
        if number != seen && slot.job.is_some() {
            return Some(number);
        }
        slot.asleep += 1;
        slot = shared.bell.wait(slot).unwrap_or_else(PoisonError::into_inner);
        slot.asleep -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_exactly_once() {
        for n_threads in [1, 2, 4] {
            let crew = Crew::new(n_threads).unwrap();
            for n_chunks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..n_chunks).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..50 {
                    Team::new(&crew, None).run(n_chunks, &|thread, chunk| {
                        assert!(thread < n_threads);
                        counts[chunk].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50));
            }
        }
    }

    #[test]
    fn what_is_beside_a_job_is_done_once_and_its_panic_is_the_callers() {
        for n_threads in [1, 2, 4] {
            let crew = Crew::new(n_threads).unwrap();
            for n_chunks in [0, 1, 40] {
                let (mut done, chunks) = (0, AtomicUsize::new(0));
                let mut work = || done += 1;
                let team = Team::new(&crew, Some(&mut work));
                let count = |_: usize, _: usize| {
                    chunks.fetch_add(1, Ordering::Relaxed);
                };
                team.prepare(3, &count);
                if n_chunks > 0 {
                    team.run(n_chunks, &count);
                    team.run(n_chunks, &count);
                }
                team.finish();
                assert_eq!((done, chunks.load(Ordering::Relaxed)), (1, 3 + 2 * n_chunks));
            }
            let mut bad = || panic!("beside");
            let team = Team::new(&crew, Some(&mut bad));
            assert!(catch_unwind(AssertUnwindSafe(|| team.run(8, &|_, _| {}))).is_err());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_crew_survives() {
        let crew = Crew::new(3).unwrap();
        for bad in [0, 17, 63] {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                Team::new(&crew, None).run(64, &|_, chunk| assert!(chunk != bad, "chunk {chunk}"));
            }));
            assert!(outcome.is_err());
        }
        let count = AtomicUsize::new(0);
        Team::new(&crew, None).run(10, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn jobs_from_several_threads_do_not_mix() {
        let crew = Crew::new(2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let count = AtomicUsize::new(0);
                        Team::new(&crew, None).run(9, &|_, _| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                        assert_eq!(count.load(Ordering::Relaxed), 9);
                    }
                });
            }
        });
    }
}
