//! Times of a few kernels on the CPU device, best of many runs: `cargo run --release -p raphson-device --example
//! cpu_speed`. An argument picks those whose name contains it. For a first look; the benchmarks against other libraries
//! live elsewhere.

use raphson_compile::program::*;
use raphson_device::cpu::Cpu;
use raphson_device::{Device, Memory};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::kernel::{Prim, Reg};
use std::sync::Arc;
use std::time::Instant;

const F32: DType = DType::F32;

fn time(name: &str, cpu: &Cpu, program: Program) -> Result<()> {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return Ok(());
    }
    let mut inputs: Vec<Memory> = Vec::new();
    for id in &program.inputs {
        let n = program.buffers[id.0 as usize].elements;
        let bytes: Vec<u8> = (0..n).flat_map(|i| ((i % 1013) as f32 * 1e-3 - 0.5).to_ne_bytes()).collect();
        inputs.push(cpu.upload(&bytes)?);
    }
    let mut loaded = cpu.load(Arc::new(program))?;
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.7 {
        let start = Instant::now();
        loaded.run(inputs.clone())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:32} {:10.1} µs", best * 1e6);
    Ok(())
}

fn load(buffer: u32, kept: Vec<i64>, reduced: Vec<i64>) -> (Instr, Level, u32) {
    (Instr::Load { buffer: BufferId(buffer), view: View { offset: 0, kept, reduced } }, Level::Full, 0)
}

fn prim(prim: Prim, args: &[u32], level: Level, pass: u32) -> (Instr, Level, u32) {
    let mut all = [Reg(args[0]); 3];
    all.iter_mut().zip(args).for_each(|(to, &from)| *to = Reg(from));
    (Instr::Prim { prim, args: all }, level, pass)
}

fn store(buffer: u32, kept: Vec<i64>, reduced: Vec<i64>, value: u32, level: Level, pass: u32) -> (Instr, Level, u32) {
    let view = View { offset: 0, kept, reduced };
    (Instr::Store { buffer: BufferId(buffer), view, value: Reg(value) }, level, pass)
}

fn reduce(op: ReduceOp, arg: u32, pass: u32) -> (Instr, Level, u32) {
    (Instr::Reduce { op, arg: Reg(arg) }, Level::Kept, pass)
}

fn row(
    inputs: &[usize],
    output: usize,
    sizes: [&[usize]; 2],
    order: Order,
    steps: Vec<(Instr, Level, u32)>,
) -> Program {
    let steps = steps.into_iter().map(|(instr, level, pass)| Step { instr, dtype: F32, level, pass }).collect();
    let kernel = RowKernel { kept: sizes[0].to_vec(), reduced: sizes[1].to_vec(), order, steps };
    program(inputs, output, Kernel::Row(kernel))
}

fn program(inputs: &[usize], output: usize, kernel: Kernel) -> Program {
    let input = |(i, &elements): (usize, &usize)| Buffer { dtype: F32, elements, place: Place::Input(i) };
    let mut buffers: Vec<Buffer> = inputs.iter().enumerate().map(input).collect();
    buffers.push(Buffer { dtype: F32, elements: output, place: Place::Output(0) });
    let n = inputs.len() as u32;
    Program {
        buffers,
        kernels: vec![kernel],
        inputs: (0..n).map(BufferId).collect(),
        outputs: vec![BufferId(n)],
        arena_bytes: 0,
    }
}

