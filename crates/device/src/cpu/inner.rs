//! Products of f32 whose operands both lie along the terms of their sums, as x·Wᵀ does: nothing is packed. A sum is a vector, whose lanes are
//! added up in the end; a tile is some rows of the left operand with some of the right one. `dot.rs` says when this is quicker than
//! `product.rs`.

use super::isa::{Args, Isa, Level, Loop, LoopFn};
use super::panels::{leading_to, part, sets};
use super::pool::Team;
use super::product::{LEAST, MOST_PIECES, PIECE, Side};
use super::row::Bases;
use raphson_compile::program::DotKernel;
use std::ops::Range;
use std::ptr::copy_nonoverlapping;

/// The most terms: the right operand's rows of a tile stay in the first-level cache while one panel of the left one after another uses them.
const MOST_TERMS: usize = 1536;
/// Clock cycles to add up the lanes of a sum.
const ADD_UP: f64 = 1.0;

/// Rows of the left operand in a tile, whose sums leave registers together.
const ROWS: usize = 4;

/// How a product is cut.
pub struct Plan {
    left: Side,
    right: Side,
    terms: usize,
    /// Rows of the right operand in a tile.
    columns: usize,
    out: usize,
    row_parts: usize,
    column_parts: usize,
    run: LoopFn,
    /// Clock cycles of all tiles.
    pub cycles: f64,
}

impl Plan {
    /// A plan, if the operands lie so.
    pub fn new(kernel: &DotKernel, level: Level) -> Option<Plan> {
        let (m, n, k) = (kernel.m, kernel.n, kernel.k);
        let work = m.saturating_mul(n).saturating_mul(k);
        let single = kernel.batch.iter().all(|&size| size == 1);
        let [left, right] = Side::both(kernel);
        if !single
            || (left.term, right.term) != (1, 1)
            || work < LEAST
            || k > MOST_TERMS
            || !sets(kernel.dtype, level).contains(&level)
        {
            return None;
        }
        let Form { run, columns, lanes } = form(level)?;
        let (row_panels, column_panels) = (m.div_ceil(ROWS), n.div_ceil(columns));
        let sums = (row_panels * ROWS * column_panels * columns) as f64;
        let pieces = (work / PIECE).clamp(2, MOST_PIECES) & !1;
        let column_parts = pieces.min(column_panels);
        Some(Plan {
            left,
            right,
            terms: k,
            columns,
            out: kernel.out.0 as usize,
            row_parts: pieces.div_ceil(column_parts).min(row_panels),
            column_parts,
            run,
            cycles: sums * (k.div_ceil(lanes) as f64 / 2.0 + ADD_UP),
        })
    }
}

/// What there is of each instruction set.
struct Form {
    run: LoopFn,
    columns: usize,
    lanes: usize,
}

fn form(level: Level) -> Option<Form> {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Some(form_of::<super::isa::Avx512, 6>()),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Some(form_of::<super::isa::Avx2, 3>()),
        _ => None,
    }
}

fn form_of<I: Isa, const C: usize>() -> Form {
    Form { run: I::call::<Tiles<C>>, columns: C, lanes: I::LANES }
}

/// Run a product.
///
/// # Safety
/// As for `row::run`; the output overlaps neither operand, and the machine has the plan's instruction set.
pub unsafe fn run(plan: &Plan, bases: &Bases, team: &Team) {
    let body = |_: usize, chunk: usize| {
        let call = Call {
            plan,
            rows: part(plan.left.count.div_ceil(ROWS), plan.row_parts, chunk / plan.column_parts),
            columns: part(plan.right.count.div_ceil(plan.columns), plan.column_parts, chunk % plan.column_parts),
            left: plan.left.base(bases),
            right: plan.right.base(bases),
            out: bases.0[plan.out].cast(),
        };
        // SAFETY: the loop was chosen for this machine, and the operands were checked when the program was loaded; chunks write disjoint parts
        // of the output.
        unsafe { (plan.run)(&leading_to(&call)) };
    };
    team.run(plan.row_parts * plan.column_parts, &body);
}

/// What a loop works on: panels of either operand.
struct Call<'a> {
    plan: &'a Plan,
    rows: Range<usize>,
    columns: Range<usize>,
    left: *const f32,
    right: *const f32,
    out: *mut f32,
}

/// The tiles of some panels, `C` rows of the right operand each.
struct Tiles<const C: usize>;

