//! A session: stored results, cached programs, and the run queue. It decides what is computed and when, and knows
//! neither formulas nor Node. One session belongs to one thread; its work runs on another, but for runs so brief that handing them
//! over would cost more: those are made at once while nothing is queued before them.

mod cache;
mod program;
mod queue;
mod stored;

pub use program::{ProgramId, ProgramStats};
pub use queue::{Reader, Task, panic_text};
pub use raphson_device::{Description, Device, Memory, Outcome, Probe, normalized};

use cache::{Cache, Entry};
use program::Programs;
use queue::{Job, Queue, Source, download, perform};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::flat::flatten;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::collections::HashSet;
use std::sync::Arc;
use stored::Stored;

/// The most bytes that are read at once, since copying them must not take longer than asking for them.
const MAX_READ_AT_ONCE: usize = 1 << 16;

/// Counters that tests and users read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in tensors' memory.
    pub live_bytes: usize,
    /// Bytes kept for reuse.
    pub pooled_bytes: usize,
    /// Programs in the cache.
    pub programs: usize,
    /// Evaluations and compilations that found their program there.
    pub program_hits: usize,
    /// Those that had to compile.
    pub program_misses: usize,
    /// Runs, queued or made at once.
    pub runs: usize,
}

/// Which device a session was opened on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// As in a request, with its number: `wgpu:0`.
    pub spec: String,
    /// For people.
    pub reason: String,
}

/// Everything that this machine has, and what opening `spec` comes to: the spec of the device, or why there is none.
/// Nothing stays open.
pub fn probe(spec: &str) -> (Result<String>, Vec<Probe>) {
    let (opened, probes) = raphson_device::open_with_probes(spec);
    (opened.map(|opened| opened.spec), probes)
}

/// Where values of one thread are stored and computed.
pub struct Session {
    // Before the device, so that the queue's thread has ended when the device goes.
    queue: Queue,
    device: Arc<dyn Device>,
    description: Description,
    chosen: Chosen,
    cache: Cache,
    programs: Programs,
    /// Traces open at the moment; while there are any, no history is forgotten.
    traces: usize,
    runs: usize,
    /// Whether brief runs are made at once.
    at_once: bool,
}

impl Session {
    /// A session on the device that `spec` asks for: `auto`, `cpu`, `cuda[:n]` or `wgpu[:n]`.
    pub fn open(spec: &str) -> Result<Session> {
        let raphson_device::Opened { device, spec, reason } = raphson_device::choose(spec)?;
        Session::on(device.into(), Chosen { spec, reason: reason.to_owned() })
    }

    /// A session on a device of the caller's.
    pub fn new(device: Arc<dyn Device>) -> Result<Session> {
        let spec = device.describe().kind.to_owned();
        Session::on(device, Chosen { spec, reason: "it was given".to_owned() })
    }

    fn on(device: Arc<dyn Device>, chosen: Chosen) -> Result<Session> {
        let (description, fused) = (device.describe(), device.fused());
        Ok(Session {
            queue: Queue::new(device.clone())?,
            device,
            cache: Cache::new(description.clone(), fused),
            description,
            chosen,
            programs: Programs::default(),
            traces: 0,
            runs: 0,
            at_once: true,
        })
    }

    /// The device's description.
    pub fn describe(&self) -> &Description {
        &self.description
    }

    /// Which device this is on, and why.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Whether compiled graphs are kept, which hold results of this session.
    pub fn has_programs(&self) -> bool {
        !self.programs.is_empty()
    }

    /// For tests: lose the device. False where that cannot be done.
    #[doc(hidden)]
    pub fn lose_device_for_test(&self) -> bool {
        self.device.lose_for_test()
    }

    /// Bytes in tensors' memory.
    pub fn live_bytes(&self) -> usize {
        self.device.usage().live_bytes
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let usage = self.device.usage();
        Stats {
            live_bytes: usage.live_bytes,
            pooled_bytes: usage.pooled_bytes,
            programs: self.cache.len(),
            program_hits: self.cache.hits(),
            program_misses: self.cache.misses(),
            runs: self.runs,
        }
    }

    /// A value with these elements, row-major.
    pub fn upload(&self, bytes: &[u8], shape: Shape, dtype: DType) -> Result<Value> {
        self.description.check_dtype("upload", dtype)?;
        check_size("upload", bytes.len(), &shape, dtype)?;
        self.adopt(self.device.upload(bytes)?, shape, dtype)
    }