fn main() -> Result<()> {
    let cpu = Cpu::new(None)?;
    println!("{}", cpu.describe().name);
    let n = 4 << 20;
    let chain = |p: Prim| {
        vec![
            load(0, vec![1], vec![]),
            load(1, vec![1], vec![]),
            prim(Prim::Mul, &[0, 1], Level::Full, 0),
            prim(Prim::Add, &[2, 0], Level::Full, 0),
            prim(p, &[3], Level::Full, 0),
            store(2, vec![1], vec![], 4, Level::Full, 0),
        ]
    };
    for p in [Prim::Neg, Prim::Tanh, Prim::Exp, Prim::Log1p, Prim::Erf, Prim::Sin] {
        time(&format!("{p:?}(x·y + x), 4 Mi"), &cpu, row(&[n, n], n, [&[n], &[]], Order::Row, chain(p)))?;
    }
    let small = row(&[16, 16], 16, [&[16], &[]], Order::Row, chain(Prim::Neg));
    time("Neg(x·y + x), 16", &cpu, small)?;
    let middle = row(&[65536, 65536], 65536, [&[65536], &[]], Order::Row, chain(Prim::Neg));
    time("Neg(x·y + x), 64 Ki", &cpu, middle)?;
    for [rows, columns] in [[128usize, 10], [128, 512], [128, 8192], [4, 1 << 20]] {
        let steps = vec![
            load(0, vec![columns as i64], vec![1]),
            reduce(ReduceOp::Max, 0, 0),
            prim(Prim::Sub, &[0, 1], Level::Full, 1),
            prim(Prim::Exp, &[2], Level::Full, 1),
            reduce(ReduceOp::Sum, 3, 1),
            prim(Prim::Div, &[3, 4], Level::Full, 2),
            store(1, vec![columns as i64], vec![1], 5, Level::Full, 2),
        ];
        let n = rows * columns;
        time(&format!("softmax {rows}×{columns}"), &cpu, row(&[n], n, [&[rows], &[columns]], Order::Row, steps))?;
    }
    for [rows, columns] in [[128usize, 512], [4096, 1024], [100_000, 10]] {
        let steps = vec![
            load(0, vec![1], vec![columns as i64]),
            reduce(ReduceOp::Sum, 0, 0),
            store(1, vec![1], vec![0], 1, Level::Kept, 1),
        ];
        let (n, name) = (rows * columns, format!("sum over rows of {rows}×{columns}"));
        time(&name, &cpu, row(&[n], columns, [&[columns], &[rows]], Order::Column, steps))?;
    }
    for [rows, columns] in [[512usize, 784], [512, 512]] {
        let steps = vec![
            load(0, vec![columns as i64], vec![1]),
            load(1, vec![columns as i64], vec![1]),
            prim(Prim::Mul, &[0, 1], Level::Full, 0),
            reduce(ReduceOp::Sum, 2, 0),
            store(2, vec![1], vec![0], 3, Level::Kept, 1),
        ];
        let (n, name) = (rows * columns, format!("inner products {rows}×{columns}"));
        time(&name, &cpu, row(&[n, n], rows, [&[rows], &[columns]], Order::Row, steps))?;
    }
    for [rows, columns] in [[512usize, 784], [512, 512]] {
        let steps = vec![
            load(0, vec![columns as i64], vec![1]),
            reduce(ReduceOp::Sum, 0, 0),
            store(1, vec![1], vec![0], 1, Level::Kept, 1),
        ];
        let (n, name) = (rows * columns, format!("sum of rows of {rows}×{columns}"));
        time(&name, &cpu, row(&[n], rows, [&[rows], &[columns]], Order::Row, steps))?;
    }
    let side = 2048i64;
    let transpose = vec![load(0, vec![1, side], vec![]), store(1, vec![side, 1], vec![], 0, Level::Full, 0)];
    time("transpose 2048×2048", &cpu, row(&[n], n, [&[2048, 2048], &[]], Order::Row, transpose))?;
    for [m, k, n] in [[8usize, 8, 8], [128, 784, 128], [128, 128, 10], [1, 1024, 1024], [1024, 1024, 1024]] {
        let view = |id, columns: usize| MatrixView {
            buffer: BufferId(id),
            offset: 0,
            batch: vec![],
            rows: columns as i64,
            columns: 1,
        };
        let (left, right) = (view(0, k), view(1, n));
        let kernel = DotKernel { dtype: F32, batch: vec![], m, k, n, left, right, out: BufferId(2) };
        time(&format!("dot {m}×{k}×{n}"), &cpu, program(&[m * k, k * n], m * n, Kernel::Dot(kernel)))?;
    }
    Ok(())
}
