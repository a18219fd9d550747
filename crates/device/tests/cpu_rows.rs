//! The CPU device on fused kernels: every instruction, view, reduction and tiling against the point-by-point truth.

mod reference;

use raphson_compile::program::{Instr, Kernel, Level, Order, ReduceOp, View};
use raphson_device::Device;
use raphson_device::cpu::Cpu;
use raphson_graph::dtype::DType;
use raphson_graph::kernel::{Prim, Reg};
use reference::{Build, Random, strides};
use std::sync::Arc;

const F32: DType = DType::F32;

/// Numbers that provoke: zeros, extremes, halves, and some of every size.
fn provoking(dtype: DType, random: &mut Random, n: usize) -> Vec<f64> {
    let special: &[f64] = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            &[0.0, -0.0, 1.0, -1.0, 0.5, 1.5, -2.5, 3e9, -3e9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 7.0, 1e-3]
        }
        DType::I64 => &[0.0, 1.0, -1.0, 5.0, -7.0, 63.0, 65.0],
        DType::U8 => &[0.0, 1.0, 5.0, 9.0, 255.0],
        DType::I32 => &[0.0, 1.0, -1.0, 2147483647.0, -2147483648.0, 5.0, -7.0, 31.0, 33.0],
        DType::U32 => &[0.0, 1.0, 4294967295.0, 2147483648.0, 5.0, 33.0],
        DType::Bool => &[0.0, 1.0],
    };
    (0..n)
        .map(|_| match random.below(3) {
            0 => random.pick(special),
            _ if dtype == DType::Bool => random.below(2) as f64,
            1 if dtype == DType::I32 => random.unit() * 2147483647.0,
            1 if dtype == DType::U32 => random.unit().abs() * 4294967295.0,
            1 => random.unit() * 30.0,
            _ if dtype == DType::U32 => (random.unit() * 40.0).abs(),
            _ => random.unit() * 4.0,
        })
        .collect()
}

const UNARY: [Prim; 18] = [
    Prim::Neg,
    Prim::Abs,
    Prim::Sqrt,
    Prim::Exp,
    Prim::Expm1,
    Prim::Log,
    Prim::Log1p,
    Prim::Sin,
    Prim::Cos,
    Prim::Tanh,
    Prim::Erf,
    Prim::Floor,
    Prim::Ceil,
    Prim::Round,
    Prim::Trunc,
    Prim::RoundF16,
    Prim::RoundBf16,
    Prim::Not,
];
const BINARY: [Prim; 17] = [
    Prim::Add,
    Prim::Sub,
    Prim::Mul,
    Prim::Div,
    Prim::Rem,
    Prim::Pow,
    Prim::Min,
    Prim::Max,
    Prim::Lt,
    Prim::Le,
    Prim::Eq,
    Prim::Ne,
    Prim::And,
    Prim::Or,
    Prim::Xor,
    Prim::Shl,
    Prim::Shr,
];

fn allows(prim: Prim, dtype: DType) -> bool {
    match prim {
        Prim::Lt | Prim::Le | Prim::Eq | Prim::Ne | Prim::Select | Prim::Cast => true,
        Prim::Neg | Prim::Abs | Prim::Add | Prim::Sub | Prim::Mul | Prim::Div | Prim::Rem | Prim::Min | Prim::Max => {
            dtype != DType::Bool
        }
        Prim::And | Prim::Or | Prim::Xor | Prim::Not => !dtype.is_float(),
        Prim::Shl | Prim::Shr => dtype.is_integer(),
        Prim::Threefry => dtype == DType::U32,
        Prim::Sqrt
        | Prim::Exp
        | Prim::Expm1
        | Prim::Log
        | Prim::Log1p
        | Prim::Sin
        | Prim::Cos
        | Prim::Tanh
        | Prim::Erf
        | Prim::Floor
        | Prim::Ceil
        | Prim::Round
        | Prim::Trunc
        | Prim::Pow => dtype.is_float(),
        Prim::RoundF16 | Prim::RoundBf16 => dtype == F32,
    }
}

