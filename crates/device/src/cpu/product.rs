//! Large products of f32 matrices: both operands are packed once, by all threads together, and then multiplied tile by tile. One operand
//! gives the rows of tiles, of which single numbers are read (where they lie, if the terms of its sums are neighbours), the other the
//! columns, of which vectors are read. Either may be either: the result is then written the other way round. Smaller products are `dot.rs`'s.

use super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::memory::Workspace;
use super::panels::{
    Panels, Sums, Tile, accumulate, leading_to, load_sums, no_sums, numbers, pack, part, sets, store_sums, with_tiles,
};
use super::pool::Team;
use super::row::Bases;
use raphson_compile::program::{DotKernel, MatrixView};
use std::ops::Range;

/// Terms of a sum that are added up while a panel of columns stays in the first-level cache: 16 or 32 KiB of it.
const DEPTH: usize = 256;
/// Elements that stay in the second-level cache: 256 KiB of it.
const BLOCK: usize = 1 << 16;
/// Multiply-adds that are worth a plan of their own.
pub const LEAST: usize = 1 << 18;
/// Multiply-adds that make a piece of work, and the most pieces.
pub const PIECE: usize = 1 << 19;
pub const MOST_PIECES: usize = 16;
/// Panels of rows that use columns where they lie, if these are neighbours: for so few, packing costs more than it saves.
const FEW_PANELS: usize = 2;
/// The most elements that are packed; above, the `gemm` crate packs block by block.
const MOST_PACKED: usize = 1 << 22;
/// Clock cycles to pack or store an element that is no neighbour of the one before, one of a matrix that is turned, and a neighbour; and
/// to read a row's element once more from the third-level cache.
const SCATTERED: f64 = 1.5;
const TURNED: f64 = 0.45;
const NEIGHBOUR: f64 = 0.2;
const AGAIN: f64 = 0.05;

/// A matrix operand as a tile sees it: elements between its rows (or columns), and between the terms of a sum.
#[derive(Clone, Copy)]
pub struct Side {
    pub buffer: usize,
    pub offset: isize,
    pub count: usize,
    pub step: isize,
    pub term: isize,
}

impl Side {
    /// The sides of a product.
    pub fn both(kernel: &DotKernel) -> [Side; 2] {
        let side = |view: &MatrixView, count: usize, step: i64, term: i64| Side {
            buffer: view.buffer.0 as usize,
            offset: view.offset as isize,
            count,
            step: step as isize,
            term: term as isize,
        };
        let (left, right) = (&kernel.left, &kernel.right);
        [side(left, kernel.m, left.rows, left.columns), side(right, kernel.n, right.columns, right.rows)]
    }

    /// Its first element.
    pub fn base(&self, bases: &Bases) -> *const f32 {
        bases.0[self.buffer].cast::<f32>().cast_const().wrapping_offset(self.offset)
    }
}

/// How a product is cut.
pub struct Plan {
    rows: Side,
    columns: Side,
    terms: usize,
    tile: Tile,
    row_panels: Panels,
    /// Whether rows are read where they lie.
    direct: bool,
    /// Whether columns are, but for a last panel that is not full.
    direct_columns: bool,
    out: usize,
    /// Elements between the result's neighbours along rows and along columns.
    out_steps: (usize, usize),
    row_parts: usize,
    column_parts: usize,
    /// Packs a panel, and multiplies a chunk.
    fill: LoopFn,
    run: LoopFn,
    /// Clock cycles of packing and tiles.
    pub cycles: f64,
}

impl Plan {
    /// A plan, if the product is one for tiles.
    pub fn new(kernel: &DotKernel, level: Level) -> Option<Plan> {
        sets(kernel.dtype, level).iter().find_map(|&set| Plan::on(kernel, set))
    }

