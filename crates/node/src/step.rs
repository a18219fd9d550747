//! A training step's run in one call: its number goes in, its state stays behind the handles that it has, and its report
//! comes out where it is there at once. What the program computes is not known here.

use crate::convert::count;
use crate::evaluate::program_id;
use crate::state::call;
use napi::Env;
use napi::bindgen_prelude::{Float64ArraySlice, Uint8ArraySlice};
use napi_derive::napi;
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::shape::Shape;
use raphson_graph::value::Value;
use raphson_session::Session;

/// Run a program whose first `moved` results take the place of its first operands: their handles stay, and stand for the
/// results from then on. A 0 among `inputs` stands for `counter`, a u32 scalar. The next result is the report: where the
/// run was made at once it is copied to `report`, else it gets a handle, the first of `rest`, which is 0 otherwise. The others
/// follow there. Returns whether the report was copied; none is where `report` is empty.
#[napi]
pub fn run_step(
    env: Env,
    program: f64,
    inputs: &[f64],
    counter: f64,
    moved: f64,
    mut report: Uint8ArraySlice<'_>,
    mut rest: Float64ArraySlice<'_>,
) -> napi::Result<bool> {
    // SAFETY: JavaScript stands still meanwhile, and the two arrays and `inputs` are three pieces of memory (`launch.ts`).
    let (report, rest) = unsafe { (report.as_mut(), rest.as_mut()) };
    call("run", |state| {
        let moved = count("run", "the number of results that stay", moved)?;
        let mut operands = Vec::with_capacity(inputs.len());
        for &handle in inputs {
            operands.push(match handle {
                0.0 => counted(&state.session, counter)?,
                handle => state.handles.get("run", handle)?.clone(),
            });
        }
        let program = program_id(program)?;
        let at_once = state.session.runs_at_once(program)?;
        // The table of handles and `operands` hold each.
        let mut results = state.session.run_moving(program, &operands, moved, 2)?;
        if moved > inputs.len() || results.len() != moved + rest.len() {
            let message =
                format!("{} results, {moved} of which stay, do not leave {} others", results.len(), rest.len());
            return Err(Error::internal("run", message));
        }
        let others = results.split_off(moved);
        for ((&handle, value), operand) in inputs.iter().zip(results).zip(&operands) {
            if value != *operand {
                state.handles.replace(handle, value)?;
            }
        }
        drop(operands);
        let read = match others.first() {
            Some(value) if at_once && !report.is_empty() => state.session.read_at_once(value, report)?,
            _ => false,
        };
        for (place, (slot, value)) in rest.iter_mut().zip(others).enumerate() {
            *slot = if read && place == 0 { 0.0 } else { state.handles.add(value)? };
        }
        state.report_memory(&env)?;
        Ok(read)
    })
}

fn counted(session: &Session, counter: f64) -> Result<Value> {
    let number = count("run", "the counter", counter)?;
    let number = u32::try_from(number).map_err(|_| Error::argument("run", format!("{number} steps are too many")))?;
    session.upload(&number.to_ne_bytes(), Shape::scalar(), DType::U32)
}
