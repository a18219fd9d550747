//! Attention as text: workgroups own a tile of rows (queries, or keys where their cotangents are wanted) and walk over tiles of
//! the others. The scores of one pair of tiles are a product as those of `dot`; they become weights in registers, with the
//! running maximum and sum of each row (Dao et al. 2022), and lie in the workgroup's memory while they are multiplied on. Hidden
//! scores are marked, as WGSL has no infinities to rely on.

use super::dot::{DEPTH, Tile, multiply, squares};
use super::slots::Slots;
use super::text::{Abilities, Frame, Text, countable};
use raphson_compile::program::{AttentionKernel, AttentionReverse, Fused, MatrixView};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use std::fmt::Write;

/// f32, with heads of at most as many columns as an invocation's registers hold.
pub const FUSED: Fused = Fused { attention: &[DType::F32], attention_width: 128 };

/// Rows of a tile that are multiplied with weights at a time.
const STRIP: usize = 8;
/// Stands for the greatest score of a row that sees nothing: its distance to any score has the exponential 0.
const HIDDEN: &str = "-1e30";

/// Which of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Output and logarithms.
    Forward,
    /// The cotangents of queries.
    Queries,
    /// Those of keys and values.
    Keys,
}

/// An operand as a matrix of one batch entry.
#[derive(Clone, Copy)]
struct Operand<'a> {
    /// The variable with the position of the batch entry's first element.
    start: &'static str,
    view: &'a MatrixView,
    rows: usize,
    columns: usize,
}

/// The text of an attention, or of a part of its reverse.
pub fn attention_text(kernel: &AttentionKernel, what: What, slots: &Slots, abilities: &Abilities) -> Result<Text> {
    countable("an attention", kernel.batch.iter().product::<usize>() * kernel.packed())?;
    let (n_own, n_other) = match what {
        What::Forward | What::Queries => (kernel.queries, kernel.keys),
        What::Keys => (kernel.keys, kernel.queries),
    };
    let printer =
        Printer { kernel, what, slots, tile: tile(kernel, what, [n_own, n_other], abilities), n_own, n_other };
    let tiles = n_own.div_ceil(printer.tile.m());
    let mut frame = Frame {
        workgroup: printer.threads(),
        n_workgroups: tiles * kernel.batch.iter().product::<usize>(),
        shared: printer.shared(),
        ..Frame::default()
    };
    printer.position(&mut frame.body, tiles);
    match (what, &kernel.reverse) {
        (What::Forward, None) => printer.forward(&mut frame.body),
        (What::Queries | What::Keys, Some(reverse)) => printer.reverse(&mut frame.body, reverse),
        (_, reverse) => return Err(Error::internal("attention", format!("{what:?} of {reverse:?}"))),
    }
    frame.text(slots, abilities)
}

/// The widest columns that a kernel multiplies weights with.
fn widest(kernel: &AttentionKernel, what: What) -> usize {
    match what {
        What::Forward => kernel.values,
        What::Queries => kernel.width,
        What::Keys => kernel.width.max(kernel.values),
    }
}

/// Elements of the workgroup's memory: tiles of the left and right operand, weights, and the parts of rows' maxima.
fn elements(tile: &Tile, widest: usize) -> [usize; 4] {
    let wide = widest.next_multiple_of(tile.across.1);
    [
        DEPTH * (tile.m() + 1),
        (DEPTH * (tile.n() + 1)).max(STRIP * (wide + 1)),
        tile.m() * (tile.n() + 1),
        tile.m() * (tile.across.1 + 1),
    ]
}

/// The tile of own rows × others, as large as fills and fits the workgroup's memory.
fn tile(kernel: &AttentionKernel, what: What, [n_own, n_other]: [usize; 2], abilities: &Abilities) -> Tile {
    let mut tile = Tile::new(n_own, n_other, abilities);
    while 4 * elements(&tile, widest(kernel, what)).iter().sum::<usize>() > abilities.shared_bytes
        && tile.each != (1, 1)
    {
        tile.each = (tile.each.0.div_ceil(2), tile.each.1.div_ceil(2));
    }
    tile
}

// Writing to a String cannot fail, so results of `write!` are dropped below.

