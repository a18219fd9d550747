//! How threads share out a row kernel:
//! - *flat*: no reductions; each thread takes points, a grid's width apart.
//! - *rows*: the lanes of (part of) a warp, or a whole block, take neighbouring elements of one row and combine what they have
//!   by shuffles, and through shared memory if there are several warps.
//! - *columns*: neighbouring threads take neighbouring rows (so that their loads are contiguous); further threads of the
//!   block take a part each of the same rows, combined through shared memory.

use super::Launch;
use super::reduce::Accumulator;
use super::row::{Row, operands};
use super::space::Walk;
use super::text::{Class, Register};
use raphson_compile::program::{Buffer, Instr, Level, Order, RowKernel};
use raphson_graph::dtype::DType;
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Prim;

/// Threads of a block where nothing else decides.
const BLOCK: u32 = 256;
/// Blocks of a flat kernel; each thread then takes several points.
const MOST_BLOCKS: usize = 2048;
/// Elements of a flat kernel from which threads take four neighbours at a time.
const FOUR_AT_ONCE: usize = 2048;
/// The greatest weight of the instructions on an element that are worth writing out four times.
const MOST_WEIGHT: usize = 400;
/// Elements of a thread from which a sum in f32 would lose digits.
const LONG_SUM: usize = 64;
/// Rows that 32 bits can count, with those that fill the last block.
const MOST_ROWS: usize = 1 << 30;
/// The greatest weight of an element's instructions for blocks so large that a thread has 64 registers only.
const LIGHT: usize = 150;
/// Enough threads for any GPU to hide its latencies.
const ENOUGH_THREADS: usize = 1 << 17;

/// Print a row kernel; nothing if it has no points.
pub fn print(kernel: &RowKernel, buffers: &[Buffer]) -> Result<Option<Launch>> {
    if kernel.kept.contains(&0) {
        return Ok(None);
    }
    let row = Row::new(kernel, buffers)?;
    if row.flat {
        return flat(row).map(Some);
    }
    let rows: usize = row.outer.iter().product();
    if rows > MOST_ROWS {
        return Err(Error::internal(
            "kernel",
            format!("{rows} reductions in one kernel; this device takes {MOST_ROWS}"),
        ));
    }
    let length: usize = row.inner.iter().product();
    if rows > 1 && (length == 0 || kernel.order == Order::Column) {
        return columns(row, rows, length).map(Some);
    }
    in_rows(row, rows, length).map(Some)
}

/// How many elements a thread takes at once along the inner space.
fn lanes(row: &Row<'_>, enough: bool) -> usize {
    let divides = row.inner.last().is_some_and(|last| last.is_multiple_of(4));
    if divides && enough && weight(row) <= MOST_WEIGHT { 4 } else { 1 }
}

/// About how many instructions one element takes.
fn weight(row: &Row<'_>) -> usize {
    let each = row.steps.iter().enumerate().filter(|&(i, _)| row.is_live(i) && row.kept[i].is_none());
    each.map(|(_, step)| match &step.instr {
        Instr::Prim { prim, .. } => prim_weight(*prim, step.dtype),
        Instr::Reduce { .. } => 4,
        Instr::Load { .. } | Instr::Store { .. } | Instr::Index(_) => 3,
        Instr::Const(_) => 0,
    })
    .sum()
}

fn prim_weight(prim: Prim, dtype: DType) -> usize {
    let wide = if dtype.size_bytes() == 8 { 2 } else { 1 };
    match prim {
        Prim::Exp | Prim::Expm1 | Prim::Tanh => 35 * wide,
        Prim::Log | Prim::Log1p | Prim::Div | Prim::Sqrt | Prim::Rem => 30 * wide,
        Prim::Sin | Prim::Cos | Prim::Erf => 60 * wide,
        Prim::Pow => 90 * wide,
        Prim::Threefry => 80,
        Prim::Min | Prim::Max => 3,
        _ => 1,
    }
}

