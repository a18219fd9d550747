//! Running kernels: blocks one after another, the warps of a block by turns up to their next barrier, the lanes of a warp
//! together. Lanes part at branches; those with the lowest position go first, so they meet again behind. In the mixed order
//! any lanes that stand together may go on, for a few instructions, and meet only where an instruction says so: a GPU promises
//! no more.

use super::asynchronous::Copies;
use super::instruction::{Address, Instruction, Kind, Operand, Space, Special};
use super::memory::{Memory, Region, Who};
use super::parse::{Function, Module};
use super::{Fault, Outcome, fault, matrix};

pub const LANES: usize = 32;

/// In which order blocks, and the warps of a block, get their turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Backward,
    /// Warps take turns of a few instructions, and so do lanes that have parted, drawn from this seed; blocks go forward.
    Mixed(u64),
}

/// The next number of a sequence; the upper bits are the good ones.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub order: Order,
    /// Instructions of a warp after which a launch counts as endless.
    pub most_steps: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { order: Order::Forward, most_steps: 1 << 26 }
    }
}

/// Sizes of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory on top of what the kernel declares.
    pub shared_bytes: usize,
}

impl Size {
    /// One dimension.
    pub fn line(grid: u32, block: u32) -> Size {
        Size { grid: [grid, 1, 1], block: [block, 1, 1], shared_bytes: 0 }
    }
}

/// A machine: global memory, and the time in launches.
#[derive(Default)]
pub struct Machine {
    pub memory: Memory,
    pub options: Options,
    launches: u32,
    /// Instructions executed, counted by warp.
    pub steps: u64,
}

impl Machine {
    /// A machine with these options.
    pub fn new(options: Options) -> Machine {
        Machine { options, ..Machine::default() }
    }

    /// Run a kernel of a module.
    pub fn launch(&mut self, module: &Module, entry: &str, size: Size, arguments: &[u64]) -> Outcome<()> {
        let function = module.functions.get(entry).ok_or_else(|| Fault(format!("the module has no {entry}")))?;
        if arguments.len() != function.parameters.len() {
            let (given, wanted) = (arguments.len(), function.parameters.len());
            return fault(format!("{given} arguments for the {wanted} parameters of {entry}"));
        }
        let threads: u32 = size.block.iter().product();
        if threads == 0 || threads > function.most_threads.unwrap_or(1024).min(1024) {
            return fault(format!("{entry} cannot run with {threads} threads in a block"));
        }
        self.launches += 1;
        let n_blocks: u64 = size.grid.iter().map(|&n| u64::from(n)).product();
        for turn in 0..n_blocks {
            let block = if self.options.order == Order::Backward { n_blocks - 1 - turn } else { turn };
            let mut running = Block::new(function, &module.constants, arguments, size, block as u32, self.launches);
            running.run(&mut self.memory, self.options)?;
            self.steps += running.steps;
        }
        Ok(())
    }
}

/// A warp of a block. Registers lie by number, then by lane.
pub(super) struct Warp {
    first_thread: u32,
    positions: [u32; LANES],
    /// Lanes that have not returned.
    live: u32,
    /// Lanes at the block's barrier.
    waiting: u32,
    registers: Vec<u64>,
    /// Counts the warp's own barriers.
    pub(super) turn: u32,
    pub(super) copies: Copies,
}

/// A block in the course of running.
pub struct Block<'a> {
    pub(super) function: &'a Function,
    pub(super) constants: &'a [u8],
    pub(super) arguments: &'a [u64],
    size: Size,
    number: u32,
    launch: u32,
    phase: u32,
    /// What the mixed order draws from; none in the others.
    random: Option<u64>,
    pub shared: Region,
    pub(super) warps: Vec<Warp>,
    steps: u64,
}

