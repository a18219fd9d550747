//! A fused kernel as the interpreter runs it: how the index space is cut into tiles, and a flat list of tile
//! operations with their registers. Made once, when a program is loaded; `row.rs` runs it, `lower.rs` makes it.

use super::fused::Form;
use super::isa::{Level as Set, LoopFn};
use super::reduce::{ACCUMULATOR_BYTES, Reducer};
use super::walk::Walk;
use raphson_compile::program::Level;
use raphson_graph::dtype::DType;

/// A tile register: position in the interpreter's pointer table.
pub type Value = u32;

/// Operand or result that is not there.
pub const NONE: u32 = u32::MAX;

/// How elements of a full tile lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Rows of reduced elements, one for each kept index.
    Rows,
    /// Lanes of kept elements, repeated for each reduced index.
    Lanes,
}

/// The index space and its tiles.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Points of the kept and of the reduced axes.
    pub kept: usize,
    pub reduced: usize,
    /// Points of each in one tile.
    pub tile_kept: usize,
    pub tile_reduced: usize,
    pub layout: Layout,
    /// Flat tiles as blocks of two axes, where a transposed view would make long tiles miss the cache.
    pub block: Option<Block>,
}

/// A flat index space seen as outer × rows × middle × columns, walked in blocks of rows × columns.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub rows: usize,
    pub middle: usize,
    pub columns: usize,
    /// Size of a block.
    pub height: usize,
    pub width: usize,
}

impl Block {
    /// First index of a tile, its rows and columns.
    pub fn tile(&self, tile: usize) -> (usize, usize, usize) {
        let (across, down) = (self.columns.div_ceil(self.width), self.rows.div_ceil(self.height));
        let (column, rest) = (tile % across * self.width, tile / across);
        let (row, rest) = (rest % down * self.height, rest / down);
        let (middle, outer) = (rest % self.middle, rest / self.middle);
        let start = ((outer * self.rows + row) * self.middle + middle) * self.columns + column;
        (start, self.height.min(self.rows - row), self.width.min(self.columns - column))
    }

    /// Indices from one row to the next.
    pub fn step(&self) -> usize {
        self.middle * self.columns
    }
}

impl Space {
    /// Elements of a full tile.
    pub fn tile_elements(&self) -> usize {
        self.tile_kept * self.tile_reduced.max(1)
    }

    /// Tiles along the kept axes.
    pub fn n_tiles(&self) -> usize {
        match self.block {
            None => self.kept.div_ceil(self.tile_kept),
            Some(b) => {
                self.kept / (b.rows * b.columns).max(1) * b.rows.div_ceil(b.height) * b.columns.div_ceil(b.width)
            }
        }
    }
}

/// A view of a buffer.
#[derive(Clone, Debug)]
pub struct Access {
    pub buffer: usize,
    /// Bytes of an element.
    pub size: usize,
    pub level: Level,
    pub walk: Walk,
    /// Whether every tile is consecutive in memory.
    pub dense: bool,
}

/// Several instructions as one loop.
#[derive(Clone, Copy, Debug)]
pub struct Fused {
    pub form: Form,
    pub dtype: DType,
    pub run: LoopFn,
    /// As in [`super::isa::Args`].
    pub single: u32,
}

/// What an operation does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Point at memory, or gather from it.
    Load(u32),
    /// The affine index itself.
    Index(u32, DType),
    /// A constant, given by its bytes.
    Constant([u8; 8], usize),
    /// One value of memory for the whole launch.
    Uniform(u32),
    /// An instruction.
    Map(LoopFn),
    /// Several instructions at once. The result may lie where an operand lies.
    Fused(Fused),
    /// The same as a part of the next joint loop, which computes it.
    Part(Fused),
    /// The parts before it, in one loop.
    Joint(LoopFn),
    /// The second or the third operand itself, by the first element of the first.
    Choose,
    /// The operand, elsewhere; the number is the bytes of an element.
    Copy(usize),
    /// Of each row one number, at a place of its own; elsewhere another.
    OneHot(LoopFn),
    /// A kept value for every point; the number is the bytes of an element.
    Expand(usize),
    /// Start accumulator number `.0`.
    Begin(u32, LoopFn),
    /// Take a tile in.
    Accumulate(u32, LoopFn),
    /// Read the result.
    Finish(u32, LoopFn),
    /// Write a value, unless it has been put there already.
    Store(u32),
}

/// One operation over a tile.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub action: Action,
    /// Over all points of the tile, or over its kept indices.
    pub level: Level,
    pub out: Value,
    pub args: [Value; 4],
    /// Where the result may be put straight away, if that part of memory is consecutive.
    pub target: u32,
    /// For a result that is one of the two that a choice takes: put it there only if this value's first element is so.
    pub only_if: Option<(Value, bool)>,
    /// For what only one operand of a choice depends on: nothing is done unless this value's first element is so.
    pub needed_if: Option<(Value, bool)>,
}

