//! Runs a `RowPlan`: walks its tiles, on one thread or many, and calls the loops. The plan says everything about order
//! and registers; nothing is decided here but which thread takes which piece.

use super::isa::Args;
use super::joint;
use super::memory::{ALIGN, Block, Pool};
use super::plan::{Access, Action, Layout, NONE, Op, Phase, RowPlan, Value};
use super::pool::Team;
use super::walk;
use raphson_compile::program::Level;
use raphson_graph::error::Result;
use std::cell::UnsafeCell;
use std::sync::Arc;

/// Start of each buffer of a program, for one run.
pub struct Bases(pub Vec<*mut u8>);

// SAFETY: the addresses are only used by kernels, which split every buffer they write into disjoint pieces.
unsafe impl Send for Bases {}
// SAFETY: as above.
unsafe impl Sync for Bases {}

/// One thread's registers.
struct Scratch {
    memory: Block,
    /// Where each value of the running kernel is.
    pointers: Vec<*mut u8>,
    /// The launch for which the prologue has run.
    launch: u64,
    /// What this launch runs of a kernel that has choices, and for each value the one that it is.
    chosen: Vec<Phase>,
    stands_for: Vec<Value>,
    /// The parts of the joint loop that comes next.
    parts: Vec<Args>,
}

/// The registers of every thread, made once for a program.
pub struct Scratches {
    threads: Vec<UnsafeCell<Scratch>>,
    launch: u64,
}

// SAFETY: pointers lead into the scratch itself or into the buffers of the run; see `Bases`.
unsafe impl Send for Scratches {}
// SAFETY: thread number `t` of a crew uses only the scratch number `t`, one chunk at a time.
unsafe impl Sync for Scratches {}

impl Scratches {
    /// Room for `plans` on `n_threads` threads.
    pub fn new<'a>(
        plans: impl Iterator<Item = &'a RowPlan> + Clone,
        n_threads: usize,
        pool: &Arc<Pool>,
    ) -> Result<Scratches> {
        let bytes = plans.clone().map(RowPlan::scratch_bytes).max().unwrap_or(0);
        let values = plans.map(|plan| plan.slots.len()).max().unwrap_or(0);
        let scratch = || {
            let memory = pool.allocate(bytes)?;
            let (pointers, stands_for) = (vec![std::ptr::null_mut(); values], vec![0; values]);
            Ok(UnsafeCell::new(Scratch {
                memory,
                pointers,
                launch: 0,
                chosen: Vec::new(),
                stands_for,
                parts: Vec::new(),
            }))
        };
        Ok(Scratches { threads: (0..n_threads).map(|_| scratch()).collect::<Result<_>>()?, launch: 0 })
    }
}

/// Run a kernel.
///
/// # Safety
/// `bases` holds, for every buffer of the plan's program, memory of at least the buffer's size, aligned to 64 bytes,
/// that nobody else writes, nor reads where the kernel writes; and the plan was made for this machine.
pub unsafe fn run(plan: &RowPlan, bases: &Bases, scratches: &mut Scratches, team: &Team) {
    let n_tiles = plan.space.n_tiles();
    if n_tiles == 0 {
        return;
    }
    scratches.launch += 1;
    let scratches = &*scratches;
    let n_chunks = n_tiles.div_ceil(plan.tiles_per_chunk);
    let work = |thread: usize, chunk: usize| {
        // SAFETY: a thread number is in use by one thread at a time, so this is the only reference to its scratch.
        let scratch = unsafe { &mut *scratches.threads[thread].get() };
        let first = chunk * plan.tiles_per_chunk;
        let mut tiles = Tiles { plan, bases, scratch, kept: 0, n_kept: 0, width: 0, reduced: 0, n_reduced: 0 };
        // SAFETY: our caller vouches for the buffers.
        unsafe { tiles.run(scratches.launch, first..n_tiles.min(first + plan.tiles_per_chunk)) };
    };
    if plan.parallel {
        team.run(n_chunks, &work);
    } else {
        (0..n_chunks).for_each(|chunk| work(0, chunk));
    }
}

/// The state of one thread: which tile it is in.
struct Tiles<'a> {
    plan: &'a RowPlan,
    bases: &'a Bases,
    scratch: &'a mut Scratch,
    kept: usize,
    n_kept: usize,
    /// Columns, when tiles are blocks.
    width: usize,
    reduced: usize,
    n_reduced: usize,
}

