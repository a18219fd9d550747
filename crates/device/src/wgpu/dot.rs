//! Matrix products as text: each workgroup computes a tile of the result, walking along k through shared memory; each
//! invocation holds a small square of the tile in registers.

use super::place::is_narrow;
use super::scalar::type_name;
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{DotKernel, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Code, Error, Result};
use std::fmt::Write;

/// Depth of a tile.
pub const DEPTH: usize = 16;

/// Sizes of a workgroup and of what each invocation computes, for rows and columns.
pub struct Tile {
    /// Invocations along m and n.
    pub across: (usize, usize),
    /// Results of an invocation along m and n, `across` apart.
    pub each: (usize, usize),
}

impl Tile {
    pub fn new(m: usize, n: usize, abilities: &Abilities) -> Tile {
        let across = if abilities.workgroup >= 256 { (16, 16) } else { (8, 8) };
        let each = |size: usize, across: usize| match size.div_ceil(across) {
            0 | 1 => 1,
            2 => 2,
            _ => 4,
        };
        Tile { across, each: (each(m, across.0), each(n, across.1)) }
    }

    pub fn m(&self) -> usize {
        self.across.0 * self.each.0
    }

    pub fn n(&self) -> usize {
        self.across.1 * self.each.1
    }

    /// The declarations of both operands' tiles.
    pub fn shared(&self, name: &str) -> String {
        format!(
            "var<workgroup> left_tile: array<{name}, {}>;\nvar<workgroup> right_tile: array<{name}, {}>;\n",
            DEPTH * (self.m() + 1),
            DEPTH * (self.n() + 1)
        )
    }
}

/// The text of a product that is not thin.
pub fn dot_text(dot: &DotKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    if is_narrow(dot.dtype) {
        return Err(Error::new(
            Code::DType,
            "dot",
            format!("{} matrices have no product; cast to f32 or i32 first", dot.dtype),
        ));
    }
    let batch: usize = dot.batch.iter().product();
    for size in [dot.m * dot.n * batch, dot.k] {
        countable("a matrix product", size)?;
    }
    let tile = Tile::new(dot.m, dot.n, abilities);
    let (rows, columns) = (dot.m.div_ceil(tile.m()), dot.n.div_ceil(tile.n()));
    let name = type_name(dot.dtype);
    let mut frame = Frame {
        workgroup: tile.across.0 * tile.across.1,
        n_workgroups: rows * columns * batch,
        shared: tile.shared(name),
        ..Frame::default()
    };
    let body = &mut frame.body;
    position(body, dot, &tile, rows, columns);
    for (i, j) in squares(&tile) {
        let _ = writeln!(body, "    var c{i}_{j} = {name}(0);");
    }
    let _ = writeln!(body, "    for (var start = 0; start < {}; start += {DEPTH}) {{", dot.k);
    load_tile(body, dot, &tile, slots, true);
    load_tile(body, dot, &tile, slots, false);
    body.push_str("        workgroupBarrier();\n");
    multiply(body, dot.dtype, &tile);
    body.push_str("        workgroupBarrier();\n    }\n");
    store_tile(body, dot, &tile, slots);
    frame.text(slots, abilities)
}

// Writing to a String cannot fail, so results of `write!` are dropped here and below.

/// The results of an invocation.
pub fn squares(tile: &Tile) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (m, n) = tile.each;
    (0..m).flat_map(move |i| (0..n).map(move |j| (i, j)))
}