    /// A value whose elements are already in the device's memory.
    pub fn adopt(&self, memory: Memory, shape: Shape, dtype: DType) -> Result<Value> {
        check_size("upload", memory.bytes, &shape, dtype)?;
        Ok(Value::data(shape, dtype, Stored::filled(memory)))
    }

    /// A user's function is being traced: keep the history of all that is realised meanwhile.
    pub fn enter_trace(&mut self) {
        self.traces += 1;
    }

    /// The opposite of [`Session::enter_trace`].
    pub fn leave_trace(&mut self) -> Result<()> {
        self.traces = self.traces.checked_sub(1).ok_or_else(|| Error::internal("leaveTrace", "no trace is open"))?;
        Ok(())
    }

    /// For tests: whether brief runs are made at once where they can be. Otherwise all are queued.
    #[doc(hidden)]
    pub fn set_at_once_for_test(&mut self, at_once: bool) {
        self.at_once = at_once;
    }

    /// Queue what is needed to compute these values, and realise them. Returns before it is done, unless it is brief; a failure of the
    /// work itself is reported when a result is read.
    pub fn evaluate(&mut self, values: &[Value]) -> Result<()> {
        let mut seen = HashSet::new();
        let mut lazy: Vec<Value> = Vec::new();
        for value in values {
            match Stored::of(value)? {
                Some(cell) => cell.check_usable("evaluate")?,
                None if seen.insert(value.id()) => lazy.push(value.clone()),
                None => {}
            }
        }
        if !lazy.is_empty() {
            let flat = flatten(&[], &lazy)?;
            let inputs = flat.captured.iter().map(|value| source("evaluate", value)).collect::<Result<Vec<_>>>()?;
            let entry = self.cache.program(flat.graph, vec![false; inputs.len()])?;
            let outputs: Vec<Arc<Stored>> = lazy.iter().map(|_| Stored::pending()).collect();
            for (value, cell) in lazy.iter().zip(&outputs) {
                value.realise(cell.clone());
            }
            self.push_run(entry, inputs, outputs);
            self.forget(&flat.captured);
        }
        self.forget(values);
        Ok(())
    }

    /// Compile a graph for repeated runs. `inputs` are placeholders; a run may overwrite those marked in `donate`. All
    /// else that `outputs` depend on is captured; what was built before the placeholders is computed now, once.
    pub fn compile(&mut self, inputs: &[Value], outputs: &[Value], donate: &[bool]) -> Result<ProgramId> {
        program::check_placeholders(inputs, donate)?;
        let outside = program::built_before(inputs, outputs);
        self.evaluate(&outside)?;
        let flat = flatten(inputs, outputs)?;
        let captured = flat.captured.iter().map(|value| cell("compile", value)).collect::<Result<Vec<_>>>()?;
        let mut donated = donate.to_vec();
        donated.resize(inputs.len() + captured.len(), false);
        let entry = self.cache.program(flat.graph, donated)?;
        captured.iter().for_each(|cell| cell.keep());
        Ok(self.programs.add(entry, inputs, outputs, donate, captured))
    }

    /// Queue a run of a compiled graph; its results come back as realised values. Donated inputs can only be disposed
    /// of afterwards.
    pub fn run(&mut self, id: ProgramId, inputs: &[Value]) -> Result<Vec<Value>> {
        self.run_moving(id, inputs, 0, 0)
    }

    /// The same, where the first `moved` results take the places of as many donated inputs. Of those that `holders` hold (the caller
    /// and its tables; a slice of clones counts), and nobody else, the result is the very value that was given.
    pub fn run_moving(&mut self, id: ProgramId, inputs: &[Value], moved: usize, holders: usize) -> Result<Vec<Value>> {
        self.programs.get(id)?.check_inputs(inputs)?;
        if inputs.iter().any(|input| input.payload().is_none()) {
            self.evaluate(inputs)?;
        } else {
            self.forget(inputs);
        }
        let program = self.programs.get(id)?;
        let entry = program.entry();
        let sources = program.sources(inputs)?;
        let (outputs, cells) = program.results(inputs, moved, holders)?;
        self.push_run(entry, sources, cells);
        Ok(outputs)
    }

