//! Compiled programs, by the structure of the graph that they came from. Bounded: what was used longest ago goes first.

use raphson_compile::program::{Fused, Program};
use raphson_device::{Description, Device, Loaded, Memory};
use raphson_graph::error::Result;
use raphson_graph::flat::{Graph, simplify};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The most programs that are kept for reuse.
const MAX_PROGRAMS: usize = 512;

/// The most bytes that the arenas of kept programs may take together.
const MAX_ARENA_BYTES: usize = 1 << 30;

/// A compiled program, and the device's preparation of it once it has run.
pub struct Entry {
    program: Arc<Program>,
    /// Nodes of the simplified graph.
    nodes: usize,
    loaded: Mutex<Option<Box<dyn Loaded>>>,
    /// What the device says of its preparation; false until there is one.
    brief: AtomicBool,
}

impl Entry {
    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Nodes of the graph after simplification.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Whether the program is prepared, and its run takes so little time that it need not be queued.
    pub fn is_brief(&self) -> bool {
        self.brief.load(Ordering::Relaxed)
    }

    /// Prepare the program if that has not happened, and run it. Only one thread at a time calls this: the queue's, or while
    /// that has nothing to do, the session's own.
    pub fn run(&self, device: &dyn Device, inputs: Vec<Memory>) -> Result<Vec<Memory>> {
        let mut slot = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // Out of the slot while it runs: a panic then leaves the slot empty, not half-run.
        let mut loaded = match slot.take() {
            Some(loaded) => loaded,
            None => {
                let loaded = device.load(self.program.clone())?;
                self.brief.store(loaded.is_brief(), Ordering::Relaxed);
                loaded
            }
        };
        let outputs = loaded.run(inputs);
        *slot = Some(loaded);
        outputs
    }
}

/// A graph as it was flattened, and which inputs a run may overwrite.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    graph: Graph,
    donated: Vec<bool>,
}

struct Kept {
    entry: Arc<Entry>,
    last_use: u64,
}

/// Programs by graph.
pub struct Cache {
    /// Whose dtypes programs may use.
    device: Description,
    fused: Fused,
    programs: HashMap<Key, Kept>,
    arena_bytes: usize,
    clock: u64,
    hits: usize,
    misses: usize,
}

impl Cache {
    /// An empty cache for a device.
    pub fn new(device: Description, fused: Fused) -> Cache {
        Cache { device, fused, programs: HashMap::new(), arena_bytes: 0, clock: 0, hits: 0, misses: 0 }
    }

    /// The program of a graph, compiled now if it is not known.
    pub fn program(&mut self, graph: Graph, donated: Vec<bool>) -> Result<Arc<Entry>> {
        self.clock += 1;
        let key = Key { graph, donated };
        if let Some(kept) = self.programs.get_mut(&key) {
            self.hits += 1;
            kept.last_use = self.clock;
            return Ok(kept.entry.clone());
        }
        self.misses += 1;
        let simple = simplify(&key.graph);
        simple.nodes.iter().try_for_each(|node| self.device.check_dtype("evaluate", node.dtype))?;
        let program = Arc::new(raphson_compile::compile_for(&simple, &key.donated, &self.fused)?);
        let arena_bytes = program.arena_bytes;
        self.make_room(arena_bytes);
        self.arena_bytes += arena_bytes;
        let entry = Arc::new(Entry {
            program,
            nodes: simple.nodes.len(),
            loaded: Mutex::new(None),
            brief: AtomicBool::new(false),
        });
        self.programs.insert(key, Kept { entry: entry.clone(), last_use: self.clock });
        Ok(entry)
    }

    fn make_room(&mut self, bytes: usize) {
        while !self.programs.is_empty()
            && (self.programs.len() >= MAX_PROGRAMS || self.arena_bytes.saturating_add(bytes) > MAX_ARENA_BYTES)
        {
            let mut oldest = u64::MAX;
            for kept in self.programs.values() {
                oldest = oldest.min(kept.last_use);
            }
            let arena_bytes = &mut self.arena_bytes;
            self.programs.retain(|_, kept| {
                let stays = kept.last_use != oldest;
                if !stays {
                    *arena_bytes -= kept.entry.program.arena_bytes;
                }
                stays
            });
        }
    }

    /// Programs kept.
    pub fn len(&self) -> usize {
        self.programs.len()
    }

    /// How many look-ups found a program.
    pub fn hits(&self) -> usize {
        self.hits
    }

    /// How many had to compile.
    pub fn misses(&self) -> usize {
        self.misses
    }
}
