//! From a `RowKernel` to a `RowPlan`: checks, choice of the tiling, what each pass computes, which results go straight
//! to memory. Nothing here runs a kernel.
//!
//! The tilings:
//! - *flat*: no reduced axes; 1-D tiles of the kept axes.
//! - *whole rows*: a tile holds one or several rows; every instruction runs once, in order.
//! - *long rows*: one row at a time, every pass a loop over pieces of it; a pass recomputes the values it needs.
//! - *lanes*: a run of kept indices, every pass a loop over the reduced axes.

mod branch;
mod fuse;
mod one_hot;
mod store;

use super::isa::Level as Set;
use super::plan::{Access, Action, Layout, NONE, Op, Phase, ReducerLoops, RowPlan, Space, Value};
use super::tile::{READ_MOST, ROW_BYTES, TILE_LEAST, TILE_MOST, Tiling, block, cost, share_out, sized};
use super::walk::Walk;
use super::{joint, map, reduce};
use raphson_compile::program::{Buffer, BufferId, Instr, Level, Order, ReduceOp, RowKernel, Step, View};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::{Prim, Reg};

/// Prepare a kernel. An error is a bug of whoever built the program: it is refused before it can touch memory.
pub fn lower(kernel: &RowKernel, buffers: &[Buffer], set: Set) -> Result<RowPlan> {
    let reduced: usize = kernel.reduced.iter().product();
    if reduced == 1 {
        return Lowering::new(kernel, buffers, set, Tiling::Flat)?.plan();
    }
    if reduced == 0 || kernel.order == Order::Column {
        return Lowering::new(kernel, buffers, set, Tiling::Lanes)?.plan();
    }
    let several_passes = kernel.steps.iter().any(|step| step.pass > 0 && step.level == Level::Full);
    let short = reduced <= TILE_MOST || (several_passes && reduced <= ROW_BYTES);
    if short || reduced <= READ_MOST {
        let plan = Lowering::new(kernel, buffers, set, Tiling::WholeRows)?.plan()?;
        let fits = reduced <= TILE_LEAST || plan.n_slots * plan.slot_bytes <= ROW_BYTES;
        if plan.n_slots == 0 || (short && fits) {
            return Ok(plan);
        }
    }
    Lowering::new(kernel, buffers, set, Tiling::LongRows)?.plan()
}

fn bug(message: impl Into<String>) -> Error {
    Error::internal("kernel", message)
}

struct Lowering<'a> {
    kernel: &'a RowKernel,
    buffers: &'a [Buffer],
    set: Set,
    tiling: Tiling,
    space: Space,
    /// Per step: level, pass and whether anything stored depends on it.
    levels: Vec<Level>,
    passes: Vec<u32>,
    live: Vec<bool>,
    /// Per step: whether only one sum reads it, which then multiplies or picks along the way.
    absorbed: Vec<bool>,
    /// Per step: for a select by whether a position is a row's label, the register of the labels.
    labels: Vec<Option<Reg>>,
    /// Per step: its value at either level, as far as it has been emitted.
    everywhere: Vec<Option<Value>>,
    kept: Vec<Option<Value>>,
    full: Vec<Option<Value>>,
    /// Accumulator of each reduction.
    accumulators: Vec<Option<u32>>,
    accesses: Vec<Access>,
    prologue: Vec<Op>,
    phases: Vec<Phase>,
    /// Per value: whether it may need a slot.
    needs_slot: Vec<bool>,
    /// Per value: the widest level at which all of its elements are read, not just the first one.
    read_at: Vec<Option<Level>>,
    /// Per value: the instruction that makes it, and its dtype.
    prims: Vec<Option<(Prim, DType)>>,
}

