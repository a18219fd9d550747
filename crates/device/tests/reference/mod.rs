//! The slow truth for the devices' tests: row kernels evaluated point by point in f64, a builder for kernels, and
//! helpers to run programs and compare results.
#![allow(dead_code, reason = "each test file uses a part")]

use raphson_compile::program::*;
use raphson_device::{Device, Memory};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Result;
use raphson_graph::half;
use raphson_graph::kernel::{Prim, Reg};
use std::sync::Arc;

unsafe extern "C" {
    /// The C library's error function.
    #[link_name = "erf"]
    safe fn c_erf(x: f64) -> f64;
}

/// A small generator of pseudo-random numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// In [−1, 1).
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 52) as f64 - 1.0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
    pub fn floats(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// The value that `dtype` stores for `x`.
pub fn rounded(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => half::round(x, dtype),
        DType::I64 => x as i64 as f64,
        DType::U8 => f64::from(x as i64 as u8),
        DType::I32 => f64::from(x as i64 as i32),
        DType::U32 => f64::from(x as i64 as u32),
        DType::Bool => f64::from(u8::from(x != 0.0)),
    }
}

pub fn to_bytes(values: &[f64], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|&v| (v as f32).to_ne_bytes()).collect(),
        DType::F64 => values.iter().flat_map(|&v| v.to_ne_bytes()).collect(),
        DType::I32 => values.iter().flat_map(|&v| (v as i32).to_ne_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|&v| (v as u32).to_ne_bytes()).collect(),
        DType::I64 => values.iter().flat_map(|&v| (v as i64).to_ne_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&v| half::f32_to_f16(v as f32).to_ne_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&v| half::f32_to_bf16(v as f32).to_ne_bytes()).collect(),
        DType::U8 => values.iter().map(|&v| v as u8).collect(),
        DType::Bool => values.iter().map(|&v| u8::from(v != 0.0)).collect(),
    }
}

pub fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let chunks = bytes.chunks_exact(dtype.size_bytes());
    match dtype {
        DType::F32 => chunks.map(|c| f64::from(f32::from_ne_bytes(c.try_into().unwrap()))).collect(),
        DType::F64 => chunks.map(|c| f64::from_ne_bytes(c.try_into().unwrap())).collect(),
        DType::I32 => chunks.map(|c| f64::from(i32::from_ne_bytes(c.try_into().unwrap()))).collect(),
        DType::U32 => chunks.map(|c| f64::from(u32::from_ne_bytes(c.try_into().unwrap()))).collect(),
        DType::I64 => chunks.map(|c| i64::from_ne_bytes(c.try_into().unwrap()) as f64).collect(),
        DType::F16 => chunks.map(|c| f64::from(half::f16_to_f32(u16::from_ne_bytes(c.try_into().unwrap())))).collect(),
        DType::BF16 => {
            chunks.map(|c| f64::from(half::bf16_to_f32(u16::from_ne_bytes(c.try_into().unwrap())))).collect()
        }
        DType::U8 | DType::Bool => bytes.iter().map(|&b| f64::from(b)).collect(),
    }
}

