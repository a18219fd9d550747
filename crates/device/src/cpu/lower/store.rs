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
        self.push(phase, Action::Store(access), level, NONE, &[value]);
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
        self.push(phase, Action::Map(run), level, out, &[value]);
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
        self.push(phase, Action::Copy(step.dtype.size_bytes()), level, out, &[from]);
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

    /// Store what is stored over memory that is also read as early as that memory's last reader allows, and let the value be
    /// computed there: directly, or where a choice takes it, if the choice does.
    pub(super) fn store_straight_away(&mut self) {
        for phase in 0..self.phases.len() {
            let mut ops = std::mem::take(&mut self.phases[phase].ops);
            for at in 0..ops.len() {
                if let Some(target) = self.target_of(&ops[at]) {
                    let to = self.earliest(&ops, at, &self.lying_in(target, &ops), target);
                    ops[to..=at].rotate_right(1);
                }
            }
            for at in 0..ops.len() {
                if let Some(target) = self.target_of(&ops[at]) {
                    let lying = self.lying_in(target, &ops);
                    self.compute_in_place(&mut ops, at, &lying, target);
                }
            }
            self.phases[phase].ops = ops;
        }
    }

    /// The buffer that an operation stores to.
    fn target_of(&self, op: &Op) -> Option<BufferId> {
        match op.action {
            Action::Store(access) => Some(BufferId(self.accesses[access as usize].buffer as u32)),
            _ => None,
        }
    }

    /// Per value: whether it may lie in the memory of `target`.
    fn lying_in(&self, target: BufferId, ops: &[Op]) -> Vec<bool> {
        let mut lying = vec![false; self.needs_slot.len()];
        for op in self.phases.iter().flat_map(|phase| &phase.ops).chain(ops) {
            match op.action {
                Action::Load(access) => {
                    let buffer = BufferId(self.accesses[access as usize].buffer as u32);
                    lying[op.out as usize] = may_overlap(self.buffers, buffer, target);
                }
                Action::Choose => lying[op.out as usize] = op.args[1..3].iter().any(|&arg| lying[arg as usize]),
                _ => {}
            }
        }
        lying
    }

    /// The first place for the store at `at`: behind its value and behind all that reads or writes the target otherwise.
    fn earliest(&self, ops: &[Op], at: usize, lying: &[bool], target: BufferId) -> usize {
        let value = ops[at].args[0];
        let holds = |op: &Op| {
            let writes = self.target_of(op).is_some_and(|other| may_overlap(self.buffers, other, target));
            op.out == value || writes || self.reads_lying(op, lying, &[value])
        };
        ops[..at].iter().rposition(holds).map_or(0, |last| last + 1)
    }

    /// Let the value of the store at `at` be computed in its target, where nothing reads that memory in between.
    fn compute_in_place(&mut self, ops: &mut [Op], at: usize, lying: &[bool], target: BufferId) {
        let Action::Store(access) = ops[at].action else { return };
        let value = ops[at].args[0];
        let defines = |ops: &[Op], value: Value| ops[..at].iter().position(|op| op.out == value);
        let Some(made) = defines(ops, value) else { return };
        let candidates = match (ops[made].action, ops[made].args) {
            (Action::Choose, [condition, a, b, _]) => vec![(a, Some((condition, true))), (b, Some((condition, false)))],
            _ => vec![(value, None)],
        };
        let stores = |op: &&Op| self.target_of(op).is_some_and(|other| may_overlap(self.buffers, other, target));
        if ops.iter().filter(stores).count() > 1 || !self.read_where_stored(access, target, ops) {
            return;
        }
        for (candidate, only_if) in candidates {
            let Some(from) = defines(ops, candidate) else { continue };
            let op = &ops[from];
            let computes = match op.action {
                Action::Fused(..) => true,
                Action::Map(_) => !self.reads_lying(op, lying, &[]),
                _ => false,
            };
            let between = ops[from + 1..at].iter().any(|op| self.reads_lying(op, lying, &[value, candidate]));
            let free = op.target == NONE && op.level == self.accesses[access as usize].level;
            if computes && free && !between {
                ops[from].target = access;
                ops[from].only_if = only_if;
                self.needs_slot[candidate as usize] &= only_if.is_some() || !self.accesses[access as usize].dense;
            }
        }
    }

    /// Whether an operation looks at elements of a value that may lie in some memory, other than these values.
    fn reads_lying(&self, op: &Op, lying: &[bool], except: &[Value]) -> bool {
        match op.action {
            Action::Load(access) => lying[op.out as usize] && !self.accesses[access as usize].dense,
            // As a dense load, it only passes an address on.
            Action::Choose => false,
            _ => op.args.iter().any(|&arg| arg != NONE && lying[arg as usize] && !except.contains(&arg)),
        }
    }

    /// Whether every load of memory that the store `access` writes reads at each point what the store writes there.
    fn read_where_stored(&self, access: u32, target: BufferId, ops: &[Op]) -> bool {
        let store = &self.accesses[access as usize];
        let in_arena = |buffer: usize| matches!(self.buffers[buffer].place, Place::Arena(_));
        self.phases.iter().flat_map(|phase| &phase.ops).chain(ops).all(|op| {
            let Action::Load(load) = op.action else { return true };
            let load = &self.accesses[load as usize];
            let apart = !may_overlap(self.buffers, BufferId(load.buffer as u32), target);
            let same_start = load.buffer == store.buffer || !in_arena(load.buffer);
            apart || (same_start && load.level == store.level && load.walk == store.walk && load.size == store.size)
        })
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
