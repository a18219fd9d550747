//! Convolutions as text: products of matrices, of which the right one — the patches of the data — is never made. Workgroups
//! compute tiles as those of `dot` do, and find an element of a patch where it lies in the data when they bring it to their
//! memory. Each invocation brings the elements of one column (or of one term), so that half of the index arithmetic is done
//! once; a tile of 64 × 64 reads 8 KiB for 65,536 multiplications, 16 flops for a byte.

use super::dot::{DEPTH, Tile, multiply, squares};
use super::scalar::type_name;
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{ConvAxis, ConvKernel, ConvView};
use raphson_graph::dtype::DType;
use raphson_graph::error::Result;
use std::fmt::Write;

/// Whether it is computed here: one step of terms at least, and tiles that are at least an eighth full. Else sums, which read
/// every element anew for each multiplication, are as fast.
pub fn is_tiled(conv: &ConvKernel) -> bool {
    let (rows, columns, terms) = conv.as_product();
    let room = rows.next_multiple_of(64) * columns.next_multiple_of(64);
    conv.dtype != DType::Bool && conv.groups > 0 && 8 * rows * columns >= room && terms >= DEPTH
}

/// The text of a convolution that `is_tiled`.
pub fn conv_text(conv: &ConvKernel, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    let (rows, columns, terms) = conv.as_product();
    for size in [rows * columns * conv.groups, terms] {
        countable("a convolution", size)?;
    }
    let tile = Tile::new(rows, columns, abilities);
    let (tile_rows, tile_columns) = (rows.div_ceil(tile.m()), columns.div_ceil(tile.n()));
    let name = type_name(conv.dtype);
    let mut frame = Frame {
        workgroup: tile.across.0 * tile.across.1,
        n_workgroups: tile_rows * tile_columns * conv.groups,
        shared: tile.shared(name),
        ..Frame::default()
    };
    let printer = Printer { conv, tile: &tile, slots, rows, columns, terms };
    let along_terms = printer.is_along_terms();
    let body = &mut frame.body;
    // Tiles of one column of tiles stand next to each other, so that they find its patches in the cache.
    let _ = write!(
        body,
        "    let row = lane / {across};\n    let column = lane % {across};\n\
         \x20   let first_m = (group % {tile_rows}) * {m};\n\
         \x20   let first_n = ((group / {tile_rows}) % {tile_columns}) * {n};\n\
         \x20   let part = group / {tiles};\n",
        across = tile.across.1,
        m = tile.m(),
        n = tile.n(),
        tiles = tile_rows * tile_columns,
    );
    if !along_terms {
        body.push_str(&printer.column(&format!("first_n + lane % {}", tile.n())));
    }
    for (i, j) in squares(&tile) {
        let _ = writeln!(body, "    var c{i}_{j} = {name}(0);");
    }
    let _ = writeln!(body, "    for (var start = 0; start < {terms}; start += {DEPTH}) {{");
    printer.load_kernel(body);
    if along_terms {
        printer.load_patches_along_terms(body)
    } else {
        printer.load_patches(body)
    }
    body.push_str("        workgroupBarrier();\n");
    multiply(body, conv.dtype, &tile);
    body.push_str("        workgroupBarrier();\n    }\n");
    printer.store(body);
    frame.text(slots, abilities)
}

// Writing to a String cannot fail, so results of `write!` are dropped here and below.

struct Printer<'a> {
    conv: &'a ConvKernel,
    tile: &'a Tile,
    slots: &'a Slots,
    rows: usize,
    columns: usize,
    terms: usize,
}

/// `name0`, `name1`, … : the digits of `of` in mixed radix, `name` the highest one.
fn digits(name: &str, of: &str, radices: &[usize]) -> String {
    let mut text = String::new();
    let mut below = 1;
    for (axis, &radix) in radices.iter().enumerate().rev() {
        let _ = writeln!(text, "    let {name}{axis} = ({of} / {below}) % {radix};");
        below *= radix;
    }
    let _ = writeln!(text, "    let {name} = {of} / {below};");
    text
}