impl<'a> Lowering<'a> {
    fn new(kernel: &'a RowKernel, buffers: &'a [Buffer], set: Set, tiling: Tiling) -> Result<Lowering<'a>> {
        let n = kernel.steps.len();
        let space = Space {
            kept: kernel.kept.iter().product(),
            reduced: kernel.reduced.iter().product(),
            tile_kept: 1,
            tile_reduced: 1,
            layout: if tiling == Tiling::Lanes { Layout::Lanes } else { Layout::Rows },
            block: if tiling == Tiling::Flat { block(kernel) } else { None },
        };
        let mut lowering = Lowering {
            kernel,
            buffers,
            set,
            tiling,
            space,
            levels: Vec::with_capacity(n),
            passes: Vec::with_capacity(n),
            live: vec![false; n],
            absorbed: vec![false; n],
            labels: vec![None; n],
            everywhere: vec![None; n],
            kept: vec![None; n],
            full: vec![None; n],
            accumulators: vec![None; n],
            accesses: Vec::new(),
            prologue: Vec::new(),
            phases: Vec::new(),
            needs_slot: Vec::new(),
            read_at: Vec::new(),
            prims: Vec::new(),
        };
        lowering.analyse()?;
        Ok(lowering)
    }

    /// The operands of step `i`.
    fn args(&self, i: usize) -> &'a [Reg] {
        args(&self.kernel.steps[i].instr)
    }

    /// Levels, passes and liveness; and that every operand is defined before its use.
    fn analyse(&mut self) -> Result<()> {
        for (i, step) in self.kernel.steps.iter().enumerate() {
            let level = if self.tiling == Tiling::Flat { Level::Kept } else { step.level };
            let mut pass = step.pass;
            for arg in self.args(i) {
                let a = arg.0 as usize;
                if a >= i || matches!(self.kernel.steps[a].instr, Instr::Store { .. }) {
                    return Err(bug(format!("step {i} reads register {a}, which is not defined before it")));
                }
                let reduces = matches!(self.kernel.steps[a].instr, Instr::Reduce { .. });
                pass = pass.max(self.passes[a] + u32::from(reduces));
                let constant = matches!(self.kernel.steps[a].instr, Instr::Const(_));
                let reduce = matches!(step.instr, Instr::Reduce { .. });
                if self.levels[a] == Level::Full && level == Level::Kept && !reduce && !constant {
                    return Err(bug(format!("step {i} is one value per kept index but reads the full register {a}")));
                }
            }
            if matches!(step.instr, Instr::Reduce { .. }) && step.level == Level::Full {
                return Err(bug(format!("step {i} reduces but is marked full")));
            }
            if step.dtype.is_storage() {
                return Err(bug(format!("step {i} is {}, which no register holds", step.dtype)));
            }
            self.levels.push(level);
            self.passes.push(pass);
        }
        for i in (0..self.kernel.steps.len()).rev() {
            self.live[i] |= matches!(self.kernel.steps[i].instr, Instr::Store { .. });
            if self.live[i] {
                self.args(i).iter().for_each(|arg| self.live[arg.0 as usize] = true);
            }
        }
        if matches!(self.tiling, Tiling::WholeRows | Tiling::LongRows) {
            let mut readers = vec![Vec::new(); self.kernel.steps.len()];
            for i in (0..self.kernel.steps.len()).filter(|&i| self.live[i]) {
                self.args(i).iter().for_each(|arg| readers[arg.0 as usize].push(i));
            }
            self.find_absorbed(&readers);
            self.find_labels(&readers);
        }
        Ok(())
    }

    /// Products of floats along rows whose only reader is a sum.
    fn find_absorbed(&mut self, readers: &[Vec<usize>]) {
        for i in (0..self.kernel.steps.len()).filter(|&i| self.live[i]) {
            let Instr::Reduce { op: ReduceOp::Sum, arg } = self.kernel.steps[i].instr else { continue };
            let step = &self.kernel.steps[arg.0 as usize];
            let product = matches!(step.instr, Instr::Prim { prim: Prim::Mul, .. }) && step.level == Level::Full;
            let agree = self.args(arg.0 as usize).iter().all(|a| self.kernel.steps[a.0 as usize].dtype == step.dtype);
            let found = reduce::find_absorbed(self.set, step.dtype).is_some();
            self.absorbed[arg.0 as usize] = product && agree && found && readers[arg.0 as usize].len() == 1;
        }
    }

    fn plan(mut self) -> Result<RowPlan> {
        self.emit_prologue()?;
        match self.tiling {
            Tiling::Flat | Tiling::WholeRows => self.emit_in_order()?,
            Tiling::LongRows | Tiling::Lanes => self.emit_passes()?,
        }
        self.fuse();
        self.set_targets();
        self.store_straight_away();
        self.leave_branches();
        let is_choice = |op: &Op| matches!(op.action, Action::Choose);
        let has_choices = self.phases.iter().flat_map(|phase| &phase.ops).any(is_choice);
        if !has_choices {
            self.phases.iter_mut().for_each(|phase| joint::join(&mut phase.ops, &self.accesses, self.set));
        }
        let mut plan = RowPlan {
            space: self.space,
            accesses: self.accesses,
            prologue: self.prologue,
            has_choices,
            set: self.set,
            phases: self.phases,
            slots: Vec::new(),
            n_slots: 0,
            slot_bytes: 0,
            n_accumulators: self.accumulators.iter().flatten().count(),
            tiles_per_chunk: 1,
            parallel: false,
        };
        // Of a value for the whole launch, no more is made than what is read.
        for op in &mut plan.prologue {
            op.level = self.read_at[op.out as usize].unwrap_or(Level::Kept);
        }
        plan.assign_slots(&self.needs_slot);
        let size = self.kernel.steps.iter().map(|step| step.dtype.size_bytes()).max().unwrap_or(1);
        let single = plan.prologue.iter().filter(|op| self.read_at[op.out as usize].is_none()).count();
        plan.space = sized(self.kernel, self.tiling, plan.space, (plan.n_slots - single) * size);
        // A line more, so that the first elements of all do not share a place in the cache.
        plan.slot_bytes =
            (plan.space.tile_elements() * size).next_multiple_of(super::memory::ALIGN) + super::memory::ALIGN;
        share_out(&mut plan, cost(self.kernel));
        Ok(plan)
    }

    fn value(&mut self) -> Value {
        self.needs_slot.push(true);
        self.read_at.push(None);
        self.prims.push(None);
        self.needs_slot.len() as Value - 1
    }

    /// A checked view as an access. `elements` is the size of what it reaches into.
    fn access(&mut self, buffer: Option<BufferId>, view: &View, level: Level, dtype: DType) -> Result<u32> {
        let kernel = self.kernel;
        if view.kept.len() != kernel.kept.len() || view.reduced.len() != kernel.reduced.len() {
            return Err(bug("a view has another rank than its kernel"));
        }
        let kept = || kernel.kept.iter().copied().zip(view.kept.iter().copied());
        let reduced = || kernel.reduced.iter().copied().zip(view.reduced.iter().copied());
        if level == Level::Kept && self.tiling != Tiling::Flat && view.reduced.iter().any(|&stride| stride != 0) {
            return Err(bug("a view of one value per kept index steps along the reduced axes"));
        }
        let walk = match (level, self.space.layout) {
            (Level::Kept, _) => Walk::new(kept(), view.offset),
            (Level::Full, Layout::Rows) => Walk::new(kept().chain(reduced()), view.offset),
            (Level::Full, Layout::Lanes) => Walk::new(reduced().chain(kept()), view.offset),
        };
        let walk = walk.ok_or_else(|| bug("a view has more than 16 axes that do not merge"))?;
        if let Some(id) = buffer {
            self.check_bounds(id, &walk, level, dtype)?;
        }
        let whole = level == Level::Kept || self.space.layout == Layout::Rows;
        let dense = walk.is_dense() && whole && self.space.block.is_none();
        let size = buffer.map_or(dtype, |id| self.buffers[id.0 as usize].dtype).size_bytes();
        let buffer = buffer.map_or(usize::MAX, |id| id.0 as usize);
        self.accesses.push(Access { buffer, size, level, walk, dense });
        Ok(self.accesses.len() as u32 - 1)
    }

    fn check_bounds(&self, id: BufferId, walk: &Walk, level: Level, dtype: DType) -> Result<()> {
        let buffer = self.buffers.get(id.0 as usize).ok_or_else(|| bug(format!("no buffer {}", id.0)))?;
        if buffer.dtype.register() != dtype {
            return Err(bug(format!("buffer {} is {}, its access {dtype}", id.0, buffer.dtype)));
        }
        let empty = self.space.kept == 0 || (level == Level::Full && self.space.reduced == 0);
        let inside = |(least, most): (i64, i64)| least >= 0 && (most as u64) < buffer.elements as u64;
        if empty || walk.bounds().is_some_and(inside) {
            return Ok(());
        }
        Err(bug(format!("a view reaches outside buffer {} of {} elements: {walk:?}", id.0, buffer.elements)))
    }

    /// Constants, and loads that give one value for the whole kernel.
    fn emit_prologue(&mut self) -> Result<()> {
        for (i, step) in self.kernel.steps.iter().enumerate().filter(|&(i, _)| self.live[i]).collect::<Vec<_>>() {
            let action = match &step.instr {
                Instr::Const(scalar) => constant(*scalar, step.dtype),
                Instr::Load { buffer, view }
                    if self.space.kept > 0 && !self.stored(*buffer) && !self.is_storage(*buffer) =>
                {
                    let access = self.access(Some(*buffer), view, self.levels[i], step.dtype)?;
                    let read = self.levels[i] == Level::Kept || self.space.reduced > 0;
                    if !read || !self.accesses[access as usize].walk.is_uniform() {
                        self.accesses.pop();
                        continue;
                    }
                    Action::Uniform(access)
                }
                _ => continue,
            };
            let out = self.value();
            self.everywhere[i] = Some(out);
            self.prologue.push(Op::new(action, Level::Full, out, &[]));
        }
        Ok(())
    }

    /// Whether a view is the same in every row.
    fn is_of_rows(&self, view: &View) -> bool {
        self.kernel.kept.iter().zip(&view.kept).all(|(&size, &stride)| size == 1 || stride == 0)
    }

    /// A load or an index that is the same in every row, and so in every tile of whole rows: once for the launch.
    fn emit_of_rows(&mut self, i: usize) -> Result<bool> {
        let step = &self.kernel.steps[i];
        let (buffer, view) = match &step.instr {
            Instr::Load { buffer, view } => (Some(*buffer), view),
            Instr::Index(view) => (None, view),
            _ => return Ok(false),
        };
        let changes = buffer.is_some_and(|buffer| self.stored(buffer) || self.is_storage(buffer));
        let alike = self.levels[i] == Level::Full && self.is_of_rows(view) && !changes;
        if self.tiling != Tiling::WholeRows || !alike {
            return Ok(false);
        }
        let access = self.access(buffer, view, Level::Full, step.dtype)?;
        let action = if buffer.is_some() { Action::Load(access) } else { Action::Index(access, step.dtype) };
        let out = self.value();
        self.full[i] = Some(out);
        self.prologue.push(Op::new(action, Level::Full, out, &[]));
        Ok(true)
    }

    fn push(&mut self, phase: usize, action: Action, level: Level, out: Value, args: &[Value]) {
        self.phases[phase].ops.push(Op::new(action, level, out, args));
    }

    /// The instruction that makes a value, and its dtype.
    fn made(&self, value: Value) -> Option<(Prim, DType)> {
        self.prims[value as usize]
    }

    /// Note that all elements of these values are read at `level`.
    fn read(&mut self, values: &[Value], level: Level) {
        for &value in values {
            let widest = &mut self.read_at[value as usize];
            *widest = Some(widest.map_or(level, |known| known.min(level)));
        }
    }

    /// The register that holds `reg` at `level` when a phase runs; a kept value is expanded in phase `spread`.
    fn operand(&mut self, reg: Reg, level: Level, spread: usize) -> Result<Value> {
        let i = reg.0 as usize;
        let known = match level {
            Level::Full => self.everywhere[i].or(self.full[i]),
            Level::Kept => self.everywhere[i].or(self.kept[i]),
        };
        if let Some(value) = known {
            return Ok(value);
        }
        let Some(kept) = self.kept[i].filter(|_| level == Level::Full) else {
            return Err(bug(format!("register {i} has no value where it is read")));
        };
        let value = self.value();
        let size = self.kernel.steps[i].dtype.size_bytes();
        self.push(spread, Action::Expand(size), Level::Full, value, &[kept]);
        self.full[i] = Some(value);
        Ok(value)
    }

    /// Emit step `i`, which is no store and no reduction, into phase `phase`.
    fn emit(&mut self, i: usize, phase: usize, spread: usize) -> Result<()> {
        if let Some(labels) = self.labels[i] {
            return self.emit_one_hot(i, labels, phase, spread);
        }
        if self.emit_of_rows(i)? {
            return Ok(());
        }
        let step = &self.kernel.steps[i];
        let level = self.levels[i];
        let args = self.args(i).iter().map(|&arg| self.operand(arg, level, spread)).collect::<Result<Vec<_>>>()?;
        let action = match &step.instr {
            Instr::Load { buffer, view } => Action::Load(self.access(Some(*buffer), view, level, step.dtype)?),
            Instr::Index(view) => Action::Index(self.access(None, view, level, step.dtype)?, step.dtype),
            Instr::Prim { prim, .. } => {
                let run = self.find_map(*prim, step, self.args(i))?;
                // One condition for the whole launch: take one operand, and leave the other one's memory alone.
                if self.is_choice(i) {
                    self.read(&args[1..], level);
                    Action::Choose
                } else if let Some((run, single)) = self.find_uniform(*prim, i) {
                    self.read(&args[1 - single..2 - single], level);
                    Action::Map(run)
                } else {
                    self.read(&args, level);
                    Action::Map(run)
                }
            }
            Instr::Const(_) | Instr::Reduce { .. } | Instr::Store { .. } => {
                return Err(bug(format!("step {i} is emitted as what it is not")));
            }
        };
        let out = self.value();
        if let Instr::Prim { prim, .. } = step.instr {
            self.prims[out as usize] = Some((prim, step.dtype));
        }
        match action {
            Action::Load(access) => self.needs_slot[out as usize] = !self.accesses[access as usize].dense,
            Action::Choose => self.needs_slot[out as usize] = false,
            _ => {}
        }
        self.push(phase, action, level, out, &args);
        let out = match &step.instr {
            Instr::Load { buffer, .. } => self.widened(*buffer, out, level, phase),
            _ => out,
        };
        match level {
            Level::Full => self.full[i] = Some(out),
            Level::Kept => self.kept[i] = Some(out),
        }
        Ok(())
    }

    /// Whether step `i` selects by one condition for the whole launch.
    fn is_choice(&self, i: usize) -> bool {
        matches!(self.kernel.steps[i].instr, Instr::Prim { prim: Prim::Select, args } if self.everywhere[args[0].0 as usize].is_some())
    }

    /// The loop for a step with a single value for one of two operands, if there is one of its own, and which one that is.
    fn find_uniform(&self, prim: Prim, i: usize) -> Option<(super::isa::LoopFn, usize)> {
        let &[a, b] = self.args(i) else { return None };
        let single = |reg: Reg| self.everywhere[reg.0 as usize].is_some();
        let first = match (single(a), single(b)) {
            (true, false) => true,
            (false, true) => false,
            _ => return None,
        };
        let run = map::find_uniform(self.set, prim, self.kernel.steps[i].dtype, first)?;
        Some((run, usize::from(!first)))
    }

    fn find_map(&self, prim: Prim, step: &Step, args: &[Reg]) -> Result<super::isa::LoopFn> {
        let dtype = |position: usize| self.kernel.steps[args[position].0 as usize].dtype;
        let operand = if prim == Prim::Select { dtype(1) } else { dtype(0) };
        let first = if prim == Prim::Select { DType::Bool } else { operand };
        let agree = (0..args.len()).all(|a| dtype(a) == if a == 0 { first } else { operand });
        let found = map::find(self.set, prim, operand, step.dtype).filter(|_| agree);
        found.ok_or_else(|| bug(format!("no {prim:?} of {operand} with result {}", step.dtype)))
    }

    /// The loops and the accumulator of reduction `i`.
    fn reduction(&mut self, i: usize) -> Result<(ReducerLoops, u32)> {
        let step = &self.kernel.steps[i];
        let Instr::Reduce { op, arg } = step.instr else { return Err(bug("not a reduction")) };
        let reducer = reduce::find(self.set, op, self.kernel.steps[arg.0 as usize].dtype);
        if reducer.result != step.dtype {
            return Err(bug(format!("step {i} reduces to {} but is marked {}", reducer.result, step.dtype)));
        }
        let next = self.accumulators.iter().flatten().count() as u32;
        let accumulator = *self.accumulators[i].get_or_insert(next);
        Ok((ReducerLoops::new(reducer, self.space.layout), accumulator))
    }

    /// Take a tile in: the value that is reduced, or two of which the products are, or one of which labels pick elements.
    fn emit_accumulate(&mut self, i: usize, arg: Reg, phase: usize, spread: usize) -> Result<()> {
        let (loops, accumulator) = self.reduction(i)?;
        let (step, labels) = (&self.kernel.steps[arg.0 as usize], self.labels[arg.0 as usize]);
        let absorbed = self.absorbed[arg.0 as usize].then(|| reduce::find_absorbed(self.set, step.dtype)).flatten();
        let (run, operands) = match (absorbed, labels, self.args(arg.0 as usize)) {
            (Some(absorbed), Some(labels), &[_, from, _]) => {
                (absorbed.picks, vec![(from, Level::Full), (labels, Level::Kept)])
            }
            (Some(absorbed), None, &[a, b]) => (absorbed.products, vec![(a, Level::Full), (b, Level::Full)]),
            _ => (loops.accumulate, vec![(arg, Level::Full)]),
        };
        let mut args = Vec::with_capacity(operands.len());
        for (reg, level) in operands {
            let value = self.operand(reg, level, spread)?;
            self.read(&[value], level);
            args.push(value);
        }
        self.push(phase, Action::Accumulate(accumulator, run), Level::Full, NONE, &args);
        Ok(())
    }

    fn emit_finish(&mut self, i: usize, phase: usize) -> Result<()> {
        let (loops, accumulator) = self.reduction(i)?;
        let out = self.value();
        self.push(phase, Action::Finish(accumulator, loops.finish), Level::Kept, out, &[]);
        self.kept[i] = Some(out);
        Ok(())
    }

    /// Flat tiles and whole rows: every live step once, in order. Stores over memory that is also read come last.
    fn emit_in_order(&mut self) -> Result<()> {
        self.phases.push(Phase::default());
        let mut last = Vec::new();
        for i in (0..self.kernel.steps.len()).filter(|&i| self.live[i]).collect::<Vec<_>>() {
            match &self.kernel.steps[i].instr {
                Instr::Const(_) => {}
                Instr::Store { buffer, .. } if self.updated_in_place(*buffer) => last.push(i),
                Instr::Store { .. } => self.emit_store(i, 0, 0)?,
                Instr::Reduce { op, arg } if self.tiling == Tiling::Flat => self.emit_single(i, *op, *arg)?,
                Instr::Reduce { arg, .. } => {
                    let (loops, accumulator) = self.reduction(i)?;
                    self.push(0, Action::Begin(accumulator, loops.begin), Level::Kept, NONE, &[]);
                    self.emit_accumulate(i, *arg, 0, 0)?;
                    self.emit_finish(i, 0)?;
                }
                _ if self.everywhere[i].is_some() || self.absorbed[i] => {}
                Instr::Load { .. } | Instr::Index(_) | Instr::Prim { .. } => self.emit(i, 0, 0)?,
            }
        }
        self.emit_last(last, 0, 0)
    }

    /// A reduction over a single element: the element itself, or position 0.
    fn emit_single(&mut self, i: usize, op: ReduceOp, arg: Reg) -> Result<()> {
        self.reduction(i)?;
        self.accumulators[i] = None;
        if op == ReduceOp::ArgMax {
            let out = self.value();
            let action = constant(Scalar::Int(0), DType::I32);
            self.prologue.push(Op::new(action, Level::Full, out, &[]));
            self.everywhere[i] = Some(out);
        } else {
            self.kept[i] = Some(self.operand(arg, Level::Kept, 0)?);
        }
        Ok(())
    }

    /// Long rows and lanes. Phase 2p runs once before pass p, phase 2p + 1 loops over the reduced axes.
    fn emit_passes(&mut self) -> Result<()> {
        let live: Vec<usize> = (0..self.kernel.steps.len()).filter(|&i| self.live[i]).collect();
        let store_pass = self.store_passes(&live);
        let n_passes = live.iter().map(|&i| self.passes[i] as usize + 2).max().unwrap_or(0);
        let mut last = Vec::new();
        for p in 0..n_passes {
            self.phases.push(Phase { looped: false, ops: Vec::new() });
            self.phases.push(Phase { looped: true, ops: Vec::new() });
            self.full.fill(None);
            for &i in &live {
                let pass = self.passes[i] as usize;
                match &self.kernel.steps[i].instr {
                    Instr::Reduce { .. } if pass + 1 == p => self.emit_finish(i, 2 * p)?,
                    Instr::Reduce { .. } if pass == p => {
                        let (loops, accumulator) = self.reduction(i)?;
                        self.push(2 * p, Action::Begin(accumulator, loops.begin), Level::Kept, NONE, &[]);
                    }
                    Instr::Reduce { .. } | Instr::Const(_) => {}
                    _ if self.levels[i] == Level::Full || pass != p || self.everywhere[i].is_some() => {}
                    Instr::Store { buffer, .. } if self.updated_in_place(*buffer) => last.push(i),
                    Instr::Store { .. } => self.emit_store(i, 2 * p, 2 * p)?,
                    Instr::Load { .. } | Instr::Index(_) | Instr::Prim { .. } => self.emit(i, 2 * p, 2 * p)?,
                }
            }
            self.emit_loop(p, &live, &store_pass)?;
        }
        self.phases.push(Phase::default());
        let phase = self.phases.len() - 1;
        self.emit_last(last, phase, phase)?;
        self.phases.retain(|phase| !phase.ops.is_empty());
        Ok(())
    }

    /// The loop of pass `p`: its reductions and stores, and the full values that they need.
    fn emit_loop(&mut self, p: usize, live: &[usize], store_pass: &[u32]) -> Result<()> {
        let mut needed = vec![false; self.kernel.steps.len()];
        for &i in live.iter().rev() {
            let root = match self.kernel.steps[i].instr {
                Instr::Reduce { .. } => self.passes[i] as usize == p,
                Instr::Store { .. } => self.levels[i] == Level::Full && store_pass[i] as usize == p,
                _ => needed[i] && self.levels[i] == Level::Full,
            };
            if root {
                needed[i] = true;
                self.args(i).iter().for_each(|arg| needed[arg.0 as usize] = true);
            }
        }
        let (before, body) = (2 * p, 2 * p + 1);
        let mut last = Vec::new();
        for &i in live.iter().filter(|&&i| needed[i]) {
            match &self.kernel.steps[i].instr {
                Instr::Reduce { arg, .. } if self.passes[i] as usize == p => {
                    self.emit_accumulate(i, *arg, body, before)?;
                }
                Instr::Store { buffer, .. } if self.updated_in_place(*buffer) => last.push(i),
                Instr::Store { .. } => self.emit_store(i, body, before)?,
                Instr::Reduce { .. } | Instr::Const(_) => {}
                _ if self.levels[i] == Level::Kept || self.everywhere[i].is_some() || self.absorbed[i] => {}
                Instr::Load { .. } | Instr::Index(_) | Instr::Prim { .. } => self.emit(i, body, before)?,
            }
        }
        self.emit_last(last, body, before)
    }
}

