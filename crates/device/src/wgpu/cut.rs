//! Fused kernels of many expensive instructions are cut into several. Shader compilers inline every function, and take
//! time and registers that grow faster than the text; a kernel that long is busy computing, so the few values that
//! cross a cut by way of memory cost little.

use raphson_compile::program::{Buffer, BufferId, Instr, Level, Order, Place, Program, RowKernel, Step, View};
use raphson_graph::dtype::DType;
use raphson_graph::kernel::{Prim, Reg};
use std::collections::BTreeMap;

/// The weight at which a kernel is cut, in cheap instructions.
const HEAVY: usize = 600;

/// What an instruction costs a shader compiler, roughly as measured.
fn weight(instr: &Instr) -> usize {
    let Instr::Prim { prim, .. } = instr else { return 1 };
    match prim {
        Prim::Rem => 60,
        Prim::Sin | Prim::Cos => 30,
        Prim::Pow | Prim::Threefry => 12,
        Prim::Tanh | Prim::Erf | Prim::Exp | Prim::Expm1 | Prim::Log | Prim::Log1p => 6,
        Prim::Min | Prim::Max | Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne => 2,
        Prim::Neg
        | Prim::Abs
        | Prim::Sqrt
        | Prim::Floor
        | Prim::Ceil
        | Prim::Round
        | Prim::Trunc
        | Prim::Add
        | Prim::Sub
        | Prim::Mul
        | Prim::Div
        | Prim::And
        | Prim::Or
        | Prim::Xor
        | Prim::Not
        | Prim::Shl
        | Prim::Shr
        | Prim::Select
        | Prim::Cast => 1,
        Prim::RoundF16 | Prim::RoundBf16 => 6,
    }
}

/// Whether a value is had again more cheaply than from memory.
fn is_cheap(instr: &Instr) -> bool {
    matches!(instr, Instr::Load { .. } | Instr::Const(_) | Instr::Index(_))
}

/// The kernels that do the work of `row`, in order: itself, if it is not too heavy. New buffers go to `program`.
pub fn cut(program: &mut Program, row: &RowKernel) -> Vec<RowKernel> {
    if row.steps.iter().map(|step| weight(&step.instr)).sum::<usize>() <= HEAVY + HEAVY / 4 {
        return vec![row.clone()];
    }
    if row.reduced.is_empty() {
        return Cutter::new(program, row).pieces();
    }
    let Some((first, rest)) = before_reductions(program, row) else { return vec![row.clone()] };
    let mut kernels = Cutter::new(program, &first).pieces();
    kernels.push(rest);
    kernels
}

/// A fresh temporary.
fn temporary(program: &mut Program, dtype: DType, elements: usize) -> BufferId {
    program.buffers.push(Buffer { dtype, elements, place: Place::Arena(0) });
    BufferId((program.buffers.len() - 1) as u32)
}

/// Row-major strides.
pub fn contiguous(sizes: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis] as i64;
    }
    strides
}

/// The registers that an instruction reads.
pub fn operands(instr: &Instr) -> Vec<Reg> {
    match instr {
        Instr::Prim { prim, args } => args[..prim.arity()].to_vec(),
        Instr::Reduce { arg, .. } => vec![*arg],
        Instr::Store { value, .. } => vec![*value],
        Instr::Load { .. } | Instr::Const(_) | Instr::Index(_) => Vec::new(),
    }
}

/// The same instruction on other registers.
fn renamed(instr: &Instr, name: impl Fn(Reg) -> Reg) -> Instr {
    match instr {
        Instr::Prim { prim, args } => {
            let mut args = *args;
            // What stands behind the operands means nothing, and may have no name.
            let first = name(args[0]);
            let arity = prim.arity();
            args.iter_mut().enumerate().for_each(|(i, reg)| *reg = if i < arity { name(*reg) } else { first });
            Instr::Prim { prim: *prim, args }
        }
        Instr::Reduce { op, arg } => Instr::Reduce { op: *op, arg: name(*arg) },
        Instr::Store { buffer, view, value } => {
            Instr::Store { buffer: *buffer, view: view.clone(), value: name(*value) }
        }
        Instr::Load { .. } | Instr::Const(_) | Instr::Index(_) => instr.clone(),
    }
}

