//! Fusion, ordering and memory planning: a flat graph becomes a flat list of kernels over planned buffers.
//!
//! Five steps, a file each: `orient` turns products round whose transpose is wanted; `split` breaks long reductions in
//! two so that they can run in parallel; `lower` turns movement ops into strided accesses; `group` decides which nodes share a kernel; `emit` writes the kernels and `plan` places
//! their buffers. No device is named here.

mod conv;
pub mod direct;
mod emit;
mod group;
mod lower;
mod orient;
mod plan;
pub mod program;
mod split;
mod widen;

use program::Program;
use raphson_graph::error::{Error, Result};
use raphson_graph::flat::{Graph, simplify};

/// Compile a graph. `donated[i]` says that input `i` may be overwritten by an output.
pub fn compile(graph: &Graph, donated: &[bool]) -> Result<Program> {
    if donated.len() != graph.inputs.len() {
        let message = format!("{} donation flags for {} inputs", donated.len(), graph.inputs.len());
        return Err(Error::internal("compile", message));
    }
    // The product that was turned round is dead after `orient`, and `widen` may convert one value twice; simplifying again
    // drops both.
    let oriented = simplify(&widen::widen(&orient::orient_products(&simplify(graph))));
    let lowered = lower::lower(&split::split_reductions(&oriented));
    let groups = group::group(&lowered);
    let emitted = emit::emit(&lowered, &groups);
    Ok(plan::plan(emitted, donated))
}
