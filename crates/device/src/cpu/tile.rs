//! The sizes of tiles and of pieces of work: how much fits in cache, how much is worth a thread. Decided from the
//! kernel alone, so that results do not depend on the number of threads.

use super::map;
use super::plan::{Block, RowPlan, Space};
use raphson_compile::program::{Instr, RowKernel, Step};

/// Bytes of first-level cache that the registers of a tile should fit in.
const TILE_BYTES: usize = 24 << 10;
/// Bytes up to which several passes over a row in cache beat computing its values again.
pub const ROW_BYTES: usize = 128 << 10;
/// Elements of a tile.
pub const TILE_LEAST: usize = 256;
pub const TILE_MOST: usize = 1024;
/// Of a flat one without functions that take long. While those are computed the processor fetches the next tile, if it is not too far off.
const CHEAP_MOST: usize = 2048;
/// Of rows that are only read.
pub const READ_MOST: usize = 8192;
/// The most that an instruction costs which takes no longer than a division.
const CHEAP: usize = 4;
/// Rows and columns of a block.
const BLOCK_SIDE: usize = 32;
/// Cheap instructions on elements that are worth waking a thread for.
const PARALLEL_COST: usize = 1 << 15;
/// The most pieces that the work of one kernel is cut into.
const MOST_CHUNKS: usize = 256;

/// How a kernel is walked, before the sizes of tiles are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiling {
    Flat,
    WholeRows,
    LongRows,
    Lanes,
}

/// Choose the tile sizes of a kernel for registers of `bytes` bytes per point in all.
pub fn sized(kernel: &RowKernel, tiling: Tiling, space: Space, bytes: usize) -> Space {
    let cheap = kernel.steps.iter().all(|step| step_cost(step) <= CHEAP);
    let most = match tiling {
        Tiling::Flat if cheap => CHEAP_MOST,
        Tiling::WholeRows | Tiling::LongRows if bytes == 0 => READ_MOST,
        _ => TILE_MOST,
    };
    let fitting = (TILE_BYTES / bytes.max(1)).clamp(TILE_LEAST, most);
    let tile = 1 << fitting.ilog2();
    let (kept, reduced) = (space.kept.max(1), space.reduced);
    let (tile_kept, tile_reduced) = match tiling {
        Tiling::Flat if space.block.is_some() => (space.block.map_or(1, |b| b.height * b.width), 1),
        Tiling::Flat => (tile.min(kept), 1),
        Tiling::WholeRows => ((tile / reduced).clamp(1, kept), reduced),
        // Evened out, so that no tile is a crumb.
        Tiling::LongRows => (1, reduced.div_ceil(reduced.div_ceil(tile).max(1)).next_multiple_of(16).min(reduced)),
        Tiling::Lanes => {
            let lanes = lanes(kept, reduced, tile);
            (lanes, (tile / lanes).clamp(1, reduced.max(1)))
        }
    };
    Space { tile_kept, tile_reduced, ..space }
}

/// Blocks for a kernel with a view that steps far along the last axis and by one along another: read along the last
/// axis, every element would come from a cache line of its own, gone before its neighbour is wanted.
pub fn block(kernel: &RowKernel) -> Option<Block> {
    let sizes = &kernel.kept;
    let last = sizes.iter().rposition(|&size| size != 1)?;
    let views = kernel.steps.iter().filter_map(|step| match &step.instr {
        Instr::Load { view, .. } | Instr::Store { view, .. } => Some(view),
        Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => None,
    });
    let mut far = views.filter(|view| view.kept.get(last).is_some_and(|stride| stride.abs() >= BLOCK_SIDE as i64 / 2));
    let row = far.find_map(|view| (0..last).rev().find(|&a| view.kept[a].abs() == 1 && sizes[a] >= BLOCK_SIDE / 4))?;
    let middle = sizes[row + 1..last].iter().product();
    let (rows, columns) = (sizes[row], sizes[last]);
    let wide = columns >= BLOCK_SIDE / 4 && sizes.iter().all(|&size| size > 0);
    wide.then(|| Block { rows, middle, columns, height: rows.min(BLOCK_SIDE), width: columns.min(BLOCK_SIDE) })
}

/// Kept indices that go together: a tile's width, evened out, and narrower when one tile would be all the work.
fn lanes(kept: usize, reduced: usize, tile: usize) -> usize {
    let pieces = if kept >= 256 && kept.saturating_mul(reduced) >= 1 << 16 { 8 } else { 1 };
    let narrow = kept.div_ceil(pieces).max(128).min(tile);
    kept.div_ceil(kept.div_ceil(narrow)).next_multiple_of(if kept > narrow { 16 } else { 1 }).min(kept)
}

/// Cheap instructions for each point of the index space.
pub fn cost(kernel: &RowKernel) -> usize {
    kernel.steps.iter().map(step_cost).sum::<usize>().max(1)
}

fn step_cost(step: &Step) -> usize {
    match step.instr {
        Instr::Prim { prim, .. } => map::cost(prim, step.dtype),
        Instr::Load { .. } | Instr::Index(_) | Instr::Reduce { .. } | Instr::Store { .. } => 1,
        Instr::Const(_) => 0,
    }
}

/// Group the kept tiles into pieces of work. They depend on the kernel alone, never on the number of threads.
pub fn share_out(plan: &mut RowPlan, cost: usize) {
    let tile_cost = plan.space.tile_kept.saturating_mul(plan.space.reduced.max(1)).saturating_mul(cost);
    let n_tiles = plan.space.n_tiles();
    plan.parallel = tile_cost.saturating_mul(n_tiles) >= PARALLEL_COST && n_tiles > 1;
    let least = n_tiles.div_ceil(MOST_CHUNKS).max(1);
    plan.tiles_per_chunk = (PARALLEL_COST / 2 / tile_cost.max(1)).clamp(least, n_tiles.max(least));
}
