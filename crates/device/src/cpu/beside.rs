//! Which kernels the caller of a run does by itself while the other threads begin the long one behind them. A small kernel
//! is no faster on many threads, so without this they would stand idle meanwhile. The kernels stay in their order but for
//! that, and neither side touches memory that the other writes: what is computed does not change.

use super::estimate::Costs;
use raphson_compile::program::{BufferId, Kernel, Place, Program};
use std::ops::Range;

/// As kernels of a training step were seen to take on a core with AVX-512.
const LIKELY: Costs = Costs { kernel: 300.0, instruction: 30.0, point: 0.05, term: 0.015, indexed: 10.0 };

/// The longest kernel that is done beside another, and not beside one that is as short itself.
const SMALL_NS: f64 = 15_000.0;

/// A kernel, and those just before it that the caller does while the others begin it.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub kernel: usize,
    pub beside: Range<usize>,
}

/// Every kernel one after another.
pub fn in_order(program: &Program) -> Vec<Step> {
    (0..program.kernels.len()).map(|kernel| Step { kernel, beside: kernel..kernel }).collect()
}

/// The kernels, with small ones beside long ones where `n_threads` gain from it.
pub fn steps(program: &Program, n_threads: usize) -> Vec<Step> {
    if n_threads == 1 {
        return in_order(program);
    }
    let touched: Vec<Touched> = program.kernels.iter().map(|kernel| Touched::by(kernel, program)).collect();
    let times: Vec<f64> = program.kernels.iter().map(|kernel| LIKELY.of(kernel, program)).collect();
    let mut steps: Vec<Step> = Vec::new();
    for (kernel, its) in touched.iter().enumerate() {
        // While the caller is away, the others do its part of the work: they must have enough of it.
        let mut left = times[kernel] / n_threads as f64;
        let mut first = kernel;
        if times[kernel] > SMALL_NS && is_shared_out(&program.kernels[kernel]) {
            while let Some(step) = steps.last()
                && step.beside.is_empty()
                && times[step.kernel] <= left.min(SMALL_NS)
                && is_done_alone(&program.kernels[step.kernel])
                && touched[step.kernel].is_apart_from(its)
            {
                left -= times[step.kernel];
                first = step.kernel;
                steps.pop();
            }
        }
        steps.push(Step { kernel, beside: first..kernel });
    }
    steps
}

/// Whether its work goes to all threads in chunks.
fn is_shared_out(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Row(_) | Kernel::Dot(_) | Kernel::Conv(_))
}

/// Whether it may be done by one thread beside another kernel.
fn is_done_alone(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Row(_) | Kernel::Dot(_))
}

/// A piece of memory that a run uses.
#[derive(Clone, PartialEq)]
enum Piece {
    Input(usize),
    Output(usize),
    Arena(Range<usize>),
}

impl Piece {
    fn of(id: BufferId, program: &Program) -> Piece {
        let buffer = &program.buffers[id.0 as usize];
        match buffer.place {
            Place::Input(input) | Place::InPlace { input, .. } => Piece::Input(input),
            Place::Output(output) => Piece::Output(output),
            Place::Arena(offset) => Piece::Arena(offset..offset + buffer.size_bytes()),
        }
    }

    fn meets(&self, other: &Piece) -> bool {
        match (self, other) {
            (Piece::Arena(one), Piece::Arena(two)) => one.start < two.end && two.start < one.end,
            (one, two) => one == two,
        }
    }
}

/// What a kernel reads and writes.
struct Touched {
    read: Vec<Piece>,
    written: Vec<Piece>,
}

impl Touched {
    fn by(kernel: &Kernel, program: &Program) -> Touched {
        let (read, written) = kernel.buffers();
        let pieces = |ids: Vec<BufferId>| ids.into_iter().map(|id| Piece::of(id, program)).collect();
        Touched { read: pieces(read), written: pieces(written) }
    }

