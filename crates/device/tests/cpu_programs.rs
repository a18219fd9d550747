//! The CPU device on whole programs: products, gather and scatter, fills, arenas, donated inputs, memory and refusals.

mod reference;

use raphson_compile::compile;
use raphson_compile::program::*;
use raphson_device::Device;
use raphson_device::cpu::Cpu;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Code;
use raphson_graph::flat::flatten;
use raphson_graph::kernel::Prim;
use raphson_graph::value::Value;
use reference::{Build, Random, buffer, compare, from_bytes, product, program, read, run, to_bytes};
use std::sync::Arc;

const F32: DType = DType::F32;

/// A product of fresh operands with the given strides of (batch…, rows, columns).
struct Dot {
    kernel: DotKernel,
    buffers: Vec<Buffer>,
    data: Vec<Vec<f64>>,
}

impl Dot {
    fn new(dtype: DType, batch: &[usize], size: [usize; 3], transposed: [bool; 2], random: &mut Random) -> Dot {
        let (kernel, buffers) = product(dtype, batch, size, transposed);
        let data = buffers.iter().map(|b| match dtype {
            DType::F32 | DType::F64 => random.floats(b.elements),
            _ => (0..b.elements).map(|_| random.below(1 << 20) as f64).collect(),
        });
        let data = data.map(|d: Vec<f64>| d.into_iter().map(|v| reference::rounded(v, dtype)).collect()).collect();
        Dot { kernel, buffers, data }
    }

    fn truth(&self) -> Vec<f64> {
        let k = &self.kernel;
        let mut out = Vec::new();
        for flat in 0..k.batch.iter().product::<usize>() {
            let at = |view: &MatrixView, i: usize, j: usize| {
                let mut rest = flat;
                let mut position = view.offset + i as i64 * view.rows + j as i64 * view.columns;
                for (&size, &stride) in k.batch.iter().zip(&view.batch).rev() {
                    position += (rest % size) as i64 * stride;
                    rest /= size;
                }
                self.data[view.buffer.0 as usize][position as usize]
            };
            for i in 0..k.m {
                for j in 0..k.n {
                    let products = (0..k.k).map(|l| at(&k.left, i, l) * at(&k.right, l, j));
                    out.push(match k.dtype {
                        DType::F32 | DType::F64 => products.sum(),
                        dtype => reference::rounded(
                            f64::from(products.fold(0u32, |s, p| s.wrapping_add(p as i64 as u32))),
                            dtype,
                        ),
                    });
                }
            }
        }
        out
    }

    fn check(&self) {
        let program = program(&self.buffers, vec![Kernel::Dot(self.kernel.clone())], 0);
        let truth = self.truth();
        let mut seen: Option<Vec<Vec<u8>>> = None;
        for threads in [1, 2, 3] {
            let got = run(&Cpu::new(Some(threads)).unwrap(), &program, &self.data).unwrap();
            let tolerance = if self.kernel.dtype == F32 { 1e-5 } else { 1e-13 } * (1.0 + self.kernel.k as f64).sqrt();
            compare(&from_bytes(&got[0], self.kernel.dtype), &truth, self.kernel.dtype, tolerance, "dot");
            assert!(seen.get_or_insert_with(|| got.clone()) == &got, "{threads} threads");
        }
    }
}

#[test]
fn products_of_all_sizes_strides_and_batches() {
    let mut random = Random(1);
    let sizes = [
        [1, 1, 1],
        [2, 3, 4],
        [17, 33, 9],
        [1, 100, 50],
        [50, 100, 1],
        [64, 64, 64],
        [130, 70, 200],
        [300, 40, 70],
        [30, 90, 500],
        [70, 530, 130],
        [33, 300, 290],
        [512, 32, 121],
        [8, 128, 410],
        [13, 300, 128],
        [410, 128, 10],
        [5, 0, 6],
        [0, 3, 4],
        [4, 3, 0],
    ];
    for dtype in [F32, DType::F64, DType::I32, DType::U32] {
        for size in sizes {
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                Dot::new(dtype, &[], size, transposed, &mut random).check();
            }
        }
        for (batch, size) in [(&[3][..], [8, 5, 7]), (&[2, 3], [40, 20, 30]), (&[40], [3, 4, 2]), (&[0], [2, 2, 2])] {
            Dot::new(dtype, batch, size, [false, true], &mut random).check();
        }
        // The right operand shared by the whole batch.
        let mut shared = Dot::new(dtype, &[4, 2], [6, 10, 12], [true, false], &mut random);
        shared.kernel.right.batch = vec![0, 0];
        shared.check();
        // Rows backwards.
        let mut backwards = Dot::new(dtype, &[], [20, 30, 25], [false, false], &mut random);
        (backwards.kernel.left.offset, backwards.kernel.left.rows) = (19 * 30, -30);
        backwards.check();
    }
}

