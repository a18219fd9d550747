//! Where a program's time goes: with `RAPHSON_PROFILE=1` every kernel is timed, and a table goes to stderr when the
//! program is dropped. Costs two clock readings a kernel, and nothing when it is off.

use raphson_compile::program::{AttentionKernel, ConvAxis, Instr, Kernel, Program};
use std::time::{Duration, Instant};

/// Lines of a table.
const MOST_LINES: usize = 40;

/// Times of each kernel of one program: of all runs, and of the fastest, which a busy machine disturbs least.
pub struct Profile {
    times: Vec<Duration>,
    least: Vec<Duration>,
    runs: u32,
}

impl Profile {
    /// A profile, if the environment asks for one.
    pub fn wanted(program: &Program) -> Option<Profile> {
        let on = std::env::var_os("RAPHSON_PROFILE").is_some_and(|value| value == "1");
        let n = program.kernels.len();
        on.then(|| Profile { times: vec![Duration::ZERO; n], least: vec![Duration::MAX; n], runs: 0 })
    }

    /// Count one run of the program.
    pub fn run(&mut self) {
        self.runs += 1;
    }

    /// Add the time since `start` to a kernel.
    pub fn add(&mut self, kernel: usize, start: Instant) {
        let time = start.elapsed();
        self.times[kernel] += time;
        self.least[kernel] = self.least[kernel].min(time);
    }

    /// The table: microseconds a run on average and in the fastest run. Kernels that read alike share a line, which names
    /// the first of them; the slowest lines come first.
    pub fn table(&self, program: &Program) -> String {
        let per_run = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(self.runs.max(1));
        let total: Duration = self.times.iter().sum();
        let mut lines: Vec<Line> = Vec::new();
        for (kernel, (&time, &least)) in self.times.iter().zip(&self.least).enumerate() {
            let text = describe(&program.kernels[kernel], program);
            match lines.iter_mut().find(|line| line.text == text) {
                Some(line) => line.add(time, least),
                None => lines.push(Line { first: kernel, count: 1, time, least, text }),
            }
        }
        lines.sort_by_key(|line| std::cmp::Reverse(line.time));
        let mut text = format!(
            "program of {} kernels, {} runs: {:.1} µs a run (least {:.1} µs), arena of {} bytes\n",
            self.times.len(),
            self.runs,
            per_run(total),
            self.least.iter().filter(|&&time| time < Duration::MAX).sum::<Duration>().as_secs_f64() * 1e6,
            program.arena_bytes
        );
        for Line { first, count, time, least, text: what } in lines.iter().take(MOST_LINES) {
            let (time, least) = (per_run(*time), least.as_secs_f64() * 1e6);
            text += &format!("{time:9.1} µs  {least:8.1} µs  {count:3} × #{first:<4} {what}\n");
        }
        text
    }
}

/// Kernels of a table that read alike.
struct Line {
    first: usize,
    count: usize,
    time: Duration,
    least: Duration,
    text: String,
}

impl Line {
    fn add(&mut self, time: Duration, least: Duration) {
        self.count += 1;
        self.time += time;
        self.least = self.least.saturating_add(least);
    }
}

/// A kernel in a line: what it is, its sizes, and the bytes it touches.
fn describe(kernel: &Kernel, program: &Program) -> String {
    match kernel {
        Kernel::Row(row) => {
            let count = |wanted: fn(&Instr) -> bool| row.steps.iter().filter(|step| wanted(&step.instr)).count();
            let bytes: usize = row
                .steps
                .iter()
                .filter_map(|step| match &step.instr {
                    Instr::Load { buffer, .. } | Instr::Store { buffer, .. } => Some(buffer),
                    Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => None,
                })
                .map(|buffer| program.buffers[buffer.0 as usize].size_bytes())
                .sum();
            format!(
                "row {:?} × {:?} {:?}: {} loads, {} operations, {} reductions, {} stores, {bytes} bytes",
                row.kept,
                row.reduced,
                row.order,
                count(|instr| matches!(instr, Instr::Load { .. })),
                count(|instr| matches!(instr, Instr::Prim { .. })),
                count(|instr| matches!(instr, Instr::Reduce { .. })),
                count(|instr| matches!(instr, Instr::Store { .. })),
            )
        }
        Kernel::Dot(dot) => {
            let flops = 2 * dot.batch.iter().product::<usize>() * dot.m * dot.k * dot.n;
            format!("dot {:?} {}×{}×{} {}: {flops} flops", dot.batch, dot.m, dot.k, dot.n, dot.dtype)
        }
        Kernel::Conv(conv) => {
            let sizes = |of: fn(&ConvAxis) -> usize| conv.axes.iter().map(of).collect::<Vec<_>>();
            let (taps, outputs) = (sizes(|axis| axis.taps), sizes(|axis| axis.outputs));
            let (b, g, i, o) = (conv.batch, conv.groups, conv.channels_in, conv.channels_out);
            let flops = 2 * b * g * i * o * taps.iter().chain(&outputs).product::<usize>();
            format!("conv {b} × {g} × {i} to {o}, {taps:?} to {outputs:?} {}: {flops} flops", conv.dtype)
        }
        Kernel::Gather(gather) => format!("gather {} of {}", gather.count, gather.axis),
        Kernel::ScatterAdd(scatter) => format!("scatter-add {} to {}", scatter.count, scatter.axis),
        Kernel::Argsort(sort) => format!("argsort {} × {}", sort.rows, sort.length),
        Kernel::Attention(attention) => {
            let AttentionKernel { batch, queries, keys, width, values, causal, reverse, .. } = &**attention;
            let name = if reverse.is_some() { "attention, reverse," } else { "attention" };
            format!("{name} {batch:?} {queries} × {keys} × {width}, {values}{}", if *causal { ", causal" } else { "" })
        }
        Kernel::Fill { .. } => "fill".to_string(),
    }
}