impl Op {
    /// An operation with these operands.
    pub fn new(action: Action, level: Level, out: Value, operands: &[Value]) -> Op {
        let mut args = [NONE; 4];
        args[..operands.len()].copy_from_slice(operands);
        Op { action, level, out, args, target: NONE, only_if: None, needed_if: None }
    }
}

/// Operations that run together.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Once for each kept tile, or for each tile of its reduced axes.
    pub looped: bool,
    pub ops: Vec<Op>,
}

/// A kernel ready to run.
#[derive(Clone, Debug)]
pub struct RowPlan {
    pub space: Space,
    pub accesses: Vec<Access>,
    /// Once for each thread and launch.
    pub prologue: Vec<Op>,
    pub phases: Vec<Phase>,
    /// Whether a launch runs some of their operations only, by the conditions of choices.
    pub has_choices: bool,
    /// The instruction set of its loops.
    pub set: Set,
    /// Slot of each value, or [`NONE`] for values that live in memory.
    pub slots: Vec<u32>,
    pub n_slots: usize,
    /// Bytes of one slot.
    pub slot_bytes: usize,
    pub n_accumulators: usize,
    /// Kept tiles in one piece of work.
    pub tiles_per_chunk: usize,
    /// Whether the work is worth several threads.
    pub parallel: bool,
}

impl RowPlan {
    /// Bytes of scratch memory that one thread needs.
    pub fn scratch_bytes(&self) -> usize {
        self.n_slots * self.slot_bytes + self.n_accumulators * self.accumulator_stride()
    }

    /// Bytes between accumulators.
    pub fn accumulator_stride(&self) -> usize {
        (self.space.tile_kept * ACCUMULATOR_BYTES).next_multiple_of(super::memory::ALIGN)
    }

    /// Give every value a slot by its lifetime. Returns the number of slots used. Values of the prologue live all
    /// along; a value from outside a loop lives until the loop has ended.
    pub fn assign_slots(&mut self, needs_slot: &[bool]) {
        let n_values = needs_slot.len();
        let ops: Vec<(usize, &Op)> =
            self.phases.iter().enumerate().flat_map(|(p, phase)| phase.ops.iter().map(move |op| (p, op))).collect();
        let ops = || ops.iter().copied();
        let mut phase_end = vec![0usize; self.phases.len()];
        let mut born_in = vec![usize::MAX; n_values];
        let mut last_use = vec![0usize; n_values];
        for (i, (p, op)) in ops().enumerate() {
            phase_end[p] = i;
            if op.out != NONE {
                born_in[op.out as usize] = p;
                last_use[op.out as usize] = i;
            }
        }
        for (i, (p, op)) in ops().enumerate() {
            for &arg in op.args.iter().filter(|&&arg| arg != NONE) {
                let carried = self.phases[p].looped && born_in[arg as usize] != p;
                let until = if carried { phase_end[p] } else { i };
                let last = &mut last_use[arg as usize];
                *last = until.max(*last);
            }
        }
        // A choice is one of its operands, which live as long as it does.
        for (_, op) in ops().rev().filter(|(_, op)| matches!(op.action, Action::Choose)) {
            let until = last_use[op.out as usize];
            for &arg in &op.args[1..3] {
                last_use[arg as usize] = last_use[arg as usize].max(until);
            }
        }
        let mut slots = vec![NONE; n_values];
        let mut n_slots = 0;
        for op in &self.prologue {
            slots[op.out as usize] = n_slots;
            n_slots += 1;
        }
        let mut free = Vec::new();
        let mut dying: Vec<(usize, u32)> = Vec::new();
        for (i, (_, op)) in ops().enumerate() {
            // The result's slot is taken before those of dying operands are freed: loops may not overlap them.
            if op.out != NONE && needs_slot[op.out as usize] {
                let slot = free.pop().unwrap_or_else(|| {
                    n_slots += 1;
                    n_slots - 1
                });
                slots[op.out as usize] = slot;
                dying.push((last_use[op.out as usize], slot));
            }
            dying.retain(|&(last, slot)| {
                if last <= i {
                    free.push(slot);
                }
                last > i
            });
        }
        self.slots = slots;
        self.n_slots = n_slots as usize;
    }
}

/// A [`Reducer`] with the loop for the plan's layout chosen.
#[derive(Clone, Copy, Debug)]
pub struct ReducerLoops {
    pub begin: LoopFn,
    pub accumulate: LoopFn,
    pub finish: LoopFn,
}

impl ReducerLoops {
    /// Choose by layout.
    pub fn new(reducer: Reducer, layout: Layout) -> ReducerLoops {
        let accumulate = match layout {
            Layout::Rows => reducer.rows,
            Layout::Lanes => reducer.lanes,
        };
        ReducerLoops { begin: reducer.begin, accumulate, finish: reducer.finish }
    }
}