/// One instruction on plain numbers; `operand` is the dtype of its (last) operands.
pub fn prim(prim: Prim, operand: DType, result: DType, x: &[f64]) -> f64 {
    let truth = |b: bool| f64::from(u8::from(b));
    let (a, b) = (x[0], *x.get(1).unwrap_or(&0.0));
    let (ia, ib) = (a as i64, b as i64);
    let integer = !operand.is_float();
    let value = match prim {
        Prim::Neg => -a,
        Prim::Abs => a.abs(),
        Prim::Sqrt => a.sqrt(),
        Prim::Exp => a.exp(),
        Prim::Expm1 => a.exp_m1(),
        Prim::Log => a.ln(),
        Prim::Log1p => a.ln_1p(),
        Prim::Sin => a.sin(),
        Prim::Cos => a.cos(),
        Prim::Tanh => a.tanh(),
        Prim::Erf => c_erf(a),
        Prim::Floor => a.floor(),
        Prim::Ceil => a.ceil(),
        Prim::Round => a.round_ties_even(),
        Prim::Trunc => a.trunc(),
        Prim::Add if integer => ia.wrapping_add(ib) as f64,
        Prim::Sub if integer => ia.wrapping_sub(ib) as f64,
        // Low words agree whatever the sign, and they fit a float.
        Prim::Mul if integer => f64::from(ia.wrapping_mul(ib) as u32),
        Prim::Div if integer => ia.checked_div(ib).unwrap_or(0) as f64,
        Prim::Rem if integer => ia.checked_rem(ib).unwrap_or(0) as f64,
        Prim::Add => a + b,
        Prim::Sub => a - b,
        Prim::Mul => a * b,
        Prim::Div => a / b,
        Prim::Rem => a % b,
        Prim::Pow => a.powf(b),
        Prim::Min | Prim::Max if a.is_nan() || b.is_nan() => f64::NAN,
        Prim::Min => a.min(b),
        Prim::Max => a.max(b),
        Prim::Lt => truth(a < b),
        Prim::Le => truth(a <= b),
        Prim::Eq => truth(a == b),
        Prim::Ne => truth(a != b),
        Prim::And => (ia & ib) as f64,
        Prim::Or => (ia | ib) as f64,
        Prim::Xor => (ia ^ ib) as f64,
        Prim::Not if operand == DType::Bool => 1.0 - a,
        Prim::Not => !ia as f64,
        Prim::Shl => f64::from((ia as u32) << (ib & 31)),
        Prim::Shr => (ia >> (ib & 31)) as f64,
        Prim::Select => {
            if a != 0.0 {
                b
            } else {
                x[2]
            }
        }
        Prim::Cast => return cast(a, operand, result),
        Prim::RoundF16 => half::round(a, DType::F16),
        Prim::RoundBf16 => half::round(a, DType::BF16),
        Prim::Threefry => f64::from(threefry(a as u32, b as u32, x[2] as u32)),
    };
    rounded(value, result)
}

fn cast(a: f64, from: DType, to: DType) -> f64 {
    match to {
        DType::I32 if from.is_float() => f64::from(a as i32),
        DType::U32 if from.is_float() => f64::from(a as u32),
        _ => rounded(a, to),
    }
}

fn threefry(key0: u32, key1: u32, counter: u32) -> u32 {
    let keys = [key0, key1, 0x1bd1_1bda ^ key0 ^ key1];
    let (mut x, mut y) = (counter.wrapping_add(key0), key1);
    for round in 0..20 {
        let turn = [13, 15, 26, 6, 17, 29, 16, 24][round % 8];
        x = x.wrapping_add(y);
        y = y.rotate_left(turn) ^ x;
        if round % 4 == 3 {
            let s = round / 4 + 1;
            x = x.wrapping_add(keys[s % 3]);
            y = y.wrapping_add(keys[(s + 1) % 3]).wrapping_add(s as u32);
        }
    }
    x
}

/// Every index of a space, row-major.
fn indices(sizes: &[usize]) -> Vec<Vec<usize>> {
    let n: usize = sizes.iter().product();
    (0..n)
        .map(|mut flat| {
            let mut index = vec![0; sizes.len()];
            for (i, &size) in index.iter_mut().zip(sizes).rev() {
                *i = flat % size;
                flat /= size;
            }
            index
        })
        .collect()
}

fn position(view: &View, kept: &[usize], reduced: &[usize]) -> i64 {
    let dot = |strides: &[i64], index: &[usize]| strides.iter().zip(index).map(|(&s, &i)| s * i as i64).sum::<i64>();
    view.offset + dot(&view.kept, kept) + dot(&view.reduced, reduced)
}

fn reduce(op: ReduceOp, values: &[f64], dtype: DType) -> f64 {
    let least = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => f64::NEG_INFINITY,
        DType::I64 => i64::MIN as f64,
        DType::I32 => f64::from(i32::MIN),
        DType::U32 | DType::U8 | DType::Bool => 0.0,
    };
    let greatest = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => f64::INFINITY,
        DType::I64 => i64::MAX as f64,
        DType::U8 => f64::from(u8::MAX),
        DType::I32 => f64::from(i32::MAX),
        DType::U32 => f64::from(u32::MAX),
        DType::Bool => 1.0,
    };
    let wrapping = |step: fn(i64, i64) -> i64, start: i64| {
        let bits = values.iter().fold(start, |s, &v| i64::from(step(s, v as i64) as u32));
        if dtype == DType::I32 { f64::from(bits as i32) } else { bits as f64 }
    };
    match op {
        ReduceOp::Max | ReduceOp::Min if values.iter().any(|v| v.is_nan()) => f64::NAN,
        ReduceOp::Max => values.iter().fold(least, |m, &v| m.max(v)),
        ReduceOp::Min => values.iter().fold(greatest, |m, &v| m.min(v)),
        ReduceOp::ArgMax => {
            let nan = values.iter().position(|v| v.is_nan());
            let best = values.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
            nan.or_else(|| values.iter().position(|&v| v == best)).unwrap_or(0) as f64
        }
        ReduceOp::Sum if dtype == DType::Bool => values.iter().fold(0.0, |m, &v| m.max(v)),
        ReduceOp::Prod if dtype == DType::Bool => values.iter().fold(1.0, |m, &v| m.min(v)),
        ReduceOp::Sum if dtype.is_integer() => wrapping(i64::wrapping_add, 0),
        ReduceOp::Prod if dtype.is_integer() => wrapping(i64::wrapping_mul, 1),
        ReduceOp::Sum => rounded(values.iter().sum(), dtype),
        ReduceOp::Prod => rounded(values.iter().product(), dtype),
    }
}

