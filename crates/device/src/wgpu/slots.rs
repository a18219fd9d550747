//! What a kernel's text may touch: its buffers as bindings, and how elements are read and written through them. Every
//! binding is an array of words; what lies in the arena is reached by an offset from a uniform, so that equal kernels of
//! different layers have equal texts and share a pipeline.

use super::lower::Work;
use super::place::{Layout, Outer, Pack, Site, is_narrow, outer_words};
use raphson_compile::program::{BufferId, Program};
use raphson_graph::dtype::DType;
use std::collections::HashMap;
use std::fmt::Write;

/// A range of words copied before or after a kernel, because it may not bind as many buffers as it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub outer: Outer,
    pub arena_word: usize,
    pub words: usize,
}

/// Words in which a kernel reports a bad index.
pub const FLAG_WORDS: usize = 2;

/// How one buffer is reached.
#[derive(Clone, Copy, Debug)]
struct Slot {
    reach: Reach,
    dtype: DType,
    /// A buffer of less than a word for each element.
    packed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    /// Position among the offsets.
    Arena(usize),
    /// Position among the bindings.
    Binding(usize),
}

/// The buffers of one kernel.
#[derive(Debug, Default)]
pub struct Slots {
    of: HashMap<BufferId, Slot>,
    /// Bindings in order, and whether the kernel writes them.
    pub bindings: Vec<(Outer, bool)>,
    /// First words and sizes of what lies in the arena, in order.
    pub arena: Vec<(usize, usize)>,
    pub copies_in: Vec<Copy>,
    pub copies_out: Vec<Copy>,
    /// Words behind the arena that the copies need.
    pub staging_words: usize,
    /// Position of the flag words among the offsets.
    flag: Option<usize>,
}

impl Slots {
    /// The slots of a kernel that may bind `limit` buffers besides the arena.
    pub fn new(program: &Program, layout: &Layout, work: &Work, limit: usize) -> Slots {
        let (read, written) = work.buffers();
        let mut order: Vec<BufferId> = Vec::new();
        for buffer in read.into_iter().chain(written.iter().copied()) {
            if !order.contains(&buffer) {
                order.push(buffer);
            }
        }
        let mut slots = Slots::default();
        let staged = slots.stage(program, layout, &order, &written, limit);
        for &buffer in &order {
            let definition = &program.buffers[buffer.0 as usize];
            let site = layout.sites[buffer.0 as usize];
            let packed = is_narrow(definition.dtype) && matches!(site, Site::Outer(_));
            let reach = match site {
                Site::Arena(word) => slots.in_arena(word, definition.elements),
                Site::Outer(outer) => match staged.get(&outer) {
                    Some(&word) => slots.in_arena(word, outer_words(definition)),
                    None => slots.bound(outer, written.contains(&buffer)),
                },
            };
            slots.of.insert(buffer, Slot { reach, dtype: definition.dtype, packed });
        }
        slots
    }

    /// The slots of the kernel that packs a narrow result.
    pub fn for_pack(pack: &Pack) -> Slots {
        let mut slots = Slots::default();
        slots.in_arena(pack.from_word, pack.elements);
        slots.bound(pack.to, true);
        slots
    }

    /// Give the kernel flag words.
    pub fn with_flag(mut self, word: usize) -> Slots {
        self.flag = Some(self.arena.len());
        self.in_arena(word, FLAG_WORDS);
        self
    }

    fn in_arena(&mut self, word: usize, words: usize) -> Reach {
        self.arena.push((word, words));
        Reach::Arena(self.arena.len() - 1)
    }

    fn bound(&mut self, outer: Outer, written: bool) -> Reach {
        let known = self.bindings.iter().position(|&(other, _)| other == outer);
        let position = known.unwrap_or_else(|| {
            self.bindings.push((outer, false));
            self.bindings.len() - 1
        });
        self.bindings[position].1 |= written;
        Reach::Binding(position)
    }

    /// Choose what to copy through the arena, the smallest first, until the rest can be bound.
    fn stage(
        &mut self,
        program: &Program,
        layout: &Layout,
        order: &[BufferId],
        written: &[BufferId],
        limit: usize,
    ) -> HashMap<Outer, usize> {
        let mut outers: Vec<(usize, Outer, bool, bool)> = Vec::new();
        for buffer in order {
            let Site::Outer(outer) = layout.sites[buffer.0 as usize] else { continue };
            let words = outer_words(&program.buffers[buffer.0 as usize]);
            let writes = written.contains(buffer);
            match outers.iter_mut().find(|(_, other, _, _)| *other == outer) {
                Some((_, _, read, write)) => (*read, *write) = (*read | !writes, *write | writes),
                None => outers.push((words, outer, !writes, writes)),
            }
        }
        let excess = outers.len().saturating_sub(limit);
        outers.sort_by_key(|&(words, ..)| words);
        let mut staged = HashMap::new();
        for &(words, outer, _, writes) in &outers[..excess] {
            let arena_word = layout.arena_words + self.staging_words;
            self.staging_words += words.next_multiple_of(16);
            // A kernel may write a part of an output and leave the rest, so outputs are copied in as well.
            self.copies_in.push(Copy { outer, arena_word, words });
            if writes {
                self.copies_out.push(Copy { outer, arena_word, words });
            }
            staged.insert(outer, arena_word);
        }
        staged
    }

