//! A program prepared for a GPU, and its runs: where buffers lie, what is copied, which faults the results carry.

use super::Core;
use super::dot::Means;
use super::driver::{Function, Work};
use super::fault::{self, FAULT_BYTES, Fault};
use super::graph::Replayer;
use super::memory::{Block, Pool};
use super::module::Kernel;
use super::plan::{Addresses, Entry, Plan};
use crate::{Loaded, Memory};
use raphson_compile::program::{BufferId, Kernel as ProgramKernel, Place, Program};
use raphson_graph::error::{Code, Error, Result};
use std::sync::Arc;

/// What a [`Memory`] of this device holds.
pub struct Tensor {
    pub block: Block,
    /// Runs that this depends on and that may have met an index outside its axis.
    pub faults: Vec<Arc<Fault>>,
}

impl Tensor {
    /// As the interface has it.
    pub fn wrap(self) -> Memory {
        Memory { bytes: self.block.bytes(), inner: Arc::new(self) }
    }

    /// The tensor behind a memory of the device that has this pool.
    pub fn of<'a>(memory: &'a Memory, pool: &Arc<Pool>) -> Result<&'a Tensor> {
        let tensor = memory.inner.downcast_ref::<Tensor>().filter(|tensor| tensor.block.is_from(pool));
        tensor.ok_or_else(|| {
            Error::new(
                Code::Device,
                "cuda",
                "a tensor lives on another device; move it to this GPU before using it here",
            )
        })
    }
}

/// A program on its GPU. Dropped in this order: a graph needs its kernels, and those the core that unloads them.
pub struct CudaProgram {
    replayer: Replayer,
    /// The kernel of each launch; none for products by the library.
    kernels: Vec<Option<Arc<Kernel>>>,
    plan: Plan,
    program: Arc<Program>,
    /// Made by the first run.
    arena: Option<Block>,
    workspace: Option<Block>,
    core: Arc<Core>,
}

impl CudaProgram {
    /// Plan a program and load its kernels.
    pub fn new(core: Arc<Core>, program: Arc<Program>) -> Result<CudaProgram> {
        let driver = &core.driver;
        // Looking for the library may take a while, and not every program needs it.
        let has_products = program.kernels.iter().any(|kernel| matches!(kernel, ProgramKernel::Dot(_)));
        let library = has_products && driver.library().is_some();
        let plan = Plan::of(&program, &Means { gpu: driver.gpu(), library, tf32: core.options.tf32 })?;
        let kernel = |entry: &Entry| match entry {
            Entry::Launch(launch) => {
                let (name, text) = launch.source.entry_and_text();
                core.modules.kernel(name, text, launch.shared_bytes).map(Some)
            }
            Entry::Gemm(_) => Ok(None),
        };
        let kernels = plan.entries.iter().map(kernel).collect::<Result<Vec<_>>>()?;
        let replayer = Replayer::new(core.driver.clone(), core.options.graphs);
        Ok(CudaProgram { replayer, kernels, plan, program, arena: None, workspace: None, core })
    }

    fn check_inputs(&self, inputs: &[Memory]) -> Result<()> {
        if inputs.len() != self.program.inputs.len() {
            let message = format!("{} inputs given, the program takes {}", inputs.len(), self.program.inputs.len());
            return Err(Error::internal("run", message));
        }
        for (i, (memory, id)) in inputs.iter().zip(&self.program.inputs).enumerate() {
            let wants = self.program.buffers[id.0 as usize].size_bytes();
            let has = Tensor::of(memory, &self.core.pool)?.block.bytes();
            if has != wants {
                return Err(Error::internal("run", format!("input {i} has {has} bytes, the program wants {wants}")));
            }
        }
        Ok(())
    }

    /// The memory that belongs to the program itself.
    fn own_memory(&mut self) -> Result<(u64, u64)> {
        let (arena_bytes, workspace_bytes) = (self.program.arena_bytes, self.plan.workspace_bytes);
        let address = |block: &mut Option<Block>, bytes: usize| -> Result<u64> {
            if block.is_none() {
                *block = Some(self.core.pool.allocate(bytes)?);
            }
            Ok(block.as_ref().map_or(0, Block::address))
        };
        Ok((address(&mut self.arena, arena_bytes)?, address(&mut self.workspace, workspace_bytes)?))
    }

    /// The question whether this run's indices are inside their axes, if it has any.
    fn fault(&self) -> Result<Option<Arc<Fault>>> {
        let Some(index_dtype) = self.plan.index_dtype else { return Ok(None) };
        let words = self.core.pool.allocate(FAULT_BYTES)?;
        // SAFETY: the block has these bytes.
        unsafe { self.core.driver.clear(words.address(), FAULT_BYTES)? };
        Ok(Some(Fault::new(words, index_dtype)))
    }