#[test]
fn products_that_reach_outside_are_refused() {
    let mut dot = Dot::new(F32, &[], [4, 5, 6], [false, false], &mut Random(1));
    dot.kernel.left.offset = 1;
    let program = program(&dot.buffers, vec![Kernel::Dot(dot.kernel)], 0);
    assert!(Cpu::new(Some(1)).unwrap().load(Arc::new(program)).is_err());
}

struct Moves {
    outer: usize,
    axis: usize,
    inner: usize,
    indices: Vec<f64>,
    dtype: DType,
    index_dtype: DType,
}

impl Moves {
    fn gather(&self, threads: usize, data: &[f64]) -> raphson_graph::error::Result<Vec<f64>> {
        let count = self.indices.len();
        let buffers = [
            buffer(self.dtype, self.outer * self.axis * self.inner, Place::Input(0)),
            buffer(self.index_dtype, count, Place::Input(1)),
            buffer(self.dtype, self.outer * count * self.inner, Place::Output(0)),
        ];
        let kernel = Kernel::Gather(GatherKernel {
            dtype: self.dtype,
            index_dtype: self.index_dtype,
            outer: self.outer,
            axis: self.axis,
            inner: self.inner,
            count,
            data: BufferId(0),
            indices: BufferId(1),
            out: BufferId(2),
        });
        let data = [data.to_vec(), self.indices.clone(), vec![]];
        let got = run(&Cpu::new(Some(threads))?, &program(&buffers, vec![kernel], 0), &data)?;
        Ok(from_bytes(&got[0], self.dtype))
    }

    fn scatter_add(&self, threads: usize, updates: &[f64]) -> raphson_graph::error::Result<Vec<f64>> {
        let count = self.indices.len();
        let buffers = [
            buffer(self.dtype, self.outer * count * self.inner, Place::Input(0)),
            buffer(self.index_dtype, count, Place::Input(1)),
            buffer(self.dtype, self.outer * self.axis * self.inner, Place::Output(0)),
        ];
        let kernel = Kernel::ScatterAdd(ScatterAddKernel {
            dtype: self.dtype,
            index_dtype: self.index_dtype,
            outer: self.outer,
            axis: self.axis,
            inner: self.inner,
            count,
            updates: BufferId(0),
            indices: BufferId(1),
            out: BufferId(2),
        });
        let data = [updates.to_vec(), self.indices.clone(), vec![]];
        let got = run(&Cpu::new(Some(threads))?, &program(&buffers, vec![kernel], 0), &data)?;
        Ok(from_bytes(&got[0], self.dtype))
    }
}

#[test]
fn gather_and_scatter_add_in_every_shape() {
    let mut random = Random(6);
    for (outer, axis, inner, count) in
        [(1, 5, 1, 9), (3, 4, 2, 6), (1, 50, 300, 400), (700, 3, 1, 2), (2, 3, 4, 0), (0, 2, 2, 3)]
    {
        for (dtype, index_dtype) in
            [(F32, DType::I32), (DType::F64, DType::U32), (DType::I32, DType::I32), (DType::Bool, DType::U32)]
        {
            let indices: Vec<f64> = (0..count).map(|_| random.below(axis) as f64).collect();
            let moves = Moves { outer, axis, inner, indices: indices.clone(), dtype, index_dtype };
            let numbers =
                |n: usize| (0..n).map(|i| reference::rounded((i * 7 % 23) as f64 - 3.0, dtype)).collect::<Vec<_>>();
            let data = numbers(outer * axis * inner);
            let mut truth = Vec::new();
            for o in 0..outer {
                for &j in &indices {
                    let start = (o * axis + j as usize) * inner;
                    truth.extend_from_slice(&data[start..start + inner]);
                }
            }
            let updates = numbers(outer * count * inner);
            let mut sums = vec![0.0; outer * axis * inner];
            for (u, &update) in updates.iter().enumerate() {
                let (o, j, i) = (u / inner / count, u / inner % count, u % inner);
                sums[(o * axis + indices[j] as usize) * inner + i] += update;
            }
            sums.iter_mut().for_each(|s| *s = reference::rounded(*s, dtype));
            for threads in [1, 3] {
                assert_eq!(moves.gather(threads, &data).unwrap(), truth);
                assert_eq!(moves.scatter_add(threads, &updates).unwrap(), sums);
            }
        }
    }
}

