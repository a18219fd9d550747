//! Writes sample kernels, as the cuda device prints them, to a folder: `cargo run -p raphson-check --example print_ptx --
//! FOLDER`. One module for each sample, named after what it does; the kernels of a whole training step are numbered.
//! `cargo xtask ptxas` assembles them.

use raphson_check::step::adam_step;
use raphson_compile::compile;
use raphson_compile::program::{BufferId, DotKernel, Kernel, MatrixView};
use raphson_device::cuda::print::dot::{PerThread, print_with};
use raphson_device::cuda::print::{Launch, print_program};
use raphson_graph::dtype::DType::{self, BF16, F16, F32, F64, I32, I64, U8, U32};
use raphson_graph::error::{Error, Result};
use raphson_graph::flat::flatten;
use raphson_graph::op::elementwise::{ROWS, Row, apply};
use raphson_graph::op::reduce::ReduceOp;
use raphson_graph::value::Value;
use raphson_optim::alpha::{Rule, Spec};
use std::path::{Path, PathBuf};

type Samples = Vec<(String, Launch)>;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| Error::argument("print_ptx", "name a folder to write to"))?;
    let mut samples = Samples::new();
    functions(&mut samples)?;
    movement(&mut samples)?;
    rows_and_columns(&mut samples)?;
    storage(&mut samples)?;
    indexed(&mut samples)?;
    products(&mut samples)?;
    for rule in [Rule::Next, Rule::Exact] {
        training_step(&mut samples, rule)?;
    }
    write(&folder, &samples)?;
    println!("{} samples in {}", samples.len(), folder.display());
    Ok(())
}

