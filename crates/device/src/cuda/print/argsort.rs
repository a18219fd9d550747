//! The order of the elements of each row. Blocks sort runs of a row in shared memory (Batcher's bitonic network, by element
//! and position, so that the order is the stable one); longer rows are merged, pass by pass: every element finds its place
//! among the other run by bisection. n elements take about n·log²(run)/2 exchanges in shared memory, and log₂(n/run) passes of
//! log n reads, which neighbours have in common, so that most come from the cache.

use super::grid::each_point;
use super::parameters::Parameters;
use super::prim::{cast, class, compare, constant, select};
use super::reduce::identity;
use super::row::{load, load_if};
use super::space::{Point, Walk};
use super::text::{Class, Register, Text};
use super::{Launch, Parameter};
use raphson_compile::program::{ArgsortKernel, ReduceOp};
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::error::{Error, Result};
use raphson_graph::kernel::Prim;

const MOST_BLOCKS: usize = 1 << 16;
const THREADS: usize = 256;
/// The longest run that a block sorts: 16 or 24 KiB of shared memory.
const LONGEST_RUN: usize = 2048;

/// out[r, ..] = positions of row r in order: sorted runs, then merges, each from one buffer to another; the last writes `out`.
pub fn print(sort: &ArgsortKernel) -> Result<Vec<Launch>> {
    if sort.rows * sort.length == 0 {
        return Ok(Vec::new());
    }
    let too_long = || Error::internal("argsort", format!("a row of {} elements", sort.length));
    u32::try_from(sort.length).ok().filter(|&n| n <= i32::MAX as u32).ok_or_else(too_long)?;
    let run = sort.length.next_power_of_two().clamp(2, LONGEST_RUN);
    let lengths: Vec<usize> =
        std::iter::successors(Some(run), |&n| Some(2 * n)).take_while(|&n| n < sort.length).collect();
    let buffers = [Parameter::Buffer(sort.out), Parameter::Workspace];
    // Which of the two pass `pass` writes, if the last is to write the first.
    let written = |pass: usize| buffers[(lengths.len() - pass) % 2];
    let mut launches = vec![runs(sort, run, written(0))?];
    for (pass, &length) in lengths.iter().enumerate() {
        launches.push(merge(sort, length, written(pass), written(pass + 1))?);
    }
    if !lengths.is_empty() {
        launches.iter_mut().for_each(|launch| launch.workspace_bytes = 4 * sort.rows * sort.length);
    }
    Ok(launches)
}

/// Elements as they are compared: bools as numbers.
fn key_dtype(sort: &ArgsortKernel) -> DType {
    if sort.dtype == DType::Bool { DType::I32 } else { sort.dtype }
}

/// One element of a run: where its row's positions are in `to` from its own on, whether there is one, and its position.
struct Element {
    to: Register,
    is_there: Register,
    position: Register,
}

/// A block's runs in shared memory: `elements` of them, each run a power of two, padded with what comes last.
struct Network {
    key: DType,
    descending: bool,
    run: usize,
    elements: usize,
    keys: u32,
    positions: u32,
}

fn runs(sort: &ArgsortKernel, run: usize, to: Parameter) -> Result<Launch> {
    let mut text = Text::default();
    let text = &mut text;
    let mut parameters = Parameters::default();
    let (data, to) = (parameters.pointer(text, sort.data), parameters.get(text, to));
    let key = key_dtype(sort);
    let elements = run.max(2 * THREADS);
    let (keys, positions) = (text.shared((elements * key.size_bytes()) as u32), text.shared(4 * elements as u32));
    let network = Network { key, descending: sort.descending, run, elements, keys, positions };
    let thread = text.word("mov.u32", &[&"%tid.x"]);
    let found: Vec<Element> = (0..elements / THREADS)
        .map(|part| {
            let at = text.word("add.u32", &[&thread, &(part * THREADS)]);
            let (element, from) = locate(text, sort, &network, at, data, to);
            network.fill(text, sort, at, &element, from);
            element
        })
        .collect();
    network.sort(text, thread);
    for (part, element) in found.iter().enumerate() {
        let at = text.word("add.u32", &[&thread, &(part * THREADS)]);
        let from = text.shared_address(network.positions, at, 4);
        let position = text.word("ld.shared.b32", &[&format!("[{from}]")]);
        text.act_if(Some(element.is_there), "st.global.b32", &[&format!("[{}]", element.to), &position]);
    }
    let n_runs = sort.rows * sort.length.div_ceil(run);
    Launch::new("argsort", text, parameters.finish(), n_runs.div_ceil(elements / run), THREADS as u32)
}

