//! Gathers, scatter-adds and the packing of narrow results as text. An index outside its axis is left in the kernel's
//! flag words; the run reports it.

use super::place::Pack;
use super::scalar::{literal, type_name};
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{GatherKernel, ScatterAddKernel};
use raphson_graph::dtype::Scalar;
use raphson_graph::error::Result;

const WORKGROUP: usize = 256;
/// Invocations among which a scatter is divided.
const SCATTER_INVOCATIONS: usize = 32 * 1024;

/// A frame of one invocation for each of `n` points.
pub(super) fn points(n: usize, abilities: &Abilities, body: &str) -> Result<Frame> {
    countable("an index space", n)?;
    let workgroup = WORKGROUP.min(abilities.workgroup);
    let head = format!(
        "    let point = group * {workgroup} + lane;\n\
         \x20   if (point >= {n}) {{ return; }}\n"
    );
    let body = head + body;
    Ok(Frame { body, workgroup, n_workgroups: n.div_ceil(workgroup), ..Frame::default() })
}

/// out[o, j, i] = data[o, index[j], i]
pub fn gather_text(gather: &GatherKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let &GatherKernel { outer, axis, inner, count, dtype, .. } = gather;
    countable("a gather's operand", outer * axis * inner)?;
    let zero = literal(Scalar::of(0.0, dtype), dtype);
    let body = format!(
        "    let i = point % {inner};\n\
         \x20   let j = (point / {inner}) % {count};\n\
         \x20   let o = point / {slab};\n\
         \x20   let at = i32({index});\n\
         \x20   var x: {name} = {zero};\n\
         \x20   if (at >= 0 && at < {axis}) {{ x = {load}; }} else {{ {flag} }}\n\
         \x20   {store}\n",
        slab = inner * count,
        index = slots.load(gather.indices, "j"),
        name = type_name(dtype),
        load = slots.load(gather.data, &format!("(o * {axis} + at) * {inner} + i")),
        flag = slots.raise("at"),
        store = slots.store(gather.out, "point", "x"),
    );
    points(outer * count * inner, abilities, &body)?.text(slots, abilities)
}

/// out = 0; out[o, index[j], i] += updates[o, j, i]. Each invocation owns a run of the axis at one (o, i), so that
/// nothing collides and duplicates add up in order of j.
pub fn scatter_text(scatter: &ScatterAddKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let &ScatterAddKernel { outer, axis, inner, count, dtype, .. } = scatter;
    countable("a scatter's operand", outer * count * inner)?;
    countable("a scatter's result", outer * axis * inner)?;
    let runs = (SCATTER_INVOCATIONS / (outer * inner).max(1)).clamp(1, axis.max(1));
    let length = axis.div_ceil(runs).max(1);
    let runs = axis.div_ceil(length).max(1);
    let place = format!("(o * {axis} + at) * {inner} + i");
    let sum = format!(
        "{} + {}",
        slots.load(scatter.out, &place),
        slots.load(scatter.updates, &format!("(o * {count} + j) * {inner} + i"))
    );
    let body = format!(
        "    let i = point % {inner};\n\
         \x20   let run = (point / {inner}) % {runs};\n\
         \x20   let o = point / {slab};\n\
         \x20   let low = run * {length};\n\
         \x20   let high = min(low + {length}, {axis});\n\
         \x20   for (var at = low; at < high; at++) {{ {clear} }}\n\
         \x20   for (var j = 0; j < {count}; j++) {{\n\
         \x20       let at = i32({index});\n\
         \x20       if (at < 0 || at >= {axis}) {{ {flag} }}\n\
         \x20       if (at >= low && at < high) {{ {add} }}\n\
         \x20   }}\n",
        slab = inner * runs,
        clear = slots.store(scatter.out, &place, &literal(Scalar::of(0.0, dtype), dtype)),
        index = slots.load(scatter.indices, "j"),
        flag = slots.raise("at"),
        add = slots.store(scatter.out, &place, &sum),
    );
    points(outer * runs * inner, abilities, &body)?.text(slots, abilities)
}

/// Two or four elements of the arena to each word of a result.
pub fn pack_text(pack: &Pack, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let (elements, bytes) = (pack.elements, pack.dtype.size_bytes());
    let in_word = 4 / bytes;
    let body = format!(
        "    var word = 0u;\n\
         \x20   for (var part = 0; part < {in_word}; part++) {{\n\
         \x20       let at = point * {in_word} + part;\n\
         \x20       if (at < {elements}) {{ word |= {element} << u32(part * {bits}); }}\n\
         \x20   }}\n\
         \x20   b0[point] = word;\n",
        bits = 8 * bytes,
        element = slots.arena_bits("at", pack.dtype),
    );
    points(elements.div_ceil(in_word), abilities, &body)?.text(slots, abilities)
}