/// The dtypes of registers whose values f64 holds (i64 has tests of its own, on bytes).
const REGISTERS: [DType; 5] = [DType::F32, DType::F64, DType::I32, DType::U32, DType::Bool];

/// A flat kernel that applies one instruction to fresh provoking operands.
fn single(prim: Prim, operands: &[DType], result: DType, random: &mut Random) -> Build {
    let n = 1500;
    let mut build = Build::new(&[n], &[], Order::Row);
    let regs: Vec<Reg> = operands
        .iter()
        .map(|&dtype| {
            let input = build.input(dtype, provoking(dtype, random, n));
            let view = build.full_view();
            build.load(input, view, Level::Full, 0)
        })
        .collect();
    let value = build.prim_to(prim, &regs, result);
    build.put(value, Level::Full);
    build
}

#[test]
fn every_instruction_for_every_dtype_it_allows() {
    let mut random = Random(7);
    for cpu in Cpu::each_instruction_set(2).unwrap() {
        for dtype in REGISTERS {
            let tolerance = if dtype == F32 { 2.5e-7 } else { 1e-15 };
            for prim in UNARY.into_iter().filter(|&p| allows(p, dtype)) {
                single(prim, &[dtype], dtype, &mut random).check(&cpu, tolerance);
            }
            for prim in BINARY.into_iter().filter(|&p| allows(p, dtype)) {
                let result = if prim.is_comparison() { DType::Bool } else { dtype };
                single(prim, &[dtype, dtype], result, &mut random).check(&cpu, tolerance);
            }
            single(Prim::Select, &[DType::Bool, dtype, dtype], dtype, &mut random).check(&cpu, 0.0);
            for result in REGISTERS {
                single(Prim::Cast, &[dtype], result, &mut random).check(&cpu, 0.0);
            }
        }
        single(Prim::Threefry, &[DType::U32; 3], DType::U32, &mut random).check(&cpu, 0.0);
    }
}

#[test]
fn instructions_of_other_dtypes_are_refused_when_loaded() {
    let cpu = Cpu::new(Some(1)).unwrap();
    for (prim, dtype) in [(Prim::Exp, DType::I32), (Prim::Add, DType::Bool), (Prim::Shl, F32), (Prim::Not, F32)] {
        let build = single(prim, &vec![dtype; prim.arity()], dtype, &mut Random(1));
        assert!(cpu.load(Arc::new(build.program())).is_err(), "{prim:?} {dtype}");
    }
}

#[test]
fn views_may_step_backwards_stand_still_and_transpose() {
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut random = Random(3);
    for sizes in [
        vec![3, 5, 7],
        vec![40, 33],
        vec![70, 3, 50],
        vec![2, 9, 100],
        vec![2, 1, 3, 2],
        vec![1],
        vec![],
        vec![5000],
        vec![0, 3],
    ] {
        let n: usize = sizes.iter().product();
        let (last, rank) = (n as i64 - 1, sizes.len());
        let mut build = Build::new(&sizes, &[], Order::Row);
        let plain = strides(&sizes);
        let mut transposed = vec![0; rank];
        let mut step = 1;
        for axis in 0..rank {
            transposed[axis] = step;
            step *= sizes[axis] as i64;
        }
        let view = |offset: i64, kept: Vec<i64>| View { offset, kept, reduced: vec![] };
        let views = [
            view(0, plain.clone()),
            view(last.max(0), plain.iter().map(|s| -s).collect()),
            view(0, vec![0; rank]),
            view(0, transposed.clone()),
            view(0, plain.iter().enumerate().map(|(i, s)| if i % 2 == 0 { 0 } else { *s }).collect()),
        ];
        for dtype in [F32, DType::F64, DType::Bool] {
            let input = build.input(dtype, provoking(dtype, &mut random, n.max(1)));
            for load_view in &views {
                let value = build.load(input, load_view.clone(), Level::Full, 0);
                // Straight and transposed stores, of loads that are consecutive and that are not.
                build.put(value, Level::Full);
                let out = build.output(dtype, n);
                build.store(out, view(0, transposed.clone()), value, Level::Full);
            }
        }
        let index = build.step(Instr::Index(view(3, transposed.clone())), F32, Level::Full, 0);
        build.put(index, Level::Full);
        build.check(&cpu, 0.0);
    }
}

