//! Fused kernels as text. Without reduced axes: one invocation for each point. With them, a workgroup is a rectangle of
//! kept indices × threads that share the reduced axes of one; each pass walks over them, and its reductions are
//! combined by a tree over shared memory, or by subgroup operations.

use super::combine::{Accumulator, Team};
use super::cut::operands;
use super::scalar::{expression, literal, type_name};
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{Instr, Level, Order, RowKernel, Step, View};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Reg;
use std::collections::HashMap;
use std::fmt::Write;

/// Sums of more terms than this are added up in parts of this many, for accuracy.
const PART: usize = 32;
/// Reductions of at most this many elements are left to one invocation: sharing them costs more than it gains.
const SHORT: usize = 16;
/// Invocations of a workgroup where nothing asks for another number.
const WORKGROUP: usize = 256;

/// The text of a fused kernel.
pub fn row_text(kernel: &RowKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let kernel = coalesced(kernel);
    let n_kept = countable("an index space", kernel.kept.iter().product())?;
    let n_reduced = countable("a reduction", kernel.reduced.iter().product())?;
    let team = Team::new(&kernel, n_kept as usize, n_reduced as usize, abilities);
    let mut frame = Frame {
        workgroup: team.threads * team.lanes,
        n_workgroups: (n_kept as usize).div_ceil(team.lanes),
        subgroups: team.subgroups,
        ..Frame::default()
    };
    let kept = frame.number(n_kept);
    let reduced = if kernel.reduced.is_empty() { String::new() } else { frame.number(n_reduced) };
    let in_parts = n_reduced as usize > 2 * PART * team.threads;
    let strides = HashMap::new();
    let mut printer =
        Printer { kernel: &kernel, slots, frame, team, n_kept: kept, n_reduced: reduced, in_parts, strides, indent: 1 };
    printer.print()?;
    printer.frame.text(slots, abilities)
}