    fn on(kernel: &DotKernel, level: Level) -> Option<Plan> {
        let (m, n, k) = (kernel.m, kernel.n, kernel.k);
        let work = m.saturating_mul(n).saturating_mul(k);
        let single = kernel.batch.iter().all(|&size| size == 1);
        if !single || work < LEAST || k == 0 {
            return None;
        }
        let tile = Tile::of(level);
        let [left, right] = Side::both(kernel);
        let straight = cost(left, right, k, tile);
        let turned = cost(right, left, k, tile) + SCATTERED * (m * n) as f64;
        let (rows, columns, out_steps) = if turned < straight { (right, left, (1, n)) } else { (left, right, (n, 1)) };
        let (row_panels, column_panels) = (Panels::of(rows.count, tile), columns.count.div_ceil(tile.width));
        let padded = row_panels.rows() * column_panels * tile.width;
        let packed = k.saturating_mul(column_panels * tile.width + row_panels.rows());
        if padded * 10 > m * n * 13 || packed > MOST_PACKED {
            return None;
        }
        let pieces = (work / PIECE).clamp(2, MOST_PIECES) & !1;
        let row_parts = match (blocks_of_rows(rows, k, tile), columns_fit(columns, k, tile)) {
            (1, _) => 1,
            (_, true) => pieces,
            (blocks, false) => blocks.min(pieces),
        };
        let column_parts = (pieces / row_parts).min(column_panels);
        let row_parts = pieces.div_ceil(column_parts).min(row_panels.count());
        Some(Plan {
            rows,
            columns,
            terms: k,
            tile,
            row_panels,
            direct: rows.term == 1,
            direct_columns: row_parts == 1 && columns.step == 1 && row_panels.count() <= FEW_PANELS,
            out: kernel.out.0 as usize,
            out_steps,
            row_parts,
            column_parts,
            fill: with_tiles!(level, find_fill())?,
            run: with_tiles!(level, find_run())?,
            cycles: straight.min(turned),
        })
    }

    fn column_panels(&self) -> usize {
        self.columns.count.div_ceil(self.tile.width)
    }

    /// Whether each panel of columns is used by one piece of work, which packs it for itself.
    fn packs_alone(&self) -> bool {
        self.row_parts == 1
    }

    /// Elements of columns that all threads pack together, behind which packed rows lie.
    fn packed_columns(&self) -> usize {
        if self.packs_alone() { 0 } else { self.column_panels() * self.tile.width * self.terms }
    }

    /// Elements of the tiles that a thread keeps between blocks of terms, behind which its panel of columns lies.
    fn kept(&self) -> usize {
        let tile = self.tile;
        let panels = self.row_panels.count().div_ceil(self.row_parts);
        if self.terms > DEPTH { panels * tile.tall * tile.width } else { 0 }
    }

    /// Bytes that each thread, and that all together need.
    pub fn scratch_bytes(&self) -> (usize, usize) {
        let rows = if self.direct { 0 } else { self.row_panels.rows() * self.terms };
        let own = self.kept() + if self.packs_alone() { self.tile.width * self.terms } else { 0 };
        (own * size_of::<f32>(), (self.packed_columns() + rows) * size_of::<f32>())
    }
}

/// Parts of the rows that stay in the second-level cache for a block of terms while one panel of columns after another uses them.
fn blocks_of_rows(rows: Side, terms: usize, tile: Tile) -> usize {
    (Panels::of(rows.count, tile).rows() * terms.min(DEPTH)).div_ceil(BLOCK)
}

/// Whether all columns stay there while one panel of rows after another uses them.
fn columns_fit(columns: Side, terms: usize, tile: Tile) -> bool {
    columns.count.next_multiple_of(tile.width) * terms <= BLOCK
}

/// Clock cycles of one way round: tiles, idle parts included, and packing.
fn cost(rows: Side, columns: Side, terms: usize, tile: Tile) -> f64 {
    let tiles = Panels::of(rows.count, tile).rows() * columns.count.next_multiple_of(tile.width);
    let each = |count: usize, cycles: f64| (count * terms) as f64 * cycles;
    let packed_rows = if rows.term == 1 { 0.0 } else { each(rows.count, SCATTERED) };
    let packed_columns = each(
        columns.count,
        match (columns.step, columns.term) {
            (1, _) => NEIGHBOUR,
            (_, 1) => TURNED,
            _ => SCATTERED,
        },
    );
    let stays = blocks_of_rows(rows, terms, tile) == 1 || columns_fit(columns, terms, tile);
    let again = if stays { 0.0 } else { each(rows.count, AGAIN) * columns.count.div_ceil(tile.width) as f64 };
    (tiles * terms) as f64 / tile.width as f64 + packed_rows + packed_columns + again
}

fn find_fill<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Fill<W, T, L>>
}

fn find_run<I: Isa, const W: usize, const T: usize, const L: usize>() -> LoopFn {
    I::call::<Tiles<W, T, L>>
}

