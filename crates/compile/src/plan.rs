//! Where buffers live. Temporaries share one arena by first fit over their lifetimes; an output takes over the memory of
//! a donated input where no kernel can tell the difference.

use crate::emit::{Emitted, Unplaced};
use crate::program::{Buffer, BufferId, Instr, Kernel, Level, Place, Program, RowKernel, View};
use raphson_graph::dtype::DType;
use raphson_graph::kernel::{Prim, Reg};
use raphson_graph::work::{visit, visiting};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Alignment of temporaries in bytes: a cache line, and any vector register.
const ALIGNMENT: usize = 64;

/// As many times smaller than the largest temporary, one is small.
const SMALL: usize = 16;

/// More large temporaries than this are not tried by size, which compares each with all.
const MOST_BY_SIZE: usize = 512;

/// Place all buffers.
pub fn plan(emitted: Emitted, donated: &[bool]) -> Program {
    let Emitted { buffers, kernels, inputs, outputs } = emitted;
    let mut places: Vec<Option<Place>> = vec![None; buffers.len()];
    for (position, &BufferId(buffer)) in inputs.iter().enumerate() {
        places[buffer as usize] = Some(Place::Input(position));
    }
    for (position, &BufferId(buffer)) in outputs.iter().enumerate() {
        places[buffer as usize] = Some(Place::Output(position));
    }
    let uses: Vec<Uses> = kernels.iter().map(Uses::of).collect();
    for (output, input) in takeovers(&buffers, &kernels, &uses, &inputs, &outputs, donated) {
        places[outputs[output].0 as usize] = Some(Place::InPlace { input, output });
    }
    let arena_bytes = place_temporaries(&buffers, &uses, &mut places);
    let placed = buffers.iter().zip(&places).map(|(buffer, place)| Buffer {
        dtype: buffer.dtype,
        elements: buffer.elements,
        // Every buffer is an input, an output or a temporary that some kernel defines.
        place: place.unwrap_or(Place::Arena(0)),
    });
    Program { buffers: placed.collect(), kernels, inputs, outputs, arena_bytes }
}

/// The buffers that a kernel touches.
struct Uses {
    read: Vec<BufferId>,
    written: Vec<BufferId>,
}

impl Uses {
    fn of(kernel: &Kernel) -> Uses {
        let (read, written) = kernel.buffers();
        Uses { read, written }
    }
}

/// Pairs (output, donated input): the one kernel that writes the output reads the input point by point and is the last
/// to read it.
fn takeovers(
    buffers: &[Unplaced],
    kernels: &[Kernel],
    uses: &[Uses],
    inputs: &[BufferId],
    outputs: &[BufferId],
    donated: &[bool],
) -> Vec<(usize, usize)> {
    let mut last_read = vec![0; buffers.len()];
    let mut writers: Vec<Vec<usize>> = vec![Vec::new(); buffers.len()];
    for (position, uses) in uses.iter().enumerate() {
        uses.read.iter().for_each(|buffer| last_read[buffer.0 as usize] = position);
        uses.written.iter().for_each(|buffer| writers[buffer.0 as usize].push(position));
    }
    let mut rows: HashMap<usize, Accesses> = HashMap::new();
    for out in outputs {
        if let &[writer] = &writers[out.0 as usize][..]
            && let Kernel::Row(row) = &kernels[writer]
        {
            rows.entry(writer).or_insert_with(|| Accesses::of(row));
        }
    }
    let mut times = vec![0; buffers.len()];
    inputs.iter().for_each(|input| times[input.0 as usize] += 1);
    for (input, &buffer) in visiting(inputs.iter().enumerate()) {
        if donated[input]
            && times[buffer.0 as usize] == 1
            && let Some(row) = rows.get_mut(&last_read[buffer.0 as usize])
        {
            row.offer(input, buffer, &buffers[buffer.0 as usize]);
        }
    }
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let mut served = vec![false; outputs.len()];
    // An output that may be an input as it is takes over that one's memory first, and then need not be written.
    for own in [true, false] {
        for (output, &out) in visiting(outputs.iter().enumerate()) {
            let &[writer] = &writers[out.0 as usize][..] else { continue };
            let Some(row) = rows.get_mut(&writer).filter(|_| !served[output]) else { continue };
            let unplaced = &buffers[out.0 as usize];
            let input = if own { row.take_own(out, unplaced) } else { row.take_any(out, unplaced) };
            if let Some(input) = input {
                served[output] = true;
                pairs.push((output, input));
            }
        }
    }
    pairs
}

