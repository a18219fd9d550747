//! An interpreter of PTX text: what the printer of the cuda device writes, and what its committed kernels use, executed
//! without a GPU. Threads run in warps of 32 that step together, lowest position first; blocks run one after another, the
//! warps of a block in any of several orders. Every access is checked: inside its buffer, aligned, initialised, and free
//! of races (two threads, one of them writing, nothing that orders them).
//!
//! `parse` reads the text, `decode` turns statements into instructions, `arithmetic` is what they compute, `memory` what
//! they touch, `machine` runs them; `driver` lets the device's run time run on it. An instruction outside the set is an error.

mod access;
mod arithmetic;
mod asynchronous;
mod convert;
mod decode;
pub mod driver;
mod instruction;
mod machine;
mod matrix;
mod memory;
mod parse;
mod together;

pub use machine::{Machine, Options, Order, Size};
pub use memory::Memory;
pub use parse::{Function, Module};

/// What went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// The outcome of what may fault.
pub type Outcome<T> = Result<T, Fault>;

/// A fault with this message.
fn fault<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Fault(message.into()))
}
