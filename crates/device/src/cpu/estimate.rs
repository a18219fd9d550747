//! How long a kernel takes on one thread, from its sizes alone; nothing is timed. What the answer is for decides which costs are
//! put in: `brief.rs` wants it too high rather than too low, `beside.rs` wants it likely.

use raphson_compile::program::{Instr, Kernel, Level, Program, RowKernel};

/// Nanoseconds.
pub struct Costs {
    /// To begin a kernel.
    pub kernel: f64,
    /// To begin one of its instructions.
    pub instruction: f64,
    /// Of one instruction at one point.
    pub point: f64,
    /// Of a multiplication and an addition in a product.
    pub term: f64,
    /// Of an element that is fetched or sorted by an index.
    pub indexed: f64,
}

impl Costs {
    /// Nanoseconds of one kernel on one thread.
    pub fn of(&self, kernel: &Kernel, program: &Program) -> f64 {
        let work = match kernel {
            Kernel::Row(row) => self.row(row),
            Kernel::Dot(dot) => product(&dot.batch) * product(&[dot.m, dot.k, dot.n]) * self.term,
            Kernel::Conv(conv) => {
                let (rows, columns, terms) = conv.as_product();
                product(&[conv.groups, rows, columns, terms]) * self.term
            }
            Kernel::Attention(attention) => {
                let scores = product(&attention.batch) * product(&[attention.queries, attention.keys]);
                // Two products forward; five in reverse; and an exponential of each score.
                let products = if attention.reverse.is_some() { 5.0 } else { 2.0 };
                scores * (products * attention.width.max(attention.values) as f64 * self.term + self.indexed)
            }
            Kernel::Gather(gather) => self.moved(gather.outer, gather.count, gather.inner),
            Kernel::ScatterAdd(scatter) => {
                self.moved(scatter.outer, scatter.count, scatter.inner)
                    + product(&[scatter.outer, scatter.axis, scatter.inner]) * self.point
            }
            Kernel::Argsort(sort) => {
                let rounds = f64::from(usize::BITS - sort.length.leading_zeros());
                product(&[sort.rows, sort.length]) * rounds * self.indexed
            }
            Kernel::Fill { buffer, .. } => {
                program.buffers.get(buffer.0 as usize).map_or(0.0, |buffer| buffer.elements as f64 * self.point)
            }
        };
        self.kernel + work
    }

    /// Every instruction at every point of its level.
    fn row(&self, row: &RowKernel) -> f64 {
        let kept = product(&row.kept);
        let full = kept * product(&row.reduced);
        let steps = row.steps.iter().map(|step| match (&step.instr, step.level) {
            (Instr::Const(_), _) => 0.0,
            (_, Level::Full) => self.instruction + full * self.point,
            (_, Level::Kept) => self.instruction + kept * self.point,
        });
        steps.sum()
    }

    /// Rows chosen by an index, and their elements.
    fn moved(&self, outer: usize, count: usize, inner: usize) -> f64 {
        product(&[outer, count]) * self.indexed + product(&[outer, count, inner]) * self.point
    }
}

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}