struct Printer<'a> {
    kernel: &'a RowKernel,
    slots: &'a Slots,
    frame: Frame,
    team: Team,
    /// Names of the sizes of the index space.
    n_kept: String,
    n_reduced: String,
    /// Whether sums are long enough to be added up in parts.
    in_parts: bool,
    /// Strides and offsets that are numbers, by value.
    strides: HashMap<i64, String>,
    indent: usize,
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        let width = 4 * self.indent;
        // Writing to a String cannot fail.
        let _ = writeln!(self.frame.body, "{:width$}{text}", "");
    }

    fn print(&mut self) -> Result<()> {
        let Team { threads, lanes, order, .. } = self.team;
        match order {
            Order::Row => {
                self.line(&format!("let thread = lane % {threads};"));
                self.line(&format!("let point = group * {lanes} + lane / {threads};"));
            }
            Order::Column => {
                self.line(&format!("let thread = lane / {lanes};"));
                self.line(&format!("let point = group * {lanes} + lane % {lanes};"));
            }
        }
        let (n_kept, plain) = (self.n_kept.clone(), self.kernel.reduced.is_empty());
        if plain {
            self.line(&format!("if (point >= {n_kept}) {{ return; }}"));
            self.line("let kept = point;");
        } else {
            // Everyone has to reach the barriers, so those without a point of their own compute the last one along.
            self.line(&format!("let kept = min(point, {n_kept} - 1);"));
        }
        self.indices("kept", "k", &self.kernel.kept.clone());
        if plain {
            return (0..self.kernel.steps.len()).try_for_each(|at| self.step(at));
        }
        for pass in 0..=self.kernel.steps.iter().map(|step| step.pass).max().unwrap_or(0) {
            self.kept_steps(pass)?;
            self.full_steps(pass)?;
        }
        Ok(())
    }

    /// The multi-index of a flat index, as variables `prefix0`, `prefix1`, …
    fn indices(&mut self, flat: &str, prefix: &str, sizes: &[usize]) {
        let mut below = 1;
        for (axis, &size) in sizes.iter().enumerate().rev() {
            let quotient = if below == 1 { flat.to_string() } else { format!("{flat} / {below}") };
            let text = if axis == 0 { quotient } else { format!("({quotient}) % {size}") };
            self.line(&format!("let {prefix}{axis} = {text};"));
            below *= size;
        }
    }

    /// What is computed once for each kept index before a pass.
    fn kept_steps(&mut self, pass: u32) -> Result<()> {
        for at in 0..self.kernel.steps.len() {
            let step = &self.kernel.steps[at];
            if step.level != Level::Kept || step.pass != pass || matches!(step.instr, Instr::Reduce { .. }) {
                continue;
            }
            if matches!(step.instr, Instr::Store { .. }) {
                self.line(&format!("if (thread == 0 && point < {}) {{", self.n_kept));
                self.indent += 1;
                self.step(at)?;
                self.indent -= 1;
                self.line("}");
            } else {
                self.step(at)?;
            }
        }
        Ok(())
    }

    /// A walk over the reduced axes: the stores and reductions of a pass, and what they need.
    fn full_steps(&mut self, pass: u32) -> Result<()> {
        let steps = &self.kernel.steps;
        let is_root = |step: &Step| match step.instr {
            Instr::Reduce { .. } => step.pass == pass,
            Instr::Store { .. } => step.level == Level::Full && step.pass == pass,
            Instr::Load { .. } | Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } => false,
        };
        let mut needed: Vec<bool> = steps.iter().map(is_root).collect();
        let roots: Vec<usize> = (0..steps.len()).filter(|&at| needed[at]).collect();
        if roots.is_empty() {
            return Ok(());
        }
        for at in (0..steps.len()).rev().filter(|&at| steps[at].level == Level::Full || roots.contains(&at)) {
            if needed[at] {
                operands(&steps[at].instr).iter().for_each(|reg| needed[reg.0 as usize] = true);
            }
        }
        let inside = |at: &usize| needed[*at] && (steps[*at].level == Level::Full || roots.contains(at));
        let inside: Vec<usize> = (0..steps.len()).filter(inside).collect();
        let accumulators: Vec<(usize, Accumulator)> = roots
            .iter()
            .filter_map(|&at| match steps[at].instr {
                Instr::Reduce { op, arg } => Some((at, Accumulator::new(op, self.dtype(arg)))),
                _ => None,
            })
            .collect();
        self.walk(&inside, &accumulators)?;
        for (at, accumulator) in accumulators {
            let (shared, lines) = self.team.combine(&accumulator, at);
            if !self.frame.shared.contains(&shared) {
                self.frame.shared.push_str(&shared);
            }
            lines.iter().for_each(|line| self.line(line));
        }
        Ok(())
    }

    fn walk(&mut self, inside: &[usize], accumulators: &[(usize, Accumulator)]) -> Result<()> {
        let (threads, n) = (self.team.threads, self.n_reduced.clone());
        let sums = accumulators.iter().any(|(_, accumulator)| accumulator.is_float_sum());
        let in_parts = sums && self.in_parts;
        for (at, accumulator) in accumulators {
            accumulator.declare(*at, in_parts).iter().for_each(|line| self.line(line));
        }
        let (start, end) =
            if in_parts { ("part", format!("min(part + {}, {n})", PART * threads)) } else { ("thread", n.to_string()) };
        if in_parts {
            self.line(&format!("for (var part = thread; part < {n}; part += {}) {{", PART * threads));
            self.indent += 1;
            for (at, accumulator) in accumulators.iter().filter(|(_, accumulator)| accumulator.is_float_sum()) {
                accumulator.clear_part(*at).iter().for_each(|line| self.line(line));
            }
            self.line(&format!("let part_end = {end};"));
        }
        let end = if in_parts { "part_end".to_string() } else { end };
        self.line(&format!("for (var reduced = {start}; reduced < {end}; reduced += {threads}) {{"));
        self.indent += 1;
        self.indices("reduced", "r", &self.kernel.reduced.clone());
        for &at in inside {
            if matches!(self.kernel.steps[at].instr, Instr::Store { .. }) {
                self.line(&format!("if (point < {}) {{", self.n_kept));
                self.indent += 1;
                self.step(at)?;
                self.indent -= 1;
                self.line("}");
            } else if let Instr::Reduce { arg, .. } = self.kernel.steps[at].instr {
                let accumulator = accumulators.iter().find(|(other, _)| *other == at);
                let lines = accumulator.map(|(_, a)| a.add(at, &format!("v{}", arg.0), in_parts)).unwrap_or_default();
                lines.iter().for_each(|line| self.line(line));
            } else {
                self.step(at)?;
            }
        }
        self.indent -= 1;
        self.line("}");
        if in_parts {
            for (at, accumulator) in accumulators.iter().filter(|(_, accumulator)| accumulator.is_float_sum()) {
                accumulator.fold_part(*at).iter().for_each(|line| self.line(line));
            }
            self.indent -= 1;
            self.line("}");
        }
        Ok(())
    }

    /// The value of a view. Where no axis needs a division, strides are numbers: such kernels share a text whatever
    /// their sizes.
    fn position(&mut self, view: &View, level: Level) -> String {
        let shared = self.kernel.kept.len() <= 1 && self.kernel.reduced.len() <= 1;
        position(view, level, |value| {
            if !shared {
                return format!("i32({value})");
            }
            let frame = &mut self.frame;
            self.strides.entry(value).or_insert_with(|| frame.number(value as i32)).clone()
        })
    }

    fn dtype(&self, reg: Reg) -> DType {
        self.kernel.steps[reg.0 as usize].dtype
    }

    /// One instruction that is not a reduction.
    fn step(&mut self, at: usize) -> Result<()> {
        let step = &self.kernel.steps[at];
        let dtype = step.dtype;
        let index = match &step.instr {
            Instr::Load { view, .. } | Instr::Index(view) | Instr::Store { view, .. } => {
                self.position(view, step.level)
            }
            Instr::Const(_) | Instr::Prim { .. } | Instr::Reduce { .. } => String::new(),
        };
        let text = match &step.instr {
            Instr::Load { buffer, .. } => self.slots.load(*buffer, &index),
            Instr::Const(value) => literal(*value, dtype),
            Instr::Index(_) => format!("{}({index})", type_name(dtype)),
            Instr::Prim { prim, args } => {
                let args = &args[..prim.arity()];
                let names: Vec<String> = args.iter().map(|reg| format!("v{}", reg.0)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                expression(*prim, &names, self.dtype(args[args.len() - 1]), dtype)?
            }
            Instr::Store { buffer, value, .. } => {
                let statement = self.slots.store(*buffer, &index, &format!("v{}", value.0));
                self.line(&statement);
                return Ok(());
            }
            Instr::Reduce { .. } => return Err(Error::internal("wgpu", "a reduction outside its pass")),
        };
        self.line(&format!("let v{at}: {} = {text};", type_name(dtype)));
        Ok(())
    }
}

