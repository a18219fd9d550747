//! Kernels as PTX text, of an edition (7.0, sm_70) that every driver since 450 loads and compiles for whatever GPU there is.
//! Shapes and strides are constants in the text; buffers are its parameters. The parts: `text` builds PTX, `real` and its
//! companions are arithmetic and functions of floats, `prim` the primitives, `row` and `team` the fused kernels, `dot` and
//! `indexed` the others. Nothing here runs anything.

mod argsort;
pub mod dot;
mod elementary;
mod grid;
mod indexed;
mod parameters;
mod power;
mod prim;
mod real;
mod reduce;
mod row;
mod space;
mod storage;
mod team;
mod text;
mod trigonometric;

use raphson_compile::program::{Buffer, BufferId, Instr, Kernel, Level, Order, Program, RowKernel, Step, View};
use raphson_graph::dtype::Scalar;
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Reg;
use text::Text;

/// What stands at the top of every module.
const HEADER: &str = ".version 7.0\n.target sm_70\n.address_size 64\n\n";

/// What a launch is given, each a 64-bit address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// A buffer's memory, aligned to 32 bytes at least.
    Buffer(BufferId),
    /// [`ERROR_WORDS`] words of 32 bits, all zero before the run; see [`IndexError`].
    ErrorWords,
    /// Memory of [`Launch::workspace_bytes`] that the launches of one kernel pass on among them.
    Workspace,
}

/// Words of 32 bits behind [`Parameter::ErrorWords`].
pub const ERROR_WORDS: usize = 4;

/// What a kernel has left in the error words: an index outside its axis. Of several, one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexError {
    /// `gather` or `scatterAdd`.
    pub op: &'static str,
    /// The 32 bits of the index, i32 or u32 as the indices are.
    pub index: u32,
    /// Its position among the indices.
    pub position: u32,
    /// The size of the axis.
    pub axis: u32,
}

impl IndexError {
    /// Read the error words after a run.
    pub fn read(words: [u32; ERROR_WORDS]) -> Option<IndexError> {
        let [code, index, position, axis] = words;
        let op = match code {
            0 => return None,
            indexed::GATHER_FAILED => "gather",
            _ => "scatterAdd",
        };
        Some(IndexError { op, index, position, axis })
    }
}

/// One kernel launch. Grid and block have one dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// A whole PTX module with this one function.
    pub text: String,
    /// The function's name: its kind and a hash of its text, so equal names mean equal functions.
    pub entry: String,
    pub grid: u32,
    pub block: u32,
    /// Bytes of static shared memory, for information: the text declares them.
    pub shared_bytes: u32,
    pub parameters: Vec<Parameter>,
    /// Bytes behind [`Parameter::Workspace`].
    pub workspace_bytes: usize,
}

impl Launch {
    fn new(kind: &str, text: &Text, parameters: Vec<Parameter>, blocks: usize, threads: u32) -> Result<Launch> {
        let too_many = || Error::internal("kernel", format!("{blocks} blocks are more than a grid can have"));
        let grid = u32::try_from(blocks).ok().filter(|&blocks| blocks <= i32::MAX as u32).ok_or_else(too_many)?;
        let table = if text.reads_two_over_pi { trigonometric::table() } else { String::new() };
        let entry = format!("{kind}_{:016x}", hash(&text.function("", parameters.len(), threads)));
        let function = text.function(&entry, parameters.len(), threads);
        let text_of_module = format!("{HEADER}{table}{function}");
        Ok(Launch {
            text: text_of_module,
            entry,
            grid,
            block: threads,
            shared_bytes: text.shared_bytes(),
            parameters,
            workspace_bytes: 0,
        })
    }
}

/// FNV-1a
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Several launches' functions as one module, each function once.
pub fn module(launches: &[Launch]) -> String {
    let table = trigonometric::table();
    let mut functions: Vec<&str> = Vec::new();
    let mut entries: Vec<&str> = Vec::new();
    let mut reads_table = false;
    for launch in launches {
        if entries.contains(&launch.entry.as_str()) {
            continue;
        }
        entries.push(&launch.entry);
        let body = launch.text.strip_prefix(HEADER).unwrap_or(&launch.text);
        reads_table |= body.starts_with(&table);
        functions.push(body.strip_prefix(&table).unwrap_or(body));
    }
    format!("{HEADER}{}{}", if reads_table { &table } else { "" }, functions.join("\n"))
}

/// The launches of a kernel, in order; none if there is nothing to do.
pub fn print(kernel: &Kernel, buffers: &[Buffer]) -> Result<Vec<Launch>> {
    let launch = match kernel {
        Kernel::Row(row) => team::print(row, buffers)?,
        Kernel::Dot(dot) => dot::print(dot)?,
        Kernel::Conv(_) => return Err(Error::internal("cuda", "a convolution that was not replaced")),
        Kernel::Gather(gather) => indexed::gather(gather)?,
        Kernel::ScatterAdd(scatter) => indexed::scatter_add(scatter)?,
        Kernel::Argsort(sort) => return argsort::print(sort),
        Kernel::Attention(_) => return Err(Error::internal("cuda", "an attention that was not expanded")),
        Kernel::Fill { buffer, value } => fill(*buffer, *value, buffers)?,
    };
    Ok(launch.into_iter().collect())
}

/// The launches of a whole program, kernel by kernel.
pub fn print_program(program: &Program) -> Result<Vec<Vec<Launch>>> {
    program.kernels.iter().map(|kernel| print(kernel, &program.buffers)).collect()
}

/// A fill is a kernel that stores a constant.
fn fill(buffer: BufferId, value: Scalar, buffers: &[Buffer]) -> Result<Option<Launch>> {
    let missing = || Error::internal("fill", format!("no buffer {}", buffer.0));
    let target = buffers.get(buffer.0 as usize).ok_or_else(missing)?;
    let step = |instr, level| Step { instr, dtype: target.dtype.register(), level, pass: 0 };
    let view = View { offset: 0, kept: vec![1], reduced: Vec::new() };
    let store = Instr::Store { buffer, view, value: Reg(0) };
    let steps = vec![step(Instr::Const(value), Level::Kept), step(store, Level::Full)];
    let kernel = RowKernel { kept: vec![target.elements], reduced: Vec::new(), order: Order::Row, steps };
    team::print(&kernel, buffers)
}