#[test]
fn reductions_in_every_tiling() {
    let mut random = Random(11);
    let shapes: [(&[usize], &[usize]); 14] = [
        (&[7], &[5]),
        (&[3, 2], &[4, 6]),
        (&[1], &[1]),
        (&[5], &[1]),
        (&[300], &[33]),
        (&[2], &[5000]),
        (&[1], &[1025]),
        (&[3], &[40, 50]),
        (&[1500], &[3]),
        (&[300], &[300]),
        (&[], &[700]),
        (&[4], &[0]),
        (&[0], &[4]),
        (&[0], &[0]),
    ];
    let ops = [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax];
    for cpu in Cpu::each_instruction_set(2).unwrap() {
        for (kept, reduced) in shapes {
            for order in [Order::Row, Order::Column] {
                for dtype in REGISTERS {
                    let mut build = Build::new(kept, reduced, order);
                    let n = build.n_kept() * build.n_reduced();
                    let data = (0..n).map(|_| match dtype {
                        DType::F32 | DType::F64 => random.unit(),
                        DType::Bool => (random.below(9) > 0).into(),
                        _ => random.below(1000) as f64,
                    });
                    let input = build.input(dtype, data.collect());
                    let view = build.full_view();
                    let x = build.load(input, view, Level::Full, 0);
                    for op in ops {
                        let value = build.reduce(op, x);
                        build.put(value, Level::Kept);
                    }
                    // Sums in f32 within blocks, of up to 5000 numbers whose magnitudes add up to 2500: 2·10⁻⁹ of that.
                    build.check(&cpu, if dtype == F32 { 5e-6 } else { 1e-13 });
                }
            }
        }
    }
}

#[test]
fn nan_wins_max_min_and_argmax() {
    let cpu = Cpu::new(Some(1)).unwrap();
    for length in [3usize, 50, 3000] {
        for order in [Order::Row, Order::Column] {
            for dtype in [F32, DType::F64] {
                for at in [0, length / 2, length - 1] {
                    let mut build = Build::new(&[2], &[length], order);
                    let mut data: Vec<f64> = (0..2 * length).map(|i| (i % 17) as f64).collect();
                    let step = if order == Order::Row { 1 } else { 2 };
                    data[at * step] = f64::NAN;
                    let input = build.input(dtype, data);
                    let view = build.full_view();
                    let x = build.load(input, view, Level::Full, 0);
                    for op in [ReduceOp::Max, ReduceOp::Min, ReduceOp::ArgMax, ReduceOp::Sum] {
                        let value = build.reduce(op, x);
                        build.put(value, Level::Kept);
                    }
                    build.check(&cpu, 1e-6);
                }
            }
        }
    }
}

#[test]
fn long_sums_of_f32_are_accurate() {
    let cpu = Cpu::new(Some(2)).unwrap();
    for order in [Order::Row, Order::Column] {
        let mut build = Build::new(&[2], &[1 << 20], order);
        let input = build.input(F32, vec![0.1; 2 << 20]);
        let view = build.full_view();
        let x = build.load(input, view, Level::Full, 0);
        let sum = build.reduce(ReduceOp::Sum, x);
        build.put(sum, Level::Kept);
        // Equal elements err alike within every block of 512; plain f32 addition is wrong in the third digit here.
        build.check(&cpu, 3e-7);
    }
}

/// exp(x − max) / Σ exp(x − max), with the logarithm of the sum as a second, kept result.
fn softmax(kept: &[usize], reduced: &[usize], order: Order, dtype: DType, random: &mut Random) -> Build {
    let mut build = Build::new(kept, reduced, order);
    let n = build.n_kept() * build.n_reduced();
    let input = build.input(dtype, random.floats(n).iter().map(|v| v * 5.0).collect());
    let view = build.full_view();
    let x = build.load(input, view, Level::Full, 0);
    let max = build.reduce(ReduceOp::Max, x);
    let shifted = build.prim(Prim::Sub, &[x, max]);
    let e = build.prim(Prim::Exp, &[shifted]);
    let sum = build.reduce(ReduceOp::Sum, e);
    let y = build.prim(Prim::Div, &[e, sum]);
    let log = build.prim(Prim::Log, &[sum]);
    build.put(y, Level::Full);
    build.put(log, Level::Kept);
    build
}

