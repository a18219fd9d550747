//! Which nodes share a kernel. Nodes are taken in order; each joins a group that computes over the same index space, or
//! founds one. Every group has a stage, and an edge between groups always leads to a higher stage, so groups never
//! depend on each other in a circle. Afterwards nodes sink into the group that alone uses them, so that nothing is stored
//! early only to be read late. In which order the groups run is `order.rs`'s subject.

use crate::lower::{Access, Kind, Lowered, Node, contiguous, same_strides};
use crate::order::in_order;
use crate::program::Level;
use raphson_graph::flat::NodeIndex;
use raphson_graph::work::{visit, visiting};
use std::collections::{HashMap, HashSet};

/// More nodes than this never share a kernel.
const MAX_NODES: usize = 1024;
/// Over index spaces of more points, what is as many times smaller is no reason to share a kernel.
const SMALL_SPACE: usize = 1 << 14;
const SMALL_READ: usize = 64;
/// How many groups over the same index space are considered as company for a node that finds no operand in a register.
const MAX_SIBLINGS: usize = 16;

/// Nodes that share a kernel: one opaque node, or fusible ones over the index space `shape`, of which `axes` are reduced.
#[derive(Clone, Debug)]
pub struct Group {
    pub shape: Vec<usize>,
    pub axes: Vec<usize>,
    pub stage: u32,
    /// In increasing order, so in an order of dependency.
    pub nodes: Vec<NodeIndex>,
    pub fusible: bool,
}

impl Group {
    /// The shape of what reductions leave.
    pub fn kept(&self) -> Vec<usize> {
        (0..self.shape.len()).filter(|axis| !self.axes.contains(axis)).map(|axis| self.shape[axis]).collect()
    }
}

/// The groups in an order of dependency, and where each node went.
pub struct Groups {
    pub groups: Vec<Group>,
    /// Group of each node; `None` for inputs and virtual nodes.
    pub of: Vec<Option<usize>>,
    /// Level of each fusible node in its group.
    pub level: Vec<Level>,
}

impl Groups {
    /// Nodes that need a buffer: outputs, and what someone outside the node's group reads.
    pub fn stored(&self, lowered: &Lowered) -> Vec<bool> {
        let mut stored = vec![false; lowered.nodes.len()];
        lowered.outputs.iter().for_each(|&output| stored[output as usize] = true);
        for (index, node) in lowered.nodes.iter().enumerate() {
            for access in &node.operands {
                stored[access.base as usize] |= self.of[access.base as usize] != self.of[index];
            }
        }
        stored
    }
}

/// Group a lowered graph.
pub fn group(lowered: &Lowered) -> Groups {
    let mut grouping = Grouping {
        lowered,
        groups: Vec::new(),
        of: vec![None; lowered.nodes.len()],
        level: vec![Level::Full; lowered.nodes.len()],
        spaces: HashMap::new(),
        reads: Vec::new(),
        sizes: Vec::new(),
        reductions: Vec::new(),
        kept: Vec::new(),
    };
    for index in visiting(0..lowered.nodes.len()) {
        grouping.place(index as NodeIndex);
    }
    grouping.sink();
    grouping.finish()
}

struct Grouping<'a> {
    lowered: &'a Lowered,
    groups: Vec<Group>,
    of: Vec<Option<usize>>,
    level: Vec<Level>,
    /// Fusible groups by stage and shape, in order.
    spaces: HashMap<(u32, Vec<usize>), Vec<usize>>,
    /// What the nodes of each group read.
    reads: Vec<HashSet<NodeIndex>>,
    /// Nodes of each group. Its list may name some that have moved on; `of` knows where they are.
    sizes: Vec<usize>,
    /// Its reductions, and what computes with what they leave.
    reductions: Vec<usize>,
    kept: Vec<usize>,
}

