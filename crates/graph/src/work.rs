//! A count of what compiling a graph takes: nodes visited, and entries of any list that a pass walks or moves. It says how work
//! grows with a graph, which a clock on a shared machine cannot. Each thread counts for itself; nothing depends on it.

use std::cell::Cell;

thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

/// Count `n` visits. A pass calls it wherever it walks something whose length depends on the graph.
pub fn visit(n: usize) {
    VISITS.set(VISITS.get() + n as u64);
}

/// What `body` gives, and the visits that it took on this thread.
pub fn counted<T>(body: impl FnOnce() -> T) -> (T, u64) {
    let before = VISITS.get();
    let result = body();
    (result, VISITS.get() - before)
}

/// The same iterator, each of whose items counts as a visit.
pub fn visiting<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().inspect(|_| visit(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_from_where_counting_began() {
        visit(5);
        let found = counted(|| visiting(0..10).find(|&x| x == 3));
        assert_eq!(found, (Some(3), 4));
    }
}