/// Layer norm with scale along the row, the mean stored at every point and statistics per row.
fn layer_norm(kept: &[usize], reduced: &[usize], order: Order, dtype: DType, random: &mut Random) -> Build {
    let mut build = Build::new(kept, reduced, order);
    let (n, length) = (build.n_kept() * build.n_reduced(), build.n_reduced());
    let input = build.input(dtype, random.floats(n));
    let scale = build.input(dtype, random.floats(length));
    let shift = build.input(dtype, random.floats(build.n_kept()));
    let (view, kept_view) = (build.full_view(), build.kept_view());
    let x = build.load(input, view, Level::Full, 0);
    let count = build.constant(1.0 / length as f64, dtype);
    let epsilon = build.constant(1e-3, dtype);
    let sum = build.reduce(ReduceOp::Sum, x);
    let mean = build.prim(Prim::Mul, &[sum, count]);
    let centred = build.prim(Prim::Sub, &[x, mean]);
    let square = build.prim(Prim::Mul, &[centred, centred]);
    let squares = build.reduce(ReduceOp::Sum, square);
    let variance = build.prim(Prim::Mul, &[squares, count]);
    let safe = build.prim(Prim::Add, &[variance, epsilon]);
    let deviation = build.prim(Prim::Sqrt, &[safe]);
    let normal = build.prim(Prim::Div, &[centred, deviation]);
    let scale_view = View { offset: 0, kept: vec![0; kept.len()], reduced: strides(reduced) };
    let gain = build.load(scale, scale_view, Level::Full, 2);
    let shift = build.load(shift, kept_view, Level::Kept, 0);
    let scaled = build.prim(Prim::Mul, &[normal, gain]);
    let y = build.prim(Prim::Add, &[scaled, shift]);
    build.put(y, Level::Full);
    build.put(mean, Level::Full);
    build.put(deviation, Level::Kept);
    // A full store that belongs to the first pass.
    let doubled = build.prim(Prim::Add, &[x, x]);
    build.put(doubled, Level::Full);
    build
}

#[test]
fn kernels_of_several_passes() {
    let mut random = Random(5);
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[70], &[64]),
        (&[5, 4], &[2, 144]),
        (&[128], &[10]),
        (&[9], &[512]),
        (&[3], &[3000]),
        (&[2], &[40_000]),
        (&[1100], &[3]),
        (&[4, 5], &[6, 7]),
        (&[3], &[1]),
        (&[600], &[150]),
    ];
    for cpu in Cpu::each_instruction_set(2).unwrap() {
        for (kept, reduced) in shapes {
            for order in [Order::Row, Order::Column] {
                for (dtype, tolerance) in [(F32, 5e-5), (DType::F64, 1e-11)] {
                    softmax(kept, reduced, order, dtype, &mut random).check(&cpu, tolerance);
                    layer_norm(kept, reduced, order, dtype, &mut random).check(&cpu, tolerance);
                }
            }
        }
    }
}

