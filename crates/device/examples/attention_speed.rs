//! Causal attention and its gradient on the CPU device, in tiles and expanded, best of many runs, with the bytes of
//! temporaries: `cargo run --release -p raphson-device --example attention_speed`.

use raphson_compile::compile_for;
use raphson_compile::program::Fused;
use raphson_device::cpu::Cpu;
use raphson_device::{Device, Memory};
use raphson_graph::derivative::vjp;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Result;
use raphson_graph::flat::{Graph, flatten};
use raphson_graph::op::attention::Attention;
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use std::sync::Arc;
use std::time::Instant;

/// Output alone, or output and gradient.
fn graph(batch: usize, length: usize, width: usize, gradient: bool) -> Result<Graph> {
    let x: Vec<Value> = (0..4).map(|_| Value::input(Shape::from([batch, length, width]), DType::F32)).collect();
    let options = Attention { causal: true, scale: Scalar::Float(1.0 / (width as f64).sqrt()) };
    let out = x[0].attention(&x[1], &x[2], None, options)?;
    let mut outputs = vec![out.clone()];
    if gradient {
        outputs.extend(vjp(&[out], &x[..3], &x[3..])?);
    }
    Ok(flatten(&x, &outputs)?.graph)
}

/// Best time in ms, and the bytes of temporaries.
fn best(cpu: &Cpu, graph: &Graph, fused: &Fused) -> Result<(f64, usize)> {
    let program = Arc::new(compile_for(graph, &[false; 4], fused)?);
    let upload = |buffer: usize| {
        let bytes: Vec<u8> = (0..graph.nodes[graph.inputs[buffer] as usize].shape.elements())
            .flat_map(|i| (((i * (buffer + 7)) % 1013) as f32 * 2e-3 - 1.0).to_ne_bytes())
            .collect();
        cpu.upload(&bytes)
    };
    let inputs = (0..4).map(upload).collect::<Result<Vec<Memory>>>()?;
    let arena = program.arena_bytes;
    let mut loaded = cpu.load(program)?;
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        loaded.run(inputs.clone())?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((best, arena))
}

fn main() -> Result<()> {
    let cpu = Cpu::new(None)?;
    println!("{}", cpu.describe().name);
    for (batch, length, width) in [(32, 64, 32), (32, 128, 32), (32, 512, 64), (2, 2048, 64)] {
        for gradient in [false, true] {
            let graph = graph(batch, length, width, gradient)?;
            let (tiled, expanded) = (best(&cpu, &graph, &cpu.fused())?, best(&cpu, &graph, &Fused::NONE)?);
            println!(
                "{batch} × {length} × {width}{}: {:.2} ms and {} KiB in tiles, {:.2} ms and {} KiB expanded",
                if gradient { " with gradient" } else { "" },
                tiled.0,
                tiled.1 / 1024,
                expanded.0,
                expanded.1 / 1024
            );
        }
    }
    Ok(())
}
