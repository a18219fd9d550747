//! Fusion, ordering and memory planning: a flat graph becomes a flat list of kernels over planned buffers.
//!
//! Four steps, a file each: `split` breaks long reductions in two so that they can run in parallel; `lower` turns movement
//! ops into strided accesses; `group` decides which nodes share a kernel; `emit` writes the kernels and `plan` places
//! their buffers. No device is named here.

mod emit;
mod group;
mod lower;
mod plan;
pub mod program;
mod split;

use program::Program;
use raphson_graph::error::{Error, Result};
use raphson_graph::flat::{Graph, simplify};

/// Compile a graph. `donated[i]` says that input `i` may be overwritten by an output.
pub fn compile(graph: &Graph, donated: &[bool]) -> Result<Program> {
    if donated.len() != graph.inputs.len() {
        let message = format!("{} donation flags for {} inputs", donated.len(), graph.inputs.len());
        return Err(Error::internal("compile", message));
    }
    let lowered = lower::lower(&split::split_reductions(&simplify(graph)));
    let groups = group::group(&lowered);
    let emitted = emit::emit(&lowered, &groups);
    Ok(plan::plan(emitted, donated))
}
