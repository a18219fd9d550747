//! The language of raphson: dtypes, shapes, op rows, lazy values, derivatives (graph → graph), flat graphs and their
//! simplification. No device, no I/O.

pub mod dtype;
pub mod error;
pub mod kernel;
pub mod shape;
