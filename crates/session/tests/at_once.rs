//! Brief runs: made on the caller's thread while nothing is queued before them, in their turn otherwise, and the same to
//! everybody who reads. The device adds one to each byte, says where it ran, and is held up by tests rather than by time.

use raphson_compile::compile;
use raphson_compile::program::Program;
use raphson_device::cpu::Cpu;
use raphson_device::{Description, Device, Loaded, Memory, Usage};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::flat::{flatten, simplify};
use raphson_graph::value::Value;
use raphson_session::Session;
use std::slice::from_ref;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// What the next run does in place of its work.
#[derive(Clone, Copy, PartialEq)]
enum Mishap {
    None,
    Fail,
    Panic,
}

struct Log {
    brief: bool,
    threads: Mutex<Vec<ThreadId>>,
    mishap: Mutex<Mishap>,
}

struct Adding(Arc<Log>);

fn memory(bytes: Vec<u8>) -> Memory {
    Memory { bytes: bytes.len(), inner: Arc::new(bytes) }
}

fn bytes(memory: &Memory) -> &[u8] {
    memory.inner.downcast_ref::<Vec<u8>>().unwrap()
}

impl Device for Adding {
    fn describe(&self) -> Description {
        Description { kind: "test", name: "adds".to_owned(), dtypes: &[DType::F32], threads: 1 }
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        Ok(memory(bytes.to_vec()))
    }
    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()> {
        into.copy_from_slice(bytes(memory));
        Ok(())
    }
    fn reads_at_once(&self) -> bool {
        true
    }
    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>> {
        Ok(Box::new(Added { log: self.0.clone(), program }))
    }
    fn trim(&self) {}
}

struct Added {
    log: Arc<Log>,
    program: Arc<Program>,
}

impl Loaded for Added {
    fn run(&mut self, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        self.log.threads.lock().unwrap().push(std::thread::current().id());
        let mishap = std::mem::replace(&mut *self.log.mishap.lock().unwrap(), Mishap::None); // unlocked before a panic
        match mishap {
            Mishap::None => {}
            Mishap::Fail => return Err(Error::new(Code::Index, "gather", "index 9 is outside 0..3")),
            Mishap::Panic => panic!("the device broke"),
        }
        let sum = bytes(&inputs[0]).iter().map(|byte| byte + 1).collect::<Vec<_>>();
        Ok(self.program.outputs.iter().map(|_| memory(sum.clone())).collect())
    }
    fn is_brief(&self) -> bool {
        self.log.brief
    }
}

fn start(brief: bool) -> (Session, Arc<Log>) {
    let log = Arc::new(Log { brief, threads: Mutex::default(), mishap: Mutex::new(Mishap::None) });
    (Session::new(Arc::new(Adding(log.clone()))).unwrap(), log)
}

fn zeros(session: &Session) -> Value {
    session.upload(&[0; 16], [4].into(), DType::F32).unwrap()
}

/// One op further: its program is prepared once, by the first to ask.
fn next(session: &mut Session, x: &Value) -> Value {
    let y = x.exp().unwrap();
    session.evaluate(from_ref(&y)).unwrap();
    y
}

fn at_once(session: &mut Session, x: &Value) -> Option<Vec<u8>> {
    session.bytes_at_once(x).unwrap()
}

/// The program of `next` is prepared, and the queue has nothing to do.
fn warm(session: &mut Session) {
    let x = zeros(session);
    let y = next(session, &x);
    session.read(&y).unwrap();
    settle(session);
}

/// A task is done when its callback returns, which is after that has told us.
fn settle(session: &Session) {
    while !session.is_idle() {
        std::thread::yield_now();
    }
}

/// Keeps the queue's thread where it is until something is sent.
fn hold(session: &Session) -> Sender<()> {
    let (sender, receiver) = channel();
    session.then(Box::new(move |_| receiver.recv().unwrap()));
    sender
}

#[test]
fn a_brief_run_is_made_here_and_now() {
    let (mut session, log) = start(true);
    warm(&mut session);
    let x = zeros(&session);
    let y = next(&mut session, &x);
    assert_eq!(at_once(&mut session, &y), Some(vec![1; 16]));
    let threads = log.threads.lock().unwrap();
    assert_ne!(threads[0], std::thread::current().id(), "what has to be prepared first is queued");
    assert_eq!(threads[1], std::thread::current().id());
    assert_eq!(session.stats().runs, 2);
}