/// Evaluate a kernel over buffers given as numbers; loads see the contents from before the kernel.
pub fn interpret(kernel: &RowKernel, buffers: &[Buffer], memory: &mut [Vec<f64>]) {
    let before = memory.to_vec();
    let reduced = indices(&kernel.reduced);
    for kept in indices(&kernel.kept) {
        let mut values: Vec<Vec<f64>> = Vec::new();
        for step in &kernel.steps {
            // A kept value is the same for every reduced index (and exists when there is none).
            let points: &[Vec<usize>] = &reduced;
            let nowhere = [vec![0; kernel.reduced.len()]];
            let points = if step.level == Level::Kept { &nowhere[..] } else { points };
            let at = |reg: Reg, i: usize| {
                let value = &values[reg.0 as usize];
                if value.len() == 1 { value[0] } else { value[i] }
            };
            let dtype = |reg: Reg| kernel.steps[reg.0 as usize].dtype;
            let value: Vec<f64> = match &step.instr {
                Instr::Load { buffer, view } => {
                    points.iter().map(|r| before[buffer.0 as usize][position(view, &kept, r) as usize]).collect()
                }
                Instr::Const(scalar) => vec![rounded(scalar.to_f64(), step.dtype)],
                Instr::Index(view) => {
                    points.iter().map(|r| rounded(position(view, &kept, r) as f64, step.dtype)).collect()
                }
                Instr::Prim { prim: p, args } => {
                    let args = &args[..p.arity()];
                    let operand = dtype(*args.last().unwrap());
                    let each = |i| prim(*p, operand, step.dtype, &args.iter().map(|&a| at(a, i)).collect::<Vec<_>>());
                    (0..points.len()).map(each).collect()
                }
                Instr::Reduce { op, arg } => {
                    let all: Vec<f64> = (0..reduced.len()).map(|i| at(*arg, i)).collect();
                    vec![reduce(*op, &all, dtype(*arg))]
                }
                Instr::Store { buffer, view, value } => {
                    assert_eq!(buffers[buffer.0 as usize].dtype, step.dtype);
                    for (i, r) in points.iter().enumerate() {
                        memory[buffer.0 as usize][position(view, &kept, r) as usize] = at(*value, i);
                    }
                    vec![]
                }
            };
            values.push(value);
        }
    }
}

/// Builds a program of one row kernel.
pub struct Build {
    pub buffers: Vec<Buffer>,
    pub data: Vec<Vec<f64>>,
    pub kernel: RowKernel,
}

impl Build {
    pub fn new(kept: &[usize], reduced: &[usize], order: Order) -> Build {
        let kernel = RowKernel { kept: kept.to_vec(), reduced: reduced.to_vec(), order, steps: Vec::new() };
        Build { buffers: Vec::new(), data: Vec::new(), kernel }
    }

    pub fn n_kept(&self) -> usize {
        self.kernel.kept.iter().product()
    }

    pub fn n_reduced(&self) -> usize {
        self.kernel.reduced.iter().product()
    }

    fn count(&self, wanted: impl Fn(&Place) -> bool) -> usize {
        self.buffers.iter().filter(|b| wanted(&b.place)).count()
    }

    fn next_input(&self) -> usize {
        self.count(|p| matches!(p, Place::Input(_) | Place::InPlace { .. }))
    }

    fn next_output(&self) -> usize {
        self.count(|p| matches!(p, Place::Output(_) | Place::InPlace { .. }))
    }