/// A kernel over all points of a heavy reduction that computes what its first pass needs, and the reduction over that.
fn before_reductions(program: &mut Program, row: &RowKernel) -> Option<(RowKernel, RowKernel)> {
    let early = |step: &Step| step.level == Level::Full && step.pass == 0 && matches!(step.instr, Instr::Prim { .. });
    // Early values that others than early instructions read.
    let mut wanted: BTreeMap<usize, BufferId> = BTreeMap::new();
    let points: usize = row.kept.iter().chain(&row.reduced).product();
    for step in row.steps.iter().filter(|step| !early(step)) {
        for at in operands(&step.instr).into_iter().map(|reg| reg.0 as usize) {
            if early(&row.steps[at]) && !wanted.contains_key(&at) {
                let buffer = temporary(program, row.steps[at].dtype, points);
                wanted.insert(at, buffer);
            }
        }
    }
    if wanted.is_empty() || points == 0 {
        return None;
    }
    let (n_kept, n_reduced): (usize, usize) = (row.kept.iter().product(), row.reduced.iter().product());
    let scaled = |sizes: &[usize], by: usize| contiguous(sizes).iter().map(|s| s * by as i64).collect::<Vec<_>>();
    let view = match row.order {
        Order::Row => View { offset: 0, kept: scaled(&row.kept, n_reduced), reduced: contiguous(&row.reduced) },
        Order::Column => View { offset: 0, kept: contiguous(&row.kept), reduced: scaled(&row.reduced, n_kept) },
    };
    let flat = |view: &View| {
        let (kept, reduced) = (view.kept.iter(), view.reduced.iter());
        let all = match row.order {
            Order::Row => kept.chain(reduced).copied().collect(),
            Order::Column => reduced.chain(kept).copied().collect(),
        };
        View { offset: view.offset, kept: all, reduced: Vec::new() }
    };
    let mut first = Piece::default();
    let needed = slice(row, wanted.keys().copied());
    for at in (0..row.steps.len()).filter(|&at| needed[at]) {
        let step = &row.steps[at];
        let mut instr = renamed(&step.instr, |reg| first.names[&(reg.0 as usize)]);
        if let Instr::Load { view, .. } | Instr::Index(view) = &mut instr {
            *view = flat(view);
        }
        first.push(at, Step { instr, dtype: step.dtype, level: Level::Full, pass: 0 });
    }
    for (&at, &buffer) in &wanted {
        let store = Instr::Store { buffer, view: flat(&view), value: first.names[&at] };
        first.steps.push(Step { instr: store, dtype: row.steps[at].dtype, level: Level::Full, pass: 0 });
    }
    let kept = match row.order {
        Order::Row => [&row.kept[..], &row.reduced].concat(),
        Order::Column => [&row.reduced[..], &row.kept].concat(),
    };
    let first = RowKernel { kept, reduced: Vec::new(), order: Order::Row, steps: first.steps };
    let mut rest = row.clone();
    for (&at, &buffer) in &wanted {
        rest.steps[at].instr = Instr::Load { buffer, view: view.clone() };
    }
    Some((first, without_idle(&rest)))
}

/// The instructions that `roots` depend on, and the roots.
fn slice(row: &RowKernel, roots: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut needed = vec![false; row.steps.len()];
    roots.for_each(|root| needed[root] = true);
    for at in (0..row.steps.len()).rev() {
        if needed[at] {
            operands(&row.steps[at].instr).iter().for_each(|reg| needed[reg.0 as usize] = true);
        }
    }
    needed
}

/// The same kernel without what no store needs.
fn without_idle(row: &RowKernel) -> RowKernel {
    let is_store = |at: &usize| matches!(row.steps[*at].instr, Instr::Store { .. });
    let needed = slice(row, (0..row.steps.len()).filter(is_store));
    let mut piece = Piece::default();
    for at in (0..row.steps.len()).filter(|&at| needed[at]) {
        let instr = renamed(&row.steps[at].instr, |reg| piece.names[&(reg.0 as usize)]);
        piece.push(at, Step { instr, ..row.steps[at].clone() });
    }
    RowKernel { steps: piece.steps, ..row.clone() }
}

