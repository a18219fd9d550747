//! The order of the elements of each row, as text: workgroups sort runs of a row in their memory (Batcher's bitonic network,
//! by element and position, so that the order is the stable one); longer rows are merged, pass by pass, where every element
//! finds its place among the other run by bisection.

use super::gather::points;
use super::scalar::{expression, literal, type_name};
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{ArgsortKernel, BufferId};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::Result;
use raphson_graph::kernel::Prim;

/// The longest run that a workgroup sorts: 8 KiB of its memory.
pub const LONGEST_RUN: usize = 1024;
const WORKGROUP: usize = 256;

/// The length of the runs that rows are sorted in first.
pub fn run_length(sort: &ArgsortKernel) -> usize {
    sort.length.next_power_of_two().clamp(2, LONGEST_RUN)
}

/// Elements as they are compared: bools as numbers.
fn key_dtype(sort: &ArgsortKernel) -> DType {
    if sort.dtype == DType::Bool { DType::U32 } else { sort.dtype }
}

/// The element at `index` as it is compared.
fn key(sort: &ArgsortKernel, slots: &Slots, index: &str) -> Result<String> {
    let element = slots.load(sort.data, index);
    let key = key_dtype(sort);
    if key == sort.dtype { Ok(element) } else { expression(Prim::Cast, &[&element], sort.dtype, key) }
}

/// Whether a comes before b: below it (or above), or a number before a NaN.
fn before(sort: &ArgsortKernel, a: &str, b: &str) -> Result<String> {
    let key = key_dtype(sort);
    let (low, high) = if sort.descending { (b, a) } else { (a, b) };
    let below = expression(Prim::Lt, &[low, high], key, DType::Bool)?;
    if !key.is_float() {
        return Ok(below);
    }
    let is_nan = |x: &str| expression(Prim::Ne, &[x, x], key, DType::Bool);
    Ok(format!("({below} || ({} && !({})))", is_nan(b)?, is_nan(a)?))
}

/// What no element comes after.
fn last(sort: &ArgsortKernel) -> String {
    let value = match (key_dtype(sort), sort.descending) {
        (DType::F32 | DType::F64 | DType::F16 | DType::BF16, _) => Scalar::Float(f64::NAN),
        (DType::I32 | DType::I64, false) => Scalar::Int(i64::from(i32::MAX)),
        (DType::I32 | DType::I64, true) => Scalar::Int(i64::from(i32::MIN)),
        (DType::U32 | DType::U8 | DType::Bool, false) => Scalar::Int(i64::from(u32::MAX)),
        (DType::U32 | DType::U8 | DType::Bool, true) => Scalar::Int(0),
    };
    literal(value, key_dtype(sort))
}

/// out[r, ..] = the positions of each run of row r in order.
pub fn runs_text(sort: &ArgsortKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let &ArgsortKernel { rows, length, .. } = sort;
    countable("an argsort's operand", rows * length)?;
    let run = run_length(sort);
    let workgroup = WORKGROUP.min(abilities.workgroup);
    // Short runs share a workgroup.
    let elements = run.max(2 * workgroup);
    let in_row = length.div_ceil(run);
    let place = format!(
        "        let number = group * {} + e / {run};\n\
         \x20       let row = number / {in_row};\n\
         \x20       let position = (number % {in_row}) * {run} + e % {run};\n\
         \x20       let is_there = row < {rows} && position < {length};\n",
        elements / run
    );
    let name = type_name(key_dtype(sort));
    let body = format!(
        "    for (var e = lane; e < {elements}; e += {workgroup}) {{\n{place}\
         \x20       var key: {name} = {last};\n\
         \x20       if (is_there) {{ key = {load}; }}\n\
         \x20       keys[e] = key;\n\
         \x20       positions[e] = position;\n\
         \x20   }}\n\
         \x20   for (var size = 2; size <= {run}; size = size * 2) {{\n\
         \x20       for (var apart = size / 2; apart > 0; apart = apart / 2) {{\n\
         \x20           workgroupBarrier();\n\
         \x20           for (var pair = lane; pair < {pairs}; pair += {workgroup}) {{\n\
         \x20               let low = pair & (apart - 1);\n\
         \x20               let at = 2 * pair - low;\n\
         \x20               let other = at + apart;\n\
         \x20               let a = keys[at];\n\
         \x20               let b = keys[other];\n\
         \x20               let i = positions[at];\n\
         \x20               let j = positions[other];\n\
         \x20               let first = {earlier} || (j < i && !({later}));\n\
         \x20               let turned = (at & {within} & size) != 0;\n\
         \x20               if (first != turned) {{\n\
         \x20                   keys[at] = b;\n\
         \x20                   keys[other] = a;\n\
         \x20                   positions[at] = j;\n\
         \x20                   positions[other] = i;\n\
         \x20               }}\n\
         \x20           }}\n\
         \x20       }}\n\
         \x20   }}\n\
         \x20   workgroupBarrier();\n\
         \x20   for (var e = lane; e < {elements}; e += {workgroup}) {{\n{place}\
         \x20       if (is_there) {{ {store} }}\n\
         \x20   }}\n",
        last = last(sort),
        load = key(sort, slots, &format!("row * {length} + position"))?,
        pairs = elements / 2,
        within = run - 1,
        earlier = before(sort, "b", "a")?,
        later = before(sort, "a", "b")?,
        store = slots.store(sort.out, &format!("row * {length} + position"), "positions[e]"),
    );
    let frame = Frame {
        workgroup,
        n_workgroups: (rows * in_row).div_ceil(elements / run),
        shared: format!(
            "var<workgroup> keys: array<{name}, {elements}>;\nvar<workgroup> positions: array<i32, {elements}>;\n"
        ),
        body,
        ..Frame::default()
    };
    frame.text(slots, abilities)
}

/// Merge neighbouring runs: out[start + own place in its run + place among the other run] = from[..].
pub fn merge_text(
    sort: &ArgsortKernel,
    from: BufferId,
    run: usize,
    slots: &Slots,
    abilities: &Abilities,
) -> Result<Text> {
    let &ArgsortKernel { rows, length, .. } = sort;
    let body = format!(
        "    let row = (point / {length}) * {length};\n\
         \x20   let at = point - row;\n\
         \x20   let element = {element};\n\
         \x20   let mine = {mine};\n\
         \x20   let start = at / {pair} * {pair};\n\
         \x20   let middle = min(start + {run}, {length});\n\
         \x20   let second = at >= middle;\n\
         \x20   let begin = select(middle, start, second);\n\
         \x20   var low = begin;\n\
         \x20   var high = select(min(middle + {run}, {length}), middle, second);\n\
         \x20   while (low < high) {{\n\
         \x20       let between = (low + high) / 2;\n\
         \x20       let position = {position};\n\
         \x20       let other = {other};\n\
         \x20       var counts = {earlier};\n\
         \x20       if (second) {{ counts = !({later}); }}\n\
         \x20       if (counts) {{ low = between + 1; }} else {{ high = between; }}\n\
         \x20   }}\n\
         \x20   let own = at - select(start, middle, second);\n\
         \x20   let place = row + start + own + low - begin;\n\
         \x20   {store}\n",
        element = slots.load(from, "point"),
        mine = key(sort, slots, "row + element")?,
        pair = 2 * run,
        position = slots.load(from, "row + between"),
        other = key(sort, slots, "row + position")?,
        earlier = before(sort, "other", "mine")?,
        // Among equals the first run's come first.
        later = before(sort, "mine", "other")?,
        store = slots.store(sort.out, "place", "element"),
    );
    points(rows * length, abilities, &body)?.text(slots, abilities)
}