    /// Whether the two may run at the same time.
    fn is_apart_from(&self, other: &Touched) -> bool {
        let meet = |one: &[Piece], two: &[Piece]| one.iter().any(|one| two.iter().any(|two| one.meets(two)));
        !meet(&self.written, &other.written) && !meet(&self.written, &other.read) && !meet(&self.read, &other.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raphson_compile::compile;
    use raphson_graph::dtype::DType;
    use raphson_graph::flat::flatten;
    use raphson_graph::value::Value;

    fn input<const N: usize>(sizes: [usize; N]) -> Value {
        Value::input(sizes.into(), DType::F32)
    }

    fn compiled(inputs: &[&Value], outputs: &[Value]) -> Program {
        let inputs: Vec<Value> = inputs.iter().copied().cloned().collect();
        compile(&flatten(&inputs, outputs).unwrap().graph, &vec![false; inputs.len()]).unwrap()
    }

    /// The steps' kernels, and how many each has beside it.
    fn counts(steps: &[Step]) -> Vec<(usize, usize)> {
        steps.iter().map(|step| (step.kernel, step.beside.len())).collect()
    }

    #[test]
    fn a_small_kernel_is_done_beside_a_long_one_that_needs_nothing_of_it() {
        let (a, b, c) = (input([256, 256]), input([256, 256]), input([8, 40]));
        let program = compiled(&[&a, &b, &c], &[c.tanh().unwrap(), c.sum(&[1]).unwrap(), a.dot(&b).unwrap()]);
        let alone: Vec<_> = (0..program.kernels.len()).map(|kernel| (kernel, 0)).collect();
        assert!(matches!(program.kernels.last(), Some(Kernel::Dot(_))));
        assert_eq!(counts(&steps(&program, 2)), [(alone.len() - 1, alone.len() - 1)]);
        assert_eq!(counts(&steps(&program, 1)), alone, "one thread has nobody to begin without it");
        assert_eq!(counts(&in_order(&program)), alone);
    }

    #[test]
    fn what_the_long_one_reads_is_there_before_it() {
        let (a, b, c) = (input([4, 512]), input([512, 4096]), input([4]));
        let product = a.tanh().unwrap().dot(&b).unwrap();
        let program = compiled(&[&a, &b, &c], &[c.tanh().unwrap(), product]);
        let plan = steps(&program, 2);
        let reads_the_operand = |step: &Step| !step.beside.is_empty() && step.kernel + 1 == program.kernels.len();
        assert!(program.kernels.len() >= 3 && !plan.iter().any(reads_the_operand), "{plan:?}");
    }

    #[test]
    fn nothing_long_waits_beside_another() {
        let (a, b) = (input([256, 256]), input([256, 256]));
        let program = compiled(&[&a, &b], &[a.dot(&a).unwrap(), b.dot(&b).unwrap()]);
        assert_eq!(counts(&steps(&program, 4)), [(0, 0), (1, 0)]);
    }

    #[test]
    fn pieces_meet_where_their_bytes_do() {
        let arena = |range: Range<usize>| Piece::Arena(range);
        assert!(arena(0..64).meets(&arena(32..96)) && arena(0..256).meets(&arena(64..128)));
        assert!(!arena(0..64).meets(&arena(64..128)));
        assert!(Piece::Input(1).meets(&Piece::Input(1)) && !Piece::Input(1).meets(&Piece::Input(2)));
        assert!(!Piece::Input(1).meets(&Piece::Output(1)));
        let touched = |read: &[Piece], written: &[Piece]| Touched { read: read.to_vec(), written: written.to_vec() };
        let one = touched(&[Piece::Input(0)], &[arena(0..64)]);
        assert!(one.is_apart_from(&touched(&[Piece::Input(0)], &[arena(64..128)])), "both read");
        assert!(!one.is_apart_from(&touched(&[arena(0..8)], &[])), "one reads what the other writes");
        assert!(!one.is_apart_from(&touched(&[], &[Piece::Input(0)])), "one writes what the other reads");
        assert!(!one.is_apart_from(&touched(&[], &[arena(8..16)])), "both write");
    }
}
