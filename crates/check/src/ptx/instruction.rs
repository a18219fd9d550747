//! Decoded instructions: operands are register numbers or bits, opcodes are functions on bits. Data only.

use super::arithmetic::{Binary, Compare, Ternary, Unary};

/// Where an operand's bits come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    Register(u32),
    Bits(u64),
    Special(Special),
}

/// What the hardware knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Position in the block, by axis.
    Thread(usize),
    /// Size of the block.
    Threads(usize),
    /// Position of the block in the grid.
    Block(usize),
    /// Size of the grid.
    Blocks(usize),
    Lane,
    Warp,
}

/// base + offset
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Operand,
    pub offset: i64,
}

/// State spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Global,
    Shared,
    Constant,
    Parameter,
    /// Global, or shared where the address lies in the shared window.
    Generic,
}

/// How a shuffle finds its source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// What a vote gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    Ballot,
    Any,
    All,
}

/// Shapes of `mma.sync` (rows, columns, inner) by the type of their factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// m16n8k8, or m16n8k4
    Tf32 { inner: usize },
    /// m16n8k16, or m16n8k8
    Bf16 { inner: usize },
    /// m16n8k16, or m16n8k8
    F16 { inner: usize },
}

/// What an instruction does. Registers are named by number.
#[derive(Clone, Debug)]
pub enum Kind {
    Unary {
        f: Unary,
        to: u32,
        a: Operand,
    },
    Binary {
        f: Binary,
        to: u32,
        a: Operand,
        b: Operand,
    },
    Ternary {
        f: Ternary,
        to: u32,
        a: Operand,
        b: Operand,
        c: Operand,
    },
    /// `other` receives the opposite; `with` is combined by the second function.
    Compare {
        f: Compare,
        to: u32,
        other: Option<u32>,
        a: Operand,
        b: Operand,
        with: Option<(Binary, Operand)>,
    },
    Select {
        to: u32,
        a: Operand,
        b: Operand,
        condition: Operand,
    },
    /// Any boolean function of three words, by its table.
    Table {
        to: u32,
        a: Operand,
        b: Operand,
        c: Operand,
        table: u8,
    },
    /// Insert `length` bits of `a` at `start` of `b`.
    Insert {
        to: u32,
        a: Operand,
        b: Operand,
        start: Operand,
        length: Operand,
        wide: bool,
    },
    /// One register from parts, the lowest first, each of this many bits.
    Pack {
        to: u32,
        parts: Vec<Operand>,
        bits: u32,
    },
    Unpack {
        to: Vec<Option<u32>>,
        from: Operand,
        bits: u32,
    },
    Load {
        space: Space,
        bytes: usize,
        signed: bool,
        to: Vec<u32>,
        address: Address,
    },
    Store {
        space: Space,
        bytes: usize,
        from: Vec<Operand>,
        address: Address,
    },
    /// `to` receives what was there; `f` gives what comes of (there, b, c).
    Atomic {
        space: Space,
        bytes: usize,
        f: Ternary,
        to: Option<u32>,
        address: Address,
        b: Operand,
        c: Operand,
    },
    Shuffle {
        mode: Shuffle,
        to: u32,
        valid: Option<u32>,
        a: Operand,
        b: Operand,
        c: Operand,
        members: Operand,
    },
    Vote {
        mode: Vote,
        to: u32,
        a: Operand,
        negate: bool,
        members: Operand,
    },
    Barrier,
    WarpBarrier {
        members: Operand,
    },
    Branch {
        target: u32,
    },
    Return,
    /// Orders memory, which here is always in order.
    Nothing,
    /// `cp.async`: copy `bytes` of which `read` are read and the others zero.
    CopyAsync {
        to: Address,
        from: Address,
        bytes: usize,
        read: Option<Operand>,
    },
    CommitGroup,
    /// Wait until at most this many groups are under way.
    WaitGroup {
        pending: usize,
    },
    LoadMatrix {
        to: Vec<u32>,
        address: Address,
        transpose: bool,
    },
    Multiply {
        factors: Factors,
        to: Vec<u32>,
        a: Vec<Operand>,
        b: Vec<Operand>,
        c: Vec<Operand>,
    },
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// The predicate register that must (not) hold.
    pub guard: Option<(u32, bool)>,
    pub kind: Kind,
    /// The statement, for messages.
    pub text: String,
}
