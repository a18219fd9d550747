//! Evaluation: queueing work, reading results, compiled graphs, and what the environment says about itself.

use crate::convert::count;
use crate::promise::{Bytes, promise};
use crate::state::call;
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use raphson_graph::error::Result;
use raphson_session::ProgramId;

/// Counters of the environment.
#[napi(object)]
pub struct Stats {
    pub device: String,
    pub tensors: f64,
    pub live_bytes: f64,
    pub pooled_bytes: f64,
    pub programs: f64,
    pub program_hits: f64,
    pub program_misses: f64,
    pub runs: f64,
}

/// The counters.
#[napi]
pub fn stats() -> napi::Result<Stats> {
    call("stats", |state| {
        let stats = state.session.stats();
        Ok(Stats {
            device: state.session.chosen().spec.clone(),
            tensors: state.handles.live() as f64,
            live_bytes: stats.live_bytes as f64,
            pooled_bytes: stats.pooled_bytes as f64,
            programs: stats.programs as f64,
            program_hits: stats.program_hits as f64,
            program_misses: stats.program_misses as f64,
            runs: stats.runs as f64,
        })
    })
}

/// Resolves when everything queued so far has run.
#[napi(ts_return_type = "Promise<void>")]
pub fn synchronize(env: &Env) -> napi::Result<Object<'_>> {
    promise::<()>(env, |settle| {
        call("synchronize", |state| {
            state.session.then(Box::new(|device| settle.settle("synchronize", device.map(drop), |_, ()| Ok(()))));
            Ok(())
        })
    })
}

/// Queue the work; returns at once.
#[napi]
pub fn evaluate(env: Env, handles: Vec<f64>) -> napi::Result<()> {
    call("evaluate", |state| {
        let values = state.handles.get_all("evaluate", &handles)?;
        state.session.evaluate(&values)?;
        state.report_memory(&env)
    })
}

/// The element bytes of these values, row-major, one value after another.
#[napi(ts_return_type = "Promise<Uint8Array>")]
pub fn read(env: &Env, handles: Vec<f64>) -> napi::Result<Object<'_>> {
    promise::<Bytes>(env, |settle| {
        call("read", |state| {
            let values = state.handles.get_all("read", &handles)?;
            let then = move |outcome: Result<Vec<Vec<u8>>>| {
                let row = outcome.map(|all| <[Vec<u8>; 1]>::try_from(all).map_or_else(|all| all.concat(), |[one]| one));
                settle.settle("read", row, |_, row| Ok(Bytes(row)));
            };
            state.session.read_then(&values, Box::new(then))
        })
    })
}

/// The element bytes where nobody has to wait for them and they are few.
#[napi(ts_return_type = "Uint8Array | null")]
pub fn read_at_once(h: f64) -> napi::Result<Option<Bytes>> {
    call("read", |state| {
        let value = state.handles.get("read", h)?.clone();
        Ok(state.session.bytes_at_once(&value)?.map(Bytes))
    })
}

/// The same, waiting for it.
#[napi(ts_return_type = "Uint8Array")]
pub fn read_sync(h: f64) -> napi::Result<Bytes> {
    call("read", |state| {
        let value = state.handles.get("read", h)?.clone();
        state.session.read(&value).map(Bytes)
    })
}

/// Compile a graph of placeholders for repeated runs; gives its number.
#[napi]
pub fn compile_program(inputs: Vec<f64>, outputs: Vec<f64>, donate: Vec<bool>) -> napi::Result<f64> {
    call("compile", |state| {
        let inputs = state.handles.get_all("compile", &inputs)?;
        let outputs = state.handles.get_all("compile", &outputs)?;
        Ok(f64::from(state.session.compile(&inputs, &outputs, &donate)?.0))
    })
}

/// The program of this number.
pub fn program_id(number: f64) -> Result<ProgramId> {
    // A number too large is no program's, and so is the largest.
    Ok(ProgramId(u32::try_from(count("run", "the program", number)?).unwrap_or(u32::MAX)))
}

/// Queue a run; gives its results. Donated inputs can only be disposed of afterwards.
#[napi]
pub fn run_program(env: Env, program: f64, inputs: Vec<f64>) -> napi::Result<Vec<f64>> {
    call("run", |state| {
        let inputs = state.handles.get_all("run", &inputs)?;
        let outputs = state.session.run(program_id(program)?, &inputs)?;
        state.report_memory(&env)?;
        state.handles.add_all(outputs)
    })
}

/// What a compiled graph amounts to.
#[napi(object)]
pub struct ProgramStats {
    pub kernels: f64,
    pub arena_bytes: f64,
    pub peak_bytes: f64,
    pub inputs: f64,
    pub outputs: f64,
    pub nodes: f64,
}

/// What a compiled graph amounts to.
#[napi]
pub fn program_stats(program: f64) -> napi::Result<ProgramStats> {
    call("programStats", |state| {
        let stats = state.session.program_stats(program_id(program)?)?;
        Ok(ProgramStats {
            kernels: stats.kernels as f64,
            arena_bytes: stats.arena_bytes as f64,
            peak_bytes: stats.peak_bytes as f64,
            inputs: stats.inputs as f64,
            outputs: stats.outputs as f64,
            nodes: stats.nodes as f64,
        })
    })
}

/// Forget a compiled graph.
#[napi]
pub fn dispose_program(program: f64) -> napi::Result<()> {
    call("disposeProgram", |state| state.session.dispose_program(program_id(program)?))
}

/// For tests: whether brief runs are made at once where they can be; otherwise all are queued.
#[napi]
pub fn set_at_once_for_test(at_once: bool) -> napi::Result<()> {
    call("run", |state| {
        state.session.set_at_once_for_test(at_once);
        Ok(())
    })
}

/// For tests: a panic inside the addon, which must arrive as an error.
#[napi]
pub fn panic_for_test() -> napi::Result<()> {
    call("panicForTest", |_| panic!("asked for by a test"))
}
