//! Memory with a diary: each element knows who wrote it last and who reads it, so that a race, a read of what nobody has
//! written, and an access outside a buffer or across its alignment are errors.

use super::{Outcome, fault};

/// Addresses with this bit are generic addresses of shared memory.
pub const SHARED_WINDOW: u64 = 1 << 62;
/// Buffers are this far apart, so that no overrun of one is a hit in another.
const APART: u32 = 40;

/// Who touches memory, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who {
    /// Counts launches; 0 is before all of them.
    pub launch: u32,
    pub block: u32,
    /// Counts the barriers of the block.
    pub phase: u32,
    pub thread: u32,
    /// Counts the warp's own barriers.
    pub turn: u32,
}

impl Who {
    /// Whether something orders this access before one by `next`.
    fn is_before(&self, next: &Who) -> bool {
        if self.launch != next.launch {
            return true;
        }
        let same_warp = self.thread / 32 == next.thread / 32;
        self.block == next.block
            && (self.thread == next.thread || self.phase != next.phase || (same_warp && self.turn != next.turn))
    }
}

/// What a kernel does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Atomic,
}

/// The diary of one element.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    written: Option<Who>,
    /// The last write was atomic.
    atomic: bool,
    read: Option<Who>,
    /// Besides `read`, another block has read in the same launch; another thread in the same phase.
    other_block: bool,
    other_thread: bool,
}

impl Entry {
    fn note_read(&mut self, who: Who) {
        match self.read {
            Some(last) if last.launch == who.launch => {
                if last.block != who.block {
                    (self.other_block, self.other_thread) = (true, false);
                } else if last.phase != who.phase {
                    self.other_thread = false;
                } else if last.thread != who.thread {
                    self.other_thread = true;
                }
            }
            _ => (self.other_block, self.other_thread) = (false, false),
        }
        self.read = Some(who);
    }

    /// Another reader that nothing orders before a write by `who`.
    fn unordered_reader(&self, who: &Who) -> bool {
        let Some(last) = self.read.filter(|last| last.launch == who.launch) else { return false };
        let others = self.other_thread && last.phase == who.phase && last.block == who.block;
        self.other_block || others || !last.is_before(who)
    }
}

/// A run of bytes with its diary.
#[derive(Clone, Debug)]
pub struct Region {
    name: String,
    bytes: Vec<u8>,
    diary: Vec<Entry>,
    /// Bytes of an entry of the diary.
    grain: usize,
}

