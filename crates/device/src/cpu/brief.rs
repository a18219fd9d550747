//! Which programs are so short that handing them to other threads costs more than it saves: an estimate of a run's time on
//! one thread, from the sizes of its kernels alone. It is meant to be too high rather than too low, and times nothing.

use raphson_compile::program::{Instr, Kernel, Level, Program, RowKernel};

/// The longest run, by the estimate, that is brief. Waking a thread and being woken by it costs about as much.
const BRIEF_NS: f64 = 50_000.0;

/// Nanoseconds to begin a kernel.
const KERNEL_NS: f64 = 200.0;
/// Of one instruction at one point: loops of the scalar registers, which are f64, and of elementary functions among them.
const POINT_NS: f64 = 1.0;
/// Of a multiplication and an addition in a product, whose matrices are too small to fill the registers.
const TERM_NS: f64 = 0.2;
/// Of an element that is fetched or sorted by an index.
const INDEXED_NS: f64 = 10.0;

/// Whether a program's run is brief.
pub fn is_brief(program: &Program) -> bool {
    // Saturating to infinity, which is not brief.
    program.kernels.iter().map(|kernel| estimate(kernel, program)).sum::<f64>() <= BRIEF_NS
}

/// Nanoseconds of one kernel on one thread.
fn estimate(kernel: &Kernel, program: &Program) -> f64 {
    let work = match kernel {
        Kernel::Row(row) => row_work(row),
        Kernel::Dot(dot) => product(&dot.batch) * product(&[dot.m, dot.k, dot.n]) * TERM_NS,
        Kernel::Conv(conv) => {
            let (rows, columns, terms) = conv.as_product();
            product(&[conv.groups, rows, columns, terms]) * TERM_NS
        }
        Kernel::Attention(attention) => {
            let scores = product(&attention.batch) * product(&[attention.queries, attention.keys]);
            // Two products forward; five in reverse; and an exponential of each score.
            let products = if attention.reverse.is_some() { 5.0 } else { 2.0 };
            scores * (products * attention.width.max(attention.values) as f64 * TERM_NS + INDEXED_NS)
        }
        Kernel::Gather(gather) => moved(gather.outer, gather.count, gather.inner),
        Kernel::ScatterAdd(scatter) => {
            moved(scatter.outer, scatter.count, scatter.inner)
                + product(&[scatter.outer, scatter.axis, scatter.inner]) * POINT_NS
        }
        Kernel::Argsort(sort) => {
            let rounds = f64::from(usize::BITS - sort.length.leading_zeros());
            product(&[sort.rows, sort.length]) * rounds * INDEXED_NS
        }
        Kernel::Fill { buffer, .. } => {
            program.buffers.get(buffer.0 as usize).map_or(0.0, |buffer| buffer.elements as f64 * POINT_NS)
        }
    };
    KERNEL_NS + work
}

/// Every instruction at every point of its level.
fn row_work(row: &RowKernel) -> f64 {
    let kept = product(&row.kept);
    let full = kept * product(&row.reduced);
    let points = row.steps.iter().map(|step| match (&step.instr, step.level) {
        (Instr::Const(_), _) => 0.0,
        (_, Level::Full) => full,
        (_, Level::Kept) => kept,
    });
    points.sum::<f64>() * POINT_NS
}

/// Rows chosen by an index, and their elements.
fn moved(outer: usize, count: usize, inner: usize) -> f64 {
    product(&[outer, count]) * INDEXED_NS + product(&[outer, count, inner]) * POINT_NS
}

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}
