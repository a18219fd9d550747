//! Values that a later kernel computes again instead of reading them: a few simple instructions on what lies in memory anyway
//! and is read there too. Nobody writes such a value down then, which for a running mean that is chosen between old and new
//! later saves a store and a load of all of it. The same instructions on the same numbers give the same bits.

use crate::group::{Groups, group, reads_register};
use crate::lower::{Access, Kind, Lowered, Node};
use crate::program::Level;
use raphson_graph::dtype::{DType, Scalar};
use raphson_graph::flat::NodeIndex;
use raphson_graph::kernel::{Emit, Prim, Reg};
use raphson_graph::work::{visit, visiting};
use std::collections::{HashMap, HashSet};

/// Smaller values are not worth it.
const LEAST: usize = 1 << 12;
/// The most nodes that are computed again for one value.
const MOST_NODES: usize = 6;
/// The most later kernels.
const MOST_GROUPS: usize = 4;
/// What is as many times smaller than the value does not count as read. (Of inputs that the later kernel does not read anyway, only such
/// ones are: a large one may have been overwritten by then, in place, if nobody is to read it any more.)
const SMALL: usize = 64;

/// The same graph with a copy of each such value (and of what it takes) for each later kernel, and its groups: they put copies where
/// they are used.
pub fn compute_again(lowered: Lowered) -> (Lowered, Groups) {
    let groups = group(&lowered);
    let copies = Search::new(&lowered, &groups).copies();
    if copies.is_empty() {
        return (lowered, groups);
    }
    let lowered = with_copies(&lowered, &groups, &copies);
    let groups = group(&lowered);
    (lowered, groups)
}

/// For a value and a later group, the nodes that the group computes again, in an order of dependency.
type Copies = HashMap<(NodeIndex, usize), Vec<NodeIndex>>;

fn with_copies(lowered: &Lowered, groups: &Groups, copies: &Copies) -> Lowered {
    let mut nodes: Vec<Node> = Vec::with_capacity(lowered.nodes.len());
    let mut moved: Vec<NodeIndex> = Vec::with_capacity(lowered.nodes.len());
    let mut copied: HashMap<(usize, NodeIndex), NodeIndex> = HashMap::new();
    for (index, node) in visiting(lowered.nodes.iter().enumerate()) {
        let mut node = node.clone();
        for access in &mut node.operands {
            let wanted = groups.of[index].and_then(|of| Some((of, copies.get(&(access.base, of))?)));
            let Some((of, wanted)) = wanted else {
                access.base = moved[access.base as usize];
                continue;
            };
            for &again in wanted {
                if !copied.contains_key(&(of, again)) {
                    let mut copy = lowered.nodes[again as usize].clone();
                    for access in &mut copy.operands {
                        access.base = copied.get(&(of, access.base)).copied().unwrap_or(moved[access.base as usize]);
                    }
                    copied.insert((of, again), nodes.len() as NodeIndex);
                    nodes.push(copy);
                }
            }
            access.base = copied[&(of, access.base)];
        }
        moved.push(nodes.len() as NodeIndex);
        nodes.push(node);
    }
    let places = |of: &[NodeIndex]| of.iter().map(|&node| moved[node as usize]).collect();
    Lowered { inputs: places(&lowered.inputs), outputs: places(&lowered.outputs), nodes }
}

struct Search<'a> {
    lowered: &'a Lowered,
    groups: &'a Groups,
    outputs: HashSet<NodeIndex>,
    users: Vec<Vec<NodeIndex>>,
    /// Whether the node has a buffer.
    stored: Vec<bool>,
    /// What each group reads from memory.
    reads: Vec<HashSet<NodeIndex>>,
}