/// Which tile and which part of it this invocation computes, and where the batch's matrices begin.
fn position(body: &mut String, dot: &DotKernel, tile: &Tile, rows: usize, columns: usize) {
    let _ = writeln!(body, "    let row = lane / {};", tile.across.1);
    let _ = writeln!(body, "    let column = lane % {};", tile.across.1);
    let _ = writeln!(body, "    let first_n = (group % {columns}) * {};", tile.n());
    let _ = writeln!(body, "    let first_m = ((group / {columns}) % {rows}) * {};", tile.m());
    let _ = writeln!(body, "    let batch = group / {};", rows * columns);
    let mut below = 1;
    let (mut left, mut right) = (format!("{}", dot.left.offset), format!("{}", dot.right.offset));
    for (axis, &size) in dot.batch.iter().enumerate().rev() {
        let _ = writeln!(body, "    let batch{axis} = (batch / {below}) % {size};");
        let _ = write!(left, " + batch{axis} * ({})", dot.left.batch[axis]);
        let _ = write!(right, " + batch{axis} * ({})", dot.right.batch[axis]);
        below *= size;
    }
    let _ = writeln!(body, "    let left_start = {left};\n    let right_start = {right};");
}

/// Fetch a tile of the left or the right matrix: `DEPTH` rows of one element for each row (or column) of the result.
/// Neighbouring invocations fetch neighbouring elements, whichever axis is contiguous.
fn load_tile(body: &mut String, dot: &DotKernel, tile: &Tile, slots: &Slots, left: bool) {
    let (view, size, across, along, along_k): (&MatrixView, usize, usize, i64, i64) = if left {
        (&dot.left, dot.m, tile.m(), dot.left.rows, dot.left.columns)
    } else {
        (&dot.right, dot.n, tile.n(), dot.right.columns, dot.right.rows)
    };
    let (side, first) = if left { ("left", "first_m") } else { ("right", "first_n") };
    let count = DEPTH * across;
    let threads = tile.across.0 * tile.across.1;
    let (k, other) = if along_k.abs() == 1 {
        (format!("e % {DEPTH}"), format!("e / {DEPTH}"))
    } else {
        (format!("e / {across}"), format!("e % {across}"))
    };
    let index = format!("{side}_start + other * ({along}) + k * ({along_k})");
    let name = type_name(dot.dtype);
    let _ = write!(
        body,
        "        for (var e = lane; e < {count}; e += {threads}) {{\n\
         \x20           let at_k = {k};\n\
         \x20           let at = {other};\n\
         \x20           let k = start + at_k;\n\
         \x20           let other = {first} + at;\n\
         \x20           var x = {name}(0);\n\
         \x20           if (k < {} && other < {size}) {{ x = {}; }}\n\
         \x20           {side}_tile[at_k * {} + at] = x;\n\
         \x20       }}\n",
        dot.k,
        slots.load(view.buffer, &index),
        across + 1,
    );
}

/// Multiply the tiles and add to the results.
pub fn multiply(body: &mut String, dtype: DType, tile: &Tile) {
    let _ = writeln!(body, "        for (var k = 0; k < {DEPTH}; k++) {{");
    for i in 0..tile.each.0 {
        let at = i * tile.across.0;
        let _ = writeln!(body, "            let a{i} = left_tile[k * {} + row + {at}];", tile.m() + 1);
    }
    for j in 0..tile.each.1 {
        let at = j * tile.across.1;
        let _ = writeln!(body, "            let b{j} = right_tile[k * {} + column + {at}];", tile.n() + 1);
    }
    for (i, j) in squares(tile) {
        let sum =
            if dtype.is_float() { format!("fma(a{i}, b{j}, c{i}_{j})") } else { format!("c{i}_{j} + a{i} * b{j}") };
        let _ = writeln!(body, "            c{i}_{j} = {sum};");
    }
    body.push_str("        }\n");
}

fn store_tile(body: &mut String, dot: &DotKernel, tile: &Tile, slots: &Slots) {
    for (i, j) in squares(tile) {
        let m = format!("first_m + row + {}", i * tile.across.0);
        let n = format!("first_n + column + {}", j * tile.across.1);
        let index = format!("(batch * {} + {m}) * {} + {n}", dot.m, dot.n);
        let store = slots.store(dot.out, &index, &format!("c{i}_{j}"));
        let _ = writeln!(body, "    if ({m} < {} && {n} < {}) {{ {store} }}", dot.m, dot.n);
    }
}
