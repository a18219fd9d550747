//! One element after another: the loop of a kernel whose threads each take a point of a space, then the point a whole grid
//! further on.

use super::space::Walk;
use super::text::{Class, Register, Text};

const BLOCK: usize = 256;

/// Prints `body` for each point, given its position. The grid: blocks, of which there are at most `most_blocks`, and threads
/// in each.
pub fn each_point(
    text: &mut Text,
    walk: &Walk,
    most_blocks: usize,
    body: impl FnOnce(&mut Text, Register),
) -> (usize, u32) {
    let points = walk.points();
    let threads = points.next_multiple_of(32).clamp(32, BLOCK) as u32;
    let blocks = points.div_ceil(threads as usize).min(most_blocks);
    let thread = text.word("mov.u32", &[&"%tid.x"]);
    let block = text.word("mov.u32", &[&"%ctaid.x"]);
    let start = text.word("mad.lo.u32", &[&block, &threads, &thread]);
    let wide = walk.class() == Class::Long;
    let position = if wide { text.long("cvt.u64.u32", &[&start]) } else { text.copy(start) };
    let kind = if wide { "u64" } else { "u32" };
    let (again, done) = (text.label(), text.label());
    let beyond = text.predicate(&format!("setp.ge.{kind}"), &[&position, &points]);
    text.branch_if(beyond, done);
    text.place(again);
    body(text, position);
    let stride = blocks * threads as usize;
    if stride < points {
        text.set(position, &format!("add.{kind}"), &[&position, &stride]);
        let more = text.predicate(&format!("setp.lt.{kind}"), &[&position, &points]);
        text.branch_if(more, again);
    }
    text.place(done);
    (blocks, threads)
}
