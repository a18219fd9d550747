//! Fusion, ordering and memory planning: a flat graph becomes a flat list of kernels over planned buffers.
//!
//! Ops that carry an expansion (attention) are replaced by it first, unless the device has kernels for them. Then nine
//! steps, a file each: `sign` moves signs behind products; `line` takes products along a line apart; `fold` takes sums over a
//! batch into its products; `orient` turns products round whose transpose is wanted; `split` breaks long reductions in two so
//! that they can run in parallel; `lower` turns movement ops into strided accesses; `group` decides which nodes share a
//! kernel, and `again` which values a kernel computes again rather than reads; `emit` writes the kernels and `plan` places
//! their buffers. No device is named here.

mod again;
mod conv;
pub mod direct;
mod emit;
mod fold;
mod group;
mod interleave;
mod line;
mod lower;
mod order;
mod orient;
mod plan;
pub mod program;
mod rewrite;
mod sign;
mod split;
mod widen;

use program::{Fused, Program};
use raphson_graph::error::{Error, Result};
use raphson_graph::flat::{Graph, Node, expand, simplify};
use raphson_graph::op::Op;

/// Compile a graph for every device. `donated[i]` says that input `i` may be overwritten by an output.
pub fn compile(graph: &Graph, donated: &[bool]) -> Result<Program> {
    compile_for(graph, donated, &Fused::NONE)
}

/// Compile a graph for devices with these kernels.
pub fn compile_for(graph: &Graph, donated: &[bool], fused: &Fused) -> Result<Program> {
    if donated.len() != graph.inputs.len() {
        let message = format!("{} donation flags for {} inputs", donated.len(), graph.inputs.len());
        return Err(Error::internal("compile", message));
    }
    // An expansion shares what it can with the graph around it.
    let expanded = simplify(&expand(&simplify(graph), |node, of| keeps(fused, node, of))?);
    let signed = simplify(&sign::move_signs(&expanded));
    let parted = line::part_products(&signed).map_or(signed, |parted| simplify(&parted));
    // The product that was turned round is dead after `orient`, and `widen` may convert one value twice; simplifying again
    // drops both.
    let oriented = simplify(&widen::widen(&orient::orient_products(&fold::fold_sums(&parted))));
    let (lowered, groups) = again::compute_again(lower::lower(&split::split_reductions(&oriented)));
    let emitted = emit::emit(&lowered, &groups);
    Ok(plan::plan(emitted, donated))
}

/// Whether the device has a kernel for this node.
fn keeps(fused: &Fused, node: &Node, of: &[&Node]) -> bool {
    match node.op {
        Op::Attention(_) | Op::AttentionVjp(_) => {
            let widest = of.iter().take(3).filter_map(|of| of.shape.last()).max();
            fused.attention.contains(&node.dtype) && widest.is_none_or(|&width| width <= fused.attention_width)
        }
        _ => true,
    }
}