#[test]
fn an_index_outside_its_axis_is_named() {
    for (index, index_dtype, text) in
        [(-1.0, DType::I32, "index -1"), (5.0, DType::I32, "index 5"), (4294967295.0, DType::U32, "index 4294967295")]
    {
        let indices = vec![0.0, 4.0, index, 1.0];
        let moves = Moves { outer: 1, axis: 5, inner: 2, indices, dtype: F32, index_dtype };
        for error in [moves.gather(2, &[0.0; 10]).unwrap_err(), moves.scatter_add(2, &[0.0; 8]).unwrap_err()] {
            assert_eq!(error.code, Code::Index);
            let message = error.to_string();
            assert!(
                message.contains(text) && message.contains("position 2") && message.contains("size 5"),
                "{message}"
            );
        }
    }
}

#[test]
fn temporaries_in_the_arena_and_fills() {
    let buffers = [
        buffer(F32, 100, Place::Arena(0)),
        buffer(F32, 100, Place::Arena(448)),
        buffer(F32, 100, Place::Output(0)),
        buffer(DType::Bool, 7, Place::Output(1)),
        buffer(DType::U32, 3, Place::Output(2)),
    ];
    let fill = |id: u32, value: Scalar| Kernel::Fill { buffer: BufferId(id), value };
    let mut build = Build::new(&[100], &[], Order::Row);
    build.buffers = buffers.to_vec();
    let view = build.full_view();
    let a = build.load(BufferId(0), view.clone(), Level::Full, 0);
    let b = build.load(BufferId(1), view.clone(), Level::Full, 0);
    let sum = build.prim(Prim::Add, &[a, b]);
    build.store(BufferId(2), view, sum, Level::Full);
    let kernels = vec![
        fill(0, Scalar::Float(1.5)),
        fill(1, Scalar::Float(2.0)),
        fill(3, Scalar::Bool(true)),
        fill(4, Scalar::Int(-1)),
        Kernel::Row(build.kernel),
    ];
    let got = run(&Cpu::new(Some(1)).unwrap(), &program(&buffers, kernels, 896), &vec![vec![]; 5]).unwrap();
    assert_eq!(from_bytes(&got[0], F32), vec![3.5; 100]);
    assert_eq!(got[1], vec![1; 7]);
    assert_eq!(from_bytes(&got[2], DType::U32), vec![4294967295.0; 3]);
}

/// x ← x + y, with x donated.
fn donating() -> Build {
    let mut build = Build::new(&[1000], &[], Order::Row);
    let x = build.in_place(F32, vec![1.0; 1000]);
    let y = build.input(F32, vec![2.0; 1000]);
    let view = build.full_view();
    let a = build.load(x, view.clone(), Level::Full, 0);
    let b = build.load(y, view.clone(), Level::Full, 0);
    let sum = build.prim(Prim::Add, &[a, b]);
    build.store(x, view, sum, Level::Full);
    build
}

#[test]
fn a_donated_input_is_reused_and_a_shared_one_copied() {
    let cpu = Cpu::new(Some(1)).unwrap();
    let mut loaded = cpu.load(Arc::new(donating().program())).unwrap();
    let upload = |value: f64| cpu.upload(&to_bytes(&[value; 1000], F32)).unwrap();
    let (x, y) = (upload(1.0), upload(2.0));
    let number = |memory: &raphson_device::Memory| from_bytes(&read(&cpu, memory).unwrap(), F32)[999];

    let kept = x.clone();
    let first = loaded.run(vec![x, y.clone()]).unwrap().remove(0);
    assert_eq!((number(&first), number(&kept)), (3.0, 1.0));

    let address = Arc::as_ptr(&first.inner).cast::<u8>().addr();
    let second = loaded.run(vec![first, y.clone()]).unwrap().remove(0);
    assert_eq!(number(&second), 5.0);
    assert_eq!(Arc::as_ptr(&second.inner).cast::<u8>().addr(), address);

    // The same memory for both inputs: it is shared, so the sum is of two old values.
    let both = loaded.run(vec![y.clone(), y.clone()]).unwrap().remove(0);
    assert_eq!((number(&both), number(&y)), (4.0, 2.0));
}

