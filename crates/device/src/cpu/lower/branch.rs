//! Choices of a kernel in preparation: an operation whose result only one operand of a choice depends on is passed over in launches that
//! choose the other one. Which selects are choices is decided in `lower.rs`.

use super::Lowering;
use crate::cpu::plan::{Action, NONE, Op, Value};

/// Under which condition somebody reads a value.
#[derive(Clone, Copy, PartialEq)]
enum Readers {
    None,
    If(Value, bool),
    Always,
}

impl Readers {
    fn and(self, other: Readers) -> Readers {
        match (self, other) {
            (Readers::None, readers) | (readers, Readers::None) => readers,
            (readers, other) if readers == other => readers,
            _ => Readers::Always,
        }
    }
}

impl Lowering<'_> {
    /// Note for every operation under which condition its result is read. From the end, so that what a passed over operation
    /// reads is passed over with it. A phase reads what it or an earlier one has made.
    pub(super) fn leave_branches(&mut self) {
        let mut readers = vec![Readers::None; self.needs_slot.len()];
        for op in self.phases.iter_mut().rev().flat_map(|phase| phase.ops.iter_mut().rev()) {
            let of_value = if op.out == NONE { Readers::Always } else { readers[op.out as usize] };
            op.needed_if = match of_value {
                Readers::If(condition, wanted) => Some((condition, wanted)),
                Readers::None | Readers::Always => None,
            };
            for (position, &arg) in op.args.iter().enumerate().filter(|&(_, &arg)| arg != NONE) {
                let known = &mut readers[arg as usize];
                *known = known.and(reads(op, position));
            }
        }
    }
}

/// Under which condition an operation looks at its operand at `position`.
fn reads(op: &Op, position: usize) -> Readers {
    match (op.action, position) {
        (Action::Choose, 1) => Readers::If(op.args[0], true),
        (Action::Choose, 2) => Readers::If(op.args[0], false),
        _ => op.needed_if.map_or(Readers::Always, |(condition, wanted)| Readers::If(condition, wanted)),
    }
}