fn flat(mut row: Row<'_>) -> Result<Launch> {
    let elements: usize = row.inner.iter().product();
    let lanes = lanes(&row, elements >= FOUR_AT_ONCE);
    let walk = Walk::new(&row.inner, lanes);
    let points = walk.points();
    let threads = points.next_multiple_of(32).clamp(32, BLOCK as usize) as u32;
    let blocks = points.div_ceil(threads as usize).min(MOST_BLOCKS);
    let text = &mut row.text;
    let thread = text.word("mov.u32", &[&"%tid.x"]);
    let block = text.word("mov.u32", &[&"%ctaid.x"]);
    let mut position = text.word("mad.lo.u32", &[&block, &threads, &thread]);
    if walk.class() == Class::Long {
        position = text.long("cvt.u64.u32", &[&position]);
    }
    let stores: Vec<usize> =
        (0..row.steps.len()).filter(|&i| matches!(row.steps[i].instr, Instr::Store { .. })).collect();
    row.begin_row(None, None)?;
    strided(&mut row, &walk, position, blocks * threads as usize, |row, position| {
        row.body(&stores, &walk, position, None).map(|_| ())
    })?;
    row.launch(blocks, threads)
}

/// Run `body` at `position`, position + stride, … below the number of points.
fn strided<'a>(
    row: &mut Row<'a>,
    walk: &Walk,
    position: Register,
    stride: usize,
    mut body: impl FnMut(&mut Row<'a>, Register) -> Result<()>,
) -> Result<()> {
    let points = walk.points();
    let kind = if position.class == Class::Long { "u64" } else { "u32" };
    let (again, done) = (row.text.label(), row.text.label());
    let position = if stride < points { row.text.copy(position) } else { position };
    let beyond = row.text.predicate(&format!("setp.ge.{kind}"), &[&position, &points]);
    row.text.branch_if(beyond, done);
    row.text.place(again);
    body(row, position)?;
    if stride < points {
        row.text.set(position, &format!("add.{kind}"), &[&position, &stride]);
        let more = row.text.predicate(&format!("setp.lt.{kind}"), &[&position, &points]);
        row.text.branch_if(more, again);
    }
    row.text.place(done);
    Ok(())
}

/// The threads that share a row.
struct Team {
    /// Which of them this thread is.
    rank: Register,
    size: u32,
    /// Where the row exists (always, without one).
    exists: Option<Register>,
    /// The thread that stores what there is one of.
    first: Option<Register>,
    kind: Kind,
}

enum Kind {
    /// `width` neighbouring lanes of a warp.
    Lanes { width: u32 },
    /// All threads of the block.
    Block { lane: Register, warp: Register },
    /// `size` threads, `columns` threads apart, of a block.
    Column { thread: Register, columns: u32, column: Register },
}

/// The row that this thread works on, held below `rows` so that every thread takes part in what threads do together.
fn hold_row(row: &mut Row<'_>, at: Register, rows: usize, in_all_blocks: usize) -> (Register, Option<Register>) {
    if rows == in_all_blocks {
        return (at, None);
    }
    let exists = row.text.predicate("setp.lt.u32", &[&at, &rows]);
    (row.text.word("min.u32", &[&at, &(rows - 1)]), Some(exists))
}

fn in_rows(mut row: Row<'_>, rows: usize, length: usize) -> Result<Launch> {
    let lanes = lanes(&row, length >= 128);
    let walk = Walk::new(&row.inner, lanes);
    let points = walk.points().max(1);
    let light = weight(&row) * lanes <= LIGHT;
    let whole_block = length >= 2048 || (length >= 512 && rows < 1024);
    let text = &mut row.text;
    let thread = text.word("mov.u32", &[&"%tid.x"]);
    let block = text.word("mov.u32", &[&"%ctaid.x"]);
    if whole_block {
        let most = if rows <= 128 && light { 1024 } else { BLOCK as usize };
        let threads = (points / 4).next_power_of_two().clamp(64, most) as u32;
        let lane = text.word("and.b32", &[&thread, &31]);
        let warp = text.word("shr.u32", &[&thread, &5]);
        let first = text.predicate("setp.eq.s32", &[&thread, &0]);
        let kind = Kind::Block { lane, warp };
        let team = Team { rank: thread, size: threads, exists: None, first: Some(first), kind };
        row.begin_row(Some(block), None)?;
        passes(&mut row, &walk, &team)?;
        return row.launch(rows, threads);
    }
    let width = points.div_ceil(2).next_power_of_two().clamp(2, 32) as u32;
    let threads = (rows * width as usize).next_multiple_of(32).clamp(32, BLOCK as usize) as u32;
    let rows_of_block = threads / width;
    let blocks = rows.div_ceil(rows_of_block as usize);
    let rank = text.word("and.b32", &[&thread, &(width - 1)]);
    let in_block = text.word("shr.u32", &[&thread, &width.trailing_zeros()]);
    let at = text.word("mad.lo.u32", &[&block, &rows_of_block, &in_block]);
    let (at, exists) = hold_row(&mut row, at, rows, blocks * rows_of_block as usize);
    let first = row.text.predicate("setp.eq.s32", &[&rank, &0]);
    let team = Team { rank, size: width, exists, first: Some(first), kind: Kind::Lanes { width } };
    row.begin_row(Some(at), team.exists)?;
    passes(&mut row, &walk, &team)?;
    row.launch(blocks, threads)
}