/// The element `at` of a block's, and the address of its value.
fn locate(
    text: &mut Text,
    sort: &ArgsortKernel,
    network: &Network,
    at: Register,
    data: Register,
    to: Register,
) -> (Element, Register) {
    let (in_block, within) = text.divide_with_rest(at, network.run);
    let per_block = network.elements / network.run;
    let in_row = sort.length.div_ceil(network.run);
    let block = text.word("mov.u32", &[&"%ctaid.x"]);
    let in_block = text.long("cvt.u64.u32", &[&in_block]);
    let number = text.long("mad.wide.u32", &[&block, &per_block, &in_block]);
    let (row, position) = if in_row == 1 {
        (number, within)
    } else {
        let (row, number) = text.divide_with_rest(number, in_row);
        let number = text.word("cvt.u32.u64", &[&number]);
        (row, text.word("mad.lo.u32", &[&number, &network.run, &within]))
    };
    let in_rows = text.predicate("setp.lt.u64", &[&row, &sort.rows]);
    let in_length = text.predicate("setp.lt.u32", &[&position, &sort.length]);
    let is_there = text.predicate("and.pred", &[&in_rows, &in_length]);
    let size = sort.dtype.size_bytes() as i64;
    let [from, to] = [(data, size), (to, 4)].map(|(base, size)| {
        let start = text.scaled(base, row, sort.length as i64 * size);
        text.scaled(start, position, size)
    });
    (Element { to, is_there, position }, from)
}

impl Network {
    /// Put down an element; where there is none, one that comes last: positions break ties, and its own is the greater.
    fn fill(&self, text: &mut Text, sort: &ArgsortKernel, at: Register, element: &Element, from: Register) {
        let last = if self.key.is_float() {
            Scalar::Float(f64::NAN)
        } else {
            identity(if sort.descending { ReduceOp::Max } else { ReduceOp::Min }, self.key)
        };
        let last = constant(text, last, self.key);
        let value = load_if(text, Some(element.is_there), sort.dtype, from, 0);
        let value = cast(text, sort.dtype, self.key, value);
        let value = select(text, element.is_there, value, last);
        self.put(text, None, at, (value, element.position));
    }

    fn addresses(&self, text: &mut Text, at: Register) -> (Register, Register) {
        let key = text.shared_address(self.keys, at, self.key.size_bytes() as u32);
        (key, text.shared_address(self.positions, at, 4))
    }

    fn put(&self, text: &mut Text, guard: Option<Register>, at: Register, (key, position): (Register, Register)) {
        let (key_at, position_at) = self.addresses(text, at);
        let kind = class(self.key).untyped();
        text.act_if(guard, &format!("st.shared.{kind}"), &[&format!("[{key_at}]"), &key]);
        text.act_if(guard, "st.shared.b32", &[&format!("[{position_at}]"), &position]);
    }

    fn get(&self, text: &mut Text, at: Register) -> (Register, Register) {
        let (key_at, position_at) = self.addresses(text, at);
        let kind = class(self.key).untyped();
        let key = text.op(class(self.key), &format!("ld.shared.{kind}"), &[&format!("[{key_at}]")]);
        (key, text.word("ld.shared.b32", &[&format!("[{position_at}]")]))
    }

    /// Bitonic sequences of 2, 4, … elements (`size`), each merged by exchanges over half of it, a quarter, … (`apart`).
    fn sort(&self, text: &mut Text, thread: Register) {
        let (sizes, aparts) = (text.label(), text.label());
        let size = text.word("mov.b32", &[&2]);
        text.place(sizes);
        let apart = text.word("shr.u32", &[&size, &1]);
        text.place(aparts);
        text.barrier();
        for part in 0..self.elements / 2 / THREADS {
            let pair = text.word("add.u32", &[&thread, &(part * THREADS)]);
            self.exchange(text, pair, size, apart);
        }
        text.set(apart, "shr.u32", &[&apart, &1]);
        let more = text.predicate("setp.ne.u32", &[&apart, &0]);
        text.branch_if(more, aparts);
        text.set(size, "shl.b32", &[&size, &1]);
        let more = text.predicate("setp.le.u32", &[&size, &self.run]);
        text.branch_if(more, sizes);
        text.barrier();
    }

    /// Put the pair of this number in order: rising, or falling in every other sequence of `size`.
    fn exchange(&self, text: &mut Text, pair: Register, size: Register, apart: Register) {
        let mask = text.word("sub.u32", &[&apart, &1]);
        let low = text.word("and.b32", &[&pair, &mask]);
        let at = text.word("add.u32", &[&pair, &pair]);
        let at = text.word("sub.u32", &[&at, &low]);
        let other = text.word("add.u32", &[&at, &apart]);
        let (a, b) = (self.get(text, at), self.get(text, other));
        let within = text.word("and.b32", &[&at, &(self.run - 1)]);
        let turned = text.word("and.b32", &[&within, &size]);
        let is_turned = text.predicate("setp.ne.u32", &[&turned, &0]);
        let earlier = before(text, self.key, self.descending, b.0, a.0);
        let later = before(text, self.key, self.descending, a.0, b.0);
        let precedes = text.predicate("setp.lt.u32", &[&b.1, &a.1]);
        let not_later = text.predicate("not.pred", &[&later]);
        let tied = text.predicate("and.pred", &[&precedes, &not_later]);
        let comes_first = text.predicate("or.pred", &[&earlier, &tied]);
        let swaps = text.predicate("xor.pred", &[&comes_first, &is_turned]);
        self.put(text, Some(swaps), at, b);
        self.put(text, Some(swaps), other, a);
    }
}

