//! The fused loops of an optimizer with two moments (Adam and its like) as one: what it reads comes from memory, the root and the quotient
//! take as long as all else, and in one loop neither waits for the other. Bit for bit what the separate loops give, which are `fused.rs`'s.
//!
//! With the gradient g, per element:
//!
//! ```text
//! m′ = m·β₁ + g·(1 − β₁)
//! v′ = v·β₂ + (g·g)·(1 − β₂)
//! d  = √(v′·c₂) + ε
//! ω  = (m′·c₁) ÷ d
//! θ′ = θ − ω·α                  where the loop after it does just this
//! ```

use super::fused::{Form, PIECE as L};
use super::isa::{Args, Isa, Level, Loop, LoopFn, with_isa};
use super::plan::{Access, Action, NONE, Op, Value};
use raphson_graph::dtype::DType;
use raphson_graph::kernel::Prim;
use std::ptr::copy_nonoverlapping;

/// Make one loop of those that follow each other as above.
pub fn join(ops: &mut Vec<Op>, accesses: &[Access], set: Level) {
    let mut from = 0;
    while let Some(chain) = (from..ops.len()).find_map(|root| Chain::at(ops, root, accesses)) {
        from = chain.replace(ops, set);
    }
}

/// Where the parts are, in their order.
struct Chain {
    parts: Vec<usize>,
}

impl Chain {
    /// That with its root at `root`.
    fn at(ops: &[Op], root: usize, accesses: &[Access]) -> Option<Chain> {
        let made = |value: Value| ops.iter().position(|op| op.out == value && value != NONE);
        let readers = |value: Value| ops.iter().filter(|op| op.args.contains(&value)).count();
        let is = |at: usize, form: Form, single: u32| as_fused(&ops[at], form, single).then_some(at);
        let arg = |at: usize, position: usize| ops[at].args[position];

        let root = is(root, Form::Root, 0b110)?;
        let second = is(made(arg(root, 0))?, Form::Square, 0b1010)?;
        let reader = |value: Value| ops.iter().position(|op| op.args.contains(&value));
        let quotient = is(reader(ops[root].out)?, Form::Then(Prim::Mul, Prim::Div), 0b010)?;
        let first = is(made(arg(quotient, 0))?, Form::Products(Prim::Add), 0b1010)?;
        let linked = arg(quotient, 2) == ops[root].out && arg(first, 2) == arg(second, 2);
        let alike = [first, second, root, quotient].iter().all(|&at| ops[at].level == ops[root].level);
        if !linked || !alike || readers(ops[root].out) != 1 {
            return None;
        }
        let step = reader(ops[quotient].out).and_then(|at| is(at, Form::After(Prim::Mul, Prim::Sub), 0b010));
        let step = step.filter(|&at| {
            arg(at, 0) == ops[quotient].out && readers(ops[quotient].out) == 1 && ops[at].level == ops[root].level
        });
        let direction = vec![first, second, root, quotient];
        let update = step.map(|step| [direction.as_slice(), &[step]].concat());
        let chains = update.into_iter().chain([direction]).map(|parts| Chain { parts });
        chains.into_iter().find(|chain| chain.is_whole(ops, accesses))
    }

    /// Whether what stands between the parts may as well stand before or behind them: loads that pass an address on, and stores of what is
    /// computed in its place.
    fn is_whole(&self, ops: &[Op], accesses: &[Access]) -> bool {
        let (start, end) = self.range();
        (start..end).filter(|at| !self.parts.contains(at)).all(|at| match ops[at].action {
            Action::Load(access) => accesses[access as usize].dense,
            Action::Store(access) => {
                let there = |op: &Op| op.out == ops[at].args[0] && op.target == access;
                accesses[access as usize].dense && self.parts.iter().any(|&part| there(&ops[part]))
            }
            _ => false,
        })
    }

    /// From the first part to behind the last.
    fn range(&self) -> (usize, usize) {
        let start = self.parts.iter().copied().min().unwrap_or(0);
        (start, self.parts.iter().copied().max().map_or(0, |last| last + 1))
    }

    /// Put the joint loop there; the place behind it.
    fn replace(&self, ops: &mut Vec<Op>, set: Level) -> usize {
        let (start, end) = self.range();
        let others = || (start..end).filter(|at| !self.parts.contains(at)).map(|at| ops[at]);
        let is_load = |op: &Op| matches!(op.action, Action::Load(_));
        let part = |&at: &usize| match ops[at].action {
            Action::Fused(fused) => Op { action: Action::Part(fused), ..ops[at] },
            _ => ops[at],
        };
        let level = ops[self.parts[0]].level;
        let joint = Op::new(Action::Joint(find(set, self.parts.len() == 5)), level, NONE, &[]);
        let loads = others().filter(is_load);
        let stores = others().filter(|op| !is_load(op));
        let new: Vec<Op> = loads.chain(self.parts.iter().map(part)).chain([joint]).chain(stores).collect();
        let behind = start + new.len();
        ops.splice(start..end, new);
        behind
    }
}

/// Whether an operation is the fused loop of this form on f32, with single values for just these operands.
fn as_fused(op: &Op, form: Form, single: u32) -> bool {
    matches!(op.action, Action::Fused(fused) if fused.form == form && fused.dtype == DType::F32 && fused.single == single)
}

fn find(set: Level, steps: bool) -> LoopFn {
    with_isa!(set, find_for(steps))
}

fn find_for<I: Isa>(steps: bool) -> LoopFn {
    if steps { I::call::<Moments<true>> } else { I::call::<Moments<false>> }
}

/// The joint loop, up to ω or up to θ′. Behind `a` are the arguments of its parts.
struct Moments<const STEPS: bool>;