fn columns(mut row: Row<'_>, rows: usize, length: usize) -> Result<Launch> {
    let columns = (rows.next_power_of_two() as u32).min(32);
    // More threads for each row, until there are enough threads or too few elements for them.
    let mut parts = 1u32;
    while parts * columns < 512 && rows * (parts as usize) < ENOUGH_THREADS && length / parts as usize > 8 {
        parts *= 2;
    }
    // Few threads for a block are few for a multiprocessor.
    let columns = if parts == 1 { columns.max((rows.next_multiple_of(32) as u32).clamp(32, 128)) } else { columns };
    let lanes = lanes(&row, length / parts as usize >= 4);
    let walk = Walk::new(&row.inner, lanes);
    let threads = (columns * parts).max(32);
    let parts = threads / columns;
    let blocks = rows.div_ceil(columns as usize);
    let text = &mut row.text;
    let thread = text.word("mov.u32", &[&"%tid.x"]);
    let block = text.word("mov.u32", &[&"%ctaid.x"]);
    let (part, column) = text.divide_with_rest(thread, columns as usize);
    let at = text.word("mad.lo.u32", &[&block, &columns, &column]);
    let (at, exists) = hold_row(&mut row, at, rows, blocks * columns as usize);
    let first = (parts > 1).then(|| row.text.predicate("setp.eq.s32", &[&part, &0]));
    let kind = Kind::Column { thread, columns, column };
    let team = Team { rank: part, size: parts, exists, first, kind };
    row.begin_row(Some(at), team.exists)?;
    passes(&mut row, &walk, &team)?;
    row.launch(blocks, threads)
}

/// Each pass walks the row once; what it reduces, the next ones know.
fn passes(row: &mut Row<'_>, walk: &Walk, team: &Team) -> Result<()> {
    row.advance_kept()?;
    for pass in 0..=row.steps.iter().map(|step| step.pass).max().unwrap_or(0) {
        let steps = row.steps;
        let of_pass = |&i: &usize| match &steps[i].instr {
            Instr::Reduce { .. } => true,
            Instr::Store { .. } => row.levels[i] == Level::Full,
            _ => false,
        };
        let roots: Vec<usize> =
            (0..steps.len()).filter(|&i| steps[i].pass == pass && row.is_live(i)).filter(of_pass).collect();
        if !roots.is_empty() {
            walk_row(row, walk, team, &roots)?;
            row.advance_kept()?;
        }
    }
    let guard = match (team.exists, team.first) {
        (Some(exists), Some(first)) => Some(row.text.predicate("and.pred", &[&exists, &first])),
        (exists, first) => exists.or(first),
    };
    row.store_kept(guard)
}

