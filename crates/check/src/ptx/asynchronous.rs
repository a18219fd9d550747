//! Asynchronous copies of a warp: started, committed in groups, and carried out when they are waited for (as late as
//! possible, so that a kernel that reads too early reads what is not there).

use super::machine::LANES;

/// One copy from global to shared memory; of its bytes the first `read` are read, the others are zero.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub to: u64,
    pub from: u64,
    pub bytes: usize,
    pub read: usize,
}

/// The copies of each lane, in groups; the last group is not committed yet.
pub struct Copies {
    groups: Vec<Vec<Vec<Copy>>>,
}

impl Default for Copies {
    fn default() -> Copies {
        Copies { groups: vec![vec![Vec::new()]; LANES] }
    }
}

impl Copies {
    /// Start a copy.
    pub fn start(&mut self, lane: usize, to: u64, from: u64, bytes: usize, read: usize) {
        if let Some(group) = self.groups[lane].last_mut() {
            group.push(Copy { to, from, bytes, read });
        }
    }

    /// End a group.
    pub fn commit(&mut self, lane: usize) {
        self.groups[lane].push(Vec::new());
    }

    /// The copies of all committed groups but the last `pending`, which are done with that.
    pub fn finish(&mut self, lane: usize, pending: usize) -> Vec<Copy> {
        let groups = &mut self.groups[lane];
        let done = (groups.len() - 1).saturating_sub(pending);
        groups.drain(..done).flatten().collect()
    }

    /// Whether nothing is under way.
    pub fn is_done(&self) -> bool {
        self.groups.iter().flatten().all(Vec::is_empty)
    }
}
