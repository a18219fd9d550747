//! The CPU device: runs programs by interpreting their kernels over tiles, on its own threads. Memory is host memory;
//! every call is synchronous. What is deliberately absent: a compiler, another crate's thread pool, any notion of ops.

#[cfg(test)]
mod accuracy;
mod argsort;
mod attention;
mod beside;
mod brief;
mod conv;
mod dot;
mod erf;
mod estimate;
mod fused;
mod gather;
mod inner;
mod isa;
mod joint;
mod lower;
mod map;
mod math;
mod memory;
mod panels;
mod plan;
mod pool;
mod product;
mod profile;
mod reduce;
mod row;
mod storage;
mod tile;
mod walk;

use crate::{Description, Device, Loaded, Memory, Usage};
use isa::Level;
use memory::{ALIGN, Block, Pool, Workspace};
use pool::{Beside, Crew, Team};
use profile::Profile;
use raphson_compile::program::{BufferId, Fused, Kernel, Place, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use row::{Bases, Scratches};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// The most threads a device takes; more is surely a mistake.
const MOST_THREADS: usize = 1024;

/// The CPU as a device.
pub struct Cpu {
    crew: Arc<Crew>,
    /// The caller by itself, for programs that are brief: what a kernel computes does not depend on the number of threads.
    alone: Arc<Crew>,
    pool: Arc<Pool>,
    level: Level,
}

impl Cpu {
    /// A device with this many threads, the caller of `run` included. Without a number, `RAPHSON_THREADS` decides, and
    /// without that, what the system offers.
    pub fn new(threads: Option<usize>) -> Result<Cpu> {
        Cpu::with_level(threads, Level::best())
    }

    /// A device for every instruction set that this machine has, so that tests can compare them.
    #[doc(hidden)]
    pub fn each_instruction_set(threads: usize) -> Result<Vec<Cpu>> {
        Level::available().into_iter().map(|level| Cpu::with_level(Some(threads), level)).collect()
    }

    fn with_level(threads: Option<usize>, level: Level) -> Result<Cpu> {
        let threads = match threads {
            Some(threads) => checked_threads(threads, "threads")?,
            None => threads_by_environment()?,
        };
        let crew = |threads: usize| {
            Crew::new(threads).map(Arc::new).map_err(|error| {
                Error::new(Code::Device, "cpu", format!("cannot start {threads} threads ({error}); ask for fewer"))
            })
        };
        Ok(Cpu { crew: crew(threads)?, alone: crew(1)?, pool: Pool::new(), level })
    }
}

fn checked_threads(threads: usize, what: &str) -> Result<usize> {
    if (1..=MOST_THREADS).contains(&threads) {
        return Ok(threads);
    }
    Err(Error::argument("cpu", format!("{what} is {threads}; use 1 to {MOST_THREADS}")))
}

fn threads_by_environment() -> Result<usize> {
    let Some(text) = std::env::var_os("RAPHSON_THREADS") else {
        return Ok(std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS)));
    };
    let parsed = text.to_str().and_then(|text| text.trim().parse().ok());
    let threads = parsed.ok_or_else(|| {
        Error::argument("cpu", format!("RAPHSON_THREADS is {text:?}; use a number from 1 to {MOST_THREADS}"))
    })?;
    checked_threads(threads, "RAPHSON_THREADS")
}

fn wrap(block: Block) -> Memory {
    Memory { bytes: block.bytes(), inner: Arc::new(block) }
}

/// The block behind a memory of this device.
fn block(memory: &Memory) -> Result<&Block> {
    memory.inner.downcast_ref::<Block>().ok_or_else(|| {
        Error::new(Code::Device, "cpu", "a tensor lives on another device; move it to the cpu before using it here")
    })
}

impl Device for Cpu {
    fn describe(&self) -> Description {
        let n = self.crew.n_threads();
        let plural = if n == 1 { "" } else { "s" };
        let name = format!("cpu ({}, {n} thread{plural})", self.level.name());
        Description { kind: "cpu", name, dtypes: &DType::ALL, threads: n }
    }

    fn fused(&self) -> Fused {
        attention::FUSED
    }

    fn usage(&self) -> Usage {
        Usage { live_bytes: self.pool.live_bytes(), pooled_bytes: self.pool.pooled_bytes() }
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        let block = self.pool.allocate(bytes.len())?;
        // SAFETY: the block is new and has room for all bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.start(), bytes.len()) };
        Ok(wrap(block))
    }