    pub fn input(&mut self, dtype: DType, data: Vec<f64>) -> BufferId {
        let place = Place::Input(self.next_input());
        self.buffer(dtype, data, place)
    }

    pub fn output(&mut self, dtype: DType, elements: usize) -> BufferId {
        let place = Place::Output(self.next_output());
        self.buffer(dtype, vec![0.0; elements], place)
    }

    pub fn in_place(&mut self, dtype: DType, data: Vec<f64>) -> BufferId {
        let place = Place::InPlace { input: self.next_input(), output: self.next_output() };
        self.buffer(dtype, data, place)
    }

    fn buffer(&mut self, dtype: DType, data: Vec<f64>, place: Place) -> BufferId {
        self.buffers.push(Buffer { dtype, elements: data.len(), place });
        self.data.push(data.into_iter().map(|v| rounded(v, dtype)).collect());
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// Row-major over kept × reduced (or reduced × kept for lanes).
    pub fn full_view(&self) -> View {
        let (kept, reduced) = (strides(&self.kernel.kept), strides(&self.kernel.reduced));
        let scale = |strides: Vec<i64>, by: usize| strides.into_iter().map(|s| s * by as i64).collect();
        match self.kernel.order {
            Order::Row => View { offset: 0, kept: scale(kept, self.n_reduced()), reduced },
            Order::Column => View { offset: 0, kept, reduced: scale(reduced, self.n_kept()) },
        }
    }

    pub fn kept_view(&self) -> View {
        View { offset: 0, kept: strides(&self.kernel.kept), reduced: vec![0; self.kernel.reduced.len()] }
    }

    pub fn step(&mut self, instr: Instr, dtype: DType, level: Level, pass: u32) -> Reg {
        self.kernel.steps.push(Step { instr, dtype, level, pass });
        Reg(self.kernel.steps.len() as u32 - 1)
    }

    fn dtype(&self, reg: Reg) -> DType {
        self.kernel.steps[reg.0 as usize].dtype
    }

    pub fn load(&mut self, buffer: BufferId, view: View, level: Level, pass: u32) -> Reg {
        self.step(Instr::Load { buffer, view }, self.buffers[buffer.0 as usize].dtype, level, pass)
    }

    pub fn constant(&mut self, value: f64, dtype: DType) -> Reg {
        self.step(Instr::Const(Scalar::of(value, dtype)), dtype, Level::Kept, 0)
    }

    /// Level and pass follow from the operands.
    pub fn prim_to(&mut self, prim: Prim, operands: &[Reg], dtype: DType) -> Reg {
        let (mut level, mut pass) = (Level::Kept, 0);
        for reg in operands {
            let step = &self.kernel.steps[reg.0 as usize];
            level = level.min(step.level);
            pass = pass.max(step.pass + u32::from(matches!(step.instr, Instr::Reduce { .. })));
        }
        let mut args = [operands[0]; 3];
        args[..operands.len()].copy_from_slice(operands);
        self.step(Instr::Prim { prim, args }, dtype, level, pass)
    }

    pub fn prim(&mut self, prim: Prim, operands: &[Reg]) -> Reg {
        let dtype = if prim.is_comparison() { DType::Bool } else { self.dtype(*operands.last().unwrap()) };
        self.prim_to(prim, operands, dtype)
    }

    pub fn reduce(&mut self, op: ReduceOp, arg: Reg) -> Reg {
        let dtype = if op == ReduceOp::ArgMax { DType::I32 } else { self.dtype(arg) };
        let pass = self.kernel.steps[arg.0 as usize].pass;
        self.step(Instr::Reduce { op, arg }, dtype, Level::Kept, pass)
    }

    pub fn store(&mut self, buffer: BufferId, view: View, value: Reg, level: Level) {
        let step = &self.kernel.steps[value.0 as usize];
        let pass = step.pass + u32::from(matches!(step.instr, Instr::Reduce { .. }));
        self.step(Instr::Store { buffer, view, value }, self.dtype(value), level, pass);
    }

    /// Store to a fresh output.
    pub fn put(&mut self, value: Reg, level: Level) {
        let (n, view) = match level {
            Level::Full => (self.n_kept() * self.n_reduced(), self.full_view()),
            Level::Kept => (self.n_kept(), self.kept_view()),
        };
        let buffer = self.output(self.dtype(value), n);
        self.store(buffer, view, value, level);
    }

    pub fn program(&self) -> Program {
        program(&self.buffers, vec![Kernel::Row(self.kernel.clone())], 0)
    }

    /// Run on a device and compare with the truth. Returns the output bytes.
    pub fn check(&self, device: &dyn Device, tolerance: f64) -> Vec<Vec<u8>> {
        let program = self.program();
        let mut truth = self.data.clone();
        interpret(&self.kernel, &self.buffers, &mut truth);
        let got = run(device, &program, &self.data).unwrap();
        for (o, (bytes, id)) in got.iter().zip(&program.outputs).enumerate() {
            let dtype = self.buffers[id.0 as usize].dtype;
            compare(&from_bytes(bytes, dtype), &truth[id.0 as usize], dtype, tolerance, &format!("output {o}"));
        }
        got
    }
}

/// Numbers agree: exactly for integers, within a relative or absolute tolerance for floats.
pub fn compare(got: &[f64], truth: &[f64], dtype: DType, tolerance: f64, what: &str) {
    assert_eq!(got.len(), truth.len(), "{what}");
    for (i, (&g, &t)) in got.iter().zip(truth).enumerate() {
        let same = g == t || (g.is_nan() && t.is_nan());
        let near = dtype.is_float() && (g - t).abs() <= tolerance * t.abs().max(1.0);
        assert!(same || near, "{what}, element {i}: {g:e} instead of {t:e}");
    }
}

pub fn strides(sizes: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis] as i64;
    }
    strides
}