/// The labels' elements of exp(x), and −2·s at the labels with 0 elsewhere, added to x; `also` stores where the labels are.
fn labelled(kept: &[usize], reduced: &[usize], order: Order, dtype: DType, also: bool, random: &mut Random) -> Build {
    let mut build = Build::new(kept, reduced, order);
    let (n, n_kept, length) = (build.n_kept() * build.n_reduced(), build.n_kept(), build.n_reduced());
    let input = build.input(dtype, random.floats(n));
    let scales = build.input(dtype, random.floats(n_kept));
    // Some labels are none of the positions.
    let labels = (0..n_kept).map(|_| random.below(length + 4) as f64 - 2.0).collect();
    let labels = build.input(DType::I32, labels);
    let (view, kept_view) = (build.full_view(), build.kept_view());
    let along = View { offset: 0, kept: vec![0; kept.len()], reduced: strides(reduced) };
    let label = build.load(labels, kept_view.clone(), Level::Kept, 0);
    let scale = build.load(scales, kept_view, Level::Kept, 0);
    let x = build.load(input, view, Level::Full, 0);
    let (zero, factor) = (build.constant(0.0, dtype), build.constant(-2.0, dtype));
    let position = build.step(Instr::Index(along), DType::I32, Level::Full, 0);
    let is_label = build.prim_to(Prim::Eq, &[position, label], DType::Bool);
    let e = build.prim(Prim::Exp, &[x]);
    let of_label = build.prim(Prim::Select, &[is_label, e, zero]);
    let picked = build.reduce(ReduceOp::Sum, of_label);
    let doubled = build.prim(Prim::Mul, &[scale, factor]);
    let put = build.prim(Prim::Select, &[is_label, doubled, zero]);
    let sum = build.prim(Prim::Add, &[x, put]);
    build.put(picked, Level::Kept);
    build.put(sum, Level::Full);
    if also {
        build.put(is_label, Level::Full);
    }
    build
}

#[test]
fn one_element_of_each_row() {
    let mut random = Random(17);
    let shapes: [(&[usize], &[usize]); 7] = [
        (&[128], &[10]),
        (&[9], &[512]),
        (&[3], &[3000]),
        (&[2], &[40_000]),
        (&[4, 5], &[6, 7]),
        (&[3], &[1]),
        (&[5], &[1000]),
    ];
    for cpu in Cpu::each_instruction_set(2).unwrap() {
        for (kept, reduced) in shapes {
            for (order, also) in [(Order::Row, false), (Order::Row, true), (Order::Column, false)] {
                for (dtype, tolerance) in [(F32, 1e-6), (DType::F64, 1e-13)] {
                    labelled(kept, reduced, order, dtype, also, &mut random).check(&cpu, tolerance);
                }
            }
        }
    }
}