/// What two buffers must agree in for one to take over the other's memory: dtype, size, and how the kernel reaches them.
type Manner<'a> = (DType, usize, &'a View, Level);

/// How a row kernel reaches its buffers, and which donated inputs its outputs may take over.
struct Accesses<'a> {
    row: &'a RowKernel,
    /// View, level and value of each store, unless a later pass could read again what it wrote.
    stores: HashMap<BufferId, (&'a View, Level, Reg)>,
    /// View and level of each buffer that is read in one manner only; `None` for the others.
    loads: HashMap<BufferId, Option<(&'a View, Level)>>,
    offered: HashMap<BufferId, (usize, Manner<'a>)>,
    /// The same by manner, in the order of the inputs.
    queues: HashMap<Manner<'a>, VecDeque<usize>>,
    taken: HashSet<usize>,
}

impl<'a> Accesses<'a> {
    fn of(row: &'a RowKernel) -> Accesses<'a> {
        let one_pass = row.steps.iter().all(|step| step.level == Level::Kept || step.pass == 0);
        let (mut stores, mut loads) = (HashMap::new(), HashMap::new());
        for step in visiting(&row.steps) {
            match &step.instr {
                Instr::Store { buffer, view, value } => {
                    if one_pass && (step.level == Level::Full || row.reduced.is_empty()) {
                        stores.insert(*buffer, (view, step.level, *value));
                    }
                }
                Instr::Load { buffer, view } => {
                    let manner = Some((view, step.level));
                    let known = loads.entry(*buffer).or_insert(manner);
                    *known = known.filter(|_| *known == manner);
                }
                Instr::Const(_) | Instr::Index(_) | Instr::Prim { .. } | Instr::Reduce { .. } => {}
            }
        }
        let (offered, queues, taken) = (HashMap::new(), HashMap::new(), HashSet::new());
        Accesses { row, stores, loads, offered, queues, taken }
    }

    /// A donated input that this kernel is the last to read.
    fn offer(&mut self, input: usize, buffer: BufferId, unplaced: &Unplaced) {
        if let Some(&Some((view, level))) = self.loads.get(&buffer) {
            let manner = (unplaced.dtype, unplaced.elements, view, level);
            self.offered.insert(buffer, (input, manner));
            self.queues.entry(manner).or_default().push_back(input);
        }
    }

    fn manner(&self, out: BufferId, unplaced: &Unplaced) -> Option<Manner<'a>> {
        let &(view, level, _) = self.stores.get(&out)?;
        Some((unplaced.dtype, unplaced.elements, view, level))
    }

    /// The input that the output may be a plain copy of: one of those that a select loads.
    fn take_own(&mut self, out: BufferId, unplaced: &Unplaced) -> Option<usize> {
        let manner = self.manner(out, unplaced)?;
        let &(_, _, value) = self.stores.get(&out)?;
        let Instr::Prim { prim: Prim::Select, args: [_, a, b] } = &self.row.steps[value.0 as usize].instr else {
            return None;
        };
        let fitting = |reg: &Reg| match &self.row.steps[reg.0 as usize].instr {
            Instr::Load { buffer, .. } => {
                let &(input, found) = self.offered.get(buffer)?;
                (found == manner && !self.taken.contains(&input)).then_some(input)
            }
            _ => None,
        };
        let input = [a, b].into_iter().find_map(fitting)?;
        self.taken.insert(input);
        Some(input)
    }

    /// The first input that fits and is not taken.
    fn take_any(&mut self, out: BufferId, unplaced: &Unplaced) -> Option<usize> {
        let manner = self.manner(out, unplaced)?;
        let queue = self.queues.get_mut(&manner)?;
        while let Some(input) = queue.pop_front() {
            visit(1);
            if self.taken.insert(input) {
                return Some(input);
            }
        }
        None
    }
}

/// Gives every temporary a place in the arena; returns the arena's size. Small ones have a part of it to themselves, so that none that
/// lives long keeps a large one out of where it would fit.
fn place_temporaries(buffers: &[Unplaced], uses: &[Uses], places: &mut [Option<Place>]) -> usize {
    let mut temporaries: Vec<Temporary> = Vec::new();
    let mut position_of: Vec<Option<usize>> = vec![None; buffers.len()];
    for (at, uses) in uses.iter().enumerate() {
        for &BufferId(buffer) in visiting(uses.written.iter().chain(&uses.read)) {
            let (buffer, Some(bytes)) = (buffer as usize, size(&buffers[buffer as usize], places[buffer as usize]))
            else {
                continue;
            };
            match position_of[buffer] {
                Some(known) => temporaries[known].last = at,
                None => {
                    position_of[buffer] = Some(temporaries.len());
                    temporaries.push(Temporary { buffer, bytes, first: at, last: at });
                }
            }
        }
    }
    let least = temporaries.iter().map(|temporary| temporary.bytes).max().map_or(0, |largest| largest / SMALL);
    let (large, small): (Vec<_>, Vec<_>) = temporaries.into_iter().partition(|temporary| temporary.bytes > least);
    let (mut offsets, mut end) = in_turn(&large, uses.len());
    if large.len() <= MOST_BY_SIZE && end > most_at_once(&large, uses.len()) {
        let (others, other_end) = by_size(&large);
        if other_end < end {
            (offsets, end) = (others, other_end);
        }
    }
    let (behind, small_end) = in_turn(&small, uses.len());
    offsets.extend(behind.into_iter().map(|offset| end + offset));
    for (temporary, offset) in large.iter().chain(&small).zip(offsets) {
        places[temporary.buffer] = Some(Place::Arena(offset));
    }
    end + small_end
}

/// A buffer in the arena, from the kernel that writes it first to the one that touches it last.
struct Temporary {
    buffer: usize,
    bytes: usize,
    first: usize,
    last: usize,
}

/// Bytes that live at the same time: no plan takes less.
fn most_at_once(temporaries: &[Temporary], n_kernels: usize) -> usize {
    let mut change = vec![0isize; n_kernels + 1];
    for temporary in visiting(temporaries) {
        change[temporary.first] += temporary.bytes as isize;
        change[temporary.last + 1] -= temporary.bytes as isize;
    }
    let (mut now, mut most) = (0, 0);
    for change in change {
        now += change;
        most = most.max(now);
    }
    most as usize
}

/// First fit over lifetimes, in the order of the kernels. Offsets, and the end of the last.
fn in_turn(temporaries: &[Temporary], n_kernels: usize) -> (Vec<usize>, usize) {
    let mut ending: Vec<Vec<usize>> = vec![Vec::new(); n_kernels];
    for (at, temporary) in visiting(temporaries.iter().enumerate()) {
        ending[temporary.last].push(at);
    }
    let mut arena = Arena::default();
    let mut offsets: Vec<usize> = Vec::with_capacity(temporaries.len());
    for (kernel, ending) in ending.iter().enumerate() {
        while let Some(next) = temporaries.get(offsets.len()).filter(|next| next.first == kernel) {
            offsets.push(arena.take(next.bytes));
        }
        ending.iter().for_each(|&at| arena.give(offsets[at], temporaries[at].bytes));
    }
    (offsets, arena.end)
}

/// The largest first, each where it fits lowest between those that live when it does. Offsets, and the end of the last.
fn by_size(temporaries: &[Temporary]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..temporaries.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(temporaries[at].bytes), at));
    let mut offsets = vec![0; temporaries.len()];
    let mut end = 0;
    // Those that have their place, by offset.
    let mut placed: Vec<usize> = Vec::new();
    for at in order {
        let own = &temporaries[at];
        let mut offset = 0;
        for &other in visiting(&placed) {
            let it = &temporaries[other];
            if it.first > own.last || it.last < own.first {
                continue;
            }
            if offsets[other] >= offset + own.bytes {
                break;
            }
            offset = offset.max(offsets[other] + it.bytes);
        }
        offsets[at] = offset;
        end = end.max(offset + own.bytes);
        placed.insert(placed.partition_point(|&other| offsets[other] <= offset), at);
    }
    (offsets, end)
}

