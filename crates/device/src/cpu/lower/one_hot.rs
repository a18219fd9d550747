//! Selects of a kernel in preparation by whether a position along a row is that row's label, as losses of classes and their gradients
//! consist of: of each row one element is picked, or one is put down, and positions are compared with labels nowhere.

use super::{Lowering, bug};
use crate::cpu::plan::Action;
use crate::cpu::{map, reduce};
use raphson_compile::program::{Instr, Level, ReduceOp, View};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::kernel::{Prim, Reg};

impl Lowering<'_> {
    /// Find comparisons of positions with labels that only such selects read. These are noted, the comparisons are not computed.
    pub(super) fn find_labels(&mut self, readers: &[Vec<usize>]) {
        for i in 0..self.kernel.steps.len() {
            let Some((positions, labels)) = self.compared(i).filter(|_| self.live[i] && !readers[i].is_empty()) else {
                continue;
            };
            let condition = Reg(i as u32);
            if !readers[i].iter().all(|&select| self.picks(select, condition, readers) || self.puts(select, condition))
            {
                continue;
            }
            for &select in &readers[i] {
                self.absorbed[select] = self.picks(select, condition, readers);
                self.labels[select] = Some(labels);
            }
            self.live[i] = false;
            let positions = positions.0 as usize;
            self.live[positions] = readers[positions].iter().any(|&reader| self.live[reader]);
        }
    }

    /// The positions along rows and one label for each row, if step `i` compares these.
    fn compared(&self, i: usize) -> Option<(Reg, Reg)> {
        let Instr::Prim { prim: Prim::Eq, args: [a, b, _] } = self.kernel.steps[i].instr else { return None };
        let is_position = |reg: Reg| match &self.kernel.steps[reg.0 as usize].instr {
            Instr::Index(view) => self.counts_along_rows(view),
            _ => false,
        };
        let is_label = |reg: Reg| {
            let (step, i) = (&self.kernel.steps[reg.0 as usize], reg.0 as usize);
            step.dtype == DType::I32 && self.levels[i] == Level::Kept && !matches!(step.instr, Instr::Const(_))
        };
        [(a, b), (b, a)].into_iter().find(|&(positions, labels)| is_position(positions) && is_label(labels))
    }

    /// Whether a view's index is 0, 1, 2, … along the reduced axes.
    fn counts_along_rows(&self, view: &View) -> bool {
        let mut next = 1;
        let mut counts = |(&size, &stride): (&usize, &i64)| {
            let fits = size == 1 || stride == next;
            next *= size as i64;
            fits
        };
        view.offset == 0
            && self.is_of_rows(view)
            && self.kernel.reduced.iter().zip(&view.reduced).rev().all(&mut counts)
    }

    /// Whether a step is the labels' elements and zeros elsewhere, of which there is but a sum.
    fn picks(&self, select: usize, condition: Reg, readers: &[Vec<usize>]) -> bool {
        let step = &self.kernel.steps[select];
        let Instr::Prim { prim: Prim::Select, args: [by, a, b] } = step.instr else { return false };
        let is_zero = matches!(&self.kernel.steps[b.0 as usize].instr, Instr::Const(zero) if zero.to_f64() == 0.0);
        let is_full = self.levels[a.0 as usize] == Level::Full && self.kernel.steps[a.0 as usize].dtype == step.dtype;
        let summed =
            |&reader: &usize| matches!(self.kernel.steps[reader].instr, Instr::Reduce { op: ReduceOp::Sum, .. });
        let found = reduce::find_absorbed(self.set, step.dtype).is_some();
        by == condition && is_zero && is_full && found && matches!(&readers[select][..], [reader] if summed(reader))
    }

    /// Whether a step is one number for each row where its label is, and a constant elsewhere.
    fn puts(&self, select: usize, condition: Reg) -> bool {
        let step = &self.kernel.steps[select];
        let Instr::Prim { prim: Prim::Select, args: [by, a, b] } = step.instr else { return false };
        let [a, b] = [a, b].map(|reg| reg.0 as usize);
        let constant = matches!(self.kernel.steps[b].instr, Instr::Const(_));
        let agree = [a, b].iter().all(|&i| self.kernel.steps[i].dtype == step.dtype);
        by == condition && constant && agree && self.levels[a] == Level::Kept
    }

    /// Emit a select that puts numbers where labels are.
    pub(super) fn emit_one_hot(&mut self, i: usize, labels: Reg, phase: usize, spread: usize) -> Result<()> {
        let step = &self.kernel.steps[i];
        let &[_, put, elsewhere] = self.args(i) else { return Err(bug(format!("step {i} is no select"))) };
        let (labels, put) = (self.operand(labels, Level::Kept, spread)?, self.operand(put, Level::Kept, spread)?);
        let elsewhere = self.operand(elsewhere, Level::Full, spread)?;
        self.read(&[labels, put], Level::Kept);
        let out = self.value();
        let action = Action::OneHot(map::find_one_hot(self.set, step.dtype));
        self.push(phase, action, Level::Full, out, &[labels, put, elsewhere]);
        self.full[i] = Some(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::isa::Level;
    use crate::cpu::lower::lower;
    use crate::cpu::plan::{Action, RowPlan};
    use raphson_compile::compile;
    use raphson_compile::program::Kernel;
    use raphson_graph::derivative::vjp;
    use raphson_graph::dtype::DType::{F32, I32};
    use raphson_graph::error::Result;
    use raphson_graph::flat::{flatten, simplify};
    use raphson_graph::value::Value;

    /// The sum of log Σ exp x − x_label over rows and its gradient, as the CPU will run it.
    fn plans(rows: usize, classes: usize) -> Result<Vec<RowPlan>> {
        let (x, labels) = (Value::input([rows, classes].into(), F32), Value::input([rows].into(), I32));
        let positions = Value::iota(x.shape(), I32, 1)?;
        let is_label = positions.equal(&labels.expand_reduced(&[1], x.shape())?)?;
        let of_label = is_label.select(&x, &x.like(0.0))?.sum(&[1])?;
        let loss = x.exp()?.sum(&[1])?.log()?.sub(&of_label)?.sum(&[0])?;
        let mut outputs = vjp(std::slice::from_ref(&loss), std::slice::from_ref(&x), &[loss.like(1.0)])?;
        outputs.push(loss);
        let inputs = [x.clone(), labels.clone()];
        let program = compile(&simplify(&flatten(&inputs, &outputs)?.graph), &[false; 2])?;
        let rows = program.kernels.iter().filter_map(|kernel| match kernel {
            Kernel::Row(row) => Some(lower(row, &program.buffers, Level::best())),
            _ => None,
        });
        rows.collect()
    }

    #[test]
    fn a_loss_of_classes_compares_no_positions() {
        for (rows, classes) in [(128, 10), (64, 1000), (4, 50_000)] {
            let plans = plans(rows, classes).unwrap();
            let all =
                || plans.iter().flat_map(|plan| plan.prologue.iter().chain(plan.phases.iter().flat_map(|p| &p.ops)));
            let count = |is: fn(&Action) -> bool| all().filter(|op| is(&op.action)).count();
            assert_eq!(count(|action| matches!(action, Action::OneHot(_))), 1, "{classes} classes");
            assert_eq!(count(|action| matches!(action, Action::Index(..))), 0, "{classes} classes");
        }
    }
}