impl<const STEPS: bool> Loop for Moments<STEPS> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        let parts = args.a.cast::<Args>();
        // SAFETY: the caller vouches for as many parts, and for their operands: `n` elements, or one where `join` has asked for a single
        // one. What is written may lie where something is read: each piece is read before it is written.
        unsafe {
            let [first, second, root, quotient] = [0, 1, 2, 3].map(|part| &*parts.add(part));
            let single = |operand: *const u8| *operand.cast::<f32>();
            let (beta1, rest1, beta2, rest2) = (single(first.b), single(first.d), single(second.b), single(second.d));
            let (c2, epsilon, c1) = (single(root.b), single(root.c), single(quotient.b));
            let (theta, alpha, out) = if STEPS {
                let step = &*parts.add(4);
                (step.c.cast::<f32>(), single(step.b), step.out.cast::<f32>())
            } else {
                (std::ptr::null(), 0.0, quotient.out.cast::<f32>())
            };
            let (m, v, g) = (first.a.cast::<f32>(), second.a.cast::<f32>(), first.c.cast::<f32>());
            let (m_out, v_out) = (first.out.cast::<f32>(), second.out.cast::<f32>());
            let piece = |at: usize, n: usize| {
                let [m, v, g] = [m, v, g].map(|from| read(from.add(at), n));
                let theta = if STEPS { read(theta.add(at), n) } else { [0.0; L] };
                let (mut new_m, mut new_v, mut new) = ([0.0; L], [0.0; L], [0.0; L]);
                for i in 0..L {
                    new_m[i] = m[i] * beta1 + g[i] * rest1;
                    new_v[i] = v[i] * beta2 + (g[i] * g[i]) * rest2;
                    let omega = new_m[i] * c1 / ((new_v[i] * c2).sqrt() + epsilon);
                    new[i] = if STEPS { theta[i] - omega * alpha } else { omega };
                }
                for (numbers, to) in [(new_m, m_out), (new_v, v_out), (new, out)] {
                    write(numbers, to.add(at), n);
                }
            };
            let whole = args.n / L * L;
            (0..whole).step_by(L).for_each(|at| piece(at, L));
            if whole < args.n {
                piece(whole, args.n - whole);
            }
        }
    }
}

/// # Safety
/// `n` numbers, at most a piece, may be read there.
#[inline(always)]
unsafe fn read(from: *const f32, n: usize) -> [f32; L] {
    let mut piece = [0.0; L];
    // SAFETY: passed on to our caller.
    unsafe {
        if n == L {
            return from.cast::<[f32; L]>().read_unaligned();
        }
        copy_nonoverlapping(from, piece.as_mut_ptr(), n);
    }
    piece
}

/// # Safety
/// `n` numbers, at most a piece, may be written there.
#[inline(always)]
unsafe fn write(piece: [f32; L], to: *mut f32, n: usize) {
    // SAFETY: passed on to our caller.
    unsafe {
        if n == L {
            return to.cast::<[f32; L]>().write_unaligned(piece);
        }
        copy_nonoverlapping(piece.as_ptr(), to, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::lower;
    use crate::cpu::plan::RowPlan;
    use raphson_compile::compile;
    use raphson_compile::program::Kernel;
    use raphson_graph::error::Result;
    use raphson_graph::flat::flatten;
    use raphson_graph::value::Value as Node;

    /// Adam's update of `n` parameters, or its direction alone with its sum along the gradient, as the CPU will run it.
    fn plans(n: usize, steps: bool) -> Result<Vec<RowPlan>> {
        let input = |size: usize| Node::input([size].into(), DType::F32);
        let [theta, m, v, g] = [(); 4].map(|()| input(n));
        let factors = [(); 3].map(|()| input(1));
        let spread = |i: usize| factors[i].expand(&[n].into());
        let (c1, c2, alpha) = (spread(0)?, spread(1)?, spread(2)?);
        let constant = |x: f64| Node::constant(x, DType::F32, &[n].into());
        let new_m = m.mul(&constant(0.9))?.add(&g.mul(&constant(0.1))?)?;
        let new_v = v.mul(&constant(0.999))?.add(&g.mul(&g)?.mul(&constant(0.001))?)?;
        let omega = new_m.mul(&c1)?.div(&new_v.mul(&c2)?.sqrt()?.add(&constant(1e-8))?)?;
        let outputs = if steps {
            vec![theta.sub(&omega.mul(&alpha)?)?, new_m, new_v]
        } else {
            vec![omega.mul(&g)?.sum(&[0])?, omega]
        };
        let inputs = [vec![theta, m, v, g], factors.to_vec()].concat();
        let program = compile(&flatten(&inputs, &outputs)?.graph, &vec![false; inputs.len()])?;
        let rows = program.kernels.iter().filter_map(|kernel| match kernel {
            Kernel::Row(row) => Some(lower::lower(row, &program.buffers, Level::best())),
            _ => None,
        });
        rows.collect()
    }

    #[test]
    fn an_update_is_one_loop() {
        for (steps, wanted) in [(true, 5), (false, 4)] {
            let plans = plans(6000, steps).unwrap();
            let ops = || plans.iter().flat_map(|plan| &plan.phases).flat_map(|phase| &phase.ops);
            let count = |is: fn(&Action) -> bool| ops().filter(|op| is(&op.action)).count();
            assert_eq!(count(|action| matches!(action, Action::Joint(_))), 1);
            assert_eq!(count(|action| matches!(action, Action::Part(_))), wanted);
            assert_eq!(count(|action| matches!(action, Action::Fused(_))), 0);
        }
    }
}