pub fn buffer(dtype: DType, elements: usize, place: Place) -> Buffer {
    Buffer { dtype, elements, place }
}

/// A product of two fresh operands, of which either may lie transposed, and its buffers: the operands and the result.
pub fn product(
    dtype: DType,
    batch: &[usize],
    [m, k, n]: [usize; 3],
    transposed: [bool; 2],
) -> (DotKernel, Vec<Buffer>) {
    let n_batch: usize = batch.iter().product();
    let view = |id: u32, rows: usize, columns: usize, transposed: bool| {
        let batch = strides(batch).iter().map(|s| s * (rows * columns) as i64).collect();
        let (r, c) = if transposed { (1, rows as i64) } else { (columns as i64, 1) };
        MatrixView { buffer: BufferId(id), offset: 0, batch, rows: r, columns: c }
    };
    let (left, right) = (view(0, m, k, transposed[0]), view(1, k, n, transposed[1]));
    let buffers = vec![
        buffer(dtype, n_batch * m * k, Place::Input(0)),
        buffer(dtype, n_batch * k * n, Place::Input(1)),
        buffer(dtype, n_batch * m * n, Place::Output(0)),
    ];
    (DotKernel { dtype, batch: batch.to_vec(), m, k, n, left, right, out: BufferId(2) }, buffers)
}

pub fn program(buffers: &[Buffer], kernels: Vec<Kernel>, arena_bytes: usize) -> Program {
    let by = |position: fn(Place) -> Option<usize>| {
        let mut found: Vec<(usize, BufferId)> =
            buffers.iter().enumerate().filter_map(|(i, b)| Some((position(b.place)?, BufferId(i as u32)))).collect();
        found.sort_unstable_by_key(|&(position, _)| position);
        found.into_iter().map(|(_, id)| id).collect()
    };
    let inputs = by(|place| match place {
        Place::Input(input) | Place::InPlace { input, .. } => Some(input),
        _ => None,
    });
    let outputs = by(|place| match place {
        Place::Output(output) | Place::InPlace { output, .. } => Some(output),
        _ => None,
    });
    Program { buffers: buffers.to_vec(), kernels, inputs, outputs, arena_bytes }
}

/// Run a program on numbers by buffer; outputs come back as bytes.
pub fn run(device: &dyn Device, program: &Program, data: &[Vec<f64>]) -> Result<Vec<Vec<u8>>> {
    let mut loaded = device.load(Arc::new(program.clone()))?;
    let inputs: Vec<Memory> = program
        .inputs
        .iter()
        .map(|id| device.upload(&to_bytes(&data[id.0 as usize], program.buffers[id.0 as usize].dtype)))
        .collect::<Result<_>>()?;
    let outputs = loaded.run(inputs)?;
    outputs.iter().map(|memory| read(device, memory)).collect()
}

pub fn read(device: &dyn Device, memory: &Memory) -> Result<Vec<u8>> {
    let mut bytes = vec![0; memory.bytes];
    device.download(memory, &mut bytes)?;
    Ok(bytes)
}
