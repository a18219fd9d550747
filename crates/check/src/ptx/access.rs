//! What one lane does with memory: loads, stores, atomics, asynchronous copies, each in its state space.

use super::instruction::{Kind, Space};
use super::machine::Block;
use super::memory::{Memory, SHARED_WINDOW};
use super::{Fault, Outcome, fault};

/// Some bytes, 8 at most, of a state space.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub space: Space,
    pub at: u64,
    pub bytes: usize,
}

impl Block<'_> {
    /// A load, store or atomic of one lane.
    pub fn access(&mut self, warp: usize, lane: usize, kind: &Kind, memory: &mut Memory) -> Outcome<()> {
        match kind {
            Kind::Load { space, bytes, signed, to, address } => {
                let at = self.address(warp, lane, *address, *space);
                aligned(at, bytes * to.len())?;
                for (part, &register) in to.iter().enumerate() {
                    let place = Place { space: *space, at: at + (part * bytes) as u64, bytes: *bytes };
                    let mut value = self.read(warp, lane, place, memory)?;
                    if *signed && *bytes < 8 {
                        let unused = 64 - 8 * bytes;
                        value = ((value << unused) as i64 >> unused) as u64;
                    }
                    self.set(warp, lane, register, value);
                }
            }
            Kind::Store { space, bytes, from, address } => {
                let at = self.address(warp, lane, *address, *space);
                aligned(at, bytes * from.len())?;
                for (part, &operand) in from.iter().enumerate() {
                    let value = self.get(warp, lane, operand);
                    let place = Place { space: *space, at: at + (part * bytes) as u64, bytes: *bytes };
                    self.write(warp, lane, place, value, memory)?;
                }
            }
            Kind::Atomic { space, bytes, f, to, address, b, c } => {
                let at = self.address(warp, lane, *address, *space);
                let (b, c, who) = (self.get(warp, lane, *b), self.get(warp, lane, *c), self.who(warp, lane));
                let (region, offset) = match space {
                    Space::Shared => (&mut self.shared, at as i64),
                    Space::Global | Space::Generic => memory.find(at)?,
                    Space::Constant | Space::Parameter => return fault("an atomic outside global and shared memory"),
                };
                let there = region.change(offset, *bytes, who, |there| f(there, b, c))?;
                if let Some(to) = to {
                    self.set(warp, lane, *to, there);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Read at an address of a space.
    pub fn read(
        &mut self,
        warp: usize,
        lane: usize,
        Place { space, at, bytes }: Place,
        memory: &mut Memory,
    ) -> Outcome<u64> {
        let who = self.who(warp, lane);
        match space {
            Space::Shared => self.shared.read(at as i64, bytes, who),
            Space::Generic if at & SHARED_WINDOW != 0 => self.shared.read((at & !SHARED_WINDOW) as i64, bytes, who),
            Space::Global | Space::Generic => {
                let (region, offset) = memory.find(at)?;
                region.read(offset, bytes, who)
            }
            Space::Constant => {
                let part = self.constants.get(at as usize..at as usize + bytes);
                let part = part.ok_or_else(|| Fault(format!("{bytes} bytes at {at} are outside the constants")))?;
                let mut padded = [0; 8];
                padded[..bytes].copy_from_slice(part);
                Ok(u64::from_le_bytes(padded))
            }
            Space::Parameter => self.parameter(at as usize, bytes),
        }
    }

    fn parameter(&self, at: usize, bytes: usize) -> Outcome<u64> {
        let inside = |&(_, (start, size)): &(usize, (usize, usize))| at >= start && at + bytes <= start + size;
        let found = self.function.parameters.iter().copied().enumerate().find(inside);
        let (number, (start, _)) = found.ok_or_else(|| Fault(format!("{bytes} bytes at {at} are no parameter")))?;
        let value = self.arguments[number] >> (8 * (at - start));
        Ok(if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) })
    }

    /// Write at an address of a space.
    pub fn write(
        &mut self,
        warp: usize,
        lane: usize,
        Place { space, at, bytes }: Place,
        value: u64,
        memory: &mut Memory,
    ) -> Outcome<()> {
        let who = self.who(warp, lane);
        match space {
            Space::Shared => self.shared.write(at as i64, bytes, value, who),
            Space::Generic if at & SHARED_WINDOW != 0 => {
                self.shared.write((at & !SHARED_WINDOW) as i64, bytes, value, who)
            }
            Space::Global | Space::Generic => {
                let (region, offset) = memory.find(at)?;
                region.write(offset, bytes, value, who)
            }
            Space::Constant | Space::Parameter => fault("constants and parameters cannot be written"),
        }
    }

    /// `cp.async` and its groups, of one lane.
    pub fn copy(&mut self, warp: usize, lane: usize, kind: &Kind, memory: &mut Memory) -> Outcome<()> {
        match kind {
            Kind::CopyAsync { to, from, bytes, read } => {
                let to = self.address(warp, lane, *to, Space::Shared);
                let from = self.address(warp, lane, *from, Space::Global);
                aligned(to, *bytes)?;
                aligned(from, *bytes)?;
                let read = read.map_or(*bytes, |read| self.get(warp, lane, read) as u32 as usize);
                // The bytes may arrive at once or as late as they are waited for: until then nobody may read or write there.
                let who = self.who(warp, lane);
                self.shared.claim(to as i64, *bytes, who)?;
                self.warps[warp].copies.start(lane, to, from, *bytes, read);
            }
            Kind::CommitGroup => self.warps[warp].copies.commit(lane),
            Kind::WaitGroup { pending } => {
                for copy in self.warps[warp].copies.finish(lane, *pending) {
                    for byte in 0..copy.bytes as u64 {
                        let value = if byte < copy.read as u64 {
                            self.read(
                                warp,
                                lane,
                                Place { space: Space::Global, at: copy.from + byte, bytes: 1 },
                                memory,
                            )?
                        } else {
                            0
                        };
                        let place = Place { space: Space::Shared, at: copy.to + byte, bytes: 1 };
                        self.write(warp, lane, place, value, memory)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn aligned(address: u64, bytes: usize) -> Outcome<()> {
    if address.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    fault(format!("{bytes} bytes at {address:#x} are not aligned"))
}