struct Printer<'a> {
    kernel: &'a AttentionKernel,
    what: What,
    slots: &'a Slots,
    tile: Tile,
    n_own: usize,
    n_other: usize,
}

impl Printer<'_> {
    fn threads(&self) -> usize {
        self.tile.across.0 * self.tile.across.1
    }

    fn shared(&self) -> String {
        let names = ["left_tile", "right_tile", "weights", "part"];
        let each = names.into_iter().zip(elements(&self.tile, widest(self.kernel, self.what)));
        each.map(|(name, n)| format!("var<workgroup> {name}: array<f32, {n}>;\n")).collect()
    }

    fn query(&self) -> Operand<'_> {
        let AttentionKernel { queries, width, query, .. } = self.kernel;
        Operand { start: "query_start", view: query, rows: *queries, columns: *width }
    }

    fn key(&self) -> Operand<'_> {
        let AttentionKernel { keys, width, key, .. } = self.kernel;
        Operand { start: "key_start", view: key, rows: *keys, columns: *width }
    }

    fn value(&self) -> Operand<'_> {
        let AttentionKernel { keys, values, value, .. } = self.kernel;
        Operand { start: "value_start", view: value, rows: *keys, columns: *values }
    }

    fn cotangent<'a>(&self, reverse: &'a AttentionReverse) -> Operand<'a> {
        let AttentionKernel { queries, values, .. } = self.kernel;
        Operand { start: "cotangent_start", view: &reverse.cotangent, rows: *queries, columns: *values }
    }

    /// Which own rows, and where the operands of the batch entry begin. Blocks of later queries, which see more keys, come first.
    fn position(&self, body: &mut String, tiles: usize) {
        let kernel = self.kernel;
        let own = if self.what == What::Keys { "at_tile" } else { "tiles - 1 - at_tile" };
        let _ = write!(
            body,
            "    let row = lane / {across};\n    let column = lane % {across};\n    let tiles = {tiles};\n\
             \x20   let at_tile = group % tiles;\n    let first = ({own}) * {m};\n    let batch = group / tiles;\n",
            across = self.tile.across.1,
            m = self.tile.m(),
        );
        let mut below = 1;
        for (axis, &size) in kernel.batch.iter().enumerate().rev() {
            let _ = writeln!(body, "    let batch{axis} = (batch / {below}) % {size};");
            below *= size;
        }
        let mut starts = vec![("query", &kernel.query), ("key", &kernel.key), ("value", &kernel.value)];
        starts.extend(kernel.mask.as_ref().map(|mask| ("mask", mask)));
        if let Some(AttentionReverse { log_sums, delta, cotangent }) = &kernel.reverse {
            starts.extend([("log_sum", log_sums), ("delta", delta), ("cotangent", cotangent)]);
        }
        for (name, view) in starts {
            let mut start = view.offset.to_string();
            for (axis, stride) in view.batch.iter().enumerate() {
                let _ = write!(start, " + batch{axis} * ({stride})");
            }
            let _ = writeln!(body, "    let {name}_start = {start};");
        }
        let _ = writeln!(body, "    let out_start = batch * {};", kernel.packed());
    }

    /// Declarations of the sums of an own row and the columns of a result.
    fn results(&self, body: &mut String, name: &str, columns: usize) {
        for (i, j) in self.result_squares(columns) {
            let _ = writeln!(body, "    var {name}{i}_{j} = 0.0;");
        }
    }

    fn result_squares(&self, columns: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, across) = (self.tile.each.0, self.tile.across.1);
        (0..rows).flat_map(move |i| (0..columns.div_ceil(across)).map(move |j| (i, j)))
    }

    /// The own row of a square, and the row of the tile of others.
    fn row(&self, i: usize) -> String {
        format!("row + {}", i * self.tile.across.0)
    }

    fn column(&self, j: usize) -> String {
        format!("column + {}", j * self.tile.across.1)
    }

    /// The head of the loop over tiles of the others, of which order hides some from all own rows.
    fn each_tile(&self, body: &mut String) {
        let AttentionKernel { queries, keys, causal, .. } = *self.kernel;
        let (m, n) = (self.tile.m(), self.tile.n());
        let (begin, end) = match (causal, self.what) {
            (false, _) => ("0".to_string(), self.n_other.to_string()),
            (true, What::Forward | What::Queries) => {
                ("0".into(), format!("clamp(min(first + {m}, {queries}) + {keys} - {queries}, 0, {keys})"))
            }
            (true, What::Keys) => (format!("max(0, first + {queries} - {keys}) / {n} * {n}"), self.n_other.to_string()),
        };
        let _ = write!(body, "    let end = {end};\n    for (var at = {begin}; at < end; at += {n}) {{\n");
    }

    /// `name`: products of own rows and others.
    fn compare(&self, body: &mut String, name: &str, own: Operand<'_>, other: Operand<'_>) {
        for (i, j) in squares(&self.tile) {
            let _ = writeln!(body, "    var {name}{i}_{j} = 0.0;");
        }
        body.push_str("    {\n");
        for (i, j) in squares(&self.tile) {
            let _ = writeln!(body, "    var c{i}_{j} = 0.0;");
        }
        let _ = writeln!(body, "    for (var start = 0; start < {}; start += {DEPTH}) {{", own.columns);
        self.load(body, "left", "first", own, self.tile.m());
        self.load(body, "right", "at", other, self.tile.n());
        body.push_str("        workgroupBarrier();\n");
        multiply(body, DType::F32, &self.tile);
        body.push_str("        workgroupBarrier();\n    }\n");
        for (i, j) in squares(&self.tile) {
            let _ = writeln!(body, "    {name}{i}_{j} = c{i}_{j};");
        }
        body.push_str("    }\n");
    }

    /// `DEPTH` terms of the rows behind `first`; what lies outside is zero.
    fn load(&self, body: &mut String, side: &str, first: &str, of: Operand<'_>, across: usize) {
        let (term, row) = if of.view.columns.abs() == 1 {
            (format!("e % {DEPTH}"), format!("e / {DEPTH}"))
        } else {
            (format!("e / {across}"), format!("e % {across}"))
        };
        let index = format!("{} + ({first} + r) * ({}) + (start + k) * ({})", of.start, of.view.rows, of.view.columns);
        let _ = write!(
            body,
            "        for (var e = lane; e < {count}; e += {threads}) {{\n\
             \x20           let k = {term};\n            let r = {row};\n            var x = 0.0;\n\
             \x20           if (start + k < {columns} && {first} + r < {rows}) {{ x = {load}; }}\n\
             \x20           {side}_tile[k * {pitch} + r] = x;\n        }}\n",
            count = DEPTH * across,
            threads = self.threads(),
            columns = of.columns,
            rows = of.rows,
            load = self.slots.load(of.view.buffer, &index),
            pitch = across + 1,
        );
    }

    /// Put `name` down as weights and add their products with the rows of others to `results`. The barriers inside stand
    /// also between what was done with the weights before and what is done next.
    fn combine(&self, body: &mut String, results: &str, name: &str, other: Operand<'_>) {
        let (pitch, across) = (self.tile.n() + 1, self.tile.across.1);
        for (i, j) in squares(&self.tile) {
            let (row, column) = (self.row(i), self.column(j));
            let _ = writeln!(body, "    weights[({row}) * {pitch} + {column}] = {name}{i}_{j};");
        }
        let wide = other.columns.next_multiple_of(across);
        let index = format!("{} + (at + k) * ({}) + c * ({})", other.start, other.view.rows, other.view.columns);
        let _ = write!(
            body,
            "    for (var start = 0; start < min({n}, {rows} - at); start += {STRIP}) {{\n\
             \x20       for (var e = lane; e < {count}; e += {threads}) {{\n\
             \x20           let c = e % {wide};\n            let k = start + e / {wide};\n            var x = 0.0;\n\
             \x20           if (at + k < {rows} && c < {columns}) {{ x = {load}; }}\n\
             \x20           right_tile[e / {wide} * {wide_pitch} + c] = x;\n        }}\n\
             \x20       workgroupBarrier();\n        for (var k = 0; k < {STRIP}; k++) {{\n",
            n = self.tile.n(),
            rows = other.rows,
            count = STRIP * wide,
            threads = self.threads(),
            wide = wide.max(1),
            columns = other.columns,
            load = self.slots.load(other.view.buffer, &index),
            wide_pitch = wide + 1,
        );
        for i in 0..self.tile.each.0 {
            let _ = writeln!(body, "            let a{i} = weights[({}) * {pitch} + start + k];", self.row(i));
        }
        for j in 0..wide / across {
            let _ = writeln!(body, "            let b{j} = right_tile[k * {} + {}];", wide + 1, self.column(j));
        }
        for (i, j) in self.result_squares(other.columns) {
            let _ = writeln!(body, "            {results}{i}_{j} = fma(a{i}, b{j}, {results}{i}_{j});");
        }
        body.push_str("        }\n        workgroupBarrier();\n    }\n");
    }

    /// `v`: whether each query of the squares sees the key.
    fn visible(&self, body: &mut String) {
        let AttentionKernel { queries, keys, causal, ref mask, .. } = *self.kernel;
        for (i, j) in squares(&self.tile) {
            let (own, other) = (format!("(first + {})", self.row(i)), format!("(at + {})", self.column(j)));
            let (query, key) = if self.what == What::Keys { (other, own) } else { (own, other) };
            let order = if causal { format!(" && {key} + {queries} <= {query} + {keys}") } else { String::new() };
            let _ = writeln!(body, "    var v{i}_{j} = {query} < {queries} && {key} < {keys}{order};");
            if let Some(mask) = mask {
                let index = format!("mask_start + {query} * ({}) + {key} * ({})", mask.rows, mask.columns);
                let load = self.slots.load(mask.buffer, &index);
                let _ = writeln!(body, "    if (v{i}_{j}) {{ v{i}_{j} = {load}; }}");
            }
        }
    }

    fn scale(&self) -> String {
        format!("f32({:e})", self.kernel.scale.to_f64() as f32)
    }

    fn forward(&self, body: &mut String) {
        let (rows, scale, value) = (self.tile.each.0, self.scale(), self.value());
        let pitch = self.tile.across.1 + 1;
        self.results(body, "r", value.columns);
        for i in 0..rows {
            let _ = writeln!(body, "    var most{i} = f32({HIDDEN});\n    var sum{i} = 0.0;");
        }
        self.each_tile(body);
        self.compare(body, "s", self.query(), self.key());
        self.visible(body);
        for (i, j) in squares(&self.tile) {
            let _ = writeln!(body, "    s{i}_{j} = select(f32({HIDDEN}), s{i}_{j} * {scale}, v{i}_{j});");
        }
        for i in 0..rows {
            let most = (1..self.tile.each.1).fold(format!("s{i}_0"), |most, j| format!("max({most}, s{i}_{j})"));
            let _ = writeln!(body, "    part[({}) * {pitch} + column] = {most};", self.row(i));
        }
        body.push_str("    workgroupBarrier();\n");
        for i in 0..rows {
            let _ = write!(
                body,
                "    let before{i} = most{i};\n{}    let factor{i} = m_exp(before{i} - most{i});\n    sum{i} *= factor{i};\n",
                self.over_row(i, &format!("most{i} = max(most{i}, part[{{}}]);")),
            );
        }
        for (i, j) in squares(&self.tile) {
            let _ = writeln!(
                body,
                "    s{i}_{j} = select(0.0, m_exp(s{i}_{j} - most{i}), v{i}_{j});\n    sum{i} += s{i}_{j};"
            );
        }
        for (i, j) in self.result_squares(value.columns) {
            let _ = writeln!(body, "    r{i}_{j} *= factor{i};");
        }
        self.combine(body, "r", "s", value);
        body.push_str("    }\n");
        self.finish(body);
    }

    /// A statement for the parts of a row, whose positions stand for `{}`.
    fn over_row(&self, i: usize, statement: &str) -> String {
        let across = self.tile.across.1;
        let statement = statement.replace("{}", &format!("({}) * {} + k", self.row(i), across + 1));
        format!("    for (var k = 0; k < {across}; k++) {{ {statement} }}\n")
    }

    /// Divide by the sums, and store outputs and logarithms.
    fn finish(&self, body: &mut String) {
        let AttentionKernel { queries, values, out, .. } = *self.kernel;
        let pitch = self.tile.across.1 + 1;
        for i in 0..self.tile.each.0 {
            let _ = writeln!(body, "    part[({}) * {pitch} + column] = sum{i};", self.row(i));
        }
        body.push_str("    workgroupBarrier();\n");
        for i in 0..self.tile.each.0 {
            let query = format!("first + {}", self.row(i));
            let index = format!("out_start + {} + {query}", queries * values);
            let log_sum = format!("select(most{i} + m_log(total{i}), 0.0, total{i} == 0.0)");
            let _ = write!(
                body,
                "    var total{i} = 0.0;\n{}    let inverse{i} = select(1.0 / total{i}, 0.0, total{i} == 0.0);\n\
                 \x20   if (column == 0 && {query} < {queries}) {{ {} }}\n",
                self.over_row(i, &format!("total{i} += part[{{}}];")),
                self.slots.store(out, &index, &log_sum),
            );
        }
        self.store(body, "r", "out_start", values, |i| format!(" * inverse{i}"));
    }

    /// Store the own rows of a result of so many columns.
    fn store(&self, body: &mut String, name: &str, start: &str, columns: usize, factor: impl Fn(usize) -> String) {
        for (i, j) in self.result_squares(columns) {
            let (row, column) = (format!("first + {}", self.row(i)), self.column(j));
            let index = format!("{start} + ({row}) * {columns} + {column}");
            let store = self.slots.store(self.kernel.out, &index, &format!("{name}{i}_{j}{}", factor(i)));
            let _ = writeln!(body, "    if ({row} < {} && {column} < {columns}) {{ {store} }}", self.n_own);
        }
    }

    fn reverse(&self, body: &mut String, reverse: &AttentionReverse) {
        let AttentionKernel { queries, keys, width, values, .. } = *self.kernel;
        let bar = self.cotangent(reverse);
        let of_keys = self.what == What::Keys;
        let (own, own_bar, other, other_bar) = if of_keys {
            (self.key(), self.value(), self.query(), bar)
        } else {
            (self.query(), bar, self.key(), self.value())
        };
        self.results(body, "r", width);
        if of_keys {
            self.results(body, "u", values);
        } else {
            (0..self.tile.each.0).for_each(|i| self.of_query(body, reverse, i, &format!("first + {}", self.row(i))));
        }
        self.each_tile(body);
        if of_keys {
            (0..self.tile.each.1).for_each(|j| self.of_query(body, reverse, j, &format!("at + {}", self.column(j))));
        }
        self.compare(body, "s", own, other);
        self.compare(body, "t", own_bar, other_bar);
        self.visible(body);
        for (i, j) in squares(&self.tile) {
            let at = if of_keys { j } else { i };
            let _ = write!(
                body,
                "    s{i}_{j} = select(0.0, m_exp(s{i}_{j} * {} - log_sum{at}), v{i}_{j});\n\
                 \x20   t{i}_{j} = select(0.0, s{i}_{j} * (t{i}_{j} - delta{at}), v{i}_{j});\n",
                self.scale(),
            );
        }
        self.combine(body, "r", "t", other);
        if of_keys {
            self.combine(body, "u", "s", other_bar);
        }
        body.push_str("    }\n");
        let start = if of_keys { format!("out_start + {}", queries * width) } else { "out_start".to_string() };
        self.store(body, "r", &start, width, |_| format!(" * {}", self.scale()));
        if of_keys {
            let start = format!("out_start + {}", (queries + keys) * width);
            self.store(body, "u", &start, values, |_| String::new());
        }
    }

    /// λ and δ of a query, as `log_sum` and `delta` of this number.
    fn of_query(&self, body: &mut String, reverse: &AttentionReverse, number: usize, query: &str) {
        let load = |name: &str, view: &MatrixView| {
            self.slots.load(view.buffer, &format!("{name}_start + ({query}) * ({})", view.rows))
        };
        let _ = write!(
            body,
            "    var log_sum{number} = 0.0;\n    var delta{number} = 0.0;\n\
             \x20   if ({query} < {}) {{ log_sum{number} = {}; delta{number} = {}; }}\n",
            self.kernel.queries,
            load("log_sum", &reverse.log_sums),
            load("delta", &reverse.delta),
        );
    }
}