/// Bytes that a buffer without a place takes in the arena.
fn size(buffer: &Unplaced, place: Option<Place>) -> Option<usize> {
    let bytes = buffer.elements * buffer.dtype.size_bytes();
    place.is_none().then_some(bytes.max(1).next_multiple_of(ALIGNMENT))
}

/// Free intervals by offset; everything from `end` on is free too.
#[derive(Default)]
struct Arena {
    free: BTreeMap<usize, usize>,
    end: usize,
}

impl Arena {
    fn take(&mut self, size: usize) -> usize {
        let fit = visiting(&self.free).find(|&(_, &free)| free >= size).map(|(&offset, &free)| (offset, free));
        let Some((offset, free)) = fit else {
            // Grow, from a free interval that touches the end if there is one.
            let touching = self.free.last_key_value().filter(|&(&at, &free)| at + free == self.end).map(|(&at, _)| at);
            let offset = touching.unwrap_or(self.end);
            self.free.remove(&offset);
            self.end = offset + size;
            return offset;
        };
        self.free.remove(&offset);
        if free > size {
            self.free.insert(offset + size, free - size);
        }
        offset
    }

    fn give(&mut self, mut offset: usize, mut size: usize) {
        if let Some((&before, &free)) = self.free.range(..offset).next_back()
            && before + free == offset
        {
            self.free.remove(&before);
            (offset, size) = (before, size + free);
        }
        if let Some(free) = self.free.remove(&(offset + size)) {
            size += free;
        }
        self.free.insert(offset, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arena_reuses_and_joins_what_is_given_back() {
        let mut arena = Arena::default();
        let (a, b, c) = (arena.take(64), arena.take(128), arena.take(64));
        assert_eq!((a, b, c, arena.end), (0, 64, 192, 256));
        arena.give(a, 64);
        arena.give(b, 128);
        assert_eq!(arena.take(192), 0);
        arena.give(c, 64);
        assert_eq!((arena.take(128), arena.end), (192, 320));
    }

    #[test]
    fn a_small_temporary_that_lives_long_leaves_large_ones_their_room() {
        let buffers = [1024, 1024, 16, 1024].map(|elements| Unplaced { dtype: DType::F32, elements });
        let uses = |read: &[u32], written: &[u32]| {
            let ids = |ids: &[u32]| ids.iter().copied().map(BufferId).collect();
            Uses { read: ids(read), written: ids(written) }
        };
        // The small one comes when the first large one is gone, and is still there at the third.
        let uses = [uses(&[], &[0]), uses(&[0], &[1]), uses(&[1], &[2]), uses(&[1], &[3]), uses(&[2, 3], &[])];
        let mut places = vec![None; 4];
        assert_eq!(place_temporaries(&buffers, &uses, &mut places), 2 * 4096 + 64);
        assert_eq!(places, [0, 4096, 8192, 0].map(|offset| Some(Place::Arena(offset))));
    }

    #[test]
    fn the_largest_come_first_where_that_takes_less() {
        // In turn, the second one lies in the middle when the third comes.
        let lives = [(2, 0, 0), (1, 0, 1), (3, 1, 1)];
        let temporaries: Vec<Temporary> = lives
            .iter()
            .enumerate()
            .map(|(buffer, &(lines, first, last))| Temporary { buffer, bytes: 64 * lines, first, last })
            .collect();
        assert_eq!(in_turn(&temporaries, 2), (vec![0, 128, 192], 384));
        assert_eq!(most_at_once(&temporaries, 2), 256);
        assert_eq!(by_size(&temporaries), (vec![0, 192, 0], 256));
    }

    /// Random lifetimes and sizes: nothing that lives at the same time meets.
    #[test]
    fn what_lives_together_lies_apart() {
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..200 {
            let (count, n_kernels) = (1 + random(30), 20);
            let mut temporaries: Vec<Temporary> = (0..count)
                .map(|buffer| {
                    let first = random(n_kernels);
                    let bytes = ALIGNMENT * (1 + random(40) * random(40));
                    Temporary { buffer, bytes, first, last: first + random(n_kernels - first) }
                })
                .collect();
            temporaries.sort_by_key(|temporary| temporary.first);
            for (offsets, end) in [in_turn(&temporaries, n_kernels), by_size(&temporaries)] {
                for (i, (one, a)) in temporaries.iter().zip(&offsets).enumerate() {
                    assert!(a + one.bytes <= end);
                    for (two, b) in temporaries.iter().zip(&offsets).skip(i + 1) {
                        let together = one.first <= two.last && two.first <= one.last;
                        assert!(!together || a + one.bytes <= *b || b + two.bytes <= *a);
                    }
                }
            }
        }
    }
}
