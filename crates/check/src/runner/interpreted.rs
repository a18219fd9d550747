//! The cuda device without a GPU: programs are printed as PTX, and the interpreter executes the text. Temporaries get memory
//! of their own here, so that an access outside one shows.

use super::Runner;
use super::device::{from_bytes, to_bytes};
use crate::ptx::{Fault, Machine, Module, Options, Order, Size};
use raphson_compile::compile;
use raphson_compile::direct::without_convolutions;
use raphson_compile::program::{Buffer, Place, Program};
use raphson_device::cuda::print::{ERROR_WORDS, IndexError, Launch, Parameter, print_program};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::flat::{Graph, simplify};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where every printed module is written too, by name, if this variable is set.
const DUMP: &str = "RAPHSON_PTX_DUMP";

/// The runner. Each run takes the next of several orders of warps and blocks.
#[derive(Default)]
pub struct Interpreted {
    runs: AtomicU64,
}

impl Runner for Interpreted {
    fn name(&self) -> String {
        "cuda (interpreted)".to_string()
    }

    fn device(&self) -> Option<&'static str> {
        Some("cuda")
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn run(&self, graph: &Graph, inputs: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        self.run_donating(graph, inputs, &vec![false; inputs.len()])
    }
}

impl Interpreted {
    /// Run with some inputs donated: an output may take over their memory.
    pub fn run_donating(&self, graph: &Graph, inputs: &[Vec<f64>], donated: &[bool]) -> Result<Vec<Vec<f64>>> {
        let graph = simplify(graph);
        let program = compile(&graph, donated)?;
        let dtype = |index: &u32| graph.nodes[*index as usize].dtype;
        let bytes: Vec<Vec<u8>> =
            inputs.iter().zip(&graph.inputs).map(|(values, index)| to_bytes(values, dtype(index))).collect();
        let outputs = run_program(&program, &bytes, self.next_order())?;
        Ok(outputs.iter().zip(&graph.outputs).map(|(bytes, index)| from_bytes(bytes, dtype(index))).collect())
    }

    fn next_order(&self) -> Order {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        match run % 3 {
            0 => Order::Forward,
            1 => Order::Backward,
            _ => Order::Mixed(run),
        }
    }
}

fn failed(Fault(why): Fault) -> Error {
    Error::internal("ptx", why)
}

/// Print a program and interpret it. Inputs and outputs are bytes, by position.
pub fn run_program(program: &Program, inputs: &[Vec<u8>], order: Order) -> Result<Vec<Vec<u8>>> {
    let program = &without_convolutions(program, |_| false);
    let mut machine = Machine::new(Options { order, ..Options::default() });
    let addresses = place(&mut machine, program, inputs);
    let error_words = machine.memory.upload("error words", &[0; 4 * ERROR_WORDS], 4);
    for launches in print_program(program)? {
        let bytes = launches.iter().map(|launch| launch.workspace_bytes).max().unwrap_or(0);
        let workspace = machine.memory.reserve("workspace", bytes, 4);
        for launch in &launches {
            dump(launch)?;
            let module = Module::parse(&launch.text).map_err(failed)?;
            let argument = |parameter: &Parameter| match parameter {
                Parameter::Buffer(id) => addresses[id.0 as usize],
                Parameter::ErrorWords => error_words,
                Parameter::Workspace => workspace,
            };
            let arguments: Vec<u64> = launch.parameters.iter().map(argument).collect();
            machine
                .launch(&module, &launch.entry, Size::line(launch.grid, launch.block), &arguments)
                .map_err(failed)?;
        }
    }
    let words = machine.memory.download(error_words).unwrap_or(&[]);
    let words: Vec<u32> = words.as_chunks::<4>().0.iter().map(|&chunk| u32::from_le_bytes(chunk)).collect();
    if let Some(error) = <[u32; ERROR_WORDS]>::try_from(words).ok().and_then(IndexError::read) {
        let IndexError { op, index, position, axis } = error;
        let message = format!("index {} at position {position} is outside an axis of size {axis}", index as i32);
        return Err(Error::new(Code::Index, op, message));
    }
    let output = |id: &raphson_compile::program::BufferId| {
        machine.memory.download(addresses[id.0 as usize]).map(<[u8]>::to_vec).unwrap_or_default()
    };
    Ok(program.outputs.iter().map(output).collect())
}

/// The address of every buffer.
fn place(machine: &mut Machine, program: &Program, inputs: &[Vec<u8>]) -> Vec<u64> {
    let grain = |buffer: &Buffer| buffer.dtype.size_bytes();
    let mut of_input = vec![0; inputs.len()];
    for (position, id) in program.inputs.iter().enumerate() {
        let buffer = &program.buffers[id.0 as usize];
        of_input[position] = machine.memory.upload(&format!("input {position}"), &inputs[position], grain(buffer));
    }
    let address = |(number, buffer): (usize, &Buffer)| match buffer.place {
        Place::Input(input) | Place::InPlace { input, .. } => of_input[input],
        Place::Output(output) => {
            machine.memory.reserve(&format!("output {output}"), buffer.size_bytes(), grain(buffer))
        }
        Place::Arena(_) => machine.memory.reserve(&format!("buffer {number}"), buffer.size_bytes(), grain(buffer)),
    };
    program.buffers.iter().enumerate().map(address).collect()
}

fn dump(launch: &Launch) -> Result<()> {
    let Some(folder) = std::env::var_os(DUMP) else { return Ok(()) };
    let path = PathBuf::from(folder).join(format!("{}.ptx", launch.entry));
    if path.exists() {
        return Ok(());
    }
    std::fs::write(&path, &launch.text)
        .map_err(|error| Error::new(Code::File, "ptx", format!("cannot write {}: {error}", path.display())))
}
