//! Where buffers live. Temporaries share one arena by first fit over their lifetimes; an output takes over the memory of
//! a donated input where no kernel can tell the difference.

use crate::emit::{Emitted, Unplaced};
use crate::program::{Buffer, BufferId, Instr, Kernel, Level, Place, Program, RowKernel, View};
use raphson_graph::kernel::{Prim, Reg};
use raphson_graph::work::visiting;
use std::collections::BTreeMap;

/// Alignment of temporaries in bytes: a cache line, and any vector register.
const ALIGNMENT: usize = 64;

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
    let fits = |output: usize, input: usize| {
        let (out, buffer) = (outputs[output], inputs[input]);
        let &[writer] = &writers[out.0 as usize][..] else { return false };
        let Kernel::Row(row) = &kernels[writer] else { return false };
        let (from, to) = (&buffers[buffer.0 as usize], &buffers[out.0 as usize]);
        donated[input]
            && (from.dtype, from.elements) == (to.dtype, to.elements)
            && visiting(inputs).filter(|&&other| other == buffer).count() == 1
            && last_read[buffer.0 as usize] == writer
            && in_place_store(row, out).is_some_and(|store| reads_only_at(row, buffer, store))
    };
    let mut taken = vec![false; inputs.len()];
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    // An output that may be an input as it is takes over that one's memory first, and then need not be written.
    for (output, &out) in outputs.iter().enumerate() {
        let &[writer] = &writers[out.0 as usize][..] else { continue };
        let Kernel::Row(row) = &kernels[writer] else { continue };
        let own = |buffer: &BufferId| visiting(inputs).position(|input| input == buffer);
        let mut own = choices(row, out).into_iter().filter_map(|buffer| own(&buffer));
        if let Some(input) = own.find(|&input| !taken[input] && fits(output, input)) {
            taken[input] = true;
            pairs.push((output, input));
        }
    }
    let served: Vec<usize> = pairs.iter().map(|&(output, _)| output).collect();
    for output in (0..outputs.len()).filter(|output| !served.contains(output)) {
        if let Some(input) = visiting(0..inputs.len()).find(|&input| !taken[input] && fits(output, input)) {
            taken[input] = true;
            pairs.push((output, input));
        }
    }
    pairs
}

/// Buffers of which the value stored to `out` may be a plain copy, the likeliest first: those that a select loads.
fn choices(row: &RowKernel, out: BufferId) -> Vec<BufferId> {
    let stored = visiting(&row.steps).find_map(|step| match &step.instr {
        Instr::Store { buffer, value, .. } if *buffer == out => Some(*value),
        _ => None,
    });
    let chosen = stored.map(|value| &row.steps[value.0 as usize].instr);
    let Some(Instr::Prim { prim: Prim::Select, args: [_, a, b] }) = chosen else { return Vec::new() };
    let loaded = |reg: &Reg| match &row.steps[reg.0 as usize].instr {
        Instr::Load { buffer, .. } => Some(*buffer),
        _ => None,
    };
    [a, b].into_iter().filter_map(loaded).collect()
}

/// The view of the store to `out`, if the kernel is free of later passes in which it could read again what it wrote.
fn in_place_store(row: &RowKernel, out: BufferId) -> Option<(&View, Level)> {
    let one_pass = visiting(&row.steps).all(|step| step.level == Level::Kept || step.pass == 0);
    let store = visiting(&row.steps).find_map(|step| match &step.instr {
        Instr::Store { buffer, view, .. } if *buffer == out => Some((view, step.level)),
        _ => None,
    });
    store.filter(|&(_, level)| one_pass && (level == Level::Full || row.reduced.is_empty()))
}

fn reads_only_at(row: &RowKernel, input: BufferId, store: (&View, Level)) -> bool {
    let mut reads = false;
    for step in visiting(&row.steps) {
        if let Instr::Load { buffer, view } = &step.instr
            && *buffer == input
        {
            reads = true;
            if (view, step.level) != store {
                return false;
            }
        }
    }
    reads
}

/// First fit over lifetimes, in the order of the kernels. Returns the size of the arena.
fn place_temporaries(buffers: &[Unplaced], uses: &[Uses], places: &mut [Option<Place>]) -> usize {
    let mut last_use = vec![0; buffers.len()];
    for (position, uses) in uses.iter().enumerate() {
        let all = visiting(uses.read.iter().chain(&uses.written));
        all.for_each(|buffer| last_use[buffer.0 as usize] = position);
    }
    let mut arena = Arena::default();
    let mut live: Vec<Option<(usize, usize)>> = vec![None; buffers.len()];
    for (position, uses) in uses.iter().enumerate() {
        for &BufferId(buffer) in &uses.written {
            let buffer = buffer as usize;
            if places[buffer].is_none() {
                let bytes = buffers[buffer].elements * buffers[buffer].dtype.size_bytes();
                let size = bytes.max(1).next_multiple_of(ALIGNMENT);
                let offset = arena.take(size);
                places[buffer] = Some(Place::Arena(offset));
                live[buffer] = Some((offset, size));
            }
        }
        for &BufferId(buffer) in uses.read.iter().chain(&uses.written) {
            let buffer = buffer as usize;
            if last_use[buffer] == position
                && let Some((offset, size)) = live[buffer].take()
            {
                arena.give(offset, size);
            }
        }
    }
    arena.end
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
}
