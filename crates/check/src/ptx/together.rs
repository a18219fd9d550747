//! What the lanes of a warp do together: shuffles, votes, and their own barrier.

use super::instruction::{Kind, Shuffle, Vote};
use super::machine::{Block, LANES, lanes};
use super::{Outcome, fault};

impl Block<'_> {
    /// What lanes do together. All live lanes that the instruction names must have come.
    pub fn together(&mut self, warp: usize, mask: u32, kind: &Kind) -> Outcome<()> {
        let (Kind::Shuffle { members, .. } | Kind::Vote { members, .. } | Kind::WarpBarrier { members }) = kind else {
            return Ok(());
        };
        for lane in lanes(mask) {
            let named = self.get(warp, lane, *members) as u32;
            let missing = named & !mask;
            if missing != 0 || named >> lane & 1 == 0 {
                return fault(format!("lanes {missing:#x} are named but do not take part (those that do: {mask:#x})"));
            }
        }
        match kind {
            Kind::WarpBarrier { .. } => self.warps[warp].turn += 1,
            Kind::Vote { mode, to, a, negate, .. } => {
                let holds = |&lane: &usize| (self.get(warp, lane, *a) & 1 == 1) != *negate;
                let votes = lanes(mask).filter(holds).fold(0u32, |votes, lane| votes | 1 << lane);
                let value = match mode {
                    Vote::Ballot => u64::from(votes),
                    Vote::Any => u64::from(votes != 0),
                    Vote::All => u64::from(votes == mask),
                };
                lanes(mask).for_each(|lane| self.set(warp, lane, *to, value));
            }
            Kind::Shuffle { mode, to, valid, a, b, c, .. } => {
                let values: Vec<u64> = (0..LANES).map(|lane| self.get(warp, lane, *a) & 0xffff_ffff).collect();
                for lane in lanes(mask) {
                    let (by, c) = (self.get(warp, lane, *b) as u32, self.get(warp, lane, *c) as u32);
                    let (source, inside) = shuffle_source(*mode, lane as u32, by, c);
                    if inside && mask >> source & 1 == 0 {
                        return fault(format!("lane {lane} shuffles from lane {source}, which does not take part"));
                    }
                    self.set(warp, lane, *to, values[if inside { source as usize } else { lane }]);
                    if let Some(valid) = valid {
                        self.set(warp, lane, *valid, u64::from(inside));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The source lane of a shuffle, and whether it lies inside the segment (PTX manual, `shfl.sync`).
fn shuffle_source(mode: Shuffle, lane: u32, by: u32, c: u32) -> (u32, bool) {
    let (clamp, segment) = (c & 31, c >> 8 & 31);
    let by = by & 31;
    let last = (lane & segment) | (clamp & !segment);
    let first = lane & segment;
    match mode {
        Shuffle::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= last as i32),
        Shuffle::Down => (lane + by, lane + by <= last),
        Shuffle::Butterfly => (lane ^ by, lane ^ by <= last),
        Shuffle::Index => (first | (by & !segment), (first | (by & !segment)) <= last),
    }
}
