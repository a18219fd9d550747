//! Arithmetic of a kernel in preparation, joined: a product whose only reader is a sum becomes one loop with it, and the
//! like. The loops are in `fused.rs`; which values exist at all is decided in `lower.rs`.

use super::Lowering;
use crate::cpu::fused::{self, Form};
use crate::cpu::plan::{Action, Fused, NONE, Op, Value};
use crate::cpu::tile::Tiling;
use raphson_compile::program::Level;
use raphson_graph::kernel::Prim;

/// Tiles of fewer elements are not worth the setting up of a fused loop.
const FEW: usize = 64;
/// Shorter rows are not worth a loop of each, unless they consist of whole pieces.
const LONG: usize = 256;

impl Lowering<'_> {
    /// Join the arithmetic of every phase.
    pub(super) fn fuse(&mut self) {
        let spread = self.spread();
        let mut readers = vec![0u32; self.needs_slot.len()];
        let args = self.phases.iter().flat_map(|phase| &phase.ops).flat_map(|op| op.args);
        args.filter(|&arg| arg != NONE).for_each(|arg| readers[arg as usize] += 1);
        for phase in 0..self.phases.len() {
            let mut ops: Vec<Option<Op>> = std::mem::take(&mut self.phases[phase].ops).into_iter().map(Some).collect();
            // From the end, so that a value is joined to its reader before it takes in its own operands.
            for at in (0..ops.len()).rev() {
                self.fuse_at(&mut ops, at, &readers, &spread);
            }
            self.phases[phase].ops = ops.into_iter().flatten().collect();
        }
        let read: Vec<Value> = self.phases.iter().flat_map(|phase| &phase.ops).flat_map(|op| op.args).collect();
        for phase in &mut self.phases {
            phase.ops.retain(|op| !matches!(op.action, Action::Expand(_)) || read.contains(&op.out));
        }
    }

    /// For each value the one that was spread out along rows to make it, where rows are long enough for a loop of each.
    fn spread(&self) -> Vec<Value> {
        let mut from = vec![NONE; self.needs_slot.len()];
        let length = self.space.reduced;
        let worth = length >= LONG || (length >= FEW && length.is_multiple_of(fused::PIECE));
        let along_rows = matches!(self.tiling, Tiling::WholeRows | Tiling::LongRows) && worth;
        for op in self.phases.iter().flat_map(|phase| &phase.ops).filter(|_| along_rows) {
            if let Action::Expand(_) = op.action {
                from[op.out as usize] = op.args[0];
            }
        }
        from
    }

    /// Make one loop of operation `at` and those that only it reads, if there is one.
    fn fuse_at(&self, ops: &mut [Option<Op>], at: usize, readers: &[u32], spread: &[Value]) {
        let Some(op) = ops[at].filter(|op| self.worth_fusing(op)) else { return };
        let Some((prim, dtype)) = self.made(op.out) else { return };
        let (a, b) = (op.args[0], op.args[1]);
        // Where a value that only `of` reads is computed, and by what.
        let own = |ops: &[Option<Op>], value: Value| {
            let found = ops[..at].iter().position(|op| op.is_some_and(|op| op.out == value && value != NONE))?;
            let (prim, of) = self.made(value)?;
            let made_here =
                ops[found].filter(|made| made.level == op.level && matches!(made.action, Action::Map(_)))?;
            (of == dtype && readers[value as usize] == 1).then_some((found, prim, made_here.args))
        };
        let binary = |value: Value| own(ops, value).filter(|&(_, prim, _)| is_arithmetic(prim));
        let product = |value: Value| binary(value).filter(|&(_, prim, _)| prim == Prim::Mul);
        let root = |value: Value| {
            let (sqrt, _, [under, ..]) = own(ops, value).filter(|&(_, prim, _)| prim == Prim::Sqrt)?;
            let (mul, _, args) = product(under)?;
            Some((sqrt, mul, args))
        };
        // (x, w) of a product (x·x)·w, and where its parts are computed.
        let of_square = |value: Value| {
            let (product, _, [z, w, ..]) = product(value)?;
            [(z, w), (w, z)].into_iter().find_map(|(square, other)| {
                let (found, prim, [x, y, ..]) = own(ops, square)?;
                (prim == Prim::Mul && x == y).then_some((x, other, [product, found]))
            })
        };
        let commutes = matches!(prim, Prim::Add | Prim::Mul);
        let (form, args, gone) = if let (Prim::Add, Some((sqrt, mul, [x, y, ..]))) = (prim, root(a)) {
            (Form::Root, [x, y, b, NONE], vec![sqrt, mul])
        } else if let (Prim::Add, Some((sqrt, mul, [x, y, ..]))) = (prim, root(b)) {
            (Form::Root, [x, y, a, NONE], vec![sqrt, mul])
        } else if let (Prim::Add, Some((first, _, [x, y, ..])), Some((z, w, [product, square]))) =
            (prim, product(a), of_square(b))
        {
            (Form::Square, [x, y, z, w], vec![first, product, square])
        } else if let (Prim::Add | Prim::Sub, Some((first, _, [x, y, ..])), Some((second, _, [z, w, ..]))) =
            (prim, product(a), product(b))
        {
            (Form::Products(prim), [x, y, z, w], vec![first, second])
        } else if let Some((first, inner, [x, y, ..])) = binary(a) {
            (Form::Then(inner, prim), [x, y, b, NONE], vec![first])
        } else if let Some((first, inner, [x, y, ..])) = binary(b) {
            let form = if commutes { Form::Then(inner, prim) } else { Form::After(inner, prim) };
            (form, [x, y, a, NONE], vec![first])
        } else {
            (Form::One(prim), [a, b, NONE, NONE], Vec::new())
        };
        let Some(run) = fused::find(self.set, form, dtype) else { return };
        let is_spread = |value: Value| value != NONE && spread[value as usize] != NONE;
        let mut single = 0;
        for (i, &value) in args.iter().enumerate() {
            single |= u32::from(self.is_everywhere(value)) << i | u32::from(is_spread(value)) << i << fused::OF_ROWS;
        }
        let args = args.map(|value| if is_spread(value) { spread[value as usize] } else { value });
        gone.into_iter().for_each(|gone| ops[gone] = None);
        ops[at] = Some(Op { action: Action::Fused(Fused { form, dtype, run, single }), args, ..op });
    }

    fn worth_fusing(&self, op: &Op) -> bool {
        let many = match op.level {
            Level::Full => self.space.kept.saturating_mul(self.space.reduced) >= FEW,
            Level::Kept => self.tiling == Tiling::Flat && self.space.kept >= FEW,
        };
        many && matches!(op.action, Action::Map(_)) && self.made(op.out).is_some_and(|(prim, _)| is_arithmetic(prim))
    }

    /// Whether a value was made once for the whole launch.
    fn is_everywhere(&self, value: Value) -> bool {
        let is_one = |op: &Op| matches!(op.action, Action::Constant(..) | Action::Uniform(_));
        value != NONE && self.prologue.iter().any(|op| op.out == value && is_one(op))
    }
}

fn is_arithmetic(prim: Prim) -> bool {
    matches!(prim, Prim::Add | Prim::Sub | Prim::Mul | Prim::Div)
}
