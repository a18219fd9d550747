//! Graphs compiled on request: what their runs take, give and captured. How they are compiled and run is not said here.

use crate::cache::Entry;
use crate::queue::Source;
use crate::stored::Stored;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use raphson_graph::op::Op;
use raphson_graph::shape::Shape;
use raphson_graph::value::{Value, topological_order};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The number of a compiled graph; never used twice in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProgramId(pub u32);

/// What a compiled graph amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Kernels of one run.
    pub kernels: usize,
    /// Bytes of temporaries.
    pub arena_bytes: usize,
    /// Bytes that a run has in use at once, as [`raphson_compile::program::Program::peak_bytes`] counts them.
    pub peak_bytes: usize,
    /// Declared inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// Nodes of the simplified graph.
    pub nodes: usize,
}

/// The type of an input or output.
struct Signature {
    shape: Shape,
    dtype: DType,
}

impl Signature {
    fn of(value: &Value) -> Signature {
        Signature { shape: value.shape().clone(), dtype: value.dtype() }
    }
}

/// A compiled graph.
pub struct Compiled {
    entry: Arc<Entry>,
    inputs: Vec<Signature>,
    outputs: Vec<Signature>,
    donate: Vec<bool>,
    captured: Vec<Arc<Stored>>,
}

impl Compiled {
    /// The program.
    pub fn entry(&self) -> Arc<Entry> {
        self.entry.clone()
    }

    /// Whether these values have the declared types.
    pub fn check_inputs(&self, inputs: &[Value]) -> Result<()> {
        if inputs.len() != self.inputs.len() {
            let message = format!("{} inputs; the compiled function takes {}", inputs.len(), self.inputs.len());
            return Err(Error::argument("run", message));
        }
        for (i, (given, declared)) in inputs.iter().zip(&self.inputs).enumerate() {
            let (shape, dtype) = (&declared.shape, declared.dtype);
            if given.dtype() != dtype {
                let message = format!("input {i} is {}, but was traced as {dtype}; cast it", given.dtype());
                return Err(Error::new(Code::DType, "run", message).with_dtypes([given.dtype(), dtype]));
            }
            if given.shape() != shape {
                let message = format!("input {i} is {}, but was traced as {shape}; compile anew", given.shape());
                return Err(Error::new(Code::Shape, "run", message).with_shapes([given.shape(), shape]));
            }
        }
        Ok(())
    }

    /// The operands of a run. Marks the donated ones: from here on only this run may use them.
    pub fn sources(&self, inputs: &[Value]) -> Result<Vec<Source>> {
        let mut sources = Vec::with_capacity(inputs.len() + self.captured.len());
        for (value, &donated) in inputs.iter().zip(&self.donate) {
            sources.push(Source { cell: crate::cell("run", value)?, donated });
        }
        for cell in &self.captured {
            cell.check_usable("run")?;
            sources.push(Source { cell: cell.clone(), donated: false });
        }
        let address = |source: &Source| Arc::as_ptr(&source.cell);
        let mut donated: Vec<_> = sources.iter().filter(|source| source.donated).map(address).collect();
        donated.sort_unstable();
        if donated.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::argument("run", "one tensor is donated twice; give a copy of it for one of the two"));
        }
        if sources[inputs.len()..].iter().any(|captured| donated.binary_search(&address(captured)).is_ok()) {
            let message = "a donated tensor is also captured by the function; pass it in, or do not donate it";
            return Err(Error::argument("run", message));
        }
        sources.iter().filter(|source| source.donated).for_each(|source| source.cell.mark_donated());
        Ok(sources)
    }

    /// Values for the outputs, and their cells. The first `moved` results take the places of as many operands: such a
    /// value, if it is a leaf that `holders` hold and nobody else, goes on as the result, and its cell is filled again.
    pub fn results(&self, operands: &[Value], moved: usize, holders: usize) -> Result<(Vec<Value>, Vec<Arc<Stored>>)> {
        let (mut values, mut cells) = (Vec::new(), Vec::new());
        for (position, Signature { shape, dtype }) in self.outputs.iter().enumerate() {
            let stays = |operand: &&Value| {
                self.donate[position]
                    && operand.is_leaf_of(holders)
                    && (operand.shape(), operand.dtype()) == (shape, *dtype)
            };
            let operand = operands.get(position).filter(|_| position < moved).filter(stays);
            let own = operand.map(Stored::of).transpose()?.flatten().filter(|cell| cell.expect_refill());
            let (value, cell) = match (operand, own) {
                (Some(operand), Some(cell)) => (operand.clone(), cell),
                _ => {
                    let cell = Stored::pending();
                    (Value::data(shape.clone(), *dtype, cell.clone()), cell)
                }
            };
            values.push(value);
            cells.push(cell);
        }
        Ok((values, cells))
    }

    /// What this amounts to.
    pub fn stats(&self) -> ProgramStats {
        let program = self.entry.program();
        ProgramStats {
            kernels: program.kernels.len(),
            arena_bytes: program.arena_bytes,
            peak_bytes: program.peak_bytes(),
            inputs: self.inputs.len(),
            outputs: self.outputs.len(),
            nodes: self.entry.nodes(),
        }
    }
}