impl Tiles<'_> {
    /// # Safety
    /// As for [`run`].
    unsafe fn run(&mut self, launch: u64, tiles: std::ops::Range<usize>) {
        let (plan, space) = (self.plan, self.plan.space);
        if self.scratch.launch != launch {
            self.scratch.launch = launch;
            (self.n_kept, self.n_reduced) = (space.tile_kept, space.tile_reduced.max(1));
            // SAFETY: passed on to our caller.
            plan.prologue.iter().for_each(|op| unsafe { self.step(op) });
            if plan.has_choices {
                // SAFETY: conditions are values of the whole launch, of which the prologue has made one element at least.
                unsafe { self.choose() };
            }
        }
        let chosen = std::mem::take(&mut self.scratch.chosen);
        let phases = if plan.has_choices { &chosen } else { &plan.phases };
        for tile in tiles {
            self.go_to(tile);
            for phase in phases {
                (self.reduced, self.n_reduced) = (0, space.tile_reduced);
                if !phase.looped {
                    // SAFETY: passed on to our caller.
                    phase.ops.iter().for_each(|op| unsafe { self.step(op) });
                    continue;
                }
                while self.reduced < space.reduced {
                    self.n_reduced = space.tile_reduced.min(space.reduced - self.reduced);
                    // SAFETY: passed on to our caller.
                    phase.ops.iter().for_each(|op| unsafe { self.step(op) });
                    self.reduced += self.n_reduced;
                }
            }
        }
        self.scratch.chosen = chosen;
    }

    /// Leave of the plan's operations what this launch needs: every choice is one of its operands.
    ///
    /// # Safety
    /// There is an element of every condition.
    unsafe fn choose(&mut self) {
        let Scratch { pointers, chosen, stands_for, .. } = &mut *self.scratch;
        // SAFETY: passed on to our caller.
        let holds = |condition: Value| unsafe { *pointers[condition as usize] != 0 };
        let is = |(condition, wanted): (Value, bool)| holds(condition) == wanted;
        stands_for.iter_mut().zip(0..).for_each(|(one, value)| *one = value);
        chosen.resize_with(self.plan.phases.len(), Phase::default);
        for (phase, chosen) in self.plan.phases.iter().zip(chosen) {
            chosen.looped = phase.looped;
            chosen.ops.clear();
            for op in phase.ops.iter().filter(|op| op.needed_if.is_none_or(is)) {
                if let Action::Choose = op.action {
                    let operand = if holds(op.args[0]) { op.args[1] } else { op.args[2] };
                    stands_for[op.out as usize] = stands_for[operand as usize];
                    continue;
                }
                let args = op.args.map(|arg| if arg == NONE { NONE } else { stands_for[arg as usize] });
                let target = if op.only_if.is_none_or(is) { op.target } else { NONE };
                chosen.ops.push(Op { args, target, ..*op });
            }
            joint::join(&mut chosen.ops, &self.plan.accesses, self.plan.set);
        }
    }

    fn go_to(&mut self, tile: usize) {
        let space = &self.plan.space;
        if let Some(block) = &space.block {
            let (start, height, width) = block.tile(tile);
            (self.kept, self.n_kept, self.width) = (start, height * width, width);
        } else {
            self.kept = tile * space.tile_kept;
            self.n_kept = space.tile_kept.min(space.kept - self.kept);
        }
    }

    /// Elements of a value at a level.
    fn elements(&self, level: Level) -> usize {
        match level {
            Level::Full => self.n_kept * self.n_reduced,
            Level::Kept => self.n_kept,
        }
    }

    /// The current tile in the flat index space of a level: `count` runs of `n` indices, `step` apart.
    fn pieces(&self, level: Level) -> Pieces {
        let (space, kept) = (&self.plan.space, self.kept);
        if let Some(block) = &space.block {
            // Blocks are flat: there is only one level.
            return Pieces { start: kept, n: self.width, count: self.n_kept / self.width, step: block.step() };
        }
        match (level, space.layout) {
            (Level::Kept, _) => Pieces { start: kept, n: self.n_kept, count: 1, step: 0 },
            (Level::Full, Layout::Rows) => Pieces {
                start: kept * space.reduced + self.reduced,
                n: self.n_kept * self.n_reduced,
                count: 1,
                step: 0,
            },
            (Level::Full, Layout::Lanes) => {
                let start = self.reduced * space.kept + kept;
                if self.n_kept == space.kept {
                    Pieces { start, n: self.n_kept * self.n_reduced, count: 1, step: 0 }
                } else {
                    Pieces { start, n: self.n_kept, count: self.n_reduced, step: space.kept }
                }
            }
        }
    }

    /// Where the current tile of an access is consecutive in memory, if it is.
    fn direct(&self, access: &Access) -> Option<*mut u8> {
        let base = self.bases.0[access.buffer];
        if access.dense {
            let start = match access.level {
                Level::Kept => self.kept,
                Level::Full => self.kept * self.plan.space.reduced + self.reduced,
            };
            let position = access.walk.offset() as isize + start as isize;
            return Some(base.wrapping_offset(position * access.size as isize));
        }
        let pieces = self.pieces(access.level);
        if pieces.count != 1 {
            return None;
        }
        let position = access.walk.contiguous(pieces.start, pieces.n)?;
        // Wrapping, so that forming the address is no claim about memory; the plan has checked all positions.
        Some(base.wrapping_offset(position as isize * access.size as isize))
    }

    fn slot(&self, value: u32) -> *mut u8 {
        let slot = self.plan.slots[value as usize] as usize;
        debug_assert!(slot < self.plan.n_slots);
        self.scratch.memory.start().wrapping_add(slot * self.plan.slot_bytes)
    }

    fn accumulator(&self, number: u32) -> *mut u8 {
        let offset = self.plan.n_slots * self.plan.slot_bytes + number as usize * self.plan.accumulator_stride();
        self.scratch.memory.start().wrapping_add(offset)
    }

    fn pointer(&self, value: u32) -> *mut u8 {
        if value == NONE { std::ptr::null_mut() } else { self.scratch.pointers[value as usize] }
    }

    /// Where an operation puts its result: straight into memory if it can.
    fn place(&mut self, op: &Op) -> *mut u8 {
        let target = if op.target == NONE { None } else { self.direct(&self.plan.accesses[op.target as usize]) };
        let place = target.unwrap_or_else(|| self.slot(op.out));
        self.scratch.pointers[op.out as usize] = place;
        place
    }

    /// Run one operation over the current tile.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn step(&mut self, op: &Op) {
        let n = self.elements(op.level);
        let mut args = Args {
            n,
            m: 0,
            out: std::ptr::null_mut(),
            a: self.pointer(op.args[0]),
            b: self.pointer(op.args[1]),
            c: self.pointer(op.args[2]),
            d: self.pointer(op.args[3]),
            single: 0,
            position: self.reduced,
        };
        // SAFETY: the plan's accesses lie within the buffers, its slots hold a full tile of the widest dtype, results
        // of all but fused loops never lie where operands lie, and loops were found for the dtypes of their operands.
        unsafe {
            match op.action {
                Action::Load(access) => self.load(op, access),
                Action::Index(access, dtype) => {
                    let out = self.place(op);
                    let (walk, size) = (&self.plan.accesses[access as usize].walk, dtype.size_bytes());
                    self.pieces(op.level)
                        .each(|start, n, done| walk::positions(dtype, walk, start, n, out.add(done * size)));
                }
                Action::Constant(bytes, size) => {
                    let out = self.place(op);
                    splat(size, bytes.as_ptr(), out, n);
                }
                Action::Uniform(access) => {
                    let access = &self.plan.accesses[access as usize];
                    let source = self.bases.0[access.buffer].add(access.walk.offset() as usize * access.size);
                    splat(access.size, source, self.place(op), n);
                }
                Action::Map(run) => {
                    args.out = self.place(op);
                    run(&args);
                }
                Action::Fused(fused) => {
                    (args.single, args.m) = (fused.single, self.n_reduced);
                    args.out = self.place(op);
                    (fused.run)(&args);
                }
                Action::Part(fused) => {
                    args.single = fused.single;
                    args.out = self.place(op);
                    self.scratch.parts.push(args);
                }
                Action::Joint(run) => {
                    args.a = self.scratch.parts.as_ptr().cast();
                    run(&args);
                    self.scratch.parts.clear();
                }
                // `choose` has replaced it.
                Action::Choose => {}
                Action::OneHot(run) => {
                    args.out = self.place(op);
                    (args.n, args.m) = (self.n_kept, self.n_reduced);
                    run(&args);
                }
                Action::Copy(size) => std::ptr::copy_nonoverlapping(args.a, self.place(op), n * size),
                Action::Expand(size) => self.expand(op, size),
                Action::Begin(accumulator, run) => {
                    args.out = self.accumulator(accumulator);
                    run(&args);
                }
                Action::Accumulate(accumulator, run) => {
                    args.out = self.accumulator(accumulator);
                    (args.n, args.m) = (self.n_kept, self.n_reduced);
                    run(&args);
                }
                Action::Finish(accumulator, run) => {
                    args.a = self.accumulator(accumulator);
                    args.out = self.place(op);
                    run(&args);
                }
                Action::Store(access) => self.store(op, access),
            }
        }
    }

    /// # Safety
    /// As for [`run`].
    unsafe fn load(&mut self, op: &Op, access: u32) {
        let access = &self.plan.accesses[access as usize];
        if let Some(memory) = self.direct(access) {
            self.scratch.pointers[op.out as usize] = memory;
            return;
        }
        let out = self.place(op);
        let memory = self.bases.0[access.buffer];
        let pieces = self.pieces(access.level);
        if let Some((first, distance, bytes)) = pieces.rows(access) {
            for i in 0..pieces.count {
                let row = memory.wrapping_offset(first + i as isize * distance);
                // SAFETY: the access was checked against its buffer, and `out` holds the tile.
                unsafe { std::ptr::copy_nonoverlapping(row, out.add(i * bytes), bytes) };
            }
            return;
        }
        pieces.each(|start, n, done| {
            // SAFETY: the access was checked against its buffer, and `out` holds the tile.
            unsafe { walk::gather(access.size, &access.walk, start, n, memory, out.add(done * access.size)) };
        });
    }

    /// # Safety
    /// As for [`run`].
    unsafe fn store(&mut self, op: &Op, access: u32) {
        let access = &self.plan.accesses[access as usize];
        let value = self.pointer(op.args[0]);
        match self.direct(access) {
            Some(memory) if memory == value => {}
            // SAFETY: the access was checked against its buffer; the value is a tile elsewhere, or the very loads that
            // this store overwrites in place, for which overlapping copies are allowed here.
            Some(memory) => unsafe { std::ptr::copy(value, memory, self.elements(access.level) * access.size) },
            None => {
                let memory = self.bases.0[access.buffer];
                let pieces = self.pieces(access.level);
                if let Some((first, distance, bytes)) = pieces.rows(access) {
                    for i in 0..pieces.count {
                        let row = memory.wrapping_offset(first + i as isize * distance);
                        // SAFETY: as above; rows that are apart have been gathered, so they do not overlap.
                        unsafe { std::ptr::copy_nonoverlapping(value.add(i * bytes), row, bytes) };
                    }
                    return;
                }
                pieces.each(|start, n, done| {
                    // SAFETY: as above; a strided tile has been gathered, so it does not overlap.
                    unsafe {
                        walk::scatter(access.size, &access.walk, start, n, memory, value.add(done * access.size))
                    };
                });
            }
        }
    }

    /// Spread one value per kept index over the tile.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn expand(&mut self, op: &Op, size: usize) {
        let (source, out) = (self.pointer(op.args[0]), self.place(op));
        // SAFETY: the slot holds a full tile and the operand one value per kept index.
        unsafe {
            match self.plan.space.layout {
                Layout::Rows => {
                    for row in 0..self.n_kept {
                        splat(size, source.add(row * size), out.add(row * self.n_reduced * size), self.n_reduced);
                    }
                }
                Layout::Lanes => {
                    let bytes = self.n_kept * size;
                    for row in 0..self.n_reduced {
                        std::ptr::copy_nonoverlapping(source, out.add(row * bytes), bytes);
                    }
                }
            }
        }
    }
}