#[test]
fn running_again_and_again_takes_no_more_memory() {
    let cpu = Cpu::new(Some(2)).unwrap();
    let mut loaded = cpu.load(Arc::new(donating().program())).unwrap();
    let y = cpu.upload(&to_bytes(&[2.0; 1000], F32)).unwrap();
    let mut x = cpu.upload(&to_bytes(&[0.0; 1000], F32)).unwrap();
    let before = cpu.usage();
    for _ in 0..100 {
        x = loaded.run(vec![x, y.clone()]).unwrap().remove(0);
    }
    assert_eq!(cpu.usage(), before);
    drop((loaded, x, y));
    assert_eq!(cpu.usage().live_bytes, 0);
    cpu.trim();
    assert_eq!(cpu.usage().pooled_bytes, 0);
}

#[test]
fn wrong_inputs_and_programs_are_errors() {
    let cpu = Cpu::new(Some(1)).unwrap();
    let mut loaded = cpu.load(Arc::new(donating().program())).unwrap();
    let (good, short) = (cpu.upload(&[0; 4000]).unwrap(), cpu.upload(&[0; 8]).unwrap());
    assert!(loaded.run(vec![good.clone()]).is_err());
    assert!(loaded.run(vec![good.clone(), short]).is_err());
    let foreign = raphson_device::Memory { inner: Arc::new(0u8), bytes: 4000 };
    let error = loaded.run(vec![good.clone(), foreign]).map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::Device);
    assert!(loaded.run(vec![good.clone(), good.clone()]).is_ok());
    assert!(cpu.download(&good, &mut [0; 3]).is_err());

    let mut beyond = donating().program();
    beyond.buffers.push(buffer(F32, 10, Place::Arena(64)));
    assert!(cpu.load(Arc::new(beyond)).is_err());
}

#[test]
fn thread_counts_are_checked_and_described() {
    assert_eq!(Cpu::new(Some(0)).map(|_| ()).unwrap_err().code, Code::Argument);
    assert_eq!(Cpu::new(Some(100_000)).map(|_| ()).unwrap_err().code, Code::Argument);
    let description = Cpu::new(Some(2)).unwrap().describe();
    assert_eq!(description.kind, "cpu");
    assert!(description.name.contains("2 threads"), "{}", description.name);
    assert!(Cpu::new(Some(1)).unwrap().describe().name.contains("1 thread)"));
}

#[test]
fn empty_memory_goes_up_and_down() {
    let cpu = Cpu::new(Some(1)).unwrap();
    let memory = cpu.upload(&[]).unwrap();
    assert_eq!(read(&cpu, &memory).unwrap(), Vec::<u8>::new());
}

/// Small kernels before and between long ones, some of which wait for them, with temporaries in one arena: done beside the long
/// ones or not, the results are the same.
#[test]
fn kernels_beside_others_change_nothing() {
    let input = |sizes: &[usize]| Value::input(sizes.into(), F32);
    let (a, b, c) = (input(&[256, 320]), input(&[320, 256]), input(&[256]));
    let small = |value: &Value, factor: f64| value.scale(factor).unwrap().tanh().unwrap();
    let first = a.dot(&b).unwrap();
    let sums = small(&first.sum(&[1]).unwrap(), 0.01);
    let waiting = small(&c, 2.0).mul(&sums).unwrap();
    let spread = waiting.reshape(&[256, 1].into()).unwrap().expand(&[256, 320].into()).unwrap();
    let second = a.mul(&spread).unwrap().dot(&b).unwrap();
    let apart = small(&small(&c, 3.0).sum_all().unwrap(), 0.1);
    let outputs = [second, waiting, apart, small(&c, 0.5)];
    let inputs = [a, b, c];
    let program = compile(&flatten(&inputs, &outputs).unwrap().graph, &[false; 3]).unwrap();
    let mut random = Random(7);
    let data: Vec<Vec<f64>> = inputs.iter().map(|value| random.floats(value.shape().elements())).collect();
    let want = run(&Cpu::new(Some(1)).unwrap(), &program, &data).unwrap();
    for threads in [2, 3] {
        let cpu = Cpu::new(Some(threads)).unwrap();
        for _ in 0..50 {
            assert!(run(&cpu, &program, &data).unwrap() == want, "{threads} threads");
        }
    }
}