/// Run a product.
///
/// # Safety
/// As for `row::run`; the output overlaps neither operand, and the machine has the plan's instruction set.
pub unsafe fn run(plan: &Plan, bases: &Bases, workspace: &Workspace, team: &Team) {
    let (row_panels, column_panels) = (plan.row_panels.count(), plan.column_panels());
    let packed = || workspace.shared::<f32>();
    let together = if plan.packs_alone() { 0 } else { column_panels };
    let fill = |_: usize, panel: usize| {
        let fill = Fresh {
            plan,
            panel,
            together,
            rows: plan.rows.base(bases),
            columns: plan.columns.base(bases),
            out: packed(),
        };
        // SAFETY: the operands were checked when the program was loaded, and the workspace has room for every panel.
        unsafe { (plan.fill)(&leading_to(&fill)) };
    };
    team.prepare(together + if plan.direct { 0 } else { row_panels }, &fill);
    let body = |thread: usize, chunk: usize| {
        let call = Call {
            plan,
            row_panels: part(row_panels, plan.row_parts, chunk / plan.column_parts),
            column_panels: part(column_panels, plan.column_parts, chunk % plan.column_parts),
            rows: if plan.direct {
                plan.rows.base(bases)
            } else {
                packed().wrapping_add(plan.packed_columns()).cast_const()
            },
            columns: if plan.packs_alone() { plan.columns.base(bases) } else { packed().cast_const() },
            out: bases.0[plan.out].cast::<f32>(),
            own: workspace.own::<f32>(thread),
        };
        // SAFETY: the loop was chosen for this machine; chunks write disjoint parts of the output.
        unsafe { (plan.run)(&leading_to(&call)) };
    };
    team.run(plan.row_parts * plan.column_parts, &body);
}

/// A panel that is packed for all threads: one of `together` panels of columns, or of the rows behind them.
struct Fresh<'a> {
    plan: &'a Plan,
    panel: usize,
    together: usize,
    rows: *const f32,
    columns: *const f32,
    out: *mut f32,
}

/// Packs it.
struct Fill<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Fill<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put this behind `a`, with operands and room as the plan says.
        unsafe {
            let Fresh { plan, panel, together, rows, columns, out } = *args.a.cast::<Fresh>();
            if panel < together {
                let out = out.add(panel * W * plan.terms);
                return pack_panel::<I, W>(&plan.columns, columns, panel * W, plan.terms, out);
            }
            let panel = panel - together;
            let start = plan.row_panels.start(panel);
            let out = out.add(plan.packed_columns() + start * plan.terms);
            if plan.row_panels.is_tall(panel) {
                pack_panel::<I, T>(&plan.rows, rows, start, plan.terms, out);
            } else {
                pack_panel::<I, L>(&plan.rows, rows, start, plan.terms, out);
            }
        }
    }
}

/// Pack the rows or columns from `start` on.
///
/// # Safety
/// As for [`pack`]; `from` is the operand's first element.
#[inline(always)]
unsafe fn pack_panel<I: Isa, const W: usize>(side: &Side, from: *const f32, start: usize, terms: usize, out: *mut f32) {
    let width = W.min(side.count - start);
    let from = from.wrapping_offset(start as isize * side.step);
    // SAFETY: passed on to our caller.
    unsafe { pack::<I, W>(from, (side.term, side.step), terms, width, out) };
}

/// What a loop works on.
struct Call<'a> {
    plan: &'a Plan,
    row_panels: Range<usize>,
    column_panels: Range<usize>,
    rows: *const f32,
    columns: *const f32,
    out: *mut f32,
    own: *mut f32,
}

/// The tiles of some panels of rows with some of columns.
struct Tiles<const W: usize, const T: usize, const L: usize>;