fn write(folder: &Path, samples: &Samples) -> Result<()> {
    let failed = |error: std::io::Error| Error::argument("print_ptx", format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    for (name, launch) in samples {
        std::fs::write(folder.join(format!("{name}.ptx")), &launch.text).map_err(failed)?;
    }
    Ok(())
}

/// Compile a graph and keep its launches under a name, numbered if there are several.
fn sample(samples: &mut Samples, name: &str, inputs: &[Value], outputs: &[Value]) -> Result<()> {
    let graph = flatten(inputs, outputs)?.graph;
    let launches: Vec<Launch> = print_program(&compile(&graph, &vec![false; inputs.len()])?)?.concat();
    let several = launches.len() > 1;
    for (number, launch) in launches.into_iter().enumerate() {
        let name = if several { format!("{name} {}", number + 1) } else { name.to_string() };
        samples.push((name, launch));
    }
    Ok(())
}

/// Every elementwise row over many elements, in the first dtypes that it takes.
fn functions(samples: &mut Samples) -> Result<()> {
    for row in ROWS {
        for dtype in [F32, F64, I32] {
            if row.accept.takes(dtype) && (dtype != I32 || !row.accept.takes(F32)) {
                function(samples, row, dtype)?;
            }
        }
        if !row.accept.takes(I32) && !row.accept.takes(F32) {
            function(samples, row, U32)?;
        }
    }
    Ok(())
}

fn function(samples: &mut Samples, row: &'static Row, dtype: DType) -> Result<()> {
    let first = row.arity == 3 && row.name == "select";
    let dtype_of = |operand: usize| if first && operand == 0 { DType::Bool } else { dtype };
    let inputs: Vec<Value> = (0..row.arity).map(|i| Value::input([1 << 20].into(), dtype_of(i))).collect();
    let y = apply(row, &inputs.iter().collect::<Vec<_>>())?;
    sample(samples, &format!("{} {dtype}", row.name), &inputs, &[y])
}

fn movement(samples: &mut Samples) -> Result<()> {
    let (x, bias) = (Value::input([4096, 1000].into(), F32), Value::input([1000].into(), F32));
    sample(samples, "add row", &[x.clone(), bias.clone()], &[x.add(&bias)?])?;
    let y = Value::input([1000, 4096].into(), F32);
    sample(samples, "add transposed", &[x.clone(), y.clone()], &[x.add(&y.transpose()?)?])?;
    let odd = Value::input([999_999].into(), F32);
    sample(samples, "add odd", std::slice::from_ref(&odd), &[odd.add(&odd)?])?;
    // More elements than 32 bits count.
    let wide = Value::input([3, 1 << 30].into(), F32);
    let column = Value::input([3, 1].into(), F32);
    sample(samples, "add wide", &[wide.clone(), column.clone()], &[wide.add(&column)?])?;
    let four = Value::input([16, 30, 40, 50].into(), F32);
    let permuted = four.permute(&[3, 1, 0, 2])?.flip(&[1])?.alias();
    sample(samples, "permute 4 axes", std::slice::from_ref(&four), &[permuted.shift(1.0)?])
}

/// x − spread(sum), over the axis.
fn spread(value: &Value, axis: usize, like: &Value) -> Result<Value> {
    value.expand_reduced(&[axis], like.shape())
}

fn softmax(x: &Value, axis: usize) -> Result<Value> {
    let power = x.sub(&spread(&x.reduce(ReduceOp::Max, &[axis])?, axis, x)?)?.exp()?;
    power.div(&spread(&power.sum(&[axis])?, axis, x)?)
}

fn layer_norm(x: &Value, axis: usize) -> Result<Value> {
    let each = 1.0 / x.shape()[axis] as f64;
    let centred = x.sub(&spread(&x.sum(&[axis])?.scale(each)?, axis, x)?)?;
    let variance = centred.mul(&centred)?.sum(&[axis])?.scale(each)?;
    centred.mul(&spread(&variance.shift(1e-5)?.rsqrt()?, axis, x)?)
}

fn rows_and_columns(samples: &mut Samples) -> Result<()> {
    for [rows, length] in [[100_000, 10], [4096, 64], [4096, 1000], [64, 32_768]] {
        let x = Value::input([rows, length].into(), F32);
        let inputs = std::slice::from_ref(&x);
        let size = format!("{rows}×{length}");
        sample(samples, &format!("softmax rows {size}"), inputs, &[softmax(&x, 1)?])?;
        sample(samples, &format!("layer norm rows {size}"), inputs, &[layer_norm(&x, 1)?])?;
        sample(samples, &format!("argmax rows {size}"), inputs, &[x.reduce(ReduceOp::ArgMax, &[1])?])?;
        sample(samples, &format!("sum columns {size}"), inputs, &[x.sum(&[0])?])?;
        sample(samples, &format!("softmax columns {size}"), inputs, &[softmax(&x, 0)?])?;
    }
    for (op, dtype) in [(ReduceOp::Sum, F64), (ReduceOp::Prod, F32), (ReduceOp::Min, F32), (ReduceOp::Max, I32)] {
        let x = Value::input([4096, 1000].into(), dtype);
        let y = x.reduce(op, &[1])?;
        sample(samples, &format!("{} rows {dtype}", op.name()), &[x], &[y])?;
    }
    let x = Value::input([1 << 22].into(), F32);
    let y = x.sum_all()?;
    sample(samples, "sum of all", &[x], &[y])
}

/// What memory holds in another form than registers do, and 64-bit integers.
fn storage(samples: &mut Samples) -> Result<()> {
    for dtype in [F16, BF16] {
        let x = Value::input([4096, 1000].into(), dtype);
        let inputs = std::slice::from_ref(&x);
        sample(samples, &format!("softmax rows {dtype}"), inputs, &[softmax(&x, 1)?])?;
        sample(samples, &format!("sum columns {dtype}"), inputs, &[x.sum(&[0])?])?;
        sample(samples, &format!("cast {dtype} to f32"), inputs, &[x.cast(F32)?])?;
        let wide = Value::input([4096, 1000].into(), F32);
        sample(samples, &format!("cast f32 to {dtype}"), std::slice::from_ref(&wide), &[wide.cast(dtype)?])?;
    }
    let (bytes, longs) = (Value::input([1 << 20].into(), U8), Value::input([1 << 20].into(), I64));
    let image = bytes.cast(F32)?.scale(1.0 / 255.0)?;
    sample(samples, "scale u8", std::slice::from_ref(&bytes), &[image])?;
    sample(samples, "rem i64", std::slice::from_ref(&longs), &[longs.rem(&longs.like(10.0))?])
}

fn indexed(samples: &mut Samples) -> Result<()> {
    // Runs of one block each, and what merges them.
    for dtype in [F32, F64] {
        let x = Value::input([4, 5000].into(), dtype);
        let order = x.argsort(1, false)?;
        sample(samples, &format!("argsort {dtype}"), &[x], &[order])?;
    }
    let indices = Value::input([4096].into(), I32);
    for inner in [1, 10, 768] {
        let table = Value::input([50_000, inner].into(), F32);
        let picked = table.gather(&indices, 0)?;
        sample(samples, &format!("gather inner {inner}"), &[table, indices.clone()], &[picked])?;
        let updates = Value::input([4096, inner].into(), F32);
        let sums = updates.scatter_add(&indices, 0, 50_000)?;
        sample(samples, &format!("scatter-add inner {inner}"), &[updates, indices.clone()], &[sums])?;
    }
    Ok(())
}

fn products(samples: &mut Samples) -> Result<()> {
    let matrix = |buffer, columns: i64| MatrixView {
        buffer: BufferId(buffer),
        offset: 0,
        batch: vec![1_000_000],
        rows: columns,
        columns: 1,
    };
    for dtype in [F32, F64, I32] {
        for per_thread in [PerThread::One, PerThread::Two, PerThread::Four, PerThread::Eight] {
            // Whole tiles need no bounds; ragged ones do.
            for (size, what) in [(1024, "whole"), (1001, "ragged")] {
                let (left, right) = (matrix(0, size as i64), matrix(1, size as i64));
                let (m, k, n) = (size, size, size);
                let kernel = DotKernel { dtype, batch: vec![2], m, k, n, left, right, out: BufferId(2) };
                if dtype == F64 && per_thread == PerThread::Eight {
                    continue;
                }
                let launch = print_with(&kernel, per_thread)?;
                let name = format!("dot {dtype} tile {} {what}", 16 * per_thread as usize);
                samples.extend(launch.map(|launch| (name, launch)));
            }
        }
    }
    Ok(())
}

/// Every kernel but the products of a training step: embedding, layer norm, two layers, cross-entropy, Adam.
fn training_step(samples: &mut Samples, rule: Rule) -> Result<()> {
    const BATCH: usize = 256;
    let shapes: [&[usize]; 5] = [&[5000, 256], &[256, 512], &[512], &[512, 100], &[100]];
    let params: Vec<Value> = shapes.iter().map(|&shape| Value::input(shape.into(), F32)).collect();
    let words = Value::input([BATCH].into(), I32);
    let targets = Value::input([BATCH, 100].into(), F32);
    let hidden = layer_norm(&params[0].gather(&words, 0)?, 1)?.dot(&params[1])?.add(&params[2])?.gelu()?;
    let logits = hidden.dot(&params[3])?.add(&params[4])?;
    let likelihood = logits.sub(&spread(&logits.exp()?.sum(&[1])?.log()?, 1, &logits)?)?;
    let loss = likelihood.mul(&targets)?.sum_all()?.scale(-1.0 / BATCH as f64)?;
    let step = adam_step(&Spec::defaults(rule), &loss, &params, &[words, targets])?;
    let graph = flatten(&step.inputs, &step.outputs)?.graph;
    let program = compile(&graph, &vec![false; step.inputs.len()])?;
    let launches = print_program(&program)?;
    let fused = program.kernels.iter().zip(launches).filter(|(kernel, _)| !matches!(kernel, Kernel::Dot(_)));
    let name = format!("{rule:?}").to_lowercase();
    for (number, launch) in fused.flat_map(|(_, launches)| launches).enumerate() {
        samples.push((format!("training step {name} {:02}", number + 1), launch));
    }
    Ok(())
}
