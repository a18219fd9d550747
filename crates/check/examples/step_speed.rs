//! Times a whole training step on the CPU, rule by rule: an MLP 784-512-512-10, batch 128, Adam, interleaved so that a busy
//! machine slows all alike. `cargo run --release -p raphson-check --example step_speed -- next exact`; with
//! `RAPHSON_PROFILE=1` each program's kernels are listed. The benchmark of the package itself is `bench/overhead.ts`.

use raphson_check::models;
use raphson_check::step::Running;
use raphson_device::Device;
use raphson_device::cpu::Cpu;
use raphson_graph::error::Result;
use raphson_optim::alpha::{Rule, Spec};
use std::time::Instant;

const ROUNDS: usize = 25;
const STEPS: usize = 8;

/// One rule's step, and its times.
struct Runner {
    rule: Rule,
    step: Running,
    ms: Vec<f64>,
}

impl Runner {
    fn new(device: &dyn Device, rule: Rule) -> Result<Runner> {
        let spec = Spec { initial: 1e-3, min: 1e-8, max: 1e-2, ..Spec::defaults(rule) };
        let step = Running::new(device, &models::mlp(&[784, 512, 512, 10], 128)?, &spec)?;
        Ok(Runner { rule, step, ms: Vec::new() })
    }

    fn steps(&mut self, n: usize) -> Result<()> {
        let start = Instant::now();
        (0..n).try_for_each(|_| self.step.run())?;
        self.ms.push(start.elapsed().as_secs_f64() * 1e3 / n as f64);
        Ok(())
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() -> Result<()> {
    let device = Cpu::new(None)?;
    println!("{}", device.describe().name);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wanted = if wanted.is_empty() { vec!["next".to_string()] } else { wanted };
    let mut runners = vec![Runner::new(&device, Rule::Constant)?];
    for name in &wanted {
        runners.push(Runner::new(&device, Rule::named(name)?)?);
    }
    for runner in &mut runners {
        runner.steps(5)?;
        runner.ms.clear();
    }
    for _ in 0..ROUNDS {
        runners.iter_mut().try_for_each(|runner| runner.steps(STEPS))?;
    }
    let constant = runners[0].ms.clone();
    for runner in &runners {
        let ratios = runner.ms.iter().zip(&constant).map(|(ms, constant)| ms / constant).collect();
        let (ms, ratio) = (median(runner.ms.clone()), median(ratios));
        println!("{:10} {ms:.3} ms, {ratio:.3} × constant", runner.rule.name());
    }
    Ok(())
}