/// The value of a view as an expression; `constant` writes its strides and its offset.
fn position(view: &View, level: Level, mut constant: impl FnMut(i64) -> String) -> String {
    let mut text = String::new();
    let mut add = |stride: i64, name: String| {
        let term = match stride {
            0 => return,
            1 => name,
            _ => format!("{name} * {}", constant(stride)),
        };
        text.push_str(if text.is_empty() { "" } else { " + " });
        text.push_str(&term);
    };
    view.kept.iter().enumerate().for_each(|(axis, &stride)| add(stride, format!("k{axis}")));
    if level == Level::Full {
        view.reduced.iter().enumerate().for_each(|(axis, &stride)| add(stride, format!("r{axis}")));
    }
    match (view.offset, text.is_empty()) {
        (0, true) => "0".to_string(),
        (offset, true) => constant(offset),
        (0, false) => text,
        (offset, false) => format!("{text} + {}", constant(offset)),
    }
}

/// The same kernel over fewer axes: neighbours that every view steps through evenly become one, and axes of size 1
/// vanish. Most kernels are left with one axis, and need no division.
fn coalesced(kernel: &RowKernel) -> RowKernel {
    let mut kernel = kernel.clone();
    let mut views: Vec<&mut View> = kernel
        .steps
        .iter_mut()
        .filter_map(|step| match &mut step.instr {
            Instr::Load { view, .. } | Instr::Index(view) | Instr::Store { view, .. } => Some(view),
            Instr::Const(_) | Instr::Prim { .. } | Instr::Reduce { .. } => None,
        })
        .collect();
    let empty_reduction = kernel.reduced.is_empty();
    merge_axes(&mut kernel.kept, views.iter_mut().map(|view| &mut view.kept).collect());
    merge_axes(&mut kernel.reduced, views.iter_mut().map(|view| &mut view.reduced).collect());
    if !empty_reduction && kernel.reduced.is_empty() {
        // A reduction over one element is still a reduction.
        kernel.reduced.push(1);
        views.into_iter().for_each(|view| view.reduced.push(0));
    }
    kernel
}

