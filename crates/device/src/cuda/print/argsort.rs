//! The order of the elements of each row: each thread counts the elements that come before its own, which is that one's
//! place. The work grows with the square of a row's length; all threads of a warp read the same elements of a row.

use super::Launch;
use super::grid::each_point;
use super::parameters::Parameters;
use super::prim::compare;
use super::row::load;
use super::space::{Point, Walk};
use super::text::{Class, Register, Text};
use raphson_compile::program::ArgsortKernel;
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Prim;

const MOST_BLOCKS: usize = 1 << 16;

/// out[r, #{j before i}] = i
pub fn print(sort: &ArgsortKernel) -> Result<Option<Launch>> {
    if sort.rows * sort.length == 0 {
        return Ok(None);
    }
    let too_long = || Error::internal("argsort", format!("a row of {} elements", sort.length));
    let length = u32::try_from(sort.length).ok().filter(|&n| n <= i32::MAX as u32).ok_or_else(too_long)?;
    let mut text = Text::default();
    let text = &mut text;
    let mut parameters = Parameters::default();
    let data = parameters.pointer(text, sort.data);
    let out = parameters.pointer(text, sort.out);
    let walk = Walk::new(&[sort.rows, sort.length], 1);
    let (blocks, threads) = each_point(text, &walk, MOST_BLOCKS, |text, position| {
        let mut point = Point::new(position);
        let row = walk.coordinate(text, &mut point, 0);
        let own = walk.coordinate(text, &mut point, 1);
        let own = if own.class == Class::Long { text.word("cvt.u32.u64", &[&own]) } else { own };
        let place = count_earlier(text, sort, length, data, row, own);
        let to = text.scaled(out, row, 4 * i64::from(length));
        let to = text.scaled(to, place, 4);
        text.act("st.global.b32", &[&format!("[{to}]"), &own]);
    });
    Launch::new("argsort", text, parameters.finish(), blocks, threads).map(Some)
}

/// How many elements of the row come before the one at `own`.
fn count_earlier(
    text: &mut Text,
    sort: &ArgsortKernel,
    length: u32,
    data: Register,
    row: Register,
    own: Register,
) -> Register {
    let size = sort.dtype.size_bytes() as i64;
    let first = text.scaled(data, row, i64::from(length) * size);
    let at = text.scaled(first, own, size);
    let mine = load(text, sort.dtype, at, 0);
    let (j, place) = (text.word("mov.b32", &[&0]), text.word("mov.b32", &[&0]));
    let from = text.copy(first);
    let again = text.label();
    text.place(again);
    let other = load(text, sort.dtype, from, 0);
    let earlier = before(text, sort, other, mine);
    let later = before(text, sort, mine, other);
    // Among equals the first comes first.
    let precedes = text.predicate("setp.lt.u32", &[&j, &own]);
    let not_later = text.predicate("not.pred", &[&later]);
    let tied = text.predicate("and.pred", &[&precedes, &not_later]);
    let counts = text.predicate("or.pred", &[&earlier, &tied]);
    let one = text.word("selp.b32", &[&1, &0, &counts]);
    text.set(place, "add.u32", &[&place, &one]);
    text.set(from, "add.u64", &[&from, &size]);
    text.set(j, "add.u32", &[&j, &1]);
    let more = text.predicate("setp.lt.u32", &[&j, &length]);
    text.branch_if(more, again);
    place
}

/// Whether a comes before b: below it (or above), or a number before a NaN.
fn before(text: &mut Text, sort: &ArgsortKernel, a: Register, b: Register) -> Register {
    let (low, high) = if sort.descending { (b, a) } else { (a, b) };
    let below = compare(text, Prim::Lt, sort.dtype, low, high);
    if !sort.dtype.is_float() {
        return below;
    }
    let a_is_number = compare(text, Prim::Eq, sort.dtype, a, a);
    let b_is_nan = compare(text, Prim::Ne, sort.dtype, b, b);
    let last = text.predicate("and.pred", &[&a_is_number, &b_is_nan]);
    text.predicate("or.pred", &[&below, &last])
}
