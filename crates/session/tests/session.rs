//! The session on a device that computes nothing: each run numbers its results, so that order, caching, donation and
//! failures show. Whether numbers are right is tested elsewhere.

use raphson_compile::program::{Place, Program};
use raphson_device::{Description, Device, Loaded, Memory, Usage};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_session::{ProgramId, Session};
use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the device saw and how it should behave.
#[derive(Default)]
struct Log {
    loads: AtomicUsize,
    runs: AtomicUsize,
    in_place: AtomicUsize,
    copied: AtomicUsize,
    live: Arc<AtomicUsize>,
    fail: AtomicBool,
    panic: AtomicBool,
    slow: AtomicBool,
}

struct Block {
    bytes: Mutex<Vec<u8>>,
    live: Arc<AtomicUsize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Numbering(Arc<Log>);

fn memory(log: &Log, bytes: Vec<u8>) -> Memory {
    log.live.fetch_add(1, Ordering::SeqCst);
    let size = bytes.len();
    Memory { inner: Arc::new(Block { bytes: Mutex::new(bytes), live: log.live.clone() }), bytes: size }
}

fn bytes(memory: &Memory) -> Vec<u8> {
    memory.inner.downcast_ref::<Block>().unwrap().bytes.lock().unwrap().clone()
}

impl Device for Numbering {
    fn describe(&self) -> Description {
        Description { kind: "test", name: "numbers its runs".to_owned(), dtypes: &[DType::F32, DType::U32], threads: 1 }
    }
    fn usage(&self) -> Usage {
        Usage { live_bytes: self.0.live.load(Ordering::SeqCst), pooled_bytes: 0 }
    }
    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        Ok(memory(&self.0, bytes.to_vec()))
    }
    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()> {
        into.copy_from_slice(&bytes(memory));
        Ok(())
    }
    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Numbered { log: self.0.clone(), program }))
    }
    fn trim(&self) {}
}

struct Numbered {
    log: Arc<Log>,
    program: Arc<Program>,
}

impl Loaded for Numbered {
    fn run(&mut self, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        let log = &self.log;
        if log.slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let number = log.runs.fetch_add(1, Ordering::SeqCst) as u8 + 1;
        assert!(!log.panic.swap(false, Ordering::SeqCst), "the device broke");
        if log.fail.swap(false, Ordering::SeqCst) {
            return Err(Error::new(Code::Index, "gather", "index 9 is outside 0..3"));
        }
        assert_eq!(inputs.len(), self.program.inputs.len());
        let outputs = self.program.outputs.iter().map(|id| &self.program.buffers[id.0 as usize]);
        Ok(outputs
            .map(|buffer| {
                if let Place::InPlace { input, .. } = buffer.place {
                    let unique = Arc::strong_count(&inputs[input].inner) == 1;
                    if unique { &log.in_place } else { &log.copied }.fetch_add(1, Ordering::SeqCst);
                }
                memory(log, vec![number; buffer.size_bytes()])
            })
            .collect())
    }
}

fn start() -> (Session, Arc<Log>) {
    let log = Arc::new(Log::default());
    (Session::new(Arc::new(Numbering(log.clone()))).unwrap(), log)
}

fn shape() -> Shape {
    [4].into()
}

fn data(session: &Session) -> Value {
    session.upload(&[0; 16], shape(), DType::F32).unwrap()
}

fn placeholder() -> Value {
    Value::input(shape(), DType::F32)
}

/// Wait until the queue is empty and holds nothing.
fn drain(session: &Session) {
    let (sender, receiver) = channel();
    session.then(Box::new(move |_| sender.send(()).unwrap()));
    receiver.recv().unwrap();
}

#[test]
fn equal_graphs_share_a_program() {
    let (mut session, log) = start();
    let x = data(&session);
    let (a, b) = (x.exp().unwrap(), data(&session).exp().unwrap());
    session.evaluate(from_ref(&a)).unwrap();
    session.evaluate(&[b.clone(), b.clone(), a.clone()]).unwrap();
    session.evaluate(&[x.log().unwrap()]).unwrap();
    assert_eq!(session.read(&a).unwrap(), [1; 16]);
    assert_eq!(session.read(&b).unwrap(), [2; 16]);
    let stats = session.stats();
    assert_eq!((stats.program_hits, stats.program_misses, stats.programs, stats.runs), (1, 2, 2, 3));
    drop(session);
    assert!(log.loads.load(Ordering::SeqCst) <= 2);
}

