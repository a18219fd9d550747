//! The order of the elements of each row, as text: each invocation counts the elements that come before its own, which is
//! that one's place. The work grows with the square of a row's length.

use super::gather::points;
use super::scalar::expression;
use super::slots::Slots;
use super::text::{Abilities, Text, countable};
use raphson_compile::program::ArgsortKernel;
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use raphson_graph::kernel::Prim;

/// out[r, #{j before i}] = i
pub fn argsort_text(sort: &ArgsortKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let &ArgsortKernel { dtype, rows, length, descending, .. } = sort;
    countable("an argsort's operand", rows * length)?;
    // Whether a comes before b: below it (or above), or a number before a NaN.
    let before = |a: &str, b: &str| -> Result<String> {
        let (low, high) = if descending { (b, a) } else { (a, b) };
        let below = expression(Prim::Lt, &[low, high], dtype, DType::Bool)?;
        if !dtype.is_float() {
            return Ok(below);
        }
        let is_nan = |x: &str| expression(Prim::Ne, &[x, x], dtype, DType::Bool);
        Ok(format!("({below} || ({} && !({})))", is_nan(b)?, is_nan(a)?))
    };
    let body = format!(
        "    let row = (point / {length}) * {length};\n\
         \x20   let i = point - row;\n\
         \x20   let mine = {mine};\n\
         \x20   var place = 0;\n\
         \x20   for (var j = 0; j < {length}; j++) {{\n\
         \x20       let other = {other};\n\
         \x20       var counts = {earlier};\n\
         \x20       if (j < i) {{ counts = !({later}); }}\n\
         \x20       if (counts) {{ place++; }}\n\
         \x20   }}\n\
         \x20   {store}\n",
        mine = slots.load(sort.data, "point"),
        other = slots.load(sort.data, "row + j"),
        earlier = before("other", "mine")?,
        // Among equals the first comes first.
        later = before("mine", "other")?,
        store = slots.store(sort.out, "row + place", "i"),
    );
    points(rows * length, abilities, &body)?.text(slots, abilities)
}