    /// The declarations of the bindings. Group 0 holds the offsets (with some numbers behind them) and the arena, group
    /// 1 everything else.
    pub fn declarations(&self, n_numbers: usize) -> String {
        let mut text = format!(
            "struct Offsets {{ word: array<vec4<i32>, {}> }}\n\
             @group(0) @binding(0) var<uniform> offsets: Offsets;\n\
             @group(0) @binding(1) var<storage, read_write> arena: array<u32>;\n",
            (self.arena.len() + n_numbers).div_ceil(4).max(1)
        );
        for (position, (_, written)) in self.bindings.iter().enumerate() {
            let access = if *written { "read_write" } else { "read" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "@group(1) @binding({position}) var<storage, {access}> b{position}: array<u32>;");
        }
        text
    }

    /// The offsets and numbers as variables, for the top of the entry point.
    pub fn uniform_variables(&self, n_numbers: usize) -> String {
        let component = |i: usize| ["x", "y", "z", "w"][i % 4];
        let offsets = (0..self.arena.len()).map(|i| format!("o{i}"));
        let names = offsets.chain((0..n_numbers).map(|i| format!("n{i}")));
        let line = |(i, name)| format!("    let {name} = offsets.word[{}].{};\n", i / 4, component(i));
        names.enumerate().map(line).collect()
    }

    /// The word at `index` (an i32 expression).
    fn word(&self, slot: Slot, index: &str) -> String {
        match slot.reach {
            Reach::Arena(offset) => format!("arena[o{offset} + {index}]"),
            Reach::Binding(binding) => format!("b{binding}[{index}]"),
        }
    }

    /// The element at `index` (an i32 expression) as a value of its register type.
    pub fn load(&self, buffer: BufferId, index: &str) -> String {
        let slot = self.of[&buffer];
        if slot.packed {
            return self.load_packed(slot, index);
        }
        let word = self.word(slot, &format!("({index})"));
        match slot.dtype {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => format!("bitcast<f32>({word})"),
            DType::I32 | DType::I64 => format!("bitcast<i32>({word})"),
            DType::U32 | DType::U8 => word,
            DType::Bool => format!("({word} != 0u)"),
        }
    }

    /// The same where a word holds two or four elements.
    fn load_packed(&self, slot: Slot, index: &str) -> String {
        let (shift, mask) = if slot.dtype.size_bytes() == 2 { (1, "0xffffu") } else { (2, "0xffu") };
        let word = self.word(slot, &format!("(({index}) >> {shift}u)"));
        let bits = 8 * slot.dtype.size_bytes();
        let part = format!("(({word} >> (u32(({index}) & {}) * {bits}u)) & {mask})", (1 << shift) - 1);
        match slot.dtype {
            DType::Bool => format!("({part} != 0u)"),
            DType::F16 => format!("m_from_f16({part})"),
            DType::BF16 => format!("bitcast<f32>({part} << 16u)"),
            DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U8 => part,
        }
    }

    /// The statement that writes `value` at `index`. Narrow elements are written one per word, f16 and bf16 as the f32 that
    /// they round to: whatever a kernel writes of them lies in the arena.
    pub fn store(&self, buffer: BufferId, index: &str, value: &str) -> String {
        let slot = self.of[&buffer];
        let word = self.word(slot, &format!("({index})"));
        match slot.dtype {
            DType::F32 | DType::F64 | DType::I32 | DType::I64 => format!("{word} = bitcast<u32>({value});"),
            DType::F16 => format!("{word} = bitcast<u32>(m_round_f16({value}));"),
            DType::BF16 => format!("{word} = bitcast<u32>(m_round_bf16({value}));"),
            DType::U32 => format!("{word} = {value};"),
            DType::U8 => format!("{word} = {value} & 0xffu;"),
            DType::Bool => format!("{word} = select(0u, 1u, {value});"),
        }
    }

    /// The statement that reports a bad index: a mark, and the index. Several invocations may race, but their marks are
    /// the same, and any of their indices will do.
    pub fn raise(&self, index: &str) -> String {
        let raise = |flag| format!("arena[o{flag}] = 1u; arena[o{flag} + 1] = u32({index});");
        self.flag.map_or_else(String::new, raise)
    }

    /// The bits, lowest in the word, of the element at `index` of a pack's source.
    pub fn arena_bits(&self, index: &str, dtype: DType) -> String {
        let word = format!("arena[o0 + {index}]");
        match dtype {
            DType::F16 => format!("m_to_f16(bitcast<f32>({word}))"),
            // Rounded when it was written.
            DType::BF16 => format!("({word} >> 16u)"),
            DType::Bool | DType::U8 | DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 => word,
        }
    }
}