#[test]
fn the_cache_is_bounded() {
    let (mut session, _log) = start();
    for n in 0..600 {
        let x = Value::constant(f64::from(n), DType::F32, &shape()).exp().unwrap();
        session.evaluate(&[x]).unwrap();
    }
    assert_eq!(session.stats().programs, 512);
}

#[test]
fn runs_keep_their_order_and_may_use_results_that_do_not_exist_yet() {
    let (mut session, log) = start();
    log.slow.store(true, Ordering::SeqCst);
    let mut x = data(&session);
    let mut all = Vec::new();
    for _ in 0..5 {
        x = x.exp().unwrap();
        session.evaluate(from_ref(&x)).unwrap();
        all.push(x.clone());
    }
    for (i, x) in all.iter().enumerate().rev() {
        assert_eq!(session.read(x).unwrap(), [i as u8 + 1; 16]);
    }
}

#[test]
fn a_failure_is_reported_by_every_reading_that_depends_on_it() {
    let (mut session, log) = start();
    log.fail.store(true, Ordering::SeqCst);
    let x = data(&session).exp().unwrap();
    session.evaluate(from_ref(&x)).unwrap();
    let y = x.exp().unwrap();
    session.evaluate(from_ref(&y)).unwrap();
    assert_eq!(session.read(&y).unwrap_err().code, Code::Index);
    assert_eq!(session.read(&x).unwrap_err().message, "index 9 is outside 0..3");
    let fresh = data(&session).exp().unwrap();
    assert_eq!(session.read(&fresh).unwrap(), [2; 16]);
}

#[test]
fn the_queue_survives_a_panic() {
    let (mut session, log) = start();
    log.panic.store(true, Ordering::SeqCst);
    let error = session.read(&data(&session).exp().unwrap()).unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert!(error.message.contains("the device broke"), "{error}");
    session.then(Box::new(|_| panic!("a callback broke")));
    assert_eq!(session.read(&data(&session).exp().unwrap()).unwrap(), [2; 16]);
    assert_eq!(log.loads.load(Ordering::SeqCst), 2);
}

#[test]
fn donated_memory_is_reused_and_gone() {
    let (mut session, log) = start();
    let step = donating(&mut session);
    let mut x = data(&session);
    for _ in 0..3 {
        let y = session.run(step, from_ref(&x)).unwrap().remove(0);
        let error = session.read(&x).unwrap_err();
        assert_eq!(error.code, Code::Disposed);
        assert!(error.message.contains("donated to a compiled step"));
        assert_eq!(session.evaluate(&[x.sin().unwrap()]).unwrap_err().code, Code::Disposed);
        assert_eq!(session.run(step, &[x]).unwrap_err().code, Code::Disposed);
        x = y;
    }
    assert_eq!(session.read(&x).unwrap(), [3; 16]);
    assert_eq!(log.in_place.load(Ordering::SeqCst) + log.copied.load(Ordering::SeqCst), 3);
    assert_eq!(log.copied.load(Ordering::SeqCst), 0);
}

/// A compiled step that takes its operand over.
fn donating(session: &mut Session) -> ProgramId {
    let p = placeholder();
    session.compile(from_ref(&p), &[p.exp().unwrap()], &[true]).unwrap()
}

/// A step x → x′ whose result takes the place of its operand.
fn moving(session: &mut Session, step: ProgramId, x: &Value) -> Value {
    let operands = [x.clone()];
    session.run_moving(step, &operands, 1, 2).unwrap().remove(0)
}