    fn download(&self, memory: &Memory, into: &mut [u8]) -> Result<()> {
        let block = block(memory)?;
        if into.len() != block.bytes() {
            let message = format!("{} bytes are to be read into {}", block.bytes(), into.len());
            return Err(Error::internal("download", message));
        }
        // SAFETY: the block has exactly `into.len()` bytes, and a shared block is never written.
        unsafe { std::ptr::copy_nonoverlapping(block.start(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn load(&self, program: Arc<Program>) -> Result<Box<dyn Loaded>> {
        check_program(&program)?;
        let kernels = program.kernels.iter().map(|kernel| prepare(kernel, &program, self.level));
        let kernels = kernels.collect::<Result<Vec<_>>>()?;
        let brief = brief::is_brief(&program);
        let profile = Profile::wanted(&program);
        let crew = if brief { &self.alone } else { &self.crew };
        // A profile is of kernels one after another.
        let steps = match profile {
            Some(_) => beside::in_order(&program),
            None => beside::steps(&program, crew.n_threads()),
        };
        let hands = Hands::new(crew, &kernels, 0..kernels.len(), &self.pool)?;
        let aside = steps.iter().flat_map(|step| step.beside.clone());
        let aside = Hands::new(&self.alone, &kernels, aside, &self.pool)?;
        let bases = Bases(vec![std::ptr::null_mut(); program.buffers.len()]);
        let pool = self.pool.clone();
        Ok(Box::new(CpuProgram { program, kernels, steps, brief, hands, aside, pool, arena: None, bases, profile }))
    }

    fn reads_at_once(&self) -> bool {
        true
    }

    fn trim(&self) {
        self.pool.trim();
    }
}

/// A kernel with everything decided that does not depend on the data.
enum Prepared {
    Row(Box<plan::RowPlan>),
    Dot(Box<dot::DotPlan>),
    Conv(Box<conv::ConvPlan>),
    Attention(Box<attention::AttentionPlan>),
    /// Run as the program has it.
    Plain,
}

fn prepare(kernel: &Kernel, program: &Program, level: Level) -> Result<Prepared> {
    let buffers = &program.buffers;
    match kernel {
        Kernel::Row(kernel) => Ok(Prepared::Row(Box::new(lower::lower(kernel, buffers, level)?))),
        Kernel::Dot(kernel) => Ok(Prepared::Dot(Box::new(dot::lower(kernel, buffers, level)?))),
        Kernel::Conv(kernel) => Ok(Prepared::Conv(Box::new(conv::lower(kernel, buffers, level)?))),
        Kernel::Attention(kernel) => Ok(Prepared::Attention(Box::new(attention::lower(kernel, buffers, level)?))),
        Kernel::Gather(kernel) => gather::check_gather(kernel, buffers).map(|()| Prepared::Plain),
        Kernel::ScatterAdd(kernel) => gather::check_scatter_add(kernel, buffers).map(|()| Prepared::Plain),
        Kernel::Argsort(kernel) => argsort::check(kernel, buffers).map(|()| Prepared::Plain),
        Kernel::Fill { buffer, .. } => gather::check_fill(*buffer, buffers).map(|()| Prepared::Plain),
    }
}

/// Refuse programs whose places do not fit together, before any of their memory is touched.
fn check_program(program: &Program) -> Result<()> {
    let bug = |message: String| Error::internal("load", message);
    let place = |id: &BufferId| program.buffers.get(id.0 as usize).map(|buffer| buffer.place);
    for (i, id) in program.inputs.iter().enumerate() {
        match place(id) {
            Some(Place::Input(input) | Place::InPlace { input, .. }) if input == i => {}
            found => return Err(bug(format!("input {i} is buffer {}, placed at {found:?}", id.0))),
        }
    }
    for (o, id) in program.outputs.iter().enumerate() {
        match place(id) {
            Some(Place::Output(output) | Place::InPlace { output, .. }) if output == o => {}
            Some(Place::Input(_)) => {}
            found => return Err(bug(format!("output {o} is buffer {}, placed at {found:?}", id.0))),
        }
    }
    for (i, buffer) in program.buffers.iter().enumerate() {
        let input_fits = |input: usize| {
            let given = program.inputs.get(input).and_then(|id| program.buffers.get(id.0 as usize));
            given.is_some_and(|given| given.size_bytes() == buffer.size_bytes())
        };
        let fits = match buffer.place {
            Place::Input(input) => input_fits(input),
            Place::InPlace { input, output } => {
                input_fits(input) && program.outputs.get(output) == Some(&BufferId(i as u32))
            }
            Place::Output(output) => program.outputs.get(output) == Some(&BufferId(i as u32)),
            Place::Arena(offset) => offset % ALIGN == 0 && offset + buffer.size_bytes() <= program.arena_bytes,
        };
        if !fits {
            return Err(bug(format!("buffer {i} does not fit its place {:?}", buffer.place)));
        }
    }
    Ok(())
}

/// Threads, with the memory that kernels need on them.
struct Hands {
    crew: Arc<Crew>,
    scratches: Scratches,
    workspace: Workspace,
}

impl Hands {
    /// A crew with room for those of the kernels at these positions.
    fn new(
        crew: &Arc<Crew>,
        kernels: &[Prepared],
        positions: impl Iterator<Item = usize> + Clone,
        pool: &Arc<Pool>,
    ) -> Result<Hands> {
        let n_threads = crew.n_threads();
        let wanted = positions.map(|position| &kernels[position]);
        let plans = wanted.clone().filter_map(|kernel| match kernel {
            Prepared::Row(plan) => Some(&**plan),
            _ => None,
        });
        let scratches = Scratches::new(plans, n_threads, pool)?;
        let scratch = wanted.map(|kernel| match kernel {
            Prepared::Dot(plan) => plan.scratch_bytes(),
            Prepared::Conv(plan) => plan.scratch_bytes(),
            Prepared::Attention(plan) => (plan.scratch_bytes(), 0),
            Prepared::Row(_) | Prepared::Plain => (0, 0),
        });
        let workspace = Workspace::new(scratch, n_threads, pool)?;
        Ok(Hands { crew: crew.clone(), scratches, workspace })
    }
}

/// A program prepared for this CPU.
struct CpuProgram {
    program: Arc<Program>,
    kernels: Vec<Prepared>,
    steps: Vec<beside::Step>,
    brief: bool,
    hands: Hands,
    /// The caller by itself, for kernels beside others.
    aside: Hands,
    pool: Arc<Pool>,
    /// Made by the first run.
    arena: Option<Block>,
    /// Kept between runs to save the allocation; filled anew by each.
    bases: Bases,
    profile: Option<Profile>,
}

impl CpuProgram {
    fn check_inputs(&self, inputs: &[Memory]) -> Result<()> {
        if inputs.len() != self.program.inputs.len() {
            let message = format!("{} inputs given, the program takes {}", inputs.len(), self.program.inputs.len());
            return Err(Error::internal("run", message));
        }
        for (i, (memory, id)) in inputs.iter().zip(&self.program.inputs).enumerate() {
            let (has, wants) = (block(memory)?.bytes(), self.program.buffers[id.0 as usize].size_bytes());
            if has != wants {
                return Err(Error::internal("run", format!("input {i} has {has} bytes, the program wants {wants}")));
            }
        }
        Ok(())
    }

    /// The memory of an input that an output takes over: itself when nobody else holds it, else a copy.
    fn take_over(&self, memory: &mut Memory) -> Result<()> {
        if Arc::strong_count(&memory.inner) == 1 {
            return Ok(());
        }
        let shared = block(memory)?;
        let own = self.pool.allocate(shared.bytes())?;
        // SAFETY: both blocks have this size, and `own` is new.
        unsafe { std::ptr::copy_nonoverlapping(shared.start(), own.start(), own.bytes()) };
        *memory = wrap(own);
        Ok(())
    }

    /// Find the memory of every buffer. Returns the outputs; `inputs` holds the rest alive.
    fn place(&mut self, inputs: &mut [Memory]) -> Result<Vec<Memory>> {
        if self.arena.is_none() && self.program.arena_bytes > 0 {
            self.arena = Some(self.pool.allocate(self.program.arena_bytes)?);
        }
        let program = self.program.clone();
        for buffer in &program.buffers {
            if let Place::InPlace { input, .. } = buffer.place {
                self.take_over(&mut inputs[input])?;
            }
        }
        let mut outputs = Vec::with_capacity(program.outputs.len());
        for id in &program.outputs {
            let buffer = &program.buffers[id.0 as usize];
            let memory = match buffer.place {
                Place::Input(input) | Place::InPlace { input, .. } => inputs[input].clone(),
                Place::Output(_) | Place::Arena(_) => wrap(self.pool.allocate(buffer.size_bytes())?),
            };
            outputs.push(memory);
        }
        for (buffer, base) in program.buffers.iter().zip(&mut self.bases.0) {
            *base = match buffer.place {
                Place::Input(input) | Place::InPlace { input, .. } => block(&inputs[input])?.start(),
                Place::Output(output) => block(&outputs[output])?.start(),
                Place::Arena(offset) => match &self.arena {
                    Some(arena) => arena.start().wrapping_add(offset),
                    // An arena of no bytes holds only empty buffers.
                    None => std::ptr::without_provenance_mut(ALIGN),
                },
            };
        }
        Ok(outputs)
    }

    /// Run every kernel.
    ///
    /// # Safety
    /// The bases are those of this run.
    unsafe fn run_kernels(&mut self) -> Result<()> {
        let launch = Launch { program: &self.program, kernels: &self.kernels, bases: &self.bases };
        for step in &self.steps {
            let start = self.profile.as_ref().map(|_| Instant::now());
            let mut outcome = Ok(());
            let mut work = || {
                for position in step.beside.clone() {
                    // SAFETY: passed on to our caller; the kernels touch nothing that the one they stand beside writes.
                    let one = unsafe { launch.run(position, &mut self.aside, None) };
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(one);
                }
            };
            let beside: Beside = if step.beside.is_empty() { None } else { Some(&mut work) };
            // SAFETY: passed on to our caller.
            unsafe { launch.run(step.kernel, &mut self.hands, beside) }?;
            outcome?;
            if let (Some(profile), Some(start)) = (&mut self.profile, start) {
                profile.add(step.kernel, start);
            }
        }
        Ok(())
    }
}

/// A program's kernels in one run.
struct Launch<'a> {
    program: &'a Program,
    kernels: &'a [Prepared],
    bases: &'a Bases,
}

impl Launch<'_> {
    /// Run one of them.
    ///
    /// # Safety
    /// The bases are those of this run.
    unsafe fn run<'b>(&self, position: usize, hands: &'b mut Hands, beside: Beside<'b>) -> Result<()> {
        let Hands { crew, scratches, workspace } = hands;
        let (team, bases) = (Team::new(crew, beside), self.bases);
        // SAFETY: `place` gave every buffer memory of its size and alignment; blocks that are written are new, or
        // ours alone, or the arena, which belongs to this program.
        unsafe {
            match (&self.kernels[position], &self.program.kernels[position]) {
                (Prepared::Row(plan), _) => row::run(plan, bases, scratches, &team),
                (Prepared::Dot(plan), _) => dot::run(plan, bases, workspace, &team),
                (Prepared::Conv(plan), _) => conv::run(plan, bases, workspace, &team),
                (Prepared::Attention(plan), _) => attention::run(plan, bases, workspace, &team),
                (Prepared::Plain, Kernel::Gather(kernel)) => gather::run_gather(kernel, bases, &team)?,
                (Prepared::Plain, Kernel::ScatterAdd(kernel)) => gather::run_scatter_add(kernel, bases, &team)?,
                (Prepared::Plain, Kernel::Argsort(kernel)) => argsort::run(kernel, bases, &team),
                (Prepared::Plain, Kernel::Fill { buffer, value }) => {
                    let index = buffer.0 as usize;
                    gather::run_fill(&self.program.buffers[index], bases.0[index], *value);
                }
                (Prepared::Plain, Kernel::Row(_) | Kernel::Dot(_) | Kernel::Conv(_) | Kernel::Attention(_)) => {
                    return Err(Error::internal("run", "a kernel was not prepared"));
                }
            }
        }
        team.finish();
        Ok(())
    }
}

impl Loaded for CpuProgram {
    fn run(&mut self, mut inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        self.check_inputs(&inputs)?;
        let outputs = self.place(&mut inputs)?;
        // SAFETY: `place` has just set the bases; `inputs` and `outputs` live until the kernels are done. A panic can
        // only spoil the contents of this run's memory, which is dropped then.
        let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { self.run_kernels() }));
        outcome.unwrap_or_else(|payload| Err(Error::internal("run", panic_text(&*payload))))?;
        self.profile.iter_mut().for_each(Profile::run);
        Ok(outputs)
    }

    fn is_brief(&self) -> bool {
        self.brief
    }
}

impl Drop for CpuProgram {
    fn drop(&mut self) {
        if let Some(profile) = &self.profile {
            eprint!("{}", profile.table(&self.program));
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("a kernel panicked: {}", text.unwrap_or("no message"))
}