/// Merge neighbouring runs of `length`: to[start + own place in its run + place among the other run] = from[..].
fn merge(sort: &ArgsortKernel, length: usize, from: Parameter, to: Parameter) -> Result<Launch> {
    let mut text = Text::default();
    let text = &mut text;
    let mut parameters = Parameters::default();
    let data = parameters.pointer(text, sort.data);
    let (from, to) = (parameters.get(text, from), parameters.get(text, to));
    let walk = Walk::new(&[sort.rows, sort.length], 1);
    let size = sort.dtype.size_bytes() as i64;
    let (blocks, threads) = each_point(text, &walk, MOST_BLOCKS, |text, position| {
        let mut point = Point::new(position);
        let row = walk.coordinate(text, &mut point, 0);
        let at = walk.coordinate(text, &mut point, 1);
        let at = if at.class == Class::Long { text.word("cvt.u32.u64", &[&at]) } else { at };
        let values = text.scaled(data, row, sort.length as i64 * size);
        let [from, to] = [from, to].map(|base| text.scaled(base, row, sort.length as i64 * 4));
        let element = text.scaled(from, at, 4);
        let element = text.word("ld.global.b32", &[&format!("[{element}]")]);
        // The pair of runs, this element's place in its run, and where the other run begins and ends.
        let (run, own) = text.divide_with_rest(at, length);
        let second = text.word("and.b32", &[&run, &1]);
        let is_second = text.predicate("setp.ne.u32", &[&second, &0]);
        let first_run = text.word("sub.u32", &[&run, &second]);
        let start = text.word("mul.lo.u32", &[&first_run, &length]);
        let middle = text.word("add.u32", &[&start, &length]);
        let middle = text.word("min.u32", &[&middle, &sort.length]);
        let end = text.word("add.u32", &[&middle, &length]);
        let end = text.word("min.u32", &[&end, &sort.length]);
        let low = text.word("selp.b32", &[&start, &middle, &is_second]);
        let high = text.word("selp.b32", &[&middle, &end, &is_second]);
        let runs = Runs { sort, values, from };
        let place = runs.place(text, element, is_second, low, high);
        let place = text.word("add.u32", &[&place, &own]);
        let place = text.word("add.u32", &[&place, &start]);
        let target = text.scaled(to, place, 4);
        text.act("st.global.b32", &[&format!("[{target}]"), &element]);
    });
    Launch::new("argsort", text, parameters.finish(), blocks, threads)
}

/// A row: its values, and its positions in runs.
struct Runs<'a> {
    sort: &'a ArgsortKernel,
    values: Register,
    from: Register,
}

impl Runs<'_> {
    fn value(&self, text: &mut Text, position: Register) -> Register {
        let address = text.scaled(self.values, position, self.sort.dtype.size_bytes() as i64);
        load(text, self.sort.dtype, address, 0)
    }

    /// How many of the other run, from `low` to `high`, come before an element: of equal ones those of the first run.
    fn place(
        &self,
        text: &mut Text,
        element: Register,
        is_second: Register,
        low: Register,
        high: Register,
    ) -> Register {
        let (dtype, descending) = (self.sort.dtype, self.sort.descending);
        let mine = self.value(text, element);
        let (begin, low, high) = (low, text.copy(low), text.copy(high));
        let (again, done) = (text.label(), text.label());
        text.place(again);
        let empty = text.predicate("setp.ge.u32", &[&low, &high]);
        text.branch_if(empty, done);
        let sum = text.word("add.u32", &[&low, &high]);
        let middle = text.word("shr.u32", &[&sum, &1]);
        let at = text.scaled(self.from, middle, 4);
        let at = text.word("ld.global.b32", &[&format!("[{at}]")]);
        let other = self.value(text, at);
        let earlier = before(text, dtype, descending, other, mine);
        let later = before(text, dtype, descending, mine, other);
        let not_later = text.predicate("not.pred", &[&later]);
        let counts = select(text, is_second, not_later, earlier);
        let next = text.word("add.u32", &[&middle, &1]);
        text.set(low, "selp.b32", &[&next, &low, &counts]);
        text.set(high, "selp.b32", &[&high, &middle, &counts]);
        text.branch(again);
        text.place(done);
        text.word("sub.u32", &[&low, &begin])
    }
}

/// Whether a comes before b: below it (or above), or a number before a NaN.
fn before(text: &mut Text, dtype: DType, descending: bool, a: Register, b: Register) -> Register {
    let (low, high) = if descending { (b, a) } else { (a, b) };
    let below = compare(text, Prim::Lt, dtype, low, high);
    if !dtype.is_float() {
        return below;
    }
    let a_is_number = compare(text, Prim::Eq, dtype, a, a);
    let b_is_nan = compare(text, Prim::Ne, dtype, b, b);
    let last = text.predicate("and.pred", &[&a_is_number, &b_is_nan]);
    text.predicate("or.pred", &[&below, &last])
}
