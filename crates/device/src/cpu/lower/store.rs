//! Stores of a kernel in preparation: which go straight to memory, which wait because that memory is also read, and in
//! which order those come. Everything else about a kernel is decided in `lower.rs`.

use super::{Lowering, bug};
use crate::cpu::isa::LoopFn;
use crate::cpu::plan::{Action, NONE, Op, Value};
use crate::cpu::storage;
use raphson_compile::program::{Buffer, BufferId, Instr, Level, Place};
use raphson_graph::error::Result;

impl Lowering<'_> {
    /// Whether this kernel both reads and writes the memory of `id`: its stores then wait for all loads.
    pub(super) fn updated_in_place(&self, id: BufferId) -> bool {
        self.kernel.steps.iter().enumerate().any(|(i, step)| match &step.instr {
            Instr::Load { buffer, .. } => self.live[i] && may_overlap(self.buffers, *buffer, id),
            _ => false,
        })
    }

    pub(super) fn stored(&self, id: BufferId) -> bool {
        self.kernel.steps.iter().any(|step| match &step.instr {
            Instr::Store { buffer, .. } => may_overlap(self.buffers, *buffer, id),
            _ => false,
        })
    }

    pub(super) fn emit_store(&mut self, i: usize, phase: usize, spread: usize) -> Result<()> {
        let step = &self.kernel.steps[i];
        let Instr::Store { buffer, view, value } = &step.instr else { return Err(bug("not a store")) };
        let level = self.levels[i];
        if self.kernel.steps[value.0 as usize].dtype != step.dtype {
            return Err(bug(format!("step {i} stores another dtype than its value's")));
        }
        let value = self.operand(*value, level, spread)?;
        self.read(&[value], level);
        let access = self.access(Some(*buffer), view, level, step.dtype)?;
        let value = match storage::narrow(self.set, self.buffers[buffer.0 as usize].dtype) {
            Some(run) => self.converted(run, value, level, phase),
            None => value,
        };
        self.push(phase, Action::Store(access), level, NONE, [value, NONE, NONE]);
        Ok(())
    }

    /// Whether memory holds a buffer in another form than registers do.
    pub(super) fn is_storage(&self, id: BufferId) -> bool {
        self.buffers.get(id.0 as usize).is_some_and(|buffer| buffer.dtype.is_storage())
    }

    /// What was loaded from a buffer, as registers hold it.
    pub(super) fn widened(&mut self, id: BufferId, loaded: Value, level: Level, phase: usize) -> Value {
        match storage::widen(self.set, self.buffers[id.0 as usize].dtype) {
            Some(run) => self.converted(run, loaded, level, phase),
            None => loaded,
        }
    }

    fn converted(&mut self, run: LoopFn, value: Value, level: Level, phase: usize) -> Value {
        self.read(&[value], level);
        let out = self.value();
        self.push(phase, Action::Map(run), level, out, [value, NONE, NONE]);
        out
    }

    /// Stores over memory that is also read. What is stored may still lie in such memory itself, loaded or chosen: then
    /// that store comes before the one that overwrites it, or where they wait for each other, a copy is made first.
    pub(super) fn emit_last(&mut self, mut last: Vec<usize>, phase: usize, spread: usize) -> Result<()> {
        let mut order = Vec::with_capacity(last.len());
        let mut copied = vec![false; self.kernel.steps.len()];
        while let Some(&first) = last.first() {
            let blocks = |&other: &usize, i: usize| other != i && !copied[other] && self.lies_in_target(other, i);
            let free = last.iter().copied().find(|&i| !last.iter().any(|other| blocks(other, i)));
            let next = free.unwrap_or(first);
            for other in last.iter().copied().filter(|other| blocks(other, next)).collect::<Vec<_>>() {
                self.emit_copy(other, phase, spread)?;
                copied[other] = true;
            }
            order.push(next);
            last.retain(|&i| i != next);
        }
        order.into_iter().try_for_each(|i| self.emit_store(i, phase, spread))
    }

    /// Move what store `i` will store out of memory.
    fn emit_copy(&mut self, i: usize, phase: usize, spread: usize) -> Result<()> {
        let step = &self.kernel.steps[i];
        let Instr::Store { value: reg, .. } = step.instr else { return Err(bug("not a store")) };
        let level = self.levels[i];
        let (from, out) = (self.operand(reg, level, spread)?, self.value());
        self.read(&[from], level);
        self.push(phase, Action::Copy(step.dtype.size_bytes()), level, out, [from, NONE, NONE]);
        let values = if level == Level::Full { &mut self.full } else { &mut self.kept };
        values[reg.0 as usize] = Some(out);
        Ok(())
    }

    /// Whether what store `i` stores may lie in the memory that store `j` writes.
    fn lies_in_target(&self, i: usize, j: usize) -> bool {
        let (Instr::Store { value, .. }, Instr::Store { buffer: target, .. }) =
            (&self.kernel.steps[i].instr, &self.kernel.steps[j].instr)
        else {
            return false;
        };
        let mut maybe = vec![value.0 as usize];
        while let Some(reg) = maybe.pop() {
            match &self.kernel.steps[reg].instr {
                _ if self.everywhere[reg].is_some() => {}
                Instr::Load { buffer, .. } if may_overlap(self.buffers, *buffer, *target) => return true,
                Instr::Prim { args, .. } if self.is_choice(reg) => maybe.extend(args[1..].iter().map(|a| a.0 as usize)),
                _ => {}
            }
        }
        false
    }

    /// The pass of each full store: a store over memory that is also read waits for the last pass that reads.
    pub(super) fn store_passes(&self, live: &[usize]) -> Vec<u32> {
        let loops = |&&i: &&usize| match self.kernel.steps[i].instr {
            Instr::Reduce { .. } => true,
            Instr::Store { .. } => self.levels[i] == Level::Full,
            _ => false,
        };
        let last = live.iter().filter(loops).map(|&i| self.passes[i]).max().unwrap_or(0);
        (0..self.kernel.steps.len())
            .map(|i| match &self.kernel.steps[i].instr {
                Instr::Store { buffer, .. } if self.updated_in_place(*buffer) => last,
                _ => self.passes[i],
            })
            .collect()
    }

    /// Let values be computed where they are stored, unless the kernel also reads that memory.
    pub(super) fn set_targets(&mut self) {
        let (written, in_place): (Vec<bool>, Vec<bool>) = self
            .accesses
            .iter()
            .map(|access| (access.buffer, BufferId(access.buffer as u32)))
            .map(|(index, id)| (index != usize::MAX, index != usize::MAX && self.updated_in_place(id)))
            .unzip();
        let mut targets = vec![NONE; self.needs_slot.len()];
        for op in self.phases.iter().flat_map(|phase| &phase.ops) {
            if let Action::Store(access) = op.action
                && written[access as usize]
                && !in_place[access as usize]
                && targets[op.args[0] as usize] == NONE
            {
                targets[op.args[0] as usize] = access;
            }
        }
        let is_kept = |op: &Op| op.level == Level::Kept;
        for op in self.phases.iter_mut().flat_map(|phase| &mut phase.ops).filter(|op| op.out != NONE) {
            let target = targets[op.out as usize];
            // A kept value stored at every point goes through its expansion; levels agree otherwise.
            if target != NONE && (self.accesses[target as usize].level == Level::Kept) == is_kept(op) {
                // A full value expanded before a loop is stored inside it, tile by tile, and stays where it is; so does a
                // chosen one.
                if matches!(op.action, Action::Expand(_) | Action::Choose) {
                    continue;
                }
                op.target = target;
                self.needs_slot[op.out as usize] &= !self.accesses[target as usize].dense;
            }
        }
    }
}

/// Whether two buffers may share memory.
fn may_overlap(buffers: &[Buffer], a: BufferId, b: BufferId) -> bool {
    if a == b {
        return true;
    }
    let (Some(a), Some(b)) = (buffers.get(a.0 as usize), buffers.get(b.0 as usize)) else { return false };
    let input = |place: Place| match place {
        Place::Input(input) | Place::InPlace { input, .. } => Some(input),
        Place::Output(_) | Place::Arena(_) => None,
    };
    match (a.place, b.place) {
        (Place::Arena(x), Place::Arena(y)) => x < y + b.size_bytes() && y < x + a.size_bytes(),
        (x, y) => input(x).is_some() && input(x) == input(y),
    }
}