/// A kernel of random instructions, reductions and stores over random views.
fn random_kernel(random: &mut Random) -> Build {
    let sizes = [1usize, 2, 3, 5, 8, 17, 40, 130];
    let mut axes = |most: usize| -> Vec<usize> { (0..random.below(most + 1)).map(|_| random.pick(&sizes)).collect() };
    let (mut kept, mut reduced) = (axes(2), axes(2));
    while kept.iter().chain(&reduced).product::<usize>() > 20_000 {
        kept.iter_mut().chain(&mut reduced).for_each(|size| *size = size.div_ceil(2));
    }
    if random.below(6) == 0 {
        (kept, reduced) = (vec![kept.first().copied().unwrap_or(1).min(8)], vec![2500]);
    }
    let order = random.pick(&[Order::Row, Order::Column]);
    let mut build = Build::new(&kept, &reduced, order);
    let (n_kept, n) = (build.n_kept(), build.n_kept() * build.n_reduced());
    let mut regs: Vec<(Reg, Level)> = Vec::new();
    for _ in 0..2 + random.below(3) {
        let input = build.input(DType::F64, random.floats(n.max(1)));
        let mut view = build.full_view();
        match random.below(5) {
            0 => {
                // Backwards.
                view.offset = n as i64 - 1;
                view.kept.iter_mut().chain(&mut view.reduced).for_each(|s| *s = -*s);
            }
            1 => view.kept.iter_mut().for_each(|s| *s = 0),
            2 => view.reduced.iter_mut().for_each(|s| *s = 0),
            3 => {
                // The other group of axes fastest.
                let (kept, reduced) = (strides(&kept), strides(&reduced));
                let by = if order == Order::Row { (1, n_kept as i64) } else { ((n / n_kept) as i64, 1) };
                view.kept = kept.iter().map(|s| s * by.0).collect();
                view.reduced = reduced.iter().map(|s| s * by.1).collect();
            }
            _ => {}
        }
        regs.push((build.load(input, view, Level::Full, 0), Level::Full));
    }
    let side = build.input(DType::F64, random.floats(n_kept));
    let view = build.kept_view();
    regs.push((build.load(side, view, Level::Kept, 0), Level::Kept));
    let view = View { offset: 1, kept: vec![1; kept.len()], reduced: vec![2; reduced.len()] };
    let index = build.step(Instr::Index(view), DType::F64, Level::Full, 0);
    regs.push((build.prim(Prim::Sin, &[index]), Level::Full));
    let half = build.constant(0.5, DType::F64);
    regs.push((half, Level::Kept));
    for _ in 0..3 + random.below(10) {
        let (a, b) = (random.pick(&regs), random.pick(&regs));
        let level = a.1.min(b.1);
        let new = match random.below(7) {
            0 if a.1 == Level::Full => {
                let op = random.pick(&[ReduceOp::Max, ReduceOp::Min, ReduceOp::Sum]);
                let value = build.reduce(op, a.0);
                // Bounded, so that errors stay comparable.
                (build.prim(Prim::Tanh, &[value]), Level::Kept)
            }
            1 => (build.prim(Prim::Max, &[a.0, b.0]), level),
            2 => {
                let sum = build.prim(Prim::Add, &[a.0, b.0]);
                (build.prim(Prim::Mul, &[sum, half]), level)
            }
            3 => (build.prim(Prim::Sin, &[a.0]), a.1),
            4 => {
                let (less, c) = (build.prim(Prim::Lt, &[a.0, b.0]), random.pick(&regs));
                let level = level.min(c.1);
                (build.prim(Prim::Select, &[less, c.0, a.0]), level)
            }
            _ => (build.prim(Prim::Mul, &[a.0, b.0]), level),
        };
        regs.push(new);
        if random.below(4) == 0 {
            // A kept value may be stored at every point as well.
            let level = if random.below(3) == 0 { Level::Full } else { new.1 };
            build.put(new.0, level);
        }
    }
    let (last, level) = *regs.last().unwrap();
    build.put(last, level);
    build
}

#[test]
fn random_kernels_give_the_same_on_any_number_of_threads() {
    let crews: Vec<Cpu> = (1..=3).map(|threads| Cpu::new(Some(threads)).unwrap()).collect();
    let mut random = Random(2026);
    for _ in 0..400 {
        let build = random_kernel(&mut random);
        let results: Vec<_> = crews.iter().map(|cpu| build.check(cpu, 1e-9)).collect();
        assert!(results.iter().all(|r| *r == results[0]), "{:?}", build.kernel);
    }
}

#[test]
fn thread_counts_give_identical_bits() {
    let mut random = Random(4);
    let builds = [
        softmax(&[300], &[700], Order::Row, F32, &mut random),
        softmax(&[4], &[50_000], Order::Row, F32, &mut random),
        softmax(&[500], &[300], Order::Column, F32, &mut random),
        layer_norm(&[3000], &[20], Order::Row, F32, &mut random),
    ];
    for build in builds {
        let mut seen: Option<Vec<Vec<u8>>> = None;
        for threads in [1, 2, 3] {
            let got = reference::run(&Cpu::new(Some(threads)).unwrap(), &build.program(), &build.data).unwrap();
            assert!(seen.get_or_insert_with(|| got.clone()) == &got, "{threads} threads");
        }
    }
}

#[test]
fn views_beyond_their_buffer_are_refused() {
    let cpu = Cpu::new(Some(1)).unwrap();
    for (offset, stride) in [(0, 2), (-1, 1), (1, 1), (8, -1), (0, i64::MAX)] {
        let mut build = Build::new(&[9], &[], Order::Row);
        let input = build.input(F32, vec![0.0; 9]);
        let x = build.load(input, View { offset, kept: vec![stride], reduced: vec![] }, Level::Full, 0);
        build.put(x, Level::Full);
        let refused = cpu.load(Arc::new(build.program())).is_err();
        assert_eq!(refused, (offset, stride) != (8, -1));
        assert!(matches!(build.program().kernels[0], Kernel::Row(_)));
    }
}