#[test]
fn a_long_run_is_queued() {
    let (mut session, log) = start(false);
    warm(&mut session);
    let x = zeros(&session);
    let y = next(&mut session, &x);
    assert_eq!(session.read(&y).unwrap(), [1; 16]);
    assert!(log.threads.lock().unwrap().iter().all(|&thread| thread != std::thread::current().id()));
}

#[test]
fn a_brief_run_waits_for_what_is_queued_before_it() {
    let (mut session, log) = start(true);
    warm(&mut session);
    let release = hold(&session);
    let x = zeros(&session);
    let y = next(&mut session, &x);
    let z = next(&mut session, &y);
    assert_eq!(at_once(&mut session, &z), None, "nothing may overtake the queue");
    release.send(()).unwrap();
    assert_eq!(session.read(&z).unwrap(), [2; 16]);
    assert_eq!(session.read(&y).unwrap(), [1; 16]);
    assert!(log.threads.lock().unwrap().iter().all(|&thread| thread != std::thread::current().id()));
    settle(&session);
    let after = next(&mut session, &z);
    assert_eq!(at_once(&mut session, &after), Some(vec![3; 16]), "afterwards they are made at once again");
}

#[test]
fn failures_and_panics_are_those_of_queued_runs() {
    for mishap in [Mishap::Fail, Mishap::Panic] {
        let mut outcomes = Vec::new();
        for at_once in [true, false] {
            let (mut session, log) = start(true);
            warm(&mut session);
            session.set_at_once_for_test(at_once);
            *log.mishap.lock().unwrap() = mishap;
            let x = zeros(&session);
            let y = next(&mut session, &x);
            assert_eq!(session.bytes_at_once(&y).unwrap(), None, "an error is for those who wait");
            let error = session.read(&y).unwrap_err();
            let dependent = next(&mut session, &y);
            assert_eq!(session.read(&dependent).unwrap_err().code, error.code);
            let fresh = next(&mut session, &x);
            assert_eq!(session.read(&fresh).unwrap(), [1; 16], "the session goes on");
            outcomes.push((error.code, error.op.clone(), error.message.clone()));
        }
        assert_eq!(outcomes[0], outcomes[1]);
    }
}

#[test]
fn what_was_donated_cannot_be_read_at_once() {
    let (mut session, _log) = start(true);
    let input = Value::input([4].into(), DType::F32);
    let step = session.compile(from_ref(&input), &[input.exp().unwrap()], &[true]).unwrap();
    for _ in 0..2 {
        let x = zeros(&session);
        let y = session.run(step, from_ref(&x)).unwrap().remove(0);
        assert_eq!(session.bytes_at_once(&x).unwrap_err().code, Code::Disposed);
        assert_eq!(session.read(&y).unwrap(), [1; 16]);
        settle(&session);
    }
}

/// A small net's products, sums and functions, on the real device.
fn net(session: &mut Session) -> Vec<u8> {
    let numbers = |n: usize, scale: f32| -> Vec<u8> {
        (0..n).flat_map(|i| (((i * 37 % 101) as f32 / 50.0 - 1.0) * scale).to_ne_bytes()).collect()
    };
    let mut state = session.upload(&numbers(64, 0.5), [8, 8].into(), DType::F32).unwrap();
    let weights = session.upload(&numbers(64, 0.7), [8, 8].into(), DType::F32).unwrap();
    for _ in 0..4 {
        let product = state.dot(&weights).unwrap();
        state = product.tanh().unwrap().add(&product.exp().unwrap().log().unwrap()).unwrap();
        session.evaluate(from_ref(&state)).unwrap();
        settle(session);
    }
    session.read(&state).unwrap()
}

#[test]
fn brief_runs_give_the_same_bits_wherever_they_are_made() {
    let results = [(true, 1), (false, 1), (true, 3), (false, 3)].map(|(at_once, threads)| {
        let mut session = Session::new(Arc::new(Cpu::new(Some(threads)).unwrap())).unwrap();
        session.set_at_once_for_test(at_once);
        net(&mut session)
    });
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn the_cpu_calls_small_programs_brief_and_large_ones_not() {
    let device = Cpu::new(Some(2)).unwrap();
    for (size, brief) in [(8, true), (1024, false)] {
        let x = Value::input([size, size].into(), DType::F32);
        let flat = flatten(from_ref(&x), &[x.dot(&x).unwrap().exp().unwrap()]).unwrap();
        let program = compile(&simplify(&flat.graph), &[false]).unwrap();
        assert_eq!(device.load(Arc::new(program)).unwrap().is_brief(), brief, "{size}");
    }
}