#[test]
fn a_result_that_takes_a_place_is_the_value_that_was_there() {
    let (mut session, log) = start();
    let step = donating(&mut session);
    let x = data(&session);
    log.slow.store(true, Ordering::SeqCst);
    // Queued faster than they run: everybody finds what belongs to his turn.
    let (told, hears) = channel();
    for _ in 0..3 {
        assert_eq!(moving(&mut session, step, &x), x);
        let told = told.clone();
        session.read_then(from_ref(&x), Box::new(move |read| told.send(read.unwrap().remove(0)).unwrap())).unwrap();
    }
    assert_eq!(session.read(&x).unwrap(), [3; 16]);
    assert_eq!(hears.iter().take(3).collect::<Vec<_>>(), [[1; 16], [2; 16], [3; 16]]);
    assert_eq!((log.in_place.load(Ordering::SeqCst), log.copied.load(Ordering::SeqCst)), (3, 0));
    assert_eq!(session.live_bytes(), 1, "one memory, handed on");

    // What fails is what the value holds from then on.
    log.fail.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(moving(&mut session, step, &x), x);
        assert_eq!(session.read(&x).unwrap_err().code, Code::Index);
    }
}

#[test]
fn nobody_finds_another_result_in_the_value_that_he_holds() {
    let (mut session, _log) = start();
    let step = donating(&mut session);
    // Somebody has it in a table of his own.
    let x = data(&session);
    let other = x.clone();
    let moved = moving(&mut session, step, &x);
    assert_ne!(moved, x);
    assert_eq!(session.read(&other).unwrap_err().code, Code::Disposed);
    // Or has made something of it that is not computed yet.
    let lazy = moved.sin().unwrap();
    let next = moving(&mut session, step, &moved);
    assert_ne!(next, moved);
    assert_eq!(session.evaluate(from_ref(&lazy)).unwrap_err().code, Code::Disposed);
    // Or a function has captured it.
    let q = placeholder();
    let uses = session.compile(from_ref(&q), &[q.add(&next).unwrap()], &[false]).unwrap();
    let last = moving(&mut session, step, &next);
    assert_ne!(last, next);
    let y = data(&session);
    assert_eq!(session.run(uses, from_ref(&y)).unwrap_err().code, Code::Disposed);
    assert_eq!(session.read(&last).unwrap(), [3; 16]);
}

#[test]
fn donation_that_cannot_be_honoured_is_refused() {
    let (mut session, _log) = start();
    let (p, q, captured) = (placeholder(), placeholder(), data(&session));
    let sum = p.add(&q).unwrap().add(&captured).unwrap();
    let step = session.compile(&[p, q], &[sum], &[true, true]).unwrap();
    let x = data(&session);
    assert!(session.run(step, &[x.clone(), x.clone()]).unwrap_err().message.contains("donated twice"));
    assert!(session.run(step, &[x.clone(), captured]).unwrap_err().message.contains("captured"));
    // A refused run takes nothing.
    assert_eq!(session.read(&x).unwrap(), [0; 16]);
}

#[test]
fn a_run_checks_its_inputs() {
    let (mut session, _log) = start();
    let p = placeholder();
    let step = session.compile(from_ref(&p), &[p.exp().unwrap()], &[false]).unwrap();
    let other = Value::constant(1.0, DType::F32, &[5].into());
    assert_eq!(session.run(step, &[]).unwrap_err().code, Code::Argument);
    assert_eq!(session.run(step, &[other]).unwrap_err().code, Code::Shape);
    assert_eq!(session.run(step, &[Value::constant(1.0, DType::F64, &shape())]).unwrap_err().code, Code::DType);
    // A lazy input is computed first.
    let lazy = data(&session).sin().unwrap();
    let out = session.run(step, &[lazy]).unwrap().remove(0);
    assert_eq!(session.read(&out).unwrap(), [2; 16]);
    session.dispose_program(step).unwrap();
    assert_eq!(session.run(step, &[data(&session)]).unwrap_err().code, Code::Disposed);
    assert_eq!(session.dispose_program(step).unwrap_err().code, Code::Disposed);
}

