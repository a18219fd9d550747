//! A program as launches: which kernels with which grids, their arguments named by buffer. Addresses come with each run.

use super::attention;
use super::conv;
use super::dot::{self, Means};
use super::driver::{Call, Function, Gemm, Matrix, Work};
use super::print::{self, Parameter, print};
use raphson_compile::program::{BufferId, Kernel, Place, Program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};

/// Where a kernel's text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Printed for this very kernel.
    Printed { entry: String, text: String },
    /// Compiled from CUDA C at development time.
    Compiled { entry: &'static str, text: &'static str },
}

impl Source {
    /// The kernel's name, and the module that has it.
    pub fn entry_and_text(&self) -> (&str, &str) {
        match self {
            Source::Printed { entry, text } => (entry, text),
            Source::Compiled { entry, text } => (entry, text),
        }
    }
}

/// The compiled kernel of this name.
macro_rules! kernel {
    ($name:literal) => {
        Source::Compiled { entry: $name, text: include_str!(concat!("kernels/", $name, ".ptx")) }
    };
}
pub(super) use kernel;

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    Buffer {
        buffer: BufferId,
        offset_bytes: i64,
    },
    Value(u64),
    /// Memory that only the next launches use.
    Workspace,
    /// Where an index outside its axis is noted.
    ErrorWords,
}

impl Argument {
    /// The start of a buffer.
    pub fn buffer(buffer: BufferId) -> Argument {
        Argument::Buffer { buffer, offset_bytes: 0 }
    }
}

/// A launch without addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub source: Source,
    pub grid: [u32; 3],
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    pub arguments: Vec<Argument>,
    /// Bytes that must be at `Argument::Workspace`.
    pub workspace_bytes: usize,
}

impl Launch {
    /// What is printed, as it is.
    pub fn printed(launch: print::Launch) -> Launch {
        let argument = |parameter: &Parameter| match *parameter {
            Parameter::Buffer(buffer) => Argument::buffer(buffer),
            Parameter::ErrorWords => Argument::ErrorWords,
            Parameter::Workspace => Argument::Workspace,
        };
        Launch {
            arguments: launch.parameters.iter().map(argument).collect(),
            source: Source::Printed { entry: launch.entry, text: launch.text },
            grid: [launch.grid, 1, 1],
            block: launch.block,
            // Printed texts declare their shared memory themselves.
            shared_bytes: 0,
            workspace_bytes: launch.workspace_bytes,
        }
    }
}

/// A matrix operand of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub buffer: BufferId,
    pub offset_bytes: i64,
    pub transposed: bool,
    pub leading: i64,
    pub batch_stride: i64,
}

/// A product by the library, without addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedGemm {
    pub double: bool,
    pub tf32: bool,
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub batches: usize,
    pub left: Operand,
    pub right: Operand,
    pub out: BufferId,
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Launch(Launch),
    Gemm(PlannedGemm),
}

/// A program, planned.
#[derive(Debug)]
pub struct Plan {
    pub entries: Vec<Entry>,
    pub workspace_bytes: usize,
    /// The dtype of indices, if any kernel may find one outside its axis.
    pub index_dtype: Option<DType>,
}

impl Plan {
    /// Plan a program for a GPU.
    pub fn of(program: &Program, means: &Means<'_>) -> Result<Plan> {
        check(program)?;
        let buffers = &program.buffers;
        let mut plan = Plan { entries: Vec::new(), workspace_bytes: 0, index_dtype: None };
        for kernel in &program.kernels {
            match kernel {
                Kernel::Dot(kernel) => plan.entries.extend(dot::plan(kernel, buffers, means)?),
                Kernel::Conv(kernel) => plan.entries.extend(conv::plan(kernel, means)),
                Kernel::Attention(kernel) => plan.entries.extend(attention::plan(kernel, means)?),
                _ => plan.entries.extend(print(kernel, buffers)?.into_iter().map(Launch::printed).map(Entry::Launch)),
            }
            match kernel {
                Kernel::Gather(kernel) => plan.index_dtype = Some(kernel.index_dtype),
                Kernel::ScatterAdd(kernel) => plan.index_dtype = Some(kernel.index_dtype),
                Kernel::Row(_)
                | Kernel::Dot(_)
                | Kernel::Conv(_)
                | Kernel::Argsort(_)
                | Kernel::Attention(_)
                | Kernel::Fill { .. } => {}
            }
        }
        let bytes = |entry: &Entry| if let Entry::Launch(launch) = entry { launch.workspace_bytes } else { 0 };
        plan.workspace_bytes = plan.entries.iter().map(bytes).max().unwrap_or(0);
        Ok(plan)
    }
}

/// The addresses of one run.
pub struct Addresses<'a> {
    /// Of every buffer of the program.
    pub buffers: &'a [u64],
    pub workspace: u64,
    pub error_words: u64,
}

impl Addresses<'_> {
    fn at(&self, buffer: BufferId, offset_bytes: i64) -> u64 {
        self.buffers[buffer.0 as usize].wrapping_add_signed(offset_bytes)
    }

    fn argument(&self, argument: &Argument) -> u64 {
        match *argument {
            Argument::Buffer { buffer, offset_bytes } => self.at(buffer, offset_bytes),
            Argument::Value(value) => value,
            Argument::Workspace => self.workspace,
            Argument::ErrorWords => self.error_words,
        }
    }

    /// An entry with its addresses; `function` is that of a launch.
    pub fn work(&self, entry: &Entry, function: Function) -> Work {
        match entry {
            Entry::Launch(launch) => Work::Call(Call {
                function,
                grid: launch.grid,
                block: launch.block,
                shared_bytes: launch.shared_bytes,
                arguments: launch.arguments.iter().map(|argument| self.argument(argument)).collect(),
            }),
            Entry::Gemm(gemm) => {
                let matrix = |operand: &Operand| Matrix {
                    address: self.at(operand.buffer, operand.offset_bytes),
                    transposed: operand.transposed,
                    leading: operand.leading,
                    batch_stride: operand.batch_stride,
                };
                Work::Gemm(Gemm {
                    double: gemm.double,
                    tf32: gemm.tf32,
                    m: gemm.m,
                    k: gemm.k,
                    n: gemm.n,
                    batches: gemm.batches,
                    left: matrix(&gemm.left),
                    right: matrix(&gemm.right),
                    out: self.at(gemm.out, 0),
                })
            }
        }
    }
}

/// Refuse programs whose places do not fit together, before any memory is touched.
fn check(program: &Program) -> Result<()> {
    let bug = |what: String| Err(Error::internal("load", what));
    let (inputs, outputs) = (&program.inputs, &program.outputs);
    let bytes = |id: &BufferId| program.buffers.get(id.0 as usize).map(|buffer| buffer.size_bytes());
    for (i, buffer) in program.buffers.iter().enumerate() {
        let id = BufferId(i as u32);
        let is_input = |input: usize| inputs.get(input).and_then(bytes) == Some(buffer.size_bytes());
        let fits = match buffer.place {
            Place::Input(input) => is_input(input),
            Place::Output(output) => outputs.get(output) == Some(&id),
            Place::InPlace { input, output } => is_input(input) && outputs.get(output) == Some(&id),
            Place::Arena(offset) => offset % 64 == 0 && offset + buffer.size_bytes() <= program.arena_bytes,
        };
        if !fits {
            return bug(format!("buffer {i} does not fit its place {:?}", buffer.place));
        }
    }
    match inputs.iter().chain(outputs).find(|id| bytes(id).is_none()) {
        Some(id) => bug(format!("there is no buffer {}", id.0)),
        None => Ok(()),
    }
}