/// The compiled graphs of a session.
#[derive(Default)]
pub struct Programs {
    compiled: HashMap<ProgramId, Compiled>,
    last: u32,
}

impl Programs {
    /// Keep a compiled graph.
    pub fn add(
        &mut self,
        entry: Arc<Entry>,
        inputs: &[Value],
        outputs: &[Value],
        donate: &[bool],
        captured: Vec<Arc<Stored>>,
    ) -> ProgramId {
        let (inputs, outputs) = (inputs.iter().map(Signature::of), outputs.iter().map(Signature::of));
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        self.last += 1;
        let id = ProgramId(self.last);
        self.compiled.insert(id, Compiled { entry, inputs, outputs, donate: donate.to_vec(), captured });
        id
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.compiled.is_empty()
    }

    /// The compiled graph of this number.
    pub fn get(&self, id: ProgramId) -> Result<&Compiled> {
        self.compiled.get(&id).ok_or_else(|| unknown(id))
    }

    /// Let go of one.
    pub fn remove(&mut self, id: ProgramId) -> Result<()> {
        self.compiled.remove(&id).map(drop).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: ProgramId) -> Error {
    Error::new(Code::Disposed, "run", format!("there is no compiled function {}; it was disposed of", id.0))
}

/// Inputs of a graph to compile must be distinct placeholders, each with its mark.
pub fn check_placeholders(inputs: &[Value], donate: &[bool]) -> Result<()> {
    if inputs.len() != donate.len() {
        let message = format!("{} inputs but {} donation marks; give one for each", inputs.len(), donate.len());
        return Err(Error::argument("compile", message));
    }
    let mut seen = HashSet::new();
    for (i, input) in inputs.iter().enumerate() {
        if *input.op() != Op::Input || input.payload().is_some() || !seen.insert(input.id()) {
            let message = format!("input {i} is no fresh placeholder; make one with `input` for each argument");
            return Err(Error::argument("compile", message));
        }
    }
    Ok(())
}

/// The lazy values made before the first of the placeholders that later ones use. They cannot depend on the
/// placeholders, so they are tensors of the surrounding code: worth computing once, not in every run. Constants are
/// left in the graph, where they fold.
pub fn built_before(inputs: &[Value], outputs: &[Value]) -> Vec<Value> {
    let Some(first) = inputs.iter().map(Value::id).min() else { return Vec::new() };
    let outside = |value: &Value| value.id() < first && value.payload().is_none() && !is_constant(value);
    let mut seen = HashSet::new();
    let mut found: Vec<Value> = outputs.iter().filter(|value| outside(value)).cloned().collect();
    for value in topological_order(outputs, false).iter().filter(|value| value.id() > first) {
        found.extend(value.inputs().into_iter().filter(outside));
    }
    found.retain(|value| seen.insert(value.id()));
    found
}

/// Whether this is a constant or iota, maybe repeated or reshaped.
fn is_constant(value: &Value) -> bool {
    let mut value = value.clone();
    loop {
        match (value.op(), value.inputs().into_iter().next()) {
            (Op::Constant(_) | Op::Iota { .. }, _) => return true,
            (op, Some(operand)) if op.is_view() => value = operand,
            _ => return false,
        }
    }
}