#[test]
fn compile_wants_placeholders() {
    let (mut session, _log) = start();
    let (p, x) = (placeholder(), data(&session));
    let y = p.exp().unwrap();
    for inputs in [vec![x], vec![y.clone()], vec![p.clone(), p.clone()]] {
        let donate = vec![false; inputs.len()];
        assert_eq!(session.compile(&inputs, from_ref(&y), &donate).unwrap_err().code, Code::Argument);
    }
    assert_eq!(session.compile(from_ref(&p), from_ref(&y), &[]).unwrap_err().code, Code::Argument);
    let escaped = session.compile(&[placeholder()], &[y], &[false]).unwrap_err();
    assert!(escaped.message.contains("outside the function"), "{escaped}");
}

#[test]
fn what_was_built_before_the_trace_is_computed_once() {
    let (mut session, log) = start();
    let lazy = data(&session).sin().unwrap();
    let constant = Value::constant(2.0, DType::F32, &shape());
    let p = placeholder();
    let y = p.add(&lazy).unwrap().mul(&constant).unwrap();
    let step = session.compile(&[p], &[y], &[false]).unwrap();
    assert_eq!(session.stats().runs, 1);
    assert!(lazy.payload().is_some() && constant.payload().is_none());
    let out = session.run(step, &[data(&session)]).unwrap().remove(0);
    assert_eq!(session.read(&out).unwrap(), [2; 16]);
    assert_eq!(log.runs.load(Ordering::SeqCst), 2);
}

#[test]
fn history_lasts_as_long_as_a_trace_is_open() {
    let (mut session, _log) = start();
    session.enter_trace();
    session.enter_trace();
    let y = data(&session).exp().unwrap();
    session.evaluate(from_ref(&y)).unwrap();
    session.leave_trace().unwrap();
    session.evaluate(from_ref(&y)).unwrap();
    assert_eq!(y.inputs().len(), 1);
    session.leave_trace().unwrap();
    let z = y.exp().unwrap();
    session.evaluate(from_ref(&z)).unwrap();
    assert!(y.inputs().is_empty() && z.inputs().is_empty());
    assert_eq!(session.leave_trace().unwrap_err().code, Code::Internal);
}

#[test]
fn a_long_chain_and_its_memory_are_released() {
    let (mut session, log) = start();
    let x = data(&session);
    let mut y = x.clone();
    for _ in 0..1_000_000 {
        y = y.neg().unwrap();
    }
    drop(y);
    let mut y = x.exp().unwrap();
    for _ in 0..100 {
        session.evaluate(from_ref(&y)).unwrap();
        y = y.exp().unwrap();
    }
    session.read(&y).unwrap();
    drop(x);
    drain(&session);
    assert_eq!(log.live.load(Ordering::SeqCst), 1);
    drop(y);
    assert_eq!(log.live.load(Ordering::SeqCst), 0);
}

#[test]
fn ending_a_session_refuses_what_is_queued() {
    let (mut session, log) = start();
    log.slow.store(true, Ordering::SeqCst);
    let (sender, receiver) = channel();
    for _ in 0..5 {
        let sender = sender.clone();
        let y = data(&session).exp().unwrap();
        session.read_then(&[y], Box::new(move |outcome| sender.send(outcome).unwrap())).unwrap();
    }
    drop(session);
    let outcomes: Vec<_> = receiver.try_iter().collect();
    assert_eq!(outcomes.len(), 5);
    assert_eq!(outcomes[4].as_ref().unwrap_err().code, Code::Disposed);
    assert!(log.runs.load(Ordering::SeqCst) < 5);
}

#[test]
fn tasks_wait_for_their_turn() {
    let (mut session, log) = start();
    log.slow.store(true, Ordering::SeqCst);
    session.evaluate(&[data(&session).exp().unwrap()]).unwrap();
    let (sender, receiver) = channel();
    let seen = log.clone();
    session.then(Box::new(move |device| {
        sender.send((device.is_ok(), seen.runs.load(Ordering::SeqCst))).unwrap();
    }));
    assert_eq!(receiver.recv().unwrap(), (true, 1));
}

#[test]
fn an_upload_must_fill_its_shape() {
    let (session, _log) = start();
    let error = session.upload(&[0; 15], shape(), DType::F32).unwrap_err();
    assert_eq!(error.to_string(), "[upload] 15 bytes for f32 [4], which takes 16; the data must fill the shape");
}
