//! In which order groups run. Sorting them by stage respects every dependency; from there, products whose results are large wait
//! for their first use, and small groups at the end come before the last long product, beside which a device may run them.

use crate::group::Group;
use crate::lower::{Access, Kind, Lowered, Node};
use raphson_graph::flat::NodeIndex;
use raphson_graph::work::visiting;
use std::collections::{HashMap, HashSet};

/// A product of at least so many multiplications is long.
const LONG: f64 = (1 << 22) as f64;
/// A group over no more points is small, and so is a product that is not long.
const SMALL: usize = 1 << 14;
/// Inputs of more elements are worth overwriting in place.
const LARGE: usize = 1 << 12;

/// The positions of all groups that have nodes, in the order in which they run.
pub fn in_order(lowered: &Lowered, groups: &[Group], of: &[Option<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..groups.len()).filter(|&i| !groups[i].nodes.is_empty()).collect();
    order.sort_by_key(|&i| (groups[i].stage, i));
    let ordering = Ordering { lowered, groups, of };
    ordering.early(&ordering.late(&order))
}

struct Ordering<'a> {
    lowered: &'a Lowered,
    groups: &'a [Group],
    of: &'a [Option<usize>],
}

impl Ordering<'_> {
    fn node(&self, index: NodeIndex) -> &Node {
        &self.lowered.nodes[index as usize]
    }

    /// What a group reads.
    fn operands(&self, group: usize) -> impl Iterator<Item = &Access> {
        visiting(self.groups[group].nodes.iter()).flat_map(|&node| &self.node(node).operands)
    }

    /// The same order, but for products that are larger than what was computed for them: each comes right before its first use, which
    /// finds it in cache, and no memory is held for it until then.
    fn late(&self, order: &[usize]) -> Vec<usize> {
        let mut position = vec![0; self.groups.len()];
        order.iter().enumerate().for_each(|(at, &group)| position[group] = at);
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, node) in visiting(self.lowered.nodes.iter().enumerate()) {
            let Some(user) = self.of[index] else { continue };
            for of in node.operands.iter().filter_map(|access| self.of[access.base as usize]).filter(|&of| of != user) {
                if self.grows(of) {
                    users.entry(of).or_default().push(user);
                }
            }
        }
        // Where each comes to stand. Some users are such products themselves, and stand later than they did.
        let mut place = position.clone();
        for group in order.iter().rev() {
            if let Some(first) = users.get(group).and_then(|users| users.iter().map(|&user| place[user]).min()) {
                place[*group] = first;
            }
        }
        let mut late = order.to_vec();
        late.sort_by_key(|&group| (place[group], place[group] == position[group], position[group]));
        late
    }

    /// Whether a group is a product that is larger than what was computed for it. (One of inputs alone is left in its place: after it
    /// they may be overwritten.)
    fn grows(&self, group: usize) -> bool {
        let &[index] = &self.groups[group].nodes[..] else { return false };
        let node = self.node(index);
        let computed = node.operands.iter().filter(|access| self.of[access.base as usize].is_some());
        let size: usize = computed.map(|access| self.node(access.base).elements()).sum();
        matches!(node.kind, Kind::Dot) && (1..node.elements()).contains(&size)
    }

    /// The same order, but small groups behind the last long product come before it if they do not depend on it, nor on what stays
    /// behind it. What reads a large input that something there reads stays too: it may overwrite it.
    fn early(&self, order: &[usize]) -> Vec<usize> {
        let Some(last) = order.iter().rposition(|&group| self.product(group).is_some_and(|work| work >= LONG)) else {
            return order.to_vec();
        };
        let is_large =
            |access: &&Access| self.of[access.base as usize].is_none() && self.node(access.base).elements() > LARGE;
        let mut behind = HashSet::from([order[last]]);
        let mut read: HashSet<NodeIndex> =
            self.operands(order[last]).filter(is_large).map(|access| access.base).collect();
        let (mut first, mut then) = (Vec::new(), Vec::new());
        for &group in &order[last + 1..] {
            let waits = |access: &Access| {
                self.of[access.base as usize].is_some_and(|of| behind.contains(&of)) || read.contains(&access.base)
            };
            if self.is_small(group) && !self.operands(group).any(waits) {
                first.push(group);
            } else {
                behind.insert(group);
                read.extend(self.operands(group).filter(is_large).map(|access| access.base));
                then.push(group);
            }
        }
        [&order[..last], &first, &order[last..=last], &then].concat()
    }

    fn is_small(&self, group: usize) -> bool {
        let points = self.groups[group].shape.iter().product::<usize>();
        match self.product(group) {
            Some(work) => work < LONG,
            None => self.groups[group].fusible && points <= SMALL,
        }
    }

    /// Multiplications of a group that is a product or a convolution, roughly: m·k·n is √(m·k × k·n × m·n).
    fn product(&self, group: usize) -> Option<f64> {
        let &[index] = &self.groups[group].nodes[..] else { return None };
        let node = self.node(index);
        let operands = node.operand_shapes.iter().map(|shape| shape.elements() as f64);
        matches!(node.kind, Kind::Dot | Kind::Conv { .. })
            .then(|| (operands.product::<f64>() * node.elements() as f64).sqrt())
    }
}