impl<'a> Block<'a> {
    fn new(
        function: &'a Function,
        constants: &'a [u8],
        arguments: &'a [u64],
        size: Size,
        number: u32,
        launch: u32,
    ) -> Block<'a> {
        let threads: u32 = size.block.iter().product();
        let warps = (0..threads.div_ceil(LANES as u32)).map(|warp| {
            let first_thread = warp * LANES as u32;
            let lanes = (threads - first_thread).min(LANES as u32);
            Warp {
                first_thread,
                positions: [0; LANES],
                live: if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 },
                waiting: 0,
                // Not zero, so that a register that nothing has set shows.
                registers: vec![0xdead_beef_dead_beef; function.n_registers * LANES],
                turn: 0,
                copies: Copies::default(),
            }
        });
        let shared = Region::new("shared memory", Err(function.shared_bytes + size.shared_bytes), 1);
        Block {
            function,
            constants,
            arguments,
            size,
            number,
            launch,
            phase: 0,
            random: None,
            shared,
            warps: warps.collect(),
            steps: 0,
        }
    }

    fn run(&mut self, memory: &mut Memory, options: Options) -> Outcome<()> {
        self.random = match options.order {
            Order::Mixed(seed) => Some(seed ^ u64::from(self.number) << 32 | 1),
            Order::Forward | Order::Backward => None,
        };
        loop {
            let n = self.warps.len();
            for turn in 0..n {
                let (warp, steps) = match &mut self.random {
                    Some(random) => (draw(random) as usize % n, draw(random) % 16),
                    None if options.order == Order::Backward => (n - 1 - turn, u64::MAX),
                    None => (turn, u64::MAX),
                };
                self.run_warp(warp, steps, options.most_steps * n as u64, memory)?;
            }
            if self.warps.iter().any(|warp| warp.live & !warp.waiting != 0) {
                continue;
            }
            if self.warps.iter().all(|warp| warp.live == 0) {
                let pending = self.warps.iter().any(|warp| !warp.copies.is_done());
                return if pending { fault("asynchronous copies are under way when the block ends") } else { Ok(()) };
            }
            // Everyone who still runs waits. Whoever has returned will never come.
            let threads: u32 = self.size.block.iter().product();
            let waiting: u32 = self.warps.iter().map(|warp| warp.waiting.count_ones()).sum();
            if waiting != threads {
                return fault(format!(
                    "{}: {waiting} of {threads} threads are at a barrier, the others have returned",
                    self.function.name
                ));
            }
            self.phase += 1;
            self.warps.iter_mut().for_each(|warp| warp.waiting = 0);
        }
    }

    /// Run a warp until it is blocked, or for some steps. `most`: steps of the block that count as endless.
    fn run_warp(&mut self, warp: usize, steps: u64, most: u64, memory: &mut Memory) -> Outcome<()> {
        let mut left = steps;
        loop {
            if self.steps > most {
                return fault(format!("{} does not end", self.function.name));
            }
            let state = &self.warps[warp];
            let active = state.live & !state.waiting;
            if active == 0 || left == 0 {
                return Ok(());
            }
            let (position, group, limit) = self.next_group(warp, active);
            let done = self.run_group(warp, position, group, limit, left.min(1 << 16), memory)?;
            self.steps += done;
            left = left.saturating_sub(done);
        }
    }

    /// Which lanes go on: their position, who they are, and where others stand that they are to meet.
    fn next_group(&mut self, warp: usize, active: u32) -> (u32, u32, u32) {
        let positions = self.warps[warp].positions;
        let at =
            |position: u32| lanes(active).filter(|&lane| positions[lane] == position).fold(0, |m, lane| m | 1 << lane);
        let lowest = lanes(active).map(|lane| positions[lane]).min().unwrap_or(0);
        let group = at(lowest);
        if group == active {
            return (lowest, group, u32::MAX);
        }
        let Some(mut random) = self.random else {
            let limit = lanes(active & !group).map(|lane| positions[lane]).min().unwrap_or(u32::MAX);
            return (lowest, group, limit);
        };
        let mut able: Vec<u32> = lanes(active).map(|lane| positions[lane]).collect();
        able.sort_unstable();
        able.dedup();
        able.retain(|&position| !self.waits_for_others(warp, position, at(position), active));
        // If all wait for each other, whoever goes on will say what is wrong.
        let position = able.get(draw(&mut random) as usize % able.len().max(1)).copied().unwrap_or(lowest);
        self.random = Some(random);
        (position, at(position), u32::MAX)
    }

    /// Whether these lanes stand before something that they do together with lanes that have not come yet.
    fn waits_for_others(&self, warp: usize, position: u32, group: u32, active: u32) -> bool {
        let Some(instruction) = self.function.code.get(position as usize) else { return false };
        let named = match &instruction.kind {
            Kind::Shuffle { members, .. } | Kind::Vote { members, .. } | Kind::WarpBarrier { members } => {
                lanes(group).map(|lane| self.get(warp, lane, *members) as u32).fold(0, |all, named| all | named)
            }
            Kind::LoadMatrix { .. } | Kind::Multiply { .. } => u32::MAX,
            _ => 0,
        };
        named & active & !group != 0
    }

    /// Run lanes that stand together, until they part, are blocked, or come to where others are.
    fn run_group(
        &mut self,
        warp: usize,
        mut position: u32,
        group: u32,
        limit: u32,
        most: u64,
        memory: &mut Memory,
    ) -> Outcome<u64> {
        let code = &self.function.code[..];
        let mut done = 0;
        while position < limit && done < most {
            let Some(instruction) = code.get(position as usize) else {
                return fault(format!("{} runs past its end", self.function.name));
            };
            if self.random.is_some() && done > 0 {
                let state = &self.warps[warp];
                let active = state.live & !state.waiting;
                if group != active && self.waits_for_others(warp, position, group, active) {
                    break;
                }
            }
            done += 1;
            let lanes_here = self.guarded(warp, group, instruction);
            match &instruction.kind {
                Kind::Branch { target } => {
                    if lanes_here == group {
                        // Backwards: whoever stands lower goes first again.
                        let back = *target <= position;
                        position = *target;
                        if back {
                            break;
                        }
                        continue;
                    }
                    position += 1;
                    if lanes_here != 0 {
                        self.move_lanes(warp, group & !lanes_here, position);
                        self.move_lanes(warp, lanes_here, *target);
                        return Ok(done);
                    }
                    continue;
                }
                Kind::Return if lanes_here != 0 => {
                    self.warps[warp].live &= !lanes_here;
                    self.move_lanes(warp, group, position + 1);
                    return Ok(done);
                }
                Kind::Barrier if lanes_here != 0 => {
                    self.warps[warp].waiting |= lanes_here;
                    self.move_lanes(warp, group, position + 1);
                    return Ok(done);
                }
                _ => {}
            }
            if lanes_here != 0 {
                self.execute(warp, lanes_here, instruction, memory)
                    .map_err(|Fault(why)| Fault(format!("{}: `{}`: {why}", self.function.name, instruction.text)))?;
            }
            position += 1;
        }
        self.move_lanes(warp, group, position);
        Ok(done)
    }

    fn move_lanes(&mut self, warp: usize, group: u32, position: u32) {
        lanes(group).for_each(|lane| self.warps[warp].positions[lane] = position);
    }

    fn guarded(&self, warp: usize, group: u32, instruction: &Instruction) -> u32 {
        let Some((register, holds)) = instruction.guard else { return group };
        let values = &self.warps[warp].registers[register as usize * LANES..][..LANES];
        lanes(group).filter(|&lane| (values[lane] & 1 == 1) == holds).fold(0, |mask, lane| mask | 1 << lane)
    }

    /// An operand at a lane.
    pub fn get(&self, warp: usize, lane: usize, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.warps[warp].registers[register as usize * LANES + lane],
            Operand::Bits(bits) => bits,
            Operand::Special(special) => self.special(warp, lane, special),
        }
    }

    /// Set a register at a lane.
    pub fn set(&mut self, warp: usize, lane: usize, register: u32, value: u64) {
        self.warps[warp].registers[register as usize * LANES + lane] = value;
    }

    fn special(&self, warp: usize, lane: usize, special: Special) -> u64 {
        let split = |number: u32, sizes: [u32; 3], axis: usize| match axis {
            0 => number % sizes[0],
            1 => number / sizes[0] % sizes[1],
            _ => number / sizes[0] / sizes[1],
        };
        let thread = self.warps[warp].first_thread + lane as u32;
        u64::from(match special {
            Special::Thread(axis) => split(thread, self.size.block, axis),
            Special::Threads(axis) => self.size.block[axis],
            Special::Block(axis) => split(self.number, self.size.grid, axis),
            Special::Blocks(axis) => self.size.grid[axis],
            Special::Lane => lane as u32,
            Special::Warp => warp as u32,
        })
    }

    pub fn who(&self, warp: usize, lane: usize) -> Who {
        let state = &self.warps[warp];
        let thread = state.first_thread + lane as u32;
        Who { launch: self.launch, block: self.number, phase: self.phase, thread, turn: state.turn }
    }

    /// The address of an access at a lane.
    pub fn address(&self, warp: usize, lane: usize, address: Address, space: Space) -> u64 {
        let base = self.get(warp, lane, address.base);
        let sum = base.wrapping_add(address.offset as u64);
        // Shared and constant addresses may be held in 32 bits.
        if matches!(space, Space::Shared) { sum & 0xffff_ffff } else { sum }
    }

    fn execute(&mut self, warp: usize, mask: u32, instruction: &Instruction, memory: &mut Memory) -> Outcome<()> {
        match &instruction.kind {
            Kind::Unary { f, to, a } => {
                for lane in lanes(mask) {
                    let value = f(self.get(warp, lane, *a));
                    self.set(warp, lane, *to, value);
                }
            }
            Kind::Binary { f, to, a, b } => {
                for lane in lanes(mask) {
                    let value = f(self.get(warp, lane, *a), self.get(warp, lane, *b));
                    self.set(warp, lane, *to, value);
                }
            }
            Kind::Ternary { f, to, a, b, c } => {
                for lane in lanes(mask) {
                    let value = f(self.get(warp, lane, *a), self.get(warp, lane, *b), self.get(warp, lane, *c));
                    self.set(warp, lane, *to, value);
                }
            }
            Kind::Load { .. } | Kind::Store { .. } | Kind::Atomic { .. } => {
                for lane in lanes(mask) {
                    self.access(warp, lane, &instruction.kind, memory)?;
                }
            }
            Kind::Shuffle { .. } | Kind::Vote { .. } | Kind::WarpBarrier { .. } => {
                self.together(warp, mask, &instruction.kind)?;
            }
            Kind::LoadMatrix { to, address, transpose } => {
                matrix::load(self, warp, mask, to, *address, *transpose)?;
            }
            Kind::Multiply { factors, to, a, b, c } => {
                matrix::multiply(self, warp, mask, *factors, to, [&a[..], &b[..], &c[..]])?;
            }
            Kind::CopyAsync { .. } | Kind::CommitGroup | Kind::WaitGroup { .. } => {
                for lane in lanes(mask) {
                    self.copy(warp, lane, &instruction.kind, memory)?;
                }
            }
            kind => {
                for lane in lanes(mask) {
                    self.simple(warp, lane, kind);
                }
            }
        }
        Ok(())
    }

    /// Instructions of one lane without memory.
    fn simple(&mut self, warp: usize, lane: usize, kind: &Kind) {
        match kind {
            Kind::Compare { f, to, other, a, b, with } => {
                let mut value = u64::from(f(self.get(warp, lane, *a), self.get(warp, lane, *b)));
                let mut opposite = value ^ 1;
                if let Some((combine, operand)) = with {
                    let operand = self.get(warp, lane, *operand) & 1;
                    (value, opposite) = (combine(value, operand), combine(opposite, operand));
                }
                self.set(warp, lane, *to, value);
                if let Some(other) = other {
                    self.set(warp, lane, *other, opposite);
                }
            }
            Kind::Select { to, a, b, condition } => {
                let holds = self.get(warp, lane, *condition) & 1 == 1;
                let value = self.get(warp, lane, if holds { *a } else { *b });
                self.set(warp, lane, *to, value);
            }
            Kind::Table { to, a, b, c, table } => {
                let [a, b, c] = [a, b, c].map(|&operand| self.get(warp, lane, operand) as u32);
                let bit = |row: u8, inside: u32| if table >> row & 1 == 1 { inside } else { 0 };
                let value = (0..8u8).fold(0, |value, row| {
                    let pick = |x: u32, on: u8| if row & on != 0 { x } else { !x };
                    value | bit(row, pick(a, 4) & pick(b, 2) & pick(c, 1))
                });
                self.set(warp, lane, *to, u64::from(value));
            }
            Kind::Insert { to, a, b, start, length, wide } => {
                let [a, b, start, length] = [a, b, start, length].map(|&operand| self.get(warp, lane, operand));
                let (start, length) = (start & 0xff, length & 0xff);
                let width = if *wide { 64 } else { 32 };
                let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
                let field = if start >= width { 0 } else { ones << start };
                let moved = if start >= width { 0 } else { a << start };
                let value = (b & !field) | (moved & field);
                self.set(warp, lane, *to, if *wide { value } else { value & 0xffff_ffff });
            }
            Kind::Pack { to, parts, bits } => {
                let mask = u64::MAX >> (64 - bits);
                let value =
                    parts.iter().rev().fold(0, |value, &part| (value << bits) | (self.get(warp, lane, part) & mask));
                self.set(warp, lane, *to, value);
            }
            Kind::Unpack { to, from, bits } => {
                let mut value = self.get(warp, lane, *from);
                for register in to {
                    if let Some(register) = register {
                        self.set(warp, lane, *register, value & (u64::MAX >> (64 - bits)));
                    }
                    value >>= bits;
                }
            }
            // Branches, barriers and returns are handled where lanes are steered; the rest is done together.
            _ => {}
        }
    }
}

/// The lanes of a mask.
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        (lane < 32).then(|| {
            rest &= rest - 1;
            lane as usize
        })
    })
}