    /// A donated input's block: itself if nobody else holds it, else a copy.
    fn take_over(&self, memory: Memory) -> Result<Block> {
        let gone = |_| Error::internal("run", "a memory that was checked is another device's");
        match Arc::try_unwrap(memory.inner.downcast::<Tensor>().map_err(gone)?) {
            Ok(tensor) => Ok(tensor.block),
            Err(shared) => {
                let own = self.core.pool.allocate(shared.block.bytes())?;
                if own.bytes() > 0 {
                    // SAFETY: both blocks have this size, and `own` is new.
                    unsafe { self.core.driver.copy(own.address(), shared.block.address(), own.bytes())? };
                }
                Ok(own)
            }
        }
    }

    /// The blocks of the outputs by position, those of donated inputs among them, which are taken out of `inputs`; none where
    /// an output is an input as it was given.
    fn output_blocks(&self, inputs: &mut [Option<Memory>]) -> Result<Vec<Option<Block>>> {
        let block = |id: &BufferId| {
            let buffer = &self.program.buffers[id.0 as usize];
            match buffer.place {
                Place::Input(_) => Ok(None),
                Place::Output(_) | Place::Arena(_) => self.core.pool.allocate(buffer.size_bytes()).map(Some),
                Place::InPlace { input, .. } => inputs[input].take().map(|memory| self.take_over(memory)).transpose(),
            }
        };
        self.program.outputs.iter().map(block).collect()
    }

    fn addresses(&self, arena: u64, inputs: &[Option<Memory>], outputs: &[Option<Block>]) -> Result<Vec<u64>> {
        let missing = || Error::internal("run", "a buffer has no memory");
        let mut of_inputs = Vec::with_capacity(inputs.len());
        for memory in inputs {
            let tensor = memory.as_ref().map(|memory| Tensor::of(memory, &self.core.pool)).transpose()?;
            of_inputs.push(tensor.map(|tensor| tensor.block.address()));
        }
        let of_output = |output: usize| outputs[output].as_ref().map(Block::address);
        for buffer in &self.program.buffers {
            if let Place::InPlace { input, output } = buffer.place {
                of_inputs[input] = of_output(output);
            }
        }
        let address = |place: Place| match place {
            Place::Input(input) => of_inputs[input].ok_or_else(missing),
            Place::Output(output) | Place::InPlace { output, .. } => of_output(output).ok_or_else(missing),
            Place::Arena(offset) => Ok(arena + offset as u64),
        };
        self.program.buffers.iter().map(|buffer| address(buffer.place)).collect()
    }

    fn work(&self, addresses: &Addresses<'_>) -> Vec<Work> {
        // A product by the library has no function.
        let none = Function(0);
        let entries = self.plan.entries.iter().zip(&self.kernels);
        entries.map(|(entry, kernel)| addresses.work(entry, kernel.as_ref().map_or(none, |k| k.function))).collect()
    }

    /// The outputs as memories, with the faults that they carry.
    fn results(
        &self,
        inputs: &[Option<Memory>],
        outputs: Vec<Option<Block>>,
        faults: &[Arc<Fault>],
    ) -> Result<Vec<Memory>> {
        let result = |(block, id): (Option<Block>, &BufferId)| match block {
            Some(block) => Ok(Tensor { block, faults: faults.to_vec() }.wrap()),
            None => match self.program.buffers[id.0 as usize].place {
                Place::Input(input) => inputs[input].clone().ok_or_else(|| Error::internal("run", "an input is gone")),
                place => Err(Error::internal("run", format!("an output placed at {place:?} has no memory"))),
            },
        };
        outputs.into_iter().zip(&self.program.outputs).map(result).collect()
    }
}

impl Loaded for CudaProgram {
    fn run(&mut self, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        self.check_inputs(&inputs)?;
        let driver = self.core.driver.clone();
        let (arena, workspace) = self.own_memory()?;
        let own_fault = self.fault()?;
        let tensors = inputs.iter().map(|memory| Tensor::of(memory, &self.core.pool)).collect::<Result<Vec<_>>>()?;
        let known = tensors.iter().flat_map(|tensor| &tensor.faults);
        let faults = fault::gather(known.chain(&own_fault), &*driver)?;
        let mut inputs: Vec<Option<Memory>> = inputs.into_iter().map(Some).collect();
        let outputs = self.output_blocks(&mut inputs)?;
        let buffers = self.addresses(arena, &inputs, &outputs)?;
        let error_words = own_fault.as_ref().map_or(0, |fault| fault.address());
        let work = self.work(&Addresses { buffers: &buffers, workspace, error_words });
        // SAFETY: kernels were made for this program and are held by `self`; every buffer has memory of its size, which goes
        // back to the pool at the earliest when this work is on the stream, and there all later users queue behind it.
        unsafe { self.replayer.run(work)? };
        self.results(&inputs, outputs, &faults)
    }
}