/// The operands of an instruction.
fn args(instr: &Instr) -> &[Reg] {
    match instr {
        Instr::Load { .. } | Instr::Const(_) | Instr::Index(_) => &[],
        Instr::Prim { prim, args } => &args[..prim.arity()],
        Instr::Reduce { arg, .. } => std::slice::from_ref(arg),
        Instr::Store { value, .. } => std::slice::from_ref(value),
    }
}

fn constant(scalar: Scalar, dtype: DType) -> Action {
    let integer = match scalar {
        Scalar::Int(v) => v,
        Scalar::Float(v) => v as i64,
        Scalar::Bool(v) => i64::from(v),
    };
    let bits = match dtype {
        DType::F32 => u64::from((scalar.to_f64() as f32).to_bits()),
        DType::F64 => scalar.to_f64().to_bits(),
        DType::I32 | DType::U32 => u64::from(integer as u32),
        DType::I64 => integer as u64,
        DType::Bool => u64::from(scalar.to_f64() != 0.0),
        // Refused before this; its register's dtype it would be.
        DType::F16 | DType::BF16 | DType::U8 => return constant(scalar, dtype.register()),
    };
    let mut bytes = [0; 8];
    let size = dtype.size_bytes();
    // The low `size` bytes hold the value; they are kept in memory order.
    match size {
        1 => bytes[..1].copy_from_slice(&(bits as u8).to_ne_bytes()),
        4 => bytes[..4].copy_from_slice(&(bits as u32).to_ne_bytes()),
        _ => bytes.copy_from_slice(&bits.to_ne_bytes()),
    }
    Action::Constant(bytes, size)
}