impl Region {
    /// `initial`: what stands there, or how many bytes that nobody has written yet.
    pub fn new(name: &str, initial: Result<Vec<u8>, usize>, grain: usize) -> Region {
        let written = initial.is_ok().then(Who::default);
        // A pattern that shows, should it be read after all.
        let bytes = initial.unwrap_or_else(|size| vec![0xa5; size]);
        let diary = vec![Entry { written, ..Entry::default() }; bytes.len().div_ceil(grain)];
        Region { name: name.to_string(), bytes, diary, grain }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Check an access of `size` bytes and note it. Returns the position.
    fn touch(&mut self, offset: i64, size: usize, access: Access, who: Who) -> Outcome<usize> {
        let name = &self.name;
        let length = self.bytes.len();
        if offset < 0 || offset as u64 + size as u64 > length as u64 {
            return fault(format!("{size} bytes at {offset} are outside {name} of {length} bytes"));
        }
        if !(offset as usize).is_multiple_of(size) {
            return fault(format!("{size} bytes at {offset} of {name} are not aligned"));
        }
        let at = offset as usize;
        for entry in &mut self.diary[at / self.grain..(at + size).div_ceil(self.grain)] {
            if access != Access::Write && entry.written.is_none() {
                return fault(format!("{size} bytes at {offset} of {name} are read before anything is written there"));
            }
            let both_atomic = access == Access::Atomic && entry.atomic;
            if let Some(writer) = entry.written.filter(|writer| !both_atomic && !writer.is_before(&who)) {
                let (verb, other) = (format!("{access:?}").to_lowercase(), writer.thread);
                return fault(format!(
                    "race: thread {} of block {} does a {verb} at {offset} of {name}, where thread {other} of block {} has \
                     written, and nothing orders the two",
                    who.thread, who.block, writer.block
                ));
            }
            if access == Access::Read {
                entry.note_read(who);
                continue;
            }
            if entry.unordered_reader(&who) {
                return fault(format!(
                    "race: thread {} of block {} writes at {offset} of {name}, where another thread reads, and nothing orders \
                     the two",
                    who.thread, who.block
                ));
            }
            (entry.written, entry.atomic) = (Some(who), access == Access::Atomic);
        }
        Ok(at)
    }

    /// Read `size` bytes, 8 at most.
    pub fn read(&mut self, offset: i64, size: usize, who: Who) -> Outcome<u64> {
        let at = self.touch(offset, size, Access::Read, who)?;
        Ok(number(&self.bytes[at..at + size]))
    }

    /// Write the low `size` bytes of `value`.
    pub fn write(&mut self, offset: i64, size: usize, value: u64, who: Who) -> Outcome<()> {
        let at = self.touch(offset, size, Access::Write, who)?;
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    /// Say that something will be written here: nothing may be at work here now, and nothing is to be read before it is
    /// written.
    pub fn claim(&mut self, offset: i64, size: usize, who: Who) -> Outcome<()> {
        let at = self.touch(offset, size, Access::Write, who)?;
        self.bytes[at..at + size].fill(0xa5);
        self.diary[at / self.grain..(at + size).div_ceil(self.grain)].iter_mut().for_each(|entry| entry.written = None);
        Ok(())
    }

    /// Write bytes from outside, ordered behind everything.
    pub fn fill(&mut self, offset: i64, bytes: &[u8]) -> Outcome<()> {
        let range = usize::try_from(offset).ok().map(|start| start..start + bytes.len());
        let Some(target) = range.clone().and_then(|range| self.bytes.get_mut(range)) else {
            return fault(format!("{} bytes at {offset} are outside {}", bytes.len(), self.name));
        };
        target.copy_from_slice(bytes);
        let entries = range.map(|range| range.start / self.grain..range.end.div_ceil(self.grain)).unwrap_or_default();
        self.diary[entries].fill(Entry { written: Some(Who::default()), ..Entry::default() });
        Ok(())
    }

    /// Replace what is there by a function of it; returns what was there.
    pub fn change(&mut self, offset: i64, size: usize, who: Who, f: impl Fn(u64) -> u64) -> Outcome<u64> {
        let at = self.touch(offset, size, Access::Atomic, who)?;
        let there = number(&self.bytes[at..at + size]);
        self.bytes[at..at + size].copy_from_slice(&f(there).to_le_bytes()[..size]);
        Ok(there)
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// Global memory: buffers by address.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    buffers: Vec<Region>,
}

impl Memory {
    /// A buffer with contents, whose elements have `grain` bytes. Returns its address.
    pub fn upload(&mut self, name: &str, bytes: &[u8], grain: usize) -> u64 {
        self.push(Region::new(name, Ok(bytes.to_vec()), grain))
    }

    /// A buffer that nobody has written yet.
    pub fn reserve(&mut self, name: &str, bytes: usize, grain: usize) -> u64 {
        self.push(Region::new(name, Err(bytes), grain))
    }

    fn push(&mut self, region: Region) -> u64 {
        self.buffers.push(region);
        (self.buffers.len() as u64) << APART
    }

    /// Forget a buffer's contents; from now on nothing is there.
    pub fn free(&mut self, address: u64) -> Outcome<()> {
        let (region, _) = self.find(address)?;
        *region = Region::new("memory that was given back", Err(0), 1);
        Ok(())
    }

    /// The contents of the buffer at an address.
    pub fn download(&self, address: u64) -> Option<&[u8]> {
        self.buffers.get((address >> APART).checked_sub(1)? as usize).map(Region::bytes)
    }

    /// The buffer that an address lies in (or just misses), and the offset there.
    pub fn find(&mut self, address: u64) -> Outcome<(&mut Region, i64)> {
        // Half a gap on either side belongs to the buffer, so that an underrun is its fault.
        let half = 1u64 << (APART - 1);
        let number = address.wrapping_add(half) >> APART;
        let offset = address.wrapping_sub(number << APART) as i64;
        match self.buffers.get_mut((number as usize).wrapping_sub(1)) {
            Some(region) => Ok((region, offset)),
            None => fault(format!("no buffer is at address {address:#x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(block: u32, phase: u32, thread: u32) -> Who {
        Who { launch: 1, block, phase, thread, turn: 0 }
    }

    #[test]
    fn races_are_found() {
        let mut region = Region::new("x", Ok(vec![0; 64]), 4);
        region.write(0, 4, 1, who(0, 0, 0)).unwrap();
        region.read(0, 4, who(0, 0, 0)).unwrap();
        assert!(region.read(0, 4, who(0, 0, 1)).unwrap_err().0.contains("race"));
        region.read(0, 4, who(0, 1, 1)).unwrap();
        assert!(region.write(0, 4, 1, who(0, 1, 0)).unwrap_err().0.contains("race"));
        region.write(0, 4, 1, who(0, 2, 0)).unwrap();
        assert!(region.read(0, 4, who(1, 5, 0)).unwrap_err().0.contains("race"));
        // Two readers, of which the writer is one.
        region.read(8, 4, who(0, 0, 1)).unwrap();
        region.read(8, 4, who(0, 0, 0)).unwrap();
        assert!(region.write(8, 4, 1, who(0, 0, 0)).is_err());
        // Another launch comes after everything.
        region.write(8, 4, 1, Who { launch: 2, ..who(7, 0, 9) }).unwrap();
    }

    #[test]
    fn bounds_alignment_and_initialisation_are_checked() {
        let mut memory = Memory::default();
        let a = memory.upload("a", &[0; 16], 4);
        let b = memory.reserve("b", 16, 4);
        let read = |memory: &mut Memory, address: u64| {
            let (region, offset) = memory.find(address)?;
            region.read(offset, 4, who(0, 0, 0))
        };
        assert!(read(&mut memory, a + 12).is_ok());
        assert!(read(&mut memory, a + 16).unwrap_err().0.contains("outside a"));
        assert!(read(&mut memory, a - 4).unwrap_err().0.contains("outside a"));
        assert!(read(&mut memory, a + 2).unwrap_err().0.contains("aligned"));
        assert!(read(&mut memory, b).unwrap_err().0.contains("before anything"));
        assert!(read(&mut memory, 8).is_err());
    }
}