impl<const W: usize, const T: usize, const L: usize> Loop for Tiles<W, T, L> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`.
        let call = unsafe { &*args.a.cast::<Call>() };
        let terms = call.plan.terms;
        let blocks = terms.div_ceil(DEPTH);
        for column in call.column_panels.clone() {
            let full = (column + 1) * W <= call.plan.columns.count;
            if call.plan.direct_columns && full {
                let from = call.columns.wrapping_add(column * W);
                for panel in call.row_panels.clone() {
                    // SAFETY: as below; the operand's view was checked.
                    unsafe { panel_of::<I, W, T, L, true>(call, panel, column, from, &(0..terms)) };
                }
                continue;
            }
            let columns = if call.plan.packs_alone() {
                let own = call.own.wrapping_add(call.plan.kept());
                // SAFETY: the operand's view was checked, and this thread's memory has room for a panel behind the tiles.
                unsafe { pack_panel::<I, W>(&call.plan.columns, call.columns, column * W, terms, own) };
                own.cast_const()
            } else {
                call.columns.wrapping_add(column * terms * W)
            };
            for block in 0..blocks {
                let depth = part(terms, blocks, block);
                for panel in call.row_panels.clone() {
                    // SAFETY: panels were packed, or rows lie as the checked view says; tiles are disjoint parts of the output.
                    unsafe { panel_of::<I, W, T, L, false>(call, panel, column, columns, &depth) };
                }
            }
        }
    }
}

/// Some terms of the tile of a panel of rows, with columns that lie where they are, or packed.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn panel_of<I: Isa, const W: usize, const T: usize, const L: usize, const LIE: bool>(
    call: &Call,
    panel: usize,
    column: usize,
    columns: *const f32,
    depth: &Range<usize>,
) {
    let panels = call.plan.row_panels;
    // SAFETY: passed on to our caller.
    unsafe {
        if panels.is_tall(panel) {
            tile::<I, W, T, LIE>(call, panels.start(panel), column, columns, depth);
        } else {
            tile::<I, W, L, LIE>(call, panels.start(panel), column, columns, depth);
        }
    }
}

/// Some terms of one tile: begun by the first of them, kept in this thread's memory, and stored after the last.
///
/// # Safety
/// The call's rows and the panel of columns may be read and its output written; where these are not all terms, this thread's memory holds a tile for
/// each panel of rows of the chunk.
#[inline(always)]
unsafe fn tile<I: Isa, const W: usize, const R: usize, const LIE: bool>(
    call: &Call,
    start: usize,
    column: usize,
    columns: *const f32,
    depth: &Range<usize>,
) {
    let plan = call.plan;
    let held = call.own.wrapping_add((start - plan.row_panels.start(call.row_panels.start)) * W);
    let next = if LIE { plan.columns.term } else { W as isize };
    let columns = columns.wrapping_offset(depth.start as isize * next);
    // SAFETY: passed on to our caller. The last row stands for those that are missing.
    unsafe {
        let begun = if depth.start == 0 { no_sums::<I, R>() } else { load_sums::<I, R>(held, W) };
        let sums = if plan.direct {
            let last = plan.rows.count - 1;
            let row =
                |r: usize| call.rows.offset((start + r).min(last) as isize * plan.rows.step + depth.start as isize);
            let at = |t: usize| (t as isize, t as isize * next);
            accumulate::<I, R, false>(depth.len(), std::array::from_fn(row), columns, at, begun)
        } else {
            let rows = call.rows.add(start * plan.terms + depth.start * R);
            let at = |t: usize| ((t * R) as isize, t as isize * next);
            accumulate::<I, R, false>(depth.len(), std::array::from_fn(|r| rows.add(r)), columns, at, begun)
        };
        if depth.end == plan.terms {
            store::<I, W, R>(plan, call.out, start, column, sums);
        } else {
            store_sums::<I, R>(sums, R, held, W);
        }
    }
}

/// # Safety
/// The output is the plan's.
#[inline(always)]
unsafe fn store<I: Isa, const W: usize, const R: usize>(
    plan: &Plan,
    out: *mut f32,
    start: usize,
    column: usize,
    sums: Sums<I, R>,
) {
    let (row_step, column_step) = plan.out_steps;
    let height = R.min(plan.rows.count - start);
    let width = W.min(plan.columns.count - column * W);
    let out = out.wrapping_add(start * row_step + column * W * column_step);
    // SAFETY: passed on to our caller.
    unsafe {
        if column_step == 1 && width == W {
            return store_sums::<I, R>(sums, height, out, row_step);
        }
        let sums = numbers::<I, W, R>(sums);
        if row_step == 1 && height == R {
            (0..width).for_each(|l| {
                let column: [f32; R] = sums.map(|row| row[l]);
                out.add(l * column_step).cast::<[f32; R]>().write_unaligned(column);
            });
        } else {
            for (r, row) in sums.iter().enumerate().take(height) {
                row.iter().take(width).enumerate().for_each(|(l, &sum)| *out.add(r * row_step + l * column_step) = sum);
            }
        }
    }
}
