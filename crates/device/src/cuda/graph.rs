//! A program's work as a CUDA graph: made when the program has run a few times, replayed with one call, its arguments
//! exchanged where a run has other addresses than the one before.

use super::driver::{Driver, Graph, Work};
use raphson_graph::error::Result;
use std::sync::Arc;

/// Runs launched one by one before a graph is made. Most programs of eager use never run more often.
const FIRST_RUNS: u32 = 2;
/// Below this many entries a graph saves nothing.
const FEW: usize = 2;

/// How a program's work gets on the stream.
pub struct Replayer {
    driver: Arc<dyn Driver>,
    wanted: bool,
    runs: u32,
    made: Option<(Graph, Vec<Work>)>,
}

impl Replayer {
    /// Nothing has run yet. Without `wanted` everything is launched one by one.
    pub fn new(driver: Arc<dyn Driver>, wanted: bool) -> Replayer {
        Replayer { driver, wanted, runs: 0, made: None }
    }

    /// Do this work. Runs of one program differ in addresses only.
    ///
    /// # Safety
    /// As for `Driver::launch`; functions stay loaded as long as this lives.
    pub unsafe fn run(&mut self, work: Vec<Work>) -> Result<()> {
        self.runs = self.runs.saturating_add(1);
        // SAFETY: passed on to our caller.
        unsafe {
            if !self.wanted || work.len() < FEW || self.runs <= FIRST_RUNS || self.is_mostly_different(&work) {
                return self.launch(&work);
            }
            if !self.adapt(&work)
                && let Err(error) = self.make(&work)
            {
                // Whatever a graph cannot do, launches may; if the GPU itself has failed, they say so too.
                self.wanted = false;
                return self.launch(&work).map_err(|_| error);
            }
            self.made.as_ref().map_or(Ok(()), |(graph, _)| self.driver.replay(*graph))
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn launch(&self, work: &[Work]) -> Result<()> {
        // SAFETY: passed on to our caller.
        work.iter().try_for_each(|work| unsafe { self.driver.launch(work) })
    }

    /// Whether there is a graph and exchanging so many arguments would cost more than launching.
    fn is_mostly_different(&self, work: &[Work]) -> bool {
        let Some((_, last)) = &self.made else { return false };
        2 * last.iter().zip(work).filter(|(last, work)| last != work).count() > work.len()
    }

    /// Give the graph the arguments of this run; false if there is no graph, or it cannot take them.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn adapt(&mut self, work: &[Work]) -> bool {
        let Some((graph, last)) = &mut self.made else { return false };
        for (at, (last, work)) in last.iter_mut().zip(work).enumerate() {
            if last == work {
                continue;
            }
            // SAFETY: passed on to our caller.
            if !matches!(unsafe { self.driver.update(*graph, at, work) }, Ok(true)) {
                return false;
            }
            last.clone_from(work);
        }
        true
    }

    /// Make a graph of this run, in place of the one that there is.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn make(&mut self, work: &[Work]) -> Result<()> {
        self.forget();
        // SAFETY: passed on to our caller.
        let graph = unsafe { self.driver.graph(work)? };
        self.made = Some((graph, work.to_vec()));
        Ok(())
    }

    fn forget(&mut self) {
        if let Some((graph, _)) = self.made.take() {
            self.driver.drop_graph(graph);
        }
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        self.forget();
    }
}