fn merge_axes(sizes: &mut Vec<usize>, mut strides: Vec<&mut Vec<i64>>) {
    for axis in (0..sizes.len()).rev() {
        if sizes[axis] == 1 {
            sizes.remove(axis);
            strides.iter_mut().for_each(|strides| _ = strides.remove(axis));
        }
    }
    for axis in (1..sizes.len()).rev() {
        let size = sizes[axis];
        if strides.iter().all(|strides| strides[axis - 1] == strides[axis] * size as i64) {
            sizes[axis - 1] *= size;
            sizes.remove(axis);
            strides.iter_mut().for_each(|strides| _ = strides.remove(axis - 1));
        }
    }
}

impl Team {
    /// How the points of a kernel are divided among invocations.
    fn new(kernel: &RowKernel, n_kept: usize, n_reduced: usize, abilities: &Abilities) -> Team {
        let most = WORKGROUP.min(abilities.workgroup);
        let order = kernel.order;
        if kernel.reduced.is_empty() {
            // Not every size has its own workgroup, so that texts are shared.
            let lanes = if n_kept <= 4096 { most.min(64) } else { most };
            return Team { threads: 1, lanes, order: Order::Column, subgroups: false };
        }
        let all = if n_reduced <= SHORT { 1 } else { n_reduced.next_power_of_two().min(most) };
        let (threads, lanes) = match order {
            // Few rows: every thread that helps. Many: a few elements for each thread, several rows in a workgroup.
            Order::Row => {
                let threads = if n_kept < 256 { all } else { (all / 4).max(1) };
                (threads, (most / threads).min(n_kept.next_power_of_two().max(32 / threads)))
            }
            Order::Column => {
                let lanes = n_kept.next_power_of_two().clamp(8, 32);
                let share = if n_kept < 4096 { all } else { (all / 4).clamp(1, 8) };
                (share.min(most / lanes).max(1), lanes)
            }
        };
        Team { threads, lanes, order, subgroups: abilities.subgroups && lanes == 1 && threads >= 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_axes_merge() {
        let mut sizes = vec![2, 1, 3, 4];
        let (mut a, mut b) = (vec![12, 9, 4, 1], vec![0, 0, 8, 2]);
        merge_axes(&mut sizes, vec![&mut a, &mut b]);
        assert_eq!((sizes, a, b), (vec![2, 12], vec![12, 1], vec![0, 2]));
    }

    #[test]
    fn views_print_as_sums() {
        let view = View { offset: 3, kept: vec![1, -4], reduced: vec![0, 2] };
        let constant = |value: i64| format!("({value})");
        assert_eq!(position(&view, Level::Full, constant), "k0 + k1 * (-4) + r1 * (2) + (3)");
        assert_eq!(position(&view, Level::Kept, constant), "k0 + k1 * (-4) + (3)");
    }
}