impl Printer<'_> {
    fn all(&self, of: fn(&ConvAxis) -> usize) -> Vec<usize> {
        self.conv.axes.iter().map(of).collect()
    }

    fn threads(&self) -> usize {
        self.tile.across.0 * self.tile.across.1
    }

    /// Whether neighbouring terms rather than neighbouring positions lie next to each other in the data: the longer run of
    /// the last axis whose steps are short.
    fn is_along_terms(&self) -> bool {
        self.conv.axes.last().is_some_and(|axis| (axis.taps, axis.stride) > (axis.outputs, axis.dilation))
    }

    /// Column `n` as batch `y` and outputs `y0`, `y1`, …, and whether there is one.
    fn column(&self, n: &str) -> String {
        let outputs = digits("y", "n", &self.all(|axis| axis.outputs));
        format!("    let n = {n};\n    let has_column = n < {};\n{outputs}", self.columns)
    }

    /// Term `start + at_k` as channel `t` and taps `t0`, `t1`, …
    fn term(&self) -> String {
        format!("    let k = start + at_k;\n{}", digits("t", "k", &self.all(|axis| axis.taps)))
    }

    /// The matrix of the kernel: each invocation brings one term of several rows.
    fn load_kernel(&self, body: &mut String) {
        let ConvView { buffer, offset, leading, spatial } = &self.conv.kernel;
        let mut index = format!("{offset} + part * ({}) + m * ({}) + t * ({})", leading[0], leading[1], leading[2]);
        for (axis, stride) in spatial.iter().enumerate() {
            let _ = write!(index, " + t{axis} * ({stride})");
        }
        let _ = write!(
            body,
            "    {{\n    let at_k = lane % {DEPTH};\n{term}\
             \x20   for (var at = lane / {DEPTH}; at < {across}; at += {step}) {{\n\
             \x20       let m = first_m + at;\n\
             \x20       var x = {name}(0);\n\
             \x20       if (k < {terms} && m < {rows}) {{ x = {load}; }}\n\
             \x20       left_tile[at_k * {pitch} + at] = x;\n    }}\n    }}\n",
            term = self.term(),
            across = self.tile.m(),
            step = self.threads() / DEPTH,
            name = type_name(self.conv.dtype),
            terms = self.terms,
            rows = self.rows,
            load = self.slots.load(*buffer, &index),
            pitch = self.tile.m() + 1,
        );
    }

    /// Each invocation brings several terms of its column, which is known.
    fn load_patches(&self, body: &mut String) {
        let across = self.tile.n();
        let _ = write!(
            body,
            "    for (var at_k = lane / {across}; at_k < {DEPTH}; at_k += {step}) {{\n{term}{element}\
             \x20       right_tile[at_k * {pitch} + lane % {across}] = x;\n    }}\n",
            step = self.threads() / across,
            term = self.term(),
            element = self.element(),
            pitch = across + 1,
        );
    }

    /// Each invocation brings one term of several columns.
    fn load_patches_along_terms(&self, body: &mut String) {
        let _ = write!(
            body,
            "    {{\n    let at_k = lane % {DEPTH};\n{term}\
             \x20   for (var at = lane / {DEPTH}; at < {across}; at += {step}) {{\n{column}{element}\
             \x20       right_tile[at_k * {pitch} + at] = x;\n    }}\n    }}\n",
            term = self.term(),
            across = self.tile.n(),
            step = self.threads() / DEPTH,
            column = self.column("first_n + at"),
            element = self.element(),
            pitch = self.tile.n() + 1,
        );
    }

    /// `x`: the element where a column and a term meet, zero outside the data.
    fn element(&self) -> String {
        let ConvView { buffer, offset, leading, spatial } = &self.conv.data;
        let mut text = String::new();
        let mut index = format!("{offset} + part * ({}) + y * ({}) + t * ({})", leading[1], leading[0], leading[2]);
        let mut inside = format!("has_column && k < {}", self.terms);
        for (a, axis) in self.conv.axes.iter().enumerate() {
            let ConvAxis { size, stride, dilation, low, .. } = axis;
            let _ = writeln!(text, "    let x{a} = y{a} * {stride} + t{a} * {dilation} - ({low});");
            let _ = write!(inside, " && x{a} >= 0 && x{a} < {size}");
            let _ = write!(index, " + x{a} * ({})", spatial[a]);
        }
        let load = self.slots.load(*buffer, &index);
        let _ = writeln!(text, "    var x = {}(0);\n    if ({inside}) {{ x = {load}; }}", type_name(self.conv.dtype));
        text
    }

    fn store(&self, body: &mut String) {
        let ConvView { buffer, offset, leading, spatial } = &self.conv.out;
        for j in 0..self.tile.each.1 {
            let shift = j * self.tile.across.1;
            let _ = write!(body, "    {{\n{}", self.column(&format!("first_n + column + {shift}")));
            let mut place = format!("{offset} + part * ({}) + y * ({})", leading[1], leading[0]);
            for (axis, stride) in spatial.iter().enumerate() {
                let _ = write!(place, " + y{axis} * ({stride})");
            }
            let _ = writeln!(body, "    let place = {place};");
            for i in 0..self.tile.each.0 {
                let m = format!("first_m + row + {}", i * self.tile.across.0);
                let index = format!("place + ({m}) * ({})", leading[2]);
                let store = self.slots.store(*buffer, &index, &format!("c{i}_{j}"));
                let _ = writeln!(body, "    if (has_column && {m} < {}) {{ {store} }}", self.rows);
            }
            body.push_str("    }\n");
        }
    }
}