/// One pass: every thread walks its part of the row, then they combine what they have.
fn walk_row(row: &mut Row<'_>, walk: &Walk, team: &Team, roots: &[usize]) -> Result<()> {
    let steps = row.steps;
    let each = walk.points().div_ceil(team.size as usize);
    let mut accumulators: Vec<(usize, Accumulator)> = Vec::new();
    for &i in roots {
        if let Instr::Reduce { op, .. } = &steps[i].instr {
            let dtype = steps[operands(&steps[i].instr)[0].0 as usize].dtype;
            accumulators.push((i, Accumulator::new(&mut row.text, *op, dtype, each > LONG_SUM)));
        }
    }
    let mut rank = team.rank;
    if walk.class() == Class::Long {
        rank = row.text.long("cvt.u64.u32", &[&rank]);
    }
    if let Some(exists) = team.exists {
        // Nothing of a row that is not there: in place, another team may be writing where this one is held.
        let select = if walk.class() == Class::Long { "selp.b64" } else { "selp.b32" };
        rank = row.text.op(walk.class(), select, &[&rank, &walk.points(), &exists]);
    }
    strided(row, walk, rank, team.size as usize, |row, position| {
        let values = row.body(roots, walk, position, team.exists)?;
        let mut positions: Vec<Register> = Vec::new();
        for (i, accumulator) in &mut accumulators {
            let arg = operands(&steps[*i].instr)[0].0 as usize;
            let missing = || Error::internal("kernel", format!("step {i} has no operand"));
            let value = values[arg].as_ref().ok_or_else(missing)?;
            if accumulator.wants_positions() && positions.is_empty() {
                let first =
                    if position.class == Class::Long { row.text.word("cvt.u32.u64", &[&position]) } else { position };
                positions =
                    (0..walk.lanes).map(|lane| row.text.word("mad.lo.u32", &[&first, &walk.lanes, &lane])).collect();
            }
            let elements: Vec<Register> = (0..walk.lanes).map(|lane| value.lane(lane)).collect();
            accumulator.take(&mut row.text, &elements, &positions);
        }
        Ok(())
    })?;
    accumulators.iter_mut().for_each(|(_, accumulator)| accumulator.widen(&mut row.text));
    combine(row, team, &mut accumulators);
    for (i, accumulator) in &accumulators {
        row.kept[*i] = Some(accumulator.finish(&mut row.text));
    }
    Ok(())
}

fn combine(row: &mut Row<'_>, team: &Team, accumulators: &mut [(usize, Accumulator)]) {
    let text = &mut row.text;
    match team.kind {
        Kind::Lanes { width } => {
            accumulators.iter_mut().for_each(|(_, accumulator)| accumulator.combine_lanes(text, width));
        }
        Kind::Block { lane, warp } => {
            if accumulators.is_empty() {
                return;
            }
            let warps = team.size / 32;
            let speaks = text.predicate("setp.eq.s32", &[&lane, &0]);
            let mut places = Vec::new();
            for (_, accumulator) in accumulators.iter_mut() {
                accumulator.combine_lanes(text, 32);
                let (bytes, place) = (accumulator.bytes(), text.shared(accumulator.bytes() * warps));
                let address = text.shared_address(place, warp, bytes);
                accumulator.store(text, Some(speaks), address);
                places.push(place);
            }
            text.barrier();
            let partner = text.word("and.b32", &[&lane, &(warps - 1)]);
            for ((_, accumulator), place) in accumulators.iter_mut().zip(places) {
                let address = text.shared_address(place, partner, accumulator.bytes());
                accumulator.load(text, address);
                accumulator.combine_lanes(text, warps);
            }
        }
        Kind::Column { thread, columns, column } => {
            if team.size == 1 {
                return;
            }
            for (_, accumulator) in accumulators {
                // The memory serves one reduction after another.
                if row.text.shared_bytes() > 0 {
                    row.text.barrier();
                }
                combine_column(row, team, (thread, columns, column), accumulator);
            }
        }
    }
}

/// A tree in shared memory: in each round the first half of the threads of a column takes from the second half.
fn combine_column(
    row: &mut Row<'_>,
    team: &Team,
    (thread, columns, column): (Register, u32, Register),
    accumulator: &mut Accumulator,
) {
    let text = &mut row.text;
    let bytes = accumulator.bytes();
    let needed = bytes * columns * team.size;
    let place = 0;
    if text.shared_bytes() < needed {
        text.shared(needed - text.shared_bytes());
    }
    let own = text.shared_address(place, thread, bytes);
    accumulator.store(text, None, own);
    text.barrier();
    let mut half = team.size / 2;
    while half > 0 {
        let skip = text.label();
        let idle = text.predicate("setp.ge.u32", &[&team.rank, &half]);
        text.branch_if(idle, skip);
        let other = text.word("add.u32", &[&own, &(half * columns * bytes)]);
        accumulator.combine_shared(text, other);
        accumulator.store(text, None, own);
        text.place(skip);
        text.barrier();
        half /= 2;
    }
    let result = text.shared_address(place, column, bytes);
    accumulator.load(text, result);
}
