//! Where a program's buffers live on this device. Temporaries share one arena, planned anew, because a bool, u8, f16 or
//! bf16 takes four bytes there (WGSL cannot write less); inputs and outputs keep their places and formats.

use super::lower::{Lowered, Work};
use raphson_compile::program::{Buffer, BufferId, Place};
use raphson_graph::dtype::DType;
use std::collections::BTreeMap;

/// Words between starts of temporaries: a cache line, and any vector.
const ALIGNMENT: usize = 16;

/// A binding of its own: an input (with the output that takes it over, if any) or an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outer {
    Input(usize),
    Output(usize),
}

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// At this word of the arena.
    Arena(usize),
    Outer(Outer),
}

/// A result of less than a word: computed one per word in the arena, packed at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    pub from_word: usize,
    pub to: Outer,
    pub elements: usize,
    pub dtype: DType,
}

/// Whether elements take less than a word where they are uploaded and downloaded.
pub fn is_narrow(dtype: DType) -> bool {
    dtype.size_bytes() < 4
}

/// Sites of all buffers.
#[derive(Clone, Debug)]
pub struct Layout {
    pub sites: Vec<Site>,
    pub packs: Vec<Pack>,
    /// Size of the arena.
    pub arena_words: usize,
}

/// Words that hold a buffer as uploaded.
pub fn outer_words(buffer: &Buffer) -> usize {
    buffer.size_bytes().div_ceil(4)
}

impl Layout {
    /// Place all buffers; the first `reserved` words of the arena stay free.
    pub fn new(lowered: &Lowered, reserved: usize) -> Layout {
        let Lowered { program, works } = lowered;
        let n_kernels = works.len();
        // Narrow results live to the end, where they are packed.
        let mut last_use = vec![0; program.buffers.len()];
        let uses: Vec<_> = works.iter().map(Work::buffers).collect();
        for (position, (read, written)) in uses.iter().enumerate() {
            read.iter().chain(written).for_each(|buffer| last_use[buffer.0 as usize] = position);
        }
        let mut sites: Vec<Option<Site>> = program.buffers.iter().map(outer_site).collect();
        let mut packs = Vec::new();
        let mut arena = Arena::starting_at(reserved.next_multiple_of(ALIGNMENT));
        for (position, (read, written)) in uses.iter().enumerate() {
            for &BufferId(buffer) in written {
                if sites[buffer as usize].is_none() {
                    let definition = &program.buffers[buffer as usize];
                    let word = arena.take(definition.elements);
                    sites[buffer as usize] = Some(Site::Arena(word));
                    if let Some(to) = result(definition) {
                        let (elements, dtype) = (definition.elements, definition.dtype);
                        packs.push(Pack { from_word: word, to, elements, dtype });
                        last_use[buffer as usize] = n_kernels;
                    }
                }
            }
            let mut done: Vec<BufferId> = read.iter().chain(written).copied().collect();
            done.sort_unstable();
            done.dedup();
            for buffer in done.into_iter().filter(|buffer| last_use[buffer.0 as usize] == position) {
                if let Some(Site::Arena(word)) = sites[buffer.0 as usize] {
                    arena.give(word, program.buffers[buffer.0 as usize].elements);
                }
            }
        }
        // What no kernel writes has no elements: any place will do.
        let sites = sites.into_iter().map(|site| site.unwrap_or(Site::Arena(0))).collect();
        Layout { sites, packs, arena_words: arena.end }
    }
}

/// The site of what is not in the arena. An output that takes over an input is that input.
fn outer_site(buffer: &Buffer) -> Option<Site> {
    match buffer.place {
        Place::Input(input) => Some(Site::Outer(Outer::Input(input))),
        _ if is_narrow(buffer.dtype) => None,
        _ => result(buffer).map(Site::Outer),
    }
}

fn result(buffer: &Buffer) -> Option<Outer> {
    match buffer.place {
        Place::Output(output) => Some(Outer::Output(output)),
        Place::InPlace { input, .. } => Some(Outer::Input(input)),
        Place::Input(_) | Place::Arena(_) => None,
    }
}

/// First fit: free intervals by their first word; everything from `end` on is free too.
struct Arena {
    free: BTreeMap<usize, usize>,
    end: usize,
}

impl Arena {
    fn starting_at(end: usize) -> Arena {
        Arena { free: BTreeMap::new(), end }
    }

    fn size(elements: usize) -> usize {
        elements.max(1).next_multiple_of(ALIGNMENT)
    }

    fn take(&mut self, elements: usize) -> usize {
        let size = Arena::size(elements);
        let fit = self.free.iter().find(|&(_, &free)| free >= size).map(|(&word, &free)| (word, free));
        let Some((word, free)) = fit else {
            // Grow, from a free interval that touches the end if there is one.
            let touching = self.free.last_key_value().filter(|&(&at, &free)| at + free == self.end).map(|(&at, _)| at);
            let word = touching.unwrap_or(self.end);
            self.free.remove(&word);
            self.end = word + size;
            return word;
        };
        self.free.remove(&word);
        if free > size {
            self.free.insert(word + size, free - size);
        }
        word
    }

    fn give(&mut self, mut word: usize, elements: usize) {
        let mut size = Arena::size(elements);
        if let Some((&before, &free)) = self.free.range(..word).next_back()
            && before + free == word
        {
            self.free.remove(&before);
            (word, size) = (before, size + free);
        }
        if let Some(free) = self.free.remove(&(word + size)) {
            size += free;
        }
        self.free.insert(word, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arena_reuses_and_joins_what_is_given_back() {
        let mut arena = Arena::starting_at(16);
        let (a, b, c) = (arena.take(16), arena.take(20), arena.take(1));
        assert_eq!((a, b, c, arena.end), (16, 32, 64, 80));
        arena.give(a, 16);
        arena.give(b, 20);
        assert_eq!(arena.take(48), 16);
        arena.give(c, 1);
        assert_eq!((arena.take(32), arena.end), (64, 96));
    }
}