impl Grouping<'_> {
    fn node(&self, index: NodeIndex) -> &Node {
        &self.lowered.nodes[index as usize]
    }

    fn place(&mut self, index: NodeIndex) {
        let node = &self.lowered.nodes[index as usize];
        if matches!(node.kind, Kind::Input) || node.is_virtual() {
            return;
        }
        let (stage, company) = self.company(node);
        let place = company.or_else(|| self.sibling(node, stage));
        let (group, level) = place.unwrap_or_else(|| (self.found(node, stage), Level::Full));
        let level = match &node.kind {
            // What a reduction defines lives at the kept level.
            Kind::Reduce { axes, .. } => {
                self.groups[group].axes.clone_from(axes);
                Level::Kept
            }
            _ => level,
        };
        self.level[index as usize] = level;
        self.of[index as usize] = Some(group);
        self.groups[group].nodes.push(index);
        self.sizes[group] += 1;
        self.count(index, group, 1);
        let stored = node.operands.iter().filter(|access| !self.node(access.base).is_virtual());
        let stored: Vec<NodeIndex> = stored.map(|access| access.base).collect();
        self.reads[group].extend(stored);
    }

    /// A new group for this node.
    fn found(&mut self, node: &Node, stage: u32) -> usize {
        let group = self.groups.len();
        let (shape, fusible) = (node.domain.clone(), node.is_fusible());
        if fusible {
            self.spaces.entry((stage, shape.clone())).or_default().push(group);
        }
        self.groups.push(Group { shape, axes: Vec::new(), stage, nodes: Vec::new(), fusible });
        self.reads.push(HashSet::new());
        self.sizes.push(0);
        self.reductions.push(0);
        self.kept.push(0);
        group
    }

    /// Count a node that comes to a group (1) or leaves it (−1) by what it is there.
    fn count(&mut self, index: NodeIndex, group: usize, by: isize) {
        let counts = match (&self.node(index).kind, self.level[index as usize]) {
            (Kind::Reduce { .. }, _) => &mut self.reductions,
            (_, Level::Kept) => &mut self.kept,
            (_, Level::Full) => return,
        };
        counts[group] = counts[group].saturating_add_signed(by);
    }

    /// The least stage of a group that reads this node from memory.
    fn stage_after(&self, base: NodeIndex) -> u32 {
        self.of[base as usize].map_or(0, |group| self.groups[group].stage + 1)
    }

    /// The stage of the node, and the group in which it finds operands in registers at that stage. Several such groups
    /// become one: groups of the same stage never depend on each other.
    fn company(&mut self, node: &Node) -> (u32, Option<(usize, Level)>) {
        let fits = |access: &Access| {
            let group = self.of[access.base as usize]?;
            let level = self.level_in(node, group)?;
            self.is_register(access, group, level).then_some((group, level))
        };
        let stage_of = |access: &Access| match fits(access) {
            Some((group, _)) => self.groups[group].stage,
            None => self.stage_after(access.base),
        };
        let stage = node.is_fusible().then(|| node.operands.iter().map(stage_of).max()).flatten();
        let Some(stage) = stage else {
            return (node.operands.iter().map(|access| self.stage_after(access.base)).max().unwrap_or(0), None);
        };
        let mut together: Vec<(usize, Level)> =
            node.operands.iter().filter_map(fits).filter(|&(group, _)| self.groups[group].stage == stage).collect();
        together.sort_unstable();
        together.dedup();
        // The group whose reduced axes the others must share, if any has some.
        together.sort_by_key(|&(group, _)| self.groups[group].axes.is_empty());
        let Some(&(first, level)) = together.first() else { return (stage, None) };
        let size: usize = together.iter().map(|&(group, _)| self.sizes[group]).sum();
        let alike = |&(group, of_node): &(usize, Level)| {
            let axes = &self.groups[group].axes;
            let shape = &self.groups[group].shape;
            of_node == level
                && *shape == self.groups[first].shape
                && (axes.is_empty() || *axes == self.groups[first].axes)
        };
        if size >= MAX_NODES || !together.iter().all(alike) {
            return (stage + 1, None);
        }
        for &(group, _) in &together[1..] {
            self.merge(group, first);
        }
        (stage, Some((first, level)))
    }

    fn merge(&mut self, from: usize, into: usize) {
        let nodes = std::mem::take(&mut self.groups[from].nodes);
        visit(nodes.len() + self.reads[from].len());
        nodes.iter().for_each(|&node| self.of[node as usize] = Some(into));
        self.groups[into].nodes.extend(nodes);
        self.sizes[into] += std::mem::take(&mut self.sizes[from]);
        self.reductions[into] += std::mem::take(&mut self.reductions[from]);
        self.kept[into] += std::mem::take(&mut self.kept[from]);
        let reads = std::mem::take(&mut self.reads[from]);
        self.reads[into].extend(reads);
    }

    /// A group of the same stage that reads the same memory over the same index space: something that is worth reading once.
    fn sibling(&self, node: &Node, stage: u32) -> Option<(usize, Level)> {
        if !node.is_fusible() {
            return None;
        }
        let groups = self.spaces.get(&(stage, node.domain.clone()))?;
        let size = node.domain.iter().product::<usize>();
        let counts = |base: NodeIndex| size <= SMALL_SPACE || self.node(base).elements() * SMALL_READ > size;
        let worth: Vec<NodeIndex> =
            node.operands.iter().map(|access| access.base).filter(|&base| counts(base)).collect();
        visiting(groups.iter().rev().take(MAX_SIBLINGS)).find_map(|&group| {
            let shares = worth.iter().any(|base| self.reads[group].contains(base));
            let level = self.level_in(node, group)?;
            shares.then_some((group, level))
        })
    }

    /// At which level the node would compute in the group, if its shape fits.
    fn level_in(&self, node: &Node, group: usize) -> Option<Level> {
        let (group, size) = (&self.groups[group], self.sizes[group]);
        if !group.fusible || size >= MAX_NODES {
            return None;
        }
        if let Kind::Reduce { axes, .. } = &node.kind {
            let fits = node.domain == group.shape && (group.axes.is_empty() || group.axes == *axes);
            return fits.then_some(Level::Full);
        }
        if node.shape == group.shape {
            return Some(Level::Full);
        }
        (!group.axes.is_empty() && node.shape == group.kept()).then_some(Level::Kept)
    }

    /// Whether a node at `level` of `group` finds this operand in a register of the same group.
    fn is_register(&self, access: &Access, group: usize, level: Level) -> bool {
        self.of[access.base as usize] == Some(group)
            && reads_register(&self.groups[group], access, level, self.level[access.base as usize])
    }

    /// Move nodes into the one group that uses them.
    fn sink(&mut self) {
        let mut users: Vec<Vec<(NodeIndex, usize)>> = vec![Vec::new(); self.lowered.nodes.len()];
        for (index, node) in self.lowered.nodes.iter().enumerate() {
            for (position, access) in node.operands.iter().enumerate() {
                users[access.base as usize].push((index as NodeIndex, position));
            }
        }
        let outputs: HashSet<NodeIndex> = self.lowered.outputs.iter().copied().collect();
        for from in visiting((0..self.groups.len()).rev()) {
            if let Some(into) = self.only_reader(from, &users, &outputs) {
                self.groups[into].axes = self.groups[from].axes.clone();
                self.merge(from, into);
            }
        }
        for index in (0..self.lowered.nodes.len()).rev() {
            let node = &self.lowered.nodes[index];
            let reduces = matches!(node.kind, Kind::Reduce { .. });
            let movable = matches!(node.kind, Kind::Map(_) | Kind::Cast | Kind::Copy) || reduces;
            let output = outputs.contains(&(index as NodeIndex));
            let Some(&(first, _)) = users[index].first() else { continue };
            if !movable || output || self.of[first as usize] == self.of[index] {
                continue;
            }
            let Some(target) = self.of[first as usize] else { continue };
            if visiting(&users[index]).any(|&(user, _)| self.of[user as usize] != Some(target)) {
                continue;
            }
            let Some(level) = self.level_in(node, target) else { continue };
            let level = if reduces { Level::Kept } else { level };
            if !reduces && level == Level::Full && self.joins_reductions(node) {
                continue;
            }
            if reduces && !self.may_wait(node, self.of[index], target, &users) {
                continue;
            }
            let from_register = |&(user, position): &(NodeIndex, usize)| {
                let user_node = self.node(user);
                // A reduction reads its operand at every point.
                let at = match user_node.kind {
                    Kind::Reduce { .. } => Level::Full,
                    _ => self.level[user as usize],
                };
                reads_register(&self.groups[target], &user_node.operands[position], at, level)
            };
            if users[index].iter().all(from_register) {
                self.relocate(index as NodeIndex, target, level);
            }
        }
    }

    /// The group that alone reads what a group of reductions along rows leaves (values of every point among that), if it computes over the
    /// same index space, point by point, and reduces nothing itself: the other one may wait for it, and nothing is stored between them.
    fn only_reader(
        &self,
        from: usize,
        users: &[Vec<(NodeIndex, usize)>],
        outputs: &HashSet<NodeIndex>,
    ) -> Option<usize> {
        let group = &self.groups[from];
        let rows = group.shape.len() - group.axes.len()..group.shape.len();
        if !group.fusible || rows.is_empty() || !rows.eq(group.axes.iter().copied()) {
            return None;
        }
        let (mut only, mut full) = (None, false);
        for &index in visiting(&group.nodes).filter(|&&index| self.of[index as usize] == Some(from)) {
            if outputs.contains(&index) {
                return None;
            }
            for &(user, position) in visiting(&users[index as usize]) {
                let (reader, access) = (self.of[user as usize]?, &self.node(user).operands[position]);
                if reader == from {
                    continue;
                }
                let along = reads_register(group, access, Level::Full, self.level[index as usize]);
                if only.is_some_and(|only| only != reader) || !along {
                    return None;
                }
                only = Some(reader);
                full |= self.level[index as usize] == Level::Full;
            }
        }
        only.filter(|&only| {
            let reader = &self.groups[only];
            let fits = full && reader.fusible && reader.axes.is_empty() && reader.shape == group.shape;
            fits && self.sizes[only] + self.sizes[from] < MAX_NODES
        })
    }

    /// Whether a node computes with what several reductions leave: elsewhere it would read all of that from memory.
    fn joins_reductions(&self, node: &Node) -> bool {
        let left = |access: &&Access| self.level[access.base as usize] == Level::Kept;
        let mut bases: Vec<NodeIndex> = node.operands.iter().filter(left).map(|access| access.base).collect();
        bases.sort_unstable();
        bases.dedup();
        bases.len() > 1
    }

    /// Whether a reduction may move to a group that reduces the same axes: if what it takes in is read by nobody outside that, and its own
    /// group, if it ceases to reduce, has nothing that needs it to.
    fn may_wait(&self, node: &Node, from: Option<usize>, target: usize, users: &[Vec<(NodeIndex, usize)>]) -> bool {
        let needed = |from: usize| self.reductions[from] == 1 && self.kept[from] > 0;
        if self.groups[target].axes.is_empty() || from.is_some_and(needed) {
            return false;
        }
        let there = |&(user, _): &(NodeIndex, usize)| {
            std::ptr::eq(self.node(user), node) || self.of[user as usize] == Some(target)
        };
        node.operands.iter().all(|access| visiting(&users[access.base as usize]).all(there))
    }

    fn relocate(&mut self, index: NodeIndex, target: usize, level: Level) {
        if let Some(source) = self.of[index as usize] {
            self.sizes[source] -= 1;
            self.count(index, source, -1);
            if self.reductions[source] == 0 {
                self.groups[source].axes.clear();
            }
        }
        self.sizes[target] += 1;
        self.of[index as usize] = Some(target);
        self.level[index as usize] = level;
        self.count(index, target, 1);
        self.groups[target].nodes.push(index);
    }

    fn finish(mut self) -> Groups {
        for (position, group) in self.groups.iter_mut().enumerate() {
            visit(group.nodes.len());
            group.nodes.retain(|&node| self.of[node as usize] == Some(position));
        }
        let order = in_order(self.lowered, &self.groups, &self.of);
        let mut position = vec![0; self.groups.len()];
        order.iter().enumerate().for_each(|(new, &old)| position[old] = new);
        self.of.iter_mut().flatten().for_each(|group| *group = position[*group]);
        let mut groups: Vec<Group> = order.into_iter().map(|i| self.groups[i].clone()).collect();
        for group in &mut groups {
            visit(group.nodes.len());
            group.nodes.sort_unstable();
        }
        Groups { groups, of: self.of, level: self.level }
    }
}

/// Whether a user at level `at` reads `access`, whose base is at level `base` of the same group, point by point.
pub fn reads_register(group: &Group, access: &Access, at: Level, base: Level) -> bool {
    let kept = group.kept();
    match (at, base) {
        _ if access.offset != 0 => false,
        (Level::Full, Level::Full) => same_strides(&group.shape, &access.strides, &contiguous(&group.shape)),
        (Level::Kept, Level::Kept) => same_strides(&kept, &access.strides, &contiguous(&kept)),
        (Level::Kept, Level::Full) => false,
        (Level::Full, Level::Kept) => {
            let mut strides = contiguous(&kept).into_iter();
            let spread: Vec<i64> = (0..group.shape.len())
                .map(|axis| if group.axes.contains(&axis) { 0 } else { strides.next().unwrap_or(0) })
                .collect();
            same_strides(&group.shape, &access.strides, &spread)
        }
    }
}