/// A kernel under construction, and the names there of the original's registers.
#[derive(Default)]
struct Piece {
    steps: Vec<Step>,
    names: BTreeMap<usize, Reg>,
}

impl Piece {
    fn push(&mut self, original: usize, step: Step) {
        self.names.insert(original, Reg(self.steps.len() as u32));
        self.steps.push(step);
    }
}

/// Cuts a kernel without reduced axes.
struct Cutter<'a> {
    program: &'a mut Program,
    row: &'a RowKernel,
    /// The piece in which each instruction goes.
    piece_of: Vec<usize>,
    /// Where values that cross a cut are kept.
    crossing: BTreeMap<usize, BufferId>,
}

impl<'a> Cutter<'a> {
    fn new(program: &'a mut Program, row: &'a RowKernel) -> Cutter<'a> {
        let mut cutter = Cutter { program, row, piece_of: Vec::new(), crossing: BTreeMap::new() };
        cutter.assign();
        cutter
    }

    /// Cut where few values cross, a little before a piece becomes too heavy.
    fn assign(&mut self) {
        let steps = &self.row.steps;
        let mut last_use = vec![0; steps.len()];
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| !matches!(step.instr, Instr::Store { .. })) {
            operands(&step.instr).iter().for_each(|reg| last_use[reg.0 as usize] = at);
        }
        let crossing = |cut: usize| (0..cut).filter(|&at| last_use[at] >= cut && !is_cheap(&steps[at].instr)).count();
        let (mut start, mut heavy, mut piece) = (0, 0, 0);
        self.piece_of = vec![0; steps.len()];
        for at in 0..steps.len() {
            heavy += weight(&steps[at].instr);
            if heavy > HEAVY {
                let window = start + (at - start) * 3 / 4;
                // At least one instruction goes into every piece.
                start = (window.max(start + 1)..=at).min_by_key(|&cut| crossing(cut)).unwrap_or(at);
                piece += 1;
                heavy = steps[start..=at].iter().map(|step| weight(&step.instr)).sum();
                self.piece_of[start..].iter_mut().for_each(|of| *of = piece);
            }
        }
        let last = self.piece_of.last().copied().unwrap_or(0);
        for (at, step) in steps.iter().enumerate() {
            if let Instr::Store { buffer, value, .. } = step.instr {
                // Stored at once; but over an input only when nobody reads it any more.
                let takes_over = matches!(self.program.buffers[buffer.0 as usize].place, Place::InPlace { .. });
                self.piece_of[at] = if takes_over { last } else { self.piece_of[value.0 as usize] };
            }
        }
    }

    fn pieces(mut self) -> Vec<RowKernel> {
        let n: usize = self.row.kept.iter().product();
        for at in 0..self.row.steps.len() {
            for reg in operands(&self.row.steps[at].instr) {
                let from = reg.0 as usize;
                let crosses = self.piece_of[from] != self.piece_of[at] && !is_cheap(&self.row.steps[from].instr);
                if crosses && !self.crossing.contains_key(&from) {
                    let buffer = temporary(self.program, self.row.steps[from].dtype, n);
                    self.crossing.insert(from, buffer);
                }
            }
        }
        let last = self.piece_of.iter().copied().max().unwrap_or(0);
        (0..=last).map(|piece| self.piece(piece)).filter(|kernel| !kernel.steps.is_empty()).collect()
    }

    fn piece(&self, number: usize) -> RowKernel {
        let view = View { offset: 0, kept: contiguous(&self.row.kept), reduced: Vec::new() };
        let mut piece = Piece::default();
        let mut crossing = Vec::new();
        let own: Vec<usize> = (0..self.piece_of.len()).filter(|&at| self.piece_of[at] == number).collect();
        // Everything is read before anything is written, since a store may go over what a load reads.
        for from in own.iter().flat_map(|&at| operands(&self.row.steps[at].instr)).map(|reg| reg.0 as usize) {
            if self.piece_of[from] == number || piece.names.contains_key(&from) {
                continue;
            }
            let source = &self.row.steps[from];
            let instr = match self.crossing.get(&from) {
                Some(&buffer) => Instr::Load { buffer, view: view.clone() },
                None => source.instr.clone(),
            };
            piece.push(from, Step { instr, ..source.clone() });
        }
        for at in own {
            let step = &self.row.steps[at];
            let instr = renamed(&step.instr, |reg| piece.names[&(reg.0 as usize)]);
            piece.push(at, Step { instr, ..step.clone() });
            crossing.extend(self.crossing.get(&at).map(|&buffer| (at, buffer)));
        }
        for (at, buffer) in crossing {
            let store = Instr::Store { buffer, view: view.clone(), value: piece.names[&at] };
            piece.steps.push(Step { instr: store, level: Level::Full, ..self.row.steps[at].clone() });
        }
        RowKernel { steps: piece.steps, ..self.row.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(instr: Instr) -> Step {
        Step { instr, dtype: DType::F32, level: Level::Full, pass: 0 }
    }

    /// x, then 100 times sin and + x, then a store.
    fn chain() -> (Program, RowKernel) {
        let view = View { offset: 0, kept: vec![1], reduced: Vec::new() };
        let mut steps = vec![step(Instr::Load { buffer: BufferId(0), view: view.clone() })];
        for i in 0..100 {
            let args = [2 * i; 3].map(Reg);
            steps.push(step(Instr::Prim { prim: Prim::Sin, args }));
            steps.push(step(Instr::Prim { prim: Prim::Add, args: [2 * i + 1, 0, 0].map(Reg) }));
        }
        steps.push(step(Instr::Store { buffer: BufferId(1), view, value: Reg(200) }));
        let row = RowKernel { kept: vec![10], reduced: Vec::new(), order: Order::Row, steps };
        let buffer = |place| Buffer { dtype: DType::F32, elements: 10, place };
        let buffers = vec![buffer(Place::Input(0)), buffer(Place::Output(0))];
        let (inputs, outputs) = (vec![BufferId(0)], vec![BufferId(1)]);
        (Program { buffers, kernels: Vec::new(), inputs, outputs, arena_bytes: 0 }, row)
    }

    #[test]
    fn a_long_chain_is_cut_at_single_values() {
        let (mut program, row) = chain();
        let pieces = cut(&mut program, &row);
        assert!((5..=8).contains(&pieces.len()), "{} pieces", pieces.len());
        assert_eq!(program.buffers.len(), 2 + pieces.len() - 1);
        let weights = pieces.iter().map(|piece| piece.steps.iter().map(|step| weight(&step.instr)).sum::<usize>());
        assert!(weights.max() <= Some(HEAVY + 40));
        let sines = |row: &RowKernel| {
            row.steps.iter().filter(|step| matches!(step.instr, Instr::Prim { prim: Prim::Sin, .. })).count()
        };
        assert_eq!(pieces.iter().map(sines).sum::<usize>(), 100);
    }

    #[test]
    fn a_heavy_reduction_gets_its_operands_from_another_kernel() {
        let (mut program, mut row) = chain();
        (row.kept, row.reduced) = (Vec::new(), vec![10]);
        for step in &mut row.steps {
            if let Instr::Load { view, .. } = &mut step.instr {
                *view = View { offset: 0, kept: Vec::new(), reduced: vec![1] };
            }
        }
        row.steps.pop();
        let op = raphson_compile::program::ReduceOp::Sum;
        row.steps.push(Step { level: Level::Kept, ..step(Instr::Reduce { op, arg: Reg(200) }) });
        let view = View { offset: 0, kept: Vec::new(), reduced: vec![0] };
        let store = Instr::Store { buffer: BufferId(1), view, value: Reg(201) };
        row.steps.push(Step { level: Level::Kept, pass: 1, ..step(store) });
        let pieces = cut(&mut program, &row);
        let rest = &pieces[pieces.len() - 1];
        assert_eq!((rest.steps.len(), rest.reduced.as_slice()), (3, &[10][..]));
        assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.kept == [10] && piece.reduced.is_empty()));
    }
}