/// Runs of a tile in a flat index space.
#[derive(Clone, Copy)]
struct Pieces {
    start: usize,
    n: usize,
    count: usize,
    step: usize,
}

impl Pieces {
    /// Bytes to the first row, from one row to the next, and in a row, where these runs are rows that are evenly spaced in memory.
    fn rows(self, access: &Access) -> Option<(isize, isize, usize)> {
        let (first, distance) = access.walk.rows(self.start, self.n, self.step)?;
        let size = access.size;
        Some((first as isize * size as isize, distance as isize * size as isize, self.n * size))
    }

    /// Call with the start and length of each run, and the elements before it.
    fn each(self, mut visit: impl FnMut(usize, usize, usize)) {
        for i in 0..self.count {
            visit(self.start + i * self.step, self.n, i * self.n);
        }
    }
}

/// Repeat one element of `size` bytes.
///
/// # Safety
/// `source` holds one element, `out` has room for `n`, aligned for their size (the source need not be).
unsafe fn splat(size: usize, source: *const u8, out: *mut u8, n: usize) {
    // SAFETY: passed on to our caller.
    unsafe {
        match size {
            1 => std::slice::from_raw_parts_mut(out, n).fill(*source),
            2 => std::slice::from_raw_parts_mut(out.cast::<u16>(), n).fill(source.cast::<u16>().read_unaligned()),
            4 => std::slice::from_raw_parts_mut(out.cast::<u32>(), n).fill(source.cast::<u32>().read_unaligned()),
            _ => std::slice::from_raw_parts_mut(out.cast::<u64>(), n).fill(source.cast::<u64>().read_unaligned()),
        }
    }
}

const _: () = assert!(ALIGN >= 8, "slots hold elements of up to 8 bytes");