impl<const C: usize> Loop for Tiles<C> {
    #[inline(always)]
    unsafe fn run<I: Isa>(args: &Args) {
        // SAFETY: our caller put the call behind `a`, and vouches for its operands. The last row stands for those that are missing.
        unsafe {
            let Call { plan, rows, columns, left, right, out } = &*args.a.cast::<Call>();
            let row =
                |from: *const f32, side: Side, at: usize| from.offset(at.min(side.count - 1) as isize * side.step);
            for j in columns.clone().map(|panel| panel * C) {
                let of_right = std::array::from_fn(|c| row(*right, plan.right, j + c));
                for i in rows.clone().map(|panel| panel * ROWS) {
                    let of_left = std::array::from_fn(|r| row(*left, plan.left, i + r));
                    let out = out.add(i * plan.right.count + j);
                    let (height, width) = (ROWS.min(plan.left.count - i), C.min(plan.right.count - j));
                    if (height, width) == (ROWS, C) {
                        tile::<I, C>(of_left, of_right, plan.terms, out, plan.right.count);
                        continue;
                    }
                    let mut whole = [[0.0; C]; ROWS];
                    tile::<I, C>(of_left, of_right, plan.terms, whole.as_mut_ptr().cast(), C);
                    for (r, sums) in whole.iter().enumerate().take(height) {
                        copy_nonoverlapping(sums.as_ptr(), out.add(r * plan.right.count), width);
                    }
                }
            }
        }
    }
}

/// The sums of rows of the left operand with rows of the right one: a row of `C` sums for each of the left ones, `step` elements apart.
///
/// # Safety
/// From each address `terms` numbers may be read, and the sums written; the machine has the set.
#[inline(always)]
unsafe fn tile<I: Isa, const C: usize>(
    left: [*const f32; ROWS],
    right: [*const f32; C],
    terms: usize,
    out: *mut f32,
    step: usize,
) {
    let mut sums = [[I::zeros(); ROWS]; C];
    let whole = terms / I::LANES * I::LANES;
    // SAFETY: passed on to our caller.
    unsafe {
        for at in (0..whole).step_by(I::LANES) {
            let right: [I::Vector; C] = std::array::from_fn(|c| I::load(right[c].add(at)));
            for r in 0..ROWS {
                let row = I::load(left[r].add(at));
                for c in 0..C {
                    sums[c][r] = I::multiply_add(row, right[c], sums[c][r]);
                }
            }
        }
        if whole < terms {
            let rest = |from: *const f32| I::load_part(from.add(whole), 0, terms - whole);
            for r in 0..ROWS {
                let row = rest(left[r]);
                for c in 0..C {
                    sums[c][r] = I::multiply_add(row, rest(right[c]), sums[c][r]);
                }
            }
        }
        I::put_sums(sums, out, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raphson_compile::program::{BufferId, MatrixView};
    use raphson_graph::dtype::DType;

    fn kernel([m, k, n]: [usize; 3], along: [bool; 2]) -> DotKernel {
        let view = |id: u32, rows: usize, terms: usize, along: bool| {
            let (row, term) = if along { (terms as i64, 1) } else { (1, rows as i64) };
            (BufferId(id), row, term)
        };
        let ((left, row, left_term), (right, column, right_term)) = (view(0, m, k, along[0]), view(1, n, k, along[1]));
        let left = MatrixView { buffer: left, offset: 0, batch: Vec::new(), rows: row, columns: left_term };
        let right = MatrixView { buffer: right, offset: 0, batch: Vec::new(), rows: right_term, columns: column };
        DotKernel { dtype: DType::F32, batch: Vec::new(), m, k, n, left, right, out: BufferId(2) }
    }

    #[test]
    fn for_operands_along_their_terms_of_which_panels_stay_in_cache() {
        for level in Level::available().into_iter().filter(|&level| form(level).is_some()) {
            let is_for = |size, along| Plan::new(&kernel(size, along), level).is_some();
            assert!(is_for([32, 784, 512], [true, true]), "{}", level.name());
            assert!(!is_for([32, 784, 512], [true, false]) && !is_for([32, 784, 512], [false, true]));
            assert!(!is_for([64, 3136, 128], [true, true]) && !is_for([8, 16, 8], [true, true]));
            let doubles = DotKernel { dtype: DType::F64, ..kernel([32, 784, 512], [true, true]) };
            assert!(Plan::new(&doubles, level).is_none());
        }
    }
}