impl<'a> Search<'a> {
    fn new(lowered: &'a Lowered, groups: &'a Groups) -> Search<'a> {
        let mut users = vec![Vec::new(); lowered.nodes.len()];
        let mut reads = vec![HashSet::new(); groups.groups.len()];
        for (index, node) in visiting(lowered.nodes.iter().enumerate()) {
            for base in node.operands.iter().map(|access| access.base) {
                users[base as usize].push(index as NodeIndex);
                if let Some(of) = groups.of[index].filter(|_| groups.of[base as usize] != groups.of[index]) {
                    reads[of].insert(base);
                }
            }
        }
        let stored = groups.stored(lowered);
        Search { lowered, groups, outputs: lowered.outputs.iter().copied().collect(), users, stored, reads }
    }

    fn node(&self, index: NodeIndex) -> &'a Node {
        &self.lowered.nodes[index as usize]
    }

    fn copies(&self) -> Copies {
        let mut copies = HashMap::new();
        for index in visiting(0..self.lowered.nodes.len() as NodeIndex) {
            let wanted = self.stored[index as usize] && !self.outputs.contains(&index);
            if !wanted || self.node(index).elements() < LEAST || !is_simple(self.lowered, index) {
                continue;
            }
            let later = self.later(index);
            if later.len() > MOST_GROUPS {
                continue;
            }
            let found: Option<Vec<_>> =
                later.into_iter().map(|of| Some(((index, of), self.taken_again(index, of)?))).collect();
            // If one of them reads it, it has to be stored.
            copies.extend(found.into_iter().flatten());
        }
        copies
    }

    /// The groups that read this value from memory.
    fn later(&self, index: NodeIndex) -> Vec<usize> {
        let of = |index: NodeIndex| self.groups.of[index as usize];
        let users = visiting(&self.users[index as usize]);
        let mut later: Vec<usize> =
            users.filter_map(|&user| of(user)).filter(|&user| Some(user) != of(index)).collect();
        later.sort_unstable();
        later.dedup();
        later
    }

    /// What a group has to compute for this value, if that reads no more than the value itself would be.
    fn taken_again(&self, index: NodeIndex, of: usize) -> Option<Vec<NodeIndex>> {
        let value = self.node(index);
        let group = &self.groups.groups[of];
        let point_by_point = |access: &Access| reads_register(group, access, Level::Full, Level::Full);
        let users = self.users[index as usize].iter().filter(|&&user| self.groups.of[user as usize] == Some(of));
        let accesses = users.flat_map(|&user| self.node(user).operands.iter()).filter(|access| access.base == index);
        if !group.fusible || value.shape != group.shape || !visiting(accesses).all(point_by_point) {
            return None;
        }
        let (mut again, mut open, mut read) = (HashSet::new(), vec![index], HashSet::new());
        while let Some(node) = open.pop() {
            if !again.insert(node) {
                continue;
            }
            for base in self.node(node).operands.iter().map(|access| access.base) {
                visit(1);
                if self.node(base).is_virtual() {
                } else if self.is_stored(base) {
                    read.insert(base);
                } else if again.len() < MOST_NODES && is_simple(self.lowered, base) {
                    open.push(base);
                } else {
                    return None;
                }
            }
        }
        let bytes = |node: &Node| node.elements() * node.dtype.size_bytes();
        let new = read.iter().filter(|base| !self.reads[of].contains(base)).map(|&base| self.node(base));
        let large: Vec<&Node> = new.filter(|node| node.elements() * SMALL > value.elements()).collect();
        let input = large.iter().any(|node| matches!(node.kind, Kind::Input));
        if input || large.into_iter().map(bytes).sum::<usize>() > bytes(value) {
            return None;
        }
        let mut again: Vec<NodeIndex> = again.into_iter().collect();
        again.sort_unstable();
        Some(again)
    }

    /// Whether a node has a buffer whatever becomes of the simple values.
    fn is_stored(&self, index: NodeIndex) -> bool {
        let node = self.node(index);
        let kept = self.outputs.contains(&index) || !is_simple(self.lowered, index);
        !node.dtype.is_storage() && (!node.is_fusible() || (self.stored[index as usize] && kept))
    }
}

/// Whether a node is a simple function of its operands, in a dtype that registers hold as memory does.
fn is_simple(lowered: &Lowered, index: NodeIndex) -> bool {
    let node = &lowered.nodes[index as usize];
    let dtype = |access: &Access| lowered.nodes[access.base as usize].dtype;
    let plain = |dtype: DType| !dtype.is_storage();
    if !plain(node.dtype) || !node.operands.iter().map(dtype).all(plain) {
        return false;
    }
    match node.kind {
        Kind::Map(row) => {
            let mut count = Count { dtypes: node.operands.iter().map(dtype).collect(), simple: true };
            let operands: Vec<Reg> = (0..count.dtypes.len() as u32).map(Reg).collect();
            (row.kernel)(&mut count, &operands);
            count.simple
        }
        Kind::Cast => true,
        _ => false,
    }
}

/// Looks at what an op's kernel consists of.
struct Count {
    dtypes: Vec<DType>,
    simple: bool,
}

impl Count {
    fn push(&mut self, dtype: DType) -> Reg {
        self.dtypes.push(dtype);
        Reg(self.dtypes.len() as u32 - 1)
    }
}

impl Emit for Count {
    fn dtype(&self, reg: Reg) -> DType {
        self.dtypes[reg.0 as usize]
    }

    fn constant(&mut self, _: Scalar, dtype: DType) -> Reg {
        self.push(dtype)
    }

    fn prim(&mut self, prim: Prim, _: &[Reg], dtype: DType) -> Reg {
        self.simple &= prim.is_simple();
        self.push(dtype)
    }
}