    /// Whether a run now, of operands that are realised, would be made at once. A result that is there soon after a run says
    /// nothing about that: this thread may just have been kept waiting.
    pub fn runs_at_once(&self, id: ProgramId) -> Result<bool> {
        Ok(self.makes_at_once(&self.programs.get(id)?.entry()))
    }

    /// What a compiled graph amounts to.
    pub fn program_stats(&self, id: ProgramId) -> Result<ProgramStats> {
        Ok(self.programs.get(id)?.stats())
    }

    /// Forget a compiled graph and what it captured.
    pub fn dispose_program(&mut self, id: ProgramId) -> Result<()> {
        self.programs.remove(id)
    }

    /// The element bytes of a value, row-major; waits for them.
    pub fn read(&mut self, value: &Value) -> Result<Vec<u8>> {
        self.evaluate(std::slice::from_ref(value))?;
        let memory = cell("read", value)?.wait()?;
        download(&*self.device, &memory)
    }

    /// Copy a value's element bytes into `into`, row-major, if they are there and few; false where somebody has to wait for them, or
    /// for the error in their place. `into` must have the value's size.
    pub fn read_at_once(&mut self, value: &Value, into: &mut [u8]) -> Result<bool> {
        self.evaluate(std::slice::from_ref(value))?;
        let Some(memory) = self.ready(value)? else { return Ok(false) };
        if into.len() != memory.bytes {
            let message = format!("{} bytes are to be read into {}", memory.bytes, into.len());
            return Err(Error::internal("read", message));
        }
        self.device.download(&memory, into)?;
        Ok(true)
    }

    /// The same as a list of its own.
    pub fn bytes_at_once(&mut self, value: &Value) -> Result<Option<Vec<u8>>> {
        self.evaluate(std::slice::from_ref(value))?;
        self.ready(value)?.map(|memory| download(&*self.device, &memory)).transpose()
    }

    /// The memory of a realised value, if it can be read at once.
    fn ready(&self, value: &Value) -> Result<Option<Memory>> {
        let at_once = self.at_once && self.device.reads_at_once();
        let memory = if at_once { cell("read", value)?.ready() } else { None };
        Ok(memory.filter(|memory| memory.bytes <= MAX_READ_AT_ONCE))
    }

    /// The same for several values without waiting: `then` is called on the queue's thread.
    pub fn read_then(&mut self, values: &[Value], then: Reader) -> Result<()> {
        self.evaluate(values)?;
        let cells = values.iter().map(|value| cell("read", value)).collect::<Result<Vec<_>>>()?;
        self.queue.push(Job::Read { cells, then });
        Ok(())
    }

    /// Whether all that was queued is done.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// Call `task` on the queue's thread when all that is queued now has run.
    pub fn then(&self, task: Task) {
        self.queue.push(Job::Task(task));
    }

    /// Make a run at once if it is brief and nothing comes before it, else queue it.
    fn push_run(&mut self, entry: Arc<Entry>, inputs: Vec<Source>, outputs: Vec<Arc<Stored>>) {
        self.runs += 1;
        let at_once = self.makes_at_once(&entry);
        let job = Job::Run { entry, inputs, outputs };
        if at_once {
            perform(&*self.device, job, None);
        } else {
            self.queue.push(job);
        }
    }

    fn makes_at_once(&self, entry: &Entry) -> bool {
        self.at_once && entry.is_brief() && self.queue.is_idle()
    }

    /// Outside any trace nobody will ask for derivatives through realised values: their operands may go.
    fn forget(&self, values: &[Value]) {
        if self.traces == 0 {
            values.iter().for_each(Value::forget_history);
        }
    }
}

/// The cell of a value that is known to be realised and may be used.
fn cell(op: &str, value: &Value) -> Result<Arc<Stored>> {
    let cell = Stored::of(value)?.ok_or_else(|| Error::internal(op, "a value stayed lazy"))?;
    cell.check_usable(op)?;
    Ok(cell)
}

fn source(op: &str, value: &Value) -> Result<Source> {
    Ok(Source { cell: cell(op, value)?, donated: false })
}

fn check_size(op: &str, bytes: usize, shape: &Shape, dtype: DType) -> Result<()> {
    let expected = shape.elements() * dtype.size_bytes();
    if bytes == expected {
        return Ok(());
    }
    let message = format!("{bytes} bytes for {dtype} {shape}, which takes {expected}; the data must fill the shape");
    Err(Error::new(Code::Shape, op, message).with_shapes([shape]).with_dtypes([dtype]))
}
